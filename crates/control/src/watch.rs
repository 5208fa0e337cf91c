//! `GET /health` and `GET /watch` of the admin sockets: what a process says about itself while any of its threads may be
//! stuck.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{optional_part::OptionalPart, status::RingReport};

/// Which process answers. Every version of the programs sends these fields, so that a tool can name the version of a
/// process whose answer it cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The name of the program, such as `newswire-gateway`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The id of the process.
    pub pid: i32,
}

impl ProcessIdentity {
    /// Reads it from the body of `/health` or `/watch`, whatever else that holds. `None` if it is not there.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// `GET /health`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Which process answers.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// `ok`
    pub status: String,
}

/// `GET /watch`. `V` is what the process reports about its own work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchReport<V = ProcessVitals> {
    /// Which process answers.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// What its watchdog sees.
    #[serde(flatten)]
    pub progress: ProgressReport,
    /// Null if the process did not answer in time; never absent.
    #[serde(deserialize_with = "Option::deserialize", bound(deserialize = "V: Deserialize<'de>"))]
    pub vitals: Option<V>,
}

/// What the watchdog of a process sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Everything that must make progress.
    pub loops: Vec<LoopReport>,
    /// Other threads that work on something.
    pub threads: Vec<ThreadReport>,
    /// The latest stalls, the newest first.
    pub stalls: Vec<StallReport>,
    /// Stalls since its start.
    pub stalls_total: u64,
    /// Jumps of the wall clock.
    pub clock: ClockReport,
    /// Pauses of the whole process: it was stopped, suspended with the machine, or without CPU.
    pub pauses: PauseReport,
    /// The output of its log; `None` if it has no log, or is of a version that does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReport>,
    /// The watchdog itself: it can be stuck, too. Absent before its first check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogReport>,
    /// The threads that read the vitals and the stacks, while they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<ObserverReport>,
    /// What the process finds when it connects to its own sockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerProbe>,
    /// Where long-lived tasks wait, the one that has waited longest first; 64 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskWait>,
}

/// A long-lived task: what it waits for, and how much is queued for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskWait {
    /// Its name, such as `replays` or `recorder`.
    pub name: String,
    /// What it waits for; null while it works.
    pub waits_for: Option<String>,
    /// Whether that may never come: it has nothing to do. Else what it waits for has a deadline.
    #[serde(default)]
    pub idle: bool,
    /// For how long.
    pub since_ms_ago: u64,
    /// How often it has begun to wait or to work since its start: the same number twice means that nothing happened.
    pub steps: u64,
    /// What is queued for it; null if it has no queue.
    pub queued: Option<u64>,
    /// How much can be queued.
    pub capacity: Option<u64>,
}

/// Where a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// The journal of systemd.
    Journal,
}

/// The lines of a log on their way to its output. A separate thread writes them; no other one waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// The output.
    pub output: LogOutput,
    /// What waits to be written, without stack dumps.
    pub queued_bytes: u64,
    /// What may wait; further lines are dropped.
    pub queued_bytes_max: u64,
    /// Lines that were dropped since the start.
    pub dropped: u64,
    /// How long the present write has been waiting for the output; 0 if nothing is being written.
    pub blocked_ms: u64,
    /// For how long the thread that writes the log has not taken a probe, which is sent every few seconds; 0 if none waits.
    /// It takes none during a write.
    #[serde(default)]
    pub untaken_ms: u64,
    /// Null if the last write succeeded.
    pub failing: Option<LogFailure>,
}

/// The output of a log that refuses lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFailure {
    /// The error of the operating system at the last attempt.
    pub error: String,
    /// For how long no write has succeeded.
    pub lasted_ms: u64,
}

/// The watchdog's thread, as the thread of the admin socket sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogReport {
    /// The id of its thread.
    pub tid: i32,
    /// The time since it looked last, which it does every 250 ms.
    pub looked_ms_ago: u64,
    /// Whether it reads the stack of a thread, which takes seconds on a busy machine.
    #[serde(default)]
    pub sampling: bool,
}

/// A thread that reads something for the admin socket, and may be stuck in that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverReport {
    /// `vitals` or `stacks`.
    pub name: String,
    /// The id of its thread.
    pub tid: i32,
    /// For how long it has been reading.
    pub since_ms_ago: u64,
}

/// A socket of the process, as it answers to the process itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerProbe {
    /// `clients`, `wire` or `admin`.
    pub name: String,
    /// Whose socket it is.
    pub kind: WatchKind,
    /// An address and port, or a path.
    pub address: String,
    /// When it answered last; null if it never has.
    pub answered_ms_ago: Option<u64>,
    /// How long its last answer took.
    pub took_ms: Option<u64>,
    /// For how long it has not answered, counting only time in which the process ran; null while it answers.
    pub waiting_ms: Option<u64>,
    /// Whether its address leads to no listener of this process: a file that was removed or replaced.
    #[serde(default)]
    pub missing: bool,
    /// Why the last probe had no answer. Without `waiting_ms` it could not be sent, which says nothing about the listener.
    pub error: Option<String>,
}

/// What something watched is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchKind {
    /// Accepts the connections of clients.
    Front,
    /// Serves clients.
    Worker,
    /// Runs the actors, or is the main thread.
    Arbiter,
    /// One end of the wire.
    Wire,
    /// Writes the log.
    Recorder,
    /// The threads of a runtime for blocking work.
    Pool,
    /// Serves the admin socket.
    Admin,
    /// Connects to the sockets of the process, to see whether they answer.
    Prober,
    /// Handles signals.
    Signals,
    /// Another thread that works for the operator only: the black box, the log level, marks.
    Helper,
}

impl WatchKind {
    /// Its name in logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Worker => "worker",
            Self::Arbiter => "arbiter",
            Self::Wire => "wire",
            Self::Recorder => "recorder",
            Self::Pool => "pool",
            Self::Admin => "admin",
            Self::Prober => "prober",
            Self::Signals => "signals",
            Self::Helper => "helper",
        }
    }

    /// Whether it is a thread that clients and feeds do not need. It beats once a second, and only longer silence than
    /// [`WatchKind::HELPER_SILENCE_MS`] is a stall.
    #[must_use]
    pub fn is_helper(self) -> bool {
        matches!(self, Self::Prober | Self::Signals | Self::Helper)
    }

    /// See [`WatchKind::is_helper`].
    pub const HELPER_SILENCE_MS: u64 = 5_000;
}

/// An event loop, a pool, or a thread that is watched while it is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: WatchKind,
    /// The id of its thread; 0 for a pool.
    pub tid: i32,
    /// The time since its last beat.
    pub beat_ms_ago: u64,
    /// How late the last beat was.
    pub lag_ms: u64,
    /// The greatest lag of the last minute.
    pub lag_ms_max: u64,
    /// Whether it makes no progress.
    pub stalled: bool,
    /// What it works on.
    pub work: Option<TaskReport>,
}

/// What a thread works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// A word or two: `parsing`, `GET /news`.
    pub what: String,
    /// For which source or address.
    pub of: String,
    /// For how long.
    pub since_ms_ago: u64,
}

/// A thread without a beat that works on something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadReport {
    /// Its number.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// What it works on.
    pub work: TaskReport,
}

/// A loop that had no beat for more than a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallReport {
    /// The name of the loop.
    #[serde(rename = "loop")]
    pub name: String,
    /// What it is.
    pub kind: WatchKind,
    /// The id of its thread; 0 for a pool.
    pub tid: i32,
    /// When it began.
    pub began_ms_ago: u64,
    /// Null while it lasts.
    pub lasted_ms: Option<u64>,
    /// What the loop worked on when the stall was detected.
    pub work: Option<TaskReport>,
    /// The function that it was stuck in.
    pub culprit: Option<String>,
}

/// Jumps of the wall clock, seen against the monotonic one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReport {
    /// Number of jumps.
    pub jumps: u64,
    /// The size of the last jump; negative if it went back.
    pub last_ms: Option<i64>,
    /// When that was.
    pub last_ms_ago: Option<u64>,
}

/// Pauses of the whole process, including its watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReport {
    /// Number of pauses.
    pub count: u64,
    /// How long the last one was.
    pub last_ms: Option<u64>,
    /// When it ended.
    pub last_ms_ago: Option<u64>,
}

/// The diagnostics of either daemon.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ProcessVitals {
    /// Diagnostics of the gateway.
    Gateway(GatewayVitals),
    /// Diagnostics of the ingestion daemon.
    Ingest(IngestVitals),
}

/// Only a gateway has `listen`. Unlike serde's `untagged`, an error names the field that is wrong.
impl<'de> Deserialize<'de> for ProcessVitals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let vitals = match value.get("listen") {
            Some(_) => GatewayVitals::deserialize(value).map(Self::Gateway),
            None => IngestVitals::deserialize(value).map(Self::Ingest),
        };
        vitals.map_err(D::Error::custom)
    }
}

impl ProcessVitals {
    /// The diagnostics of a gateway, if they are.
    #[must_use]
    pub fn gateway(&self) -> Option<&GatewayVitals> {
        match self {
            Self::Gateway(vitals) => Some(vitals),
            Self::Ingest(_) => None,
        }
    }

    /// The diagnostics of an ingestion daemon, if they are.
    #[must_use]
    pub fn ingest(&self) -> Option<&IngestVitals> {
        match self {
            Self::Ingest(vitals) => Some(vitals),
            Self::Gateway(_) => None,
        }
    }

    /// File descriptors.
    #[must_use]
    pub fn open_files(&self) -> OpenFiles {
        match self {
            Self::Gateway(vitals) => vitals.open_files,
            Self::Ingest(vitals) => vitals.open_files,
        }
    }
}

/// The `vitals` of the gateway. A part is null if its lock was held when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayVitals {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether the listener is inherited from systemd.
    pub inherited: bool,
    /// Open streams.
    pub clients: u64,
    /// The same by what they wait for, as each worker counted them at its last tick.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamWaits>,
    /// Whether it is closing streams because it stops.
    pub draining: bool,
    /// Its connection to the ingestion daemon.
    pub wire: Option<WireReport>,
    /// Its newest events.
    pub ring: Option<RingReport>,
    /// File descriptors.
    pub open_files: OpenFiles,
}

/// Open streams that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamWaits {
    /// `start`: the ring is filled, or the log says where the stream starts; `log-page`: a page of the daemon's log;
    /// `allowance`: its address may be sent more from the past; `events`: new events; `client`: the client reads;
    /// `turn`: its worker polls it.
    pub waits_for: String,
    /// How many.
    pub streams: u64,
    /// For how long the longest of them.
    pub longest_ms: u64,
}

/// The gateway's end of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireReport {
    /// Whether it is connected.
    pub connected: bool,
    /// Why not, if it is not.
    pub reason: Option<String>,
    /// When anything was received last.
    pub heard_ms_ago: Option<u64>,
    /// The newest event that was received.
    pub cursor: Option<String>,
}

/// The `vitals` of the ingestion daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestVitals {
    /// The epoch of the log.
    pub epoch: String,
    /// The sequence number of the oldest event.
    pub oldest: u64,
    /// The sequence number of the newest event.
    pub head: u64,
    /// Its end of the wire.
    pub wire: PublisherReport,
    /// Whether our own network seems to be down.
    pub outage: bool,
    /// The store, as its writer knows it.
    pub store: StoreReport,
    /// Why no visits begin; empty while they are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recording_paused: Vec<RecordingPauseReport>,
    /// File descriptors.
    pub open_files: OpenFiles,
    /// Left out if the list of sources was locked.
    #[serde(flatten, deserialize_with = "crate::optional_part::deserialize")]
    pub sources: Option<SourcesReport>,
}

/// A reason why recording is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingPauseReport {
    /// `disk-space`, `disk-inodes`, `log-behind`, `store-copied`, `no-lease`.
    pub reason: String,
    /// For how long.
    pub since_ms_ago: u64,
    /// The reason with its figures, and the remedy.
    pub detail: String,
}

/// The ingestion daemon's end of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherReport {
    /// Connected gateways.
    pub subscribers: u64,
    /// The newest event that was sent.
    pub sent: String,
}

/// What the sources do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcesReport {
    /// Sources by what they do: `idle`, `fetching`, …
    pub actors: BTreeMap<String, u64>,
    /// Those that are `fetching` by what they wait for: `options` (files of the source), `lookup`, `connect`, `proxy-tls`,
    /// `tunnel` (the proxy connects), `tls`, `answer`, `body`, `retry` (the pause before the second attempt).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fetching: BTreeMap<String, u64>,
    /// Sources that are being visited or wait for that, the longest first.
    pub busiest: Vec<BusySource>,
    /// Idle sources whose visit should have begun.
    pub overdue: u64,
    /// How their last visits ended; all sources are counted. `None`: the daemon is of a version that does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feeds: Option<Box<FeedsReport>>,
}

impl OptionalPart for SourcesReport {
    const KEYS: &[&str] = &["actors", "busiest", "overdue", "feeds"];
}

/// How the last visits of all sources ended. "Visited" and "failing" are those since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedsReport {
    /// Sources that are neither disabled nor paused; all further counts are of these.
    pub watched: u64,
    /// Sources with a visit that has ended.
    pub visited: u64,
    /// Visited ones whose last visit succeeded: it returned a feed, or that nothing has changed.
    pub succeeded: u64,
    /// Sources that were never visited, by this process or an earlier one.
    pub never_visited: u64,
    /// Visited ones whose last visit failed, by what failed. A reason without a source is left out.
    pub failing: BTreeMap<FeedTrouble, u64>,
    /// Of the failing ones, those that have not succeeded for a week or more.
    pub failing_long: u64,
    /// The number of different hosts of the failing ones.
    pub failing_hosts: u64,
    /// Sources that failed after the newest visit that succeeded, of any source; without those of
    /// [`FeedsReport::failing_long`].
    pub failing_since_success: u64,
    /// When a visit of any source succeeded last, by this process or an earlier one.
    pub last_success_ms_ago: Option<u64>,
    /// Sources whose visit in progress, or whose last one, has waited for the server for [`FeedsReport::SLOW_MS`] or more.
    pub slow: u64,
    /// Of the slow ones, those with such a visit in progress: each of them holds a slot.
    pub slow_now: u64,
    /// Of the slow ones, those whose last visit ended at a time limit.
    pub hanging: u64,
    /// The slowest of the slow ones.
    pub slowest: Option<SlowFeed>,
    /// Sources whose visit is due and waits for its host, for a slot, or for memory.
    pub waiting: u64,
    /// Of these, those that wait because all slots are in use, or all slots for sources that did not answer lately.
    pub waiting_for_slot: u64,
    /// For how long the longest of these has waited.
    pub slot_wait_ms: u64,
    /// How many visits may be in progress at once (`fetch.in_flight`).
    pub slots: u64,
    /// The nameservers of the machine, as the daemon finds them in `resolv.conf`. Empty while no lookup fails.
    pub resolvers: Vec<String>,
    /// The proxy of all sources that fail at a proxy, without its password. `None` if there are several, or none.
    pub proxy: Option<String>,
}

impl FeedsReport {
    /// A visit that waits for its server for so long is slow.
    pub const SLOW_MS: u64 = 5_000;

    /// Visits that have waited for a slot for so long are late.
    pub const SLOT_WAIT_LATE_MS: u64 = 10_000;

    /// The number of visited sources whose last visit failed.
    #[must_use]
    pub fn failing_total(&self) -> u64 {
        self.failing.values().sum()
    }
}

/// A slow feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowFeed {
    /// The id of the source.
    pub source: String,
    /// How long it has been waited for, or how long the last visit waited.
    pub took_ms: u64,
}

/// What failed at the last visit of a source: more exact than its failure class, to find out what several have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedTrouble {
    /// The lookup of the name was not answered in time.
    DnsTimeout,
    /// The lookup failed, or the name has no address.
    Dns,
    /// No connection was established in time.
    ConnectTimeout,
    /// The connection was refused, or there is no route.
    Connect,
    /// The proxy was not reached, refused, or did not connect to the server.
    Proxy,
    /// No trusted TLS session was established.
    Tls,
    /// The server was connected to, and did not send everything in time.
    Timeout,
    /// The server asked for fewer requests (429, 503).
    Throttled,
    /// The server refused the request (401, 403, 451).
    Refused,
    /// Any other error status.
    HttpStatus,
    /// The answer could not be read: not HTTP, cut off, too large, badly encoded, or a redirect that is not followed.
    BadResponse,
    /// What was received is not a feed, or one built to exhaust a parser.
    NotAFeed,
    /// The address must not be visited (`fetch.allow`).
    BlockedAddress,
    /// The configuration of the source cannot be used.
    Configuration,
    /// The daemon made a mistake of its own.
    Internal,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

impl FeedTrouble {
    /// Its word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns-timeout",
            Self::Dns => "dns",
            Self::ConnectTimeout => "connect-timeout",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::HttpStatus => "http-status",
            Self::BadResponse => "bad-response",
            Self::NotAFeed => "not-a-feed",
            Self::BlockedAddress => "blocked-address",
            Self::Configuration => "configuration",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

/// A source that is being visited or waits for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusySource {
    /// Its id.
    pub source: String,
    /// What it does.
    pub activity: String,
    /// For how long.
    pub since_ms_ago: u64,
    /// What keeps its visit from starting, or, of one that is `fetching`, what that waits for: see
    /// [`SourcesReport::fetching`].
    pub waiting_for: Option<String>,
}

/// The store, as its writer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Its absolute path.
    pub path: String,
    /// Its size on disk.
    pub bytes: u64,
    /// Free bytes on its file system.
    pub free_bytes: Option<u64>,
    /// When the last commit ended.
    pub last_commit_ms_ago: Option<u64>,
    /// How long it took.
    pub last_commit_took_ms: Option<u64>,
    /// How long the current commit has been running.
    pub committing_ms: Option<u64>,
    /// What the disk does for the store at this moment.
    #[serde(default)]
    pub disk: Option<DiskWorkReport>,
    /// What took the disk at least a second in the last minute; none if nothing did.
    #[serde(default)]
    pub slow_disk: Option<SlowDiskReport>,
    /// Visits that wait to be recorded.
    pub queued: u64,
    /// When a part of the log could not be read last.
    #[serde(default)]
    pub last_read_failure_ms_ago: Option<u64>,
}

/// What the disk does for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWorkReport {
    /// What it is.
    pub phase: DiskWorkPhase,
    /// For how long.
    pub since_ms: u64,
}

/// A kind of work of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskWorkPhase {
    /// A commit is written.
    Write,
    /// A commit is synced.
    Sync,
    /// The files of sled are written and synced, in the background.
    Sled,
}

/// Writes and syncs that took at least a second and ended in the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowDiskReport {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub total_ms: u64,
    /// The slowest.
    pub slowest_ms: u64,
    /// When the slowest ended.
    pub slowest_ms_ago: u64,
}

/// File descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiles {
    /// Open descriptors.
    pub used: u64,
    /// The limit.
    pub max: u64,
}
