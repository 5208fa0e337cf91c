//! One spelling for the letters and digits of a date: one case, one form, ASCII digits.

use icu_normalizer::DecomposingNormalizerBorrowed;

/// Lower case without accents, vowel marks, apostrophes in words, invisible characters, and with ASCII digits, hyphens and
/// spaces: `Ş` is `s`, `ά` is `α`, `أ` is `ا`, `２` and `٢` are `2` (Unicode's compatibility decomposition, NFKD).
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let nfkd = DecomposingNormalizerBorrowed::new_nfkd();
    for c in nfkd.normalize_iter(text.chars()) {
        let last = folded.chars().next_back();
        match c {
            // Combining marks of Latin, Greek, Cyrillic, Hebrew, Arabic and the dots under Indic letters.
            '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{655}' | '\u{93c}' | '\u{9bc}' => {
            }
            // Soft hyphens, joiners, marks of direction, lengthening.
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
            | '\u{640}' => {}
            '\'' | '\u{2019}' | '\u{2bc}' | '\u{5f3}' | '\u{5f4}' | '"' if last.is_some_and(is_letter) => {}
            '\u{2010}'..='\u{2015}' | '\u{2212}' => folded.push('-'),
            '\u{970}' => folded.push('.'),
            'ς' => folded.push('σ'),
            'ı' => folded.push('i'),
            c if c.is_whitespace() => {
                if last != Some(' ') {
                    folded.push(' ');
                }
            }
            c => match digit(c) {
                Some(digit) => folded.push(digit),
                None => folded.extend(c.to_lowercase()),
            },
        }
    }
    folded
}

/// The ASCII digit of an Arabic, Persian, Devanagari or Bengali one.
fn digit(c: char) -> Option<char> {
    [0x660, 0x6f0, 0x966, 0x9e6].iter().find_map(|zero| {
        let value = u32::from(c).checked_sub(*zero)?;
        char::from_digit(value, 10)
    })
}

/// Letters, and the sign that silences the vowel of a Devanagari or Bengali letter.
pub(super) fn is_letter(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '\u{94d}' | '\u{9cd}')
}
