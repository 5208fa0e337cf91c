//! One row of the table: both programs at work, a sickness, what the doctor says of it, and whether that is right.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Binary, Origin, StartOptions, TestSource, TestStack, log_line, scenario, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Deadline of the doctor, whatever hangs; no hang of these tests ends by itself.
const DOCTOR_WITHIN: Duration = Duration::from_secs(60);
/// Deadline for a machine to have a processor to spare; other tests may take all of it.
const SPARE_WITHIN: Duration = Duration::from_secs(120);
/// Deadline of anything that a test prepares.
pub(crate) const SOON: Duration = Duration::from_secs(90);
/// Longer than the second after which a loop counts as stalled.
pub(crate) const SETTLED: Duration = Duration::from_secs(3);
/// The user id of a user who owns none of the processes.
pub(crate) const STRANGER: u32 = 65534;

/// What must be said of a sickness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The verdict; one of these, where the cause cannot be told apart.
    pub(crate) codes: &'static [&'static str],
    /// The exit code of that verdict.
    pub(crate) exit: i32,
    /// Each must be in the line, in any case of letters; of words with `|` between them, one.
    pub(crate) says: &'static [&'static str],
}

impl Expected {
    pub(crate) const HEALTHY: Self = Self { codes: &["healthy"], exit: 0, says: &[] };

    /// A sickness, exit code 1.
    pub(crate) const fn fault(codes: &'static [&'static str], says: &'static [&'static str]) -> Self {
        Self { codes, exit: 1, says }
    }

    /// What the user may not see, exit code 3.
    pub(crate) const fn unknown(says: &'static [&'static str]) -> Self {
        Self { codes: &["unknown"], exit: 3, says }
    }

    fn complaints(&self, diagnosis: &Diagnosis) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.codes.contains(&diagnosis.code()) {
            complaints.push(format!("the verdict is not {}", self.codes.join(" or ")));
        }
        if diagnosis.exit != Some(self.exit) {
            complaints.push(format!("the exit code is not {}", self.exit));
        }
        let line = diagnosis.line().to_lowercase();
        for words in self.says {
            if !words.split('|').any(|word| line.contains(&word.to_lowercase())) {
                complaints.push(format!("the line does not say {words:?}"));
            }
        }
        complaints
    }
}

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) exit: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) json: Value,
    pub(crate) complaint: String,
}

impl Diagnosis {
    /// The word, or what was printed instead.
    pub(crate) fn code(&self) -> &str {
        self.json["verdict"]["code"].as_str().unwrap_or("none")
    }

    pub(crate) fn line(&self) -> &str {
        self.json["verdict"]["line"].as_str().unwrap_or(&self.complaint)
    }

    pub(crate) fn next(&self) -> Vec<&str> {
        let lines = self.json["verdict"]["next"].as_array().map(Vec::as_slice).unwrap_or_default();
        lines.iter().filter_map(Value::as_str).collect()
    }

    /// The root of the chain of waits, if there is one.
    fn root(&self) -> String {
        let chain = &self.json["verdict"]["chain"];
        let last = chain.as_array().and_then(|links| links.last()).unwrap_or(chain);
        let text = |value: &Value| {
            let of = ["text", "line", "root"].iter().find_map(|key| value[*key].as_str());
            of.or(value.as_str()).map(str::to_owned)
        };
        let root = text(&self.json["verdict"]["root"]).or_else(|| text(last));
        root.unwrap_or_else(|| "–".to_owned()).replace('|', "/")
    }

    fn is_overloaded(&self) -> bool {
        self.code() == "worker-starved" && self.line().contains("no processor")
    }
}

/// How the doctor is run.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoctorRun<'a> {
    pub(crate) arguments: &'a [&'a str],
    /// The user who runs it; else the user of the test.
    pub(crate) user: Option<u32>,
    /// Whether the configuration is left out.
    pub(crate) without_config: bool,
}

/// Both programs at work, until something is done to them.
pub(crate) struct Patient {
    pub(crate) stack: TestStack,
    pub(crate) origin: Origin,
}

impl Patient {
    /// Two feeds with something in them, and two workers.
    pub(crate) async fn well() -> anyhow::Result<Self> {
        let mut patient = Self::prepared(2).await?;
        patient.stack.start_both().await?;
        Ok(patient)
    }

    /// The same, started with these options.
    pub(crate) async fn started_with(program: Binary, options: StartOptions) -> anyhow::Result<Self> {
        let mut patient = Self::prepared(2).await?;
        patient.stack.set_start_options(program, options);
        patient.stack.start_both().await?;
        Ok(patient)
    }

    /// The same, not yet started.
    pub(crate) async fn prepared(feeds: usize) -> anyhow::Result<Self> {
        let origin = Origin::start().await?;
        let sources: Vec<TestSource> = scenario::feeds(&origin, feeds);
        let mut stack = TestStack::new(&sources)?;
        stack.set("gateway.workers", "2");
        for number in 0..feeds {
            origin.publish(&format!("feed-{number}"), "There is something to record");
        }
        Ok(Self { stack, origin })
    }

    pub(crate) fn id(&mut self, program: Binary) -> u32 {
        self.stack.process(program).map_or(0, |process| process.id())
    }

    /// Stops a process as SIGSTOP does, and waits until it has stopped.
    pub(crate) async fn stop(&mut self, program: Binary) -> anyhow::Result<()> {
        let process = self.stack.process(program)?;
        process.signal(Signal::STOP)?;
        wait_state(process.id(), "T").await
    }

    pub(crate) fn resume(&mut self, program: Binary) -> anyhow::Result<()> {
        self.stack.process(program)?.signal(Signal::CONT)
    }

    /// Lets every user read the folder of this test, as a packaged configuration is.
    pub(crate) fn open_to_all(&self) -> anyhow::Result<()> {
        let config = self.stack.write_config("newswire.toml", &[])?;
        fs::set_permissions(self.stack.folder(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(config, fs::Permissions::from_mode(0o644))?;
        Ok(fs::set_permissions(self.stack.path("sources.toml"), fs::Permissions::from_mode(0o644))?)
    }

    /// Runs the doctor once.
    pub(crate) async fn doctor(&self, run: DoctorRun<'_>) -> anyhow::Result<Diagnosis> {
        let program = Binary::Newswire.path()?;
        let mut command = match run.user {
            None => Command::new(&program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={user}"), format!("--regid={user}")];
                command.args(ids).arg("--clear-groups").arg(&program);
                command
            }
        };
        command.args(["doctor", "--json"]).args(run.arguments);
        if !run.without_config {
            command.arg("--config").arg(self.stack.write_config("newswire.toml", &[])?);
        }
        if run.user.is_some() {
            self.open_to_all()?;
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.stack.folder()).stdin(Stdio::null());
        let began = Instant::now();
        let doctor = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(DOCTOR_WITHIN, doctor).await??;
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(Diagnosis { exit: output.status.code(), took: began.elapsed(), json, complaint })
    }

    /// Runs the doctor, prints the row, and checks it.
    pub(crate) async fn expect(&self, sickness: &str, expected: Expected) -> anyhow::Result<Diagnosis> {
        self.expect_of(sickness, DoctorRun::default(), expected).await
    }

    /// The same with arguments, or as another user.
    pub(crate) async fn expect_of(
        &self,
        sickness: &str,
        run: DoctorRun<'_>,
        expected: Expected,
    ) -> anyhow::Result<Diagnosis> {
        let until = Instant::now() + SPARE_WITHIN;
        let mut diagnosis = self.doctor(run.clone()).await?;
        while diagnosis.is_overloaded() && Instant::now() < until {
            sleep(Duration::from_secs(1)).await;
            diagnosis = self.doctor(run.clone()).await?;
        }
        let complaints = expected.complaints(&diagnosis);
        let right = if complaints.is_empty() { "yes" } else { "NO" };
        log_line(&format!(
            "| {sickness} | {} | {} | {right} | {:.1} | {} |",
            diagnosis.code(),
            diagnosis.root(),
            diagnosis.took.as_secs_f64(),
            diagnosis.exit.map_or_else(|| "–".to_owned(), |code| code.to_string()),
        ));
        log_line(&format!("{}: {}", diagnosis.code(), diagnosis.line()));
        diagnosis.next().iter().for_each(|line| log_line(&format!("  next: {line}")));
        let advised = expected.exit != 1 || !diagnosis.next().is_empty();
        anyhow::ensure!(
            complaints.is_empty() && advised,
            "{sickness}: {}\n{:#}",
            complaints.join("; "),
            diagnosis.json
        );
        Ok(diagnosis)
    }
}

/// Waits until a process is in a state, such as `T`.
pub(crate) async fn wait_state(process: u32, state: &str) -> anyhow::Result<()> {
    let status = format!("/proc/{process}/status");
    let wanted = format!("State:\t{state}");
    let is_there = async || fs::read_to_string(&status).ok()?.contains(&wanted).then_some(());
    wait_for(&format!("process {process} to be {state}"), SOON, is_there).await
}

/// Whether the test runs as root; else says that it was skipped.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        log_line("SKIPPED: this sickness takes root");
    }
    root
}

/// Whether a program is installed; else says that the test was skipped.
pub(crate) fn has(program: &str) -> bool {
    let there = e2e::on_path(program).is_some();
    if !there {
        log_line(&format!("SKIPPED: {program} is not installed"));
    }
    there
}
