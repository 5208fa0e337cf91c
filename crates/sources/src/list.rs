//! Finds and reads the files of a list.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use news::{Catalogue, CatalogueFiles, IncludePattern};
use notation::{Complaint, Complaints};

/// Maximum number of included files.
const FILES_MAX: usize = 10_000;
/// `*` matches neither a `/` nor the `.` of a hidden file: editors and `newswire sources` keep unfinished files there.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A list of sources, as its files have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOnDisk {
    /// The main file, and then those that it includes: in the order of its patterns, and by name for each.
    pub parts: Vec<ListPart>,
    /// What is probably a mistake, but no reason not to use the list.
    pub warnings: Vec<Complaint>,
}

/// One file of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPart {
    /// Its path, absolute if that of the main file is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its sources.
    pub catalogue: Catalogue,
}

impl ListOnDisk {
    /// Reads and checks a list.
    ///
    /// # Errors
    /// Everything that is wrong with its files, each with file and line.
    pub fn read(path: &Path) -> Result<Self, Complaints> {
        let text = fs::read_to_string(path)
            .map_err(|error| Catalogue::unreadable(&path.display().to_string(), &error))?;
        Self::with_main(path, text)
    }

    /// The same, but a main file that does not exist is an empty one.
    ///
    /// # Errors
    /// As [`ListOnDisk::read`].
    pub fn read_or_empty(path: &Path) -> Result<Self, Complaints> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::with_main(path, String::new()),
            _ => Self::read(path),
        }
    }

    /// The list with `text` in its main file; reads the included files.
    ///
    /// # Errors
    /// As [`ListOnDisk::read`].
    pub fn with_main(path: &Path, text: String) -> Result<Self, Complaints> {
        let mut files = CatalogueFiles::new(path.display().to_string(), &text);
        let mut finder = Finder::new(path);
        for pattern in files.includes().to_vec() {
            finder.find(&pattern);
        }
        let mut parts = vec![(path.to_owned(), text)];
        for file in finder.found {
            match fs::read_to_string(&file) {
                Ok(text) => {
                    files.add(file.display().to_string(), &text);
                    parts.push((file, text));
                }
                Err(error) => files.complain(unreadable(&file, &error)),
            }
        }
        finder.complaints.into_iter().for_each(|complaint| files.complain(complaint));
        let parts = files.finish()?.into_iter().zip(parts);
        let parts = parts.map(|(catalogue, (path, text))| ListPart { path, text, catalogue }).collect();
        Ok(Self { parts, warnings: finder.warnings })
    }

    /// All sources.
    #[must_use]
    pub fn into_catalogue(self) -> Catalogue {
        self.parts.into_iter().map(|part| part.catalogue).collect()
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Complaint {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "make it readable for this user, as the main file is",
        _ => "it must be a text file with [[source]] tables",
    };
    let message = format!("cannot read this part of the list of sources: {error}; {remedy}");
    Complaint { place: file.display().to_string(), line: None, key: String::new(), message }
}

/// Finds the files of patterns, each once.
struct Finder<'a> {
    main: &'a Path,
    directory: &'a Path,
    found: Vec<PathBuf>,
    /// The main file and those found, with links resolved.
    known: HashSet<PathBuf>,
    warnings: Vec<Complaint>,
    complaints: Vec<Complaint>,
}

impl<'a> Finder<'a> {
    fn new(main: &'a Path) -> Self {
        Self {
            main,
            directory: main.parent().unwrap_or(Path::new("")),
            found: Vec::new(),
            known: main.canonicalize().into_iter().collect(),
            warnings: Vec::new(),
            complaints: Vec::new(),
        }
    }

    fn find(&mut self, include: &IncludePattern) {
        if !include.has_wildcards() {
            return self.add(include, self.directory.join(&include.pattern));
        }
        match self.names(include) {
            Ok(names) if names.is_empty() => {
                let warning = self.about(include, format!("`{}` matches no file", include.pattern));
                self.warnings.push(warning);
            }
            Ok(names) => {
                let folder = self.directory.join(include.split().0);
                names.into_iter().for_each(|name| self.add(include, folder.join(name)));
            }
            Err(mistake) => {
                let complaint = self.about(include, mistake);
                self.complaints.push(complaint);
            }
        }
    }

    /// The sorted names of the files that a pattern matches; none if its directory does not exist.
    fn names(&self, include: &IncludePattern) -> Result<Vec<String>, String> {
        let (folder, name) = include.split();
        let pattern = Pattern::new(name).map_err(|bad| format!("`{name}` is not a pattern: {}", bad.msg))?;
        let folder = self.directory.join(folder);
        // An empty path is that of the working directory.
        let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let unreadable =
            |error: io::Error| format!("cannot read the directory {}: {error}", listed.display());
        let entries = match fs::read_dir(listed) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            // A name that is not UTF-8 cannot be shown in a complaint.
            names.extend(name.into_string().ok().filter(|name| pattern.matches_with(name, MATCHING)));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn add(&mut self, include: &IncludePattern, file: PathBuf) {
        let mistake = match fs::metadata(&file) {
            // A pipe would be waited for.
            Ok(metadata) if !metadata.is_file() => format!("{} is not a file", file.display()),
            Err(error) => format!("cannot read {}: {error}", file.display()),
            Ok(_) if self.found.len() == FILES_MAX => format!("more than {FILES_MAX} files"),
            Ok(_) => {
                // Neither a link to a file of the list nor a second pattern adds its sources again.
                if self.known.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                    self.found.push(file);
                }
                return;
            }
        };
        let complaint = self.about(include, mistake);
        // One complaint is enough for a directory of too many files.
        if self.complaints.last() != Some(&complaint) {
            self.complaints.push(complaint);
        }
    }

    fn about(&self, include: &IncludePattern, message: String) -> Complaint {
        let (place, line) = (self.main.display().to_string(), Some(include.line));
        Complaint { place, line, key: "include".to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn source(id: &str) -> String {
        format!("[[source]]\nid = \"{id}\"\nurl = \"https://example.org/{id}\"\n")
    }

    /// A directory with a main file and others.
    fn list(include: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sources.toml"), format!("include = {include}\n{}", source("main")))
            .unwrap();
        fs::create_dir(folder.path().join("sources.d")).unwrap();
        for name in files {
            let id = name.replace(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit(), "");
            fs::write(folder.path().join(name), source(&id)).unwrap();
        }
        folder
    }

    fn ids(folder: &tempfile::TempDir) -> Vec<String> {
        let list = ListOnDisk::read(&folder.path().join("sources.toml")).unwrap();
        list.into_catalogue().sources.into_iter().map(|source| source.id.to_string()).collect()
    }

    fn complaints(folder: &tempfile::TempDir) -> Vec<String> {
        let complaints = ListOnDisk::read(&folder.path().join("sources.toml")).unwrap_err();
        let place = folder.path().display().to_string();
        complaints.into_iter().map(|complaint| complaint.to_string().replace(&place, "")).collect()
    }

    #[test]
    fn the_files_of_a_pattern_are_read_by_name_and_each_once() {
        let files = [
            "sources.d/b.toml",
            "sources.d/a.toml",
            "sources.d/a.toml.bak",
            "sources.d/.a.toml",
            "x1.toml",
            "x2.toml",
        ];
        let folder = list("[\"sources.d/*.toml\", \"x?.toml\", \"./sources.d/b.toml\", \"*.toml\"]", &files);
        symlink("a.toml", folder.path().join("sources.d/c.toml")).unwrap();
        assert_eq!(ids(&folder), ["main", "sourcesdatoml", "sourcesdbtoml", "x1toml", "x2toml"]);
        let one = list("\"sources.d/[ab].toml\"", &files);
        assert_eq!(ids(&one), ["main", "sourcesdatoml", "sourcesdbtoml"]);
    }

    #[test]
    fn a_pattern_without_a_file_is_a_warning_and_a_name_without_one_a_complaint() {
        let folder = list("[\"sources.d/*.toml\", \"missing.d/*.toml\"]", &[]);
        let list_read = ListOnDisk::read(&folder.path().join("sources.toml")).unwrap();
        let warnings: Vec<_> = list_read.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(list_read.parts.len(), 1);
        assert!(
            warnings.len() == 2
                && warnings[1].ends_with("sources.toml:1: include: `missing.d/*.toml` matches no file"),
            "{warnings:?}"
        );
        let folder = list("\"sources.d/own.toml\"", &[]);
        let found = complaints(&folder);
        assert!(
            found[0].starts_with("/sources.toml:1: include: cannot read /sources.d/own.toml: No such"),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_reported_with_every_mistake_in_what_can() {
        let folder = list("[\"sources.d/*.toml\", \"sources.d/[.toml\"]", &["sources.d/a.toml"]);
        fs::create_dir(folder.path().join("sources.d/b.toml")).unwrap();
        fs::write(folder.path().join("sources.d/c.toml"), b"\xff").unwrap();
        fs::write(
            folder.path().join("sources.d/d.toml"),
            source("main") + &source("e").replace("url", "uri"),
        )
        .unwrap();
        let found = complaints(&folder);
        let parts = [
            "/sources.d/d.toml:2: source.id: `main` is the id of the source at /sources.toml:3 already",
            "/sources.d/d.toml:4: source.url: is missing",
            "/sources.d/d.toml:6: source.uri: unknown key",
            "/sources.d/c.toml: cannot read this part of the list of sources: stream did not contain valid UTF-8",
            "/sources.toml:1: include: /sources.d/b.toml is not a file",
            "/sources.toml:1: include: `[.toml` is not a pattern",
        ];
        assert!(parts.iter().all(|part| found.iter().any(|line| line.starts_with(part))), "{found:#?}");
        assert_eq!(found.len(), parts.len(), "{found:#?}");
    }

    #[test]
    fn the_working_directory_is_that_of_a_bare_name() {
        let finder = Finder::new(Path::new("sources.toml"));
        let include = IncludePattern { pattern: "Cargo.tom?".to_owned(), line: 1 };
        assert_eq!(finder.names(&include).unwrap(), ["Cargo.toml"]);
    }

    #[test]
    fn a_main_file_that_does_not_exist_is_empty_only_for_a_command_that_writes_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        assert_eq!(ListOnDisk::read_or_empty(&path).unwrap().parts[0].text, "");
        assert!(ListOnDisk::read(&path).unwrap_err().to_string().contains("create this one"));
        fs::write(&path, "").unwrap();
        assert!(ListOnDisk::read(&path).is_ok());
    }
}
