//! The admission of redirects on paused time.

use std::cell::RefCell;

use daemon::metrics::MetricsRegistry;
use futures_util::future::join_all;
use proptest::prelude::*;

use super::*;
use crate::{queue::limiter::VisitLimits, status::metrics::IngestMetrics};

const SPACING: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn limiter(in_flight: usize, host_in_flight: usize) -> HostLimiter {
    let limits = VisitLimits { in_flight, host_in_flight, host_spacing: SPACING, memory_bytes: 128 << 20 };
    HostLimiter::new(limits, IngestMetrics::register(&MetricsRegistry::new()))
}

fn url(host: &str) -> FeedUrl {
    FeedUrl::try_new(&format!("https://{host}/feed")).unwrap()
}

fn host(name: &str) -> Host {
    Host::of(url(name).secret())
}

fn hops(limiter: &HostLimiter, permit: VisitPermit) -> PacedHops {
    PacedHops {
        ticket: Cell::new(Some(permit.ticket())),
        permit: RefCell::new(Some(permit)),
        wait_max: REDIRECT_WAIT_MAX,
        keeps_slot: false,
        ..PacedHops::new(limiter.clone(), Priority::Normal, 24 * HOUR)
    }
}

/// Runs a test on paused time, with the timers of the limiter.
fn timed<T>(limiter: &HostLimiter, test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
        tokio::select! {
            biased;
            result = test => result,
            () = limiter.clone().run_timers() => unreachable!(),
        }
    })
}

#[test]
fn a_visit_that_moves_to_another_host_waits_there_and_holds_nothing_here() {
    let limiter = limiter(2, 1);
    timed(&limiter, async {
        let _there = limiter.enqueue(&host("there.example"), Priority::Normal).await;
        let visit = hops(&limiter, limiter.enqueue(&host("here.example"), Priority::Normal).await);
        assert_eq!(limiter.in_flight(), 2);
        let (there, start) = (url("there.example"), Instant::now());
        let mut moving = visit.enter(&there);
        assert!(futures_util::poll!(&mut moving).is_pending(), "one visit at a time there");
        assert_eq!(limiter.in_flight(), 1, "the slot is free");
        let here = timeout(SPACING * 2, limiter.enqueue(&host("here.example"), Priority::Normal)).await;
        assert!(here.is_ok() && start.elapsed() == SPACING, "the host here is free, but for its spacing");
        drop((here, _there));
        moving.await.unwrap();
        assert_eq!((limiter.in_flight(), visit.waited()), (1, SPACING));
        drop(visit);
        assert_eq!(limiter.in_flight(), 0);
    });
}

#[test]
fn a_visit_keeps_its_age_in_the_queue_of_the_next_host() {
    let limiter = limiter(100, 100);
    timed(&limiter, async {
        let old = hops(&limiter, limiter.enqueue(&host("here.example"), Priority::Normal).await);
        drop(limiter.enqueue(&host("there.example"), Priority::Normal).await);
        let mut young = limiter.enqueue(&host("there.example"), Priority::Normal);
        let there = url("there.example");
        let mut moving = old.enter(&there);
        assert!(futures_util::poll!(&mut moving).is_pending());
        tokio::select! {
            biased;
            _ = &mut young => panic!("the younger visit went first"),
            entered = moving => entered.unwrap(),
        }
    });
}

#[test]
fn a_redirect_is_preempted_like_a_first_request() {
    let limiter = limiter(1, 1);
    timed(&limiter, async {
        let visit = hops(&limiter, limiter.enqueue(&host("here.example"), Priority::Normal).await);
        visit.enter(&url("there.example")).await.unwrap();
        let start = Instant::now();
        let other = limiter.enqueue(&host("other.example"), Priority::Normal);
        visit.preempted().await;
        assert_eq!(start.elapsed(), crate::queue::limiter::PREEMPT_AFTER);
        drop(visit);
        other.await;
    });
}

#[test]
fn no_visit_waits_for_ever() {
    let limiter = limiter(100, 1);
    timed(&limiter, async {
        // It never ends.
        let _endless = limiter.enqueue(&host("there.example"), Priority::Normal).await;
        let visit = hops(&limiter, limiter.enqueue(&host("here.example"), Priority::Normal).await);
        let start = Instant::now();
        let held = visit.enter(&url("there.example")).await.unwrap_err();
        assert_eq!(start.elapsed(), REDIRECT_WAIT_MAX);
        assert_eq!(
            held.why,
            "there.example:443 was not asked, because 1h in the queue of its visits were not enough"
        );
        assert_eq!(held.wait, None);
        // The same for a host that asked for a long pause, at once.
        limiter.report(&host("there.example.org"), HostFeedback::TooManyRequests(Some(HOUR)));
        let start = Instant::now();
        let held = visit.enter(&url("there.example.org")).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::ZERO);
        let why = "example.org asked for a pause, which is over in 1h".to_owned();
        assert_eq!(held, HeldHop { why, wait: Some(HOUR) });
        // A short one is waited for.
        limiter.report(&host("short.example.net"), HostFeedback::TooManyRequests(Some(PAUSE_WAIT_MAX)));
        visit.enter(&url("short.example.net")).await.unwrap();
        assert_eq!(start.elapsed(), PAUSE_WAIT_MAX);
    });
}

/// Four public hosts and one that is not.
const HOSTS: [&str; 5] = ["a.example.com", "b.example.org", "c.example.net", "d.example.edu", "private"];

/// What a visit does: the hosts that it is led to, how long each takes to answer, and the answer with its Retry-After.
type Chain = Vec<(usize, u64, u16, Option<u64>)>;

fn chains() -> impl Strategy<Value = Vec<Chain>> {
    let answer = prop_oneof![8 => Just(302_u16), 1 => Just(429_u16), 1 => Just(503_u16)];
    let retry_after = proptest::option::of(prop_oneof![0_u64..5, 50_u64..70, 600_u64..100_000]);
    let hop = (0..HOSTS.len(), 0_u64..20_000, answer, retry_after);
    proptest::collection::vec(proptest::collection::vec(hop, 1..7), 1..25)
}

/// Requests in progress, and the last start, by host.
#[derive(Default)]
struct Servers {
    in_flight: [usize; HOSTS.len()],
    last: [Option<Instant>; HOSTS.len()],
    /// Since when, and until when.
    closed: [Option<(Instant, Instant)>; HOSTS.len()],
    all: usize,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_chains_of_hops_end_and_are_spaced(
        chains in chains(), in_flight in 1_usize..6, host_in_flight in 1_usize..3, preempts in any::<bool>(),
    ) {
        let limiter = limiter(in_flight, host_in_flight);
        let servers = RefCell::new(Servers::default());
        let request = async |at: usize, took: u64| {
            {
                let (mut servers, now) = (servers.borrow_mut(), Instant::now());
                servers.all += 1;
                servers.in_flight[at] += 1;
                assert!(servers.all <= in_flight && servers.in_flight[at] <= host_in_flight);
                let last = servers.last[at].replace(now);
                assert!(last.is_none_or(|last| now - last >= SPACING), "{at}");
                // A permit may have been on its way.
                let is_open = servers.closed[at].is_none_or(|(since, until)| until <= now || since == now);
                assert!(is_open, "{at} asked for a pause");
            }
            tokio::time::sleep(Duration::from_millis(took)).await;
        };
        let ended = |at: usize| {
            let mut servers = servers.borrow_mut();
            servers.all -= 1;
            servers.in_flight[at] -= 1;
        };
        let visit = async |chain: &Chain| {
            let first = limiter.enqueue(&host(HOSTS[chain[0].0]), Priority::Normal).await;
            let hops = hops(&limiter, first);
            for (n, (at, took, code, retry_after)) in chain.iter().enumerate() {
                if n > 0 && hops.enter(&url(HOSTS[*at])).await.is_err() {
                    return;
                }
                let is_preempted = tokio::select! {
                    biased;
                    () = request(*at, *took) => false,
                    () = hops.preempted(), if preempts => true,
                };
                ended(*at);
                if is_preempted {
                    return;
                }
                let retry_after = retry_after.map(Duration::from_secs);
                if *code != 302 && let Some(wait) = retry_after {
                    let wait = if *code == 503 { wait.min(HOUR) } else { wait.min(24 * HOUR) };
                    let (now, closed) = (Instant::now(), &mut servers.borrow_mut().closed[*at]);
                    if closed.is_none_or(|(_, until)| until < now + wait) {
                        *closed = Some((now, now + wait));
                    }
                }
                hops.answered(&url(HOSTS[*at]), *code, retry_after);
                if *code != 302 {
                    return;
                }
            }
        };
        let (lasted, waiting) = timed(&limiter, async {
            let start = Instant::now();
            join_all(chains.iter().map(&visit)).await;
            (start.elapsed(), limiter.waiting())
        });
        // A first request may wait for a pause of a day, and then each of those that are queued behind it.
        prop_assert!(lasted < 24 * HOUR * 30, "{lasted:?}");
        prop_assert_eq!((limiter.in_flight(), waiting), (0, 0));
    }
}
