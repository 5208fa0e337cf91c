//! Addresses from feeds: only complete `http` and `https` ones come out.

use url::Url;

use crate::limits::LINK_BYTES_MAX;

/// An address resolved against its base, if a browser may follow it: `http` or `https` with a host, at most
/// [`LINK_BYTES_MAX`] bytes. One that is sound as it was sent keeps its spelling.
pub(crate) fn web_url(raw: &str, base: Option<&Url>) -> Option<String> {
    let raw = raw.trim();
    let url = resolve(raw, base)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let spelling = if is_sound(raw) { raw } else { url.as_str() };
    (spelling.len() <= LINK_BYTES_MAX).then(|| spelling.to_owned())
}

/// Any address, resolved against its base.
pub(crate) fn resolve(raw: &str, base: Option<&Url>) -> Option<Url> {
    let raw = raw.trim();
    if raw.is_empty() || raw.len() > 2 * LINK_BYTES_MAX {
        return None;
    }
    match base {
        Some(base) => base.join(raw).ok(),
        None => Url::parse(raw).ok(),
    }
}

/// Complete, and nothing in it that URL parsers disagree about.
fn is_sound(raw: &str) -> bool {
    let starts = |scheme: &str| raw.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    let odd = |b: u8| !b.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&b);
    (starts("http://") || starts("https://")) && !raw.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_may_follow_comes_out() {
        let base = Url::parse("https://example.org/a/b").unwrap();
        let url = |raw| web_url(raw, Some(&base));
        assert_eq!(url(" c?d=1&e ").as_deref(), Some("https://example.org/a/c?d=1&e"));
        assert_eq!(url("//x.example").as_deref(), Some("https://x.example/"));
        assert_eq!(url("http://x.example").as_deref(), Some("http://x.example"));
        assert_eq!(url("http://x.example/é b").as_deref(), Some("http://x.example/%C3%A9%20b"));
        for raw in [
            "",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "java\tscript:alert(1)",
            " \u{1}javascript:alert(1)",
            "javascript://x.example/%0Aalert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "mailto:a@b",
            "tag:example.org,2004:1",
            "urn:uuid:1",
            "http://",
            "ftp://x.example/",
        ] {
            assert_eq!(url(raw), None, "{raw:?}");
        }
        assert_eq!(web_url("relative", None), None);
        assert_eq!(url(&format!("http://x.example/{}", "a".repeat(3000))), None);
    }
}
