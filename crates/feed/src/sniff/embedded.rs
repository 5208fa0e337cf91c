//! Finds a feed inside another document: after messages of a program, or in an HTML page, as markup or escaped.

use std::borrow::Cow;

use crate::text::{truncate, unescape};

/// How much other text may precede a feed, in bytes.
const BEFORE_BYTES_MAX: usize = 64 << 10;
/// How much of a feed is searched for the element that proves it, in bytes.
const PROOF_BYTES_MAX: usize = 8 << 10;

/// How many tags that could begin a feed are looked at.
const CANDIDATES_MAX: usize = 16;

/// A feed inside another document.
#[derive(Debug)]
pub(crate) struct EmbeddedFeed<'a> {
    /// The offset at which it begins.
    pub(crate) at: usize,
    /// From there on; decoded if the page has it escaped.
    pub(crate) text: Cow<'a, str>,
    pub(crate) is_json: bool,
}

/// Finds a feed that does not begin at the first character.
pub(crate) fn embedded_feed(text: &str) -> Option<EmbeddedFeed<'_>> {
    let lower = truncate(text, BEFORE_BYTES_MAX + PROOF_BYTES_MAX).to_ascii_lowercase();
    let head = truncate(&lower, BEFORE_BYTES_MAX);
    if let Some(at) = root_in(&lower, head.len()).filter(|at| *at > 0) {
        return Some(EmbeddedFeed { at, text: Cow::Borrowed(&text[at..]), is_json: false });
    }
    escaped_feed(text, head).or_else(|| json_feed(text, head))
}

/// The offset of the root element of a feed that begins in the first `bytes` of text in lower case.
fn root_in(lower: &str, bytes: usize) -> Option<usize> {
    const ROOTS: [(&str, &str); 4] =
        [("<rss", "<channel"), ("<rdf:rdf", "<channel"), ("<feed", "<entry"), ("<atom:feed", "<atom:entry")];
    let is_feed = |at: usize, root: &str, proof: &str| {
        let rest = truncate(&lower[at..], PROOF_BYTES_MAX);
        let tag = &rest[..rest.find('>').unwrap_or(rest.len())];
        let is_whole_name = rest[root.len()..].starts_with(['>', ' ', '\n', '\r', '\t', '/']);
        let is_proved = rest.contains(proof) || tag.contains("www.w3.org/2005/atom");
        is_whole_name && is_proved && !is_hidden(&lower[..at])
    };
    let first = |(root, proof): &(&str, &str)| {
        let found = lower.match_indices(root).map(|(at, _)| at).take_while(|at| *at < bytes);
        found.take(CANDIDATES_MAX).find(|at| is_feed(*at, root, proof))
    };
    ROOTS.iter().filter_map(first).min()
}

/// Whether what follows is inside a comment or script.
fn is_hidden(before: &str) -> bool {
    [("<!--", "-->"), ("<script", "</script"), ("<style", "</style")]
        .iter()
        .any(|(open, close)| before.rfind(open).is_some_and(|at| !before[at..].contains(close)))
}

/// A feed that is the first text that a page shows, with `<` escaped, as browsers save it.
fn escaped_feed<'a>(text: &'a str, head: &str) -> Option<EmbeddedFeed<'a>> {
    const BEGINNINGS: [&str; 5] = ["&lt;?xml", "&lt;rss", "&lt;rdf:rdf", "&lt;feed", "&lt;atom:feed"];
    let at = BEGINNINGS.iter().filter_map(|b| head.find(b)).min()?;
    if !shows_nothing(&head[..at]) {
        return None;
    }
    let decoded = unescape(&shown_text(&text[at..])).into_owned();
    let lower = truncate(&decoded, 2 * PROOF_BYTES_MAX).to_ascii_lowercase();
    root_in(&lower, PROOF_BYTES_MAX)?;
    Some(EmbeddedFeed { at, text: Cow::Owned(decoded), is_json: false })
}

/// Whether the beginning of a page, in lower case, has no text that the page shows.
fn shows_nothing(before: &str) -> bool {
    let body = ["<body", "</head>"].iter().find_map(|tag| before.find(tag)).unwrap_or(0);
    shown_text(&before[body..]).trim().is_empty()
}

/// The text between tags, with undecoded references, up to the end of the page.
fn shown_text(html: &str) -> String {
    let mut shown = String::new();
    let mut rest = html;
    while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
        shown.push_str(&rest[..at]);
        let ends = |tag: &str| rest.get(at..at + tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag));
        if ends("</pre") || ends("</body") || ends("</html") {
            return shown;
        }
        rest = memchr::memchr(b'>', &rest.as_bytes()[at..]).map_or("", |end| &rest[at + end + 1..]);
    }
    shown.push_str(rest);
    shown
}

/// A JSON Feed, found by its version; in a page it is the first text that is shown.
fn json_feed<'a>(text: &'a str, head: &str) -> Option<EmbeddedFeed<'a>> {
    let version = head.find("jsonfeed.org/version/")?;
    let at = head[..version].rfind('{').filter(|at| *at > 0)?;
    let is_page = ["<html", "<body", "<pre"].iter().any(|tag| head[..at].contains(tag));
    if is_page && !shows_nothing(&head[..at]) {
        return None;
    }
    let rest = &text[at..];
    let text = if is_page { unescape(&shown_text(rest)).into_owned().into() } else { rest.into() };
    Some(EmbeddedFeed { at, text, is_json: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: &str = "<rss version='2.0'><channel><item><title>a &amp; b</title></item></channel></rss>";

    fn found(text: &str) -> Option<String> {
        embedded_feed(text).map(|feed| feed.text.into_owned())
    }

    #[test]
    fn a_feed_in_a_page_is_found_as_markup_and_escaped() {
        let escaped = FEED.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        for page in [
            format!(
                "<!DOCTYPE html><html><head><title>t</title></head><body><pre>{FEED}</pre></body></html>"
            ),
            format!("<!-- <rss><channel> --><script>'<rss><channel>'</script>{FEED}</pre></body></html>"),
        ] {
            assert!(found(&page).unwrap().starts_with(FEED), "{page}");
        }
        for page in [
            format!("<html><head><title>t</title></head><body><pre style='x'>{escaped}</pre></body></html>"),
            format!("<pre>\n&lt;?xml version='1.0'?&gt;{escaped}"),
            escaped.clone(),
        ] {
            assert!(found(&page).unwrap().ends_with(FEED), "{page}");
        }
    }

    #[test]
    fn a_page_about_feeds_is_not_a_feed() {
        let escaped = FEED.replace('<', "&lt;");
        for page in [
            format!("<html><body><p>An example:</p><pre>{escaped}</pre></body></html>"),
            "<html><body><pre>&lt;rss is not a tag</pre></body></html>".to_owned(),
            format!("<html><!-- {FEED} --><body></body></html>"),
            "<svg><rdf:RDF xmlns:cc='http://web.resource.org/cc/'><cc:Work/></rdf:RDF></svg>".to_owned(),
            "<html><body><feed-list><rssfeed></body></html>".to_owned(),
        ] {
            assert_eq!(found(&page), None, "{page}");
        }
    }

    #[test]
    fn a_json_feed_is_found_after_other_text() {
        let feed = r#"{"title":"<b>","version":"https://jsonfeed.org/version/1.1","items":[]}"#;
        assert_eq!(found(&format!("callback({feed})")).unwrap(), format!("{feed})"));
        let escaped = feed.replace('<', "&lt;").replace('>', "&gt;");
        assert_eq!(found(&format!("<html><body><pre>{escaped}</pre></body>")).unwrap(), feed);
        assert_eq!(found(&format!("<html><body>An example: <pre>{escaped}</pre></body>")), None);
    }
}
