//! HTML sanitising: a filter that passes only an allowlist of tags, then `ammonia`.
//!
//! The filter writes balanced tags in valid positions, so that an HTML parser reproduces its input: the parser's expensive
//! repairs (reopened formatting, split links) never happen, and sanitising twice changes nothing.

use std::{borrow::Cow, sync::LazyLock};

use ammonia::{Builder, UrlRelative};
use url::Url;

use super::{
    lexer::{self, HtmlToken, Lexer},
    plain_text, web_url,
};
use crate::{
    limits::{CONTENT_BYTES_MAX, HTML_DEPTH_MAX},
    text::{drop_forbidden, escape, escape_into, truncate, unescape},
};

/// Allowed tags: structure and emphasis, nothing that loads, runs, frames or styles.
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

/// What sanitising did besides removing tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repairs {
    /// The text was too long.
    pub(crate) truncated: bool,
    /// The text was nested too deeply and was converted to plain text.
    pub(crate) flattened: bool,
}

/// Sanitises HTML: allowed tags, absolute `http` and `https` links, no control characters. `None` if nothing is left.
pub(crate) fn sanitise(html: &str, base: Option<&Url>) -> (Option<String>, Repairs) {
    let mut repairs = Repairs::default();
    let mut filter = TagFilter {
        base,
        out: String::new(),
        open: Vec::new(),
        at_break: true,
        growth_left: GROWTH_BYTES_MAX + html.len(),
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
    (Some(safe.to_owned()).filter(|s| !s.is_empty()), repairs)
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
    /// The current line is still empty.
    at_break: bool,
    /// By how many bytes URLs may still grow when made absolute.
    growth_left: usize,
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
            HtmlToken::Open { name, attributes, source } if !lexer::is_markup(name, attributes) => {
                self.text(source)
            }
            HtmlToken::Close { name, source } if !lexer::is_markup(name, "") => self.text(source),
            HtmlToken::Open { name, attributes, .. } => {
                match lexer::known(name).filter(|n| ALLOWED.contains(n)) {
                    Some(name) => self.open(name, attributes),
                    None => self.outside(name),
                }
            }
            HtmlToken::Close { name, .. } => match lexer::known(name).filter(|n| ALLOWED.contains(n)) {
                Some(name) => self.close(name),
                None => self.outside(name),
            },
        }
    }

    fn text(&mut self, text: &str) {
        let text = drop_forbidden(unescape(text));
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
        self.out.extend(["<", name]);
        if name == "a"
            && self.growth_left > 0
            && let Some((_, raw)) =
                lexer::attributes(attributes).find(|(n, _)| n.eq_ignore_ascii_case("href"))
            && let Some(href) = web_url(&unescape(raw), self.base)
        {
            self.growth_left = self.growth_left.saturating_sub(href.len().saturating_sub(raw.len()));
            self.out.push_str(" href=\"");
            escape_into(&mut self.out, &href);
            self.out.push('"');
            for (name, value) in LINK_ATTRIBUTES {
                self.out.extend([" ", name, "=\"", value, "\""]);
            }
        }
        self.out.push('>');
        if matches!(name, "br" | "hr") {
            self.at_break = true;
        } else {
            self.open.push(name);
        }
    }

    /// Closes what cannot contain a block: inline elements, other leaves, and the previous list item.
    fn make_room(&mut self, name: &str) {
        let inner = self.open.iter().rposition(|o| is_container(o)).map_or(0, |n| n + 1);
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
        if let Some(level) = self.find(name, barrier) {
            self.close_to(level);
        }
        self.at_break |= is_block(name);
    }

    /// Closes all elements from the innermost down to the given level, that one included.
    fn close_to(&mut self, level: usize) {
        for name in self.open.drain(level..).rev() {
            self.out.extend(["</", name, ">"]);
        }
    }

    /// A tag that is removed; if it is a block, the text before and after it stays separated.
    fn outside(&mut self, name: &str) {
        if !self.at_break && !lexer::is_inline(name) && !name.eq_ignore_ascii_case("img") {
            self.out.push_str("<br>");
            self.at_break = true;
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
    }

    #[test]
    fn nothing_that_loads_or_runs_survives() {
        for html in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<svg onload=alert(1)>",
            "<iframe src=//x></iframe>",
            "<a href='javascript:alert(1)'>x</a>",
            "<a href=' &#x6a;avascript:alert(1)'>x</a>",
            "<style>*{}</style>",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
            "<p style='x:y' onmouseover=x>z</p>",
            "<form action=x><input></form>",
            "<b <script>alert(1)</script>",
            "<<script>alert(1)//<</script>",
        ] {
            let safe = safe(html).to_ascii_lowercase();
            for bad in [
                "script", "onerror", "onload", "onmouse", "style", "<img", "<svg", "<iframe", "<form", "href",
            ] {
                assert!(
                    !safe.contains(&format!("<{bad}")) && !safe.contains(&format!("{bad}=")),
                    "{html} -> {safe}"
                );
            }
        }
    }

    #[test]
    fn too_deep_html_becomes_text_and_misnested_html_is_repaired() {
        let deep = format!("{}x", "<blockquote>".repeat(1000));
        assert_eq!(
            sanitise(&deep, None),
            (Some("<p>x</p>".to_owned()), Repairs { truncated: false, flattened: true })
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

    const PIECES: [&str; 48] = [
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
