//! `curl -m 5` on `/` and `/health`, again and again, from a thread and a runtime of its own.

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

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request, on a connection of its own.
#[derive(Clone, Debug)]
pub struct Probe {
    /// `/` or `/health`.
    pub path: &'static str,
    /// Since the prober was started.
    pub at: Duration,
    /// From before the connection to the last byte of the body.
    pub took: Duration,
    /// The status, or what went wrong.
    pub outcome: Result<u16, String>,
}

/// Asks for `/` and `/health` in turn until it is stopped.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

/// Everything that was asked.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order asked.
    pub probes: Vec<Probe>,
    /// The longest that the machine let the prober oversleep: what part of a long answer may be the machine's.
    pub overslept: Duration,
}

impl Prober {
    /// Begins; asks for both paths, then waits that long.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(address: &Address, pause: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stopped, address) = (Arc::clone(&stop), address.clone());
        let thread = std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || runtime.block_on(probe(&address, pause, &stopped)))?;
        Ok(Self { stop, thread })
    }

    /// Ends it and gives what it saw.
    ///
    /// # Panics
    /// When its thread panicked.
    #[must_use]
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the prober does not panic")
    }
}

async fn probe(address: &Address, pause: Duration, stop: &AtomicBool) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) {
        for path in ["/", "/health"] {
            let start = Instant::now();
            let outcome = match http::fetch(address, path, PATIENCE).await {
                Ok((200, _)) => Ok(200),
                Ok((status, text)) => Err(format!("{status} {text}")),
                Err(error) => Err(error.to_string()),
            };
            report.probes.push(Probe { path, at: start - began, took: start.elapsed(), outcome });
        }
        let asleep = Instant::now();
        tokio::time::sleep(pause).await;
        report.overslept = report.overslept.max(asleep.elapsed().saturating_sub(pause));
    }
    report
}

impl Report {
    /// Probes that got no 200, or got it later than `limit`.
    #[must_use]
    pub fn worse_than(&self, limit: Duration) -> Vec<&Probe> {
        self.probes.iter().filter(|probe| probe.outcome.is_err() || probe.took > limit).collect()
    }

    /// The time within which that share (0 to 1) of the probes was answered.
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} probes: p50 {:?}, p99 {:?}, slowest {:?}, not answered {}; the prober itself overslept by up to {:?}",
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
    fn a_page_that_is_late_or_missing_is_found() {
        let probe =
            |ms, outcome| Probe { path: "/", at: Duration::ZERO, took: Duration::from_millis(ms), outcome };
        let probes = vec![
            probe(1, Ok(200)),
            probe(101, Ok(200)),
            probe(2, Err("refused".to_owned())),
            probe(3, Ok(200)),
        ];
        let report = Report { probes, overslept: Duration::ZERO };
        assert_eq!(report.worse_than(Duration::from_millis(100)).len(), 2);
        assert_eq!(report.quantile(0.5), Duration::from_millis(3));
        assert_eq!(report.quantile(1.0), Duration::from_millis(101));
    }

    #[tokio::test]
    async fn both_paths_are_asked_until_it_is_stopped() {
        // An origin has neither page: each probe is answered 404, and says so.
        let origin = Origin::start().await.unwrap();
        let prober = Prober::start(&origin.address(), Duration::from_millis(1)).unwrap();
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
