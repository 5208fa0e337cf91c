//! Read tokens over real sockets, on every route and every other way by which an event is sent.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/issuer.rs"]
mod issuer;
#[path = "support/program.rs"]
mod program;

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use daemon::config::Config;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, timeout},
};

use harness::{Client, Endpoint, FakeDaemon, Gateway, Serving, TIMEOUT};
use issuer::Issuer;
use program::Program;

/// Opens sport.
const DESK: &str = "desk-token-0123456789";
/// Opens everything.
const CHIEF: &str = "chief-token-0123456789";
/// Has expired.
const OLD: &str = "old-token-0123456789";
/// Every route whose answer depends on the reader.
const GUARDED: [&str; 6] =
    ["/news/stream", "/news", "/news/e-1", "/sources", "/sources/sport", "/categories"];

/// The token `desk` is listed by its hash, `chief` in clear text.
const TOKENS: &str = "[[token]]\nname = \"desk\"\ncategories = [\"sport\"]\n\
    sha256 = \"97dc0bf485e81afcd6662c45cfb47f780f603b1d330249e23a6073f76d95543f\"\n\
    [[token]]\nname = \"chief\"\ncategories = \"all\"\ntoken = \"chief-token-0123456789\"\n\
    [[token]]\nname = \"old\"\ncategories = \"all\"\ntoken = \"old-token-0123456789\"\n\
    expires = 2020-01-01T00:00:00Z\n";

fn write_tokens(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("tokens.toml");
    std::fs::write(&file, TOKENS).unwrap();
    file
}

fn with_tokens(config: &mut Config) {
    config.gateway.read_tokens_file = Some(write_tokens(&config.daemon.run_dir));
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// Events of sport, finance and culture in turn, and a source of each.
async fn gateway_with_config(
    events: usize,
    change: impl FnOnce(&mut Config),
) -> (Gateway, FakeDaemon, Serving) {
    let gateway = Gateway::start(change).await;
    let daemon = FakeDaemon::new("e");
    for n in 0..events {
        daemon.publish_in(["sport", "finance", "culture"][n % 3]);
    }
    let sources = ["sport", "finance", "culture"].map(|category| FakeDaemon::health(category, category));
    daemon.sources.lock().unwrap().extend(sources);
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let listed = async {
        while !gateway.ask("GET", "/sources", &bearer(CHIEF)).await.contains("culture") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, listed).await.unwrap();
    (gateway, daemon, serving)
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split_once("\r\n\r\n").unwrap().0;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The ids of every third event.
fn every_third(first: u64, last: u64) -> Vec<String> {
    (first..=last).step_by(3).map(|n| format!("e-{n}")).collect()
}

/// Reads blocks up to one that is only an id: by then everything before it was sent.
async fn until_heartbeat(client: &mut Client) -> (Vec<Vec<String>>, String) {
    let mut blocks = Vec::new();
    loop {
        let block = client.block().await.expect("the stream goes on");
        match block.as_slice() {
            [id] if id.starts_with("id: ") => return (blocks, id["id: ".len()..].to_owned()),
            _ => blocks.push(block),
        }
    }
}

fn now_s() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a token is of the time of day")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_configuration_every_client_reads_everything_and_a_token_changes_nothing() {
    let gateway = Gateway::start(|_| ()).await;
    let daemon = FakeDaemon::new("e");
    ["sport", "finance"].iter().for_each(|category| daemon.publish_in(category));
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    for headers in ["", &bearer("unknown-token-abcdef-1"), "cookie: newswire_read=x\r\n"] {
        let mut client = gateway.stream("", headers).await;
        assert_eq!(client.ids(2).await, ["e-1", "e-2"]);
        let page = gateway.ask("GET", "/news", headers).await;
        assert_eq!((header(&page, "cache-control"), header(&page, "vary")), (Some("no-cache"), None));
        assert_eq!(header(&page, "etag"), Some("W/\"e-1-2\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_the_categories_of_its_reader_and_its_cursor_passes_the_others() {
    let (gateway, daemon, _serving) = gateway_with_config(6, with_tokens).await;
    let mut desk = gateway.stream("", &bearer(DESK)).await;
    let mut chief = gateway.stream("", &bearer(CHIEF)).await;
    assert_eq!(desk.ids(2).await, ["e-1", "e-4"]);
    assert_eq!(chief.ids(6).await.len(), 6);
    daemon.visited_in("finance", "finance");
    daemon.publish_in("finance");
    daemon.visited_in("sport", "sport");
    daemon.publish_in("sport");
    let (mut blocks, mut cursor) = until_heartbeat(&mut desk).await;
    while cursor != "e-8" {
        let (more, cursor_after) = until_heartbeat(&mut desk).await;
        blocks.extend(more);
        cursor = cursor_after;
    }
    let output = format!("{blocks:?}");
    assert!(output.contains("id: e-8") && output.contains("\\\"source\\\":\\\"sport\\\""), "{output}");
    assert!(!output.contains("finance") && !output.contains("e-7"), "{output}");
    assert_eq!(chief.ids(2).await, ["e-7", "e-8"]);
    // What it requests beyond its categories behaves as if it did not exist.
    for query in ["?category=finance", "?source=culture", "?q=story&category=finance&category=culture"] {
        let mut curious = gateway.stream(query, &bearer(DESK)).await;
        let (blocks, cursor) = until_heartbeat(&mut curious).await;
        let names: Vec<_> = blocks.iter().flatten().filter_map(|f| f.strip_prefix("event: ")).collect();
        assert_eq!(names, ["stream", "live"], "{query}: {blocks:?}");
        assert_eq!(cursor, "e-8", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_through_a_replay_from_memory_or_from_the_log() {
    let small = |config: &mut Config| {
        config.gateway.ring_events = 10;
        with_tokens(config);
    };
    let (gateway, daemon, _serving) = gateway_with_config(300, small).await;
    let desk = bearer(DESK);
    for (query, id, first) in [
        ("?after=e-5", "", 7),
        ("?last_event_id=e-0", "", 1),
        ("", "last-event-id: e-100\r\n", 103),
        ("?after=e-294", "", 295),
        ("?since=1970-01-01T00:02:30Z", "", 151),
        ("?since=1970-01-01T00:04:55Z", "", 295),
    ] {
        let mut client = gateway.stream(query, &format!("{id}{desk}")).await;
        let expected = every_third(first, 300);
        assert_eq!(client.ids(expected.len()).await, expected, "{query} {id}");
    }
    // The same as JSON lines, to the end.
    let request = format!(
        "GET /news/stream?after=e-5 HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n{desk}\r\n"
    );
    let mut lines = Client { stream: gateway.send(&request).await };
    daemon.publish_in("sport");
    let mut output = String::new();
    while !output.contains("\"heartbeat\",\"id\":\"e-301\"") {
        output.push_str(&lines.line().await.unwrap());
    }
    assert_eq!(output.matches("\"event\":\"item\"").count(), every_third(7, 301).len());
    assert!(!output.contains("finance") && !output.contains("culture"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_items_sources_and_categories_show_what_the_reader_may_see() {
    let (gateway, _daemon, _serving) = gateway_with_config(9, with_tokens).await;
    let desk = bearer(DESK);
    let ask = async |path: &str| gateway.ask("GET", path, &desk).await;
    let ids = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&body(&ask("/news").await)), ["e-7", "e-4", "e-1"]);
    assert_eq!(ids(&body(&ask("/news?category=finance").await)), [""; 0]);
    assert_eq!(ids(&body(&ask("/news?q=story&since=1970-01-01T00:00:02Z").await)), ["e-7", "e-4"]);
    // Whether there is a next page reveals nothing about what it may not see.
    let page = body(&ask("/news?limit=2").await);
    assert_eq!(
        (ids(&page), &page["next"]),
        (vec!["e-7".to_owned(), "e-4".into()], &json!("/news?limit=2&before=e-4"))
    );
    let last = body(&ask("/news?limit=2&before=e-4").await);
    assert_eq!((ids(&last), &last["next"]), (vec!["e-1".to_owned()], &Value::Null));
    assert_eq!(status(&ask("/news/e-4").await), 200);
    let unlike = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let (hidden, never) = (ask("/news/e-5").await, ask("/news/e-99").await);
    assert_eq!((status(&hidden), unlike(&hidden)), (404, unlike(&never)), "as if it did not exist");
    assert_eq!(status(&gateway.ask("GET", "/news/e-5", &bearer(CHIEF)).await), 200);
    let sources = body(&ask("/sources").await);
    let listed: Vec<_> = sources["sources"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(listed, ["sport"]);
    assert_eq!(status(&ask("/sources/sport").await), 200);
    let (hidden, never) = (ask("/sources/finance").await, ask("/sources/unknown").await);
    assert_eq!((status(&hidden), unlike(&hidden)), (404, unlike(&never)));
    assert_eq!(body(&ask("/categories").await)["categories"], json!([{"category": "sport", "sources": 1}]));
    for path in GUARDED.into_iter().filter(|path| *path != "/news/stream") {
        let answer = ask(path).await;
        assert!(answer.contains("vary: Authorization, Cookie\r\n"), "{path}: {answer}");
        assert!(header(&answer, "cache-control").unwrap().starts_with("private"), "{path}: {answer}");
    }
    let head = gateway.ask("HEAD", "/news/stream", &desk).await;
    assert_eq!(header(&head, "cache-control"), Some("private, no-cache, no-transform"));
    assert!(head.contains("vary: Authorization, Cookie\r\n") && head.contains("vary: Accept\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_is_valid_for_readers_that_see_the_same() {
    let change = |config: &mut Config| {
        with_tokens(config);
        config.gateway.public_categories = vec!["culture".to_owned()];
    };
    let (gateway, _daemon, _serving) = gateway_with_config(3, change).await;
    let readers = [bearer(DESK), bearer(CHIEF), String::new()];
    let mut etags = Vec::new();
    for reader in &readers {
        let page = gateway.ask("GET", "/news", reader).await;
        etags.push(header(&page, "etag").unwrap().to_owned());
    }
    for (n, reader) in readers.iter().enumerate() {
        for (m, etag) in etags.iter().enumerate() {
            let answer = gateway.ask("GET", "/news", &format!("{reader}if-none-match: {etag}\r\n")).await;
            assert_eq!(status(&answer), if n == m { 304 } else { 200 }, "{n} {m}");
            assert!(header(&answer, "cache-control").unwrap().starts_with("private"), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_every_route_says_why_and_repeats_nothing() {
    let issuer = Issuer::new();
    let jwks = json!({"keys": [issuer.p256_jwk("k1")]}).to_string();
    let change = |config: &mut Config| {
        with_tokens(config);
        let file = config.daemon.run_dir.join("jwks.json");
        std::fs::write(&file, jwks).unwrap();
        config.gateway.jwks_file = Some(file);
        config.gateway.jwt_audience = Some("newswire".to_owned());
        config.gateway.jwt_issuer = Some("issuer".to_owned());
    };
    let (gateway, _daemon, _serving) = gateway_with_config(3, change).await;
    let now = now_s();
    let jwt = |name: &str, value: Value| {
        let mut claims =
            json!({"iss": "issuer", "aud": "newswire", "exp": now + 600, "newswire.categories": ["sport"]});
        claims[name] = value;
        issuer.sign(&json!({"alg": "ES256", "kid": "k1"}), &claims)
    };
    let mut requests = vec![
        (String::new(), "token-required"),
        ("authorization: Basic dXNlcjpwYXNz\r\n".to_owned(), "token-required"),
        (bearer(OLD), "token-expired"),
        (bearer(DESK).repeat(2), "token-invalid"),
        (bearer("unknown-token-abcdef-1"), "token-unknown"),
        (bearer("unknown.token-abcdef-1"), "token-unknown"),
        (bearer("unknown.token.abcdef.1"), "token-unknown"),
        (bearer("unknown.token/abcdef.1"), "token-unknown"),
        (bearer("unknown.token.abcdef-1"), "token-invalid"),
        (bearer(&"x".repeat(5000)), "token-invalid"),
        (bearer(""), "token-unknown"),
        (bearer(&jwt("exp", json!(now - 61))), "token-expired"),
        (bearer(&jwt("nbf", json!(now + 120))), "token-not-yet-valid"),
        (bearer(&jwt("aud", json!("another"))), "token-wrong-audience"),
        (bearer(&jwt("iss", json!("another"))), "token-wrong-issuer"),
        (bearer(&jwt("newswire.categories", json!([]))), "token-without-categories"),
        ("cookie: newswire_read=unknown-token-abcdef-1\r\n".to_owned(), "token-unknown"),
        // A valid cookie does not replace an invalid header.
        (format!("{}cookie: newswire_read={CHIEF}\r\n", bearer(OLD)), "token-expired"),
    ];
    let foreign = issuer.sign(&json!({"alg": "ES256", "kid": "k2"}), &json!({"exp": now + 600}));
    requests.push((bearer(&foreign), "token-unknown"));
    for (headers, code) in &requests {
        for path in GUARDED {
            let answer = gateway.ask("GET", path, headers).await;
            assert_eq!(
                (status(&answer), header(&answer, "www-authenticate")),
                (401, Some("Bearer")),
                "{answer}"
            );
            assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
            assert_eq!(header(&answer, "cache-control"), Some("no-store"));
            assert!(answer.contains("vary: Authorization, Cookie\r\n"), "{answer}");
            let problem = body(&answer);
            assert_eq!(problem["code"], *code, "{path} {headers:.200}: {problem}");
            let token = headers.split([' ', '=', '\r']).find(|t| t.len() >= 16).unwrap_or("(none)");
            assert!(!answer.contains(token), "{answer}");
            let head = gateway.ask("HEAD", path, headers).await;
            assert_eq!(status(&head), 401, "{head}");
        }
    }
    let good = gateway.ask("GET", "/categories", &bearer(&jwt("x", json!(1)))).await;
    assert_eq!(body(&good)["categories"], json!([{"category": "sport", "sources": 1}]));
    let ed = gateway.number("newswire_gateway_readers_refused_total{reason=\"audience\"}").await;
    assert_eq!(ed, 2 * GUARDED.len() as u64, "counted by reason");
    assert_eq!(gateway.number("newswire_gateway_readers_granted_total{by=\"jwt\"}").await, 1);
    assert_eq!(gateway.clients().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_without_news_need_no_token() {
    let (gateway, _daemon, _serving) = gateway_with_config(1, with_tokens).await;
    for path in ["/", "/assets/app.js", "/health", "/ready", "/openapi.json", "/metrics"] {
        for headers in ["", &bearer("unknown-token-abcdef-1")] {
            let answer = gateway.ask("GET", path, headers).await;
            assert_eq!(status(&answer), 200, "{answer}");
            assert!(!answer.contains("Authorization, Cookie\r\n"), "{path}");
        }
    }
    assert_eq!(status(&gateway.ask("GET", "/nowhere", "").await), 404);
    assert_eq!(status(&gateway.ask("DELETE", "/news", "").await), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sends_its_token_as_a_cookie() {
    let (gateway, _daemon, _serving) = gateway_with_config(3, with_tokens).await;
    let cookie = format!("cookie: theme=dark; newswire_read={DESK}; other=1\r\n");
    let mut client = gateway.stream("", &cookie).await;
    assert_eq!(client.ids(1).await, ["e-1"]);
    let sources = gateway.ask("GET", "/sources", &cookie).await;
    assert!(sources.contains("sport") && !sources.contains("finance"), "{sources}");
    assert_eq!(header(&sources, "set-cookie"), None, "we never set it");
    let two = format!("cookie: newswire_read={DESK}\r\ncookie: newswire_read={CHIEF}\r\n");
    assert_eq!(body(&gateway.ask("GET", "/news", &two).await)["code"], "token-invalid");
    // A header takes precedence over it.
    let both = format!("{cookie}{}", bearer(CHIEF));
    assert!(gateway.ask("GET", "/sources", &both).await.contains("finance"));
    for query in ["token", "access_token", "newswire_read"] {
        let answer = gateway.ask("GET", &format!("/news/stream?{query}={DESK}"), &cookie).await;
        assert_eq!((status(&answer), body(&answer)["code"].clone()), (400, json!("token-in-query")));
        assert!(!answer.contains(DESK), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn public_categories_need_no_token_and_every_token_includes_them() {
    let change = |config: &mut Config| {
        with_tokens(config);
        config.gateway.public_categories = vec!["culture".to_owned()];
    };
    let (gateway, _daemon, _serving) = gateway_with_config(6, change).await;
    let mut anonymous = gateway.stream("", "").await;
    assert_eq!(anonymous.ids(2).await, ["e-3", "e-6"]);
    let mut desk = gateway.stream("", &bearer(DESK)).await;
    assert_eq!(desk.ids(4).await, ["e-1", "e-3", "e-4", "e-6"]);
    assert_eq!(status(&gateway.ask("GET", "/news/e-3", "").await), 200);
    assert_eq!(status(&gateway.ask("GET", "/news/e-1", "").await), 404);
    // An invalid token is refused: its reader must not silently get fewer items.
    for path in GUARDED {
        assert_eq!(status(&gateway.ask("GET", path, &bearer(OLD)).await), 401, "{path}");
    }
    assert!(gateway.number("newswire_gateway_readers_granted_total{by=\"public\"}").await >= 3);
}

/// A file that a key of the configuration names.
fn written(folder: &Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn categories_of_tokens_and_public_ones_match_in_upper_and_lower_case_on_every_route() {
    let issuer = Issuer::new();
    let jwks = json!({"keys": [issuer.ed25519_jwk("k1")]}).to_string();
    let change = |config: &mut Config| {
        let file = |name: &str, text: &str| written(&config.daemon.run_dir, name, text);
        config.gateway.jwks_file = file("jwks.json", &jwks);
        config.gateway.read_tokens_file =
            file("tokens.toml", &TOKENS.replace("categories = [\"sport\"]", "categories = [\"Sport\"]"));
        config.gateway.public_categories = vec!["CULTURE".to_owned()];
    };
    let (gateway, _daemon, _serving) = gateway_with_config(6, change).await;
    let claims = json!({"exp": now_s() + 600, "newswire.categories": ["SPORT"]});
    let jwt = issuer.sign(&json!({"alg": "EdDSA", "kid": "k1"}), &claims);
    assert_eq!(gateway.stream("", "").await.ids(2).await, ["e-3", "e-6"]);
    for token in [DESK, &jwt] {
        for query in ["", "?category=SPORT&category=culture"] {
            let mut client = gateway.stream(query, &bearer(token)).await;
            assert_eq!(client.ids(4).await, ["e-1", "e-3", "e-4", "e-6"], "{query}");
        }
        for (path, expected) in [("/news/e-1", 200), ("/news/e-2", 404), ("/sources/sport", 200)] {
            assert_eq!(status(&gateway.ask("GET", path, &bearer(token)).await), expected, "{path}");
        }
        let categories = gateway.ask("GET", "/categories", &bearer(token)).await;
        assert!(categories.contains("\"sport\"") && categories.contains("\"culture\""), "{categories}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_ends_the_stream_with_its_cursor() {
    let issuer = Issuer::new();
    let jwks = json!({"keys": [issuer.ed25519_jwk("k1")]}).to_string();
    // After the streams have opened, on a busy machine too.
    let soon = now_s() + 10;
    let tokens = format!(
        "[[token]]\nname = \"soon\"\ntoken = \"soon-token-0123456789\"\ncategories = [\"sport\"]\nexpires = \"{}\"\n",
        news::Timestamp::from_millis(soon * 1000)
    );
    let change = |config: &mut Config| {
        let file = |name: &str, text: &str| written(&config.daemon.run_dir, name, text);
        config.gateway.jwks_file = file("jwks.json", &jwks);
        config.gateway.read_tokens_file = file("tokens.toml", &[TOKENS, &tokens].concat());
    };
    let (gateway, _daemon, _serving) = gateway_with_config(5, change).await;
    // A minute of leeway: a token that expired 50 s ago is valid for 10 s.
    let claims = json!({"exp": soon - 60, "newswire.categories": ["sport"]});
    let jwt = issuer.sign(&json!({"alg": "EdDSA", "kid": "k1"}), &claims);
    let mut stays = gateway.stream("", &bearer(DESK)).await;
    let ending = ["soon-token-0123456789", &jwt];
    let mut clients = Vec::new();
    for token in ending {
        clients.push(gateway.stream("", &bearer(token)).await);
    }
    for client in &mut clients {
        assert_eq!(client.ids(2).await, ["e-1", "e-4"]);
        let mut last = Vec::new();
        while let Some(block) = client.block().await {
            last.push(block);
        }
        let late = now_s() - soon;
        assert!((0..=20).contains(&late), "{late}");
        let [.., retry, id] = last.as_slice() else { panic!("{last:?}") };
        assert!(retry[0].starts_with("retry: ") && *id == ["id: e-5"], "{last:?}");
    }
    for token in ending {
        let again = gateway.ask("GET", "/news/stream", &bearer(token)).await;
        assert_eq!(body(&again)["code"], "token-expired");
    }
    assert_eq!(gateway.number("newswire_gateway_streams_ended_total{reason=\"expired\"}").await, 2);
    let (_, cursor) = until_heartbeat(&mut stays).await;
    assert_eq!(cursor, "e-5", "the stream of another token continues");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_when_its_token_expires_is_disconnected() {
    let tokens = format!(
        "[[token]]\nname = \"soon\"\ntoken = \"soon-token-0123456789\"\ncategories = \"all\"\nexpires = {}\n",
        news::Timestamp::from_millis((now_s() + 10) * 1000)
    );
    let change = |config: &mut Config| {
        let file = config.daemon.run_dir.join("tokens.toml");
        std::fs::write(&file, [TOKENS, &tokens].concat()).unwrap();
        config.gateway.read_tokens_file = Some(file);
    };
    let (gateway, daemon, _serving) = gateway_with_config(1, change).await;
    let stuck = gateway.stream("", &bearer("soon-token-0123456789")).await;
    // More than the receive buffer holds.
    daemon.publish_large(200, 50_000);
    gateway.until_clients(0, TIMEOUT).await;
    assert_eq!(gateway.number("newswire_gateway_connections_cut_total{reason=\"expired\"}").await, 1);
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_of_a_refresh_goes_to_clients_that_may_see_all_its_sources() {
    let change = |config: &mut Config| {
        with_tokens(config);
        let file = config.daemon.run_dir.join("operator");
        std::fs::write(&file, "the-operators-own-token").unwrap();
        config.gateway.operator_token_file = Some(file);
    };
    let (gateway, daemon, _serving) = gateway_with_config(1, change).await;
    daemon
        .sources
        .lock()
        .unwrap()
        .extend([FakeDaemon::health("a", "sport"), FakeDaemon::health("b", "finance")]);
    daemon.live.send("event: catalogue\ndata: {}\n\n".to_owned()).unwrap();
    let listed = async {
        while status(&gateway.ask("GET", "/sources/b", &bearer(CHIEF)).await) != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, listed).await.unwrap();
    let mut desk = gateway.stream("", &bearer(DESK)).await;
    let mut chief = gateway.stream("", &bearer(CHIEF)).await;
    let order = "{\"sources\":[\"a\",\"b\"]}";
    let request = format!(
        "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n{}\r\n{order}",
        order.len(),
        bearer("the-operators-own-token")
    );
    let mut answer = String::new();
    gateway.send(&request).await.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 202, "{answer}");
    daemon.visited_in("a", "sport");
    daemon.visited_in("b", "finance");
    let mut progress_events = 0;
    while progress_events < 2 {
        progress_events +=
            usize::from(chief.block().await.unwrap().iter().any(|field| field == "event: refresh"));
    }
    let (blocks, _) = until_heartbeat(&mut desk).await;
    let output = format!("{blocks:?}");
    assert!(!output.contains("refresh") && output.contains("\\\"source\\\":\\\"a\\\""), "{output}");
    // The operator's token sends orders and reads nothing.
    let reads = gateway.ask("GET", "/news", &bearer("the-operators-own-token")).await;
    assert_eq!(body(&reads)["code"], "token-unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("read_tokens_file = \"{}\"", write_tokens(folder.path()).display());
    let program = Program::start(&settings, "");
    let daemon = FakeDaemon::new("e");
    daemon.publish_in("sport");
    let _serving = daemon.serve(program.socket());
    program.endpoint.until_ready().await;
    let endpoint: Endpoint = program.endpoint;
    for token in [DESK, CHIEF, OLD, "unknown-token-abcdef-1"] {
        for headers in [bearer(token), format!("cookie: newswire_read={token}\r\n")] {
            for path in ["/news", "/news/e-1", "/sources", &format!("/news?token={token}")] {
                endpoint.ask("GET", path, &headers).await;
            }
        }
    }
    let log = program.log();
    assert!(log.contains("ready") && !log.contains("-token-0123") && !log.contains("unknown-token"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_once_of_categories_that_no_source_has_and_of_rare_heartbeats() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "read_tokens_file = \"{}\"\npublic_categories = [\"Wrold\", \"CULTURE\"]\nheartbeat = \"1m\"",
        write_tokens(folder.path()).display()
    );
    let program = Program::start(&settings, "");
    let daemon = FakeDaemon::new("e");
    for category in ["culture", "World"] {
        daemon.sources.lock().unwrap().push(FakeDaemon::health(&category.to_lowercase(), category));
    }
    let _serving = daemon.serve(program.socket());
    let lines = |program: &Program, word: &str| -> Vec<String> {
        program.log().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    };
    let warned = async {
        while lines(&program, "that no source has").is_empty()
            || lines(&program, "gateway.heartbeat").is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, warned).await.unwrap_or_else(|_| panic!("{}", program.log()));
    // The list is read again, and has not changed.
    for _ in 0..3 {
        daemon.live.send("event: catalogue\ndata: {}\n\n".to_owned()).unwrap();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    let (heartbeat, categories) =
        (lines(&program, "gateway.heartbeat"), lines(&program, "that no source has"));
    assert!(
        heartbeat.len() == 1 && heartbeat[0].contains("WARN") && heartbeat[0].contains("1m"),
        "{heartbeat:?}"
    );
    let [warning] = &categories[..] else { panic!("{categories:?}") };
    // Neither `culture`, which a source has, nor the categories of `all`.
    assert!(warning.contains("WARN") && warning.contains("categories=\"sport, wrold\""), "{warning}");
}

/// The exit status and the log of the program with these lines in its `[gateway]` section.
fn refusal(folder: &Path, lines: &str) -> (Option<i32>, String) {
    let config = format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{lines}\n");
    std::fs::write(folder.join("newswire.toml"), config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_newswire-gateway"))
        .args(["--config", "newswire.toml"])
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (child.status.code(), String::from_utf8(child.stderr).unwrap())
}

#[test]
fn every_mistake_in_the_files_stops_the_start_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokens.toml", "[[token]]\nname = \"a\"\ntoken = \"desk-token 0123\"\ncategories = []\n");
    write("jwks.json", "{\"keys\":[\n{\"kty\":\"oct\",\"k\":\"c2VjcmV0LXNlY3JldA\"}]}");
    let both = "read_tokens_file = \"tokens.toml\"\njwks_file = \"jwks.json\"";
    let (code, output) = refusal(folder.path(), both);
    assert_eq!(code, Some(78), "{output}");
    for complaint in [
        "tokens.toml:3: gateway.read_tokens_file: token:",
        "tokens.toml:4: gateway.read_tokens_file: categories:",
        "jwks.json: gateway.jwks_file: keys[0]: a shared secret",
    ] {
        assert!(output.contains(complaint), "{complaint}: {output}");
    }
    assert!(!output.contains("desk-token") && !output.contains("c2Vj"), "{output}");
    write("jwks.json", "{\"keys\":[\n{]}");
    assert!(refusal(folder.path(), both).1.contains("jwks.json:2: gateway.jwks_file: not valid JSON"));
    write("jwks.json", &" ".repeat(300_000));
    let (code, output) = refusal(folder.path(), "jwks_file = \"jwks.json\"");
    assert!(code == Some(78) && output.contains("larger than 262144 bytes"), "{output}");
    let (code, output) = refusal(folder.path(), "read_tokens_file = \"nowhere.toml\"");
    assert!(
        code == Some(78) && output.contains("nowhere.toml: gateway.read_tokens_file: cannot read"),
        "{output}"
    );
    let (code, output) = refusal(folder.path(), "public_categories = [\"sport\"]");
    assert!(code == Some(78) && output.contains("newswire.toml:3: gateway.public_categories"), "{output}");
    let output: BTreeSet<_> = ["jwt_audience = \"a\"", "jwt_issuer = \"a\""]
        .map(|line| refusal(folder.path(), line).0)
        .into_iter()
        .collect();
    assert_eq!(output, BTreeSet::from([Some(78)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_maximum_number_of_tokens_is_looked_up_fast() {
    let entry =
        |token: &str| format!("[[token]]\nname = \"{token}\"\ntoken = \"{token}\"\ncategories = \"all\"\n");
    let many: String = (1..10_000).map(|n| entry(&format!("a-token-of-number-{n}"))).collect();
    let change = |config: &mut Config| {
        let file = config.daemon.run_dir.join("tokens.toml");
        std::fs::write(&file, [entry(CHIEF), many].concat()).unwrap();
        config.gateway.read_tokens_file = Some(file);
    };
    let (gateway, _daemon, _serving) = gateway_with_config(1, change).await;
    // A twin with few tokens, at the same time.
    let (twin, _twin_daemon, _twin_serving) = gateway_with_config(1, with_tokens).await;
    let timed = async |gateway: &Gateway, token: &str| {
        let started = Instant::now();
        assert_eq!(status(&gateway.ask("GET", "/categories", &bearer(token)).await), 200);
        started.elapsed()
    };
    let (mut many, mut few) = (Duration::ZERO, Duration::ZERO);
    for n in 1..=100 {
        many += timed(&gateway, &format!("a-token-of-number-{n}")).await;
        few += timed(&twin, CHIEF).await;
    }
    assert!(many < few * 2 + Duration::from_secs(1), "{few:?} became {many:?}");
}

#[tokio::test]
async fn the_last_visits_are_shown_of_one_source_and_not_in_the_list() {
    let (gateway, _daemon, _serving) = gateway_with_config(0, |_| {}).await;
    while !gateway.ask("GET", "/sources", "").await.contains("sport") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!gateway.ask("GET", "/sources", "").await.contains("attempts"));
    let source = body(&gateway.ask("GET", "/sources/sport", "").await);
    assert_eq!(
        (&source["attempts"][0]["code"], &source["attempts"][0]["status"]),
        (&304.into(), &"unchanged".into())
    );
}
