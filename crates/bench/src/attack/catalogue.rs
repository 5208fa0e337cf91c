//! The attacks. Each uses one address, a resource that a client can make the gateway spend, and as many connections as it
//! takes to spend much of it.

use std::time::Duration;

use super::attacker::{Reading, Script};
use crate::payload::EPOCH;

/// What the ring of the attacked gateway is full of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingContent {
    /// 20,000 items of 512 bytes.
    Small,
    /// Items of 64 KiB, as many as there is room for.
    Large,
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What the attacker does.
    pub(crate) what: &'static str,
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// Lines for `[gateway]`, if the defaults lack what is attacked.
    pub(crate) settings: &'static str,
    pub(crate) script: fn(u64) -> Script,
}

const fn attack(
    name: &'static str,
    what: &'static str,
    connections: usize,
    script: fn(u64) -> Script,
) -> Attack {
    Attack { name, what, connections, settings: "", script }
}

/// All attacks: first those with work, then those with memory, then those with connections.
pub(crate) const ATTACKS: &[Attack] = &[
    attack("pipelined", "3,000 searches pipelined on one connection", 1, |n| pipelined(n, search)),
    attack("pipelined-64", "the same on 64 connections", 64, |n| pipelined(n, search)),
    attack("pipelined-health", "3,000 health checks pipelined on 16 connections", 16, |n| {
        pipelined(n, |_| "/health".to_owned())
    }),
    attack("pipelined-unread", "3,000 lists of sources pipelined on 64 connections, none is read", 64, |n| {
        Script { reading: Reading::Nothing, ..pipelined(n, |_| "/sources".to_owned()) }
    }),
    attack("searches", "400 searches at once", 400, |n| get(&search(n))),
    attack("searches-words", "400 searches at once for 32 words each", 400, |n| {
        get(&many_words("/news?limit=1000", n))
    }),
    attack("searches-near", "400 searches at once for a word that matches almost everywhere", 400, |n| {
        get(&format!("/news?limit=1000&q=aaaaaaaaaaaa{n}"))
    }),
    attack("pages", "200 of the largest pages at once", 200, |_| get("/news?limit=1000")),
    attack("pages-log", "200 pages of events that only the log has at once", 200, |n| {
        get(&format!("/news?limit=1000&before={EPOCH}-{}", n % 8000 + 2))
    }),
    attack("items-log", "200 events that only the log has at once", 200, |n| {
        get(&format!("/news/{EPOCH}-{}", n % 8000 + 1))
    }),
    attack("sources", "1,000 lists of 20,000 sources at once", 1000, |_| get("/sources")),
    attack("categories", "1,000 lists of categories at once", 1000, |_| get("/categories")),
    attack("metrics", "400 scrapes at once", 400, |_| get("/metrics")),
    attack("health", "1,000 health checks at once", 1000, |_| get("/health")),
    attack("heads", "400 HEAD requests of the largest pages at once", 400, |n| {
        request("HEAD", if n % 2 == 0 { "/news?limit=1000" } else { "/sources" }, "")
    }),
    attack("unknown", "400 requests of what does not exist, and orders without a token, at once", 400, |n| {
        match n % 3 {
            0 => get(&format!("/x{n}")),
            1 => request("POST", "/news/refresh", "authorization: Bearer x\r\ncontent-length: 0\r\n"),
            _ => request("OPTIONS", "/news", "origin: https://x.example\r\n"),
        }
    }),
    attack("long-queries", "400 queries of 1,900 bytes at once", 400, |n| {
        let tags: String = (0..30).map(|tag| format!("&tag={tag:0>56}")).collect();
        get(&format!("/news?limit={}{tags}", n % 1000 + 1))
    }),
    attack("long-etags", "400 conditional requests with 8 KiB of validators at once", 400, |n| {
        let etags: String = (0..600).map(|etag| format!("W/\"{EPOCH}-{etag}-{n}\", ")).collect();
        request("GET", "/news?limit=1000", &format!("if-none-match: {}\"x\"\r\n", &etags[..8192]))
    }),
    attack("replays", "60 replays from zero, again every two seconds", 60, |_| Script {
        reset_after: Some(Duration::from_secs(2)),
        ..get(&format!("/news/stream?after={EPOCH}-0"))
    }),
    attack("snapshots", "200 snapshots of 1,000 events, aborted at once", 200, |_| Script {
        reset_after: Some(Duration::from_millis(20)),
        ..get("/news/stream?snapshot=1000")
    }),
    attack("streams-words", "64 streams with 32 words each that match nothing", 64, |n| {
        get(&many_words("/news/stream?snapshot=1000", n))
    }),
    attack("streams-words-again", "the same, aborted at once", 64, |n| Script {
        reset_after: Some(Duration::from_millis(20)),
        ..get(&many_words("/news/stream?snapshot=1000", n))
    }),
    attack("pages-unread", "800 of the largest pages, none is read", 800, |_| unread("/news?limit=1000")),
    attack("sources-unread", "800 lists of sources, none is read", 800, |_| unread("/sources")),
    attack("metrics-unread", "800 scrapes, none is read", 800, |_| unread("/metrics")),
    attack("replays-unread", "60 replays from zero, none is read", 60, |_| {
        unread(&format!("/news/stream?after={EPOCH}-0"))
    }),
    attack("pages-slow", "800 of the largest pages, read at 1 KiB/s", 800, |_| slow("/news?limit=1000")),
    attack("replays-slow", "60 replays from zero, read at 1 KiB/s", 60, |_| {
        slow(&format!("/news/stream?after={EPOCH}-0"))
    }),
    Attack {
        settings: "public_url = \"http://news.example.org\"",
        ..attack("callbacks", "400 pushes of 1 MiB to callbacks, a byte every 200 ms", 400, |n| Script {
            drip: Some((b'x', Duration::from_millis(200))),
            ..request("POST", &format!("/websub/{n:032x}"), "content-length: 1048576\r\n")
        })
    },
    attack("bodies", "400 health checks with a body that never ends", 400, |_| Script {
        drip: Some((b'x', Duration::from_millis(200))),
        ..request("GET", "/health", "content-length: 1048576\r\n")
    }),
    attack("half-heads", "2,000 heads, a byte every 200 ms", 2000, |n| Script {
        // Some look like the one request that is answered elsewhere.
        request: if n % 2 == 0 { b"GET /hea".to_vec() } else { b"GET /news HTTP/1.1\r\nx: ".to_vec() },
        drip: Some((b'l', Duration::from_millis(200))),
        ..Script::default()
    }),
    attack("silent", "3,000 connections without a byte", 3000, |_| Script::default()),
    attack("resets", "connections that are reset as soon as they have sent a request", 200, |_| Script {
        reset_after: Some(Duration::from_millis(1)),
        ..get("/news?limit=1000")
    }),
    attack("connections", "connections that are reset at once", 500, |_| Script {
        reset_after: Some(Duration::ZERO),
        ..Script::default()
    }),
    Attack {
        settings: "trusted_proxies = [\"127.0.0.2\"]\nclients_max = 1500",
        ..attack(
            "networks",
            "2,000 streams, each of another /64 of one /48, behind a trusted proxy",
            2000,
            |n| {
                let address = format!("x-forwarded-for: 2001:db8:7:{:x}::1\r\n", n % 0x1_0000);
                request("GET", "/news/stream?snapshot=0", &address)
            },
        )
    },
    attack(
        "everything",
        "searches, pages, lists, scrapes, replays and unread pages, 800 at once",
        800,
        |n| match n % 8 {
            0 | 1 => get(&search(n)),
            2 => get("/news?limit=1000"),
            3 => get("/sources"),
            4 => get("/metrics"),
            5 => unread("/news?limit=1000"),
            6 => pipelined(n, search),
            _ => Script {
                reset_after: Some(Duration::from_secs(2)),
                ..get(&format!("/news/stream?after={EPOCH}-0"))
            },
        },
    ),
];

fn request(method: &str, path: &str, headers: &str) -> Script {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes();
    Script { request, ..Script::default() }
}

fn get(path: &str) -> Script {
    request("GET", path, "")
}

fn unread(path: &str) -> Script {
    Script { reading: Reading::Nothing, ..get(path) }
}

fn slow(path: &str) -> Script {
    Script { reading: Reading::Slowly(256, Duration::from_millis(250)), ..get(path) }
}

/// 3,000 requests on one connection.
fn pipelined(n: u64, path: fn(u64) -> String) -> Script {
    let requests = (0..3000).flat_map(|k| get(&path(3000 * n + k)).request);
    Script { request: requests.collect(), ..Script::default() }
}

/// A search that finds nothing, and so looks at everything.
fn search(n: u64) -> String {
    format!("/news?limit=1000&q=nowhere{n}")
}

/// A search for 32 words, of which the last is in no event.
fn many_words(path: &str, n: u64) -> String {
    const FREQUENT: [&str; 4] = ["news", "parliament", "market", "weather"];
    let words: Vec<_> = (0..31).map(|word| FREQUENT[word % FREQUENT.len()]).collect();
    format!("{path}&q={}+nowhere{n}", words.join("+"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attack_has_its_own_name_and_a_complete_request() {
        let names: BTreeSet<_> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        for attack in ATTACKS {
            for n in 0..8 {
                let script = (attack.script)(n);
                let is_whole = script.request.is_empty() || script.request.ends_with(b"\r\n\r\n");
                assert!(is_whole || script.drip.is_some(), "{}", attack.name);
            }
        }
    }

    #[test]
    fn a_pipeline_has_three_thousand_different_requests() {
        let text = String::from_utf8(pipelined(1, search).request).unwrap();
        let requests: BTreeSet<_> = text.lines().filter(|line| line.starts_with("GET ")).collect();
        assert_eq!(requests.len(), 3000);
    }
}
