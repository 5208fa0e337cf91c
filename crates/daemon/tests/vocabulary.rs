//! The names of log fields: a filter such as `SOURCE=bbc` must find every line about a source. Every field of every line of
//! the daemons and their crates is one of these.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 8] = ["daemon", "feed", "fetch", "gateway", "ingestd", "news", "store", "wire"];

/// The fields that are used in filters first, then the others.
const WORDS: &[&str] = &[
    "source",
    "epoch",
    "seq",
    "items",
    "wait_ms",
    "status",
    "subscriber",
    "cursor",
    "blame",
    "error", //
    "absorbed",
    "added",
    "before",
    "bound",
    "by_s",
    "bytes",
    "categories",
    "changed",
    "clients",
    "credentials",
    "cut",
    "daemon",
    "deaths",
    "drill",
    "events",
    "expired",
    "failures",
    "held",
    "hosts",
    "jumped_ms",
    "kept",
    "key",
    "kind",
    "lasted_ms",
    "lasted_s",
    "level",
    "list",
    "listen",
    "location",
    "loop",
    "missed",
    "moved_to",
    "name",
    "new",
    "of",
    "old",
    "open_files_max",
    "overdue",
    "panic",
    "pardoned",
    "part",
    "paused",
    "paused_ms",
    "place",
    "reason",
    "records",
    "refresh",
    "removed",
    "seconds",
    "seq_first",
    "seq_oldest",
    "server",
    "shards",
    "since",
    "socket",
    "sources",
    "stack",
    "stalled_ms",
    "state",
    "thread",
    "threads",
    "tid",
    "took_ms",
    "unchanged",
    "until",
    "updates",
    "url",
    "usually_every_s",
    "why",
    "window_ms",
    "work",
];
/// Fields of a single line each, which are not used in filters.
const LOCAL: &[&str] = &["bytes_max", "clients_max", "connections_max", "lines", "segments"];

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

/// The arguments of each log call, without those in tests.
fn lines(code: &str) -> Vec<(&'static str, Vec<String>)> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let levels = ["error", "warn", "info", "debug", "trace"];
    let starts = levels.into_iter().flat_map(|level| {
        let call = format!("tracing::{level}!(");
        let ends: Vec<_> = code.match_indices(&call).map(|(at, _)| (level, at + call.len())).collect();
        ends
    });
    starts.map(|(level, at)| (level, arguments(&code[at..]))).collect()
}

/// The arguments up to the closing parenthesis, split at the top-level commas.
fn arguments(code: &str) -> Vec<String> {
    let (mut all, mut depth, mut in_text, mut escaped) = (vec![String::new()], 0, false, false);
    for c in code.chars() {
        match c {
            _ if in_text => {
                in_text = c != '"' || escaped;
                escaped = c == '\\' && !escaped;
            }
            '"' => in_text = true,
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        all.last_mut().unwrap().push(c);
    }
    all.iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

/// The name of the field that an argument records; `None` for the message.
fn field(argument: &str) -> Option<String> {
    let name = match argument.split_once('=') {
        Some((name, _)) if !argument.starts_with('"') || argument.starts_with("\"loop\" =") => name,
        _ if argument.starts_with('"') => return None,
        _ => argument.rsplit('.').next().unwrap(),
    };
    Some(name.trim().trim_matches(['%', '?', '"', '&']).to_owned())
}

#[test]
fn every_log_field_is_in_the_list_and_every_message_begins_in_lower_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = Vec::new();
    CRATES.iter().for_each(|name| files(&root.join(name).join("src"), &mut all));
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in &all {
        let code = fs::read_to_string(path).unwrap();
        for (level, line) in lines(&code) {
            seen += 1;
            let is_quiet = ["debug", "trace"].contains(&level);
            // A thousand clients that connect and disconnect must not cause two thousand lines.
            if !is_quiet && line.iter().any(|argument| field(argument).as_deref() == Some("subscriber")) {
                wrong.push(format!("{}: a client's line at {level}: {line:?}", path.display()));
            }
            for argument in &line {
                match field(argument) {
                    Some(name) if !WORDS.contains(&name.as_str()) && !LOCAL.contains(&name.as_str()) => {
                        wrong.push(format!("{}: the field `{name}`", path.display()));
                    }
                    None if argument[1..].starts_with(|c: char| c.is_uppercase()) => {
                        wrong.push(format!("{}: {argument}", path.display()));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} lines were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scanner_finds_names_in_every_notation() {
    let code = r#"tracing::warn!(%source, error = &a(b, "c,d"), x.status, "loop" = %n, ?seq, "it, failed"); tracing::info!("x")"#;
    let names: Vec<_> = lines(code).iter().flat_map(|(_, line)| line).filter_map(|a| field(a)).collect();
    assert_eq!(names, ["source", "error", "status", "loop", "seq"]);
}
