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

use e2e::{
    Binary, ChildProcess, DocumentFormat, Origin, TestSource, TestStack, TestSubscriber, http, wait_for,
};
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
    newswire(stack, &[&["log"], arguments].concat(), input)
}

/// Runs `newswire` with this standard input.
fn newswire(stack: &TestStack, arguments: &[&str], input: &[u8]) -> LogOutput {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
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

/// What the daemon says about its pause for this reason.
async fn vitals_paused_by(stack: &TestStack, reason: &str) -> Option<String> {
    let vitals = vitals(stack).await?;
    let mut pauses = vitals["recording_paused"].as_array()?.iter();
    pauses.find(|pause| pause["reason"] == reason)?["detail"].as_str().map(str::to_owned)
}

/// Waits until `/ready` says that the log is an older copy, without this event, and that nothing is recorded.
async fn gateway_says_behind(stack: &TestStack, newest: &str) {
    let says = wait_for("the gateway to say that the log is behind", SOON, async || {
        let (status, ready) = http::fetch(&stack.gateway(), "/ready", SOON).await.ok()?;
        let is_said =
            ready.contains(&format!("older copy, without {newest}")) && ready.contains("\"log-behind\"");
        (status == 503 && is_said).then_some(())
    });
    says.await.unwrap();
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
    assert!(
        bad.assert_exit(1).err.contains("line 1 of standard input: it is JSON, but no event ("),
        "{}",
        bad.err
    );
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
async fn a_log_behind_its_gateway_records_nothing_until_that_is_decided_and_a_mistyped_id_is_no_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    let epoch = reach(&stack, 10).await["epoch"].as_str().unwrap().to_owned();
    stack.start(Binary::Gateway).unwrap();
    stack.wait_ready().await.unwrap();
    let person = TestSubscriber::start(stack.wire(), &format!("/wire?after={epoch}-{}", u64::MAX));
    let opened = person.wait_event("stream", SOON, |_| true).await.unwrap();
    assert_eq!(opened.json()["resume"], "reset");
    origin.publish("a", "Eleventh");
    let vitals = reach(&stack, 11).await;
    assert!(vitals["recording_paused"].is_null(), "it records on: {vitals}");
    drop(person);

    log(&stack, &["backup", "older"]).assert_exit(0);
    origin.publish("a", "Twelfth");
    let client = stack.subscribe(&format!("/news/stream?after={epoch}-10"));
    let newest = format!("{epoch}-12");
    client.wait_event("item", SOON, |event| event.message.last_event_id == newest).await.unwrap();
    stop(&mut stack).await;
    // The operator is wrong about who was ahead.
    log(&stack, &["restore", "older", "--same-epoch"]).assert_exit(0);
    stack.start(Binary::Ingestd).unwrap();
    let behind = async || vitals_paused_by(&stack, "log-behind").await;
    let detail = wait_for("the pause", SOON, behind).await.unwrap();
    assert!(detail.contains(&newest) && detail.contains("`newswire log restore FOLDER`"), "{detail}");
    gateway_says_behind(&stack, &newest).await;
    // A restart of the gateway decides nothing: a client may bring any id that the one before has sent.
    stack.terminate(Binary::Gateway, SOON).await.unwrap();
    stack.start(Binary::Gateway).unwrap();
    gateway_says_behind(&stack, &newest).await;
    let resumed = stack.subscribe(&format!("/news/stream?after={epoch}-11"));
    let opened = resumed.wait_event("stream", SOON, |_| true).await.unwrap();
    assert_eq!(opened.json()["resume"], "reset");
    drop(resumed);
    let refused = newswire(&stack, &["sources", "pause", "a"], b"");
    let told = &refused.assert_exit(1).err;
    assert!(told.contains("no order can be recorded") && told.contains(&newest), "at once, and why: {told}");
    stop(&mut stack).await;

    let decided = log(&stack, &["restore", "--json"]).assert_exit(0).json();
    let vitals = start(&mut stack, 12).await;
    assert_eq!((&vitals["epoch"], &vitals["recording_paused"]), (&decided["epoch"], &Value::Null));
    stack.wait_ready().await.unwrap();
    let of_new_epoch = format!("{}-12", decided["epoch"].as_str().unwrap());
    client.wait_event("item", SOON, |event| event.message.last_event_id == of_new_epoch).await.unwrap();
    let told: Vec<_> = client.events("stream").iter().map(|event| event.json()["resume"].clone()).collect();
    assert!(told[0] == "exact" && told.len() > 1, "{told:?}");
    assert!(told[1..].iter().all(|resume| resume == "reset"), "{told:?}");
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
    assert!(exported.err.contains("1 event could not be read, and 9 were written"), "{}", exported.err);
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
    // What was exported before is not lost with a command that cannot read anything.
    fs::write(stack.path("before.ndjson"), "an event\n").unwrap();
    log(&stack, &["export", "before.ndjson", "--store", "missing"]).assert_exit(2);
    log(&stack, &["salvage", "missing", "before.ndjson"]);
    assert_eq!(fs::read_to_string(stack.path("before.ndjson")).unwrap(), "an event\n");
    let nowhere = log(&stack, &["export", "missing/x.ndjson", "--store", "new"]);
    assert!(nowhere.assert_exit(1).err.contains("write missing/x.ndjson: "), "{}", nowhere.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_export_keeps_what_it_had_if_the_command_fails_and_what_is_asked_in_vain_is_told() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    stop(&mut stack).await;
    fs::create_dir(stack.path("empty")).unwrap();
    let id = lines(&log(&stack, &["export"]))[0]["id"].as_str().unwrap().to_owned();
    let above = format!("{}-99999", id.split('-').next().unwrap());
    fs::write(stack.path("kept.ndjson"), "precious\n").unwrap();
    for (failing, code, told) in [
        (&["export", "kept.ndjson", "--store", "missing"][..], 2, "there is no store in missing"),
        (&["export", "kept.ndjson", "--after", "zzzzzz-1"], 2, "the id is of the epoch zzzzzz"),
        (&["export", "kept.ndjson", "--after", &above], 2, "the log ends at "),
        (&["export", "kept.ndjson", "--source", "nosuch"], 2, "the log has no event of the source nosuch; "),
        (&["salvage", "missing", "kept.ndjson"], 2, "missing is neither a folder nor a file"),
        (&["salvage", "empty", "kept.ndjson"], 1, "found no event in 0 files; nothing was written"),
        (&["export", "missing/x"], 1, "cannot write missing/x: No such file or directory"),
        (
            &["export", "/dev/full"],
            1,
            "cannot write /dev/full: No space left on device (os error 28); free some",
        ),
    ] {
        let output = log(&stack, failing);
        assert!(output.assert_exit(code).err.contains(told), "{failing:?}: {}", output.err);
        assert_eq!(fs::read_to_string(stack.path("kept.ndjson")).unwrap(), "precious\n", "{failing:?}");
    }
    log(&stack, &["export", "kept.ndjson"]).assert_exit(0);
    let exported = log(&stack, &["export"]).text();
    assert_eq!(fs::read_to_string(stack.path("kept.ndjson")).unwrap(), exported);
    // Not a file of its own beside it, and nothing left of one.
    assert_eq!(log(&stack, &["export", "/dev/stdout"]).assert_exit(0).text(), exported);
    let partial = fs::read_dir(stack.folder())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".partial"));
    assert_eq!(partial.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_refuses_what_it_cannot_make_a_log_of_names_the_line_and_takes_nothing_twice() {
    let origin = Origin::start().await.unwrap();
    let mut stack = recorded(&origin).await;
    stop(&mut stack).await;
    let exported = log(&stack, &["export"]).text();
    let first = exported.lines().next().unwrap();
    let large =
        first.replacen("First 0", &"x".repeat(5 << 20), 1).replacen("Second 0", &"x".repeat(5 << 20), 1);
    let huge = format!("{{\"id\":\"{}\"}}", "x".repeat(40 << 20));
    let edited = first.replacen("\"title\":\"", "\"title\":\"Edited: ", 1);
    let cut = &first[..100];
    for (input, told) in [
        (
            String::new(),
            "standard input has no event, and nothing was imported; if a command writes it, see why",
        ),
        ("\n \n".to_owned(), "standard input has no event"),
        (format!("\n{large}\n"), "line 2 of standard input: the JSON of the event has 52"),
        (huge.clone(), &format!("line 1 of standard input: the JSON of the event has {} bytes", huge.len())),
        (format!("{exported}{edited}\n"), "line 11 of standard input: another event with the id "),
        (format!("{exported}{edited}\n"), "is in line 1, and it is not the same; "),
        (
            format!("{first}\n\n{cut}\n"),
            "line 3 of standard input: it ends in the middle of an event, after 100 bytes; ",
        ),
        ("[]".to_owned(), "line 1 of standard input: it is JSON, but no object; "),
    ] {
        let output = log_with(&stack, &["import", "-", "--store", "new"], input.as_bytes());
        assert!(output.assert_exit(1).err.contains(told), "{told}: {}", output.err);
        assert!(output.err.contains("nothing was imported"), "{}", output.err);
        assert!(!stack.path("new").exists(), "{told}");
    }
    let twice = log_with(&stack, &["import", "-", "--store", "new"], exported.repeat(2).as_bytes());
    let told = twice.assert_exit(0).text();
    assert!(told.contains("imported 10 events into new, and left out 10 that came again; "), "{told}");
    assert_eq!(lines(&log(&stack, &["export", "--store", "new"])).len(), 10);
    let one = log_with(&stack, &["import", "-", "--store", "one"], first.as_bytes());
    assert!(one.assert_exit(0).text().contains("imported 1 event into one; "), "{}", one.text());
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
