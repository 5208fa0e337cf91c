//! Processes that are stopped, dead, replaced or of another user.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use e2e::{
    Binary::{self, Gateway, Ingestd, Newswire},
    StartOptions, TestStack, wait_for,
};
use rustix::process::Signal;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    loops::{park_main, park_worker},
    parking::is_possible,
    row::{
        DoctorRun, Expected, Outsider, Patient, SETTLED, SOON, STRANGER, has, is_root, run, through_shell,
        wait_state,
    },
};

const GATEWAY_STOPPED: Expected<'static> = Expected::fault(&["gateway-stopped"], &["stopped"]);
const DAEMON_STOPPED: Expected<'static> = Expected::fault(&["daemon-stopped"], &["stopped"]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_is_stopped() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stop(Gateway).await?;
    patient.expect("SIGSTOP gateway", GATEWAY_STOPPED).await?;
    patient.stop(Ingestd).await?;
    patient.expect("SIGSTOP both", GATEWAY_STOPPED).await?;
    patient.resume(Gateway)?;
    patient.expect("SIGSTOP ingestd", DAEMON_STOPPED).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn after_a_stop_of_both_both_are_well() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    for number in 1..=5 {
        patient.stop(Gateway).await?;
        patient.stop(Ingestd).await?;
        sleep(Duration::from_secs(6)).await;
        patient.resume(Gateway)?;
        patient.resume(Ingestd)?;
        patient.expect(&format!("6 s SIGSTOP of both, then CONT, run {number}"), Expected::FINE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_gateway_that_is_a_zombie() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let process = patient.id(Gateway);
    patient.stack.process(Gateway)?.signal(Signal::KILL)?;
    wait_state(process, "Z").await?;
    patient.expect("zombie gateway", Expected::fault(&["gateway-dead"], &["gateway"])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn both_are_killed() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    patient.expect("gateway kill -9", Expected::fault(&["gateway-dead"], &["gateway"])).await?;
    patient.stack.kill(Ingestd)?;
    patient.expect("both kill -9", Expected::fault(&["not-running"], &[])).await?;
    patient.stack.start(Gateway)?;
    patient.stack.wait_serving().await?;
    sleep(SETTLED).await;
    patient.expect("ingestd kill -9", Expected::fault(&["daemon-dead"], &["ingestd"])).await.map(drop)
}

/// What the doctor says of a process that was blocked and then killed comes from what it left behind.
async fn killed_while_blocked(program: Binary, code: &'static [&'static str]) -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let function = if program == Gateway { &["on_tick"] } else { &["set_activity|status::registry"] };
    match program {
        Gateway => park_worker(&mut patient).await?,
        _ => park_main(&mut patient).await?,
    }
    sleep(SETTLED).await;
    patient.stack.kill(program)?;
    let sickness = format!("{} kill -9 in the middle of a stall", program.name());
    patient.expect(&sickness, Expected::fault(code, function)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_gateway_killed_while_it_was_blocked() -> anyhow::Result<()> {
    killed_while_blocked(Gateway, &["gateway-dead"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_daemon_killed_while_it_was_blocked() -> anyhow::Result<()> {
    killed_while_blocked(Ingestd, &["daemon-dead"]).await
}

/// No step tells to end this process.
fn spares(next: &[&str], process: u32) -> anyhow::Result<()> {
    let kills = |line: &&&str| {
        line.contains("kill")
            && line.split(|c: char| !c.is_ascii_digit()).any(|word| word == process.to_string())
    };
    let harmful = next.iter().find(kills);
    anyhow::ensure!(harmful.is_none(), "it tells to end process {process}: {harmful:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn another_program_holds_the_port_of_a_dead_gateway() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    let e2e::http::Address::Tcp(address) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let _listener = TcpListener::bind(address).await?;
    let expected = Expected::fault(&["orphan-listener"], &["foreign"]);
    let diagnosis = patient.expect("foreign process holds the port, gateway dead", expected).await?;
    spares(&diagnosis.next(), std::process::id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn descriptors_run_out() -> anyhow::Result<()> {
    if !has("prlimit") {
        return Ok(());
    }
    for (program, left) in [(Gateway, 0), (Ingestd, 0), (Gateway, -5), (Ingestd, -5)] {
        let mut patient = Patient::well().await?;
        leave_descriptors(patient.id(program), left, None)?;
        let sickness = format!("fd limit reached, {}, {left} left", program.name());
        let says = [program.name()];
        let expected = Expected::fault(&["descriptors-exhausted"], &says);
        patient.expect(&sickness, expected).await?;
    }
    Ok(())
}

/// Limits a process to the descriptors that it has open, and so many more; it may have `hard` if its user wants that.
pub(crate) fn leave_descriptors(process: u32, left: i64, hard: Option<i64>) -> anyhow::Result<()> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))?.count();
    let limit = i64::try_from(open)? + left;
    let hard = hard.unwrap_or(limit);
    run("prlimit", &["--pid", &process.to_string(), &format!("--nofile={limit}:{hard}")])
}

/// Copies the programs, and starts the gateway from the copy.
async fn with_a_copy_of_the_gateway() -> anyhow::Result<(Patient, std::path::PathBuf)> {
    let mut patient = Patient::prepared(2).await?;
    let copy = patient.stack.path("newswire-gateway");
    fs::copy(Gateway.path()?, &copy)?;
    let script = format!("shift; exec {} \"$@\"", copy.display());
    patient.stack.set_start_options(Gateway, through_shell(&script));
    patient.start().await?;
    Ok((patient, copy))
}

/// Another program takes the place of one that runs, as an upgrade does it.
fn replace(program: &std::path::Path) -> anyhow::Result<()> {
    let draft = program.with_extension("new");
    fs::copy(Newswire.path()?, &draft)?;
    Ok(fs::rename(draft, program)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_program_is_replaced_on_disk_and_its_worker_is_blocked() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (mut patient, copy) = with_a_copy_of_the_gateway().await?;
    park_worker(&mut patient).await?;
    replace(&copy)?;
    sleep(SETTLED).await;
    let expected = Expected::fault(&["event-loop-blocked"], &["on_tick"]);
    patient.expect("binary replaced on disk while running, worker blocked", expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_program_is_replaced_on_disk_and_stopped() -> anyhow::Result<()> {
    let (mut patient, copy) = with_a_copy_of_the_gateway().await?;
    replace(&copy)?;
    patient.expect("binary replaced on disk while running, well", Expected::FINE).await?;
    patient.stop(Gateway).await?;
    patient.expect("binary replaced on disk + SIGSTOP", GATEWAY_STOPPED).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_same_user_sees_a_blocked_main_thread() -> anyhow::Result<()> {
    if !is_possible() || !is_root() || !has("setpriv") {
        return Ok(());
    }
    let mut patient = of_another_user().await?;
    let doctor = stranger();
    patient.expect_of("same user, well", doctor.clone(), Expected::FINE).await?;
    park_main(&mut patient).await?;
    sleep(SETTLED).await;
    let expected = Expected::fault(&["event-loop-blocked"], &["set_activity|status::registry"]);
    patient.expect_of("same user, main blocked", doctor, expected).await.map(drop)
}

/// Both at work as another user than that of the test.
pub(crate) async fn of_another_user() -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(2).await?;
    patient.open_to_all()?;
    // Both make their folders in it.
    fs::set_permissions(patient.stack.folder(), fs::Permissions::from_mode(0o777))?;
    let id = STRANGER;
    let through = ["setpriv", &format!("--reuid={id}"), &format!("--regid={id}"), "--clear-groups"];
    let options = StartOptions { through: through.map(str::to_owned).to_vec(), ..StartOptions::default() };
    patient.stack.set_start_options(Gateway, options.clone());
    patient.stack.set_start_options(Ingestd, options);
    patient.start().await?;
    Ok(patient)
}

/// The doctor as a user who owns neither process and is in none of their groups.
pub(crate) fn stranger() -> DoctorRun<'static> {
    DoctorRun { user: Some(STRANGER), ..DoctorRun::default() }
}

pub(crate) fn as_stranger() -> bool {
    is_root() && has("setpriv")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_third_user_does_not_see_a_blocked_main_thread() -> anyhow::Result<()> {
    if !is_possible() || !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    park_main(&mut patient).await?;
    sleep(SETTLED).await;
    let expected = Expected::fault(&["unknown", "event-loop-blocked", "daemon-stale"], &[]);
    patient.expect_of("third user: main blocked", stranger(), expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_third_user_and_both_are_well() -> anyhow::Result<()> {
    if !as_stranger() {
        return Ok(());
    }
    let patient = Patient::well().await?;
    // The address answers, and that is all that he may see.
    patient.expect_of("third user: both are well", stranger(), Expected::unknown(&[])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_third_user_sees_a_blocked_worker() -> anyhow::Result<()> {
    if !is_possible() || !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    for _ in 0..2 {
        park_worker(&mut patient).await?;
    }
    sleep(SETTLED).await;
    let expected = Expected::fault(&["event-loop-blocked"], &[]);
    patient.expect_of("third user: gateway workers blocked", stranger(), expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_third_user_does_not_call_the_dead_healthy() -> anyhow::Result<()> {
    if !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    let dead = Expected::fault(&["gateway-dead", "unknown"], &[]);
    patient.expect_of("third user: gateway dead", stranger(), dead).await?;
    patient.stack.kill(Ingestd)?;
    let dead = Expected::fault(&["not-running", "gateway-dead", "unknown"], &[]);
    patient.expect_of("third user: both dead", stranger(), dead).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_program_is_a_usage_error() -> anyhow::Result<()> {
    let patient = Patient { stack: TestStack::new(&[])?, origin: e2e::Origin::start().await? };
    let other = Outsider::start("sleep", &["300"])?;
    let process = other.id().to_string();
    for arguments in [&["--pid", &process][..], &["--pid", &process, "--quick"]] {
        let doctor = DoctorRun { arguments, ..DoctorRun::default() };
        patient.expect_of(&format!("doctor {}", arguments.join(" ")), doctor, Expected::USAGE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_gateway_that_ended_in_a_drain() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.terminate(Gateway, SOON).await?;
    let gone = async || (!patient.stack.path("run/gateway-admin.sock").exists()).then_some(());
    wait_for("the socket to be removed", SOON, gone).await?;
    patient.expect("gateway ended by SIGTERM", Expected::fault(&["gateway-dead"], &[])).await.map(drop)
}
