//! Polls `/` and `/health` like `curl -m 5`, on its own thread and runtime.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::time::Instant;

use crate::{http, http::Address};

/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One request on its own connection.
#[derive(Clone, Debug)]
pub struct PageProbe {
    /// `/` or `/health`.
    pub path: &'static str,
    /// Time since the prober was started.
    pub at: Duration,
    /// From connecting to the last byte of the body.
    pub took: Duration,
    /// The status, or the error.
    pub outcome: Result<u16, String>,
}

/// Requests `/` and `/health` in turn until it is stopped.
pub struct PageProber {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<ProbeReport>,
}

/// All probes of a prober.
#[derive(Debug, Default)]
pub struct ProbeReport {
    /// In order of time.
    pub probes: Vec<PageProbe>,
    /// The longest delay of the prober's own timer: how much of a slow response may be due to a busy machine.
    pub overslept: Duration,
}

impl PageProber {
    /// Starts probing both paths, with `pause` after each pair.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(address: &Address, pause: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stopped, address) = (Arc::clone(&stop), address.clone());
        let thread = std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || runtime.block_on(probe(&address, pause, &stopped)))?;
        Ok(Self { stop, thread })
    }

    /// Stops probing and returns the report.
    ///
    /// # Panics
    /// If its thread panicked.
    #[must_use]
    pub fn stop(self) -> ProbeReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the prober does not panic")
    }
}

async fn probe(address: &Address, pause: Duration, stop: &AtomicBool) -> ProbeReport {
    let began = Instant::now();
    let mut report = ProbeReport::default();
    while !stop.load(Ordering::Relaxed) {
        for path in ["/", "/health"] {
            let start = Instant::now();
            let outcome = match http::fetch(address, path, TIMEOUT).await {
                Ok((200, _)) => Ok(200),
                Ok((status, text)) => Err(format!("{status} {text}")),
                Err(error) => Err(error.to_string()),
            };
            report.probes.push(PageProbe { path, at: start - began, took: start.elapsed(), outcome });
        }
        let asleep = Instant::now();
        tokio::time::sleep(pause).await;
        report.overslept = report.overslept.max(asleep.elapsed().saturating_sub(pause));
    }
    report
}

impl ProbeReport {
    /// Probes that were not answered 200 within `limit`.
    #[must_use]
    pub fn worse_than(&self, limit: Duration) -> Vec<&PageProbe> {
        self.probes.iter().filter(|probe| probe.outcome.is_err() || probe.took > limit).collect()
    }

    /// The quantile `share` (0 to 1) of the response times.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few thousand"
    )]
    pub fn quantile(&self, share: f64) -> Duration {
        let mut times: Vec<_> = self.probes.iter().map(|probe| probe.took).collect();
        times.sort_unstable();
        let rank = (times.len().saturating_sub(1)) as f64 * share;
        times.get(rank.round() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} probes: p50 {:?}, p99 {:?}, slowest {:?}, failed {}; the prober's own timer was late by up to {:?}",
            self.probes.len(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(1.0),
            self.probes.iter().filter(|probe| probe.outcome.is_err()).count(),
            self.overslept
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    #[test]
    fn late_and_failed_probes_are_reported() {
        let probe = |ms, outcome| PageProbe {
            path: "/",
            at: Duration::ZERO,
            took: Duration::from_millis(ms),
            outcome,
        };
        let probes = vec![
            probe(1, Ok(200)),
            probe(101, Ok(200)),
            probe(2, Err("refused".to_owned())),
            probe(3, Ok(200)),
        ];
        let report = ProbeReport { probes, overslept: Duration::ZERO };
        assert_eq!(report.worse_than(Duration::from_millis(100)).len(), 2);
        assert_eq!(report.quantile(0.5), Duration::from_millis(3));
        assert_eq!(report.quantile(1.0), Duration::from_millis(101));
    }

    #[tokio::test]
    async fn both_paths_are_probed_until_stopped() {
        // An origin has neither page and answers 404.
        let origin = Origin::start().await.unwrap();
        let prober = PageProber::start(&origin.address(), Duration::from_millis(1)).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let report = tokio::task::spawn_blocking(|| prober.stop()).await.unwrap();
        assert!(
            report.probes.iter().any(|p| p.path == "/") && report.probes.iter().any(|p| p.path == "/health")
        );
        assert!(
            report.probes.iter().all(|p| p.outcome.as_ref().is_err_and(|e| e.starts_with("404"))),
            "{report}"
        );
    }
}
