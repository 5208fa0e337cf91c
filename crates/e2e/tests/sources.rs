//! `newswire sources` with and without a running daemon.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use e2e::{Binary, Origin, TestSource, TestStack, http, scenario, wait_for};
use serde_json::Value;

/// Deadline for a due visit, or for an answer of a socket.
const SOON: Duration = Duration::from_secs(60);

/// The result of a command.
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `newswire sources`.
async fn sources(stack: &TestStack, arguments: &[&str]) -> CommandOutput {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command
        .arg("sources")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env_clear()
        .current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl CommandOutput {
    #[track_caller]
    fn assert_exit(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

/// Starts the daemon alone and waits until it answers.
async fn start(stack: &mut TestStack) {
    stack.start(Binary::Ingestd).unwrap();
    let wire = stack.wire();
    let answers = async || matches!(http::fetch(&wire, "/health", SOON).await, Ok((200, _))).then_some(());
    wait_for("the daemon to answer", SOON, answers).await.unwrap();
}

async fn post(stack: &TestStack, path: &str) -> (u16, Value) {
    post_to(&stack.wire(), path).await
}

async fn post_to(socket: &http::Address, path: &str) -> (u16, Value) {
    let headers = [("Connection", "close"), ("Content-Length", "0")];
    let answer = http::send("POST", socket, path, &headers, "").await.unwrap();
    let status = answer.status;
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn opml(entries: &[TestSource]) -> String {
    let mut text = "<opml version='2.0'><body><outline text='Science'>\n".to_owned();
    for TestSource { id, url, .. } in entries {
        writeln!(text, "<outline text='{id}' xmlUrl='{url}' newswire:every='1s'/>").unwrap();
    }
    text + "</outline></body></opml>"
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_list_that_is_asked_for_while_the_daemon_starts_is_whole() {
    const SOURCES: usize = 3_000;
    let feeds: Vec<_> = (0..SOURCES)
        .map(|n| TestSource::new(&format!("feed-{n}"), format!("http://127.0.0.1:9/{n}")))
        .collect();
    let mut stack = TestStack::new(&feeds).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    // From the first moment at which the socket accepts.
    let mut early = Vec::new();
    while early.len() < 3 {
        match http::fetch(&stack.wire(), "/sources", SOON).await {
            Ok((200, text)) => {
                let answer: Value = serde_json::from_str(&text).unwrap();
                early.push(answer["sources"].as_array().unwrap().len());
            }
            Ok((status, text)) => {
                assert!(status == 503 && text.contains("still starting"), "{status}: {text}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    assert_eq!(early, [SOURCES; 3]);
    let listed = sources(&stack, &["list", "--json"]).await.assert_exit(0).json();
    assert_eq!(listed["sources"].as_array().unwrap().len(), SOURCES);
}

#[tokio::test]
async fn two_hundred_feeds_are_imported_once_while_the_daemon_keeps_running() {
    let origin = Origin::start().await.unwrap();
    let feeds = scenario::feeds(&origin, 201);
    let mut stack = TestStack::new(&feeds[..1]).unwrap();
    let list = stack.path("sources.toml");
    let head = format!("# Ours.\n\n{}", fs::read_to_string(&list).unwrap());
    fs::write(&list, &head).unwrap();
    start(&mut stack).await;
    let file = write(&stack.path("list.opml"), &opml(&feeds));

    let dry = sources(&stack, &["import", &file, "--dry-run", "--json"]).await;
    assert_eq!(dry.assert_exit(0).json()["added"].as_array().unwrap().len(), 200);
    assert_eq!(fs::read_to_string(&list).unwrap(), head, "a dry run changes nothing");

    let first = sources(&stack, &["import", &file, "--json"]).await.assert_exit(0).json();
    let counts =
        |answer: &Value| ["added", "known", "refused"].map(|key| answer[key].as_array().unwrap().len());
    assert_eq!((counts(&first), &first["reload"]["unchanged"]), ([200, 1, 0], &Value::from(1)));
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.starts_with(&head) && text.contains("category = \"science\""));
    let second = sources(&stack, &["import", &file]).await;
    assert!(second.assert_exit(0).out.contains("0 new, 201 known already, 0 refused; nothing was changed"));
    assert_eq!(fs::read_to_string(&list).unwrap(), text);

    wait_for("a visit to some of the new ones", SOON, async || {
        let visited = (1..=200).filter(|n| !origin.requests(&format!("feed-{n}")).is_empty()).count();
        (visited > 20).then_some(())
    })
    .await
    .unwrap();

    let removed = sources(&stack, &["remove", "feed-7", "feed-200", "missing"]).await;
    assert!(removed.assert_exit(1).err.contains("missing is not in"), "{}", removed.err);
    assert!(removed.err.contains("0 added, 0 changed, 2 removed, 199 unchanged"), "{}", removed.err);
    let listed = sources(&stack, &["list", "--json", "--category", "science"]).await.assert_exit(0).json();
    assert_eq!(listed["sources"].as_array().unwrap().len(), 198);

    let exported = sources(&stack, &["export"]).await.assert_exit(0).out.clone();
    let other = TestStack::new(&[]).unwrap();
    let file = write(&other.path("list.opml"), &exported);
    let moved = sources(&other, &["import", &file]).await;
    assert!(moved.assert_exit(0).err.contains("does not run"), "{}", moved.err);
    let sorted = |stack: &TestStack| {
        let text = fs::read_to_string(stack.path("sources.toml")).unwrap();
        let mut sources: Vec<_> = text.split("[[source]]").skip(1).map(|s| s.trim().to_owned()).collect();
        sources.sort();
        sources
    };
    assert_eq!(sorted(&other).len(), sorted(&stack).len());
}

#[tokio::test]
async fn a_pause_survives_restarts_until_it_is_ended() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    let early = sources(&stack, &["pause", "feed-0"]).await;
    assert!(early.assert_exit(1).err.contains("is newswire-ingestd running"), "{}", early.err);
    start(&mut stack).await;
    wait_for("the first visit", SOON, async || (!origin.requests("feed-0").is_empty()).then_some(()))
        .await
        .unwrap();
    let order = ["pause", "feed-0", "missing", "--for", "2h", "--reason", "it moves house"];
    let paused = sources(&stack, &order).await;
    assert_eq!(paused.assert_exit(1).out, "feed-0 is paused\nmissing is unknown\n");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = origin.requests("feed-0").len();

    stack.kill(Binary::Ingestd).unwrap();
    start(&mut stack).await;
    let control_visits = origin.requests("feed-1").len();
    wait_for("two visits to the other feed", SOON, async || {
        (origin.requests("feed-1").len() > control_visits + 1).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(origin.requests("feed-0").len(), before, "it is not visited");
    let refused = sources(&stack, &["refresh", "feed-0"]).await;
    assert!(refused.assert_exit(1).out.starts_with("feed-0 is paused"), "{}", refused.out);
    let shown = sources(&stack, &["show", "feed-0"]).await.assert_exit(0).out.clone();
    assert!(shown.contains("paused.reason") && shown.contains(": it moves house"), "{shown}");
    let listed = sources(&stack, &["list", "--paused"]).await.assert_exit(0).out.clone();
    assert_eq!(listed.lines().count(), 2, "{listed}");

    let exported = sources(&stack, &["export"]).await.assert_exit(0).out.clone();
    assert!(exported.contains("newswire:pausedReason=\"it moves house\""), "{exported}");
    sources(&stack, &["resume", "feed-0"]).await.assert_exit(0);
    wait_for("a visit", SOON, async || (origin.requests("feed-0").len() > before).then_some(()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reload_returns_what_changed_or_all_complaints_and_keeps_the_old_catalogue() {
    let origin = Origin::start().await.unwrap();
    let feeds = scenario::feeds(&origin, 3);
    let mut stack = TestStack::new(&feeds[..2]).unwrap();
    start(&mut stack).await;
    stack.write_catalogue(&feeds[1..]).unwrap();
    let (status, answer) = post(&stack, "/reload").await;
    let counts = ["added", "changed", "removed", "unchanged"].map(|key| answer[key].as_u64().unwrap());
    assert_eq!((status, counts), (200, [1, 0, 1, 1]));
    fs::write(stack.path("sources.toml"), "[[source]]\nid = 3\nurl = \"x\"\n").unwrap();
    let (status, answer) = post(&stack, "/reload").await;
    let complaints = answer["complaints"].as_array().unwrap();
    assert_eq!((status, answer["code"].as_str(), complaints.len()), (422, Some("bad-catalogue"), 2));
    assert!(complaints[0].as_str().unwrap().contains("sources.toml:2: source.id"), "{answer}");
    let listed = sources(&stack, &["list", "--json"]).await.assert_exit(0).json();
    assert_eq!(listed["sources"].as_array().unwrap().len(), 2);
    let removed = sources(&stack, &["remove", "feed-1"]).await;
    assert!(removed.assert_exit(2).err.contains("sources.toml:2: source.id"), "{}", removed.err);
}

#[tokio::test]
async fn the_admin_socket_of_the_daemon_answers_a_reload_as_its_other_socket_does() {
    let origin = Origin::start().await.unwrap();
    let feeds = scenario::feeds(&origin, 2);
    let mut stack = TestStack::new(&feeds[..1]).unwrap();
    start(&mut stack).await;
    stack.write_catalogue(&feeds).unwrap();
    let admin = stack.admin(Binary::Ingestd);
    let (status, answer) = post_to(&admin, "/reload").await;
    assert_eq!((status, answer["added"].as_u64(), answer["unchanged"].as_u64()), (200, Some(1), Some(1)));
    assert_eq!((post(&stack, "/reload").await.1)["file"], answer["file"], "{answer}");
    fs::write(stack.path("sources.toml"), "[[source]]\nid = 3\nurl = \"x\"\n").unwrap();
    assert_eq!(post_to(&admin, "/reload").await, post(&stack, "/reload").await);
}

#[tokio::test]
async fn the_feed_of_a_page_is_added_and_a_page_without_one_is_refused() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    let feeds = scenario::feeds(&origin, 2);
    let link = |url: &str| format!("<link rel=alternate type=application/rss+xml href='{url}'>");
    let page = format!("<html><head>{}{}</head></html>", link(&feeds[0].url), link(&feeds[1].url));
    fs::write(stack.path("page.html"), page).unwrap();
    fs::write(stack.path("bare.html"), "<html><body>nothing</body></html>").unwrap();
    let page = origin.add_file(&stack.path("page.html")).unwrap();
    let bare = origin.add_file(&stack.path("bare.html")).unwrap();

    let refused = sources(&stack, &["add", &bare]).await;
    assert!(refused.assert_exit(1).err.contains("an HTML page, not a feed"), "{}", refused.err);
    let added = sources(&stack, &["add", &page, "--id", "it", "--tag", "x", "--every", "1s"]).await;
    assert!(added.assert_exit(0).out.starts_with("added it [general]"), "{}", added.out);
    assert!(added.err.contains("names 2 feeds; the first is taken") && added.err.contains(&feeds[1].url));
    assert_eq!(origin.requests("feed-0").len(), 1, "one GET besides that of the page");
    let text = fs::read_to_string(stack.path("sources.toml")).unwrap();
    assert!(text.contains("id = \"it\"") && text.contains("every = \"1s\"") && text.contains(&feeds[0].url));
    let again = sources(&stack, &["add", &page]).await;
    assert!(again.assert_exit(0).out.contains("is there already: it"), "{}", again.out);
    assert_eq!(fs::read_to_string(stack.path("sources.toml")).unwrap(), text);

    stack.set("fetch.allow", "[]");
    let guarded = sources(&stack, &["add", &feeds[1].url]).await;
    guarded.assert_exit(1);
    assert!(origin.requests("feed-1").is_empty(), "a private address is not dialled: {}", guarded.err);
    let added = sources(&stack, &["add", &feeds[1].url, "--allow-private"]).await;
    assert!(added.assert_exit(1).out.starts_with("added "), "the daemon does not visit it: {}", added.err);
}

#[tokio::test]
async fn a11_a_list_of_one_feed_too_many_is_refused_with_the_count() {
    let stack = TestStack::new(&[]).unwrap();
    let mut text = "<opml><body>\n".to_owned();
    for n in 0..100_001 {
        writeln!(text, "<outline text='{n}' xmlUrl='http://a.example/{n}'/>").unwrap();
    }
    let file = write(&stack.path("list.opml"), &text);
    let refused = sources(&stack, &["import", &file]).await;
    assert!(refused.assert_exit(1).err.contains("100001 feeds"), "{}", refused.err);
    assert_eq!(fs::read_to_string(stack.path("sources.toml")).unwrap(), "");
    let least = text.rfind("<outline").unwrap();
    let file = write(&stack.path("list.opml"), &text[..least]);
    let taken = sources(&stack, &["import", &file, "--json"]).await.assert_exit(0).json();
    assert_eq!(taken["added"].as_array().unwrap().len(), 100_000);
    fs::write(stack.path("more.opml"), "<opml><outline xmlUrl='http://b.example/'/></opml>").unwrap();
    let full = sources(&stack, &["import", "more.opml"]).await;
    assert!(full.assert_exit(1).err.contains("would have 100001 sources"), "{}", full.err);
}
