//! Where a process writes its log, seen from outside: what its standard error is, and who reads the other end.

use std::{collections::BTreeSet, fs, os::unix::fs::FileTypeExt as _, time::Duration};

use control::{WatchReport, watch::LogReport};
use procfs::process::{FDTarget, Process};
use serde::Serialize;

use super::{
    part::Part,
    waits::ends::{Channel, Ends},
};
use crate::within;

/// A write of the log that has been waiting for longer is blocked.
pub(crate) const BLOCKED_MS: u64 = 2_000;
/// How long the descriptors of all processes may take to be read.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The standard error of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LogEnd {
    pub(crate) kind: LogEndKind,
    /// A path, or `pipe:[INODE]`.
    pub(crate) target: String,
    /// The other processes that can read the pipe, as far as this user may see them.
    pub(crate) readers: Vec<LogEndReader>,
}

/// What a standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogEndKind {
    /// With a name or without.
    Pipe,
    /// A terminal.
    Terminal,
    /// A file.
    File,
    /// A socket or anything else.
    Other,
}

/// A process at the other end of a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LogEndReader {
    pub(crate) pid: i32,
    /// The name of its program, 15 bytes at most.
    pub(crate) name: String,
}

/// What a process reports about its log, if its output does not take lines.
pub(crate) fn trouble(watch: &WatchReport) -> Option<&LogReport> {
    let is_blocked = |log: &&LogReport| {
        log.blocked_ms >= BLOCKED_MS || log.failing.as_ref().is_some_and(|f| f.lasted_ms >= BLOCKED_MS)
    };
    watch.progress.log.as_ref().filter(is_blocked)
}

/// Without a request to the device, which may be that of another session: by its name.
fn is_terminal(target: &FDTarget) -> bool {
    let FDTarget::Path(path) = target else { return false };
    ["/dev/pts", "/dev/tty", "/dev/console", "/dev/hvc"]
        .iter()
        .any(|prefix| path.to_str().is_some_and(|path| path.starts_with(prefix)))
}

/// Looks at the standard error of `pid`. On a separate thread, because the file may be on a dead network mount.
pub(crate) async fn examine(pid: i32) -> Part<LogEnd> {
    match within::later(LOOK_WITHIN, move || look(pid)).await {
        Some(end) => Part::from_result(end),
        None => Part::timed_out("the descriptors could not be read in time"),
    }
}

fn look(pid: i32) -> procfs::ProcResult<LogEnd> {
    let wanted = Process::new(pid)?.fd_from_fd(2)?.target;
    let file_type = fs::metadata(format!("/proc/{pid}/fd/2"))?.file_type();
    let kind = if file_type.is_fifo() {
        LogEndKind::Pipe
    } else if file_type.is_char_device() && is_terminal(&wanted) {
        LogEndKind::Terminal
    } else if file_type.is_file() {
        LogEndKind::File
    } else {
        LogEndKind::Other
    };
    let target = match &wanted {
        FDTarget::Path(path) => path.display().to_string(),
        FDTarget::Pipe(inode) => format!("pipe:[{inode}]"),
        FDTarget::Socket(inode) => format!("socket:[{inode}]"),
        _ => "something without a name".to_owned(),
    };
    let pipe = match &wanted {
        FDTarget::Path(path) => Some(Channel::Fifo(path.clone())),
        target => Channel::of(target),
    };
    let readers = match (kind, pipe) {
        (LogEndKind::Pipe, Some(pipe)) => readers(pid, &pipe),
        _ => Vec::new(),
    };
    Ok(LogEnd { kind, target, readers })
}

/// The processes, other than `writer`, that hold the end of the pipe from which it is read.
fn readers(writer: i32, pipe: &Channel) -> Vec<LogEndReader> {
    let ends = Ends::of(&BTreeSet::from([pipe.clone()]));
    let others: BTreeSet<_> = ends.readers(pipe).into_iter().filter(|pid| *pid != writer).collect();
    let named = others.into_iter().map(|pid| LogEndReader { pid, name: name(pid) });
    named.collect()
}

fn name(pid: i32) -> String {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.map_or_else(|_| "unknown".to_owned(), |stat| stat.comm)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn the_reader_of_a_pipe_is_found_by_its_inode() {
        let (reader, writer) = std::io::pipe().unwrap();
        let start = |stderr: Stdio, stdin: Stdio| {
            Command::new("sleep").arg("600").stdin(stdin).stderr(stderr).spawn().unwrap()
        };
        let mut writing = start(writer.into(), Stdio::null());
        let mut reading = start(Stdio::null(), reader.into());
        let end = examine(writing.id().cast_signed()).await;
        let of_file = examine(reading.id().cast_signed()).await;
        for child in [&mut writing, &mut reading] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let end = end.get().unwrap();
        assert_eq!(end.kind, LogEndKind::Pipe);
        assert!(end.target.starts_with("pipe:["), "{end:?}");
        assert!(
            end.readers.iter().any(|r| r.pid == reading.id().cast_signed() && r.name == "sleep"),
            "{end:?}"
        );
        assert!(end.readers.iter().all(|r| r.pid != writing.id().cast_signed()), "{end:?}");
        assert_eq!(of_file.get().unwrap().target, "/dev/null");
    }
}
