//! Lists of feeds that the daemon reads again by itself (`[[list]]`), on the real programs.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use e2e::{Behaviour, Binary, DocumentFormat, ForwardProxy, Origin, TestStack, http, wait_for};
use serde_json::Value;

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);

/// An OPML document with these feeds, in a folder.
fn opml(feeds: &[(&str, &str)]) -> String {
    let mut text = "<opml version='2.0'><body><outline text='Tech'>\n".to_owned();
    for (name, url) in feeds {
        writeln!(text, "<outline text='{name}' xmlUrl='{url}'/>").unwrap();
    }
    text + "</outline></body></opml>"
}

/// An origin with feeds of these names, each with an entry, and their addresses.
async fn origin<const N: usize>(names: [&str; N]) -> (Origin, [String; N]) {
    let origin = Origin::start().await.unwrap();
    let urls = names.map(|name| {
        let url = origin.add_feed(name, DocumentFormat::Rss);
        origin.publish(name, &format!("News of {name}"));
        url
    });
    (origin, urls)
}

/// A stack with this list of sources.
fn stack(sources: &str) -> TestStack {
    let stack = TestStack::new(&[]).unwrap();
    fs::write(stack.path("sources.toml"), sources).unwrap();
    stack
}

fn list(id: &str, origin: &str) -> String {
    format!("[[list]]\nid = \"{id}\"\n{origin}\nevery = \"1s\"\n\n")
}

/// Runs `newswire` with the configuration of the stack; its exit code, and both outputs.
async fn newswire(stack: &TestStack, arguments: &str) -> (Option<i32>, String) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(arguments.split(' ')).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

async fn of_daemon(stack: &TestStack, path: &str) -> Value {
    let (code, text) = http::fetch(&stack.wire(), path, SOON).await.unwrap();
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The ids that the running daemon knows.
async fn ids(stack: &TestStack) -> Vec<String> {
    let list = of_daemon(stack, "/sources").await;
    let id = |source: &Value| source["id"].as_str().unwrap().to_owned();
    list["sources"].as_array().unwrap().iter().map(id).collect()
}

async fn wait_ids(stack: &TestStack, expected: &[&str]) {
    wait_for(&format!("the sources {expected:?}"), SOON, async || {
        (ids(stack).await == expected).then_some(())
    })
    .await
    .unwrap();
}

/// The state of the only list.
async fn state(stack: &TestStack) -> Value {
    of_daemon(stack, "/lists").await["lists"][0].clone()
}

async fn wait_error(stack: &TestStack, part: &str) -> Value {
    let has = |state: &Value| match state["error"].as_str() {
        None => part.is_empty(),
        Some(error) => !part.is_empty() && error.contains(part),
    };
    wait_for(&format!("the error {part:?} of the list"), SOON, async || Some(state(stack).await).filter(has))
        .await
        .unwrap()
}

#[tokio::test]
async fn sources_come_and_go_with_their_list() {
    let (origin, [a, b, c, d]) = origin(["a", "b", "c", "d"]).await;
    let planet = origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b)]));
    let text = list("planet", &format!("url = \"{planet}\""))
        + &list("own", "file = \"own.opml\"\ncategory = \"mine\"");
    let mut stack = stack(&text.replace("every = \"1s\"\n\n[[list]]", "every = \"1s\"\n[[list]]"));
    fs::write(stack.path("own.opml"), opml(&[("Delta", &d)])).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    wait_ids(&stack, &["own-delta", "planet-alpha", "planet-beta"]).await;
    for (id, list, category) in [("own-delta", "own", "mine"), ("planet-alpha", "planet", "tech")] {
        subscriber.wait_event("item", SOON, |event| event.json()["source"] == id).await.unwrap();
        let status = stack.json(&format!("/sources/{id}")).await.unwrap();
        assert_eq!((status["list"].as_str(), status["category"].as_str()), (Some(list), Some(category)));
    }
    wait_for("a conditional request for the list", SOON, async || {
        origin.requests("planet").iter().any(|request| request.answered == Some(304)).then_some(())
    })
    .await
    .unwrap();

    // Only what changed is touched.
    let before = stack.json("/sources/planet-beta").await.unwrap();
    assert!(before["counts"]["visits"].as_u64().unwrap() > 0, "{before}");
    origin.set_document("planet", &opml(&[("Beta", &b), ("Gamma", &c)]));
    wait_ids(&stack, &["own-delta", "planet-beta", "planet-gamma"]).await;
    subscriber.wait_event("item", SOON, |event| event.json()["source"] == "planet-gamma").await.unwrap();
    let after = stack.json("/sources/planet-beta").await.unwrap();
    assert!(after["counts"]["visits"].as_u64() >= before["counts"]["visits"].as_u64(), "{after}");
    assert_eq!(after["counts"]["items"], 1, "nothing is sent twice: {after}");

    // The commands say whose they are, and change nothing of a list.
    let (_, shown) = newswire(&stack, "sources list").await;
    assert!(
        shown.contains("LIST") && shown.lines().any(|line| line.starts_with("planet-gamma  planet ")),
        "{shown}"
    );
    let (_, shown) = newswire(&stack, "sources list --json").await;
    assert!(shown.contains("\"list\":\"planet\""), "{shown}");
    let (_, shown) = newswire(&stack, "sources lists").await;
    assert!(shown.contains(&planet) && shown.contains("own.opml"), "{shown}");
    let (code, told) = newswire(&stack, "sources remove planet-beta").await;
    assert!(code == Some(1) && told.contains("planet-beta comes from the list planet"), "{told}");
    let (_, told) = newswire(&stack, "sources export").await;
    assert!(
        told.contains("are not exported") && told.contains("planet, own") && !told.contains("xmlUrl"),
        "{told}"
    );
    let (code, told) = newswire(&stack, "config check").await;
    assert!(code == Some(0) && told.contains("0 sources (0 enabled) and those of 2 lists"), "{told}");

    // A list that goes takes its sources with it. A file is read at a reload.
    fs::write(stack.path("sources.toml"), "[[list]]\nid = \"own\"\nfile = \"own.opml\"\n").unwrap();
    fs::write(stack.path("own.opml"), opml(&[("Delta", &d), ("Alpha", &a)])).unwrap();
    let (code, told) = newswire(&stack, "reload").await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(ids(&stack).await, ["own-alpha", "own-delta"]);
    assert!(!stack.path("data/lists/planet.toml").exists());
}

#[tokio::test]
async fn a_broken_or_emptied_list_takes_nothing_away() {
    let (origin, [a, b, c]) = origin(["a", "b", "c"]).await;
    let whole = opml(&[("Alpha", &a), ("Beta", &b), ("Gamma", &c)]);
    let planet = origin.set_document("planet", &whole);
    let mut stack = stack(&list("planet", &format!("url = \"{planet}\"")));
    stack.start_both().await.unwrap();
    let all = ["planet-alpha", "planet-beta", "planet-gamma"];
    wait_ids(&stack, &all).await;
    let failing = async || {
        let (_, text) = http::fetch(&stack.wire(), "/metrics", SOON).await.unwrap();
        text.lines().find(|line| line.starts_with("newswire_ingestd_lists_failing ")).unwrap().to_owned()
    };
    assert_eq!(failing().await, "newswire_ingestd_lists_failing 0");
    let truncated = &whole[..whole.find("<outline text='Gamma'").unwrap()];
    for (document, error) in [
        ("<html><body>Log in</body></html>", "this is not OPML"),
        (&*opml(&[]), "it has none of its 3 feeds any more"),
        (
            truncated,
            "it has lost 1 of its 3 feeds and is damaged: line 3: the document ends inside an outline",
        ),
    ] {
        origin.set_document("planet", document);
        let state = wait_error(&stack, error).await;
        assert_eq!(
            (ids(&stack).await, state["sources"].as_u64()),
            (all.map(str::to_owned).to_vec(), Some(3))
        );
        let (_, told) = newswire(&stack, "sources list").await;
        assert!(told.contains(&format!("list planet: {error}")), "{told}");
        for json in ["", " --json"] {
            let (code, told) = newswire(&stack, &format!("sources lists planet --read{json}")).await;
            assert_eq!(code, Some(1), "it was not taken: {told}");
        }
        assert_eq!(failing().await, "newswire_ingestd_lists_failing 1");
    }
    origin.set_document("planet", &whole);
    wait_error(&stack, "").await;
    assert_eq!(failing().await, "newswire_ingestd_lists_failing 0");
    for (behaviour, error) in [
        (Behaviour::Status(404, Vec::new()), "http-status: the server answered 404"),
        (Behaviour::CutOff, "truncated: "),
        (Behaviour::Status(410, Vec::new()), "the list is gone (410)"),
    ] {
        // A new version, so that it is not answered with 304.
        origin.set_document("planet", &whole);
        origin.set_behaviour("planet", behaviour);
        wait_error(&stack, error).await;
        assert_eq!(ids(&stack).await, all);
    }

    // An operator may want the loss: then it counts at once.
    origin.set_document("planet", &opml(&[]));
    wait_error(&stack, "it has none of its 3 feeds").await;
    wait_for("the order", SOON, async || {
        let (code, _) = newswire(&stack, "sources lists planet --take").await;
        (code == Some(0)).then_some(())
    })
    .await
    .unwrap();
    wait_ids(&stack, &[]).await;
    origin.set_document("planet", &whole);
    wait_ids(&stack, &all).await;
}

#[tokio::test]
async fn the_pause_that_the_server_of_a_list_asks_for_holds_for_its_host_after_a_restart() {
    let (origin, [a, b, c]) = origin(["a", "b", "c"]).await;
    let whole = opml(&[("Alpha", &a), ("Beta", &b), ("Gamma", &c)]);
    let planet = origin.set_document("planet", &whole);
    let mut stack = stack(&list("planet", &format!("url = \"{planet}\"")));
    stack.start_both().await.unwrap();
    wait_ids(&stack, &["planet-alpha", "planet-beta", "planet-gamma"]).await;
    origin.set_behaviour("planet", Behaviour::Status(429, vec!["Retry-After: 7200".to_owned()]));
    wait_error(&stack, "the server asks for fewer requests (429)").await;
    let requests = origin.requests("planet").len();
    stack.kill(Binary::Ingestd).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    let visits = origin.requests("a").len();
    let waits = async |stack: &TestStack, id: &str| {
        let (code, told) = newswire(stack, &format!("sources refresh {id}")).await;
        assert!(code == Some(0) && told.contains("waits: ") && told.contains("429"), "{told}");
    };
    waits(&stack, "planet-alpha").await;
    assert_eq!((origin.requests("planet").len(), origin.requests("a").len()), (requests, visits));
    let next = state(&stack).await;
    assert!(next["error"].as_str().unwrap().contains("429") && next["sources"] == 3, "{next}");

    // It is that of the host, also when the list has gone.
    stack.kill(Binary::Ingestd).unwrap();
    fs::write(stack.path("sources.toml"), format!("[[source]]\nid = \"mine\"\nurl = \"{a}\"\n")).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    waits(&stack, "mine").await;
    assert_eq!(origin.requests("a").len(), visits);
}

#[tokio::test]
async fn a_failed_change_of_the_address_of_a_list_takes_nothing_away() {
    let (origin, [a, b, c]) = origin(["a", "b", "c"]).await;
    let planet = origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b)]));
    let other = origin.set_document("other", &opml(&[("Gamma", &c)]));
    let mut stack = stack(&list("planet", &format!("url = \"{planet}\"")));
    stack.start_both().await.unwrap();
    wait_ids(&stack, &["planet-alpha", "planet-beta"]).await;
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    let visited = async |stack: &TestStack, title: &str| {
        let (code, told) = newswire(stack, "sources refresh planet-alpha").await;
        assert_eq!(code, Some(0), "{told}");
        origin.publish("a", title);
        subscriber.wait_event("item", SOON, |event| event.json()["title"] == title).await.unwrap();
    };
    let missing = origin.set_document("missing", "");
    origin.set_behaviour("missing", Behaviour::Status(404, Vec::new()));
    let empty = origin.set_document("empty", &opml(&[]));
    for (url, error) in [(&missing, "404"), (&empty, "it has none of its 2 feeds any more")] {
        fs::write(stack.path("sources.toml"), list("planet", &format!("url = \"{url}\""))).unwrap();
        let (code, told) = newswire(&stack, "reload").await;
        assert_eq!(code, Some(0), "{told}");
        wait_error(&stack, error).await;
        visited(&stack, &format!("After the {error}")).await;
        stack.kill(Binary::Ingestd).unwrap();
        stack.start(Binary::Ingestd).unwrap();
        stack.wait_ready().await.unwrap();
        wait_error(&stack, error).await;
        visited(&stack, &format!("After a start and the {error}")).await;
    }
    // Another list is what the operator wants.
    fs::write(stack.path("sources.toml"), list("planet", &format!("url = \"{other}\""))).unwrap();
    let (code, told) = newswire(&stack, "reload").await;
    assert_eq!(code, Some(0), "{told}");
    wait_ids(&stack, &["planet-gamma"]).await;
    subscriber.wait_event("item", SOON, |event| event.json()["source"] == "planet-gamma").await.unwrap();
}

#[tokio::test]
async fn a_list_survives_a_start_without_network() {
    let (origin, [a, b, c]) = origin(["a", "b", "c"]).await;
    let planet = origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b)]));
    let mut stack = stack(&list("planet", &format!("url = \"{planet}\"")));
    stack.start_both().await.unwrap();
    wait_ids(&stack, &["planet-alpha", "planet-beta"]).await;
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    subscriber.wait_event("item", SOON, |event| event.json()["source"] == "planet-beta").await.unwrap();

    origin.set_behaviour("planet", Behaviour::Reset);
    stack.kill(Binary::Ingestd).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    assert_eq!(ids(&stack).await, ["planet-alpha", "planet-beta"]);
    let state = wait_error(&stack, ": ").await;
    assert_eq!(state["sources"], 2, "{state}");
    origin.publish("a", "Meanwhile");
    subscriber.wait_event("item", SOON, |event| event.json()["title"] == "Meanwhile").await.unwrap();
    let status = stack.json("/sources/planet-beta").await.unwrap();
    assert_eq!(status["counts"]["items"], 1, "nothing is sent again: {status}");

    origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b), ("Gamma", &c)]));
    wait_ids(&stack, &["planet-alpha", "planet-beta", "planet-gamma"]).await;
    wait_error(&stack, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_list_reaches_no_private_network_and_reads_no_file() {
    let (origin, [inside, control, mine, public]) = origin(["inside", "control", "mine", "public"]).await;
    let proxy = ForwardProxy::start().await.unwrap();
    let public = proxy.name("feeds.example", &public).unwrap();
    let mut stack = stack("");
    fs::write(stack.path("secret"), "user:TOPSECRET").unwrap();
    let secret = stack.path("secret").display().to_string();
    let keys = format!(
        "newswire:basicFile='{secret}' newswire:cookieFile='{secret}' newswire:tlsCaFile='{secret}' \
         newswire:headers='{{ X-Key = \"chosen\" }}' newswire:userAgent='chosen' newswire:proxy='direct'"
    );
    let foreign = format!(
        "<opml xmlns:newswire='urn:newswire:opml'><outline text='inside' xmlUrl='{inside}'/>\n\
         <outline text='public' xmlUrl='{public}' {keys}/></opml>"
    );
    let planet = proxy.name("list.example", &origin.set_document("planet", &foreign)).unwrap();
    fs::write(stack.path("own.opml"), opml(&[("mine", &mine)])).unwrap();
    let sources = list("planet", &format!("url = \"{planet}\""))
        + &list("own", "file = \"own.opml\"")
        + &format!("[[source]]\nid = \"control\"\nurl = \"{control}\"\n");
    fs::write(stack.path("sources.toml"), sources).unwrap();
    stack.set("fetch.proxy", &format!("{:?}", proxy.url("http", "")));
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    // All of them are in fetch.allow; those of the operator are visited.
    for id in ["control", "own-mine", "planet-public"] {
        subscriber.wait_event("item", SOON, |event| event.json()["source"] == id).await.unwrap();
    }
    let refused = wait_for("the refusal", SOON, async || {
        let status = stack.json("/sources/planet-inside").await.unwrap();
        Some(status).filter(|status| status["last_status"] == "error")
    });
    let refused = refused.await.unwrap();
    assert!(refused["last_error"].as_str().unwrap().starts_with("blocked-address: "), "{refused}");
    assert!(origin.requests("inside").is_empty());

    let status = stack.json("/sources/planet-public").await.unwrap();
    assert_eq!(status["access"], serde_json::json!(["proxy"]), "that of fetch.proxy: {status}");
    for request in origin.requests("public") {
        let sent = format!("{:?}", request.headers);
        assert!(
            !sent.contains("TOPSECRET") && !sent.contains("dXNlcj") && !sent.contains("chosen"),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn an_own_source_wins_over_the_list() {
    let (origin, [a, b]) = origin(["a", "b"]).await;
    let planet = origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b)]));
    let own = format!("[[source]]\nid = \"mine\"\nurl = \"{a}\"\nevery = \"1s\"\n");
    let mut stack = stack(&(list("planet", &format!("url = \"{planet}\"")) + &own));
    stack.start_both().await.unwrap();
    wait_ids(&stack, &["mine", "planet-beta"]).await;
    let listed = state(&stack).await;
    assert_eq!((&listed["sources"], &listed["known"]), (&1.into(), &1.into()), "{listed}");
    assert_eq!(stack.json("/sources/mine").await.unwrap()["list"], Value::Null);

    // Without it, the one of the list is there at once; with it again, it is not.
    let (code, told) = newswire(&stack, "sources remove mine").await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(ids(&stack).await, ["planet-alpha", "planet-beta"]);
    let (code, told) = newswire(&stack, "sources remove --category tech").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("sources with the category tech come from the list planet and stay"), "{told}");
    let (code, told) = newswire(&stack, "check planet-beta").await;
    assert_eq!(code, Some(0), "{told}");
    // Added without an id, it keeps the one that it has in the list.
    let (code, told) = newswire(&stack, &format!("sources add {a} --every 1s")).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("the list planet has this feed as planet-alpha: the source keeps this id"),
        "{told}"
    );
    assert!(told.contains("added planet-alpha "), "{told}");
    assert_eq!(ids(&stack).await, ["planet-alpha", "planet-beta"]);
    assert_eq!(stack.json("/sources/planet-alpha").await.unwrap()["list"], Value::Null);
    let (code, told) = newswire(&stack, "sources remove planet-alpha").await;
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = newswire(&stack, &format!("sources add {a} --id mine --every 1s")).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("the list planet has this feed as planet-alpha"), "{told}");
    assert_eq!(ids(&stack).await, ["mine", "planet-beta"]);
    let text = fs::read_to_string(stack.path("sources.toml")).unwrap();
    assert!(text.starts_with("[[list]]\nid = \"planet\"\n"), "{text}");

    // A later read changes nothing about that, nor does an id that is in use.
    let own = format!("[[source]]\nid = \"planet-gamma\"\nurl = \"{b}?other\"\nevery = \"1s\"\n");
    fs::write(stack.path("sources.toml"), text + &own).unwrap();
    let (code, told) = newswire(&stack, "reload").await;
    assert_eq!(code, Some(0), "{told}");
    origin.set_document("planet", &opml(&[("Alpha", &a), ("Beta", &b), ("Gamma", &format!("{a}?c"))]));
    wait_ids(&stack, &["mine", "planet-beta", "planet-gamma", "planet-gamma-2"]).await;
}

#[tokio::test]
async fn the_log_names_the_first_ten_outlines_that_are_no_feed_with_their_reasons() {
    let (_origin, [a]) = origin(["a"]).await;
    let mut stack = stack(&list("own", "file = \"own.opml\""));
    let mut text =
        format!("<opml xmlns:newswire='urn:newswire:opml'>\n<outline text='Alpha' xmlUrl='{a}'/>\n");
    for n in 3..=14 {
        let key = if n % 2 == 0 { "every='often'" } else { "tags='no tag'" };
        writeln!(text, "<outline text='bad\u{202e}{n}' xmlUrl='{a}?{n}' newswire:{key}/>").unwrap();
    }
    fs::write(stack.path("own.opml"), text + "</opml>").unwrap();
    stack.start(Binary::Ingestd).unwrap();
    let process = stack.process(Binary::Ingestd).unwrap();
    let lines = wait_for("the lines", SOON, async || {
        let log = process.log();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("is no feed")).map(str::to_owned).collect();
        (lines.len() == 10).then_some(lines)
    });
    let lines = lines.await.unwrap();
    for (n, line) in (3..).zip(&lines) {
        let reason = if n % 2 == 0 { "newswire:every: " } else { "tags" };
        assert!(line.contains(&format!("line {n}: bad{n}: ")) && line.contains(reason), "{line}");
    }
    let log = stack.process(Binary::Ingestd).unwrap().log();
    let total = log.lines().find(|line| line.contains("list of feeds has outlines that are no feed"));
    assert!(total.is_some_and(|line| line.contains("items=12")), "{log}");
}
