//! The parts of a bundle: each with its deadline and its bound, and with its reason where it cannot be had.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use daemon::config::{Config, Loaded};
use news::Timestamp;
use serde_json::{Map, Value, json};
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use wire::{ClientError, Endpoint, PeerClient};

use super::archive::Archive;
use crate::{
    config_file::ConfigFile,
    logs::{self, LogLine},
};

/// How long a process may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long the doctor may take.
const DOCTOR_WITHIN: Duration = Duration::from_secs(15);
/// How long the journal may take for one unit.
const JOURNAL_WITHIN: Duration = Duration::from_secs(15);
/// Largest answer of a process, in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest part of a log or of a list of sources, in bytes: of a log the newest.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most lines of the journal of one unit.
const JOURNAL_LINES: &str = "--lines=100000";
/// How the reason of a part begins that was not asked for, because an earlier answer did not come.
pub(super) const NOT_ASKED: &str = "not asked";
/// What is asked of each admin socket; the answers are JSON where the name says so.
const ADMIN: [(&str, &str); 5] = [
    ("/health", "health.json"),
    ("/watch", "watch.json"),
    ("/stacks", "stacks.txt"),
    ("/metrics", "metrics.txt"),
    ("/status", "status.json"),
];

/// Every effective value and where it came from; the list of sources.
pub(super) fn configuration(archive: &mut Archive, loaded: &anyhow::Result<Loaded>) -> io::Result<()> {
    let shown = match loaded {
        Ok(loaded) => {
            let value =
                |s: daemon::config::EffectiveValue| (s.key, json!({ "value": s.value, "origin": s.origin }));
            Ok(Value::Object(loaded.show().into_iter().map(value).collect()))
        }
        Err(complaints) => Err(format!("{complaints:#}")),
    };
    archive.add_json("config.json", shown)?;
    let sources = match loaded {
        Ok(loaded) => sources(&loaded.config.ingestd.sources),
        Err(_) => Err("the configuration does not say where the list is".to_owned()),
    };
    archive.add_json("sources.json", sources)
}

/// The list as data and not as it was written: comments may hold anything.
fn sources(list: &Path) -> Result<Value, String> {
    let text = tail(list, LOG_BYTES_MAX + 1)?;
    if text.len() as u64 > LOG_BYTES_MAX {
        return Err(format!("{} is larger than {LOG_BYTES_MAX} bytes", list.display()));
    }
    // The text of the error shows the line, which may hold a secret.
    let table = toml::from_str::<toml::Table>(&text)
        .map_err(|error| format!("{} is no TOML: {}", list.display(), error.message()))?;
    serde_json::to_value(table).map_err(|error| error.to_string())
}

/// What the doctor says, in a process of its own, because it must not matter here how it ends.
pub(super) async fn doctor(archive: &mut Archive, file: &ConfigFile) -> io::Result<()> {
    let examined = async {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["doctor", "--json"]);
        if let Some(config) = &file.config {
            command.arg("--config").arg(config);
        }
        let said = output(command, DOCTOR_WITHIN).await?;
        serde_json::from_str(&said.text).map_err(|_| {
            let complaint = said.complaint.lines().next().unwrap_or("it says nothing").to_owned();
            format!("the doctor ended with {}: {complaint}", said.status)
        })
    };
    let examined = examined.await;
    archive.add_json("doctor.json", examined)
}

/// What both processes say of themselves, and the daemon of its sources; gives the versions, for the manifest.
pub(super) async fn processes(archive: &mut Archive, config: &Config) -> io::Result<Value> {
    let mut versions = Map::new();
    for process in ["ingestd", "gateway"] {
        let mut collector = Collector::new(config.daemon.run_dir.join(format!("{process}-admin.sock")));
        for (path, name) in ADMIN {
            let answer = collector.ask(path).await;
            if let (Ok(health), "/health") = (&answer, path) {
                versions.insert(process.to_owned(), serde_json::from_str(health).unwrap_or_default());
            }
            add(archive, &format!("{process}/{name}"), answer)?;
        }
    }
    let answer = Collector::new(config.daemon.run_dir.join("ingestd.sock")).ask("/sources").await;
    add(archive, "ingestd/sources.json", answer)?;
    Ok(Value::Object(versions))
}

fn add(archive: &mut Archive, name: &str, answer: Result<String, String>) -> io::Result<()> {
    if name.ends_with(".json") {
        let value = answer.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| format!("the answer is no JSON: {error}"))
        });
        archive.add_json(name, value)
    } else {
        archive.add_lines(name, answer)
    }
}

/// Somebody who is asked one thing after the other, until an answer does not come.
struct Collector {
    socket: PathBuf,
    silent: Option<String>,
}

impl Collector {
    fn new(socket: PathBuf) -> Self {
        Self { socket, silent: None }
    }

    async fn ask(&mut self, path: &str) -> Result<String, String> {
        if let Some(why) = &self.silent {
            return Err(why.clone());
        }
        let endpoint = Endpoint::Socket(self.socket.clone());
        let peer = PeerClient::try_new(endpoint).map_err(|error| error.to_string())?;
        match peer.get(path, ANSWER_WITHIN, ANSWER_BYTES_MAX).await {
            Ok(answer) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            Err(error) => {
                if matches!(error, ClientError::Unreachable(..)) {
                    self.silent = Some(format!("{NOT_ASKED}, after {path}: {error}"));
                }
                Err(error.to_string())
            }
        }
    }
}

/// The journal of both units.
pub(super) async fn journal(archive: &mut Archive, since: Duration) -> io::Result<()> {
    for unit in logs::UNITS {
        let mut command = Command::new("journalctl");
        let since = format!("--since=-{}s", since.as_secs());
        command.args([
            "--output=short-iso-precise",
            "--no-pager",
            "--quiet",
            JOURNAL_LINES,
            &since,
            "--unit",
            unit,
        ]);
        let said = output(command, JOURNAL_WITHIN).await;
        let text = said.and_then(|said| match said.status.as_str() {
            "0" if said.text.is_empty() => {
                Err("the journal has nothing of this unit in that time".to_owned())
            }
            "0" => Ok(said.text),
            status => Err(format!("journalctl ended with {status}: {}", said.complaint.trim())),
        });
        archive.add_lines(&format!("logs/{unit}.journal.txt"), text)?;
    }
    Ok(())
}

/// The newest lines of a log file.
pub(super) fn log_file(
    archive: &mut Archive,
    number: usize,
    log: &Path,
    oldest: Timestamp,
) -> io::Result<()> {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let text = tail(log, LOG_BYTES_MAX).map(|text| since(&text, oldest));
    archive.add_lines(&format!("logs/{number}-{name}"), text)
}

/// The lines that are not older; one without a time is as old as the one before it.
fn since(text: &str, oldest: Timestamp) -> String {
    let mut too_old = false;
    let kept = text.split_inclusive('\n').filter(|line| {
        if let Some(time) = LogLine::parse(line.trim_end()).time {
            too_old = time < oldest;
        }
        !too_old
    });
    kept.collect()
}

/// The last bytes of a file, without the line that is cut.
fn tail(path: &Path, bytes_max: u64) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut file = File::open(path)?;
        let skipped = metadata.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let cut = if skipped == 0 { 0 } else { text.find('\n').map_or(text.len(), |at| at + 1) };
        Ok(text[cut..].to_owned())
    };
    read().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Versions and the machine, for the manifest.
pub(super) fn machine(versions: Value) -> Value {
    let mut about = Map::new();
    about.insert("newswire".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    about.insert("daemons".to_owned(), versions);
    for (name, file) in [
        ("kernel", "/proc/sys/kernel/osrelease"),
        ("kernel_build", "/proc/sys/kernel/version"),
        ("uptime_and_idle_s", "/proc/uptime"),
        ("load", "/proc/loadavg"),
        ("pressure_cpu", "/proc/pressure/cpu"),
        ("pressure_io", "/proc/pressure/io"),
    ] {
        about.insert(
            name.to_owned(),
            json!(std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())),
        );
    }
    about.insert("architecture".to_owned(), json!(std::env::consts::ARCH));
    Value::Object(about)
}

/// How a program ended, and what it said.
struct ProgramOutput {
    /// Its number, or the signal in words.
    status: String,
    text: String,
    complaint: String,
}

/// Runs a program to its end; kills it when it takes longer or says too much.
async fn output(mut command: Command, within: Duration) -> Result<ProgramOutput, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("cannot run {program}: {error}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let exchange = async {
        let (mut text, mut complaint) = (Vec::new(), Vec::new());
        let all = async {
            if let Some(stdout) = stdout {
                stdout.take(LOG_BYTES_MAX).read_to_end(&mut text).await?;
            }
            Ok::<_, io::Error>(())
        };
        let complaints = async {
            if let Some(stderr) = stderr {
                stderr.take(LOG_BYTES_MAX).read_to_end(&mut complaint).await?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::try_join!(all, complaints)?;
        let status = child.wait().await?;
        let status = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(ProgramOutput { status, text: lossy(text), complaint: lossy(complaint) })
    };
    match timeout(within, exchange).await {
        Ok(said) => said.map_err(failed),
        Err(_) => Err(format!("{program} had not ended within {within:?}")),
    }
}
