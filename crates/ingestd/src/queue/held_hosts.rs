//! The pauses that hosts asked for, across a restart: whatever was answered with it (a feed, a list, a hub), and whether or
//! not that is still in the catalogue.

use std::time::Duration;

use actix::Recipient;
use daemon::Clock;
use news::{HeldHost, Timestamp};

use super::{host::Host, limiter::HostLimiter};
use crate::messages::RecordHeldHosts;

/// So many are kept: those with the longest pauses.
pub(crate) const HELD_HOSTS_MAX: usize = 1000;
/// So much passes between two writes, so that a crowd of answers is one.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Writes the pauses of hosts whenever there is a new one, until the log is closed.
pub(crate) async fn record(limiter: HostLimiter, clock: Clock, recorder: Recipient<RecordHeldHosts>) {
    loop {
        limiter.new_hold().await;
        let hosts = held_hosts(&limiter, Timestamp::from_millis(clock.now_millis()));
        if !matches!(recorder.send(RecordHeldHosts(hosts)).await, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(WRITE_EVERY).await;
    }
}

fn held_hosts(limiter: &HostLimiter, now: Timestamp) -> Vec<HeldHost> {
    let stored = |(host, wait, code): (Host, Duration, u16)| HeldHost {
        host: host.name().into(),
        until: now.plus(wait),
        code,
    };
    limiter.held().into_iter().take(HELD_HOSTS_MAX).map(stored).collect()
}

/// Holds hosts for the pauses that they asked for before the start. One that is longer than `longest` means that a clock was wrong.
pub(crate) fn restore(limiter: &HostLimiter, hosts: Vec<HeldHost>, now: Timestamp, longest: Duration) {
    for HeldHost { host, until, code } in hosts.into_iter().take(HELD_HOSTS_MAX) {
        if now < until && until <= now.plus(longest) {
            limiter.hold(&Host::named(&host), code, until.since(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use daemon::metrics::MetricsRegistry;

    use super::*;
    use crate::{queue::limiter::VisitLimits, status::metrics::IngestMetrics};

    const HOUR: Duration = Duration::from_secs(3600);

    fn limiter() -> HostLimiter {
        let limits = VisitLimits {
            in_flight: 1,
            host_in_flight: 1,
            host_spacing: Duration::ZERO,
            memory_bytes: 1 << 20,
        };
        HostLimiter::new(limits, IngestMetrics::register(&MetricsRegistry::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_pauses_are_kept_and_those_that_are_over_or_wrong_are_not() {
        let before = limiter();
        let now = Timestamp::from_millis(1_000_000_000);
        for n in 0..HELD_HOSTS_MAX + 5 {
            let seconds = u64::try_from(n).unwrap() + 100;
            before.hold(&Host::named(&format!("h{n}.example")), 429, Duration::from_secs(seconds));
        }
        before.hold(&Host::named("soon.example"), 503, Duration::from_millis(10));
        tokio::time::timeout(HOUR, before.new_hold()).await.unwrap();
        let stored = held_hosts(&before, now);
        assert_eq!(stored.len(), HELD_HOSTS_MAX);
        assert_eq!((&*stored[0].host, stored[0].code), ("h1004.example", 429));
        assert_eq!(&*stored[HELD_HOSTS_MAX - 1].host, "h5.example");

        let opens = |limiter: &HostLimiter, host: &str| limiter.opens_in(&Host::named(host));
        let after = limiter();
        restore(&after, stored.clone(), now.plus(Duration::from_secs(104)), HOUR);
        assert_eq!(opens(&after, "h1004.example"), (Duration::from_secs(1000), true));
        assert_eq!(opens(&after, "h5.example"), (Duration::from_secs(1), true));
        assert_eq!(opens(&after, "h4.example"), (Duration::ZERO, false));
        let after = limiter();
        restore(&after, stored, now, Duration::from_secs(200));
        assert_eq!(opens(&after, "h100.example"), (Duration::from_secs(200), true));
        assert_eq!(opens(&after, "h101.example"), (Duration::ZERO, false), "a clock was wrong");
    }
}
