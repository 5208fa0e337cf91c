//! Pages in Chromium, and in Firefox where it is installed, behind every proxy that we know people use and behind none:
//! of the gateway's own origin and of another one, through an outage of the gateway and through a connection that goes
//! silent without being closed. Nothing is lost and nothing doubled.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use e2e::{
    Binary, Browser, BrowserKind, MuteRelay, Origin, ProxyKind, ReverseProxy, TestStack, http::Address,
    log_line, scenario,
};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// How long the gateway is gone.
const OUTAGE: Duration = Duration::from_secs(9);
/// Deadline for everything to be shown after the outage: the longest `retry` of the gateway or a proxy, and a busy machine.
const SHOWN: Duration = Duration::from_secs(30);
/// Deadline for a client to notice a silent connection and to have another one: its timer of 30 s, and the connection.
const NOTICED: Duration = Duration::from_secs(35);
/// Duplicates would arrive within this.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// The pause between two items.
const PUBLISHED_EVERY: Duration = Duration::from_millis(500);

/// An `EventSource` as most pages have it: no timer, no memory, no second attempt.
const BARE: &str = "
    const client = { got: [], resumes: [], missed: 0, ended: false };
    (window.clients ??= {})[NAME] = client;
    const stream = new EventSource(ADDRESS);
    stream.addEventListener('stream', (event) => client.resumes.push(JSON.parse(event.data).resume));
    stream.addEventListener('gap', (event) => (client.missed += JSON.parse(event.data).missed));
    for (const kind of ['item', 'update']) {
        stream.addEventListener(kind, (event) => client.got.push(JSON.parse(event.data).title));
    }
    stream.onerror = () => (client.ended ||= stream.readyState === EventSource.CLOSED);";

/// The client that the README prints, with a console of its own.
fn printed_client() -> String {
    let readme = include_str!("../../../README.md");
    let code =
        readme.split_once("```js\n").and_then(|(_, rest)| rest.split_once("```\n")).map(|(code, _)| code);
    let code = code.expect("the README has a client for browsers");
    let written = "\"http://127.0.0.1:8700/news/stream";
    assert!(code.contains(written) && code.contains("\"cursor\""), "{code}");
    let code = code.replace(written, "ORIGIN + \"/news/stream").replace("\"cursor\"", "NAME");
    format!(
        "const client = {{ got: [], resumes: [], missed: 0, ended: false }};
        (window.clients ??= {{}})[NAME] = client;
        const ORIGIN = new URL(ADDRESS).origin;
        localStorage.removeItem(NAME);
        const console = {{ log: (first, second) => {{
            if (/^[a-z0-9]+-[0-9]+$/.test(first)) client.got.push(second);
            else if (first === 'missed') client.missed += second;
            else client.resumes.push(first);
        }} }};
        {code}"
    )
}

/// What stands between a page and the gateway.
struct Front {
    name: &'static str,
    /// Its origin for browsers.
    origin: String,
    /// A tab with a page of that origin.
    tab: String,
    _proxy: Option<ReverseProxy>,
}

/// A client in a page.
struct PageClient {
    name: String,
    tab: String,
    is_bare: bool,
}

/// Publishes until it is dropped.
struct Publisher {
    titles: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Publisher {
    fn start(origin: Arc<Origin>) -> Self {
        let titles = Arc::new(Mutex::new(Vec::new()));
        let published = Arc::clone(&titles);
        let task = tokio::spawn(async move {
            for n in 0.. {
                let title = format!("Item {n}");
                origin.publish("feed-0", &title);
                published.lock().unwrap_or_else(PoisonError::into_inner).push(title);
                sleep(PUBLISHED_EVERY).await;
            }
        });
        Self { titles, task }
    }

    fn titles(&self) -> Vec<String> {
        self.titles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The whole setting: the programs, what is before them, and a browser with a tab for each front and one for a page of
/// another origin.
struct Setting {
    origin: Arc<Origin>,
    stack: TestStack,
    relay: MuteRelay,
    browser: Browser,
    fronts: Vec<Front>,
    /// The tab with the page of another origin.
    elsewhere: String,
}

impl Setting {
    /// Without a proxy, pages connect to the gateway or, with `relayed`, to the relay.
    async fn new(kind: BrowserKind, relayed: bool) -> anyhow::Result<Option<Self>> {
        let host = Some(ReverseProxy::HOST);
        let Some(browser) = Browser::start_if_installed(kind, host).await? else { return Ok(None) };
        let origin = Arc::new(Origin::start().await?);
        let mut stack = TestStack::new(&scenario::feeds(&origin, 1))?;
        let page = stack.path("elsewhere.html");
        fs::write(&page, "<!doctype html><title>a page of another origin</title>")?;
        let page = origin.add_file(&page)?;
        let reader = url::Url::parse(&page)?.origin().ascii_serialization();
        stack.set("gateway.hosts", &format!("[{:?}]", ReverseProxy::HOST));
        stack.set("gateway.trusted_proxies", "[\"127.0.0.1\"]");
        stack.set("gateway.cors_origins", &format!("[{reader:?}]"));
        origin.publish("feed-0", "Before");
        stack.start_both().await?;
        let Address::Tcp(gateway) = stack.gateway() else { unreachable!("it listens on TCP") };
        let relay = MuteRelay::start(gateway).await?;

        let elsewhere = browser.tab().await?;
        browser.open(&page).await?;
        let mut fronts = Vec::new();
        let kinds = [ProxyKind::PlainNginx, ProxyKind::Nginx, ProxyKind::Caddy];
        let names = ["plain nginx", "shipped nginx", "shipped Caddy"];
        for (kind, name) in kinds.into_iter().zip(names) {
            let folder = stack.path(&format!("{kind:?}"));
            if let Some(proxy) = ReverseProxy::start(kind, folder, relay.address, &reader).await? {
                fronts.push((name, proxy.origin(), Some(proxy)));
            }
        }
        let direct = if relayed { relay.address } else { gateway };
        fronts.push(("no proxy", format!("http://{direct}"), None));
        let mut setting = Self { origin, stack, relay, browser, fronts: Vec::new(), elsewhere };
        for (name, origin, proxy) in fronts {
            let tab = setting.browser.new_tab().await?;
            setting.browser.open(&format!("{origin}/")).await?;
            setting.fronts.push(Front { name, origin, tab, _proxy: proxy });
        }
        Ok(Some(setting))
    }

    /// Starts a client in every page of every front, one of the same and one of another origin.
    async fn clients(
        &self,
        is_bare: impl Fn(&'static str, &'static str) -> bool,
    ) -> anyhow::Result<Vec<PageClient>> {
        let mut clients = Vec::new();
        for front in &self.fronts {
            let url = format!("{}/news/stream?kinds=item,update", front.origin);
            for (tab, page) in [(&front.tab, "same origin"), (&self.elsewhere, "another origin")] {
                let is_bare = is_bare(front.name, page);
                let script = if is_bare { BARE.to_owned() } else { printed_client() };
                let name = format!("{}, {page}", front.name);
                self.browser.switch_to(tab).await?;
                let constants = format!("const NAME = {name:?}, ADDRESS = {url:?};");
                self.browser.run(&format!("{constants}\n{script}")).await?;
                clients.push(PageClient { name, tab: tab.clone(), is_bare });
            }
        }
        Ok(clients)
    }

    /// What a client has: `got`, `resumes`, `missed`, `ended`.
    async fn of(&self, client: &PageClient) -> anyhow::Result<Value> {
        self.browser.switch_to(&client.tab).await?;
        self.browser.run(&format!("return window.clients[{:?}];", client.name)).await
    }

    /// Waits until every client has everything that was published, once and in order.
    async fn until_all_have(&self, clients: &[PageClient], titles: &[String]) -> anyhow::Result<()> {
        let until = Instant::now() + SHOWN;
        for client in clients {
            loop {
                let state = self.of(client).await?;
                if state["got"].as_array().is_some_and(|got| got.len() >= titles.len()) {
                    break;
                }
                anyhow::ensure!(Instant::now() < until, "{}: published {titles:?}, has {state}", client.name);
                sleep(Duration::from_millis(100)).await;
            }
        }
        sleep(AFTERWARDS).await;
        for client in clients {
            let state = self.of(client).await?;
            let got: Vec<_> =
                state["got"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            anyhow::ensure!(got == titles, "{}: published {titles:?}, has {state}", client.name);
            anyhow::ensure!(state["missed"] == 0, "{}: {state}", client.name);
        }
        Ok(())
    }
}

/// Whether a bare `EventSource` does. In Firefox, a refused connection ends that of a page of another origin for good,
/// whatever the gateway does.
fn survives_an_outage(kind: BrowserKind, front: &str, page: &str) -> bool {
    (kind, front, page) != (BrowserKind::Firefox, "no proxy", "another origin")
}

async fn through_an_outage(kind: BrowserKind) -> anyhow::Result<()> {
    let Some(mut setting) = Setting::new(kind, false).await? else { return Ok(()) };
    let clients = setting.clients(|front, page| survives_an_outage(kind, front, page)).await?;
    let before = vec!["Before".to_owned()];
    setting.until_all_have(&clients, &before).await?;
    let publisher = Publisher::start(Arc::clone(&setting.origin));
    sleep(Duration::from_secs(2)).await;
    setting.stack.kill(Binary::Gateway)?;
    sleep(OUTAGE).await;
    setting.stack.start(Binary::Gateway)?;
    setting.stack.wait_ready().await?;
    sleep(Duration::from_secs(2)).await;
    let titles = [before, publisher.titles()].concat();
    drop(publisher);
    anyhow::ensure!(titles.len() > 20, "nothing was published: {titles:?}");
    setting.until_all_have(&clients, &titles).await?;
    for client in &clients {
        let state = setting.of(client).await?;
        let resumes: Vec<_> =
            state["resumes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        log_line(&format!("{}: {resumes:?}", client.name));
        anyhow::ensure!(resumes.first() == Some(&"live") && resumes.len() > 1, "{}: {state}", client.name);
        anyhow::ensure!(resumes[1..].iter().all(|resume| *resume == "exact"), "{}: {state}", client.name);
        anyhow::ensure!(!client.is_bare || state["ended"] == false, "{}: {state}", client.name);
    }
    Ok(())
}

/// Connections to the gateway go silent under the client that the README prints: it notices, and misses nothing.
async fn through_silence(kind: BrowserKind) -> anyhow::Result<()> {
    let Some(setting) = Setting::new(kind, true).await? else { return Ok(()) };
    let clients = setting.clients(|_, _| false).await?;
    let before = vec!["Before".to_owned()];
    setting.until_all_have(&clients, &before).await?;
    let publisher = Publisher::start(Arc::clone(&setting.origin));
    sleep(Duration::from_secs(2)).await;
    setting.relay.mute_open();
    let muted = Instant::now();
    let mut silent: Vec<_> = clients.iter().collect();
    while !silent.is_empty() {
        let mut still = Vec::new();
        for client in silent {
            let state = setting.of(client).await?;
            if state["resumes"].as_array().is_some_and(|resumes| resumes.len() > 1) {
                log_line(&format!("{}: noticed after {:?}", client.name, muted.elapsed()));
            } else {
                still.push(client);
            }
        }
        silent = still;
        let names: Vec<_> = silent.iter().map(|client| &client.name).collect();
        anyhow::ensure!(names.is_empty() || muted.elapsed() < NOTICED, "{names:?} still wait");
        sleep(Duration::from_millis(200)).await;
    }
    anyhow::ensure!(muted.elapsed() > Duration::from_secs(20), "the connections were not mute");
    sleep(Duration::from_secs(1)).await;
    let titles = [before, publisher.titles()].concat();
    drop(publisher);
    setting.until_all_have(&clients, &titles).await
}

#[tokio::test]
async fn pages_in_chromium_miss_nothing_while_the_gateway_is_gone_for_9_s() {
    through_an_outage(BrowserKind::Chromium).await.unwrap();
}

#[tokio::test]
async fn pages_in_firefox_miss_nothing_while_the_gateway_is_gone_for_9_s() {
    through_an_outage(BrowserKind::Firefox).await.unwrap();
}

#[tokio::test]
async fn pages_in_chromium_notice_a_silent_connection_within_35_s_and_miss_nothing() {
    through_silence(BrowserKind::Chromium).await.unwrap();
}

#[tokio::test]
async fn pages_in_firefox_notice_a_silent_connection_within_35_s_and_miss_nothing() {
    through_silence(BrowserKind::Firefox).await.unwrap();
}
