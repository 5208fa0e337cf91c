//! What watches is watched, on the real programs: a debugger takes the listener from the event loop, or parks the watchdog,
//! and detaches. Every loop goes on.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Binary, Origin, StartOptions, TestStack, log_line, scenario, wait_for};
use serde_json::Value;

/// Everything here takes half a minute at most; what is broken never ends by itself.
const SOON: Duration = Duration::from_secs(180);
/// The time in which systemd expects a notification, in microseconds.
const WATCHDOG_USEC: &str = "6000000";
/// Twice as long.
const TWO_INTERVALS: Duration = Duration::from_secs(12);

/// Runs these commands of gdb on a process; reports a skipped test and returns false if that is impossible here.
fn debug(pid: i32, commands: &[String]) -> bool {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &pid.to_string()]);
    commands.iter().for_each(|command| {
        gdb.args(["-ex", command]);
    });
    let output = gdb.stdin(Stdio::null()).output();
    let text = output.map(|output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    });
    let is_attached =
        text.as_ref().is_ok_and(|text| !text.contains("not permitted") && text.contains("detached"));
    if !is_attached {
        log_line(&format!("SKIPPED: gdb cannot debug a process here: {text:?}"));
    }
    is_attached
}

/// The thread of a process with this name.
fn thread(pid: i32, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let named = |task: &Path| fs::read_to_string(task.join("comm")).unwrap_or_default().trim() == name;
    let task = tasks.into_iter().find(|task| named(task)).unwrap();
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Makes a thread that waits in a system call wait for ever, in the same frames: for a futex that no thread knows. Unlike
/// `pause`, that goes on after a signal has sampled the stack.
fn park(pid: i32, name: &str) -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        log_line("SKIPPED: the registers are those of x86_64");
        return false;
    }
    let tid = thread(pid, name);
    let select =
        format!("python [t.switch() for t in gdb.selected_inferior().threads() if t.ptid[1] == {tid}]");
    let call = [
        // Otherwise the kernel would restart the interrupted call.
        "set $orig_rax = -1",
        "set $rax = 202",
        "set $rdi = ((unsigned long)$rsp) & ~3",
        "set $rsi = 128",
        "set $rdx = *(unsigned int *)$rdi",
        "set $r10 = 0",
        // Before the instruction `syscall`.
        "set $pc = $pc - 2",
        "detach",
    ];
    debug(pid, &[vec![select], call.map(str::to_owned).to_vec()].concat())
}

/// The file descriptor of the listening TCP socket, and those of the epoll instances that wait for it.
fn listener(pid: i32) -> (String, Vec<String>) {
    let listening: Vec<String> = ["tcp", "tcp6"]
        .iter()
        .flat_map(|table| {
            fs::read_to_string(format!("/proc/{pid}/net/{table}"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields.get(3) == Some(&"0A")).then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    let numbers: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let is_listening = |number: &&String| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
        listening.iter().any(|socket| target == Path::new(socket))
    };
    let fd = numbers.iter().find(is_listening).unwrap().clone();
    let waits = |number: &&String| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        info.lines().any(|line| line.split_whitespace().take(2).eq(["tfd:", fd.as_str()]))
    };
    let pollers = numbers.iter().filter(waits).cloned().collect();
    (fd, pollers)
}

async fn doctor(stack: &TestStack) -> Value {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["doctor", "--json", "--config"]).arg(config).env_clear();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    log_line(&json["verdict"].to_string());
    json
}

async fn watch(stack: &TestStack, program: Binary) -> Value {
    let answer = e2e::http::fetch(&stack.admin(program), "/watch", SOON).await;
    answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
}

/// The stack runs, and this socket gets what the gateway tells systemd.
async fn started(stack: &mut TestStack) -> UnixDatagram {
    let path = stack.path("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let environment = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), WATCHDOG_USEC.to_owned()),
    ];
    stack.set_start_options(Binary::Gateway, StartOptions { environment, ..StartOptions::default() });
    stack.start_both().await.unwrap();
    systemd
}

/// What the gateway tells systemd within a time.
async fn told(systemd: &UnixDatagram, within: Duration) -> Vec<String> {
    let systemd = systemd.try_clone().unwrap();
    let receive = move || {
        systemd.set_nonblocking(true).unwrap();
        while systemd.recv(&mut [0; 512]).is_ok() {}
        systemd.set_nonblocking(false).unwrap();
        systemd.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let began = tokio::time::Instant::now();
        let mut all = Vec::new();
        while began.elapsed() < within {
            let mut bytes = [0; 512];
            if let Ok(length) = systemd.recv(&mut bytes) {
                all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        }
        all
    };
    tokio::task::spawn_blocking(receive).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_no_loop_waits_for_is_told_starves_systemds_watchdog_and_is_named_by_the_doctor() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    let systemd = started(&mut stack).await;
    let probe = async |stack: &TestStack, field: &str| {
        let shown = watch(stack, Binary::Gateway).await;
        let listeners = shown["listeners"].as_array().cloned().unwrap_or_default();
        listeners.iter().find(|one| one["name"] == "clients").and_then(|one| one[field].as_u64())
    };
    wait_for("the gateway to answer itself", SOON, async || probe(&stack, "answered_ms_ago").await)
        .await
        .unwrap();
    let before = told(&systemd, TWO_INTERVALS).await;
    assert!(before.iter().any(|line| line == "WATCHDOG=1\n"), "{before:?}");
    let metrics =
        async |stack: &TestStack| e2e::http::fetch(&stack.gateway(), "/metrics", SOON).await.unwrap().1;
    let text = metrics(&stack).await;
    let open = text.lines().find(|line| line.starts_with("newswire_gateway_connections "));
    assert_eq!(open, Some("newswire_gateway_connections 1"), "our own request, and no probe");

    let pid = stack.process(Binary::Gateway).unwrap().id().cast_signed();
    let (fd, pollers) = listener(pid);
    // One of these instances is another name of the other.
    let remove = pollers.iter().map(|poller| format!("call (int)epoll_ctl({poller}, 2, {fd}, 0)"));
    if !debug(pid, &remove.chain(["detach".to_owned()]).collect::<Vec<_>>()) {
        return;
    }
    let mute = async || probe(&stack, "waiting_ms").await.filter(|ms| *ms > 16_000);
    wait_for("the gateway to notice", SOON, mute).await.unwrap();
    let after = told(&systemd, TWO_INTERVALS).await;
    assert!(!after.iter().any(|line| line == "WATCHDOG=1\n"), "{after:?}");
    assert!(after.iter().any(|line| line.starts_with("STATUS=")), "it runs: {after:?}");
    let log = stack.process(Binary::Gateway).unwrap().log();
    assert!(log.contains("a listener of this process does not answer"), "{log}");
    let json = doctor(&stack).await;
    assert_eq!(json["verdict"]["code"], "event-loop-blocked", "{:#}", json["verdict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_that_is_stuck_is_logged_and_named_by_the_doctor_with_its_function() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    let pid = stack.process(Binary::Ingestd).unwrap().id().cast_signed();
    if !park(pid, "watchdog") {
        return;
    }
    let silent = async || {
        let shown = watch(&stack, Binary::Ingestd).await;
        shown["watchdog"]["looked_ms_ago"].as_u64().filter(|ms| *ms > 10_000)
    };
    wait_for("the watchdog to be silent", SOON, silent).await.unwrap();
    let line = async || {
        let log = stack.process(Binary::Ingestd).unwrap().log();
        log.contains("the watchdog of this process is stuck").then_some(())
    };
    wait_for("the prober to tell", SOON, line).await.unwrap();
    let json = doctor(&stack).await;
    let said = json["verdict"]["line"].as_str().unwrap();
    assert_eq!(json["verdict"]["code"], "event-loop-blocked", "{said}");
    assert!(
        said.starts_with(&format!("the watchdog of newswire-ingestd (pid {pid}) has not looked for ")),
        "{said}"
    );
    assert!(said.contains("watchdog::park_until_next_check") || said.contains("watchdog.rs"), "{said}");
}
