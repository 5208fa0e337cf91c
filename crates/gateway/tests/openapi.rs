//! `/openapi.json` describes what the gateway does: checked with the real program, without a daemon.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use news::{
    Attempt, Author, Cursor, Enclosure, Epoch, Event, EventKind, FailureClass, FeedUrl, Item, PushState, Seq,
    Source, SourceId, SourceInFull, SourceStatus, Timestamp, VisitReport, VisitStatus,
};
use serde_json::{Value, json};
use wire::{Gap, IgnoredParameter, Resume, StreamOpened};

const DOCUMENT: &str = include_str!("../src/openapi.json");
/// Where routes are written down.
const ROUTES: [&str; 4] = [
    include_str!("../src/http/routes.rs"),
    include_str!("../src/http/routes/refresh.rs"),
    include_str!("../src/http/routes/stream.rs"),
    include_str!("../src/http/routes/websub.rs"),
];
/// The page's own files: not part of the interface.
const NOT_IN_THE_DOCUMENT: &str = "/assets/{name}";
/// How long the program may take for anything.
const SOON: Duration = Duration::from_secs(60);

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// The program in its own folder; killed when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("newswire.toml"), "[gateway]\nlisten = \"127.0.0.1:0\"\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_newswire-gateway"))
            .args(["--config", "newswire.toml"])
            .current_dir(&folder)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut output) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended without being ready: {output}");
            output.push_str(&line);
            if let Some((_, address)) = line.split_once("listen=") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        // A full pipe would block the program.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// Status, head in lower case, body.
    fn ask(&self, method: &str, target: &str, accept: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The description of a response, resolved if it is a reference.
fn response<'d>(document: &'d Value, operation: &'d Value, status: &str) -> &'d Value {
    let described = &operation["responses"][status];
    match described["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => described,
    }
}

#[test]
fn every_route_is_in_the_document_and_every_route_of_the_document_exists() {
    let document = document();
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let written = ROUTES.iter().flat_map(|code| {
        let after = ["read(\"", "resource(\""].into_iter().flat_map(|call| code.split(call).skip(1));
        after.map(|rest| rest.split('"').next().unwrap()).collect::<Vec<_>>()
    });
    let mut written: BTreeSet<_> = written.collect();
    assert!(written.remove(NOT_IN_THE_DOCUMENT));
    assert_eq!(documented, written);
}

#[test]
fn every_answer_has_a_status_and_a_content_type_of_the_document() {
    let gateway = Gateway::start("openapi");
    let document = document();
    let mut statuses = BTreeSet::new();
    let reads = |operations: &&Value| operations.get("get").is_some();
    for (path, operations) in document["paths"].as_object().unwrap().iter().filter(|(_, o)| reads(o)) {
        for target in [path.replace("{id}", "unknown-1"), path.replace("{id}", "%FF?limit=x")] {
            // A stream never ends, so only its head is compared.
            let method = if path == "/news/stream" { "HEAD" } else { "GET" };
            let (status, head, body) = gateway.ask(method, &target, "*/*");
            assert!(!body.contains("no such route"), "{target}: {body}");
            let response = response(&document, &operations["get"], &status);
            assert!(response.is_object(), "{target}: {status} is not in the document: {body}");
            let types = response["content"].as_object().unwrap();
            let known = types.keys().any(|t| head.contains(&format!("\r\ncontent-type: {t}\r\n")));
            assert!(known, "{target}: {head}");
            let problem =
                head.contains("problem+json").then(|| serde_json::from_str::<Value>(&body).unwrap());
            if let Some(code) = problem.as_ref().map(|problem| &problem["code"]) {
                let codes = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
                assert!(codes.as_array().unwrap().contains(code), "{target}: {code}");
            }
            statuses.insert(status);
        }
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), ["200", "400", "404", "503"]);
    let (_, head, _) = gateway.ask("GET", "/", "text/html,*/*;q=0.8");
    assert!(head.contains("\r\ncontent-type: text/html"), "{head}");
    assert_eq!(gateway.ask("GET", "/openapi.json", "*/*").2, DOCUMENT);
}

#[test]
fn other_methods_are_refused_on_every_route() {
    let gateway = Gateway::start("openapi-methods");
    for path in document()["paths"].as_object().unwrap().keys() {
        let allowed = match path.as_str() {
            "/news/refresh" => "post, options",
            "/websub/{id}" => "get, post, options",
            _ => "get, head, options",
        };
        for (method, wanted) in [("DELETE", "405"), ("OPTIONS", "204")] {
            let (status, head, body) = gateway.ask(method, &path.replace("{id}", "a-1"), "*/*");
            assert_eq!(status, wanted, "{method} {path}: {body}");
            assert!(head.contains(&format!("\r\nallow: {allowed}\r\n")), "{method} {path}: {head}");
        }
    }
}

/// Checks that a schema has exactly the fields of a value, all of them required.
fn assert_fields(document: &Value, schema: &str, value: &impl serde::Serialize) {
    let value = serde_json::to_value(value).unwrap();
    let sent: BTreeSet<_> = value.as_object().unwrap().keys().cloned().collect();
    let described = &document["components"]["schemas"][schema];
    let parts = described["allOf"].as_array().cloned().unwrap_or_else(|| vec![described.clone()]);
    let (mut properties, mut required) = (BTreeSet::new(), BTreeSet::new());
    for part in &parts {
        let part = match part["$ref"].as_str() {
            Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
            None => part,
        };
        properties.extend(part["properties"].as_object().unwrap().keys().cloned());
        required.extend(part["required"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()));
    }
    assert_eq!(properties, sent, "{schema}");
    assert_eq!(required, sent, "{schema}");
}

#[test]
fn each_schema_names_the_fields_that_are_sent() {
    let document = document();
    let id = Cursor { epoch: Epoch::try_new("k3v9q2").unwrap(), seq: Seq(412) };
    let source = SourceId::try_new("bbc").unwrap();
    let watched = Source::new(source.clone(), FeedUrl::try_new("https://example.org/").unwrap());
    let event = Event::new(id.clone(), EventKind::Item, &watched, Timestamp::from_millis(0), Item::default());
    assert_fields(&document, "Event", &event);
    assert_fields(&document, "Item", &Item::default());
    assert_fields(&document, "Author", &Author::default());
    assert_fields(&document, "Enclosure", &Enclosure::default());
    let hello = StreamOpened {
        resume: Resume::Live,
        requested: None,
        oldest: None,
        head: Some(id.clone()),
        missed: Some(0),
        server: "test".to_owned(),
        ignored: vec![IgnoredParameter { name: "categroy".to_owned(), did_you_mean: None }],
        unknown: vec!["World".to_owned()],
        older_copy: false,
        newest_seen: None,
        aliases: Vec::new(),
    };
    assert_fields(&document, "IgnoredParameter", &hello.ignored[0]);
    assert_fields(&document, "Hello", &hello);
    assert_fields(&document, "Missed", &Gap { missed: 1, oldest: Some(id) });
    let report = VisitReport {
        source,
        status: VisitStatus::New,
        new: 1,
        updated: 0,
        took_ms: 1,
        next_visit: None,
        why: String::new(),
        error: None,
    };
    assert_fields(&document, "VisitReport", &report);
    assert_fields(&document, "SourceStatus", &status());
    let attempt = Attempt {
        at: Timestamp::from_millis(0),
        status: VisitStatus::New,
        code: None,
        took_ms: 0,
        body_bytes: 0,
        new: 0,
        updated: 0,
        class: None,
    };
    assert_fields(&document, "Attempt", &attempt);
    let in_full = SourceInFull::from(SourceStatus { attempts: vec![attempt], ..status() });
    assert_fields(&document, "SourceInFull", &in_full);
    assert_fields(&document, "Counts", &status().counts);
    assert_fields(&document, "PushStatus", &status().push);
    let quiet = news::Quiet { since: Timestamp::from_millis(0), usually_every_s: 1 };
    assert_fields(&document, "Quiet", &quiet);
}

#[test]
fn each_schema_lists_the_enum_values_that_are_sent() {
    let document = document();
    let words =
        |schema: &str| document.pointer(&format!("/components/schemas/{schema}/enum")).unwrap().clone();
    assert_eq!(words("VisitStatus"), json!(VisitStatus::ALL));
    assert_eq!(words("PushStatus/properties/state"), json!(PushState::ALL));
    assert_eq!(words("FailureClass"), json!(FailureClass::ALL));
    assert_eq!(words("Hello/properties/resume"), json!(Resume::ALL));
    assert_eq!(words("Event/allOf/0/properties/kind"), json!([EventKind::Item, EventKind::Update]));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

fn status() -> SourceStatus {
    let nothing = json!({
        "id": "bbc", "name": "", "url": "", "category": "", "tags": [], "enabled": true, "activity": "idle",
        "consecutive_failures": 0, "why": "", "warnings": [], "restarts": 0, "counts": {},
    });
    serde_json::from_value(nothing).unwrap()
}
