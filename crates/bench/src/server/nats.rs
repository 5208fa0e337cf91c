//! nats-server, one or a cluster of three, each with its files in a folder of its own.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{START, free_address};
use crate::process::{CpuPartition, ServerProcess, find_program, wait_for};

/// The servers; they end when dropped.
pub(crate) struct NatsServers {
    servers: Vec<(ServerProcess, SocketAddr)>,
    _folder: TempDir,
}

/// Where `scripts/test` puts it, or on the `PATH`.
fn program() -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe().context("locate this program")?;
    let target = bench.ancestors().nth(2).context("this program is in target/release")?;
    let installed = Some(target.join("nats/bin/nats-server")).filter(|program| program.is_file());
    installed
        .or_else(|| find_program("nats-server"))
        .context("nats-server is missing; scripts/test installs it in target/nats, or put it on the PATH")
}

impl NatsServers {
    /// Starts so many servers, as one cluster if there are several, and waits until they accept connections.
    pub(crate) fn start(cpus: &CpuPartition, count: usize) -> anyhow::Result<Self> {
        let (program, folder) = (program()?, tempfile::tempdir().context("create a folder for NATS")?);
        let routes = (0..count).map(|_| free_address()).collect::<anyhow::Result<Vec<_>>>()?;
        let all: Vec<_> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let address = free_address()?;
            let own = folder.path().join(format!("n{number}"));
            let cluster = match count {
                1 => String::new(),
                _ => {
                    format!("cluster {{ name: bench, listen: \"{route}\", routes: [{}] }}\n", all.join(", "))
                }
            };
            let config = format!(
                "server_name: n{number}\nlisten: \"{address}\"\nmax_payload: 8MB\njetstream {{ store_dir: {own:?} }}\n{cluster}"
            );
            let file = folder.path().join(format!("n{number}.conf"));
            fs::write(&file, config)?;
            let mut command = Command::new(&program);
            command.arg("--config").arg(&file).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(folder.path().join(format!("n{number}.log")))?);
            servers.push((ServerProcess::start(&mut command, cpus)?, address));
        }
        for (_, address) in &servers {
            wait_for("nats-server to listen", START, || TcpStream::connect(address).ok())?;
        }
        Ok(Self { servers, _folder: folder })
    }

    /// The section `[wire]` of a configuration that uses them.
    pub(crate) fn wire_settings(&self) -> String {
        let urls: Vec<_> = self.servers.iter().map(|(_, address)| format!("\"nats://{address}\"")).collect();
        format!(
            "[wire]\ntransport = \"nats\"\nnats_urls = [{}]\nnats_replicas = {}\n",
            urls.join(", "),
            self.servers.len()
        )
    }

    /// CPU time of all of them so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.servers.iter().map(|(process, _)| process.cpu()).sum()
    }

    /// Memory of the largest in bytes (PSS).
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let each = self.servers.iter().map(|(process, _)| process.memory());
        Ok(each.collect::<anyhow::Result<Vec<_>>>()?.into_iter().max().unwrap_or(0))
    }
}
