//! A third-party program (client, proxy) as a child process in its own folder, observed by its output.
//!
//! What must never happen here: a process that outlives its test.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A running program with its children; killed and waited for when dropped.
pub struct ExternalProgram {
    child: Child,
    stdout: PathBuf,
}

impl ExternalProgram {
    /// Starts a program in `folder`; its output is appended to that of earlier runs there.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>], folder: &Path) -> anyhow::Result<Self> {
        let stdout = folder.join("stdout");
        let open = |name| OpenOptions::new().create(true).append(true).open(folder.join(name));
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            // The children of a shell would outlive it: kill the whole group.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(open("stdout")?)
            .stderr(open("stderr")?)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, stdout })
    }

    /// The complete lines of standard output so far, earlier runs in the same folder included.
    #[must_use]
    pub fn output_lines(&self) -> Vec<String> {
        let text = fs::read(&self.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        complete.lines().map(str::to_owned).collect()
    }

    /// Whether it is still running.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it, not to its children.
    ///
    /// # Errors
    /// If it no longer exists.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signal a program")
    }

    /// Its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.stdout.with_file_name("stderr")).unwrap_or_default()
    }
}

impl Drop for ExternalProgram {
    fn drop(&mut self) {
        // Each fails only if it has already exited.
        let _ended = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _status = self.child.wait();
    }
}
