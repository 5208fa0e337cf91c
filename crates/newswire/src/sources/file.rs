//! Changes the files with the list of sources: one command at a time, each file atomically.

use std::{
    collections::HashSet,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use news::{Catalogue, CatalogueFiles, Source, SourceId};
use notation::Complaints;
use sources::{ListOnDisk, ListPart};

use crate::config_file::UsageError;

/// Permissions of a new list; an existing one keeps its own.
const MODE: u32 = 0o644;

/// Another command has locked the list.
#[derive(Debug, thiserror::Error)]
#[error("another command is changing {}; try again when it is done", .0.display())]
pub(super) struct ListInUse(PathBuf);

/// The list of sources, locked against other commands until dropped.
pub(super) struct ListFile {
    /// The text of the main file; empty if it does not exist yet.
    pub(super) text: String,
    /// The sources of all files.
    pub(super) catalogue: Catalogue,
    /// The main file, with links resolved, and those that it includes.
    parts: Vec<ListPart>,
    /// On the directory of the main file; it stands for all files.
    _lock: File,
}

impl ListFile {
    /// Locks and reads the list. A main file that does not exist is an empty one.
    ///
    /// # Errors
    /// If a file cannot be read or has mistakes, or another command is changing the list.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        // A link is kept, and its target is replaced. What the list includes is relative to the file that it names.
        let link = path;
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
        let mut parts = ListOnDisk::read_or_empty(link).map_err(as_usage)?.parts;
        // There is at least the main file.
        let main = parts.first_mut().context("a list without a file")?;
        main.path = path;
        let text = main.text.clone();
        let catalogue = parts.iter().map(|part| part.catalogue.clone()).collect();
        Ok(Self { text, catalogue, parts, _lock: lock })
    }

    /// The main file.
    pub(super) fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// The source with this id.
    pub(super) fn source(&self, id: &SourceId) -> Option<&Source> {
        self.catalogue.sources.iter().find(|source| source.id == *id)
    }

    /// The file that has the source with this id; the main file if none has it.
    pub(super) fn path_of(&self, id: &SourceId) -> &Path {
        let has_it = |part: &&ListPart| part.catalogue.sources.iter().any(|source| source.id == *id);
        self.parts.iter().find(has_it).map_or(self.path(), |part| part.path.as_path())
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

    /// Replaces the text of the main file atomically; it is on disk when this returns.
    ///
    /// # Errors
    /// If the new text makes no valid list, the file was changed meanwhile, or it cannot be written.
    pub(super) fn replace(&self, text: &str) -> anyhow::Result<()> {
        self.check(&[(0, text.to_owned())])?;
        replace(&self.parts[0], text)
    }

    /// Removes sources from the files that have them, and returns these files. Unknown ids change nothing.
    ///
    /// # Errors
    /// As [`ListFile::replace`], or if a source is not written as a table of its own. Files that were replaced before the
    /// one that could not be stay so.
    pub(super) fn remove(&self, ids: &HashSet<&str>) -> anyhow::Result<Vec<&Path>> {
        let is_removed = |source: &&Source| ids.contains(source.id.as_str());
        let mut changes = Vec::new();
        for (n, part) in self.parts.iter().enumerate() {
            if !part.catalogue.sources.iter().any(|source| is_removed(&source)) {
                continue;
            }
            let path = part.path.display();
            let text = Catalogue::remove_from(&part.text, ids)
                .map_err(|complaints| as_usage(complaints.in_file(path)))?;
            let left = part.catalogue.sources.iter().filter(|source| !is_removed(source));
            let reread = Catalogue::parse(&text).unwrap_or_default();
            anyhow::ensure!(
                reread.sources.iter().eq(left),
                "{} is written in a form that cannot be changed safely; remove the sources with an editor",
                part.path.display()
            );
            changes.push((n, text));
        }
        self.check(&changes)?;
        for (n, text) in &changes {
            replace(&self.parts[*n], text)?;
        }
        Ok(changes.iter().map(|(n, _)| self.parts[*n].path.as_path()).collect())
    }

    /// Reads the whole list with the new texts of some files, by their number.
    fn check(&self, changes: &[(usize, String)]) -> Result<(), UsageError> {
        let text = |n: usize| {
            let changed = changes.iter().find(|(changed, _)| *changed == n);
            changed.map_or(self.parts[n].text.as_str(), |(_, text)| text)
        };
        let mut files = CatalogueFiles::new(self.path().display().to_string(), text(0));
        for (n, part) in self.parts.iter().enumerate().skip(1) {
            files.add(part.path.display().to_string(), text(n));
        }
        files.finish().map(drop).map_err(as_usage)
    }
}

fn replace(part: &ListPart, text: &str) -> anyhow::Result<()> {
    // An included file may be a link, too.
    let target = part.path.canonicalize().unwrap_or_else(|_| part.path.clone());
    let path = part.path.display();
    anyhow::ensure!(read(&target)? == part.text, "{path} was changed meanwhile; run the command again");
    let folder = folder(&target);
    let mut new = tempfile::Builder::new()
        .prefix(".sources-")
        .tempfile_in(folder)
        .with_context(|| format!("create a file in {}", folder.display()))?;
    new.write_all(text.as_bytes()).with_context(|| format!("write next to {path}"))?;
    let file = new.as_file();
    match fs::metadata(&target) {
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
    new.persist(&target).with_context(|| format!("replace {path}"))?;
    File::open(folder)?.sync_all().with_context(|| format!("sync {}", folder.display()))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("read the list of sources {}", path.display())),
    }
}

fn as_usage(complaints: Complaints) -> UsageError {
    UsageError(complaints.to_string())
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

    #[test]
    fn a_source_is_removed_from_the_file_that_has_it_and_added_to_the_main_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let source = |id: &str| {
            ONE.replace("\"a\"", &format!("\"{id}\"")).replace("a.example", &format!("{id}.example"))
        };
        fs::create_dir(path("sources.d")).unwrap();
        let main = format!("include = \"sources.d/*.toml\"\n\n{}", source("main"));
        fs::write(path("sources.toml"), &main).unwrap();
        fs::write(path("sources.d/one.toml"), source("a") + "# b\n" + &source("b")).unwrap();
        fs::write(path("two.toml"), source("c")).unwrap();
        std::os::unix::fs::symlink("../two.toml", path("sources.d/two.toml")).unwrap();
        let file = ListFile::open(&path("sources.toml")).unwrap();
        assert_eq!((file.text.as_str(), file.catalogue.sources.len()), (main.as_str(), 4));
        let changed = file.remove(&HashSet::from(["b", "c", "unknown"])).unwrap();
        assert_eq!(changed, [path("sources.d/one.toml"), path("sources.d/two.toml")]);
        assert_eq!(fs::read_to_string(path("sources.d/one.toml")).unwrap(), source("a"));
        assert_eq!(fs::read_to_string(path("two.toml")).unwrap(), "");
        assert!(fs::symlink_metadata(path("sources.d/two.toml")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(path("sources.toml")).unwrap(), main);
        drop(file);
        let file = ListFile::open(&path("sources.toml")).unwrap();
        let clash = file.replace(&(file.text.clone() + &source("a"))).unwrap_err().to_string();
        assert!(clash.contains("one.toml:2: source.id: `a` is the id of the source at"), "{clash}");
        file.replace(&(file.text.clone() + &source("b"))).unwrap();
        drop(file);
        assert_eq!(ListFile::open(&path("sources.toml")).unwrap().catalogue.sources.len(), 3);
    }
}
