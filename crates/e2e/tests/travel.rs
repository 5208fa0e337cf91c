//! The whole way of an item: from a feed to a subscriber.

use std::time::Duration;

use e2e::{Binary, Origin, Published, RecordedEvent, TestSource, TestStack, faults, scenario, wait_for};

/// Deadline of an item: a visit every second, and a slow machine.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_item_travels_from_the_origin_to_a_subscriber() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 3)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    let stream = subscriber.wait_event("stream", ARRIVES_WITHIN, |_| true).await.unwrap();
    assert_eq!(stream.json()["resume"], "live");
    assert_eq!(subscriber.records()[0].message.event, "stream", "the event `stream` comes first");

    for feed in ["feed-0", "feed-1", "feed-2"] {
        let guid = origin.publish(feed, "Rain & <wind>");
        let record =
            subscriber.wait_event("item", ARRIVES_WITHIN, |r| r.json()["guid"] == *guid).await.unwrap();
        let item = record.json();
        assert_eq!(item["kind"], "item", "{item}");
        assert_eq!(item["source"], *feed, "{item}");
        assert_eq!(item["source_name"], format!("Source {feed}"), "{item}");
        assert_eq!(item["title"], "Rain & <wind>", "{item}");
        assert_eq!(item["summary"], "About Rain & <wind>", "{item}");
        assert!(
            item["link"].as_str().unwrap().starts_with(&format!("https://{feed}.example/articles/")),
            "{item}"
        );
        let when = item["published"].as_str().or(item["updated"].as_str()).unwrap();
        assert!(when.starts_with("2026-01-31T00:00:"), "{item}");
        assert!(item["first_seen"].as_str().is_some_and(|t| t > when), "{item}");
        assert_eq!(record.message.last_event_id, item["id"].as_str().unwrap());
        assert_eq!(record.message.data.lines().count(), 1, "an item is one line");

        let page = stack.json("/news").await.unwrap();
        assert!(page.to_string().contains(&guid), "{page}");
        let alone = stack.json(&format!("/news/{}", item["id"].as_str().unwrap())).await.unwrap();
        assert_eq!(alone, item, "an event has the same JSON everywhere");
    }
    let faults = faults(&origin.published(), &subscriber.records());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Texts that would end a line, an event or a string, or add a field, if they were not escaped.
const HOSTILE: [&str; 12] = [
    "two\nlines",
    "two\rlines\r\nor three",
    "\n\nid: e-9999\nevent: gap\ndata: {}\n\n",
    "id: e-9999",
    "id:\n\nretry: 1\n",
    ": comment",
    "data: x\u{2028}data: y\u{2029}\u{85}\u{b}\u{c}",
    "\u{0}\u{1b}[31m\u{7f}\u{9b}",
    "\u{feff}begins with a mark",
    "\"}\n\ndata: {\"",
    "\\u0000\\n\\",
    "\u{10ffff}\u{fffd}\u{202e}",
];

#[tokio::test]
async fn a_hostile_item_is_exactly_one_event_with_equal_data_in_every_form() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    let entries: Vec<_> = HOSTILE
        .iter()
        .enumerate()
        .map(|(number, text)| {
            serde_json::json!({
                "id": format!("{number}{text}"), "title": format!("{number} {text}"), "content_text": text,
                "summary": text, "tags": [text], "authors": [{ "name": text }],
            })
        })
        .collect();
    let feed =
        serde_json::json!({ "version": "https://jsonfeed.org/version/1.1", "title": "x", "items": entries });
    let (file, feed) = (stack.path("hostile.json"), feed.to_string());
    std::fs::write(&file, &feed).unwrap();
    stack.write_catalogue(&[TestSource::new("hostile", origin.add_file(&file).unwrap())]).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    wait_for("every item", ARRIVES_WITHIN, async || {
        (subscriber.count("item") >= HOSTILE.len()).then_some(())
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let records = subscriber.records();
    let names = ["stream", "item", "live", "source"];
    assert!(records.iter().all(|r| names.contains(&r.message.event.as_str())), "{}", subscriber.summary());
    let records = subscriber.events("item");
    assert_eq!(records.len(), HOSTILE.len(), "one event per item");
    let hints = feed::Hints { url: None, content_type: Some("application/feed+json"), language: None };
    let read = feed::read(feed.as_bytes(), &hints).unwrap();

    let lines = [("Accept", "application/x-ndjson"), ("Connection", "close")];
    let mut lines =
        e2e::http::get(&stack.gateway(), "/news/stream?snapshot=1000&kinds=item", &lines).await.unwrap();
    let mut ndjson = Vec::new();
    while ndjson.iter().filter(|byte| **byte == b'\n').count() <= HOSTILE.len() {
        ndjson.extend(lines.next().await.unwrap().expect("the stream goes on"));
    }
    let ndjson = String::from_utf8(ndjson).unwrap();
    for (record, line) in records.iter().zip(ndjson.split('\n').skip(1)) {
        let item = record.json();
        assert_eq!(record.message.last_event_id, item["id"], "{item}");
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let meant = read.items.iter().find(|meant| meant.key == text("key")).expect("it was in the feed");
        assert_eq!((&text("title"), &text("summary")), (&meant.title, &meant.summary));
        assert_eq!(text("guid"), meant.guid.clone().unwrap_or_default());
        let id = record.message.last_event_id.as_str();
        assert_eq!(stack.json(&format!("/news/{id}")).await.unwrap(), item);
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["event"], &line["id"], &line["data"]), (&"item".into(), &id.into(), &item));
    }
    let data: String = records.iter().map(|record| record.message.data.as_str()).collect();
    assert!(
        ["id: e-9999", "data: x", ": comment"].iter().all(|text| data.contains(text)),
        "still hostile: {data}"
    );
    let epoch_and_head = subscriber.last_event_id();
    assert!(epoch_and_head.ends_with(&format!("-{}", HOSTILE.len())), "{epoch_and_head}");
}

#[tokio::test]
async fn a_visit_is_reported_and_an_unchanged_feed_is_not_transferred_again() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    subscriber.wait_event("stream", ARRIVES_WITHIN, |_| true).await.unwrap();
    origin.publish("feed-0", "Once");

    let first =
        subscriber.wait_event("source", ARRIVES_WITHIN, |r| r.json()["status"] == "new").await.unwrap();
    let news = first.json();
    assert_eq!((&news["source"], &news["new"]), (&"feed-0".into(), &1.into()), "{news}");
    assert!(news["next_visit"].is_string() && news["why"].is_string(), "{news}");
    let later = |r: &RecordedEvent| r.at > first.at && r.json()["status"] == "unchanged";
    let same = subscriber.wait_event("source", ARRIVES_WITHIN, later).await.unwrap();
    assert_eq!(
        same.message.last_event_id,
        subscriber.last_event_id(),
        "a report does not change the last event id"
    );
    wait_for("a visit that is answered with 304", ARRIVES_WITHIN, async || {
        origin.requests("feed-0").iter().any(|r| r.answered == Some(304)).then_some(())
    })
    .await
    .unwrap();
    let requests = origin.requests("feed-0");
    assert!(requests[0].header("if-none-match").is_none());
    let conditional = requests.iter().find(|r| r.answered == Some(304)).unwrap();
    assert!(
        conditional.header("if-none-match").is_some() && conditional.header("if-modified-since").is_some()
    );

    let sources = stack.json("/sources/feed-0").await.unwrap();
    assert_eq!(sources["consecutive_failures"], 0, "{sources}");
    assert_eq!(sources["counts"]["items"], 1, "{sources}");
}

#[tokio::test]
async fn a_changed_article_is_an_update_and_the_first_event_does_not_change() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let guid = origin.publish("feed-0", "Two hurt in storm");
    let first =
        subscriber.wait_event("item", ARRIVES_WITHIN, |r| r.json()["guid"] == *guid).await.unwrap().json();
    origin.edit("feed-0", &guid, "Three hurt in storm");
    let second =
        subscriber.wait_event("update", ARRIVES_WITHIN, |r| r.json()["guid"] == *guid).await.unwrap().json();
    assert_eq!(second["title"], "Three hurt in storm");
    assert_eq!((&second["key"], &second["first_seen"]), (&first["key"], &first["first_seen"]));
    assert_ne!(second["id"], first["id"]);
    let kept = stack.json(&format!("/news/{}", first["id"].as_str().unwrap())).await.unwrap();
    assert_eq!(kept, first);
    assert_eq!(subscriber.count("item"), 1);
}

#[tokio::test]
async fn a_later_client_gets_what_was_published_before() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    for number in 0..60 {
        origin.publish("feed-0", &format!("Article {number}"));
    }
    let last = origin.publish("feed-1", "The last one");
    stack.start_both().await.unwrap();
    let early = stack.subscribe("/news/stream?snapshot=1000");
    wait_for("61 items", ARRIVES_WITHIN, async || (early.count("item") == 61).then_some(())).await.unwrap();

    let all = stack.subscribe("/news/stream?snapshot=1000");
    let ten = stack.subscribe("/news/stream?snapshot=10");
    let one = stack.subscribe("/news/stream?source=feed-1&snapshot=1000");
    wait_for("the snapshots", ARRIVES_WITHIN, async || {
        (all.count("item") >= 61 && ten.count("item") >= 10 && one.count("item") >= 1).then_some(())
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((all.count("item"), ten.count("item"), one.count("item")), (61, 10, 1));
    let faults_of_all = faults(&origin.published(), &all.records());
    assert!(faults_of_all.is_empty(), "{}", faults_of_all.join("\n"));
    let only = Published::from([("feed-1".to_owned(), vec![last])]);
    assert_eq!(faults(&only, &one.records()), [""; 0]);
}

#[tokio::test]
async fn a_gateway_that_started_first_fills_once_the_daemon_starts() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    origin.publish("feed-0", "Before the first client");
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let health = stack.json("/health").await.unwrap();
    assert_eq!(health["status"], "ok", "{health}");
    let (status, reasons) = e2e::http::fetch(&stack.gateway(), "/ready", ARRIVES_WITHIN).await.unwrap();
    assert_eq!(status, 503, "{reasons}");

    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    origin.publish("feed-1", "And one more");
    wait_for("both items", ARRIVES_WITHIN, async || (subscriber.count("item") == 2).then_some(()))
        .await
        .unwrap();
    let faults = faults(&origin.published(), &subscriber.records());
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), subscriber.summary());
}

#[tokio::test]
async fn a_client_that_waited_for_the_daemon_gets_everything_recorded_meanwhile() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    for number in 0..60 {
        origin.publish("feed-0", &format!("Article {number}"));
    }
    stack.start(Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    // More is recorded before the gateway connects to the daemon than a snapshot has.
    let subscriber = stack.subscribe("/news/stream?snapshot=0");
    let stream = subscriber.wait_event("stream", ARRIVES_WITHIN, |_| true).await.unwrap();
    assert_eq!(stream.json()["resume"], "live");
    stack.start(Binary::Ingestd).unwrap();
    wait_for("60 items", ARRIVES_WITHIN, async || (subscriber.count("item") == 60).then_some(()))
        .await
        .unwrap();
    let faults = faults(&origin.published(), &subscriber.records());
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), subscriber.summary());
}
