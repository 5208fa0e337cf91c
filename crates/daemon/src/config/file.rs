//! What stands in the file: values with their lines, and a complaint for everything that is not a known value.

use std::borrow::Cow;
use std::collections::BTreeMap;

use notation::{Complaint, Complaints, shortened, suggestion};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, SECTIONS, position};
use super::kinds::Raw;
use super::shapes::without_password;
use super::values::Value;

/// A file taken apart. Lines count from 1.
#[derive(Default)]
pub(super) struct Contents {
    /// Place in the table of keys, value, line.
    pub(super) values: Vec<(usize, Value, usize)>,
    /// Without the name of the file, in any order.
    pub(super) complaints: Complaints,
}

/// How often a file is read anew without a line that confuses the parser. Lines beyond that still get their complaint
/// once those before them are mended.
const ROUNDS_MAX: usize = 64;

/// Takes the text of a file apart. A syntax error does not hide what is wrong on other lines.
pub(super) fn read(text: &str) -> Contents {
    let (text, mut syntax) = mended(text);
    let lines = Lines::new(&text);
    let (document, errors) = DeTable::parse_recoverable(&text);
    for (line, message) in first_of_each_line(&lines, &errors) {
        syntax.entry(line).or_insert(message);
    }
    let mut reader = Reader { lines: &lines, contents: Contents::default() };
    reader.document(document.get_ref());
    let Contents { mut values, complaints } = reader.contents;
    // What recovery made of a broken line is not what the user meant: its values and complaints are ignored.
    values.retain(|(_, _, line)| !syntax.contains_key(line));
    let meant = |complaint: &Complaint| complaint.line.is_none_or(|line| !syntax.contains_key(&line));
    let mut complaints: Complaints = complaints.into_iter().filter(meant).collect();
    complaints.extend(syntax.into_iter().map(|(line, message)| complaint(line, "", message)));
    Contents { values, complaints }
}

/// Takes out the lines that are broken by themselves, because the parser may lose everything after one; returns what is
/// left, line for line, and what was wrong with each of those lines.
fn mended(text: &str) -> (String, BTreeMap<usize, String>) {
    let mut rest: Vec<Cow<'_, str>> = text.split('\n').map(Cow::from).collect();
    let mut broken = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let whole = rest.join("\n");
        let errors = DeTable::parse_recoverable(&whole).1;
        let before = broken.len();
        for (line, message) in first_of_each_line(&Lines::new(&whole), &errors) {
            if DeTable::parse(&rest[line - 1]).is_err() {
                let stand_in = stand_in(&rest[line - 1]);
                rest[line - 1] = stand_in.into();
                broken.insert(line, message);
            }
        }
        if broken.len() == before {
            break;
        }
    }
    (rest.join("\n"), broken)
}

/// What a broken line probably meant to the lines after it: a section still begins, anything else is nothing.
fn stand_in(line: &str) -> String {
    match line.trim().strip_prefix('[') {
        Some(name) => {
            let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if name.is_empty() { String::new() } else { format!("[{name}]") }
        }
        None => String::new(),
    }
}

/// One slip often confuses the parser several times; the first word about a line is the one to act on.
fn first_of_each_line(lines: &Lines<'_>, errors: &[toml::de::Error]) -> BTreeMap<usize, String> {
    let mut found = BTreeMap::new();
    for error in errors {
        let line = lines.at(error.span().map_or(usize::MAX, |span| span.start));
        found.entry(line).or_insert_with(|| match lines.text(line).trim() {
            "" => error.message().to_owned(),
            words => format!("{}, in `{}`", error.message(), shortened(&without_password(words))),
        });
    }
    found
}

/// Finds lines by place and by number; they count from 1.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(place, _)| place + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The line of a place in the text; of a place beyond its end the last one.
    fn at(&self, place: usize) -> usize {
        self.starts.partition_point(|start| *start <= place)
    }

    fn text(&self, line: usize) -> &'t str {
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        &self.text[self.starts[line - 1]..end]
    }
}

struct Reader<'l> {
    lines: &'l Lines<'l>,
    contents: Contents,
}

impl Reader<'_> {
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
            Err(faults) => {
                for fault in faults {
                    self.complain(fault.line.unwrap_or(line), &KEYS[key].path(), fault.message);
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

/// What to say about a key that its section does not have.
pub(super) fn unknown(section: &str, name: &str) -> String {
    let siblings = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let hint = suggestion(name, siblings);
    let hint = if hint.is_empty() { elsewhere(name) } else { hint };
    format!("unknown key{hint}")
}

/// A hint for a key that exists, but in another section.
fn elsewhere(name: &str) -> String {
    let found: Vec<String> = KEYS.iter().filter(|key| key.name == name).map(Key::path).collect();
    match found.as_slice() {
        [] => String::new(),
        paths => format!("; did you mean `{}`?", paths.join("` or `")),
    }
}

/// A value of the file in our words.
fn raw(lines: &Lines<'_>, value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(string) => Raw::Text(string.to_string()),
        DeValue::Integer(integer) => {
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            Raw::Integer(number, integer.to_string())
        }
        DeValue::Array(entries) => {
            let entry = |e: &Spanned<DeValue<'_>>| (raw(lines, e), lines.at(e.span().start));
            Raw::List(entries.iter().map(entry).collect())
        }
        DeValue::Float(_) => Raw::Other("float"),
        DeValue::Boolean(_) => Raw::Other("boolean"),
        DeValue::Datetime(_) => Raw::Other("date"),
        DeValue::Table(_) => Raw::Other("table"),
    }
}
