//! The memory of the running daemon while it reads many large feeds for the first time.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, fs, time::Duration};

use e2e::{Binary, Origin, TestStack, http, wait_for};
use serde_json::Value;

/// Deadline of each step: documents are parsed slowly by a debug build.
const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// The smallest one that is accepted.
const BUDGET: u64 = 16 * MIB;
const FEEDS: usize = 40;
/// Pages and buffers of the store, the buffers of 40 connections, and what the allocator has not given back yet: about 56 MB
/// in a debug build.
const BESIDE: u64 = 80 * MIB;

/// A feed of about 1 MB.
fn large_feed(name: &str, items: usize) -> String {
    let text = "Words of a text that goes on for a while &amp; then some more. ".repeat(160);
    let mut rss =
        format!("<rss version=\"2.0\"><channel><title>{name}</title><link>http://x.example/</link>");
    for n in 0..items {
        write!(
            rss,
            "<item><title>Article {n}</title><guid>{name}/{n}</guid><description>{text}</description></item>"
        )
        .unwrap();
    }
    rss + "</channel></rss>"
}

/// A daemon that reads these feeds, with a memory budget of [`BUDGET`].
async fn start(urls: &[String]) -> TestStack {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.memory_bytes", &BUDGET.to_string());
    stack.set("fetch.body_bytes_max", &(32 * MIB).to_string());
    stack.set("fetch.new_bytes_max", &(64 * MIB).to_string());
    stack.set("store.cache_bytes", &MIB.to_string());
    let mut list = String::new();
    for (n, url) in urls.iter().enumerate() {
        write!(list, "[[source]]\nid = \"s{n}\"\nurl = \"{url}\"\nevery = \"1h\"\n").unwrap();
    }
    fs::write(stack.path("sources.toml"), list).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    let wire = stack.wire();
    let answers = async || matches!(http::fetch(&wire, "/health", SOON).await, Ok((200, _))).then_some(());
    wait_for("the daemon to answer", SOON, answers).await.unwrap();
    stack
}

async fn get(stack: &TestStack, path: &str) -> String {
    let (code, text) = http::fetch(&stack.wire(), path, SOON).await.unwrap();
    assert_eq!(code, 200, "{text}");
    text
}

async fn sources(stack: &TestStack) -> Vec<Value> {
    let list: Value = serde_json::from_str(&get(stack, "/sources").await).unwrap();
    list["sources"].as_array().unwrap().clone()
}

/// The sum of the samples that begin with this.
async fn metric(stack: &TestStack, prefix: &str) -> u64 {
    let text = get(stack, "/metrics").await;
    let values: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(prefix)?.rsplit_once(' '))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "{prefix} in {text}");
    values.iter().sum()
}

/// The most bytes that the process ever had in memory.
fn resident_most(stack: &mut TestStack) -> u64 {
    let id = stack.process(Binary::Ingestd).unwrap().id();
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn many_large_feeds_take_no_more_memory_than_the_budget() {
    let origin = Origin::start().await.unwrap();
    let urls: Vec<_> = (0..FEEDS)
        .map(|n| origin.set_document(&format!("f{n}"), &large_feed(&format!("f{n}"), 100)))
        .collect();
    let mut twin = start(&[]).await;
    let idle = resident_most(&mut twin);
    let mut stack = start(&urls).await;
    let mut waited = None;
    let mut used_most = 0;
    let all_read = async || {
        used_most = used_most.max(metric(&stack, "newswire_ingestd_memory_bytes{").await);
        let sources = sources(&stack).await;
        waited = waited.take().or_else(|| {
            let texts = sources.iter().filter_map(|source| source["waiting_for"].as_str());
            texts.filter(|text| text.contains("fetch.memory_bytes")).map(str::to_owned).next()
        });
        (sources.len() == FEEDS && sources.iter().all(|source| source["counts"]["items"] == 100))
            .then_some(())
    };
    wait_for("the items of all feeds", SOON, all_read).await.unwrap();
    let most = resident_most(&mut stack);
    assert!(waited.is_some(), "a source that waits for memory says so");
    assert!(metric(&stack, "newswire_ingestd_visit_waits_total{for=\"memory\"}").await > 0);
    // One visit may go beyond the budget.
    assert!(used_most <= BUDGET + 4 * MIB, "{used_most}");
    assert!(most <= idle + BUDGET + BESIDE, "{most} with the feeds, {idle} without");
    let given_back = async || (metric(&stack, "newswire_ingestd_memory_bytes{").await == 0).then_some(());
    wait_for("all of the budget to be given back", SOON, given_back).await.unwrap();
}

#[tokio::test]
async fn a_feed_larger_than_the_budget_is_read() {
    let origin = Origin::start().await.unwrap();
    let document = large_feed("a", 1900);
    assert!(document.len() as u64 > BUDGET);
    let stack = start(&[origin.set_document("a", &document)]).await;
    let is_read = async || {
        let sources = sources(&stack).await;
        // The newest thousand are kept of each document.
        (sources.first()?["counts"]["items"] == 1000).then_some(())
    };
    wait_for("its items", SOON, is_read).await.unwrap();
}
