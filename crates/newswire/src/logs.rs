//! `newswire logs`: reads the journal of both daemons, groups what went wrong, shows and sets the log level.

mod access;
mod groups;
mod input;
mod journal;
mod level;
mod log_line;
mod records;
mod severity;
mod signature;
mod stamp;

pub(crate) use self::log_line::LogLine;

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use control::ControlSocket;
use daemon::{Clock, Exit};
use news::Timestamp;
use notation::{BadDuration, DURATION_MAX, parse_duration_within};

use self::{
    groups::{LineGroups, TriageSummary, UnreadInput},
    records::RecordJoiner,
};
use crate::{
    out::{self, Paint, safe},
    redact::Redactor,
};

/// The systemd units whose journal is read.
pub(crate) const UNITS: [&str; 2] = ["newswire-ingestd", "newswire-gateway"];
/// Only this much of a line is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// How far back `triage --journal` reads by default.
const JOURNAL_SINCE: Duration = Duration::from_secs(30 * 60);
/// The largest value of `--top`.
const TOP_MAX: u16 = 1000;

/// Arguments of `newswire logs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    journal: journal::JournalArgs,
    #[command(subcommand)]
    command: Option<LogsCommand>,
}

/// One of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum UnitName {
    Ingestd,
    Gateway,
}

impl UnitName {
    const ALL: [Self; 2] = [Self::Ingestd, Self::Gateway];

    fn name(self) -> &'static str {
        match self {
            Self::Ingestd => "ingestd",
            Self::Gateway => "gateway",
        }
    }

    fn admin_socket(self) -> ControlSocket {
        match self {
            Self::Ingestd => ControlSocket::IngestdAdmin,
            Self::Gateway => ControlSocket::GatewayAdmin,
        }
    }
}

#[derive(Debug, Subcommand)]
enum LogsCommand {
    /// Group warnings, errors and panics by message: how often, since when, which sources, one sample
    Triage(TriageArgs),
    /// Show the log level of the daemons, or change it until they restart
    Level(level::LevelArgs),
}

#[derive(Debug, Args)]
struct TriageArgs {
    /// Log files to read, plain or gzip, of newswire or of other programs: nginx, the kernel, systemd, syslog, Python,
    /// Java and others; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "journal", conflicts_with = "journal")]
    files: Vec<PathBuf>,
    /// Read the journal of both units instead
    #[arg(long)]
    journal: bool,
    /// Ignore older lines, such as 30m or 2h [default: everything; 30m with --journal]
    #[arg(long, value_name = "DURATION", value_parser = since)]
    since: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show at most this many groups, the worst and most frequent first
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=i64::from(TOP_MAX)))]
    top: u16,
}

/// Parses how far to look back: a duration of at least a second.
pub(crate) fn since(text: &str) -> Result<Duration, BadDuration> {
    parse_duration_within(text, Duration::from_secs(1)..=DURATION_MAX)
}

pub(crate) async fn run(arguments: LogsArgs) -> anyhow::Result<Exit> {
    match arguments.command {
        Some(LogsCommand::Triage(arguments)) => triage(&arguments),
        Some(LogsCommand::Level(arguments)) => level::run(arguments).await,
        None => journal::run(&arguments.journal),
    }
}

fn triage(arguments: &TriageArgs) -> anyhow::Result<Exit> {
    let now = Timestamp::from_millis(Clock::system().now_millis());
    let mut reader = TriageReader { now, oldest: None, groups: LineGroups::default(), unread: Vec::new() };
    if arguments.journal {
        let since = arguments.since.unwrap_or(JOURNAL_SINCE);
        let read = reader.read_journal(OsStr::new("journalctl"), since);
        reader.note("the journal", read);
    }
    reader.oldest = arguments.since.map(|since| before(now, since));
    for file in &arguments.files {
        let read = match file.as_os_str() == "-" {
            true => input::plain(io::stdin().lock()).and_then(|from| reader.read(from)),
            false => input::open(file).and_then(|from| reader.read(from)),
        };
        reader.note(&file.display().to_string(), read.map_err(anyhow::Error::from));
    }
    let mut summary = reader.groups.summary(usize::from(arguments.top), &Redactor::default());
    summary.unread = reader.unread;
    if arguments.json {
        out::stdout_line(&serde_json::to_string_pretty(&summary)?)?;
    } else {
        show(&summary)?;
    }
    for unread in &summary.unread {
        out::stderr_line(&format!("newswire: {}: {}", safe(&unread.input), safe(&unread.error)));
    }
    Ok(match (summary.unread.is_empty(), summary.errors) {
        (false, _) => Exit::Usage,
        (true, 0) => Exit::Ok,
        (true, _) => Exit::Failure,
    })
}

/// The instant `since` before `now`.
pub(crate) fn before(now: Timestamp, since: Duration) -> Timestamp {
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.millis().saturating_sub(ms))
}

/// Reads all inputs into groups. An input that cannot be read does not keep the others from being read.
struct TriageReader {
    now: Timestamp,
    /// Older lines are ignored.
    oldest: Option<Timestamp>,
    groups: LineGroups,
    unread: Vec<UnreadInput>,
}

impl TriageReader {
    fn note(&mut self, input: &str, read: anyhow::Result<()>) {
        if let Err(error) = read {
            self.unread.push(UnreadInput { input: input.to_owned(), error: format!("{error:#}") });
        }
    }

    /// Adds all lines to the groups; the part of a line beyond [`LINE_BYTES_MAX`] is ignored.
    fn read(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut records = RecordJoiner::default();
        let mut line = Vec::new();
        // A line without a time, such as one of a stack, is as old as the line before it.
        let mut too_old = false;
        let read = loop {
            line.clear();
            match (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            let is_cut = !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES_MAX;
            if is_cut && let Err(error) = from.skip_until(b'\n') {
                break Err(error);
            }
            let text = String::from_utf8_lossy(&line);
            let line = LogLine::parse(text.trim_end_matches(['\n', '\r']), self.now);
            if let (Some(time), Some(oldest)) = (line.time, self.oldest) {
                too_old = time < oldest;
            }
            if !too_old {
                self.groups.count_line();
                records.add(line, &mut |record| self.groups.add(&record));
            }
        };
        records.finish(&mut |record| self.groups.add(&record));
        read
    }

    /// Adds the lines of both units from the journal.
    fn read_journal(&mut self, program: &OsStr, since: Duration) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command.args(["--output=json", "--no-pager", "--quiet", &format!("--since=-{}s", since.as_secs())]);
        for unit in UNITS {
            command.args(["--unit", unit]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("run journalctl; without a journal, name the log files")?;
        let output = child.stdout.take().context("the standard output of journalctl is piped")?;
        let before = self.groups.lines();
        self.read(BufReader::new(output)).context("read the output of journalctl")?;
        let status = child.wait().context("wait for journalctl")?;
        anyhow::ensure!(status.success(), "journalctl ended with {status}");
        // journalctl prints nothing and succeeds if this user may read nothing.
        match self.groups.lines() == before {
            true => input::system_journal(),
            false => Ok(()),
        }
    }
}

fn show(summary: &TriageSummary) -> io::Result<()> {
    let paint = Paint::for_stdout();
    for group in &summary.groups {
        let level = match group.level {
            severity::Severity::Warn => paint.bold(group.level.as_str()),
            _ => paint.bad(group.level.as_str()),
        };
        out::stdout_line(&format!("{:>6}× {level} {}", group.count, safe(&group.signature)))?;
        let time = |time: Option<Timestamp>| time.map_or("?".to_owned(), |time| time.to_string());
        let mut details = format!("{} to {}", time(group.first), time(group.last));
        if !group.sources.is_empty() {
            let sources: Vec<_> = group.sources.iter().map(|source| safe(source)).collect();
            let more = if group.more_sources { " and others" } else { "" };
            details.push_str(&format!("; sources {}{more}", sources.join(" ")));
        }
        out::stdout_line(&format!("        {}", paint.dim(&details)))?;
        out::stdout_line(&format!("        {}", safe(&group.sample)))?;
    }
    let TriageSummary { lines, errors, warnings, unshown, ungrouped, .. } = summary;
    out::stdout_line(&format!("{lines} lines: {errors} errors, {warnings} warnings"))?;
    if unshown + ungrouped > 0 {
        out::stdout_line(&format!(
            "{unshown} of them in groups that are not shown, {ungrouped} beyond the limit of groups"
        ))?;
    }
    Ok(())
}
