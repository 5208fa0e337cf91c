//! The cookies of one visit. Some servers answer the first request with a cookie and a redirect, often to the same address,
//! and the document to those that show it. What they set is forgotten when the visit ends.
//!
//! As in RFC 6265, but a cookie is sent to exactly the host that has set it: `Domain` cannot widen that.

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use news::Timestamp;
use url::Url;

use crate::headers::http_date;

/// Maximum number of cookies of a visit, and longest name and value together in bytes. Others are ignored.
const COOKIES_MAX: usize = 20;
const COOKIE_BYTES_MAX: usize = 4096;

/// The cookies that the servers of a visit have set so far.
#[derive(Default)]
pub(crate) struct VisitCookies(Vec<VisitCookie>);

struct VisitCookie {
    name: Vec<u8>,
    value: Vec<u8>,
    host: String,
    path: String,
    is_secure: bool,
}

impl VisitCookies {
    /// Keeps what the response of an address has set.
    pub(crate) fn keep(&mut self, head: &HeaderMap, from: &Url, now: Timestamp) {
        for line in head.get_all(SET_COOKIE) {
            let Some((cookie, is_expired)) = parse(line.as_bytes(), from, now) else { continue };
            let is_same = |other: &VisitCookie| {
                other.name == cookie.name && other.host == cookie.host && other.path == cookie.path
            };
            let known = self.0.iter().position(is_same);
            match known {
                Some(known) if is_expired => drop(self.0.remove(known)),
                Some(known) => self.0[known] = cookie,
                None if is_expired || self.0.len() == COOKIES_MAX => {}
                None => self.0.push(cookie),
            }
        }
    }

    /// What is sent to an address, except for cookies whose names are in `own`, the cookies of the source.
    pub(crate) fn to(&self, url: &Url, own: Option<&HeaderValue>) -> Option<HeaderValue> {
        let names: Vec<_> =
            own.map(HeaderValue::as_bytes).unwrap_or_default().split(|b| *b == b';').collect();
        let names: Vec<_> = names.into_iter().map(|pair| name_and_value(pair).0).collect();
        let mut sent: Vec<_> = self.0.iter().filter(|cookie| cookie.is_for(url)).collect();
        sent.retain(|cookie| !names.contains(&&cookie.name[..]));
        // Longer paths first, as servers expect; otherwise in the order in which they were set.
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = own
            .map(|own| own.as_bytes().to_vec())
            .into_iter()
            .chain(sent.into_iter().map(VisitCookie::pair))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let mut value = HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Adds them to the headers of a request to an address, after the cookies of the source.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap, url: &Url) {
        if let Some(value) = self.to(url, headers.get(COOKIE)) {
            headers.insert(COOKIE, value);
        }
    }
}

impl VisitCookie {
    fn is_for(&self, url: &Url) -> bool {
        let is_below = |path: &str| {
            path.strip_prefix(&self.path)
                .is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'))
        };
        url.host_str() == Some(&self.host)
            && is_below(url.path())
            && (!self.is_secure || url.scheme() == "https")
    }

    fn pair(&self) -> Vec<u8> {
        [&self.name[..], b"=", &self.value[..]].concat()
    }
}

fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    let split = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
    let (name, value) = pair.split_at(split);
    (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
}

/// Reads a `Set-Cookie` (RFC 6265, section 5.2) and whether it only ends an earlier one. `None` if it cannot be kept.
fn parse(line: &[u8], from: &Url, now: Timestamp) -> Option<(VisitCookie, bool)> {
    let mut parts = line.split(|b| *b == b';');
    let (name, value) = name_and_value(parts.next()?);
    let host = from.host_str()?;
    let fits = !name.is_empty() && name.len() + value.len() <= COOKIE_BYTES_MAX;
    if !fits {
        return None;
    }
    let (mut path, mut is_secure) = (default_path(from), false);
    let (mut max_age, mut expires) = (None, None);
    for part in parts {
        let (name, value) = name_and_value(part);
        let value = str::from_utf8(value).unwrap_or_default();
        match name.to_ascii_lowercase().as_slice() {
            b"secure" => is_secure = true,
            b"path" => path = if value.starts_with('/') { value.to_owned() } else { default_path(from) },
            b"domain" if !is_within(host, value.trim_start_matches('.')) => return None,
            b"max-age" => max_age = value.parse::<i64>().ok().or(max_age),
            // Some servers write 01-Jan-1970.
            b"expires" => expires = http_date(&value.replace('-', " ")).or(expires),
            _ => {}
        }
    }
    if is_secure && from.scheme() != "https" {
        return None;
    }
    let is_expired = max_age.map_or(expires.is_some_and(|at| at <= now), |seconds| seconds <= 0);
    let cookie =
        VisitCookie { name: name.to_vec(), value: value.to_vec(), host: host.to_owned(), path, is_secure };
    Some((cookie, is_expired))
}

/// The directory of an address.
fn default_path(from: &Url) -> String {
    let path = from.path();
    match path.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(end) => path[..end].to_owned(),
    }
}

/// Whether a host is this domain or in it. An empty domain says nothing.
fn is_within(host: &str, domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    domain.is_empty()
        || host == domain
        || host
            .strip_suffix(&domain)
            .is_some_and(|rest| rest.ends_with('.') && host.parse::<std::net::IpAddr>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn set(from: &str, lines: &[&str]) -> VisitCookies {
        let mut cookies = VisitCookies::default();
        keep(&mut cookies, from, lines);
        cookies
    }

    fn keep(cookies: &mut VisitCookies, from: &str, lines: &[&str]) {
        let lines = lines.iter().map(|line| (SET_COOKIE, HeaderValue::from_str(line).unwrap()));
        let mut head = HeaderMap::new();
        for (name, value) in lines {
            head.append(name, value);
        }
        cookies.keep(&head, &url(from), Timestamp::from_millis(1_000_000_000_000));
    }

    fn sent(cookies: &VisitCookies, to: &str) -> String {
        cookies.to(&url(to), None).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn a_cookie_is_sent_to_its_host_its_path_and_over_tls_if_it_is_secure() {
        let cookies = set(
            "https://a.example/feed/rss",
            &[
                "plain=1",
                "root=2; Path=/",
                "deep=3; path=/feed/rss/x",
                "safe=4; Secure; Path=/; HttpOnly; SameSite=None",
            ],
        );
        assert_eq!(sent(&cookies, "https://a.example/feed/rss"), "plain=1; root=2; safe=4");
        assert_eq!(sent(&cookies, "https://a.example:8443/feed"), "plain=1; root=2; safe=4");
        assert_eq!(sent(&cookies, "http://a.example/feedback"), "root=2");
        assert_eq!(sent(&cookies, "http://a.example/feed/rss/x/y?z"), "deep=3; plain=1; root=2");
        for other in ["https://b.example/feed/", "https://www.a.example/feed/", "https://example/feed/"] {
            assert_eq!(sent(&cookies, other), "", "{other}");
        }
    }

    #[test]
    fn a_domain_may_name_the_host_and_widens_nothing() {
        let from = "https://www.a.example/";
        for domain in ["", "www.a.example", ".A.example", "example"] {
            let cookies = set(from, &[&format!("a=1; Domain={domain}")]);
            assert_eq!(sent(&cookies, from), "a=1", "{domain}");
            assert_eq!(sent(&cookies, "https://a.example/"), "", "{domain}");
        }
        for domain in ["b.example", "w.a.example", "xwww.a.example", "ww.a.example"] {
            assert_eq!(sent(&set(from, &[&format!("a=1; Domain={domain}")]), from), "", "{domain}");
        }
        assert_eq!(sent(&set("http://127.0.0.1/", &["a=1; Domain=0.0.1"]), "http://127.0.0.1/"), "");
    }

    #[test]
    fn a_cookie_is_replaced_and_ended_by_a_later_one() {
        let mut cookies =
            set("http://a.example/", &["a=1", "b=2", "a=3; Expires=Fri, 31 Dec 9999 23:59:59 GMT"]);
        assert_eq!(sent(&cookies, "http://a.example/"), "a=3; b=2");
        keep(
            &mut cookies,
            "http://a.example/",
            &["a=; Max-Age=0", "b=4; Expires=soon", "c=5; Secure", "d=6; Max-Age=-1"],
        );
        assert_eq!(sent(&cookies, "http://a.example/"), "b=4");
        for past in ["Thu, 01 Jan 1970 00:00:01 GMT", "Thu, 01-Jan-1970 00:00:01 GMT"] {
            let mut cookies = set("http://a.example/", &["a=1"]);
            keep(&mut cookies, "http://a.example/", &[&format!("a=x; Expires={past}")]);
            assert_eq!(sent(&cookies, "http://a.example/"), "", "{past}");
            // Max-Age overrides it.
            keep(&mut cookies, "http://a.example/", &[&format!("a=y; Expires={past}; Max-Age=60")]);
            assert_eq!(sent(&cookies, "http://a.example/"), "a=y");
        }
    }

    #[test]
    fn the_number_and_the_size_of_cookies_are_bounded() {
        let many: Vec<_> = (0..30).map(|n| format!("c{n}=1")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let cookies = set("http://a.example/", &many);
        assert_eq!(sent(&cookies, "http://a.example/").split("; ").count(), 20);
        let [fits, does_not] = [4095, 4096].map(|length| format!("a={}", "x".repeat(length)));
        assert_eq!(sent(&set("http://a.example/", &[&fits]), "http://a.example/"), fits);
        for line in [&*does_not, "", "no-pair=", "=value", ";", "a"] {
            let expected = if line == "no-pair=" || line == "a" {
                format!("{}=", line.trim_end_matches('='))
            } else {
                String::new()
            };
            assert_eq!(sent(&set("http://a.example/", &[line]), "http://a.example/"), expected, "{line:.20}");
        }
    }

    #[test]
    fn no_cookie_of_a_server_takes_the_name_of_one_of_the_source() {
        let cookies = set("http://a.example/", &["session=evil", "other=1"]);
        let own = HeaderValue::from_static("a=b; session=mine");
        let value = cookies.to(&url("http://a.example/"), Some(&own)).unwrap();
        assert_eq!(value, "a=b; session=mine; other=1");
        assert!(value.is_sensitive());
    }
}
