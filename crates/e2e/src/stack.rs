//! Both daemons under test, with their own folder, configuration and catalogue.

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

use crate::{
    Binary, ChildProcess, NatsServer, StartOptions, TestSubscriber, http, http::Address, nats_server_program,
    wait_for,
};

/// A `[[source]]` of a test's catalogue.
#[derive(Clone, Debug)]
pub struct TestSource {
    /// Its id, which is also the name of the feed at the origin.
    pub id: String,
    /// The URL of the feed.
    pub url: String,
    /// Its category, if it has one.
    pub category: Option<String>,
    /// The time between two visits, such as `1s`.
    pub every: String,
}

impl TestSource {
    /// A source that is visited every second.
    #[must_use]
    pub fn new(id: &str, url: String) -> Self {
        Self { id: id.to_owned(), url, category: None, every: "1s".to_owned() }
    }
}

/// The two daemons, running or not. Killed when dropped; their logs are printed if the test fails.
pub struct TestStack {
    folder: TempDir,
    listen: SocketAddr,
    /// `section.key` and the value as TOML.
    settings: BTreeMap<String, String>,
    start_options: BTreeMap<Binary, StartOptions>,
    running: BTreeMap<Binary, ChildProcess>,
    /// The server of [`Transport::OwnNats`].
    nats: Option<NatsServer>,
}

/// How the gateway gets the events of the ingestion daemon.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Through the daemon's socket.
    Local,
    /// Through a nats-server that is started for the stack.
    OwnNats,
    /// Through NATS at these addresses: `wire.nats_urls` as TOML. Several stacks can share one NATS, as machines do.
    Nats(String),
}

impl Transport {
    /// What the environment variable `E2E_TRANSPORT` names, `local` or `nats`; the first one if it is not set.
    ///
    /// # Errors
    /// If it names another one.
    pub fn of_environment() -> anyhow::Result<Self> {
        match std::env::var("E2E_TRANSPORT").as_deref() {
            Err(_) | Ok("local") => Ok(Self::Local),
            Ok("nats") => Ok(Self::OwnNats),
            Ok(other) => anyhow::bail!("E2E_TRANSPORT is {other:?}; expected local or nats"),
        }
    }
}

/// Lines of each log that are printed if a test fails: from its beginning, and from its end.
const LOG_LINES_SHOWN: (usize, usize) = (15, 40);

impl TestStack {
    /// Deadline of a start, or of a recovery after a kill.
    pub const READY_WITHIN: Duration = Duration::from_secs(90);

    /// Writes folder, configuration and catalogue; starts neither daemon. `E2E_TRANSPORT` chooses the transport.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn new(sources: &[TestSource]) -> anyhow::Result<Self> {
        Self::with_transport(sources, &Transport::of_environment()?)
    }

    /// The same, over this transport whatever the environment says.
    ///
    /// # Errors
    /// If the files cannot be written, or nats-server is needed and cannot be started.
    pub fn with_transport(sources: &[TestSource], transport: &Transport) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("newswire-").tempdir()?;
        let listen = free_address()?;
        let (settings, start_options, running, nats) = Default::default();
        let mut stack = Self { folder, listen, settings, start_options, running, nats };
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
            // The disk of a machine that runs tests may be as full as it likes.
            ("store.free_bytes_min", "0".to_owned()),
            ("store.free_percent_min", "0".to_owned()),
        ] {
            stack.set(key, &value);
        }
        stack.use_transport(transport)?;
        stack.write_catalogue(sources)?;
        Ok(stack)
    }

    fn use_transport(&mut self, transport: &Transport) -> anyhow::Result<()> {
        let urls = match transport {
            Transport::Local => return Ok(()),
            Transport::Nats(urls) => urls.clone(),
            Transport::OwnNats => {
                let program = nats_server_program().context("E2E_TRANSPORT=nats needs nats-server")?;
                let server = NatsServer::spawn(&program, "")?;
                let urls = format!("[\"{}\"]", server.url());
                self.nats = Some(server);
                urls
            }
        };
        self.set("wire.transport", "\"nats\"");
        self.set("wire.nats_urls", &urls);
        Ok(())
    }

    /// Whether NATS is between the daemons.
    #[must_use]
    pub fn is_over_nats(&self) -> bool {
        self.settings.contains_key("wire.nats_urls")
    }

    /// The server of [`Transport::OwnNats`].
    pub fn nats_mut(&mut self) -> Option<&mut NatsServer> {
        self.nats.as_mut()
    }

    /// Replaces the catalogue; a running daemon applies it at its next reload.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_catalogue(&self, sources: &[TestSource]) -> anyhow::Result<()> {
        let mut text = String::new();
        for TestSource { id, url, category, every } in sources {
            write!(
                text,
                "[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nname = \"Source {id}\"\nevery = \"{every}\"\n"
            )?;
            if let Some(category) = category {
                writeln!(text, "category = \"{category}\"")?;
            }
            text.push('\n');
        }
        fs::write(self.path("sources.toml"), text).context("write the catalogue")
    }

    /// Sets `section.key` to a TOML value, for processes started from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Starts a program with these options from now on.
    pub fn set_start_options(&mut self, program: Binary, options: StartOptions) {
        self.start_options.insert(program, options);
    }

    /// Writes the configuration, with some keys changed, to the file `name` and returns its path.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_config(&self, name: &str, changes: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let mut settings = self.settings.clone();
        settings.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut text = String::new();
        let mut open = "";
        for (name, value) in &settings {
            let (section, key) = name.split_once('.').context("a setting is named section.key")?;
            if section != open {
                writeln!(text, "[{section}]")?;
                open = section;
            }
            writeln!(text, "{key} = {value}")?;
        }
        let path = self.path(name);
        // Replaced atomically: a program that was started earlier may be reading it.
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

    /// Leaves the folder there after the test, and prints where it is.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
        crate::log_line(&format!("the folder stays: {}", self.folder.path().display()));
    }

    /// The address of the gateway.
    #[must_use]
    pub fn gateway(&self) -> Address {
        self.listen.into()
    }

    /// The socket of the ingestion daemon.
    #[must_use]
    pub fn wire(&self) -> Address {
        Address::Unix(self.path("run/ingestd.sock"))
    }

    /// The admin socket of a daemon.
    #[must_use]
    pub fn admin(&self, program: Binary) -> Address {
        let name = program.name().trim_start_matches("newswire-");
        Address::Unix(self.path(&format!("run/{name}-admin.sock")))
    }

    /// Starts a daemon.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start(&mut self, program: Binary) -> anyhow::Result<()> {
        let process = self.start_extra(program, "newswire.toml", &[])?;
        self.running.insert(program, process);
        Ok(())
    }

    /// Starts an additional process with its own configuration (see [`TestStack::write_config`]), owned by the caller.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_extra(
        &self,
        program: Binary,
        config: &str,
        changes: &[(&str, &str)],
    ) -> anyhow::Result<ChildProcess> {
        let config = self.write_config(config, changes)?;
        let config = config.to_str().context("temporary folders have plain names")?;
        let options = self.start_options.get(&program).cloned().unwrap_or_default();
        ChildProcess::start_with(&options, program, &["--config", config], self.folder.path())
    }

    /// Starts both daemons and waits until the gateway is ready.
    ///
    /// # Errors
    /// If it is not ready within [`TestStack::READY_WITHIN`].
    pub async fn start_both(&mut self) -> anyhow::Result<()> {
        self.start(Binary::Ingestd)?;
        self.start(Binary::Gateway)?;
        self.wait_ready().await
    }

    /// The running process of a daemon.
    ///
    /// # Errors
    /// If the test has not started it, or has removed it.
    pub fn process(&mut self, program: Binary) -> anyhow::Result<&mut ChildProcess> {
        self.running.get_mut(&program).with_context(|| format!("{} was not started", program.name()))
    }

    /// Kills a daemon with SIGKILL and waits until it has exited.
    ///
    /// # Errors
    /// If the test has not started it, or it has exited by itself.
    pub fn kill(&mut self, program: Binary) -> anyhow::Result<()> {
        let process = self.process(program)?;
        anyhow::ensure!(
            process.is_running(),
            "{} had exited by itself; its log:\n{}",
            program.name(),
            process.log()
        );
        process.kill();
        self.running.remove(&program);
        Ok(())
    }

    /// Sends SIGTERM to a daemon and waits until it exits; returns its status and how long it took.
    ///
    /// # Errors
    /// If it is still running after `limit`.
    pub async fn terminate(
        &mut self,
        program: Binary,
        limit: Duration,
    ) -> anyhow::Result<(ExitStatus, Duration)> {
        let process = self.process(program)?;
        process.signal(Signal::TERM)?;
        let end = process.wait_exit(limit).await?;
        self.running.remove(&program);
        Ok(end)
    }

    /// Waits until `GET /ready` answers 200: both daemons run, and the gateway has caught up.
    ///
    /// # Errors
    /// If it does not within [`TestStack::READY_WITHIN`], or a process has exited; the error has the last answer.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.wait_for_200("/ready").await
    }

    /// Waits until the gateway answers `GET /health`, whatever the ingestion daemon does.
    ///
    /// # Errors
    /// As [`TestStack::wait_ready`].
    pub async fn wait_serving(&mut self) -> anyhow::Result<()> {
        self.wait_for_200("/health").await
    }

    async fn wait_for_200(&mut self, path: &str) -> anyhow::Result<()> {
        let address = self.gateway();
        let mut last = String::new();
        let running = &mut self.running;
        let outcome = wait_for(&format!("GET {path} to answer 200"), Self::READY_WITHIN, async || {
            if let Some((program, process)) =
                running.iter_mut().find_map(|(n, p)| (!p.is_running()).then_some((n, p)))
            {
                return Some(Err(format!("{} exited; its log:\n{}", program.name(), process.log())));
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
    pub fn subscribe(&self, path: &str) -> TestSubscriber {
        TestSubscriber::start(self.gateway(), path)
    }

    /// Requests a path of the gateway and parses the JSON of the response.
    ///
    /// # Errors
    /// If the status is not 200 or the body is not JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let (status, text) = http::fetch(&self.gateway(), path, Duration::from_secs(30)).await?;
        anyhow::ensure!(status == 200, "GET {path} answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("GET {path} answered {text}"))
    }

    /// Prints the logs; happens automatically if a test panics.
    pub fn show_logs(&self) {
        for program in [Binary::Ingestd, Binary::Gateway, Binary::Newswire] {
            let Ok(log) = fs::read_to_string(self.path(&format!("{}.log", program.name()))) else { continue };
            let lines: Vec<_> = log.lines().collect();
            let (first, last) = LOG_LINES_SHOWN;
            let tail = lines.len().saturating_sub(last).max(first.min(lines.len()));
            crate::log_line(&format!("--- log of {}, {} lines", program.name(), lines.len()));
            lines[..first.min(lines.len())].iter().for_each(|line| crate::log_line(line));
            if tail > first {
                crate::log_line("[...]");
            }
            lines[tail..].iter().for_each(|line| crate::log_line(line));
        }
    }
}

impl Drop for TestStack {
    fn drop(&mut self) {
        self.running.values_mut().for_each(ChildProcess::kill);
        if std::thread::panicking() {
            self.show_logs();
            if let Some(nats) = &self.nats {
                crate::log_line(&format!("--- log of nats-server\n{}", nats.log()));
            }
        }
    }
}

/// A free port of 127.0.0.1 below the kernel's ephemeral range, so that no outgoing connection can take it before the
/// gateway binds it. Concurrent tests begin their search at different ports.
///
/// # Errors
/// If there is none.
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
