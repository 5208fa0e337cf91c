//! The table of keys. A line of it is all there is to a key: its documentation (which is also what the commented file
//! says), its name, its type, its default as a user would write it, and the kind with its bounds that checks it.
//!
//! Adding a key means adding it here and nowhere else. Its last word says whether a reload takes a new value: `LIVE` when
//! the process that uses it does, `RESTART` when not.

#![allow(
    rustdoc::bare_urls,
    reason = "the documentation of a key is a comment of the file too, where <> would only puzzle"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use notation::write_duration;

use super::kinds::{Item, ValueKind};
use super::values::{FromValue, Value};
use super::{LogFormat, WireTransport};

/// One key as the rest of this module sees it.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: ValueKind,
    /// As in an environment variable: without quotes or brackets.
    pub(super) default: &'static str,
    pub(super) docs: &'static [&'static str],
    /// Whether a reload takes a new value; a restart does so always.
    pub(super) live: bool,
}

impl Key {
    /// `section.key`
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `NEWSWIRE_SECTION__KEY`
    pub(super) fn variable(&self) -> String {
        format!("NEWSWIRE_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// A section with the lines that introduce it.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) docs: &'static [&'static str],
}

macro_rules! table {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal, $kind:expr, $when:ident; )+
        }
    )+) => {
        /// The effective configuration of one process; [`Default`] holds the built-in defaults.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Config::default().$section
                }
            }
        )+

        pub(super) static SECTIONS: &[Section] =
            &[ $( Section { name: stringify!($section), docs: &[$($section_doc),+] } ),+ ];

        pub(super) static KEYS: &[Key] = &[ $( $(
            Key {
                section: stringify!($section),
                name: stringify!($key),
                kind: $kind,
                default: $default,
                docs: &[$($doc),+],
                live: $when,
            },
        )+ )+ ];

        /// The configuration that `values`, one for each of [`KEYS`] in its order, stand for.
        pub(super) fn build(values: &[Value]) -> Config {
            let mut values = values.iter();
            let mut next = || values.next().expect("there is a value for each key");
            Config { $( $section: $Section { $( $key: <$type>::from_value(next()), )+ }, )+ }
        }
    };
}

/// A reload takes a new value.
const LIVE: bool = true;
/// Only a restart takes a new value.
const RESTART: bool = false;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

table! {
    /// What both processes share.
    daemon: Daemon {
        /// Directory of the local sockets; both processes must name the same one. It is created when missing. At most
        /// 88 bytes, because a socket's path has at most 107.
        run_dir: PathBuf = "./run", ValueKind::RunDir, RESTART;
    }

    /// The ingestion daemon, newswire-ingestd.
    ingestd: Ingestd {
        /// The file that lists the sources; it is read again at a reload.
        sources: PathBuf = "sources.toml", ValueKind::Path, RESTART;
    }

    /// The log on disk. The oldest events are deleted as soon as one of the three retention limits is passed.
    store: Store {
        /// Directory of the database; it is created when missing. One process at a time may use it.
        path: PathBuf = "./data", ValueKind::Path, RESTART;
        /// Memory for cached pages, in bytes.
        cache_bytes: u64 = "33554432", ValueKind::Integer(MIB, TIB), RESTART;
        /// Events older than this are deleted.
        retention_age: Duration = "30d", ValueKind::Duration(SECOND, YEAR.saturating_mul(100)), RESTART;
        /// Of more events than this the oldest are deleted.
        retention_events: u64 = "1000000", ValueKind::Integer(1, 1_000_000_000_000), RESTART;
        /// When the events take more bytes than this the oldest are deleted.
        retention_bytes: u64 = "4294967296", ValueKind::Integer(MIB, KIB * TIB), RESTART;
    }

    /// Visits to feeds.
    fetch: Fetch {
        /// Shortest time between two visits to one source, whatever the feed or the source list says.
        interval_min: Duration = "5m", ValueKind::Duration(MS.saturating_mul(100), YEAR), LIVE;
        /// Longest time between two visits to one source.
        interval_max: Duration = "24h", ValueKind::Duration(MS.saturating_mul(100), YEAR), LIVE;
        /// Pause between two requests to one host.
        host_spacing: Duration = "1s", ValueKind::Duration(Duration::ZERO, HOUR), LIVE;
        /// Requests to one host at the same time.
        host_in_flight: usize = "2", ValueKind::Integer(1, 1_024), LIVE;
        /// Visits at the same time, all hosts together.
        in_flight: usize = "256", ValueKind::Integer(1, 65_536), LIVE;
        /// Longest time to connect, TLS included.
        timeout_connect: Duration = "10s", ValueKind::Duration(MS.saturating_mul(10), MINUTE.saturating_mul(10)), RESTART;
        /// Longest time for a whole visit, redirects and body included.
        timeout_total: Duration = "30s", ValueKind::Duration(MS.saturating_mul(10), HOUR), RESTART;
        /// Largest body of a feed after decompression, in bytes; a visit stops reading there.
        body_bytes_max: u64 = "10485760", ValueKind::Integer(KIB, MIB.saturating_mul(32)), RESTART;
        /// Networks that may be visited although they are private or local, such as "10.1.0.0/16". Everything private
        /// is refused otherwise, so that a feed cannot reach into the network the daemon runs in.
        allow: Vec<String> = "", ValueKind::List(Item::Network), RESTART;
        /// What the daemon calls itself to servers; a web address where its operator can be reached is good manners.
        /// Empty stands for "newswire/VERSION".
        user_agent: String = "", ValueKind::UserAgent, RESTART;
    }

    /// How events travel from the ingestion daemon to the gateway.
    wire: Wire {
        /// "local": over a Unix socket in daemon.run_dir. "nats" is not part of this build.
        transport: WireTransport = "local", ValueKind::WireTransport, RESTART;
        /// NATS servers such as "nats://10.0.0.5:4222"; unused by "local".
        nats_urls: Vec<String> = "", ValueKind::List(Item::NatsUrl), RESTART;
    }

    /// The public HTTP server, newswire-gateway.
    gateway: Gateway {
        /// Address and port to listen at; port 0 takes any free one. TLS belongs to the proxy in front.
        listen: SocketAddr = "127.0.0.1:8700", ValueKind::Address, RESTART;
        /// Threads that serve clients; 0 takes one per core.
        workers: usize = "0", ValueKind::Integer(0, 1_024), RESTART;
        /// Streams at the same time.
        clients_max: usize = "10000", ValueKind::Integer(1, 1_000_000), LIVE;
        /// Streams at the same time from one address.
        clients_per_address_max: usize = "64", ValueKind::Integer(1, 1_000_000), LIVE;
        /// Pause between two signs of life on a stream.
        heartbeat: Duration = "10s", ValueKind::Duration(MS.saturating_mul(50), HOUR), LIVE;
        /// Recent events kept in memory, from which clients resume without asking the ingestion daemon.
        ring_events: usize = "20000", ValueKind::Integer(1, 100_000_000), RESTART;
        /// Bytes of recent events kept in memory; whichever of the two limits is reached first holds.
        ring_bytes: u64 = "67108864", ValueKind::Integer(4 * KIB, TIB), RESTART;
        /// At shutdown, how long open streams are given to leave one after the other.
        drain: Duration = "10s", ValueKind::Duration(Duration::ZERO, HOUR), LIVE;
        /// Host headers that are answered besides the loopback ones, such as "news.example.org"; empty answers all,
        /// unless `listen` is a loopback address.
        hosts: Vec<String> = "", ValueKind::List(Item::Host), LIVE;
        /// Web origins whose pages may read from here, such as "https://example.org"; empty allows none.
        cors_origins: Vec<String> = "", ValueKind::List(Item::Origin), LIVE;
        /// Proxies in front, as networks or addresses, whose word about a client's address is believed.
        trusted_proxies: Vec<String> = "", ValueKind::List(Item::Network), LIVE;
        /// File that holds the token for the operator's routes; empty closes these routes.
        operator_token_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// File of tokens that readers must show, each with the categories it opens; empty for none. With neither this
        /// nor `jwks_file` everybody may read everything. Both files are read at the start and at a
        /// reload.
        read_tokens_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// JWK set (RFC 7517) with the public keys of whoever issues JSON Web Tokens to readers; empty for none. Takes
        /// RSA of at least 2048 bits, P-256, P-384 and Ed25519; each token must expire.
        jwks_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// What `iss` of a JSON Web Token must be; empty takes any.
        jwt_issuer: Option<String> = "", ValueKind::OptionalText, LIVE;
        /// What `aud` of a JSON Web Token must be or hold; empty takes only tokens without one.
        jwt_audience: Option<String> = "", ValueKind::OptionalText, LIVE;
        /// The claim of a JSON Web Token that lists its categories, or is "all"; looked up as it is written here, else
        /// part by part.
        jwt_categories_claim: String = "newswire.categories", ValueKind::Text, LIVE;
        /// Categories that everybody may read, also without a token.
        public_categories: Vec<String> = "", ValueKind::List(Item::Category), LIVE;
        /// The address under which users reach the gateway, such as "https://news.example.org"; empty when unknown.
        /// With it hubs (WebSub) are asked to push, which makes visits sooner; the ingestion daemon must know it too.
        public_url: Option<String> = "", ValueKind::OptionalUrl, RESTART;
    }

    /// The log of both processes, written to standard error.
    log: Log {
        /// "off", "error", "warn", "info", "debug", "trace", or a filter by module such as "info,ingestd=debug".
        level: String = "info", ValueKind::Level, LIVE;
        /// "text" for people, "json" for programs, "journald" for native journal fields; "auto" takes journald when
        /// standard error goes there, else text.
        format: LogFormat = "auto", ValueKind::Format, RESTART;
    }
}

impl Default for Config {
    fn default() -> Self {
        build(&defaults())
    }
}

/// The default of each key, in the order of [`KEYS`].
pub(super) fn defaults() -> Vec<Value> {
    let value =
        |key: &Key| key.kind.accept_text(key.default).expect("a test accepts the default of each key");
    KEYS.iter().map(value).collect()
}

/// The place of `section.key` in [`KEYS`].
pub(super) fn position(section: &str, name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.section == section && key.name == name)
}

/// Two values of which each alone is fine.
pub(super) struct Contradiction {
    /// Their places in [`KEYS`].
    pub(super) keys: [usize; 2],
    pub(super) message: String,
}

/// What is wrong although each value alone is fine.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let (min, max) = (config.fetch.interval_min, config.fetch.interval_max);
    if min > max {
        let place = |name| position("fetch", name).expect("the key stands in the table");
        let (min, max) = (write_duration(min), write_duration(max));
        let message = format!(
            "fetch.interval_max ({max}) is shorter than fetch.interval_min ({min}); raise the one or lower the other"
        );
        found.push(Contradiction { keys: [place("interval_max"), place("interval_min")], message });
    }
    found.extend(unused_reader_keys(&config.gateway));
    found
}

/// Keys that mean nothing without the files that make readers show a token. Whoever set them believes that they do.
fn unused_reader_keys(gateway: &Gateway) -> Vec<Contradiction> {
    let (tokens, jwks) = (gateway.read_tokens_file.is_some(), gateway.jwks_file.is_some());
    let place = |name| position("gateway", name).expect("the key stands in the table");
    let mut found = Vec::new();
    if !gateway.public_categories.is_empty() && !tokens && !jwks {
        let message =
            "everything is public without gateway.read_tokens_file or gateway.jwks_file; set one of them";
        let keys = [place("public_categories"), place("read_tokens_file")];
        found.push(Contradiction { keys, message: message.to_owned() });
    }
    for (name, set) in
        [("jwt_issuer", gateway.jwt_issuer.is_some()), ("jwt_audience", gateway.jwt_audience.is_some())]
    {
        if set && !jwks {
            let message = "no token is a JSON Web Token without gateway.jwks_file; set it or leave this out";
            let keys = [place(name), place("jwks_file")];
            found.push(Contradiction { keys, message: message.to_owned() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_default_is_accepted_and_is_what_the_documentation_promises() {
        let config = Config::default();
        assert_eq!(config.daemon.run_dir, PathBuf::from("./run"));
        assert_eq!(config.fetch.interval_min, Duration::from_secs(300));
        assert_eq!(config.fetch.interval_max, Duration::from_secs(86_400));
        assert_eq!(config.fetch.body_bytes_max, 10_485_760);
        assert_eq!(config.fetch.user_agent, concat!("newswire/", env!("CARGO_PKG_VERSION")));
        assert_eq!(config.wire.transport, WireTransport::Local);
        assert_eq!(config.gateway.listen, "127.0.0.1:8700".parse().unwrap());
        assert_eq!(config.gateway.clients_max, 10_000);
        assert_eq!(config.gateway.operator_token_file, None);
        assert_eq!(config.gateway.public_url, None);
        assert_eq!(Gateway::default(), config.gateway);
        assert!(contradictions(&config).is_empty());
    }

    #[test]
    fn the_bounds_of_each_key_are_accepted_and_what_lies_beyond_is_not() {
        for key in KEYS {
            if let ValueKind::Integer(min, max) = key.kind {
                assert!(key.kind.accept_text(&min.to_string()).is_ok(), "{}", key.path());
                assert!(key.kind.accept_text(&max.to_string()).is_ok(), "{}", key.path());
                assert!(key.kind.accept_text(&(max + 1).to_string()).is_err(), "{}", key.path());
            }
            if let ValueKind::Duration(min, max) = key.kind {
                assert!(key.kind.accept_text(&write_duration(min)).is_ok(), "{}", key.path());
                assert!(key.kind.accept_text(&write_duration(max)).is_ok(), "{}", key.path());
                let beyond = write_duration(max + MS);
                assert!(key.kind.accept_text(&beyond).is_err(), "{}", key.path());
            }
        }
    }
}
