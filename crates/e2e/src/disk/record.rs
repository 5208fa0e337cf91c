//! The record that `preload/faults.c` writes: its operations in the order in which they were done.

use std::{ops::Range, path::Path};

use anyhow::Context as _;

const MAGIC: u32 = 0x4b53_4944;
/// Bytes of `struct entry`.
const HEAD: usize = 48;

/// One operation. Paths are relative to the recorded folder, which is the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskStep {
    Write {
        path: String,
        offset: u64,
        data: Range<usize>,
    },
    Truncate {
        path: String,
        length: u64,
    },
    CreateFile {
        path: String,
    },
    CreateFolder {
        path: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    /// What was written and named before it is durable if a `SyncEnd` of the same thread and path follows.
    SyncBegin {
        path: String,
        thread: u32,
    },
    SyncEnd {
        path: String,
        thread: u32,
    },
    /// Bytes that go to a socket.
    Send {
        data: Range<usize>,
    },
}

/// A record in memory.
#[derive(Debug)]
pub(super) struct DiskRecord {
    bytes: Vec<u8>,
    pub(super) steps: Vec<DiskStep>,
}

impl DiskRecord {
    /// Reads a record of operations below `folder`.
    pub(super) fn read(file: &Path, folder: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let folder = std::fs::canonicalize(folder)?.display().to_string();
        let mut record = Self { bytes, steps: Vec::new() };
        let mut at = 0;
        while at < record.bytes.len() {
            at = record.read_step(at, &folder).with_context(|| format!("the record at byte {at}"))?;
        }
        Ok(record)
    }

    #[cfg(test)]
    pub(super) fn new(bytes: Vec<u8>, steps: Vec<DiskStep>) -> Self {
        Self { bytes, steps }
    }

    pub(super) fn data(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// Reads the step that begins at `at`; returns where the next one begins.
    fn read_step(&mut self, at: usize, folder: &str) -> anyhow::Result<usize> {
        let head = self.bytes.get(at..at + HEAD).context("it is cut off")?;
        let word = |n: usize| u32::from_le_bytes(head[n..n + 4].try_into().expect("four bytes"));
        let long = |n: usize| u64::from_le_bytes(head[n..n + 8].try_into().expect("eight bytes"));
        anyhow::ensure!(word(0) == MAGIC, "no entry begins here");
        let (kind, thread) = (u8::try_from(word(4))?, word(8));
        let paths = [usize::try_from(word(12))?, usize::try_from(word(16))?];
        let (offset, length) = (long(32), usize::try_from(long(40))?);
        let [first, second, data] =
            [at + HEAD, at + HEAD + paths[0], at + HEAD + paths[0] + paths[1]].map(|start| start);
        anyhow::ensure!(data + length <= self.bytes.len(), "its data is cut off");
        let text = |range: Range<usize>| -> anyhow::Result<String> {
            let path = std::str::from_utf8(&self.bytes[range])?;
            let inside = path.strip_prefix(folder).map(|path| path.trim_start_matches('/'));
            Ok(inside.unwrap_or(path).to_owned())
        };
        let (path, to) = (text(first..second)?, text(second..data)?);
        let data = data..data + length;
        let end = data.end;
        self.steps.push(match kind {
            b'W' => DiskStep::Write { path, offset, data },
            b'T' => DiskStep::Truncate { path, length: offset },
            b'C' => DiskStep::CreateFile { path },
            b'D' => DiskStep::CreateFolder { path },
            b'U' => DiskStep::Unlink { path },
            b'R' => DiskStep::Rename { from: path, to },
            b'L' => DiskStep::Link { from: path, to },
            b's' => DiskStep::SyncBegin { path, thread },
            b'S' => DiskStep::SyncEnd { path, thread },
            b'N' => DiskStep::Send { data },
            other => anyhow::bail!("an unknown kind of entry, {other}"),
        });
        Ok(end)
    }
}
