//! False alarms: 100 runs of the doctor on programs that are well, however busy. Each must end with exit code 0.

use std::{fs, time::Duration};

use e2e::{
    Behaviour,
    Binary::{Gateway, Ingestd},
    http, log_line, wait_for,
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::row::{DoctorRun, Expected, Patient, SETTLED, SOON, judge};

/// Which runs of the 100 are made of which kind.
const UNDER_LOAD: usize = 40;
const WITH_SLOW_FEEDS: usize = 15;
const AFTER_A_START: usize = 10;
const AFTER_A_RELOAD: usize = 15;
const IN_A_DRAIN: usize = 8;
const AFTER_A_SLEEP: usize = 12;
/// A drain of 40 s.
const CLIENTS_IN_A_DRAIN: usize = 4_000;

/// Runs the doctor so often and prints one row for all of them.
async fn runs(patient: &Patient, what: &str, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    for number in 1..=count {
        patient.expect(&format!("{what}, run {number} of {count}"), Expected::FINE).await?;
    }
    log_line(&format!("{what}: {count} runs, {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Six readers without a pause, and sixty streams.
async fn load(patient: &Patient) -> (JoinSet<()>, Vec<e2e::TestSubscriber>) {
    let mut readers = JoinSet::new();
    for number in 0..6 {
        let gateway = patient.stack.gateway();
        let path = ["/news", "/sources", "/news?limit=200"][number % 3];
        readers.spawn(async move {
            loop {
                http::fetch(&gateway, path, SOON).await.ok();
            }
        });
    }
    let streams = (0..60).map(|_| patient.stack.subscribe("/news/stream?snapshot=100")).collect();
    (readers, streams)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn under_load() -> anyhow::Result<()> {
    let patient = Patient::well().await?;
    let _load = load(&patient).await;
    for number in 0..200 {
        patient.origin.publish("feed-0", &format!("News {number}"));
    }
    runs(&patient, "load: 6 readers in a loop + 60 streams", UNDER_LOAD).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn with_slow_feeds() -> anyhow::Result<()> {
    let mut patient = Patient::prepared(20).await?;
    for number in 0..5 {
        let late = Behaviour::Late(Duration::from_secs(number + 3));
        patient.origin.set_behaviour(&format!("feed-{number}"), late);
    }
    patient.start().await?;
    let _load = load(&patient).await;
    runs(&patient, "slow feeds and load", WITH_SLOW_FEEDS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn right_after_a_start() -> anyhow::Result<()> {
    for number in 1..=AFTER_A_START / 2 {
        let mut patient = Patient::prepared(20).await?;
        patient.stack.start(Ingestd)?;
        patient.stack.start(Gateway)?;
        patient.expect(&format!("right after start, run {number}"), Expected::FINE).await?;
        patient.stack.wait_serving().await?;
        patient.expect(&format!("right after start, serving, run {number}"), Expected::FINE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn after_a_reload() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    for number in 1..=AFTER_A_RELOAD {
        for program in [Ingestd, Gateway] {
            patient.stack.process(program)?.signal(Signal::HUP)?;
        }
        patient.expect(&format!("after a reload, run {number}"), Expected::FINE).await?;
    }
    Ok(())
}

/// Clients that keep their streams open. A drain takes 10 ms per client, and each stream ends at a moment of its own.
async fn open_streams(patient: &Patient) -> anyhow::Result<Vec<TcpStream>> {
    let http::Address::Tcp(gateway) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let mut streams = Vec::new();
    for _ in 0..CLIENTS_IN_A_DRAIN {
        let mut stream = TcpStream::connect(gateway).await?;
        stream.write_all(b"GET /news/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let answer = &mut [0; 12];
        timeout(SOON, stream.read_exact(answer)).await??;
        anyhow::ensure!(answer.ends_with(b" 200"), "{}", String::from_utf8_lossy(answer));
        streams.push(stream);
    }
    Ok(streams)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn while_the_gateway_drains() -> anyhow::Result<()> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set("gateway.drain", "\"300s\"");
    patient.stack.set("gateway.clients_per_address_max", "100000");
    patient.start().await?;
    let (mut seen, mut drains) = (0, 0);
    while seen < IN_A_DRAIN {
        drains += 1;
        anyhow::ensure!(drains <= IN_A_DRAIN, "only {seen} runs fell into {drains} drains");
        if drains > 1 {
            patient.stack.start(Gateway)?;
            patient.stack.wait_serving().await?;
        }
        let _streams = open_streams(&patient).await?;
        patient.stack.process(Gateway)?.signal(Signal::TERM)?;
        let log = patient.stack.path("newswire-gateway.log");
        let began = format!("clients={CLIENTS_IN_A_DRAIN}");
        let draining = async || fs::read_to_string(&log).ok()?.contains(&began).then_some(());
        wait_for("the drain", SOON, draining).await?;
        while seen < IN_A_DRAIN {
            let diagnosis = patient.doctor(DoctorRun::default()).await?;
            // What was asked of a gateway that ended meanwhile does not count.
            if !patient.stack.process(Gateway)?.is_running() {
                break;
            }
            seen += 1;
            judge(&format!("while draining, run {seen} of {IN_A_DRAIN}"), &diagnosis, Expected::FINE)?;
            anyhow::ensure!(diagnosis.line().contains("draining"), "{}", diagnosis.line());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn after_both_slept() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let quick = DoctorRun { arguments: &["--quick"], ..DoctorRun::default() };
    for number in 1..=AFTER_A_SLEEP / 4 {
        patient.stop(Gateway).await?;
        patient.stop(Ingestd).await?;
        sleep(SETTLED * 2).await;
        patient.resume(Gateway)?;
        patient.resume(Ingestd)?;
        for again in 1..=3 {
            patient.expect(&format!("after a sleep of both, run {number}.{again}"), Expected::FINE).await?;
        }
        patient
            .expect_of(
                &format!("after a sleep of both, --quick, run {number}"),
                quick.clone(),
                Expected::FINE,
            )
            .await?;
    }
    Ok(())
}
