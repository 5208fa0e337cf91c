//! A lexer of HTML: linear time, no tree.

use std::collections::{HashMap, HashSet};

use memchr::{memchr, memchr3, memmem};

/// A piece of HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HtmlToken<'a> {
    /// Text with undecoded references.
    Text(&'a str),
    /// A start tag; `source` is the whole tag, and `known` the name in lower case if HTML has it.
    Open { name: &'a str, known: Option<&'static str>, attributes: &'a str, source: &'a str },
    /// An end tag.
    Close { name: &'a str, known: Option<&'static str> },
}

/// Elements that are skipped with their content if they have an end tag: it is code, a drawing, the source of a formula, or
/// what only a parser without them shows. Without one the tag alone is skipped.
const SKIPPED: [&str; 9] =
    ["script", "style", "iframe", "noembed", "noframes", "template", "svg", "annotation", "annotation-xml"];
const CDATA: &str = "<![CDATA[";
/// How many names that HTML does not know are searched for their end tags; the tags of further ones are text.
const UNKNOWN_NAMES_MAX: usize = 256;

/// Iterates over [`HtmlToken`]s. Comments, declarations and the content of scripts and similar elements are skipped; of
/// `<iframe>` the start tag is returned. What looks like a tag and is none, such as that of `Vec<T>`, is text.
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    /// The length of `rest` at the end of a CDATA section; 0 without one.
    cdata_end: usize,
    /// From this offset on no tag is closed: everything is text.
    only_text: bool,
    /// No comment ends from here on.
    no_comment: bool,
    /// Which elements of [`SKIPPED`] have no end tag from here on.
    unclosed: [bool; SKIPPED.len()],
    /// In a title: the length of `rest` at the last end tag of each element of [`KNOWN`].
    title_ends: Option<Box<[usize; KNOWN.len()]>>,
    /// `None` if all names are known.
    unknown: Option<UnknownNames>,
}

/// The tags with names that HTML does not know.
#[derive(Default)]
struct UnknownNames {
    /// The length of `rest` at the last end tag of each name, in lower case; `None` before they are searched.
    ends: Option<HashMap<String, usize>>,
    /// The names whose start tags were tags.
    open: HashSet<String>,
}

impl UnknownNames {
    /// Whether a start tag is one: a foreign or custom name, any name with attributes, or one that has an end tag.
    fn is_start(&mut self, name: &str, attributes: &str, rest: &str) -> bool {
        let is_start = !is_address(name)
            && (attributes.contains('=')
                || is_foreign(name)
                || self.ends_later(&name.to_ascii_lowercase(), rest));
        if is_start && self.open.len() < UNKNOWN_NAMES_MAX {
            self.open.insert(name.to_ascii_lowercase());
        }
        is_start
    }

    /// Whether an end tag is one.
    fn is_end(&self, name: &str) -> bool {
        is_foreign(name) || self.open.contains(&name.to_ascii_lowercase())
    }

    fn ends_later(&mut self, name: &str, rest: &str) -> bool {
        let ends = self.ends.get_or_insert_with(|| {
            let mut ends = HashMap::new();
            // Of several, the last one is nearest to the end.
            for at in memmem::find_iter(rest.as_bytes(), "</") {
                let name = name_at_start(&rest[at + 2..]);
                if !name.is_empty() && known_index(name).is_none() {
                    let name = name.to_ascii_lowercase();
                    if ends.len() < UNKNOWN_NAMES_MAX || ends.contains_key(&name) {
                        ends.insert(name, rest.len() - at);
                    }
                }
            }
            ends
        });
        ends.get(name).is_some_and(|end| *end <= rest.len())
    }
}

/// A name with a prefix, or of a custom element (HTML section 4.13.3).
fn is_foreign(name: &str) -> bool {
    name.contains([':', '-']) && !is_address(name)
}

/// The beginning of an address in angle brackets: `https:` of `<https://x.example/?a=b>`, `a@x.example`. A
/// `=` in its query begins no attribute.
fn is_address(name: &str) -> bool {
    name.contains('@') || name.ends_with(':')
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(html: &'a str) -> Self {
        Self {
            rest: html,
            cdata_end: 0,
            only_text: false,
            no_comment: false,
            unclosed: [false; SKIPPED.len()],
            title_ends: None,
            unknown: Some(UnknownNames::default()),
        }
    }

    /// Lexes markup that is not HTML: all names are known.
    pub(crate) fn of_markup(text: &'a str) -> Self {
        Self { unknown: None, ..Self::new(text) }
    }

    /// Lexes a title, whose author may have written about a tag: one without attributes and end tag is text, unless it is
    /// formatting, or loads or runs something.
    pub(crate) fn of_title(html: &'a str) -> Self {
        let mut ends = Box::new([0; KNOWN.len()]);
        for at in memmem::find_iter(html.as_bytes(), "</") {
            if let Some(known) = known_index(name_at_start(&html[at + 2..])) {
                // Of several, the last one is nearest to the end.
                ends[known] = html.len() - at;
            }
        }
        Self { title_ends: Some(ends), ..Self::new(html) }
    }

    fn text(&mut self, end: usize) -> HtmlToken<'a> {
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        HtmlToken::Text(text)
    }

    /// The next piece at a `<`; `None` if it is skipped.
    fn at_tag(&mut self) -> Option<HtmlToken<'a>> {
        let rest = self.rest;
        if rest.starts_with("<!--") {
            return self.comment();
        }
        // A template that has escaped the markers of XML: only these are dropped.
        if rest.starts_with(CDATA) && (self.cdata_end == 0 || self.cdata_end > rest.len()) {
            let content = &rest[CDATA.len()..];
            self.cdata_end = memmem::find(content.as_bytes(), b"]]>").map_or(0, |end| content.len() - end);
            self.rest = content;
            return None;
        }
        if rest.starts_with("<!") || rest.starts_with("<?") {
            let end = memchr(b'>', rest.as_bytes());
            self.only_text = end.is_none();
            self.rest = &rest[end.map_or(0, |end| end + 1)..];
            return None;
        }
        let closes = rest[1..].starts_with('/');
        let name_at = 1 + usize::from(closes);
        let name = name_at_start(&rest[name_at..]);
        if name.is_empty() {
            return Some(self.text(1));
        }
        // "a<b and <em>": a sign, and then the tag.
        let after_name = &rest.as_bytes()[name_at + name.len()..];
        if !closes && memchr3(b'<', b'>', b'=', after_name).is_some_and(|at| after_name[at] == b'<') {
            return Some(self.text(1));
        }
        let Some(end) = tag_end(rest, name_at + name.len()) else {
            self.only_text = true;
            return None;
        };
        let (source, after) = rest.split_at(end + 1);
        let attributes = &rest[name_at + name.len()..end];
        let known = known(name);
        let is_tag = match &mut self.unknown {
            Some(unknown) if known.is_none() => {
                if closes {
                    unknown.is_end(name)
                } else {
                    unknown.is_start(name, attributes, after)
                }
            }
            _ => closes || !self.stands_for_itself(name, attributes, after.len()),
        };
        if !is_tag {
            return Some(self.text(end + 1));
        }
        if closes {
            self.rest = after;
            return Some(HtmlToken::Close { name, known });
        }
        self.rest = after;
        let open = HtmlToken::Open { name, known, attributes, source };
        let Some(skipped) = SKIPPED.iter().position(|s| s.eq_ignore_ascii_case(name)) else {
            return Some(open);
        };
        if !attributes.ends_with('/') && !self.unclosed[skipped] {
            match end_of_element(after, name) {
                Some(end) => self.rest = &after[end..],
                None => self.unclosed[skipped] = true,
            }
        }
        Some(open).filter(|_| name.eq_ignore_ascii_case("iframe"))
    }

    /// Skips a comment (HTML section 13.2.5.43 and following); what looks like the beginning of one is text.
    fn comment(&mut self) -> Option<HtmlToken<'a>> {
        let rest = self.rest.as_bytes();
        let empty = ["<!-->", "<!--->"].into_iter().find(|empty| self.rest.starts_with(empty));
        let end = match empty {
            Some(empty) => Some(empty.len()),
            None if self.no_comment => None,
            None => memmem::find_iter(&rest[4..], "--").map(|at| at + 6).find_map(|at| match rest[at..] {
                [b'>', ..] => Some(at + 1),
                [b'!', b'>', ..] => Some(at + 2),
                // `--->`: the next search begins after these two.
                [b'-', b'>', ..] => Some(at + 2),
                _ => None,
            }),
        };
        self.no_comment = end.is_none();
        match end {
            Some(end) => {
                self.rest = &self.rest[end..];
                None
            }
            None => Some(self.text(4)),
        }
    }

    /// Whether a tag is text of a title; `left` is the length of what follows it.
    fn stands_for_itself(&self, name: &str, attributes: &str, left: usize) -> bool {
        let Some(ends) = &self.title_ends else { return false };
        let bare = attributes.trim_matches(|c: char| c.is_ascii_whitespace() || c == '/').is_empty();
        if is_inline(known(name)) {
            // `a<b and c>d` has no attributes.
            return !bare && !attributes.contains(['=', '"', '\'']);
        }
        let ends_later = |known: usize| (1..=left).contains(&ends[known]);
        bare && known_index(name).is_some_and(|n| !ends_later(n) && !NEVER_TEXT.contains(&KNOWN[n]))
    }
}

/// Elements whose tags are never text of a title, in addition to inline ones: they lay out text, or load or run something.
const NEVER_TEXT: [&str; 25] = [
    "address",
    "applet",
    "blockquote",
    "body",
    "br",
    "center",
    "frame",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "html",
    "iframe",
    "img",
    "li",
    "math",
    "p",
    "pre",
    "script",
    "style",
    "svg",
    "wbr",
];

/// The length of the content of an element with its end tag.
fn end_of_element(content: &str, name: &str) -> Option<usize> {
    let bytes = content.as_bytes();
    memmem::find_iter(bytes, "</").map(|at| at + 2).find_map(|at| {
        let after = at + name.len();
        let same = bytes.get(at..after)?.eq_ignore_ascii_case(name.as_bytes());
        let ends = bytes.get(after).is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
        let end = || memchr(b'>', &bytes[after..]).map_or(bytes.len(), |n| after + n + 1);
        (same && ends).then(end)
    })
}

impl<'a> Iterator for Lexer<'a> {
    type Item = HtmlToken<'a>;

    fn next(&mut self) -> Option<HtmlToken<'a>> {
        while !self.rest.is_empty() {
            let start = if self.only_text { None } else { memchr(b'<', self.rest.as_bytes()) };
            let end = self.rest.len().checked_sub(self.cdata_end).filter(|_| self.cdata_end > 0);
            if let Some(end) = end.filter(|end| start.is_none_or(|start| *end <= start)) {
                if end > 0 {
                    return Some(self.text(end));
                }
                self.rest = &self.rest["]]>".len()..];
                self.cdata_end = 0;
                continue;
            }
            match start {
                None => return Some(self.text(self.rest.len())),
                Some(0) => {}
                Some(start) => return Some(self.text(start)),
            }
            if let Some(token) = self.at_tag() {
                return Some(token);
            }
        }
        None
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

/// The offset of the `>` of a tag. Quotes count only where a value begins; the tag of an unclosed one ends at the first
/// `>`.
fn tag_end(tag: &str, from: usize) -> Option<usize> {
    let bytes = tag.as_bytes();
    let (mut n, mut value) = (from, false);
    loop {
        match *bytes.get(n)? {
            b'>' => return Some(n),
            quote @ (b'"' | b'\'') if value => {
                let rest = &bytes[n + 1..];
                match memchr(quote, rest).filter(|end| is_closed(rest, *end)) {
                    Some(end) => n += end + 1,
                    None => return memchr(b'>', rest).map(|end| n + 1 + end),
                }
                value = false;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b => value = b == b'=',
        }
        n += 1;
    }
}

/// Whether the quote at `end` closes the value that the text begins with. A value may have tags in it, such as a caption;
/// but a quote after a tag that begins another value, or a word, is one of the text that an unclosed value runs into. An
/// attribute may follow without a space.
fn is_closed(text: &[u8], end: usize) -> bool {
    let value = &text[..end];
    let has_tags = || memchr(b'>', value).is_some_and(|at| memchr(b'<', &value[at..]).is_some());
    let begins_value = || value.trim_ascii_end().ends_with(b"=");
    let after = &text[end + 1..];
    let ends_word = || after.first().is_some_and(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
    let before_attribute = || {
        let name = after.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'-').count();
        name > 0 && after.get(name) == Some(&b'=')
    };
    !has_tags() || (!begins_value() && (ends_word() || before_attribute()))
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
    known_index(name).map(|n| KNOWN[n])
}

/// The place of an element name in [`KNOWN`].
fn known_index(name: &str) -> Option<usize> {
    let letter = usize::from(name.bytes().next()?.to_ascii_lowercase().wrapping_sub(b'a'));
    let begin = *FIRST.get(letter)?;
    let end = *FIRST.get(letter + 1)?;
    KNOWN[begin..end].iter().position(|known| known.eq_ignore_ascii_case(name)).map(|n| begin + n)
}

/// Where the names that begin with each letter stand in [`KNOWN`], and where they end.
const FIRST: [usize; 27] = {
    let mut first = [0; 27];
    let mut n = 0;
    while n < KNOWN.len() {
        first[(KNOWN[n].as_bytes()[0] - b'a') as usize + 1] = n + 1;
        n += 1;
    }
    let mut letter = 1;
    while letter < first.len() {
        if first[letter] == 0 {
            first[letter] = first[letter - 1];
        }
        letter += 1;
    }
    first
};

/// Whether the tag does not separate words. One that HTML does not know does not.
pub(super) fn is_inline(known: Option<&str>) -> bool {
    const INLINE: [&str; 43] = [
        "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
        "i", "ins", "kbd", "label", "mark", "math", "meter", "nobr", "output", "q", "rb", "rp", "rt", "rtc",
        "ruby", "s", "samp", "slot", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
        "var", "wbr",
    ];
    known.is_none_or(|name| INLINE.binary_search(&name).is_ok())
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

    fn text_of(lexer: Lexer<'_>) -> String {
        let text = |token| if let HtmlToken::Text(text) = token { Some(text) } else { None };
        lexer.filter_map(text).collect()
    }

    #[test]
    fn what_is_not_closed_hides_nothing() {
        for (html, text) in [
            ("a<script>b</script>c", "ac"),
            ("a<script>b</scripts>c", "ab</scripts>c"),
            ("a<SCRIPT>b</script >c", "ac"),
            ("a<script>b", "ab"),
            ("a<script>b<style>c</style>d", "abd"),
            ("a<style>b<p>c", "abc"),
            ("a<object><p>b</p>", "ab"),
            ("a<object><p>b</p></object>c", "abc"),
            ("a<select><option>b</select>c", "abc"),
            ("a<iframe>b</iframe>c<iframe>d", "acd"),
            ("a<!-- b -->c<!-- d", "ac<!-- d"),
            ("a<!-->b<!--->c<!---->d<!--x--->e<!--x--!>f", "abcdef"),
            ("a<!doctype html>b<?php c", "ab<?php c"),
            ("a<b and <em>c</em> d", "a<b and c d"),
            ("if i<n then <a href='q'>link</a> end", "if i<n then link end"),
            ("<![CDATA[My title]]>", "My title"),
            ("a<![CDATA[Hello <b>b</b> world]]>c ]]>", "aHello b worldc ]]>"),
            ("<![CDATA[never <i>ends", "never ends"),
            ("<![CDATA[a <b ]]> c>d", "a  c>d"),
        ] {
            assert_eq!(text_of(Lexer::new(html)), text, "{html}");
        }
    }

    #[test]
    fn in_a_title_a_tag_that_is_written_about_is_text() {
        for (title, text) in [
            ("ohne <blink>", "ohne <blink>"),
            ("the <dialog> element", "the <dialog> element"),
            ("a <select> or a <TEXTAREA/>", "a <select> or a <TEXTAREA/>"),
            ("<blink>a</blink> <blink>", "a <blink>"),
            ("<div>a</div>", "a"),
            ("<div><div>a</div>", "a"),
            ("<p>a<br>b <i>c", "ab c"),
            ("a <div class=x>b", "a b"),
            ("a <script>b", "a b"),
            ("if a<b and c>d", "if a<b and c>d"),
            ("a <b class='x'>b</b>", "a b"),
            ("a <script>b</script>", "a "),
            ("what does <!-- mean", "what does <!-- mean"),
        ] {
            assert_eq!(text_of(Lexer::of_title(title)), text, "{title}");
        }
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
        for html in [
            "<img alt=\"<p>cap</p>\" src='x'>q",
            "<img data-caption='<p>a \"b\"</p>\n' src=x />q",
            "<a href=\"data:text/html,<script>alert(1)</script>\">q",
            "<div title=\"<em>t</em>\">q",
            "<img alt=\"<p>cap</p>\"src='x'>q",
            "<a title='<b>' href=\"x?<y></y>\" class=\"\">q",
        ] {
            let tokens: Vec<_> = Lexer::new(html).collect();
            assert_eq!(tokens[1..], [HtmlToken::Text("q")], "{html}");
        }
        for html in [
            "<a href=\"x>q</a><a href=\"y\">",
            "<a href=\"x>q</a> said \"yes\"",
            "<a href='x>q</a> it's",
            "<a href='x>q</a> <b>'",
        ] {
            let tokens: Vec<_> = Lexer::new(html).collect();
            assert_eq!(tokens[1], HtmlToken::Text("q"), "{html}");
        }
        let tokens: Vec<_> = Lexer::new("<a href=\"x>q</a>").collect();
        assert_eq!(tokens[1..], [HtmlToken::Text("q"), HtmlToken::Close { name: "a", known: Some("a") }]);
    }
}
