//! A thread of the shipped programs that never comes back: parked in a real call, below the program's own frames.

use e2e::Binary::{self, Gateway, Ingestd};
use nix::libc::{EPOLL_CTL_DEL, SYS_epoll_ctl};
use tokio::time::sleep;

use crate::{
    parking::{Hold, Spot, is_possible, make_system_call, park},
    row::{Expected, Patient, SETTLED},
};

/// What leads the thread to the function.
#[derive(Clone, Copy, Debug)]
enum Lure {
    /// It comes there by itself.
    Nothing,
    /// A client opens a stream.
    Stream,
    /// A client requests this path, and waits for the answer.
    Request(&'static str),
    /// A tool asks at the admin socket of the program.
    Admin(&'static str),
    /// A feed publishes.
    Article,
}

/// Parks a thread of a program and waits as long as a stall has to last.
async fn parked(program: Binary, spot: Spot, hold: Hold, lure: Lure) -> anyhow::Result<Patient> {
    let mut patient = Patient::well().await?;
    park_in(&mut patient, program, spot, hold, lure).await?;
    sleep(SETTLED).await;
    Ok(patient)
}

/// Parks a thread of a program.
pub(crate) async fn park_worker(patient: &mut Patient) -> anyhow::Result<()> {
    park_in(patient, Gateway, TICK, Hold::Futex, Lure::Stream).await
}

/// Parks the main thread of the ingestion daemon.
pub(crate) async fn park_main(patient: &mut Patient) -> anyhow::Result<()> {
    park_in(patient, Ingestd, SET_ACTIVITY, Hold::Futex, Lure::Nothing).await
}

async fn park_in(
    patient: &mut Patient,
    program: Binary,
    spot: Spot,
    hold: Hold,
    lure: Lure,
) -> anyhow::Result<()> {
    let parked = park(patient.id(program), spot, hold);
    let (gateway, admin) = (patient.stack.gateway(), patient.stack.admin(program));
    let mut luring = tokio::task::JoinSet::new();
    match lure {
        Lure::Nothing => {}
        Lure::Article => {
            for number in 0..5 {
                patient.origin.publish("feed-1", &format!("Article {number}"));
            }
        }
        Lure::Stream => drop(luring.spawn(ask_again(gateway, "/news/stream"))),
        Lure::Request(path) => drop(luring.spawn(ask_again(gateway, path))),
        Lure::Admin(path) => drop(luring.spawn(ask_again(admin, path))),
    }
    let thread = parked.await??;
    e2e::log_line(&format!("thread {thread} is parked: {hold:?}"));
    Ok(())
}

/// Requests a path again and again, because the trap may not be set yet.
async fn ask_again(address: e2e::http::Address, path: &'static str) {
    loop {
        // A request that reaches the parked thread has no answer, which is no error here.
        e2e::http::fetch(&address, path, std::time::Duration::from_secs(1)).await.ok();
        sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// A row: parks the thread and compares what the doctor says.
async fn row(
    sickness: &str,
    (program, spot, hold, lure): (Binary, Spot, Hold, Lure),
    expected: Expected<'_>,
) -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let patient = parked(program, spot, hold, lure).await?;
    patient.expect(sickness, expected).await.map(drop)
}

const fn blocked(says: &'static [&'static str]) -> Expected<'static> {
    Expected::fault(&["event-loop-blocked"], says)
}

const STREAM_NEW: Spot = Spot::in_call("worker-", &["stream::subscriber::StreamSubscriber::new"]);
const RING_STATE: Spot = Spot::in_call("worker-", &["stream::ring::Ring::state"]);
const TICK: Spot = Spot::in_call("worker-", &["stream::worker_streams::WorkerStreams::on_tick"]);
/// An optimised build has it inlined; the frame is then named by another function of the same file.
const SET_ACTIVITY: Spot = Spot::in_call("newswire-ingest", &["status::registry::SourceEntry::set_activity"]);
const ADMIN: Spot = Spot::in_call("admin", &["daemon::admin::AdminState::identity"]);
const ALLOCATOR: &[&str] = &["_rjem_je_arena_ptr_array_fill_small"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_worker_on_a_futex() -> anyhow::Result<()> {
    let how = (Gateway, STREAM_NEW, Hold::Futex, Lure::Stream);
    row("gw worker: futex in StreamSubscriber::new", how, blocked(&["worker-", "StreamSubscriber::new"]))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_worker_in_an_endless_loop() -> anyhow::Result<()> {
    let how = (Gateway, STREAM_NEW, Hold::Loop, Lure::Stream);
    row("gw worker: endless loop", how, blocked(&["worker-", "StreamSubscriber::new"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_intake_on_a_locked_mutex() -> anyhow::Result<()> {
    let spot = Spot::in_call("intake", &["ingest::intake::on_heartbeat"]);
    let how = (Gateway, spot, Hold::Mutex, Lure::Nothing);
    row("gw intake: pthread mutex twice", how, blocked(&["intake", "on_heartbeat"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_worker_that_reads_an_empty_pipe() -> anyhow::Result<()> {
    let how = (Gateway, RING_STATE, Hold::Pipe, Lure::Stream);
    row("gw worker: read of an empty pipe in Ring::state", how, blocked(&["worker-", "Ring::state"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_worker_in_its_round() -> anyhow::Result<()> {
    let how = (Gateway, TICK, Hold::Futex, Lure::Stream);
    row("gw worker: WorkerStreams::on_tick", how, blocked(&["worker-", "on_tick"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn both_workers() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    for worker in ["worker-0", "worker-1"] {
        let spot = Spot::in_call(worker, &["stream::worker_streams::WorkerStreams::on_tick"]);
        park_in(&mut patient, Gateway, spot, Hold::Futex, Lure::Stream).await?;
    }
    sleep(SETTLED).await;
    patient.expect("gw both workers: futex", blocked(&["worker-", "on_tick"])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thread_that_accepts_clients() -> anyhow::Result<()> {
    let spot = Spot::in_call("front", &["FrontLoop<H>::on_accepted", "FrontLoop<H>::dispatch"]);
    let how = (Gateway, spot, Hold::Futex, Lure::Request("/health"));
    row("gw accept thread (FrontLoop::on_accepted)", how, blocked(&["front|accept connections"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_thread_that_accepts_clients_between_two_of_them() -> anyhow::Result<()> {
    let how = (Gateway, Spot::idle("front"), Hold::Futex, Lure::Nothing);
    row("gw accept thread, idle", how, blocked(&["front|accept connections"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_worker_in_the_allocator() -> anyhow::Result<()> {
    let spot = Spot::in_call("worker-", ALLOCATOR);
    let how = (Gateway, spot, Hold::Futex, Lure::Request("/news"));
    row("gw worker inside malloc", how, blocked(&["worker-"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_admin_thread_of_the_gateway() -> anyhow::Result<()> {
    let how = (Gateway, ADMIN, Hold::Futex, Lure::Admin("/health"));
    row("gw admin thread", how, blocked(&["admin"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_thread_that_reads_the_vitals_of_the_gateway() -> anyhow::Result<()> {
    // No other thread calls this function.
    let spot = Spot::in_call("", &["newswire_gateway::diagnostics::vitals"]);
    let how = (Gateway, spot, Hold::Futex, Lure::Admin("/watch"));
    row("gw vitals thread", how, blocked(&["vitals"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_thread_of_pages() -> anyhow::Result<()> {
    let spot = Spot::in_call("pages", &["pages::news_page::Scanner::take", "pages::list_page::next_page"]);
    let how = (Gateway, spot, Hold::Futex, Lure::Request("/news"));
    row("gw pages thread", how, blocked(&["pages"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_main_thread_of_the_gateway() -> anyhow::Result<()> {
    let how = (Gateway, Spot::idle("newswire-gatewa"), Hold::Futex, Lure::Nothing);
    row("gw main thread, idle", how, blocked(&["arbiter|main"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_watchdog_of_the_gateway() -> anyhow::Result<()> {
    let how = (Gateway, Spot::idle("watchdog"), Hold::Futex, Lure::Nothing);
    row("gw watchdog alone", how, blocked(&["watchdog"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_main_thread_of_the_daemon() -> anyhow::Result<()> {
    let how = (Ingestd, SET_ACTIVITY, Hold::Futex, Lure::Nothing);
    row("in main: SourceEntry::set_activity", how, blocked(&["set_activity|status::registry"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_main_thread_of_the_daemon_in_an_endless_loop() -> anyhow::Result<()> {
    let how = (Ingestd, SET_ACTIVITY, Hold::Loop, Lure::Nothing);
    row("in main: endless loop", how, blocked(&["set_activity|status::registry"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_main_thread_of_the_daemon_in_the_allocator() -> anyhow::Result<()> {
    let spot = Spot::in_call("newswire-ingest", ALLOCATOR);
    row("in main inside malloc", (Ingestd, spot, Hold::Futex, Lure::Article), blocked(&[])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_wire_inside_free() -> anyhow::Result<()> {
    let spot = Spot::in_call("wire", &["_rjem_je_arena_ptr_array_flush"]);
    row("in wire inside free", (Ingestd, spot, Hold::Futex, Lure::Article), blocked(&["wire"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_wire_when_it_tells_of_an_event() -> anyhow::Result<()> {
    let spot = Spot::in_call("wire", &["http::wire_stream::event"]);
    row("in wire: event", (Ingestd, spot, Hold::Pipe, Lure::Article), blocked(&["wire"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_wire_between_two_events() -> anyhow::Result<()> {
    row("in wire, idle", (Ingestd, Spot::idle("wire"), Hold::Mutex, Lure::Nothing), blocked(&["wire"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_recorder() -> anyhow::Result<()> {
    let spot = Spot::in_call("recorder", &["journal::writer::JournalWriter::append"]);
    let expected = Expected::fault(&["store-slow", "event-loop-blocked"], &["JournalWriter::append"]);
    row("in recorder: JournalWriter::append", (Ingestd, spot, Hold::Futex, Lure::Article), expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_thread_that_writes_the_table() -> anyhow::Result<()> {
    let spot = Spot::in_call("sled-io", &["pwrite64"]);
    let expected = Expected::fault(&["store-slow", "disk-stalled", "event-loop-blocked"], &[]);
    row("in sled-io thread: pwrite", (Ingestd, spot, Hold::Futex, Lure::Article), expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_admin_thread_of_the_daemon() -> anyhow::Result<()> {
    let how = (Ingestd, ADMIN, Hold::Futex, Lure::Admin("/health"));
    row("in admin thread", how, blocked(&["admin"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_of_the_daemon() -> anyhow::Result<()> {
    let how = (Ingestd, Spot::idle("watchdog"), Hold::Futex, Lure::Nothing);
    row("in watchdog alone", how, blocked(&["watchdog"])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_watchdog_and_the_main_thread_of_the_daemon() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    park_in(&mut patient, Ingestd, Spot::idle("watchdog"), Hold::Mutex, Lure::Nothing).await?;
    park_main(&mut patient).await?;
    sleep(SETTLED).await;
    patient.expect("in watchdog + main", blocked(&["watchdog|set_activity|status::registry"])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_listener_that_no_thread_waits_for() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let process = patient.id(Gateway);
    let e2e::http::Address::Tcp(address) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let listener = descriptor_of_listener(process, address.port())?;
    let epoll = epoll_with(process, listener)?;
    let remove = u64::try_from(EPOLL_CTL_DEL)?;
    tokio::task::spawn_blocking(move || {
        make_system_call(process, "front", SYS_epoll_ctl, [epoll, remove, listener, 0, 0, 0])
    })
    .await??;
    sleep(SETTLED).await;
    let sickness = "gw listener removed from epoll, every thread idle";
    patient.expect(sickness, blocked(&["accept connections|front"])).await.map(drop)
}

/// The descriptor of the socket that listens at a port of 127.0.0.1.
fn descriptor_of_listener(process: u32, port: u16) -> anyhow::Result<u64> {
    // `0: 0100007F:1F90 00000000:0000 0A … INODE`
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let ending = format!(":{port:04X}");
    let inode = table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(1)?.ends_with(&ending) && *words.get(3)? == "0A").then(|| words.get(9).copied())?
    });
    let socket = format!("socket:[{}]", inode.unwrap_or_default());
    for entry in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        if std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == &*socket) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("process {process} listens at port {port}")
}

/// The epoll descriptor that waits for another descriptor.
fn epoll_with(process: u32, descriptor: u64) -> anyhow::Result<u64> {
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        let entry = entry?;
        // `tfd:       12 events: …`
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let waits = info.lines().filter_map(|line| line.strip_prefix("tfd:")).any(|rest| {
            rest.split_whitespace().next().and_then(|number| number.parse().ok()) == Some(descriptor)
        });
        if waits {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("process {process} waits for descriptor {descriptor}")
}

/// The threads that work for the operator only: nothing hangs for clients, and still nothing must be called healthy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn each_thread_that_works_for_the_operator() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let blocked = |thread| (thread, "event-loop-blocked");
    let of_both = [blocked("signals"), blocked("prober"), blocked("black-box"), ("log", "log-blocked")];
    let rows = of_both.iter().flat_map(|row| [(Gateway, *row), (Ingestd, *row)]);
    for (program, (thread, code)) in
        rows.chain([(Ingestd, blocked("marks")), (Ingestd, ("recorder", "store-slow"))])
    {
        let patient = parked(program, Spot::idle(thread), Hold::Mutex, Lure::Nothing).await?;
        // They beat once a second, and may be silent for five.
        sleep(SETTLED * 3).await;
        let sickness = format!("{} thread {thread}, idle", program.name());
        let codes = [code, "event-loop-blocked"];
        patient.expect(&sickness, Expected::fault(&codes, &[thread])).await?;
    }
    Ok(())
}

/// Threads whose loss neither clients, nor feeds, nor the watch over the process notice while they have nothing to do.
const HARMLESS: &[&str] = &[
    // Purges memory.
    "jemalloc_bg_thd",
    // The first thread of that name waits for the end of the server, which runs on the second.
    "admin",
    // What it has not written to the table is in the journal, from which a start takes it.
    "store-flush",
    // One of several: the others do its work.
    "sled-io",
];
/// The same of the ingestion daemon, whose pools have several threads.
const HARMLESS_IN_DAEMON: &str = "tokio-rt-worker";

/// Parks each thread of a program in turn, each in a program of its own.
async fn each_thread(program: Binary, hold: Hold) -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut healthy = Vec::new();
    let names = names_of_threads(Patient::well().await?.id(program))?;
    for name in names {
        let mut patient = Patient::well().await?;
        let name: &'static str = name.leak();
        if let Err(error) = park(patient.id(program), Spot::idle(name), hold).await? {
            e2e::log_line(&format!("{name}: {error:#}"));
            continue;
        }
        sleep(SETTLED * 3).await;
        let diagnosis = patient.doctor(crate::row::DoctorRun::default()).await?;
        e2e::log_line(&format!(
            "| {} {name}: {hold:?} | {} | {} |",
            program.name(),
            diagnosis.code(),
            diagnosis.line()
        ));
        let is_harmless = HARMLESS.iter().any(|known| name.starts_with(known))
            || program == Ingestd && name == HARMLESS_IN_DAEMON;
        if matches!(diagnosis.code(), "healthy" | "slow-feeds") && !is_harmless {
            healthy.push(name);
        }
    }
    anyhow::ensure!(
        healthy.is_empty(),
        "{healthy:?} of {} were blocked, and all was said to be well",
        program.name()
    );
    Ok(())
}

fn names_of_threads(process: u32) -> anyhow::Result<std::collections::BTreeSet<String>> {
    let mut names = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
        names.extend(std::fs::read_to_string(entry?.path().join("comm")).map(|name| name.trim().to_owned()));
    }
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn no_thread_of_the_gateway_that_is_blocked_is_healthy() -> anyhow::Result<()> {
    each_thread(Gateway, Hold::Futex).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn no_thread_of_the_daemon_that_is_blocked_is_healthy() -> anyhow::Result<()> {
    each_thread(Ingestd, Hold::Futex).await
}
