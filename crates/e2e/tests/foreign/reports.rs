//! What the processes say of themselves: reports that are not answered or not theirs, and logs that are not read.

use std::{fs, path::PathBuf, time::Duration};

use e2e::{
    Binary::{self, Gateway, Ingestd},
    StartOptions,
    disk::preload_library,
    wait_for,
};
use rustix::process::Signal;
use tokio::{net::UnixDatagram, time::sleep};

use crate::{
    loops::{park_main, park_worker},
    parking::is_possible,
    row::{Expected, Outsider, Patient, SETTLED, SOON, has, is_root, run, through_shell},
};

/// `/watch` of a program is answered in another way.
async fn answered(program: Binary, answer: &str) -> anyhow::Result<()> {
    if !has("cc") {
        return Ok(());
    }
    let environment = vec![
        ("LD_PRELOAD".to_owned(), preload_library("answers")?.display().to_string()),
        ("ANSWERS_ROUTE".to_owned(), "/watch".to_owned()),
        ("ANSWERS_AS".to_owned(), answer.to_owned()),
    ];
    let options = StartOptions { environment, ..StartOptions::default() };
    let patient = Patient::started_with(program, options).await?;
    let sickness = format!("/watch of {} answered: {answer}", program.name());
    let says = [program.name()];
    // A report that never comes may as well be a thread that is blocked.
    let expected = match answer {
        "mute" | "drip" => Expected::fault(&["unknown", "event-loop-blocked"], &says),
        _ => Expected::unknown(&says),
    };
    patient.expect(&sickness, expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_of_html() -> anyhow::Result<()> {
    answered(Gateway, "html").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_that_is_not_found() -> anyhow::Result<()> {
    answered(Gateway, "404").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_that_is_empty() -> anyhow::Result<()> {
    answered(Ingestd, "empty").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_of_another_type() -> anyhow::Result<()> {
    answered(Gateway, "type").await?;
    answered(Ingestd, "type").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_that_ends_in_the_middle() -> anyhow::Result<()> {
    answered(Ingestd, "broken").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_that_drips() -> anyhow::Result<()> {
    answered(Gateway, "drip").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_report_that_does_not_come() -> anyhow::Result<()> {
    answered(Gateway, "mute").await?;
    answered(Ingestd, "mute").await
}

/// A pipe with a name, and a program that keeps it open and does not read it.
pub(crate) struct UnreadPipe {
    pub(crate) path: PathBuf,
    reader: Outsider,
}

impl UnreadPipe {
    /// At a path that does not exist.
    async fn new(path: PathBuf) -> anyhow::Result<Self> {
        let text = path.display().to_string();
        run("mkfifo", &[&text])?;
        let script = format!("exec sleep 900 <>{text}");
        let reader = Outsider::start("sh", &["-c", &script])?;
        let comm = format!("/proc/{}/comm", reader.id());
        let sleeps = async || fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n").then_some(());
        wait_for("the reader of the pipe", SOON, sleeps).await?;
        Ok(Self { path, reader })
    }

    /// Standard error of a program goes there.
    fn options(&self) -> StartOptions {
        through_shell(&format!("exec \"$@\" 2>{}", self.path.display()))
    }

    /// No byte fits any more.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
        let flags = nix::libc::O_NONBLOCK;
        let mut pipe = fs::OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        for size in [4096, 1] {
            while pipe.write(&vec![b'.'; size]).is_ok() {}
        }
        Ok(())
    }
}

/// Both at work, standard error of one of them a pipe that is not read.
pub(crate) async fn with_a_pipe(program: Binary) -> anyhow::Result<(Patient, UnreadPipe)> {
    let mut patient = Patient::prepared(2).await?;
    let pipe = UnreadPipe::new(patient.stack.path("pipe")).await?;
    patient.stack.set("log.level", "\"debug\"");
    patient.stack.set_start_options(program, pipe.options());
    patient.start().await?;
    Ok((patient, pipe))
}

async fn full_pipe(program: Binary) -> anyhow::Result<()> {
    let (patient, pipe) = with_a_pipe(program).await?;
    pipe.fill()?;
    patient.origin.publish("feed-0", "Something to tell of");
    let _stream = patient.stack.subscribe("/news/stream");
    sleep(SETTLED * 2).await;
    let says = ["sleep", program.name()];
    let expected = Expected::fault(&["log-blocked"], &says);
    let sickness = format!("stderr pipe full ({})", program.name());
    let diagnosis = patient.expect(&sickness, expected).await?;
    let reader = pipe.reader.id().to_string();
    let named =
        diagnosis.line().contains(&reader) || diagnosis.next().iter().any(|line| line.contains(&reader));
    anyhow::ensure!(named, "{sickness}: the reader {reader} is not named: {}", diagnosis.line());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_reads_the_log_of_the_daemon() -> anyhow::Result<()> {
    full_pipe(Ingestd).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn nothing_reads_the_log_of_the_gateway() -> anyhow::Result<()> {
    full_pipe(Gateway).await
}

/// SIGQUIT twice, the pipe not read, a loop blocked: the dump must not take the watchdog with it.
async fn dumped(program: Binary, waits: &[u64]) -> anyhow::Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let (mut patient, pipe) = with_a_pipe(program).await?;
    let blocked = match program {
        Gateway => {
            park_worker(&mut patient).await?;
            "gateway workers"
        }
        _ => {
            park_main(&mut patient).await?;
            "main"
        }
    };
    pipe.fill()?;
    for _ in 0..2 {
        patient.stack.process(program)?.signal(Signal::QUIT)?;
        sleep(Duration::from_millis(500)).await;
    }
    let mut slept = 0;
    for wait in waits {
        sleep(Duration::from_secs(wait - slept)).await;
        slept = *wait;
        let sickness = format!("SIGQUIT x2 with the pipe not read, {blocked} blocked {wait} s");
        // A loop that is blocked comes before the log.
        patient.expect(&sickness, Expected::fault(&["event-loop-blocked"], &[])).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_dump_of_the_daemon_that_is_not_read() -> anyhow::Result<()> {
    dumped(Ingestd, &[6, 36, 66]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_dump_of_the_gateway_that_is_not_read() -> anyhow::Result<()> {
    dumped(Gateway, &[6]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_journal_that_takes_nothing() -> anyhow::Result<()> {
    if !is_root() || !has("unshare") {
        return Ok(());
    }
    let mut patient = Patient::prepared(2).await?;
    let socket = patient.stack.path("journal.sock");
    // Bound and never read.
    let _journal = UnixDatagram::bind(&socket)?;
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
         ln -s {} /run/systemd/journal/socket && exec \"$@\"",
        socket.display()
    );
    let mut options = through_shell(&script);
    options.through.splice(0..0, ["unshare", "--mount"].map(str::to_owned));
    for (key, value) in [("FORMAT", "journald"), ("LEVEL", "debug")] {
        options.environment.push((format!("NEWSWIRE_LOG__{key}"), value.to_owned()));
    }
    patient.stack.set_start_options(Ingestd, options);
    patient.start().await?;
    let admin = patient.stack.admin(Ingestd);
    let waits = async || {
        // Each line of the log is a datagram, and the kernel keeps some hundred of them.
        for number in 0..20 {
            patient.origin.publish("feed-0", &format!("Something to tell of, {number}"));
            e2e::http::fetch(&admin, "/health", SOON).await.ok()?;
        }
        let (_, text) = e2e::http::fetch(&admin, "/watch", SOON).await.ok()?;
        let watch: serde_json::Value = serde_json::from_str(&text).ok()?;
        watch["log"]["blocked_ms"].as_u64().filter(|ms| *ms > 2_500)
    };
    wait_for("the log to wait for the journal", SOON, waits).await?;
    // Lines wait, and are dropped and counted then; nothing else waits for the journal.
    patient.expect("journal stuck", Expected::fault(&["log-blocked"], &["journal"])).await.map(drop)
}
