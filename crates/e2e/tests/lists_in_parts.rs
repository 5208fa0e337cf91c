//! A list of sources in several files (`include`) is one list for the daemon and for every command.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, process::Command, time::Duration};

use e2e::{Binary, Origin, TestStack, http, scenario, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn source(id: &str, url: &str) -> String {
    format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1s\"\n")
}

/// Runs `newswire` with the configuration of the stack, and returns its exit code and its outputs.
async fn newswire(stack: &TestStack, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The ids that the running daemon knows.
async fn listed(stack: &TestStack) -> Vec<String> {
    let (code, text) = http::fetch(&stack.wire(), "/sources", SOON).await.unwrap();
    assert_eq!(code, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let id = |source: &Value| source["id"].as_str().unwrap().to_owned();
    let mut ids: Vec<_> = list["sources"].as_array().unwrap().iter().map(id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn lists_in_parts_are_one_list() {
    let origin = Origin::start().await.unwrap();
    let feeds = scenario::feeds(&origin, 5);
    let mut stack = TestStack::new(&[]).unwrap();
    let main = format!("include = \"sources.d/*.toml\"\n\n{}", source("feed-0", &feeds[0].url));
    fs::write(stack.path("sources.toml"), &main).unwrap();
    let (code, out, err) = newswire(&stack, &["config", "check"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("sources.toml:1: include: `sources.d/*.toml` matches no file"), "{err}");
    assert!(out.contains("sources.toml: ok, 1 sources (1 enabled)"), "{out}");

    fs::create_dir(stack.path("sources.d")).unwrap();
    fs::write(stack.path("sources.d/b.toml"), source("feed-2", &feeds[2].url)).unwrap();
    fs::write(stack.path("sources.d/a.toml"), "# Ours.\n\n".to_owned() + &source("feed-1", &feeds[1].url))
        .unwrap();
    fs::write(stack.path("sources.d/b.toml~"), "no list").unwrap();
    let (_, out, err) = newswire(&stack, &["config", "check"]).await;
    assert!(
        out.contains("3 sources (3 enabled)") && out.contains("in 2 included files and this one"),
        "{out}{err}"
    );

    stack.start_both().await.unwrap();
    wait_for("the three sources", SOON, async || (listed(&stack).await.len() == 3).then_some(()))
        .await
        .unwrap();
    wait_for("visits to all", SOON, async || {
        (0..3).all(|n| !origin.requests(&format!("feed-{n}")).is_empty()).then_some(())
    })
    .await
    .unwrap();

    // A new file comes with a reload; one with mistakes is named and changes nothing.
    fs::write(stack.path("sources.d/c.toml"), source("feed-3", &feeds[3].url)).unwrap();
    let (code, out, err) = newswire(&stack, &["reload"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(listed(&stack).await, ["feed-0", "feed-1", "feed-2", "feed-3"]);
    let wrong =
        source("feed-1", "https://example.org/") + "evry = \"1h\"\n" + &source("other", &feeds[2].url);
    fs::write(stack.path("sources.d/d.toml"), wrong).unwrap();
    for command in ["reload", "config check", "sources remove feed-0", "sources export"] {
        let (code, out, err) = newswire(&stack, &command.split(' ').collect::<Vec<_>>()).await;
        assert_ne!(code, Some(0), "{command}");
        for part in [
            "sources.d/d.toml:2: source.id: `feed-1` is the id of the source at ",
            "sources.d/a.toml:4 already",
            "sources.d/d.toml:5: source.evry: unknown key",
            "source `other` has the address of source `feed-2` at ",
        ] {
            assert!((out.clone() + &err).contains(part), "{command}: {part} in {out}{err}");
        }
    }
    assert_eq!(listed(&stack).await.len(), 4);
    fs::remove_file(stack.path("sources.d/d.toml")).unwrap();

    // Commands change the file that has the source; a new one goes into the main file.
    let (code, out, err) = newswire(&stack, &["sources", "remove", "feed-1", "feed-3"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "removed feed-1\nremoved feed-3\n"), "{err}");
    assert!(err.contains("0 added, 0 changed, 2 removed, 2 unchanged"), "{err}");
    assert_eq!(fs::read_to_string(stack.path("sources.d/a.toml")).unwrap(), "# Ours.\n\n");
    assert_eq!(fs::read_to_string(stack.path("sources.d/c.toml")).unwrap(), "");
    assert_eq!(fs::read_to_string(stack.path("sources.toml")).unwrap(), main);
    let (code, out, _) = newswire(&stack, &["sources", "add", &feeds[2].url]).await;
    assert!(code == Some(0) && out.contains("is there already: feed-2"), "{out}");
    let (code, out, err) = newswire(&stack, &["sources", "add", &feeds[4].url, "--id", "feed-4"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(fs::read_to_string(stack.path("sources.toml")).unwrap().contains("id = \"feed-4\""));
    assert_eq!(listed(&stack).await, ["feed-0", "feed-2", "feed-4"]);
    let (_, out, _) = newswire(&stack, &["sources", "export"]).await;
    assert_eq!(out.matches("<outline type=\"rss\"").count(), 3, "{out}");
}

#[tokio::test]
async fn a_secret_in_an_included_file_is_in_no_bundle() {
    let mut stack = TestStack::new(&[]).unwrap();
    fs::write(stack.path("sources.toml"), "include = [\"part.toml\"]\n").unwrap();
    let part = "[[source]]\nid = \"a\"\nurl = \"http://127.0.0.1:9/\"\nheaders = { X-Key = \"planted-header-value\" }\n";
    fs::write(stack.path("part.toml"), part).unwrap();
    stack.start_both().await.unwrap();
    let leak = stack.path("leak.log");
    fs::write(&leak, "2999-01-01T00:00:00Z WARN  sent planted-header-value\n").unwrap();
    let bundle = stack.path("out.tar.gz").display().to_string();
    let leak = leak.display().to_string();
    let (code, out, err) = newswire(&stack, &["bundle", "--output", &bundle, "--log", &leak]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let unpack = Command::new("tar").args(["-xzOf", &bundle]).output().unwrap();
    let text = String::from_utf8_lossy(&unpack.stdout).into_owned();
    assert!(!text.contains("planted-header-value"), "{text}");
    assert!(text.contains("include of ingestd.sources") && text.contains("\"included\""), "{text}");
    assert!(text.contains("sent …"), "the log is in it: {text}");
}
