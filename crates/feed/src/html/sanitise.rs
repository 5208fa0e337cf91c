//! HTML sanitising: a filter that passes only an allowlist of tags, then `ammonia`.
//!
//! The filter writes balanced tags in valid positions, so that an HTML parser reproduces its input: the parser's expensive
//! repairs (reopened formatting, split links) never happen, and sanitising twice changes nothing.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use ammonia::{Builder, UrlRelative};
use url::Url;

use super::{
    lexer::{self, HtmlToken, Lexer},
    pictures::{Embedded, Picture, source_set},
    plain_text, web_url,
};
use crate::{
    limits::{CONTENT_BYTES_MAX, HTML_DEPTH_MAX},
    text::{drop_forbidden, escape, escape_into, truncate, unescape, unescape_attribute},
};

/// Allowed tags: structure and emphasis, nothing that loads, runs, frames or styles. What a page would load, a picture or
/// an embedded document, becomes a link. Sorted.
const ALLOWED: [&str; 32] = [
    "a",
    "b",
    "blockquote",
    "br",
    "cite",
    "code",
    "dd",
    "del",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "ins",
    "kbd",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "samp",
    "strong",
    "sub",
    "sup",
    "u",
    "ul",
];
/// Blocks that contain other blocks.
const CONTAINERS: [&str; 7] = ["blockquote", "dd", "dl", "dt", "li", "ol", "ul"];
/// Blocks that contain only text.
const LEAVES: [&str; 8] = ["h1", "h2", "h3", "h4", "h5", "h6", "p", "pre"];

/// By how many bytes, in addition to the length of the text, all its URLs together may grow when made absolute; further
/// links lose their target.
const GROWTH_BYTES_MAX: usize = 8 << 10;

/// The text of a link to a picture without a description.
const PICTURE: &str = "[image]";

/// Maximum number of links and emphases that go on after a block.
const INTERRUPTED_MAX: usize = 16;

/// Maximum number of pictures and embedded documents in one link that are linked to.
const AFTER_LINK_MAX: usize = 16;

/// What sanitising did besides removing tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HtmlRepairs {
    /// The text was too long.
    pub(crate) truncated: bool,
    /// The text was nested too deeply and was converted to plain text.
    pub(crate) flattened: bool,
}

/// Sanitises HTML: allowed tags, absolute `http` and `https` links, no control characters. `None` if nothing is left.
pub(crate) fn sanitise(html: &str, base: Option<&Url>) -> (Option<String>, HtmlRepairs) {
    let mut repairs = HtmlRepairs::default();
    let mut filter = TagFilter {
        base,
        out: String::new(),
        open: Vec::new(),
        interrupted: Vec::new(),
        starts: Vec::new(),
        at_break: true,
        growth_left: GROWTH_BYTES_MAX + html.len(),
        linked: String::new(),
        after_link: Vec::new(),
        source: None,
        media: Media::None,
    };
    for token in Lexer::new(html) {
        let (is_text, from) = (matches!(token, HtmlToken::Text(_)), filter.out.len());
        filter.token(token);
        if filter.open.len() > HTML_DEPTH_MAX {
            repairs.flattened = true;
            break;
        }
        if filter.out.len() > CONTENT_BYTES_MAX {
            if is_text {
                cut_text(&mut filter.out, from);
            }
            repairs.truncated = true;
            break;
        }
    }
    filter.close_to(0);
    let safe = if repairs.flattened {
        let text = plain_text(html, CONTENT_BYTES_MAX);
        if text.is_empty() { String::new() } else { format!("<p>{}</p>", escape(&text)) }
    } else {
        settle_pre(drop_forbidden(AMMONIA.clean(&filter.out).to_string().into()))
    };
    let mut safe = safe.trim();
    while let Some(rest) = safe.strip_suffix("<br>") {
        safe = rest.trim_end();
    }
    (Some(safe.to_owned()).filter(|s| says_something(s)), repairs)
}

/// Whether a reader sees words.
fn says_something(safe: &str) -> bool {
    let is_blank = |part: &str| {
        let text = part.split_once('>').map_or(part, |(_, text)| text);
        text.split("&nbsp;").all(|part| part.trim().is_empty())
    };
    !safe.split('<').all(is_blank)
}

/// Cuts escaped text, which begins at `from`, to the longest content: after a word if there is one, and never within a
/// reference.
fn cut_text(out: &mut String, from: usize) {
    const WORD_BYTES_MAX: usize = 64;
    let end = out.floor_char_boundary(CONTENT_BYTES_MAX);
    let near = out.floor_char_boundary(end.saturating_sub(WORD_BYTES_MAX)).max(from);
    let after_word = out[near..end].rfind(char::is_whitespace).map(|at| near + at);
    let before_reference = || out[near..end].rfind('&').filter(|at| !out[near + at..end].contains(';'));
    let end = after_word.or_else(|| before_reference().map(|at| near + at)).unwrap_or(end);
    out.truncate(end);
}

/// Attributes of every link: no referrer, and no access to the opening page.
const LINK_ATTRIBUTES: [(&str, &str); 3] =
    [("target", "_blank"), ("referrerpolicy", "no-referrer"), ("rel", "noopener noreferrer nofollow ugc")];

/// The filter writes those attributes, not `ammonia`, which keeps them in a hash map: their order, which is part of the
/// content hash, would differ between processes.
static AMMONIA: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut judge = Builder::empty();
    judge
        .tags(ALLOWED.into_iter().collect())
        .add_tag_attributes("a", ["href"])
        .url_schemes(["http", "https"].into_iter().collect())
        .url_relative(UrlRelative::Deny)
        .link_rel(None);
    for (name, value) in LINK_ATTRIBUTES {
        judge.add_tag_attribute_values("a", name, [value]);
    }
    judge
});

/// Parsers drop a line end at the beginning of `<pre>`: it is removed here, so that parsing again changes nothing.
fn settle_pre(html: Cow<'_, str>) -> String {
    if !html.contains("<pre>\n") {
        return html.into_owned();
    }
    let mut settled = String::with_capacity(html.len());
    for (n, part) in html.split("<pre>").enumerate() {
        if n == 0 {
            settled.push_str(part);
        } else {
            settled.push_str("<pre>");
            settled.push_str(part.trim_start_matches('\n'));
        }
    }
    settled
}

struct TagFilter<'a> {
    base: Option<&'a Url>,
    out: String,
    /// Open elements, the innermost last.
    open: Vec<&'static str>,
    /// Links and emphasis that a block has closed before their end tag, with their start tags: they go on with the next
    /// text until their end tag, as HTML reconstructs formatting (section 13.2.4.3).
    interrupted: Vec<(&'static str, String)>,
    /// The start tags of open elements in `out`.
    starts: Vec<Range<usize>>,
    /// The current line is still empty.
    at_break: bool,
    /// By how many bytes URLs may still grow when made absolute.
    growth_left: usize,
    /// The last picture or embedded document: pages often have it twice, the second time for readers without scripts.
    linked: String,
    /// Addresses and texts of links that follow the open one, because links cannot be nested.
    after_link: Vec<(String, String)>,
    media: Media,
    /// The address of the next picture, if that has none.
    source: Option<String>,
}

/// The open `<video>`, `<audio>` or `<object>`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    None,
    Open,
    /// One address is linked to; the others are the same in other formats.
    Linked,
}

fn is_media(name: &str) -> bool {
    ["video", "audio", "object"].iter().any(|n| n.eq_ignore_ascii_case(name))
}

fn is_allowed(name: &str) -> bool {
    ALLOWED.binary_search(&name).is_ok()
}

fn is_container(name: &str) -> bool {
    CONTAINERS.contains(&name)
}

fn is_block(name: &str) -> bool {
    is_container(name) || LEAVES.contains(&name)
}

impl TagFilter<'_> {
    fn token(&mut self, token: HtmlToken<'_>) {
        match token {
            HtmlToken::Text(text) => {
                let room = CONTENT_BYTES_MAX.saturating_sub(self.out.len()) + 1;
                self.text(truncate(text, room));
            }
            HtmlToken::Open { name, known, attributes, .. } => match known {
                Some(known) if is_allowed(known) => self.open(known, attributes),
                _ => {
                    self.outside(known);
                    self.replace(name, attributes);
                }
            },
            HtmlToken::Close { name, known } => match known {
                Some(known) if is_allowed(known) => self.close(known),
                _ => {
                    self.outside(known);
                    if is_media(name) {
                        self.media = Media::None;
                    }
                    if name.eq_ignore_ascii_case("picture") && self.source.is_some() {
                        self.picture(&Picture::default());
                    }
                }
            },
        }
    }

    fn text(&mut self, text: &str) {
        let text = drop_forbidden(unescape(text));
        if !self.interrupted.is_empty() && !text.trim().is_empty() {
            self.resume();
        }
        self.at_break &= text.trim().is_empty();
        escape_into(&mut self.out, &text);
    }

    fn open(&mut self, name: &'static str, attributes: &str) {
        if is_block(name) || name == "hr" {
            self.make_room(name);
            self.at_break = true;
        } else if let Some(level) = self.find(name, is_block) {
            // Nested identical emphasis is redundant; a link in a link ends the outer one.
            if name != "a" {
                return;
            }
            self.close_to(level);
        }
        if !self.interrupted.is_empty() && !is_block(name) {
            self.interrupted.retain(|(other, _)| *other != name);
        }
        let start = self.out.len();
        self.out.extend(["<", name]);
        if name == "a"
            && self.growth_left > 0
            && let Some((_, raw)) =
                lexer::attributes(attributes).find(|(n, _)| n.eq_ignore_ascii_case("href"))
            && let Some(href) = web_url(&unescape_attribute(raw), self.base)
        {
            self.growth_left = self.growth_left.saturating_sub(href.len().saturating_sub(raw.len()));
            self.href(&href);
        }
        self.out.push('>');
        if matches!(name, "br" | "hr") {
            self.at_break = true;
        } else {
            self.open.push(name);
            self.starts.push(start..self.out.len());
        }
    }

    /// Opens what a block has interrupted.
    fn resume(&mut self) {
        for (name, start) in &self.interrupted {
            if self.open.contains(name) || self.growth_left == 0 {
                continue;
            }
            self.growth_left = self.growth_left.saturating_sub(start.len());
            let from = self.out.len();
            self.out.push_str(start);
            self.open.push(name);
            self.starts.push(from..self.out.len());
        }
    }

    /// Closes what cannot contain a block: inline elements, other leaves, and the previous list item.
    fn make_room(&mut self, name: &str) {
        let inner = self.open.iter().rposition(|o| is_container(o)).map_or(0, |n| n + 1);
        for (name, start) in self.open[inner..].iter().zip(&self.starts[inner..]) {
            let is_known = self.interrupted.iter().any(|(other, _)| other == name);
            if !is_block(name) && !is_known && self.interrupted.len() < INTERRUPTED_MAX {
                self.interrupted.push((name, self.out[start.clone()].to_owned()));
            }
        }
        self.close_to(inner);
        let ends = |open: &&str| match name {
            "li" => *open == "li",
            "dd" | "dt" => matches!(*open, "dd" | "dt"),
            _ => false,
        };
        if self.open.last().is_some_and(ends) {
            self.close_to(self.open.len() - 1);
        }
    }

    /// The level of the innermost element of a name, searched up to a barrier.
    fn find(&self, name: &str, is_barrier: fn(&str) -> bool) -> Option<usize> {
        for (level, open) in self.open.iter().enumerate().rev() {
            if *open == name {
                return Some(level);
            }
            if is_barrier(open) {
                return None;
            }
        }
        None
    }

    fn close(&mut self, name: &str) {
        let barrier: fn(&str) -> bool = match name {
            name if is_container(name) => |_| false,
            name if is_block(name) => is_container,
            _ => is_block,
        };
        if !self.interrupted.is_empty() && !is_block(name) {
            self.interrupted.retain(|(other, _)| *other != name);
        }
        match self.find(name, barrier) {
            Some(level) => self.close_to(level),
            // `</br>` is another break, and `</p>` an empty paragraph (HTML section 13.2.6.4.7).
            None if is_block(name) || name == "br" => self.outside(Some(name)),
            None => {}
        }
        self.at_break |= is_block(name);
    }

    /// Closes all elements from the innermost down to the given level, that one included.
    fn close_to(&mut self, level: usize) {
        while self.open.len() > level {
            let (Some(name), Some(start)) = (self.open.pop(), self.starts.pop()) else { break };
            // An empty one says nothing.
            if start.end == self.out.len() && !is_block(name) {
                self.out.truncate(start.start);
            } else {
                self.out.extend(["</", name, ">"]);
            }
            if name == "a" {
                for (address, label) in std::mem::take(&mut self.after_link) {
                    self.link(&address, &label);
                }
            }
        }
    }

    /// A tag that is removed; if it is a block, the text before and after it stays separated.
    fn outside(&mut self, known: Option<&str>) {
        const INLINE: [&str; 5] = ["img", "image", "param", "picture", "source"];
        let is_inline = lexer::is_inline(known) || known.is_some_and(|name| INLINE.contains(&name));
        if !self.at_break && !is_inline {
            self.out.push_str("<br>");
            self.at_break = true;
        }
    }

    /// A tag that is removed; a link takes the place of what it would load.
    fn replace(&mut self, name: &str, attributes: &str) {
        if let Some(picture) = Picture::read(name, attributes) {
            return self.picture(&picture);
        }
        if is_media(name) {
            self.media = Media::Open;
        }
        if self.source.is_none() {
            self.source = source_set(name, attributes, self.base);
        }
        let is_source = ["source", "param", "embed"].iter().any(|n| n.eq_ignore_ascii_case(name));
        if is_source && self.media == Media::Linked {
            return;
        }
        let Some(Embedded { address, title }) = Embedded::read(name, attributes, self.base) else { return };
        if self.media == Media::Open {
            self.media = Media::Linked;
        }
        if address == self.linked || !self.may_grow(&address) {
            return;
        }
        let label = if title.is_empty() { &address } else { &title };
        if self.in_link() {
            self.link_later(&address, label);
        } else {
            self.link(&address, label);
            self.out.push_str("<br>");
            self.at_break = true;
        }
        self.linked = address;
    }

    /// Writes a picture as a link with its description, and its hover text after that.
    fn picture(&mut self, picture: &Picture<'_>) {
        if let Some(symbol) = picture.symbol() {
            return self.words(&symbol);
        }
        let (alt, title) = (picture.alt(), picture.title());
        let source = self.source.take();
        let address = picture.address(self.base).or(source);
        if address.as_ref().is_some_and(|a| *a == self.linked) {
            return;
        }
        let label = if alt.is_empty() { PICTURE } else { &alt };
        match address.filter(|a| self.may_grow(a)) {
            Some(address) => {
                if self.in_link() {
                    self.words(label);
                    self.link_later(&address, PICTURE);
                } else {
                    self.link(&address, label);
                }
                self.linked = address;
            }
            None if alt.is_empty() => {}
            None => {
                self.separate();
                self.words(&alt);
            }
        }
        if !title.is_empty() {
            self.words(&format!(" ({title})"));
        }
    }

    fn in_link(&self) -> bool {
        self.open.contains(&"a")
    }

    /// Whether there is room for an address; takes it.
    fn may_grow(&mut self, address: &str) -> bool {
        let may = self.growth_left > 0;
        self.growth_left = self.growth_left.saturating_sub(address.len());
        may
    }

    fn link_later(&mut self, address: &str, label: &str) {
        if self.after_link.len() < AFTER_LINK_MAX {
            self.after_link.push((address.to_owned(), label.to_owned()));
        }
    }

    /// Writes a link.
    fn link(&mut self, address: &str, label: &str) {
        self.separate();
        self.out.push_str("<a");
        self.href(address);
        self.out.push('>');
        self.words(label);
        self.out.push_str("</a>");
    }

    /// Writes the attributes of a link.
    fn href(&mut self, address: &str) {
        self.out.push_str(" href=\"");
        escape_into(&mut self.out, address);
        self.out.push('"');
        for (name, value) in LINK_ATTRIBUTES {
            self.out.extend([" ", name, "=\"", value, "\""]);
        }
    }

    /// Writes text that is one line already.
    fn words(&mut self, text: &str) {
        self.at_break &= text.is_empty();
        escape_into(&mut self.out, text);
    }

    /// Separates a link from a word or link before it.
    fn separate(&mut self) {
        let in_word = |c: char| !c.is_whitespace() && c != '>';
        if !self.at_break && (self.out.ends_with("</a>") || self.out.ends_with(in_word)) {
            self.out.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(html: &str) -> String {
        let base = Url::parse("https://example.org/a/").unwrap();
        sanitise(html, Some(&base)).0.unwrap_or_default()
    }

    #[test]
    fn our_tags_survive_and_links_become_absolute() {
        assert_eq!(
            safe("<p class=x>A <b>b</b> <a href='c?d=1&amp;e=2' onclick=x>l</a></p>"),
            "<p>A <b>b</b> <a href=\"https://example.org/a/c?d=1&amp;e=2\" target=\"_blank\" \
             referrerpolicy=\"no-referrer\" rel=\"noopener noreferrer nofollow ugc\">l</a></p>"
        );
    }

    #[test]
    fn removed_block_elements_still_separate_lines() {
        assert_eq!(safe("<div>a</div><div><span>b</span></div>"), "a<br>b");
        assert_eq!(safe("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby> a<wbr>b"), "漢(kan) ab");
    }

    #[test]
    fn tags_that_html_does_not_know_leave_what_they_hold() {
        for (html, expected) in [
            ("<p>a <foo>b</foo> <x-y>c</x-y></p>", "<p>a b c</p>"),
            ("a<label>b</label><data value=1>c</data>", "abc"),
            ("<circle r=1></circle>a", "a"),
            ("a<svg viewBox='0 0 1 1'><g><path d='M0'/><text>t</text></g></svg>b", "ab"),
            ("<math><mrow><mn>1</mn><mo>+</mo><mn>2</mn></mrow></math>", "1+2"),
            ("Vec<T> and Map<K, V>", "Vec&lt;T&gt; and Map&lt;K, V&gt;"),
            ("<code>&lt;foo>x&lt;/foo></code>", "<code>&lt;foo&gt;x&lt;/foo&gt;</code>"),
            ("write to <a@x.example>", "write to &lt;a@x.example&gt;"),
            ("see <https://x.example/a?b=c>", "see &lt;https://x.example/a?b=c&gt;"),
            ("write to <mailto:a@x.example?subject=s>", "write to &lt;mailto:a@x.example?subject=s&gt;"),
            ("<o:p a=b>c</o:p>", "c"),
        ] {
            assert_eq!(safe(html), expected, "{html}");
        }
        for tag in ["<x>", "</x>", "<x></x>", "<x a=b>", "<y-z>"] {
            let _linear = safe(&tag.repeat(50_000));
        }
        let names: String = (0..50_000).map(|n| format!("<n{n}></n{n}>")).collect();
        let _bounded = safe(&names);
    }

    #[test]
    fn links_and_emphasis_around_blocks_go_on_inside_them() {
        for (html, expected) in [
            ("<a href=g><h2>Title</h2></a> x", "<h2><a href=\"g\">Title</a></h2> x"),
            (
                "<a href=g>a<p>b</p><p>c</p>d</a>e",
                "<a href=\"g\">a</a><p><a href=\"g\">b</a></p><p><a href=\"g\">c</a></p><a href=\"g\">d</a>e",
            ),
            ("<del><p>gone</p></del><p>here</p>", "<p><del>gone</del></p><p>here</p>"),
            ("<a href=g><ul><li>a</ul></a>", "<ul><li><a href=\"g\">a</a></li></ul>"),
            ("<strong><p>a</p></strong>b", "<p><strong>a</strong></p>b"),
            (
                "<a href=g><h2>a <a href=h>b</a></h2>c</a>",
                "<h2><a href=\"g\">a </a><a href=\"h\">b</a></h2>c",
            ),
            ("<a href=g></a><b></b>a", "a"),
            ("<p>one</br>two</br>three</p>", "<p>one<br>two<br>three</p>"),
            ("first</p>second", "first<br>second"),
            ("<p>a<ul><li>b</ul>c</p>d", "<p>a</p><ul><li>b</li></ul>c<br>d"),
        ] {
            assert_eq!(short(html), expected, "{html}");
        }
        let long = format!("<a href='/{}'>{}", "x".repeat(4_000), "<p>y".repeat(20_000));
        assert!(safe(&long).len() < 2 * CONTENT_BYTES_MAX);
    }

    #[test]
    fn what_says_nothing_is_no_content() {
        for html in
            ["<p></p>", "<hr>", "<a></a>", "<p>&nbsp;</p>", "<p><a href='javascript:x'> </a></p>", "<br>"]
        {
            assert_eq!(sanitise(html, None).0, None, "{html}");
        }
        for html in ["<p>.</p>", "<a href='http://x.example/'>x</a>", "&amp;"] {
            assert!(sanitise(html, None).0.is_some(), "{html}");
        }
    }

    #[test]
    fn nothing_that_loads_or_runs_survives() {
        for html in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<img src='javascript:alert(1)' alt='<script>alert(1)</script>' title='\"><img src=x onerror=alert(1)>'>",
            "<img src='data:image/svg+xml,<svg onload=alert(1)>'>",
            "<img srcset='javascript:alert(1) 1x, data:text/html,x 2x'>",
            "<svg onload=alert(1)>",
            "<iframe src=//x></iframe>",
            "<iframe src='javascript:alert(1)' title='<svg onload=alert(1)>'></iframe>",
            "<iframe srcdoc='<script>alert(1)</script>'>",
            "<object data='javascript:alert(1)'><param name=movie value='vbscript:x'><embed src='data:text/html,x'>",
            "<video src='javascript:alert(1)' onloadstart=alert(1) poster=x><source onerror=alert(1) src=' javascript:x'>",
            "<a href='javascript:alert(1)'>x</a>",
            "<a href=' &#x6a;avascript:alert(1)'>x</a>",
            "<a href='javascript&colon;alert(1)'>x</a>",
            "<style>*{}</style>",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
            "<p style='x:y' onmouseover=x>z</p>",
            "<form action=x><input></form>",
            "<b <script>alert(1)</script>",
            "<<script>alert(1)//<</script>",
        ] {
            let safe = safe(html).to_ascii_lowercase();
            // What is not a tag is text.
            for tag in safe.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()) {
                let name = tag.trim_start_matches('/').split(' ').next().unwrap();
                assert!(ALLOWED.contains(&name), "{html} -> {safe}");
                let links = LINK_ATTRIBUTES.map(|(name, value)| format!(" {name}=\"{value}\"")).concat();
                let attributes = tag.strip_prefix("a href=\"").map(|a| a.split_once('"').unwrap());
                match attributes {
                    Some((href, rest)) => {
                        assert!(href.starts_with("https://") && rest == links, "{html} -> {safe}")
                    }
                    None => assert!(!tag.contains(['=', ' ']), "{html} -> {safe}"),
                }
            }
        }
    }

    /// Without the attributes that every link has.
    fn short(html: &str) -> String {
        let links = LINK_ATTRIBUTES.map(|(name, value)| format!(" {name}=\"{value}\"")).concat();
        let once = safe(html);
        assert_eq!(safe(&once), once, "{html}");
        once.replace(&links, "").replace("https://example.org/a/", "")
    }

    #[test]
    fn pictures_become_links_and_keep_their_words() {
        for (html, expected) in [
            (
                "<img src=1.gif alt=ALT title='hover &amp; text'><img src=2.gif>",
                "<a href=\"1.gif\">ALT</a> (hover &amp; text) <a href=\"2.gif\">[image]</a>",
            ),
            ("<p>a<img src=1.gif>b</p>", "<p>a <a href=\"1.gif\">[image]</a>b</p>"),
            ("<img src=1.gif alt=x title=x>", "<a href=\"1.gif\">x</a>"),
            // Inside a link.
            ("<a href=p><img src=1.gif alt=x></a> y", "<a href=\"p\">x</a> <a href=\"1.gif\">[image]</a> y"),
            ("<a href=p><img src=1.gif></a>", "<a href=\"p\">[image]</a> <a href=\"1.gif\">[image]</a>"),
            // Once more for readers without scripts, and one that counts readers.
            ("<img data-src=1.gif><noscript><img src=1.gif></noscript>", "<a href=\"1.gif\">[image]</a>"),
            ("a<img src=1.gif width=1 height=1>", "a"),
            ("a<img src='data:x,y' alt='a chart'>", "a a chart"),
            ("a<img src='data:x,y'>b", "ab"),
            ("well <img src=s.png alt='\u{1f600}'>", "well \u{1f600}"),
            ("<picture><source srcset='1.webp'><img src=1.gif></picture>", "<a href=\"1.gif\">[image]</a>"),
            ("<picture><source srcset='1.webp'><img alt=x></picture>", "<a href=\"1.webp\">x</a>"),
            ("<picture><source srcset='1.webp'></picture>a", "<a href=\"1.webp\">[image]</a>a"),
        ] {
            assert_eq!(short(html), expected, "{html}");
        }
    }

    #[test]
    fn embedded_documents_leave_their_links() {
        for (html, expected) in [
            (
                "<p>a</p><iframe src=//v.example/1 title=Talk>old browser</iframe><p>b</p>",
                "<p>a</p><a href=\"https://v.example/1\">Talk</a><br><p>b</p>",
            ),
            ("<iframe src=about:blank data-src='v'></iframe>", "<a href=\"v\">v</a>"),
            ("<video src=v.mp4></video>", "<a href=\"v.mp4\">v.mp4</a>"),
            (
                "<video><source src=v.webm><source src=v.mp4>no video?</video><embed src=e>",
                "<a href=\"v.webm\">v.webm</a><br>no video?<br><a href=\"e\">e</a>",
            ),
            (
                "<object><param name=movie value=m.swf><param name=x value=y><embed src=m.swf></object>",
                "<a href=\"m.swf\">m.swf</a>",
            ),
            ("<p>a</p><object data=x><p>rest</p>", "<p>a</p><a href=\"x\">x</a><br><p>rest</p>"),
            ("<a href=p><video src=v.mp4></video>b</a>", "<a href=\"p\">b</a> <a href=\"v.mp4\">v.mp4</a>"),
            ("<iframe src=x width=1 height=1></iframe>a", "a"),
            (
                "<lite-youtube videoid=a_B-1 title=Talk></lite-youtube>",
                "<a href=\"https://www.youtube.com/watch?v=a_B-1\">Talk</a>",
            ),
            ("a<lite-youtube videoid='x&y'></lite-youtube>", "a"),
        ] {
            assert_eq!(short(html), expected, "{html}");
        }
    }

    #[test]
    fn a_long_base_is_not_repeated_without_end() {
        let base = Url::parse(&format!("https://example.org/{}/", "b".repeat(1_500))).unwrap();
        for html in [
            "<img src=a>",
            "<img src=a><img src=b>",
            "<iframe src=a><iframe src=b>",
            "<a href=x><img src=a><img src=b></a>",
        ] {
            let safe = sanitise(&html.repeat(2_000), Some(&base)).0.unwrap();
            assert!(safe.len() < 4 * CONTENT_BYTES_MAX, "{html}: {}", safe.len());
        }
    }

    #[test]
    fn too_deep_html_becomes_text_and_misnested_html_is_repaired() {
        let deep = format!("{}x", "<blockquote>".repeat(1000));
        assert_eq!(
            sanitise(&deep, None),
            (Some("<p>x</p>".to_owned()), HtmlRepairs { truncated: false, flattened: true })
        );
        assert_eq!(safe("<b><i>x</b>y</i><p>z<p>q</b>"), "<b><i>x</i></b>y<p>z</p><p>q</p>");
        assert_eq!(
            safe("<ul><li>a<li>b<ul><li>c</ul></ul>"),
            "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"
        );
        assert_eq!(safe(&format!("{}x", "<div>".repeat(100_000))), "x");
    }

    #[test]
    fn a_long_article_is_truncated_and_marked() {
        let (html, repairs) = sanitise(&"<p>word</p>".repeat(40_000), None);
        assert!(repairs.truncated && html.unwrap().len() <= CONTENT_BYTES_MAX + 32);
        assert!(sanitise(&"x".repeat(CONTENT_BYTES_MAX + 1), None).1.truncated);
        assert!(!sanitise(&"x".repeat(CONTENT_BYTES_MAX), None).1.truncated);
        let end = |text: &str| {
            let html = sanitise(&text.repeat(CONTENT_BYTES_MAX / text.len() + 1), None).0.unwrap();
            assert!((CONTENT_BYTES_MAX - 80..=CONTENT_BYTES_MAX).contains(&html.len()), "{}", html.len());
            html.chars().skip(html.chars().count() - 5).collect::<String>()
        };
        assert_eq!(end("words "), "words");
        assert_eq!(end("&amp;"), "&amp;");
        assert_eq!(end("é…"), "é…é…é");
    }

    const PIECES: [&str; 55] = [
        "<p>",
        "</p>",
        "<a href='x'>",
        "<a>",
        "</a>",
        "<b>",
        "</b>",
        "<i>",
        "</i>",
        "<ul>",
        "</ul>",
        "<ol>",
        "<li>",
        "</li>",
        "<pre>",
        "</pre>",
        "\n",
        "\n\n",
        "<blockquote>",
        "</blockquote>",
        "<h1>",
        "</h1>",
        "<h2>",
        "</h2>",
        "<br>",
        "</br>",
        "<hr>",
        "<dl>",
        "<dt>",
        "<dd>",
        "</dl>",
        "<div>",
        "</div>",
        "<table>",
        "<td>",
        "</table>",
        "<svg>",
        "<math>",
        "<code>",
        "</code>",
        "<!--",
        "-->",
        "&amp;",
        "&lt;",
        "&lt;b&gt;",
        "<",
        " text ",
        "<x y=z>",
        "<img src=i alt=' a '>",
        "<img src=j title=t>",
        "<img src=s alt='\u{1f600}'>",
        "<iframe src=f>",
        "<video>",
        "<source src=v>",
        "</video>",
    ];

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..proptest::prelude::ProptestConfig::with_cases(2_000) })]

        #[test]
        fn safe_html_is_unchanged(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..40)) {
            let once = safe(&pieces.concat());
            proptest::prop_assert_eq!(safe(&once), once);
        }
    }
}
