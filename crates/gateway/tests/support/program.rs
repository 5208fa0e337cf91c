//! The program itself, as a child process in its own folder: what can be seen only from outside.
#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::harness::Endpoint;

/// A running gateway; killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) endpoint: Endpoint,
    directory: tempfile::TempDir,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Program {
    /// `gateway` are lines for that section of the configuration, `open_files` the hard limit, `""` for none.
    pub(crate) fn start(gateway: &str, open_files: &str) -> Self {
        let limit = if open_files.is_empty() { String::new() } else { format!("ulimit -n {open_files} && ") };
        Self::begin(gateway, &limit, "", Stdio::null())
    }

    /// One that inherits its listening socket, as under systemd.
    pub(crate) fn at(listener: &TcpListener) -> Self {
        let passed = OwnedFd::from(listener.try_clone().unwrap());
        Self::begin("", "export LISTEN_FDS=1 LISTEN_PID=$$ && ", "3<&0 0</dev/null", passed.into())
    }

    fn begin(gateway: &str, before: &str, files: &str, stdin: Stdio) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().display();
        let workers = if before.contains("ulimit") { 1 } else { 2 };
        let config = format!(
            "[daemon]\nrun_dir = \"{run}\"\n[log]\nlevel = \"debug\"\nformat = \"text\"\n\
             [gateway]\nlisten = \"127.0.0.1:0\"\nworkers = {workers}\n{gateway}\n"
        );
        fs::write(directory.path().join("newswire.toml"), config).unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{before}exec \"$0\" --config newswire.toml {files}"))
            .arg(env!("CARGO_BIN_EXE_newswire-gateway"))
            .current_dir(directory.path())
            .stdin(stdin)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut output = String::new();
        let address = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("it ended without being ready: {output}")).unwrap();
            output.push_str(&line);
            output.push('\n');
            if let Some((_, address)) = line.split_once("listen=") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(output));
        let kept = Arc::clone(&log);
        // A full pipe would block the program.
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { child, endpoint: Endpoint { address }, directory, log, reader: Some(reader) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("ingestd.sock")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = self.proc("status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Open files.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Time on a processor so far, in ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// SIGTERM; how it ended, how long that took, and what it had logged.
    pub(crate) async fn end(mut self) -> (ExitStatus, Duration, String) {
        let started = Instant::now();
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.signal(), None, "it ends by itself");
                let took = started.elapsed();
                self.reader.take().unwrap().join().unwrap();
                return (status, took, self.log());
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it does not end: {}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
