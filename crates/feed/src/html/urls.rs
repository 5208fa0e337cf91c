//! URLs in feeds: only absolute `http` and `https` URLs are returned.

use memchr::memchr;
use url::Url;

use crate::limits::LINK_BYTES_MAX;

/// Resolves a URL against its base; `None` unless it is `http` or `https` with a host and at most [`LINK_BYTES_MAX`]
/// bytes. A URL that is valid as sent keeps its spelling.
pub(crate) fn web_url(raw: &str, base: Option<&Url>) -> Option<String> {
    let raw = raw.trim();
    if is_canonical(raw) {
        return (raw.len() <= LINK_BYTES_MAX).then(|| raw.to_owned());
    }
    let url = resolve(raw, base)?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let spelling = if is_sound(raw) { raw } else { url.as_str() };
    (spelling.len() <= LINK_BYTES_MAX).then(|| spelling.to_owned())
}

/// Resolves any URL against its base.
pub(crate) fn resolve(raw: &str, base: Option<&Url>) -> Option<Url> {
    let raw = raw.trim();
    if raw.is_empty() || raw.len() > 2 * LINK_BYTES_MAX {
        return None;
    }
    if is_host_alone(raw) {
        return Url::parse(&format!("http://{raw}")).ok();
    }
    match base {
        Some(base) => base.join(raw).ok(),
        None => Url::parse(raw).ok(),
    }
}

/// Whether it is an address as people say it, without its scheme: `www.example.org/a`.
fn is_host_alone(raw: &str) -> bool {
    let Some(rest) = raw.get(..4).filter(|www| www.eq_ignore_ascii_case("www.")).map(|_| &raw[4..]) else {
        return false;
    };
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // Of a file such as `www.html` there is one label more.
    host.split('.').count() > 1 && host.split('.').all(|label| !label.is_empty())
}

/// Whether a URL parser would return the same text: `http` or `https`, a domain in lower case, no dot segments, nothing to
/// escape. Most URLs are like this, and parsing them would dominate the cost.
pub(crate) fn is_canonical(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    let Some(end) = memchr(b'/', rest.as_bytes()) else { return false };
    let (host, rest) = (&rest[..end], &rest[end + 1..]);
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with("xn--")
    };
    // A last label with a digit may make it an IPv4 address.
    let top = host.rsplit('.').next().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_~!$&()*+,;=:@/?#".contains(&b);
    host.split('.').all(is_label)
        && top.bytes().all(|b| b.is_ascii_lowercase())
        && rest.bytes().enumerate().all(|(n, b)| {
            // A dot at the beginning of a segment may be a dot segment.
            plain(b) || (b == b'.' && n > 0 && rest.as_bytes()[n - 1] != b'/')
        })
}

/// Whether the URL is absolute and without anything that URL parsers disagree about.
fn is_sound(raw: &str) -> bool {
    let starts = |scheme: &str| raw.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    let odd = |b: u8| !b.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&b);
    (starts("http://") || starts("https://")) && !raw.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_a_browser_may_follow_are_returned() {
        let base = Url::parse("https://example.org/a/b").unwrap();
        let url = |raw| web_url(raw, Some(&base));
        assert_eq!(url(" c?d=1&e ").as_deref(), Some("https://example.org/a/c?d=1&e"));
        assert_eq!(url("//x.example").as_deref(), Some("https://x.example/"));
        assert_eq!(url("www.x.example/a?b").as_deref(), Some("http://www.x.example/a?b"));
        assert_eq!(url("www.html").as_deref(), Some("https://example.org/a/www.html"));
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
        for raw in [
            "http://x.example/a.b/c-d/?e=f&g[]",
            "https://x.example//a;b=c#d?e",
            "http://x.example/a/../b",
            "http://x.example/.a",
            "http://1.2.3/",
            "http://x.1/",
            "http://X.example/",
            "http://x..example/",
            "http://xn--a/",
            "http://x.example/a'b",
            "http://a--b.example/~c",
            "http://localhost/",
        ] {
            let same = Url::parse(raw).is_ok_and(|url| url.as_str() == raw);
            assert!(!is_canonical(raw) || same, "{raw}");
        }
        assert_eq!(web_url("relative", None), None);
        assert_eq!(url(&format!("http://x.example/{}", "a".repeat(LINK_BYTES_MAX))), None);
    }
}
