//! What the monitoring address of a nats-server says, and its clients cannot ask: when it writes to its disk, what it may
//! use, and its own copy of the stream.

use std::{path::Path, time::Duration};

use reqwest::{Certificate, Client, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{endpoint::deepest, nats::connection::without_password};

/// How long all answers of one server may take.
const MONITOR_MAX: Duration = Duration::from_secs(3);
/// Largest answer that is read. One stream takes about 1 KB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A server, asked at its monitoring address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MonitoredServer {
    /// The address of `wire.nats_monitor_urls`, without a password.
    pub url: String,
    /// Its name in the cluster.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// How long an event that it confirmed may not be on its disk yet, in milliseconds; 0 if it confirms what is on its disk
    /// (`sync_interval: always`).
    pub sync_interval_ms: Option<u64>,
    /// Bytes on disk that its streams may take.
    pub disk_bytes_max: Option<u64>,
    /// Bytes on disk that its streams take.
    pub disk_bytes: Option<u64>,
    /// Bytes on disk that its streams have reserved.
    pub disk_bytes_reserved: Option<u64>,
    /// Memory that streams in memory may take, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: Option<u64>,
    /// The newest event of its own copy of the stream; `None` if it keeps none.
    pub last: Option<u64>,
    /// Why it does not answer, or not wholly.
    pub error: Option<String>,
}

/// Asks all addresses at once; their order stays.
pub(super) async fn monitored(urls: &[String], ca_file: Option<&Path>, stream: &str) -> Vec<MonitoredServer> {
    let client = match client(ca_file) {
        Ok(client) => client,
        Err(why) => return urls.iter().map(|url| silent(url, why.clone())).collect(),
    };
    futures_util::future::join_all(urls.iter().map(|url| async {
        match timeout(MONITOR_MAX, ask(&client, url, stream)).await {
            Ok(Ok(server)) => server,
            Ok(Err(why)) => silent(url, why),
            Err(_) => silent(url, format!("no answer within {} s", MONITOR_MAX.as_secs())),
        }
    }))
    .await
}

fn silent(url: &str, why: String) -> MonitoredServer {
    MonitoredServer { url: without_password(url), error: Some(why), ..MonitoredServer::default() }
}

#[expect(clippy::disallowed_methods, reason = "a small local file, in the operator's tool")]
fn client(ca_file: Option<&Path>) -> Result<Client, String> {
    // Fails if another one is installed already, which is fine.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| deepest(&error))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| deepest(&error))
}

async fn ask(client: &Client, url: &str, stream: &str) -> Result<MonitoredServer, String> {
    let varz: Varz = get(client, url, "varz", "").await?;
    let config = varz.jetstream.config;
    let stats = varz.jetstream.stats;
    let mut server = MonitoredServer {
        url: without_password(url),
        name: Some(varz.server_name),
        version: Some(varz.version),
        sync_interval_ms: config.as_ref().and_then(JetStreamConfig::sync_interval_ms),
        disk_bytes_max: config.as_ref().map(|config| config.max_storage),
        disk_bytes: stats.as_ref().map(|stats| stats.storage),
        disk_bytes_reserved: stats.as_ref().map(|stats| stats.reserved_storage),
        memory_bytes_max: config.as_ref().map(|config| config.max_memory),
        resident_bytes: Some(varz.mem),
        last: None,
        error: config.is_none().then(|| "JetStream is off".to_owned()),
    };
    if config.is_some() {
        match get::<Jsz>(client, url, "jsz", "streams=true").await {
            Ok(jsz) => server.last = jsz.last_of(stream),
            Err(why) => server.error = Some(why),
        }
    }
    Ok(server)
}

async fn get<T: DeserializeOwned>(client: &Client, url: &str, page: &str, query: &str) -> Result<T, String> {
    let mut address = Url::parse(url).map_err(|error| error.to_string())?;
    let path = format!("{}/{page}", address.path().trim_end_matches('/'));
    address.set_path(&path);
    address.set_query((!query.is_empty()).then_some(query));
    let mut response = client.get(address).send().await.map_err(|error| deepest(&error))?;
    if !response.status().is_success() {
        return Err(format!("/{page} answers {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| deepest(&error))? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer of /{page} is larger than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("/{page} is not what a nats-server answers: {error}"))
}

/// Of `/varz`.
#[derive(Deserialize)]
struct Varz {
    server_name: String,
    version: String,
    /// Resident bytes.
    mem: u64,
    #[serde(default)]
    jetstream: VarzJetStream,
}

#[derive(Default, Deserialize)]
struct VarzJetStream {
    config: Option<JetStreamConfig>,
    stats: Option<JetStreamStats>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    max_memory: u64,
    max_storage: u64,
    /// Nanoseconds.
    sync_interval: Option<u64>,
    #[serde(default)]
    sync_always: bool,
}

impl JetStreamConfig {
    fn sync_interval_ms(&self) -> Option<u64> {
        match self.sync_always {
            true => Some(0),
            false => Some(self.sync_interval? / 1_000_000),
        }
    }
}

#[derive(Deserialize)]
struct JetStreamStats {
    storage: u64,
    #[serde(default)]
    reserved_storage: u64,
}

/// Of `/jsz?streams=true`.
#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    account_details: Vec<JszAccount>,
}

#[derive(Deserialize)]
struct JszAccount {
    #[serde(default)]
    stream_detail: Vec<JszStream>,
}

#[derive(Deserialize)]
struct JszStream {
    name: String,
    state: JszState,
}

#[derive(Deserialize)]
struct JszState {
    last_seq: u64,
}

impl Jsz {
    /// The newest event of the stream. Several accounts may have one of the same name; then it is not known which is ours.
    fn last_of(&self, name: &str) -> Option<u64> {
        let mut streams = self
            .account_details
            .iter()
            .flat_map(|account| &account.stream_detail)
            .filter(|stream| stream.name == name);
        let first = streams.next()?;
        streams.next().is_none().then_some(first.state.last_seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_confirms_what_is_on_its_disk_has_no_sync_interval() {
        let interval = |more: &str| {
            let text = format!(r#"{{"max_memory": 1, "max_storage": 2, "store_dir": "/d"{more}}}"#);
            serde_json::from_str::<JetStreamConfig>(&text).unwrap().sync_interval_ms()
        };
        assert_eq!(interval(r#", "sync_interval": 120000000000"#), Some(120_000));
        assert_eq!(interval(r#", "sync_interval": 120000000000, "sync_always": true"#), Some(0));
        assert_eq!(interval(""), None, "nats-server 2.9");
    }

    #[test]
    fn a_stream_that_two_accounts_have_is_not_guessed() {
        let jsz = |accounts: &str| serde_json::from_str::<Jsz>(accounts).unwrap();
        let one = r#"{"name": "newswire", "state": {"last_seq": 7, "messages": 7}}"#;
        let account = format!(r#"{{"name": "$G", "stream_detail": [{one}]}}"#);
        assert_eq!(jsz(&format!(r#"{{"account_details": [{account}]}}"#)).last_of("newswire"), Some(7));
        assert_eq!(jsz(&format!(r#"{{"account_details": [{account}]}}"#)).last_of("other"), None);
        assert_eq!(
            jsz(&format!(r#"{{"account_details": [{account}, {account}]}}"#)).last_of("newswire"),
            None
        );
        assert_eq!(jsz("{}").last_of("newswire"), None);
    }
}
