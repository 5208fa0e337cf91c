//! Other places: a second gateway, other namespaces, a configuration that cannot be read.

use std::fs;

use e2e::{
    Binary::{self, Gateway, Ingestd},
    ChildProcess, StartOptions, free_address, http, wait_for,
};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    loops::park_worker,
    parking::is_possible,
    row::{DoctorRun, Expected, Patient, SETTLED, SOON, has, is_root, wait_state},
};

/// Starts a second gateway beside the first, as the README describes it, and waits until it serves.
pub(crate) async fn second_gateway(patient: &Patient) -> anyhow::Result<ChildProcess> {
    let listen = free_address()?;
    let admin = format!("{:?}", patient.stack.path("second").display().to_string());
    let changes = [("gateway.listen", &*format!("\"{listen}\"")), ("gateway.admin_dir", &admin)];
    let second = patient.stack.start_extra(Gateway, "second.toml", &changes)?;
    let ready =
        async || http::fetch(&listen.into(), "/ready", SOON).await.ok().filter(|(status, _)| *status == 200);
    wait_for("the second gateway", SOON, ready).await?;
    Ok(second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_second_gateway_is_stopped() -> anyhow::Result<()> {
    let patient = Patient::well().await?;
    let second = second_gateway(&patient).await?;
    patient.expect("second gateway, both are well", Expected::FINE).await?;
    second.signal(Signal::STOP)?;
    wait_state(second.id(), "T").await?;
    let expected = Expected::fault(&["other-gateway"], &["gateway"]);
    patient.expect("second gateway is stopped, doctor of the first", expected).await.map(drop)
}

/// The gateway of another folder with its own `run_dir`, in which links lead to the sockets of the daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_second_gateway_with_links_has_a_blocked_worker() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let patient = Patient::well().await?;
    let (first, own) = (patient.stack.path("run"), patient.stack.path("run2"));
    fs::create_dir(&own)?;
    for socket in ["ingestd.sock", "ingestd-admin.sock"] {
        std::os::unix::fs::symlink(first.join(socket), own.join(socket))?;
    }
    let listen = free_address()?;
    let changes = [
        ("gateway.listen", &*format!("\"{listen}\"")),
        ("daemon.run_dir", &*format!("{:?}", own.display().to_string())),
    ];
    let second = patient.stack.start_extra(Gateway, "second.toml", &changes)?;
    let ready =
        async || http::fetch(&listen.into(), "/ready", SOON).await.ok().filter(|(status, _)| *status == 200);
    wait_for("the second gateway", SOON, ready).await?;
    let spot = crate::parking::Spot::idle("worker-0");
    crate::parking::park(second.id(), spot, crate::parking::Hold::Futex).await??;
    sleep(SETTLED).await;
    let expected = Expected::fault(&["other-gateway"], &["gateway"]);
    let sickness = "second gateway (own run_dir, symlinks) sick, doctor of the first";
    patient.expect(sickness, expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_configuration_cannot_be_read() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    fs::write(patient.stack.path("broken.toml"), "[gateway\nlisten = ")?;
    for (config, sickness) in
        [("broken.toml", "configuration broken"), ("absent.toml", "configuration absent")]
    {
        let doctor = DoctorRun { config: Some(config), ..DoctorRun::default() };
        let expected = Expected::fault(&["configuration-broken"], &["configuration|toml"]);
        patient.expect_of(&format!("{sickness}, both are well"), doctor, expected).await?;
    }
    patient.stop(Ingestd).await?;
    let doctor = DoctorRun { config: Some("broken.toml"), ..DoctorRun::default() };
    let expected = Expected::fault(&["daemon-stopped", "configuration-broken"], &["stopped"]);
    patient.expect_of("configuration broken, ingestd stopped", doctor, expected).await.map(drop)
}

pub(crate) fn can_unshare() -> bool {
    is_root() && has("unshare")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_doctor_is_in_another_network_namespace() -> anyhow::Result<()> {
    if !can_unshare() {
        return Ok(());
    }
    let patient = Patient::well().await?;
    let doctor = DoctorRun { through: &["unshare", "--net"], ..DoctorRun::default() };
    // Nothing is reached at the configured address from there.
    let expected = Expected::unknown(&[]);
    patient.expect_of("doctor in another net namespace", doctor, expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_doctor_is_in_another_pid_namespace() -> anyhow::Result<()> {
    if !can_unshare() {
        return Ok(());
    }
    let patient = Patient::well().await?;
    let through = &["unshare", "--pid", "--fork", "--mount-proc"];
    let doctor = DoctorRun { through, ..DoctorRun::default() };
    let expected = Expected::fault(&["unknown", "healthy"], &[]);
    patient.expect_of("doctor in another pid namespace", doctor, expected).await.map(drop)
}

/// Starts a program in namespaces of its own.
fn apart(kinds: &[&str]) -> StartOptions {
    let through = [&["unshare"], kinds, &["sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]].concat();
    StartOptions {
        through: through.iter().map(|word| (*word).to_owned()).collect(),
        ..StartOptions::default()
    }
}

/// Both at work, the gateway in a network of its own.
pub(crate) async fn with_the_gateway_apart() -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set_start_options(Gateway, apart(&["--net"]));
    patient.stack.start(Ingestd)?;
    patient.stack.start(Gateway)?;
    let serves = async || patient.stack.path("run/gateway-admin.sock").exists().then_some(());
    wait_for("the gateway", SOON, serves).await?;
    sleep(SETTLED * 2).await;
    Ok(patient)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_gateway_is_in_another_network_namespace() -> anyhow::Result<()> {
    if !can_unshare() || !has("ip") {
        return Ok(());
    }
    let mut patient = with_the_gateway_apart().await?;
    let expected = Expected::fault(&["unknown", "healthy"], &[]);
    patient.expect("gateway in a net namespace of its own", expected).await?;
    if is_possible() {
        let spot = crate::parking::Spot::idle("worker-0");
        crate::parking::park(patient.id(Binary::Gateway), spot, crate::parking::Hold::Futex).await??;
        sleep(SETTLED).await;
        let expected = Expected::fault(&["event-loop-blocked"], &["worker-0"]);
        patient.expect("gateway in a net namespace of its own, worker blocked", expected).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_deleted_configuration_and_a_blocked_worker() -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    park_worker(&mut patient).await?;
    sleep(SETTLED).await;
    let doctor = DoctorRun { config: Some("absent.toml"), ..DoctorRun::default() };
    let expected =
        Expected::fault(&["event-loop-blocked", "configuration-broken"], &["on_tick|configuration"]);
    patient.expect_of("configuration absent, worker blocked", doctor, expected).await.map(drop)
}
