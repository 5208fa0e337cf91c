//! The release gateway in a folder of its own, with a script for a daemon.

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
    fleet::Target,
    process::{Process, Seats, wait_for},
    script::Script,
};

/// Streams from here on, without history: what a client that knows where it is gets.
const PATH: &str = "/news/stream?snapshot=0";
/// More than anybody connects, and all from one address.
const CLIENTS_MAX: usize = 14_000;

/// Where it listens.
pub(crate) enum Door<'a> {
    /// At an address that it binds.
    Own(SocketAddr),
    /// At a socket that was there before it (`sd_listen_fds(3)`).
    Passed(&'a TcpListener),
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// The daemon that it reads from; outlives it.
    pub(crate) script: Arc<Script>,
    folder: TempDir,
    address: SocketAddr,
}

impl Gateway {
    /// `settings` are lines for `[gateway]`; without a `script` it gets a new one.
    pub(crate) fn start(
        seats: &Seats,
        settings: &str,
        door: Door<'_>,
        script: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the gateway")?;
        let socket = folder.path().join("ingestd.sock");
        let script = match script {
            None => Arc::new(Script::begin(&socket)?),
            Some(other) => {
                std::os::unix::fs::symlink(other.folder.path().join("ingestd.sock"), &socket)?;
                Arc::clone(&other.script)
            }
        };
        let address = match &door {
            Door::Own(address) => *address,
            Door::Passed(listener) => listener.local_addr()?,
        };
        let config = format!(
            "[daemon]\nrun_dir = \"{}\"\n[log]\nlevel = \"info\"\nformat = \"text\"\n[gateway]\nlisten = \"{address}\"\n\
             clients_max = {CLIENTS_MAX}\nclients_per_address_max = {CLIENTS_MAX}\nheartbeat = \"{}s\"\n\
             ring_events = {}\n{settings}\n",
            folder.path().display(),
            HEARTBEAT.as_secs(),
            super::KEPT
        );
        fs::write(folder.path().join("newswire.toml"), config)?;
        let process = Process::start(&mut command(&folder, door)?, seats)?;
        let mut gateway = Self { process, script, folder, address };
        let ready = wait_for("the gateway to be ready", START, || {
            (!gateway.process.is_running() || is_ready(address)).then_some(())
        });
        let log = fs::read_to_string(gateway.folder.path().join("log")).unwrap_or_default();
        ready.with_context(|| log.clone())?;
        anyhow::ensure!(gateway.process.is_running(), "the gateway ended: {log}");
        Ok(gateway)
    }

    /// The same again after its end: same address, same daemon.
    pub(crate) fn again(&mut self, seats: &Seats) -> anyhow::Result<()> {
        self.process = Process::start(&mut command(&self.folder, Door::Own(self.address))?, seats)?;
        wait_for("the gateway to listen", START, || TcpStream::connect(self.address).ok()).map(drop)
    }
}

fn command(folder: &TempDir, door: Door<'_>) -> anyhow::Result<Command> {
    let bench = std::env::current_exe().context("ask where we are")?;
    let gateway = bench.with_file_name("newswire-gateway");
    anyhow::ensure!(gateway.is_file(), "no {}: build it first, or use scripts/bench", gateway.display());
    let log = fs::File::create(folder.path().join("log"))?;
    let (script, stdin) = match door {
        Door::Own(_) => ("exec \"$0\" --config newswire.toml", Stdio::null()),
        // Descriptor 3 is where systemd puts the first socket.
        Door::Passed(listener) => (
            "export LISTEN_FDS=1 LISTEN_PID=$$ && exec \"$0\" --config newswire.toml 3<&0 0</dev/null",
            OwnedFd::from(listener.try_clone()?).into(),
        ),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(gateway).current_dir(folder.path()).env_clear();
    command.stdin(stdin).stdout(Stdio::null()).stderr(log);
    Ok(command)
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

impl Server for Gateway {
    fn target(&self) -> Target {
        Target { address: self.address, path: PATH }
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn publish(&mut self, events: Vec<String>) -> anyhow::Result<()> {
        self.script.publish(events);
        Ok(())
    }
}
