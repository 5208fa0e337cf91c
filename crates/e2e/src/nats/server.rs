//! A nats-server of a test, on loopback, with its files in a folder of its own.
//!
//! What can be done to it: killed and started again on the same port, paused, starved, its files lost or replaced by those it
//! had earlier.
//!
//! What must never happen here: a server that outlives its test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{api::NatsApi, network::NatsNetwork};
use crate::{free_address, log_line, on_path, wait_for};

/// The program, if it is installed: in `target/nats`, where `scripts/test` puts it, or on the path. Reports a skipped test if
/// it is not.
#[must_use]
pub fn nats_server_program() -> Option<PathBuf> {
    let installed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nats/bin/nats-server"));
    let program = installed.exists().then(|| installed.to_owned()).or_else(|| on_path("nats-server"));
    if program.is_none() {
        log_line("SKIPPED: nats-server is not installed (scripts/test does)");
    }
    program
}

/// The program of Debian's package, which is too old for newswire: in `target/nats-2.9`, where `.ci/run` puts it. Reports a
/// skipped test if it is not there.
#[must_use]
pub fn old_nats_server_program() -> Option<PathBuf> {
    let program =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nats-2.9/usr/sbin/nats-server"));
    if !program.exists() {
        log_line("SKIPPED: the nats-server of Debian is not there (.ci/run fetches it)");
        return None;
    }
    Some(program.to_owned())
}

/// The port of a server in a network of its own.
const NATS_PORT: u16 = 4222;

/// A server with JetStream.
pub struct NatsServer {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    /// Lines of its configuration besides address and folder.
    settings: String,
    /// What it is started through, with the program and its arguments appended.
    through: Vec<String>,
    child: Option<Child>,
}

impl NatsServer {
    /// How long a start may take on a busy machine.
    pub(super) const START_MAX: Duration = Duration::from_secs(60);

    /// Starts a server on a free port and waits until it accepts connections; `settings` are lines of its configuration, such
    /// as `max_payload: 8MB`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(program: &Path, settings: &str) -> anyhow::Result<Self> {
        let server = Self::spawn(program, settings)?;
        server.wait_accepting().await?;
        Ok(server)
    }

    /// Starts a server on a free port, and does not wait.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(program: &Path, settings: &str) -> anyhow::Result<Self> {
        Self::spawn_at(program, settings, free_address()?, Vec::new())
    }

    /// Starts a server in a network of its own, on all of its addresses.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_in(program: &Path, network: &NatsNetwork) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, NATS_PORT));
        Self::spawn_at(program, "", address, network.through())
    }

    fn spawn_at(
        program: &Path,
        settings: &str,
        address: SocketAddr,
        through: Vec<String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("newswire-nats-").tempdir()?;
        let (program, settings) = (program.to_owned(), settings.to_owned());
        let mut server = Self { program, folder, address, settings, through, child: None };
        server.spawn_again()?;
        Ok(server)
    }

    /// Its address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it keeps its streams.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can be asked of it.
    #[must_use]
    pub fn api(&self) -> NatsApi {
        NatsApi::new(self.address)
    }

    /// Starts it again, on the same port and folder, and waits until it accepts connections. It must not be running.
    ///
    /// # Errors
    /// If it does not accept connections in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.spawn_again()?;
        self.wait_accepting().await
    }

    /// Starts it again, and does not wait.
    pub(super) fn spawn_again(&mut self) -> anyhow::Result<()> {
        let config = self.folder.path().join("nats.conf");
        let text = format!(
            "listen: \"{}\"\njetstream {{ store_dir: {:?} }}\n{}\n",
            self.address,
            self.data(),
            self.settings
        );
        fs::write(&config, text)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = match self.through.split_first() {
            None => Command::new(&self.program),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(&self.program);
                command
            }
        };
        let child = command
            .arg("-c")
            .arg(&config)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) async fn wait_accepting(&self) -> anyhow::Result<()> {
        let address = self.address;
        wait_for("the NATS server accepts connections", Self::START_MAX, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await
        .with_context(|| self.log())?;
        Ok(())
    }

    /// Whether it was started and not killed.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Removes its files, as a lost disk does. It must not be running.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn lose_data(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.is_started(), "its files are lost while it does not run");
        let removed = fs::remove_dir_all(self.data());
        removed.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        Ok(())
    }

    /// A copy of its files as they are now. A running server is paused meanwhile.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn copy_data(&self) -> anyhow::Result<TempDir> {
        let copy = tempfile::Builder::new().prefix("newswire-nats-copy-").tempdir()?;
        self.pause();
        let copied = copy_folder(&self.data(), copy.path());
        self.resume();
        copied?;
        Ok(copy)
    }

    /// Replaces its files by a copy: what was stored since is lost, although it was confirmed. It must not be running.
    ///
    /// # Errors
    /// If they cannot be replaced.
    pub fn put_back(&self, copy: &TempDir) -> anyhow::Result<()> {
        self.lose_data()?;
        copy_folder(copy.path(), &self.data())?;
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it has already ended.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Stops all its threads, as SIGSTOP does.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Lets it run a little of the time only, for as long as the returned task runs: what its clients see of a slow disk.
    #[must_use]
    pub fn starve(&self, stopped: Duration, running: Duration) -> Starved {
        let process = self.child.as_ref().map(Pid::from_child);
        let task = tokio::spawn(async move {
            let Some(process) = process else { return };
            loop {
                // Each fails only if it has already ended.
                kill_process(process, Signal::STOP).ok();
                tokio::time::sleep(stopped).await;
                kill_process(process, Signal::CONT).ok();
                tokio::time::sleep(running).await;
            }
        });
        Starved { process, task }
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // Fails only if it has already ended.
            kill_process(Pid::from_child(child), signal).ok();
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that runs a little of the time only, until this is dropped. The server must live longer.
pub struct Starved {
    process: Option<Pid>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(process) = self.process {
            kill_process(process, Signal::CONT).ok();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
