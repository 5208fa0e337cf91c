//! False alarms: 100 runs of the doctor on programs that are well, however busy. Each must end with exit code 0.

use std::time::Duration;

use e2e::{
    Behaviour,
    Binary::{Gateway, Ingestd},
    http, log_line, wait_for,
};
use rustix::process::Signal;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::row::{DoctorRun, Expected, Patient, SETTLED, SOON};

/// Which runs of the 100 are made of which kind.
const UNDER_LOAD: usize = 40;
const WITH_SLOW_FEEDS: usize = 15;
const AFTER_A_START: usize = 10;
const AFTER_A_RELOAD: usize = 15;
const IN_A_DRAIN: usize = 8;
const AFTER_A_SLEEP: usize = 12;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn while_the_gateway_drains() -> anyhow::Result<()> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set("gateway.drain", "\"300s\"");
    patient.start().await?;
    let streams: Vec<_> = (0..300).map(|_| patient.stack.subscribe("/news/stream?snapshot=10")).collect();
    for stream in &streams {
        wait_for("the streams", SOON, async || (!stream.records().is_empty()).then_some(())).await?;
    }
    patient.stack.process(Gateway)?.signal(Signal::TERM)?;
    sleep(SETTLED).await;
    for number in 1..=IN_A_DRAIN {
        let diagnosis = patient.expect(&format!("while draining, run {number}"), Expected::FINE).await;
        anyhow::ensure!(patient.stack.process(Gateway)?.is_running(), "the drain ended before the test");
        diagnosis?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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
