//! The ingestion daemon in its own folder, queried through its socket.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use news::SourceStatus;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    attack::probe::fetch,
    process::{CpuPartition, ServerProcess, wait_for},
    server::free_address,
};

/// Deadline of a start; 100,000 sources take a while to read.
const START: Duration = Duration::from_secs(60);
/// Timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running daemon.
pub(crate) struct Ingestd {
    pub(crate) process: ServerProcess,
    folder: TempDir,
}

#[derive(Deserialize)]
struct SourceList {
    sources: Vec<SourceStatus>,
}

/// The content of a body that came in chunks (RFC 9112, section 7.1).
fn unchunked(mut body: &str) -> Option<String> {
    let mut content = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(content);
        }
        content.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// The path of a program, next to this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("locate this program")?.with_file_name(name);
    anyhow::ensure!(
        program.is_file(),
        "{} is missing; use scripts/bench, which builds it",
        program.display()
    );
    Ok(program)
}

impl Ingestd {
    /// Starts a daemon that visits these feeds in order; `settings` are lines for `[fetch]`.
    pub(crate) fn start(
        cpus: &CpuPartition,
        settings: &str,
        urls: impl Iterator<Item = String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a folder for the daemon")?;
        let mut sources = String::new();
        for (n, url) in urls.enumerate() {
            writeln!(sources, "[[source]]\nid = \"s{n:06}\"\nurl = \"{url}\"\nevery = \"24h\"")?;
        }
        fs::write(folder.path().join("sources.toml"), sources)?;
        // A disk that others fill would pause recording.
        let config = format!(
            "[daemon]\nrun_dir = \"{0}\"\n[ingestd]\nsources = \"{0}/sources.toml\"\n[store]\npath = \"{0}/data\"\nfree_percent_min = 0\n\
             [log]\nlevel = \"error\"\nformat = \"text\"\n[fetch]\nallow = [\"127.0.0.0/8\"]\n{settings}\n",
            folder.path().display()
        );
        fs::write(folder.path().join("newswire.toml"), config)?;
        let mut command = Command::new(program("newswire-ingestd")?);
        command.arg("--config").arg(folder.path().join("newswire.toml")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.path().join("log"))?);
        let daemon = Self { process: ServerProcess::start(&mut command, cpus)?, folder };
        let ready = wait_for("the daemon to listen", START, || daemon.get("/health").ok());
        ready.with_context(|| fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default())?;
        Ok(daemon)
    }

    /// Starts a gateway in front of this daemon, and waits until it is ready; `settings` are lines for `[gateway]`.
    pub(crate) fn start_gateway(
        &self,
        cpus: &CpuPartition,
        settings: &str,
    ) -> anyhow::Result<(ServerProcess, SocketAddr)> {
        let address = free_address()?;
        let config = format!(
            "[daemon]\nrun_dir = \"{}\"\n[log]\nlevel = \"error\"\nformat = \"text\"\n[gateway]\nlisten = \"{address}\"\n\
             {settings}\n",
            self.folder.path().display()
        );
        fs::write(self.folder.path().join("gateway.toml"), config)?;
        let mut command = Command::new(program("newswire-gateway")?);
        command.arg("--config").arg(self.folder.path().join("gateway.toml")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.folder.path().join("gateway.log"))?);
        let process = ServerProcess::start(&mut command, cpus)?;
        let ready = wait_for("the gateway to be ready", START, || {
            let response = fetch(address, IpAddr::V4(Ipv4Addr::LOCALHOST), "/ready", TIMEOUT).ok()?;
            response.starts_with(b"HTTP/1.1 200").then_some(())
        });
        ready.with_context(|| {
            fs::read_to_string(self.folder.path().join("gateway.log")).unwrap_or_default()
        })?;
        Ok((process, address))
    }

    fn request(&self, request: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.folder.path().join("ingestd.sock"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("a response has a head")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 20"), "the daemon answered {head}");
        let is_chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
        if is_chunked {
            unchunked(body).context("read the chunks of a response")
        } else {
            Ok(body.to_owned())
        }
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    /// All sources, in catalogue order.
    pub(crate) fn sources(&self) -> anyhow::Result<Vec<SourceStatus>> {
        let list: SourceList = serde_json::from_str(&self.get("/sources")?)?;
        Ok(list.sources)
    }

    /// Requests a visit to every source.
    pub(crate) fn visit_all(&self) -> anyhow::Result<()> {
        self.order_visits("{}")
    }

    /// Requests a visit to these sources, by their place in the list.
    pub(crate) fn visit(&self, sources: impl Iterator<Item = usize>) -> anyhow::Result<()> {
        let ids: Vec<_> = sources.map(|n| format!("\"s{n:06}\"")).collect();
        self.order_visits(&format!("{{\"sources\":[{}]}}", ids.join(",")))
    }

    fn order_visits(&self, order: &str) -> anyhow::Result<()> {
        self.request(&format!(
            "POST /visits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{order}",
            order.len()
        ))?;
        Ok(())
    }

    /// The samples whose name and labels begin with `prefix`, with their values.
    pub(crate) fn metrics(&self, prefix: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        Ok(lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(n, v)| (n.to_owned(), v.parse().unwrap_or(0.0)))
            .collect())
    }

    pub(crate) fn sum(&self, prefix: &str) -> anyhow::Result<f64> {
        Ok(self.metrics(prefix)?.iter().map(|(_, value)| value).sum())
    }

    /// The upper bound of the bucket with the given per-mille quantile of a histogram, in its unit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_a_body_that_is_cut_off_is_refused() {
        let body = "5\r\n{\"a\":\r\n3\r\n17}\r\n0\r\n\r\n";
        assert_eq!(unchunked(body).as_deref(), Some("{\"a\":17}"));
        for length in [0, 3, 9, 12, 18] {
            assert_eq!(unchunked(&body[..length]), None, "{length}");
        }
    }
}
