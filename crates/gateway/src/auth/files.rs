//! Reads the files of tokens and keys. No complaint repeats anything from them: it may be a token.

use std::{fs, io::Read as _, path::Path};

use notation::Complaint;

/// A file that the configuration names.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuthFile<'p> {
    pub(super) key: &'static str,
    pub(super) path: &'p Path,
}

impl AuthFile<'_> {
    /// Reads the file, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// If it cannot be read, is too large or is not UTF-8.
    #[expect(clippy::disallowed_methods, reason = "before the event loops start")]
    pub(super) fn text(self, bytes_max: u64) -> Result<String, Complaint> {
        let mut bytes = Vec::new();
        fs::File::open(self.path)
            .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
            .map_err(|error| self.complaint(None, format!("cannot read the file: {error}")))?;
        if bytes.len() as u64 > bytes_max {
            return Err(self.complaint(None, format!("larger than {bytes_max} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| self.complaint(None, "not UTF-8".to_owned()))
    }

    /// A complaint about the file, with a line if one is known.
    pub(super) fn complaint(self, line: Option<usize>, message: String) -> Complaint {
        Complaint { place: self.path.display().to_string(), line, key: self.key.to_owned(), message }
    }
}
