//! Refused starts: one clear line each, a distinct exit code, and no effect on a running daemon.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::{Command, Output},
    time::Duration,
};

use e2e::{Binary, ChildProcess, Origin, TestStack, scenario, wait_for};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Deadline for a process that cannot start to exit, at once: it waits for nothing, and what holds it up in these tests
/// does so until they end.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
/// `EX_IOERR` of sysexits.h: a file, directory, socket or port cannot be used.
const IO: i32 = 74;
/// `EX_TEMPFAIL`: another process holds it.
const LOCKED: i32 = 75;
/// `EX_CONFIG`: restarting will not help.
const CONFIG: i32 = 78;

/// Waits until the process exits, checks its code, and returns the log lines above INFO.
async fn refusal(mut process: ChildProcess, code: i32) -> Vec<String> {
    let (status, _) = process.wait_exit(REFUSED_WITHIN).await.expect("it exits at once");
    let log = process.log();
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log.lines()
        .filter(|line| !line.contains(" INFO ") && !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// Checks that the process exits with one line that contains `what`.
async fn one_line(process: ChildProcess, code: i32, what: &str) {
    let lines = refusal(process, code).await;
    assert_eq!(lines.len(), 1, "one line: {lines:#?}");
    assert!(lines[0].contains(what), "names {what}: {lines:?}");
}

#[tokio::test]
async fn twelve_mistakes_in_the_sources_get_twelve_complaints_with_their_lines() {
    let stack = TestStack::new(&[]).unwrap();
    let mistakes = "[[source]]\nid = \"Not An Id\"\nurl = \"ftp://example.org/\"\nname = 3\ncategory = \"two words\"\n\
                    country = \"Germany\"\nlanguage = \"English\"\ntags = \"one\"\nevery = \"often\"\n\
                    timeout = \"0s\"\nenabled = \"yes\"\ncolour = \"blue\"\n[[source]]\nid = \"no-address\"\n";
    fs::write(stack.path("sources.toml"), mistakes).unwrap();
    let lines = refusal(stack.start_extra(Binary::Ingestd, "newswire.toml", &[]).unwrap(), CONFIG).await;
    for (line, what) in [
        (2, "id"),
        (3, "url"),
        (4, "name"),
        (5, "category"),
        (6, "country"),
        (7, "language"),
        (8, "tags"),
        (9, "every"),
        (10, "timeout"),
        (11, "enabled"),
        (12, "colour"),
        (13, "url"),
    ] {
        let location = format!("sources.toml:{line}");
        let complaints: Vec<_> = lines.iter().filter(|l| l.contains(&format!("{location}:"))).collect();
        assert_eq!(complaints.len(), 1, "{location} in {lines:#?}");
        assert!(complaints[0].contains(what), "{what} in {complaints:?}");
    }
    assert!(!stack.path("run/ingestd.sock").exists() && !stack.path("data").exists(), "nothing was created");
}

#[tokio::test]
async fn a_wrong_configuration_stops_either_daemon_with_all_complaints() {
    let stack = TestStack::new(&[]).unwrap();
    for program in [Binary::Ingestd, Binary::Gateway] {
        let wrong =
            [("gateway.heartbeat", "\"often\""), ("gateway.heart_beat", "1"), ("fetch.in_flight", "0")];
        let lines = refusal(stack.start_extra(program, "wrong.toml", &wrong).unwrap(), CONFIG).await;
        for key in ["gateway.heartbeat", "gateway.heart_beat", "fetch.in_flight"] {
            let named = lines.iter().filter(|l| l.contains("wrong.toml:") && l.contains(key)).count();
            assert!(named >= 1, "{key} in {lines:#?}");
        }
    }
}

/// Runs a program to its end; its exit code and standard error.
fn run_to_end(stack: &TestStack, program: Binary, arguments: &[&str]) -> (Option<i32>, String) {
    let output = output_of(stack, program, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn output_of(stack: &TestStack, program: Binary, arguments: &[&str]) -> Output {
    let config = stack.path("newswire.toml");
    Command::new(program.path().expect("it is built"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .current_dir(stack.folder())
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("it starts")
}

#[tokio::test]
async fn a_check_reads_the_files_that_the_configuration_names_and_creates_none() {
    let mut stack = TestStack::new(&[]).unwrap();
    let list = "[[source]]\nid = \"one\"\nurl = \"https://example.org/1\"\ncookie_file = \"./cookie\"\n";
    fs::write(stack.path("sources.toml"), list).unwrap();
    fs::write(stack.path("cookie"), "a=b\n").unwrap();
    fs::set_permissions(stack.path("cookie"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(
        stack.path("tokens.toml"),
        "[[token]]\nname = \"desk\"\ntoken = \"0123456789abcdef\"\ncategories = \"all\"\n",
    )
    .unwrap();
    fs::set_permissions(stack.path("tokens.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    stack.set("gateway.read_tokens_file", &format!("{:?}", stack.path("tokens.toml")));
    stack.write_config("newswire.toml", &[]).unwrap();
    // A world-readable secret is a warning, not an error.
    let started = Instant::now();
    let (code, output) = run_to_end(&stack, Binary::Newswire, &["config", "check"]);
    assert!(started.elapsed() < REFUSED_WITHIN, "{:?}", started.elapsed());
    assert_eq!((code, output.lines().count()), (Some(0), 1), "{output}");
    assert!(output.contains("warning: ") && output.contains("cookie (mode 0644)"), "{output}");
    assert_eq!(run_to_end(&stack, Binary::Gateway, &["--check"]), (Some(0), String::new()));
    let output = output_of(&stack, Binary::Ingestd, &["--check", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &found["complaints"]), (Some(0), &json!([])), "{found}");
    assert!(found["warnings"][0].as_str().unwrap().contains("cookie (mode 0644)"), "{found}");

    fs::write(
        stack.path("tokens.toml"),
        "[[token]]\nname = 3\ntoken = \"0123456789abcdef\"\ncategories = \"all\"\n",
    )
    .unwrap();
    fs::remove_file(stack.path("cookie")).unwrap();
    for (program, arguments, expected, expected_texts) in [
        (
            Binary::Newswire,
            &["config", "check"][..],
            2,
            &["tokens.toml:2: ", "source one: cookie_file: "][..],
        ),
        (Binary::Gateway, &["--check"], CONFIG, &["tokens.toml:2: "]),
        (Binary::Ingestd, &["--check"], CONFIG, &["source one: cookie_file: "]),
    ] {
        let (code, output) = run_to_end(&stack, program, arguments);
        assert_eq!((code, output.lines().count()), (Some(expected), expected_texts.len()), "{output}");
        for what in expected_texts {
            assert!(output.contains(what), "{what} in {output}");
        }
        assert!(!output.contains("0123456789abcdef"), "{output}");
    }

    fs::write(stack.path("sources.toml"), "[[source]]\nid = \"one\"\n").unwrap();
    let (code, output) = run_to_end(&stack, Binary::Newswire, &["config", "check"]);
    assert_eq!((code, output.matches("sources.toml:1: ").count()), (Some(2), 1), "reported once: {output}");
    assert!(!stack.path("run").exists() && !stack.path("data").exists(), "nothing was created");
}

#[tokio::test]
async fn a_second_daemon_on_one_store_is_refused_at_once_and_names_the_owner() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let first = stack.process(Binary::Ingestd).unwrap().id();
    let run_dir = format!("{:?}", stack.path("run2").display().to_string());
    for _ in 0..3 {
        let second = stack
            .start_extra(Binary::Ingestd, "second.toml", &[("daemon.run_dir", run_dir.as_str())])
            .unwrap();
        one_line(second, LOCKED, &first.to_string()).await;
    }
    // With the configuration of the first one, socket and store are both in use.
    let same_config = stack.start_extra(Binary::Ingestd, "newswire.toml", &[]).unwrap();
    one_line(same_config, LOCKED, &first.to_string()).await;

    let subscriber = stack.subscribe("/news/stream");
    let guid = origin.publish("feed-0", "The first is untouched");
    let limit = Duration::from_secs(60);
    subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
    assert!(stack.process(Binary::Ingestd).unwrap().is_running());
    assert!(stack.path("run/ingestd.sock").exists(), "its socket was not removed");
}

#[tokio::test]
async fn a_port_in_use_is_named_in_one_line() {
    let stack = TestStack::new(&[]).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("\"{address}\"");
    let gateway =
        stack.start_extra(Binary::Gateway, "taken.toml", &[("gateway.listen", listen.as_str())]).unwrap();
    one_line(gateway, IO, &address.port().to_string()).await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named_in_one_line() {
    let stack = TestStack::new(&[]).unwrap();
    fs::write(stack.path("file"), "no directory").unwrap();
    for path in [stack.path("file/data").display().to_string(), "/proc/newswire".to_owned()] {
        let setting = format!("{path:?}");
        let daemon =
            stack.start_extra(Binary::Ingestd, "nowhere.toml", &[("store.path", setting.as_str())]).unwrap();
        one_line(daemon, IO, &path).await;
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let mut stack = TestStack::new(&[]).unwrap();
    fs::create_dir(stack.path("run")).unwrap();
    for name in ["ingestd.sock", "ingestd-admin.sock", "gateway-admin.sock"] {
        drop(UnixListener::bind(stack.path("run").join(name)).unwrap());
    }
    stack.start_both().await.unwrap();
    let (status, _) = e2e::http::fetch(&stack.wire(), "/sources", Duration::from_secs(60)).await.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_regular_file_at_the_sockets_path_is_named_in_one_line_and_not_touched() {
    let stack = TestStack::new(&[]).unwrap();
    fs::create_dir(stack.path("run")).unwrap();
    let socket = stack.path("run/ingestd.sock");
    fs::write(&socket, "other data").unwrap();
    let daemon = stack.start_extra(Binary::Ingestd, "newswire.toml", &[]).unwrap();
    one_line(daemon, IO, &socket.display().to_string()).await;
    assert_eq!(fs::read_to_string(&socket).unwrap(), "other data");
}

#[tokio::test]
async fn a_killed_daemon_restarts_on_the_files_it_left() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Kept");
    stack.start_both().await.unwrap();
    for _ in 0..5 {
        stack.kill(Binary::Ingestd).unwrap();
        assert!(stack.path("run/ingestd.sock").exists(), "a killed daemon leaves its socket");
        stack.start(Binary::Ingestd).unwrap();
        let address = stack.wire();
        wait_for("the daemon to answer", TestStack::READY_WITHIN, async || {
            let answer = e2e::http::fetch(&address, "/sources", Duration::from_secs(10)).await;
            matches!(answer, Ok((200, _))).then_some(())
        })
        .await
        .unwrap();
    }
}
