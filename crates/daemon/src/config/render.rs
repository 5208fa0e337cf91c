//! The configuration as text: the commented file, and single values as written in it.

use std::fmt::Write as _;

use notation::{is_dangerous, write_duration};

use super::keys::{KEYS, SECTIONS};
use super::kinds::{ListItem, ValueKind};
use super::shapes::without_password;
use super::values::Value;

const HEAD: &str = "\
# Configuration of both daemons, newswire-ingestd and newswire-gateway. Every value below is the default.
#
# Durations are strings such as \"250ms\", \"30s\", \"5m\", \"1h30m\" or \"3d\". Sizes are integers, in bytes. Relative paths
# are resolved against the working directory of the process.
#
# An environment variable overrides a key: NEWSWIRE_FETCH__INTERVAL_MIN overrides interval_min of [fetch]. Lists are
# separated by commas there.
#
# An unknown key or an invalid value stops the start; all mistakes are reported at once, each with file, line and key.
# `newswire config check` reports them too, and checks the files named here. `newswire config show` prints the effective
# values and where each comes from.
#
# `newswire reload` or SIGHUP makes a daemon read this file again; a file with a mistake changes nothing. A key marked
# (restart) keeps its value until the daemon is restarted.
";

/// The commented file: every key with its documentation and its default. Loading it has the same effect as no file.
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

/// The default as written in the table: "", not the value that "" means.
fn default_literal(kind: ValueKind, default: &str) -> String {
    match kind {
        ValueKind::Integer(..) | ValueKind::Boolean => default.to_owned(),
        ValueKind::OptionalInteger(..) if !default.is_empty() => default.to_owned(),
        ValueKind::List(ListItem::Port) => ports(default.split(',')),
        ValueKind::List(_) => list(default.split(',').filter(|entry| !entry.is_empty())),
        _ => quoted(default),
    }
}

/// A value as TOML; passwords in addresses are hidden.
pub(super) fn literal(kind: ValueKind, value: &Value) -> String {
    match value {
        Value::Text(text) if matches!(kind, ValueKind::OptionalProxy) => quoted(&without_password(text)),
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        Value::Duration(duration) => quoted(&write_duration(*duration)),
        Value::List(entries) if matches!(kind, ValueKind::List(ListItem::NatsUrl | ListItem::HttpUrl)) => {
            let entries: Vec<String> = entries.iter().map(|entry| without_password(entry)).collect();
            list(entries.iter().map(String::as_str))
        }
        Value::List(entries) if matches!(kind, ValueKind::List(ListItem::Port)) => {
            ports(entries.iter().map(String::as_str))
        }
        Value::List(entries) => list(entries.iter().map(String::as_str)),
    }
}

fn list<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", entries.map(quoted).collect::<Vec<_>>().join(", "))
}

fn ports<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", entries.filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join(", "))
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
