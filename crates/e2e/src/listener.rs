//! Somebody else's program that listens: in a folder of its own, read by what it prints, and never left behind.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};

/// A running program, with whatever it has started; killed and waited for when this is dropped.
pub struct Listener {
    child: Child,
    said: PathBuf,
}

impl Listener {
    /// Starts a program in `folder`; what it prints is added to what it printed there before.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>], folder: &Path) -> anyhow::Result<Self> {
        let said = folder.join("said");
        let open = |name| OpenOptions::new().create(true).append(true).open(folder.join(name));
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            // A shell has children of its own, which would outlive it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(open("said")?)
            .stderr(open("complained")?)
            .spawn()
            .with_context(|| format!("{} could not be started", program.display()))?;
        Ok(Self { child, said })
    }

    /// The complete lines that were printed in its folder so far.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        let text = fs::read(&self.said).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        complete.lines().map(str::to_owned).collect()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it had to complain about.
    #[must_use]
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.said.with_file_name("complained")).unwrap_or_default()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Each fails only when it has ended already, which is what is wanted.
        let _ended = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _status = self.child.wait();
    }
}
