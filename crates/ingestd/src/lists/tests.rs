//! Lists in files, over a real store directory. Requests are in the end-to-end tests.

use std::fs;

use news::FeedUrl;

use super::{schedule::DOUBT, *};
use crate::{
    messages::OwnSources,
    supervisor::tests::{Harness, harness},
};

/// The directory of a catalogue, and its lists.
struct TestLists {
    harness: Harness,
    etc: tempfile::TempDir,
    lists: FeedLists,
}

impl TestLists {
    async fn new() -> Self {
        let harness = harness(feed::read).await;
        let store = harness.directory.path().to_owned();
        let ctx = harness.ctx.clone().unwrap();
        let lists = FeedLists::new(ctx, &store, ListBoard::default());
        Self { harness, etc: tempfile::tempdir().unwrap(), lists }
    }

    /// Writes a list with these feeds.
    fn write(&self, feeds: impl IntoIterator<Item = u32>) {
        let outline = |n: u32| format!("<outline text='f{n}' xmlUrl='https://example.org/{n}'/>\n");
        let outlines: String = feeds.into_iter().map(outline).collect();
        fs::write(self.etc.path().join("own.opml"), format!("<opml><body>{outlines}</body></opml>")).unwrap();
    }

    /// As a start or a reload; returns the ids of all sources.
    async fn complete(&mut self, catalogue: &str) -> Vec<String> {
        let catalogue = Catalogue::parse(catalogue).unwrap();
        ids(&self.lists.complete(catalogue, &self.etc.path().join("sources.toml")).await.unwrap())
    }

    fn status(&self) -> ListStatus {
        self.lists.board.statuses().remove(0)
    }

    fn reads(&self, result: &'static str) -> u64 {
        self.harness.metrics.list_reads.get_or_create(&[("result", result)]).get()
    }
}

fn ids(catalogue: &Catalogue) -> Vec<String> {
    catalogue.sources.iter().map(|source| source.id.to_string()).collect()
}

fn listed(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("own-f{n}")).collect()
}

const LIST: &str = "[[list]]\nid = \"own\"\nfile = \"own.opml\"\n";

#[actix::test]
async fn a_doubtful_loss_counts_when_it_is_still_there_a_day_later() {
    let mut test = TestLists::new().await;
    test.write(0..12);
    assert_eq!(test.complete(LIST).await, listed(12));
    assert_eq!((test.status().sources, test.status().error), (12, None));
    test.write(0..5);
    for _ in 0..2 {
        assert_eq!(test.complete(LIST).await, listed(12), "its sources stay");
    }
    let error = test.status().error.unwrap();
    assert!(error.starts_with("it has lost 7 of its 12 feeds; its sources stay until"), "{error}");
    assert_eq!((test.harness.metrics.lists_failing.get(), test.reads("doubtful")), (1, 2));
    // A day passes; the first of the two counts.
    wait_a_day(&mut test);
    assert_eq!(test.complete(LIST).await, listed(5));
    assert_eq!((test.status().sources, test.status().error), (5, None));
    assert_eq!(test.harness.metrics.lists_failing.get(), 0);
}

#[actix::test]
async fn an_operator_can_take_a_doubtful_loss_at_once() {
    let mut test = TestLists::new().await;
    test.write(0..3);
    test.complete(LIST).await;
    test.write([]);
    assert_eq!(test.complete(LIST).await, listed(3));
    let order = |take| ListOrder { lists: vec!["own".to_owned(), "other".to_owned()], take };
    let answer = test.lists.order(order(false));
    assert_eq!((answer.accepted, answer.unknown), (vec!["own".to_owned()], vec!["other".to_owned()]));
    // Being cancelled loses nothing, as in the control loop.
    while test.reads("doubtful") < 2 {
        let changed = tokio::time::timeout(Duration::from_millis(20), test.lists.changed()).await;
        assert!(changed.is_err(), "a doubtful read changes nothing");
    }
    assert!(test.status().is_failing());
    test.lists.order(order(true));
    test.lists.changed().await;
    assert!(!test.status().is_failing());
    assert!(test.lists.merge(Vec::new()).await.unwrap().sources.is_empty());
}

#[actix::test]
async fn a_list_that_recovers_begins_its_next_doubt_anew() {
    let mut test = TestLists::new().await;
    test.write(0..3);
    test.complete(LIST).await;
    test.write([]);
    assert_eq!(test.complete(LIST).await, listed(3));
    assert!(test.lists.held[0].memory.doubtful_since.is_some());
    test.write(0..2);
    assert_eq!(test.complete(LIST).await, listed(2), "a loss of one of three is believed");
    assert_eq!(test.lists.held[0].memory.doubtful_since, None);
    for (text, why) in [("<html>404</html>", "this is not OPML"), ("", "this is not OPML")] {
        fs::write(test.etc.path().join("own.opml"), text).unwrap();
        assert_eq!(test.complete(LIST).await, listed(2));
        assert!(test.status().error.unwrap().contains(why));
    }
    fs::remove_file(test.etc.path().join("own.opml")).unwrap();
    assert_eq!(test.complete(LIST).await, listed(2));
    let status = test.status();
    assert_eq!((status.failures, test.reads("failed")), (3, 3));
    assert!(status.error.unwrap().contains("its file cannot be read: No such file"), "names the file");
}

/// As if the doubtful loss had been seen a day earlier.
fn wait_a_day(test: &mut TestLists) {
    let since = &mut test.lists.held[0].memory.doubtful_since;
    *since =
        Some(Timestamp::from_millis(since.unwrap().millis() - i64::try_from(DOUBT.as_millis()).unwrap()));
}

#[actix::test]
async fn another_loss_is_not_believed_because_one_before_was_doubtful() {
    let mut test = TestLists::new().await;
    test.write(0..10);
    test.complete(LIST).await;
    test.write(0..4);
    test.complete(LIST).await;
    wait_a_day(&mut test);
    // A maintenance, the next day.
    test.write([]);
    assert_eq!(test.complete(LIST).await, listed(10));
    let error = test.status().error.unwrap();
    assert!(error.starts_with("it has none of its 10 feeds any more; its sources stay until"), "{error}");
    // What was lost before is a part of it. A start remembers it.
    wait_a_day(&mut test);
    let memory = &test.lists.held[0].memory;
    test.lists.copies.lock().write_memory(&test.lists.held[0].list.id, memory).unwrap();
    let ctx = test.harness.ctx.clone().unwrap();
    test.lists = FeedLists::new(ctx, test.harness.directory.path(), ListBoard::default());
    test.write(0..4);
    assert_eq!(test.complete(LIST).await, listed(4));
    assert_eq!((test.status().error, &test.lists.held[0].memory.lost), (None, &Default::default()));
}

#[actix::test]
async fn what_is_new_in_a_list_counts_while_its_loss_is_doubtful() {
    let mut test = TestLists::new().await;
    test.write(0..12);
    test.complete(LIST).await;
    test.write(9..14);
    for _ in 0..2 {
        let mut all = test.complete(LIST).await;
        assert_eq!(all[..5], ["own-f9", "own-f10", "own-f11", "own-f12", "own-f13"]);
        all.sort();
        let mut expected = listed(14);
        expected.sort();
        assert_eq!(all, expected);
        assert!(test.status().error.unwrap().contains("it has lost 9 of its 1"));
    }
    assert_eq!(test.reads("doubtful"), 2);
    wait_a_day(&mut test);
    assert_eq!(test.complete(LIST).await, ["own-f9", "own-f10", "own-f11", "own-f12", "own-f13"]);
}

#[actix::test]
async fn another_address_of_a_list_is_the_order_of_the_operator_and_no_loss() {
    let other = "[[list]]\nid = \"own\"\nfile = \"other.opml\"\n";
    let write_other = |test: &TestLists, outlines: &str| {
        let text = format!("<opml><body>{outlines}</body></opml>");
        fs::write(test.etc.path().join("other.opml"), text).unwrap();
    };
    for is_start in [false, true] {
        let mut test = TestLists::new().await;
        test.write(0..3);
        test.complete(LIST).await;
        // It is not there yet, and then it looks as after a fault.
        assert_eq!(test.complete(other).await, listed(3));
        write_other(&test, "");
        assert_eq!(test.complete(other).await, listed(3));
        if is_start {
            let ctx = test.harness.ctx.clone().unwrap();
            test.lists = FeedLists::new(ctx, test.harness.directory.path(), ListBoard::default());
        }
        write_other(&test, "<outline text='fx' xmlUrl='https://example.org/x'/>");
        assert_eq!((test.complete(other).await, test.status().error), (vec!["own-fx".to_owned()], None));
        // From then on its losses are doubtful again.
        write_other(&test, "<outline text='fy' xmlUrl='https://example.org/y'/>");
        assert_eq!(test.complete(other).await, ["own-fy", "own-fx"]);
        assert!(test.status().error.unwrap().contains("it has none of its 1 feeds any more"));
    }
}

#[actix::test]
async fn an_accepted_order_to_take_a_loss_outlives_a_reload() {
    let mut test = TestLists::new().await;
    test.write(0..3);
    test.complete(LIST).await;
    test.write([]);
    let take = ListOrder { lists: vec!["own".to_owned()], take: true };
    assert_eq!(test.lists.order(take).accepted, ["own"]);
    assert_eq!(test.complete(LIST).await, [""; 0]);
    assert!(!test.status().is_failing());
}

#[actix::test]
async fn a_new_category_changes_nothing_of_what_is_known_about_a_list() {
    let mut test = TestLists::new().await;
    let url = "[[list]]\nid = \"own\"\nurl = \"https://example.org/list\"\n";
    let list = Catalogue::parse(url).unwrap().lists.remove(0);
    let copies = test.lists.copies.clone();
    let mut source =
        Source::new(SourceId::try_new("own-a").unwrap(), FeedUrl::try_new("https://example.org/a").unwrap());
    source.category = "folder".to_owned();
    let memory = ListMemory {
        reading: list.reading_hash(),
        is_trusted: true,
        etag: Some("\"x\"".to_owned()),
        next_read: Some(test.lists.ctx.now().plus(DOUBT)),
        last_read: Some(test.lists.ctx.now()),
        every_ms: millis(list.every),
        ..ListMemory::default()
    };
    copies.lock().write_sources(&list.id, vec![source]).unwrap();
    copies.lock().write_memory(&list.id, &memory).unwrap();
    let main = test.etc.path().join("sources.toml");
    for (keys, category) in [("", "folder"), ("category = \"x\"\n", "x"), ("", "folder")] {
        // Its id is in use: the copy is written.
        let text = format!("{url}{keys}[[source]]\nid = \"own-a\"\nurl = \"https://example.org/b\"\n");
        let all = test.lists.complete(Catalogue::parse(&text).unwrap(), &main).await.unwrap();
        assert_eq!(
            (ids(&all), &*all.sources[1].category),
            (vec!["own-a".into(), "own-a-2".into()], category)
        );
        assert!(!all.sources[1].has_foreign_address());
        assert_eq!(test.lists.held[0].memory, memory);
    }
}

/// Ids that a merge writes into a copy, and feeds that a read writes: neither loses the other.
#[actix::test]
async fn a_read_and_a_merge_at_the_same_time_lose_nothing() {
    let test = TestLists::new().await;
    let copies = test.lists.copies.clone();
    let [first, second] = ["first", "second"].map(|id| SourceId::try_new(id).unwrap());
    let source = |id: &str, feed: &str| {
        let url = FeedUrl::try_new(&format!("https://example.org/{feed}")).unwrap();
        Source::new(SourceId::try_new(id).unwrap(), url)
    };
    let copied = |list| ids(&Catalogue { sources: copies.sources(list).unwrap(), ..Catalogue::default() });
    let merge = || {
        let mark = |id: &SourceId| Some((Arc::new(ListMark { id: id.clone(), is_trusted: false }), None));
        let (marks, copies) = (vec![mark(&first), mark(&second)], copies.clone());
        std::thread::spawn(move || merge_copies(Vec::new(), marks, &copies))
    };
    copies.lock().write_sources(&first, vec![source("first-a", "a")]).unwrap();
    copies.lock().write_sources(&second, vec![source("second-a", "a")]).unwrap();
    let locked = copies.lock();
    let merging = merge();
    // Time for a merge that does not wait.
    std::thread::sleep(Duration::from_millis(50));
    locked.write_sources(&second, vec![source("second-a", "a"), source("second-b", "b")]).unwrap();
    drop(locked);
    let (catalogue, _) = merging.join().unwrap();
    assert_eq!(ids(&catalogue), ["first-a", "second-b"]);
    assert_eq!(copied(&second), ["first-a", "second-b"]);

    // The other way round, with a read of the daemon.
    let text = "[[list]]\nid = \"second\"\nfile = \"second.opml\"\n";
    let document = |names: &[&str]| {
        let outline = |name: &&str| format!("<outline text='{name}' xmlUrl='https://example.org/{name}'/>");
        format!("<opml><body>{}</body></opml>", names.iter().map(outline).collect::<String>())
    };
    copies.lock().write_sources(&second, vec![source("second-a", "a")]).unwrap();
    fs::write(test.etc.path().join("second.opml"), document(&["a", "fc"])).unwrap();
    let job = ReadJob {
        list: Arc::new(Catalogue::parse(text).unwrap().lists.remove(0)),
        memory: ListMemory::default(),
        directory: test.etc.path().to_owned(),
        copies: copies.clone(),
        wait: ListWait::default(),
        takes_all: false,
    };
    let locked = copies.lock();
    let mut reading = tokio::task::spawn_local(read::read(Rc::clone(&test.lists.ctx), job));
    // Time for a read that does not wait.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut reading).await.is_err());
    locked.write_sources(&second, vec![source("first-a", "a")]).unwrap();
    drop(locked);
    assert_eq!(reading.await.unwrap().result.as_str(), "changed");
    assert_eq!(copied(&second), ["first-a", "second-fc"]);
}

#[actix::test]
async fn the_sources_of_a_list_end_with_it_and_come_back_with_their_ids() {
    let mut test = TestLists::new().await;
    test.write(0..3);
    assert_eq!(test.complete(LIST).await, listed(3));
    // The category of the list holds at once, and a source of the files with a feed of the list wins.
    let text = format!("{LIST}category = \"x\"\n[[source]]\nid = \"mine\"\nurl = \"http://example.org/1\"\n");
    let catalogue = Catalogue::parse(&text).unwrap();
    let main = test.etc.path().join("sources.toml");
    let all = test.lists.complete(catalogue, &main).await.unwrap();
    assert_eq!(ids(&all), ["mine", "own-f0", "own-f2"]);
    assert!(all.sources[1..].iter().all(|source| source.category == "x" && !source.has_foreign_address()));
    assert_eq!((test.status().sources, test.status().known), (2, 1));
    assert_eq!(test.complete(&format!("{LIST}enabled = false\n")).await, [""; 0]);
    assert!(!test.status().is_failing() && test.status().next_read.is_none());
    assert_eq!(test.complete("").await, [""; 0]);
    let copies = fs::read_dir(test.harness.directory.path().join("lists")).unwrap();
    assert_eq!((copies.count(), test.lists.board.statuses().len()), (0, 0));
    assert_eq!(test.complete(LIST).await, listed(3));
}

#[actix::test]
async fn a_feed_that_comes_back_has_its_id_and_no_other_feed_has_taken_it() {
    let mut test = TestLists::new().await;
    let write = |test: &TestLists, feeds: &[&str]| {
        let outline = |host: &&str| format!("<outline text='News' xmlUrl='https://{host}.example/'/>");
        let outlines: String = feeds.iter().map(outline).collect();
        let text = format!("<opml><body>{outlines}</body></opml>");
        fs::write(test.etc.path().join("own.opml"), text).unwrap();
    };
    write(&test, &["a", "b", "c", "d"]);
    assert_eq!(test.complete(LIST).await, ["own-news", "own-news-2", "own-news-3", "own-news-4"]);
    write(&test, &["c", "d"]);
    assert_eq!(test.complete(LIST).await, ["own-news-3", "own-news-4"]);
    // A start.
    let ctx = test.harness.ctx.clone().unwrap();
    test.lists = FeedLists::new(ctx, test.harness.directory.path(), ListBoard::default());
    write(&test, &["x", "c", "d"]);
    assert_eq!(test.complete(LIST).await, ["own-news-5", "own-news-3", "own-news-4"]);
    write(&test, &["c", "d", "b"]);
    assert_eq!(test.complete(LIST).await, ["own-news-3", "own-news-4", "own-news-2"]);
}

#[actix::test]
async fn the_status_of_a_list_says_what_its_read_waits_for() {
    let mut test = TestLists::new().await;
    let host = crate::queue::host::Host::of(FeedUrl::try_new("https://example.org/").unwrap().secret());
    test.lists.ctx.limiter.hold(&host, 503, Duration::from_secs(30));
    test.complete("[[list]]\nid = \"own\"\nurl = \"https://example.org/list\"\n").await;
    assert_eq!(test.status().waiting_for, None);
    while test.status().waiting_for.is_none() {
        let changed = tokio::time::timeout(Duration::from_millis(20), test.lists.changed()).await;
        assert!(changed.is_err(), "nothing is read");
    }
    let reason = test.status().waiting_for.unwrap();
    assert!(reason.contains("503") && reason.contains("example.org"), "{reason}");
}

/// The copy of a list that was read from `url` a while ago.
fn write_copy(test: &TestLists, url: &str, memory: ListMemory) {
    let list = Catalogue::parse(&of_url(url)).unwrap().lists.remove(0);
    let copies = ListCopies::new(test.harness.directory.path());
    let copies = copies.lock();
    let source = Source::new(
        SourceId::try_new("own-f0").unwrap(),
        FeedUrl::try_new("http://127.0.0.1:9/feed").unwrap(),
    );
    copies.write_sources(&list.id, vec![source]).unwrap();
    copies.write_memory(&list.id, &ListMemory { reading: list.reading_hash(), ..memory }).unwrap();
}

fn of_url(url: &str) -> String {
    format!("[[list]]\nid = \"own\"\nurl = \"{url}\"\n")
}

/// Whether the only source is there and counts as foreign.
async fn is_foreign(test: &mut TestLists, catalogue: &str) -> bool {
    let catalogue = Catalogue::parse(catalogue).unwrap();
    let all = test.lists.complete(catalogue, &test.etc.path().join("sources.toml")).await.unwrap();
    assert_eq!(ids(&all), ["own-f0"]);
    all.sources[0].has_foreign_address()
}

#[actix::test]
async fn what_the_sources_of_a_list_may_reach_follows_from_where_the_copy_came_from() {
    let inside = "http://127.0.0.1:9/list";
    for is_trusted in [true, false] {
        let mut test = TestLists::new().await;
        write_copy(&test, inside, ListMemory { is_trusted, ..ListMemory::default() });
        assert_eq!(is_foreign(&mut test, &of_url(inside)).await, !is_trusted, "control");
        // Other addresses that were never read, and a file that is not there.
        let others =
            [of_url("https://example.org/list"), of_url("http://127.0.0.1:9/other"), LIST.to_owned()];
        for other in &others {
            assert_eq!(is_foreign(&mut test, other).await, !is_trusted, "{other}");
        }
        // A failed read has written what is known about the file; and a start.
        let ctx = test.harness.ctx.clone().unwrap();
        test.lists = FeedLists::new(ctx, test.harness.directory.path(), ListBoard::default());
        for other in others.iter().rev() {
            assert_eq!(is_foreign(&mut test, other).await, !is_trusted, "{other}");
        }
        // It is there.
        test.write(0..1);
        assert_eq!(test.complete(LIST).await, ["own-f0-2", "own-f0"], "the old one stays for a day");
        test.lists.order(ListOrder { lists: vec!["own".to_owned()], take: true });
        test.lists.changed().await;
        assert!(!test.lists.merge(Vec::new()).await.unwrap().sources[0].has_foreign_address());
    }
}

#[actix::test]
async fn a_read_that_ends_after_its_address_was_changed_says_where_the_copy_is_from() {
    let mut test = TestLists::new().await;
    write_copy(&test, "http://127.0.0.1:9/list", ListMemory { is_trusted: true, ..ListMemory::default() });
    assert!(!is_foreign(&mut test, &of_url("http://127.0.0.1:9/other")).await, "control");
    let list = test.lists.held[0].list.id.clone();
    let memory = ListMemory { reading: 1, is_trusted: false, ..ListMemory::default() };
    let result = ReadResult::Changed { sources: 1, added: 1, removed: 1, refused: Vec::new() };
    test.lists.held[0].is_reading = true;
    test.lists.take(ListRead { list, memory, result });
    assert!(test.lists.merge(Vec::new()).await.unwrap().sources[0].has_foreign_address());
}

#[actix::test]
async fn a_new_interval_holds_from_the_last_read_on() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let url = "https://example.org/list";
    let every = |every: &str| format!("{}every = \"{every}\"\n", of_url(url));
    for is_start in [false, true] {
        let mut test = TestLists::new().await;
        let now = test.lists.ctx.now();
        let ago =
            |wait: Duration| Timestamp::from_millis(now.millis() - i64::try_from(wait.as_millis()).unwrap());
        let planned = ListMemory {
            every_ms: 20 * 24 * 3600 * 1000,
            last_read: Some(ago(DAY)),
            next_read: Some(now.plus(19 * DAY)),
            ..ListMemory::default()
        };
        write_copy(&test, url, planned.clone());
        let mut next = async |text: &str, failures, asked_ms| {
            if is_start {
                write_copy(&test, url, ListMemory { failures, asked_ms, ..planned.clone() });
                let ctx = test.harness.ctx.clone().unwrap();
                test.lists = FeedLists::new(ctx, test.harness.directory.path(), ListBoard::default());
            } else {
                test.complete(&every("20d")).await;
                let held = &mut test.lists.held[0];
                held.memory =
                    ListMemory { reading: held.memory.reading, failures, asked_ms, ..planned.clone() };
            }
            test.complete(text).await;
            test.status().next_read.unwrap()
        };
        let days = |from: Timestamp| from.since(ago(DAY)).as_secs_f64() / DAY.as_secs_f64();
        assert_eq!(next(&every("20d"), 0, None).await, now.plus(19 * DAY), "control");
        assert!((2.0..=2.2).contains(&days(next(&every("2d"), 0, None).await)));
        assert!((30.0..=33.0).contains(&days(next(&every("30d"), 0, None).await)));
        assert!(next(&every("1h"), 0, None).await < now, "at once");
        let asked_ms = Some(5 * 24 * 3600 * 1000);
        assert!(next(&every("1h"), 1, None).await < now);
        assert!((1.0..=1.1).contains(&days(next(&every("1h"), 1, asked_ms).await)), "at most a day");
    }
}

#[actix::test]
async fn a_list_that_is_due_while_as_many_as_may_be_are_read_waits_for_its_turn() {
    let mut test = TestLists::new().await;
    let host = crate::queue::host::Host::of(FeedUrl::try_new("https://example.org/").unwrap().secret());
    test.lists.ctx.limiter.hold(&host, 503, Duration::from_secs(30));
    let list = |n| format!("[[list]]\nid = \"l{n}\"\nurl = \"https://example.org/{n}\"\n");
    test.complete(&(0..=READS_MAX).map(list).collect::<String>()).await;
    let statuses = |test: &TestLists| test.lists.board.statuses();
    while statuses(&test).iter().any(|list| list.waiting_for.is_none()) {
        let changed = tokio::time::timeout(Duration::from_millis(20), test.lists.changed()).await;
        assert!(changed.is_err(), "nothing is read");
    }
    let waits = |list: &ListStatus| list.waiting_for.clone().unwrap();
    let mut reasons: Vec<_> = statuses(&test).iter().map(waits).collect();
    assert_eq!(reasons.pop().unwrap(), "4 other lists are being read");
    assert!(reasons.iter().all(|reason| reason.contains("503")), "{reasons:?}");
    // The fifth has its turn when one of the others is done.
    test.lists.reads.abort_all();
    while test.lists.reads.join_next().await.is_some() {}
    test.lists.start_due(test.lists.ctx.now());
    assert_eq!(statuses(&test).pop().unwrap().waiting_for, None);
}

#[actix::test]
async fn a_damaged_copy_stops_no_start_and_the_list_is_read_again() {
    let mut test = TestLists::new().await;
    test.write(0..3);
    test.complete(LIST).await;
    let copy = test.harness.directory.path().join("lists/own.toml");
    fs::write(&copy, "[[source]]\n").unwrap();
    test.lists.held[0].memory.etag = Some("\"x\"".to_owned());
    assert!(test.lists.merge(Vec::new()).await.unwrap().sources.is_empty());
    let now = test.lists.ctx.now();
    assert_eq!((test.lists.held[0].memory.etag.as_ref(), test.lists.held[0].due(now)), (None, Some(now)));
    test.lists.changed().await;
    assert_eq!(ids(&test.lists.merge(Vec::new()).await.unwrap()), listed(3));
}

#[actix::test]
async fn the_supervisor_tells_the_sources_of_the_files_from_those_of_lists() {
    let test = TestLists::new().await;
    let source = |id: &str, list: Option<&str>| {
        let mut source =
            Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new("https://example.org/").unwrap());
        source.enabled = false;
        let mark = |id: &str| Arc::new(ListMark { id: SourceId::try_new(id).unwrap(), is_trusted: false });
        source.list = list.map(mark);
        source
    };
    let all = vec![source("a", None), source("b", Some("planet")), source("c", None)];
    test.harness.apply(all).await;
    let own = test.harness.supervisor.send(OwnSources).await.unwrap();
    assert_eq!(own, [source("a", None), source("c", None)]);
    let status = |id: &str| test.harness.registry.get(id).unwrap().status().list.map(|id| id.to_string());
    assert_eq!((status("a"), status("b")), (None, Some("planet".to_owned())));
    // The same source is the operator's own now.
    let diff = test.harness.apply(vec![source("a", None), source("b", None)]).await;
    assert_eq!((diff.changed, diff.removed), (1, 1));
    assert_eq!(test.harness.supervisor.send(OwnSources).await.unwrap().len(), 2);
}
