//! `newswire sources add`: one request for a feed, whose items then come at once.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Deadline for a due visit, or for an answer of a socket.
const SOON: Duration = Duration::from_secs(60);

/// The result of a command.
#[derive(Debug)]
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

impl CommandOutput {
    #[track_caller]
    fn assert_exit(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }
}

/// Runs `newswire sources` in the background.
fn spawn(stack: &TestStack, arguments: &[&str]) -> JoinHandle<CommandOutput> {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    spawn_with(stack, &config, arguments)
}

fn spawn_with(stack: &TestStack, config: &Path, arguments: &[&str]) -> JoinHandle<CommandOutput> {
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.arg("sources").args(arguments).arg("--config").arg(config).env_clear();
    command.current_dir(stack.folder()).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    })
}

async fn sources(stack: &TestStack, arguments: &[&str]) -> CommandOutput {
    spawn(stack, arguments).await.unwrap()
}

/// A stack that visits each feed once an hour.
fn stack() -> TestStack {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.interval_min", "\"1h\"");
    stack
}

/// Starts the daemon alone and waits until it answers.
async fn start(stack: &mut TestStack) {
    stack.start(Binary::Ingestd).unwrap();
    let wire = stack.wire();
    let answers = async || matches!(http::fetch(&wire, "/health", SOON).await, Ok((200, _))).then_some(());
    wait_for("the daemon to answer", SOON, answers).await.unwrap();
}

async fn status(stack: &TestStack, id: &str) -> Option<Value> {
    match http::fetch(&stack.wire(), &format!("/sources/{id}"), SOON).await {
        Ok((200, text)) => Some(serde_json::from_str(&text).unwrap()),
        _ => None,
    }
}

/// A feed with three items that may be requested once an hour.
fn strict_feed(origin: &Origin, name: &str) -> String {
    let url = origin.add_feed(name, DocumentFormat::Rss);
    for title in ["First", "Second", "Third"] {
        origin.publish(name, title);
    }
    origin.set_behaviour(name, Behaviour::OnceAnHour);
    url
}

/// The source has its three items, and its feed was requested once.
async fn assert_items(stack: &TestStack, origin: &Origin, id: &str, feed: &str) {
    let status = status(stack, id).await.unwrap();
    assert_eq!(
        (&status["counts"]["items"], &status["last_status"]),
        (&Value::from(3), &Value::from("new")),
        "{status}"
    );
    assert_eq!(origin.requests(feed).len(), 1, "{status}");
}

/// The next visit is a conditional one.
async fn assert_conditional(stack: &TestStack, origin: &Origin, id: &str, feed: &str) {
    let before = origin.requests(feed).len();
    origin.set_behaviour(feed, Behaviour::Honest);
    sources(stack, &["refresh", id]).await.assert_exit(0);
    let is_answered =
        async || origin.requests(feed).get(before).filter(|request| request.answered.is_some()).cloned();
    let request = wait_for("the next visit", SOON, is_answered).await.unwrap();
    assert_eq!(request.answered, Some(304), "{request:?}");
}

#[tokio::test]
async fn an_added_feed_is_fetched_once_and_its_items_come() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    origin.add_header("feed", "Cache-Control: max-age=7200");
    let mut stack = stack();
    start(&mut stack).await;

    let added = sources(&stack, &["add", &url, "--id", "it"]).await;
    assert!(added.assert_exit(0).out.starts_with("added it [general]"), "{}", added.out);
    assert!(added.out.trim_end().ends_with("3 items"), "{}", added.out);
    assert!(added.err.contains("newswire-ingestd has recorded its items and visits it in "), "{}", added.err);
    assert_items(&stack, &origin, "it", "feed").await;
    let after = status(&stack, "it").await.unwrap();
    assert!(after["why"].as_str().unwrap().contains("max-age"), "the freshness is the document's: {after}");
    assert_conditional(&stack, &origin, "it", "feed").await;

    // The counterpart: a source that is listed without the document costs a request.
    let other = strict_feed(&origin, "other");
    let mut text = fs::read_to_string(stack.path("sources.toml")).unwrap();
    text += &format!("[[source]]\nid = \"other\"\nurl = \"{other}\"\n");
    fs::write(stack.path("sources.toml"), text).unwrap();
    let url = strict_feed(&origin, "third");
    sources(&stack, &["add", &url, "--id", "third"]).await.assert_exit(0);
    assert_items(&stack, &origin, "third", "third").await;
    wait_for("a visit", SOON, async || (!origin.requests("other").is_empty()).then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_source_that_is_removed_and_added_again_is_fetched_once_more_only() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    let mut stack = stack();
    start(&mut stack).await;
    sources(&stack, &["add", &url, "--id", "it"]).await.assert_exit(0);
    sources(&stack, &["remove", "it"]).await.assert_exit(0);
    origin.set_behaviour("feed", Behaviour::Honest);
    origin.publish("feed", "Fourth");
    let again = sources(&stack, &["add", &url, "--id", "it", "--every", "1h"]).await;
    assert!(again.assert_exit(0).err.contains("has recorded its items"), "{}", again.err);
    let after = status(&stack, "it").await.unwrap();
    assert_eq!(
        (&after["counts"]["items"], &after["counts"]["visits"]),
        (&Value::from(4), &Value::from(2)),
        "{after}"
    );
    assert_eq!(origin.requests("feed").len(), 2);
    assert_conditional(&stack, &origin, "it", "feed").await;
}

#[tokio::test]
async fn the_feed_of_a_page_and_the_target_of_a_permanent_redirect_are_fetched_once() {
    let origin = Origin::start().await.unwrap();
    let feed = strict_feed(&origin, "feed");
    let page = origin.set_document(
        "page",
        &format!("<!doctype html><link rel=alternate type=application/rss+xml href='{feed}'>"),
    );
    origin.set_behaviour("page", Behaviour::OnceAnHour);
    let target = strict_feed(&origin, "target");
    let (moved, detour) = (strict_feed(&origin, "moved"), strict_feed(&origin, "detour"));
    origin.set_behaviour("moved", Behaviour::Redirect(301, target.clone()));
    let other = strict_feed(&origin, "other");
    origin.set_behaviour("detour", Behaviour::Redirect(302, other));
    let mut stack = stack();
    start(&mut stack).await;

    sources(&stack, &["add", &page, "--id", "paged"]).await.assert_exit(0);
    assert_eq!(origin.requests("page").len(), 1);
    assert_items(&stack, &origin, "paged", "feed").await;
    assert_conditional(&stack, &origin, "paged", "feed").await;

    sources(&stack, &["add", &moved, "--id", "moved"]).await.assert_exit(0);
    assert!(fs::read_to_string(stack.path("sources.toml")).unwrap().contains(&target));
    assert_items(&stack, &origin, "moved", "target").await;
    assert_conditional(&stack, &origin, "moved", "target").await;
    assert_eq!(origin.requests("moved").len(), 1);

    sources(&stack, &["add", &detour, "--id", "detour"]).await.assert_exit(0);
    assert!(fs::read_to_string(stack.path("sources.toml")).unwrap().contains(&detour));
    assert_items(&stack, &origin, "detour", "other").await;
    assert_conditional(&stack, &origin, "detour", "other").await;
}

#[tokio::test]
async fn feeds_that_are_added_at_the_same_time_are_fetched_once_each() {
    let origin = Origin::start().await.unwrap();
    let mut stack = stack();
    start(&mut stack).await;
    let names: Vec<_> = (0..8).map(|n| format!("feed-{n}")).collect();
    let urls: Vec<_> = names.iter().map(|name| strict_feed(&origin, name)).collect();
    let adds: Vec<_> =
        names.iter().zip(&urls).map(|(name, url)| spawn(&stack, &["add", url, "--id", name])).collect();
    for add in adds {
        let added = add.await.unwrap();
        assert!(added.assert_exit(0).err.contains("has recorded its items"), "{}", added.err);
    }
    for name in &names {
        assert_items(&stack, &origin, name, name).await;
    }
    let twice = strict_feed(&origin, "twice");
    origin.set_behaviour("twice", Behaviour::Late(Duration::from_millis(500)));
    let (one, other) = tokio::join!(spawn(&stack, &["add", &twice]), spawn(&stack, &["add", &twice]));
    let (one, other) = (one.unwrap(), other.unwrap());
    let outs = [one.assert_exit(0).out.clone(), other.assert_exit(0).out.clone()];
    assert_eq!(outs.iter().filter(|out| out.starts_with("added ")).count(), 1, "{outs:?}");
    assert_eq!(outs.iter().filter(|out| out.contains("is there already")).count(), 1, "{outs:?}");
}

#[tokio::test]
async fn adding_does_not_hold_the_list_while_it_waits() {
    let origin = Origin::start().await.unwrap();
    let stack = stack();
    let (slow, quick) = (strict_feed(&origin, "slow"), strict_feed(&origin, "quick"));
    origin.set_behaviour("slow", Behaviour::Late(Duration::from_secs(8)));
    let slow = spawn(&stack, &["add", &slow, "--id", "slow", "--timeout", "1m"]);
    wait_for("its request", SOON, async || (!origin.requests("slow").is_empty()).then_some(()))
        .await
        .unwrap();
    sources(&stack, &["add", &quick, "--id", "quick"]).await.assert_exit(0);
    sources(&stack, &["remove", "quick"]).await.assert_exit(0);
    assert_eq!(origin.requests("slow")[0].answered, None, "it still waits");
    slow.await.unwrap().assert_exit(0);
    let text = fs::read_to_string(stack.path("sources.toml")).unwrap();
    assert!(text.contains("\"slow\"") && !text.contains("\"quick\""), "{text}");
}

#[tokio::test]
async fn without_a_daemon_the_command_says_what_will_happen() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    let mut stack = stack();
    let added = sources(&stack, &["add", &url, "--id", "it"]).await;
    assert!(added.assert_exit(0).err.contains("newswire-ingestd does not run"), "{}", added.err);
    assert!(added.err.contains("it visits it when it starts"), "{}", added.err);
    origin.set_behaviour("feed", Behaviour::Honest);
    start(&mut stack).await;
    let is_visited = async || (origin.requests("feed").len() == 2).then_some(());
    wait_for("its first visit", SOON, is_visited).await.unwrap();
}

/// The admin socket of a daemon from before it took documents, in front of that of the running one.
fn older_admin_socket(stack: &TestStack) -> JoinHandle<()> {
    fs::create_dir(stack.path("older")).unwrap();
    std::os::unix::fs::symlink(stack.path("run/ingestd.sock"), stack.path("older/ingestd.sock")).unwrap();
    let listener = UnixListener::bind(stack.path("older/ingestd-admin.sock")).unwrap();
    let real = stack.path("run/ingestd-admin.sock");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut first = [0; 15];
            client.read_exact(&mut first).await.unwrap();
            if &first == b"POST /documents" {
                let body = r#"{"status":404,"code":"not-found","detail":"unknown route"}"#;
                let answer =
                    format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                client.write_all(answer.as_bytes()).await.unwrap();
                client.shutdown().await.unwrap();
                // The body of the request, which is ignored.
                client.read_to_end(&mut Vec::new()).await.ok();
                continue;
            }
            let mut daemon = UnixStream::connect(&real).await.unwrap();
            daemon.write_all(&first).await.unwrap();
            copy_bidirectional(&mut client, &mut daemon).await.ok();
        }
    })
}

#[tokio::test]
async fn an_older_daemon_requests_the_feed_itself_and_the_command_says_so() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    origin.set_behaviour("feed", Behaviour::Honest);
    let mut stack = stack();
    start(&mut stack).await;
    let older = older_admin_socket(&stack);
    let run_dir = format!("{:?}", stack.path("older").display().to_string());
    let config = stack.write_config("older.toml", &[("daemon.run_dir", &run_dir)]).unwrap();
    let added = spawn_with(&stack, &config, &["add", &url, "--id", "it"]).await.unwrap();
    assert!(
        added.assert_exit(0).err.contains("requests it once more (it is older than this tool"),
        "{}",
        added.err
    );
    wait_for("a visit of its own", SOON, async || (origin.requests("feed").len() == 2).then_some(()))
        .await
        .unwrap();
    older.abort();
}

#[tokio::test]
async fn the_settings_of_a_source_hold_for_the_request_of_add_and_for_the_daemon() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    origin.set_behaviour("feed", Behaviour::Late(Duration::from_secs(3)));
    let mut stack = stack();
    stack.set("fetch.timeout_first_byte", "\"1s\"");
    stack.set("fetch.timeout_total", "\"2s\"");
    start(&mut stack).await;
    fs::write(stack.path("secret"), "user:password\n").unwrap();
    let late = sources(&stack, &["add", &url]).await;
    assert!(late.assert_exit(1).err.contains("timeout"), "{}", late.err);
    let small = sources(&stack, &["add", &url, "--timeout", "30s", "--body-bytes-max", "1024"]).await;
    assert!(small.code == Some(0) || small.err.contains("too-large"), "{}", small.err);
    sources(&stack, &["remove", "feed"]).await;

    let before = origin.requests("feed").len();
    let options = [
        "add",
        &url,
        "--id",
        "it",
        "--timeout",
        "30s",
        "--header",
        "X-Key: a b",
        "--user-agent",
        "ours/1",
        "--basic-file",
        "./secret",
        "--every",
        "1h",
    ];
    let added = sources(&stack, &options).await;
    assert!(added.assert_exit(0).err.contains("has recorded its items"), "{}", added.err);
    assert_conditional(&stack, &origin, "it", "feed").await;
    for request in &origin.requests("feed")[before..] {
        assert_eq!(request.header("x-key"), Some("a b"));
        assert_eq!(request.header("user-agent"), Some("ours/1"));
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNzd29yZA=="));
    }
    assert_eq!(origin.requests("feed").len(), before + 2);

    let same = ["add", &url, "--header", "x-key: a b", "--user-agent", "ours/1", "--basic-file", "./secret"];
    let same = sources(&stack, &same).await;
    assert!(same.assert_exit(0).out.contains("is there already: it"), "{}", same.out);
    let other = strict_feed(&origin, "other");
    let missing = sources(&stack, &["add", &other, "--bearer-file", "./missing"]).await;
    assert!(missing.assert_exit(1).err.contains("bearer_file: its file cannot be read"), "{}", missing.err);
    assert!(missing.err.contains(&format!("({})", stack.path("./missing").display())), "{}", missing.err);
    let wrong = sources(&stack, &["add", &other, "--proxy", "nonsense", "--country", "uk"]).await;
    assert!(
        wrong.assert_exit(2).err.contains("--proxy: ") && wrong.err.contains("--country: "),
        "{}",
        wrong.err
    );
    assert!(origin.requests("other").is_empty(), "mistakes cost no request");
    let off = sources(&stack, &["add", &other, "--id", "off", "--disabled"]).await;
    assert!(off.assert_exit(0).err.contains("off is disabled"), "{}", off.err);
    assert!(
        off.err.contains("nothing of its document (3 items)") && !off.out.contains("items"),
        "{}{}",
        off.out,
        off.err
    );
    assert_eq!(origin.requests("other").len(), 1);
}

#[tokio::test]
async fn a_daemon_that_cannot_read_the_files_of_a_new_source_is_reported() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    let mut stack = stack();
    start(&mut stack).await;
    fs::create_dir(stack.path("credentials")).unwrap();
    fs::write(stack.path("credentials/agency"), "user:password").unwrap();
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["sources", "add", &url, "--id", "it", "--basic-file", "agency", "--config"]).arg(config);
    command.env_clear().env("CREDENTIALS_DIRECTORY", stack.path("credentials"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains("newswire-ingestd cannot visit it: bad-url: basic_file: its file cannot be read"),
        "{err}"
    );
    assert_eq!(origin.requests("feed").len(), 1);
}

#[tokio::test]
async fn an_address_may_be_written_as_people_do() {
    let origin = Origin::start().await.unwrap();
    let stack = stack();
    for (n, form) in ["", "  ", "feed:", "feed://", "feed:http://", "<", "//"].iter().enumerate() {
        let name = format!("feed-{n}");
        let url = strict_feed(&origin, &name);
        let rest = url.strip_prefix("http://").unwrap();
        let written = match *form {
            "<" => format!("<{rest}>"),
            "  " => format!("  {rest} \n"),
            form => format!("{form}{rest}"),
        };
        let added = sources(&stack, &["add", &written, "--id", &name]).await;
        assert!(added.assert_exit(0).out.contains(&url), "{written}: {}", added.out);
        assert_eq!(origin.requests(&name).len(), 1, "{written}");
    }
    let refused = sources(&stack, &["add", "ftp://example.org/feed"]).await;
    assert!(refused.assert_exit(2).err.contains("ftp: addresses cannot be requested"), "{}", refused.err);
    let refused = sources(&stack, &["add", "two words"]).await;
    assert!(refused.assert_exit(2).err.contains("`two words`: expected the address"), "{}", refused.err);
    let nothing = sources(&stack, &["add", "127.0.0.1:1/feed"]).await;
    assert!(nothing.assert_exit(1).err.contains("http://127.0.0.1:1/feed: connect: "), "{}", nothing.err);
    assert!(nothing.err.contains("; before that, over https: connect: "), "{}", nothing.err);
}

#[tokio::test]
async fn one_address_is_added_once_for_each_of_its_keys_and_other_options_are_refused() {
    let origin = Origin::start().await.unwrap();
    let url = strict_feed(&origin, "feed");
    origin.set_behaviour("feed", Behaviour::Honest);
    let mut stack = stack();
    start(&mut stack).await;
    let list = || fs::read_to_string(stack.path("sources.toml")).unwrap();

    sources(&stack, &["add", &url, "--id", "plain"]).await.assert_exit(0);
    for key in ["1", "2"] {
        let header = format!("X-K: {key}");
        let added = sources(&stack, &["add", &url, "--id", &format!("key-{key}"), "--header", &header]).await;
        assert!(added.assert_exit(0).out.starts_with("added key-"), "{}", added.out);
        assert!(added.err.contains("plain has this address too"), "{}", added.err);
    }
    let before = (list(), origin.requests("feed").len());
    let same = sources(&stack, &["add", &url, "--header", "x-k: 2"]).await;
    assert!(same.assert_exit(0).out.contains("is there already: key-2"), "{}", same.out);
    for (options, says) in [
        (
            &["--id", "other"][..],
            "is there already: plain, and the options differ from it: id is \"plain\", not \"other\"",
        ),
        (&["--category", "x"], "category is \"general\", not \"x\""),
        (
            &["--header", "X-K: 1", "--every", "1h"],
            "is there already: key-1, and the options differ from it: every is not set",
        ),
        (&["--header", "X-K: 3", "--id", "plain"], "already has a source with the id plain"),
    ] {
        let refused = sources(&stack, &[&["add", url.as_str()], options].concat()).await;
        assert!(refused.assert_exit(1).err.contains(says), "{}", refused.err);
    }
    assert_eq!((list(), origin.requests("feed").len()), before);
}

#[tokio::test]
async fn what_is_in_an_included_file_is_named_with_this_file_and_its_address() {
    let origin = Origin::start().await.unwrap();
    let (url, other) = (strict_feed(&origin, "feed"), strict_feed(&origin, "other"));
    let stack = stack();
    fs::write(stack.path("sources.toml"), "include = \"own.toml\"\n").unwrap();
    fs::write(stack.path("own.toml"), format!("[[source]]\nid = \"it\"\nurl = \"{url}\"\n")).unwrap();
    let taken = sources(&stack, &["add", &other, "--id", "it"]).await;
    assert!(
        taken.assert_exit(1).err.contains("own.toml already has a source with the id it"),
        "{}",
        taken.err
    );
    let differs = sources(&stack, &["add", &url, "--category", "x"]).await;
    assert!(differs.assert_exit(1).err.contains("own.toml"), "{}", differs.err);
    let written = format!("feed:{}", url.strip_prefix("http://").unwrap());
    let there = sources(&stack, &["add", &written]).await;
    assert_eq!(there.assert_exit(0).out, format!("{url} is there already: it\n"));
}

#[tokio::test]
async fn an_added_feed_with_more_than_one_visit_records_says_what_waits() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("feed", DocumentFormat::Rss);
    for n in 0..30 {
        origin.publish("feed", &format!("Item {n}"));
    }
    let mut stack = stack();
    start(&mut stack).await;
    let added = sources(&stack, &["add", &url, "--id", "it", "--new-bytes-max", "2048"]).await;
    assert!(added.assert_exit(0).out.trim_end().ends_with("its document has 30 items"), "{}", added.out);
    let status = status(&stack, "it").await.unwrap();
    let recorded = status["counts"]["items"].as_u64().unwrap();
    let waiting = status["flooding"]["waiting_items"].as_u64().unwrap();
    assert!(recorded + waiting == 30 && waiting > 0, "{status}");
    let says =
        format!("has recorded {recorded} of its 30 items; {waiting} wait for later visits (new_bytes_max)");
    assert!(added.err.contains(&says), "{}", added.err);
    assert!(!added.err.contains("has recorded its items"), "{}", added.err);
}

#[tokio::test]
async fn the_base_of_a_page_and_a_link_with_the_scheme_feed_lead_to_the_feed() {
    let origin = Origin::start().await.unwrap();
    let stack = stack();
    let feeds: Vec<_> = ["one", "two", "three"].map(|name| strict_feed(&origin, name)).into();
    let rest = |n: usize| feeds[n].strip_prefix("http:").unwrap();
    let (folder, name) = feeds[0].rsplit_once('/').unwrap();
    let links = [
        (format!("<base href='{folder}/'>"), name.to_owned()),
        (String::new(), format!("feed:{}", feeds[1])),
        (String::new(), format!("feed:{}", rest(2))),
    ];
    for (n, (base, href)) in links.iter().enumerate() {
        let link = format!("<link rel=alternate type=application/rss+xml href='{href}'>");
        let page =
            origin.set_document(&format!("deep/page-{n}"), &format!("<!doctype html><head>{base}{link}"));
        let added = sources(&stack, &["add", &page, "--id", &format!("feed-{n}")]).await;
        assert!(added.assert_exit(0).out.contains(&feeds[n]), "{href}: {}", added.out);
    }
}

#[tokio::test]
async fn a_host_that_the_daemon_does_not_ask_is_not_asked_by_the_tool_either() {
    let (held, other) = (Origin::start().await.unwrap(), Origin::start().await.unwrap());
    let mut stack = stack();
    let busy = held.add_feed("busy", DocumentFormat::Rss);
    held.set_behaviour("busy", Behaviour::Status(429, vec!["Retry-After: 300".to_owned()]));
    fs::write(stack.path("sources.toml"), format!("[[source]]\nid = \"busy\"\nurl = \"{busy}\"\n")).unwrap();
    let (url, free) = (strict_feed(&held, "feed"), strict_feed(&other, "feed"));
    start(&mut stack).await;
    let is_throttled = async || {
        let status = status(&stack, "busy").await?;
        (status["consecutive_failures"] == 1).then_some(())
    };
    wait_for("the 429", SOON, is_throttled).await.unwrap();

    let list = fs::read_to_string(stack.path("sources.toml")).unwrap();
    for _ in 0..2 {
        let refused = sources(&stack, &["add", &url, "--id", "it"]).await;
        let says = "asked for a pause, which is over in ";
        assert!(refused.assert_exit(1).err.contains(says), "{}", refused.err);
    }
    assert!(held.requests("feed").is_empty());
    assert_eq!(fs::read_to_string(stack.path("sources.toml")).unwrap(), list);
    // The control: another host, and without a daemon, of which nothing is known.
    sources(&stack, &["add", &free, "--id", "free"]).await.assert_exit(0);
    assert_eq!(other.requests("feed").len(), 1);
    stack.kill(Binary::Ingestd).unwrap();
    sources(&stack, &["add", &url, "--id", "it"]).await.assert_exit(0);
    assert_eq!(held.requests("feed").len(), 1);
}

#[tokio::test]
async fn sources_of_one_host_are_added_with_its_spacing() {
    let (origin, another) = (Origin::start().await.unwrap(), Origin::start().await.unwrap());
    let mut stack = stack();
    stack.set("fetch.host_spacing", "\"6s\"");
    let mut urls = ["a", "b", "c"].map(|name| strict_feed(&origin, name)).to_vec();
    urls.push(strict_feed(&another, "d"));
    start(&mut stack).await;
    let adding: Vec<_> = urls.iter().map(|url| spawn(&stack, &["add", url])).collect();
    for command in adding {
        command.await.unwrap().assert_exit(0);
    }
    let mut times: Vec<_> = ["a", "b", "c"].iter().map(|name| origin.requests(name)[0].at).collect();
    times.sort();
    let gaps: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
    // Less than the spacing, because a command may be slow to use its turn.
    assert!(gaps.iter().all(|gap| *gap > Duration::from_secs(1)), "{gaps:?}");
    let control = another.requests("d")[0].at;
    assert!(control < times[2], "a source of another host does not wait for them");
}

#[tokio::test]
async fn a_private_address_that_the_daemon_will_not_visit_is_told_and_fails() {
    let origin = Origin::start().await.unwrap();
    let mut stack = stack();
    stack.set("fetch.allow", "[]");
    let urls = ["a", "b", "c", "d"].map(|name| strict_feed(&origin, name));
    let stopped = sources(&stack, &["add", &urls[0], "--id", "a", "--allow-private"]).await;
    let says = "127.0.0.1 is loopback, not public; add it to fetch.allow to permit it";
    assert!(stopped.assert_exit(1).err.contains("it does not visit a when it starts: "), "{}", stopped.err);
    assert!(stopped.err.contains(says), "{}", stopped.err);
    start(&mut stack).await;
    let refused = sources(&stack, &["add", &urls[1], "--id", "b", "--allow-private"]).await;
    assert!(refused.assert_exit(1).err.contains("newswire-ingestd does not visit b: "), "{}", refused.err);
    assert!(refused.err.contains(says) && !refused.err.contains("visits it"), "{}", refused.err);
    assert!(refused.out.starts_with("added b "), "{}", refused.out);
    let disabled = sources(&stack, &["add", &urls[2], "--id", "c", "--allow-private", "--disabled"]).await;
    disabled.assert_exit(0);
    // The control: the network is allowed, in the file of the tool as for the daemon.
    stack.kill(Binary::Ingestd).unwrap();
    stack.set("fetch.allow", "[\"127.0.0.0/8\"]");
    start(&mut stack).await;
    let added = sources(&stack, &["add", &urls[3], "--id", "d", "--allow-private"]).await;
    assert!(added.assert_exit(0).err.contains("has recorded its items"), "{}", added.err);
}
