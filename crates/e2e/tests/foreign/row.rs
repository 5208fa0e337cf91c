//! One row of the table: both programs at work, a sickness, what the doctor says of it, and whether that is right.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{Binary, Origin, StartOptions, TestSource, TestStack, log_line, scenario, wait_for};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Deadline of the doctor, whatever hangs; these hangs never end by themselves. The table has what it took.
const DOCTOR_WITHIN: Duration = Duration::from_secs(180);
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
pub(crate) struct Expected<'a> {
    /// The verdict; one of these, where the cause cannot be told apart. The exit code follows from it.
    codes: &'a [&'a str],
    /// Each must be in the line, in any case of letters; of words with `|` between them, one.
    says: &'a [&'a str],
}

impl<'a> Expected<'a> {
    /// Exit code 0. On a machine that others use, the feeds of the test may be slow, too.
    pub(crate) const FINE: Self = Self { codes: &["healthy", "slow-feeds"], says: &[] };
    /// Exit code 0 as well.
    pub(crate) const SLOW_FEEDS: Self = Self { codes: &["slow-feeds"], says: &[] };
    /// Whatever the doctor says.
    pub(crate) const ANY: Self = Self { codes: &[], says: &[] };
    /// A mistake on the command line, exit code 2: no verdict.
    pub(crate) const USAGE: Self = Self { codes: &["none"], says: &[] };

    /// A sickness, exit code 1.
    pub(crate) const fn fault(codes: &'a [&'a str], says: &'a [&'a str]) -> Self {
        Self { codes, says }
    }

    /// What the user may not see or what was not answered, exit code 3.
    pub(crate) const fn unknown(says: &'a [&'a str]) -> Self {
        Self { codes: &["unknown"], says }
    }

    /// The exit code that a verdict has.
    fn exit_of(code: &str) -> i32 {
        match code {
            "healthy" | "slow-feeds" => 0,
            "none" => 2,
            "unknown" => 3,
            _ => 1,
        }
    }

    fn complaints(&self, diagnosis: &Diagnosis) -> Vec<String> {
        let mut complaints = Vec::new();
        let code = diagnosis.code();
        if !self.codes.is_empty() && !self.codes.contains(&code) {
            complaints.push(format!("the verdict is not {}", self.codes.join(" or ")));
        }
        if diagnosis.exit != Some(Self::exit_of(code)) {
            complaints.push(format!("the exit code of {code} is not {}", Self::exit_of(code)));
        }
        if Self::exit_of(code) == 1 && diagnosis.next().is_empty() {
            complaints.push("it does not say what to do next".to_owned());
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
        let chains = self.json["evidence"]["waits"].as_array().map(Vec::as_slice).unwrap_or_default();
        let links = chains.iter().flat_map(|chain| chain["links"].as_array().into_iter().flatten());
        let of_evidence = links.filter(|link| link["root"] == true).find_map(|link| link["says"].as_str());
        let of_line = self.line().split_once("root: ").map(|(_, root)| root);
        let root = self.json["verdict"]["root"].as_str().or(of_line).or(of_evidence).unwrap_or("–");
        root.replace('|', "/")
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
    /// A file of the stack's folder that takes the place of its configuration.
    pub(crate) config: Option<&'a str>,
    /// A command that starts the doctor, such as `unshare --net`.
    pub(crate) through: &'a [&'a str],
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
        patient.start().await?;
        Ok(patient)
    }

    /// Starts both and waits until they are ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.stack.start_both().await
    }

    /// As [`Patient::well`], started with these options.
    pub(crate) async fn started_with(program: Binary, options: StartOptions) -> anyhow::Result<Self> {
        let mut patient = Self::prepared(2).await?;
        patient.stack.set_start_options(program, options);
        patient.start().await?;
        Ok(patient)
    }

    /// As [`Patient::well`], not yet started.
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
        let mut words: Vec<String> = run.through.iter().map(|word| (*word).to_owned()).collect();
        if let Some(user) = run.user {
            self.open_to_all()?;
            words.extend(["setpriv".to_owned(), format!("--reuid={user}"), format!("--regid={user}")]);
            words.push("--clear-groups".to_owned());
        }
        words.push(program.display().to_string());
        let config = match run.config {
            None => self.stack.write_config("newswire.toml", &[])?,
            Some(name) => self.stack.path(name),
        };
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["doctor", "--json"]).args(run.arguments).arg("--config").arg(config);
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
    pub(crate) async fn expect(&self, sickness: &str, expected: Expected<'_>) -> anyhow::Result<Diagnosis> {
        self.expect_of(sickness, DoctorRun::default(), expected).await
    }

    /// The same with arguments, or as another user.
    pub(crate) async fn expect_of(
        &self,
        sickness: &str,
        run: DoctorRun<'_>,
        expected: Expected<'_>,
    ) -> anyhow::Result<Diagnosis> {
        let until = Instant::now() + SPARE_WITHIN;
        let mut diagnosis = self.doctor(run.clone()).await?;
        while diagnosis.is_overloaded() && Instant::now() < until {
            sleep(Duration::from_secs(1)).await;
            diagnosis = self.doctor(run.clone()).await?;
        }
        judge(sickness, &diagnosis, expected)?;
        Ok(diagnosis)
    }
}

/// Prints the row, and checks it.
pub(crate) fn judge(sickness: &str, diagnosis: &Diagnosis, expected: Expected<'_>) -> anyhow::Result<()> {
    let complaints = expected.complaints(diagnosis);
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
    anyhow::ensure!(complaints.is_empty(), "{sickness}: {}\n{:#}", complaints.join("; "), diagnosis.json);
    Ok(())
}

/// A program that interferes: ended, with its children, when dropped.
pub(crate) struct Outsider(Child);

impl Outsider {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.process_group(0).spawn()?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // Each fails only if it has already ended.
        let _ended = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _status = self.0.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The options of a program that is started by a shell script, which ends in `exec "$@"`.
pub(crate) fn through_shell(script: &str) -> StartOptions {
    let through = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    StartOptions { through, ..StartOptions::default() }
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
