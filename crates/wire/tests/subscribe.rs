//! A subscription to servers that die, stall, send nonsense and restart: no event is returned twice, and no hole is
//! ignored.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

use std::time::Duration;

use news::{Cursor, Seq};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use wire::{
    ClientError, Coverage, Endpoint, LostReason, Resume, Subscription, SubscriptionEvent, SubscriptionTiming,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A server that plays one script per connection, and returns the id of each request.
struct Server {
    listener: TcpListener,
}

impl Server {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn subscription(&self, cursor: Option<&str>, coverage: Coverage) -> Subscription {
        let url = format!("http://{}/", self.listener.local_addr().unwrap()).parse().unwrap();
        let timing = SubscriptionTiming {
            answer: Duration::from_secs(2),
            silence: Duration::from_millis(500),
            retry: (Duration::from_millis(5), Duration::from_millis(20)),
        };
        Subscription::new(Endpoint::Url(url), "/wire", cursor.map(|c| c.parse().unwrap()), coverage, timing)
    }

    /// Accepts a connection and reads its request.
    async fn request(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(request).unwrap())
    }

    /// The same; returns its `Last-Event-ID`.
    async fn accept(&self) -> (TcpStream, Option<String>) {
        let (stream, request) = self.request().await;
        let id = request.lines().find_map(|line| line.strip_prefix("last-event-id: ")).map(str::to_owned);
        (stream, id)
    }

    async fn play(&self, script: &str) -> (TcpStream, Option<String>) {
        let (mut stream, id) = self.accept().await;
        stream.write_all(HEAD.as_bytes()).await.unwrap();
        stream.write_all(script.as_bytes()).await.unwrap();
        (stream, id)
    }
}

/// The first event, with the cursor of the reader.
fn hello(resume: &str, place: &str) -> String {
    format!(
        "id: {place}\nevent: stream\ndata: {{\"resume\":\"{resume}\",\"requested\":null,\"oldest\":null,\"head\":\"{place}\",\
         \"missed\":0,\"server\":\"test\"}}\n\n"
    )
}

fn item(seq: u64) -> String {
    format!("id: e-{seq}\nevent: item\ndata: {{\"n\":{seq}}}\n\n")
}

/// What happens until `n` events have arrived, in words.
async fn words(subscription: &mut Subscription, n: usize) -> Vec<String> {
    let (mut words, mut events) = (Vec::new(), 0);
    while events < n {
        words.push(match subscription.next().await {
            SubscriptionEvent::Connected(hello) => format!("{:?}", hello.resume),
            SubscriptionEvent::Event(event) => {
                events += 1;
                event.id.to_string()
            }
            SubscriptionEvent::Gap(missed) => format!("gap {}", missed.missed),
            SubscriptionEvent::Notice(name, _) => name,
            SubscriptionEvent::Heartbeat(_) => "beat".to_owned(),
            SubscriptionEvent::Lost { .. } => "lost".to_owned(),
        });
    }
    words
}

#[tokio::test]
async fn a_refusal_has_its_status_and_the_detail_of_its_problem_if_that_is_short() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let problem = r#"{"status":401,"code":"token-unknown","detail":"the token is unknown"}"#;
    let long = format!("{{\"detail\":\"{}\"}}", "x".repeat(100_000));
    for (body, detail) in
        [(problem, Some("the token is unknown")), ("", None), ("<html>", None), ("[]", None), (&*long, None)]
    {
        let refuse = async {
            let (mut stream, _) = server.accept().await;
            let length = body.len();
            let answer = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\n\r\n{body}");
            // It may not read all of it.
            stream.write_all(answer.as_bytes()).await.ok();
            stream
        };
        let (event, _stream) = tokio::join!(subscription.next(), refuse);
        let SubscriptionEvent::Lost { reason: LostReason::NotOpened(error), .. } = event else {
            panic!("{event:?}")
        };
        let ClientError::Refused(_, refusal) = &error else { panic!("{error:?}") };
        assert_eq!((refusal.status.as_u16(), refusal.detail.as_deref()), (401, detail));
        assert_eq!(error.to_string().matches("127.0.0.1").count(), 1, "{error}");
    }
}

#[tokio::test]
async fn after_a_loss_it_continues_after_the_last_event_and_repeats_none() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let first = [hello("live", "e-0"), item(1), item(2), "id: e-3\nevent: item\nda".to_owned()].concat();
    let second = [hello("exact", "e-2"), item(2), item(3), item(4)].concat();
    let play = async {
        let (stream, id) = server.play(&first).await;
        assert_eq!(id, None);
        drop(stream);
        let (stream, id) = server.play(&second).await;
        assert_eq!(id.as_deref(), Some("e-2"));
        stream
    };
    let (words, _stream) = tokio::join!(words(&mut subscription, 4), play);
    assert_eq!(words, ["Live", "e-1", "e-2", "lost", "Exact", "e-3", "e-4"]);
}

#[tokio::test]
async fn a_hole_is_not_ignored_but_requested_again() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-1"), Coverage::All);
    let play = async {
        let (holey, _) = server.play(&[hello("exact", "e-1"), item(2), item(4)].concat()).await;
        let (stream, id) = server.play(&[hello("exact", "e-2"), item(3), item(4)].concat()).await;
        assert_eq!(id.as_deref(), Some("e-2"));
        (holey, stream)
    };
    let (words, _streams) = tokio::join!(words(&mut subscription, 3), play);
    assert_eq!(words, ["Exact", "e-2", "lost", "Exact", "e-3", "e-4"]);
}

#[tokio::test]
async fn a_filtered_stream_has_holes_and_its_heartbeats_move_the_cursor() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-1"), Coverage::Filtered);
    let script = [hello("exact", "e-1"), item(4), "id: e-8\n\n".to_owned(), item(9)].concat();
    let (words, _stream) = tokio::join!(words(&mut subscription, 2), server.play(&script));
    assert_eq!(words, ["Exact", "e-4", "beat", "e-9"]);
}

#[tokio::test]
async fn a_gap_is_reported_and_the_events_after_it_are_accepted() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-1"), Coverage::All);
    let gap = "event: gap\ndata: {\"missed\":5,\"oldest\":\"e-8\"}\n\n".to_owned();
    let script = [hello("exact", "e-1"), item(2), gap, item(8), item(9)].concat();
    let (words, _stream) = tokio::join!(words(&mut subscription, 3), server.play(&script));
    assert_eq!(words, ["Exact", "e-2", "gap 5", "e-8", "e-9"]);
}

#[tokio::test]
async fn a_gap_with_an_id_moves_the_cursor_past_what_is_missing() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-1"), Coverage::All);
    let gap = |seq: u64| format!("id: e-{seq}\nevent: gap\ndata: {{\"missed\":5,\"oldest\":null}}\n\n");
    let play = async {
        // The newest events are missing: nothing follows.
        drop(server.play(&[hello("exact", "e-1"), item(2), gap(7)].concat()).await);
        let (holey, id) = server.play(&[hello("exact", "e-7"), gap(12), item(14)].concat()).await;
        assert_eq!(id.as_deref(), Some("e-7"), "it is not told of the same ones again");
        let (stream, id) = server.play(&[hello("exact", "e-12"), item(13)].concat()).await;
        assert_eq!(id.as_deref(), Some("e-12"), "and nothing else may be missing");
        (holey, stream)
    };
    let (words, _streams) = tokio::join!(words(&mut subscription, 2), play);
    assert_eq!(words, ["Exact", "e-2", "gap 5", "lost", "Exact", "gap 5", "lost", "Exact", "e-13"]);
}

#[tokio::test]
async fn what_a_later_version_sends_more_of_is_passed_over() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-1"), Coverage::All);
    let hello = hello("exact", "e-1").replace("\"missed\"", "\"mood\":[{}],\"missed\"");
    let kinds =
        "event: omen\ndata: {}\n\nid: e-3\nevent: retraction\nfoo: bar\ndata: {\"n\":3}\n\n: a comment\n\n";
    let beat = "id: e-3\nevent: heartbeat\ndata: {\"head\":\"e-9\",\"tide\":\"high\"}\n\n";
    let gap = "id: e-5\nevent: gap\ndata: {\"missed\":2,\"oldest\":\"e-6\",\"why\":\"rot\"}\n\n";
    let script = [&hello, &*item(2), kinds, beat, gap, &*item(6)].concat();
    let (words, _stream) = tokio::join!(words(&mut subscription, 2), server.play(&script));
    assert_eq!(words, ["Exact", "e-2", "omen", "retraction", "beat", "gap 2", "e-6"]);
}

/// The headers of a request that name the newest event, and the id that it resumes after.
fn newest_seen(request: &str) -> [Option<&str>; 3] {
    ["newest-event-id: ", "newest-event-hash: ", "last-event-id: "]
        .map(|name| request.lines().find_map(|line| line.strip_prefix(name)))
}

#[tokio::test]
async fn the_server_is_told_of_the_newest_event_and_an_older_copy_is_recognised_until_it_is_replaced() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let hash = wire::event_hash(b"{\"n\":3}");
    let seen_3 = [Some("e-3"), Some(&*hash)];
    let older = hello("reset", "e-1").replace("\"server\"", "\"older_copy\":true,\"server\"");
    let play = async {
        let (mut stream, request) = server.request().await;
        assert_eq!(newest_seen(&request), [None; 3]);
        let first = [HEAD, &hello("live", "e-0"), &item(1), &item(2), &item(3)].concat();
        stream.write_all(first.as_bytes()).await.unwrap();
        drop(stream);
        // A copy that says so, though it has grown; one that ends before the event; and one that does not know it.
        for script in [older + &item(2) + &item(3) + &item(4), hello("reset", "e-2"), hello("live", "f-0")] {
            let (mut stream, request) = server.request().await;
            let expected = if script.starts_with("id: e-1") { Some("e-3") } else { None };
            assert_eq!(newest_seen(&request), [seen_3[0], seen_3[1], expected]);
            stream.write_all([HEAD, &script].concat().as_bytes()).await.unwrap();
        }
        let (mut stream, request) = server.request().await;
        assert_eq!(newest_seen(&request), [Some("f-0"), None, Some("f-0")], "the new epoch is the decision");
        let last = [HEAD, &hello("exact", "f-0"), "id: f-1\nevent: item\ndata: {}\n\n"].concat();
        stream.write_all(last.as_bytes()).await.unwrap();
        stream
    };
    let read = async {
        let (mut log, mut unknown) = (Vec::new(), Vec::new());
        while log.last().is_none_or(|last| last != "f-1") {
            match subscription.next().await {
                SubscriptionEvent::Connected(_) => {
                    unknown.push(subscription.newest_unknown_to_server().map(ToString::to_string));
                }
                SubscriptionEvent::Event(event) => log.push(event.id.to_string()),
                _ => {}
            }
        }
        (log, unknown)
    };
    let ((log, unknown), _stream) = tokio::join!(read, play);
    assert_eq!(log, ["e-1", "e-2", "e-3", "e-2", "e-3", "e-4", "f-1"]);
    let unknown: Vec<_> = unknown.iter().map(Option::as_deref).collect();
    assert_eq!(unknown, [None, Some("e-3"), Some("e-3"), None, None]);
}

#[tokio::test]
async fn a_subscription_that_has_seen_nothing_is_told_what_another_one_has_seen_of_an_older_copy() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let older = |seen: &str| {
        let told = format!("\"older_copy\":true,\"newest_seen\":\"{seen}\",\"server\"");
        hello("reset", "e-1").replace("\"server\"", &told)
    };
    let play = async {
        let scripts = [older("e-9") + &item(2), older("e-7") + &item(2), hello("live", "e-10") + &item(11)];
        for (script, named) in scripts.into_iter().zip([None, Some("e-9"), Some("e-7")]) {
            let (mut stream, request) = server.request().await;
            assert_eq!(newest_seen(&request), [named, None, None], "no id of the copy means anything");
            stream.write_all([HEAD, &script].concat().as_bytes()).await.unwrap();
        }
    };
    let read = async {
        let mut unknown = Vec::new();
        loop {
            match subscription.next().await {
                SubscriptionEvent::Connected(_) => {
                    unknown.push(subscription.newest_unknown_to_server().map(ToString::to_string));
                }
                SubscriptionEvent::Event(event) if event.id.seq.0 == 11 => return unknown,
                _ => {}
            }
        }
    };
    let (unknown, ()) = tokio::join!(read, play);
    assert_eq!(unknown, [Some("e-9".to_owned()), Some("e-7".to_owned()), None]);
}

#[tokio::test]
async fn what_another_one_has_seen_does_not_replace_what_this_one_can_prove() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let hash = wire::event_hash(b"{\"n\":3}");
    let told = "\"older_copy\":true,\"newest_seen\":\"e-9\",\"server\"";
    let play = async {
        let first = [&hello("live", "e-2"), &*item(3)].concat();
        let scripts = [first, hello("reset", "e-1").replace("\"server\"", told), hello("live", "e-20")];
        let named = [[None; 3], [Some("e-3"), Some(&*hash), Some("e-3")], [Some("e-3"), Some(&*hash), None]];
        for (script, named) in scripts.into_iter().zip(named) {
            let (mut stream, request) = server.request().await;
            assert_eq!(newest_seen(&request), named);
            stream.write_all([HEAD, &script].concat().as_bytes()).await.unwrap();
        }
    };
    let read = async {
        let mut unknown = Vec::new();
        while unknown.len() < 3 {
            if let SubscriptionEvent::Connected(_) = subscription.next().await {
                unknown.push(subscription.newest_unknown_to_server().map(ToString::to_string));
            }
        }
        unknown
    };
    let (unknown, ()) = tokio::join!(read, play);
    assert_eq!(unknown, [None, Some("e-9".to_owned()), None]);
}

#[tokio::test]
async fn another_log_is_read_from_its_start() {
    let server = Server::new().await;
    let mut subscription = server.subscription(Some("e-7"), Coverage::All);
    let script = [hello("reset", "f-0"), "id: f-1\nevent: item\ndata: {}\n\n".to_owned()].concat();
    let (words, _stream) = tokio::join!(words(&mut subscription, 1), server.play(&script));
    assert_eq!(words, ["Reset", "f-1"]);
}

#[tokio::test]
async fn an_empty_log_has_a_cursor_to_resume_from() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let play = async {
        drop(server.play(&hello("live", "e-0")).await);
        let (stream, id) = server.play(&[hello("exact", "e-0"), item(1)].concat()).await;
        assert_eq!(id.as_deref(), Some("e-0"));
        stream
    };
    let (words, _stream) = tokio::join!(words(&mut subscription, 1), play);
    assert_eq!(words, ["Live", "lost", "Exact", "e-1"]);
}

#[tokio::test]
async fn after_silence_refusal_and_nonsense_it_reconnects() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let play = async {
        let silent = server.accept().await.0;
        let mut silent = silent;
        silent.write_all(HEAD.as_bytes()).await.unwrap();
        let (mut refusing, _) = server.accept().await;
        refusing.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let (mut garbage, _) = server.accept().await;
        garbage.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
        drop(garbage);
        let huge = format!("{}data: {}", HEAD, "x".repeat(Subscription::BLOCK_BYTES_MAX + 100_000));
        let (mut endless, _) = server.accept().await;
        // The other side hangs up in the middle of it.
        endless.write_all(huge.as_bytes()).await.ok();
        let (bad_id, _) = server.play("id: not-an-id!\nevent: item\ndata: {}\n\n").await;
        let good = server.play(&[hello("live", "e-0"), item(1)].concat()).await;
        (silent, refusing, endless, bad_id, good)
    };
    let (words, _streams) = tokio::join!(words(&mut subscription, 1), play);
    assert_eq!(words, ["lost", "lost", "lost", "lost", "lost", "Live", "e-1"]);
    assert_eq!(subscription.cursor().map(|c| c.seq), Some(Seq(1)));
}

#[tokio::test]
async fn a_token_is_sent_with_every_request_if_there_is_one() {
    for token in [Some("a-token-0123456789"), None] {
        let server = Server::new().await;
        let mut subscription = server.subscription(None, Coverage::All);
        if let Some(token) = token {
            subscription = subscription.with_bearer(token).unwrap();
        }
        let play = async {
            let mut shown = Vec::new();
            for script in ["", &[hello("live", "e-0"), item(1)].concat()] {
                let (mut stream, request) = server.request().await;
                shown
                    .push(request.lines().find_map(|l| l.strip_prefix("authorization: ")).map(str::to_owned));
                stream.write_all([HEAD, script].concat().as_bytes()).await.unwrap();
            }
            shown
        };
        let (_, shown) = tokio::join!(words(&mut subscription, 1), play);
        assert_eq!(shown, vec![token.map(|token| format!("Bearer {token}")); 2]);
        assert!(subscription.with_bearer("two\r\nlines").is_err());
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let server = Server::new().await;
    let mut subscription = server.subscription(None, Coverage::All);
    let play = async {
        let (mut stream, _) = server.play(&hello("live", "e-0")).await;
        for seq in 1..=20 {
            for piece in item(seq).as_bytes().chunks(7) {
                stream.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        stream
    };
    let read = async {
        assert!(matches!(subscription.next().await, SubscriptionEvent::Connected(_)));
        let mut seqs = Vec::new();
        while seqs.len() < 20 {
            // Gives up every few milliseconds, as a select with another branch would.
            let next = tokio::time::timeout(Duration::from_millis(3), subscription.next()).await;
            if let Ok(SubscriptionEvent::Event(event)) = next {
                seqs.push(event.id.seq.0);
            }
        }
        seqs
    };
    let (seqs, _stream) = tokio::join!(read, play);
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    assert_eq!(subscription.cursor().map(Cursor::to_string).as_deref(), Some("e-20"));
}

#[tokio::test]
async fn the_resume_words_are_those_of_the_stream() {
    for resume in Resume::ALL {
        let json = serde_json::to_string(&resume).unwrap();
        assert_eq!(json, format!("\"{}\"", resume.as_str()));
    }
}
