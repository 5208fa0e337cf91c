//! HTML made safe: a filter that lets only our own list of tags through, then `ammonia` as the judge.

use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use url::Url;

use super::{
    lexer::{self, Lexer, Token},
    plain_text, web_url,
};
use crate::{
    limits::{CONTENT_BYTES_MAX, HTML_DEPTH_MAX},
    text::{cut, escape, escape_into, is_forbidden, unescape},
};

/// The tags that survive: structure and emphasis, nothing that loads, runs, frames or styles.
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
/// Those that HTML parsers reopen in every following block when they are not closed.
const FORMATTING: [&str; 8] = ["a", "b", "code", "em", "i", "s", "strong", "u"];
/// Those that stand on a line of their own.
const BLOCKS: [&str; 16] =
    ["blockquote", "br", "dd", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "ul"];

/// What sanitising had to do beyond taking tags away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repairs {
    /// It was longer than we keep.
    pub(crate) cut: bool,
    /// It was too deep or too tangled for an HTML parser and was made plain.
    pub(crate) flattened: bool,
}

/// Safe HTML: our tags, absolute `http` and `https` links, no control characters. Nothing when nothing is left.
pub(crate) fn sanitise(html: &str, base: Option<&Url>) -> (Option<String>, Repairs) {
    let mut repairs = Repairs::default();
    let mut filter = Filter { base, out: String::new(), depth: 0, formatting: 0, work: 0, at_break: true };
    for token in Lexer::new(html) {
        if filter.token(token).is_err() {
            repairs.flattened = true;
            break;
        }
        if filter.out.len() > CONTENT_BYTES_MAX {
            repairs.cut = true;
            break;
        }
    }
    let safe = if repairs.flattened {
        let text = plain_text(html, CONTENT_BYTES_MAX);
        if text.is_empty() { String::new() } else { format!("<p>{}</p>", escape(&text)) }
    } else {
        drop_forbidden(JUDGE.clean(&filter.out).to_string())
    };
    (Some(safe.trim().to_owned()).filter(|s| !s.is_empty()), repairs)
}

/// What every link says besides where it leads: no page learns who sent the reader, or gets at ours.
const LINK_ATTRIBUTES: [(&str, &str); 3] =
    [("target", "_blank"), ("referrerpolicy", "no-referrer"), ("rel", "noopener noreferrer nofollow ugc")];

/// The filter writes those attributes, not `ammonia`: it keeps them in a hash map, and their order, which is part of
/// the content's hash, would change from process to process.
static JUDGE: LazyLock<Builder<'static>> = LazyLock::new(|| {
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

fn drop_forbidden(html: String) -> String {
    if html.contains(is_forbidden) { html.replace(is_forbidden, "") } else { html }
}

/// An HTML parser would have to work too hard for it.
struct TooTangled;

struct Filter<'a> {
    base: Option<&'a Url>,
    out: String,
    /// Open elements, as an upper bound.
    depth: usize,
    /// Open elements of [`FORMATTING`], as an upper bound.
    formatting: usize,
    /// Elements that a parser may have to make so far.
    work: usize,
    /// Nothing stands on the current line yet.
    at_break: bool,
}

impl Filter<'_> {
    fn token(&mut self, token: Token<'_>) -> Result<(), TooTangled> {
        match token {
            Token::Text(text) => {
                let room = CONTENT_BYTES_MAX.saturating_sub(self.out.len()) + 1;
                self.text(cut(text, room));
            }
            Token::Open { name, attributes, source } if !lexer::is_markup(name, attributes) => {
                self.text(&escape(source))
            }
            Token::Close { name, source } if !lexer::is_markup(name, "") => self.text(&escape(source)),
            Token::Open { name, attributes, .. } => self.open(&name.to_ascii_lowercase(), attributes),
            Token::Close { name, .. } => self.close(&name.to_ascii_lowercase()),
        }
        let tangled = self.depth > HTML_DEPTH_MAX || self.work > 1024 + self.out.len();
        if tangled { Err(TooTangled) } else { Ok(()) }
    }

    /// Text keeps its references; what is no reference and no markup is escaped by the judge.
    fn text(&mut self, text: &str) {
        self.work += 1 + self.formatting;
        self.at_break &= text.trim().is_empty();
        for (n, part) in text.split('<').enumerate() {
            if n > 0 {
                self.out.push_str("&lt;");
            }
            self.out.push_str(part);
        }
    }

    fn open(&mut self, name: &str, attributes: &str) {
        if !ALLOWED.contains(&name) {
            return self.outside(name);
        }
        self.work += 1 + self.formatting;
        self.out.push('<');
        self.out.push_str(name);
        if name == "a"
            && let Some((_, href)) =
                lexer::attributes(attributes).find(|(n, _)| n.eq_ignore_ascii_case("href"))
            && let Some(href) = web_url(&unescape(href), self.base)
        {
            self.out.push_str(" href=\"");
            escape_into(&mut self.out, &href);
            self.out.push('"');
            for (name, value) in LINK_ATTRIBUTES {
                self.out.extend([" ", name, "=\"", value, "\""]);
            }
        }
        self.out.push('>');
        self.at_break = BLOCKS.contains(&name);
        // A parser closes an open paragraph or list item itself when the next one begins.
        self.depth += usize::from(!matches!(name, "br" | "hr" | "p" | "li" | "dd" | "dt"));
        self.formatting += usize::from(FORMATTING.contains(&name));
    }

    fn close(&mut self, name: &str) {
        if !ALLOWED.contains(&name) {
            return self.outside(name);
        }
        self.work += 1 + self.formatting;
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        self.at_break |= BLOCKS.contains(&name);
        self.depth -= usize::from(self.depth > 0 && !matches!(name, "br" | "hr" | "p" | "li" | "dd" | "dt"));
        self.formatting -= usize::from(self.formatting > 0 && FORMATTING.contains(&name));
    }

    /// A tag that does not survive; where it stood on a line of its own, the words around it stay apart.
    fn outside(&mut self, name: &str) {
        if !self.at_break && !lexer::is_inline(name) && name != "img" {
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
    fn blocks_that_do_not_survive_keep_lines_apart() {
        assert_eq!(safe("<div>a</div><div><span>b</span></div>"), "a<br>b<br>");
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
    fn depth_and_tangles_are_made_plain_instead_of_costly() {
        let deep = format!("{}x", "<blockquote>".repeat(1000));
        assert_eq!(
            sanitise(&deep, None),
            (Some("<p>x</p>".to_owned()), Repairs { cut: false, flattened: true })
        );
        let tangled = format!("<p>{}</p>{}", "<b>".repeat(200), "<p>x</p>".repeat(5000));
        assert!(sanitise(&tangled, None).1.flattened);
        assert_eq!(safe(&format!("{}x", "<div>".repeat(100_000))), "x");
    }

    #[test]
    fn a_long_article_is_cut_and_says_so() {
        let (html, repairs) = sanitise(&"<p>word</p>".repeat(20_000), None);
        assert!(repairs.cut && html.unwrap().len() <= CONTENT_BYTES_MAX + 32);
        assert!(sanitise(&"x".repeat(CONTENT_BYTES_MAX + 1), None).1.cut);
        assert!(!sanitise(&"x".repeat(CONTENT_BYTES_MAX), None).1.cut);
    }
}
