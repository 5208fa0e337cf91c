//! Reads what a daemon did last from its black box, also when the daemon is dead or frozen: for the doctor and the bundle.
//!
//! The text of its records comes from outside (names of sources, addresses), so it is escaped here. Its numbers may be any:
//! the file may be damaged, or not be ours.

mod describe;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{out::whole, within};
use control::black_box::{
    BlackBoxContents, BlackBoxEvent, BlackBoxHeader, BlackBoxRecord, StallBeginning, previous,
};
use daemon::Clock;
use news::Timestamp;
use procfs::process::Process;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;

pub(crate) use self::describe::describe;

/// How long the disk may take to return the files.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// A process that started longer before its file is another one with the same pid: on a busy machine a start takes a while.
const START_MS_MAX: u64 = 60_000;
/// The clock of the kernel ticks a hundred times a second.
const TICK_MS: u64 = 20;
/// How much is told without `--since`: the minute before the last sign of life.
const LAST_MINUTE: Duration = Duration::from_secs(60);
/// Records in one report.
pub(crate) const RECORDS_MAX: usize = 2_000;
/// Stalls in one report.
const STALLS_MAX: usize = 64;

/// The clocks of this moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: u64,
    pub(crate) boot_id: String,
}

/// Both files of a daemon: of the run that is or was the last one, and of the run before.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BlackBoxReport {
    #[serde(flatten)]
    pub(crate) last: RunReport,
    /// `None` if there is none.
    pub(crate) previous: Option<RunReport>,
}

/// One run of a daemon, as its black box has it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    path: PathBuf,
    process: BlackBoxHeader,
    /// Whether that process runs.
    pub(crate) running: bool,
    /// How long ago it last wrote.
    pub(crate) written_ms_ago: u64,
    /// How long before that its watchdog had looked.
    pub(crate) watchdog_looked_ms_before: Option<u64>,
    pub(crate) dropped: u64,
    pub(crate) damaged: u64,
    pub(crate) end: RunEnd,
    /// Stalls that had not ended, the longest first.
    pub(crate) stalls: Vec<OpenStall>,
    /// The newest last.
    pub(crate) records: Vec<TimedRecord>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub(crate) enum RunEnd {
    /// It has not.
    Running,
    /// By itself.
    Ended {
        /// The exit code.
        exit: u8,
        /// The last error line.
        error: Option<String>,
    },
    /// Without a record of it: killed, or crashed.
    Killed,
    /// The machine has been started since.
    MachineRestarted,
}

/// A stall that had not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OpenStall {
    /// Until the last sign of life.
    pub(crate) lasted_ms: u64,
    #[serde(flatten)]
    pub(crate) beginning: StallBeginning,
}

/// A record with its age.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TimedRecord {
    /// RFC 3339, by the clock of that moment.
    pub(crate) at: String,
    pub(crate) ms_ago: u64,
    #[serde(flatten)]
    pub(crate) record: BlackBoxRecord,
}

impl Moment {
    fn now() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let millis = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            wall_ms: Clock::system().now_millis(),
            boot_ms: u64::try_from(millis).unwrap_or_default(),
            boot_id: boot_id.trim().to_owned(),
        }
    }

    /// How long ago that was: by the clock that is never set, if the machine still runs.
    fn ago_ms(&self, boot_id: &str, boot_ms: u64, wall_ms: i64) -> u64 {
        match boot_id == self.boot_id {
            true => self.boot_ms.saturating_sub(boot_ms),
            false => u64::try_from(self.wall_ms.saturating_sub(wall_ms)).unwrap_or_default(),
        }
    }
}

/// Reads both files on a thread of its own, because a disk that hangs may never return them. `found` is the process that was
/// found for the daemon, by its id here: in its file it has the one of its own pid namespace.
///
/// # Errors
/// Why the file of the last run cannot be read.
pub(crate) async fn read(
    path: PathBuf,
    since: Option<Duration>,
    found: Option<i32>,
) -> Result<BlackBoxReport, String> {
    within::later(READ_WITHIN, move || read_both(&path, since, found)).await.unwrap_or_else(late)
}

fn late<T>() -> Result<T, String> {
    Err("the file system did not return it in time, and may hang".to_owned())
}

/// Everything in one file, for a bundle.
pub(crate) struct BlackBoxDump {
    /// The process and its last sign of life, then one record per line.
    pub(crate) json_lines: String,
    pub(crate) text: String,
}

/// Reads one file whole.
///
/// # Errors
/// Why it cannot be read.
pub(crate) async fn dump(path: PathBuf) -> Result<BlackBoxDump, String> {
    let reading = move || {
        let contents = BlackBoxContents::read(&path).map_err(|error| error.to_string())?;
        Ok(dump_of(path, contents, &Moment::now()))
    };
    within::later(READ_WITHIN, reading).await.unwrap_or_else(late)
}

fn dump_of(path: PathBuf, contents: BlackBoxContents, now: &Moment) -> BlackBoxDump {
    let running = is_running(&contents.header, None, now);
    let about = json!({ "process": contents.header, "pulse": contents.pulse, "damaged": contents.damaged });
    let mut json_lines = format!("{about}\n");
    for record in &contents.records {
        json_lines.push_str(&serde_json::to_string(record).expect("a record has a JSON form"));
        json_lines.push('\n');
    }
    let all = contents.records.clone();
    let run = RunReport::new(path, contents, running, now, Some(Duration::MAX));
    let end = run.ending().unwrap_or_else(|| "it runs".to_owned());
    let mut text = format!("{}: {end}\n", run.identity());
    for record in all {
        let timed = TimedRecord::new(record, &run.process.boot_id, now);
        text.push_str(&describe(&timed));
        text.push('\n');
    }
    BlackBoxDump { json_lines, text }
}

fn read_both(path: &Path, since: Option<Duration>, found: Option<i32>) -> Result<BlackBoxReport, String> {
    let now = Moment::now();
    let last = BlackBoxContents::read(path).map_err(|error| error.to_string())?;
    let running = is_running(&last.header, found, &now);
    let last = RunReport::new(path.to_owned(), last, running, &now, since);
    let before = previous(path);
    let previous = BlackBoxContents::read(&before).ok();
    let previous = previous.map(|contents| RunReport::new(before, contents, false, &now, since));
    Ok(BlackBoxReport { last, previous })
}

/// Whether the process of a file runs. Another one may have its pid by now.
fn is_running(header: &BlackBoxHeader, found: Option<i32>, now: &Moment) -> bool {
    let pid = found.filter(|pid| ids_of(*pid).contains(&header.pid)).unwrap_or(header.pid);
    let started_ms = || {
        let stat = Process::new(pid).ok()?.stat().ok()?;
        // A zombie does nothing any more.
        (stat.state != 'Z').then(|| stat.starttime.saturating_mul(1000) / procfs::ticks_per_second())
    };
    header.boot_id == now.boot_id
        && started_ms().is_some_and(|started| {
            let file = header.started_boot_ms;
            started <= file.saturating_add(TICK_MS) && file <= started.saturating_add(START_MS_MAX)
        })
}

/// The ids of a process, in our pid namespace and in those below it that it is in.
fn ids_of(pid: i32) -> Vec<i32> {
    let status = Process::new(pid).and_then(|process| process.status());
    status.ok().and_then(|status| status.nspid).unwrap_or_default()
}

impl TimedRecord {
    fn new(record: BlackBoxRecord, boot_id: &str, now: &Moment) -> Self {
        let at = Timestamp::from_millis(record.wall_ms).to_string();
        Self { at, ms_ago: now.ago_ms(boot_id, record.boot_ms, record.wall_ms), record }
    }
}

impl RunReport {
    fn new(
        path: PathBuf,
        contents: BlackBoxContents,
        running: bool,
        now: &Moment,
        since: Option<Duration>,
    ) -> Self {
        let (boot_ms, wall_ms) = contents.last_sign();
        let BlackBoxContents { header, pulse, records, damaged } = contents;
        let watchdog = pulse.and_then(|pulse| Some(pulse.boot_ms.saturating_sub(pulse.watchdog_boot_ms?)));
        let ago_ms = |record: &BlackBoxRecord| now.ago_ms(&header.boot_id, record.boot_ms, record.wall_ms);
        let written_ms_ago = now.ago_ms(&header.boot_id, boot_ms, wall_ms);
        let (end, stalls) = (end_of(&records, &header, running, now), open_stalls(&records, boot_ms));
        let oldest_ms = match since {
            Some(since) => millis(since),
            None => written_ms_ago.saturating_add(millis(LAST_MINUTE)),
        };
        let mut told: Vec<_> = records.into_iter().filter(|record| ago_ms(record) <= oldest_ms).collect();
        told.drain(..told.len().saturating_sub(RECORDS_MAX));
        let timed = |record| TimedRecord::new(record, &header.boot_id, now);
        let records = told.into_iter().map(timed).collect();
        Self {
            path,
            running,
            written_ms_ago,
            watchdog_looked_ms_before: watchdog,
            dropped: pulse.map_or(0, |pulse| pulse.dropped),
            damaged,
            end,
            stalls,
            records,
            process: header,
        }
    }

    /// `newswire-gateway 1.2.3 (pid 7)`
    pub(crate) fn identity(&self) -> String {
        let BlackBoxHeader { program, version, pid, .. } = &self.process;
        format!("{} {} (pid {pid})", whole(program), whole(version))
    }

    /// How it ended, as the rest of a sentence about it; `None` while it runs.
    pub(crate) fn ending(&self) -> Option<String> {
        let ago = describe::duration(self.written_ms_ago);
        let stall = self.stalls.first().map(describe::open_stall);
        let in_a_stall = stall.map(|stall| format!(" in the middle of a stall: {stall}"));
        Some(match &self.end {
            RunEnd::Running => return None,
            RunEnd::Ended { exit: 0, .. } => format!("it stopped in order {ago} ago"),
            RunEnd::Ended { exit, error } => {
                let error = error.as_deref().map(|error| format!(": {}", whole(error))).unwrap_or_default();
                format!("it ended {ago} ago with exit code {exit}{error}")
            }
            RunEnd::MachineRestarted => {
                format!("it ran until the machine went down, {ago} ago{}", in_a_stall.unwrap_or_default())
            }
            RunEnd::Killed => match (in_a_stall, self.last_signal()) {
                (Some(stall), _) => format!("it was killed {ago} ago{stall}"),
                (None, Some(signal)) => {
                    format!("it was killed {ago} ago, while it stopped because of {}", whole(signal))
                }
                (None, None) => format!(
                    "it was killed or crashed; its last record is {ago} old, and nothing was stalled then"
                ),
            },
        })
    }

    /// Whether it ended otherwise than by an order.
    pub(crate) fn is_bad_end(&self) -> bool {
        !matches!(self.end, RunEnd::Running | RunEnd::Ended { exit: 0, .. })
    }

    /// What was stalled when it last wrote, for a process that exists and does not answer.
    pub(crate) fn stalled(&self) -> Option<String> {
        self.stalls.first().map(describe::open_stall)
    }

    /// The order to stop that was carried out when it died.
    fn last_signal(&self) -> Option<&str> {
        self.records.iter().rev().find_map(|timed| match &timed.record.event {
            BlackBoxEvent::Signal { name } if name == "SIGTERM" || name == "SIGINT" => Some(&**name),
            _ => None,
        })
    }
}

fn end_of(records: &[BlackBoxRecord], header: &BlackBoxHeader, running: bool, now: &Moment) -> RunEnd {
    if running {
        return RunEnd::Running;
    }
    let ended = records.iter().rev().find_map(|record| match &record.event {
        BlackBoxEvent::Ended { exit, error } => {
            Some(RunEnd::Ended { exit: *exit, error: error.as_deref().map(str::to_owned) })
        }
        _ => None,
    });
    let is_same_boot = header.boot_id == now.boot_id;
    ended.unwrap_or(if is_same_boot { RunEnd::Killed } else { RunEnd::MachineRestarted })
}

/// The stalls without an end, the longest first.
fn open_stalls(records: &[BlackBoxRecord], last_boot_ms: u64) -> Vec<OpenStall> {
    let mut open: Vec<OpenStall> = Vec::new();
    for record in records {
        match &record.event {
            BlackBoxEvent::StallBegan(beginning) => {
                let began_ms = record.boot_ms.saturating_sub(beginning.silent_ms);
                let lasted_ms = last_boot_ms.saturating_sub(began_ms);
                open.retain(|stall| stall.beginning.name != beginning.name);
                if open.len() == STALLS_MAX {
                    open.remove(0);
                }
                open.push(OpenStall { lasted_ms, beginning: (**beginning).clone() });
            }
            BlackBoxEvent::StallEnded { name, .. } => open.retain(|stall| stall.beginning.name != *name),
            _ => {}
        }
    }
    open.sort_by_key(|stall| std::cmp::Reverse(stall.lasted_ms));
    open
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
