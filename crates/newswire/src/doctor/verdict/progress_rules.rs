//! Whether those that are there make progress.

use super::{
    DaemonEvidence, Evidence, Presence, Verdict, VerdictCode, ago, bundle, named, on,
    presence_rules::is_starting, restart, safe,
};
use crate::doctor::{
    admin::{Actor, Loop, Work},
    evidence::{LateLoop, Part},
    http::{HttpProbe, NO_ANSWER},
};

/// A commit that takes longer is slow; a feed that takes longer than the second is.
const COMMIT_SLOW_MS: u64 = 1_000;
const FEED_SLOW_MS: u64 = 5_000;
/// A commit that took so long is told of for [`COMMIT_RECENT_MS`], although it is over.
const COMMIT_VERY_SLOW_MS: u64 = 5_000;
const COMMIT_RECENT_MS: u64 = 60_000;
/// The wire beats every two seconds.
const WIRE_SILENT_MS: u64 = 8_000;
/// Of the descriptors, in percent.
const DESCRIPTORS_FULL: u64 = 95;
/// A jump of the clock explains odd schedules for so long.
const JUMP_RECENT_MS: u64 = 600_000;
/// A daemon that has run for so long should have finished visits.
const SETTLED_MS: u64 = 60_000;
/// The watchdog's list of the busiest sources is cut there.
const BUSIEST_MAX: usize = 50;

/// The stalled loop that has been so for longest, and its process.
pub(super) fn loop_stalled(evidence: &Evidence) -> Option<Verdict> {
    let stalled = |daemon: &'_ DaemonEvidence| {
        let watch = daemon.watch.get()?;
        let loops =
            watch.loops.iter().filter(|l| l.stalled && !matches!(l.kind.as_str(), "recorder" | "pool"));
        loops.max_by_key(|l| l.beat_ms_ago).cloned()
    };
    let found = evidence.daemons().filter_map(|daemon| Some((daemon, stalled(daemon)?)));
    let Some((daemon, worst)) = found.max_by_key(|(_, l)| l.beat_ms_ago) else {
        return stalled_as_ready_says(evidence);
    };
    let since = ago(worst.beat_ms_ago);
    let who = format!("{} of {}", safe(&worst.name), named(daemon));
    if let Some(task) = daemon.process.get().and_then(|p| p.tasks.iter().find(|task| task.tid == worst.tid))
        && let Some(process) = daemon.process.get()
        && task.run_delay_ms * 10 >= process.sampled_ms * 8
        && process.sampled_ms > 0
    {
        let line =
            format!("{who} gets no processor and has not answered for {since}: the machine is overloaded");
        return Some(Verdict::new(VerdictCode::WorkerStarved, line, overloaded()));
    }
    let place =
        culprit(daemon, &worst).map_or("at a place that is not known".to_owned(), |at| format!("in {at}"));
    let work = working_on(worst.work.as_ref());
    let line = format!("{who} has been blocked for {since} {place}{work}");
    let next = [bundle(), format!("{}   # ends the block", restart(daemon)), report()];
    Some(Verdict::new(VerdictCode::EventLoopBlocked, line, next))
}

fn report() -> String {
    "report the frame: nothing may block there".to_owned()
}

fn stalled_as_ready_says(evidence: &Evidence) -> Option<Verdict> {
    let ready = evidence.http.get()?.ready.get()?;
    let worst = ready.loops.iter().filter(|l| l.stalled && !matches!(l.kind.as_str(), "recorder" | "pool"));
    let worst = worst.max_by_key(|l| l.beat_ms_ago)?;
    let place = worst.culprit.as_ref().map(|at| format!(" in {}", safe(at))).unwrap_or_default();
    let line = format!(
        "{} of the gateway has been blocked for {}{place}",
        safe(&worst.name),
        ago(worst.beat_ms_ago)
    );
    Some(Verdict::new(VerdictCode::EventLoopBlocked, line, [bundle(), restart(&evidence.gateway), report()]))
}

/// The watchdog's word from when it began, else the stack as it is now.
fn culprit(daemon: &DaemonEvidence, stalled: &Loop) -> Option<String> {
    let watch = daemon.watch.get()?;
    let stall = watch.stalls.iter().find(|stall| stall.name == stalled.name && stall.lasted_ms.is_none());
    let said = stall.and_then(|stall| stall.culprit.clone());
    let seen = || daemon.stacks.get()?.of(stalled.tid)?.culprit.clone();
    said.or_else(seen).map(|at| safe(&at))
}

fn working_on(work: Option<&Work>) -> String {
    work.map(|work| format!(", working on {}", on(work))).unwrap_or_default()
}

pub(super) fn pool_exhausted(evidence: &Evidence) -> Option<Verdict> {
    let stalled = |daemon: &DaemonEvidence| {
        let watch = daemon.watch.get()?;
        watch.loops.iter().find(|l| l.stalled && l.kind == "pool").cloned()
    };
    let (daemon, pool) = evidence.daemons().find_map(|daemon| Some((daemon, stalled(daemon)?)))?;
    let busy: Vec<_> = daemon.watch.get()?.threads.iter().filter_map(|thread| thread.work.as_ref()).collect();
    let at = commonest_frame(daemon).or_else(|| culprit(daemon, &pool));
    let at = at.map(|at| format!("; most of its threads are in {at}")).unwrap_or_default();
    let longest = busy.iter().max_by_key(|work| work.since_ms_ago);
    let longest = longest
        .map(|work| format!("; {} threads have work, the longest {}", busy.len(), on(work)))
        .unwrap_or_default();
    let line = format!(
        "the blocking pool {} of {} has taken no work for {}{at}{longest}",
        safe(&pool.name),
        named(daemon),
        ago(pool.beat_ms_ago)
    );
    Some(Verdict::new(VerdictCode::BlockingPoolExhausted, line, [bundle(), restart(daemon), report()]))
}

/// What most of the busy threads without a loop have in common.
fn commonest_frame(daemon: &DaemonEvidence) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let busy = daemon.stacks.get()?.threads.iter().filter(|seen| !seen.idle && seen.loop_name.is_none());
    for culprit in busy.filter_map(|seen| seen.culprit.as_deref()) {
        *counts.entry(culprit).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(culprit, _)| safe(culprit))
}

pub(super) fn store_slow(evidence: &Evidence) -> Option<Verdict> {
    let daemon = &evidence.ingestd;
    let watch = daemon.watch.get()?;
    let recorder = watch.loops.iter().find(|l| l.kind == "recorder" && l.stalled);
    let store = watch.vitals.store.clone().unwrap_or_default();
    let under_way = store.committing_ms.filter(|ms| *ms > COMMIT_SLOW_MS);
    let queued =
        store.queued.filter(|n| *n > 0).map(|n| format!("; {n} visits wait behind it")).unwrap_or_default();
    let line = if let Some(ms) = recorder.map(|l| l.beat_ms_ago).max(under_way) {
        let at = recorder.and_then(|l| culprit(daemon, l)).map(|at| format!(" in {at}")).unwrap_or_default();
        format!("a commit to the store has taken {} so far{at}{queued}", ago(ms))
    } else {
        let took = store.last_commit_took_ms.filter(|ms| *ms > COMMIT_VERY_SLOW_MS)?;
        let end = store.last_commit_ms_ago.filter(|ms| *ms < COMMIT_RECENT_MS)?;
        format!("the last commit to the store, {} ago, took {}{queued}", ago(end), ago(took))
    };
    let next = [
        "iostat -x 1   # is the disk busy, and with whom? `dmesg` for its errors".to_owned(),
        format!(
            "grep -E '^(State|voluntary)' /proc/{}/task/*/status   # D: the kernel waits for the disk",
            watch.pid
        ),
        bundle(),
    ];
    Some(Verdict::new(VerdictCode::StoreSlow, line, next))
}

pub(super) fn descriptors_exhausted(evidence: &Evidence) -> Option<Verdict> {
    let files = |daemon: &DaemonEvidence| {
        let seen = daemon.process.get().and_then(|process| process.open_files);
        let files = seen.or_else(|| daemon.vitals().and_then(|vitals| vitals.open_files))?;
        (files.max > 0 && files.used.saturating_mul(100) >= files.max.saturating_mul(DESCRIPTORS_FULL))
            .then_some(files)
    };
    let (daemon, files) = evidence.daemons().find_map(|daemon| Some((daemon, files(daemon)?)))?;
    let pid = daemon.pid().unwrap_or(0);
    let line = format!("{} has {} of {} descriptors open", named(daemon), files.used, files.max);
    let next = [
        format!(
            "ls -l /proc/{pid}/fd | awk '{{print $NF}}' | sed 's/[0-9]*//g' | sort | uniq -c | sort -n   # of what?"
        ),
        "raise LimitNOFILE (or `ulimit -n`), or lower gateway.clients_max; then restart it".to_owned(),
        bundle(),
    ];
    Some(Verdict::new(VerdictCode::DescriptorsExhausted, line, next))
}

/// No watchdog to ask, or it sees nothing, and yet there is no answer.
pub(super) fn does_not_answer(evidence: &Evidence) -> Option<Verdict> {
    if let Some(probe) =
        evidence.http.get().and_then(|http| http.probes.iter().find(|probe| is_silent(probe)))
    {
        let daemon = &evidence.gateway;
        let queue = match evidence.listener.get().map_or(0, |listener| listener.backlog()) {
            0 => "takes connections and does not answer",
            _ => "does not take connections",
        };
        let error = probe.error.as_deref().map(safe).unwrap_or_default();
        let line = format!("{} {queue}: GET {}: {error}{}", named(daemon), probe.path, suspect(daemon));
        let next = [bundle(), format!("{}   # ends it", restart(daemon)), report()];
        return Some(Verdict::new(VerdictCode::EventLoopBlocked, line, next));
    }
    let mute = |daemon: &&DaemonEvidence| {
        daemon.is_running()
            && matches!(&daemon.health, Part::Missing { missing } if missing.starts_with(NO_ANSWER))
    };
    let daemon = evidence.daemons().find(mute)?;
    let disk = match daemon.process.get().map(|process| process.state) {
        Some('D') => "; the kernel waits for a disk (state D)",
        _ => "",
    };
    let line = format!("{} does not answer at its admin socket{disk}{}", named(daemon), suspect(daemon));
    Some(Verdict::new(VerdictCode::EventLoopBlocked, line, [bundle(), restart(daemon), report()]))
}

/// Connected, or not even that within the limit; a refusal or a reset is another matter.
fn is_silent(probe: &HttpProbe) -> bool {
    probe.error.as_deref().is_some_and(|error| error.starts_with(NO_ANSWER))
}

/// The first busy thread, when no watchdog names one.
fn suspect(daemon: &DaemonEvidence) -> String {
    let busy = daemon.stacks.get().and_then(|stacks| stacks.threads.iter().find(|seen| !seen.idle));
    match busy.and_then(|seen| Some((seen, seen.culprit.as_ref()?))) {
        Some((seen, at)) => {
            format!("; thread {} ({}) is in {}", seen.thread.tid, safe(&seen.thread.name), safe(at))
        }
        None => String::new(),
    }
}

fn overloaded() -> Vec<String> {
    vec![
        "top -H   # who takes the processors?".to_owned(),
        "give it more (CPUQuota=, CPUWeight=, `nice`), or the machine less to do".to_owned(),
    ]
}

pub(super) fn worker_starved(evidence: &Evidence) -> Option<Verdict> {
    let (daemon, late) = evidence
        .daemons()
        .flat_map(|daemon| daemon.late.iter().map(move |late| (daemon, late)))
        .filter(|(_, late)| late.late * 3 >= late.looks)
        .max_by_key(|(_, late)| late.worst_ms)?;
    let (why, next) = match cause(late) {
        Cause::NoProcessor(ms) => (
            format!("for {ms} of {} ms it was ready and the machine had no processor for it", late.over_ms),
            overloaded(),
        ),
        Cause::OwnWork(ms) => (
            format!("its own work kept it for {ms} of {} ms", late.over_ms),
            vec![
                bundle(),
                "newswire doctor --json | jq '.evidence.gateway.stacks.threads[0]'   # again and again"
                    .to_owned(),
                report(),
            ],
        ),
        Cause::Waits => (
            "neither the machine's load nor its own computing explains it: it waits inside its work"
                .to_owned(),
            vec![bundle(), report()],
        ),
    };
    let at = daemon.stacks.get().and_then(|stacks| stacks.of(late.tid)).filter(|seen| !seen.idle);
    let at = at.and_then(|seen| seen.culprit.as_ref()).map(|at| format!("; seen in {}", safe(at)));
    let line = format!(
        "{} of {} was late at {} of {} looks, by up to {} ms: {why}{}{}",
        safe(&late.name),
        named(daemon),
        late.late,
        late.looks,
        late.worst_ms,
        working_on(late.work.as_ref()),
        at.unwrap_or_default()
    );
    Some(Verdict::new(VerdictCode::WorkerStarved, line, next))
}

enum Cause {
    NoProcessor(u64),
    OwnWork(u64),
    Waits,
}

/// What the kernel counted for the thread while it was late.
fn cause(late: &LateLoop) -> Cause {
    let (cpu, delay) = (late.cpu_ms.unwrap_or(0), late.run_delay_ms.unwrap_or(0));
    if delay >= cpu && delay * 5 >= late.over_ms && delay > 0 {
        Cause::NoProcessor(delay)
    } else if cpu * 4 >= late.over_ms && cpu > 0 {
        Cause::OwnWork(cpu)
    } else {
        Cause::Waits
    }
}

pub(super) fn wire_cut(evidence: &Evidence) -> Option<Verdict> {
    let ready = evidence.http.get().and_then(|http| http.ready.get());
    let told = evidence.gateway.vitals().map(|vitals| &vitals.wire);
    let connected =
        told.and_then(|wire| wire.connected).or_else(|| ready.and_then(|ready| ready.wire.connected));
    if connected != Some(false) {
        return None;
    }
    let reason = told.and_then(|wire| wire.reason.clone()).filter(|reason| !reason.is_empty());
    let reason = reason.or_else(|| ready.map(|ready| ready.reasons.join("; "))).unwrap_or_default();
    let there = match evidence.ingestd.presence {
        Presence::Running => "though both run",
        _ => "and this user cannot see whether newswire-ingestd runs",
    };
    let line = format!("the gateway has no wire to the daemon, {there}: {}", safe(&reason));
    let next = [
        format!(
            "curl -sN -m 5 --unix-socket {}/ingestd.sock http://ingestd/wire | head   # does it speak?",
            safe(&evidence.run_dir)
        ),
        "newswire config show | grep run_dir   # the same for both, and may the gateway's user pass?"
            .to_owned(),
        restart(&evidence.ingestd),
    ];
    Some(Verdict::new(VerdictCode::WireCut, line, next))
}

pub(super) fn daemon_stale(evidence: &Evidence) -> Option<Verdict> {
    let why = silent(evidence).or_else(|| overdue(&evidence.ingestd))?;
    let line = format!("{} runs and answers, but {why}", named(&evidence.ingestd));
    let next = [bundle(), "newswire sources list --failing".to_owned(), restart(&evidence.ingestd)];
    Some(Verdict::new(VerdictCode::DaemonStale, line, next))
}

fn silent(evidence: &Evidence) -> Option<String> {
    let told = evidence.gateway.vitals().and_then(|vitals| vitals.wire.heard_ms_ago);
    let ready = evidence.http.get().and_then(|http| http.ready.get());
    let heard = told.or_else(|| ready.and_then(|ready| ready.wire.heartbeat_age_ms));
    let silence = heard.filter(|heard| *heard > WIRE_SILENT_MS)?;
    Some(format!("its wire has been silent for {}", ago(silence)))
}

/// Many are due, and none is under way.
fn overdue(daemon: &DaemonEvidence) -> Option<String> {
    let vitals = daemon.vitals()?;
    let overdue = vitals.overdue?;
    let count = |activity: &str| vitals.actors.get(activity).copied().unwrap_or(0);
    let all: u64 = vitals.actors.values().sum();
    let working = count("fetching") + count("parsing") + count("recording");
    let settled = !is_starting(daemon) && daemon.uptime_ms().is_some_and(|uptime| uptime > SETTLED_MS);
    let many = overdue >= 3 && overdue * 4 >= all;
    (settled && many && working == 0 && !vitals.outage)
        .then(|| format!("{overdue} of {all} sources are overdue and none is being visited"))
}

pub(super) fn clock_jumped(evidence: &Evidence) -> Option<Verdict> {
    let jump = |daemon: &DaemonEvidence| {
        let clock = &daemon.watch.get()?.clock;
        let when = clock.last_ms_ago.filter(|when| *when < JUMP_RECENT_MS)?;
        Some((clock.last_ms.unwrap_or(0), when))
    };
    let (by, when) = evidence.daemons().find_map(jump)?;
    let way = if by < 0 { "back" } else { "forward" };
    let line = format!(
        "the clock of the machine jumped {way} by {} {} ago: schedules and ages may be wrong",
        ago(by.unsigned_abs()),
        ago(when)
    );
    let next = [
        "timedatectl; chronyc tracking   # who sets it?".to_owned(),
        "newswire doctor   # again, in 10 min".to_owned(),
    ];
    Some(Verdict::new(VerdictCode::ClockJumped, line, next))
}

pub(super) fn slow_feeds(evidence: &Evidence) -> Option<Verdict> {
    let vitals = evidence.ingestd.vitals()?;
    if vitals.outage {
        let line = "no hang: no source can be reached, so the network of this machine is out";
        let next = ["ping, or `newswire check URL` of any feed; visits go on by themselves".to_owned()];
        return Some(Verdict::new(VerdictCode::SlowFeeds, line, next));
    }
    let is_slow = |actor: &&Actor| actor.activity == "fetching" && actor.since_ms_ago >= FEED_SLOW_MS;
    let slow: Vec<_> = vitals.busiest.iter().filter(is_slow).collect();
    let slowest = slow.iter().max_by_key(|actor| actor.since_ms_ago)?;
    let least = if slow.len() >= BUSIEST_MAX { "at least " } else { "" };
    let feeds = if slow.len() == 1 { "feed is" } else { "feeds are" };
    let line = format!(
        "no hang: {least}{} {feeds} slow, the slowest {} for {}; nobody else waits for them",
        slow.len(),
        safe(&slowest.source),
        ago(slowest.since_ms_ago)
    );
    let next = [format!(
        "newswire sources show {0}; newswire sources pause {0}   # if it stays so",
        safe(&slowest.source)
    )];
    Some(Verdict::new(VerdictCode::SlowFeeds, line, next))
}
