//! One of the real programs as a child process: started, listened to, signalled, and never left behind.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `newswire-ingestd`.
    Ingestd,
    /// `newswire-gateway`.
    Gateway,
    /// `newswire`, the operator's tool.
    Newswire,
}

impl Program {
    /// The name of its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingestd => "newswire-ingestd",
            Self::Gateway => "newswire-gateway",
            Self::Newswire => "newswire",
        }
    }

    /// Where it was built: beside the program that runs now, or one folder above (tests live in `deps`).
    ///
    /// # Errors
    /// When it is not there; says how to build it.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        self.path_within("")
    }

    /// Where its build with hang injection is (feature `drill`).
    ///
    /// # Errors
    /// As [`Program::path`].
    pub fn drill_path(self) -> anyhow::Result<PathBuf> {
        self.path_within("drill")
    }

    fn path_within(self, place: &str) -> anyhow::Result<PathBuf> {
        let here = std::env::current_exe()?;
        let folder = here.parent().context("a program lies in a folder")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let path = folder.join(place).join(self.name());
        anyhow::ensure!(
            path.is_file(),
            "{} is missing: build it first with `cargo build --workspace`, for drills with `scripts/drill --build`",
            path.display()
        );
        Ok(path)
    }
}

/// What is out of the ordinary about how a program is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// It is the build that can be made to hang.
    pub drill: bool,
    /// It may not have more files open than this.
    pub open_files_max: Option<u32>,
}

impl Manner {
    fn command(self, program: Program) -> anyhow::Result<Command> {
        let path = if self.drill { program.drill_path()? } else { program.path()? };
        let Some(files) = self.open_files_max else { return Ok(Command::new(path)) };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(path);
        Ok(shell)
    }
}

/// A child process; killed and waited for when this is dropped.
pub struct Process {
    program: Program,
    child: Child,
    log: PathBuf,
    /// Where its own part of the log begins: the file holds those of earlier runs too.
    log_from: u64,
}

impl Process {
    /// Starts a program in `folder`, with its output appended to `folder/NAME.log`, and without the variables of the
    /// environment that would configure it.
    ///
    /// # Errors
    /// When it is not built, or cannot be started.
    pub fn start(program: Program, arguments: &[&str], folder: &Path) -> anyhow::Result<Self> {
        Self::start_as(Manner::default(), program, arguments, folder)
    }

    /// The same, in another manner.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_as(
        manner: Manner,
        program: Program,
        arguments: &[&str],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{}.log", program.name()));
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let log_from = out.metadata()?.len();
        let mut command = manner.command(program)?;
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("NEWSWIRE_")
                || ["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"].contains(&&*name)
            {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{} could not be started", program.name()))?;
        Ok(Self { program, child, log, log_from })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("{} could not be signalled", self.program.name()))
    }

    /// Whether it still runs (a stopped process runs too).
    #[must_use]
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; gives how it ended and how long that took from now.
    ///
    /// # Errors
    /// When it has not ended by then; it is left running, and its log is in the message.
    pub async fn ended_within(&mut self, limit: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, start.elapsed()));
            }
            anyhow::ensure!(
                start.elapsed() < limit,
                "{} still ran after {limit:?}; its log:\n{}",
                self.program.name(),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill(&mut self) {
        // Fails only when it has ended already, which is what is wanted.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// What it has written since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.log_from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("the log could not be read: {error}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
