//! Executes the procedures of `deploy/OPERATIONS.md`.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{fs, process::Command, time::Duration};

use e2e::{Binary, Origin, TestStack, scenario, wait_for};

const OPERATIONS: &str = include_str!("../../../deploy/OPERATIONS.md");
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_file_that_the_document_names_exists() {
    let links: Vec<_> = OPERATIONS.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() >= 6, "{links:?}");
    for link in links {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        match (file, anchor) {
            ("", anchor) => {
                let titles = OPERATIONS.lines().filter_map(|line| line.strip_prefix("## "));
                let titles = titles.chain(OPERATIONS.lines().filter_map(|line| line.strip_prefix("### ")));
                let mut anchors = titles.map(|title| title.to_lowercase().replace(' ', "-"));
                assert!(anchors.any(|a| a == anchor), "{link}");
            }
            (file, _) => {
                let path = format!("{}/../../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
                assert!(fs::exists(path).unwrap(), "{link}");
            }
        }
    }
}

async fn shows(stack: &TestStack, title: &str) {
    let what = format!("{title} at the gateway");
    let there = wait_for(&what, LIMIT, async || {
        stack.json("/news").await.ok()?.to_string().contains(title).then_some(())
    });
    there.await.unwrap();
}

/// Runs `tar` in the folder of a stack.
fn tar(stack: &TestStack, arguments: &[&str]) {
    let done = Command::new("tar").args(arguments).current_dir(stack.folder()).status().unwrap();
    assert!(done.success());
}

/// Accepts files that were copied here.
fn restore_same_epoch(stack: &TestStack) {
    let mut restore = Command::new(Binary::Newswire.path().unwrap());
    restore.args(["log", "restore", "--same-epoch", "--config"]).arg(stack.path("newswire.toml"));
    assert!(restore.status().unwrap().success());
}

#[tokio::test]
async fn a_restored_copy_of_the_store_refetches_what_was_published_after_it() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Before");
    stack.start_both().await.unwrap();
    shows(&stack, "Before").await;

    let (status, _) = stack.terminate(Binary::Ingestd, LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
    shows(&stack, "Before").await; // the gateway still serves it
    tar(&stack, &["-czf", "copy.tar.gz", "data"]);
    let before = stack.json("/news").await.unwrap();
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    origin.publish("feed-0", "After");
    shows(&stack, "After").await;

    // The gateway knows events that the copy does not have.
    stack.terminate(Binary::Gateway, LIMIT).await.unwrap();
    stack.terminate(Binary::Ingestd, LIMIT).await.unwrap();
    fs::rename(stack.path("data"), stack.path("data.damaged")).unwrap();
    tar(&stack, &["-xzpf", "copy.tar.gz"]);
    restore_same_epoch(&stack);
    stack.start_both().await.unwrap();
    stack.wait_ready().await.unwrap();
    shows(&stack, "After").await;
    let now = stack.json("/news").await.unwrap();
    let known = before["items"].as_array().unwrap();
    assert!(!known.is_empty());
    for item in known {
        let kept = now["items"].as_array().unwrap().iter().find(|i| i["id"] == item["id"]);
        assert_eq!(
            kept.map(|kept| &kept["title"]),
            Some(&item["title"]),
            "every id of the copy refers to the same event"
        );
    }
}
