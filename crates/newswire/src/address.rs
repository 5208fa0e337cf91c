//! The address of a feed or of a page as people write it: without a scheme, with `feed:`, with `<>` around it.

use std::path::Path;

use news::{Escaped, FeedUrl, without_feed_scheme};

/// Schemes without `//` after them whose addresses could be mistaken for a user name and a host.
const OPAQUE_SCHEMES: [&str; 8] = ["mailto", "javascript", "data", "file", "tel", "urn", "about", "blob"];

/// Why a text is not the address of a feed or of a page. It shows nothing that may be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAddress {
    #[error("{0}: expected the address of a feed or of a page, such as https://example.org/feed.xml")]
    NoAddress(String),
    #[error("an address may have {} bytes at most", FeedUrl::LENGTH_MAX)]
    Long,
    #[error("{0}: addresses cannot be requested; write one that begins with https:// or http://")]
    Scheme(String),
    #[error("{0} is a file; a list has addresses only, and `newswire check {0}` reads files")]
    File(String),
}

/// What to request for such a text, in this order: one address, or without a scheme the https and the http one.
pub(crate) fn candidates(text: &str) -> Result<Vec<FeedUrl>, BadAddress> {
    let text = text.trim();
    // RFC 3986, appendix C.
    let text = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text).trim();
    let text = strip_prefix(text, "url:").unwrap_or(text).trim_start();
    if text.len() > FeedUrl::LENGTH_MAX {
        return Err(BadAddress::Long);
    }
    let text = without_feed_scheme(text);
    if strip_prefix(text, "http:").or_else(|| strip_prefix(text, "https:")).is_some() {
        return FeedUrl::try_new(text).map(|url| vec![url]).map_err(|_| no_address(text));
    }
    let rest = text.strip_prefix("//").unwrap_or(text);
    if Path::new(text).is_file() {
        return Err(BadAddress::File(Escaped(text).to_string()));
    }
    if let Some(scheme) = foreign_scheme(rest) {
        return Err(BadAddress::Scheme(Escaped(scheme).to_string()));
    }
    let has_host = rest.starts_with(|first: char| first.is_alphanumeric() || first == '[');
    if !has_host || rest.contains(char::is_whitespace) {
        return Err(no_address(text));
    }
    let urls: Vec<_> =
        ["https", "http"].iter().filter_map(|s| FeedUrl::try_new(&format!("{s}://{rest}")).ok()).collect();
    // The port says which of the two it is.
    let is_usual = |url: &FeedUrl, port| url.secret().port_or_known_default() == Some(port);
    match &urls[..] {
        [https, http] if is_usual(http, 443) => Ok(vec![https.clone()]),
        [https, http] if is_usual(https, 80) => Ok(vec![http.clone()]),
        [_, _] => Ok(urls),
        _ => Err(no_address(text)),
    }
}

/// What was written, unless it may have a password or a token.
fn no_address(text: &str) -> BadAddress {
    if text.contains(['@', '?']) {
        return BadAddress::NoAddress("the address".to_owned());
    }
    BadAddress::NoAddress(format!("`{}`", Escaped(&notation::shortened(text))))
}

/// The scheme of an address that is neither http nor https.
fn foreign_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_opaque = OPAQUE_SCHEMES.iter().any(|opaque| scheme.eq_ignore_ascii_case(opaque));
    let is_port = rest.starts_with(|first: char| first.is_ascii_digit());
    (is_scheme && (rest.starts_with("//") || is_opaque && !is_port)).then_some(scheme)
}

fn strip_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, BadAddress> {
        Ok(candidates(text)?.iter().map(|url| url.secret().to_string()).collect())
    }

    #[test]
    fn an_address_may_be_written_as_people_do() {
        let both = ["https://example.org/feed", "http://example.org/feed"];
        for text in [
            "example.org/feed",
            "  example.org/feed\n",
            "<example.org/feed>",
            " < example.org/feed > ",
            "//example.org/feed",
            "feed:example.org/feed",
            "feed://example.org/feed",
            "FEED://Example.ORG/feed",
            "URL:example.org/feed",
            "<URL:feed://example.org/feed>",
        ] {
            assert_eq!(read(text).unwrap(), both, "{text:?}");
        }
        for (text, expected) in [
            ("https://example.org/feed", "https://example.org/feed"),
            ("HTTP://example.org", "http://example.org/"),
            ("<https://example.org/feed?a=b#c>", "https://example.org/feed?a=b#c"),
            ("feed:https://example.org/feed", "https://example.org/feed"),
            ("feed:http://example.org/feed", "http://example.org/feed"),
            ("feed:feed:http://example.org/feed", "http://example.org/feed"),
            ("<URL:Feed: FEEDS:http://example.org/feed>", "http://example.org/feed"),
            ("https:/example.org/feed", "https://example.org/feed"),
            ("example.org:443/feed", "https://example.org/feed"),
            ("example.org:80/feed", "http://example.org/feed"),
        ] {
            assert_eq!(read(text).unwrap(), [expected], "{text:?}");
        }
        for (text, https, http) in [
            ("localhost:8000", "https://localhost:8000/", "http://localhost:8000/"),
            ("127.0.0.1:8000/a", "https://127.0.0.1:8000/a", "http://127.0.0.1:8000/a"),
            ("[::1]:8000/a", "https://[::1]:8000/a", "http://[::1]:8000/a"),
            ("bücher.example?x=1", "https://xn--bcher-kva.example/?x=1", "http://xn--bcher-kva.example/?x=1"),
            ("me:pw@example.org/a", "https://me:pw@example.org/a", "http://me:pw@example.org/a"),
            ("file.example:8080/a", "https://file.example:8080/a", "http://file.example:8080/a"),
        ] {
            assert_eq!(read(text).unwrap(), [https, http], "{text:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_remedy() {
        for text in [
            "",
            " ",
            "<>",
            "feed:",
            "feed://",
            "http://",
            "/etc/none",
            "./feed.xml",
            "../x",
            "?a=b",
            "#a",
            "two words",
            "https:",
            ":80",
            "-",
            "https://exa mple.org/",
        ] {
            assert!(matches!(read(text), Err(BadAddress::NoAddress(_))), "{text:?}");
        }
        let says = |text: &str| read(text).unwrap_err().to_string();
        assert!(says("two words").starts_with("`two words`: expected the address of a feed"));
        for secret in ["https://me:SECRET@exa mple.org/", "http:///?token=SECRET x", "?a=SECRET"] {
            assert!(!says(secret).contains("SECRET"), "{}", says(secret));
        }
        for (text, scheme) in [
            ("ftp://example.org/feed", "ftp"),
            ("feed:ftp://example.org/feed", "ftp"),
            ("htps://example.org/feed", "htps"),
            ("mailto:me@example.org", "mailto"),
            ("javascript:alert(1)", "javascript"),
            ("file:///etc/passwd", "file"),
        ] {
            assert_eq!(read(text), Err(BadAddress::Scheme(scheme.to_owned())), "{text:?}");
        }
        assert_eq!(read(&format!("example.org/{}", "a".repeat(3000))), Err(BadAddress::Long));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        assert_eq!(read(&path), Err(BadAddress::File(path.clone())));
    }
}
