//! Deadlines, connections and responses that are not HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fetch::{
    FailureClass, FetchReport, Lookup, Policy, Resolver, VisitPhase, VisitPhaseCell, VisitRequest, Visitor,
};
use news::{FeedUrl, Timestamp};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};

use crate::{NOW_MS, class, failure, full, origin::*, policy, visit, visit_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// Makes a visit under a policy and measures it.
pub(crate) async fn timed(policy: Policy, url: &str) -> (FetchReport, Duration) {
    let visitor = Visitor::try_new(policy).unwrap();
    let started = Instant::now();
    let visit = visit_with(&visitor, url, None, None).await;
    (visit, started.elapsed())
}

/// At the deadline, or a little later on a busy machine: without it, the other limits of [`policy`] would end the visit half
/// a minute later.
pub(crate) fn is_about(took: Duration, expected_ms: u64) -> bool {
    (expected_ms..expected_ms + 15_000).contains(&u64::try_from(took.as_millis()).unwrap())
}

#[tokio::test]
async fn a_body_may_pause_as_long_as_its_average_rate_is_sufficient() {
    let policy = Policy { rate_grace: Duration::from_millis(50), ..policy() };
    let slow_end =
        vec![say(HEAD), say([b' '; 20_480]), Step::Drip(vec![b' '; 10], Duration::from_millis(50))];
    let origin = Origin::always(slow_end).await;
    let (visit, _) = timed(policy, &origin.url("/")).await;
    assert_eq!(full(visit).body.len(), 20_490);
}

#[tokio::test]
async fn a_source_may_have_its_own_deadline() {
    let origin = Origin::always(vec![Step::Hang]).await;
    let url = FeedUrl::try_new(&origin.url("/")).unwrap();
    let visitor = Visitor::try_new(policy()).unwrap();
    let timeout = Some(Duration::from_millis(150));
    let request = VisitRequest { timeout, ..VisitRequest::new(&url, Timestamp::from_millis(NOW_MS)) };
    let visit = visitor.visit(&request).await;
    assert_eq!(class(&visit), FailureClass::Timeout);
    assert!(is_about(visit.timings.total, 150), "{:?}", visit.timings);
}

/// Makes a visit with time limits of the source.
async fn visit_within(
    policy: Policy,
    url: &str,
    timeout: Option<Duration>,
    first: Option<Duration>,
) -> FetchReport {
    let url = FeedUrl::try_new(url).unwrap();
    let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
    let request = VisitRequest { timeout, timeout_first_byte: first, ..request };
    Visitor::try_new(policy).unwrap().visit(&request).await
}

#[tokio::test]
async fn a_server_may_think_as_long_as_its_source_allows() {
    let ms = |ms| Some(Duration::from_millis(ms));
    let impatient = Policy { timeout_first_byte: Duration::from_millis(100), ..policy() };
    let before_head = vec![Step::Wait(Duration::from_millis(600)), say(HEAD), say("<rss/>")];
    let before_body = vec![say(HEAD), Step::Wait(Duration::from_millis(600)), say("<rss/>")];
    for script in [before_head, before_body] {
        let origin = Origin::always(script).await;
        let visit = async |timeout, first| {
            let visit = visit_within(impatient.clone(), &origin.url("/"), timeout, first).await;
            match &visit.answer {
                fetch::FetchResult::Full(full) => String::from_utf8(full.body.to_vec()).unwrap(),
                _ => failure(&visit).message,
            }
        };
        let by_default = visit(None, None).await;
        assert!(by_default.ends_with("took longer than 100ms (fetch.timeout_first_byte)"), "{by_default}");
        for (timeout, first) in [(ms(60_000), None), (None, ms(60_000)), (ms(60_000), ms(50_000))] {
            assert_eq!(visit(timeout, first).await, "<rss/>", "{timeout:?} {first:?}");
        }
        let strict = visit(ms(60_000), ms(150)).await;
        assert!(strict.ends_with("took longer than 150ms (timeout_first_byte)"), "{strict}");
        let short = visit(ms(150), ms(60_000)).await;
        assert!(short.starts_with("the visit took longer than 150ms (timeout); it ended while"), "{short}");
    }
}

#[tokio::test]
async fn the_wait_for_the_body_is_not_a_slow_body() {
    let strict = Policy { rate_grace: Duration::from_millis(100), ..policy() };
    let wait = Step::Wait(Duration::from_millis(400));
    let late = Origin::always(vec![say(HEAD), wait.clone(), say("<rss/>")]).await;
    assert_eq!(&full(timed(strict.clone(), &late.url("/")).await.0).body[..], b"<rss/>");
    let stuck = Origin::always(vec![say(HEAD), say("<"), wait, say("rss/>")]).await;
    let message = failure(&timed(strict, &stuck.url("/")).await.0).message;
    assert_eq!(
        message,
        "the body arrived slower than 1024 bytes per second, a fixed limit without a key: 1 bytes so far"
    );
    // It is limited all the same.
    let silent = Origin::always(vec![say(HEAD), Step::Hang]).await;
    let impatient = Policy { timeout_first_byte: Duration::from_millis(200), ..policy() };
    let (visit, took) = timed(impatient, &silent.url("/")).await;
    let message = "waiting for the first byte of the body took longer than 200ms (fetch.timeout_first_byte)";
    assert_eq!(failure(&visit).message, message);
    assert!(is_about(took, 200), "{took:?}");
}

#[tokio::test]
async fn each_part_of_a_visit_is_booked_where_it_was_spent() {
    let pause = || Step::Wait(Duration::from_millis(200));
    let origin = Origin::always(vec![pause(), say(HEAD), say("<rss"), pause(), say("/>")]).await;
    let visit = visit(&origin.url("/")).await;
    let spent = visit.timings;
    assert!(spent.first_byte.as_millis() >= 200 && spent.body.as_millis() >= 200, "{spent:?}");
    assert!(spent.connect.as_millis() < 200 && spent.tls.is_zero(), "{spent:?}");
    // A wait that is in vain is no connection, either.
    let silent = Origin::always(vec![Step::Hang]).await;
    let impatient = Policy { timeout_first_byte: Duration::from_millis(300), ..policy() };
    let spent = timed(impatient, &silent.url("/")).await.0.timings;
    assert!(spent.first_byte.as_millis() >= 300 && spent.connect.as_millis() < 300, "{spent:?}");
}

#[tokio::test]
async fn redirects_share_one_deadline() {
    let policy = Policy { timeout_total: Duration::from_millis(500), ..policy() };
    let origin = Origin::start(|path| {
        let slow = vec![Step::Drip(b"HTTP/1.1 302 Found\r\n".to_vec(), Duration::from_millis(10))];
        [slow, vec![say(format!("Location: {path}x\r\nContent-Length: 0\r\n\r\n"))]].concat()
    })
    .await;
    let (visit, took) = timed(policy, &origin.url("/")).await;
    assert_eq!(class(&visit), FailureClass::Timeout);
    assert!(is_about(took, 500), "{took:?}");
}

#[tokio::test]
async fn a_connection_that_fails_is_retried_once() {
    // Bound without listening, so that no other process can take the port.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = bound.local_addr().unwrap();
    let paused = Policy { retry_pause: Duration::from_millis(400), ..policy() };
    let (visit, took) = timed(paused, &format!("http://{closed}/feed?token=SECRET")).await;
    assert_eq!(class(&visit), FailureClass::Connect);
    let message = failure(&visit).message;
    assert!(
        message.starts_with("could not connect to 127.0.0.1: ") && !message.contains("SECRET"),
        "{message}"
    );
    assert!((200..15_000).contains(&took.as_millis()), "{took:?}");
    // A handshake that is cut off counts as no connection: two attempts, and never a third.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepts);
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (visit, _) = timed(policy(), &format!("https://{address}/")).await;
    assert_eq!((class(&visit), accepts.load(Ordering::SeqCst)), (FailureClass::Tls, 2));
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_retried() {
    let origin = Origin::always(vec![Step::Reset]).await;
    assert_eq!(class(&visit(&origin.url("/")).await), FailureClass::Truncated);
    assert_eq!(origin.accepts(), 1);
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_deadline_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let policy = Policy { timeout_connect: Duration::from_millis(200), ..policy() };
    let (visit, took) = timed(policy, &url).await;
    let message = "timeout: waiting for the TLS handshake with 127.0.0.1 took longer than 200ms (fetch.timeout_connect)";
    assert_eq!(failure(&visit).to_string(), message);
    assert!(is_about(took, 200), "{took:?}");
}

#[tokio::test]
async fn a27_plain_text_on_the_port_of_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad VisitRequest\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let visit = visit(&url).await;
    assert_eq!(class(&visit), FailureClass::Tls, "{:?}", visit.answer);
}

/// Never answers.
struct NoResolver;

impl Resolver for NoResolver {
    fn lookup(&self, _: &str) -> Lookup {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_visit_in_progress_shows_what_it_waits_for() {
    let hanging = Origin::always(vec![Step::Hang]).await;
    let endless = Origin::always(vec![say(HEAD), say("<rss>"), Step::Hang]).await;
    let ok = Visitor::try_new(policy()).unwrap();
    let lookups_hang = Visitor::with_resolver(policy(), Arc::new(NoResolver)).unwrap();
    for (visitor, url, expected) in [
        (&lookups_hang, "http://a.example/".to_owned(), VisitPhase::Lookup),
        (&ok, hanging.url("/").replace("http:", "https:"), VisitPhase::Tls),
        (&ok, hanging.url("/"), VisitPhase::Answer),
        (&ok, endless.url("/"), VisitPhase::Body),
    ] {
        let (url, phase) = (FeedUrl::try_new(&url).unwrap(), VisitPhaseCell::default());
        let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
        let request = VisitRequest { phase: Some(&phase), ..request };
        let shown = async {
            while phase.get() != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = shown => {}
            visit = visitor.visit(&request) => panic!("{expected:?}: ended at {:?}: {visit:?}", phase.get()),
        }
    }
}
