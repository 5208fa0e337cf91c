//! The resources of the gateway: threads, descriptors, streams. Read from `/proc`, without help of the process.

use std::fs;

use control::{ControlClient, ControlSocket, HealthReport, ProcessVitals, WatchReport, paths};
use daemon::config::Config;
use url::Url;

use super::gateway::GatewayClient;

/// Measures the resources of one gateway.
pub(super) struct GatewayResources {
    process: Result<GatewayProcess, String>,
    /// Whether the URL is that of the configuration, so that its process should be found.
    is_expected: bool,
}

struct GatewayProcess {
    pid: i32,
    admin: ControlClient,
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
        let listen = config.gateway.listen.port();
        let is_expected = super::is_loopback(url) && url.port_or_known_default() == Some(listen);
        Self { process: locate(config, url).await, is_expected }
    }

    /// Whether its process should be found.
    pub(super) fn is_expected(&self) -> bool {
        self.is_expected || self.process.is_ok()
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
            Err(_) => vitals(&process.admin).await.map(|vitals| vitals.open_files().used),
        };
        counts
    }
}

async fn vitals(admin: &ControlClient) -> Option<ProcessVitals> {
    admin.get::<WatchReport>(paths::WATCH).await.ok()?.vitals
}

async fn locate(config: &Config, url: &Url) -> Result<GatewayProcess, String> {
    let socket = config.socket(ControlSocket::GatewayAdmin);
    let admin = ControlClient::new(&socket);
    let health: HealthReport = admin.get(paths::HEALTH).await.map_err(|error| error.to_string())?;
    let vitals = vitals(&admin).await;
    let listen = vitals.as_ref().and_then(ProcessVitals::gateway).map(|gateway| gateway.listen.port());
    let actual = listen.unwrap_or(config.gateway.listen.port());
    if url.port_or_known_default() != Some(actual) {
        return Err(format!("{} belongs to a gateway on another port", socket.display()));
    }
    Ok(GatewayProcess { pid: health.process.pid, admin })
}
