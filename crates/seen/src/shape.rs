//! The words of an item without numbers and signs: what stays while a counter counts.

use news::{Item, stable_hash};

/// Hash of the letters of title and text; 0 if there are none. Markup and addresses are left out.
pub(crate) fn shape_of(item: &Item) -> u32 {
    let mut letters = Vec::with_capacity(item.title.len() + item.summary.len());
    add_letters(&item.title, &mut letters);
    letters.push(0);
    let from = letters.len();
    match &item.content_html {
        Some(html) => add_letters_of_html(html, &mut letters),
        None => add_letters(&item.summary, &mut letters),
    }
    if from == 1 && letters.len() == from {
        return 0;
    }
    let [a, b, c, d, ..] = stable_hash(&letters).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

fn add_letters_of_html(html: &str, letters: &mut Vec<u8>) {
    for part in html.split('<') {
        // Of sanitised HTML only a tag begins with `<`.
        let text = part.split_once('>').map_or(part, |(_, text)| text);
        add_letters(text, letters);
    }
}

fn add_letters(text: &str, letters: &mut Vec<u8>) {
    // Most words have no colon, and are ASCII: those need no search, and no characters.
    let is_address = |word: &str| word.contains(':') && word.contains("://");
    for word in text.split_ascii_whitespace().filter(|word| !is_address(word)) {
        if word.is_ascii() {
            let parts = word.as_bytes().split(|byte| !byte.is_ascii_alphabetic());
            parts.for_each(|part| letters.extend_from_slice(part));
            continue;
        }
        for c in word.chars().filter(|c| c.is_alphabetic()) {
            letters.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(title: &str, html: &str) -> u32 {
        shape_of(&Item { title: title.to_owned(), content_html: Some(html.to_owned()), ..Item::default() })
    }

    #[test]
    fn numbers_signs_markup_and_addresses_are_no_part_of_the_shape() {
        let one = shape("Story (11 comments)", "<p>Points: 41</p>");
        assert_eq!(
            shape("Story (9 comments)", "<b>Points</b>: 1,042. <a href=\"http://x.example/a\"></a>"),
            one
        );
        assert_eq!(shape("Story (9 comments)", "Points: 5 http://x.example/b"), one);
        assert_ne!(shape("Story (11 comments)", "<p>Marks: 41</p>"), one);
        assert_ne!(shape("Story (11 comments) Points", ": 41"), one, "title and text are apart");
        assert_eq!(shape("1", "<p>2</p>"), 0);
        let plain = Item { title: "Story".to_owned(), summary: "Points: 4".to_owned(), ..Item::default() };
        assert_eq!(shape_of(&plain), shape("Story", "Points: 5"));
    }
}
