//! A connection that dies without an error, as when a machine sleeps, a route is lost or a proxy is stuck: every client
//! that we ship or print notices it, and misses nothing.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use e2e::{Binary, Browser, ExternalProgram, MuteRelay, Origin, TestStack, scenario, wait_for};

const SHOWN: Duration = Duration::from_secs(15);
/// A dead connection is noticed after 30 s; then the client waits a few seconds at most, connects and catches up.
const NOTICED: Duration = Duration::from_secs(50);
const README: &str = include_str!("../../../README.md");

fn gateway(stack: &TestStack) -> SocketAddr {
    let e2e::http::Address::Tcp(address) = stack.gateway() else { unreachable!("it listens on TCP") };
    address
}

/// A gateway with one source behind a relay, and an item that was published.
async fn set_up() -> anyhow::Result<(Origin, TestStack, MuteRelay)> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1))?;
    stack.set("gateway.cors_origins", &format!("[\"{}\"]", origin.url("")));
    origin.publish("feed-0", "First");
    stack.start_both().await?;
    stack.wait_ready().await?;
    let relay = MuteRelay::start(gateway(&stack)).await?;
    Ok((origin, stack, relay))
}

/// Mutes the relay, publishes, and waits until the client shows what it missed. New connections are mute as well at first.
async fn notices_and_misses_nothing(
    origin: &Origin,
    relay: &MuteRelay,
    mut shown: impl AsyncFnMut() -> Vec<String>,
) -> anyhow::Result<()> {
    let first = wait_for("the first item", SHOWN, async || (shown().await == ["First"]).then_some(())).await;
    let what = shown().await;
    first.with_context(|| format!("{what:?} over {} connections", relay.accepted()))?;
    let before = relay.accepted();
    relay.mute_new(true);
    relay.mute_open();
    origin.publish("feed-0", "Second");
    wait_for("a new connection", NOTICED, async || (relay.accepted() > before).then_some(())).await?;
    // It is as mute as the old one; the next one is not.
    relay.mute_new(false);
    let caught_up = wait_for("the second item", NOTICED, async || (shown().await.len() >= 2).then_some(()));
    caught_up.await.with_context(|| format!("{} connections", relay.accepted()))?;
    origin.publish("feed-0", "Third");
    wait_for("the third item", SHOWN, async || (shown().await.len() >= 3).then_some(())).await?;
    assert_eq!(shown().await, ["First", "Second", "Third"], "each once");
    Ok(())
}

#[tokio::test]
async fn tail_notices_a_dead_connection_and_misses_nothing() {
    let (origin, stack, relay) = set_up().await.unwrap();
    let program = Binary::Gateway.path().unwrap().with_file_name("newswire");
    let url = format!("http://{}/", relay.address);
    let folder = stack.path("tail");
    fs::create_dir(&folder).unwrap();
    let tail =
        ExternalProgram::start(&program, &["tail", "--json", "--url", &url, "--category", "Wrold"], &folder);
    let told = wait_for("what was mistyped", SHOWN, async || {
        let tail = tail.as_ref().ok()?;
        tail.stderr().contains("no source has the category, id, tag or country `Wrold`").then_some(())
    });
    told.await.unwrap();
    drop(tail);
    let folder = stack.path("tail-of-all");
    fs::create_dir(&folder).unwrap();
    let tail = ExternalProgram::start(&program, &["tail", "--json", "--url", &url], &folder).unwrap();
    let shown = async || {
        let items = tail.output_lines().into_iter().map(|line| serde_json::from_str(&line));
        items
            .map(|item: Result<serde_json::Value, _>| item.unwrap()["title"].as_str().unwrap().to_owned())
            .collect()
    };
    notices_and_misses_nothing(&origin, &relay, shown).await.unwrap();
}

#[tokio::test]
async fn the_page_notices_a_dead_connection_and_misses_nothing() {
    let Some(browser) = Browser::start().await.unwrap() else { return };
    let (origin, _stack, relay) = set_up().await.unwrap();
    browser.open(&format!("http://{}/", relay.address)).await.unwrap();
    let titles =
        "return [...document.querySelectorAll('#items-list .title')].map((t) => t.textContent).reverse();";
    let shown = async || {
        let titles = browser.run(titles).await.unwrap();
        titles.as_array().unwrap().iter().map(|title| title.as_str().unwrap().to_owned()).collect()
    };
    notices_and_misses_nothing(&origin, &relay, shown).await.unwrap();
    let told = "const line = document.getElementById('filter-remarks');\
                return line.checkVisibility() && ['Wrold', 'categroy'].every((word) => line.textContent.includes(word));";
    browser.run("location.hash = 'category=Wrold&categroy=x';").await.unwrap();
    browser.wait("what was mistyped", SHOWN, told).await.unwrap();
    browser.open(&format!("http://{}/?category=Wrold&categroy=x", relay.address)).await.unwrap();
    browser.wait("what was mistyped in a query", SHOWN, told).await.unwrap();
    browser
        .run(
            "document.getElementById('filter').open = true; document.getElementById('filter-clear').click();",
        )
        .await
        .unwrap();
    let gone = "return !document.getElementById('filter-remarks').checkVisibility();";
    browser.wait("the end of the remark", SHOWN, gone).await.unwrap();
}

#[tokio::test]
async fn the_browser_client_of_the_readme_notices_a_dead_connection_and_misses_nothing() {
    let Some(browser) = Browser::start().await.unwrap() else { return };
    let (origin, stack, relay) = set_up().await.unwrap();
    let (_, code) = README.split_once("```js\n").unwrap();
    let (code, _) = code.split_once("```\n").unwrap();
    assert!(code.contains("127.0.0.1:8700"));
    let code = code.replace("127.0.0.1:8700", &relay.address.to_string());
    let file: PathBuf = stack.path("listen.html");
    fs::write(&file, format!("<!doctype html><title>listen</title><script>\n{code}</script>")).unwrap();
    browser.open(&origin.add_file(&file).unwrap()).await.unwrap();
    let mut lines = Vec::new();
    let shown = async || {
        // Chromium logs `ADDRESS LINE:COLUMN "ID" "TITLE"`, and returns each line once.
        for (_, _, text) in browser.console().await.unwrap() {
            let words: Vec<_> = text.split('"').collect();
            if let [_, _, " ", title, ""] = words[..] {
                lines.push(title.to_owned());
            }
        }
        lines.clone()
    };
    notices_and_misses_nothing(&origin, &relay, shown).await.unwrap();
}
