//! Addresses as they are compared: what a move to https, to another host name or another way to count readers changes is
//! left out.

use url::Url;

use crate::html::is_canonical;

/// Query parameters for tracking, which do not identify the article; and everything that begins with `utm_`.
const TRACKING: [&str; 34] = [
    "fbclid",
    "gclid",
    "gbraid",
    "wbraid",
    "dclid",
    "msclkid",
    "yclid",
    "twclid",
    "ttclid",
    "igshid",
    "igsh",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "_ga",
    "_gl",
    "_hsenc",
    "_hsmi",
    "cmpid",
    "ocid",
    "oly_enc_id",
    "oly_anon_id",
    "vero_id",
    "wt_mc",
    "xtor",
    "at_medium",
    "at_campaign",
    "at_bbc_team",
    "ns_mchannel",
    "ns_source",
    "ns_campaign",
    "ns_linkname",
    "ns_fee",
    "ftag",
];

/// Names of sessions in the query or, after a semicolon, in the path.
const SESSIONS: [&str; 7] =
    ["jsessionid", "phpsessid", "sessionid", "session_id", "cfid", "cftoken", "aspsessionid"];

/// An address in comparison form, `host/path?query#fragment`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ComparedAddress {
    text: String,
    /// Where the host ends.
    host: usize,
    /// Where the path ends.
    path: usize,
    /// Where the query ends.
    query: usize,
}

impl ComparedAddress {
    /// Text that is no address, compared as it is.
    pub(super) fn opaque(text: &str) -> Self {
        let end = text.len();
        Self { text: text.to_owned(), host: end, path: end, query: end }
    }

    pub(super) fn of(address: &str) -> Self {
        if is_canonical(address)
            && let Some((_, rest)) = address.split_once("://")
        {
            return Self::from_parts(rest);
        }
        match Url::parse(address) {
            Ok(url) if url.has_host() => Self::from_parts(&url[url::Position::BeforeHost..]),
            _ => Self::opaque(address),
        }
    }

    /// `rest` is what follows `https://` in a serialised address.
    fn from_parts(rest: &str) -> Self {
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host);
        let mut text = String::with_capacity(rest.len() + query.len() + fragment.len() + 2);
        text.push_str(host.strip_prefix("www.").unwrap_or(host));
        let host = text.len();
        push_path(&mut text, path);
        let path = text.len();
        let mut sign = '?';
        for pair in query.split('&').filter(|pair| !pair.is_empty() && !is_about_the_visitor(pair)) {
            text.push(sign);
            text.push_str(pair);
            sign = '&';
        }
        let query = text.len();
        let fragment = fragment.split_once(":~:").map_or(fragment, |(before, _)| before);
        let is_tracking =
            fragment.split('&').next().is_some_and(|f| f.contains('=') && is_about_the_visitor(f));
        if !fragment.is_empty() && !is_tracking {
            text.push('#');
            text.push_str(fragment);
        }
        Self { text, host, path, query }
    }

    pub(super) fn full(&self) -> &str {
        &self.text
    }

    pub(super) fn without_host(&self) -> &str {
        &self.text[self.host..]
    }

    /// Host and path.
    pub(super) fn page(&self) -> &str {
        &self.text[..self.path]
    }

    pub(super) fn path(&self) -> &str {
        &self.text[self.host..self.path]
    }

    pub(super) fn without_fragment(&self) -> &str {
        &self.text[..self.query]
    }
}

/// Without session ids (`;jsessionid=5A`) and without a slash at the end.
fn push_path(text: &mut String, path: &str) {
    if !path.contains(';') {
        text.push_str(path.trim_end_matches('/'));
        return;
    }
    for segment in path.trim_end_matches('/').split('/').skip(1) {
        text.push('/');
        let mut parts = segment.split(';');
        text.push_str(parts.next().unwrap_or_default());
        for parameter in parts.filter(|p| !is_about_the_visitor(p)) {
            text.push(';');
            text.push_str(parameter);
        }
    }
}

/// Whether a parameter (`name=value`) is for tracking or names a session.
fn is_about_the_visitor(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let begins = |start: &str| name.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start));
    begins("utm_")
        || begins("aspsessionid")
        || TRACKING.iter().chain(&SESSIONS).any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        ComparedAddress::of(a).full() == ComparedAddress::of(b).full()
    }

    #[test]
    fn what_does_not_name_another_article_is_left_out() {
        for other in [
            "https://news.example/a/1?x=1",
            "http://www.news.example/a/1?x=1",
            "http://news.example:80/a/1/?x=1",
            "https://NEWS.example:443/a/1?x=1",
            "http://news.example/a/1?utm_source=rss&x=1&fbclid=9",
            "http://news.example/a/1;jsessionid=8AF?x=1",
            "http://news.example/a/1;JSESSIONID=8AF/?x=1&PHPSESSID=12",
            "http://news.example/a/1?x=1#xtor=RSS-16",
            "http://news.example/a/1?x=1#:~:text=word",
            "http://news.example/a/./1?x=1&",
        ] {
            assert!(same("http://news.example/a/1?x=1", other), "{other}");
        }
    }

    #[test]
    fn what_may_name_another_article_stays() {
        for other in [
            "http://news.example/a/1?x=2",
            "http://news.example/a/1",
            "http://news.example/a/1?x=1#v2",
            "http://news.example/a/1?x=1#part=2",
            "http://news.example/a/1;id=7?x=1",
            "http://news.example/A/1?x=1",
            "http://m.news.example/a/1?x=1",
            "http://news.example:8080/a/1?x=1",
            "http://news.example/a/1?x=1&ref=rss",
        ] {
            assert!(!same("http://news.example/a/1?x=1", other), "{other}");
        }
    }

    #[test]
    fn the_parts_of_an_address_are_told_apart() {
        let address = ComparedAddress::of("https://www.x.example/a/?b=1#c");
        assert_eq!(address.full(), "x.example/a?b=1#c");
        assert_eq!((address.without_host(), address.page()), ("/a?b=1#c", "x.example/a"));
        assert_eq!(address.without_fragment(), "x.example/a?b=1");
        assert_eq!(ComparedAddress::of("http://x.example/").without_host(), "");
        assert_eq!(ComparedAddress::of("tag:x,2024:1").full(), "tag:x,2024:1");
        assert_eq!(ComparedAddress::of("not an address").full(), "not an address");
    }
}
