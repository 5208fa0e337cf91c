//! Parses the file: values with their lines, and a complaint about everything else.

use std::borrow::Cow;
use std::collections::BTreeMap;

use notation::{Complaint, Complaints, shortened, suggestion};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, KeySpec, SECTIONS, position};
use super::kinds::RawValue;
use super::shapes::without_password;
use super::values::Value;

/// A parsed file. Lines count from 1.
#[derive(Default)]
pub(super) struct Contents {
    /// Index in the table of keys, value, line.
    pub(super) values: Vec<(usize, Value, usize)>,
    /// Without the name of the file, in any order.
    pub(super) complaints: Complaints,
}

/// How often a file is parsed again without its broken lines. Broken lines beyond that are reported once those before
/// them have been corrected.
const ROUNDS_MAX: usize = 64;

/// Parses the text of a file. A syntax error does not hide mistakes on other lines.
pub(super) fn read(text: &str) -> Contents {
    let (text, mut syntax) = without_broken_lines(text);
    let lines = LineIndex::new(&text);
    let (document, errors) = DeTable::parse_recoverable(&text);
    for (line, message) in first_of_each_line(&lines, &errors) {
        syntax.entry(line).or_insert(message);
    }
    let mut reader = FileReader { lines: &lines, contents: Contents::default() };
    reader.document(document.get_ref());
    let Contents { mut values, complaints } = reader.contents;
    // What recovery made of a broken line is not what the user meant: its values and complaints are ignored.
    values.retain(|(_, _, line)| !syntax.contains_key(line));
    let meant = |complaint: &Complaint| complaint.line.is_none_or(|line| !syntax.contains_key(&line));
    let mut complaints: Complaints = complaints.into_iter().filter(meant).collect();
    complaints.extend(syntax.into_iter().map(|(line, message)| complaint(line, "", message)));
    Contents { values, complaints }
}

/// Removes the lines that are invalid by themselves, because the parser may lose everything after one. Returns the text
/// with the same number of lines, and what was wrong with each removed line.
fn without_broken_lines(text: &str) -> (String, BTreeMap<usize, String>) {
    let mut rest: Vec<Cow<'_, str>> = text.split('\n').map(Cow::from).collect();
    let mut broken = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let whole = rest.join("\n");
        let errors = DeTable::parse_recoverable(&whole).1;
        let before = broken.len();
        for (line, message) in first_of_each_line(&LineIndex::new(&whole), &errors) {
            if DeTable::parse(&rest[line - 1]).is_err() {
                rest[line - 1] = replacement(&rest[line - 1]).into();
                broken.insert(line, message);
            }
        }
        if broken.len() == before {
            break;
        }
    }
    (rest.join("\n"), broken)
}

/// What to parse instead of a broken line: the header of a section keeps its effect on the lines below.
fn replacement(line: &str) -> String {
    match line.trim().strip_prefix('[') {
        Some(name) => {
            let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if name.is_empty() { String::new() } else { format!("[{name}]") }
        }
        None => String::new(),
    }
}

/// One mistake often causes several errors; the first one about a line is the one to act on.
fn first_of_each_line(lines: &LineIndex<'_>, errors: &[toml::de::Error]) -> BTreeMap<usize, String> {
    let mut found = BTreeMap::new();
    for error in errors {
        let line = lines.at(error.span().map_or(usize::MAX, |span| span.start));
        found.entry(line).or_insert_with(|| match lines.text(line).trim() {
            "" => error.message().to_owned(),
            text => format!("{}, in `{}`", error.message(), shortened(&without_password(text))),
        });
    }
    found
}

/// Finds lines by byte offset and by number; they count from 1.
struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn new(text: &'t str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line of an offset; the last line if it is beyond the end.
    fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn text(&self, line: usize) -> &'t str {
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        &self.text[self.starts[line - 1]..end]
    }
}

struct FileReader<'l> {
    lines: &'l LineIndex<'l>,
    contents: Contents,
}

impl FileReader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let line = self.lines.at(name.span().start);
            let section = name.get_ref().as_ref();
            let known = SECTIONS.iter().any(|s| s.name == section);
            match value.get_ref() {
                DeValue::Table(table) if known => self.section(section, table),
                _ if known => {
                    let message =
                        format!("is a section; write [{section}] on a line of its own and its keys below");
                    self.complain(line, section, message);
                }
                DeValue::Table(_) => {
                    let hint = suggestion(section, SECTIONS.iter().map(|s| s.name));
                    self.complain(line, section, format!("unknown section{hint}"));
                }
                _ => self.complain(
                    line,
                    section,
                    format!("unknown key outside a section{}", elsewhere(section)),
                ),
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = self.lines.at(name.span().start);
            let path = format!("{section}.{}", name.get_ref());
            match position(section, name.get_ref()) {
                Some(key) => self.value(key, line, value),
                None => self.complain(line, &path, unknown(section, name.get_ref())),
            }
        }
    }

    fn value(&mut self, key: usize, line: usize, value: &Spanned<DeValue<'_>>) {
        match KEYS[key].kind.accept(&raw(self.lines, value)) {
            Ok(accepted) => self.contents.values.push((key, accepted, line)),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.complain(mistake.line.unwrap_or(line), &KEYS[key].path(), mistake.message);
                }
            }
        }
    }

    fn complain(&mut self, line: usize, key: &str, message: String) {
        self.contents.complaints.push(complaint(line, key, message));
    }
}

fn complaint(line: usize, key: &str, message: String) -> Complaint {
    Complaint { place: String::new(), line: Some(line), key: key.to_owned(), message }
}

/// The message about a key that its section does not have.
pub(super) fn unknown(section: &str, name: &str) -> String {
    let siblings = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let hint = suggestion(name, siblings);
    let hint = if hint.is_empty() { elsewhere(name) } else { hint };
    format!("unknown key{hint}")
}

/// A hint for a key that exists in another section.
fn elsewhere(name: &str) -> String {
    let found: Vec<String> = KEYS.iter().filter(|key| key.name == name).map(KeySpec::path).collect();
    match found.as_slice() {
        [] => String::new(),
        paths => format!("; did you mean `{}`?", paths.join("` or `")),
    }
}

/// A TOML value as a [`RawValue`].
fn raw(lines: &LineIndex<'_>, value: &Spanned<DeValue<'_>>) -> RawValue {
    match value.get_ref() {
        DeValue::String(string) => RawValue::Text(string.to_string()),
        DeValue::Integer(integer) => {
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            RawValue::Integer(number, integer.to_string())
        }
        DeValue::Array(entries) => {
            let entry = |e: &Spanned<DeValue<'_>>| (raw(lines, e), lines.at(e.span().start));
            RawValue::List(entries.iter().map(entry).collect())
        }
        DeValue::Float(_) => RawValue::Other("float"),
        DeValue::Boolean(is) => RawValue::Boolean(*is),
        DeValue::Datetime(_) => RawValue::Other("date"),
        DeValue::Table(_) => RawValue::Other("table"),
    }
}
