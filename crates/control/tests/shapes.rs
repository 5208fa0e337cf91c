//! What each answer looks like: JSON of running daemons, read into the types and written back unchanged.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt::Debug;

use control::{
    GatewayStatus, HealthReport, IngestHealth, IngestStatus, LogLevel, PauseAnswer, PauseOrder, Problem,
    ProcessIdentity, ProcessVitals, ReloadAnswer, ResumeOrder, TurnAnswer, TurnOrder, VisitAnswer,
    VisitOrder, WatchReport,
    watch::{GatewayVitals, IngestVitals, WatchKind},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Reads `text`, and expects the same members, types and nulls when it is written again.
fn round_trip<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let read: T = serde_json::from_str(text).unwrap();
    let expected: Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), expected);
    read
}

/// What is wrong with `value` as a `T`.
fn complaint<T: DeserializeOwned + Debug>(value: Value) -> String {
    serde_json::from_value::<T>(value).unwrap_err().to_string()
}

const GATEWAY_WATCH: &str = r#"{"clock":{"jumps":0,"last_ms":null,"last_ms_ago":null},"loops":[
    {"beat_ms_ago":36,"kind":"arbiter","lag_ms":1,"lag_ms_max":89,"name":"main","stalled":false,"tid":29508,"work":null},
    {"beat_ms_ago":754,"kind":"pool","lag_ms":0,"lag_ms_max":1,"name":"pool-main","stalled":false,"tid":0,"work":null},
    {"beat_ms_ago":1900,"kind":"worker","lag_ms":2,"lag_ms_max":8,"name":"worker-0","stalled":true,"tid":29518,
     "work":{"what":"GET /news","of":"127.0.0.1:9","since_ms_ago":1900}}],
    "name":"newswire-gateway","pauses":{"count":1,"last_ms":2500,"last_ms_ago":77},"pid":29508,
    "log":{"output":"stderr","queued_bytes":700,"queued_bytes_max":1048576,"dropped":3,"blocked_ms":2100, "untaken_ms": 0,
     "failing":{"error":"No space left on device (os error 28)","lasted_ms":9}},
    "stalls":[{"loop":"worker-0","kind":"worker","tid":29518,"began_ms_ago":1900,"lasted_ms":null,
     "work":{"what":"GET /news","of":"127.0.0.1:9","since_ms_ago":1000},"culprit":"read at a.rs:1"}],"stalls_total":1,
    "threads":[{"tid":7,"name":"blocking-1","work":{"what":"parsing","of":"bbc","since_ms_ago":3}}],
    "watchdog":{"tid":29509,"looked_ms_ago":120,"sampling":false},"observers":[{"name":"vitals","tid":9,"since_ms_ago":501}],
    "listeners":[{"name":"clients","kind":"front","address":"127.0.0.1:18799","answered_ms_ago":1200,"took_ms":1,
     "waiting_ms":null,"missing":false,"error":null}],
    "tasks":[{"name":"replays","waits_for":"a request","idle":true,"since_ms_ago":40,"steps":7,"queued":0,"capacity":64},
     {"name":"wire","waits_for":null,"idle":false,"since_ms_ago":1,"steps":9,"queued":null,"capacity":null}],
    "uptime_ms":27783,"version":"0.1.0","vitals":{"clients":0,"draining":false,"inherited":false,
    "listen":"127.0.0.1:18799","open_files":{"max":20000,"used":43},"ring":{"bytes":94806,"events":88,"filled":true},
    "wire":{"connected":true,"cursor":"e69io1-88","heard_ms_ago":19,"reason":null}}}"#;

const INGEST_WATCH: &str = r#"{"clock":{"jumps":1,"last_ms":-4000,"last_ms_ago":9},"loops":[
    {"beat_ms_ago":0,"kind":"recorder","lag_ms":0,"lag_ms_max":0,"name":"recorder","stalled":false,"tid":3,"work":null},
    {"beat_ms_ago":88,"kind":"admin","lag_ms":1,"lag_ms_max":11,"name":"admin","stalled":false,"tid":4,"work":null},
    {"beat_ms_ago":84,"kind":"wire","lag_ms":1,"lag_ms_max":16,"name":"wire","stalled":false,"tid":5,"work":null}],
    "name":"newswire-ingestd","pauses":{"count":0,"last_ms":null,"last_ms_ago":null},"pid":29506,"stalls":[],
    "stalls_total":0,"threads":[],"uptime_ms":27464,"version":"0.1.0","vitals":{"actors":{"disabled":0,"down":0,
    "fetching":1,"idle":7,"parsing":0,"paused":0,"recording":0,"waiting":0},"busiest":[{"activity":"fetching",
    "since_ms_ago":1981,"source":"silent-herald","waiting_for":null}],"epoch":"e69io1","head":88,"oldest":1,
    "feeds":{"failing":{"dns":2,"http-status":1},"failing_hosts":3,"failing_long":1,"failing_since_success":1,"hanging":0,
    "last_success_ms_ago":413,"never_visited":1,"proxy":null,"resolvers":["10.0.0.2"],"slots":256,"slow":1,"slow_now":1,
    "slowest":{"source":"silent-herald","took_ms":9000},"succeeded":4,"visited":7,"waiting":0,"waiting_for_slot":0,"slot_wait_ms":0,
    "watched":8},"open_files":{"max":20000,"used":39},"outage":false,"overdue":0,"store":{"bytes":58977,"committing_ms":null,
    "free_bytes":68807434240,"last_commit_ms_ago":413,"last_commit_took_ms":2,
    "last_read_failure_ms_ago":null,"path":"/var/lib/newswire","queued":0,
    "disk":{"phase":"sync","since_ms":12},
    "slow_disk":{"count":2,"total_ms":6000,"slowest_ms":3100,"slowest_ms_ago":900}},
    "wire":{"sent":"e69io1-88","subscribers":1}}}"#;

#[test]
fn the_watch_of_the_gateway_reads_and_writes_unchanged() {
    let watch: WatchReport = round_trip(GATEWAY_WATCH);
    let kinds: Vec<_> = watch.progress.loops.iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [WatchKind::Arbiter, WatchKind::Pool, WatchKind::Worker]);
    assert_eq!(watch.process.name, "newswire-gateway");
    assert_eq!(watch.vitals.as_ref().unwrap().open_files().used, 43);
    assert_eq!(watch.vitals.unwrap().gateway().unwrap().ring.unwrap().events, 88);
    round_trip::<WatchReport<GatewayVitals>>(GATEWAY_WATCH);
}

#[test]
fn the_watch_of_the_ingestion_daemon_reads_and_writes_unchanged() {
    let watch: WatchReport = round_trip(INGEST_WATCH);
    let vitals = watch.vitals.unwrap();
    let sources = vitals.ingest().unwrap().sources.as_ref().unwrap();
    assert_eq!((sources.actors["idle"], sources.feeds.as_ref().unwrap().failing_total()), (7, 3));
    round_trip::<WatchReport<IngestVitals>>(INGEST_WATCH);
}

#[test]
fn each_kind_is_the_word_that_is_logged() {
    use WatchKind::{Admin, Arbiter, Front, Pool, Prober, Recorder, Wire, Worker};
    for kind in [Front, Worker, Arbiter, Wire, Recorder, Pool, Admin, Prober] {
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
    }
}

#[test]
fn vitals_are_null_when_late_and_their_parts_are_null_or_absent_when_locked() {
    let mut watch: Value = serde_json::from_str(GATEWAY_WATCH).unwrap();
    (watch["vitals"]["wire"], watch["vitals"]["ring"]) = (Value::Null, Value::Null);
    round_trip::<WatchReport>(&watch.to_string());
    watch["vitals"] = Value::Null;
    assert_eq!(round_trip::<WatchReport>(&watch.to_string()).vitals, None);
    watch.as_object_mut().unwrap().remove("vitals");
    let error = serde_json::from_value::<WatchReport>(watch).unwrap_err().to_string();
    assert!(error.contains("missing field `vitals`"), "{error}");

    let mut watch: Value = serde_json::from_str(INGEST_WATCH).unwrap();
    let vitals = watch["vitals"].as_object_mut().unwrap();
    vitals.retain(|key, _| !["actors", "busiest", "overdue", "feeds"].contains(&key.as_str()));
    let watch: WatchReport = round_trip(&watch.to_string());
    assert_eq!(watch.vitals.unwrap().ingest().unwrap().sources, None);
}

#[test]
fn unknown_fields_are_ignored_and_a_missing_one_is_named() {
    let mut watch: Value = serde_json::from_str(INGEST_WATCH).unwrap();
    watch["new"] = json!({"a": 1});
    watch["vitals"]["new"] = json!(1);
    watch["loops"][0]["new"] = json!(1);
    serde_json::from_value::<WatchReport>(watch.clone()).unwrap();

    for (pointer, field) in [
        ("", "stalls_total"),
        ("/loops/0", "lag_ms_max"),
        ("/vitals", "outage"),
        ("/vitals", "busiest"),
        ("/vitals/store", "queued"),
    ] {
        let mut older = watch.clone();
        older.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
        let said = complaint::<WatchReport>(older);
        assert!(said.contains(&format!("missing field `{field}`")), "{said}");
    }
    let said = complaint::<ProcessVitals>(json!({"listen": "127.0.0.1:1", "inherited": false}));
    assert!(said.contains("missing field `clients`"), "{said}");
    assert!(complaint::<ReloadAnswer>(json!({"changes": [], "added": 1})).contains("missing field `file`"));
}

#[test]
fn a_process_is_identified_by_an_answer_of_any_version() {
    let body = br#"{"name":"newswire-gateway","version":"9.1.0","pid":7,"loops":"somewhere else"}"#;
    let process = ProcessIdentity::from_body(body).unwrap();
    assert_eq!(
        (process.name.as_str(), process.version.as_str(), process.pid),
        ("newswire-gateway", "9.1.0", 7)
    );
    assert_eq!(ProcessIdentity::from_body(b"{}"), None);
}

#[test]
fn health_and_status_read_and_write_unchanged() {
    round_trip::<HealthReport>(
        r#"{"name":"newswire-ingestd","pid":29506,"status":"ok","uptime_ms":27428,"version":"0.1.0"}"#,
    );
    round_trip::<IngestHealth>(
        r#"{"epoch":"e69io1","head":88,"name":"newswire-ingestd","oldest":1,"status":"ok","version":"0.1.0"}"#,
    );
    round_trip::<GatewayStatus>(
        r#"{"clients":0,"draining":false,"panics":0,"ring":{"bytes":94806,"events":88,"filled":true},
            "wire":{"connected":true,"heard_ms_ago":125,"reason":"cannot reach the socket"}}"#,
    );
    let status: IngestStatus = round_trip(
        r#"{"epoch":"e69io1","head":88,"oldest":1,"overdue":0,"panics":0,"sources":[{"id":"alpine-post"}]}"#,
    );
    assert_eq!(status.sources[0]["id"], "alpine-post");
}

#[test]
fn a_reload_of_either_daemon_reads_and_writes_unchanged() {
    let gateway: ReloadAnswer = round_trip(r#"{"changes":[{"key":"a.b","old":"1","new":"2","live":false}]}"#);
    assert!(gateway.catalogue.is_none() && !gateway.changes[0].live);
    let ingestd: ReloadAnswer = round_trip(
        r#"{"file":"/etc/newswire/sources.toml","added":1,"changed":2,"removed":3,"unchanged":8,"changes":[]}"#,
    );
    assert_eq!(ingestd.catalogue.unwrap().unchanged, 8);
}

#[test]
fn orders_and_their_answers_read_and_write_unchanged() {
    round_trip::<VisitOrder>(r#"{"sources":["alpine-post","nope"]}"#);
    assert_eq!(round_trip::<VisitOrder>("{}").sources, None);
    round_trip::<VisitAnswer>(
        r#"{"accepted":["alpine-post"],"busy":[],"disabled":[],"paused":[],"unknown":["nope"]}"#,
    );
    round_trip::<PauseOrder>(r#"{"sources":["a"],"for_s":100,"reason":"r"}"#);
    round_trip::<PauseOrder>(r#"{"sources":["a"],"until":"2020-01-01T00:00:00Z"}"#);
    round_trip::<PauseOrder>(r#"{"sources":["a"],"coming":true}"#);
    let nulls = json!({"sources": ["a"], "for_s": null, "until": null, "reason": null});
    assert_eq!(serde_json::from_value::<PauseOrder>(nulls).unwrap().for_s, None);
    round_trip::<ResumeOrder>(r#"{"sources":["a"]}"#);
    round_trip::<ResumeOrder>(r#"{"sources":[],"select":{"categories":["world"]}}"#);
    round_trip::<VisitOrder>(r#"{"select":{},"full":true}"#);
    round_trip::<VisitOrder>(r#"{"select":{"failing":true,"categories":["world","sport"]}}"#);
    round_trip::<VisitAnswer>(
        r#"{"accepted":[],"unknown":[],"disabled":[],"busy":[],"paused":[],"unknown_categories":["x"]}"#,
    );
    round_trip::<PauseAnswer>(r#"{"disabled":[],"done":["alpine-post"],"idle":[],"unknown":["nope"]}"#);
    round_trip::<TurnOrder>(r#"{"url":"https://example.org"}"#);
    round_trip::<TurnAnswer>(r#"{"held":"example.org asked for a pause","wait_s":300}"#);
    round_trip::<LogLevel>(r#"{"level":"info"}"#);
}

#[test]
fn an_order_with_a_misspelt_field_is_refused() {
    assert!(complaint::<VisitOrder>(json!({"sourcess": ["a"]})).contains("unknown field `sourcess`"));
    assert!(complaint::<PauseOrder>(json!({"sources": ["a"], "for": 1})).contains("unknown field `for`"));
    assert!(complaint::<ResumeOrder>(json!({"sources": ["a"], "all": true})).contains("unknown field `all`"));
}

#[test]
fn a_problem_has_the_phrase_of_its_status_as_title_and_lists_complaints_only_if_there_are_any() {
    let level: Problem = round_trip(
        r#"{"code":"bad-level","detail":"`lots` is not a level","status":400,"title":"Bad Request",
            "type":"about:blank"}"#,
    );
    assert_eq!(level, Problem::new(400, "bad-level", "`lots` is not a level"));
    assert_eq!(level.to_string(), "`lots` is not a level");
    let refused = Problem::bad_configuration(vec!["f.toml:1: wrong".to_owned()]);
    let json = serde_json::to_value(&refused).unwrap();
    assert_eq!((&json["status"], &json["code"]), (&json!(422), &json!("bad-configuration")));
    assert_eq!(
        (&json["title"], &json["complaints"]),
        (&json!("Unprocessable Entity"), &json!(["f.toml:1: wrong"]))
    );
    let older: Problem =
        serde_json::from_value(json!({"status": 404, "code": "x", "title": "no route"})).unwrap();
    assert_eq!(older.to_string(), "no route");
}
