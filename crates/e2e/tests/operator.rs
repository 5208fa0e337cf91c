//! `newswire verify`, `bundle` and `logs triage` on the real programs, healthy and not.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestSource, TestStack, scenario, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

/// Deadline for a visit and its log line.
const SOON: Duration = Duration::from_secs(60);

/// The result of a command.
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

impl CommandOutput {
    #[track_caller]
    fn assert_exit(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

/// Runs the operator's tool in the folder of a stack.
async fn run_newswire(stack: &TestStack, arguments: &[&str], stdin: Option<&Path>) -> CommandOutput {
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    let stdin = stdin.map_or_else(Stdio::null, |file| fs::File::open(file).unwrap().into());
    // journalctl is searched on the PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", path).current_dir(stack.folder()).stdin(stdin);
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutput {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
        took: began.elapsed(),
    }
}

fn config(stack: &TestStack) -> String {
    stack.write_config("newswire.toml", &[]).unwrap().display().to_string()
}

/// The outcome of each check, by its name.
fn outcomes_by_check(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    report["boxes"].as_array().unwrap().iter().map(|b| (text(&b["name"]), text(&b["outcome"]))).collect()
}

#[tokio::test]
async fn verify_passes_on_a_healthy_system_and_fails_in_time_on_a_stopped_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 3)).unwrap();
    stack.set("gateway.heartbeat", "\"2s\"");
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream");
    for number in 0..24 {
        origin.publish(&format!("feed-{}", number % 3), &format!("Item {number}"));
    }
    let all = async || (subscriber.count("item") >= 24).then_some(());
    wait_for("the items", SOON, all).await.unwrap();

    let config = config(&stack);
    let output = run_newswire(&stack, &["verify", "--json", "--for", "5s", "--config", &config], None).await;
    let report = output.assert_exit(0).json();
    for (name, outcome) in outcomes_by_check(&report) {
        // Without a watchdog this check is skipped.
        let may_be_skipped = name == "no-loop-blocked" && report.to_string().contains("404");
        assert!(outcome == "passed" || may_be_skipped, "{name}: {report:#}");
    }
    assert_eq!(outcomes_by_check(&report).len(), 6);
    assert_eq!(report["boxes"][5]["figures"]["expected"], 10, "{report:#}");
    assert_eq!(subscriber.connections().len(), 1, "other clients were not disturbed");

    stack.process(Binary::Gateway).unwrap().signal(Signal::STOP).unwrap();
    let stopped = run_newswire(&stack, &["verify", "--json", "--config", &config], None).await;
    let outcomes = outcomes_by_check(&stopped.assert_exit(1).json());
    assert_eq!(outcomes["answers"], "failed", "{outcomes:?}");
    assert_eq!(outcomes["no-loop-blocked"], "failed", "{outcomes:?}");
    assert!(stopped.took < Duration::from_secs(180), "{:?}", stopped.took);

    stack.kill(Binary::Gateway).unwrap();
    let dead = run_newswire(&stack, &["verify", "--config", &config], None).await;
    assert!(dead.assert_exit(1).out.contains("[ ] answers FAILED"), "{}", dead.out);
}

#[tokio::test]
async fn verify_detects_a_gateway_that_stops_during_the_run_and_ends_in_time() {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.start_both().await.unwrap();
    let gateway = Pid::from_raw(stack.process(Binary::Gateway).unwrap().id().cast_signed()).unwrap();
    let config = config(&stack);
    let arguments = ["verify", "--json", "--for", "8s", "--config", &config];
    let verified = run_newswire(&stack, &arguments, None);
    let stop = async {
        // verify opens its stream after its page checks, and reads it for eight seconds.
        let listens = async || (stack.json("/health").await.ok()?["clients"].as_u64()? > 0).then_some(());
        wait_for("a stream of verify", SOON, listens).await.unwrap();
        kill_process(gateway, Signal::STOP).unwrap();
    };
    let (output, ()) = tokio::join!(verified, stop);
    let outcomes = outcomes_by_check(&output.assert_exit(1).json());
    assert_eq!(outcomes["answers"], "passed", "{outcomes:?}");
    assert_eq!(outcomes["probes-in-time-throughout"], "failed", "{outcomes:?}");
    assert_eq!(outcomes["resume-is-exact"], "failed", "{outcomes:?}");
    assert!(output.took < Duration::from_secs(180), "{:?}", output.took);
}

#[tokio::test]
async fn verify_accepts_only_this_machine_by_default() {
    let stack = TestStack::new(&[]).unwrap();
    let config = config(&stack);
    for url in ["http://192.0.2.1:8700/", "http://example.org/", "https://127.0.0.1:8700/"] {
        let output = run_newswire(&stack, &["verify", "--url", url, "--config", &config], None).await;
        output.assert_exit(2);
    }
    run_newswire(&stack, &["verify", "--streams", "5000", "--config", &config], None).await.assert_exit(2);
}

/// Texts that must not be in a bundle.
const SECRETS: [&str; 10] = [
    "planted-user-password",
    "planted-query-value",
    "planted-header-value",
    "planted-basic-password",
    "planted-cookie-value",
    "planted-operator-token",
    "planted-read-token-of-16",
    "planted-comment",
    "planted-proxy-password",
    "planted-shared-proxy",
];

/// Writes a catalogue and its credential files, with a secret wherever one is allowed.
fn plant_secrets(stack: &mut TestStack, origin: &Origin) {
    let url = origin.add_feed("feed-0", DocumentFormat::of(0));
    let secret = url.replace("http://", "http://someone:planted-user-password@");
    let text = format!(
        "# planted-comment\n[[source]]\nid = \"feed-0\"\nurl = \"{secret}?key=planted-query-value\"\n\
         name = \"Feed\"\nevery = \"1s\"\nheaders = {{ X-Api = \"planted-header-value\" }}\n\
         cookie_file = \"cookie\"\n\n\
         [[source]]\nid = \"feed-1\"\nurl = \"{url}\"\nname = \"Feed\"\nevery = \"1s\"\nbasic_file = \"basic\"\n\
         proxy = \"http://me:planted-proxy-password@127.0.0.1:9\"\n"
    );
    fs::write(stack.path("sources.toml"), text).unwrap();
    let token = "[[token]]\nname = \"desk\"\ntoken = \"planted-read-token-of-16\"\ncategories = \"all\"\n";
    for (name, text) in [
        ("basic", "someone:planted-basic-password\n"),
        ("cookie", "sid=planted-cookie-value\n"),
        ("operator", "planted-operator-token-long-enough\n"),
        ("tokens", token),
    ] {
        fs::write(stack.path(name), text).unwrap();
        fs::set_permissions(stack.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    stack.set("fetch.proxy", "\"socks5://me:planted-shared-proxy@127.0.0.1:9\"");
    for (key, name) in [("gateway.operator_token_file", "operator"), ("gateway.read_tokens_file", "tokens")] {
        stack.set(key, &format!("{:?}", stack.path(name).display().to_string()));
    }
}

/// The files of a bundle by name, without its folder.
fn unpack(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(path).unwrap()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name: PathBuf = entry.path().unwrap().components().skip(1).collect();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name.display().to_string(), text);
    }
    files
}

async fn bundle(stack: &TestStack, name: &str, more: &[&str]) -> (CommandOutput, BTreeMap<String, String>) {
    let config = config(stack);
    let archive = stack.path(name).display().to_string();
    let arguments = [&["bundle", "--output", &archive, "--config", &config], more].concat();
    let output = run_newswire(stack, &arguments, None).await;
    output.assert_exit(0);
    let mode = fs::metadata(&archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "readable by its owner only");
    let files = unpack(Path::new(&archive));
    for (file, text) in &files {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {file}:\n{text}");
        }
    }
    (output, files)
}

#[tokio::test]
async fn a_bundle_has_everything_but_secrets() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    plant_secrets(&mut stack, &origin);
    stack.start_both().await.unwrap();
    let log = stack.path("leaky.log");
    // Both feeds fail, so that their URLs are in states and logs.
    let visited = async || {
        let own = fs::read_to_string(stack.path("newswire-ingestd.log")).unwrap();
        ["feed-0", "feed-1"]
            .iter()
            .all(|feed| own.contains(&format!("visit failed source={feed} ")))
            .then_some(own)
    };
    let own = wait_for("both visits", SOON, visited).await.unwrap();
    let leaks = "2020-01-01T00:00:00Z WARN  too old to be of use\n\
                 2999-01-01T00:00:00Z WARN  sent planted-basic-password to http://a:planted-user-password@h/\n";
    fs::write(&log, format!("{own}{leaks}")).unwrap();
    let log = log.display().to_string();
    let (output, files) = bundle(&stack, "up.tar.gz", &["--log", &log]).await;

    let manifest: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
    for name in [
        "config.json",
        "sources.json",
        "files.json",
        "ingestd/health.json",
        "ingestd/metrics.txt",
        "ingestd/status.json",
        "ingestd/sources.json",
        "gateway/health.json",
        "gateway/metrics.txt",
        "gateway/status.json",
        "ingestd/black-box.jsonl",
        "ingestd/black-box.txt",
        "gateway/black-box.jsonl",
        "gateway/black-box.txt",
        "logs/1-leaky.log",
    ] {
        assert!(files.contains_key(name), "{name} is missing: {manifest:#}");
    }
    assert!(files["logs/1-leaky.log"].contains("sent … to http://…@h/"), "{}", files["logs/1-leaky.log"]);
    assert!(!files["logs/1-leaky.log"].contains("too old"));
    assert!(files["sources.json"].contains("\"X-Api\": \"…\""), "{}", files["sources.json"]);
    assert!(files["files.json"].contains("\"0600\"") && files["files.json"].contains("basic_file of feed-1"));
    assert!(
        files["config.json"].contains("gateway.listen")
            && manifest["about"]["daemons"]["ingestd"]["pid"].is_u64()
    );
    assert!(files["ingestd/black-box.txt"].contains("visit of feed-0 ended: error"));
    let again = run_newswire(&stack, &["bundle", "--output", output.out.trim()], None).await;
    again.assert_exit(2);
}

#[tokio::test]
async fn a_bundle_is_made_with_everything_down_stopped_or_misconfigured() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    plant_secrets(&mut stack, &origin);
    let (output, files) = bundle(&stack, "down.tar.gz", &["--log", "missing.log"]).await;
    assert!(
        output.err.contains("not included: gateway/health.json") && output.err.contains("missing.log"),
        "{}",
        output.err
    );
    assert!(files.contains_key("config.json") && files.contains_key("sources.json"), "{files:?}");
    let manifest = &files["manifest.json"];
    assert!(
        manifest.contains("there is no socket") && manifest.contains("gateway/metrics.txt"),
        "{manifest}"
    );

    stack.start_both().await.unwrap();
    for program in [Binary::Ingestd, Binary::Gateway] {
        stack.process(program).unwrap().signal(Signal::STOP).unwrap();
    }
    let (output, _) = bundle(&stack, "stopped.tar.gz", &[]).await;
    assert!(output.took < Duration::from_secs(180), "{:?}", output.took);

    stack.set("gateway.listen", "\"nowhere\"");
    let (_, files) = bundle(&stack, "misconfigured.tar.gz", &[]).await;
    assert!(files["manifest.json"].contains("gateway.listen"), "{}", files["manifest.json"]);
}

#[tokio::test]
async fn triage_groups_the_log_of_a_run_with_failing_feeds() {
    let origin = Origin::start().await.unwrap();
    let sources: Vec<TestSource> = scenario::feeds(&origin, 8);
    for number in 0..4 {
        origin.set_behaviour(&format!("feed-{number}"), Behaviour::Status(500, Vec::new()));
    }
    for number in 4..7 {
        origin.set_behaviour(&format!("feed-{number}"), Behaviour::Reset);
    }
    let mut stack = TestStack::new(&sources).unwrap();
    stack.start_both().await.unwrap();
    let log = stack.path("newswire-ingestd.log");
    let logged = async || {
        let text = fs::read_to_string(&log).unwrap();
        (0..7).all(|n| text.contains(&format!("visit failed source=feed-{n} "))).then_some(())
    };
    wait_for("the failures to be logged", SOON, logged).await.unwrap();

    let file = log.display().to_string();
    let output = run_newswire(&stack, &["logs", "triage", &file, "--json"], None).await;
    let summary = output.assert_exit(0).json();
    let groups = summary["groups"].as_array().unwrap();
    let failed: Vec<_> = groups
        .iter()
        .filter(|g| g["signature"].as_str().unwrap().starts_with("visit failed source=*"))
        .collect();
    assert_eq!(failed.len(), 2, "one group per kind of failure: {summary:#}");
    assert_eq!((&failed[0]["count"], &failed[1]["count"]), (&4.into(), &3.into()), "{summary:#}");
    assert!(failed.iter().all(|g| g["first"].is_string() && g["level"] == "warn"), "{summary:#}");
    assert_eq!(failed[1]["sources"], serde_json::json!(["feed-4", "feed-5", "feed-6"]));

    let output = run_newswire(&stack, &["logs", "triage", "-", "--top", "1"], Some(&log)).await;
    assert!(output.assert_exit(0).out.contains("4× warn visit failed source=*"), "{}", output.out);
    run_newswire(&stack, &["logs", "triage"], None).await.assert_exit(2);
    run_newswire(&stack, &["logs", "triage", "missing.log"], None).await.assert_exit(2);
}
