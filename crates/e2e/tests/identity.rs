//! What happens at every publisher sooner or later, and what clients get then: at the running daemons, a test for each
//! kind of event. More variants of each are in the tests of the crate `seen`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use e2e::{Origin, TestSource, TestStack, TestSubscriber, wait_for};
use serde_json::Value;
use tokio::time::Instant;

/// Deadline of a visit, on a slow machine.
const VISITED_WITHIN: Duration = Duration::from_secs(60);

/// An entry of a feed; an empty field is left out.
#[derive(Clone, Debug, Default)]
struct Entry {
    guid: String,
    link: String,
    title: String,
    text: String,
    date: String,
    enclosure: String,
}

/// Entries of one document, the newest first.
type Document = Vec<Entry>;

fn rss(document: &Document) -> String {
    let mut items = String::new();
    for entry in document {
        items += "<item>";
        for (name, value) in [
            ("guid", &entry.guid),
            ("link", &entry.link),
            ("title", &entry.title),
            ("description", &entry.text),
            ("pubDate", &entry.date),
        ] {
            if !value.is_empty() {
                items += &format!("<{name}><![CDATA[{value}]]></{name}>");
            }
        }
        if !entry.enclosure.is_empty() {
            items += &format!("<enclosure url=\"{}\" type=\"audio/mpeg\" length=\"9\"/>", entry.enclosure);
        }
        items += "</item>";
    }
    format!("<rss version=\"2.0\"><channel><title>Feed</title>{items}</channel></rss>")
}

/// Ten dated articles, the newest first; their guids are their links.
fn ten() -> Document {
    (1..=10)
        .rev()
        .map(|n| Entry {
            guid: format!("http://paper.example/2024/story-{n}"),
            link: format!("http://paper.example/2024/story-{n}"),
            title: format!("Story {n}"),
            text: format!(
                "<p>What was reported on day {n}.</p><img src=\"https://img.example/{n}.jpg?w=1\">"
            ),
            date: format!("2024-01-{n:02}T12:00:00Z"),
            ..Entry::default()
        })
        .collect()
}

fn change(document: &Document, change: impl Fn(usize, &mut Entry)) -> Document {
    let mut document = document.clone();
    document.iter_mut().enumerate().for_each(|(n, entry)| change(n, entry));
    document
}

fn without_guids(document: Document) -> Document {
    change(&document, |_, entry| entry.guid.clear())
}

fn with_opaque_guids(document: Document) -> Document {
    change(&document, |n, entry| entry.guid = format!("id-{}", 10 - n))
}

fn undated(document: Document) -> Document {
    change(&document, |_, entry| entry.date.clear())
}

/// The kinds of feeds that an event is tried with, by the name of a source.
fn kinds(document: &Document) -> Vec<(&'static str, Document)> {
    vec![
        ("permalinks", document.clone()),
        ("opaque", with_opaque_guids(document.clone())),
        ("no-guids", without_guids(document.clone())),
        ("no-guids-undated", undated(without_guids(document.clone()))),
    ]
}

/// What one visit of a source sent: items and updates.
type Sent = (usize, usize);

const NOTHING: Sent = (0, 0);

/// The events of one visit of a source.
type Events = Vec<Value>;

fn sent(events: &Events) -> Sent {
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    (count("item"), count("update"))
}

/// Visits each source once with each of its documents, and returns the events of each visit.
async fn visits(sources: &[(&str, Vec<Document>)]) -> BTreeMap<String, Vec<Events>> {
    let origin = Origin::start().await.unwrap();
    let listed: Vec<_> = sources
        .iter()
        .map(|(name, documents)| TestSource::new(name, origin.set_document(name, &rss(&documents[0]))))
        .collect();
    let mut stack = TestStack::new(&listed).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let mut found = BTreeMap::new();
    let steps = sources.iter().map(|(_, documents)| documents.len()).max().unwrap_or(0);
    let mut since = None;
    for step in 0..steps {
        let active: Vec<_> = sources.iter().filter(|(_, documents)| step < documents.len()).collect();
        if step > 0 {
            since = Some(Instant::now());
            for (name, documents) in &active {
                origin.set_document(name, &rss(&documents[step]));
            }
        }
        for (name, _) in active {
            visited(&origin, &subscriber, name, since).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (name, documents) in sources.iter().filter(|(_, documents)| step < documents.len()) {
            let all: Vec<Value> = ["item", "update"]
                .iter()
                .flat_map(|kind| subscriber.events(kind))
                .map(|record| record.json())
                .filter(|event| event["source"] == *name)
                .collect();
            let visits: &mut Vec<Events> = found.entry((*name).to_owned()).or_default();
            let before: Vec<_> = visits.iter().flatten().map(|event| event["id"].clone()).collect();
            let events: Events = all.into_iter().filter(|event| !before.contains(&event["id"])).collect();
            assert!(
                step > 0 || events.len() == documents[0].len(),
                "{name}: the first visit sends everything"
            );
            visits.push(events);
        }
    }
    found
}

/// Waits until the document that was published at `since` was fetched, and the visit was reported.
async fn visited(origin: &Origin, subscriber: &TestSubscriber, name: &str, since: Option<Instant>) {
    let fetched = wait_for("the document", VISITED_WITHIN, async || {
        let requests = origin.requests(name);
        let full =
            requests.iter().find(|r| r.answered == Some(200) && since.is_none_or(|since| r.at >= since));
        full.map(|request| request.at)
    });
    let fetched = fetched.await.unwrap();
    let reported = |record: &e2e::RecordedEvent| record.at >= fetched && record.json()["source"] == *name;
    subscriber.wait_event("source", VISITED_WITHIN, reported).await.unwrap();
}

/// After the first visit, each kind of feed is changed by each of `changes` in turn, and nothing is sent.
async fn nothing_is_sent(changes: &[&dyn Fn(&Document) -> Document]) {
    let sources: Vec<_> = kinds(&ten())
        .into_iter()
        .map(|(name, document)| {
            let changed: Vec<_> = changes.iter().map(|change| change(&document)).collect();
            (name, [vec![document], changed].concat())
        })
        .collect();
    for (name, visits) in visits(&sources).await {
        for (n, events) in visits.iter().enumerate().skip(1) {
            assert_eq!(sent(events), NOTHING, "{name}, change {n}: {events:#?}");
        }
    }
}

fn everywhere(document: &Document, from: &str, to: &str) -> Document {
    change(document, |_, entry| {
        for text in [&mut entry.guid, &mut entry.link, &mut entry.text] {
            *text = text.replace(from, to);
        }
    })
}

#[tokio::test]
async fn a_move_to_https_is_silent() {
    nothing_is_sent(&[
        &|document| change(document, |_, entry| entry.link = entry.link.replace("http:", "https:")),
        &|document| everywhere(document, "http:", "https:"),
    ])
    .await;
}

#[tokio::test]
async fn another_host_www_and_a_slash_at_the_end_are_silent() {
    nothing_is_sent(&[
        &|document| everywhere(document, "paper.example", "www.paper.example"),
        &|document| everywhere(document, "paper.example", "times.example"),
        &|document| {
            change(&everywhere(document, "paper.example", "times.example"), |_, entry| {
                entry.link += "/";
                entry.guid += if entry.guid.starts_with("http") { "/" } else { "" };
            })
        },
    ])
    .await;
}

#[tokio::test]
async fn session_ids_trackers_signatures_and_images_are_silent_at_every_visit() {
    let visit = |n: usize| {
        move |document: &Document| {
            change(document, |item, entry| {
                entry.link += &[format!("?ref={n}{item}"), format!(";jsessionid=A{n}F{item}")][item % 2];
                entry.enclosure = format!("https://cdn{n}.example/{item}.mp3?signature={n}{item}");
                entry.text = entry.text.replace("img.example", &format!("img{n}.example"));
                entry.text = entry.text.replace("w=1", &format!("w={n}&signature={item}"));
            })
        }
    };
    nothing_is_sent(&[&visit(1), &visit(2), &visit(3), &visit(4)]).await;
}

#[tokio::test]
async fn other_paths_are_silent() {
    nothing_is_sent(&[&|document| everywhere(document, "/2024/", "/archive/news/")]).await;
}

#[tokio::test]
async fn other_guids_for_some_or_all_are_silent() {
    nothing_is_sent(&[
        &|document| {
            change(document, |n, entry| {
                if n < 3 {
                    entry.guid = format!("new-{n}")
                }
            })
        },
        &|document| change(document, |n, entry| entry.guid = format!("uuid-{n}")),
    ])
    .await;
}

#[tokio::test]
async fn an_item_that_is_dated_anew_and_moved_to_the_top_is_silent() {
    nothing_is_sent(&[&|document| {
        let mut document = document.clone();
        let mut moved = document.remove(6);
        if !moved.date.is_empty() {
            moved.date = "2024-02-01T00:00:00Z".to_owned();
        }
        document.insert(0, moved);
        document
    }])
    .await;
}

#[tokio::test]
async fn counters_and_mirrors_are_sent_once_and_the_status_says_why_no_more() {
    let counter =
        |n: usize| change(&with_opaque_guids(ten()), |_, entry| entry.text += &format!("<p>Points: {n}</p>"));
    let mirror =
        |n: usize| change(&ten(), |_, entry| entry.text += if n.is_multiple_of(2) { "" } else { "." });
    let sources = [("counter", (0..5).map(counter).collect()), ("mirror", (0..5).map(mirror).collect())];
    for (name, visits) in visits(&sources).await {
        let sent: Vec<_> = visits.iter().map(sent).collect();
        assert_eq!(sent, [(10, 0), (0, 10), NOTHING, NOTHING, NOTHING], "{name}");
    }
}

#[tokio::test]
async fn the_status_of_a_source_says_that_its_updates_are_absorbed() {
    let origin = Origin::start().await.unwrap();
    let points = |n: usize| rss(&change(&ten(), |_, entry| entry.text += &format!("Points: {n}")));
    let mut stack = TestStack::new(&[TestSource::new("a", origin.set_document("a", &points(0)))]).unwrap();
    stack.start_both().await.unwrap();
    let mut n = 0;
    let source = wait_for("the warning", VISITED_WITHIN, async || {
        n += 1;
        origin.set_document("a", &points(n));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let source = stack.json("/sources/a").await.ok()?;
        source["warnings"].to_string().contains("update-flap").then_some(source)
    });
    let source = source.await.unwrap();
    assert_eq!(
        (&source["counts"]["items"], &source["counts"]["updates"]),
        (&10.into(), &10.into()),
        "{source}"
    );
}

#[tokio::test]
async fn an_edit_under_a_guid_that_counts_versions_is_one_update() {
    let version = |n: usize| {
        change(&ten(), |item, entry| {
            entry.guid += if item == 4 { ["#0", "#2", "#3"][n] } else { "#0" };
            if item == 4 && n > 0 {
                entry.title = format!("Story 6, version {n}");
                entry.text = format!("All was rewritten {n} times");
            }
        })
    };
    let found = visits(&[("versions", (0..3).map(version).collect())]).await;
    let visits = &found["versions"];
    let first = visits[0].iter().find(|event| event["title"] == "Story 6").unwrap();
    for events in &visits[1..] {
        assert_eq!(sent(events), (0, 1), "{events:#?}");
        assert_eq!((&events[0]["key"], &events[0]["first_seen"]), (&first["key"], &first["first_seen"]));
    }
}

#[tokio::test]
async fn a_used_guid_that_enters_or_leaves_is_one_item_or_nothing() {
    let first = Entry { guid: "used".to_owned(), ..ten().remove(5) };
    let second = Entry { guid: "used".to_owned(), ..ten().remove(4) };
    let same_link = Entry { title: "Another title".to_owned(), text: "And text".to_owned(), ..first.clone() };
    let stories = [("other-link", second), ("same-link", same_link)].map(|(name, second)| {
        let documents =
            [vec![&first], vec![&second, &first], vec![&second], vec![&second, &first], vec![&first]];
        (name, documents.map(|document| document.into_iter().cloned().collect()).to_vec())
    });
    for (name, visits) in visits(&stories).await {
        let sent: Vec<_> = visits.iter().map(sent).collect();
        assert_eq!(sent, [(1, 0), (1, 0), NOTHING, NOTHING, NOTHING], "{name}");
    }
}

#[tokio::test]
async fn each_release_of_a_changelog_is_one_item() {
    let release = |anchors: bool, dates: bool| {
        move |n: usize| Entry {
            link: format!(
                "http://tool.example/changes{}",
                if anchors { format!("#r{n}") } else { String::new() }
            ),
            title: format!("Release {n}"),
            text: format!("What is new in {n}"),
            date: if dates { format!("2024-03-{n:02}T08:00:00Z") } else { String::new() },
            ..Entry::default()
        }
    };
    let story = |anchors, dates| -> Vec<Document> {
        let document = |last: usize| (last - 2..=last).rev().map(release(anchors, dates)).collect();
        (3..7).map(document).collect()
    };
    let stories = [
        ("link", story(false, false)),
        ("link-dated", story(false, true)),
        ("anchors", story(true, false)),
        ("anchors-dated", story(true, true)),
    ];
    for (name, visits) in visits(&stories).await {
        let sent: Vec<_> = visits.iter().map(sent).collect();
        assert_eq!(sent, [(3, 0), (1, 0), (1, 0), (1, 0)], "{name}");
    }
}

#[tokio::test]
async fn posts_of_one_guid_without_titles_are_items_of_their_own() {
    let post = |text: &str| Entry {
        guid: "http://notes.example/#today".to_owned(),
        text: text.to_owned(),
        ..Entry::default()
    };
    let documents = vec![
        vec![post("Good evening"), post("Good morning")],
        vec![post("Good night"), post("Good evening"), post("Good morning")],
        vec![post("Good morning")],
    ];
    let found = visits(&[("notes", documents)]).await;
    assert_eq!(found["notes"].iter().map(sent).collect::<Vec<_>>(), [(2, 0), (1, 0), NOTHING]);
}

#[tokio::test]
async fn an_edit_and_its_return_are_two_updates() {
    let edited = |document: &Document| {
        change(document, |n, entry| {
            if n == 2 {
                entry.title += " (corrected)";
                entry.text = "<p>It was otherwise.</p>".to_owned();
            }
        })
    };
    let stories: Vec<_> = kinds(&ten())
        .into_iter()
        .map(|(name, document)| (name, vec![document.clone(), edited(&document), document]))
        .collect();
    for (name, visits) in visits(&stories).await {
        assert_eq!(visits[1..].iter().map(sent).collect::<Vec<_>>(), [(0, 1), (0, 1)], "{name}");
        let first = visits[0].iter().find(|event| event["title"] == "Story 8").unwrap();
        assert!(visits[1..].iter().all(|events| events[0]["key"] == first["key"]), "{name}");
    }
}
