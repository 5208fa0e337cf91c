//! Deadlines, connections and responses that are not HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fetch::{FailureClass, Policy, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};

use crate::{NOW_MS, class, failure, full, origin::*, policy, visit, visit_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// Makes a visit under a policy and measures it.
pub(crate) async fn timed(policy: Policy, url: &str) -> (fetch::FetchReport, Duration) {
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
    assert_eq!((class(&visit), accepts.load(Ordering::SeqCst)), (FailureClass::Connect, 2));
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
    assert_eq!(failure(&visit).to_string(), "timeout: connecting to 127.0.0.1 took too long");
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
