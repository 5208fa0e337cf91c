//! Keeps one child process running: prints its log with a prefix, restarts it when it dies, stops it in order.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context as _;
use daemon::{
    PARENT_VARIABLE,
    exit::{EX_CONFIG, EX_IOERR, EX_TEMPFAIL},
    line_queue::{LAST_LINES_MAX, LineQueue, LineShare, LineSink, StderrOutput},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::out::safe;

/// The one log of all children on standard error. No child and no restart waits for it: a terminal may be stopped, a pipe
/// may not be read. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PrintedLog(LineQueue);

impl PrintedLog {
    /// A log on standard error.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        Self::to(StderrOutput)
    }

    fn to(output: impl LineSink) -> std::io::Result<Self> {
        let tell = |queue: &LineQueue, dropped: u64| {
            let text =
                format!("{dropped} log lines were dropped here: standard error did not take them in time");
            queue.push(format!("newswire  | {text}\n").into_bytes(), LineShare::Reserved);
        };
        LineQueue::start("log", output, tell).map(Self)
    }

    /// Queues a line of one of the programs.
    pub(crate) fn line(&self, label: &str, text: &str) {
        self.0.push(format!("{label:9} | {text}\n").into_bytes(), LineShare::Ordinary);
    }

    /// Queues a line of this program.
    pub(crate) fn own_line(&self, text: &str) {
        self.line("newswire", text);
    }

    /// Waits until the last lines are written, but not for ever.
    pub(crate) fn finish(&self) {
        let _is_written: bool = self.0.flush(LAST_LINES_MAX);
    }
}

/// A program to keep running.
#[derive(Clone, Debug)]
pub(crate) struct ChildProgram {
    /// Prefix of every line of its log.
    pub(crate) label: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<PathBuf>,
    /// Of the first start only.
    pub(crate) first_options: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// How long it may take to end after SIGTERM before it is killed.
    pub(crate) stop_grace: Duration,
}

/// The first wait before a restart; it doubles up to [`RESTART_WAIT_MAX`].
const RESTART_WAIT_MIN: Duration = Duration::from_millis(250);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);
/// A process that has run this long is restarted after [`RESTART_WAIT_MIN`] again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// A process that fails this soon with one of [`FATAL_CODES`] would only fail again.
const EARLY_FAILURE: Duration = Duration::from_secs(5);
/// Exit codes after which a restart does not help.
const FATAL_CODES: [u8; 3] = [EX_CONFIG, EX_TEMPFAIL, EX_IOERR];
/// Longest line that is printed; a longer one is cut.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Keeps the program running until `stop` is cancelled.
///
/// # Errors
/// If it cannot be started, or its first run ends early with one of [`FATAL_CODES`].
pub(crate) async fn keep_running(
    program: &ChildProgram,
    printed_log: &PrintedLog,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut wait = RESTART_WAIT_MIN;
    let mut first = true;
    loop {
        let options: &[String] = if first { &program.first_options } else { &[] };
        let mut child = start(program, options)?;
        let started = Instant::now();
        let log = copy_log(&program.label, child.stderr.take(), printed_log.clone());
        let status = tokio::select! {
            status = child.wait() => status.context("wait for a child")?,
            () = stop.cancelled() => {
                terminate(program, printed_log, &mut child).await?;
                // Its last lines are still in the pipe.
                tokio::time::timeout(Duration::from_secs(1), log).await.ok();
                return Ok(());
            }
        };
        tokio::time::timeout(Duration::from_secs(1), log).await.ok();
        let is_fatal = |code: i32| FATAL_CODES.iter().any(|fatal| i32::from(*fatal) == code);
        if first && started.elapsed() < EARLY_FAILURE && status.code().is_some_and(is_fatal) {
            let why = explain_fatal(status.code().unwrap_or_default());
            anyhow::bail!("{} ended ({status}): {why}; its last lines above say more", program.label);
        }
        first = false;
        if started.elapsed() > STABLE_AFTER {
            wait = RESTART_WAIT_MIN;
        }
        printed_log.own_line(&format!("{} ended ({status}); restarting it in {wait:?}", program.label));
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
        wait = (wait * 2).min(RESTART_WAIT_MAX);
    }
}

/// What an exit code after which a restart does not help means.
fn explain_fatal(code: i32) -> &'static str {
    if code == i32::from(EX_TEMPFAIL) {
        "another process holds the store or a socket"
    } else if code == i32::from(EX_IOERR) {
        "a file, directory, socket or port cannot be used"
    } else {
        "it cannot work with this configuration"
    }
}

fn start(program: &ChildProgram, options: &[String]) -> anyhow::Result<Child> {
    Command::new(&program.path)
        .args(&program.arguments)
        .args(options)
        .envs(program.environment.iter().cloned())
        .env(PARENT_VARIABLE, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A terminal sends Ctrl-C to the whole process group; in our group the children would get two signals.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.path.display()))
}

async fn terminate(
    program: &ChildProgram,
    printed_log: &PrintedLog,
    child: &mut Child,
) -> anyhow::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended already.
        kill_process(pid, Signal::TERM).ok();
    }
    if tokio::time::timeout(program.stop_grace, child.wait()).await.is_err() {
        let (label, grace) = (&program.label, program.stop_grace);
        printed_log.own_line(&format!("{label} did not stop within {grace:?}; killing it"));
        child.kill().await.context("kill a child")?;
    }
    Ok(())
}

/// Copies the child's log, line by line.
fn copy_log(
    label: &str,
    log: Option<impl AsyncRead + Unpin + 'static + Send>,
    printed_log: PrintedLog,
) -> tokio::task::JoinHandle<()> {
    let label = label.to_owned();
    tokio::spawn(async move {
        let Some(log) = log else { return };
        let mut log = BufReader::with_capacity(LINE_BYTES_MAX, log);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut log, &mut line).await {
                Ok(true) => printed_log.line(&label, &printable(&line)),
                Ok(false) | Err(_) => return,
            }
        }
    })
}

/// Escapes control characters: the daemons do so themselves, but not in a panic before their log is set up.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    if text.chars().any(char::is_control) { safe(&text) } else { text.into_owned() }
}

/// Reads a line without its newline, cut at [`LINE_BYTES_MAX`]; returns false at the end of the stream.
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
            first_options: Vec::new(),
            environment: Vec::new(),
            stop_grace: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn a_program_that_dies_is_restarted() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("starts");
        let mut program = shell(&format!("echo \"$0\" >> {}; sleep 0.05; exit 1", mark.display()));
        program.first_options.push("--accept-loss".into());
        let stop = CancellationToken::new();
        let starts = async {
            while std::fs::read_to_string(&mark).unwrap_or_default().lines().count() < 3 {
                sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        let log = PrintedLog::start().unwrap();
        let (kept, ()) = tokio::join!(keep_running(&program, &log, &stop), starts);
        kept.unwrap();
        let starts = std::fs::read_to_string(&mark).unwrap();
        let options: Vec<_> = starts.lines().map(|option| option == "--accept-loss").collect();
        assert_eq!(options[..3], [true, false, false], "what is accepted is accepted once: {starts}");
    }

    #[tokio::test]
    async fn a_program_that_cannot_work_is_not_restarted() {
        let stop = CancellationToken::new();
        for (code, why) in [
            (78, "cannot work with this configuration"),
            (75, "another process holds the store or a socket"),
            (74, "a file, directory, socket or port cannot be used"),
        ] {
            let log = PrintedLog::start().unwrap();
            let ended = keep_running(&shell(&format!("exit {code}")), &log, &stop).await;
            let error = ended.unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("above"), "{error}");
        }
    }

    /// A terminal that is stopped until the other end of its channel is dropped.
    struct StoppedTerminal(std::sync::mpsc::Receiver<()>, std::sync::Arc<std::sync::Mutex<String>>);

    impl LineSink for StoppedTerminal {
        fn batch_bytes_max(&self) -> usize {
            4_096
        }

        fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
            self.0.recv().ok();
            self.1.lock().unwrap().push_str(&String::from_utf8_lossy(lines));
            Ok(lines.len())
        }
    }

    #[tokio::test]
    async fn a_stopped_terminal_holds_up_neither_a_program_nor_its_restart_and_the_missing_lines_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("starts");
        let lines = 100_000;
        let program = shell(&format!("seq {lines} >&2; echo >> {}; sleep 0.05; exit 1", mark.display()));
        let (go_on, stopped) = std::sync::mpsc::sync_channel(1);
        let printed = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let log = PrintedLog::to(StoppedTerminal(stopped, std::sync::Arc::clone(&printed))).unwrap();
        let stop = CancellationToken::new();
        let starts = async {
            while std::fs::read_to_string(&mark).unwrap_or_default().lines().count() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
            stop.cancel();
        };
        let (kept, ()) = tokio::join!(keep_running(&program, &log, &stop), starts);
        kept.unwrap();
        drop(go_on);
        let is_written = log.0.flush(Duration::from_secs(60));
        let printed = printed.lock().unwrap().clone();
        assert!(is_written && printed.starts_with("test      | 1\ntest      | 2\n"), "{printed:.200}");
        let told =
            printed.lines().find_map(|line| line.strip_prefix("newswire  | ")?.split_once(" log lines"));
        let told: usize = told.unwrap().0.parse().unwrap();
        assert!(told > lines / 2 && told < 3 * lines, "{told}");
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
