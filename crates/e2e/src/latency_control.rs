//! Promises of latency on a machine that others use: `/` and `/health` of the program under test are requested at the same
//! moments as those of an idle twin, and the two are compared. A busy machine delays both; a hang only the one.
//!
//! What must never happen here: a bound in milliseconds that other processes can break. Absolute figures belong to
//! `scripts/bench hang`.

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

/// Timeout of one request: longer than a busy machine needs, and a failed probe in any case.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Differences below this are those of a busy machine: one response ...
const SLOWEST_FLOOR: Duration = Duration::from_millis(500);
/// ... and the 99th percentile.
const P99_FLOOR: Duration = Duration::from_millis(250);
/// Above the floor, a response may take this many times as long as the twin's slowest one near that moment, and the 99th
/// percentile this many times the twin's.
const RATIO_MAX: u32 = 2;
/// How far before and after a probe the twin's probes belong to the same moment.
const MOMENT: Duration = Duration::from_secs(1);

/// One request on its own connection.
#[derive(Clone, Debug)]
struct PageProbe {
    /// `/` or `/health`.
    path: &'static str,
    /// Time since the first probe.
    at: Duration,
    /// From connecting to the last byte of the body.
    took: Duration,
    /// The status, or the error.
    outcome: Result<u16, String>,
}

/// All probes of one program, in order of time.
#[derive(Debug, Default)]
struct ProbeReport {
    probes: Vec<PageProbe>,
}

/// The probes of a program and, at the same moments, of its twin.
#[derive(Debug, Default)]
pub struct LatencyReport {
    tested: ProbeReport,
    twin: ProbeReport,
    /// The longest delay of the prober's own timer.
    overslept: Duration,
}

/// Requests `/` and `/health` in turn, of both programs at once, until it is stopped. On its own thread and runtime.
pub struct LatencyControl {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<LatencyReport>,
}

impl LatencyControl {
    /// Starts probing both paths of `tested` and of its idle `twin`, with `pause` after each pair of paths.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(tested: &Address, twin: &Address, pause: Duration) -> std::io::Result<Self> {
        Self::start_on(&["/", "/health"], tested, twin, pause)
    }

    /// The same for `/health` alone, with `pause` after each probe.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start_on_health(tested: &Address, twin: &Address, pause: Duration) -> std::io::Result<Self> {
        Self::start_on(&["/health"], tested, twin, pause)
    }

    fn start_on(
        paths: &'static [&'static str],
        tested: &Address,
        twin: &Address,
        pause: Duration,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stopped, tested, twin) = (Arc::clone(&stop), tested.clone(), twin.clone());
        let thread = std::thread::Builder::new()
            .name("latency-control".to_owned())
            .spawn(move || runtime.block_on(probe_both(paths, &tested, &twin, pause, &stopped)))?;
        Ok(Self { stop, thread })
    }

    /// Stops probing and returns the report.
    ///
    /// # Panics
    /// If its thread panicked.
    #[must_use]
    pub fn stop(self) -> LatencyReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("probing does not panic")
    }
}

async fn probe_both(
    paths: &[&'static str],
    tested: &Address,
    twin: &Address,
    pause: Duration,
    stop: &AtomicBool,
) -> LatencyReport {
    let began = Instant::now();
    let mut report = LatencyReport::default();
    // Neither is always the first to connect.
    let mut tested_first = true;
    while !stop.load(Ordering::Relaxed) {
        for path in paths {
            let (of_tested, of_twin) = if tested_first {
                tokio::join!(probe(tested, path, began), probe(twin, path, began))
            } else {
                let (of_twin, of_tested) = tokio::join!(probe(twin, path, began), probe(tested, path, began));
                (of_tested, of_twin)
            };
            report.tested.probes.push(of_tested);
            report.twin.probes.push(of_twin);
        }
        tested_first = !tested_first;
        let asleep = Instant::now();
        tokio::time::sleep(pause).await;
        report.overslept = report.overslept.max(asleep.elapsed().saturating_sub(pause));
    }
    report
}

async fn probe(address: &Address, path: &'static str, began: Instant) -> PageProbe {
    let start = Instant::now();
    let outcome = match http::fetch(address, path, TIMEOUT).await {
        Ok((200, _)) => Ok(200),
        Ok((status, text)) => Err(format!("{status} {text}")),
        Err(error) => Err(error.to_string()),
    };
    PageProbe { path, at: start - began, took: start.elapsed(), outcome }
}

impl LatencyReport {
    /// Checks that every probe was answered, and none later than the twin's allow; see the constants of this module.
    ///
    /// # Errors
    /// The probes that failed or were late, with both reports; also if the twin failed, or nothing was probed.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.tested.probes.is_empty(), "nothing was probed");
        let failed = self.twin.those(|probe| probe.outcome.is_err());
        anyhow::ensure!(
            failed.is_empty(),
            "probes of the idle twin failed, so there is nothing to compare with:{failed}"
        );
        let bad = self.tested.those(|p| p.outcome.is_err() || p.took > self.slowest_allowed(p.at));
        anyhow::ensure!(bad.is_empty(), "{self}\nfailed, or much later than the twin's:{bad}");
        let p99_max = P99_FLOOR.max(self.twin.quantile(0.99) * RATIO_MAX);
        anyhow::ensure!(self.tested.quantile(0.99) <= p99_max, "{self}\nthe p99 may be {p99_max:?}");
        Ok(())
    }

    /// How long a response at that moment may take.
    fn slowest_allowed(&self, at: Duration) -> Duration {
        let near = self.twin.probes.iter().filter(|probe| probe.at.abs_diff(at) <= MOMENT);
        let slowest = near.map(|probe| probe.took).max().unwrap_or_default();
        SLOWEST_FLOOR.max(slowest * RATIO_MAX)
    }

    /// How often each program was probed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tested.probes.len()
    }
}

impl ProbeReport {
    /// The probes that are so, each on its own line.
    fn those(&self, are: impl Fn(&PageProbe) -> bool) -> String {
        self.probes.iter().filter(|probe| are(probe)).map(|probe| format!("\n{probe}")).collect()
    }

    /// The quantile `share` (0 to 1) of the response times.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few thousand"
    )]
    fn quantile(&self, share: f64) -> Duration {
        let mut times: Vec<_> = self.probes.iter().map(|probe| probe.took).collect();
        times.sort_unstable();
        let rank = (times.len().saturating_sub(1)) as f64 * share;
        times.get(rank.round() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for PageProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, at, took, outcome } = self;
        write!(f, "GET {path} at {at:?} took {took:?}: {outcome:?}")
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} probes: p50 {:?}, p99 {:?}, slowest {:?}, failed {}",
            self.probes.len(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(1.0),
            self.probes.iter().filter(|probe| probe.outcome.is_err()).count(),
        )
    }
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; its idle twin: {}; the prober's own timer was late by up to {:?}",
            self.tested, self.twin, self.overslept
        )
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "servers and loops that block threads of their own")]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpListener},
        sync::atomic::AtomicU32,
        thread,
    };

    use super::*;

    /// A report of probes every 100 ms with these response times in milliseconds.
    fn report(tested: &[u64], twin: &[u64]) -> LatencyReport {
        let probes = |times: &[u64]| {
            let probe = |(took, at): (&u64, u64)| PageProbe {
                path: "/health",
                at: Duration::from_millis(at),
                took: Duration::from_millis(*took),
                outcome: Ok(200),
            };
            ProbeReport { probes: times.iter().zip((0..).step_by(100)).map(probe).collect() }
        };
        LatencyReport { tested: probes(tested), twin: probes(twin), overslept: Duration::ZERO }
    }

    /// Times of 3 ms with some others instead.
    fn mostly_fast(others: &[(usize, u64)]) -> Vec<u64> {
        let mut times = vec![3; 400];
        others.iter().for_each(|(n, took)| times[*n] = *took);
        times
    }

    #[test]
    fn what_delays_both_or_is_short_passes() {
        let quiet = mostly_fast(&[]);
        report(&quiet, &quiet).check().unwrap();
        report(&mostly_fast(&[(50, 117)]), &quiet).check().unwrap();
        // The machine pauses: one probe of the twin sees it a moment later.
        report(&mostly_fast(&[(50, 1_900)]), &mostly_fast(&[(58, 1_000)])).check().unwrap();
        let busy: Vec<_> = (0..400).map(|n| n % 200).collect();
        let busier: Vec<_> = (0..400).map(|n| n % 350).collect();
        report(&busier, &busy).check().unwrap();
    }

    #[test]
    fn a_stall_of_a_second_of_one_of_them_is_reported() {
        let quiet = mostly_fast(&[]);
        report(&mostly_fast(&[(50, 950)]), &quiet).check().unwrap_err();
        let late_pause = mostly_fast(&[(50, 950), (300, 1_000)]);
        let error = report(&late_pause, &mostly_fast(&[(300, 1_000)])).check().unwrap_err();
        assert!(
            error.to_string().contains("took 950ms") && !error.to_string().contains("took 1s"),
            "{error}"
        );
    }

    #[test]
    fn responses_that_are_often_late_are_reported() {
        let often = mostly_fast(&[(10, 400), (100, 400), (200, 400), (300, 400), (350, 400)]);
        let error = report(&often, &mostly_fast(&[])).check().unwrap_err();
        assert!(error.to_string().contains("the p99 may be 250ms"), "{error}");
    }

    #[test]
    fn a_failed_probe_is_reported_and_so_is_a_failed_twin_and_no_probe_at_all() {
        let mut failed = report(&mostly_fast(&[]), &mostly_fast(&[]));
        failed.tested.probes[7].outcome = Err("refused".to_owned());
        let error = failed.check().unwrap_err().to_string();
        assert!(error.contains("refused") && !error.contains("nothing to compare with"), "{error}");
        std::mem::swap(&mut failed.tested, &mut failed.twin);
        let error = failed.check().unwrap_err().to_string();
        assert!(error.contains("refused") && error.contains("nothing to compare with"), "{error}");
        LatencyReport::default().check().unwrap_err();
    }

    /// Answers every request 200, one after the other, on its own thread; ends when it is told to stop.
    struct OneLoop {
        address: Address,
        /// Stalls for a second before so many of the next answers.
        stalls: Arc<AtomicU32>,
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl OneLoop {
        fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap().into();
            let (stalls, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
            let (stalled, stopped) = (Arc::clone(&stalls), Arc::clone(&stop));
            let thread = thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let (mut client, _) = listener.accept().unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if client.read(&mut byte).unwrap_or(0) == 0 {
                            break;
                        }
                        head.push(byte[0]);
                    }
                    if stalled.load(Ordering::Relaxed) > 0 {
                        stalled.fetch_sub(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_secs(1));
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                    client.write_all(answer).ok();
                }
            });
            Self { address, stalls, stop, thread: Some(thread) }
        }
    }

    impl Drop for OneLoop {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            let Address::Tcp(address) = self.address else { return };
            std::net::TcpStream::connect(address).ok();
            self.thread.take().map(JoinHandle::join);
        }
    }

    /// Two loops that use all the processor time they get; they end when dropped.
    struct BusyLoops(Arc<AtomicBool>);

    impl BusyLoops {
        fn start() -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            for _ in 0..2 {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            Self(stop)
        }
    }

    impl Drop for BusyLoops {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn beside_busy_loops_two_sound_programs_pass_and_one_that_stalls_for_a_second_does_not() {
        let _busy = BusyLoops::start();
        let (tested, twin) = (OneLoop::start(), OneLoop::start());
        let pause = Duration::from_millis(20);
        let control = LatencyControl::start(&tested.address, &twin.address, pause).unwrap();
        thread::sleep(Duration::from_secs(4));
        let report = control.stop();
        assert!(report.count() > 20, "{report}");
        report.check().unwrap();

        let control = LatencyControl::start(&tested.address, &twin.address, pause).unwrap();
        // Three times: the twin may be late, too, near one of them.
        for _ in 0..3 {
            tested.stalls.store(1, Ordering::Relaxed);
            thread::sleep(Duration::from_secs(4));
        }
        let report = control.stop();
        let error = report.check().unwrap_err();
        assert!(error.to_string().contains("much later than the twin's"), "{error}");
    }

    #[tokio::test]
    async fn both_paths_of_both_are_probed_until_stopped() {
        let (tested, twin) = (OneLoop::start(), OneLoop::start());
        let control =
            LatencyControl::start(&tested.address, &twin.address, Duration::from_millis(1)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = tokio::task::spawn_blocking(|| control.stop()).await.unwrap();
        for probes in [&report.tested.probes, &report.twin.probes] {
            let paths: std::collections::BTreeSet<_> = probes.iter().map(|probe| probe.path).collect();
            assert_eq!(paths, ["/", "/health"].into());
            assert!(probes.iter().all(|probe| probe.outcome == Ok(200)), "{report}");
        }
    }
}
