use daemon::metrics::MetricsRegistry;
use futures_util::FutureExt as _;

use super::*;

fn gates(in_flight: usize, host_in_flight: usize, spacing_s: u64) -> Gates {
    let host_spacing = Duration::from_secs(spacing_s);
    let bounds = Bounds { in_flight, host_in_flight, host_spacing };
    Gates::new(bounds, Numbers::register(&MetricsRegistry::new()))
}

fn host(name: &str) -> Host {
    Host::of(&format!("https://{name}/").parse().unwrap())
}

fn at(name: &str) -> Host {
    host(&format!("{name}.example"))
}

/// The test, while somebody keeps time.
async fn timed<T>(gates: &Gates, test: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        result = test => result,
        () = gates.clone().keep_time() => unreachable!(),
    }
}

fn text(turn: &Turn) -> String {
    turn.sign().text().unwrap_or_default()
}

use Standing::{Living, Suspect};

#[tokio::test(start_paused = true)]
async fn a_host_gets_two_visits_at_a_time_and_one_a_second() {
    let gates = gates(100, 2, 1);
    timed(&gates, async {
        let start = Instant::now();
        let first = gates.queue(&at("a"), Living).await;
        let _second = gates.queue(&at("a"), Living).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        let mut third = gates.queue(&at("a"), Living);
        assert!((&mut third).now_or_never().is_none(), "two are there");
        assert_eq!(text(&third), "2 visits at a.example:443 under way");
        let _other = gates.queue(&at("b"), Living).now_or_never().expect("another host is not concerned");
        drop(first);
        let _third = third.await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn names_of_one_registrable_domain_wait_for_each_other() {
    let gates = gates(100, 1, 0);
    let _first = gates.queue(&host("news.bbc.co.uk"), Living).now_or_never().unwrap();
    let second = gates.queue(&host("www.bbc.co.uk"), Living);
    assert_eq!(text(&second), "1 visit at bbc.co.uk under way");
    assert!(gates.queue(&host("www.itv.co.uk"), Living).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_at_a_host_come_in_order_and_hold_no_place() {
    let gates = gates(2, 1, 0);
    let first = gates.queue(&at("a"), Living).await;
    let (mut second, mut third) = (gates.queue(&at("a"), Living), gates.queue(&at("a"), Living));
    assert_eq!(gates.in_flight(), 1);
    let _other = gates.queue(&at("b"), Living).now_or_never().expect("the queue at a holds no place");
    drop(first);
    assert!((&mut third).now_or_never().is_none());
    let second = (&mut second).now_or_never().expect("it came first");
    drop(second);
    assert!(third.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_queue_holds_nobody_up() {
    let gates = gates(2, 1, 0);
    let first = gates.queue(&at("a"), Living).await;
    let second = gates.queue(&at("a"), Living);
    let third = gates.queue(&at("a"), Living);
    drop(second);
    drop(first);
    assert!(third.now_or_never().is_some());
    assert_eq!(gates.in_flight(), 0, "a permit that nobody took is given back");
}

#[tokio::test(start_paused = true)]
async fn suspects_hold_a_quarter_of_the_places_at_most() {
    let gates = gates(8, 1, 0);
    let _one = gates.queue(&at("a"), Suspect).await;
    let two = gates.queue(&at("b"), Suspect).await;
    let mut third = gates.queue(&at("c"), Suspect);
    assert!((&mut third).now_or_never().is_none());
    assert_eq!(text(&third), "all 2 places for sources that did not answer lately taken");
    let mut living = Vec::new();
    for n in 0..6 {
        let turn = gates.queue(&at(&format!("host{n}")), Living);
        living.push(turn.now_or_never().expect("places for the living"));
    }
    assert_eq!(gates.in_flight(), 8);
    let waits = gates.queue(&at("d"), Living);
    assert_eq!(text(&waits), "all 8 places taken");
    drop(two);
    assert!(waits.now_or_never().is_none(), "whoever waited longer comes first");
    assert!(third.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_waits_for_a_place_holds_none_at_its_host() {
    let gates = gates(4, 1, 0);
    let _one = gates.queue(&at("a"), Suspect).await;
    let mut suspect = gates.queue(&at("b"), Suspect);
    assert!((&mut suspect).now_or_never().is_none());
    let living = gates.queue(&at("b"), Living);
    assert!(living.now_or_never().is_some(), "the living at the same host go ahead");
}

#[tokio::test(start_paused = true)]
async fn a_429_doubles_the_spacing_of_a_host_and_success_narrows_it_slowly() {
    let gates = gates(8, 2, 1);
    timed(&gates, async {
        let spacing = async || {
            drop(gates.queue(&at("a"), Living).await);
            let start = Instant::now();
            drop(gates.queue(&at("a"), Living).await);
            start.elapsed()
        };
        assert_eq!(spacing().await, Duration::from_secs(1));
        for _ in 0..2 {
            gates.hear(&at("a"), Heard::TooMany(None));
        }
        assert_eq!(spacing().await, Duration::from_secs(4));
        gates.hear(&at("a"), Heard::Served);
        assert_eq!(spacing().await, Duration::from_millis(3600));
        for _ in 0..50 {
            gates.hear(&at("a"), Heard::Served);
        }
        assert_eq!(spacing().await, Duration::from_secs(1), "and never below what is configured");
        for _ in 0..50 {
            gates.hear(&at("a"), Heard::TooMany(None));
        }
        assert_eq!(spacing().await, SPACING_MAX);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_429_that_says_how_long_sends_the_whole_public_host_away_and_says_so() {
    let gates = gates(8, 2, 0);
    timed(&gates, async {
        let (start, asked) = (Instant::now(), Duration::from_secs(900));
        gates.hear(&host("one.example.org"), Heard::TooMany(Some(asked)));
        let turn = gates.queue(&host("two.example.org"), Living);
        assert_eq!(text(&turn), "example.org asked for 15m (429)");
        let _permit = turn.await;
        assert_eq!(start.elapsed(), asked);
        gates.hear(&at("private"), Heard::TooMany(Some(asked)));
        let _permit = gates.queue(&at("private"), Living).await;
        assert!(start.elapsed() < asked + Duration::from_secs(2), "a private host means the one feed");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_hangs_gives_way_when_the_living_want_its_place() {
    let gates = gates(4, 1, 0);
    timed(&gates, async {
        let mut hanging = Vec::new();
        for n in 0..4 {
            hanging.push(gates.queue(&at(&format!("host{n}")), Living).await);
        }
        let settled = hanging.remove(1);
        let mut settled = settled;
        settled.stay();
        let start = Instant::now();
        let turn = gates.queue(&at("b"), Living);
        hanging[0].told_to_give_way().await;
        assert_eq!(start.elapsed(), GIVE_WAY_AFTER);
        assert!(
            hanging[1].told_to_give_way().now_or_never().is_none(),
            "one place is wanted, one is asked for"
        );
        assert!(settled.told_to_give_way().now_or_never().is_none());
        drop(hanging.remove(0));
        let _permit = turn.now_or_never().expect("its place is free");
        assert_eq!(gates.in_flight(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_nobody_visits_is_forgotten_unless_it_taught_us_something() {
    let gates = gates(8, 1, 1);
    let hosts = || gates.0.yard.borrow().hosts();
    let permit = gates.queue(&at("a"), Living).await;
    gates.sweep();
    assert_eq!(hosts(), 1);
    drop(permit);
    gates.sweep();
    assert_eq!(hosts(), 1, "its spacing still counts");
    gates.hear(&at("b"), Heard::TooMany(None));
    tokio::time::advance(Duration::from_secs(2)).await;
    gates.sweep();
    assert_eq!(hosts(), 1, "b is remembered");
}

#[tokio::test(start_paused = true)]
async fn other_bounds_hold_for_those_who_wait_already_and_leave_those_inside_alone() {
    let gates = gates(2, 1, 10);
    let set = |in_flight, host_in_flight, spacing_s| {
        let host_spacing = Duration::from_secs(spacing_s);
        gates.set(Bounds { in_flight, host_in_flight, host_spacing });
    };
    timed(&gates, async {
        let start = Instant::now();
        let first = gates.queue(&at("a"), Living).await;
        let mut second = gates.queue(&at("a"), Living);
        let other = gates.queue(&at("b"), Living).await;
        let mut third = gates.queue(&at("c"), Living);
        assert!((&mut third).now_or_never().is_none(), "two places, and both are taken");
        set(3, 1, 10);
        let third = (&mut third).now_or_never().expect("there is a third place now");
        drop((other, third));
        assert!((&mut second).now_or_never().is_none(), "one at a time");
        set(3, 2, 3);
        assert_eq!(text(&second), "visits at a.example:443 start 3s apart");
        let second = second.await;
        assert_eq!(start.elapsed(), Duration::from_secs(3), "counted from the start of the one before");

        set(1, 2, 0);
        assert_eq!(gates.in_flight(), 2, "nobody is thrown out");
        let mut fourth = gates.queue(&at("d"), Living);
        drop(first);
        assert!((&mut fourth).now_or_never().is_none(), "one place, and it is taken");
        drop(second);
        assert!(fourth.now_or_never().is_some());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_spacing_keeps_what_a_host_has_taught_us() {
    let gates = gates(10, 10, 1);
    timed(&gates, async {
        gates.queue(&at("a"), Living).await;
        for _ in 0..3 {
            gates.hear(&at("a"), Heard::TooMany(None));
        }
        let bounds = Bounds { in_flight: 10, host_in_flight: 10, host_spacing: Duration::from_secs(2) };
        gates.set(bounds);
        let waits = gates.queue(&at("a"), Living);
        assert_eq!(text(&waits), "visits at a.example:443 start 8s apart");
    })
    .await;
}
