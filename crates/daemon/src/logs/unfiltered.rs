//! What no level hides and what is never suppressed as a repeat: dumps, and the line that says how many lines are missing
//! at its place.

/// The target of the lines of a dump, which is the module that logs them.
pub(crate) const DUMP_TARGET: &str = "daemon::watch::dump";
/// The target of the line that [`tell_dropped`] logs.
pub(super) const DROPPED_TARGET: &str = module_path!();

/// Logs that `lines` were dropped.
pub(super) fn tell_dropped(lines: u64) {
    tracing::warn!(lines, "log lines were dropped here: the output of the log did not take them in time");
}
