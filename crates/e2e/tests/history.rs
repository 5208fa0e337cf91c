//! The whole history over HTTP: from the gateway's memory down to the oldest event of the store.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeSet, time::Duration};

use e2e::{Binary, Origin, TestStack, http, log_line, scenario, wait_for};
use serde_json::Value;
use tokio::time::Instant;

const FEEDS: usize = 6;
/// Items of each feed; its document has all of them.
const ITEMS: usize = 150;
/// Events that the gateway has in memory.
const RING: usize = 100;
/// Deadline for all of them to be recorded.
const RECORDED_WITHIN: Duration = Duration::from_secs(60);

/// All items below a path, by following `next`, and how many pages they took.
async fn walk(stack: &TestStack, path: &str, mut between: impl FnMut()) -> (Vec<Value>, usize) {
    let (mut path, mut items, mut pages) = (path.to_owned(), Vec::new(), 0);
    loop {
        let mut page = stack.json(&path).await.unwrap();
        items.append(page["items"].as_array_mut().unwrap());
        pages += 1;
        let Some(next) = page["next"].as_str() else { return (items, pages) };
        next.clone_into(&mut path);
        between();
    }
}

fn number(item: &Value) -> u64 {
    item["id"].as_str().unwrap().rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Without the daemon; and the stream keeps the limits that it was made with.
async fn old_pages_come_from_nats(stack: &TestStack, newest: &Value) {
    let (rest, _) = walk(stack, newest["next"].as_str().unwrap(), || ()).await;
    let last = number(newest["items"].as_array().unwrap().last().unwrap());
    let rest: Vec<_> = rest.iter().map(number).collect();
    assert_eq!(rest, (1..last).rev().collect::<Vec<_>>(), "without the daemon, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_over_the_whole_history_has_every_item_once_and_each_has_an_address() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS)).unwrap();
    stack.set("gateway.ring_events", &RING.to_string());
    let publish = |n| origin.publish(&format!("feed-{}", n % FEEDS), &format!("Story {n}"));
    let guids: BTreeSet<_> = (0..FEEDS * ITEMS).map(publish).collect();
    stack.start_both().await.unwrap();
    let head = async || {
        let head = stack.json("/news?limit=1").await.ok()?["head"].as_str()?.to_owned();
        (number(&serde_json::json!({ "id": head })) >= (FEEDS * ITEMS) as u64).then_some(head)
    };
    let head = wait_for("all items in the log", RECORDED_WITHIN, head).await.unwrap();
    let epoch = head.rsplit_once('-').unwrap().0.to_owned();

    let mut more = 0;
    let began = Instant::now();
    let (items, pages) = walk(&stack, "/news?limit=40", || {
        more += 1;
        origin.publish("feed-0", &format!("Published during the walk: {more}"));
    })
    .await;
    log_line(&format!("{} items on {pages} pages in {:?}", items.len(), began.elapsed()));
    let numbers: Vec<_> = items.iter().map(number).collect();
    let first = numbers[0];
    assert_eq!(numbers, (1..=first).rev().collect::<Vec<_>>(), "no hole, nothing twice, nothing new");
    let walked: BTreeSet<_> = items.iter().map(|item| item["guid"].as_str().unwrap().to_owned()).collect();
    assert!(guids.is_subset(&walked), "every item that was published before");

    let (of_one, _) = walk(&stack, "/news?limit=1000&source=feed-3", || ()).await;
    assert_eq!(of_one.len(), ITEMS);
    let (found, _) = walk(&stack, "/news?q=story+7", || ()).await;
    let contains = |item: &&Value| {
        let text = format!("{}\n{}", item["title"].as_str().unwrap(), item["summary"].as_str().unwrap());
        text.to_lowercase().contains("story") && text.contains('7')
    };
    assert_eq!(found.len(), items.iter().filter(contains).count());
    assert!(found.len() >= 100, "{}", found.len());
    let after = format!("/news?limit=30&after={epoch}-200&before={epoch}-400");
    let between: Vec<_> = walk(&stack, &after, || ()).await.0.iter().map(number).collect();
    assert_eq!(between, (201..400).rev().collect::<Vec<_>>());

    let oldest = items.last().unwrap();
    let alone = stack.json(&format!("/news/{}", oldest["id"].as_str().unwrap())).await.unwrap();
    assert_eq!(&alone, oldest, "the oldest event, by its address");

    stack.kill(Binary::Ingestd).unwrap();
    let newest = stack.json(&format!("/news?limit={RING}")).await.unwrap();
    assert_eq!(newest["items"].as_array().unwrap().len(), RING, "the gateway has these");
    if stack.is_over_nats() {
        return old_pages_come_from_nats(&stack, &newest).await;
    }
    let below = newest["next"].as_str().unwrap();
    let (status, problem) = http::fetch(&stack.gateway(), below, Duration::from_secs(10)).await.unwrap();
    assert!(status == 503 && problem.contains("no-daemon"), "{status} {problem}");
    stack.set("store.retention_events", "500");
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    let retained = async || {
        let oldest = number(&serde_json::json!({ "id": stack.json("/news?limit=1").await.ok()?["oldest"] }));
        (oldest > 100).then_some(oldest)
    };
    let oldest = wait_for("the retention of 500 events", RECORDED_WITHIN, retained).await.unwrap();
    let (rest, _) = walk(&stack, newest["next"].as_str().unwrap(), || ()).await;
    let last = number(newest["items"].as_array().unwrap().last().unwrap());
    let rest: Vec<_> = rest.iter().map(number).collect();
    assert!(rest.last().is_some_and(|end| *end >= oldest), "{rest:?}");
    assert_eq!(
        rest,
        (rest[rest.len() - 1]..last).rev().collect::<Vec<_>>(),
        "the walk goes on where it stopped"
    );
    let gone = format!("/news/{epoch}-1");
    let (status, problem) = http::fetch(&stack.gateway(), &gone, Duration::from_secs(10)).await.unwrap();
    assert!(status == 410 && problem.contains("no-longer-kept"), "{status} {problem}");
}
