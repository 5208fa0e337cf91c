//! Bodies whose caller has a budget for them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fetch::{ByteBudget, FailureClass, Policy, RoomWait, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};

use crate::{
    NOW_MS,
    bodies::{gzip, head},
    class, failure, full,
    origin::*,
    policy,
};

/// Lets every body wait that long for each step, and remembers what was asked for.
#[derive(Debug, Default)]
struct SlowBudget {
    wait: Duration,
    asked: Mutex<Vec<usize>>,
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
    // Never more than the longest body.
    let strict = Policy { body_bytes_max: 1_000_000, ..policy() };
    let budget = SlowBudget::default();
    let visit = visit(strict, &origin.url("/"), &budget).await;
    assert_eq!(class(&visit), FailureClass::TooLarge, "{}", failure(&visit));
    assert!(budget.asked().iter().all(|bytes| *bytes <= 1_000_000), "{:?}", budget.asked());
}
