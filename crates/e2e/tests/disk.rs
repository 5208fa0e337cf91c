//! What can happen to a store, in short; `scripts/torture cuts|calls|damage|images` has the long forms.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{path::PathBuf, time::Duration};

use e2e::{disk, disk::FailingCall, log_line};

/// Daemons at the same time.
const CONCURRENCY: usize = 4;

/// The folder for stores with a fault.
fn keep(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().join("faulty-stores").join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_of_power_every_announced_event_is_there_once() {
    let options = disk::CutOptions {
        articles: disk::Articles::Mixed,
        points: 20,
        seed: fastrand::u64(..1 << 32),
        concurrency: CONCURRENCY,
        phase: Duration::from_secs(3),
        keep: keep("cuts"),
    };
    let summary = disk::cut_recorded_stores(&options).await.unwrap();
    log_line(&format!("{summary:?}"));
    assert_eq!(summary.cuts, options.points);
    assert!(summary.announced > 500 && summary.cuts_after_announcements > options.points / 2, "{summary:?}");
    assert!(summary.files_removed > 0, "retention has removed no file: {summary:?}");
    assert_eq!(summary.faults, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_call_to_the_disk_ends_the_daemon_with_its_cause_and_loses_nothing() {
    let often = [1, 2, 3, 5, 8, 13, 21, 34, 55];
    let calls = [
        ("write", &often[..]),
        ("sync", &often[..]),
        ("short", &often[..4]),
        ("create", &often[..4]),
        ("rename", &often[..2]),
        ("unlink", &often[..2]),
    ];
    let calls: Vec<_> = calls
        .into_iter()
        .flat_map(|(kind, numbers)| numbers.iter().map(move |number| (kind, *number)))
        .enumerate()
        // The disk is full, or has an error, in turn.
        .map(|(n, (kind, number))| FailingCall { kind, number, is_full: n % 2 == 0, and_later: n % 2 == 0 })
        .collect();
    let failing = disk::FailingCalls::prepare(keep("calls")).await.unwrap();
    let summary = failing.fail(&calls, CONCURRENCY).await.unwrap();
    log_line(&format!("{summary:?}"));
    assert_eq!(summary.faults, [""; 0]);
    assert_eq!(summary.failed + summary.not_reached, calls.len());
    assert!(summary.ended > calls.len() / 3, "{summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_costs_what_is_damaged_and_is_never_silent() {
    let options = disk::DamageOptions {
        flips: 16,
        cuts: 4,
        zeroed: 4,
        deletes: true,
        seed: fastrand::u64(..1 << 32),
        concurrency: CONCURRENCY,
        keep: keep("damage"),
    };
    log_line(&format!("seed {}", options.seed));
    let summary = disk::damage_stores(&options).await.unwrap();
    log_line(&format!("{summary:?}"));
    assert!(summary.outcomes.values().sum::<usize>() > options.flips + options.cuts + options.zeroed);
    assert_eq!(summary.faults, [""; 0]);
}
