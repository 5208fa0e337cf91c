//! The words of a text as a reader sees them, hashed: without markup, without addresses, without white space.

use memchr::{memchr, memchr2, memchr3};

/// Bytes that are hashed at once.
const BLOCK: usize = 1024;
/// How the serialiser of the sanitiser writes characters that have a meaning in HTML, and U+00A0.
const REFERENCES: [(&str, &str); 5] =
    [("&amp;", "&"), ("&nbsp;", ""), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\"")];
const NO_BREAK_SPACE: &str = "\u{a0}";

/// Hash of the words of the longer text of the two, sanitised HTML and plain; 0 if there are none. Publishers put the same
/// words here and there, or into both.
pub(super) fn hash_of_body(html: &str, plain: &str) -> u64 {
    let mut words = Words::new(TextKind::Html);
    words.add_html(html);
    if words.len() >= plain.len() as u64 {
        return words.finish();
    }
    let mut others = Words::new(TextKind::Plain);
    others.add_text(plain);
    if words.len() >= others.len() { words.finish() } else { others.finish() }
}

/// Hash of a line of plain text without its white space; 0 if it is empty.
pub(super) fn hash_of_line(line: &str) -> u64 {
    let mut words = Words::new(TextKind::Plain);
    words.push(line.as_bytes());
    words.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextKind {
    Html,
    Plain,
}

/// Collects text and hashes it, a block at a time: a document has megabytes of it. The hash is stored, so it is the same
/// for ever; it is no cryptographic one, because a publisher who makes two texts collide hides only their own edit.
struct Words {
    kind: TextKind,
    hash: u64,
    bytes: u64,
    block: [u8; BLOCK],
    filled: usize,
}

impl Words {
    fn new(kind: TextKind) -> Self {
        Self { kind, hash: 0xcbf2_9ce4_8422_2325, bytes: 0, block: [0; BLOCK], filled: 0 }
    }

    /// Adds text without its spaces and line breaks.
    fn push(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let (part, after) = text.split_at(text.len().min(BLOCK - self.filled));
            let mut filled = self.filled;
            for byte in part {
                // Without a branch per byte, and without a check of the index.
                self.block[filled % BLOCK] = *byte;
                filled += usize::from(*byte > b' ');
            }
            (self.filled, text) = (filled, after);
            if filled == BLOCK {
                self.flush();
            }
        }
    }

    /// Hashes the block, eight bytes at a time; of the last block the rest is zeros.
    fn flush(&mut self) {
        self.bytes += self.filled as u64;
        self.block[self.filled..].fill(0);
        let (chunks, _) = self.block[..self.filled.next_multiple_of(8)].as_chunks::<8>();
        for chunk in chunks {
            self.hash = mixed(self.hash ^ u64::from_le_bytes(*chunk));
        }
        self.filled = 0;
    }

    /// Bytes of the words so far.
    fn len(&self) -> u64 {
        self.bytes + self.filled as u64
    }

    fn finish(mut self) -> u64 {
        self.flush();
        if self.bytes == 0 { 0 } else { mixed(mixed(self.hash ^ self.bytes)).max(1) }
    }

    fn add_html(&mut self, mut html: &str) {
        while let Some(at) = memchr(b'<', html.as_bytes()) {
            let end = end_of_tag(&html[at..]);
            self.add_text(&html[..at + usize::from(end.is_none())]);
            html = &html[at + end.unwrap_or(1)..];
        }
        self.add_text(html);
    }

    fn add_text(&mut self, text: &str) {
        // An address has a colon; a no-break space begins with the byte C2, or with `&` as a reference.
        if memchr3(b':', b'&', 0xc2, text.as_bytes()).is_none() {
            self.push(text.as_bytes());
        } else {
            self.add_without_addresses(text);
        }
    }

    /// Adds text without addresses, from their scheme to the first character that none has.
    fn add_without_addresses(&mut self, mut text: &str) {
        while let Some((before, address)) = text.split_once("://") {
            self.add_spaced(before.trim_end_matches(|c: char| c.is_ascii_alphanumeric()));
            text = address.trim_start_matches(|c: char| c.is_ascii_graphic());
        }
        self.add_spaced(text);
    }

    /// Adds text without no-break spaces, and references as what they stand for.
    fn add_spaced(&mut self, mut text: &str) {
        while let Some(at) = memchr2(b'&', 0xc2, text.as_bytes()) {
            self.push(&text.as_bytes()[..at]);
            // A character that begins with the byte C2 has two.
            let here = &text.as_bytes()[at..];
            let reference = REFERENCES
                .iter()
                .find(|(name, _)| self.kind == TextKind::Html && here.starts_with(name.as_bytes()));
            let len = match reference {
                Some((name, character)) => {
                    self.push(character.as_bytes());
                    name.len()
                }
                None if here.starts_with(NO_BREAK_SPACE.as_bytes()) => NO_BREAK_SPACE.len(),
                None => {
                    let len = if here[0] == b'&' { 1 } else { 2 };
                    self.push(&here[..len]);
                    len
                }
            };
            text = &text[at + len..];
        }
        self.push(text.as_bytes());
    }
}

/// Every bit of the result depends on every bit of the number: half a round of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number ^ (number >> 29)
}

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
        hash_of_body(text, "")
    }

    #[test]
    fn the_same_words_are_the_same_text_wherever_they_stand() {
        for (html, plain) in [
            ("<p>One &amp; two &lt;b&gt; three</p>", "One & two <b> three"),
            ("One&nbsp;two £5 &quot;é&quot;", "One\u{a0}two £5 \"é\""),
            (
                "<p>See <a href=\"http://x.example/?a=1&amp;b=2\">http://x.example/?a=1&amp;b=2</a></p> now",
                "See now",
            ),
            ("a &amp;lt; b", "a &lt; b"),
        ] {
            let hash = hash_of_body(html, "");
            assert_eq!(hash_of_body("", plain), hash, "{plain}");
            assert_eq!(hash_of_body(html, plain), hash, "{plain}");
            assert_eq!(hash_of_body(html, "One"), hash, "a shorter summary");
            assert_eq!(hash_of_body("<img src=\"http://x.example/1.jpg\">", plain), hash, "a picture");
            assert_ne!(hash_of_body(html, &format!("{plain} and something that is longer than that")), hash);
        }
        assert_ne!(hash_of_body("", "a £ b"), hash_of_body("", "a ¥ b"));
        assert_ne!(hash_of_body("", "a & b"), hash_of_body("", "a &amp; b"), "plain text has no references");
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
