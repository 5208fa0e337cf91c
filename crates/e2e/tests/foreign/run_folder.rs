//! `daemon.run_dir` and the sockets in it: deleted, replaced, taken by another program.

use std::{fs, path::Path};

use e2e::Binary::{Gateway, Ingestd};
use tokio::time::sleep;

use crate::{
    loops::park_main,
    parking::is_possible,
    row::{DoctorRun, Expected, Outsider, Patient, SETTLED, has},
};

const GONE: Expected<'static> = Expected::fault(&["run-dir-gone"], &["run"]);

async fn folder(sickness: &str, happens: impl FnOnce(&Path) -> std::io::Result<()>) -> anyhow::Result<()> {
    let patient = Patient::well().await?;
    happens(&patient.stack.path("run"))?;
    sleep(SETTLED).await;
    patient.expect(sickness, GONE).await?;
    let quick = DoctorRun { arguments: &["--quick"], ..DoctorRun::default() };
    patient.expect_of(&format!("{sickness}, --quick"), quick, GONE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_is_deleted() -> anyhow::Result<()> {
    folder("run_dir deleted", |run| fs::remove_dir_all(run)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_folder_is_renamed() -> anyhow::Result<()> {
    folder("run_dir renamed", |run| fs::rename(run, run.with_extension("old"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn an_empty_folder_takes_its_place() -> anyhow::Result<()> {
    folder("run_dir replaced by an empty one", |run| {
        fs::rename(run, run.with_extension("old"))?;
        fs::create_dir(run)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_folder_is_deleted_and_the_main_thread_is_blocked() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    fs::remove_dir_all(patient.stack.path("run"))?;
    park_main(&mut patient).await?;
    sleep(SETTLED * 3).await;
    // Both are true; the block is what clients notice.
    let expected = Expected::fault(&["run-dir-gone", "event-loop-blocked"], &[]);
    patient.expect("run_dir deleted + main blocked", expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_sockets_are_deleted_one_by_one() -> anyhow::Result<()> {
    for socket in ["gateway-admin.sock", "ingestd-admin.sock", "ingestd.sock"] {
        let patient = Patient::well().await?;
        fs::remove_file(patient.stack.path("run").join(socket))?;
        sleep(SETTLED).await;
        let says = [socket];
        let expected = Expected::fault(&["run-dir-gone"], &says);
        patient.expect(&format!("{socket} deleted"), expected).await?;
    }
    Ok(())
}

/// Takes the place of a socket; with `mute`, it accepts connections and never answers.
pub(crate) fn take_socket(path: &Path) -> anyhow::Result<Outsider> {
    let script = "import socket, sys, time\n\
                  s = socket.socket(socket.AF_UNIX)\n\
                  s.bind(sys.argv[1]); s.listen(64)\n\
                  kept = []\n\
                  while True: kept.append(s.accept())";
    fs::remove_file(path).ok();
    Outsider::start("python3", &["-c", script, &path.display().to_string()])
}

/// Both at work, and the gateway has started after the socket of the wire was deleted, or taken by a mute program.
pub(crate) async fn without_the_wire(mute: bool) -> anyhow::Result<(Patient, Option<Outsider>)> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    let socket = patient.stack.path("run/ingestd.sock");
    fs::remove_file(&socket)?;
    let other = mute.then(|| take_socket(&socket)).transpose()?;
    patient.stack.start(Gateway)?;
    patient.stack.wait_serving().await?;
    sleep(SETTLED * 4).await;
    Ok((patient, other))
}

async fn gateway_restarted(sickness: &str, mute: bool) -> anyhow::Result<()> {
    if !has("python3") {
        return Ok(());
    }
    let (patient, _other) = without_the_wire(mute).await?;
    patient.expect(sickness, Expected::fault(&["wire-cut", "run-dir-gone"], &[])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_socket_of_the_wire_is_deleted_and_the_gateway_restarted() -> anyhow::Result<()> {
    gateway_restarted("ingestd.sock deleted, gateway restarted", false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_socket_of_the_wire_is_taken_and_the_gateway_restarted() -> anyhow::Result<()> {
    gateway_restarted("ingestd.sock replaced by a mute one, gateway restarted", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn another_program_takes_an_admin_socket() -> anyhow::Result<()> {
    if !has("python3") {
        return Ok(());
    }
    for (program, socket) in [(Gateway, "gateway-admin.sock"), (Ingestd, "ingestd-admin.sock")] {
        let mut patient = Patient::well().await?;
        let other = take_socket(&patient.stack.path("run").join(socket))?;
        sleep(SETTLED).await;
        let expected =
            Expected::fault(&["orphan-listener", "run-dir-gone", "unknown"], &["python|admin.sock"]);
        let sickness = format!("{socket} taken by a foreign process");
        let diagnosis = patient.expect(&sickness, expected).await?;
        for process in [patient.id(program), other.id()] {
            let harmful: Vec<_> = diagnosis
                .next()
                .into_iter()
                .filter(|line| line.contains("kill") && line.contains(&process.to_string()))
                .map(str::to_owned)
                .collect();
            anyhow::ensure!(harmful.is_empty(), "{sickness}: {harmful:?}");
        }
    }
    Ok(())
}
