//! Limits of the process that the operating system sets low by default.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and returns the number then in force (`u64::MAX` when there
/// is none). Ten thousand clients need ten thousand descriptors; the usual soft limit is 1024.
///
/// # Errors
/// When the system refuses; the old limit stays in force.
pub fn raise_open_files() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        let number = raise_open_files().unwrap();
        assert_eq!(number, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
