//! SIGHUP: what a running daemon applies from its files, what it keeps, and what it logs about that.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use e2e::{
    Binary, DocumentFormat, Origin, TestSource, TestStack,
    http::{self, Address},
    wait_for,
};
use rustix::process::Signal;

/// Deadline of each step; an idle machine needs well under a second.
const SOON: Duration = Duration::from_secs(60);
const ONE: &str = "the-first-token-of-16";
const OTHER: &str = "the-other-token-of-16";

/// A stream with a token: its text so far, and whether it has ended.
struct Stream {
    seen: Arc<Mutex<(String, bool)>>,
}

impl Stream {
    async fn open(stack: &TestStack, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
        let mut answer = http::get(&stack.gateway(), "/news/stream", &headers).await.unwrap();
        assert_eq!(answer.status, 200);
        let seen = Arc::new(Mutex::new((String::new(), false)));
        let notes = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok(Some(piece)) = answer.next().await {
                notes.lock().unwrap().0.push_str(&String::from_utf8_lossy(&piece));
            }
            notes.lock().unwrap().1 = true;
        });
        Self { seen }
    }

    fn has_ended(&self) -> bool {
        self.seen.lock().unwrap().1
    }

    async fn wait_text(&self, text: &str) {
        let seen = async || self.seen.lock().unwrap().0.contains(text).then_some(());
        wait_for(&format!("`{text}` on a stream"), SOON, seen).await.unwrap();
    }
}

/// The status of a request with a token.
async fn status(stack: &TestStack, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    http::get(&stack.gateway(), "/news/stream", &headers).await.unwrap().status
}

async fn level(stack: &TestStack, program: Binary) -> String {
    let (status, text) = http::fetch(&stack.admin(program), "/log-level", SOON).await.unwrap();
    assert_eq!(status, 200);
    text
}

/// Sends SIGHUP, waits for a log line with `end`, and returns the log of this reload.
async fn reload(stack: &mut TestStack, program: Binary, end: &str) -> String {
    let process = stack.process(program).unwrap();
    let before = process.log().len();
    process.signal(Signal::HUP).unwrap();
    wait_for(&format!("`{end}` in the log"), SOON, async || {
        let log = process.log().split_off(before);
        log.lines().any(|line| line.contains(end)).then_some(log)
    })
    .await
    .unwrap()
}

/// `newswire tail` with a token that is refused ends at once, and says why and what to do.
async fn assert_tail_ends(stack: &TestStack, token: &str) {
    fs::write(stack.path("token"), token).unwrap();
    let Address::Tcp(address) = stack.gateway() else { panic!("the gateway listens on TCP") };
    let url = format!("http://{address}");
    let output = tokio::process::Command::new(Binary::Newswire.path().unwrap())
        .args(["tail", "--url", &url, "--token-file"])
        .arg(stack.path("token"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON, output).await.expect("it ends").unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("401 Unauthorized: the token is unknown; ") && told.contains("--token-file"),
        "{told}"
    );
    assert!(told.lines().count() == 1 && told.matches(&url).count() == 1 && !told.contains(token), "{told}");
}

fn write_tokens(stack: &TestStack, tokens: &[&str]) {
    let entry = |(n, token): (usize, &&str)| {
        format!("[[token]]\nname = \"reader-{n}\"\ntoken = \"{token}\"\ncategories = \"all\"\n\n")
    };
    let text: String = tokens.iter().enumerate().map(entry).collect();
    fs::write(stack.path("tokens.toml"), text).unwrap();
}

#[tokio::test]
async fn the_gateway_applies_tokens_limits_and_log_level_and_keeps_open_streams() {
    let origin = Origin::start().await.unwrap();
    let feed = TestSource::new("feed", origin.add_feed("feed", DocumentFormat::Rss));
    let mut stack = TestStack::new(&[feed]).unwrap();
    let tokens = stack.path("tokens.toml").display().to_string();
    stack.set("gateway.read_tokens_file", &format!("{tokens:?}"));
    write_tokens(&stack, &[OTHER, ONE]);
    stack.start_both().await.unwrap();
    let (removed, kept) = (Stream::open(&stack, ONE).await, Stream::open(&stack, OTHER).await);
    origin.publish("feed", "Before the reload");
    removed.wait_text("Before the reload").await;
    kept.wait_text("Before the reload").await;

    // The first reload changes nothing, the second what can change at run time.
    reload(&mut stack, Binary::Gateway, "reloaded").await;
    assert!(!removed.has_ended() && !kept.has_ended());
    write_tokens(&stack, &[OTHER]);
    let changes =
        [("gateway.clients_max", "1"), ("log.level", "\"debug\""), ("gateway.listen", "\"127.0.0.1:9\"")];
    stack.write_config("newswire.toml", &changes).unwrap();
    let log = reload(&mut stack, Binary::Gateway, "reloaded").await;
    assert!(log.contains("gateway.read_tokens_file: 0 added, 0 changed, 1 removed"), "{log}");
    let kept_lines: Vec<_> = log.lines().filter(|line| line.contains("kept until a restart")).collect();
    assert_eq!(kept_lines.len(), 1, "{log}");
    assert!(kept_lines[0].contains("WARN") && kept_lines[0].contains("gateway.listen"), "{log}");

    wait_for("the end of the stream whose token is gone", SOON, async || removed.has_ended().then_some(()))
        .await
        .unwrap();
    assert_eq!(status(&stack, ONE).await, 401);
    assert_tail_ends(&stack, ONE).await;
    // The limit is one stream now: the next is told to retry later, in a way that an `EventSource` understands.
    let refused = Stream::open(&stack, OTHER).await;
    wait_for("the end of a stream too many", SOON, async || refused.has_ended().then_some(())).await.unwrap();
    refused.wait_text("retry:").await;
    assert!(level(&stack, Binary::Gateway).await.contains("debug"));
    origin.publish("feed", "After the reload");
    kept.wait_text("After the reload").await;
    assert!(!kept.has_ended());
}

#[tokio::test]
async fn the_daemon_applies_catalogue_log_level_and_host_spacing() {
    let origin = Origin::start().await.unwrap();
    let [old, new, stays] = ["old", "new", "stays"]
        .map(|name| TestSource::new(name, origin.add_feed(name, DocumentFormat::Atom)));
    let mut stack = TestStack::new(&[old, stays.clone()]).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    wait_for("a visit to each", SOON, async || {
        ["old", "stays"].iter().all(|name| !origin.requests(name).is_empty()).then_some(())
    })
    .await
    .unwrap();

    stack.write_catalogue(&[new, stays]).unwrap();
    stack.write_config("newswire.toml", &[("log.level", "\"debug\"")]).unwrap();
    let log = reload(&mut stack, Binary::Ingestd, "catalogue applied").await;
    let line = log.lines().find(|line| line.contains("catalogue applied")).unwrap();
    for part in ["added=1", "changed=0", "removed=1", "unchanged=1"] {
        assert!(line.contains(part), "{line}");
    }
    wait_for("the new level", SOON, async || {
        level(&stack, Binary::Ingestd).await.contains("debug").then_some(())
    })
    .await
    .unwrap();
    for name in ["new", "stays"] {
        origin.publish(name, &format!("By {name}"));
    }
    for name in ["new", "stays"] {
        let by = |text: &str| text.contains(&format!("By {name}"));
        subscriber.wait_event("item", SOON, |item| by(&item.message.data)).await.unwrap();
    }
    assert_eq!(subscriber.connections().len(), 1, "{}", subscriber.summary());
    let before = origin.requests("old").len();
    // It would have been visited again within two visits to another feed.
    let control_visits = origin.requests("stays").len();
    wait_for("two visits", SOON, async || {
        (origin.requests("stays").len() > control_visits + 1).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(origin.requests("old").len(), before);

    stack.write_config("newswire.toml", &[("fetch.host_spacing", "\"1h\"")]).unwrap();
    let log = reload(&mut stack, Binary::Ingestd, "catalogue applied").await;
    assert!(!log.contains("kept until a restart"), "{log}");
    let wire = stack.wire();
    wait_for("the new spacing", SOON, async || {
        let (_, text) = http::fetch(&wire, "/sources/stays", SOON).await.ok()?;
        text.contains("start at least 1h apart").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_reported_with_its_line() {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.start_both().await.unwrap();
    let file = stack
        .write_config("newswire.toml", &[("gateway.heartbeet", "\"1s\""), ("log.level", "\"debug\"")])
        .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("heartbeet")).unwrap();
    let place = format!("newswire.toml:{line}");
    for program in [Binary::Gateway, Binary::Ingestd] {
        let log = reload(&mut stack, program, "kept the old configuration").await;
        let complaint = log.lines().find(|line| line.contains("kept the old configuration")).unwrap();
        for part in ["ERROR", place.as_str(), "gateway.heartbeet"] {
            assert!(complaint.contains(part), "{part}: {complaint}");
        }
        assert!(level(&stack, program).await.contains("info"), "the level is kept too");
    }
    let list = stack.path("sources.toml");
    fs::write(&list, "[[source]]\nid = \"a\"\nurl = \"ftp://example.com/\"\n").unwrap();
    stack.write_config("newswire.toml", &[("log.level", "\"debug\"")]).unwrap();
    let log = reload(&mut stack, Binary::Ingestd, "reload failed; the old catalogue stays in use").await;
    assert!(log.contains("sources.toml:"), "{log}");
    assert!(level(&stack, Binary::Ingestd).await.contains("info"));
}

/// Runs `newswire reload --config newswire.toml`; its exit code, standard output and error.
async fn newswire_reload(stack: &TestStack, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["reload", "--config", "newswire.toml"]).args(arguments).env_clear();
    command.current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn newswire_reload_reloads_both_and_reports_the_outcome() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("gateway.operator_token_file", &format!("{:?}", stack.path("operator").display().to_string()));
    fs::write(stack.path("operator"), "an-operator-token-long-enough\n").unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");

    stack.write_catalogue(&[TestSource::new("feed", origin.add_feed("feed", DocumentFormat::Rss))]).unwrap();
    let changes =
        [("gateway.clients_max", "77"), ("store.cache_bytes", "16777216"), ("log.level", "\"debug\"")];
    stack.write_config("newswire.toml", &changes).unwrap();
    let (code, out, err) = newswire_reload(&stack, &[]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for line in [
        "ingestd: reloaded; sources: 1 added, 0 changed, 0 removed",
        "ingestd: log.level: \"info\" -> \"debug\"",
        "gateway: gateway.clients_max: 10000 -> 77",
        "gateway: log.level: \"info\" -> \"debug\"",
    ] {
        assert!(out.lines().any(|text| text == line), "{line}\n{out}");
    }
    let waits =
        |text: &&str| text.starts_with("ingestd: store.") && text.ends_with("takes effect after a restart");
    assert_eq!(out.lines().filter(waits).count(), 1, "{out}");
    origin.publish("feed", "After the reload");
    subscriber.wait_event("item", SOON, |_| true).await.unwrap();
    assert_eq!(subscriber.connections().len(), 1, "{}", subscriber.summary());

    // The configuration is the same, the operator's token another one.
    fs::write(stack.path("operator"), "another-operator-token-long-enough\n").unwrap();
    let (code, out, err) = newswire_reload(&stack, &[]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let of_gateway: Vec<_> = out.lines().filter(|line| line.starts_with("gateway: ")).collect();
    let replaced = "gateway: gateway.operator_token_file: 1 added, 0 changed, 1 removed";
    assert!(of_gateway.contains(&replaced) && !out.contains("another-operator"), "{out}");
    assert!(!of_gateway.iter().any(|line| line.contains("has not changed")), "{out}");

    // A wrong file that only the gateway reads is reported only by the gateway.
    fs::write(stack.path("operator"), "").unwrap();
    let (code, out, _) = newswire_reload(&stack, &["--json"]).await;
    let log: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &log["ingestd"]["outcome"]), (Some(1), &"reloaded".into()), "{out}");
    assert_eq!(log["gateway"]["outcome"], "refused", "{out}");
    assert!(log["gateway"]["complaints"][0].as_str().unwrap().contains("operator"), "{out}");

    stack.kill(Binary::Gateway).unwrap();
    let (code, out, err) = newswire_reload(&stack, &[]).await;
    assert!(code == Some(1) && out.contains("ingestd: reloaded"), "{out}{err}");
    assert!(err.contains("gateway was not reloaded") && err.contains("is newswire-gateway running"), "{err}");

    stack.write_config("newswire.toml", &[("gateway.heartbeet", "\"1s\"")]).unwrap();
    let (code, _, err) = newswire_reload(&stack, &[]).await;
    assert!(code == Some(2) && err.contains("gateway.heartbeet"), "{err}");
}
