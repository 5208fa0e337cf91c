//! The daemon in a folder of its own, asked through its socket.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use news::SourceStatus;
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::{Process, Seats, wait_for};

/// Until it listens; 100,000 sources take a while to read.
const START: Duration = Duration::from_secs(60);
/// An answer of the daemon.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon.
pub(crate) struct Ingestd {
    pub(crate) process: Process,
    folder: TempDir,
}

#[derive(Deserialize)]
struct List {
    sources: Vec<SourceStatus>,
}

impl Ingestd {
    /// Visits these feeds, `s0` first; `settings` are lines for `[fetch]`.
    pub(crate) fn start(
        seats: &Seats,
        settings: &str,
        urls: impl Iterator<Item = String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the daemon")?;
        let mut sources = String::new();
        for (n, url) in urls.enumerate() {
            writeln!(sources, "[[source]]\nid = \"s{n:06}\"\nurl = \"{url}\"\nevery = \"24h\"")?;
        }
        fs::write(folder.path().join("sources.toml"), sources)?;
        let config = format!(
            "[daemon]\nrun_dir = \"{0}\"\n[ingestd]\nsources = \"{0}/sources.toml\"\n[store]\npath = \"{0}/data\"\n\
             [log]\nlevel = \"error\"\nformat = \"text\"\n[fetch]\nallow = [\"127.0.0.0/8\"]\n{settings}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("newswire.toml"), config)?;
        let program = std::env::current_exe().context("ask where we are")?.with_file_name("newswire-ingestd");
        anyhow::ensure!(program.is_file(), "no {}: build it first, or use scripts/bench", program.display());
        let mut command = Command::new(program);
        command.arg("--config").arg(folder.path().join("newswire.toml")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.path().join("log"))?);
        let daemon = Self { process: Process::start(&mut command, seats)?, folder };
        let ready = wait_for("the daemon to listen", START, || daemon.get("/health").ok());
        ready.with_context(|| fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default())?;
        Ok(daemon)
    }

    fn ask(&self, request: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.folder.path().join("ingestd.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 20"), "the daemon answered {head}");
        Ok(body.to_owned())
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    /// Every source, in the order of the list.
    pub(crate) fn sources(&self) -> anyhow::Result<Vec<SourceStatus>> {
        let list: List = serde_json::from_str(&self.get("/sources")?)?;
        Ok(list.sources)
    }

    /// Orders a visit to every source.
    pub(crate) fn visit_all(&self) -> anyhow::Result<()> {
        self.ask(
            "POST /visits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{}",
        )?;
        Ok(())
    }

    /// Every line of the metrics whose name and labels begin like that, with its value.
    pub(crate) fn metrics(&self, begins: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(begins));
        Ok(lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(n, v)| (n.to_owned(), v.parse().unwrap_or(0.0)))
            .collect())
    }

    pub(crate) fn sum(&self, begins: &str) -> anyhow::Result<f64> {
        Ok(self.metrics(begins)?.iter().map(|(_, value)| value).sum())
    }

    /// The upper bound of the bucket of a histogram in which so many of a thousand lie, in its unit.
    pub(crate) fn per_mille(&self, histogram: &str, per_mille: f64) -> anyhow::Result<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (name, value) in self.metrics(&format!("{histogram}_bucket"))? {
            let bound = name.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("+Inf");
            buckets.push((bound.parse().unwrap_or(f64::INFINITY), value));
        }
        let all = buckets.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let found = buckets.iter().find(|(_, value)| *value >= all * per_mille / 1000.0);
        Ok(found.map_or(f64::INFINITY, |(bound, _)| *bound))
    }
}
