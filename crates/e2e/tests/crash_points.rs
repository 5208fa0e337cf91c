//! Death of the ingestion daemon at every crash point. The programs are those of `scripts/drill --build`.
//!
//! `scripts/torture crash` does the same for minutes, with the release build, at later passings of each point.

use std::collections::BTreeSet;

use e2e::crash_sweep::{CrashCause, sweep};

async fn sweep_all(cause: CrashCause, times: u64) {
    sweep(cause, cause.steps(), |_| times).await.expect("nothing is lost, and every step is reached");
}

#[test]
fn the_sweep_leaves_no_crash_point_out() {
    let swept: Vec<_> = CrashCause::ALL.iter().flat_map(|cause| cause.steps()).copied().collect();
    let all = BTreeSet::from(store::crash::ALL);
    assert_eq!(swept.iter().copied().collect::<BTreeSet<_>>(), all);
    assert_eq!(swept.len(), all.len(), "each of them once");
}

#[tokio::test]
async fn a_death_at_any_step_of_a_commit_loses_nothing() {
    sweep_all(CrashCause::Items, 2).await;
}

#[tokio::test]
async fn a_death_while_a_segment_begins_or_retention_removes_one_loses_nothing() {
    sweep_all(CrashCause::ManyItems, 1).await;
}

#[tokio::test]
async fn a_death_at_any_step_of_a_stop_loses_nothing() {
    sweep_all(CrashCause::Stop, 1).await;
}

#[tokio::test]
async fn a_death_while_a_torn_record_is_removed_loses_nothing() {
    sweep_all(CrashCause::TornRecord, 1).await;
}

#[tokio::test]
async fn a_death_while_a_damaged_database_is_rebuilt_loses_nothing() {
    sweep_all(CrashCause::DamagedDatabase, 1).await;
}

#[tokio::test]
async fn a_death_at_any_step_of_the_migration_loses_nothing() {
    sweep_all(CrashCause::OldStore, 1).await;
}

#[tokio::test]
async fn a_death_during_a_backup_of_the_running_store_loses_nothing() {
    sweep_all(CrashCause::Backup, 1).await;
}
