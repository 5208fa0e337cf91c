//! What servers send that is not quite as the standards have it.

use std::io::Write as _;

use fetch::{FailureClass, Policy, RequestOptions, VisitRequest, Visitor};
use flate2::{
    Compression,
    write::{DeflateEncoder, ZlibEncoder},
};
use news::{FeedUrl, Timestamp};

use crate::{
    NOW_MS,
    bodies::{gzip, head},
    class, failure, full,
    origin::*,
    policy, visit,
};

const FEED: &[u8] = b"<rss/>";

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Six bytes in brotli, stored as they are.
fn brotli(bytes: &[u8; 6]) -> Vec<u8> {
    [b"\x8b\x02\x80", &bytes[..], b"\x03"].concat()
}

/// Six bytes in zstd, stored as they are.
fn zstd(bytes: &[u8; 6]) -> Vec<u8> {
    [&b"\x28\xb5\x2f\xfd\x00\x58\x31\x00\x00"[..], bytes].concat()
}

#[tokio::test]
async fn codings_are_known_in_any_case_by_their_old_names_and_in_a_row() {
    let six = b"<rss/>";
    for (headers, body) in [
        ("Content-Encoding: GZIP\r\n", gzip(FEED)),
        ("content-encoding: Gzip\r\n", gzip(FEED)),
        ("Content-Encoding: x-gzip\r\n", gzip(FEED)),
        ("Content-Encoding: X-GZip,\r\n", gzip(FEED)),
        ("Content-Encoding:\r\nContent-Encoding: gzip\r\n", gzip(FEED)),
        ("Content-Encoding: identity, gzip\r\n", gzip(FEED)),
        ("Content-Encoding: Deflate\r\n", zlib(FEED)),
        ("Content-Encoding: BR\r\n", brotli(six)),
        ("Content-Encoding: Zstd\r\n", zstd(six)),
        ("Content-Encoding: br, gzip\r\n", gzip(&brotli(six))),
        ("Content-Encoding: deflate\r\nContent-Encoding: x-gzip\r\n", gzip(&raw_deflate(FEED))),
        ("Content-Encoding: zstd, br, deflate, gzip\r\n", {
            let stored = zstd(six);
            // A stored block of brotli with the length of the frame.
            let stored = [b"\x0b\x07\x80", &stored[..], b"\x03"].concat();
            gzip(&zlib(&stored))
        }),
        ("Content-Encoding: utf-8\r\n", FEED.to_vec()),
        ("Content-Encoding: ISO-8859-1\r\n", FEED.to_vec()),
        ("Content-Encoding: Identity\r\n", FEED.to_vec()),
        ("Content-Type: application/x-gzip\r\n", gzip(FEED)),
        ("Content-Type: application/x-gzip\r\n", FEED.to_vec()),
        ("Content-Type: application/x-gzip\r\nContent-Encoding: x-gzip\r\n", gzip(FEED)),
    ] {
        let origin = Origin::always(answer("200 OK", headers, body)).await;
        let visit = visit(&origin.url("/feed.xml")).await;
        assert_eq!(visit.body_bytes, 6, "{headers}: {:?}", visit.answer);
        let full = full(visit);
        assert_eq!((&full.body[..], full.content_type), (FEED, None), "{headers}");
    }
}

#[tokio::test]
async fn deflate_is_read_with_and_without_its_zlib_head() {
    let long = b"<item>one two three</item>".repeat(3000);
    for document in [&long[..], FEED, b"<"] {
        for body in [zlib(document), raw_deflate(document)] {
            let origin = Origin::always(answer("200 OK", "Content-Encoding: deflate\r\n", body)).await;
            assert_eq!(&full(visit(&origin.url("/")).await).body[..], document);
        }
    }
}

#[tokio::test]
async fn members_of_gzip_follow_each_other_and_other_bytes_after_them_are_ignored() {
    for (body, document) in [
        (gzip(FEED).repeat(3), &b"<rss/><rss/><rss/>"[..]),
        ([gzip(FEED), b"\r\n".to_vec()].concat(), FEED),
        ([gzip(FEED), vec![0; 500]].concat(), FEED),
        ([gzip(FEED), b"<!-- cached -->".to_vec()].concat(), FEED),
    ] {
        let origin = Origin::always(answer("200 OK", "Content-Encoding: gzip\r\n", body)).await;
        assert_eq!(&full(visit(&origin.url("/")).await).body[..], document);
    }
}

#[tokio::test]
async fn a_wrong_coding_is_named_in_words() {
    let wrong = "the server says that the body is compressed (gzip), but it is plain text; its Content-Encoding is wrong";
    let missing =
        "the body is compressed (gzip), but the server does not say so; its Content-Encoding is missing";
    for (headers, body, message) in [
        ("Content-Encoding: gzip\r\n", b"<?xml version='1.0'?><rss/>".to_vec(), wrong),
        ("Content-Encoding: gzip\r\n", b"\xef\xbb\xbf<rss/>".to_vec(), wrong),
        ("", gzip(FEED), missing),
        ("Content-Type: text/xml\r\n", gzip(FEED), missing),
        (
            "Content-Encoding: aws-chunked\r\n",
            FEED.to_vec(),
            "the content coding aws-chunked is not supported",
        ),
        ("Content-Encoding: gzip, \"x\"\r\n", gzip(FEED), "the content coding \"x\" is not supported"),
        ("Content-Encoding: gzip, X-GZIP\r\n", gzip(&gzip(FEED)), "the content coding gzip is repeated"),
    ] {
        let origin = Origin::always(answer("200 OK", headers, body)).await;
        let failure = failure(&visit(&origin.url("/")).await);
        assert_eq!((failure.class, &*failure.message), (FailureClass::BadEncoding, message));
    }
}

#[tokio::test]
async fn a_cut_body_is_truncated_in_every_coding() {
    let six = b"<rss/>";
    for (coding, body) in [
        ("gzip", gzip(FEED)),
        ("deflate", zlib(FEED)),
        ("deflate", raw_deflate(FEED)),
        ("br", brotli(six)),
        ("zstd", zstd(six)),
        ("br, gzip", gzip(&brotli(six))),
    ] {
        let coded = format!("Content-Encoding: {coding}\r\n");
        let length = format!("{coded}Content-Length: {}\r\n", body.len());
        let cut = say(&body[..body.len() - 1]);
        for (headers, script) in [
            (&length, vec![cut.clone()]),
            (&length, vec![cut.clone(), Step::Reset]),
            (&coded, vec![cut.clone()]),
        ] {
            let origin = Origin::always([vec![head(headers)], script].concat()).await;
            let visit = visit(&origin.url("/")).await;
            assert_eq!(class(&visit), FailureClass::Truncated, "{coding}: {:?}", visit.answer);
        }
    }
}

#[tokio::test]
async fn a_port_in_fetch_ports_is_visited_and_any_other_is_refused_by_the_name_of_the_key() {
    // A proxy stands for the public internet: it answers for every name.
    let proxy = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let options = RequestOptions::default().with_proxy(FeedUrl::try_new(&proxy.url("/")).unwrap());
    let visitor = Visitor::try_new(Policy { ports: vec![80, 8443], ..policy() }).unwrap();
    for (url, visited) in [
        ("http://feeds.example/", true),
        ("http://feeds.example:8443/", true),
        ("http://8.8.8.8:8443/", true),
        ("http://feeds.example:8080/", false),
        ("http://feeds.example:443/", false),
        ("http://8.8.8.8:8080/", false),
    ] {
        let url = FeedUrl::try_new(url).unwrap();
        let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
        let visit = visitor.visit(&VisitRequest { options: Some(&options), ..request }).await;
        if visited {
            full(visit);
            continue;
        }
        assert_eq!(class(&visit), FailureClass::BlockedAddress, "{url}");
        let port = url.secret().port_or_known_default().unwrap();
        let message =
            format!("port {port} is not a web port (fetch.ports = [80, 8443]); add it there to permit it");
        assert!(failure(&visit).message.ends_with(&message), "{}", failure(&visit).message);
    }
    assert_eq!(proxy.accepts(), 3);
}
