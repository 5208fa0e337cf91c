//! Three servers that are one cluster.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{api::NatsApi, server::NatsServer};
use crate::{free_address, wait_for};

/// How long an election may take on a busy machine.
const ELECTION_MAX: Duration = Duration::from_secs(120);

/// The servers `n0` to `n2`, with routes on loopback.
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Servers of a cluster.
    pub const SIZE: usize = 3;

    /// Starts the servers and waits until they have elected the leader of JetStream.
    ///
    /// # Errors
    /// If they do not.
    pub async fn start(program: &Path) -> anyhow::Result<Self> {
        let routes = (0..Self::SIZE).map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
        let all = routes.iter().map(|route| format!("\"nats://{route}\"")).collect::<Vec<_>>().join(", ");
        let start = |(number, route)| {
            // Without no_advertise, clients would learn the addresses of all servers and go around the paths of a test.
            let settings = format!(
                "server_name: n{number}\ncluster {{ name: test, listen: \"{route}\", no_advertise: true, routes: [{all}] }}"
            );
            NatsServer::spawn(program, &settings)
        };
        let servers = routes.iter().enumerate().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = Self { servers };
        cluster.wait_leader().await?;
        Ok(cluster)
    }

    /// A server.
    #[must_use]
    pub fn server(&self, number: usize) -> &NatsServer {
        &self.servers[number]
    }

    /// A server, to be killed or started.
    pub fn server_mut(&mut self, number: usize) -> &mut NatsServer {
        &mut self.servers[number]
    }

    /// All servers.
    #[must_use]
    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// The addresses of all servers.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// What can be asked of a server that runs and answers.
    ///
    /// # Errors
    /// If none does.
    pub async fn api(&self) -> anyhow::Result<NatsApi> {
        // All at once: one that is paused does not answer.
        let mut answers = tokio::task::JoinSet::new();
        for server in self.servers.iter().filter(|server| server.is_started()) {
            let api = server.api();
            answers.spawn(async move { api.request("$JS.API.INFO", "").await.map(|_| api) });
        }
        while let Some(answer) = answers.join_next().await {
            if let Ok(Ok(api)) = answer {
                return Ok(api);
            }
        }
        anyhow::bail!("none of the servers answers");
    }

    /// Waits until JetStream has a leader.
    ///
    /// # Errors
    /// If it has none in time; the error has the servers' logs.
    pub async fn wait_leader(&self) -> anyhow::Result<()> {
        let elected = wait_for("the leader of JetStream", ELECTION_MAX, async || self.api().await.ok()).await;
        elected.with_context(|| self.logs()).map(|_| ())
    }

    /// The number of the server that leads a stream, as soon as one does.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let leader = wait_for("the leader of the stream", ELECTION_MAX, async || {
            let info = self.api().await.ok()?.stream(stream).await.ok()?;
            info["cluster"]["leader"].as_str()?.strip_prefix('n')?.parse().ok()
        });
        leader.await.with_context(|| self.logs())
    }

    /// Waits until every replica of a stream has everything.
    ///
    /// # Errors
    /// If one does not in time.
    pub async fn wait_replicated(&self, stream: &str) -> anyhow::Result<()> {
        let mut last = String::new();
        let replicated = wait_for("the replicas of the stream", ELECTION_MAX, async || {
            let info = self.api().await.ok()?.stream(stream).await.ok()?;
            last = info["cluster"].to_string();
            info["cluster"]["leader"].as_str()?;
            let replicas = info["cluster"]["replicas"].as_array()?;
            let is_current =
                |replica: &serde_json::Value| replica["current"] == true && replica["offline"] != true;
            (replicas.len() == Self::SIZE - 1 && replicas.iter().all(is_current)).then_some(())
        })
        .await;
        replicated.with_context(|| format!("{last}\n{}", self.logs()))
    }

    /// Kills all servers.
    pub fn kill_all(&mut self) {
        self.servers.iter_mut().for_each(NatsServer::kill);
    }

    /// Starts those that do not run, and waits for a leader.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn restart_all(&mut self) -> anyhow::Result<()> {
        for server in self.servers.iter_mut().filter(|server| !server.is_started()) {
            server.spawn_again()?;
        }
        self.wait_leader().await
    }

    /// A copy of the files of all servers, all as they were at one moment.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn copy_data(&self) -> anyhow::Result<Vec<TempDir>> {
        self.servers.iter().for_each(NatsServer::pause);
        let copies = self.servers.iter().map(NatsServer::copy_data).collect();
        self.servers.iter().for_each(NatsServer::resume);
        copies
    }

    /// The last lines of each log.
    #[must_use]
    pub fn logs(&self) -> String {
        const LINES: usize = 12;
        let of = |(number, server): (usize, &NatsServer)| {
            let log = server.log();
            let lines: Vec<_> = log.lines().collect();
            format!("--- log of n{number}\n{}\n", lines[lines.len().saturating_sub(LINES)..].join("\n"))
        };
        self.servers.iter().enumerate().map(of).collect()
    }
}
