//! `newswire logs`: runs `journalctl` and shows its records as `time LEVEL unit message`, or as they are.

use std::{
    ffi::OsStr,
    io::{self, BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use daemon::Exit;
use serde_json::Value;

use super::{LINE_BYTES_MAX, UNITS, UnitName};
use crate::out::{self, Paint, safe};

/// Which records of the journal to show, and how.
#[derive(Debug, Default, clap::Args)]
pub(super) struct JournalArgs {
    /// Keep running and print new lines
    #[arg(short, long)]
    follow: bool,
    /// Ignore older lines: 30m, 2h, 3d, or a time that journalctl accepts
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Ignore newer lines
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show only lines about this source
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// Show only lines of this daemon
    #[arg(long)]
    unit: Option<UnitName>,
    /// Show only lines of at least this level
    #[arg(long, value_parser = ["error", "warn", "info", "debug"])]
    level: Option<String>,
    /// Show only messages that match this pattern (journalctl --grep)
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Show only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,
    /// Print the records of the journal as JSON, with every field
    #[arg(long)]
    json: bool,
}

impl JournalArgs {
    /// The arguments of `journalctl`. Each value is in one word with its name, so that none is taken for an option.
    fn arguments(&self) -> Vec<String> {
        let mut all = vec!["--output=json".to_owned(), "--no-pager".to_owned(), "--quiet".to_owned()];
        let units = UNITS.iter().filter(|name| self.unit.is_none_or(|unit| name.ends_with(unit.name())));
        all.extend(units.map(|name| format!("--unit={name}")));
        if self.follow {
            all.push("--follow".to_owned());
        }
        all.extend(self.lines.map(|n| format!("--lines={n}")));
        all.extend(self.since.as_deref().map(|time| format!("--since={}", instant(time))));
        all.extend(self.until.as_deref().map(|time| format!("--until={}", instant(time))));
        // The names of the journal differ.
        let priority = self.level.as_deref().map(|level| match level {
            "error" => "err",
            "warn" => "warning",
            other => other,
        });
        all.extend(priority.map(|priority| format!("--priority={priority}")));
        all.extend(self.grep.as_deref().map(|text| format!("--grep={text}")));
        all.extend(self.source.as_deref().map(|id| format!("SOURCE={id}")));
        all
    }
}

/// A duration means that long ago; journalctl interprets anything else.
fn instant(time: &str) -> String {
    super::since(time).map_or_else(|_| time.to_owned(), |ago| format!("-{}s", ago.as_secs()))
}

pub(super) fn run(query: &JournalArgs) -> anyhow::Result<Exit> {
    show(query, OsStr::new("journalctl"), &mut |line| out::stdout_line(line))
}

fn show(
    query: &JournalArgs,
    program: &OsStr,
    print: &mut dyn FnMut(&str) -> io::Result<()>,
) -> anyhow::Result<Exit> {
    let spawned =
        Command::new(program).args(query.arguments()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.context(
        "cannot run journalctl; without systemd the daemons log to standard error: read the file that it goes to, \
         or group its lines with `newswire logs triage FILE`",
    )?;
    let mut from = BufReader::new(child.stdout.take().context("the standard output of journalctl is piped")?);
    let paint = Paint::for_stdout();
    let (mut line, mut shown) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        if (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES_MAX {
            from.skip_until(b'\n')?;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let printed = if query.json { print(text) } else { print(&readable(text, paint)) };
        if let Err(error) = printed {
            // Our output is closed, so journalctl must not keep following.
            child.kill().and_then(|()| child.wait()).ok();
            return Err(error.into());
        }
        shown += 1;
    }
    let status = child.wait().context("wait for journalctl")?;
    if shown > 0 || query.follow {
        return Ok(if status.success() || shown > 0 { Exit::Ok } else { Exit::Failure });
    }
    out::stderr_line(
        "newswire: no matching lines in the journal. Check that the units run (`systemctl status newswire-ingestd`) and \
         that you may read the journal (root or group systemd-journal), look further back (`--since 1d`), or log more \
         (`newswire logs level debug`).",
    );
    Ok(Exit::Failure)
}

/// A record as `time LEVEL unit message`; a line that is not a record is only escaped.
fn readable(line: &str, paint: Paint) -> String {
    let Ok(Value::Object(record)) = serde_json::from_str(line) else { return safe(line) };
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = text("__REALTIME_TIMESTAMP").parse::<i64>().unwrap_or_default() / 1000;
    let level = match text("PRIORITY") {
        "0" | "1" | "2" | "3" => paint.bad("ERROR"),
        "4" => paint.bold("WARN "),
        "7" => paint.dim("DEBUG"),
        _ => paint.good("INFO "),
    };
    let unit = [text("_SYSTEMD_UNIT"), text("UNIT"), text("SYSLOG_IDENTIFIER")];
    let unit = unit.into_iter().find(|name| !name.is_empty()).unwrap_or("?");
    let unit = unit.trim_end_matches(".service").trim_start_matches("newswire-");
    let message = match record.get("MESSAGE") {
        Some(Value::String(message)) => message.clone(),
        // A message that is not UTF-8 is a list of bytes.
        Some(Value::Array(bytes)) => {
            let bytes = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
        }
        _ => String::new(),
    };
    let time = news::Timestamp::from_millis(time).to_string();
    format!("{} {level} {} {}", paint.dim(&time), paint.name(&safe(unit)), safe(&message))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct LogLine {
        #[command(flatten)]
        query: JournalArgs,
    }

    fn query(words: &[&str]) -> JournalArgs {
        LogLine::try_parse_from([&["logs"], words].concat()).unwrap().query
    }

    const ALWAYS: [&str; 3] = ["--output=json", "--no-pager", "--quiet"];

    #[test]
    fn our_options_become_those_of_journalctl() {
        let both = ["--unit=newswire-ingestd", "--unit=newswire-gateway"];
        assert_eq!(query(&[]).arguments(), [&ALWAYS[..], &both].concat());
        let all = query(&[
            "-f",
            "--since",
            "1h",
            "--until",
            "2026-01-02",
            "--source",
            "bbc",
            "--unit",
            "ingestd",
            "--level",
            "warn",
        ])
        .arguments();
        let expected = [
            "--unit=newswire-ingestd",
            "--follow",
            "--since=-3600s",
            "--until=2026-01-02",
            "--priority=warning",
            "SOURCE=bbc",
        ];
        assert_eq!(all, [&ALWAYS[..], &expected].concat());
        let more = query(&["--grep=--rotate", "-n", "5", "--level", "error", "--source=--vacuum-size=1"])
            .arguments();
        let expected = ["--lines=5", "--priority=err", "--grep=--rotate", "SOURCE=--vacuum-size=1"];
        assert_eq!(more, [&ALWAYS[..], &both, &expected].concat());
        assert!(LogLine::try_parse_from(["logs", "--level", "loud"]).is_err());
    }

    /// A `journalctl` that writes its arguments to a file and prints `output`.
    fn fake(folder: &std::path::Path, output: &str) -> std::path::PathBuf {
        let path = folder.join("journalctl");
        fs::write(folder.join("output"), output).unwrap();
        let folder = folder.display();
        fs::write(
            &path,
            format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {folder}/arguments\ncat {folder}/output\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn shown(query: &JournalArgs, program: &std::path::Path) -> (anyhow::Result<Exit>, Vec<String>) {
        let mut lines = Vec::new();
        let mut print = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        let exit = show(query, program.as_os_str(), &mut print);
        (exit, lines)
    }

    #[test]
    fn records_are_shown_as_lines_or_unchanged_with_json() {
        let folder = tempfile::tempdir().unwrap();
        let record = r#"{"__REALTIME_TIMESTAMP":"1767323045678000","PRIORITY":"4","_SYSTEMD_UNIT":"newswire-ingestd.service","SOURCE":"bbc","MESSAGE":"visit failed source=bbc\u001b[2J"}"#;
        let program = fake(folder.path(), &format!("{record}\n"));
        let (exit, lines) = shown(&query(&["--source", "bbc"]), &program);
        assert_eq!(exit.unwrap(), Exit::Ok);
        assert!(lines[0].starts_with("2026-01-02T03:04:05"), "{lines:?}");
        assert!(lines[0].contains(" WARN  ingestd visit failed source=bbc"), "{lines:?}");
        assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
        let recorded = fs::read_to_string(folder.path().join("arguments")).unwrap();
        assert!(recorded.lines().any(|word| word == "SOURCE=bbc"), "{recorded}");
        assert_eq!(shown(&query(&["--json"]), &program).1, [record]);
    }

    #[test]
    fn an_empty_journal_is_a_failure_and_a_missing_journalctl_names_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let (exit, lines) = shown(&query(&[]), &fake(folder.path(), ""));
        assert_eq!((exit.unwrap(), lines.len()), (Exit::Failure, 0));
        let error = shown(&query(&[]), &folder.path().join("none")).0.unwrap_err();
        assert!(format!("{error:#}").contains("newswire logs triage FILE"), "{error:#}");
    }
}
