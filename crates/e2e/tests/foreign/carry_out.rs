//! Carries out the advice of the doctor: runs the commands of its `next:` lines as they are printed, in their order, and sees
//! whether both programs are well after that.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use e2e::{Binary, TestStack, http, log_line, wait_for};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use crate::row::{DoctorRun, Expected, Patient, SOON};

/// Deadline of a command: the longest waits for a minute by itself.
const COMMAND_WITHIN: Duration = Duration::from_secs(150);
/// Deadline for both to be well after the last step: what was slow in the last minute is still told for that long.
const WELL_WITHIN: Duration = Duration::from_secs(150);
/// The first words of advice that a person carries out.
const PROSE: [&str; 14] = [
    "press", "start", "restart", "read", "raise", "lower", "report", "end", "give", "look", "name", "if",
    "run", "set",
];
/// Advice that is the same for every hang, and changes nothing: to report it.
const REPORT: &str = "report this function as a bug";
/// Commands that change something, and need not print anything.
const CHANGES: [&str; 9] =
    ["kill", "echo", "mv", "mount", "umount", "fsfreeze", "prlimit", "sysctl", "dmesg"];

type Act<'a> = dyn FnOnce(&mut Patient) -> anyhow::Result<()> + 'a;

/// What a person does whose advice is prose, or who reads what a command has shown.
pub(crate) struct Deed<'a> {
    /// Words of the line that makes him do it.
    at: &'a str,
    does: Box<Act<'a>>,
}

impl<'a> Deed<'a> {
    pub(crate) fn at(at: &'a str, does: impl FnOnce(&mut Patient) -> anyhow::Result<()> + 'a) -> Self {
        Self { at, does: Box::new(does) }
    }

    /// Advice that this sickness does not need.
    pub(crate) fn not_needed(at: &'a str) -> Self {
        Self::at(at, |_| Ok(()))
    }
}

/// One verdict, and who carries out its advice.
pub(crate) struct Cure<'a> {
    pub(crate) sickness: &'a str,
    pub(crate) verdict: Expected<'a>,
    pub(crate) run: DoctorRun<'a>,
    pub(crate) deeds: Vec<Deed<'a>>,
    /// What a person writes in place of a word in capitals.
    pub(crate) words: &'a [(&'a str, &'a str)],
}

impl<'a> Cure<'a> {
    /// Of a sickness with this verdict.
    pub(crate) fn of(sickness: &'a str, code: &'a [&'a str]) -> Self {
        let (run, deeds) = Default::default();
        Self { sickness, verdict: Expected::fault(code, &[]), run, deeds, words: &[] }
    }

    /// Runs the doctor, carries out its advice, and sees that it helps.
    pub(crate) async fn helps(self, patient: &mut Patient) -> anyhow::Result<()> {
        let (sickness, user) = (self.sickness, self.run.user);
        let hands = self.carried_out(patient).await?;
        let helped = hands.are_well(patient, user).await.with_context(|| format!("after {sickness}"));
        log_line(&format!(
            "| advice: {sickness} | {} |",
            if helped.is_ok() { "helped" } else { "DID NOT HELP" }
        ));
        helped
    }

    /// Runs the doctor and carries out its advice, which does not heal by itself.
    pub(crate) async fn carried_out(self, patient: &mut Patient) -> anyhow::Result<Hands> {
        let diagnosis = patient.expect_of(self.sickness, self.run.clone(), self.verdict).await?;
        let mut hands = Hands::new(patient, self.run.user)?;
        let mut deeds = self.deeds;
        for line in diagnosis.next() {
            let mut step = line.to_owned();
            for (word, filled) in self.words {
                step = step.replace(word, filled);
            }
            let deed = deeds.iter().position(|deed| step.contains(deed.at)).map(|at| deeds.remove(at));
            match (is_prose(&step), deed) {
                (true, None) => anyhow::ensure!(step.contains(REPORT), "not carried out: {step}"),
                (true, Some(deed)) => (deed.does)(patient)?,
                (false, deed) => {
                    hands.run(patient, &step).await.with_context(|| step.clone())?;
                    if let Some(deed) = deed {
                        (deed.does)(patient)?;
                    }
                }
            }
        }
        let left: Vec<_> = deeds.iter().map(|deed| deed.at).collect();
        anyhow::ensure!(left.is_empty(), "the advice does not lead to {left:?}: {:?}", diagnosis.next());
        Ok(hands)
    }
}

fn is_prose(step: &str) -> bool {
    let first = step.split([' ', ',']).next().unwrap_or_default();
    PROSE.contains(&first)
}

/// A shell of the user who ran the doctor, and what it has started.
pub(crate) struct Hands {
    user: Option<u32>,
    path: String,
    /// His working directory.
    folder: PathBuf,
    started: Vec<Child>,
    /// What the last command has printed.
    pub(crate) printed: String,
}

impl Hands {
    fn new(patient: &Patient, user: Option<u32>) -> anyhow::Result<Self> {
        let programs = Binary::Newswire.path()?;
        let programs = programs.parent().context("a folder")?.display().to_string();
        let tools = patient.stack.path("tools");
        fs::create_dir_all(&tools)?;
        // What `sudo` does for a user who may use it; not every machine has it.
        let sudo = tools.join("sudo");
        let script = "#!/bin/sh\n[ \"$1\" = -u ] && { user=$2; shift 2; exec runuser -u \"$user\" -- \"$@\"; }\nexec \"$@\"\n";
        fs::write(&sudo, script)?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        let system = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{programs}:{system}", tools.display());
        let folder = patient.stack.path("home");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(Self { user, path, folder, started: Vec::new(), printed: String::new() })
    }

    /// Runs one command to its end; one that starts a daemon goes on.
    async fn run(&mut self, patient: &mut Patient, step: &str) -> anyhow::Result<()> {
        log_line(&format!("  runs: {step}"));
        let folder = self.folder.clone();
        let output = folder.join("output");
        let mut command = self.command(step);
        command
            .current_dir(&folder)
            .stdout(File::create(&output)?)
            .stderr(File::create(folder.join("errors"))?);
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        if starts_a_daemon(step) {
            self.started.push(child);
            return Ok(());
        }
        let until = Instant::now() + COMMAND_WITHIN;
        let status = loop {
            reap(&mut patient.stack);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= until {
                self.started.push(child);
                anyhow::bail!("it does not end");
            }
            sleep(Duration::from_millis(20)).await;
        };
        let (printed, complaint) = (text(&output), text(&folder.join("errors")));
        let is_verdict = ["newswire doctor", "newswire check"].iter().any(|shows| step.contains(shows));
        let is_exit_right = match status.code() {
            Some(1 | 3) => is_verdict,
            Some(2) if step.contains("newswire config check") => true,
            // One of another test, which has ended meanwhile.
            Some(2) => examined(step).is_some_and(|process| !Path::new("/proc").join(process).exists()),
            code => code == Some(0),
        };
        anyhow::ensure!(is_exit_right, "{status}: {complaint}{printed}");
        let first = step.trim_start_matches("sudo ").split(' ').next().unwrap_or_default();
        let shows_nothing = printed.trim().is_empty() && complaint.is_empty();
        anyhow::ensure!(CHANGES.contains(&first) || !shows_nothing, "it printed nothing");
        self.printed = printed;
        Ok(())
    }

    /// With `sudo`, root runs it; else the user of the doctor.
    fn command(&self, step: &str) -> Command {
        let user = self.user.filter(|_| !step.contains("sudo "));
        let mut command = match user {
            None => Command::new("sh"),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}")]);
                command.args(["--clear-groups", "sh"]);
                command
            }
        };
        command.args(["-c", step]).env_clear().env("PATH", &self.path);
        command
    }

    /// Waits until the gateway is ready and the doctor says that all is well.
    async fn are_well(&self, patient: &mut Patient, user: Option<u32>) -> anyhow::Result<()> {
        let gateway = patient.stack.gateway();
        let until = Instant::now() + WELL_WITHIN;
        let ready = async || {
            reap(&mut patient.stack);
            http::fetch(&gateway, "/ready", SOON).await.ok().filter(|(status, _)| *status == 200)
        };
        // Who may not look inside has only been told what to do with more rights.
        if user.is_none() {
            wait_for("the gateway to be ready", SOON, ready).await?;
        }
        loop {
            reap(&mut patient.stack);
            // As root, who sees everything; stacks show what hangs, and take long on a busy machine.
            let run = DoctorRun { arguments: &["--no-stacks"], ..DoctorRun::default() };
            let diagnosis = patient.doctor(run).await?;
            if ["healthy", "slow-feeds"].contains(&diagnosis.code())
                && !diagnosis.line().contains("not ready")
            {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < until, "{}: {}", diagnosis.code(), diagnosis.line());
            sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        for child in &mut self.started {
            // Each fails only if it has already ended.
            let _ended = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _status = child.wait();
        }
    }
}

/// Whether the last command of a step is a daemon in the foreground.
fn starts_a_daemon(step: &str) -> bool {
    let command = step.split("   # ").next().unwrap_or_default();
    let last = command.rsplit("; ").next().unwrap_or_default();
    let mut words = last.split([' ', '(', ')']).map(|word| word.rsplit('/').next().unwrap_or_default());
    let is_daemon = |word: &str| word == "newswire-gateway" || word == "newswire-ingestd";
    last.contains("newswire up") || words.any(is_daemon)
}

/// The process that a step examines.
fn examined(step: &str) -> Option<&str> {
    step.split_once("newswire doctor --pid ")?.1.split(' ').next()
}

/// Waits for what has ended, as the program that started it does.
fn reap(stack: &mut TestStack) {
    for program in [Binary::Gateway, Binary::Ingestd] {
        if let Ok(process) = stack.process(program) {
            let _is_left = process.is_running();
        }
    }
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}
