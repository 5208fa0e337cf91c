//! The promises of the admin socket to an operator.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::{
    ConfigChange, ControlClient, ControlError, ControlRequest, DocumentAnswer, DocumentHead, HealthReport,
    IngestStatus, LogLevel, Problem, ReloadAnswer, WatchReport, paths,
};
use daemon::admin::{Admin, AdminHandle, DocumentSink, ReloadOrder, serve, status_of};
use daemon::logs::Logs;
use daemon::metrics::MetricsRegistry;
use daemon::watch::Watch;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};

/// How long an answer may take; what is stuck in these tests is stuck until they end.
const SOON: Duration = Duration::from_secs(60);

fn start(path: &Path, logs: &Logs, status: impl Fn() -> Value + Send + Sync + 'static) -> AdminHandle {
    let metrics = MetricsRegistry::new();
    metrics.register("newswire_test_visits_total", "Visits", Counter::<u64>::default());
    serve(
        path,
        Admin {
            name: "testd",
            version: "1.2.3",
            metrics,
            watch: Watch::new(),
            status: status_of(status),
            reloads: None,
            documents: None,
        },
        logs,
    )
    .unwrap()
}

/// Status, headers and body of one exchange.
fn ask(path: &Path, method: &str, target: &str, body: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-type: text/plain\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[test]
fn it_serves_health_status_and_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/testd-admin.sock");
    let handle = start(&path, &Logs::detached(), || json!({"sources": 3}));
    let (code, _, body) = ask(&path, "GET", "/health", "");
    assert_eq!(
        (code, &json_of(&body)["name"], &json_of(&body)["version"]),
        (200, &json!("testd"), &json!("1.2.3"))
    );
    let (code, _, body) = ask(&path, "GET", "/status", "");
    assert_eq!((code, json_of(&body)), (200, json!({"sources": 3})));
    let (code, head, body) = ask(&path, "GET", "/metrics", "");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(
        body.contains("\n# TYPE newswire_test_visits_total counter\nnewswire_test_visits_total 0\n"),
        "{body}"
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\naccept: application/openmetrics-text\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("\nnewswire_test_visits_total 0\n") && answer.ends_with("# EOF\n"), "{answer}");
    assert_eq!(ask(&path, "GET", "/nothing", "").0, 404);
    drop(handle);
    assert!(!path.exists(), "a clean end removes the socket");
    let _again = start(&path, &Logs::detached(), || json!({}));
    assert_eq!(ask(&path, "GET", "/health", "").0, 200);
}

#[test]
fn it_answers_while_every_other_runtime_and_the_state_it_reads_are_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let lock = Arc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let locked_by_status = Arc::clone(&lock);
    let handle = start(&path, &Logs::detached(), move || {
        drop(locked_by_status.lock());
        json!({})
    });
    // A runtime whose only thread never returns, like an actor system in an endless parse.
    let (free, until) = sync_channel::<()>(0);
    let stuck = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move { assert!(until.recv().is_err()) });
    });
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || ask(&path, "GET", "/status", ""))
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(ask(&path, "GET", "/health", "").0, 200);
    }
    for client in clients {
        let (code, _, body) = client.join().unwrap();
        assert_eq!((code, &json_of(&body)["code"]), (503, &json!("stuck")));
    }
    assert_eq!(ask(&path, "GET", "/health", "").0, 200);
    drop(held);
    drop(free);
    stuck.join().unwrap();
    drop(handle);
}

#[test]
fn a_panic_while_reading_state_is_an_error_response_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let _handle = start(&path, &Logs::detached(), || panic!("status is broken"));
    for _ in 0..10 {
        assert_eq!(ask(&path, "GET", "/status", "").0, 500);
    }
    assert_eq!(ask(&path, "GET", "/health", "").0, 200);
}

#[test]
fn the_log_level_is_changed_or_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let logs = Logs::detached();
    let _handle = start(&path, &logs, || json!({}));
    assert_eq!(ask(&path, "PUT", "/log-level", "info,ingestd=trace\n").0, 200);
    assert_eq!(logs.level(), "info,ingestd=trace");
    let (code, _, body) = ask(&path, "PUT", "/log-level", "loud");
    assert_eq!((code, &json_of(&body)["code"]), (400, &json!("bad-level")));
    assert!(json_of(&body)["detail"].as_str().unwrap().contains("`loud`"), "{body}");
    assert_eq!(json_of(&ask(&path, "GET", "/log-level", "").2), json!({"level": "info,ingestd=trace"}));
    assert_eq!(ask(&path, "PUT", "/log-level", &"x".repeat(10_000)).0, 413);
}

#[test]
fn a_second_server_at_the_same_socket_is_refused_and_the_first_keeps_running() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let _handle = start(&path, &Logs::detached(), || json!({}));
    let what = Admin {
        name: "b",
        version: "0",
        metrics: MetricsRegistry::new(),
        watch: Watch::new(),
        status: status_of(|| json!({})),
        reloads: None,
        documents: None,
    };
    let error = serve(&path, what, &Logs::detached()).unwrap_err();
    assert_eq!(error.exit().code(), 75);
    assert_eq!(ask(&path, "GET", "/health", "").0, 200);
}

#[test]
fn a_reload_order_is_answered_with_its_result_and_refused_when_too_many_are_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let (reloads, mut orders) = tokio::sync::mpsc::channel::<ReloadOrder>(1);
    let what = Admin {
        name: "testd",
        version: "1",
        metrics: MetricsRegistry::new(),
        watch: Watch::new(),
        status: status_of(|| json!({})),
        reloads: Some(reloads),
        documents: None,
    };
    let _handle = serve(&path, what, &Logs::detached()).unwrap();
    let ask_from = |path: &Path| {
        let path = path.to_path_buf();
        std::thread::spawn(move || ask(&path, "POST", "/reload", ""))
    };
    let change = ConfigChange { key: "a.b".into(), old: "1".into(), new: "2".into(), live: false };
    let expected = json!({"changes": [{"key": "a.b", "old": "1", "new": "2", "live": false}]});
    let asked = ask_from(&path);
    orders
        .blocking_recv()
        .unwrap()
        .send(Ok(ReloadAnswer { changes: vec![change], ..ReloadAnswer::default() }))
        .unwrap();
    let (code, _, body) = asked.join().unwrap();
    assert_eq!((code, json_of(&body)), (200, expected));

    // This order is not taken, so the channel is full for the next one; neither of them blocks anything else.
    let waits = ask_from(&path);
    while orders.is_empty() {
        std::thread::yield_now();
    }
    let (code, _, body) = ask(&path, "POST", "/reload", "");
    assert_eq!((code, &json_of(&body)["code"]), (503, &json!("reload-busy")));
    assert_eq!(ask(&path, "GET", "/health", "").0, 200);
    orders
        .blocking_recv()
        .unwrap()
        .send(Err(Problem::bad_configuration(vec!["f.toml:1: wrong".to_owned()])))
        .unwrap();
    let (code, head, body) = waits.join().unwrap();
    assert!(code == 422 && head.contains("application/problem+json"), "{head}");
    assert_eq!(json_of(&body)["complaints"], json!(["f.toml:1: wrong"]));
    drop(orders);
    assert_eq!(ask(&path, "POST", "/reload", "").0, 503);
}

#[tokio::test]
async fn a_document_of_the_largest_size_is_taken_and_anything_else_refused_with_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let taken = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&taken);
    let take: DocumentSink = Arc::new(move |head, document| match head.source.as_str() {
        "full" => Err(Problem::new(503, "too-many-documents", "no room")),
        _ => {
            sink.lock().unwrap().push((head, document.len()));
            Ok(DocumentAnswer { kept_s: 60 })
        }
    });
    let what = |documents| Admin {
        name: "testd",
        version: "1",
        metrics: MetricsRegistry::new(),
        watch: Watch::new(),
        status: status_of(|| json!({})),
        reloads: None,
        documents,
    };
    let handle = serve(&path, what(Some(take)), &Logs::detached()).unwrap();
    let client = ControlClient::new(&path).deadline(SOON);
    let head = |source: &str| DocumentHead { source: source.to_owned(), ..DocumentHead::default() };
    let offer = async |body| {
        client.request::<DocumentAnswer>(ControlRequest::post_bytes(paths::DOCUMENTS, body)).await
    };
    let largest = vec![b'x'; 32 << 20];
    let answer = offer(head("a").with_document(&largest).unwrap()).await.unwrap();
    assert_eq!((answer.kept_s, taken.lock().unwrap().as_slice()), (60, &[(head("a"), largest.len())][..]));
    let refused = async |body| match offer(body).await.unwrap_err() {
        ControlError::Problem(problem) => problem.code,
        other => other.to_string(),
    };
    assert_eq!(refused(head("full").with_document(b"").unwrap()).await, "too-many-documents");
    assert_eq!(refused(bytes::Bytes::from_static(b"<rss/>\n")).await, "bad-document");
    let too_large = vec![b'x'; 33 << 20];
    assert!(refused(head("a").with_document(&too_large).unwrap()).await.contains("413"));
    drop(handle);
    let _handle = serve(&path, what(None), &Logs::detached()).unwrap();
    assert!(refused(head("a").with_document(b"").unwrap()).await.contains("404"));
}

#[tokio::test]
async fn the_client_of_the_control_plane_reads_every_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("testd-admin.sock");
    let status: IngestStatus = IngestStatus {
        epoch: "k3".to_owned(),
        oldest: 1,
        head: 2,
        panics: 0,
        overdue: 0,
        sources: vec![json!({"id": "bbc"})],
    };
    let shown = status.clone();
    let what = Admin {
        name: "testd",
        version: "1.2.3",
        metrics: MetricsRegistry::new(),
        watch: Watch::new(),
        status: status_of(move || shown.clone()),
        reloads: None,
        documents: None,
    };
    let _handle = serve(&path, what, &Logs::detached()).unwrap();
    let client = ControlClient::new(&path).deadline(SOON);
    let health: HealthReport = client.get(paths::HEALTH).await.unwrap();
    let watch: WatchReport = client.get(paths::WATCH).await.unwrap();
    assert_eq!(health.process, watch.process);
    assert_eq!((health.process.version.as_str(), health.status.as_str()), ("1.2.3", "ok"));
    assert_eq!(health.process.pid, std::process::id().cast_signed());
    assert_eq!(watch.progress.loops[0].name, "admin");
    assert_eq!(watch.vitals, None);
    assert_eq!(client.get::<IngestStatus>(paths::STATUS).await.unwrap(), status);
    assert_eq!(client.get::<LogLevel>(paths::LOG_LEVEL).await.unwrap().level, "info");
    let loud = ControlRequest::put_text(paths::LOG_LEVEL, "loud");
    let error = client.request::<LogLevel>(loud).await.unwrap_err();
    let ControlError::Problem(problem) = error else { panic!("{error}") };
    assert_eq!(
        (problem.status, problem.title.as_str(), problem.code.as_str()),
        (400, "Bad Request", "bad-level")
    );
    let reload = ControlRequest::post(paths::RELOAD);
    let error = client.request::<ReloadAnswer>(reload).await.unwrap_err();
    assert!(matches!(error, ControlError::Status { status: 404, .. }), "{error}");
}
