//! Where the lines of an export go.
//!
//! ```text
//! a file:                FILE.4711.partial ──► fsync ──► renamed to FILE
//! a pipe or a device:    written as it is, like standard output
//! ```
//!
//! What FILE had stays until all of the new file is written.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt as _,
    os::unix::fs::fchown,
    path::{Path, PathBuf},
    process,
};

use store::tools::ToolError;

/// Names of standard output.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// What is below these is not replaced.
const DEVICES: [&str; 2] = ["/dev", "/proc"];

/// Lines on their way to a file or to standard output.
pub(super) struct LineOutput {
    /// As it was named; `None`: standard output.
    name: Option<PathBuf>,
    /// Begun with the first line: a command that cannot read anything has begun nothing.
    writer: Option<LineWriter>,
}

enum LineWriter {
    Direct(BufWriter<Box<dyn Write>>),
    Replaced(BufWriter<PartialFile>),
}

impl LineOutput {
    /// To this file; - or none: to standard output.
    ///
    /// # Errors
    /// If there is no folder for the file.
    pub(super) fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let name = path.filter(|path| !STDOUT.iter().any(|name| path.as_os_str() == *name));
        let output = Self { name: name.map(Path::to_owned), writer: None };
        // Reading can take minutes.
        if let Some(path) = name {
            fs::metadata(folder_of(path)).map_err(|error| output.error(error))?;
        }
        Ok(output)
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        let writer = self.begin()?;
        writer.write_all(text.as_bytes())?;
        writer.write_all(b"\n")
    }

    /// Puts the file in place.
    ///
    /// # Errors
    /// If it cannot be written; the file that was there is there then.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.begin().and_then(Write::flush).map_err(|error| self.error(error))?;
        match self.writer.take() {
            Some(LineWriter::Replaced(file)) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error);
                file.and_then(PartialFile::put_in_place).map_err(|error| self.error(error))
            }
            Some(LineWriter::Direct(_)) | None => Ok(()),
        }
    }

    /// Says which file cannot be written, and what to do.
    pub(super) fn failed(&self, error: ToolError) -> anyhow::Error {
        match error {
            ToolError::Output(error) => self.error(error),
            error => super::failed(error),
        }
    }

    fn error(&self, source: io::Error) -> anyhow::Error {
        match &self.name {
            // `| head` is no failure.
            None if source.kind() == io::ErrorKind::BrokenPipe => source.into(),
            name => {
                let path = name.clone().unwrap_or_else(|| "standard output".into());
                super::failed(ToolError::File { attempt: "write", path, source })
            }
        }
    }

    fn begin(&mut self) -> io::Result<&mut dyn Write> {
        if self.writer.is_none() {
            self.writer = Some(LineWriter::open(self.name.as_deref())?);
        }
        match &mut self.writer {
            Some(LineWriter::Direct(writer)) => Ok(writer),
            Some(LineWriter::Replaced(writer)) => Ok(writer),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl LineWriter {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Direct(BufWriter::new(Box::new(io::stdout().lock()))));
        };
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            there => Some(there?),
        };
        let is_replaced = there.as_ref().is_none_or(Metadata::is_file)
            && !DEVICES.iter().any(|folder| path.starts_with(folder));
        if !is_replaced {
            let file = File::options().append(true).open(path)?;
            return Ok(Self::Direct(BufWriter::new(Box::new(file))));
        }
        // What a symbolic link leads to is replaced, and not the link.
        let path = if there.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        Ok(Self::Replaced(BufWriter::new(PartialFile::create(path, there.as_ref())?)))
    }
}

/// A file that is written beside the one that it will be. Without [`PartialFile::put_in_place`] it is removed.
struct PartialFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl PartialFile {
    /// With the owner and the mode of the one that is there.
    fn create(path: PathBuf, there: Option<&Metadata>) -> io::Result<Self> {
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".{}.partial", process::id()));
        let partial = PathBuf::from(partial);
        let file = File::options().write(true).create_new(true).open(&partial)?;
        let created = Self { file, partial, path };
        if let Some(there) = there {
            // Only root may.
            fchown(&created.file, Some(there.uid()), Some(there.gid())).ok();
            created.file.set_permissions(there.permissions())?;
        }
        Ok(created)
    }

    fn put_in_place(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        File::open(folder_of(&self.path))?.sync_all()
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // Not there any more once it is in place.
        fs::remove_file(&self.partial).ok();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_keeps_what_it_had_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "before\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();

        let mut output = LineOutput::new(Some(&link)).unwrap();
        output.line("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
        drop(output);
        assert_eq!(names(folder.path()), ["file", "link"], "nothing is left of it");
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");

        let mut output = LineOutput::new(Some(&link)).unwrap();
        output.line("new").unwrap();
        output.finish().unwrap();
        assert_eq!(names(folder.path()), ["file", "link"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

        LineOutput::new(Some(&path)).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "", "no line is an empty file");
    }

    #[test]
    fn what_cannot_be_written_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/file");
        let error = LineOutput::new(Some(&path)).err().unwrap().to_string();
        assert!(error.starts_with("cannot write /") && error.contains("missing/file: "), "{error}");
        assert!(error.ends_with("; check the path"), "{error}");

        let mut full = LineOutput::new(Some(Path::new("/dev/full"))).unwrap();
        full.line("x").unwrap();
        let error = full.finish().unwrap_err().to_string();
        assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
        assert!(error.contains("; free some space"), "{error}");

        let error = LineOutput::new(Some(folder.path())).unwrap().finish().unwrap_err().to_string();
        assert!(error.ends_with("; it is a folder; name a file"), "{error}");
    }
}
