//! Several daemons that have the same sources: what more than one of them has is in the stream once, whenever they publish it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use e2e::{NatsCluster, NatsServer, nats_server_program};
use news::{Cursor, Event, EventKind, Item, Seq};
use wire::nats::OutboxReport;

use crate::support::{MemoryLog, Running, Stored, check_order, jetstream_of, stored};

/// A source, item or update, the key and the text.
type Told = (String, EventKind, String, String);
type Recorded = (String, EventKind, Item);

fn recorded(source: &str, kind: EventKind, key: &str, title: &str) -> Recorded {
    let item = Item { key: key.to_owned(), title: title.to_owned(), ..Item::default() };
    (source.to_owned(), kind, item)
}

/// What the stream tells its readers, in order.
fn told(stored: &[Stored]) -> Vec<Told> {
    stored
        .iter()
        .map(|stored| {
            let json = stored.message.json_with_id(&stored.message.origin);
            let event: Event = serde_json::from_slice(&json).unwrap();
            (event.source.to_string(), event.kind, event.item.key, event.item.title)
        })
        .collect()
}

fn of_source(told: &[Told], source: &str) -> Vec<(EventKind, String, String)> {
    let of = told.iter().filter(|(of, ..)| of == source);
    of.map(|(_, kind, key, title)| (*kind, key.clone(), title.clone())).collect()
}

fn titles(told: &[Told]) -> Vec<&str> {
    told.iter().map(|(.., title)| title.as_str()).collect()
}

/// What happens at `sources` sources: new items, and changes of them, also back to what they were.
fn happenings(count: usize, sources: usize) -> Vec<Recorded> {
    let mut versions = vec![Vec::<usize>::new(); sources];
    (0..count)
        .map(|_| {
            let number = fastrand::usize(0..sources);
            let (source, items) = (format!("s{number}"), &mut versions[number]);
            if items.is_empty() || fastrand::u8(0..3) > 0 {
                items.push(0);
                let key = items.len() - 1;
                return recorded(&source, EventKind::Item, &format!("{source} {key}"), "0");
            }
            let key = fastrand::usize(0..items.len());
            items[key] = (items[key] + fastrand::usize(1..3)) % 3;
            recorded(&source, EventKind::Update, &format!("{source} {key}"), &items[key].to_string())
        })
        .collect()
}

/// Records all of it in portions, while its daemon dies and comes back.
async fn live(server: &NatsServer, log: &Arc<MemoryLog>, mut happenings: &[Recorded]) -> Running {
    let mut outbox = Running::start(server, log).await;
    while !happenings.is_empty() {
        let (now, later) = happenings.split_at(fastrand::usize(1..30).min(happenings.len()));
        log.record(now.to_vec());
        happenings = later;
        match fastrand::u8(0..8) {
            0 => {
                outbox.kill().await;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..400))).await;
                outbox = Running::start(server, log).await;
            }
            1..=3 => tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await,
            _ => {}
        }
    }
    outbox
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_two_daemons_have_both_is_told_once_and_in_its_order_whenever_they_die_or_wake_up() {
    let Some(program) = nats_server_program() else { return };
    for _ in 0..2 {
        let seed = fastrand::get_seed();
        println!("seed {seed}");
        let server = NatsServer::start(&program, "").await.unwrap();
        let happenings = happenings(400, 7);
        let logs = [MemoryLog::new("log1"), MemoryLog::new("log2"), MemoryLog::new("late")];
        let (mut one, mut two) =
            tokio::join!(live(&server, &logs[0], &happenings), live(&server, &logs[1], &happenings));
        let epoch = one.published().await;
        two.published().await;
        // It had recorded all of it, and was away.
        logs[2].record(happenings.clone());
        let mut late = Running::start(&server, &logs[2]).await;
        late.published().await;
        assert_eq!(late.counters.published.load(Relaxed), 0, "nothing of it is new");

        let expected: Vec<Told> =
            happenings.into_iter().map(|(source, kind, item)| (source, kind, item.key, item.title)).collect();
        let all = stored(&server).await;
        let found = told(&all);
        for source in (0..7).map(|n| format!("s{n}")) {
            assert_eq!(of_source(&found, &source), of_source(&expected, &source), "{source}, seed {seed}");
        }
        logs.iter().for_each(|log| check_order(&all, log));

        // After a purge, all three publish all of it again.
        jetstream_of(&server).await.get_stream("newswire").await.unwrap().purge().await.unwrap();
        for outbox in [&mut one, &mut two, &mut late] {
            outbox.published_in_another_epoch(&epoch).await;
        }
        let found = told(&stored(&server).await);
        for source in (0..7).map(|n| format!("s{n}")) {
            assert_eq!(of_source(&found, &source), of_source(&expected, &source), "refilled, seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_one_of_two_daemons_has_is_told_also_between_what_both_have() {
    let Some(program) = nats_server_program() else { return };
    for _ in 0..3 {
        let seed = fastrand::get_seed();
        let server = NatsServer::start(&program, "").await.unwrap();
        let all: Vec<_> = (0..300)
            .map(|n| recorded(&format!("s{}", n % 5), EventKind::Item, &format!("key {n}"), &n.to_string()))
            .collect();
        let logs = [MemoryLog::new("log1"), MemoryLog::new("log2")];
        // Each visit of one daemon misses something that was in the feed for a short time.
        let of_one: Vec<_> =
            all.iter().enumerate().filter(|(n, _)| n % 3 > 0).map(|(_, it)| it.clone()).collect();
        let of_two: Vec<_> =
            all.iter().enumerate().filter(|(n, _)| n % 3 < 2).map(|(_, it)| it.clone()).collect();
        let (mut one, mut two) =
            tokio::join!(live(&server, &logs[0], &of_one), live(&server, &logs[1], &of_two));
        one.published().await;
        two.published().await;
        let stored = stored(&server).await;
        let mut counts = BTreeMap::<String, usize>::new();
        for title in titles(&told(&stored)) {
            *counts.entry(title.to_owned()).or_default() += 1;
        }
        assert_eq!(counts.len(), 300, "none is lost, seed {seed}");
        assert!(counts.values().all(|count| *count == 1), "none is told twice, seed {seed}: {counts:?}");
        logs.iter().for_each(|log| check_order(&stored, log));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_again_reads_what_another_one_published_and_nothing_if_it_was_alone() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (ours, other) = (MemoryLog::new("ours"), MemoryLog::new("other"));
    let item = |source: &str, n: u32| recorded(source, EventKind::Item, &format!("k{n}"), "0");
    ours.record((0..50).map(|n| item("alone", n)).collect());
    other.record((0..20).map(|n| item("both", n)).collect());
    Running::start(&server, &other).await.published().await;
    let mut outbox = Running::start(&server, &ours).await;
    outbox.published().await;
    // An item of its own, after those of the other daemon.
    ours.record(vec![item("both", 100)]);
    outbox.published().await;
    assert_eq!(outbox.counters.others_read.load(Relaxed), 20);
    outbox.stop().await;

    let mut outbox = Running::start(&server, &ours).await;
    outbox.published().await;
    ours.record(vec![item("alone", 50)]);
    outbox.published().await;
    assert_eq!(outbox.counters.others_read.load(Relaxed), 0, "all there is of this source is its own");
    ours.record(vec![item("both", 7), item("both", 101)]);
    outbox.published().await;
    assert_eq!(outbox.counters.same_as_another.load(Relaxed), 1);
    assert_eq!(outbox.counters.others_read.load(Relaxed), 21, "once, with its own last event");
    assert_eq!(told(&stored(&server).await).len(), 51 + 20 + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_was_changed_back_is_told_again_also_if_another_daemon_had_told_it_before() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (ours, other) = (MemoryLog::new("ours"), MemoryLog::new("other"));
    let item = recorded("s", EventKind::Item, "k", "0");
    let update = |title: &str| recorded("s", EventKind::Update, "k", title);
    other.record(vec![item.clone(), update("1")]);
    Running::start(&server, &other).await.published().await;
    ours.record(vec![item, update("1"), update("2")]);
    let mut outbox = Running::start(&server, &ours).await;
    outbox.published().await;
    assert_eq!(titles(&told(&stored(&server).await)), ["0", "1", "2"]);
    outbox.stop().await;
    let mut outbox = Running::start(&server, &ours).await;
    outbox.published().await;
    ours.record(vec![update("1")]);
    outbox.published().await;
    assert_eq!(titles(&told(&stored(&server).await)), ["0", "1", "2", "1"], "it is 1 again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_knows_is_not_read_and_what_it_does_not_know_is_said() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (old, new) = (MemoryLog::new("old"), MemoryLog::new("new"));
    let item = |n: u32| recorded("s", EventKind::Item, &format!("k{n}"), &n.to_string());
    old.record((0..300).map(item).collect());
    let mut predecessor = Running::start(&server, &old).await;
    let epoch = predecessor.published().await;
    let subject = "newswire.events.general.s";
    let at = |seq: u64| Cursor { epoch: epoch.clone(), seq: Seq(seq) };
    assert_eq!(predecessor.known.last_of(subject, Seq(300)), Some(at(300)));
    assert_eq!(predecessor.known.last_of(subject, Seq(299)), None, "a later event is there");

    // The successor recorded one item before it took over, which is compared, and one after that.
    new.record(vec![item(7)]);
    let mut successor = Running::start(&server, &new).await;
    successor.published().await;
    assert_eq!(successor.counters.same_as_another.load(Relaxed), 1);
    assert_eq!(successor.known.last_of(subject, Seq(1)), None, "all but one are unknown, from the first on");
    successor.known.know(subject, &at(300), Seq(1));
    assert_eq!(successor.known.last_of(subject, Seq(1)), Some(at(300)));
    successor.kill().await;

    let mut successor = Running::start(&server, &new).await;
    successor.published().await;
    let before = successor.counters.others_read.load(Relaxed);
    successor.known.know(subject, &at(300), Seq(1));
    new.record(vec![item(300), recorded("s", EventKind::Update, "k1", "1")]);
    successor.published().await;
    assert_eq!(
        successor.counters.published.load(Relaxed),
        2,
        "the store said that the text is another one now"
    );
    assert_eq!(successor.counters.others_read.load(Relaxed), before, "nothing is read");
    assert_eq!(successor.known.last_of(subject, Seq(3)), Some(at(302)));

    // The predecessor wakes up, and has one event that the successor does not know.
    old.record(vec![item(300), item(301)]);
    predecessor.published().await;
    new.record(vec![item(302)]);
    successor.published().await;
    let all = told(&stored(&server).await);
    assert_eq!(titles(&all)[300..], ["300", "1", "301", "302"]);
    assert_eq!(
        successor.known.last_of(subject, Seq(4)),
        Some(at(302)),
        "not 301, which its store does not have"
    );
    // An epoch that is over means nothing.
    successor.known.know(subject, &Cursor { epoch: old.epoch.clone(), seq: Seq(400) }, Seq(4));
    assert_eq!(successor.known.last_of(subject, Seq(4)), Some(at(302)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_that_publish_to_a_cluster_at_the_same_time_are_in_each_others_way_and_no_more() {
    let Some(program) = nats_server_program() else { return };
    let cluster = NatsCluster::start(&program).await.unwrap();
    let logs = [MemoryLog::new("log1"), MemoryLog::new("log2")];
    let mut one = Running::start_in_cluster(cluster.server(0), &logs[0]).await;
    let mut two = Running::start_in_cluster(cluster.server(1), &logs[1]).await;
    // Stream and bucket are made, and have their leaders.
    logs.iter().for_each(|log| log.record(vec![recorded("s", EventKind::Item, "first", "0")]));
    tokio::join!(one.published(), two.published());
    [&one, &two].into_iter().for_each(|outbox| outbox.reports.lock().unwrap().clear());
    let happenings = happenings(600, 3);
    for now in happenings.chunks(50) {
        logs.iter().for_each(|log| log.record(now.to_vec()));
        tokio::join!(one.published(), two.published());
    }
    assert_eq!(told(&stored(cluster.server(2)).await).len(), happenings.len() + 1);
    let retries = [&one, &two].map(|outbox| outbox.counters.retries.load(Relaxed));
    assert!(retries.iter().sum::<u64>() > 0, "at times, the other one was quicker");
    for outbox in [&one, &two] {
        let reports = outbox.reports.lock().unwrap();
        let is_lost = |report: &OutboxReport| matches!(report, OutboxReport::Lost { .. });
        assert!(!reports.iter().any(is_lost), "{reports:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_subject_with_very_many_events_the_newest_are_read_and_the_rest_is_counted() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let (old, new) = (MemoryLog::new("old"), MemoryLog::new("new"));
    let item = |n: u32| recorded("s", EventKind::Item, &format!("k{n}"), &n.to_string());
    let rare = |n: u32| recorded("rare", EventKind::Item, &format!("k{n}"), &n.to_string());
    let all = (0..6000).flat_map(|n| [Some(item(n)), (n % 1000 == 500).then(|| rare(n))]);
    old.record(all.flatten().collect());
    Running::start(&server, &old).await.published().await;
    // The oldest one, and some of the newest.
    new.record([0, 3000, 5000, 5999, 6000].map(item).to_vec());
    let mut outbox = Running::start(&server, &new).await;
    outbox.published().await;
    let read = outbox.counters.others_read.load(Relaxed);
    assert!((4096..=2 * 4096).contains(&read), "{read}");
    assert_eq!(outbox.counters.unread.load(Relaxed), 1);
    assert_eq!(outbox.counters.same_as_another.load(Relaxed), 3);
    // Few events among many others: all are read.
    new.record([500, 2500, 5500, 6000].map(rare).to_vec());
    outbox.published().await;
    assert_eq!(outbox.counters.others_read.load(Relaxed), read + 6);
    assert_eq!((outbox.counters.unread.load(Relaxed), outbox.counters.same_as_another.load(Relaxed)), (1, 6));
    assert_eq!(titles(&told(&stored(&server).await))[6006..], ["0", "6000", "6000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: --run-ignored only --no-capture prints events per second that are passed over or published by one of two"]
async fn how_fast_a_daemon_passes_over_what_another_one_has_published() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let logs = [MemoryLog::new("log1"), MemoryLog::new("log2"), MemoryLog::new("late")];
    let text = "x".repeat(1200);
    let item = |n: u32| recorded(&format!("s{}", n % 200), EventKind::Item, &format!("k{n}"), &text);
    logs.iter().for_each(|log| log.record((0..20_000).map(item).collect()));
    let begun = tokio::time::Instant::now();
    let (mut one, mut two) =
        tokio::join!(Running::start(&server, &logs[0]), Running::start(&server, &logs[1]));
    tokio::join!(one.published(), two.published());
    println!("two daemons at once: {:.0}/s", 20_000.0 / begun.elapsed().as_secs_f64());
    let begun = tokio::time::Instant::now();
    Running::start(&server, &logs[2]).await.published().await;
    println!("passed over: {:.0}/s", 20_000.0 / begun.elapsed().as_secs_f64());
    assert_eq!(told(&stored(&server).await).len(), 20_000);
}
