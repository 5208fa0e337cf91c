//! Where each value comes from: built-in default, file, environment, command line; the later wins.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use notation::{Complaint, Complaints, suggestion};

use super::file::{self, unknown};
use super::keys::{self, KEYS, Key, position};
use super::render::literal;
use super::values::Value;
use super::{Config, ConfigChange, SYSTEM_FILE};

/// Largest configuration file, bytes; the commented default has a hundredth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PREFIX: &str = "NEWSWIRE_";
const FILE_VARIABLE: &str = "NEWSWIRE_CONFIG";
/// Variables with our prefix that are no keys: the file's name, a reader's own token (`newswire tail`), and a folder
/// that only tests look at.
const NOT_KEYS: [&str; 3] = [FILE_VARIABLE, "NEWSWIRE_TOKEN_FILE", "NEWSWIRE_CORPUS"];
const BUILT_IN: &str = "default";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    /// `default`, a file, `env:NAME`, or what the command line called itself.
    place: String,
    line: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// A configuration that has passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// The file that was read; `None` when there was none and the built-in defaults hold.
    pub file: Option<PathBuf>,
    values: Vec<Value>,
    origins: Vec<Origin>,
}

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// `section.key`
    pub key: String,
    /// As it would stand in the file; passwords in addresses are hidden.
    pub value: String,
    /// `default`, `file:line`, `env:NAME`, or what the command line called itself.
    pub origin: String,
    /// Whether a reload takes a new value; else a restart is needed.
    pub live: bool,
}

/// Reads the file, then the overrides from the environment.
///
/// The file is `file` (from `--config`), else the one that `NEWSWIRE_CONFIG` names, else [`SYSTEM_FILE`] if it exists,
/// else none. In `environment` only names that begin with `NEWSWIRE_` are looked at; [`environment`](super::environment)
/// is that of the process.
///
/// # Errors
/// Everything that is wrong, in one go.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Complaints> {
    let variables: BTreeMap<String, String> =
        environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut draft = Draft::new(choose_file(file, &variables));
    draft.take_file();
    for (name, value) in &variables {
        draft.take_variable(name, value);
    }
    draft.finish()
}

/// The environment of this process, for [`load`]; what is not UTF-8 is replaced, never a panic.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl Loaded {
    /// Overrides one value, `key` written `section.key` and `value` as in the environment; `origin` is the flag.
    ///
    /// # Errors
    /// When there is no such key, the value is impossible or contradicts another; then nothing has changed.
    pub fn set(&mut self, key: &str, value: &str, origin: &str) -> Result<(), Complaint> {
        let complaint =
            |message| Complaint { place: origin.to_owned(), line: None, key: key.to_owned(), message };
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let place = position(section, name).ok_or_else(|| complaint(unknown(section, name)))?;
        let accepted = KEYS[place].kind.accept_text(value).map_err(|faults| {
            let messages: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            complaint(messages.join("; "))
        })?;
        let mut values = self.values.clone();
        values[place] = accepted;
        let config = keys::build(&values);
        if let Some(contradiction) = keys::contradictions(&config).into_iter().next() {
            return Err(complaint(contradiction.message));
        }
        (self.config, self.values) = (config, values);
        self.origins[place] = Origin { place: origin.to_owned(), line: None };
        Ok(())
    }

    /// What `new` says otherwise. Two passwords of one address look the same here, and are a change all the same.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<ConfigChange> {
        let pairs = KEYS.iter().zip(self.values.iter().zip(&new.values));
        let change = |(key, (old, new)): (&Key, (&Value, &Value))| ConfigChange {
            key: key.path(),
            old: literal(key.kind, old),
            new: literal(key.kind, new),
            live: key.live,
        };
        pairs.filter(|(_, (old, new))| old != new).map(change).collect()
    }

    /// Takes from `new` what a reload may take; the other keys keep their values and origins.
    ///
    /// # Errors
    /// When what is taken contradicts what is kept; then nothing has changed.
    pub fn take_live(&mut self, new: &Self) -> Result<(), Complaints> {
        let (mut values, mut origins) = (self.values.clone(), self.origins.clone());
        for (place, _) in KEYS.iter().enumerate().filter(|(_, key)| key.live) {
            values[place].clone_from(&new.values[place]);
            origins[place].clone_from(&new.origins[place]);
        }
        let draft = Draft { file: new.file.clone(), values, origins, complaints: Complaints::default() };
        *self = draft.finish()?;
        Ok(())
    }

    /// Every key with its effective value and where that came from, in the order of the commented file.
    #[must_use]
    pub fn show(&self) -> Vec<EffectiveValue> {
        let shown = |((key, value), origin): ((&Key, &Value), &Origin)| EffectiveValue {
            key: key.path(),
            value: literal(key.kind, value),
            origin: origin.to_string(),
            live: key.live,
        };
        KEYS.iter().zip(&self.values).zip(&self.origins).map(shown).collect()
    }
}

/// The file to read, and whether it must exist.
fn choose_file(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let named = variables.get(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let system = || Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists());
    file.map(Path::to_path_buf).or(named).or_else(system)
}

/// A configuration in the making.
struct Draft {
    file: Option<PathBuf>,
    values: Vec<Value>,
    origins: Vec<Origin>,
    complaints: Complaints,
}

impl Draft {
    fn new(file: Option<PathBuf>) -> Self {
        let built_in = Origin { place: BUILT_IN.to_owned(), line: None };
        let origins = vec![built_in; KEYS.len()];
        Self { file, values: keys::defaults(), origins, complaints: Complaints::default() }
    }

    fn complain(&mut self, Origin { place, line }: Origin, key: String, message: String) {
        self.complaints.push(Complaint { place, line, key, message });
    }

    fn put(&mut self, key: usize, value: Value, origin: Origin) {
        self.values[key] = value;
        self.origins[key] = origin;
    }

    fn take_file(&mut self) {
        let Some(path) = self.file.clone() else { return };
        let name = path.display().to_string();
        match text_of(&path) {
            Ok(text) => {
                let contents = file::read(&text);
                for (key, value, line) in contents.values {
                    self.put(key, value, Origin { place: name.clone(), line: Some(line) });
                }
                self.complaints.extend(contents.complaints.in_file(name));
            }
            Err((line, message)) => {
                self.complain(Origin { place: name, line }, String::new(), message);
            }
        }
    }

    fn take_variable(&mut self, name: &str, value: &str) {
        if NOT_KEYS.contains(&name) {
            return;
        }
        let origin = Origin { place: format!("env:{name}"), line: None };
        let Some(key) = KEYS.iter().position(|key| key.variable() == name) else {
            let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
            let hint = suggestion(name, known.iter().map(String::as_str));
            let message = format!("unknown variable{hint}");
            return self.complain(origin, String::new(), message);
        };
        match KEYS[key].kind.accept_text(value) {
            Ok(value) => self.put(key, value, origin),
            Err(faults) => {
                for fault in faults {
                    self.complain(origin.clone(), KEYS[key].path(), fault.message);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, Complaints> {
        let config = keys::build(&self.values);
        for contradiction in keys::contradictions(&config) {
            // A value that was refused is still the default here; what contradicts that is nobody's mistake.
            let refused =
                |key: usize| self.complaints.list().iter().any(|complaint| complaint.key == KEYS[key].path());
            if contradiction.keys.into_iter().any(refused) {
                continue;
            }
            let written = contradiction.keys.into_iter().find(|key| self.origins[*key].place != BUILT_IN);
            let key = written.expect("the defaults do not contradict each other");
            self.complain(self.origins[key].clone(), KEYS[key].path(), contradiction.message);
        }
        self.complaints.or(Loaded { config, file: self.file, values: self.values, origins: self.origins })
    }
}

/// The text of a file, or the line (if any) and the reason why there is none.
fn text_of(path: &Path) -> Result<String, (Option<usize>, String)> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            (None, format!("cannot read the configuration: {error}; check the path and its rights"))
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err((
            None,
            format!("has more than {FILE_BYTES_MAX} bytes, which is no configuration of ours"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        (Some(line), "is not UTF-8 here; save the file as UTF-8".to_owned())
    })
}
