//! One proxy for everything that is requested, on the real programs.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use e2e::{Behaviour, Binary, DocumentFormat, ForwardProxy, Origin, TestHub, TestStack, http, wait_for};

/// Deadline of an event; only one that is lost reaches it.
const SOON: Duration = Duration::from_secs(60);
/// User and password of the proxy, as in an address, and as `Proxy-Authorization` has them.
const CREDENTIALS: &str = "reader:TOPSECRET";
const AUTHORIZATION: &str = "Basic cmVhZGVyOlRPUFNFQ1JFVA==";

/// Runs a program with the configuration of a stack.
async fn run(stack: &TestStack, program: Binary, arguments: &[&str]) -> Output {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(program.path().unwrap());
    command.args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_but_through_the_proxy() {
    for (scheme, credentials) in [("http", AUTHORIZATION), ("socks5", CREDENTIALS)] {
        let (origin, proxy) = (Origin::start().await.unwrap(), ForwardProxy::start().await.unwrap());
        let hub = TestHub::start(864_000).await.unwrap();
        let hub_url = proxy.name("hub.example", &hub.url()).unwrap();
        let url = proxy.name("feeds.example", &origin.add_feed("a", DocumentFormat::Rss)).unwrap();
        origin.add_header("a", &format!("Link: <{hub_url}>; rel=\"hub\", <{url}>; rel=\"self\""));
        origin.publish("a", "The first");
        let moved = proxy.name("moved.example", &origin.add_feed("moved", DocumentFormat::Rss)).unwrap();
        origin.set_behaviour("moved", Behaviour::Redirect(302, url.clone()));
        let mut stack = TestStack::new(&[]).unwrap();
        let http::Address::Tcp(gateway) = stack.gateway() else { panic!("the gateway listens at TCP") };
        stack.set("gateway.public_url", &format!("\"http://{gateway}\""));
        stack.set("fetch.proxy", &format!("{:?}", proxy.url(scheme, CREDENTIALS)));
        let sources = format!("[[source]]\nid = \"a\"\nurl = \"{moved}\"\nevery = \"1h\"\n");
        fs::write(stack.path("sources.toml"), sources).unwrap();
        stack.start_both().await.unwrap();
        let subscriber = stack.subscribe("/news/stream?snapshot=1000");
        subscriber.wait_event("item", SOON, |event| event.json()["source"] == "a").await.unwrap();
        wait_for("a subscription", SOON, async || hub.verified_subscription()).await.unwrap();
        let status = stack.json("/sources/a").await.unwrap();
        assert_eq!(status["access"], serde_json::json!(["proxy"]), "{status}");

        let page = format!("<link rel=alternate type=application/rss+xml href='{url}?page'>");
        fs::write(stack.path("page.html"), format!("<html><head>{page}</head></html>")).unwrap();
        let page = origin.add_file(&stack.path("page.html")).unwrap();
        let page = proxy.name("page.example", &page).unwrap();
        let before = proxy.count("feeds.example");
        let checked = run(&stack, Binary::Newswire, &["check", &url]).await;
        assert!(checked.status.success() && text(&checked).contains("The first"), "{}", text(&checked));
        assert_eq!(proxy.count("feeds.example"), before + 1);
        let added = run(&stack, Binary::Newswire, &["sources", "add", &page]).await;
        assert_eq!(proxy.count("page.example"), 1, "{}", text(&added));
        wait_for("the feed of the page", SOON, async || {
            (proxy.count("feeds.example") >= before + 2).then_some(())
        })
        .await
        .unwrap();

        assert_eq!(proxy.count("moved.example"), origin.requests("moved").len());
        assert_eq!(proxy.count("hub.example"), hub.requests().len());
        let requests = proxy.requests();
        assert!(requests.iter().all(|request| request.credentials == credentials), "{requests:?}");
        let is_named = |to: &str| to.ends_with(".example:80");
        assert!(requests.iter().all(|request| is_named(&request.to)), "the proxy gets names: {requests:?}");
        let visited = origin.requests("a");
        let leaks = |request: &e2e::Request| format!("{:?}", request.headers).contains("TOPSECRET");
        assert!(!visited.is_empty() && !visited.iter().any(leaks), "{visited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_feed_is_requested_once_whichever_proxy_it_has() {
    let origin = Origin::start().await.unwrap();
    let [for_all, own] = [ForwardProxy::start().await.unwrap(), ForwardProxy::start().await.unwrap()];
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.proxy", &format!("{:?}", for_all.url("http", CREDENTIALS)));
    // The next visit of the first feed is not due before the last one is added.
    stack.set("fetch.interval_min", "\"10m\"");
    fs::write(stack.path("sources.toml"), "").unwrap();
    stack.start_both().await.unwrap();
    let own_url = own.url("socks5", "");
    for (id, named_by, more) in [
        ("inherits", Some(&for_all), None),
        ("own", Some(&own), Some(own_url.as_str())),
        ("direct", None, Some("direct")),
    ] {
        let mut url = origin.add_feed(id, DocumentFormat::Rss);
        if let Some(proxy) = named_by {
            url = proxy.name(&format!("{id}.example"), &url).unwrap();
        }
        origin.publish(id, "The first");
        let mut arguments = vec!["sources", "add", &url, "--id", id];
        arguments.extend(more.iter().flat_map(|proxy| ["--proxy", *proxy]));
        let added = run(&stack, Binary::Newswire, &arguments).await;
        assert!(added.status.success(), "{}", text(&added));
        assert!(text(&added).contains("newswire-ingestd has recorded its items"), "{}", text(&added));
        assert_eq!(origin.requests(id).len(), 1, "{id}: {}", text(&added));
    }
    assert_eq!((for_all.count("inherits.example"), own.count("own.example")), (1, 1));
    // Edited, and not in use before the daemon is restarted.
    let later = ForwardProxy::start().await.unwrap();
    stack.set("fetch.proxy", &format!("{:?}", later.url("http", CREDENTIALS)));
    let url = later.name("later.example", &origin.add_feed("later", DocumentFormat::Rss)).unwrap();
    origin.publish("later", "The first");
    let added = run(&stack, Binary::Newswire, &["sources", "add", &url, "--id", "later"]).await;
    assert!(added.status.success(), "{}", text(&added));
    assert!(text(&added).contains("newswire-ingestd has recorded its items"), "{}", text(&added));
    assert_eq!((origin.requests("later").len(), later.count("later.example")), (1, 1), "{}", text(&added));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_leaves_it() {
    let origin = Origin::start().await.unwrap();
    let [for_all, own] = [ForwardProxy::start().await.unwrap(), ForwardProxy::start().await.unwrap()];
    let mut sources = String::new();
    let mut add = |id: &str, url: &str, proxy: &str| {
        origin.publish(id, "The first");
        sources.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1h\"\n{proxy}\n"));
    };
    let feed = |id| origin.add_feed(id, DocumentFormat::Rss);
    add("inherits", &for_all.name("inherits.example", &feed("inherits")).unwrap(), "");
    add("direct", &feed("direct"), "proxy = \"direct\"");
    let via = format!("proxy = \"{}\"", own.url("socks5", ""));
    add("own", &own.name("own.example", &feed("own")).unwrap(), &via);
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.proxy", &format!("{:?}", for_all.url("http", "")));
    fs::write(stack.path("sources.toml"), sources).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    for id in ["inherits", "direct", "own"] {
        subscriber.wait_event("item", SOON, |event| event.json()["source"] == *id).await.unwrap();
    }
    let asked = |proxy: &ForwardProxy| proxy.requests().iter().map(|r| r.to.clone()).collect::<Vec<_>>();
    assert_eq!(
        (asked(&for_all), asked(&own)),
        (vec!["inherits.example:80".into()], vec!["own.example:80".into()])
    );
    assert_eq!(origin.requests("direct").len(), 1);

    // Another proxy is a new beginning for the sources that use it, and for no others.
    let other = ForwardProxy::start().await.unwrap();
    other.name("inherits.example", &origin.url("/")).unwrap();
    stack.set("fetch.proxy", &format!("{:?}", other.url("socks5h", "")));
    stack.kill(Binary::Ingestd).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    wait_for("a visit through the other proxy", SOON, async || {
        (other.count("inherits.example") == 1).then_some(())
    })
    .await
    .unwrap();
    assert_eq!((for_all.requests().len(), own.requests().len()), (1, 1));
    assert_eq!((origin.requests("direct").len(), origin.requests("own").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_password_is_shown_nowhere() {
    let origin = Origin::start().await.unwrap();
    let mut sources = String::new();
    // Both fail, so that their proxies are in states and logs; and one list is wrong.
    for (id, more) in [("all", ""), ("own", "proxy = \"socks5://reader:TOPSECRET@127.0.0.1:2\"\n")] {
        let url = origin.add_feed(id, DocumentFormat::Rss);
        sources.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\n{more}\n"));
    }
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.proxy", "\"http://reader:TOPSECRET@127.0.0.1:1\"");
    stack.set("log.level", "\"trace\"");
    fs::write(stack.path("sources.toml"), &sources).unwrap();
    stack.start_both().await.unwrap();
    let mut said = Vec::new();
    for (id, proxy) in [("all", "http://…@127.0.0.1:1"), ("own", "socks5://…@127.0.0.1:2")] {
        let failed = wait_for("a failure", SOON, async || {
            let status = stack.json(&format!("/sources/{id}")).await.ok()?;
            status["last_error"].is_string().then_some(status)
        });
        let failed = failed.await.unwrap();
        let error = failed["last_error"].as_str().unwrap();
        assert!(
            error.starts_with("connect: ") && error.contains(&format!("through the proxy {proxy}")),
            "{error}"
        );
        said.push(failed.to_string());
    }
    for (program, arguments) in [
        (Binary::Newswire, &["config", "show"][..]),
        (Binary::Newswire, &["config", "check"]),
        (Binary::Newswire, &["sources", "list"]),
        (Binary::Newswire, &["status"]),
        (Binary::Newswire, &["check", "http://feeds.example/"]),
        (Binary::Ingestd, &["--check"]),
    ] {
        said.push(text(&run(&stack, program, arguments).await));
    }
    assert!(said.iter().any(|text| text.contains("***@127.0.0.1:1")), "{said:?}");
    fs::write(stack.path("sources.toml"), sources.replace("127.0.0.1:2", "127.0.0.1:99999")).unwrap();
    said.push(text(&run(&stack, Binary::Ingestd, &["--check"]).await));
    assert!(said.last().unwrap().contains("expected an http://"), "{said:?}");
    stack.set("fetch.proxy", "\"ftp://reader:TOPSECRET@127.0.0.1:1\"");
    said.push(text(&run(&stack, Binary::Newswire, &["config", "check"]).await));
    assert!(said.last().unwrap().contains("is not a proxy"), "{said:?}");
    said.push(fs::read_to_string(stack.path("newswire-ingestd.log")).unwrap());
    assert!(said.last().unwrap().contains("visit failed source=own"), "{said:?}");
    for text in said {
        assert!(!text.contains("TOPSECRET"), "{text}");
    }
}
