//! Counts as words.

/// `first` to `tenth`, then `11th`, `22nd`.
pub(super) fn ordinal(n: u32) -> String {
    const WORDS: [&str; 11] =
        ["no", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    if let Some(word) = usize::try_from(n).ok().and_then(|n| WORDS.get(n)) {
        return (*word).to_owned();
    }
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinal_is_a_word_up_to_ten_and_a_number_beyond() {
        let written = [1, 3, 10, 11, 12, 13, 21, 22, 23, 24, 111, 112].map(ordinal);
        let expected = "first third tenth 11th 12th 13th 21st 22nd 23rd 24th 111th 112th";
        assert_eq!(written.join(" "), expected);
    }
}
