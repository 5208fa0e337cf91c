//! A lexer of HTML: linear time, no tree.

use memchr::{memchr, memmem};

/// A piece of HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HtmlToken<'a> {
    /// Text with undecoded references.
    Text(&'a str),
    /// A start tag; `source` is the whole tag.
    Open { name: &'a str, attributes: &'a str, source: &'a str },
    /// An end tag.
    Close { name: &'a str, source: &'a str },
}

/// Elements that are skipped with their content.
const SKIPPED: [&str; 10] =
    ["script", "style", "iframe", "noembed", "noframes", "xmp", "textarea", "template", "object", "select"];

/// Iterates over [`HtmlToken`]s. Comments, declarations and the content of scripts and similar elements are skipped.
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    /// From this offset on no tag is closed: everything is text.
    only_text: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(html: &'a str) -> Self {
        Self { rest: html, only_text: false }
    }

    fn text(&mut self, end: usize) -> HtmlToken<'a> {
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        HtmlToken::Text(text)
    }

    /// Skips comments (`<!-- -->`), declarations and processing instructions.
    fn skip_past(&mut self, from: usize, end: &str) {
        self.rest = match memmem::find(&self.rest.as_bytes()[from..], end.as_bytes()) {
            Some(at) => &self.rest[from + at + end.len()..],
            None => "",
        };
    }

    /// Skips the content of an element including its end tag.
    fn skip_element(&mut self, name: &str) {
        let mut from = 0;
        while let Some(at) = self.rest[from..].find("</") {
            from += at + 2;
            let rest = self.rest.as_bytes();
            if rest[from..].len() >= name.len()
                && rest[from..from + name.len()].eq_ignore_ascii_case(name.as_bytes())
            {
                let end = self.rest[from..].find('>').map_or(self.rest.len(), |n| from + n + 1);
                self.rest = &self.rest[end..];
                return;
            }
        }
        self.rest = "";
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = HtmlToken<'a>;

    fn next(&mut self) -> Option<HtmlToken<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let start = if self.only_text { None } else { memchr(b'<', self.rest.as_bytes()) };
            match start {
                None => return Some(self.text(self.rest.len())),
                Some(0) => {}
                Some(start) => return Some(self.text(start)),
            }
            let rest = self.rest;
            if rest.starts_with("<!--") {
                self.skip_past(4, "-->");
                continue;
            }
            if rest.starts_with("<!") || rest.starts_with("<?") {
                self.skip_past(2, ">");
                continue;
            }
            let closes = rest[1..].starts_with('/');
            let name_at = 1 + usize::from(closes);
            let name = name_at_start(&rest[name_at..]);
            if name.is_empty() {
                return Some(self.text(1));
            }
            let Some(end) = tag_end(rest, name_at + name.len()) else {
                self.only_text = true;
                continue;
            };
            self.rest = &rest[end + 1..];
            let source = &rest[..=end];
            if closes {
                return Some(HtmlToken::Close { name, source });
            }
            let attributes = &rest[name_at + name.len()..end];
            if SKIPPED.iter().any(|s| s.eq_ignore_ascii_case(name)) && !attributes.ends_with('/') {
                self.skip_element(name);
                continue;
            }
            return Some(HtmlToken::Open { name, attributes, source });
        }
    }
}

/// The name of a tag: begins with a letter, ends before whitespace, `/` or `>`.
fn name_at_start(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return "";
    }
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '<' | '"' | '\'' | '=' | '&'));
    &text[..end.unwrap_or(text.len())]
}

/// The offset of the `>` of a tag. Quotes count only where a value begins; one that continues into the next tag or to the
/// end is unclosed.
fn tag_end(tag: &str, from: usize) -> Option<usize> {
    let (mut quote, mut value, mut end_in_quote) = (None, false, None);
    for (n, b) in tag.as_bytes().iter().enumerate().skip(from) {
        match (quote, b) {
            (Some(q), b) if q == *b => quote = None,
            (Some(_), b'>') => end_in_quote = end_in_quote.or(Some(n)),
            (Some(_), b'<') if end_in_quote.is_some() => return end_in_quote,
            (Some(_), _) | (None, b' ' | b'\t' | b'\n' | b'\r') => {}
            (None, b'>') => return Some(n),
            (None, b'"' | b'\'') if value => (quote, value, end_in_quote) = (Some(*b), false, None),
            (None, b) => value = *b == b'=',
        }
    }
    end_in_quote.filter(|_| quote.is_some())
}

/// The attributes of a tag with undecoded values.
pub(crate) fn attributes(source: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = source;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return None;
        }
        let end =
            rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len());
        let name = &rest[..end.max(1)];
        rest = rest[end.max(1)..].trim_start();
        let Some(value) = rest.strip_prefix('=') else { return Some((name, "")) };
        let value = value.trim_start();
        let (value, after) = match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            Some(quote) => {
                let value = &value[1..];
                memchr(quote as u8, value.as_bytes()).map_or((value, ""), |n| (&value[..n], &value[n + 1..]))
            }
            None => value.split_at(value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len())),
        };
        rest = after;
        Some((name, value))
    })
}

/// Element names of HTML, sorted.
#[rustfmt::skip]
const KNOWN: [&str; 140] = [
    "a", "abbr", "acronym", "address", "applet", "area", "article", "aside", "audio", "b", "base",
    "basefont", "bdi", "bdo", "bgsound", "big", "blink", "blockquote", "body", "br", "button", "canvas",
    "caption", "center", "cite", "code", "col", "colgroup", "data", "datalist", "dd", "del", "details",
    "dfn", "dialog", "dir", "div", "dl", "dt", "em", "embed", "fieldset", "figcaption", "figure",
    "font", "footer", "form", "frame", "frameset", "h1", "h2", "h3", "h4", "h5", "h6",
    "head", "header", "hgroup", "hr", "html", "i", "iframe", "image", "img", "input", "ins",
    "isindex", "kbd", "keygen", "label", "legend", "li", "link", "listing", "main", "map", "mark",
    "marquee", "math", "menu", "meta", "meter", "nav", "nobr", "noembed", "noframes", "noscript", "object",
    "ol", "optgroup", "option", "output", "p", "param", "picture", "plaintext", "pre", "progress", "q",
    "rb", "rp", "rt", "rtc", "ruby", "s", "samp", "script", "search", "section", "select",
    "slot", "small", "source", "span", "strike", "strong", "style", "sub", "summary", "sup", "svg",
    "table", "tbody", "td", "template", "textarea", "tfoot", "th", "thead", "time", "title", "tr",
    "track", "tt", "u", "ul", "var", "video", "wbr", "xmp",
];

/// The element name of HTML in lower case, if known.
pub(super) fn known(name: &str) -> Option<&'static str> {
    let by = |known: &&str| known.bytes().cmp(name.bytes().map(|b| b.to_ascii_lowercase()));
    KNOWN.binary_search_by(by).ok().map(|n| KNOWN[n])
}

/// Whether something that looks like a tag is one: an HTML name, a foreign or custom name, or any name with attributes.
/// `Vec<T>` is not.
pub(super) fn is_markup(name: &str, attributes: &str) -> bool {
    known(name).is_some() || attributes.contains('=') || name.contains([':', '-'])
}

/// Whether the tag does not separate words.
pub(super) fn is_inline(name: &str) -> bool {
    const INLINE: [&str; 31] = [
        "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i",
        "ins", "kbd", "mark", "nobr", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
        "time", "tt", "u", "var",
    ];
    known(name).is_some_and(|name| INLINE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_insensitive() {
        assert!(KNOWN.is_sorted());
        assert_eq!(
            (known("BlockQuote"), known("a"), known("xmp"), known("T")),
            (Some("blockquote"), Some("a"), Some("xmp"), None)
        );
    }

    #[test]
    fn attributes_are_read_in_all_their_spellings() {
        let read: Vec<_> = attributes(" a=1 b = \"2 3\" c='4' d /e=f checked/").collect();
        assert_eq!(read, [("a", "1"), ("b", "2 3"), ("c", "4"), ("d", ""), ("e", "f"), ("checked", "")]);
        assert_eq!(attributes("='x' \"").count(), 3);
    }

    #[test]
    fn a_tag_may_contain_a_greater_than_sign_in_quotes() {
        let tokens: Vec<_> = Lexer::new("<a title='x>y' href=z>q").collect();
        assert!(matches!(tokens[0], HtmlToken::Open { name: "a", attributes: " title='x>y' href=z", .. }));
        assert_eq!(tokens[1], HtmlToken::Text("q"));
        let tokens: Vec<_> = Lexer::new("<a href=\"x>q</a>").collect();
        assert_eq!(tokens[1..], [HtmlToken::Text("q"), HtmlToken::Close { name: "a", source: "</a>" }]);
    }
}
