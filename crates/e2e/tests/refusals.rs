//! Starts that must be refused: with one clear line each, with an exit code for scripts, and without disturbing others.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::Command,
    time::Duration,
};

use e2e::{Origin, Process, Program, Stack, story, wait_for};
use tokio::time::Instant;

/// Within this a process that cannot work has said so and ended.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// `EX_IOERR` of sysexits.h: a file, directory, socket or port cannot be used.
const IO: i32 = 74;
/// `EX_TEMPFAIL`: another process holds it.
const LOCKED: i32 = 75;
/// `EX_CONFIG`: restarting will not help.
const CONFIG: i32 = 78;

/// Waits for the end, checks the exit code, and returns the complaints in the log.
async fn refusal(mut process: Process, code: i32) -> Vec<String> {
    let (status, _) = process.ended_within(REFUSED_WITHIN).await.expect("it ends at once");
    let log = process.log();
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log.lines()
        .filter(|line| !line.contains(" INFO ") && !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// The one line that says what is wrong, and names `what`.
async fn one_line(process: Process, code: i32, what: &str) {
    let lines = refusal(process, code).await;
    assert_eq!(lines.len(), 1, "one line: {lines:#?}");
    assert!(lines[0].contains(what), "names {what}: {lines:?}");
}

#[tokio::test]
async fn twelve_mistakes_in_the_sources_get_twelve_complaints_with_their_lines() {
    let stack = Stack::new(&[]).unwrap();
    let mistakes = "[[source]]\nid = \"Not An Id\"\nurl = \"ftp://example.org/\"\nname = 3\ncategory = \"two words\"\n\
                    country = \"Germany\"\nlanguage = \"English\"\ntags = \"one\"\nevery = \"often\"\n\
                    timeout = \"0s\"\nenabled = \"yes\"\ncolour = \"blue\"\n[[source]]\nid = \"no-address\"\n";
    fs::write(stack.path("sources.toml"), mistakes).unwrap();
    let lines = refusal(stack.start_apart(Program::Ingestd, "newswire.toml", &[]).unwrap(), CONFIG).await;
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
        let place = format!("sources.toml:{line}");
        let complaints: Vec<_> = lines.iter().filter(|l| l.contains(&format!("{place}:"))).collect();
        assert_eq!(complaints.len(), 1, "{place} in {lines:#?}");
        assert!(complaints[0].contains(what), "{what} in {complaints:?}");
    }
    assert!(!stack.path("run/ingestd.sock").exists() && !stack.path("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_mistaken_configuration_stops_either_process_with_every_complaint() {
    let stack = Stack::new(&[]).unwrap();
    for program in [Program::Ingestd, Program::Gateway] {
        let wrong =
            [("gateway.heartbeat", "\"often\""), ("gateway.heart_beat", "1"), ("fetch.in_flight", "0")];
        let lines = refusal(stack.start_apart(program, "wrong.toml", &wrong).unwrap(), CONFIG).await;
        for key in ["gateway.heartbeat", "gateway.heart_beat", "fetch.in_flight"] {
            let named = lines.iter().filter(|l| l.contains("wrong.toml:") && l.contains(key)).count();
            assert!(named >= 1, "{key} in {lines:#?}");
        }
    }
}

/// Runs a program to its end; returns its exit code and its standard error.
fn run_to_end(stack: &Stack, program: Program, arguments: &[&str]) -> (Option<i32>, String) {
    let config = stack.path("newswire.toml");
    let output = Command::new(program.path().expect("it is built"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .current_dir(stack.folder())
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_check_reads_the_files_that_the_configuration_names_and_changes_nothing() {
    let mut stack = Stack::new(&[]).unwrap();
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
    // A secret that all users can read is only a warning.
    let started = Instant::now();
    let (code, said) = run_to_end(&stack, Program::Newswire, &["config", "check"]);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.contains("warning: ") && said.contains("cookie (mode 0644)"), "{said}");
    assert_eq!(run_to_end(&stack, Program::Gateway, &["--check"]), (Some(0), String::new()));

    fs::write(
        stack.path("tokens.toml"),
        "[[token]]\nname = 3\ntoken = \"0123456789abcdef\"\ncategories = \"all\"\n",
    )
    .unwrap();
    fs::remove_file(stack.path("cookie")).unwrap();
    for (program, arguments, wanted, whats) in [
        (
            Program::Newswire,
            &["config", "check"][..],
            2,
            &["tokens.toml:2: ", "source one: cookie_file: "][..],
        ),
        (Program::Gateway, &["--check"], CONFIG, &["tokens.toml:2: "]),
        (Program::Ingestd, &["--check"], CONFIG, &["source one: cookie_file: "]),
    ] {
        let (code, said) = run_to_end(&stack, program, arguments);
        assert_eq!((code, said.lines().count()), (Some(wanted), whats.len()), "{said}");
        for what in whats {
            assert!(said.contains(what), "{what} in {said}");
        }
        assert!(!said.contains("0123456789abcdef"), "{said}");
    }

    fs::write(stack.path("sources.toml"), "[[source]]\nid = \"one\"\n").unwrap();
    let (code, said) = run_to_end(&stack, Program::Newswire, &["config", "check"]);
    assert_eq!((code, said.matches("sources.toml:1: ").count()), (Some(2), 1), "said once: {said}");
    assert!(!stack.path("run").exists() && !stack.path("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_second_daemon_on_one_store_is_refused_at_once_with_the_pid_of_the_first() {
    let origin = Origin::start().await.unwrap();
    let mut stack = Stack::new(&story::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let first = stack.process(Program::Ingestd).unwrap().id();
    let apart = format!("{:?}", stack.path("run2").display().to_string());
    for _ in 0..3 {
        let second = stack
            .start_apart(Program::Ingestd, "second.toml", &[("daemon.run_dir", apart.as_str())])
            .unwrap();
        one_line(second, LOCKED, &first.to_string()).await;
    }
    // The same, with the first one's own configuration: socket and store are both taken.
    let twin = stack.start_apart(Program::Ingestd, "newswire.toml", &[]).unwrap();
    one_line(twin, LOCKED, &first.to_string()).await;

    let subscriber = stack.subscribe("/news/stream");
    let guid = origin.publish("feed-0", "The first is untouched");
    let limit = Duration::from_secs(10);
    subscriber.wait_event("item", limit, |r| r.json()["guid"] == *guid).await.unwrap();
    assert!(stack.process(Program::Ingestd).unwrap().runs());
    assert!(stack.path("run/ingestd.sock").exists(), "its socket is still there");
}

#[tokio::test]
async fn a_port_in_use_is_named_in_one_line() {
    let stack = Stack::new(&[]).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("\"{address}\"");
    let gateway =
        stack.start_apart(Program::Gateway, "taken.toml", &[("gateway.listen", listen.as_str())]).unwrap();
    one_line(gateway, IO, &address.port().to_string()).await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named_in_one_line() {
    let stack = Stack::new(&[]).unwrap();
    fs::write(stack.path("file"), "no directory").unwrap();
    for path in [stack.path("file/data").display().to_string(), "/proc/newswire".to_owned()] {
        let setting = format!("{path:?}");
        let daemon =
            stack.start_apart(Program::Ingestd, "nowhere.toml", &[("store.path", setting.as_str())]).unwrap();
        one_line(daemon, IO, &path).await;
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let mut stack = Stack::new(&[]).unwrap();
    fs::create_dir(stack.path("run")).unwrap();
    for name in ["ingestd.sock", "ingestd-admin.sock", "gateway-admin.sock"] {
        drop(UnixListener::bind(stack.path("run").join(name)).unwrap());
    }
    stack.start_both().await.unwrap();
    let (status, _) = e2e::http::fetch(&stack.wire(), "/sources", Duration::from_secs(5)).await.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_regular_file_at_the_path_of_a_socket_is_named_in_one_line_and_kept() {
    let stack = Stack::new(&[]).unwrap();
    fs::create_dir(stack.path("run")).unwrap();
    let socket = stack.path("run/ingestd.sock");
    fs::write(&socket, "somebody's notes").unwrap();
    let daemon = stack.start_apart(Program::Ingestd, "newswire.toml", &[]).unwrap();
    one_line(daemon, IO, &socket.display().to_string()).await;
    assert_eq!(fs::read_to_string(&socket).unwrap(), "somebody's notes");
}

#[tokio::test]
async fn a_daemon_that_was_killed_starts_again_on_what_it_left_behind() {
    let origin = Origin::start().await.unwrap();
    let mut stack = Stack::new(&story::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Kept");
    stack.start_both().await.unwrap();
    for _ in 0..5 {
        stack.kill(Program::Ingestd).unwrap();
        assert!(stack.path("run/ingestd.sock").exists(), "killed: it could not tidy up");
        stack.start(Program::Ingestd).unwrap();
        let address = stack.wire();
        wait_for("the daemon to answer", Duration::from_secs(5), async || {
            let answer = e2e::http::fetch(&address, "/sources", Duration::from_secs(1)).await;
            matches!(answer, Ok((200, _))).then_some(())
        })
        .await
        .unwrap();
    }
}
