//! The `Link` headers of a response (RFC 8288) that WebSub needs: `hub` and `self`. A link with an `anchor` is about
//! another document and ignored.

use http::header::{HeaderMap, LINK};
use news::FeedUrl;
use url::Url;

/// Maximum number of headers that are read.
const VALUES_MAX: usize = 8;
/// Maximum number of bytes that are read of each.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// The links in the head of a response; the first of each relation counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderLinks {
    /// `rel="hub"`: the hub to subscribe at.
    pub hub: Option<FeedUrl>,
    /// `rel="self"`: the topic, under which the hub knows the feed.
    pub topic: Option<FeedUrl>,
}

/// Parses the headers; relative targets are resolved against `base`.
pub(crate) fn links(headers: &HeaderMap, base: &Url) -> HeaderLinks {
    let mut links = HeaderLinks::default();
    for value in headers.get_all(LINK).iter().take(VALUES_MAX) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let end = value.floor_char_boundary(VALUE_BYTES_MAX);
        for (target, relations) in LinkParser(&value[..end]) {
            let is = |name: &str| relations.split_ascii_whitespace().any(|r| r.eq_ignore_ascii_case(name));
            let target = || base.join(target).ok().and_then(|url| FeedUrl::try_new(url.as_str()).ok());
            if links.hub.is_none() && is("hub") {
                links.hub = target();
            }
            if links.topic.is_none() && is("self") {
                links.topic = target();
            }
        }
    }
    links
}

/// The links of one header: target and relations.
struct LinkParser<'a>(&'a str);

impl<'a> Iterator for LinkParser<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (_, rest) = self.0.split_once('<')?;
            let (target, rest) = rest.split_once('>')?;
            self.0 = rest;
            let (mut relations, mut has_anchor) = (None, false);
            while let Some((name, value)) = self.parameter() {
                has_anchor |= name.eq_ignore_ascii_case("anchor");
                // RFC 8288, section 3.3: a second `rel` does not count.
                if relations.is_none() && name.eq_ignore_ascii_case("rel") {
                    relations = Some(value);
                }
            }
            if let (Some(relations), false) = (relations, has_anchor) {
                return Some((target, relations));
            }
        }
    }
}

impl<'a> LinkParser<'a> {
    /// The next parameter of this link, if there is one.
    fn parameter(&mut self) -> Option<(&'a str, &'a str)> {
        let rest = self.0.trim_start().strip_prefix(';')?.trim_start();
        let end = rest.find(['=', ';', ',']).unwrap_or(rest.len());
        let (name, rest) = (rest[..end].trim_end(), &rest[end..]);
        let Some(value) = rest.strip_prefix('=').map(str::trim_start) else {
            self.0 = rest;
            return Some((name, ""));
        };
        let (value, rest) = match value.strip_prefix('"') {
            // Relations and addresses have no escaped quotes, so the first quote ends the value.
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        self.0 = rest;
        Some((name, value.trim()))
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(LINK, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let links = links(&headers, &Url::parse("https://example.org/a/feed").unwrap());
        let text = |url: Option<FeedUrl>| url.map(|url| url.secret().to_string());
        (text(links.hub), text(links.topic))
    }

    #[test]
    fn hub_and_self_are_found_however_they_are_written() {
        let both = (Some("https://hub.example/".to_owned()), Some("https://example.org/feed".to_owned()));
        for values in [
            &[r#"<https://hub.example/>; rel="hub", <https://example.org/feed>; rel="self""#][..],
            &["<https://hub.example/>;rel=hub", "<https://example.org/feed>;rel=self"],
            &[r#"<https://hub.example/>; title="a, b; c"; REL="x HUB" , </feed> ; rel = self"#],
            &[
                r#"<style.css>; rel=preload; as=style; crossorigin, <https://hub.example/>; rel=hub"#,
                "</feed>;rel=self",
            ],
            &["<https://hub.example/>; rel=hub, <https://other.example/>; rel=hub, </feed>; rel=self"],
        ] {
            assert_eq!(read(values), both, "{values:?}");
        }
    }

    #[test]
    fn links_of_other_documents_or_not_to_web_addresses_are_ignored() {
        for value in [
            "",
            "<",
            "<>",
            "hub",
            "<javascript:alert(1)>; rel=hub",
            r#"<https://hub.example/>; rel=hub; anchor="/other""#,
            "<https://hub.example/>; rel=next; rel=hub",
            "<https://hub.example/>; hub",
        ] {
            assert_eq!(read(&[value]), (None, None), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(value in "[ -~]{0,200}") {
            assert!(LinkParser(&value).count() <= 200);
        }
    }
}
