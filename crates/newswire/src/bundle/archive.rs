//! The archive itself: a `tar.gz` that only its owner can read, which appears under its name when it is complete.

use std::{io, path::Path, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use news::Timestamp;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::parts::NOT_ASKED;
use crate::redact::Redactor;

/// A bundle in the making.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<NamedTempFile>>,
    output: PathBuf,
    /// The folder that everything in it is in.
    folder: String,
    made: Timestamp,
    redactor: Redactor,
    parts: Vec<Value>,
    missing: Vec<String>,
}

impl Archive {
    /// Begins one in the folder of `output`, readable by its owner alone.
    pub(super) fn create(
        output: &Path,
        folder: &str,
        made: Timestamp,
        redactor: Redactor,
    ) -> io::Result<Self> {
        let beside = output.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".newswire-bundle-").tempfile_in(beside)?;
        Ok(Self {
            tar: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            output: output.to_owned(),
            folder: folder.to_owned(),
            made,
            redactor,
            parts: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// Takes lines of any kind, or notes why there are none.
    pub(super) fn add_lines(&mut self, name: &str, part: Result<String, String>) -> io::Result<()> {
        let part = part.map(|text| self.redactor.lines(&text));
        self.add(name, part)
    }

    /// Takes a JSON document, or notes why there is none.
    pub(super) fn add_json(&mut self, name: &str, part: Result<Value, String>) -> io::Result<()> {
        let part = part.map(|mut value| {
            self.redactor.json(&mut value);
            format!("{value:#}\n")
        });
        self.add(name, part)
    }

    fn add(&mut self, name: &str, part: Result<String, String>) -> io::Result<()> {
        match part {
            Ok(text) => {
                self.append(name, &text)?;
                self.parts.push(json!({ "name": name, "bytes": text.len() }));
            }
            Err(reason) => {
                let reason = self.redactor.text(&reason);
                if !reason.starts_with(NOT_ASKED) {
                    self.missing.push(format!("{name}: {}", reason.replace('\n', "; ")));
                }
                self.parts.push(json!({ "name": name, "missing": reason }));
            }
        }
        Ok(())
    }

    fn append(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.made.millis() / 1000).unwrap_or(0));
        self.tar.append_data(&mut header, format!("{}/{name}", self.folder), text.as_bytes())
    }

    /// Writes the manifest, the last part, and gives the file its name; gives what was asked for in vain.
    pub(super) fn finish(mut self, about: Value) -> io::Result<Vec<String>> {
        let mut manifest = json!({ "made": self.made, "about": about, "parts": self.parts });
        self.redactor.json(&mut manifest);
        self.append("manifest.json", &format!("{manifest:#}\n"))?;
        let file = self.tar.into_inner()?.finish()?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&self.output).map_err(|error| error.error)?;
        Ok(self.missing)
    }
}
