//! Debuggers and tracers that hold a process, or only watch it.

use std::{fs, time::Duration};

use e2e::{
    Binary::{self, Gateway, Ingestd},
    wait_for,
};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::time::sleep;

use crate::{
    loops::park_main,
    parking::is_possible,
    row::{Expected, Outsider, Patient, SETTLED, SOON, has, wait_state},
};

const HELD: &[&str] = &["held-by-debugger", "gateway-stopped", "daemon-stopped"];

/// A debugger that has attached and does nothing.
pub(crate) async fn debugger_on(process: u32) -> anyhow::Result<Outsider> {
    let process_argument = process.to_string();
    let debugger = Outsider::start(
        "gdb",
        &[
            "-nx",
            "-q",
            "-batch",
            "-iex",
            "set auto-load no",
            "-p",
            &process_argument,
            "-ex",
            "shell sleep 900",
        ],
    )?;
    wait_state(process, "t").await?;
    Ok(debugger)
}

async fn held(program: Binary, sickness: &str) -> anyhow::Result<()> {
    if !has("gdb") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let _debugger = debugger_on(patient.id(program)).await?;
    sleep(SETTLED).await;
    patient.expect(sickness, Expected::fault(HELD, &["gdb", "debugger|held"])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_debugger_holds_the_gateway() -> anyhow::Result<()> {
    held(Gateway, "gdb holds the gateway").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_debugger_holds_the_daemon() -> anyhow::Result<()> {
    held(Ingestd, "gdb holds ingestd").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_tracer_watches_a_daemon_whose_main_thread_is_blocked() -> anyhow::Result<()> {
    if !is_possible() || !has("strace") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    park_main(&mut patient).await?;
    let process = patient.id(Ingestd).to_string();
    let _tracer = Outsider::start("strace", &["-f", "-o", "/dev/null", "-p", &process])?;
    traced(&process, "strace").await?;
    sleep(SETTLED).await;
    let expected = Expected::fault(&["event-loop-blocked"], &["set_activity|status::registry"]);
    patient.expect("strace -f on ingestd, main blocked", expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_tracer_watches_both_and_holds_neither() -> anyhow::Result<()> {
    if !has("strace") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let mut tracers = Vec::new();
    for program in [Gateway, Ingestd] {
        let process = patient.id(program).to_string();
        tracers.push(Outsider::start("strace", &["-f", "-o", "/dev/null", "-p", &process])?);
        traced(&process, "strace").await?;
    }
    sleep(SETTLED).await;
    patient.expect("strace -f on both, nothing held", Expected::FINE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_tracer_whose_output_is_not_read_holds_the_gateway() -> anyhow::Result<()> {
    if !has("strace") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let process = patient.id(Gateway).to_string();
    let script = format!("strace -f -p {process} 2>&1 | sleep 900");
    let _tracer = Outsider::start("sh", &["-c", &script])?;
    traced(&process, "strace").await?;
    let stuck = async || {
        // What it does fills the pipe, until a thread is left stopped.
        e2e::http::fetch(&patient.stack.gateway(), "/news", Duration::from_secs(1)).await.err()
    };
    wait_for("the tracer to be stuck", SOON, stuck).await?;
    sleep(SETTLED).await;
    let expected = Expected::fault(HELD, &["strace"]);
    patient.expect("strace -f on the gateway, its output not read", expected).await.map(drop)
}

/// Waits until a process has a tracer.
async fn traced(process: &str, tracer: &str) -> anyhow::Result<()> {
    let status = format!("/proc/{process}/status");
    let has_one = async || {
        let text = fs::read_to_string(&status).ok()?;
        let id: u32 = text.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()?;
        (id != 0).then_some(())
    };
    wait_for(&format!("{tracer} to trace {process}"), SOON, has_one).await
}

/// Holds one thread, by its number, until it is dropped.
struct HeldThread {
    release: Option<std::sync::mpsc::SyncSender<()>>,
    tracer: Option<std::thread::JoinHandle<()>>,
}

impl HeldThread {
    fn new(thread: u32) -> anyhow::Result<Self> {
        let thread = Pid::from_raw(i32::try_from(thread)?);
        let (release, released) = std::sync::mpsc::sync_channel(1);
        let (held, is_held) = std::sync::mpsc::sync_channel(1);
        let tracer = std::thread::spawn(move || {
            let result = ptrace::seize(thread, ptrace::Options::empty())
                .and_then(|()| ptrace::interrupt(thread))
                .and_then(|()| waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop));
            // The test waits for both.
            held.send(result).ok();
            released.recv().ok();
            ptrace::detach(thread, None).ok();
        });
        is_held.recv()??;
        Ok(Self { release: Some(release), tracer: Some(tracer) })
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        drop(self.release.take());
        drop(self.tracer.take().map(std::thread::JoinHandle::join));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracer_holds_the_main_thread_of_the_daemon() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let _held = HeldThread::new(patient.id(Ingestd))?;
    sleep(SETTLED).await;
    let expected = Expected::fault(HELD, &["foreign"]);
    patient.expect("ingestd main thread held by ptrace", expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_tracer_holds_one_worker_of_the_gateway() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let thread = crate::parking::thread_named(patient.id(Gateway), "worker-0")?;
    let _held = HeldThread::new(thread)?;
    sleep(SETTLED).await;
    let expected = Expected::fault(HELD, &["foreign"]);
    patient.expect("gw worker-0 held by ptrace", expected).await.map(drop)
}
