//! A source: a feed as it is configured in the catalogue.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Access, ProxyChoice, ProxyUrl, access::HashedSettings};

/// The name of a source: 1 to 64 characters of `a-z0-9_-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SourceId(Box<str>);

/// Why a text is not a source id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id must be 1 to 64 characters of a-z, 0-9, - and _, and begin with a letter or a digit")]
pub struct BadSourceId;

impl SourceId {
    /// Longest id, in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// Checks a name.
    ///
    /// # Errors
    /// [`BadSourceId`] if it has another form.
    pub fn try_new(id: &str) -> Result<Self, BadSourceId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = id.bytes().next().is_some_and(plain);
        if first && id.len() <= Self::LENGTH_MAX && id.bytes().all(|b| plain(b) || b == b'-' || b == b'_') {
            Ok(Self(id.into()))
        } else {
            Err(BadSourceId)
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for SourceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SourceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::try_new(&id).map_err(serde::de::Error::custom)
    }
}

/// The address of a feed: `http` or `https` with a host. Shown and serialised without its secrets.
///
/// `Display`, `Debug` and the JSON form replace user name, password and the values of the query by `…`; only
/// [`FeedUrl::secret`] returns the complete address, for connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FeedUrl(Url);

/// Why a text is not the address of a feed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a feed must be a complete http:// or https:// URL of at most 2048 bytes, of which a letter such as é takes 6"
)]
pub struct BadFeedUrl;

impl FeedUrl {
    /// Longest address, as given and as it is sent, in bytes.
    pub const LENGTH_MAX: usize = 2048;

    /// Checks an address.
    ///
    /// # Errors
    /// [`BadFeedUrl`] if it is not an absolute `http` or `https` URL.
    pub fn try_new(url: &str) -> Result<Self, BadFeedUrl> {
        if url.len() > Self::LENGTH_MAX {
            return Err(BadFeedUrl);
        }
        let url = Url::parse(url.trim()).map_err(|_| BadFeedUrl)?;
        let web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|h| !h.is_empty());
        if web && url.as_str().len() <= Self::LENGTH_MAX { Ok(Self(url)) } else { Err(BadFeedUrl) }
    }

    /// The address without user name, password and the parameters of its query that are secrets by their name and value.
    /// The rest stays as it is written. `None` if it has none of them.
    #[must_use]
    pub fn without_secrets(&self, is_secret: impl Fn(&str, &str) -> bool) -> Option<Self> {
        let mut url = self.0.clone();
        let parameters: Vec<_> = url.query().into_iter().flat_map(|query| query.split('&')).collect();
        let is_kept = |parameter: &&str| {
            url::form_urlencoded::parse(parameter.as_bytes()).all(|(name, value)| !is_secret(&name, &value))
        };
        let kept: Vec<_> = parameters.iter().copied().filter(is_kept).collect();
        let has_user = !url.username().is_empty() || url.password().is_some();
        if !has_user && kept.len() == parameters.len() {
            return None;
        }
        let query = kept.join("&");
        url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        // Neither fails: the URL has a host.
        url.set_username("").ok();
        url.set_password(None).ok();
        Some(Self(url))
    }

    /// The complete address with secrets: for connections, never for people.
    #[must_use]
    pub fn secret(&self) -> &Url {
        &self.0
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Display for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.0.scheme())?;
        if !self.0.username().is_empty() || self.0.password().is_some() {
            f.write_str("…@")?;
        }
        f.write_str(self.host())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())?;
        for (n, (name, _)) in self.0.query_pairs().enumerate() {
            write!(f, "{}{}=…", if n == 0 { '?' } else { '&' }, crate::Escaped(&name))?;
        }
        Ok(())
    }
}

impl fmt::Debug for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for FeedUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The rest of an address after `feed:` or `feeds:`, however often and in whichever case it is there: `feed:https://…` and
/// `feed://…` are how browsers passed feeds on to other programs.
#[must_use]
pub fn without_feed_scheme(address: &str) -> &str {
    let mut address = address.trim_start();
    while let Some((scheme, rest)) = address.split_once(':')
        && (scheme.eq_ignore_ascii_case("feed") || scheme.eq_ignore_ascii_case("feeds"))
    {
        address = rest.trim_start();
    }
    address
}

/// A source: a feed and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in logs, metrics, filters and URLs.
    pub id: SourceId,
    /// The address of the feed.
    pub url: FeedUrl,
    /// Its name for people.
    pub name: String,
    /// One word to filter by.
    pub category: String,
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// BCP 47; the default for items without a language.
    pub language: Option<String>,
    /// More words to filter by.
    pub tags: Vec<String>,
    /// Fixed interval between visits, whatever server and document ask for; never shorter than `fetch.interval_min`.
    pub every: Option<Duration>,
    /// `fresh = "ignore"`: how fresh server and document say that they are does not slow down its visits.
    pub ignores_freshness: bool,
    /// Time limit of a visit, instead of `fetch.timeout_total`.
    pub timeout: Option<Duration>,
    /// Time limit for the first byte, instead of `fetch.timeout_first_byte`; `None`: `timeout`, if that is set.
    pub timeout_first_byte: Option<Duration>,
    /// Largest body in bytes, decoded, instead of `fetch.body_bytes_max`.
    pub body_bytes_max: Option<u64>,
    /// Largest size of the events of one visit, in bytes as stored, instead of `fetch.new_bytes_max`.
    pub new_bytes_max: Option<u64>,
    /// Its request settings.
    pub access: Access,
    /// Whether it is visited.
    pub enabled: bool,
    /// The list that it comes from; `None`: it is written in the catalogue itself.
    pub list: Option<Arc<ListMark>>,
}

/// The list that a source comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListMark {
    /// The id of the list.
    pub id: SourceId,
    /// Whether the addresses in it count as configured ones, for `fetch.allow`: it is a file of the operator, or was read
    /// from a server in these networks.
    pub is_trusted: bool,
}

impl Source {
    /// The category of a source without one.
    pub const CATEGORY_DEFAULT: &str = "general";

    /// A source with an id, an address and defaults.
    #[must_use]
    pub fn new(id: SourceId, url: FeedUrl) -> Self {
        Self {
            name: id.as_str().to_owned(),
            id,
            url,
            category: Self::CATEGORY_DEFAULT.to_owned(),
            country: None,
            language: None,
            tags: Vec::new(),
            every: None,
            ignores_freshness: false,
            timeout: None,
            timeout_first_byte: None,
            body_bytes_max: None,
            new_bytes_max: None,
            access: Access::default(),
            enabled: true,
            list: None,
        }
    }

    /// Makes the proxy for all its own, unless it has a choice.
    pub fn inherit_proxy(&mut self, proxy: Option<&ProxyUrl>) {
        if let (Some(proxy), own @ None) = (proxy, &mut self.access.proxy) {
            *own = Some(ProxyChoice::Via(proxy.clone()));
        }
    }

    /// Whether its address comes from a list of other people, so that it does not count as configured.
    #[must_use]
    pub fn has_foreign_address(&self) -> bool {
        self.list.as_ref().is_some_and(|list| !list.is_trusted)
    }

    /// Hash of what is requested: the address and the request settings, but not what is in their files. What is known about
    /// the answers belongs to it. Never 0.
    #[must_use]
    pub fn request_hash(&self) -> u64 {
        let mut hashed = HashedSettings::default();
        hashed.add("url", self.url.secret().as_str());
        self.access.write_into(&mut hashed);
        hashed.hash()
    }

    /// Hash of the settings that decide when and for how long it is visited. Never 0.
    #[must_use]
    pub fn plan_hash(&self) -> u64 {
        let mut hashed = HashedSettings::default();
        let millis = |time: Option<Duration>| time.map_or(0, |time| time.as_millis()).to_le_bytes();
        hashed.add("every", millis(self.every));
        if self.ignores_freshness {
            hashed.add("fresh", "ignore");
        }
        hashed.add("timeout", millis(self.timeout));
        hashed.add("timeout_first_byte", millis(self.timeout_first_byte));
        hashed.add("body", self.body_bytes_max.unwrap_or_default().to_le_bytes());
        hashed.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url = FeedUrl::try_new("https://user:pass@example.org:8443/feed?token=TOPSECRET&n=1#x").unwrap();
        assert_eq!(url.to_string(), "https://…@example.org:8443/feed?token=…&n=…");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(serde_json::to_string(&url).unwrap(), format!("\"{url}\""));
        assert_eq!(url.secret().query(), Some("token=TOPSECRET&n=1"));
    }

    #[test]
    fn each_key_about_requests_changes_the_request_hash_and_no_other_key_does() {
        use std::path::PathBuf;

        use crate::CredentialFile;

        let plain = || {
            let url = FeedUrl::try_new("https://example.org/feed").unwrap();
            Source::new(SourceId::try_new("a").unwrap(), url)
        };
        let url = |text| FeedUrl::try_new(text).unwrap();
        let via = |text| Some(ProxyChoice::parse(text).unwrap());
        let file = || PathBuf::from("file");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let requests: [&dyn Fn(&mut Source); 12] = [
            &|source| source.url = url("https://example.org/feed?key=2"),
            &|source| source.access.headers = vec![header("a", "b")],
            &|source| source.access.headers = vec![header("ab", "")],
            &|source| source.access.headers = vec![header("a", "b"), header("c", "d")],
            &|source| source.access.credential = Some(CredentialFile::Basic(file())),
            &|source| source.access.credential = Some(CredentialFile::Bearer(file())),
            &|source| source.access.cookie_file = Some(file()),
            &|source| source.access.proxy = via("http://proxy.example:3128"),
            &|source| source.access.proxy = via("http://user:other@proxy.example:3128"),
            &|source| source.access.proxy = via("socks5://proxy.example:3128"),
            &|source| source.access.user_agent = Some("file".to_owned()),
            &|source| source.access.tls_ca_file = Some(file()),
        ];
        let changed = |change: &dyn Fn(&mut Source)| {
            let mut source = plain();
            change(&mut source);
            (source.request_hash(), source.plan_hash())
        };
        let mut hashes = vec![plain().request_hash()];
        hashes.extend(requests.map(|change| changed(change).0));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 13, "all differ");
        assert!(requests.iter().all(|change| changed(*change).1 == plain().plan_hash()));
        // What counts is the proxy that is used.
        assert_eq!(changed(&|source| source.access.proxy = via("direct")), changed(&|_| {}));
        let plans: [&dyn Fn(&mut Source); 5] = [
            &|source| source.every = Some(Duration::from_secs(300)),
            &|source| source.ignores_freshness = true,
            &|source| source.timeout = Some(Duration::from_secs(300)),
            &|source| source.timeout_first_byte = Some(Duration::from_secs(300)),
            &|source| source.body_bytes_max = Some(300_000),
        ];
        for change in plans {
            let (request, plan) = changed(change);
            assert!(request == plain().request_hash() && plan != plain().plan_hash());
        }
        let rest = changed(&|source| {
            source.name = "Another name".to_owned();
            source.category = "other".to_owned();
            source.country = Some("GB".to_owned());
            source.language = Some("en".to_owned());
            source.tags = vec!["x".to_owned()];
            source.new_bytes_max = Some(1 << 20);
            source.enabled = false;
        });
        assert_eq!(rest, (plain().request_hash(), plain().plan_hash()));
    }

    #[test]
    fn an_address_without_secrets_is_otherwise_as_it_was_written() {
        let without = |text: &str| {
            let url = FeedUrl::try_new(text)
                .unwrap()
                .without_secrets(|name, value| name == "key" && !value.is_empty());
            url.map(|url| url.secret().to_string())
        };
        for (text, expected) in [
            ("https://example.org/?a=1,2&key=S&b=x/y:z&&c", "https://example.org/?a=1,2&b=x/y:z&&c"),
            ("https://example.org/?key=S&a=%2c+%20", "https://example.org/?a=%2c+%20"),
            ("https://example.org/?%6bey=S", "https://example.org/"),
            ("https://u:p@example.org/é?a=é,#x", "https://example.org/%C3%A9?a=%C3%A9,#x"),
            ("https://u@example.org:8443/?key", "https://example.org:8443/?key"),
            ("https://:p@example.org/", "https://example.org/"),
        ] {
            assert_eq!(without(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["https://example.org/", "https://example.org/?", "https://example.org/?key&a=1,2"] {
            assert_eq!(without(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_as_long_as_it_is_sent() {
        let room = FeedUrl::LENGTH_MAX - "https://example.org/".len();
        let address = |path: &str, count: usize| {
            FeedUrl::try_new(&format!("https://example.org/{}", path.repeat(count)))
        };
        assert!(address("a", room).is_ok() && address("a", room + 1).is_err());
        assert!(address("é", room / 6).is_ok() && address("é", room / 6 + 1).is_err());
        let url = address("é", room / 6).unwrap();
        assert_eq!(FeedUrl::try_new(url.secret().as_str()), Ok(url), "what is stored is read again");
    }

    #[test]
    fn only_web_addresses_are_feeds() {
        for text in
            ["", "example.org", "ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "http://"]
        {
            assert!(FeedUrl::try_new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_safe_in_urls_logs_and_labels() {
        assert!(SourceId::try_new("bbc-world_2").is_ok());
        for text in ["", "-a", "_a", "A", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(SourceId::try_new(text).is_err(), "{text:?}");
        }
    }
}
