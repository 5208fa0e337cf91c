//! Exit codes, which systemd and scripts can tell apart; from BSD `sysexits.h` where it has one.

use std::process::ExitCode;

/// Success.
pub const EX_OK: u8 = 0;
/// A problem was found, or the command failed.
pub const EX_FAILURE: u8 = 1;
/// The command line (or, for a command, its configuration) is wrong.
pub const EX_USAGE: u8 = 2;
/// A check could not tell: what it asks for may not be looked at, or did not answer.
pub const EX_UNKNOWN: u8 = 3;
/// `EX_IOERR`: a file, directory, socket or port is unusable.
pub const EX_IOERR: u8 = 74;
/// `EX_TEMPFAIL`: another process holds the lock or the socket; a retry may work.
pub const EX_TEMPFAIL: u8 = 75;
/// `EX_CONFIG`: the configuration is wrong; restarting will not help.
pub const EX_CONFIG: u8 = 78;

/// How a newswire process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`EX_OK`]
    Ok,
    /// [`EX_FAILURE`]
    Failure,
    /// [`EX_USAGE`]
    Usage,
    /// [`EX_UNKNOWN`]
    Unknown,
    /// [`EX_TEMPFAIL`]
    Locked,
    /// [`EX_IOERR`]
    Io,
    /// [`EX_CONFIG`]
    Config,
}

impl Exit {
    /// The exit code of the process.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => EX_OK,
            Exit::Failure => EX_FAILURE,
            Exit::Usage => EX_USAGE,
            Exit::Unknown => EX_UNKNOWN,
            Exit::Locked => EX_TEMPFAIL,
            Exit::Io => EX_IOERR,
            Exit::Config => EX_CONFIG,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_code_is_the_one_that_units_and_scripts_expect() {
        let all = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Unknown, Exit::Locked, Exit::Io, Exit::Config];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 75, 74, 78]);
    }
}
