//! The peer: nginx with nchan (<https://nchan.io>) from Debian, configured like the gateway: one worker per CPU, the same
//! number of events kept, the same heartbeat, no access log.

use std::{
    fs,
    io::{BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;

use super::{HEARTBEAT, KEPT, START, Server, free_address};
use crate::{
    fleet::StreamTarget,
    process::{CpuPartition, ServerProcess, find_program, wait_for},
};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Timeout of its responses; a burst to thousands of clients keeps it busy for seconds.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Queued batches.
const BATCHES_MAX: usize = 1024;

/// A running nginx.
pub(crate) struct Nchan {
    process: ServerProcess,
    address: SocketAddr,
    batches: Option<SyncSender<Vec<String>>>,
    publisher: Option<JoinHandle<anyhow::Result<()>>>,
    _folder: TempDir,
}

/// The path of nginx, or what is missing.
pub(crate) fn find() -> Result<PathBuf, String> {
    let nginx = find_program("nginx").ok_or("nginx is not installed")?;
    if Path::new(MODULE).is_file() { Ok(nginx) } else { Err(format!("nchan is not installed: no {MODULE}")) }
}

impl Nchan {
    /// What is missing on this machine, if anything.
    pub(crate) fn missing() -> Option<String> {
        find().err()
    }

    pub(crate) fn start(cpus: &CpuPartition) -> anyhow::Result<Self> {
        let nginx = find().map_err(anyhow::Error::msg)?;
        let folder = tempfile::tempdir().context("create a folder for nginx")?;
        let address = free_address()?;
        fs::write(folder.path().join("nginx.conf"), config(folder.path(), address, cpus))?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder.path()).arg("-c").arg("nginx.conf").args(["-e", "error.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = ServerProcess::start(&mut command, cpus)?;
        let log = folder.path().join("error.log");
        let publisher = wait_for("nginx to listen", START, || TcpStream::connect(address).ok());
        let publisher = publisher.with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        let (batches, waiting) = sync_channel::<Vec<String>>(BATCHES_MAX);
        let publish = move || waiting.into_iter().try_for_each(|batch| post(&publisher, &batch));
        let publisher = Some(thread::Builder::new().name("publisher".into()).spawn(publish)?);
        Ok(Self { process, address, batches: Some(batches), publisher, _folder: folder })
    }
}

fn config(folder: &Path, address: SocketAddr, cpus: &CpuPartition) -> String {
    let workers = cpus.server_cpu_count();
    let (folder, heartbeat) = (folder.display(), HEARTBEAT.as_secs());
    // The limits of files and connections are above what the scenarios need.
    format!(
        "load_module {MODULE};
daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 16000;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 15000; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 100000000;
  keepalive_timeout 3600;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  nchan_shared_memory_size 256m;
  server {{
    listen {address} backlog=4096;
    location = /pub {{
      nchan_publisher;
      nchan_channel_id news;
      nchan_message_buffer_length {KEPT};
      nchan_message_timeout 1h;
    }}
    location = /sub {{
      nchan_subscriber eventsource;
      nchan_channel_id news;
      nchan_subscriber_first_message newest;
      nchan_eventsource_ping_interval {heartbeat};
    }}
  }}
}}
"
    )
}

/// Publishes a batch in one write, and reads the responses.
fn post(mut stream: &TcpStream, batch: &[String]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = |json: &String| {
        let length = json.len();
        format!(
            "POST /pub HTTP/1.1\r\nhost: localhost\r\naccept: text/json\r\ncontent-length: {length}\r\n\r\n{json}"
        )
    };
    stream.write_all(batch.iter().map(request).collect::<String>().as_bytes()).context("publish to nchan")?;
    let mut answers = BufReader::new(stream);
    for _ in batch {
        answer(&mut answers).context("publish to nchan")?;
    }
    Ok(())
}

fn answer(answers: &mut impl std::io::BufRead) -> anyhow::Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    answers.read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    anyhow::ensure!(matches!(status.as_str(), "200" | "201" | "202"), "unexpected response {line:?}");
    while !line.trim().is_empty() {
        line.clear();
        answers.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    Ok(())
}

impl Server for Nchan {
    fn target(&self) -> StreamTarget {
        StreamTarget { address: self.address, path: "/sub" }
    }

    fn process(&self) -> &ServerProcess {
        &self.process
    }

    fn publish(&mut self, events: Vec<String>) -> anyhow::Result<()> {
        let batches = self.batches.as_ref().context("the publisher has exited")?;
        batches.try_send(events).ok().context("nchan is too slow: the queue of batches is full")
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(Ok(Err(error))) = self.publisher.take().map(JoinHandle::join) {
            crate::report::note(&format!("nchan: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_responses_are_parsed_and_a_refusal_is_an_error() {
        let text = "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 202 Accepted\r\n\r\nHTTP/1.1 403 No\r\n\r\n";
        let mut answers = text.as_bytes();
        assert!(answer(&mut answers).is_ok() && answer(&mut answers).is_ok());
        assert!(answer(&mut answers).unwrap_err().to_string().contains("403"));
    }
}
