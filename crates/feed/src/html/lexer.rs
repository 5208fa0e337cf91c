//! The tags of HTML, one after the other, in linear time and without a tree.

/// A piece of HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Text, references not yet decoded.
    Text(&'a str),
    /// A start tag; `source` is all of it.
    Open { name: &'a str, attributes: &'a str, source: &'a str },
    /// An end tag.
    Close { name: &'a str, source: &'a str },
}

/// Elements whose content is no text of the article and is skipped with them.
const SKIPPED: [&str; 10] =
    ["script", "style", "iframe", "noembed", "noframes", "xmp", "textarea", "template", "object", "select"];

/// Iterates over [`Token`]s. Comments, declarations and the content of scripts and the like are left out.
pub(super) struct Lexer<'a> {
    rest: &'a str,
    /// From here on a tag would not be closed: everything is text.
    only_text: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(html: &'a str) -> Self {
        Self { rest: html, only_text: false }
    }

    fn text(&mut self, end: usize) -> Token<'a> {
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Text(text)
    }

    /// Skips comments (`<!-- -->`), declarations and processing instructions.
    fn skip_past(&mut self, from: usize, end: &str) {
        self.rest = match self.rest[from..].find(end) {
            Some(at) => &self.rest[from + at + end.len()..],
            None => "",
        };
    }

    /// Skips the content of an element up to and with its end tag.
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
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let start = if self.only_text { None } else { self.rest.find('<') };
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
                return Some(Token::Close { name, source });
            }
            let attributes = &rest[name_at + name.len()..end];
            if SKIPPED.iter().any(|s| s.eq_ignore_ascii_case(name)) && !attributes.ends_with('/') {
                self.skip_element(name);
                continue;
            }
            return Some(Token::Open { name, attributes, source });
        }
    }
}

/// The name of a tag: begins with a letter, goes on to whitespace, `/` or `>`.
fn name_at_start(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return "";
    }
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '<' | '"' | '\'' | '=' | '&'));
    &text[..end.unwrap_or(text.len())]
}

/// Where the `>` of a tag is: quotes count only where a value begins.
fn tag_end(tag: &str, from: usize) -> Option<usize> {
    let (mut quote, mut value) = (None, false);
    for (n, b) in tag.as_bytes().iter().enumerate().skip(from) {
        match (quote, b) {
            (Some(q), b) if q == *b => quote = None,
            (Some(_), _) | (None, b' ' | b'\t' | b'\n' | b'\r') => {}
            (None, b'>') => return Some(n),
            (None, b'"' | b'\'') if value => quote = Some(*b),
            (None, b) => value = *b == b'=',
        }
        value &= quote.is_none();
    }
    None
}

/// The attributes of a tag, values undecoded.
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
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_at(value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len())),
        };
        rest = after;
        Some((name, value))
    })
}

/// Whether what looks like a tag is one: a name of HTML, a foreign or custom name, or anything with attributes.
/// `Vec<T>` is not.
pub(super) fn is_markup(name: &str, attributes: &str) -> bool {
    const OTHERS: &str = " a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big \
         blink blockquote body br button canvas caption center cite code col colgroup data datalist dd del details \
         dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 \
         h5 h6 head header hgroup hr html i iframe image img input ins isindex kbd keygen label legend li link \
         listing main map mark marquee math menu meta meter nav nobr noembed noframes noscript object ol optgroup \
         option output p param picture plaintext pre progress q rb rp rt rtc ruby s samp script search section \
         select slot small source span strike strong style sub summary sup svg table tbody td template textarea \
         tfoot th thead time title tr track tt u ul var video wbr xmp ";
    if attributes.contains('=') || name.contains([':', '-']) {
        return true;
    }
    name.len() <= 12 && {
        let mut padded = String::with_capacity(name.len() + 2);
        padded.push(' ');
        padded.push_str(&name.to_ascii_lowercase());
        padded.push(' ');
        OTHERS.contains(&padded)
    }
}

/// Whether words on both sides of the tag run together.
pub(super) fn is_inline(name: &str) -> bool {
    const INLINE: [&str; 31] = [
        "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "del", "dfn", "em", "font", "i",
        "ins", "kbd", "mark", "nobr", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
        "time", "tt", "u", "var",
    ];
    INLINE.iter().any(|i| i.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_all_their_spellings() {
        let read: Vec<_> = attributes(" a=1 b = \"2 3\" c='4' d /e=f checked/").collect();
        assert_eq!(read, [("a", "1"), ("b", "2 3"), ("c", "4"), ("d", ""), ("e", "f"), ("checked", "")]);
        assert_eq!(attributes("='x' \"").count(), 3);
    }

    #[test]
    fn a_tag_may_contain_a_greater_than_sign_in_quotes() {
        let tokens: Vec<_> = Lexer::new("<a title='x>y' href=z>q").collect();
        assert!(matches!(tokens[0], Token::Open { name: "a", attributes: " title='x>y' href=z", .. }));
        assert_eq!(tokens[1], Token::Text("q"));
    }
}
