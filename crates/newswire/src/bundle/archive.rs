//! The archive: a `tar.gz` that only its owner can read, and that gets its name when it is complete.

use std::{io, path::Path, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use news::Timestamp;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::parts::Omission;
use crate::redact::Redactor;

/// A bundle that is being written.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<NamedTempFile>>,
    output: PathBuf,
    /// The directory in the archive that contains all parts.
    folder: String,
    made: Timestamp,
    redactor: Redactor,
    parts: Vec<Value>,
    missing: Vec<String>,
}

impl Archive {
    /// Starts an archive in the directory of `output`, readable by its owner only.
    pub(super) fn create(
        output: &Path,
        folder: &str,
        made: Timestamp,
        redactor: Redactor,
    ) -> io::Result<Self> {
        let directory = output.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".newswire-bundle-").tempfile_in(directory)?;
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

    /// Adds lines of any kind, or why they are missing.
    pub(super) fn add_lines(&mut self, name: &str, part: Result<String, Omission>) -> io::Result<()> {
        let part = part.map(|text| self.redactor.lines(&text));
        self.add(name, part)
    }

    /// Adds a JSON document, or why it is missing.
    pub(super) fn add_json(&mut self, name: &str, part: Result<Value, Omission>) -> io::Result<()> {
        let part = part.map(|mut value| {
            self.redactor.json(&mut value);
            format!("{value:#}\n")
        });
        self.add(name, part)
    }

    fn add(&mut self, name: &str, part: Result<String, Omission>) -> io::Result<()> {
        match part {
            Ok(text) => {
                self.append(name, &text)?;
                self.parts.push(json!({ "name": name, "bytes": text.len() }));
            }
            Err(omission) => {
                let reason = self.redactor.text(omission.reason());
                // The first failed request says why the others were not made.
                if matches!(omission, Omission::Failed(_)) {
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

    /// Writes the manifest as the last part and gives the file its name; returns the parts that are missing, with reasons.
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
