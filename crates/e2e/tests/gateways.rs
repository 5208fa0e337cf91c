//! Several gateways beside one ingestion daemon.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::time::Duration;

use e2e::{
    Binary, ChildProcess, Origin, TestStack, free_address,
    http::{self, Address},
    scenario, wait_for,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// `EX_TEMPFAIL`: another process holds a socket.
const LOCKED: i32 = 75;

/// Runs `newswire` with that configuration; returns its exit code, standard output and standard error.
async fn newswire(stack: &TestStack, config: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(Binary::Newswire.path().unwrap());
    command.args(arguments).arg("--config").arg(stack.path(config)).current_dir(stack.folder());
    let output = tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn has_title(gateway: &Address, title: &str) -> Option<()> {
    let (_, body) = http::fetch(gateway, "/news?limit=1000", SOON).await.ok()?;
    body.contains(title).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_beside_one_daemon_deliver_the_same_and_each_is_diagnosed_alone() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    stack.start_both().await.unwrap();
    let listen = free_address().unwrap();
    let address = format!("\"{listen}\"");
    let start = |stack: &TestStack, changes: &[(&str, &str)]| -> ChildProcess {
        stack.start_extra(Binary::Gateway, "second.toml", changes).unwrap()
    };

    let mut refused = start(&stack, &[("gateway.listen", &address)]);
    let (status, _) = refused.wait_exit(SOON).await.unwrap();
    let log = refused.log();
    assert_eq!(status.code(), Some(LOCKED), "{log}");
    assert!(
        log.contains("gateway-admin.sock") && log.contains("gateway.admin_dir"),
        "names the remedy: {log}"
    );

    let admin_dir = format!("{:?}", stack.path("second").display().to_string());
    let mut second = start(&stack, &[("gateway.listen", &address), ("gateway.admin_dir", &admin_dir)]);
    let addresses = [stack.gateway(), listen.into()];
    for gateway in &addresses {
        let ready =
            async || http::fetch(gateway, "/ready", SOON).await.ok().filter(|(status, _)| *status == 200);
        wait_for("both gateways to be ready", SOON, ready).await.unwrap();
    }
    origin.publish("feed-0", "For both gateways");
    for gateway in &addresses {
        let delivered = async || has_title(gateway, "For both gateways").await;
        wait_for("both gateways to deliver", SOON, delivered).await.unwrap();
    }

    let first_pid = stack.process(Binary::Gateway).unwrap().id();
    for (config, pid) in [("newswire.toml", first_pid), ("second.toml", second.id())] {
        let (code, json, error) = newswire(&stack, config, &["doctor", "--json"]).await;
        let diagnosis: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(diagnosis["evidence"]["gateway"]["process"]["pid"], pid, "{config}: {json} {error}");
        let verdict = diagnosis["verdict"]["code"].as_str().unwrap().to_owned();
        // Other tests may overload the machine.
        assert!(
            code == Some(0) && verdict == "healthy" || verdict == "worker-starved",
            "{config}: {verdict}"
        );
        let (code, answers, error) = newswire(&stack, config, &["reload", "--json"]).await;
        assert_eq!(code, Some(0), "{config}: {answers} {error}");
    }

    second.kill();
    let (_, json, _) = newswire(&stack, "second.toml", &["doctor", "--json", "--quick"]).await;
    let diagnosis: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(diagnosis["verdict"]["code"], "gateway-dead", "the first one is not taken for it: {json}");
    let (_, json, _) = newswire(&stack, "newswire.toml", &["doctor", "--json", "--quick"]).await;
    let diagnosis: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(diagnosis["evidence"]["gateway"]["process"]["pid"], first_pid, "{json}");
}
