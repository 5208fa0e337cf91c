//! The release gateway in its own folder, fed by a [`ScriptedDaemon`].

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{HEARTBEAT, START, Server};
use crate::{
    fleet::StreamTarget,
    process::{CpuPartition, ServerProcess, wait_for},
    scripted_daemon::{ScriptedDaemon, ScriptedLog},
};

/// A stream from now on, without a snapshot.
const PATH: &str = "/news/stream?snapshot=0";
/// Above every scenario's number of clients; all of them have one address.
const CLIENTS_MAX: usize = 14_000;

/// The listening socket of the gateway.
pub(crate) enum ListenOn<'a> {
    /// It binds this address itself.
    Address(SocketAddr),
    /// It inherits this socket (`sd_listen_fds(3)`).
    Inherited(&'a TcpListener),
}

/// The daemon that the gateway reads from.
pub(crate) enum DaemonOf<'a> {
    /// A new one, with this log.
    Itself(ScriptedLog),
    /// That of another gateway.
    Other(&'a GatewayServer),
}

/// Lines for `[gateway]` with which thousands of clients of one address are served, as many as the peer serves.
pub(crate) fn for_many_clients() -> String {
    format!(
        "clients_max = {CLIENTS_MAX}\nclients_per_address_max = {CLIENTS_MAX}\nheartbeat = \"{}s\"\nring_events = {}",
        HEARTBEAT.as_secs(),
        super::KEPT
    )
}

/// A running gateway.
pub(crate) struct GatewayServer {
    pub(crate) process: ServerProcess,
    /// The daemon it reads from; outlives it.
    pub(crate) daemon: Arc<ScriptedDaemon>,
    folder: TempDir,
    address: SocketAddr,
}

impl GatewayServer {
    /// A gateway at an address of its own, with a daemon that has no events.
    pub(crate) fn start_empty(cpus: &CpuPartition, settings: &str) -> anyhow::Result<Self> {
        let daemon = DaemonOf::Itself(ScriptedLog::default());
        Self::start(cpus, settings, ListenOn::Address(super::free_address()?), daemon)
    }

    /// `settings` are lines for `[gateway]`; the other keys have their defaults.
    pub(crate) fn start(
        cpus: &CpuPartition,
        settings: &str,
        listen_on: ListenOn<'_>,
        daemon: DaemonOf<'_>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a folder for the gateway")?;
        let socket = folder.path().join("ingestd.sock");
        let daemon = match daemon {
            DaemonOf::Itself(log) => Arc::new(ScriptedDaemon::start(&socket, log)?),
            DaemonOf::Other(other) => {
                std::os::unix::fs::symlink(other.folder.path().join("ingestd.sock"), &socket)?;
                Arc::clone(&other.daemon)
            }
        };
        let address = match &listen_on {
            ListenOn::Address(address) => *address,
            ListenOn::Inherited(listener) => listener.local_addr()?,
        };
        let config = format!(
            "[daemon]\nrun_dir = \"{}\"\n[log]\nlevel = \"info\"\nformat = \"text\"\n[gateway]\nlisten = \"{address}\"\n\
             {settings}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("newswire.toml"), config)?;
        let process = ServerProcess::start(&mut command(&folder, listen_on)?, cpus)?;
        let mut gateway = Self { process, daemon, folder, address };
        let ready = wait_for("the gateway to be ready", START, || {
            (!gateway.process.is_running() || is_ready(address)).then_some(())
        });
        let log = gateway.log();
        ready.with_context(|| log.clone())?;
        anyhow::ensure!(gateway.process.is_running(), "the gateway exited: {log}");
        Ok(gateway)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Restarts it with the same address and daemon.
    pub(crate) fn restart(&mut self, cpus: &CpuPartition) -> anyhow::Result<()> {
        self.process =
            ServerProcess::start(&mut command(&self.folder, ListenOn::Address(self.address))?, cpus)?;
        wait_for("the gateway to listen", START, || TcpStream::connect(self.address).ok()).map(drop)
    }
}

fn command(folder: &TempDir, listen_on: ListenOn<'_>) -> anyhow::Result<Command> {
    let bench = std::env::current_exe().context("locate this program")?;
    let gateway = bench.with_file_name("newswire-gateway");
    anyhow::ensure!(
        gateway.is_file(),
        "{} is missing; use scripts/bench, which builds it",
        gateway.display()
    );
    let log = fs::File::create(folder.path().join("log"))?;
    let (daemon, stdin) = match listen_on {
        ListenOn::Address(_) => ("exec \"$0\" --config newswire.toml", Stdio::null()),
        // Descriptor 3 is where systemd puts the first socket.
        ListenOn::Inherited(listener) => (
            "export LISTEN_FDS=1 LISTEN_PID=$$ && exec \"$0\" --config newswire.toml 3<&0 0</dev/null",
            OwnedFd::from(listener.try_clone()?).into(),
        ),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(daemon).arg(gateway).current_dir(folder.path()).env_clear();
    command.stdin(stdin).stdout(Stdio::null()).stderr(log);
    Ok(command)
}

fn is_ready(address: SocketAddr) -> bool {
    let probe = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(status == *b"HTTP/1.1 200")
    };
    probe().unwrap_or(false)
}

impl Server for GatewayServer {
    fn target(&self) -> StreamTarget {
        StreamTarget { address: self.address, path: PATH }
    }

    fn process(&self) -> &ServerProcess {
        &self.process
    }

    fn publish(&mut self, events: Vec<String>) -> anyhow::Result<()> {
        self.daemon.publish(events);
        Ok(())
    }
}
