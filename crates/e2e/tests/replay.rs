//! Replays what froze the system that this one replaces: 20 feeds, 5 of them silent for minutes; one, five and a hundred
//! streams aborted. There, one aborted stream kept `/` and `/health` from answering for 254 s, five for 513 s.
//!
//! Time is compared with a twin in the same run: a second gateway, which serves no other client and whose daemon has no feeds.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, time::Duration};

use e2e::{
    Behaviour, Binary, DocumentFormat, LatencyControl, LatencyReport, Origin, TestSource, TestStack, http,
    http::{Address, RawResponse},
    log_line, wait_for,
};
use tokio::time::{Instant, sleep};

const FEEDS: usize = 20;
/// The first ones are silent.
const SILENT: usize = 5;
/// Duration of the silence: longer than all probes take on a busy machine.
const SILENCE: Duration = Duration::from_secs(120);
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Deadline for the gateway to release the resources of disconnected clients; only a leak reaches it.
const RELEASED_WITHIN: Duration = Duration::from_secs(60);
/// Descriptors by which two samples may differ: a probe of this test, and the wire.
const DESCRIPTORS_MORE: usize = 2;
/// Threads likewise: those of the blocking pool come and go. A leak would be one for each of 106 streams.
const THREADS_MORE: usize = 2;

/// Resources of the gateway.
#[derive(Clone, Copy, Debug)]
struct HeldResources {
    threads: usize,
    descriptors: usize,
    subscribers: u64,
}

impl HeldResources {
    /// Whether `after` holds no more, as far as two samples can tell.
    fn allows(self, after: Self) -> bool {
        after.subscribers == 0
            && after.threads <= self.threads + THREADS_MORE
            && after.descriptors <= self.descriptors + DESCRIPTORS_MORE
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_scenario_of_aborted_streams_and_silent_feeds_delays_no_probe_and_leaks_nothing() {
    let origin = Origin::start().await.unwrap();
    let sources = feeds(&origin);
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the silence early.
    stack.set("fetch.timeout_total", "\"150s\"");
    let began = Instant::now();
    stack.start_both().await.unwrap();
    let all_requested = async || (pending_requests(&origin) == SILENT).then_some(());
    wait_for("requests to the silent feeds", SILENCE / 2, all_requested).await.unwrap();
    let mut idle = TestStack::new(&[]).unwrap();
    idle.start_both().await.unwrap();
    let twin = idle.gateway();

    let none = probes(&stack, &twin, 8, 0).await;
    let before = resources_held(&mut stack).await;
    let one = probes(&stack, &twin, 10, 1).await;
    let five = probes(&stack, &twin, 15, SILENT).await;
    assert!(began.elapsed() < SILENCE, "the feeds were silent throughout, for {:?}", began.elapsed());
    assert_eq!(pending_requests(&origin), SILENT, "every silent feed still has a pending request");
    for report in [none, one, five] {
        report.check().unwrap();
    }

    for _ in 0..10 {
        let streams = open(&stack, 10).await;
        drop(streams);
    }
    let after = wait_released(&mut stack, before).await;
    log_line(&format!("before {before:?}, after 106 aborts {after:?}"));
    assert!(before.allows(after), "{before:?} became {after:?}");
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

/// Probes for `lasted` seconds while that many streams are opened and aborted.
async fn probes(stack: &TestStack, twin: &Address, lasted: u64, count: usize) -> LatencyReport {
    let control = LatencyControl::start(&stack.gateway(), twin, PROBE_EVERY).unwrap();
    let until = Instant::now() + Duration::from_secs(lasted);
    open_and_abort(stack, count).await;
    tokio::time::sleep_until(until).await;
    let report = tokio::task::spawn_blocking(|| control.stop()).await.unwrap();
    log_line(&format!("{count} streams aborted after 3 s: {report}"));
    assert!(report.count() as u64 > lasted, "probed throughout: {report}");
    report
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
        if before.allows(after) || Instant::now() > until {
            return after;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
