//! `newswire doctor` on the real processes: healthy, and with every fault that can be caused from outside.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fmt,
    fs::File,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{
    Behaviour, Binary, ChildProcess, DocumentFormat, Origin, TestSource, TestStack, http::Address, log_line,
    scenario, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Deadline of the command, whatever is frozen: what is frozen in these tests never ends by itself.
const DOCTOR_WITHIN: Duration = Duration::from_secs(60);

/// The result of a run.
struct Diagnosis {
    exit: Option<i32>,
    took: Duration,
    json: Value,
}

impl Diagnosis {
    fn code(&self) -> &str {
        self.json["verdict"]["code"].as_str().unwrap()
    }

    fn line(&self) -> &str {
        self.json["verdict"]["line"].as_str().unwrap()
    }

    /// A part of the evidence, such as `/gateway/process/pid`.
    fn evidence(&self, pointer: &str) -> &Value {
        self.json["evidence"].pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Function, file and line of all resolved frames in the stacks of a daemon.
    fn locations(&self, daemon: &str) -> Vec<String> {
        let threads =
            self.evidence(&format!("/{daemon}/stacks/threads")).as_array().cloned().unwrap_or_default();
        let frames =
            threads.iter().flat_map(|thread| thread["frames"].as_array().cloned().unwrap_or_default());
        let location = |frame: Value| {
            Some(format!(
                "{} at {}:{}",
                frame["function"].as_str()?,
                frame["file"].as_str()?,
                frame["line"].as_u64()?
            ))
        };
        frames.filter_map(location).collect()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "doctor, {:.2} s, exit {:?}, {}: {}",
            self.took.as_secs_f64(),
            self.exit,
            self.code(),
            self.line()
        )
    }
}

/// Runs `newswire doctor` with the configuration of a stack; its exit code, duration, standard output and error.
async fn run(stack: &TestStack, arguments: &[&str]) -> (Option<i32>, Duration, String, String) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.arg("doctor").args(arguments).arg("--config").arg(config).env_clear().current_dir(stack.folder());
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), began.elapsed(), text(output.stdout), text(output.stderr))
}

/// Runs the doctor and checks its deadline.
async fn diagnose(stack: &TestStack, arguments: &[&str]) -> Diagnosis {
    let (exit, took, out, err) = run(stack, &[&["--json"], arguments].concat()).await;
    let json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out:?} {err:?}"));
    let diagnosis = Diagnosis { exit, took, json };
    log_line(&diagnosis.to_string());
    assert!(took <= DOCTOR_WITHIN, "{diagnosis}");
    diagnosis
}

/// Checks the verdict and that the exit code agrees with it.
#[track_caller]
fn expect(diagnosis: &Diagnosis, code: &str) {
    // A row of the table of `scripts/drill`.
    let test = std::thread::current().name().unwrap_or_default().replace('_', " ");
    log_line(&format!("| {test} | {} | – | {:.1} |", diagnosis.code(), diagnosis.took.as_secs_f64()));
    assert_eq!(diagnosis.code(), code, "{diagnosis}\n{:#}", diagnosis.json);
    let fine = matches!(code, "healthy" | "slow-feeds");
    let exit = match code {
        "unknown" => 3,
        _ => i32::from(!fine),
    };
    assert_eq!(diagnosis.exit, Some(exit), "{diagnosis}");
    assert!(fine || !diagnosis.json["verdict"]["next"].as_array().unwrap().is_empty(), "{diagnosis}");
}

/// Like [`expect`], but accepts the verdict that the machine is overloaded, which other tests may cause.
#[track_caller]
fn expect_unless_overloaded(diagnosis: &Diagnosis, code: &str) {
    if diagnosis.code() == "worker-starved" && diagnosis.line().contains("no processor") {
        log_line("the machine was overloaded, as the doctor reported");
    } else {
        expect(diagnosis, code);
    }
}

async fn both_running(sources: &[TestSource]) -> TestStack {
    let mut stack = TestStack::new(sources).unwrap();
    stack.start_both().await.unwrap();
    stack
}

fn pid(stack: &mut TestStack, program: Binary) -> u64 {
    u64::from(stack.process(program).unwrap().id())
}

/// Stops a process and waits until it is stopped.
async fn freeze(stack: &mut TestStack, program: Binary) {
    let process: &mut ChildProcess = stack.process(program).unwrap();
    process.signal(Signal::STOP).unwrap();
    let status = format!("/proc/{}/status", process.id());
    let is_stopped = async || std::fs::read_to_string(&status).ok()?.contains("State:\tT").then_some(());
    wait_for("the process to stop", DOCTOR_WITHIN, is_stopped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_system_is_reported_as_healthy_with_all_evidence() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 4)).await;
    let diagnosis = diagnose(&stack, &[]).await;
    expect_unless_overloaded(&diagnosis, "healthy");
    let (ingestd, gateway) = (pid(&mut stack, Binary::Ingestd), pid(&mut stack, Binary::Gateway));
    assert_eq!(diagnosis.evidence("/ingestd/process/pid"), ingestd);
    assert_eq!(diagnosis.evidence("/gateway/process/pid"), gateway);
    assert_eq!(diagnosis.evidence("/listener/sockets/0/owners/0/pid"), gateway);
    for n in 0..3 {
        assert_eq!(diagnosis.evidence(&format!("/http/probes/{n}/status")), 200);
    }
    assert_eq!(diagnosis.evidence("/gateway/watch/vitals/wire/connected"), true);
    assert_eq!(diagnosis.evidence("/ingestd/watch/vitals/wire/subscribers"), 1);
    assert!(diagnosis.evidence("/gateway/stacks/from").is_string());
    assert!(!diagnosis.locations("gateway").is_empty() && !diagnosis.locations("ingestd").is_empty());
    assert!(diagnosis.evidence("/store/free_bytes").as_u64().unwrap() > 0);
    let proof = diagnosis.evidence("/proof").as_array().unwrap();
    assert_eq!(proof.len(), 10);
    assert!(proof.iter().all(|entry| entry["state"] == "proved"), "{proof:#?}");
    assert!(diagnosis.evidence("/gateway/watch_later/loops").is_array(), "it was looked at twice");

    let (_, took, text, _) = run(&stack, &[]).await;
    log_line(&format!("as text, after {took:?}:\n{text}"));
    assert!(text.lines().last().unwrap().starts_with("VERDICT "), "{text}");
    for title in [
        "http",
        "newswire-ingestd",
        "newswire-gateway",
        "wire",
        "store",
        "sources",
        "stacks of newswire-gateway",
        "proof",
    ] {
        assert!(text.lines().any(|line| line.starts_with(title)), "{title} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_process_is_named() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    stack.kill(Binary::Ingestd).unwrap();
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "daemon-dead");
    assert!(diagnosis.line().contains("killed"), "{diagnosis}");

    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    stack.kill(Binary::Gateway).unwrap();
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "gateway-dead");
    assert_eq!(diagnosis.evidence("/ingestd/presence"), "running");

    stack.kill(Binary::Ingestd).unwrap();
    expect(&diagnose(&stack, &[]).await, "not-running");
    expect(&diagnose(&stack, &["--quick"]).await, "not-running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_never_ran_is_reported_as_not_running() {
    let stack = TestStack::new(&[]).unwrap();
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "not-running");
    assert!(diagnosis.evidence("/store/free_bytes").as_u64().is_some(), "{diagnosis}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_daemon_is_reported_with_stacks_read_from_outside() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    freeze(&mut stack, Binary::Ingestd).await;
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "daemon-stopped");
    assert_eq!(diagnosis.evidence("/ingestd/process/pid"), pid(&mut stack, Binary::Ingestd));
    assert_eq!(diagnosis.evidence("/ingestd/stacks/from"), "outside");
    assert!(
        !diagnosis.locations("ingestd").is_empty(),
        "function, file and line: {:#}",
        diagnosis.evidence("/ingestd/stacks")
    );
    assert_eq!(diagnosis.evidence("/http/probes/0/status"), 200, "the gateway still serves");
    expect(&diagnose(&stack, &["--quick"]).await, "daemon-stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_gateway_is_reported_as_stopped_with_its_stacks() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    freeze(&mut stack, Binary::Gateway).await;
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "gateway-stopped");
    assert_eq!(diagnosis.evidence("/gateway/stacks/from"), "outside");
    assert!(
        !diagnosis.locations("gateway").is_empty(),
        "function, file and line: {:#}",
        diagnosis.evidence("/gateway/stacks")
    );
    let gateway_pid = pid(&mut stack, Binary::Gateway).to_string();
    expect(&diagnose(&stack, &["--pid", &gateway_pid]).await, "gateway-stopped");

    freeze(&mut stack, Binary::Ingestd).await;
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "gateway-stopped");
    assert!(diagnosis.line().contains("newswire-ingestd is stopped too"), "{diagnosis}");
}

/// A gateway with a listening socket passed as by systemd; killed when dropped.
struct Activated(Child);

impl Activated {
    fn start(stack: &TestStack, listener: &TcpListener) -> Self {
        let config = stack.write_config("newswire.toml", &[]).unwrap();
        let passed = OwnedFd::from(listener.try_clone().unwrap());
        let log = File::create(stack.path("newswire-gateway.log")).unwrap();
        let child = Command::new("/bin/sh")
            .args(["-c", "export LISTEN_FDS=1 LISTEN_PID=$$ && exec \"$@\" 3<&0 0</dev/null", "sh"])
            .arg(Binary::Gateway.path().unwrap())
            .arg("--config")
            .arg(config)
            .current_dir(stack.folder())
            .stdin(passed)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_holds_the_port_of_a_dead_gateway_is_named() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    let Address::Tcp(address): Address = stack.gateway() else { panic!("gateways listen at ports") };
    let listener = TcpListener::bind::<SocketAddr>(address).unwrap();
    let mut gateway = Activated::start(&stack, &listener);
    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    let diagnosis = diagnose(&stack, &[]).await;
    expect_unless_overloaded(&diagnosis, "healthy");
    let owners = diagnosis.evidence("/listener/sockets/0/owners").as_array().unwrap();
    assert_eq!(owners.len(), 2, "both owners are listed: {owners:?}");

    gateway.kill();
    let diagnosis = diagnose(&stack, &[]).await;
    expect(&diagnosis, "orphan-listener");
    let me = format!("pid {} ", std::process::id());
    assert!(
        diagnosis.line().starts_with(&me) && diagnosis.line().contains("newswire-gateway does not run"),
        "{diagnosis}"
    );
    assert!(diagnosis.line().contains("connections wait"), "the probes themselves are waiting: {diagnosis}");
    // A port that never answers must not look healthy to a health check either.
    expect(&diagnose(&stack, &["--quick"]).await, "orphan-listener");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_feeds_alone_are_not_a_hang() {
    let origin = Origin::start().await.unwrap();
    let sources: Vec<_> = (0..6)
        .map(|n| {
            TestSource::new(
                &format!("feed-{n}"),
                origin.add_feed(&format!("feed-{n}"), DocumentFormat::of(n)),
            )
        })
        .collect();
    for n in 0..3 {
        // The kind of hang that no shorter deadline of a visit ends.
        origin.set_behaviour(&format!("feed-{n}"), Behaviour::SilentHead);
    }
    let mut stack = TestStack::new(&sources).unwrap();
    // The total timeout must not end the hang during the diagnosis.
    stack.set("fetch.timeout_total", "\"120s\"");
    stack.start_both().await.unwrap();
    let requested = async || (0..3).all(|n| !origin.requests(&format!("feed-{n}")).is_empty()).then_some(());
    wait_for("requests to the slow feeds", TestStack::READY_WITHIN, requested).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    let diagnosis = diagnose(&stack, &[]).await;
    expect_unless_overloaded(&diagnosis, "slow-feeds");
    if diagnosis.code() == "slow-feeds" {
        assert!(
            diagnosis.line().starts_with("no hang: 3 feeds are slow, the slowest feed-"),
            "{diagnosis}\n{:#}",
            diagnosis.evidence("/ingestd/watch/vitals")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_process_or_url_can_be_diagnosed() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    for program in [Binary::Ingestd, Binary::Gateway] {
        let (number, name) = (pid(&mut stack, program), program.name().trim_start_matches("newswire-"));
        let diagnosis = diagnose(&stack, &["--pid", &number.to_string()]).await;
        expect_unless_overloaded(&diagnosis, "healthy");
        assert_eq!(
            diagnosis.evidence(&format!("/{name}/health/pid")),
            number,
            "its admin socket is found by its inode"
        );
    }
    let Address::Tcp(address) = stack.gateway() else { panic!("gateways listen at ports") };
    let url = format!("http://{address}/");
    expect(&diagnose(&stack, &["--url", &url]).await, "healthy");
    let quick = diagnose(&stack, &["--quick"]).await;
    expect(&quick, "healthy");
    assert!(quick.evidence("/gateway/stacks/missing").is_string());
    stack.kill(Binary::Gateway).unwrap();
    expect(&diagnose(&stack, &["--url", &url]).await, "gateway-dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_arguments_exit_with_2() {
    let stack = TestStack::new(&[]).unwrap();
    let me = std::process::id().to_string();
    // Larger than any process id on Linux.
    for wrong in [
        &["--pid", "2000000000"][..],
        &["--pid", &me],
        &["--quick", "--pid", &me],
        &["--url", "https://localhost/"],
        &["--pid", "1", "--url", "http://x/"],
    ] {
        let (exit, _, out, err) = run(&stack, wrong).await;
        assert_eq!((exit, out.as_str()), (Some(2), ""), "{wrong:?}: {err}");
        assert!(!err.is_empty(), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_configuration_is_the_verdict_and_the_processes_are_found_by_name() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    let pids = [pid(&mut stack, Binary::Ingestd), pid(&mut stack, Binary::Gateway)];
    // Also the directory of the sockets cannot be read any more.
    stack.set("daemon.run_dir", "nowhere");
    stack.set("gateway.workers", "\"many\"");
    let diagnosis = diagnose(&stack, &["--no-stacks"]).await;
    expect(&diagnosis, "configuration-broken");
    for word in ["run_dir", "gateway.workers", "run and make progress"] {
        assert!(diagnosis.line().contains(word), "{word}: {diagnosis}");
    }
    assert_eq!(
        [diagnosis.evidence("/ingestd/process/pid"), diagnosis.evidence("/gateway/process/pid")],
        pids
    );
    stack.kill(Binary::Ingestd).unwrap();
    let diagnosis = diagnose(&stack, &["--no-stacks"]).await;
    expect(&diagnosis, "daemon-dead");
    assert!(diagnosis.line().contains("besides, the configuration is broken"), "{diagnosis}");
}

/// Runs the doctor as a user who may not look at anything; `None` if this is not root.
async fn diagnose_without_rights(stack: &TestStack, arguments: &[&str]) -> Option<Diagnosis> {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let folder = stack.folder();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["doctor", "--json", "--no-stacks"]).args(arguments).arg("--config").arg(config);
    command.env_clear().current_dir(folder).uid(65_534).gid(65_534);
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap();
    Some(Diagnosis { exit: output.status.code(), took: began.elapsed(), json })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_is_never_told_that_all_is_well_but_what_lets_him_look() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    let Some(diagnosis) = diagnose_without_rights(&stack, &[]).await else { return };
    expect(&diagnosis, "unknown");
    assert!(
        diagnosis.json["verdict"]["next"][0].as_str().unwrap().starts_with("sudo newswire doctor"),
        "{diagnosis}"
    );
    let gateway = pid(&mut stack, Binary::Gateway);
    assert_eq!(diagnosis.evidence("/gateway/process/pid"), gateway, "it answers with its id");
    let Address::Tcp(address) = stack.gateway() else { panic!("gateways listen at ports") };
    let url = format!("http://{address}/");
    expect(&diagnose_without_rights(&stack, &["--quick", "--url", &url]).await.unwrap(), "healthy");
    freeze(&mut stack, Binary::Gateway).await;
    let diagnosis = diagnose_without_rights(&stack, &[]).await.unwrap();
    assert_eq!(diagnosis.exit, Some(1), "{diagnosis}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_at_the_admin_socket_is_named_and_the_gateway_is_not_to_be_killed() {
    let origin = Origin::start().await.unwrap();
    let mut stack = both_running(&scenario::feeds(&origin, 2)).await;
    let socket = stack.path("run").join("gateway-admin.sock");
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let gateway = pid(&mut stack, Binary::Gateway);
    let diagnosis = diagnose(&stack, &["--no-stacks"]).await;
    assert_eq!(diagnosis.evidence("/gateway/process/pid"), gateway, "{diagnosis}");
    assert_ne!(diagnosis.exit, Some(0), "{diagnosis}");
    let me = format!("pid {}", std::process::id());
    assert!(diagnosis.evidence("/proof").to_string().contains(&me), "{diagnosis}");
    for step in diagnosis.json["verdict"]["next"].as_array().unwrap() {
        assert!(!step.as_str().unwrap().contains("kill"), "{step}");
    }
}
