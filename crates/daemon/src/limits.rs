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

/// How many files are open and how many may be. Newer kernels tell it as the size of `/proc/self/fd`, on others its
/// entries are counted; when not even that can be opened, all are in use.
#[must_use]
pub fn open_files() -> (u64, u64) {
    let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if let Some(used) = std::fs::metadata("/proc/self/fd").map(|folder| folder.len()).ok().filter(|n| *n > 0)
    {
        return (used, max);
    }
    // The folder itself is one of them while it is read.
    let used = std::fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1) as u64);
    (used.unwrap_or(max), max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_counted() {
        let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let (used, max) = open_files();
        assert!(used >= files.len() as u64 && used <= max, "{used} of {max}");
    }

    #[test]
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        let number = raise_open_files().unwrap();
        assert_eq!(number, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
