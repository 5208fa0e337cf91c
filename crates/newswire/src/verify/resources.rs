//! What the gateway holds: threads, descriptors, streams. The process is looked at from the outside, by `/proc`.

use std::{fs, time::Duration};

use daemon::config::Config;
use serde_json::Value;
use url::Url;
use wire::{Endpoint, PeerClient};

use super::gateway::GatewayClient;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where the figures come from.
pub(super) struct GatewayResources {
    process: Result<GatewayProcess, String>,
}

struct GatewayProcess {
    pid: u64,
    admin: PeerClient,
}

/// One look; what cannot be had is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResourceCounts {
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    pub(super) clients: Option<u64>,
}

impl GatewayResources {
    /// Finds the process by its admin socket, if the configuration is that of this gateway.
    pub(super) async fn find(config: &Config, url: &Url) -> Self {
        Self { process: find(config, url).await }
    }

    /// Why there is nothing but the number of streams.
    pub(super) fn blind(&self) -> Option<&str> {
        self.process.as_ref().err().map(String::as_str)
    }

    pub(super) fn is_of_config(&self) -> bool {
        self.process.is_ok()
    }

    pub(super) async fn look(&self, gateway: &GatewayClient) -> ResourceCounts {
        let mut held = ResourceCounts { clients: gateway.clients().await, ..ResourceCounts::default() };
        let Ok(process) = &self.process else { return held };
        held.threads =
            fs::read_dir(format!("/proc/{}/task", process.pid)).ok().map(|list| list.count() as u64);
        held.descriptors = match fs::read_dir(format!("/proc/{}/fd", process.pid)) {
            Ok(list) => Some(list.count() as u64),
            // Somebody else's process: it says itself.
            Err(_) => ask(&process.admin, "/watch")
                .await
                .and_then(|watch| watch["vitals"]["open_files"]["used"].as_u64()),
        };
        held
    }
}

async fn ask(admin: &PeerClient, path: &str) -> Option<Value> {
    let answer = admin.get(path, ANSWER_WITHIN, ANSWER_BYTES_MAX).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

async fn find(config: &Config, url: &Url) -> Result<GatewayProcess, String> {
    let socket = config.daemon.run_dir.join("gateway-admin.sock");
    let port = url.port_or_known_default();
    let admin = PeerClient::try_new(Endpoint::Socket(socket.clone())).map_err(|error| error.to_string())?;
    let health = admin.get("/health", ANSWER_WITHIN, ANSWER_BYTES_MAX).await.map_err(|e| e.to_string())?;
    let health: Value = serde_json::from_slice(&health).map_err(|error| error.to_string())?;
    let pid = health["pid"].as_u64().ok_or_else(|| format!("{} tells no pid", socket.display()))?;
    let listen = ask(&admin, "/watch").await.and_then(|watch| {
        let listen = watch["vitals"]["listen"].as_str()?;
        listen.rsplit_once(':')?.1.parse::<u16>().ok()
    });
    let here = listen.unwrap_or(config.gateway.listen.port());
    if port != Some(here) {
        return Err(format!("{} belongs to a gateway at another port", socket.display()));
    }
    Ok(GatewayProcess { pid, admin })
}
