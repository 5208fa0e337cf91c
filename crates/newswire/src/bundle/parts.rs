//! The parts of a bundle: each has a deadline and a size limit, or the reason why it is missing.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use control::{ControlClient, ControlError, ControlRequest, ControlSocket, black_box, paths};
use daemon::{
    config::{Config, Loaded},
    program::{GATEWAY, INGESTD},
};
use news::Timestamp;
use serde_json::{Map, Value, json};
use sources::ListOnDisk;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use super::archive::Archive;
use crate::{
    config_file::ConfigFile,
    logs::{self, LogLine},
};

/// How long a daemon may take for one answer: its stacks take seconds on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// How long the doctor may take.
const DOCTOR_WITHIN: Duration = Duration::from_secs(15);
/// How long the journal may take for one unit.
const JOURNAL_WITHIN: Duration = Duration::from_secs(15);
/// Largest answer of a daemon, in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest part of a log file (its end) and largest list of sources, in bytes.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Maximum number of journal lines of one unit.
const JOURNAL_LINES: &str = "--lines=100000";
/// What is requested from each admin socket, and as which media type; the answers are JSON if the file name says so.
const ADMIN: [(&str, &str, &str); 5] = [
    (paths::HEALTH, "application/json", "health.json"),
    (paths::WATCH, "application/json", "watch.json"),
    (paths::STACKS, "text/plain", "stacks.txt"),
    (paths::METRICS, "*/*", "metrics.txt"),
    (paths::STATUS, "application/json", "status.json"),
];

/// Why a part is missing.
#[derive(Debug)]
pub(super) enum Omission {
    /// It was requested, or read, and that failed.
    Failed(String),
    /// It was not requested, because an earlier request to the same socket had no answer.
    NotRequested(String),
}

impl Omission {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Failed(reason) | Self::NotRequested(reason) => reason,
        }
    }
}

impl From<String> for Omission {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Every value in force and its origin, as far as the configuration can be read; the list of sources.
pub(super) fn configuration(archive: &mut Archive, loaded: &Loaded) -> io::Result<()> {
    let value = |s: daemon::config::EffectiveValue| (s.key, json!({ "value": s.value, "origin": s.origin }));
    archive.add_json("config.json", Ok(Value::Object(loaded.show().into_iter().map(value).collect())))?;
    let sources = sources(&loaded.config.ingestd.sources);
    archive.add_json("sources.json", sources.map_err(Omission::Failed))
}

/// The list of sources as data, without its comments: those may contain anything. Included files are in `included`, by
/// path.
fn sources(list: &Path) -> Result<Value, String> {
    let mut main = as_data(list)?;
    // A list with mistakes is shown without the files that it includes.
    let parts = ListOnDisk::read(list).map(|list| list.parts).unwrap_or_default();
    let included: Map<_, _> = parts
        .iter()
        .skip(1)
        .map(|part| {
            (part.path.display().to_string(), as_data(&part.path).map_or_else(Value::String, Value::Object))
        })
        .collect();
    if !included.is_empty() {
        main.insert("included".to_owned(), Value::Object(included));
    }
    Ok(Value::Object(main))
}

fn as_data(file: &Path) -> Result<Map<String, Value>, String> {
    let text = tail(file, LOG_BYTES_MAX + 1)?;
    if text.len() as u64 > LOG_BYTES_MAX {
        return Err(format!("{} is larger than {LOG_BYTES_MAX} bytes", file.display()));
    }
    // `Display` of the error shows the line, which may contain a secret.
    let table = toml::from_str::<toml::Table>(&text)
        .map_err(|error| format!("{} is not valid TOML: {}", file.display(), error.message()))?;
    match serde_json::to_value(table).map_err(|error| error.to_string())? {
        Value::Object(table) => Ok(table),
        _ => Err(format!("{} is not a table", file.display())),
    }
}

/// The output of the doctor, run as a separate process so that its end cannot affect the bundle.
pub(super) async fn doctor(archive: &mut Archive, file: &ConfigFile) -> io::Result<()> {
    let diagnosis = async {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["doctor", "--json"]);
        if let Some(config) = &file.config {
            command.arg("--config").arg(config);
        }
        let run = output(command, DOCTOR_WITHIN).await?;
        serde_json::from_str(&run.stdout).map_err(|_| {
            let error = run.stderr.lines().next().unwrap_or("it printed nothing");
            format!("the doctor ended with {}: {error}", run.status)
        })
    };
    let diagnosis = diagnosis.await.map_err(Omission::Failed);
    archive.add_json("doctor.json", diagnosis)
}

/// What both daemons report about themselves and their sources; returns their versions, for the manifest.
pub(super) async fn processes(archive: &mut Archive, config: &Config) -> io::Result<Value> {
    let mut versions = Map::new();
    for (process, socket) in
        [("ingestd", ControlSocket::IngestdAdmin), ("gateway", ControlSocket::GatewayAdmin)]
    {
        let mut collector = Collector::new(config.socket(socket));
        for (path, media_type, name) in ADMIN {
            let answer = collector.get(path, media_type).await;
            if let (Ok(health), paths::HEALTH) = (&answer, path) {
                versions.insert(process.to_owned(), serde_json::from_str(health).unwrap_or_default());
            }
            add_answer(archive, &format!("{process}/{name}"), answer)?;
        }
    }
    let mut collector = Collector::new(config.socket(ControlSocket::Ingestd));
    for (path, name) in [("/sources", "ingestd/sources.json"), (paths::LISTS, "ingestd/lists.json")] {
        let answer = collector.get(path, "application/json").await;
        add_answer(archive, name, answer)?;
    }
    Ok(Value::Object(versions))
}

/// What both daemons did last, and in the run before, as data and as text. A run before that has no file is not missing.
pub(super) async fn black_boxes(archive: &mut Archive, config: &Config) -> io::Result<()> {
    for (process, program) in [("ingestd", INGESTD), ("gateway", GATEWAY)] {
        let path = config.black_box(program.name);
        let before = black_box::previous(&path);
        let before = before.exists().then_some((format!("{process}/black-box.previous"), before));
        for (name, path) in [(format!("{process}/black-box"), path)].into_iter().chain(before) {
            let dump = crate::black_box::dump(path).await;
            let (records, text) = match dump {
                Ok(dump) => (Ok(dump.json_lines), Ok(dump.text)),
                Err(why) => (Err(Omission::Failed(why.clone())), Err(Omission::NotRequested(why))),
            };
            archive.add_lines(&format!("{name}.jsonl"), records)?;
            archive.add_lines(&format!("{name}.txt"), text)?;
        }
    }
    Ok(())
}

fn add_answer(archive: &mut Archive, name: &str, answer: Result<String, Omission>) -> io::Result<()> {
    if name.ends_with(".json") {
        let value = answer.and_then(|text| {
            serde_json::from_str(&text)
                .map_err(|error| Omission::Failed(format!("the answer is not JSON: {error}")))
        });
        archive.add_json(name, value)
    } else {
        archive.add_lines(name, answer)
    }
}

/// Sends requests to one socket, one after the other; none any more once one had no answer.
struct Collector {
    client: ControlClient,
    /// Why further requests are not made.
    unreachable: Option<String>,
}

impl Collector {
    fn new(socket: PathBuf) -> Self {
        let client = ControlClient::new(socket).deadline(ANSWER_WITHIN).body_bytes_max(ANSWER_BYTES_MAX);
        Self { client, unreachable: None }
    }

    async fn get(&mut self, path: &str, media_type: &'static str) -> Result<String, Omission> {
        if let Some(why) = &self.unreachable {
            return Err(Omission::NotRequested(why.clone()));
        }
        match self.client.send(&ControlRequest::get(path).accept(media_type)).await {
            Ok(answer) if (200..300).contains(&answer.status) => {
                Ok(String::from_utf8_lossy(&answer.body).into_owned())
            }
            Ok(answer) => Err(format!("GET {path}: status {}", answer.status).into()),
            Err(error) => {
                if !matches!(error, ControlError::TooLarge { .. }) {
                    self.unreachable = Some(format!("not requested, after {path}: {error}"));
                }
                Err(error.to_string().into())
            }
        }
    }
}

/// The end of the journal of both units.
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
        let run = output(command, JOURNAL_WITHIN).await;
        let text = run.and_then(|run| match run.status.as_str() {
            "0" if run.stdout.is_empty() => {
                Err("the journal has no lines of this unit in that time".to_owned())
            }
            "0" => Ok(run.stdout),
            status => Err(format!("journalctl ended with {status}: {}", run.stderr.trim())),
        });
        archive.add_lines(&format!("logs/{unit}.journal.txt"), text.map_err(Omission::Failed))?;
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
    archive.add_lines(&format!("logs/{number}-{name}"), text.map_err(Omission::Failed))
}

/// The lines that are not older than `oldest`; a line without a time is as old as the line before it.
fn since(text: &str, oldest: Timestamp) -> String {
    let now = Timestamp::from_millis(daemon::Clock::system().now_millis());
    let mut too_old = false;
    let kept = text.split_inclusive('\n').filter(|line| {
        if let Some(time) = LogLine::parse(line.trim_end(), now).time {
            too_old = time < oldest;
        }
        !too_old
    });
    kept.collect()
}

/// The last bytes of a file, from the beginning of a line.
fn tail(path: &Path, bytes_max: u64) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
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

/// Versions and facts about the machine, and what is wrong with the configuration, for the manifest.
pub(super) fn machine(versions: Value, mistakes: &[String]) -> Value {
    let mut about = Map::new();
    about.insert("newswire".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    about.insert("daemons".to_owned(), versions);
    about.insert("configuration_mistakes".to_owned(), json!(mistakes));
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

/// How a program ended, and its output.
struct ProgramOutput {
    /// Its exit code, or the signal that ended it.
    status: String,
    stdout: String,
    stderr: String,
}

/// Runs a program to its end; kills it if it takes longer than `within`. Reads at most [`LOG_BYTES_MAX`] of each output.
async fn output(mut command: Command, within: Duration) -> Result<ProgramOutput, String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("cannot run {program}: {error}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let exchange = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read_stdout = async {
            if let Some(out) = out {
                out.take(LOG_BYTES_MAX).read_to_end(&mut stdout).await?;
            }
            Ok::<_, io::Error>(())
        };
        let read_stderr = async {
            if let Some(err) = err {
                err.take(LOG_BYTES_MAX).read_to_end(&mut stderr).await?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::try_join!(read_stdout, read_stderr)?;
        let status = child.wait().await?;
        let status = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(ProgramOutput { status, stdout: lossy(stdout), stderr: lossy(stderr) })
    };
    match timeout(within, exchange).await {
        Ok(output) => output.map_err(failed),
        Err(_) => Err(format!("{program} did not end within {within:?}")),
    }
}
