//! Probes `/` and `/health` in turn: while the gateway is idle, and throughout all other checks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    gateway::GatewayClient,
    report::{CheckResult, millis},
};

/// Every probe must be answered completely within this.
pub(super) const LIMIT: Duration = Duration::from_secs(1);
/// The name of the check that runs throughout the others.
pub(super) const THROUGHOUT: &str = "probes-in-time-throughout";
const NAME: &str = "answers";
const PATHS: [&str; 2] = ["/", "/health"];
/// Pause between two pairs.
const PAUSE: Duration = Duration::from_millis(100);
/// After this many failures no further idle probe is sent: the check has failed.
const FAILURES_MAX: usize = 6;

/// The results of probes.
#[derive(Debug, Default)]
pub(super) struct ProbeTimes {
    /// Sorted.
    times: Vec<Duration>,
    failures: usize,
    /// The first failure.
    first: Option<String>,
}

/// Runs this many pairs of probes.
pub(super) async fn run_pairs(gateway: &GatewayClient, pairs: usize) -> ProbeTimes {
    let mut probes = ProbeTimes::default();
    for _ in 0..pairs {
        probes.pair(gateway).await;
        if probes.failures >= FAILURES_MAX {
            break;
        }
        sleep(PAUSE / 2).await;
    }
    probes.times.sort_unstable();
    probes
}

/// Runs pairs of probes in the background.
pub(super) struct ProbeLoop {
    stop: CancellationToken,
    task: JoinHandle<ProbeTimes>,
}

impl ProbeLoop {
    pub(super) fn start(gateway: &GatewayClient) -> Self {
        let (gateway, stop) = (gateway.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut probes = ProbeTimes::default();
            // What is under way at the end would only delay it.
            while stopped.run_until_cancelled(probes.pair(&gateway)).await.is_some() {
                sleep(PAUSE).await;
            }
            probes.times.sort_unstable();
            probes
        });
        Self { stop, task }
    }

    pub(super) async fn end(self) -> ProbeTimes {
        self.stop.cancel();
        self.task.await.expect("a probe does not panic")
    }
}

impl ProbeTimes {
    async fn pair(&mut self, gateway: &GatewayClient) {
        for path in PATHS {
            match gateway.probe(path).await {
                Ok(took) => self.times.push(took),
                Err(error) => {
                    self.failures += 1;
                    self.first.get_or_insert_with(|| format!("{path}: {error}"));
                }
            }
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.times.len()
    }

    fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.times.len().saturating_sub(1) * percent).div_ceil(100);
        self.times.get(rank).copied().unwrap_or_default()
    }

    fn figures(&self) -> Value {
        json!({
            "probes": self.times.len() + self.failures,
            "failed": self.failures,
            "limit_ms": millis(LIMIT),
            "p50_ms": millis(self.quantile(50)),
            "p99_ms": millis(self.quantile(99)),
            "slowest_ms": millis(self.quantile(100)),
        })
    }

    /// The check that both pages answer.
    pub(super) fn answers(&self) -> CheckResult {
        self.result(NAME, self.figures())
    }

    /// The check that they do so throughout the other checks.
    pub(super) fn throughout(&self, idle: &Self) -> CheckResult {
        let mut figures = self.figures();
        figures["idle_p99_ms"] = json!(millis(idle.quantile(99)));
        self.result(THROUGHOUT, figures)
    }

    fn result(&self, name: &'static str, figures: Value) -> CheckResult {
        match &self.first {
            None if self.times.is_empty() => {
                CheckResult::failed(name, "no probe was sent".to_owned(), figures)
            }
            None => CheckResult::passed(name, figures),
            Some(first) => {
                CheckResult::failed(name, format!("{} probes failed; {first}", self.failures), figures)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::report::CheckOutcome;

    #[test]
    fn one_failed_probe_fails_the_check() {
        let times = (1..=200).map(Duration::from_millis).collect();
        let mut probes = ProbeTimes { times, ..ProbeTimes::default() };
        assert_eq!(probes.quantile(50), Duration::from_millis(101));
        assert_eq!(probes.quantile(99), Duration::from_millis(199));
        assert_eq!(probes.answers().outcome(), CheckOutcome::Passed);
        probes.failures = 1;
        probes.first = Some("/: refused".to_owned());
        assert_eq!(probes.answers().outcome(), CheckOutcome::Failed);
        assert_eq!(ProbeTimes::default().answers().outcome(), CheckOutcome::Failed);
    }
}
