//! Bodies: complete or not at all, and never more than the limit.

use std::io::Write;

use fetch::{FailureClass, FetchResult, Policy, Visitor};
use flate2::{Compression, write::GzEncoder};

use crate::{class, failure, full, origin::*, policy, visit, visit_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=60\r\n";

pub(crate) fn head(headers: &str) -> Step {
    say(format!("{HEAD}{headers}\r\n"))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Spaces in zstd: a frame with a window of 8 MiB, and blocks of one byte that is repeated.
pub(crate) fn zstd_spaces(len: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3];
    let mut rest = len;
    while rest > 0 {
        let block = rest.min(128 * 1024);
        rest -= block;
        let header = u32::from(rest == 0) | 1 << 1 | u32::try_from(block).unwrap() << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

#[tokio::test]
async fn a_complete_body_is_read_in_every_framing() {
    let gzipped = gzip(b"<rss/>");
    let length = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", gzipped.len());
    let cases: [(&str, Script); 6] = [
        ("length", vec![head("Content-Length: 6\r\n"), say("<rss/>")]),
        ("close", vec![head(""), say("<rss/>")]),
        ("chunks", vec![head("Transfer-Encoding: chunked\r\n"), say("3\r\n<rs\r\n3\r\ns/>\r\n0\r\n\r\n")]),
        ("gzip", vec![head(&length), say(&gzipped)]),
        ("no coding", vec![head("Content-Encoding: identity\r\nContent-Length: 6\r\n"), say("<rss/>")]),
        (
            "a charset as coding",
            vec![head("Content-Encoding: UTF-8\r\nContent-Length: 6\r\n"), say("<rss/>")],
        ),
    ];
    let mut hashes = Vec::new();
    for (name, script) in cases {
        let origin = Origin::always(script).await;
        let full = full(visit(&origin.url("/")).await);
        assert_eq!(&full.body[..], b"<rss/>", "{name}");
        hashes.push(full.body_hash);
    }
    hashes.dedup();
    // The first eight bytes of the SHA-256 of <rss/>, for ever.
    assert_eq!(hashes, [0xb8a3_805e_669d_ecf7]);
}

#[tokio::test]
async fn an_empty_body_is_a_document_too() {
    let origin = Origin::always(answer("200 OK", "", "")).await;
    assert!(full(visit(&origin.url("/")).await).body.is_empty());
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit_and_not_a_byte_longer() {
    let visitor = Visitor::try_new(Policy { body_bytes_max: 10_000, ..policy() }).unwrap();
    let origin = Origin::start(|path| {
        let body = vec![b' '; path[2..].parse().unwrap()];
        match &path[1..2] {
            "a" => answer("200 OK", "", body),
            "b" => answer("200 OK", "Content-Encoding: gzip\r\n", gzip(&body)),
            _ => vec![head(""), say(body)],
        }
    })
    .await;
    for how in ["a", "b", "c"] {
        let fits = visit_with(&visitor, &origin.url(&format!("/{how}10000")), None, None).await;
        assert_eq!(fits.body_bytes, 10_000);
        assert!(matches!(fits.answer, FetchResult::Full(_)), "{how}");
        let visit = visit_with(&visitor, &origin.url(&format!("/{how}10001")), None, None).await;
        assert_eq!(class(&visit), FailureClass::TooLarge, "{how}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_read_is_refused_by_its_name() {
    let chunks = || say("3\r\n<rs\r\n3\r\ns/>\r\n0\r\n\r\n");
    for (coding, is_read) in [
        ("chunked", true),
        ("Chunked", true),
        ("identity, chunked", true),
        ("chunked,", false),
        ("gzip, chunked", false),
        ("gzip", false),
        ("chunked, gzip", false),
        ("chunked, chunked", true),
        ("identity, chunked, Chunked", true),
        ("chunked, identity", false),
        ("identity, chunked, identity", false),
        ("chunked, identity, chunked", false),
        ("chunked, gzip, chunked", false),
        // In lines of their own, each of which is a part of one list.
        ("chunked\r\nTransfer-Encoding: chunked", true),
        ("identity\r\nTransfer-Encoding: chunked", true),
        ("chunked\r\nTransfer-Encoding: identity", false),
        ("gzip\r\nTransfer-Encoding: chunked", false),
    ] {
        let head = say(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n"));
        let origin = Origin::always(vec![head, chunks()]).await;
        let visit = visit(&origin.url("/")).await;
        if is_read {
            assert_eq!(&full(visit).body[..], b"<rss/>", "{coding}");
        } else {
            let failure = failure(&visit);
            assert_eq!(failure.class, FailureClass::BadHttp, "{coding}: {failure}");
            let shown = coding.replace("\r\nTransfer-Encoding:", ",");
            assert!(failure.message.contains(&format!("`Transfer-Encoding: {shown}`")), "{failure}");
        }
    }
    // The counterpart: a body without any that ends with its connection.
    let origin = Origin::always(vec![say("HTTP/1.1 200 OK\r\n\r\n<rss/>")]).await;
    assert_eq!(&full(visit(&origin.url("/")).await).body[..], b"<rss/>");
}

#[tokio::test]
async fn a_status_without_a_phrase_is_a_number() {
    for (status, expected) in [("420 Enhance Your Calm", "420"), ("404 Whatever", "404 Not Found")] {
        let origin = Origin::always(answer(status, "", "")).await;
        assert_eq!(
            failure(&visit(&origin.url("/")).await).message,
            format!("the server answered {expected}")
        );
    }
}
