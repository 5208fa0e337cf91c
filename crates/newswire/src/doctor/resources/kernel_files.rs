//! Small files of the kernel, below a root: `/`, or a directory that a test has made.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where `/proc` and `/sys` are.
#[derive(Clone, Debug)]
pub(crate) struct KernelFiles {
    root: PathBuf,
}

impl KernelFiles {
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where an absolute path is below the root.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// A file that has one number; `None` also for `max`, which the kernel writes for no limit.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// A line `name value` of a file.
    pub(crate) fn field(&self, path: impl AsRef<Path>, name: &str) -> Option<u64> {
        field_of(&self.text(path)?, name)
    }
}

/// The number on the line `name value`.
pub(crate) fn field_of(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}
