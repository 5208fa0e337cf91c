//! Heads of responses that are not as RFC 9112 has them, and how much of a head is read.

use std::time::Duration;

use fetch::FailureClass;

use crate::{class, failure, full, origin::*, visit};

async fn visit_script(script: Script) -> fetch::FetchReport {
    let origin = Origin::always(script).await;
    visit(&origin.url("/")).await
}

fn head_and_body(lines: &str) -> Script {
    vec![say(format!("HTTP/1.1 200 OK\r\n{lines}\r\n")), say("<rss/>")]
}

/// A head as it was sent, split after every byte, reads as one piece.
fn in_single_bytes(lines: &str) -> Script {
    let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 6\r\n\r\n<rss/>");
    vec![Step::Drip(head.into_bytes(), Duration::from_micros(10))]
}

#[tokio::test]
async fn folded_spaced_and_150_headers_are_read() {
    let many: String = (0..150).map(|n| format!("X-{n}: {}\r\n", "v".repeat(900))).collect();
    for (name, lines) in [
        ("folded", "ETag:\r\n \"v1\"\r\nX-A: one\r\n  two\r\n\tthree\r\nLast-Modified:\r\n\tyesterday\r\n".to_owned()),
        ("space before the colon", "ETag : \"v1\"\r\nLast-Modified \t: yesterday\r\n".to_owned()),
        ("150", format!("{many}ETag: \"v1\"\r\nLast-Modified: yesterday\r\n")),
        (
            "invalid lines",
            "<!-- cache -->\r\nno colon here\r\n: no name\r\nX y: space in the name\r\nX-Z: a\u{1}b\r\nétag: x\r\n\
             Warning: mysql_connect(): caf\u{e9}\r\nETag: \"v1\"\r\nLast-Modified: yesterday\r\n"
                .to_owned(),
        ),
        ("line feeds alone", "ETag: \"v1\"\nLast-Modified: yesterday\n".to_owned()),
    ] {
        let mut scripts = vec![head_and_body(&format!("{lines}Content-Length: 6\r\n"))];
        // Each byte takes a millisecond.
        scripts.extend((lines.len() < 1000).then(|| in_single_bytes(&lines)));
        for script in scripts {
            let full = full(visit_script(script).await);
            let read = (&full.body[..], full.etag.as_deref(), full.last_modified.as_deref());
            assert_eq!(read, (&b"<rss/>"[..], Some("\"v1\""), Some("yesterday")), "{name}");
        }
    }
}

#[tokio::test]
async fn a_folded_location_is_followed_and_a_folded_length_counts() {
    let origin = Origin::start(|path| match path {
        "/" => vec![say("HTTP/1.1 301 Moved\r\nLocation:\r\n /feed\r\nContent-Length :\r\n\t0\r\n\r\n")],
        _ => vec![say("HTTP/1.1 200 OK\r\nContent-Length:\r\n  6\r\n\r\n<rss/>rest")],
    })
    .await;
    let visit = visit(&origin.url("/")).await;
    assert_eq!(visit.hops.len(), 1);
    assert_eq!(&full(visit).body[..], b"<rss/>");
}

/// Interim responses of this many bytes together, then a document.
fn after_interim(heads: &[String]) -> Script {
    vec![say(heads.concat()), say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<rss/>")]
}

#[tokio::test]
async fn endless_interim_responses_end_after_64_kib() {
    let long_reason = format!("HTTP/1.1 103 {}\r\n\r\n", "x".repeat(100_000));
    let invalid = format!("HTTP/1.1 103 Early Hints\r\n{}\r\n\r\n", "no colon ".repeat(1000));
    for (name, head) in [
        ("continue", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("early hints", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
        ("unknown", "HTTP/1.1 199 \r\n\r\n"),
        ("long reason", &long_reason),
        ("invalid lines", &invalid),
    ] {
        let visit = visit_script(vec![Step::Repeat(head.as_bytes().to_vec())]).await;
        assert_eq!(
            failure(&visit).to_string(),
            "bad-http: 127.0.0.1 sent more than 65536 bytes of interim responses (1xx) and no answer",
            "{name}"
        );
        assert_eq!(visit.code, None, "{name}");
    }
    // What is sent honestly is read, also in the same packet as the document.
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "a".repeat(900));
    for heads in [vec!["HTTP/1.1 100 Continue\r\n\r\n".to_owned()], vec![hints; 50]] {
        assert_eq!(&full(visit_script(after_interim(&heads)).await).body[..], b"<rss/>");
    }
}

/// The same bytes as a server may send them: at once, in packets of 1000 bytes, and with pauses that no bound falls on.
fn cut(text: &str) -> [(&'static str, Script); 3] {
    let (first, rest) = text.split_at(60_001);
    let paused = vec![say(first), Step::Wait(Duration::from_millis(30)), say(rest)];
    let packets = text.as_bytes().chunks(1000).map(say).collect();
    [("one write", vec![say(text)]), ("packets", packets), ("a pause", paused)]
}

#[tokio::test]
async fn a_head_has_256_kib_and_not_a_few_more() {
    let sized = |bytes: usize| {
        let (status, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n", "\r\n\r\n");
        let mut head = status.to_owned();
        while head.len() + 4000 < bytes {
            head += &format!("X-Fill: {}\r\n", "v".repeat(2000));
        }
        let fill = bytes - head.len() - "X-Fill: ".len() - end.len();
        format!("{head}X-Fill: {}{end}<rss/>", "v".repeat(fill))
    };
    for bytes in [262_000, 262_144] {
        for (name, script) in cut(&sized(bytes)) {
            assert_eq!(&full(visit_script(script).await).body[..], b"<rss/>", "{bytes} bytes, {name}");
        }
    }
    for bytes in [262_145, 265_000, 400_000, 500_000] {
        for (name, script) in cut(&sized(bytes)) {
            let visit = visit_script(script).await;
            assert_eq!(
                failure(&visit).to_string(),
                "bad-http: the head of what 127.0.0.1 sent is larger than 262144 bytes, or has more than 256 headers",
                "{bytes} bytes, {name}"
            );
        }
    }
}

#[tokio::test]
async fn interim_responses_have_64_kib_together_and_not_a_few_more() {
    let sized = |bytes: usize, hint: usize| {
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "a".repeat(hint));
        let mut hints = hint.repeat(bytes / hint.len());
        let left = bytes - hints.len();
        let end = "HTTP/1.1 103 \r\nX: \r\n\r\n";
        if left >= end.len() {
            hints += &end.replace("X: ", &format!("X: {}", "b".repeat(left - end.len())));
        }
        format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<rss/>")
    };
    for hint in [100, 3000, 60_000] {
        for bytes in [65_000, 65_536] {
            for (name, script) in cut(&sized(bytes, hint)) {
                assert_eq!(&full(visit_script(script).await).body[..], b"<rss/>", "{bytes}, {name}");
            }
        }
        for bytes in [65_600, 69_000, 80_000, 100_000] {
            for (name, script) in cut(&sized(bytes, hint)) {
                let visit = visit_script(script).await;
                assert_eq!(
                    failure(&visit).to_string(),
                    "bad-http: 127.0.0.1 sent more than 65536 bytes of interim responses (1xx) and no answer",
                    "{bytes} bytes, {name}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_large_document_is_not_mistaken_for_an_interim_response() {
    let body = vec![b'x'; 3_000_000];
    let head =
        format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let script = vec![say([head.into_bytes(), body.clone()].concat())];
    assert_eq!(full(visit_script(script).await).body, body);
}

#[tokio::test]
async fn host_is_the_first_header() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    full(visit(&origin.url("/")).await);
    let (sent, host) = (origin.requests().concat().to_lowercase(), origin.address);
    assert!(sent.starts_with(&format!("get / http/1.1\r\nhost: {host}\r\nuser-agent: ")), "{sent}");
    assert_eq!(sent.matches("host:").count(), 1, "{sent}");
}

#[tokio::test]
async fn two_answers_in_one_are_not_read_as_one() {
    // Two lengths that differ stay an error, however tolerant the rest of the head is read.
    let script = head_and_body("Content-Length: 6\r\nContent-Length:\r\n 7\r\n");
    assert_eq!(class(&visit_script(script).await), FailureClass::BadHttp);
}
