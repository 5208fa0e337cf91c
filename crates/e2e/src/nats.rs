//! A nats-server of a test, on loopback, with its files in a folder of its own.
//!
//! What must never happen here: a server that outlives its test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{on_path, wait_for};

/// The program, if it is installed: in `target/nats`, where `scripts/test` puts it, or on the path.
#[must_use]
pub fn nats_server_program() -> Option<PathBuf> {
    let installed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nats/bin/nats-server"));
    installed.exists().then(|| installed.to_owned()).or_else(|| on_path("nats-server"))
}

/// A server with JetStream.
pub struct NatsServer {
    program: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    /// Lines of its configuration besides address and folder.
    settings: String,
    child: Option<Child>,
}

impl NatsServer {
    /// How long a start may take on a busy machine.
    const START_MAX: Duration = Duration::from_secs(60);

    /// Starts a server on a free port; `settings` are lines of its configuration, such as `max_payload: 8MB`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(program: &Path, settings: &str) -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let folder = tempfile::Builder::new().prefix("newswire-nats-").tempdir()?;
        let mut server =
            Self { program: program.to_owned(), folder, address, settings: settings.to_owned(), child: None };
        server.restart().await?;
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

    /// Starts it again, on the same port and folder. It must not be running.
    ///
    /// # Errors
    /// If it does not accept connections in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let config = self.folder.path().join("nats.conf");
        let SocketAddr::V4(address) = self.address else { bail!("a server on IPv4") };
        let text = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: {:?} }}\n{}\n",
            self.data(),
            self.settings
        );
        fs::write(&config, text)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&config)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        let address = self.address;
        wait_for("the NATS server accepts connections", Self::START_MAX, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await
        .with_context(|| self.log())?;
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
