//! The configuration as text: the commented file, and single values as they would stand in it.

use std::fmt::Write as _;

use notation::{is_dangerous, write_duration};

use super::keys::{KEYS, SECTIONS};
use super::kinds::{Item, ValueKind};
use super::shapes::without_password;
use super::values::Value;

const HEAD: &str = "\
# newswire: the configuration of both daemons, newswire-ingestd and newswire-gateway. Every value below is the default.
#
# Durations are strings such as \"250ms\", \"30s\", \"5m\", \"24h\" or \"3d\"; sizes are bytes. Paths that do not begin with
# a slash are relative to the directory in which the process was started.
#
# Each key can be overridden by an environment variable, [fetch] interval_min by NEWSWIRE_FETCH__INTERVAL_MIN, where
# lists are separated by commas. `newswire config check` says what is wrong with this file, `newswire config show` which
# values hold and where each comes from. SIGHUP makes both daemons read this file again; what is marked (restart) they
# keep until they are restarted.
";

/// The commented file that says the same as no file: every key with its documentation and its default.
#[must_use]
pub fn default_file() -> String {
    let mut out = HEAD.to_owned();
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, section.docs);
        line(&mut out, &format!("[{}]", section.name));
        for (n, key) in KEYS.iter().filter(|key| key.section == section.name).enumerate() {
            if n > 0 {
                out.push('\n');
            }
            comment(&mut out, key.docs);
            let end = if key.live { "" } else { " # (restart)" };
            line(&mut out, &format!("{} = {}{end}", key.name, default_literal(key.kind, key.default)));
        }
    }
    out
}

/// The default as it was written in the table, hence "" and not what "" stands for.
fn default_literal(kind: ValueKind, default: &str) -> String {
    match kind {
        ValueKind::Integer(..) => default.to_owned(),
        ValueKind::List(_) => list(default.split(',').filter(|entry| !entry.is_empty())),
        _ => quoted(default),
    }
}

/// A value as TOML; passwords in addresses are hidden.
pub(super) fn literal(kind: ValueKind, value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Duration(duration) => quoted(&write_duration(*duration)),
        Value::List(entries) if matches!(kind, ValueKind::List(Item::NatsUrl)) => {
            let entries: Vec<String> = entries.iter().map(|entry| without_password(entry)).collect();
            list(entries.iter().map(String::as_str))
        }
        Value::List(entries) => list(entries.iter().map(String::as_str)),
    }
}

fn list<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", entries.map(quoted).collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_dangerous(c) => {
                write!(out, "\\u{:04X}", u32::from(c)).expect("a String takes every write");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn comment(out: &mut String, docs: &[&str]) {
    for doc in docs {
        line(out, &format!("#{doc}"));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}
