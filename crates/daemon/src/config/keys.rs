//! The table of keys. Each entry has everything about a key: its documentation (also printed in the commented file), its
//! name, its type, its default as a user would write it, the kind that checks it, and whether a reload applies a new
//! value (`LIVE`) or only a restart does (`RESTART`).
//!
//! A new key is added here and nowhere else.

#![allow(
    rustdoc::bare_urls,
    reason = "the documentation of a key is a comment of the file too, where <> would be confusing"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use control::{ControlSocket, black_box};
use notation::write_duration;

use super::kinds::{ListItem, ValueKind};
use super::values::{FromValue, Value};
use super::{LogFormat, WireTransport};
use crate::program::GATEWAY;

/// One key of the table.
pub(super) struct KeySpec {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: ValueKind,
    /// As in an environment variable: without quotes or brackets.
    pub(super) default: &'static str,
    pub(super) docs: &'static [&'static str],
    /// Whether a reload applies a new value; a restart always does.
    pub(super) live: bool,
}

impl KeySpec {
    /// `section.key`
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `NEWSWIRE_SECTION__KEY`
    pub(super) fn variable(&self) -> String {
        format!("NEWSWIRE_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// A section and its documentation.
pub(super) struct SectionSpec {
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

        pub(super) static SECTIONS: &[SectionSpec] =
            &[ $( SectionSpec { name: stringify!($section), docs: &[$($section_doc),+] } ),+ ];

        pub(super) static KEYS: &[KeySpec] = &[ $( $(
            KeySpec {
                section: stringify!($section),
                name: stringify!($key),
                kind: $kind,
                default: $default,
                docs: &[$($doc),+],
                live: $when,
            },
        )+ )+ ];

        /// The configuration made of `values`, one for each of [`KEYS`], in that order.
        pub(super) fn build(values: &[Value]) -> Config {
            let mut values = values.iter();
            let mut next = || values.next().expect("there is a value for each key");
            Config { $( $section: $Section { $( $key: <$type>::from_value(next()), )+ }, )+ }
        }
    };
}

/// A reload applies a new value.
const LIVE: bool = true;
/// Only a restart applies a new value.
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
    /// Settings of both daemons.
    daemon: DaemonSection {
        /// Directory of the Unix sockets; the same for both daemons. Created if missing. At most 88 bytes long, because the
        /// path of a socket is limited to 107 bytes.
        run_dir: PathBuf = "./run", ValueKind::RunDir, RESTART;
        /// Size of each daemon's black box, in bytes: a file in `run_dir` with what it did last, which `newswire doctor` reads after
        /// a crash or a hang. Beside it is that of the run before. At least 65536; 0: none.
        black_box_bytes: u64 = "4194304", ValueKind::Integer(0, 64 * MIB), RESTART;
    }

    /// The ingestion daemon, newswire-ingestd.
    ingestd: IngestdSection {
        /// The list of sources. A reload reads this file and those that it includes again; a different path needs a restart.
        sources: PathBuf = "sources.toml", ValueKind::Path, RESTART;
        /// Daemons with the same name here, and the same list of sources, divide the list among them: each source is visited by
        /// one of them, and by another one when that is gone. It needs wire.transport = "nats". "": this daemon visits its
        /// whole list.
        share_group: String = "", ValueKind::OptionalNatsName, RESTART;
    }

    /// The log of events on disk. The oldest events are deleted as soon as one of the three retention limits is exceeded.
    store: StoreSection {
        /// Directory of the store; created if missing. Only one process at a time can use it.
        path: PathBuf = "./data", ValueKind::Path, RESTART;
        /// Memory for cached pages of the store, in bytes.
        cache_bytes: u64 = "33554432", ValueKind::Integer(MIB, TIB), RESTART;
        /// Maximum age of an event; older events are deleted. In the first hour after a start or a jump of the clock, none is
        /// deleted because of its age.
        retention_age: Duration = "30d", ValueKind::Duration(SECOND, YEAR.saturating_mul(100)), RESTART;
        /// Maximum number of events kept; the oldest are deleted first.
        retention_events: u64 = "1000000", ValueKind::Integer(1, 1_000_000_000_000), RESTART;
        /// Maximum total size of the events kept, in bytes as stored; the oldest are deleted first. The files take about twice
        /// as much.
        retention_bytes: u64 = "4294967296", ValueKind::Integer(MIB, KIB * TIB), RESTART;
        /// Share of `retention_events` and `retention_bytes`, and of `gateway.ring_events` and `gateway.ring_bytes`, that one
        /// source may take from the others, in percent. A source that has more is not limited as long as there is room, or as
        /// only its own events go. Where it would displace an event of another source, its new items wait, in order, and its
        /// status says so (`flooding`); after an hour in the ring and 30 days in the log an event may go for any source. Each
        /// source may have 100 events and 1 MiB. 100: no limit.
        source_share_percent: u64 = "25", ValueKind::Integer(1, 100), RESTART;
        /// With less free space on the file system of `path`, in bytes, recording pauses: no visits begin, and what is recorded
        /// is still served. It resumes by itself with a tenth more. 0: no such limit.
        free_bytes_min: u64 = "268435456", ValueKind::Integer(0, KIB * TIB), LIVE;
        /// The same in percent of the file system, and of its inodes, of which fewer than 64 are always too few. Recording
        /// pauses below either limit. 0: no such limit; both 0: recording never pauses, and ends the daemon when the disk is
        /// full.
        free_percent_min: u64 = "5", ValueKind::Integer(0, 90), LIVE;
    }

    /// Visits to feeds.
    fetch: FetchSection {
        /// Minimum interval between two visits to one source. Neither a feed nor `every` in the list of sources can shorten it.
        interval_min: Duration = "5m", ValueKind::Duration(MS.saturating_mul(100), YEAR), LIVE;
        /// Maximum interval between two visits to one source, unless its server asks for a longer one. Between the two limits,
        /// how often the feed publishes decides.
        interval_max: Duration = "24h", ValueKind::Duration(MS.saturating_mul(100), YEAR), LIVE;
        /// Minimum interval between two requests to one host. A host is a registrable domain, such as example.org with all its
        /// subdomains. Redirects wait for it as visits do. A 429 response widens the spacing, and its Retry-After applies to all
        /// requests to the host.
        host_spacing: Duration = "1s", ValueKind::Duration(Duration::ZERO, HOUR), LIVE;
        /// Maximum number of simultaneous requests to one host; further visits wait.
        host_in_flight: usize = "2", ValueKind::Integer(1, 1_024), LIVE;
        /// Maximum number of simultaneous visits, all hosts together; further visits wait.
        in_flight: usize = "256", ValueKind::Integer(1, 65_536), LIVE;
        /// Time limit for connecting, including name lookup and TLS, for each redirect.
        timeout_connect: Duration = "10s", ValueKind::Duration(MS.saturating_mul(10), MINUTE.saturating_mul(10)), RESTART;
        /// Time limit for a server to begin its answer, for each redirect, and after that to begin the document.
        /// `timeout_first_byte` in the list of sources overrides it, and so does `timeout` where only that is set.
        timeout_first_byte: Duration = "10s", ValueKind::Duration(MS.saturating_mul(10), HOUR), RESTART;
        /// Time limit for a visit, including redirects and the body; `timeout` in the list of sources overrides it.
        timeout_total: Duration = "30s", ValueKind::Duration(MS.saturating_mul(10), HOUR), RESTART;
        /// Maximum size of a feed after decompression, in bytes; a visit stops there. `body_bytes_max` in the list of sources
        /// overrides it. Neither can exceed 32 MiB.
        body_bytes_max: u64 = "10485760", ValueKind::Integer(KIB, MIB.saturating_mul(32)), RESTART;
        /// Maximum size of the new and changed items that one visit records, in bytes as stored. The rest waits, in order, for
        /// the next visits to the feed, and the status of the source says so (`flooding`). `new_bytes_max` in the list of
        /// sources overrides it.
        new_bytes_max: u64 = "8388608", ValueKind::Integer(KIB, MIB.saturating_mul(1024)), RESTART;
        /// Memory for visits, in bytes: bodies, parsed documents, and items on their way to the disk. Further visits wait while it
        /// is used up, and so do those that need more of it; one of them may go beyond it, so that it is never too small for a
        /// feed.
        memory_bytes: u64 = "134217728", ValueKind::Integer(MIB.saturating_mul(16), TIB), LIVE;
        /// Private or local networks that may be visited, such as "10.1.0.0/16", for sources whose own address lies in them. A
        /// redirect, a hub or a page from elsewhere cannot lead there. "0.0.0.0/0" and "::/0" allow everything to everyone, for
        /// development. Empty: none, so that a feed cannot reach into the network of the daemon.
        allow: Vec<String> = "", ValueKind::List(ListItem::Network), RESTART;
        /// Ports of public addresses that may be visited: of feeds, redirects, hubs and pages. In the networks of `allow` every
        /// port may. A short list, so that a feed cannot make the daemon talk to a mail server.
        ports: Vec<u16> = "80,443", ValueKind::List(ListItem::Port), RESTART;
        /// User-Agent of requests to servers; include an address where you can be reached, such as
        /// "example/1 (+https://example.org)". Empty: "newswire/VERSION".
        user_agent: String = "", ValueKind::UserAgent, RESTART;
        /// Proxy for everything that is requested: feeds, the hubs and pages that they name, `newswire check` and `newswire sources
        /// add`. "http://", "https://" or "socks5://", such as "http://user:password@proxy.example:3128". The proxy looks up
        /// names, so it must refuse private addresses. `proxy` in the list of sources overrides it, for one source and its hub;
        /// "direct" there means no proxy. Empty: none; variables such as HTTPS_PROXY are not read.
        proxy: Option<String> = "", ValueKind::OptionalProxy, RESTART;
    }

    /// The connection from the ingestion daemon to its gateways. The keys nats_… are unused by "local".
    wire: WireSection {
        /// "local": a Unix socket in daemon.run_dir, on one machine. "nats": NATS JetStream, for daemons and gateways on any machine;
        /// it needs nats-server 2.10.23 or later, and how much it keeps is said by store.retention_….
        transport: WireTransport = "local", ValueKind::WireTransport, RESTART;
        /// Servers of one NATS cluster, such as "nats://10.0.0.5:4222", or "tls://" with an encrypted connection. One that answers
        /// is enough. "nats://user:password@host" signs in; better, use one of the two files below.
        nats_urls: Vec<String> = "", ValueKind::List(ListItem::NatsUrl), RESTART;
        /// What this installation's names in NATS begin with: the stream, its bucket, the subjects. At most 32 letters, digits,
        /// "-" and "_"; several installations can share one NATS.
        nats_name: String = "newswire", ValueKind::NatsName, RESTART;
        /// File with a user's JWT and NKey seed (.creds).
        nats_credentials_file: Option<PathBuf> = "", ValueKind::OptionalPath, RESTART;
        /// File with an NKey seed.
        nats_nkey_file: Option<PathBuf> = "", ValueKind::OptionalPath, RESTART;
        /// File with the certificate authorities (PEM) of the servers, besides those of the machine.
        nats_ca_file: Option<PathBuf> = "", ValueKind::OptionalPath, RESTART;
        /// On how many servers of the cluster each event is kept: 1, 3 or 5. Used when the stream is made.
        nats_replicas: u64 = "1", ValueKind::Integer(1, 5), RESTART;
        /// Events that may wait for the server's confirmation, at most one of each source.
        nats_publish_in_flight: u64 = "256", ValueKind::Integer(1, 4_096), RESTART;
        /// Monitoring addresses of the servers (`http: 8222` in their configuration), such as "http://10.0.0.5:8222", of all of them.
        /// Only `newswire doctor` asks them: when each server writes to its disk, what it may use, how far its copy of the stream is.
        nats_monitor_urls: Vec<String> = "", ValueKind::List(ListItem::HttpUrl), LIVE;
    }

    /// The HTTP server for clients, newswire-gateway.
    gateway: GatewaySection {
        /// Address and port to listen on; port 0 picks a free port. There is no TLS: use a reverse proxy.
        listen: SocketAddr = "127.0.0.1:8700", ValueKind::Address, RESTART;
        /// Directory of this gateway's admin socket, gateway-admin.sock, when several gateways run beside one ingestion daemon:
        /// each needs its own. At most 88 bytes long. Empty: daemon.run_dir.
        admin_dir: Option<PathBuf> = "", ValueKind::OptionalRunDir, RESTART;
        /// Number of worker threads that serve clients; 0 means one per core.
        workers: usize = "0", ValueKind::Integer(0, 1_024), RESTART;
        /// Maximum number of simultaneous streams. A further stream is closed at once; its client is told to reconnect later.
        clients_max: usize = "10000", ValueKind::Integer(1, 1_000_000), LIVE;
        /// Maximum number of simultaneous streams from one address; an IPv6 /64 network counts as one address. A further stream
        /// is closed likewise.
        clients_per_address_max: usize = "64", ValueKind::Integer(1, 1_000_000), LIVE;
        /// Maximum number of simultaneous connections from one address, streams included; a further one is closed at once. 0: no
        /// limit. Empty: 1024 more than `clients_per_address_max`.
        connections_per_address: Option<u64> = "", ValueKind::OptionalInteger(0, 1_000_000), LIVE;
        /// Requests per second from one address; for a short time 16 times as many. A further one is answered with 429, a stream
        /// told to reconnect later. GET /health is not counted. 0: no limit. Empty: as many as `clients_per_address_max`.
        requests_per_address: Option<u64> = "", ValueKind::OptionalInteger(0, 1_000_000), LIVE;
        /// Events per second that one address gets from the past, in streams after a reconnect for example, and in pages of GET
        /// /news that go to the ingestion daemon; for a short time 16 times as many. What is read from the ingestion daemon
        /// counts even if a filter leaves it out. Beyond that a stream is sent more slowly, and a page is answered with 429. 0:
        /// no limit. Empty: 64 for each of `clients_per_address_max`.
        replay_events_per_address: Option<u64> = "", ValueKind::OptionalInteger(0, 100_000_000), LIVE;
        /// The same in bytes per second; for a short time 4 times as many. 0: no limit. Empty: 262144 for each of
        /// `clients_per_address_max`.
        replay_bytes_per_address: Option<u64> = "", ValueKind::OptionalInteger(0, TIB), LIVE;
        /// All addresses of an IPv6 /48 network together may use as much as this many addresses: of streams, connections,
        /// requests and events from the past. 0: no limit.
        addresses_per_network: u64 = "8", ValueKind::Integer(0, 65_536), LIVE;
        /// Maximum number of bytes of answers that clients have not taken yet, all clients together; one address may have at most
        /// a quarter of what the others leave, and what streams read from the ingestion daemon at most half. 0: no limit.
        unsent_bytes_max: u64 = "67108864", ValueKind::Integer(0, TIB), LIVE;
        /// A stream gets a heartbeat after this time without an event that has an id; one that asks for heartbeats, such as
        /// that of the page, after 10 s at the latest. More than 20 s is warned about: other clients take 30 s of silence for a
        /// lost connection.
        heartbeat: Duration = "10s", ValueKind::Duration(MS.saturating_mul(50), HOUR), LIVE;
        /// Maximum number of recent events kept in memory. Clients resume from these; older events are read from the ingestion
        /// daemon.
        ring_events: usize = "20000", ValueKind::Integer(1, 100_000_000), RESTART;
        /// Maximum total size of the recent events kept in memory, in bytes. The limit that is reached first applies.
        ring_bytes: u64 = "67108864", ValueKind::Integer(4 * KIB, TIB), RESTART;
        /// At shutdown, open streams are closed one after the other within this time.
        drain: Duration = "10s", ValueKind::Duration(Duration::ZERO, HOUR), LIVE;
        /// Accepted `Host` headers in addition to `localhost`, `127.0.0.1`, `[::1]` and the host of `public_url`, such as
        /// "news.example.org". Empty: all are accepted, unless `listen` is a loopback address.
        hosts: Vec<String> = "", ValueKind::List(ListItem::Host), LIVE;
        /// Origins whose pages may read from this gateway (CORS), such as "https://example.org". Empty: none.
        cors_origins: Vec<String> = "", ValueKind::List(ListItem::Origin), LIVE;
        /// Whether pages of `cors_origins` may read what the browser's cookie for this gateway allows
        /// (Access-Control-Allow-Credentials). A cookie that a page of another site may use is `SameSite=None; Secure`.
        cors_credentials: bool = "false", ValueKind::Boolean, LIVE;
        /// Reverse proxies (addresses or CIDRs) whose X-Forwarded-For is trusted. Empty: none.
        trusted_proxies: Vec<String> = "", ValueKind::List(ListItem::Network), LIVE;
        /// File with the token for the operator's routes, such as POST /news/refresh. Empty: these routes are closed.
        operator_token_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// File with the tokens that clients need for reading, and the categories that each token grants. Empty: no such tokens.
        /// If `jwks_file` is empty too, all clients may read everything. Both files are read at startup and at a reload.
        read_tokens_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// File with the JWK set (RFC 7517) that verifies JSON Web Tokens of clients: RSA keys of at least 2048 bits, P-256,
        /// P-384 and Ed25519. Each token must have an expiry time. Empty: no such tokens.
        jwks_file: Option<PathBuf> = "", ValueKind::OptionalPath, LIVE;
        /// Required issuer (`iss`) of a JSON Web Token. Empty: any.
        jwt_issuer: Option<String> = "", ValueKind::OptionalText, LIVE;
        /// Required audience (`aud`) of a JSON Web Token. Empty: only tokens without an audience are accepted.
        jwt_audience: Option<String> = "", ValueKind::OptionalText, LIVE;
        /// Claim of a JSON Web Token that holds its categories: a list, or "all". A name with dots is looked up as a whole, then
        /// part by part.
        jwt_categories_claim: String = "newswire.categories", ValueKind::Text, LIVE;
        /// Categories that all clients may read, without a token; upper and lower case are the same. Empty: none.
        public_categories: Vec<String> = "", ValueKind::List(ListItem::Category), LIVE;
        /// Address under which clients reach the gateway, such as "https://news.example.org"; the same for both daemons. If it is
        /// set, feeds with a WebSub hub are pushed, and new items arrive sooner. Empty: no pushes.
        public_url: Option<String> = "", ValueKind::OptionalUrl, RESTART;
    }

    /// The log of both daemons, written to standard error.
    log: LogSection {
        /// "off", "error", "warn", "info", "debug", "trace", or a filter by module such as "info,ingestd=debug".
        level: String = "info", ValueKind::Level, LIVE;
        /// "text" for people, "json" for programs, "journald" for native journal fields. "auto": "journald" if standard error is
        /// connected to the journal, otherwise "text".
        format: LogFormat = "auto", ValueKind::Format, RESTART;
    }
}

impl Config {
    /// The path of a socket.
    #[must_use]
    pub fn socket(&self, socket: ControlSocket) -> PathBuf {
        let own_dir = match socket {
            ControlSocket::GatewayAdmin => self.gateway.admin_dir.as_ref(),
            ControlSocket::Ingestd | ControlSocket::IngestdAdmin => None,
        };
        socket.in_dir(own_dir.unwrap_or(&self.daemon.run_dir))
    }

    /// The path of the black box of a program, next to its admin socket.
    #[must_use]
    pub fn black_box(&self, program: &str) -> PathBuf {
        let (socket, file) = match program == GATEWAY.name {
            true => (ControlSocket::GatewayAdmin, black_box::GATEWAY_FILE),
            false => (ControlSocket::IngestdAdmin, black_box::INGESTD_FILE),
        };
        self.socket(socket).with_file_name(file)
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
        |key: &KeySpec| key.kind.accept_text(key.default).expect("a test accepts the default of each key");
    KEYS.iter().map(value).collect()
}

/// The index of `section.key` in [`KEYS`].
pub(super) fn position(section: &str, name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.section == section && key.name == name)
}

/// Two values that are valid by themselves, but not together.
pub(super) struct Contradiction {
    /// Their indexes in [`KEYS`].
    pub(super) keys: [usize; 2],
    pub(super) message: String,
}

/// All pairs of values that are invalid together.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let (min, max) = (config.fetch.interval_min, config.fetch.interval_max);
    if min > max {
        let index = |name| position("fetch", name).expect("the key is in the table");
        let (min, max) = (write_duration(min), write_duration(max));
        let message = format!(
            "fetch.interval_max ({max}) is shorter than fetch.interval_min ({min}); raise the former or lower the latter"
        );
        found.push(Contradiction { keys: [index("interval_max"), index("interval_min")], message });
    }
    found.extend(keys_without_token_files(&config.gateway));
    found.extend(nats_keys(&config.wire));
    found.extend(shared_without_nats(config));
    found
}

/// NATS without a server, or with two identities.
fn nats_keys(wire: &WireSection) -> Vec<Contradiction> {
    let index = |name| position("wire", name).expect("the key is in the table");
    let mut found = Vec::new();
    if wire.transport == WireTransport::Nats && wire.nats_urls.is_empty() {
        let message = "`nats` needs wire.nats_urls, the addresses of its servers".to_owned();
        found.push(Contradiction { keys: [index("transport"), index("nats_urls")], message });
    }
    if wire.nats_credentials_file.is_some() && wire.nats_nkey_file.is_some() {
        let message =
            "wire.nats_credentials_file and wire.nats_nkey_file are two ways to sign in; set one of them";
        let keys = [index("nats_nkey_file"), index("nats_credentials_file")];
        found.push(Contradiction { keys, message: message.to_owned() });
    }
    found
}

/// Daemons that divide a list of sources know of each other by NATS only.
fn shared_without_nats(config: &Config) -> Option<Contradiction> {
    if config.ingestd.share_group.is_empty() || config.wire.transport == WireTransport::Nats {
        return None;
    }
    let index = |section, name| position(section, name).expect("the key is in the table");
    let message = "daemons divide a list of sources by way of NATS; set wire.transport to \"nats\", or remove \
                   ingestd.share_group";
    let keys = [index("ingestd", "share_group"), index("wire", "transport")];
    Some(Contradiction { keys, message: message.to_owned() })
}

/// Keys that have no effect without the files that make clients show a token: an operator who sets them expects one.
fn keys_without_token_files(gateway: &GatewaySection) -> Vec<Contradiction> {
    let (tokens, jwks) = (gateway.read_tokens_file.is_some(), gateway.jwks_file.is_some());
    let index = |name| position("gateway", name).expect("the key is in the table");
    let mut found = Vec::new();
    if !gateway.public_categories.is_empty() && !tokens && !jwks {
        let message =
            "everything is public without gateway.read_tokens_file or gateway.jwks_file; set one of them";
        let keys = [index("public_categories"), index("read_tokens_file")];
        found.push(Contradiction { keys, message: message.to_owned() });
    }
    for (name, set) in
        [("jwt_issuer", gateway.jwt_issuer.is_some()), ("jwt_audience", gateway.jwt_audience.is_some())]
    {
        if set && !jwks {
            let message = "has no effect without gateway.jwks_file; set that as well or remove this";
            let keys = [index(name), index("jwks_file")];
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
        assert_eq!(GatewaySection::default(), config.gateway);
        assert!(contradictions(&config).is_empty());
    }

    #[test]
    fn the_bounds_of_each_key_are_accepted_and_values_beyond_them_are_not() {
        for key in KEYS {
            if let ValueKind::Integer(min, max) | ValueKind::OptionalInteger(min, max) = key.kind {
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
