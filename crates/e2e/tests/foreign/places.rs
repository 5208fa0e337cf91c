//! Other places: a second gateway, other namespaces, a configuration that cannot be read.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use e2e::{
    Binary::{self, Gateway, Ingestd},
    ChildProcess, StartOptions, free_address, http, wait_for,
};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    loops::park_worker,
    parking::is_possible,
    row::{Diagnosis, DoctorRun, Expected, Patient, SETTLED, SOON, has, is_root, wait_state},
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

/// Carries out the command that the doctor advises with all these words, as its reader would, and checks the last line of
/// the output: the verdict.
fn follow(diagnosis: &Diagnosis, words: &[&str], verdicts: &[&str]) -> anyhow::Result<()> {
    let advice = diagnosis.next().into_iter().find(|line| words.iter().all(|word| line.contains(word)));
    let command = advice.and_then(|line| line.split("   #").next()).context("it advises such a command")?;
    let mut path = std::ffi::OsString::from(Binary::Newswire.path()?.parent().context("a folder")?);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", command]).env("PATH", path).stdin(Stdio::null()).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = out.lines().last().unwrap_or_default();
    e2e::log_line(&format!("carried out: {command}: {last}"));
    let is_right = verdicts.iter().any(|verdict| last.starts_with(&format!("VERDICT {verdict}:")));
    anyhow::ensure!(is_right, "{command}: {last}\n{err}\n{out}");
    Ok(())
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
    let expected = Expected::unknown(&["other network"]);
    let diagnosis = patient.expect_of("doctor in another net namespace", doctor, expected).await?;
    follow(&diagnosis, &["nsenter", " -n "], &["healthy"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_doctor_is_in_another_pid_namespace() -> anyhow::Result<()> {
    if !can_unshare() {
        return Ok(());
    }
    let patient = Patient::well().await?;
    let through = &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
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

/// The namespaces of a container, with its own /proc. The files are those of this machine, mounted once more.
const CONTAINER: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net"];

/// The process that was started in namespaces of its own: `unshare --fork` stays outside.
fn child_of(parent: u32) -> anyhow::Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(children.split_whitespace().next().context("it has a child")?.parse()?)
}

/// A gateway as a container has it, beside a daemon outside of it.
async fn gateway_in_a_container() -> anyhow::Result<(Patient, u32)> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set_start_options(Gateway, apart(CONTAINER));
    patient.stack.start(Ingestd)?;
    patient.stack.start(Gateway)?;
    let serves = async || patient.stack.path("run/gateway-admin.sock").exists().then_some(());
    wait_for("the gateway", SOON, serves).await?;
    sleep(SETTLED).await;
    let gateway = child_of(patient.id(Gateway))?;
    Ok((patient, gateway))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_gateway_is_in_a_container() -> anyhow::Result<()> {
    if !can_unshare() || !has("ip") {
        return Ok(());
    }
    let (patient, gateway) = gateway_in_a_container().await?;
    let expected = Expected::unknown(&["process ids, network, files"]);
    let diagnosis = patient.expect("gateway in a container, doctor outside", expected).await?;
    follow(&diagnosis, &["nsenter", " -m -n -p "], &["healthy", "unknown"])?;
    follow(&diagnosis, &["nsenter", " --pid "], &["healthy"])?;
    if is_possible() {
        let spot = crate::parking::Spot::idle("worker-0");
        crate::parking::park(gateway, spot, crate::parking::Hold::Futex).await??;
        sleep(SETTLED).await;
        let expected = Expected::fault(&["event-loop-blocked"], &["worker-0"]);
        patient.expect("gateway in a container, worker blocked, doctor outside", expected).await?;
        let target = gateway.to_string();
        let through: &[&str] = &["nsenter", "-t", &target, "-m", "-n", "-p"];
        let inside = DoctorRun { through, ..DoctorRun::default() };
        patient.expect_of("the same, doctor inside", inside, expected).await?;
    }
    Ok(())
}

/// As `kubectl debug --target` does: the process ids and the network of the gateway, and other files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_doctor_is_in_a_debug_container() -> anyhow::Result<()> {
    if !can_unshare() || !has("ip") {
        return Ok(());
    }
    let (patient, gateway) = gateway_in_a_container().await?;
    let (target, folder) = (gateway.to_string(), patient.stack.folder().display().to_string());
    // The configuration stays readable, and the sockets are hidden.
    let hidden = format!(
        "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs none {folder}/run && exec \"$@\""
    );
    let enter = ["nsenter", "-t", &target, "-n", "-p", "unshare", "--mount", "sh", "-c", &hidden, "sh"];
    let bare = DoctorRun { through: &enter, ..DoctorRun::default() };
    // The gateway is reached through its root, and says that it hears the daemon, which is outside of all this.
    let expected = Expected::unknown(&["the gateway hears it"]);
    let diagnosis = patient.expect_of("doctor in a debug container", bare.clone(), expected).await?;
    let proof = diagnosis.json["evidence"]["proof"].as_array().context("a proof")?.iter();
    let proved: Vec<_> =
        proof.filter(|entry| entry["state"] == "proved").map(|entry| &entry["part"]).collect();
    for part in ["address", "gateway-report", "gateway-watchdog", "gateway-process"] {
        anyhow::ensure!(proved.iter().any(|proved| *proved == part), "{part} is proved: {proved:?}");
    }
    let inner = inner_pid(gateway)?;
    let of_one = DoctorRun { arguments: &["--pid", &inner], ..bare };
    patient.expect_of("doctor --pid in a debug container", of_one, Expected::FINE).await.map(drop)
}

/// The id of a process in its own namespace.
fn inner_pid(process: u32) -> anyhow::Result<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("its ids")?;
    Ok(ids.split_whitespace().last().context("an id")?.to_owned())
}
