//! Replays what froze the system that this one replaces: 20 feeds, 5 of them silent for 60 s; one, five and a hundred
//! streams aborted. There, one aborted stream kept `/` and `/health` from answering for 254 s, five for 513 s.
//!
//! It runs alone (`.config/nextest.toml`), because it measures time.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, time::Duration};

use e2e::{
    Behaviour, Binary, DocumentFormat, Origin, PageProbe, PageProber, ProbeReport, TestSource, TestStack,
    http, http::RawResponse, log_line, wait_for,
};
use tokio::time::{Instant, sleep};

const FEEDS: usize = 20;
/// The first ones are silent.
const SILENT: usize = 5;
/// Duration of the silence.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A 99th percentile below this counts as idle on a shared machine.
const FLOOR: Duration = Duration::from_millis(100);
/// Deadline for the gateway to release the resources of disconnected clients.
const RELEASED_WITHIN: Duration = Duration::from_secs(20);
/// Descriptors by which two samples may differ: a probe of this test, and the wire.
const DESCRIPTORS_MORE: usize = 2;

/// Resources of the gateway.
#[derive(Clone, Copy, Debug)]
struct HeldResources {
    threads: usize,
    descriptors: usize,
    subscribers: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_scenario_of_aborted_streams_and_silent_feeds_delays_no_probe_and_leaks_nothing() {
    let origin = Origin::start().await.unwrap();
    let sources = feeds(&origin);
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the silence early.
    stack.set("fetch.timeout_total", "\"90s\"");
    let began = Instant::now();
    stack.start_both().await.unwrap();
    let all_requested = async || (pending_requests(&origin) == SILENT).then_some(());
    wait_for("requests to the silent feeds", Duration::from_secs(10), all_requested).await.unwrap();

    let idle = probes(&stack, Duration::from_secs(8), async || {}).await;
    log_line(&format!("idle: {idle}"));
    let before = resources_held(&mut stack).await;
    let one = probes(&stack, Duration::from_secs(10), async || open_and_abort(&stack, 1).await).await;
    log_line(&format!("1 stream aborted after 3 s: {one}"));
    let five = probes(&stack, Duration::from_secs(15), async || open_and_abort(&stack, SILENT).await).await;
    log_line(&format!("5 streams aborted after 3 s: {five}"));
    assert!(began.elapsed() < SILENCE, "the feeds were silent throughout, for {:?}", began.elapsed());
    assert_eq!(pending_requests(&origin), SILENT, "every silent feed still has a pending request");
    for report in [&one, &five] {
        assert_no_worse(report, &idle);
    }

    for _ in 0..10 {
        let streams = open(&stack, 10).await;
        drop(streams);
    }
    let after = wait_released(&mut stack, before).await;
    log_line(&format!("before {before:?}, after 106 aborts {after:?}"));
    assert_eq!((after.threads, after.subscribers), (before.threads, 0), "before: {before:?}");
    assert!(after.descriptors <= before.descriptors + DESCRIPTORS_MORE, "{before:?} became {after:?}");
}

/// Twenty feeds with one item each, the silent ones first.
fn feeds(origin: &Origin) -> Vec<TestSource> {
    let feed = |number: usize| {
        let name = format!("feed-{number}");
        let url = origin.add_feed(&name, DocumentFormat::of(number));
        origin.publish(&name, "An item");
        if number < SILENT {
            origin.set_behaviour(&name, Behaviour::Late(SILENCE));
        }
        TestSource::new(&name, url)
    };
    (0..FEEDS).map(feed).collect()
}

/// Silent feeds with a request that has no response yet.
fn pending_requests(origin: &Origin) -> usize {
    let waits = |number: &usize| {
        let requests = origin.requests(&format!("feed-{number}"));
        requests.last().is_some_and(|request| request.answered.is_none())
    };
    (0..SILENT).filter(waits).count()
}

/// Probes for that long, beginning before `work`.
async fn probes(stack: &TestStack, lasted: Duration, work: impl AsyncFnOnce()) -> ProbeReport {
    let prober = PageProber::start(&stack.gateway(), PROBE_EVERY).unwrap();
    let until = Instant::now() + lasted;
    work().await;
    tokio::time::sleep_until(until).await;
    tokio::task::spawn_blocking(|| prober.stop()).await.unwrap()
}

async fn open_and_abort(stack: &TestStack, count: usize) {
    let streams = open(stack, count).await;
    sleep(Duration::from_secs(3)).await;
    drop(streams);
}

/// Opens streams and reads their first bytes; dropping one aborts it.
async fn open(stack: &TestStack, count: usize) -> Vec<RawResponse> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let headers = [("Accept", "text/event-stream")];
        let mut stream = http::get(&stack.gateway(), "/news/stream", &headers).await.unwrap();
        assert_eq!(stream.status, 200);
        let first = stream.next().await.unwrap().expect("a stream has a beginning");
        assert!(String::from_utf8_lossy(&first).contains("retry:"), "{first:?}");
        streams.push(stream);
    }
    streams
}

async fn resources_held(stack: &mut TestStack) -> HeldResources {
    let id = stack.process(Binary::Gateway).unwrap().id();
    let count = |what: &str| fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count();
    let (threads, descriptors) = (count("task"), count("fd"));
    let subscribers = stack.json("/health").await.unwrap()["clients"].as_u64().unwrap();
    HeldResources { threads, descriptors, subscribers }
}

/// Waits until the gateway holds no more than before; the last sample if it never does.
async fn wait_released(stack: &mut TestStack, before: HeldResources) -> HeldResources {
    let until = Instant::now() + RELEASED_WITHIN;
    loop {
        let after = resources_held(stack).await;
        let settled = after.threads == before.threads
            && after.subscribers == 0
            && after.descriptors <= before.descriptors + DESCRIPTORS_MORE;
        if settled || Instant::now() > until {
            return after;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn assert_no_worse(report: &ProbeReport, idle: &ProbeReport) {
    let failed: Vec<&PageProbe> = report.probes.iter().filter(|probe| probe.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{report}\n{failed:#?}");
    let limit = FLOOR.max(idle.quantile(0.99) * 5);
    assert!(report.quantile(0.99) <= limit, "idle: {idle}\nthen: {report}");
    assert!(report.probes.len() > 50, "probed throughout: {report}");
}
