//! A daemon that ends with the process that started it: `newswire up` sets [`PARENT_VARIABLE`], so that its children do not
//! stay behind when it is killed. Under systemd the variable is not set.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The environment variable with the process id of the parent.
pub const PARENT_VARIABLE: &str = "NEWSWIRE_PARENT";

/// Makes the kernel send SIGTERM to this process when the thread that started it ends, if the variable is set.
///
/// # Errors
/// If the parent has ended already, or the kernel refuses.
pub(crate) fn end_with_parent() -> io::Result<()> {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok().and_then(|pid| pid.parse().ok()) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before.
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(io::Error::other("the process that started this one has ended"))
    }
}
