//! Rules about the progress of the processes that run.

use control::{
    IngestVitals,
    watch::{LoopReport, TaskReport, WatchKind},
};

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, Presence, VerdictCode, bundle, duration, name_and_pid,
    next::{busy_disk, end_hang, kernel_messages, look_with_rights, quoted, restart, restart_in_order, sudo},
    presence_rules::is_starting,
    safe,
    stalled::{BEATS_AGAIN_MS, is_stalled, stalled_loops},
    stalled_before, task_text,
};
use crate::doctor::{admin::LateLoop, evidence::Target, part::MissingCause};

/// A loop that was blocked for longer, and then moved, is reported.
const MOVED_AFTER_MS: u64 = 3_000;
/// A beat needs less processor time than this.
const RAN_MS: u64 = 10;
/// A commit that takes longer is slow.
const COMMIT_SLOW_MS: u64 = 1_000;
/// A commit that took longer is reported for [`COMMIT_RECENT_MS`] after its end.
const COMMIT_VERY_SLOW_MS: u64 = 5_000;
const COMMIT_RECENT_MS: u64 = 60_000;
/// A part of the log that could not be read is reported for this long.
const UNREADABLE_RECENT_MS: u64 = 600_000;
/// The wire has a heartbeat every two seconds; after this much silence it counts as broken.
pub(super) const WIRE_SILENT_MS: u64 = 8_000;
/// Open descriptors in percent of the limit.
const DESCRIPTORS_FULL: u64 = 95;
/// A jump of the clock is reported for this long.
const JUMP_RECENT_MS: u64 = 600_000;
/// A daemon that has run for longer should have finished visits.
pub(super) const SETTLED_MS: u64 = 60_000;

/// The loop that has been stalled for the longest time, and is still stalled at the second look.
pub(super) fn loop_stalled(evidence: &Evidence) -> Option<DoctorVerdict> {
    let stalled = |daemon: &'_ DaemonEvidence| {
        let is_other =
            |kind: WatchKind| matches!(kind, WatchKind::Recorder | WatchKind::Pool) || kind.is_helper();
        let loops = stalled_loops(daemon).filter(|l| !is_other(l.kind));
        loops.max_by_key(|l| l.beat_ms_ago).cloned()
    };
    let found = evidence.daemons().filter_map(|daemon| Some((daemon, stalled(daemon)?)));
    let Some((daemon, worst)) = found.max_by_key(|(_, l)| l.beat_ms_ago) else {
        return stalled_according_to_ready(evidence);
    };
    let since = duration(worst.beat_ms_ago);
    let who = format!("{} of {}", safe(&worst.name), name_and_pid(daemon));
    if let Some(task) = daemon.process.get().and_then(|p| p.tasks.iter().find(|task| task.tid == worst.tid))
        && let Some(process) = daemon.process.get()
        && task.run_delay_ms * 10 >= process.sampled_ms * 8
        && process.sampled_ms > 0
        // One that has run for long enough to beat is in a loop without an end.
        && !(task.cpu_ms >= RAN_MS && worst.beat_ms_ago >= MOVED_AFTER_MS)
    {
        let line = format!(
            "{who} gets no processor and has made no progress for {since}: the machine is overloaded"
        );
        return Some(DoctorVerdict::new(VerdictCode::WorkerStarved, line, overloaded()));
    }
    let function =
        culprit(daemon, &worst).map_or("in an unknown function".to_owned(), |at| format!("in {at}"));
    let work = working_on(worst.work.as_ref());
    let line = format!("{who} has been blocked for {since} {function}{work}{}", seen(daemon));
    let next = [bundle(), restart(daemon), report_bug()];
    Some(DoctorVerdict::new(VerdictCode::EventLoopBlocked, line, next))
}

/// Whether a fault that lasts was seen once or twice.
fn seen(daemon: &DaemonEvidence) -> String {
    match daemon.looks() {
        0 | 1 => String::new(),
        _ => format!("; still so at a second look after {}", duration(daemon.watched_for_ms)),
    }
}

/// A loop that was stalled at the first look and has moved since: it is late, and may be again.
pub(super) fn loop_moves(evidence: &Evidence) -> Option<DoctorVerdict> {
    let moved = |daemon: &'_ DaemonEvidence| {
        daemon.watch_later.get()?;
        let loops = &daemon.watch.get()?.progress.loops;
        let long = loops.iter().filter(|l| l.stalled && l.beat_ms_ago >= MOVED_AFTER_MS);
        long.max_by_key(|l| l.beat_ms_ago).cloned()
    };
    let (daemon, worst) = evidence.daemons().find_map(|daemon| Some((daemon, moved(daemon)?)))?;
    let at = culprit(daemon, &worst).map(|at| format!(" in {at}")).unwrap_or_default();
    let line = format!(
        "{} of {} was blocked for {}{at}{}, and moved again within {}: it may block again",
        safe(&worst.name),
        name_and_pid(daemon),
        duration(worst.beat_ms_ago),
        working_on(worst.work.as_ref()),
        duration(daemon.watched_for_ms)
    );
    let next = [bundle(), "newswire doctor   # again: does it block again?".to_owned(), report_bug()];
    Some(DoctorVerdict::new(VerdictCode::WorkerStarved, line, next))
}

pub(super) fn report_bug() -> String {
    "report this function as a bug: it must not block".to_owned()
}

fn stalled_according_to_ready(evidence: &Evidence) -> Option<DoctorVerdict> {
    let ready = evidence.http.get()?.ready.get()?;
    let stalled = ready.loops.iter().filter(|l| l.stalled && l.beat_ms_ago >= BEATS_AGAIN_MS);
    let worst = stalled.filter(|l| !matches!(l.kind.as_str(), "recorder" | "pool"));
    let worst = worst.max_by_key(|l| l.beat_ms_ago)?;
    let function = worst.culprit.as_ref().map(|at| format!(" in {}", safe(at))).unwrap_or_default();
    let line = format!(
        "{} of the gateway has been blocked for {}{function}",
        safe(&worst.name),
        duration(worst.beat_ms_ago)
    );
    Some(DoctorVerdict::new(
        VerdictCode::EventLoopBlocked,
        line,
        [bundle(), end_hang(evidence, &evidence.gateway), report_bug()],
    ))
}

/// The function that the watchdog saw when the stall began, else that of the present stack.
fn culprit(daemon: &DaemonEvidence, stalled: &LoopReport) -> Option<String> {
    let watch = daemon.latest()?;
    let stall =
        watch.progress.stalls.iter().find(|stall| stall.name == stalled.name && stall.lasted_ms.is_none());
    let reported = stall.and_then(|stall| stall.culprit.clone());
    let captured = || daemon.stacks.get()?.of(stalled.tid)?.culprit.clone();
    reported.or_else(captured).map(|at| safe(&at))
}

fn working_on(work: Option<&TaskReport>) -> String {
    work.map(|work| format!(", working on {}", task_text(work))).unwrap_or_default()
}

pub(super) fn pool_exhausted(evidence: &Evidence) -> Option<DoctorVerdict> {
    let stalled =
        |daemon: &DaemonEvidence| stalled_loops(daemon).find(|l| l.kind == WatchKind::Pool).cloned();
    let (daemon, pool) = evidence.daemons().find_map(|daemon| Some((daemon, stalled(daemon)?)))?;
    let busy: Vec<_> = daemon.latest()?.progress.threads.iter().map(|thread| &thread.work).collect();
    let at = commonest_frame(daemon).or_else(|| culprit(daemon, &pool));
    let at = at.map(|at| format!("; most of its threads are in {at}")).unwrap_or_default();
    let longest = busy.iter().max_by_key(|work| work.since_ms_ago);
    let longest = longest
        .map(|work| format!("; {} threads are busy, the longest with {}", busy.len(), task_text(work)))
        .unwrap_or_default();
    let line = format!(
        "the blocking pool {} of {} has started no work for {}{at}{longest}{}",
        safe(&pool.name),
        name_and_pid(daemon),
        duration(pool.beat_ms_ago),
        seen(daemon)
    );
    Some(DoctorVerdict::new(
        VerdictCode::BlockingPoolExhausted,
        line,
        [bundle(), restart(daemon), report_bug()],
    ))
}

/// The most frequent culprit of the busy threads without a loop.
fn commonest_frame(daemon: &DaemonEvidence) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let busy =
        daemon.stacks.get()?.threads.iter().filter(|thread| !thread.idle && thread.loop_name.is_none());
    for culprit in busy.filter_map(|thread| thread.culprit.as_deref()) {
        *counts.entry(culprit).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(culprit, _)| safe(culprit))
}

pub(super) fn store_slow(evidence: &Evidence) -> Option<DoctorVerdict> {
    let daemon = &evidence.ingestd;
    let watch = daemon.latest()?;
    let is_blocked = |l: &&LoopReport| l.stalled || is_stalled(watch, l);
    let recorder = watch.progress.loops.iter().filter(is_blocked).find(|l| l.kind == WatchKind::Recorder);
    let store = daemon.ingest_vitals().map(|vitals| &vitals.store);
    // One slow commit after the other is as slow as one that does not end.
    let committing = [store, daemon.first_ingest_vitals().map(|vitals| &vitals.store)];
    let in_progress = committing.into_iter().flatten().filter_map(|store| store.committing_ms).max();
    let in_progress = in_progress.filter(|ms| *ms > COMMIT_SLOW_MS);
    let moves = match committing.map(|store| store.and_then(|store| store.last_commit_ms_ago)) {
        [Some(last), Some(first)]
            if daemon.looks() > 1 && last < first.saturating_add(daemon.watched_for_ms / 2) =>
        {
            "; commits end meanwhile: moving"
        }
        _ if daemon.looks() > 1 => "; no commit ended meanwhile: still",
        _ => "",
    };
    let queued = store
        .map(|store| store.queued)
        .filter(|n| *n > 0)
        .map(|n| format!("; {n} visits wait to be recorded"))
        .unwrap_or_default();
    // The watchdog may have seen a stall that ended before the report was made, or one of another step than the commit.
    let stalled = recorder.map(|l| l.beat_ms_ago).filter(|ms| *ms > COMMIT_SLOW_MS);
    let line = if let Some(ms) = stalled.max(in_progress) {
        let at = recorder.and_then(|l| culprit(daemon, l)).map(|at| format!(" in {at}")).unwrap_or_default();
        format!("a commit to the store has taken {} so far{at}{queued}{moves}", duration(ms))
    } else {
        let took = store?.last_commit_took_ms.filter(|ms| *ms > COMMIT_VERY_SLOW_MS)?;
        let end = store?.last_commit_ms_ago.filter(|ms| *ms < COMMIT_RECENT_MS)?;
        format!("the last commit to the store, {} ago, took {}{queued}", duration(end), duration(took))
    };
    let next = [
        busy_disk(),
        kernel_messages(evidence),
        format!(
            "grep -E '^(State|voluntary)' /proc/{}/task/*/status   # state D: waiting for the disk",
            watch.process.pid
        ),
        bundle(),
    ];
    Some(DoctorVerdict::new(VerdictCode::StoreSlow, line, next))
}

pub(super) fn log_unreadable(evidence: &Evidence) -> Option<DoctorVerdict> {
    let store = &evidence.ingestd.ingest_vitals()?.store;
    let ago = store.last_read_failure_ms_ago.filter(|ms| *ms < UNREADABLE_RECENT_MS)?;
    let line = format!(
        "a part of the log in {} could not be read {} ago: its events are not served, all others are",
        safe(&store.path),
        duration(ago)
    );
    let next = [
        match evidence.ingestd.unit.get() {
            Some(_) => "newswire logs --level error --since 15m   # what could not be read, and why",
            None => {
                "newswire doctor --since 15m   # what could not be read, and why, is among its last log lines"
            }
        }
        .to_owned(),
        kernel_messages(evidence),
        bundle(),
    ];
    Some(DoctorVerdict::new(VerdictCode::LogUnreadable, line, next))
}

pub(super) fn descriptors_exhausted(evidence: &Evidence) -> Option<DoctorVerdict> {
    let files = |daemon: &DaemonEvidence| {
        let files = daemon.open_files()?;
        let is_full =
            files.max > 0 && files.used.saturating_mul(100) >= files.max.saturating_mul(DESCRIPTORS_FULL);
        is_full.then_some(files)
    };
    let (daemon, files) = evidence.daemons().find_map(|daemon| Some((daemon, files(daemon)?)))?;
    let pid = daemon.pid().unwrap_or(0);
    let line = format!("{} has {} of {} descriptors open", name_and_pid(daemon), files.used, files.max);
    let which = format!(
        "{}ls -l /proc/{pid}/fd | awk '{{print $NF}}' | sed 's/[0-9]*//g' | sort | uniq -c | sort -n   # which kinds?",
        sudo(daemon)
    );
    let hard = daemon.process.get().and_then(|process| process.open_files_hard_max);
    let raise = match hard.filter(|hard| *hard > files.max) {
        // Its user may do that, and it needs no restart.
        Some(hard) => vec![format!(
            "{}prlimit --pid {pid} --nofile={hard}:   # and LimitNOFILE= or `ulimit -n` for the next start",
            sudo(daemon)
        )],
        None => vec![
            bundle(),
            "raise LimitNOFILE= (or `ulimit -n`), or lower gateway.clients_max; then restart it:".to_owned(),
            restart_in_order(daemon),
        ],
    };
    let next = std::iter::once(which).chain(raise);
    Some(DoctorVerdict::new(VerdictCode::DescriptorsExhausted, line, next))
}

/// Requests have no answer, although no watchdog reports a stall, or none can be queried.
pub(super) fn does_not_answer(evidence: &Evidence) -> Option<DoctorVerdict> {
    if let Some(probe) = evidence.http.get().and_then(|http| http.probes.iter().find(|probe| probe.timed_out))
    {
        let daemon = &evidence.gateway;
        let queue = match evidence.listener.get().map_or(0, |listener| listener.backlog()) {
            0 => "accepts connections but does not answer",
            _ => "does not accept connections",
        };
        let error = probe.error.as_deref().map(safe).unwrap_or_default();
        let line = format!(
            "{} {queue}: GET {}: {error}{}",
            name_and_pid(daemon),
            probe.path,
            first_busy_thread(daemon)
        );
        let next = [bundle(), end_hang(evidence, daemon), report_bug()];
        return Some(DoctorVerdict::new(VerdictCode::EventLoopBlocked, line, next));
    }
    // The second look has its own deadline, so a report that came then is an answer.
    let is_silent = |daemon: &&DaemonEvidence| {
        daemon.is_running() && daemon.health.is_missing_because(MissingCause::TimedOut)
    };
    let daemon = evidence.daemons().find(is_silent)?;
    let disk = match daemon.process.get().map(|process| process.state) {
        Some('D') => "; its main thread waits for a disk (state D)",
        _ => "",
    };
    let line = format!(
        "{} does not answer on its admin socket{disk}{}{}",
        name_and_pid(daemon),
        first_busy_thread(daemon),
        stalled_before(daemon)
    );
    Some(DoctorVerdict::new(VerdictCode::EventLoopBlocked, line, [bundle(), restart(daemon), report_bug()]))
}

/// The first busy thread, if no watchdog names one.
fn first_busy_thread(daemon: &DaemonEvidence) -> String {
    let busy = daemon.stacks.get().and_then(|stacks| stacks.threads.iter().find(|thread| !thread.idle));
    match busy.and_then(|busy| Some((busy, busy.culprit.as_ref()?))) {
        Some((busy, at)) => {
            format!("; thread {} ({}) is in {}", busy.thread.tid, safe(&busy.thread.name), safe(at))
        }
        None => String::new(),
    }
}

fn overloaded() -> Vec<String> {
    vec![
        "top -b -H -n 1 | head -n 40   # which threads use the processors?".to_owned(),
        "give newswire more processor time (CPUQuota=, CPUWeight=, `nice`), or reduce the load of the machine".to_owned(),
    ]
}

pub(super) fn worker_starved(evidence: &Evidence) -> Option<DoctorVerdict> {
    let (daemon, late) = evidence
        .daemons()
        .flat_map(|daemon| daemon.late.iter().map(move |late| (daemon, late)))
        .filter(|(_, late)| late.late * 3 >= late.looks)
        .max_by_key(|(_, late)| late.worst_ms)?;
    let (why, next) = match delay_cause(late) {
        DelayCause::NoProcessor(ms) => (
            format!(
                "for {} of {} it was ready to run but the machine had no processor for it",
                duration(ms),
                duration(late.over_ms)
            ),
            overloaded(),
        ),
        DelayCause::OwnWork(ms) => (
            format!("its own work took {} of {}", duration(ms), duration(late.over_ms)),
            vec![
                bundle(),
                format!("newswire doctor --pid {}   # run it several times: where is {}?", daemon.pid().unwrap_or(0), safe(&late.name)),
                report_bug(),
            ],
        ),
        DelayCause::Waits => (
            "it waits inside its work: neither the load of the machine nor its own computing explains the delay"
                .to_owned(),
            vec![bundle(), report_bug()],
        ),
    };
    let at = daemon.stacks.get().and_then(|stacks| stacks.of(late.tid)).filter(|thread| !thread.idle);
    let at = at.and_then(|thread| thread.culprit.as_ref()).map(|at| format!("; seen in {}", safe(at)));
    let line = format!(
        "{} of {} was late in {} of {} samples, by up to {}: {why}{}{}",
        safe(&late.name),
        name_and_pid(daemon),
        late.late,
        late.looks,
        duration(late.worst_ms),
        working_on(late.work.as_ref()),
        at.unwrap_or_default()
    );
    Some(DoctorVerdict::new(VerdictCode::WorkerStarved, line, next))
}

enum DelayCause {
    NoProcessor(u64),
    OwnWork(u64),
    Waits,
}

/// Why a loop was late, from what the kernel counted for its thread meanwhile.
fn delay_cause(late: &LateLoop) -> DelayCause {
    let (cpu, delay) = (late.cpu_ms.unwrap_or(0), late.run_delay_ms.unwrap_or(0));
    if delay >= cpu && delay * 5 >= late.over_ms && delay > 0 {
        DelayCause::NoProcessor(delay)
    } else if cpu * 4 >= late.over_ms && cpu > 0 {
        DelayCause::OwnWork(cpu)
    } else {
        DelayCause::Waits
    }
}

pub(super) fn wire_cut(evidence: &Evidence) -> Option<DoctorVerdict> {
    // The health check of one process says nothing about the other one.
    if evidence.quick && evidence.target == Target::Pid {
        return None;
    }
    let ready = evidence.http.get().and_then(|http| http.ready.get());
    let reported = evidence.gateway.gateway_vitals().and_then(|vitals| vitals.wire.as_ref());
    let connected =
        reported.map(|wire| wire.connected).or_else(|| ready.and_then(|ready| ready.wire.connected));
    if connected != Some(false) {
        return None;
    }
    let reason = reported.and_then(|wire| wire.reason.clone()).filter(|reason| !reason.is_empty());
    let reason = reason.or_else(|| ready.map(|ready| ready.reasons.join("; "))).unwrap_or_default();
    let ingestd_state = match evidence.ingestd.presence {
        Presence::Running => "although both run",
        Presence::NotAsked => "which was not asked for",
        _ => "and this user cannot see whether newswire-ingestd runs",
    };
    let line =
        format!("the gateway is not connected to newswire-ingestd, {ingestd_state}: {}", safe(&reason));
    let next = [
        format!(
            "curl -sN -m 5 --unix-socket {} http://ingestd/wire | head   # does it send anything?",
            quoted(&format!("{}/ingestd.sock", evidence.run_dir))
        ),
        "newswire config show | grep run_dir   # the same for both? May the user of the gateway enter it?"
            .to_owned(),
        match evidence.ingestd.presence {
            // It may well run.
            Presence::Unknown => look_with_rights(evidence),
            _ => restart_in_order(&evidence.ingestd),
        },
    ];
    Some(DoctorVerdict::new(VerdictCode::WireCut, line, next))
}

pub(super) fn daemon_stale(evidence: &Evidence) -> Option<DoctorVerdict> {
    let why = silent_wire(evidence).or_else(|| overdue(&evidence.ingestd))?;
    let answers = match evidence.ingestd.presence {
        Presence::NotAsked => "newswire-ingestd was not asked for",
        _ if evidence.ingestd.health.get().is_some() => "newswire-ingestd runs and answers",
        _ => "newswire-ingestd runs",
    };
    let line = format!("{answers}, but {why}");
    let next = [bundle(), "newswire sources list --failing".to_owned(), restart_in_order(&evidence.ingestd)];
    Some(DoctorVerdict::new(VerdictCode::DaemonStale, line, next))
}

fn silent_wire(evidence: &Evidence) -> Option<String> {
    if evidence.quick && evidence.target == Target::Pid {
        return None;
    }
    let wire = evidence.gateway.gateway_vitals().and_then(|vitals| vitals.wire.as_ref());
    let reported = wire.and_then(|wire| wire.heard_ms_ago);
    let ready = evidence.http.get().and_then(|http| http.ready.get());
    let silence = reported.or_else(|| ready.and_then(|ready| ready.wire.heartbeat_age_ms));
    let silence = silence.filter(|ms| *ms > WIRE_SILENT_MS)?;
    Some(format!("the gateway has received nothing from it for {}", duration(silence)))
}

/// Many sources are overdue, and none is being visited, at both looks.
fn overdue(daemon: &DaemonEvidence) -> Option<String> {
    let looks = daemon.reports().map(|report| overdue_in(daemon, report.vitals.as_ref()?.ingest()?));
    let found = looks.collect::<Option<Vec<_>>>()?.pop()?;
    Some(format!("{found}{}", seen(daemon)))
}

fn overdue_in(daemon: &DaemonEvidence, vitals: &IngestVitals) -> Option<String> {
    let sources = vitals.sources.as_ref()?;
    let overdue = sources.overdue;
    let count = |activity: &str| sources.actors.get(activity).copied().unwrap_or(0);
    let all: u64 = sources.actors.values().sum();
    let working = count("fetching") + count("parsing") + count("recording");
    let settled = !is_starting(daemon) && daemon.uptime_ms().is_some_and(|uptime| uptime > SETTLED_MS);
    let many = overdue >= 3 && overdue * 4 >= all;
    (settled && many && working == 0 && !vitals.outage)
        .then(|| format!("{overdue} of {all} sources are overdue and none is being visited"))
}

pub(super) fn clock_jumped(evidence: &Evidence) -> Option<DoctorVerdict> {
    let jump = |daemon: &DaemonEvidence| {
        let clock = &daemon.latest()?.progress.clock;
        let when = clock.last_ms_ago.filter(|when| *when < JUMP_RECENT_MS)?;
        Some((clock.last_ms.unwrap_or(0), when))
    };
    let (by, when) = evidence.daemons().find_map(jump)?;
    let way = if by < 0 { "back" } else { "forward" };
    let line = format!(
        "the clock of the machine jumped {way} by {} {} ago: schedules and ages may be wrong",
        duration(by.unsigned_abs()),
        duration(when)
    );
    let next = [
        "timedatectl || chronyc tracking   # which program sets it?".to_owned(),
        "newswire doctor   # again, in 10 minutes".to_owned(),
    ];
    Some(DoctorVerdict::new(VerdictCode::ClockJumped, line, next))
}
