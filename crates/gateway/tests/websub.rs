//! What hubs get from the gateway while the daemon is stopped; crates/e2e has the rest.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;

use std::time::Duration;

use newswire_gateway::Limits;

use harness::Gateway;

const OURS: &str = "/websub/0123456789abcdef0123456789abcdef";
const VERIFICATION: &str = "hub.mode=subscribe&hub.topic=https%3A%2F%2Fa.example%2F&hub.challenge=x";
const ORIGIN: &str = "origin: https://page.example\r\n";

/// A gateway that is reached as `news.example`; pages of one other origin may read from it.
async fn gateway() -> Gateway {
    Gateway::within(Limits::default(), |config| {
        config.gateway.public_url = Some("https://news.example/wire".to_owned());
        config.gateway.cors_origins = vec!["https://page.example".to_owned()];
    })
    .await
}

fn status(answer: &str) -> &str {
    &answer[9..12]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_gets_503_and_retry_after_while_the_daemon_is_stopped() {
    let gateway = gateway().await;
    for (method, path) in [("GET", format!("{OURS}?{VERIFICATION}")), ("POST", OURS.to_owned())] {
        let answer = gateway.ask(method, &path, "").await;
        assert!(status(&answer) == "503" && answer.contains("retry-after: 5\r\n"), "{answer}");
    }
    let refused = "newswire_gateway_callbacks_refused_total{reason=\"no_daemon\"}";
    assert_eq!(gateway.number(refused).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_callback_gets_404_without_a_request_to_the_daemon() {
    let gateway = gateway().await;
    for path in
        ["/websub/x", "/websub/0123456789ABCDEF0123456789ABCDEF", "/websub/0123456789abcdef0123456789abcdeff"]
    {
        for method in ["GET", "POST"] {
            let answer = gateway.ask(method, &format!("{path}?{VERIFICATION}"), "").await;
            assert_eq!(status(&answer), "404", "{method} {path}: {answer}");
        }
    }
    let closed = Gateway::within(Limits::default(), |_| {}).await;
    let answer = closed.ask("POST", OURS, "").await;
    assert_eq!(status(&answer), "404", "no public URL is configured: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_without_a_short_challenge_is_refused() {
    let gateway = gateway().await;
    let long = "x".repeat(4097);
    for challenge in [String::new(), format!("&hub.challenge={long}")] {
        let path = format!("{OURS}?hub.mode=subscribe&hub.topic=x{challenge}");
        assert_eq!(status(&gateway.ask("GET", &path, "").await), "400");
    }
    let path = format!("{OURS}?{VERIFICATION}&x={}", "x".repeat(16 * 1024));
    assert_eq!(status(&gateway.ask("GET", &path, "").await), "414");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_more_than_a_mebibyte_is_refused() {
    let gateway = gateway().await;
    for (bytes, expected) in [(1024 * 1024 + 1, "413"), (1024 * 1024, "503")] {
        let body = format!("content-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
        // `ask` appends the end of a head: two more bytes than the body has, which are not read.
        let answer = gateway.ask("POST", OURS, &body).await;
        assert_eq!(status(&answer), expected, "{bytes}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_take_few_places_and_count_as_guesses() {
    let gateway =
        Gateway::within(Limits { body: Duration::from_millis(500), ..Limits::default() }, |config| {
            config.gateway.public_url = Some("https://news.example/wire".to_owned());
            config.gateway.trusted_proxies = vec!["127.0.0.1/32".to_owned()];
        })
        .await;
    let slow = format!(
        "POST {OURS} HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 192.0.2.1\r\ncontent-length: 100\r\n\r\nx"
    );
    let (mut found, mut rounds) = (Vec::new(), 0);
    while !found.contains(&"429 too-many-unknown".to_owned()) {
        let mut open = Vec::new();
        for _ in 0..40 {
            open.push(gateway.send(&slow).await);
        }
        // 32 requests may be in progress, and nobody else notices that somebody tries to take them all.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let other = gateway.ask("POST", OURS, "x-forwarded-for: 192.0.2.2\r\n").await;
        assert!(other.contains("\"code\":\"no-daemon\""), "{other}");
        for mut stream in open {
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
            let code = answer.split("\"code\":\"").nth(1).unwrap().split('"').next().unwrap();
            found.push(format!("{} {code}", status(&answer)));
        }
        rounds += 1;
        assert!(rounds < 12, "{found:?}");
    }
    let count = |what: &str| found.iter().filter(|one| *one == what).count();
    assert_eq!(count("408 slow-body"), 30, "as many guesses as any other: {found:?}");
    assert!(count("429 too-many-requests") >= 36 * (rounds - 1), "{found:?}");
    let refused = "newswire_gateway_callbacks_refused_total{reason=\"callbacks_per_address\"}";
    assert_eq!(gateway.number(refused).await, count("429 too-many-requests") as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_host_is_served_and_no_page_may_read_the_answers_to_hubs() {
    let gateway = gateway().await;
    let readable = |answer: &str| answer.contains("access-control-allow-origin");
    assert!(readable(&gateway.ask("GET", "/health", ORIGIN).await));
    for method in ["GET", "POST", "OPTIONS"] {
        let answer = gateway.ask(method, &format!("{OURS}?{VERIFICATION}"), ORIGIN).await;
        assert!(!readable(&answer), "{method}: {answer}");
    }
    for (host, expected) in [("news.example", "503"), ("evil.example", "421")] {
        let request = format!("POST {OURS} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let mut stream = gateway.send(&request).await;
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        assert_eq!(status(&answer), expected, "{host}: {answer}");
    }
}
