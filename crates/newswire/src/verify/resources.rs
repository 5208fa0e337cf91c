//! The resources of the gateway: threads, descriptors, streams. Read from `/proc`, without help of the process.

use std::{fs, time::Duration};

use daemon::config::Config;
use serde_json::Value;
use url::Url;
use wire::{Endpoint, PeerClient};

use super::gateway::GatewayClient;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Measures the resources of one gateway.
pub(super) struct GatewayResources {
    process: Result<GatewayProcess, String>,
}

struct GatewayProcess {
    pid: u64,
    admin: PeerClient,
}

/// One measurement; `None` if unavailable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResourceCounts {
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    pub(super) clients: Option<u64>,
}

impl GatewayResources {
    /// Locates the process by its admin socket, if the configuration is that of this gateway.
    pub(super) async fn locate(config: &Config, url: &Url) -> Self {
        Self { process: locate(config, url).await }
    }

    /// Why only the number of streams is available.
    pub(super) fn unavailable(&self) -> Option<&str> {
        self.process.as_ref().err().map(String::as_str)
    }

    pub(super) fn is_of_config(&self) -> bool {
        self.process.is_ok()
    }

    pub(super) async fn measure(&self, gateway: &GatewayClient) -> ResourceCounts {
        let mut counts = ResourceCounts { clients: gateway.clients().await, ..ResourceCounts::default() };
        let Ok(process) = &self.process else { return counts };
        counts.threads =
            fs::read_dir(format!("/proc/{}/task", process.pid)).ok().map(|list| list.count() as u64);
        counts.descriptors = match fs::read_dir(format!("/proc/{}/fd", process.pid)) {
            Ok(list) => Some(list.count() as u64),
            // The process of another user: it reports its own number.
            Err(_) => ask(&process.admin, "/watch")
                .await
                .and_then(|watch| watch["vitals"]["open_files"]["used"].as_u64()),
        };
        counts
    }
}

async fn ask(admin: &PeerClient, path: &str) -> Option<Value> {
    let answer = admin.get(path, ANSWER_WITHIN, ANSWER_BYTES_MAX).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

async fn locate(config: &Config, url: &Url) -> Result<GatewayProcess, String> {
    let socket = config.daemon.run_dir.join("gateway-admin.sock");
    let port = url.port_or_known_default();
    let admin = PeerClient::try_new(Endpoint::Socket(socket.clone())).map_err(|error| error.to_string())?;
    let health = admin.get("/health", ANSWER_WITHIN, ANSWER_BYTES_MAX).await.map_err(|e| e.to_string())?;
    let health: Value = serde_json::from_slice(&health).map_err(|error| error.to_string())?;
    let pid = health["pid"].as_u64().ok_or_else(|| format!("{} reports no pid", socket.display()))?;
    let listen = ask(&admin, "/watch").await.and_then(|watch| {
        let listen = watch["vitals"]["listen"].as_str()?;
        listen.rsplit_once(':')?.1.parse::<u16>().ok()
    });
    let actual = listen.unwrap_or(config.gateway.listen.port());
    if port != Some(actual) {
        return Err(format!("{} belongs to a gateway on another port", socket.display()));
    }
    Ok(GatewayProcess { pid, admin })
}
