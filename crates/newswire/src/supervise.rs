//! Keeps one child process running: its log with a prefix, a restart when it dies, an orderly end.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use daemon::exit::{EX_CONFIG, EX_IOERR, EX_TEMPFAIL};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::out::{self, safe};

/// A program to keep running.
#[derive(Clone, Debug)]
pub(crate) struct ChildProgram {
    /// In front of every line of its log.
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<PathBuf>,
    pub(crate) environment: Vec<(String, String)>,
    /// How long it may take to end after SIGTERM before it is killed.
    pub(crate) patience: Duration,
}

/// The first wait before a restart; doubles up to [`RESTART_LONGEST`].
const RESTART_FIRST: Duration = Duration::from_millis(250);
const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// Who has lived that long starts again at [`RESTART_FIRST`].
const SETTLED: Duration = Duration::from_secs(30);
/// Who dies of its configuration this early will not get better by being started again.
const EARLY: Duration = Duration::from_secs(5);
/// Longest line that is passed on; a longer one is cut.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Keeps the program running until `stop`; nothing when it ended as asked.
///
/// # Errors
/// When it cannot be started, or said at its first start that it cannot work.
pub(crate) async fn keep(program: &ChildProgram, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut wait = RESTART_FIRST;
    let mut first = true;
    loop {
        let mut child = start(program)?;
        let started = Instant::now();
        let log = pass_on(&program.label, child.stderr.take());
        let status = tokio::select! {
            status = child.wait() => status.context("wait for a child")?,
            () = stop.cancelled() => {
                end(program, &mut child).await?;
                // What it said last is still in the pipe.
                tokio::time::timeout(Duration::from_secs(1), log).await.ok();
                return Ok(());
            }
        };
        tokio::time::timeout(Duration::from_secs(1), log).await.ok();
        let hopeless = [EX_CONFIG, EX_TEMPFAIL, EX_IOERR].map(i32::from);
        if first && started.elapsed() < EARLY && status.code().is_some_and(|code| hopeless.contains(&code)) {
            anyhow::bail!("{} cannot work as it is set up ({status})", program.label);
        }
        first = false;
        if started.elapsed() > SETTLED {
            wait = RESTART_FIRST;
        }
        out::complain(&format!(
            "newswire  | {} ended ({status}); starting it again in {wait:?}",
            program.label
        ));
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
        wait = (wait * 2).min(RESTART_LONGEST);
    }
}

fn start(program: &ChildProgram) -> anyhow::Result<Child> {
    Command::new(&program.path)
        .args(&program.arguments)
        .envs(program.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A terminal sends Ctrl-C to a whole group: with ours it would be the children's second signal.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.path.display()))
}

async fn end(program: &ChildProgram, child: &mut Child) -> anyhow::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may be gone already.
        kill_process(pid, Signal::TERM).ok();
    }
    if tokio::time::timeout(program.patience, child.wait()).await.is_err() {
        out::complain(&format!(
            "newswire  | {} did not end in {:?}; killing it",
            program.label, program.patience
        ));
        child.kill().await.context("kill a child")?;
    }
    Ok(())
}

/// Copies the child's log, line by line.
fn pass_on(label: &str, log: Option<impl AsyncRead + Unpin + 'static + Send>) -> tokio::task::JoinHandle<()> {
    let label = label.to_owned();
    tokio::spawn(async move {
        let Some(log) = log else { return };
        let mut log = BufReader::with_capacity(LINE_BYTES_MAX, log);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut log, &mut line).await {
                Ok(true) => out::complain(&format!("{label:9} | {}", show(&line))),
                Ok(false) | Err(_) => return,
            }
        }
    })
}

/// Our daemons escape what is foreign; a panic before their log is set up may not.
fn show(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    if text.chars().any(char::is_control) { safe(&text) } else { text.into_owned() }
}

/// Reads a line without its end, cut at [`LINE_BYTES_MAX`]; false at the end of the stream.
async fn read_line(log: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut any = false;
    loop {
        let chunk = log.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = chunk.iter().position(|b| *b == b'\n');
        let taken = end.unwrap_or(chunk.len());
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&chunk[..taken.min(room)]);
        let used = end.map_or(taken, |end| end + 1);
        log.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ChildProgram {
        ChildProgram {
            label: "test".into(),
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: Vec::new(),
            patience: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn a_program_that_dies_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("starts");
        let program = shell(&format!("echo x >> {}; sleep 0.05; exit 1", mark.display()));
        let stop = CancellationToken::new();
        let starts = async {
            while std::fs::read_to_string(&mark).unwrap_or_default().lines().count() < 3 {
                sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        let (kept, ()) = tokio::join!(keep(&program, &stop), starts);
        kept.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_cannot_work_is_not_started_again() {
        let stop = CancellationToken::new();
        let error = keep(&shell("exit 78"), &stop).await.unwrap_err();
        assert!(error.to_string().contains("cannot work"), "{error}");
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = format!("{}\nnext\nlast", "x".repeat(LINE_BYTES_MAX * 2));
        let mut log = BufReader::with_capacity(100, long.as_bytes());
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while read_line(&mut log, &mut line).await.unwrap() {
            lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap());
        }
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4, 4]);
    }
}
