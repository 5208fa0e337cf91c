//! The limiter on paused time: limits, spacing, preemption.

use daemon::metrics::MetricsRegistry;
use futures_util::FutureExt as _;

use super::{
    super::memory::RESERVED_BYTES_MIN,
    super::scheduler::{PREEMPT_AFTER, SPACING_MAX},
    *,
};

/// More than these visits reserve.
const MEMORY: usize = 1 << 30;

fn limiter(in_flight: usize, host_in_flight: usize, spacing_s: u64) -> HostLimiter {
    let host_spacing = Duration::from_secs(spacing_s);
    let limits = VisitLimits { in_flight, host_in_flight, host_spacing, memory_bytes: MEMORY };
    HostLimiter::new(limits, IngestMetrics::register(&MetricsRegistry::new()))
}

fn host(name: &str) -> Host {
    Host::of(&format!("https://{name}/").parse().unwrap())
}

fn at(name: &str) -> Host {
    host(&format!("{name}.example"))
}

/// The test, while the timers run.
async fn timed<T>(limiter: &HostLimiter, test: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        result = test => result,
        () = limiter.clone().run_timers() => unreachable!(),
    }
}

async fn preempted(permit: &mut VisitPermit) {
    std::future::poll_fn(|cx| permit.poll_preempted(cx)).await;
}

fn text(queued: &QueuedVisit) -> String {
    queued.wait_status().text().unwrap_or_default()
}

use Priority::{Normal, Probation};

#[tokio::test(start_paused = true)]
async fn a_host_gets_two_visits_at_a_time_and_one_a_second() {
    let limiter = limiter(100, 2, 1);
    timed(&limiter, async {
        let start = Instant::now();
        let first = limiter.enqueue(&at("a"), Normal).await;
        let _second = limiter.enqueue(&at("a"), Normal).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        let mut third = limiter.enqueue(&at("a"), Normal);
        assert!((&mut third).now_or_never().is_none(), "two are in progress");
        assert_eq!(text(&third), "2 visits to a.example:443 in progress");
        let _other = limiter.enqueue(&at("b"), Normal).now_or_never().expect("another host is not concerned");
        drop(first);
        let _third = third.await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn names_of_one_registrable_domain_share_a_queue() {
    let limiter = limiter(100, 1, 0);
    let _first = limiter.enqueue(&host("news.bbc.co.uk"), Normal).now_or_never().unwrap();
    let second = limiter.enqueue(&host("www.bbc.co.uk"), Normal);
    assert_eq!(text(&second), "1 visit to bbc.co.uk in progress");
    assert!(limiter.enqueue(&host("www.itv.co.uk"), Normal).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn visits_that_wait_for_a_host_start_in_order_and_hold_no_slot() {
    let limiter = limiter(2, 1, 0);
    let first = limiter.enqueue(&at("a"), Normal).await;
    let (mut second, mut third) = (limiter.enqueue(&at("a"), Normal), limiter.enqueue(&at("a"), Normal));
    assert_eq!(limiter.in_flight(), 1);
    let _other = limiter.enqueue(&at("b"), Normal).now_or_never().expect("the queue of a holds no slot");
    drop(first);
    assert!((&mut third).now_or_never().is_none());
    let second = (&mut second).now_or_never().expect("it came first");
    drop(second);
    assert!(third.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_leaves_the_queue_delays_no_other() {
    let limiter = limiter(2, 1, 0);
    let first = limiter.enqueue(&at("a"), Normal).await;
    let second = limiter.enqueue(&at("a"), Normal);
    let third = limiter.enqueue(&at("a"), Normal);
    drop(second);
    drop(first);
    assert!(third.now_or_never().is_some());
    assert_eq!(limiter.in_flight(), 0, "a permit that was not taken is released");
}

#[tokio::test(start_paused = true)]
async fn sources_on_probation_hold_at_most_a_quarter_of_the_slots() {
    let limiter = limiter(8, 1, 0);
    let _one = limiter.enqueue(&at("a"), Probation).await;
    let two = limiter.enqueue(&at("b"), Probation).await;
    let mut third = limiter.enqueue(&at("c"), Probation);
    assert!((&mut third).now_or_never().is_none());
    assert_eq!(text(&third), "all 2 slots for sources that did not answer lately in use");
    let mut normal = Vec::new();
    for n in 0..6 {
        let queued = limiter.enqueue(&at(&format!("host{n}")), Normal);
        normal.push(queued.now_or_never().expect("slots for the others"));
    }
    assert_eq!(limiter.in_flight(), 8);
    let waits = limiter.enqueue(&at("d"), Normal);
    assert_eq!(text(&waits), "all 8 slots in use");
    drop(two);
    assert!(waits.now_or_never().is_none(), "the one that waited longer comes first");
    assert!(third.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_source_on_probation_that_waits_for_a_slot_does_not_block_its_host() {
    let limiter = limiter(4, 1, 0);
    let _one = limiter.enqueue(&at("a"), Probation).await;
    let mut on_probation = limiter.enqueue(&at("b"), Probation);
    assert!((&mut on_probation).now_or_never().is_none());
    let normal = limiter.enqueue(&at("b"), Normal);
    assert!(normal.now_or_never().is_some(), "a source of normal priority at the same host goes ahead");
}

#[tokio::test(start_paused = true)]
async fn a_429_doubles_the_spacing_of_a_host_and_success_narrows_it_slowly() {
    let limiter = limiter(8, 2, 1);
    timed(&limiter, async {
        let spacing = async || {
            drop(limiter.enqueue(&at("a"), Normal).await);
            let start = Instant::now();
            drop(limiter.enqueue(&at("a"), Normal).await);
            start.elapsed()
        };
        assert_eq!(spacing().await, Duration::from_secs(1));
        for _ in 0..2 {
            limiter.report(&at("a"), HostFeedback::TooManyRequests(None));
        }
        assert_eq!(spacing().await, Duration::from_secs(4));
        limiter.report(&at("a"), HostFeedback::Served);
        assert_eq!(spacing().await, Duration::from_millis(3600));
        for _ in 0..50 {
            limiter.report(&at("a"), HostFeedback::Served);
        }
        assert_eq!(spacing().await, Duration::from_secs(1), "and never below what is configured");
        for _ in 0..50 {
            limiter.report(&at("a"), HostFeedback::TooManyRequests(None));
        }
        assert_eq!(spacing().await, SPACING_MAX);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_429_with_retry_after_holds_the_whole_host_and_is_shown() {
    let limiter = limiter(8, 2, 0);
    timed(&limiter, async {
        let (start, asked) = (Instant::now(), Duration::from_secs(900));
        limiter.report(&host("one.example.org"), HostFeedback::TooManyRequests(Some(asked)));
        let queued = limiter.enqueue(&host("two.example.org"), Normal);
        assert_eq!(text(&queued), "example.org asked for a pause of 15m (429)");
        let _permit = queued.await;
        assert_eq!(start.elapsed(), asked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_private_host_is_held_like_a_public_one_and_its_other_ports_are_not() {
    let limiter = limiter(8, 2, 0);
    timed(&limiter, async {
        for (feedback, asked) in [
            (HostFeedback::TooManyRequests(Some(Duration::from_secs(7200))), Duration::from_secs(7200)),
            (HostFeedback::Busy(Duration::from_secs(7200)), BUSY_PAUSE_MAX),
        ] {
            for private in ["127.0.0.21", "[::1]", "[fd00::7]", "192.168.1.9", "localhost", "bridge"] {
                let start = Instant::now();
                limiter.report(&host(&format!("{private}:9701")), feedback);
                let queued = limiter.enqueue(&host(&format!("{private}:9701")), Normal);
                assert!(text(&queued).starts_with(&format!("{private}:9701 asked for a pause of")));
                let other_port = limiter.enqueue(&host(&format!("{private}:9702")), Normal);
                drop(other_port.now_or_never().expect("another service of the same machine"));
                drop(queued.await);
                assert_eq!(start.elapsed(), asked, "{private}");
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_hangs_is_preempted_when_others_wait_for_its_slot() {
    let limiter = limiter(4, 1, 0);
    timed(&limiter, async {
        let mut hanging = Vec::new();
        for n in 0..4 {
            hanging.push(limiter.enqueue(&at(&format!("host{n}")), Normal).await);
        }
        let mut pinned = hanging.remove(1);
        pinned.pin();
        let start = Instant::now();
        let queued = limiter.enqueue(&at("b"), Normal);
        preempted(&mut hanging[0]).await;
        assert_eq!(start.elapsed(), PREEMPT_AFTER);
        assert!(
            preempted(&mut hanging[1]).now_or_never().is_none(),
            "one slot is missing, one visit is preempted"
        );
        assert!(preempted(&mut pinned).now_or_never().is_none());
        drop(hanging.remove(0));
        let _permit = queued.now_or_never().expect("its slot is free");
        assert_eq!(limiter.in_flight(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_memory_says_so_and_begins_when_there_is_some() {
    let limiter = limiter(100, 1, 0);
    let limits = VisitLimits {
        in_flight: 100,
        host_in_flight: 1,
        host_spacing: Duration::ZERO,
        memory_bytes: 2 * RESERVED_BYTES_MIN,
    };
    limiter.set_limits(limits);
    timed(&limiter, async {
        let first = limiter.enqueue(&at("a"), Normal).await;
        let second = limiter.enqueue(&at("b"), Normal).await;
        let mut third = limiter.enqueue(&at("c"), Normal);
        assert!((&mut third).now_or_never().is_none(), "two visits use all of it");
        assert_eq!(
            text(&third),
            "bodies, documents and the queue to the disk use all 524288 bytes (fetch.memory_bytes)"
        );
        let waits = limiter.0.metrics.waits.get_or_create(&[("for", "memory")]).get();
        assert_eq!(waits, 1);
        let mut fourth = limiter.enqueue(&at("d"), Normal);
        // Its document is still on its way to the disk, on another thread.
        let document = first.memory();
        drop(first);
        assert!((&mut third).now_or_never().is_none(), "a slot is no memory");
        std::thread::spawn(move || drop(document)).join().unwrap();
        let third = third.await;
        assert!((&mut fourth).now_or_never().is_none());
        limiter.set_limits(VisitLimits { memory_bytes: MEMORY, ..limits });
        let _fourth = fourth.await;
        drop((second, third));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_whose_document_arrives_is_not_preempted_and_another_one_is() {
    let limiter = limiter(2, 1, 0);
    timed(&limiter, async {
        let mut arriving = limiter.enqueue(&at("a"), Normal).await;
        let mut hanging = limiter.enqueue(&at("b"), Normal).await;
        let _queued = limiter.enqueue(&at("c"), Normal);
        assert!(arriving.memory().grow_to(2 * RESERVED_BYTES_MIN).is_none());
        let start = Instant::now();
        tokio::select! {
            () = std::future::poll_fn(|cx| arriving.poll_preempted(cx)) => panic!("a large document takes its time"),
            () = std::future::poll_fn(|cx| hanging.poll_preempted(cx)) => {}
        }
        assert_eq!(start.elapsed(), PREEMPT_AFTER);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_waits_for_memory_gives_way_to_one_that_may_need_little() {
    let limiter = limiter(3, 1, 0);
    timed(&limiter, async {
        let mut large = limiter.enqueue(&at("a"), Normal).await;
        let mut waiting = limiter.enqueue(&at("b"), Normal).await;
        let mut other = limiter.enqueue(&at("c"), Normal).await;
        let _queued = limiter.enqueue(&at("d"), Normal);
        assert!(large.memory().grow_to(2 * MEMORY).is_none(), "it goes beyond the budget");
        let memory = waiting.memory();
        let _waits = memory.grow_to(2 * RESERVED_BYTES_MIN).expect("there is no room");
        tokio::select! {
            biased;
            () = std::future::poll_fn(|cx| large.poll_preempted(cx)) => panic!("it has its memory"),
            () = std::future::poll_fn(|cx| waiting.poll_preempted(cx)) => {}
            () = std::future::poll_fn(|cx| other.poll_preempted(cx)) => panic!("the oldest comes first"),
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_without_visits_is_removed_unless_its_429s_led_to_a_spacing() {
    let limiter = limiter(8, 1, 1);
    let hosts = || limiter.0.scheduler.borrow().hosts();
    let permit = limiter.enqueue(&at("a"), Normal).await;
    limiter.remove_idle_hosts();
    assert_eq!(hosts(), 1);
    drop(permit);
    limiter.remove_idle_hosts();
    assert_eq!(hosts(), 1, "its spacing still counts");
    limiter.report(&at("b"), HostFeedback::TooManyRequests(None));
    tokio::time::advance(Duration::from_secs(2)).await;
    limiter.remove_idle_hosts();
    assert_eq!(hosts(), 1, "b is remembered");
}

#[tokio::test(start_paused = true)]
async fn other_limits_apply_to_waiting_visits_and_leave_those_in_progress_alone() {
    let limiter = limiter(2, 1, 10);
    let set_limits = |in_flight, host_in_flight, spacing_s| {
        let host_spacing = Duration::from_secs(spacing_s);
        limiter.set_limits(VisitLimits { in_flight, host_in_flight, host_spacing, memory_bytes: MEMORY });
    };
    timed(&limiter, async {
        let start = Instant::now();
        let first = limiter.enqueue(&at("a"), Normal).await;
        let mut second = limiter.enqueue(&at("a"), Normal);
        let other = limiter.enqueue(&at("b"), Normal).await;
        let mut third = limiter.enqueue(&at("c"), Normal);
        assert!((&mut third).now_or_never().is_none(), "two slots, and both are in use");
        set_limits(3, 1, 10);
        let third = (&mut third).now_or_never().expect("there is a third slot now");
        drop((other, third));
        assert!((&mut second).now_or_never().is_none(), "one at a time");
        set_limits(3, 2, 3);
        assert_eq!(text(&second), "visits to a.example:443 start at least 3s apart");
        let second = second.await;
        assert_eq!(start.elapsed(), Duration::from_secs(3), "counted from the start of the one before");

        set_limits(1, 2, 0);
        assert_eq!(limiter.in_flight(), 2, "no visit is cancelled");
        let mut fourth = limiter.enqueue(&at("d"), Normal);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none(), "one slot, and it is in use");
        drop(second);
        assert!(fourth.now_or_never().is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_spacing_keeps_the_longer_one_of_a_host() {
    let limiter = limiter(10, 10, 1);
    timed(&limiter, async {
        limiter.enqueue(&at("a"), Normal).await;
        for _ in 0..3 {
            limiter.report(&at("a"), HostFeedback::TooManyRequests(None));
        }
        let host_spacing = Duration::from_secs(2);
        let limits = VisitLimits { in_flight: 10, host_in_flight: 10, host_spacing, memory_bytes: MEMORY };
        limiter.set_limits(limits);
        let waits = limiter.enqueue(&at("a"), Normal);
        assert_eq!(text(&waits), "visits to a.example:443 start at least 8s apart");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_recording_is_paused_no_visit_begins_and_those_under_way_are_not_preempted() {
    use news::RecordingPauseReason::{DiskInodes, DiskSpace};
    let limiter = limiter(2, 1, 0);
    timed(&limiter, async {
        let mut long = limiter.enqueue(&at("a"), Normal).await;
        let other = limiter.enqueue(&at("b"), Normal).await;
        let mut for_slot = limiter.enqueue(&at("c"), Normal);
        assert_eq!(text(&for_slot), "all 2 slots in use");
        limiter.set_paused(Some(DiskSpace));
        let mut due = limiter.enqueue(&at("d"), Normal);
        let paused = "recording is paused: the disk of the store is nearly full";
        assert_eq!([text(&for_slot), text(&due)], [paused, paused]);
        tokio::time::sleep(100 * PREEMPT_AFTER).await;
        assert!(preempted(&mut long).now_or_never().is_none(), "no visit could have its slot");
        drop(other);
        assert!((&mut for_slot).now_or_never().is_none(), "although a slot is free");
        let redirect = limiter.enqueue_hop(&at("d"), Normal, Some(long.ticket())).now_or_never();
        assert!(redirect.flatten().is_some(), "a visit under way goes on where a redirect leads");
        limiter.set_paused(Some(DiskInodes));
        assert!(text(&due).contains("inodes"), "{}", text(&due));
        limiter.set_paused(None);
        let first = for_slot.now_or_never().expect("it has waited longest, for the only slot");
        assert!((&mut due).now_or_never().is_none());
        drop(first);
        due.await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_recording_does_not_end_the_pause_of_a_host() {
    let limiter = limiter(8, 8, 0);
    timed(&limiter, async {
        let start = Instant::now();
        limiter.set_paused(Some(news::RecordingPauseReason::DiskSpace));
        limiter.hold(&at("a"), 429, Duration::from_secs(30));
        let visit = limiter.enqueue(&at("a"), Normal);
        tokio::time::sleep(Duration::from_secs(10)).await;
        limiter.set_paused(None);
        assert_eq!(text(&visit), "a.example:443 asked for a pause of 30s (429)");
        visit.await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    })
    .await;
}
