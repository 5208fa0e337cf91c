//! Settings of sources that change while the daemon runs, on simulated time.

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use news::Source;

use super::{
    MONDAY_MS, Servers, SimulatedDaemon, directory,
    pacing::{RecordingServers, sources, state},
    simulate,
};

/// A source that is answered with `code`, whose settings change three times an hour later.
fn change_settings(code: u16) -> (news::SourceState, news::SourceState, usize) {
    let servers = RecordingServers::new(move |_, _, _| (code, String::new()));
    simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let network = Arc::clone(&servers) as Arc<dyn Servers>;
        let bounds = IntervalBounds::default();
        let daemon = SimulatedDaemon::start(directory.path(), &clock, network, bounds).await;
        let hours = |n: u64| Some(Duration::from_secs(3600 * n));
        let change = |of: fn(&mut Source, Option<Duration>), n| {
            let mut changed = sources("feed", 0..1);
            of(&mut changed[0], hours(n));
            daemon.apply(changed)
        };
        change(|source, every| source.every = every, 6).await;
        sleep(Duration::from_secs(600)).await;
        let (before, visits) = (state(&daemon, "feed-0"), servers.requests("feed-0.example").len());
        for every in [7, 8] {
            change(|source, every| source.every = every, every).await;
            sleep(Duration::from_secs(600)).await;
        }
        change(|source, _| source.body_bytes_max = Some(1 << 20), 0).await;
        sleep(Duration::from_secs(600)).await;
        let (after, all) = (state(&daemon, "feed-0"), servers.requests("feed-0.example").len());
        daemon.stop().await;
        (before, after, all - visits)
    })
}

#[test]
fn new_settings_of_a_gone_or_failing_source_are_tried_at_once_and_that_is_no_planned_look() {
    for code in [410, 404] {
        let (before, after, looks) = change_settings(code);
        assert_eq!(looks, 3, "{code}");
        assert_eq!((before.failures, after.failures), (1, 1), "{code}");
        assert_eq!((after.gone_in_a_row, after.next_visit), (before.gone_in_a_row, before.next_visit));
    }
}
