//! The feed side of the hostile catalogue, by its numbers: each test is the attack, and its assertion is the bound.
//!
//! Elsewhere: A08 (redirects by a hijacker) in ingestd/src/visit/redirects.rs; A11 (imports of millions) in e2e/tests/sources.rs; A25,
//! A29, A30, A31 in ingestd/src/simulation/hostile.rs; A27 in tls.rs and deadlines.rs; the property of A03 next
//! to the guard. A canary is a listener that must not be reached.

use std::{net::IpAddr, sync::atomic::Ordering, time::Duration};

use fetch::{
    FailureClass, FetchResult, Policy, Visitor,
    schedule::{IntervalBounds, ScheduleInput, ScheduleOutcome, next_visit},
};
use flate2::{Compress, Compression, FlushCompress};
use news::{FeedUrl, Timestamp};

use crate::{
    NOW_MS,
    bodies::{gzip, head},
    class,
    deadlines::{is_about, timed},
    failure, full,
    guard::{child_with, ips, scripted},
    origin::*,
    policy, visit, visit_with,
};

const HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";
const CANARIES: std::ops::RangeInclusive<u8> = 2..=9;

/// Listeners at 127.0.0.2 to 127.0.0.9 and at [::1], all on one port. The policy allows 127.0.0.1 alone.
async fn canaries() -> (Vec<Origin>, u16) {
    let first = Origin::canary("127.0.0.2:0").await;
    let port = first.address.port();
    let mut all = vec![first, Origin::canary(&format!("[::1]:{port}")).await];
    for n in CANARIES.skip(1) {
        all.push(Origin::canary(&format!("127.0.0.{n}:{port}")).await);
    }
    (all, port)
}

fn accepts(canaries: &[Origin]) -> usize {
    canaries.iter().map(Origin::accepts).sum()
}

/// Every canary in every spelling, and one address of each network that is not public.
fn forms() -> Vec<String> {
    let mut forms: Vec<String> = CANARIES
        .flat_map(|n| {
            let n = u32::from(n);
            [
                format!("127.0.0.{n}"),
                format!("127.0.0.{n}."),
                format!("{}", 0x7f00_0000 + n),
                format!("0x{:x}", 0x7f00_0000 + n),
                format!("0x7f.{n}"),
                format!("127.{n}"),
                format!("0177.0.0.{n:#o}").replace("0o", "0"),
                format!("0{:o}", 0x7f00_0000 + n),
                format!("127。0。0。{n}"),
                format!("１２７.0.0.{n}"),
                format!("[::ffff:127.0.0.{n}]"),
                format!("[::ffff:7f00:{n:x}]"),
                format!("[::127.0.0.{n}]"),
                format!("[64:ff9b::127.0.0.{n}]"),
                format!("[2002:7f00:{n:x}::]"),
                format!("[2001:0:7f00:{n:x}::]"),
                format!("[2001:0:808:808::80ff:{:x}]", 0xffff - n),
            ]
        })
        .collect();
    let others = "0 0.0.0.0 [::] [::1] [0:0:0:0:0:0:0:1] 10.0.0.1 100.64.0.1 169.254.169.254 0xa9fea9fe 172.16.0.1 \
        192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 \
        255.255.255.255 168.63.129.16 [fc00::1] [fd00:ec2::254] [fe80::1] [fec0::1] [ff02::1] [2001:db8::1] [3fff::1] \
        [64:ff9b:1::1] [100::1] [2001:2::1] [::ffff:10.0.0.1] [::ffff:169.254.169.254] [64:ff9b::a9fe:a9fe]";
    forms.extend(others.split_whitespace().map(str::to_owned));
    forms
}

const PRIVATE_FORMS: &str = "hostile::a01_no_private_address_is_visited_as_feed_or_as_redirect";

#[tokio::test]
async fn a01_no_private_address_is_visited_as_feed_or_as_redirect() {
    let (canaries, port) = canaries().await;
    let relay = Origin::start(move |path| redirect(302, &format!("http://{}:{port}/", &path[1..]))).await;
    let forms = forms();
    assert!(forms.len() >= 60, "{}", forms.len());
    for host in forms {
        let direct = visit(&format!("http://{host}:{port}/")).await;
        assert_eq!(class(&direct), FailureClass::BlockedAddress, "{host}");
        let relayed = visit(&relay.url(&format!("/{host}"))).await;
        assert_eq!((relayed.code, relayed.hops.len()), (Some(302), 1), "{host}");
        assert_eq!(class(&relayed), FailureClass::BlockedAddress, "{host}");
    }
    assert_eq!(accepts(&canaries), 0);
}

#[tokio::test]
async fn a02_a_canary_is_one_address_however_it_is_spelled() {
    for form in forms().iter().take(10) {
        let url = FeedUrl::try_new(&format!("http://{form}/")).unwrap();
        assert_eq!(url.host(), "127.0.0.2", "{form}: what is judged is what is dialled");
    }
}

#[tokio::test]
async fn a03_an_address_inside_another_is_not_visited_by_name_either() {
    let (canaries, port) = canaries().await;
    let url = format!("http://feeds.example:{port}/");
    let (mut attempts, mut refused) = (0, 0);
    for form in forms() {
        let Ok(ip) = form.trim_matches(['[', ']']).parse::<IpAddr>() else { continue };
        let (visitor, _) = scripted(vec![Ok(vec![ip])]);
        attempts += 1;
        refused +=
            usize::from(class(&visit_with(&visitor, &url, None, None).await) == FailureClass::BlockedAddress);
    }
    assert!(attempts >= 60 && attempts == refused, "{refused} of {attempts} were refused");
    assert_eq!(accepts(&canaries), 0);
}

#[tokio::test]
async fn a04_a_name_that_turns_private_is_refused_at_every_form() {
    let (canaries, port) = canaries().await;
    let origin = Origin::start_on("127.0.0.1", port, answer("200 OK", "", "<rss/>")).await;
    let url = format!("http://feeds.example:{port}/");
    let mut attempts = 0;
    for form in forms() {
        let Ok(ip) = form.trim_matches(['[', ']']).parse::<IpAddr>() else { continue };
        let (visitor, _) = scripted(vec![ips(&["127.0.0.1"]), Ok(vec![ip])]);
        full(visit_with(&visitor, &url, None, None).await);
        let again = visit_with(&visitor, &url, None, None).await;
        assert_eq!(class(&again), FailureClass::BlockedAddress, "{form}");
        attempts += 1;
    }
    assert_eq!((origin.accepts(), accepts(&canaries)), (attempts, 0));
}

#[tokio::test]
async fn a04_a_name_is_looked_up_once_and_only_checked_addresses_are_used() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let canary = Origin::canary(&format!("127.0.0.2:{}", origin.address.port())).await;
    let (visitor, resolver) = scripted(vec![ips(&["127.0.0.1"]), ips(&["127.0.0.2"])]);
    let url = origin.url("/").replace("127.0.0.1", "feeds.example");
    let first = visit_with(&visitor, &url, None, None).await;
    assert_eq!(resolver.lookups.load(Ordering::SeqCst), 1);
    assert_eq!(first.remote, Some(origin.address));
    assert_eq!(full(first).url.as_str(), url);
    assert!(origin.requests()[0].to_lowercase().contains("host: feeds.example:"));
    // The name resolves to another address now: every connection is checked again.
    let second = visit_with(&visitor, &url, None, None).await;
    assert_eq!((class(&second), canary.accepts()), (FailureClass::BlockedAddress, 0));
}

#[tokio::test]
async fn a04_one_private_answer_refuses_the_name() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let url = origin.url("/").replace("127.0.0.1", "feeds.example");
    let mut thousand = vec!["127.0.0.1"; 1_000];
    thousand.push("10.0.0.1");
    for found in
        [&["127.0.0.1", "127.0.0.2"][..], &["::1", "127.0.0.1"], &["127.0.0.1", "64:ff9b::a00:1"], &thousand]
    {
        let visit = visit_with(&scripted(vec![ips(found)]).0, &url, None, None).await;
        assert_eq!(class(&visit), FailureClass::BlockedAddress);
    }
    assert_eq!(origin.accepts(), 0);
    let thousand = vec!["127.0.0.1"; 1_000];
    full(visit_with(&scripted(vec![ips(&thousand)]).0, &url, None, None).await);
}

#[tokio::test]
async fn a04_a_name_without_an_address_has_its_own_class() {
    let url = "http://feeds.example/";
    for (answer, said) in [
        (ips(&[]), "dns: feeds.example has no address"),
        (Err("no such name"), "dns: could not look up feeds.example: no such name"),
    ] {
        let visit = visit_with(&scripted(vec![answer]).0, url, None, None).await;
        assert_eq!(failure(&visit).to_string(), said);
    }
}

#[tokio::test]
async fn a05_no_kind_and_no_chain_of_redirects_leads_to_a_canary() {
    let (canaries, port) = canaries().await;
    let relay = Origin::start(move |path| match path.split('/').nth(2) {
        Some("0") => redirect(path[1..4].parse().unwrap(), &format!("http://127.0.0.2:{port}/")),
        Some(n) => redirect(302, &format!("{}/{}", &path[..4], n.parse::<u8>().unwrap() - 1)),
        None => answer("404 Not Found", "", ""),
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        for before in 0..5 {
            let visit = visit(&relay.url(&format!("/{status}/{before}"))).await;
            assert_eq!(class(&visit), FailureClass::BlockedAddress, "{status}, {before} hops before");
            assert_eq!(visit.hops.len(), before + 1);
        }
    }
    assert_eq!(accepts(&canaries), 0);
}

#[tokio::test]
async fn a06_only_the_web_is_visited() {
    let targets = [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/x",
        "data:text/xml,SECRET",
        "javascript:alert(1)",
    ];
    let relay = Origin::start(|path| redirect(302, &path[1..])).await;
    for target in targets {
        assert!(FeedUrl::try_new(target).is_err(), "{target}");
        let relayed = visit(&relay.url(&format!("/{target}"))).await;
        assert_eq!((class(&relayed), relayed.code), (FailureClass::BadUrl, Some(302)), "{target}");
        assert!(!failure(&relayed).message.contains("SECRET"));
    }
}

#[tokio::test]
async fn a07_the_sixth_redirect_is_one_too_many() {
    let origin = Origin::start(|path| {
        let n: u32 = path[1..].parse().unwrap();
        if n == 0 { answer("200 OK", "", "<rss/>") } else { redirect(302, &format!("/{}", n - 1)) }
    })
    .await;
    assert!(matches!(visit(&origin.url("/5")).await.answer, FetchResult::Full(_)));
    let accepted = origin.accepts();
    let visit = visit(&origin.url("/6")).await;
    assert_eq!(failure(&visit).to_string(), "redirect: more than 5 redirects");
    assert_eq!((visit.hops.len(), origin.accepts() - accepted), (5, policy().hops_max + 1));
}

#[tokio::test]
async fn a07_a_circle_ends_when_it_closes() {
    let origin = Origin::start(|path| match path {
        "/self" => redirect(301, "/self#again"),
        "/a" => redirect(302, "/b"),
        _ => redirect(302, "/a"),
    })
    .await;
    for (path, accepted) in [("/self", 1), ("/a", 2)] {
        let before = origin.accepts();
        assert_eq!(class(&visit(&origin.url(path)).await), FailureClass::Redirect, "{path}");
        assert_eq!(origin.accepts() - before, accepted, "{path}");
    }
}

#[tokio::test]
async fn a09_a_proxy_in_the_environment_is_not_used_for_any_form() {
    let canary = Origin::canary("127.0.0.2:0").await;
    let proxy = format!("http://{}", canary.address);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    for test in [PRIVATE_FORMS, "guard::a_visit_connects_directly_to_its_host"] {
        child_with(test, names.map(|name| (name, proxy.clone())).to_vec()).await;
    }
    assert_eq!(canary.accepts(), 0);
}

#[tokio::test]
async fn a10_a_port_that_is_not_a_web_port_is_not_visited() {
    for port in [1, 22, 25, 53, 110, 143, 445, 2375, 3306, 5432, 6379, 8500, 9200, 11_211, 27_017, 65_535] {
        let visit = visit(&format!("http://8.8.8.8:{port}/")).await;
        assert_eq!(class(&visit), FailureClass::BlockedAddress, "{port}");
        assert!(failure(&visit).message.starts_with(&format!("port {port} is not a web port")));
    }
}

#[tokio::test]
async fn a20_an_endless_body_is_cut_at_the_limit() {
    let visitor = Visitor::try_new(Policy { body_bytes_max: 100_000, ..policy() }).unwrap();
    let origin = Origin::always(vec![head(""), Step::Repeat(vec![0; 1000])]).await;
    let visit = visit_with(&visitor, &origin.url("/"), None, None).await;
    assert_eq!(class(&visit), FailureClass::TooLarge);
    assert!(visit.body_bytes < 2_000_000, "{}", visit.body_bytes);
}

#[tokio::test]
async fn a20_a_body_with_too_large_a_content_length_is_not_read() {
    let origin = Origin::always(vec![head("Content-Length: 99999999999\r\n"), Step::Hang]).await;
    let visit = visit(&origin.url("/")).await;
    assert_eq!((class(&visit), visit.body_bytes), (FailureClass::TooLarge, 0));
}

#[tokio::test]
async fn a21_a_repeated_unknown_or_damaged_coding_is_refused() {
    let (once, twice) = (gzip(b"<rss/>"), gzip(&gzip(b"<rss/>")));
    let mut damaged = gzip(&[7; 5000]);
    damaged[14] ^= 0xff;
    for (name, headers, body) in [
        ("list", "Content-Encoding: gzip, gzip\r\n", &twice),
        ("two lines", "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", &twice),
        ("twice, declared once", "Content-Encoding: gzip\r\n", &twice),
        ("not declared", "", &once),
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

fn memory_bytes(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The coding of the bomb in the process that runs [`BOMB`]; gzip by default.
const CODING: &str = "HOSTILE_CODING";
const BOMB: &str = "hostile::a21_a_bomb_takes_no_more_memory_than_the_limit";

#[tokio::test]
async fn a21_a_bomb_takes_no_more_memory_than_the_limit() {
    let coding = std::env::var(CODING).unwrap_or_else(|_| "gzip".to_owned());
    let bomb = match coding.as_str() {
        "deflate" => [vec![0x78, 0xda], deflated_megabyte().repeat(256)].concat(),
        "zstd" => zstd_bomb(),
        "br" => brotli_bomb(),
        "gzip, gzip" | "gzip twice" => gzip(&gzip_bomb()),
        _ => gzip_bomb(),
    };
    assert!(bomb.len() < 500_000, "{coding}: {}", bomb.len());
    let declared = coding.trim_end_matches(" twice");
    let origin = Origin::always(answer("200 OK", &format!("Content-Encoding: {declared}\r\n"), bomb)).await;
    let visitor = Visitor::try_new(Policy { timeout_total: Duration::from_secs(120), ..policy() }).unwrap();
    // If the peak cannot be reset it includes earlier memory, which makes the limit stricter.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = memory_bytes("VmRSS:");
    let visit = visit_with(&visitor, &origin.url("/"), None, None).await;
    let grown = memory_bytes("VmHWM:").saturating_sub(before);
    let nested = coding.starts_with("gzip ") || coding.starts_with("gzip,");
    let expected = if nested { FailureClass::BadEncoding } else { FailureClass::TooLarge };
    assert_eq!(class(&visit), expected, "{coding}");
    assert!(visit.body_bytes < 11 << 20, "{coding}: {}", visit.body_bytes);
    assert!(grown <= 32 << 20, "{coding}: {grown}");
    println!("{coding}: {grown} bytes more at the peak");
}

#[tokio::test]
async fn a21_no_coding_makes_a_bomb_that_takes_more() {
    for coding in ["deflate", "zstd", "br", "gzip, gzip", "gzip twice"] {
        let said = child_with(BOMB, vec![(CODING, coding.to_owned())]).await;
        assert!(said.contains(&format!("{coding}: ")), "{said}");
    }
}

#[tokio::test]
async fn a22_a_slow_or_missing_head_ends_at_its_deadline() {
    let policy = Policy { timeout_first_byte: Duration::from_millis(200), ..policy() };
    let drip = Step::Drip(vec![b'x'; 500], Duration::from_millis(20));
    let to_answer = "waiting for 127.0.0.1 to answer";
    for (script, doing) in [
        (vec![Step::Hang], to_answer),
        (vec![say("HTTP/1.1 100 Continue\r\n\r\n"), Step::Hang], to_answer),
        (
            vec![say("HTTP/1.1 200 OK\r\nx: "), drip],
            "waiting for the end of the head that 127.0.0.1 had begun",
        ),
    ] {
        let origin = Origin::always(script).await;
        let (visit, took) = timed(policy.clone(), &origin.url("/")).await;
        assert_eq!(
            failure(&visit).to_string(),
            format!("timeout: {doing} took longer than 200ms (fetch.timeout_first_byte)")
        );
        assert!(is_about(took, 200), "{took:?}");
        assert_eq!((visit.code, origin.accepts()), (None, 1));
    }
}

#[tokio::test]
async fn a22_the_total_deadline_ends_a_slow_body() {
    // Less than a hundred bytes per second, but fast enough for a rate of 20.
    let policy = Policy { timeout_total: Duration::from_secs(2), rate_bytes_min: 20, ..policy() };
    let origin =
        Origin::always(vec![say(HEAD), Step::Drip(vec![b' '; 5000], Duration::from_millis(10))]).await;
    let (visit, took) = timed(policy, &origin.url("/")).await;
    assert_eq!(
        failure(&visit).to_string(),
        "timeout: the visit took longer than 2s (fetch.timeout_total); it ended while reading the body"
    );
    assert!(is_about(took, 2_000), "{took:?}");
    assert!(visit.body_bytes > 0);
}

#[tokio::test]
async fn a22_a_body_that_is_too_slow_ends_after_its_grace_period() {
    let policy = Policy { rate_grace: Duration::from_millis(300), ..policy() };
    for step in [Step::Drip(vec![b' '; 5000], Duration::from_millis(10)), Step::Hang] {
        let origin = Origin::always(vec![say(HEAD), say(" "), step]).await;
        let (visit, took) = timed(policy.clone(), &origin.url("/")).await;
        assert_eq!(class(&visit), FailureClass::Timeout);
        assert!(failure(&visit).message.starts_with("the body arrived slower than 1024 bytes per second"));
        assert!(is_about(took, 300), "{took:?}");
    }
}

#[tokio::test]
async fn a23_the_size_of_the_head_is_bounded() {
    let many: String = (0..257).map(|n| format!("h{n}: x\r\n")).collect();
    let long = "x".repeat(600_000);
    for (name, headers) in [("many", many), ("long", format!("x: {long}\r\n"))] {
        let origin = Origin::always(vec![say(format!("HTTP/1.1 200 OK\r\n{headers}\r\n"))]).await;
        let visit = visit(&origin.url("/")).await;
        assert_eq!(
            (class(&visit), origin.accepts()),
            (FailureClass::BadHttp, 1),
            "{name}: {:?}",
            visit.answer
        );
        let bounds = "is larger than 262144 bytes, or has more than 256 headers";
        assert!(failure(&visit).message.ends_with(bounds), "{name}: {:?}", visit.answer);
    }
    // Too long to be stored, and so never sent back.
    let headers = format!("ETag: \"{}\"\r\nLast-Modified: {}\r\n", "e".repeat(1024), "l".repeat(1025));
    let origin = Origin::always(answer("200 OK", &headers, "<rss/>")).await;
    let full = full(visit(&origin.url("/")).await);
    assert_eq!((full.etag, full.last_modified), (None, None));
}

#[tokio::test]
async fn a24_a_truncated_body_is_not_used() {
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
async fn a26_a_response_that_is_not_http_has_its_own_class() {
    for (name, said) in [
        ("garbage", "\0\u{1}\u{2}garbage\r\n\r\n".to_owned()),
        ("no status line", "<rss>HTTP/0.9</rss>\r\n\r\n".to_owned()),
        ("another protocol", "220 mail.example.org ESMTP\r\n\r\n".to_owned()),
        ("status", "HTTP/1.1 9999 Many\r\n\r\n".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned()),
        ("negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_owned()),
    ] {
        let origin = Origin::always(vec![say(said)]).await;
        let visit = visit(&origin.url("/")).await;
        assert_eq!(class(&visit), FailureClass::BadHttp, "{name}: {:?}", visit.answer);
        assert_eq!(origin.accepts(), 1, "{name}");
    }
}

#[tokio::test]
async fn a28_no_header_delays_the_next_visit_for_years_or_makes_it_immediate() {
    const DAY: Duration = Duration::from_secs(86_400);
    let pace = IntervalBounds::default();
    let now = Timestamp::from_millis(NOW_MS);
    for (status, header) in [
        ("429 Too Many", "Retry-After: 99999999999999999999"),
        ("429 Too Many", "Retry-After: 315360000"),
        ("503 Busy", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"),
        ("503 Busy", "Retry-After: Sun, 06 Nov 1994 08:00:00 GMT"),
        ("503 Busy", "Retry-After: 0"),
        ("429 Too Many", "Retry-After: -5"),
        ("429 Too Many", "Retry-After: soon"),
        ("200 OK", "Cache-Control: max-age=99999999999999999999"),
        ("200 OK", "Cache-Control: max-age=315360000"),
        ("200 OK", "Cache-Control: max-age=-1"),
        ("200 OK", "Expires: Fri, 31 Dec 9999 23:59:59 GMT"),
        ("200 OK", "Expires: Thu, 01 Jan 1970 00:00:00 GMT"),
        ("200 OK", "Expires: 0"),
        ("200 OK", "Cache-Control: max-age=60\r\nAge: 99999999999"),
    ] {
        let origin = Origin::always(answer(status, &format!("{header}\r\n"), "<rss/>")).await;
        let visit = visit(&origin.url("/")).await;
        let ended =
            if status.starts_with("200") { ScheduleOutcome::Healthy } else { ScheduleOutcome::Throttled };
        for jitter in [0.0, 0.5, 1.0] {
            let mut facts = ScheduleInput::new(pace, now, ended);
            (facts.code, facts.failures) = (visit.code, 1);
            (facts.cache_life, facts.retry_after) = (visit.cache.fresh_for, visit.retry_after);
            let next = next_visit(&facts, jitter);
            let wait = next.at.expect("no header ends the visits").since(now);
            assert!(wait >= pace.interval_min && wait <= DAY + DAY / 10, "{header}: {wait:?}, {}", next.why);
        }
    }
}

#[test]
fn a32_no_process_of_newswire_speaks_http_2() {
    let lock = include_str!("../../../../Cargo.lock");
    assert!(lock.contains("name = \"hyper\"\n"), "this is the list of what we are built from");
    assert!(!lock.contains("name = \"h2\"\n"), "some feature brought HTTP/2 in");
}
