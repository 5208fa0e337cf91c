//! Changes the file with the list of sources: one command at a time, atomically.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use news::Catalogue;

use crate::config_file::UsageError;

/// Permissions of a new list; an existing one keeps its own.
const MODE: u32 = 0o644;

/// Another command has locked the list.
#[derive(Debug, thiserror::Error)]
#[error("another command is changing {}; try again when it is done", .0.display())]
pub(super) struct ListInUse(PathBuf);

/// The list of sources, locked against other commands until dropped.
pub(super) struct ListFile {
    /// The file, with links resolved.
    path: PathBuf,
    /// Its text; empty if it does not exist yet.
    pub(super) text: String,
    pub(super) catalogue: Catalogue,
    _lock: File,
}

impl ListFile {
    /// Locks and reads the list. A file that does not exist is an empty list.
    ///
    /// # Errors
    /// If it cannot be read, has mistakes, or another command is changing it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // A link is kept, and its target is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = folder(&path);
        let lock = File::open(folder).with_context(|| format!("open the directory {}", folder.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ListInUse(path).into()),
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock the directory {}", folder.display()));
            }
        }
        let text = read(&path)?;
        let catalogue = parse(&path, &text)?;
        Ok(Self { path, text, catalogue, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds out whether the list can be replaced.
    ///
    /// # Errors
    /// If no file can be written in its directory.
    pub(super) fn check_writable(&self) -> anyhow::Result<()> {
        let folder = folder(self.path());
        tempfile::tempfile_in(folder).with_context(|| format!("create a file in {}", folder.display()))?;
        Ok(())
    }

    /// Replaces the text atomically; it is on disk when this returns.
    ///
    /// # Errors
    /// If the new text is not a valid list, the file was changed meanwhile, or it cannot be written.
    pub(super) fn replace(&self, text: &str) -> anyhow::Result<()> {
        parse(&self.path, text)?;
        let path = self.path.display();
        anyhow::ensure!(
            read(&self.path)? == self.text,
            "{path} was changed meanwhile; run the command again"
        );
        let folder = folder(&self.path);
        let mut new = tempfile::Builder::new()
            .prefix(".sources-")
            .tempfile_in(folder)
            .with_context(|| format!("create a file in {}", folder.display()))?;
        new.write_all(text.as_bytes()).with_context(|| format!("write next to {path}"))?;
        let file = new.as_file();
        match fs::metadata(&self.path) {
            Ok(old) => {
                let ours = file.metadata()?;
                if (ours.uid(), ours.gid()) != (old.uid(), old.gid()) {
                    fchown(file, Some(old.uid()), Some(old.gid()))
                        .with_context(|| format!("keep the owner of {path}; run this as its owner"))?;
                }
                file.set_permissions(old.permissions())?;
            }
            Err(_) => file.set_permissions(Permissions::from_mode(MODE))?,
        }
        file.sync_all()?;
        new.persist(&self.path).with_context(|| format!("replace {path}"))?;
        File::open(folder)?.sync_all().with_context(|| format!("sync {}", folder.display()))
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("read the list of sources {}", path.display())),
    }
}

fn parse(path: &Path, text: &str) -> Result<Catalogue, UsageError> {
    Catalogue::parse(text).map_err(|complaints| UsageError(complaints.in_file(path.display()).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[source]]\nid = \"a\"\nurl = \"https://a.example/\"\n";

    #[test]
    fn a_change_keeps_permissions_and_links_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real.toml");
        fs::write(&real, ONE).unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("sources.toml");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = ListFile::open(&link).unwrap();
        file.replace(&format!("# more\n{ONE}")).unwrap();
        assert!(fs::read_to_string(&real).unwrap().starts_with("# more"));
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_one_command_changes_the_list_and_no_mistake_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        let file = ListFile::open(&path).unwrap();
        assert!(file.catalogue.sources.is_empty());
        assert!(ListFile::open(&path).err().unwrap().to_string().contains("another command"));
        assert!(file.replace("[[source]]\nid = 3\n").is_err());
        assert!(!path.exists());
        fs::write(&path, ONE).unwrap();
        assert!(file.replace(ONE).unwrap_err().to_string().contains("changed meanwhile"));
        drop(file);
        assert_eq!(ListFile::open(&path).unwrap().catalogue.sources.len(), 1);
    }
}
