//! Which of our programs a process runs. A name proves nothing: the process may belong to another configuration.

use std::path::PathBuf;

use procfs::process::Process;

/// The name of the ingestion daemon.
pub(crate) const INGESTD: &str = "newswire-ingestd";
/// The name of the gateway.
pub(crate) const GATEWAY: &str = "newswire-gateway";
/// The kernel cuts the name of a process off after this many bytes (proc_pid_comm(5)).
const COMM_BYTES_MAX: usize = 15;

/// Which of our programs a process runs.
pub(crate) fn of(pid: i32) -> Option<&'static str> {
    let process = Process::new(pid).ok()?;
    [INGESTD, GATEWAY].into_iter().find(|program| runs(&process, program))
}

/// Whether a process runs this program: by its executable, which only its own user and root may see, else by the command
/// line, else (a process that has ended and was not waited for) by the name that the kernel keeps.
pub(crate) fn runs(process: &Process, program: &str) -> bool {
    // The path of a program that an update has replaced ends in " (deleted)".
    let named = |path: PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().trim_end_matches(" (deleted)") == program)
    };
    if let Ok(path) = process.exe() {
        return named(path);
    }
    match super::process::arguments(process.pid()).unwrap_or_default().first() {
        Some(first) => named(first.into()),
        None => process.stat().is_ok_and(|stat| stat.comm == program[..COMM_BYTES_MAX]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_another_program_is_none_of_ours() {
        assert_eq!(of(std::process::id().cast_signed()), None);
        assert_eq!(of(i32::MAX), None);
        assert!(INGESTD.len() > COMM_BYTES_MAX && GATEWAY.len() > COMM_BYTES_MAX);
    }
}
