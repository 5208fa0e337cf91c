//! Bodies whose caller has a budget for them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fetch::{ByteBudget, FailureClass, Policy, RoomWait, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};

use crate::{
    NOW_MS,
    bodies::{gzip, head, zstd_spaces},
    class, failure, full,
    origin::*,
    policy,
};

/// Lets every body wait that long for each step, and remembers what was asked for.
#[derive(Debug, Default)]
struct SlowBudget {
    wait: Duration,
    is_wanted: bool,
    asked: Mutex<Vec<usize>>,
    /// The most that was held.
    held: AtomicUsize,
}

impl SlowBudget {
    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ByteBudget for SlowBudget {
    fn grow_to(&self, bytes: usize) -> RoomWait<'_> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        Box::pin(tokio::time::sleep(self.wait))
    }

    fn hold(&self, bytes: usize) {
        self.held.fetch_max(bytes, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted
    }
}

async fn visit(policy: Policy, url: &str, budget: &SlowBudget) -> fetch::FetchReport {
    let url = FeedUrl::try_new(url).unwrap();
    let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
    Visitor::try_new(policy).unwrap().visit(&VisitRequest { budget: Some(budget), ..request }).await
}

#[tokio::test]
async fn the_wait_for_room_is_neither_a_slow_body_nor_part_of_a_time_limit() {
    let strict = Policy {
        timeout_total: Duration::from_millis(1500),
        rate_grace: Duration::from_millis(1000),
        rate_bytes_min: 50_000_000,
        ..policy()
    };
    let slow = SlowBudget { wait: Duration::from_millis(1600), ..SlowBudget::default() };
    let origin = Origin::always(vec![head("Content-Length: 150000\r\n"), say([b' '; 150_000])]).await;
    let visit_it = visit(strict.clone(), &origin.url("/"), &slow).await;
    assert!(visit_it.timings.total > strict.timeout_total, "it did wait: {:?}", visit_it.timings);
    assert_eq!(full(visit_it).body.len(), 150_000);
    // A server that takes as long is stopped.
    let late = vec![
        head("Content-Length: 150000\r\n"),
        say([b' '; 100_000]),
        Step::Wait(Duration::from_millis(4000)),
        say([b' '; 50_000]),
    ];
    let late = Origin::always(late).await;
    let quick = SlowBudget::default();
    assert_eq!(class(&visit(strict, &late.url("/"), &quick).await), FailureClass::Timeout);
}

#[tokio::test]
async fn room_is_asked_for_before_the_body_has_it_and_after_decoding() {
    let body = vec![b' '; 3_000_000];
    let zipped = gzip(&body);
    assert!(zipped.len() < 50_000);
    let headers = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", zipped.len());
    let origin = Origin::always(vec![head(&headers), say(&zipped)]).await;
    let budget = SlowBudget::default();
    assert_eq!(full(visit(policy(), &origin.url("/"), &budget).await).body.len(), body.len());
    let asked = budget.asked();
    assert!(asked.is_sorted() && asked.last() >= Some(&body.len()), "{asked:?}");
    assert!(asked.len() < 30, "as much again each time: {asked:?}");
    // Never more than the longest body, and its decoder.
    let strict = Policy { body_bytes_max: 1_000_000, ..policy() };
    let budget = SlowBudget::default();
    let visit = visit(strict, &origin.url("/"), &budget).await;
    assert_eq!(class(&visit), FailureClass::TooLarge, "{}", failure(&visit));
    assert!(budget.asked().iter().all(|bytes| *bytes <= 1_100_000), "{:?}", budget.asked());
}

#[tokio::test]
async fn a_body_whose_memory_others_wait_for_must_arrive_and_not_only_drip() {
    let drip = || (0..60).flat_map(|_| [Step::Wait(Duration::from_millis(100)), say([b' '; 100])]);
    let body = [say([b' '; 100_000])].into_iter().chain(drip()).collect::<Vec<_>>();
    let steps = [head("Content-Length: 106000\r\n")].into_iter().chain(body).collect::<Vec<_>>();
    let origin = Origin::always(steps).await;
    let wanted = SlowBudget { is_wanted: true, ..SlowBudget::default() };
    let policy = Policy { rate_bytes_wanted: 16 * 1024, ..policy() };
    let stopped = visit(policy.clone(), &origin.url("/"), &wanted).await;
    assert_eq!(class(&stopped), FailureClass::Timeout);
    let message = &failure(&stopped).message;
    assert!(
        message.starts_with("the body arrived slower than 16384 bytes per second while other"),
        "{message}"
    );
    let alone = visit(policy, &origin.url("/"), &SlowBudget::default()).await;
    assert_eq!(full(alone).body.len(), 106_000, "nothing else waits");
}

#[tokio::test]
async fn what_a_decoder_has_counts_as_well_and_follows_the_document() {
    let gzip_spaces: fn(usize) -> Vec<u8> = |len| gzip(&vec![b' '; len]);
    for (coding, encode, window) in [("gzip", gzip_spaces, 64_000), ("zstd", zstd_spaces, 2_900_000)] {
        let held = async |len| {
            let body = encode(len);
            let headers = format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", body.len());
            let origin = Origin::always(vec![head(&headers), say(&body)]).await;
            let budget = SlowBudget::default();
            assert_eq!(full(visit(policy(), &origin.url("/"), &budget).await).body.len(), len, "{coding}");
            let asked = budget.asked().last().copied().unwrap_or_default();
            asked.max(budget.held.load(Ordering::Relaxed))
        };
        let (long, short) = (held(3_000_000).await, held(20_000).await);
        assert!(long >= 3_000_000 + window, "{coding}: {long}");
        assert!(long <= 2 * 3_000_000 + window + 500_000, "{coding}: {long}");
        assert!(short <= 256 * 1024, "{coding}: a short document fits into what is reserved: {short}");
    }
}
