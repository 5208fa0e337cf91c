//! Delivery of real feeds that other projects publish as test data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use e2e::{Origin, TestSource, TestStack, corpus, log_line, wait_for};
use url::Url;

/// The folders that hold feeds as publishers sent them.
const FOLDERS: [&str; 2] = ["rss-parser/input", "feed-rs"];

#[tokio::test]
async fn every_item_of_every_readable_feed_is_on_the_stream() {
    let Some(corpus) = corpus() else { return };
    let origin = Origin::start().await.unwrap();
    let mut sources = Vec::new();
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    for file in FOLDERS.iter().flat_map(|folder| Origin::feeds_in(&corpus.join(folder)).unwrap()) {
        let id = format!("file-{}", sources.len());
        let url = origin.add_file(&file).unwrap();
        let address = Url::parse(&url).unwrap();
        let hints = feed::Hints {
            url: Some(&address),
            content_type: Some(Origin::media_type_of(&file)),
            language: None,
        };
        match feed::read(&std::fs::read(&file).unwrap(), &hints) {
            Ok(document) => {
                let keys = document.items.into_iter().map(|item| item.key).collect();
                expected.insert(id.clone(), keys);
            }
            Err(_) => {
                unreadable.insert(id.clone());
            }
        }
        sources.push(TestSource::new(&id, url));
    }
    let items: usize = expected.values().map(BTreeSet::len).sum();
    log_line(&format!("{} files, {} of them unreadable; {items} items", sources.len(), unreadable.len()));
    assert!(expected.len() > 80 && items > 1_000, "the corpus is complete");

    let mut stack = TestStack::new(&sources).unwrap();
    let limit = Duration::from_secs(180);
    stack.start(e2e::Binary::Gateway).unwrap();
    stack.wait_serving().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    subscriber.wait_event("stream", limit, |_| true).await.unwrap();
    stack.start(e2e::Binary::Ingestd).unwrap();

    let outcome = wait_for("every item, and a report of every file", limit, async || {
        let reported: BTreeSet<_> =
            subscriber.events("source").iter().map(|r| r.json()["source"].to_string()).collect();
        (subscriber.count("item") >= items && reported.len() == sources.len()).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await; // one more round of visits: no duplicates
    let mut arrived: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut duplicates = Vec::new();
    for record in subscriber.events("item") {
        let (source, key) = (text(&record.json(), "source"), text(&record.json(), "key"));
        if !arrived.entry(source.clone()).or_default().insert(key.clone()) {
            duplicates.push(format!("{key} of {source}"));
        }
    }
    assert!(duplicates.is_empty(), "arrived twice: {duplicates:#?}");
    for (source, keys) in &expected {
        let empty = BTreeSet::new();
        let got = arrived.get(source).unwrap_or(&empty);
        let status = stack.json(&format!("/sources/{source}")).await.unwrap();
        assert_eq!(got, keys, "{source}: {status}");
    }
    outcome.map_err(|error| error.context(subscriber.summary())).unwrap();
    assert_eq!(subscriber.count("item"), items);
    assert_eq!(subscriber.count("update"), 0, "a file that does not change has no updates");
    for source in &unreadable {
        let status = stack.json(&format!("/sources/{source}")).await.unwrap();
        assert!(status["last_error"].is_string(), "an unreadable feed has an error: {status}");
    }
}

fn text(json: &serde_json::Value, name: &str) -> String {
    json[name].as_str().unwrap_or_default().to_owned()
}
