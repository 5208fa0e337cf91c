//! `newswire log` on the files of real daemons: what is backed up, exported or copied comes back, and nothing comes twice.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Binary, ChildProcess, DocumentFormat, Origin, TestSource, TestStack, http, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// The result of a command.
struct LogOutput {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

/// Runs `newswire log` with this standard input.
fn log_with(stack: &TestStack, arguments: &[&str], input: &[u8]) -> LogOutput {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.arg("log").args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap_or_default();
    let output = child.wait_with_output().unwrap();
    LogOutput {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn log(stack: &TestStack, arguments: &[&str]) -> LogOutput {
    log_with(stack, arguments, b"")
}

impl LogOutput {
    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    #[track_caller]
    fn assert_exit(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|_| panic!("{}{}", self.text(), self.err))
    }
}

/// What the daemon says about its log.
async fn vitals(stack: &TestStack) -> Option<Value> {
    let answer = http::fetch(&stack.admin(Binary::Ingestd), "/watch", SOON).await;
    let Ok((200, text)) = answer else { return None };
    Some(serde_json::from_str::<Value>(&text).unwrap()["vitals"].clone()).filter(Value::is_object)
}

/// Starts the daemon, and waits until its log has come this far.
async fn start(stack: &mut TestStack, head: u64) -> Value {
    stack.start(Binary::Ingestd).unwrap();
    reach(stack, head).await
}

async fn reach(stack: &TestStack, head: u64) -> Value {
    let reached = async || vitals(stack).await.filter(|vitals| vitals["head"].as_u64() >= Some(head));
    wait_for(&format!("event {head}"), SOON, reached).await.unwrap()
}

async fn stop(stack: &mut TestStack) {
    let (status, _) = stack.terminate(Binary::Ingestd, SOON).await.unwrap();
    assert!(status.success(), "{status}");
}

/// A stack with two feeds of five items each, which have been recorded; the daemon runs.
async fn recorded(origin: &Origin) -> TestStack {
    let sources = ["a", "b"].map(|id| TestSource::new(id, origin.add_feed(id, DocumentFormat::Rss)));
    for n in 0..5 {
        origin.publish("a", &format!("First {n}"));
        origin.publish("b", &format!("Second {n}"));
    }
    let mut stack = TestStack::new(&sources).unwrap();
    start(&mut stack, 10).await;
    stack
}

/// After two more visits of each feed, the log still ends here: nothing came again.
async fn assert_nothing_comes_again(origin: &Origin, stack: &TestStack, head: u64) -> Value {
    let requests = ["a", "b"].map(|id| origin.requests(id).len());
    let visited = async || {
        let now = ["a", "b"].map(|id| origin.requests(id).len());
        (now[0] >= requests[0] + 3 && now[1] >= requests[1] + 3).then_some(())
    };
    wait_for("visits", SOON, visited).await.unwrap();
    let vitals = reach(stack, head).await;
    assert_eq!(vitals["head"], head, "{vitals}");
    vitals
}

fn lines(output: &LogOutput) -> Vec<Value> {
    output.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Changes one byte of the text `what` in the only segment of the log.
fn damage(store: &Path, what: &str) {
    let path = store.join("journal/00000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    let at = memchr::memmem::find(&bytes, what.as_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_running_daemon_is_incremental_and_restores_with_a_new_epoch() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let before = reach(&stack, 10).await;
    let first = log(&stack, &["backup", "copy", "--json"]).assert_exit(0).json();
    assert_eq!(
        (&first["epoch"], &first["head"], &first["copied"]),
        (&before["epoch"], &10.into(), &1.into()),
        "{first}"
    );
    origin.publish("a", "Later");
    reach(&stack, 11).await;
    let second = log(&stack, &["backup", "copy", "--json"]).assert_exit(0).json();
    assert_eq!((&second["head"], &second["damaged_places"]), (&11.into(), &0.into()), "{second}");
    let text = log(&stack, &["backup", "copy"]).assert_exit(0).text();
    assert!(text.contains("events 1 to 11") && text.contains("0 copied"), "nothing is copied again: {text}");
    fs::write(stack.path("copy.tar"), &log(&stack, &["backup", "-"]).assert_exit(0).out).unwrap();
    fs::create_dir(stack.path("unpacked")).unwrap();
    let tar =
        Command::new("tar").args(["-xf", "copy.tar", "-C", "unpacked"]).current_dir(stack.folder()).status();
    assert!(tar.unwrap().success());
    for folder in ["data", "copy", "unpacked"] {
        let verified = log(&stack, &["verify", "--json", "--store", folder]).assert_exit(0).json();
        let found = (&verified["epoch"], &verified["head"], &verified["events"], &verified["damaged_places"]);
        assert_eq!(found, (&before["epoch"], &11.into(), &11.into(), &0.into()), "{folder}: {verified}");
    }
    let refused = log(&stack, &["restore", "copy"]);
    assert!(refused.assert_exit(1).err.contains("is in use by process"), "{}", refused.err);
    log(&stack, &["backup", "data"]).assert_exit(2);

    stop(&mut stack).await;
    let restored = log(&stack, &["restore", "unpacked", "--json"]).assert_exit(0).json();
    assert!(restored["before"].as_str().unwrap().ends_with("/data.before-restore-1"), "{restored}");
    let now = start(&mut stack, 11).await;
    assert_eq!(now["epoch"], restored["epoch"]);
    assert_ne!(now["epoch"], before["epoch"], "clients are answered with reset");
    assert_nothing_comes_again(&origin, &stack, 11).await;
    origin.publish("b", "After the restore");
    reach(&stack, 12).await;
    let another_log = log(&stack, &["backup", "copy"]);
    assert!(another_log.assert_exit(2).err.contains("choose another folder"), "{}", another_log.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_what_the_stream_sends_and_its_import_knows_the_items() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let beside = log(&stack, &["export"]);
    let events = lines(beside.assert_exit(0));
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 10);
    stack.start(Binary::Gateway).unwrap();
    stack.wait_ready().await.unwrap();
    let item = http::fetch(&stack.gateway(), &format!("/news/{}", ids[3]), SOON).await.unwrap();
    assert_eq!(item.1.trim_end(), beside.text().lines().nth(3).unwrap(), "exactly as a client gets it");
    let of_a = lines(log(&stack, &["export", "--source", "a", "--after", &ids[1]]).assert_exit(0));
    assert!(!of_a.is_empty() && of_a.iter().all(|event| event["source"] == "a" && event["id"] != ids[0]));
    log(&stack, &["export", "--after", "other1-3"]).assert_exit(2);
    let stats = log(&stack, &["stats", "--json"]).assert_exit(0).json();
    let counts: BTreeSet<_> =
        stats["sources"].as_array().unwrap().iter().map(|source| source["events"].as_u64()).collect();
    assert_eq!(counts, [Some(5)].into(), "{stats}");
    assert!(log(&stack, &["stats"]).assert_exit(0).text().contains("source  events  bytes\n"));

    stop(&mut stack).await;
    let input = beside.text();
    let bad = log_with(&stack, &["import", "-", "--store", "new"], b"{\"id\": 1}\n");
    assert!(bad.assert_exit(1).err.contains("line 1 of - is no event; nothing was imported"), "{}", bad.err);
    assert!(!stack.path("new").exists());
    let imported = log_with(&stack, &["import", "-", "--store", "new", "--json"], input.as_bytes());
    assert_eq!(imported.assert_exit(0).json()["events"], 10);
    log_with(&stack, &["import", "-", "--store", "new"], input.as_bytes()).assert_exit(2);
    let path = format!("\"{}\"", stack.path("new").display());
    stack.set("store.path", &path);
    let now = start(&mut stack, 10).await;
    assert_ne!(now["epoch"].as_str(), ids[0].split('-').next());
    assert_nothing_comes_again(&origin, &stack, 10).await;
    let guid = origin.publish("a", "New");
    reach(&stack, 11).await;
    origin.edit("a", &guid, "Newer");
    reach(&stack, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_store_is_served_and_records_nothing_until_that_is_decided() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let epoch = reach(&stack, 10).await["epoch"].clone();
    stop(&mut stack).await;
    let copy = || {
        let status = Command::new("cp").args(["-a", "data", "copied"]).current_dir(stack.folder()).status();
        assert!(status.unwrap().success());
    };
    copy();
    let path = format!("\"{}\"", stack.path("copied").display());
    stack.set("store.path", &path);
    let paused = start(&mut stack, 10).await;
    assert_eq!(paused["recording_paused"][0]["reason"], "store-copied", "{paused}");
    let detail = paused["recording_paused"][0]["detail"].as_str().unwrap();
    for remedy in ["`newswire log restore`", "`newswire log restore --same-epoch`"] {
        assert!(detail.contains(remedy), "{detail}");
    }
    let requests = origin.requests("a").len();
    origin.publish("a", "Missed by the copy");
    stack.start(Binary::Gateway).unwrap();
    let page = async || {
        let (status, text) = http::fetch(&stack.gateway(), "/news", SOON).await.ok()?;
        (status == 200 && text.contains("Second 4")).then_some(())
    };
    wait_for("the items of the copy", SOON, page).await.unwrap();
    assert_eq!(origin.requests("a").len(), requests, "no visit begins");
    let told = stack.process(Binary::Ingestd).unwrap().log();
    assert!(told.contains("recording paused") && told.contains("--same-epoch"), "{told}");
    stop(&mut stack).await;

    log(&stack, &["restore", "--same-epoch"]).assert_exit(0);
    let accepted = start(&mut stack, 11).await;
    assert_eq!(accepted["epoch"], epoch);
    assert!(accepted["recording_paused"].as_array().is_none_or(Vec::is_empty), "{accepted}");
    stop(&mut stack).await;
    fs::remove_dir_all(stack.path("copied")).unwrap();
    let status = Command::new("cp").args(["-a", "data", "copied"]).current_dir(stack.folder()).status();
    assert!(status.unwrap().success());
    let renewed = log(&stack, &["restore", "--json"]).assert_exit(0).json();
    assert_ne!(renewed["epoch"], epoch);
    assert_eq!(start(&mut stack, 11).await["epoch"], renewed["epoch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_skipped_by_an_export_and_the_rest_is_salvaged() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let all = lines(&log(&stack, &["export"]));
    stop(&mut stack).await;
    damage(&stack.path("data"), "Second 2");
    let seq = 1 + all.iter().position(|event| event["title"] == "Second 2").unwrap();
    let verified = log(&stack, &["verify"]);
    let named = format!(": the event is damaged: event {seq} of b is lost\n");
    assert!(verified.assert_exit(1).text().contains(&named), "{}", verified.text());
    let place = &log(&stack, &["verify", "--json"]).assert_exit(1).json()["places"][0];
    assert_eq!(
        (&place["kind"], &place["first"], &place["source"]),
        (&"event".into(), &seq.into(), &"b".into())
    );
    let exported = log(&stack, &["export"]);
    assert_eq!(lines(exported.assert_exit(1)).len(), 9);
    assert!(exported.err.contains("9 events were written, and 1 could not be read"), "{}", exported.err);
    // Neither the journal nor sled can be opened now.
    damage(&stack.path("data"), "newswire journal");
    let mut bytes = fs::read(stack.path("data/journal/00000001.segment")).unwrap();
    let records: Vec<_> = memchr::memmem::find_iter(&bytes, b"\xf1NWR").collect();
    records.into_iter().for_each(|at| bytes[at] = 0);
    fs::write(stack.path("data/journal/00000001.segment"), bytes).unwrap();
    assert!(log(&stack, &["export"]).assert_exit(1).err.contains("newswire log salvage"));
    let salvaged = log(&stack, &["salvage", "data"]);
    assert_eq!(lines(&salvaged).len(), 9, "{}", salvaged.err);
    log_with(&stack, &["import", "-", "--store", "new"], &salvaged.out).assert_exit(0);
    log(&stack, &["verify", "--store", "new"]).assert_exit(0);
    for usage in [&["verify", "--store", "missing"][..], &["salvage", "missing"], &["restore"]] {
        let output = log(&stack, usage);
        assert!(matches!(output.code, Some(1 | 2)) && !output.err.is_empty(), "{usage:?}: {}", output.err);
    }
    log(&stack, &["verify", "--store", "missing"]).assert_exit(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_whole_is_restored_only_if_the_loss_is_accepted() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    log(&stack, &["backup", "missing/copy"]).assert_exit(2);
    log(&stack, &["backup", "data/copy"]).assert_exit(2);
    log(&stack, &["backup", "copy"]).assert_exit(0);
    stop(&mut stack).await;
    let verified = log(&stack, &["verify"]);
    assert!(
        verified.assert_exit(0).text().contains("has all events that other files know"),
        "{}",
        verified.text()
    );
    let verified = log(&stack, &["verify", "--store", "copy"]);
    assert!(
        verified.assert_exit(0).text().contains("all is there that the backup has"),
        "{}",
        verified.text()
    );
    // As an archive that was cut off.
    fs::remove_file(stack.path("copy/backup")).unwrap();
    let verified = log(&stack, &["verify", "--store", "copy"]);
    assert!(verified.assert_exit(1).text().contains("neither `identity`"), "{}", verified.text());
    let refused = log(&stack, &["restore", "copy"]);
    assert!(refused.assert_exit(1).err.contains("nothing was restored"), "{}", refused.err);
    assert!(refused.err.contains("--accept-loss") && !stack.path("data.before-restore-1").exists());
    fs::create_dir(stack.path("data.new")).unwrap();
    let accepted = log(&stack, &["restore", "copy", "--accept-loss"]);
    assert!(accepted.assert_exit(0).err.contains("newswire log verify --store copy"), "{}", accepted.err);
    assert!(stack.path("data.new").exists() && stack.path("data.before-restore-1").exists());
    log(&stack, &["restore", "data"]).assert_exit(2);
    // The newest events.
    fs::remove_file(stack.path("data.before-restore-1/journal/00000001.segment")).unwrap();
    log(&stack, &["verify", "--store", "data.before-restore-1"]).assert_exit(1);
    assert_eq!(start(&mut stack, 10).await["head"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_journal_is_refused_unless_the_loss_is_accepted_once() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let before = reach(&stack, 10).await;
    stop(&mut stack).await;
    fs::remove_dir_all(stack.path("data/journal")).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    let daemon = stack.process(Binary::Ingestd).unwrap();
    let (status, _) = daemon.wait_exit(SOON).await.unwrap();
    assert!(!status.success() && daemon.log().contains("--accept-loss"), "{status}: {}", daemon.log());
    let config = stack.path("newswire.toml").display().to_string();
    let arguments = ["--config", &config, "--accept-loss"];
    let mut accepted = ChildProcess::start(Binary::Ingestd, &arguments, stack.folder()).unwrap();
    let now = async || vitals(&stack).await;
    let now = wait_for("the daemon", SOON, now).await.unwrap();
    assert_ne!(now["epoch"], before["epoch"], "{now}");
    accepted.kill();
}
