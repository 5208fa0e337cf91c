//! Orders of an operator to the running daemon: for sources by name, by category, and for those that fail.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Runs `newswire sources`, and returns its exit code and its outputs.
async fn sources(stack: &TestStack, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.arg("sources").args(arguments).arg("--config").arg(config).env_clear();
    command.current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A daemon with feeds that are visited once and then only on demand: ids and categories.
async fn stack(
    origin: &Origin,
    feeds: &[(&str, &str)],
    settings: &[(&str, &str)],
    prepare: impl FnOnce(),
) -> TestStack {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.interval_min", "\"1h\"");
    settings.iter().for_each(|(key, value)| stack.set(key, value));
    let mut list = String::new();
    for (id, category) in feeds {
        let url = origin.add_feed(id, DocumentFormat::Rss);
        list += &format!(
            "[[source]]\nid = \"{id}\"\nurl = \"{url}\"\ncategory = \"{category}\"\nevery = \"1h\"\n\n"
        );
    }
    fs::write(stack.path("sources.toml"), list).unwrap();
    prepare();
    stack.start(Binary::Ingestd).unwrap();
    stack
}

async fn status(stack: &TestStack, id: &str) -> Option<Value> {
    match http::fetch(&stack.wire(), &format!("/sources/{id}"), SOON).await {
        Ok((200, text)) => Some(serde_json::from_str(&text).unwrap()),
        _ => None,
    }
}

/// Until the source has ended as many visits.
async fn visited(stack: &TestStack, id: &str, visits: u64) -> Value {
    let ended = async || {
        let status = status(stack, id).await?;
        (status["counts"]["visits"].as_u64()? >= visits && status["activity"] == "idle").then_some(status)
    };
    wait_for(&format!("{visits} visits to {id}"), SOON, ended).await.unwrap()
}

#[tokio::test]
async fn refresh_says_what_waits_and_why() {
    let origin = Origin::start().await.unwrap();
    let ids: Vec<_> = (0..25).map(|n| format!("feed-{n}")).collect();
    let feeds: Vec<_> =
        ids.iter().map(|id| (id.as_str(), if id == "feed-7" { "one" } else { "rest" })).collect();
    let stack = stack(&origin, &feeds, &[("fetch.host_spacing", "\"1h\"")], || ()).await;
    let first = async || {
        let visited = ids.iter().find(|id| !origin.requests(id).is_empty())?;
        let status = status(&stack, visited).await?;
        (status["activity"] == "idle").then(|| visited.clone())
    };
    let first = wait_for("the first visit; all others wait an hour", SOON, first).await.unwrap();
    let waiting = ids.iter().find(|id| **id != first).unwrap();

    let url = origin.url("");
    let origin_host = url.trim_start_matches("http://").trim_end_matches('/');
    let reason = format!("waits: visits to {origin_host} start at least 1h apart\n");
    let (code, out, err) = sources(&stack, &["refresh", waiting, "--full"]).await;
    assert_eq!((code, out), (Some(0), format!("{waiting} {reason}")), "{err}");
    let (code, out, _) = sources(&stack, &["refresh", "--all"]).await;
    assert_eq!((code, out), (Some(0), format!("25 sources: {reason}")));
    let (code, out, _) = sources(&stack, &["refresh", "--category", "ONE"]).await;
    assert_eq!((code, out), (Some(0), format!("feed-7 {reason}")));
    assert_eq!(
        ids.iter().map(|id| origin.requests(id).len()).sum::<usize>(),
        1,
        "the spacing holds for orders"
    );
}

#[tokio::test]
async fn a_full_refresh_sends_no_validators_once() {
    let origin = Origin::start().await.unwrap();
    let publish = || drop(origin.publish("a", "One"));
    let stack = stack(&origin, &[("a", "x")], &[], publish).await;
    visited(&stack, "a", 1).await;
    let conditional = |n: usize| origin.requests("a")[n].header("if-none-match").is_some();
    for (visit, arguments) in
        [["refresh", "a"].as_slice(), &["refresh", "a", "--full"], &["refresh", "--all"]]
            .into_iter()
            .enumerate()
    {
        let (code, out, err) = sources(&stack, arguments).await;
        assert_eq!(code, Some(0), "{out}{err}");
        visited(&stack, "a", visit as u64 + 2).await;
    }
    assert_eq!([0, 1, 2, 3].map(conditional), [false, true, false, true]);
    let status = status(&stack, "a").await.unwrap();
    assert_eq!(
        (&status["counts"]["items"], &status["last_status"]),
        (&1.into(), &"unchanged".into()),
        "{status}"
    );

    // A full visit that fails costs no validators.
    origin.set_behaviour("a", Behaviour::Status(503, Vec::new()));
    let (_, out, _) = sources(&stack, &["refresh", "a", "--full"]).await;
    visited(&stack, "a", 5).await;
    assert!(out.contains("a was visited: ") && out.contains("503"), "{out}");
    origin.set_behaviour("a", Behaviour::Honest);
    sources(&stack, &["refresh", "a"]).await;
    visited(&stack, "a", 6).await;
    assert_eq!([4, 5].map(conditional), [false, true]);
}

#[tokio::test]
async fn orders_reach_the_sources_of_a_category_and_those_that_fail() {
    let origin = Origin::start().await.unwrap();
    let feeds = [("a", "world"), ("b", "World"), ("c", "sport"), ("d", "sport")];
    let break_two = || {
        ["b", "c"].iter().for_each(|id| origin.set_behaviour(id, Behaviour::Status(500, Vec::new())));
    };
    let stack = stack(&origin, &feeds, &[], break_two).await;
    for (id, _) in feeds {
        visited(&stack, id, 1).await;
    }
    let words = |text: &str| {
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    for (arguments, reached) in [
        (["refresh", "--failing"].as_slice(), ["b", "c"].as_slice()),
        (&["refresh", "--category", "world"], &["a", "b"]),
        (&["refresh", "--category", "world", "--failing"], &["b"]),
        (&["refresh", "d", "--category", "world"], &["a", "b", "d"]),
        (&["refresh", "--all"], &["a", "b", "c", "d"]),
    ] {
        let before: Vec<_> = feeds.iter().map(|(id, _)| origin.requests(id).len()).collect();
        let (code, out, err) = sources(&stack, arguments).await;
        assert_eq!((code, words(&out)), (Some(0), set(reached)), "{arguments:?}: {out}{err}");
        for ((id, _), before) in feeds.iter().zip(before) {
            let more = u64::from(reached.contains(id));
            visited(&stack, id, before as u64 + more).await;
            assert_eq!(
                origin.requests(id).len(),
                before + usize::from(reached.contains(id)),
                "{arguments:?}: {id}"
            );
        }
    }
    let (code, _, err) = sources(&stack, &["refresh", "--category", "wrold"]).await;
    assert_eq!((code, err.as_str()), (Some(1), "no source has the category wrold\n"));

    let (code, out, _) =
        sources(&stack, &["pause", "--category", "sport", "--reason", "the games are over"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "c is paused\nd is paused\n"));
    let (code, out, _) = sources(&stack, &["refresh", "--all"]).await;
    assert_eq!((code, words(&out)), (Some(0), set(&["2", "a", "b"])), "{out}");
    assert!(out.starts_with("2 sources: paused, so not visited\n"), "{out}");
    let (code, out, _) = sources(&stack, &["resume", "--category", "sport", "--category", "nope"]).await;
    assert_eq!((code, out.as_str()), (Some(1), "c is visited again\nd is visited again\n"));
    let (code, out, _) = sources(&stack, &["resume", "--category", "sport"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "none of these sources was paused\n"));

    let off = origin.add_feed("off", DocumentFormat::Rss);
    let arguments = ["add", &off, "--id", "off", "--category", "off", "--disabled"];
    assert_eq!(sources(&stack, &arguments).await.0, Some(0));
    let (code, _, err) = sources(&stack, &["pause", "--category", "off"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("all of them are disabled"), "{err}");
    assert_eq!(sources(&stack, &["remove", "off"]).await.0, Some(0));

    let (code, out, err) =
        sources(&stack, &["remove", "d", "--category", "SPORT", "--category", "nope"]).await;
    assert_eq!((code, out.as_str()), (Some(1), "removed d\nremoved c\n"), "{err}");
    assert!(
        err.contains("no source has the category nope") && err.contains("2 removed, 2 unchanged"),
        "{err}"
    );
    let list = fs::read_to_string(stack.path("sources.toml")).unwrap();
    assert_eq!((list.matches("[[source]]").count(), list.contains("sport")), (2, false), "{list}");
}
