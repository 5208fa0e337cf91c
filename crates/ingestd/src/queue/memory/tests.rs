//! The budget on paused time, and against a model.

use std::{cell::RefCell, time::Duration};

use daemon::metrics::MetricsRegistry;
use futures_util::{FutureExt as _, future::join_all};
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::status::metrics::IngestMetrics;

const MIB: usize = 1 << 20;

fn budget(max: usize) -> (MemoryBudget, MetricsRegistry) {
    let registry = MetricsRegistry::new();
    let metrics = IngestMetrics::register(&registry);
    (MemoryBudget::new(max, metrics.memory), registry)
}

impl MemoryBudget {
    fn used(&self) -> usize {
        self.shares().used
    }
}

#[tokio::test(start_paused = true)]
async fn no_visit_begins_without_room_and_one_always_does() {
    let (budget, _) = budget(MIB);
    let mut shares: Vec<_> = (0..4).map(|_| budget.admit(true)).collect();
    assert!(!budget.has_room());
    shares.pop();
    assert!(budget.has_room());
    budget.room().now_or_never().expect("the limiter is told");
    drop(shares);
    budget.set_max(1);
    assert!(budget.has_room(), "nothing is in use");
    let _share = budget.admit(true);
    assert!(!budget.has_room());
}

#[tokio::test(start_paused = true)]
async fn the_oldest_visit_goes_first_and_may_go_beyond_the_budget() {
    let (budget, _) = budget(8 * MIB);
    let (first, second, third) = (budget.admit(true), budget.admit(true), budget.admit(true));
    assert!(third.grow_to(3 * MIB).is_none(), "there is room");
    assert!(second.grow_to(8 * MIB).is_none(), "it is the oldest of those that need more");
    let mut first_waits = first.grow_to(6 * MIB).expect("another one is beyond the budget");
    let mut third_waits = third.grow_to(4 * MIB).expect("as well");
    assert!(second.grow_to(9 * MIB).is_none(), "the visit that is beyond it never waits");
    assert!(budget.has_room(), "it takes nothing from those that need little");
    drop(second);
    assert!((&mut first_waits).now_or_never().is_some(), "the older one, and it goes beyond the budget");
    assert!((&mut third_waits).now_or_never().is_none());
    drop(first_waits);
    drop(first);
    assert!((&mut third_waits).now_or_never().is_some());
    drop(third_waits);
    drop(third);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_visit_that_waits_for_another_host_reserves_nothing_and_has_one_share_again_afterwards() {
    let (budget, _) = budget(MIB);
    let visit = budget.admit(true);
    visit.give_back();
    assert_eq!((visit.bytes(), budget.used()), (0, 0));
    let request = budget.admit(true);
    visit.take_over(&request);
    drop(request);
    assert_eq!((visit.bytes(), budget.used()), (RESERVED_BYTES_MIN, RESERVED_BYTES_MIN));
    assert!(!visit.has_grown(), "it has needed nothing so far");
    drop(visit);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_is_cancelled_keeps_no_other_waiting() {
    let (budget, _) = budget(4 * MIB);
    let [first, second, third, beyond] = [(); 4].map(|()| budget.admit(true));
    assert!(beyond.grow_to(6 * MIB).is_none());
    let first_waits = first.grow_to(3 * MIB).unwrap();
    let mut second_waits = second.grow_to(MIB).unwrap();
    let mut third_waits = third.grow_to(MIB).unwrap();
    drop(first_waits);
    drop(first);
    drop(beyond);
    assert!((&mut second_waits).now_or_never().is_some(), "the one that waited before it is gone");
    assert!((&mut third_waits).now_or_never().is_some(), "there is room for both");
    drop(second_waits);
    drop(third_waits);
    drop((second, third));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_visit_reserves_what_the_last_ones_needed() {
    let (budget, _) = budget(64 * MIB);
    for _ in 0..50 {
        let share = budget.admit(true);
        share.grow_to(3 * MIB);
        share.use_for(MemoryPart::Queue, MIB);
    }
    assert!((2 * MIB..=3 * MIB).contains(&budget.admit(true).bytes()), "no burst of visits that then wait");
    assert_eq!(
        budget.admit(false).bytes(),
        RESERVED_BYTES_MIN,
        "sources that may hang keep none from others"
    );
    for _ in 0..80 {
        budget.admit(true);
    }
    assert_eq!(budget.admit(true).bytes(), RESERVED_BYTES_MIN, "they had no document");
    for _ in 0..80 {
        budget.admit(true).grow_to(60 * MIB);
    }
    assert_eq!(budget.admit(true).bytes(), 4 * MIB, "a few visits at once are always possible");
}

#[tokio::test(start_paused = true)]
async fn a_few_large_bodies_leave_room_for_the_reservations_of_others_and_learn_that_they_are_waited_for() {
    let (budget, _) = budget(64 * MIB);
    let large: Vec<_> = (0..8).map(|_| budget.admit(false)).collect();
    for share in &large[..6] {
        assert!(share.grow_to(7 * MIB).is_none(), "there is room");
        assert!(!share.is_wanted(), "for all");
    }
    assert!(large[7].grow_to(24 * MIB).is_none(), "one goes beyond their part");
    let waits = large[0].grow_to(8 * MIB).expect("one only");
    let small: Vec<_> = std::iter::from_fn(|| budget.has_room().then(|| budget.admit(true))).collect();
    assert!(small.len() >= 16, "visits that fit into their reservation go on: {}", small.len());
    assert!(
        large[1].is_wanted() && !small[0].is_wanted(),
        "a large body is in the way of others, and no small one"
    );
    drop((waits, small));
    drop(large);
    assert_eq!(budget.used(), 0);
}

#[test]
fn small_visits_begin_while_many_large_ones_wait_and_one_is_beyond_the_budget() {
    let (budget, _) = budget(128 * MIB);
    let mut large: Vec<_> = (0..150).map(|_| budget.admit(true)).collect();
    // They arrive together, with a part each of more than they have reserved.
    let waits: Vec<_> = large.iter().filter_map(|share| share.grow_to(8 * MIB)).collect();
    assert!(waits.len() > 130, "few have room: {}", waits.len());
    let beyond = large.iter().find(|share| budget.shares().overdrawing == Some(share.ticket)).unwrap();
    assert!(beyond.grow_to(30 * MIB).is_none(), "for its parser");
    let small: Vec<_> =
        std::iter::from_fn(|| budget.has_room().then(|| budget.admit(true))).take(200).collect();
    assert!(small.len() >= 100, "{} small visits", small.len());
    assert!(small.iter().all(|share| share.grow_to(RESERVED_BYTES_MIN).is_none()));
    assert!(budget.used() <= (128 + 30) * MIB, "the budget and one visit: {}", budget.used());
    drop(waits);
    large.clear();
    drop(small);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_a_decoder_has_counts_at_once_and_is_free_again_after_it() {
    let (budget, _) = budget(8 * MIB);
    let (first, second) = (budget.admit(true), budget.admit(true));
    first.hold(9 * MIB);
    assert_eq!((first.bytes(), budget.used()), (9 * MIB, 9 * MIB + RESERVED_BYTES_MIN));
    first.hold(MIB);
    assert_eq!(first.bytes(), 9 * MIB, "the most so far");
    let mut waits = second.grow_to(MIB).expect("the budget is used up");
    first.shrink_to(1000);
    assert_eq!(first.bytes(), RESERVED_BYTES_MIN, "what is reserved stays");
    assert!((&mut waits).now_or_never().is_some(), "there is room again");
    drop(waits);
    drop((second, first));
    assert_eq!(budget.used(), 0);
}

#[test]
fn small_visits_begin_whatever_decoders_have() {
    let (budget, _) = budget(8 * MIB);
    let stalled: Vec<_> = (0..4).map(|_| budget.admit(true)).collect();
    for share in &stalled {
        share.hold(8 * MIB);
    }
    let small: Vec<_> =
        std::iter::from_fn(|| budget.has_room().then(|| budget.admit(true))).take(100).collect();
    assert_eq!(small.iter().map(MemoryShare::bytes).sum::<usize>(), 2 * MIB, "a quarter of the budget");
    drop(small);
    drop(stalled);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_metrics_show_what_is_in_use_by_part() {
    let (budget, registry) = budget(MIB);
    let (share, other) = (budget.admit(true), budget.admit(true));
    share.use_for(MemoryPart::Document, 1000);
    other.use_for(MemoryPart::Queue, 2 * MIB);
    let _waits = share.grow_to(2000).map(|_| ());
    let text = registry.encode();
    for line in [
        "newswire_ingestd_memory_bytes{part=\"body\"} 0",
        "newswire_ingestd_memory_bytes{part=\"document\"} 2000",
        "newswire_ingestd_memory_bytes{part=\"queue\"} 2097152",
        "newswire_ingestd_memory_bytes_max 1048576",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    drop((share, other));
    assert!(registry.encode().contains("newswire_ingestd_memory_bytes{part=\"queue\"} 0"));
}

/// What a visit of the model does, one after the other: grows by so many bytes, or waits so many milliseconds for its server.
#[derive(Clone, Debug)]
struct ModelVisit {
    starts_ms: u64,
    steps: Vec<(usize, u64)>,
    queued_ms: u64,
    /// Cancelled after that time, as a preempted visit is.
    cancelled_ms: Option<u64>,
}

fn model_visit() -> impl Strategy<Value = ModelVisit> {
    let steps = prop::collection::vec((1..3 * MIB, 0..50_u64), 0..6);
    (0..200_u64, steps, 0..100_u64, prop::option::weighted(0.1, 0..100_u64)).prop_map(
        |(starts_ms, steps, queued_ms, cancelled_ms)| ModelVisit {
            starts_ms,
            steps,
            queued_ms,
            cancelled_ms,
        },
    )
}

/// What was seen of the budget.
#[derive(Default)]
struct Observed {
    most: usize,
    ended: usize,
}

impl Observed {
    fn use_is(&mut self, bytes: usize) {
        self.most = self.most.max(bytes);
    }
}

async fn run_visit(budget: &MemoryBudget, visit: &ModelVisit, observed: &RefCell<Observed>) {
    sleep(Duration::from_millis(visit.starts_ms)).await;
    while !budget.has_room() {
        // The limiter asks when it is told, this visit every millisecond.
        sleep(Duration::from_millis(1)).await;
    }
    let share = budget.admit(true);
    let work = async {
        let mut bytes = 0;
        for (more, server_ms) in &visit.steps {
            bytes += more;
            let before = budget.used();
            if let Some(room) = share.grow_to(bytes) {
                assert!(before > budget.shares().grown_max(), "there is nothing to wait for");
                room.await;
            } else if budget.used() > before {
                let shares = budget.shares();
                let beyond = shares.overdrawing == Some(share.ticket);
                assert!(beyond || shares.waiting.is_empty(), "others wait, and this one does not");
            }
            assert!(share.bytes() >= bytes);
            observed.borrow_mut().use_is(budget.used());
            sleep(Duration::from_millis(*server_ms)).await;
        }
        share.use_for(MemoryPart::Queue, bytes / 2);
        sleep(Duration::from_millis(visit.queued_ms)).await;
    };
    let limit = Duration::from_millis(visit.cancelled_ms.unwrap_or(u64::from(u32::MAX)));
    tokio::time::timeout(limit, work).await.ok();
    observed.borrow_mut().ended += 1;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_budget_never_deadlocks_and_the_oldest_goes_first(
        visits in prop::collection::vec(model_visit(), 1..40),
        max in MIB..8 * MIB,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (budget, _) = budget(max);
            let observed = RefCell::new(Observed::default());
            let run = join_all(visits.iter().map(|visit| run_visit(&budget, visit, &observed)));
            let longest: u64 = visits.iter().map(|v| v.queued_ms + v.steps.iter().map(|s| s.1).sum::<u64>()).sum();
            // One after the other at worst.
            let limit = Duration::from_millis(longest + 1000 + visits.len() as u64);
            tokio::time::timeout(limit, run).await.expect("no visit waits for ever");
            let Observed { most, ended } = observed.into_inner();
            prop_assert_eq!(ended, visits.len());
            prop_assert_eq!(budget.used(), 0);
            let largest: usize = visits.iter().map(|v| v.steps.iter().map(|s| s.0).sum()).max().unwrap_or(0);
            prop_assert!(most <= max + largest, "{most} of {max}, the largest has {largest}");
            Ok(())
        })?;
    }
}
