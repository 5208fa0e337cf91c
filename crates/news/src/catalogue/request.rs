//! The keys of a source about its requests.
//!
//! ```toml
//! body_bytes_max = 20971520                # instead of fetch.body_bytes_max; up to 32 MiB
//! new_bytes_max = 33554432                 # instead of fetch.new_bytes_max
//! headers = { X-Api-Key = "…" }            # sent to the host of this source only
//! basic_file = "agency"                    # or bearer_file, and cookie_file: files with the secret
//! proxy = "socks5://proxy.example:1080"    # or http, https; "direct": without fetch.proxy
//! user_agent = "example/1 (+https://example.org)"
//! tls_ca_file = "agency-ca.pem"            # trusts these authorities only
//! ```

use std::{ops::RangeInclusive, path::PathBuf};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use notation::shortened;

use super::{CatalogueReader, type_of};
use crate::{Access, CredentialFile, FeedUrl, ProxyChoice, Source};

/// The keys of this file.
pub(super) const KEYS: [&str; 9] = [
    "body_bytes_max",
    "new_bytes_max",
    "headers",
    "basic_file",
    "bearer_file",
    "cookie_file",
    "proxy",
    "user_agent",
    "tls_ca_file",
];
/// Largest `body_bytes_max`: the limit of the parser.
const BODY_BYTES_MAX: i64 = 32 * 1024 * 1024;
/// Smallest `body_bytes_max`: no feed is smaller.
const BODY_BYTES_MIN: i64 = 1024;
/// Smallest and largest `new_bytes_max`, as for `fetch.new_bytes_max`.
const NEW_BYTES_MIN: i64 = 1024;
const NEW_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Maximum number of headers of one source.
const HEADERS_MAX: usize = 16;
/// Longest value of a header, path or user agent, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct RequestFields {
    pub(super) body_bytes_max: Option<u64>,
    pub(super) new_bytes_max: Option<u64>,
    pub(super) access: Access,
}

/// Why a header cannot be set; `None` if it can.
fn reserved(name: &str) -> Option<&'static str> {
    Some(match name {
        "authorization" => "put user:password into a basic_file or a token into a bearer_file",
        "cookie" => "put cookies into a cookie_file",
        "user-agent" => "use the key user_agent",
        "host" | "referer" | "content-length" | "content-type" | "expect" => "it is the visit's own",
        "accept-encoding" => "only codings that are decoded with a size limit are requested",
        "range" | "a-im" => "a part of a document would be mistaken for all of it",
        name if name.starts_with("if-") => {
            "a visit is conditional by itself, with the validators of the server"
        }
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" => {
            "it is about the connection, not about the feed"
        }
        name if name.starts_with("proxy-") => "it is for the proxy; write user and password into its address",
        _ => return None,
    })
}

fn is_token(name: &str) -> bool {
    let special = |b| b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || special(b))
}

impl CatalogueReader<'_> {
    /// Reads a key, if it is one of [`KEYS`].
    pub(super) fn request_key(
        &mut self,
        fields: &mut RequestFields,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> bool {
        let access = &mut fields.access;
        match key.get_ref().as_ref() {
            "body_bytes_max" => {
                fields.body_bytes_max = self.bytes(value, "body_bytes_max", BODY_BYTES_MIN..=BODY_BYTES_MAX);
            }
            "new_bytes_max" => {
                fields.new_bytes_max = self.bytes(value, "new_bytes_max", NEW_BYTES_MIN..=NEW_BYTES_MAX);
            }
            "headers" => access.headers = self.headers(value).unwrap_or_default(),
            "basic_file" => self.credential(access, value, "basic_file", CredentialFile::Basic),
            "bearer_file" => self.credential(access, value, "bearer_file", CredentialFile::Bearer),
            "cookie_file" => access.cookie_file = self.path("cookie_file", value),
            "proxy" => access.proxy = self.proxy(value),
            "user_agent" => access.user_agent = self.printable("user_agent", value),
            "tls_ca_file" => access.tls_ca_file = self.path("tls_ca_file", value),
            _ => return false,
        }
        true
    }

    fn bytes(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<u64> {
        let found = value.get_ref().as_integer();
        let found = found.and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
        let fits = found.filter(|n| range.contains(n));
        if fits.is_none() {
            let message = match value.get_ref() {
                DeValue::Integer(digits) => {
                    let (min, max) = (range.start(), range.end());
                    format!("{} is outside {min} to {max}", shortened(&digits.to_string()))
                }
                _ => format!("expected an integer without quotes, found {}", type_of(value)),
            };
            self.refuse(value, key, message);
        }
        fits.and_then(|n| u64::try_from(n).ok())
    }

    fn headers(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<(String, String)>> {
        let DeValue::Table(table) = value.get_ref() else {
            let found = type_of(value);
            let message = format!("expected a table such as {{ X-Api-Key = \"…\" }}, found {found}");
            self.refuse(value, "headers", message);
            return None;
        };
        if table.len() > HEADERS_MAX {
            self.refuse(value, "headers", format!("{} headers are more than {HEADERS_MAX}", table.len()));
            return None;
        }
        Some(self.each_header(table))
    }

    fn each_header(&mut self, table: &DeTable<'_>) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let mistake = if !is_token(name) {
                Some(format!("`{}` is not the name of a header", shortened(name)))
            } else if let Some(why) = reserved(&name.to_ascii_lowercase()) {
                Some(format!("`{name}` cannot be set: {why}"))
            } else if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                Some(format!("`{name}` is set twice"))
            } else {
                None
            };
            if let Some(message) = mistake {
                self.complain(key.span(), &format!("{}.headers", self.table), message);
            } else if let Some(value) = self.printable(&format!("headers.{name}"), value) {
                headers.push((name.to_owned(), value));
            }
        }
        headers
    }

    /// A header value. It is not shown, since it may be a secret.
    fn printable(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string(name, value)?;
        let fits = (1..=VALUE_BYTES_MAX).contains(&text.len()) && text.trim() == text;
        if fits && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Some(text.to_owned());
        }
        let message =
            format!("expected 1 to {VALUE_BYTES_MAX} printable ASCII characters, without spaces around them");
        self.refuse(value, name, message);
        None
    }

    fn path(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<PathBuf> {
        let text = self.string(name, value)?;
        if (1..=VALUE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
            return Some(PathBuf::from(text));
        }
        let message =
            format!("expected the path of a file: 1 to {VALUE_BYTES_MAX} bytes without control characters");
        self.refuse(value, name, message);
        None
    }

    fn credential(
        &mut self,
        access: &mut Access,
        value: &Spanned<DeValue<'_>>,
        name: &str,
        kind: fn(PathBuf) -> CredentialFile,
    ) {
        let Some(path) = self.path(name, value) else { return };
        if access.credential.is_some() {
            let message = format!("a {} may have a basic_file or a bearer_file, not both", self.table);
            self.refuse(value, name, message);
            return;
        }
        access.credential = Some(kind(path));
    }

    fn proxy(&mut self, value: &Spanned<DeValue<'_>>) -> Option<ProxyChoice> {
        let text = self.string("proxy", value)?;
        let choice = ProxyChoice::parse(text);
        if let Err(bad) = &choice {
            self.refuse(value, "proxy", format!("{bad}, or `direct`"));
        }
        choice.ok()
    }

    /// Refuses two credentials for one address.
    pub(super) fn check_credentials(
        &mut self,
        url: Option<&FeedUrl>,
        access: &Access,
        entry: &Spanned<DeValue<'_>>,
    ) {
        let in_url = url.is_some_and(|url| {
            let url = url.secret();
            !url.username().is_empty() || url.password().is_some()
        });
        if in_url && access.credential.is_some() {
            self.complain(entry.span(), self.table, "has credentials in its url and in a file; choose one");
        }
    }
}

/// Writes what [`CatalogueReader::request_key`] reads.
pub(super) fn write(source: &Source, line: &mut impl FnMut(&str, String)) {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let Access { headers, credential, cookie_file, proxy, user_agent, tls_ca_file } = &source.access;
    if let Some(bytes) = source.body_bytes_max {
        line("body_bytes_max", bytes.to_string());
    }
    if let Some(bytes) = source.new_bytes_max {
        line("new_bytes_max", bytes.to_string());
    }
    if !headers.is_empty() {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        line("headers", format!("{{ {} }}", headers.join(", ")));
    }
    let (basic, bearer) = match credential {
        Some(CredentialFile::Basic(path)) => (Some(path), None),
        Some(CredentialFile::Bearer(path)) => (None, Some(path)),
        None => (None, None),
    };
    for (key, path) in [
        ("basic_file", basic),
        ("bearer_file", bearer),
        ("cookie_file", cookie_file.as_ref()),
        ("tls_ca_file", tls_ca_file.as_ref()),
    ] {
        if let Some(path) = path {
            line(key, quoted(&path.to_string_lossy()));
        }
    }
    if let Some(proxy) = proxy {
        line("proxy", quoted(proxy.secret()));
    }
    if let Some(agent) = user_agent {
        line("user_agent", quoted(agent));
    }
}

#[cfg(test)]
mod tests {
    use notation::Complaints;

    use crate::{Catalogue, ProxyUrl};

    const SOURCE: &str = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\n";

    fn parse(more: &str) -> Result<Catalogue, Complaints> {
        Catalogue::parse(&format!("{SOURCE}{more}\n"))
    }

    #[test]
    fn request_keys_read_back_as_written_and_show_no_secret() {
        let catalogue = parse(
            "body_bytes_max = 33_554_432\nnew_bytes_max = 65536\nheaders = { X-Key = \"TOPSECRET\", \"x.y\" = \"z\" }\n\
             bearer_file = \"token\"\ncookie_file = \"/etc/cookie\"\n\
             proxy = \"http://u:TOPSECRET@proxy.example:3128\"\nuser_agent = \"example/1\"\n\
             tls_ca_file = \"ca.pem\"",
        )
        .unwrap();
        let source = &catalogue.sources[0];
        assert_eq!((source.body_bytes_max, source.new_bytes_max), (Some(32 << 20), Some(65_536)));
        let keys = ["headers", "bearer_file", "cookie_file", "proxy", "user_agent", "tls_ca_file"];
        assert_eq!(source.access.keys(), keys);
        assert!(!format!("{source:?}").contains("TOPSECRET"), "{source:?}");
        assert_eq!(Catalogue::parse(&catalogue.to_toml()), Ok(catalogue));
        for proxy in ["direct", "https://proxy.example", "socks5://u:TOPSECRET@proxy.example:1080"] {
            let catalogue = parse(&format!("proxy = \"{proxy}\"")).unwrap();
            assert_eq!(catalogue.sources[0].access.keys(), ["proxy"]);
            assert!(!format!("{catalogue:?}").contains("TOPSECRET"), "{catalogue:?}");
            assert_eq!(Catalogue::parse(&catalogue.to_toml()), Ok(catalogue));
        }
    }

    #[test]
    fn a_proxy_for_all_is_that_of_each_source_without_a_choice() {
        let choice = |more: &str| {
            let mut catalogue = parse(more).unwrap();
            let before = catalogue.sources[0].request_hash();
            catalogue.inherit_proxy(None);
            assert_eq!(catalogue.sources[0].request_hash(), before);
            catalogue.inherit_proxy(Some(&ProxyUrl::try_new("http://all.example").unwrap()));
            let source = &catalogue.sources[0];
            (source.access.proxy.as_ref().unwrap().secret().to_owned(), source.request_hash() == before)
        };
        assert_eq!(choice(""), ("http://all.example/".to_owned(), false), "another proxy is a new beginning");
        assert_eq!(choice("proxy = \"direct\""), ("direct".to_owned(), true));
        assert_eq!(choice("proxy = \"socks5://own.example\""), ("socks5://own.example".to_owned(), true));
    }

    #[test]
    fn headers_that_belong_to_the_visit_are_refused_with_a_remedy() {
        for (name, hint) in [
            ("Authorization", "basic_file"),
            ("cookie", "cookie_file"),
            ("User-Agent", "user_agent"),
            ("Host", "visit's own"),
            ("If-None-Match", "conditional by itself"),
            ("If-Range", "conditional by itself"),
            ("Connection", "connection"),
            ("Transfer-Encoding", "connection"),
            ("Proxy-Authorization", "proxy"),
            ("Accept-Encoding", "decoded"),
            ("Range", "part"),
        ] {
            let complaints = parse(&format!("headers = {{ {name} = \"SECRET\" }}")).unwrap_err();
            let complaints = complaints.list();
            assert_eq!((complaints.len(), complaints[0].line), (1, Some(4)), "{name}");
            let message = &complaints[0].message;
            assert!(message.contains(name) && message.contains(hint), "{message}");
            assert!(!message.contains("SECRET"), "{message}");
        }
    }

    #[test]
    fn a_mistake_in_a_request_key_is_reported_with_its_line() {
        for wrong in [
            "body_bytes_max = 33554433",
            "body_bytes_max = \"1 MiB\"",
            "new_bytes_max = 1023",
            "headers = \"X-Key: a\"",
            "headers = { \"x y\" = \"a\" }",
            "headers = { X-Key = \"a\\r\\nHost: b\" }",
            "headers = { X-Key = 1 }",
            "basic_file = \"\"",
            "cookie_file = 3",
            "proxy = \"ftp://proxy.example\"",
            "proxy = \"Direct\"",
            "proxy = \"proxy.example:3128\"",
            "proxy = \"http://proxy.example/path\"",
            "user_agent = \"é\"",
            "tls_ca_file = true",
            "tls = \"insecure\"",
        ] {
            let complaints = parse(wrong).unwrap_err();
            let complaints = complaints.list();
            assert_eq!((complaints.len(), complaints[0].line), (1, Some(4)), "{wrong}: {complaints:?}");
        }
    }

    #[test]
    fn a_source_has_one_credential() {
        let both = parse("basic_file = \"a\"\nbearer_file = \"b\"").unwrap_err();
        assert!(both.list()[0].message.contains("not both"), "{both:?}");
        let text = SOURCE.replace("//", "//user:TOPSECRET@");
        let both = Catalogue::parse(&format!("{text}basic_file = \"a\"\n")).unwrap_err();
        assert!(both.list()[0].message.contains("choose one") && !format!("{both:?}").contains("TOPSECRET"));
    }
}
