//! Both processes with a configuration of their own in a folder of their own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Manner, Process, Program, Subscriber, http, http::Address, wait_for};

/// A `[[source]]` of the catalogue.
#[derive(Clone, Debug)]
pub struct SourceEntry {
    /// Its id, and the name of the feed where the origin publishes it.
    pub id: String,
    /// Where it is fetched.
    pub url: String,
}

impl SourceEntry {
    /// A source that is visited every second.
    #[must_use]
    pub fn new(id: &str, url: String) -> Self {
        Self { id: id.to_owned(), url }
    }
}

/// The two processes, or those of them that run; killed when this is dropped, and their logs shown when a test fails.
pub struct Stack {
    folder: TempDir,
    listen: SocketAddr,
    /// `section.key` and the value as TOML.
    settings: BTreeMap<String, String>,
    manners: BTreeMap<Program, Manner>,
    running: BTreeMap<Program, Process>,
}

/// Lines of each log that are shown when a test fails: so many from its beginning, and so many from its end.
const LOG_LINES_SHOWN: (usize, usize) = (15, 40);

impl Stack {
    /// How long a start, or a recovery after a kill, may take.
    pub const READY_WITHIN: Duration = Duration::from_secs(20);

    /// Prepares folder, configuration and catalogue; starts nothing.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(sources: &[SourceEntry]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("newswire-").tempdir()?;
        let listen = free_address()?;
        let (settings, manners, running) = Default::default();
        let mut stack = Self { folder, listen, settings, manners, running };
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        for (key, value) in [
            ("daemon.run_dir", quoted(stack.path("run"))),
            ("ingestd.sources", quoted(stack.path("sources.toml"))),
            ("store.path", quoted(stack.path("data"))),
            ("fetch.interval_min", "\"1s\"".to_owned()),
            ("fetch.host_spacing", "\"0s\"".to_owned()),
            ("fetch.host_in_flight", "64".to_owned()),
            ("fetch.allow", "[\"127.0.0.0/8\", \"::1/128\"]".to_owned()),
            ("gateway.listen", format!("\"{listen}\"")),
            ("gateway.clients_per_address_max", "5000".to_owned()),
        ] {
            stack.set(key, &value);
        }
        stack.write_catalogue(sources)?;
        Ok(stack)
    }

    /// Writes the catalogue anew; a running daemon sees it at its next reload.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_catalogue(&self, sources: &[SourceEntry]) -> anyhow::Result<()> {
        let mut text = String::new();
        for SourceEntry { id, url } in sources {
            write!(
                text,
                "[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nname = \"Source {id}\"\nevery = \"1s\"\n\n"
            )?;
        }
        fs::write(self.path("sources.toml"), text).context("the catalogue could not be written")
    }

    /// Sets `section.key` to a value written as TOML, for the processes that start from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Starts a program in another manner from now on.
    pub fn start_as(&mut self, program: Program, manner: Manner) {
        self.manners.insert(program, manner);
    }

    /// Writes the configuration under a name of its own, with some keys set otherwise; gives its path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, name: &str, changes: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let mut settings = self.settings.clone();
        settings.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut text = String::new();
        let mut open = "";
        for (name, value) in &settings {
            let (section, key) = name.split_once('.').context("a setting is called section.key")?;
            if section != open {
                writeln!(text, "[{section}]")?;
                open = section;
            }
            writeln!(text, "{key} = {value}")?;
        }
        let path = self.path(name);
        // Whole or not at all: the program that was started before may be reading it.
        let draft = self.path(&format!("{name}.new"));
        fs::write(&draft, text)?;
        fs::rename(&draft, &path)?;
        Ok(path)
    }

    /// A path in the folder of this stack.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of this stack.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway(&self) -> Address {
        self.listen.into()
    }

    /// The socket of the daemon.
    #[must_use]
    pub fn wire(&self) -> Address {
        Address::Unix(self.path("run/ingestd.sock"))
    }

    /// The admin socket of one of the two.
    #[must_use]
    pub fn admin(&self, program: Program) -> Address {
        let name = program.name().trim_start_matches("newswire-");
        Address::Unix(self.path(&format!("run/{name}-admin.sock")))
    }

    /// Starts one of the two.
    ///
    /// # Errors
    /// When it is not built.
    pub fn start(&mut self, program: Program) -> anyhow::Result<()> {
        let process = self.start_apart(program, "newswire.toml", &[])?;
        self.running.insert(program, process);
        Ok(())
    }

    /// Starts one more with a configuration of its own (see [`Stack::write_config`]), for the caller to keep.
    ///
    /// # Errors
    /// When it is not built.
    pub fn start_apart(
        &self,
        program: Program,
        config: &str,
        changes: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        let config = self.write_config(config, changes)?;
        let config = config.to_str().context("temporary folders have plain names")?;
        let manner = self.manners.get(&program).copied().unwrap_or_default();
        Process::start_as(manner, program, &["--config", config], self.folder.path())
    }

    /// Starts both, and waits until the gateway says that it is ready.
    ///
    /// # Errors
    /// When it does not within [`Stack::READY_WITHIN`].
    pub async fn start_both(&mut self) -> anyhow::Result<()> {
        self.start(Program::Ingestd)?;
        self.start(Program::Gateway)?;
        self.ready().await
    }

    /// The running process.
    ///
    /// # Errors
    /// When the test has not started it, or has taken it away.
    pub fn process(&mut self, program: Program) -> anyhow::Result<&mut Process> {
        self.running.get_mut(&program).with_context(|| format!("{} was not started", program.name()))
    }

    /// Kills one with -9; when this returns it is gone.
    ///
    /// # Errors
    /// When the test has not started it, or it had ended by itself, which no story allows.
    pub fn kill(&mut self, program: Program) -> anyhow::Result<()> {
        let process = self.process(program)?;
        anyhow::ensure!(
            process.runs(),
            "{} had ended by itself; its log:\n{}",
            program.name(),
            process.log()
        );
        process.kill();
        self.running.remove(&program);
        Ok(())
    }

    /// Asks one to end (SIGTERM), and waits for it; gives how it ended and after how long.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub async fn terminate(
        &mut self,
        program: Program,
        limit: Duration,
    ) -> anyhow::Result<(ExitStatus, Duration)> {
        let process = self.process(program)?;
        process.signal(Signal::TERM)?;
        let end = process.ended_within(limit).await?;
        self.running.remove(&program);
        Ok(end)
    }

    /// Waits until `GET /ready` says 200: everything runs, and the gateway has caught up.
    ///
    /// # Errors
    /// When it does not within [`Stack::READY_WITHIN`], or a process has ended meanwhile; gives the last answer.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.answers("/ready").await
    }

    /// Waits until the gateway answers `GET /health`, whatever the daemon does.
    ///
    /// # Errors
    /// As [`Stack::ready`].
    pub async fn serving(&mut self) -> anyhow::Result<()> {
        self.answers("/health").await
    }

    async fn answers(&mut self, path: &str) -> anyhow::Result<()> {
        let address = self.gateway();
        let mut last = String::new();
        let running = &mut self.running;
        let outcome = wait_for(&format!("GET {path} to say 200"), Self::READY_WITHIN, async || {
            if let Some((program, process)) =
                running.iter_mut().find_map(|(n, p)| (!p.runs()).then_some((n, p)))
            {
                return Some(Err(format!("{} ended; its log:\n{}", program.name(), process.log())));
            }
            match http::fetch(&address, path, Duration::from_secs(5)).await {
                Ok((200, _)) => Some(Ok(())),
                other => {
                    last = format!("{other:?}");
                    None
                }
            }
        })
        .await;
        outcome.with_context(|| format!("the last answer was {last}"))?.map_err(anyhow::Error::msg)
    }

    /// Subscribes to the public stream, such as `/news/stream?snapshot=1000`.
    #[must_use]
    pub fn subscribe(&self, path: &str) -> Subscriber {
        Subscriber::start(self.gateway(), path)
    }

    /// The JSON that the gateway answers to a path.
    ///
    /// # Errors
    /// When it is no 200, or no JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let (status, text) = http::fetch(&self.gateway(), path, Duration::from_secs(5)).await?;
        anyhow::ensure!(status == 200, "GET {path} answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("GET {path} answered {text}"))
    }

    /// Shows the logs to whoever reads the test's output; done by itself when a test panics.
    pub fn show_logs(&self) {
        for program in [Program::Ingestd, Program::Gateway, Program::Newswire] {
            let Ok(log) = fs::read_to_string(self.path(&format!("{}.log", program.name()))) else { continue };
            let lines: Vec<_> = log.lines().collect();
            let (first, last) = LOG_LINES_SHOWN;
            let tail = lines.len().saturating_sub(last).max(first.min(lines.len()));
            crate::say(&format!("--- log of {}, {} lines", program.name(), lines.len()));
            lines[..first.min(lines.len())].iter().for_each(|line| crate::say(line));
            if tail > first {
                crate::say("[...]");
            }
            lines[tail..].iter().for_each(|line| crate::say(line));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.running.values_mut().for_each(Process::kill);
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

/// A free port of 127.0.0.1 below those that the kernel gives to outgoing connections, so that none of these can take it
/// between our look and the gateway's bind; two tests begin their search at different ports.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    for _ in 0..PORTS {
        let number = std::process::id().wrapping_mul(8).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % PORTS).context("ports below 30,000 fit")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no free port on 127.0.0.1")
}
