//! Reading the two files that say who may read, with every complaint about them at once. Nothing that stands in them
//! is repeated in a complaint: it may be a token.

use std::{fs, io::Read as _, path::Path};

use notation::Complaint;

/// A file of the configuration: the key that names it, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct File<'p> {
    pub(super) key: &'static str,
    pub(super) path: &'p Path,
}

impl File<'_> {
    /// Its text, of at most so many bytes.
    #[expect(clippy::disallowed_methods, reason = "before the loops begin")]
    pub(super) fn text(self, bytes_max: u64) -> Result<String, Complaint> {
        let mut bytes = Vec::new();
        fs::File::open(self.path)
            .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
            .map_err(|error| self.complaint(None, format!("cannot read the file: {error}")))?;
        if bytes.len() as u64 > bytes_max {
            return Err(self.complaint(None, format!("has more than {bytes_max} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| self.complaint(None, "is not UTF-8".to_owned()))
    }

    /// Something wrong with it, at a line where one is known.
    pub(super) fn complaint(self, line: Option<usize>, message: String) -> Complaint {
        Complaint { place: self.path.display().to_string(), line, key: self.key.to_owned(), message }
    }
}
