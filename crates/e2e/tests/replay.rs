//! What froze the replaced system, run here: 20 feeds of which 5 are silent for 60 s, a stream aborted, five aborted, a
//! hundred aborted. There one aborted stream kept `/` and `/health` from answering for 254 s, and five for 513 s.
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
/// The first so many are silent.
const SILENT: usize = 5;
/// For so long.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A 99th percentile below this is no worse than idle on a machine that others use too.
const FLOOR: Duration = Duration::from_millis(100);
/// How long the gateway may take to let go of what clients have left.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// Descriptors that may differ between two looks: a probe of our own, and the wire.
const DESCRIPTORS_MORE: usize = 2;

/// What the gateway holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
    subscribers: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_scenario_of_aborted_streams_and_silent_feeds_delays_no_probe_and_leaks_nothing() {
    let origin = Origin::start().await.unwrap();
    let sources = feeds(&origin);
    let mut stack = TestStack::new(&sources).unwrap();
    // No deadline of ours ends the silence early.
    stack.set("fetch.timeout_total", "\"90s\"");
    let began = Instant::now();
    stack.start_both().await.unwrap();
    let all_asked = async || (asked_in_vain(&origin) == SILENT).then_some(());
    wait_for("the silent feeds to be asked", Duration::from_secs(10), all_asked).await.unwrap();

    let idle = probes(&stack, Duration::from_secs(8), async || {}).await;
    log_line(&format!("idle: {idle}"));
    let before = held(&mut stack).await;
    let one = probes(&stack, Duration::from_secs(10), async || open_and_abort(&stack, 1).await).await;
    log_line(&format!("1 stream aborted after 3 s: {one}"));
    let five = probes(&stack, Duration::from_secs(15), async || open_and_abort(&stack, SILENT).await).await;
    log_line(&format!("5 streams aborted after 3 s: {five}"));
    assert!(began.elapsed() < SILENCE, "the feeds were silent all the while, for {:?}", began.elapsed());
    assert_eq!(asked_in_vain(&origin), SILENT, "every silent feed is still waited for");
    for report in [&one, &five] {
        assert_no_worse(report, &idle);
    }

    for _ in 0..10 {
        let streams = open(&stack, 10).await;
        drop(streams);
    }
    let after = settled(&mut stack, before).await;
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

/// Silent feeds with a visit that has no answer yet.
fn asked_in_vain(origin: &Origin) -> usize {
    let waits = |number: &usize| {
        let requests = origin.requests(&format!("feed-{number}"));
        requests.last().is_some_and(|request| request.answered.is_none())
    };
    (0..SILENT).filter(waits).count()
}

/// Probes for that long, from before the work begins.
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

/// Streams that have begun; dropping one hangs up in the middle.
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

async fn held(stack: &mut TestStack) -> Held {
    let id = stack.process(Binary::Gateway).unwrap().id();
    let count = |what: &str| fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count();
    let (threads, descriptors) = (count("task"), count("fd"));
    let subscribers = stack.json("/health").await.unwrap()["clients"].as_u64().unwrap();
    Held { threads, descriptors, subscribers }
}

/// The first look at which it holds no more than before, or the last one.
async fn settled(stack: &mut TestStack, before: Held) -> Held {
    let until = Instant::now() + SETTLED_WITHIN;
    loop {
        let after = held(stack).await;
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
    assert!(report.probes.len() > 50, "probed all the while: {report}");
}
