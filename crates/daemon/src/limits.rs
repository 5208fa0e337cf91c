//! The limit of open files, which the operating system sets low by default.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit and returns the limit then in force (`u64::MAX` if there is
/// none). Ten thousand clients need ten thousand descriptors; the usual soft limit is 1024.
///
/// # Errors
/// If the system refuses; the old limit stays in force.
pub fn raise_open_files() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// The number of open files and its limit. Newer kernels report the number as the size of `/proc/self/fd`; on older ones
/// its entries are counted. If it cannot be opened either, all descriptors are in use.
#[must_use]
pub fn open_files() -> (u64, u64) {
    let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if let Some(used) =
        std::fs::metadata("/proc/self/fd").map(|directory| directory.len()).ok().filter(|n| *n > 0)
    {
        return (used, max);
    }
    // The directory itself is one of them while it is read.
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
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_limit() {
        let number = raise_open_files().unwrap();
        assert_eq!(number, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
