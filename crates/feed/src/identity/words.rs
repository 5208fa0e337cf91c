//! The words of a text as a reader sees them, hashed: without markup, without addresses, without white space.

use memchr::{memchr, memchr3, memmem};
use news::hash_prefix;
use sha2::{Digest, Sha256};

/// A buffer for words, used again for every text.
#[derive(Default)]
pub(super) struct Words {
    buffer: Vec<u8>,
}

impl Words {
    /// Hash of the words of these texts, plain or sanitised HTML; 0 if there are none.
    pub(super) fn hash_of_body<const N: usize>(&mut self, texts: [&str; N]) -> u64 {
        self.buffer.clear();
        for text in texts {
            self.add(text);
        }
        self.hash()
    }

    /// Hash of a line of plain text without its white space; 0 if it is empty.
    pub(super) fn hash_of_line(&mut self, line: &str) -> u64 {
        self.buffer.clear();
        line.split_whitespace().for_each(|word| self.buffer.extend_from_slice(word.as_bytes()));
        self.hash()
    }

    fn hash(&self) -> u64 {
        if self.buffer.is_empty() { 0 } else { hash_prefix(&Sha256::digest(&self.buffer).into()).max(1) }
    }

    fn add(&mut self, mut html: &str) {
        let has = |text: &str| memmem::find(html.as_bytes(), text.as_bytes()).is_some();
        let plain = !has("://") && !has(NO_BREAK_SPACE);
        while let Some(at) = memchr(b'<', html.as_bytes()) {
            let end = end_of_tag(&html[at..]);
            self.add_text(&html[..at + usize::from(end.is_none())], plain);
            html = &html[at + end.unwrap_or(1)..];
        }
        self.add_text(html, plain);
    }

    /// A `plain` text has neither addresses nor references to a space.
    fn add_text(&mut self, text: &str, plain: bool) {
        if plain {
            text.split_whitespace().for_each(|word| self.buffer.extend_from_slice(word.as_bytes()));
            return;
        }
        for word in text.split_whitespace() {
            let mut rest = word;
            while let Some((before, address)) = rest.split_once("://") {
                self.add_word(before.trim_end_matches(|c: char| c.is_ascii_alphanumeric()));
                rest = address.trim_start_matches(|c: char| c.is_ascii_graphic());
            }
            self.add_word(rest);
        }
    }

    fn add_word(&mut self, word: &str) {
        word.split(NO_BREAK_SPACE).for_each(|part| self.buffer.extend_from_slice(part.as_bytes()));
    }
}

/// How the serialiser of the sanitiser writes U+00A0.
const NO_BREAK_SPACE: &str = "&nbsp;";

/// The length of the tag that the text begins with; `None` if it begins with no tag but with plain text.
fn end_of_tag(html: &str) -> Option<usize> {
    let bytes = html.as_bytes();
    if !bytes.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr3(b'>', b'"', b'\'', &bytes[at..])?;
        match bytes[at] {
            b'>' => return Some(at + 1),
            // Only a value has quotes around it; an apostrophe elsewhere is text.
            quote if bytes[at - 1] == b'=' => at += memchr(quote, &bytes[at + 1..])? + 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> u64 {
        Words::default().hash_of_body([text])
    }

    #[test]
    fn markup_addresses_and_white_space_are_no_words() {
        let text = hash("<p>One <b>two</b> three</p>");
        for other in [
            "One two three",
            "<p>One</p>\n<p>two\u{a0}three</p>",
            "<div class=\"x > y\">One&nbsp;two<img src=\"https://cdn1.example/a.jpg?sig=5\"> three</div>",
            "<a href=\"https://x.example/?s=1\">One</a> two https://x.example/?s=2 three",
        ] {
            assert_eq!(hash(other), text, "{other}");
        }
        for other in ["One two Three", "One two three.", "One two", "<p>One < two</p> three", ""] {
            assert_ne!(hash(other), text, "{other}");
        }
    }

    #[test]
    fn an_address_among_letters_without_spaces_is_left_out_alone() {
        let text = hash("詳細はhttp://x.example/1をご覧ください");
        assert_eq!(hash("詳細はhttps://x.example/2?s=1をご覧ください"), text);
        assert_ne!(hash("詳細はhttp://x.example/1をご覧下さい"), text);
        assert_ne!(hash("詳しくはhttp://x.example/1をご覧ください"), text);
    }

    #[test]
    fn plain_text_with_signs_is_read_to_its_end() {
        assert_ne!(hash("if a <b then c"), hash("if a <b then d"));
        assert_ne!(hash("1 < 2"), hash("1 < 3"));
        assert_ne!(hash("x <a href=\"y"), hash("x <a href=\"z"));
        assert_eq!((hash(""), hash(" <br> ")), (0, 0));
    }
}
