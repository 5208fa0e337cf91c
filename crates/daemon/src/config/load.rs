//! Where each value comes from: built-in default, file, environment, command line; the later wins.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use notation::{Complaint, Complaints, suggestion};

use super::file::{self, unknown};
use super::keys::{self, KEYS, KeySpec, position};
use super::render::literal;
use super::values::Value;
use super::{Config, ConfigChange, SYSTEM_FILE};
use crate::parent;

/// Largest configuration file, in bytes; the commented default has a hundredth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PREFIX: &str = "NEWSWIRE_";
const FILE_VARIABLE: &str = "NEWSWIRE_CONFIG";
/// Variables with the prefix that are not keys: the name of the file, the token file of `newswire tail`, the parent of a
/// daemon that ends with it, and a directory that only tests use.
const NOT_KEYS: [&str; 4] =
    [FILE_VARIABLE, "NEWSWIRE_TOKEN_FILE", parent::PARENT_VARIABLE, "NEWSWIRE_CORPUS"];
const BUILT_IN: &str = "default";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ValueOrigin {
    /// `default`, a file, `env:NAME`, or the flag.
    place: String,
    line: Option<usize>,
}

impl fmt::Display for ValueOrigin {
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
    /// The file that was read; `None` if there is none and the built-in defaults apply.
    pub file: Option<PathBuf>,
    values: Vec<Value>,
    origins: Vec<ValueOrigin>,
}

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// `section.key`
    pub key: String,
    /// As written in the file; passwords in addresses are hidden.
    pub value: String,
    /// `default`, `file:line`, `env:NAME`, or the flag.
    pub origin: String,
    /// Whether a reload applies a new value; otherwise a restart is needed.
    pub live: bool,
}

/// Reads the file, then the overrides from the environment.
///
/// The file is `file` (from `--config`), else the one that `NEWSWIRE_CONFIG` names, else [`SYSTEM_FILE`] if it exists,
/// else none. Only names that begin with `NEWSWIRE_` are read from `environment`; that of the process is
/// [`environment`](super::environment).
///
/// # Errors
/// Everything that is wrong.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Complaints> {
    let (loaded, complaints) = load_in_part(file, environment);
    complaints.or(loaded)
}

/// As [`load`], but what is wrong costs only its own value, which then is the default. For tools that must work with a
/// broken configuration; a daemon must not start with it.
pub fn load_in_part(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> (Loaded, Complaints) {
    let variables: BTreeMap<String, String> =
        environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut draft = ConfigDraft::new(choose_file(file, &variables));
    draft.apply_file();
    for (name, value) in &variables {
        draft.apply_variable(name, value);
    }
    draft.finish_in_part()
}

/// The environment of this process, for [`load`]. Text that is not UTF-8 is replaced; it never panics.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl Loaded {
    /// Overrides one value, `key` written `section.key` and `value` as in the environment; `origin` is the flag.
    ///
    /// # Errors
    /// If the key is unknown, or the value is invalid or contradicts another one; then nothing has changed.
    pub fn set(&mut self, key: &str, value: &str, origin: &str) -> Result<(), Complaint> {
        let complaint =
            |message| Complaint { place: origin.to_owned(), line: None, key: key.to_owned(), message };
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let index = position(section, name).ok_or_else(|| complaint(unknown(section, name)))?;
        let accepted = KEYS[index].kind.accept_text(value).map_err(|mistakes| {
            let messages: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
            complaint(messages.join("; "))
        })?;
        let mut values = self.values.clone();
        values[index] = accepted;
        let config = keys::build(&values);
        if let Some(contradiction) = keys::contradictions(&config).into_iter().next() {
            return Err(complaint(contradiction.message));
        }
        (self.config, self.values) = (config, values);
        self.origins[index] = ValueOrigin { place: origin.to_owned(), line: None };
        Ok(())
    }

    /// The keys whose values differ in `new`. A new password in an address is a change, although both are shown hidden.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<ConfigChange> {
        let pairs = KEYS.iter().zip(self.values.iter().zip(&new.values));
        let change = |(key, (old, new)): (&KeySpec, (&Value, &Value))| ConfigChange {
            key: key.path(),
            old: literal(key.kind, old),
            new: literal(key.kind, new),
            live: key.live,
        };
        pairs.filter(|(_, (old, new))| old != new).map(change).collect()
    }

    /// Takes the live keys from `new`; the other keys keep their values and origins.
    ///
    /// # Errors
    /// If a new value contradicts one that is kept; then nothing has changed.
    pub fn take_live(&mut self, new: &Self) -> Result<(), Complaints> {
        let (mut values, mut origins) = (self.values.clone(), self.origins.clone());
        for (index, _) in KEYS.iter().enumerate().filter(|(_, key)| key.live) {
            values[index].clone_from(&new.values[index]);
            origins[index].clone_from(&new.origins[index]);
        }
        let draft =
            ConfigDraft { file: new.file.clone(), values, origins, complaints: Complaints::default() };
        *self = draft.finish()?;
        Ok(())
    }

    /// Every key with its effective value and the origin of it, in the order of the commented file.
    #[must_use]
    pub fn show(&self) -> Vec<EffectiveValue> {
        let shown = |((key, value), origin): ((&KeySpec, &Value), &ValueOrigin)| EffectiveValue {
            key: key.path(),
            value: literal(key.kind, value),
            origin: origin.to_string(),
            live: key.live,
        };
        KEYS.iter().zip(&self.values).zip(&self.origins).map(shown).collect()
    }
}

/// The file to read, if any.
fn choose_file(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let named = variables.get(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    let system = || Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists());
    file.map(Path::to_path_buf).or(named).or_else(system)
}

/// A configuration that is being put together.
struct ConfigDraft {
    file: Option<PathBuf>,
    values: Vec<Value>,
    origins: Vec<ValueOrigin>,
    complaints: Complaints,
}

impl ConfigDraft {
    fn new(file: Option<PathBuf>) -> Self {
        let built_in = ValueOrigin { place: BUILT_IN.to_owned(), line: None };
        let origins = vec![built_in; KEYS.len()];
        Self { file, values: keys::defaults(), origins, complaints: Complaints::default() }
    }

    fn complain(&mut self, ValueOrigin { place, line }: ValueOrigin, key: String, message: String) {
        self.complaints.push(Complaint { place, line, key, message });
    }

    fn set(&mut self, key: usize, value: Value, origin: ValueOrigin) {
        self.values[key] = value;
        self.origins[key] = origin;
    }

    fn apply_file(&mut self) {
        let Some(path) = self.file.clone() else { return };
        let name = path.display().to_string();
        match read_text(&path) {
            Ok(text) => {
                let contents = file::read(&text);
                for (key, value, line) in contents.values {
                    self.set(key, value, ValueOrigin { place: name.clone(), line: Some(line) });
                }
                self.complaints.extend(contents.complaints.in_file(name));
            }
            Err((line, message)) => {
                self.complain(ValueOrigin { place: name, line }, String::new(), message);
            }
        }
    }

    fn apply_variable(&mut self, name: &str, value: &str) {
        if NOT_KEYS.contains(&name) {
            return;
        }
        let origin = ValueOrigin { place: format!("env:{name}"), line: None };
        let Some(key) = KEYS.iter().position(|key| key.variable() == name) else {
            let known: Vec<String> = KEYS.iter().map(KeySpec::variable).collect();
            let hint = suggestion(name, known.iter().map(String::as_str));
            let message = format!("unknown variable{hint}");
            return self.complain(origin, String::new(), message);
        };
        match KEYS[key].kind.accept_text(value) {
            Ok(value) => self.set(key, value, origin),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.complain(origin.clone(), KEYS[key].path(), mistake.message);
                }
            }
        }
    }

    fn finish(self) -> Result<Loaded, Complaints> {
        let (loaded, complaints) = self.finish_in_part();
        complaints.or(loaded)
    }

    fn finish_in_part(mut self) -> (Loaded, Complaints) {
        let config = keys::build(&self.values);
        for contradiction in keys::contradictions(&config) {
            // A value that was refused is still the default here; a contradiction of that is not a mistake.
            let refused =
                |key: usize| self.complaints.list().iter().any(|complaint| complaint.key == KEYS[key].path());
            if contradiction.keys.into_iter().any(refused) {
                continue;
            }
            let written = contradiction.keys.into_iter().find(|key| self.origins[*key].place != BUILT_IN);
            let key = written.expect("the defaults do not contradict each other");
            self.complain(self.origins[key].clone(), KEYS[key].path(), contradiction.message);
        }
        let loaded = Loaded { config, file: self.file, values: self.values, origins: self.origins };
        (loaded, self.complaints)
    }
}

/// The text of a file. The error is a line (if known) and a message.
fn read_text(path: &Path) -> Result<String, (Option<usize>, String)> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            (None, format!("cannot read the configuration: {error}; check the path and its permissions"))
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err((None, format!("is larger than {FILE_BYTES_MAX} bytes; is this the right file?")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        (Some(line), "is not UTF-8; save the file as UTF-8".to_owned())
    })
}
