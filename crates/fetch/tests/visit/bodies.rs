//! Bodies: whole or not at all, and never more than the cap.

use std::{io::Write, time::Duration};

use fetch::{Answer, FailureClass, Policy, Visitor};
use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use tokio::time::Instant;

use crate::{class, full, origin::*, policy, visit, visit_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nCache-Control: max-age=60\r\n";

fn head(headers: &str) -> Step {
    say(format!("{HEAD}{headers}\r\n"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_cut_body_gives_nothing() {
    let gzipped = gzip(b"<rss>0123456789</rss>");
    let cases: [(&str, Script); 8] = [
        ("short", vec![head("Content-Length: 100\r\n"), say("<rss>")]),
        ("reset", vec![head("Content-Length: 100\r\n"), say("<rss>"), Step::Reset]),
        ("chunk", vec![head("Transfer-Encoding: chunked\r\n"), say("10\r\n<rss>")]),
        ("no last chunk", vec![head("Transfer-Encoding: chunked\r\n"), say("5\r\n<rss>\r\n")]),
        ("chunk size", vec![head("Transfer-Encoding: chunked\r\n"), say("5\r\n<rss>\r\nzz\r\n")]),
        (
            "gzip, length",
            vec![head("Content-Encoding: gzip\r\nContent-Length: 100\r\n"), say(&gzipped[..20])],
        ),
        ("gzip, end", vec![head("Content-Encoding: gzip\r\n"), say(&gzipped[..gzipped.len() - 12])]),
        ("empty head", vec![say("")]),
    ];
    for (name, script) in cases {
        let origin = Origin::always(script).await;
        let visit = visit(&origin.url("/")).await;
        assert_eq!(class(&visit), FailureClass::Truncated, "{name}: {:?}", visit.answer);
        assert_eq!(visit.cache.fresh_for, None, "{name}");
    }
}

#[tokio::test]
async fn a_whole_body_comes_in_every_framing() {
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
async fn a_coding_that_is_doubled_unknown_or_damaged_is_refused() {
    let (once, twice) = (gzip(b"<rss/>"), gzip(&gzip(b"<rss/>")));
    let mut damaged = gzip(&[7; 5000]);
    damaged[14] ^= 0xff;
    for (name, headers, body) in [
        ("list", "Content-Encoding: gzip, gzip\r\n", &twice),
        ("two lines", "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", &twice),
        ("twice, told once", "Content-Encoding: gzip\r\n", &twice),
        ("not told", "", &once),
        ("unknown", "Content-Encoding: compress\r\n", &once),
        ("lie", "Content-Encoding: gzip\r\n", &b"<rss>no gzip at all</rss>".to_vec()),
        ("wrong", "Content-Encoding: br\r\n", &once),
        ("zstd", "Content-Encoding: zstd\r\n", &once),
        ("damaged", "Content-Encoding: gzip\r\n", &damaged),
    ] {
        let origin = Origin::always(answer("200 OK", headers, body)).await;
        let visit = visit(&origin.url("/")).await;
        assert_eq!(class(&visit), FailureClass::BadEncoding, "{name}: {:?}", visit.answer);
    }
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_cap_and_not_a_byte_longer() {
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
        assert!(matches!(fits.answer, Answer::Full(_)), "{how}");
        let visit = visit_with(&visitor, &origin.url(&format!("/{how}10001")), None, None).await;
        assert_eq!(class(&visit), FailureClass::TooLarge, "{how}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_cap() {
    let visitor = Visitor::try_new(Policy { body_bytes_max: 100_000, ..policy() }).unwrap();
    let origin = Origin::always(vec![head(""), Step::Repeat(vec![0; 1000])]).await;
    let visit = visit_with(&visitor, &origin.url("/"), None, None).await;
    assert_eq!(class(&visit), FailureClass::TooLarge);
    assert!(visit.body_bytes < 2_000_000, "{}", visit.body_bytes);
}

#[tokio::test]
async fn a_body_that_is_announced_too_long_is_not_read() {
    let origin = Origin::always(vec![head("Content-Length: 99999999999\r\n"), Step::Hang]).await;
    let visit = visit(&origin.url("/")).await;
    assert_eq!((class(&visit), visit.body_bytes), (FailureClass::TooLarge, 0));
}

/// A gzip file of 256 MiB of zeros in 260 KB, without ever having them in memory: the same block over and over.
fn gzip_bomb() -> Vec<u8> {
    [vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], deflated_megabyte().repeat(256)].concat()
}

fn deflated_megabyte() -> Vec<u8> {
    let mut block = Vec::with_capacity(10_000);
    let zeros = vec![0; 1 << 20];
    Compress::new(Compression::best(), false).compress_vec(&zeros, &mut block, FlushCompress::Full).unwrap();
    block
}

/// 256 MiB of zeros in zstd: a frame of blocks of 128 KiB, each one byte repeated.
fn zstd_bomb() -> Vec<u8> {
    let block = ((1_u32 << 17) << 3 | 1 << 1).to_le_bytes();
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    [&frame[..], &[block[0], block[1], block[2], 0].repeat(2048)].concat()
}

/// 256 MiB of zeros in brotli.
fn brotli_bomb() -> Vec<u8> {
    let hex: String = include_str!("zeros.br.hex").split_whitespace().collect();
    hex.as_bytes()
        .chunks(2)
        .map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 16).unwrap())
        .collect()
}

fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_bomb_costs_no_more_than_the_cap() {
    let visitor = Visitor::try_new(Policy { timeout_total: Duration::from_secs(20), ..policy() }).unwrap();
    let zlib = [vec![0x78, 0xda], deflated_megabyte().repeat(256)].concat();
    for (coding, bomb) in
        [("gzip", gzip_bomb()), ("deflate", zlib), ("zstd", zstd_bomb()), ("br", brotli_bomb())]
    {
        assert!(bomb.len() < 500_000, "{coding}: {}", bomb.len());
        let origin = Origin::always(answer("200 OK", &format!("Content-Encoding: {coding}\r\n"), bomb)).await;
        let (before, started) = (memory_peak_bytes(), Instant::now());
        let visit = visit_with(&visitor, &origin.url("/"), None, None).await;
        assert_eq!(class(&visit), FailureClass::TooLarge, "{coding}");
        assert!(visit.body_bytes < 11 << 20, "{coding}: {}", visit.body_bytes);
        let (grown, took) = (memory_peak_bytes() - before, started.elapsed());
        assert!(grown < 32 << 20, "{coding}: {grown}");
        println!("{coding}: {grown} bytes more at the peak, {took:?}");
    }
}
