//! "Did you mean": the known word that is closest to a misspelt one.

/// `; did you mean …?` for the closest of `words`; empty if none is close.
#[must_use]
pub fn suggestion<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    closest(text, words).map_or_else(String::new, |word| format!("; did you mean `{word}`?"))
}

/// The closest of `words`, in upper or lower case; `None` if none is close: at most a third of the letters may differ.
#[must_use]
pub fn closest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (text.chars().count() / 3).clamp(1, 4);
    words
        .into_iter()
        .map(|word| (distance(&text.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Number of letters to insert, delete, replace or swap with the next one to get from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 64; // no known word is longer, and the work grows with the square
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(CHARS_MAX).collect(), b.chars().take(CHARS_MAX).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_recognised_and_another_word_is_not() {
        let words = ["interval_min", "interval_max", "host_spacing"];
        assert_eq!(suggestion("intervall_min", words), "; did you mean `interval_min`?");
        assert_eq!(suggestion("interval_mni", words), "; did you mean `interval_min`?");
        assert_eq!(suggestion("hostspacing", words), "; did you mean `host_spacing`?");
        assert_eq!(suggestion("colour", words), "");
        assert_eq!(suggestion("", words), "");
    }
}
