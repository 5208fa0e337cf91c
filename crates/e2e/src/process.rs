//! One of the real programs as a child process: start, log, signals, exit.
//!
//! What must never happen here: a process that outlives its test.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// One of the programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binary {
    /// `newswire-ingestd`.
    Ingestd,
    /// `newswire-gateway`.
    Gateway,
    /// `newswire`, the operator's tool.
    Newswire,
}

impl Binary {
    /// Its file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingestd => "newswire-ingestd",
            Self::Gateway => "newswire-gateway",
            Self::Newswire => "newswire",
        }
    }

    /// The path of its build: in the folder that `E2E_PROGRAMS` names, such as `target/release` of another copy of the
    /// sources; else next to the running program or, for tests (in `deps`), one folder above.
    ///
    /// # Errors
    /// If it is not built; the error says how to build it.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        self.path_within("")
    }

    /// The path of its build with hang injection and crash points (features `drill` and `crash-points`).
    ///
    /// # Errors
    /// As [`Binary::path`].
    pub fn drill_path(self) -> anyhow::Result<PathBuf> {
        self.path_within("drill")
    }

    fn path_within(self, subfolder: &str) -> anyhow::Result<PathBuf> {
        let current = std::env::current_exe()?;
        let folder = current.parent().context("a program is in a folder")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let chosen = std::env::var_os("E2E_PROGRAMS").map(PathBuf::from);
        let folder = chosen.as_deref().unwrap_or(folder);
        let path = folder.join(subfolder).join(self.name());
        anyhow::ensure!(
            path.is_file(),
            "{} is missing; build it with `cargo build --workspace`, for drills with `scripts/drill --build`",
            path.display()
        );
        Ok(path)
    }
}

/// How a program is started.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Starts the build with hang injection and crash points.
    pub drill: bool,
    /// Limit of open files (`ulimit -n`).
    pub open_files_max: Option<u32>,
    /// Size of its largest file in KiB (`ulimit -f`): a write beyond it fails with EFBIG.
    pub file_kib_max: Option<u32>,
    /// Its standard error is a pipe, which is not read until [`ChildProcess::read_stderr`].
    pub unread_stderr: bool,
    /// Environment variables, set after those that would configure the program were removed.
    pub environment: Vec<(String, String)>,
    /// A command that is started instead, with the program and its arguments appended. It must end in an `exec`, so that
    /// the process has the id of the command: `["setpriv", "--reuid=65534"]`.
    pub through: Vec<String>,
}

impl StartOptions {
    fn command(&self, program: Binary) -> anyhow::Result<Command> {
        let path = if self.drill { program.drill_path()? } else { program.path()? };
        let files = self.open_files_max.map(|files| format!("ulimit -n {files}"));
        // In blocks of 512 bytes; without the trap, the signal would end the process.
        let bytes = self.file_kib_max.map(|kib| format!("trap '' XFSZ; ulimit -f {}", 2 * kib));
        let limits: Vec<_> = files.into_iter().chain(bytes).collect();
        if let Some((first, more)) = self.through.split_first() {
            anyhow::ensure!(limits.is_empty(), "a program that is started through another has no limits");
            let mut command = Command::new(first);
            command.args(more).arg(path);
            return Ok(command);
        }
        if limits.is_empty() {
            return Ok(Command::new(path));
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{} && exec \"$0\" \"$@\"", limits.join(" && "))).arg(path);
        Ok(shell)
    }
}

/// A running program; killed and waited for when dropped.
pub struct ChildProcess {
    program: Binary,
    child: Child,
    log: PathBuf,
    /// Offset in the file where the log of this run begins.
    log_from: u64,
    /// The pipe of [`StartOptions::unread_stderr`].
    stderr: Option<ChildStderr>,
}

impl ChildProcess {
    /// Starts a program in `folder` with its output appended to `folder/NAME.log`, and without environment variables
    /// that would configure it.
    ///
    /// # Errors
    /// If it is not built or cannot be started.
    pub fn start(program: Binary, arguments: &[&str], folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(&StartOptions::default(), program, arguments, folder)
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`ChildProcess::start`].
    pub fn start_with(
        options: &StartOptions,
        program: Binary,
        arguments: &[&str],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{}.log", program.name()));
        let out = OpenOptions::new().create(true).append(true).open(&log)?;
        let log_from = out.metadata()?.len();
        let mut command = options.command(program)?;
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("NEWSWIRE_")
                || ["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"].contains(&&*name)
            {
                command.env_remove(name);
            }
        }
        let stderr = if options.unread_stderr { Stdio::piped() } else { Stdio::from(out.try_clone()?) };
        let mut child = command
            .args(arguments)
            .env("RUST_BACKTRACE", "1")
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start {}", program.name()))?;
        let stderr = child.stderr.take();
        Ok(Self { program, child, log, log_from, stderr })
    }

    /// Copies a standard error that was not read into the log from now on.
    ///
    /// # Errors
    /// If it was not started with [`StartOptions::unread_stderr`], or the log cannot be opened.
    pub fn read_stderr(&mut self) -> anyhow::Result<()> {
        let mut stderr = self.stderr.take().context("its standard error is a pipe")?;
        let mut log = OpenOptions::new().append(true).open(&self.log)?;
        // Ends with the process.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut log));
        Ok(())
    }

    /// Closes a standard error that was not read.
    pub fn close_stderr(&mut self) {
        self.stderr = None;
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process no longer exists.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signal {}", self.program.name()))
    }

    /// Whether it has not exited (a stopped process counts as running).
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it exits; returns its status and how long the wait took.
    ///
    /// # Errors
    /// If it is still running after `limit`; it is left running, and the error has its log.
    pub async fn wait_exit(&mut self, limit: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, start.elapsed()));
            }
            anyhow::ensure!(
                start.elapsed() < limit,
                "{} was still running after {limit:?}; its log:\n{}",
                self.program.name(),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends SIGKILL and waits until it has exited.
    pub fn kill(&mut self) {
        // Fails only if it has already exited.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Its log since it was started.
    #[must_use]
    pub fn log(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.log_from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("cannot read the log: {error}"))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
