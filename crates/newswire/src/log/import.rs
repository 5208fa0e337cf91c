//! `newswire log import`: a store of events as NDJSON.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use daemon::Exit;
use news::Event;
use serde_json::{error::Category, json};
use store::{
    StoredEvent,
    tools::{ImportedEvent, StoreImport, ToolError},
};

use super::{LogFiles, counted, failed};
use crate::out::{self, safe, whole};

/// Longest line that is read, in bytes: the longest event, each byte of which is written as an escape.
const LINE_BYTES_MAX: usize = 6 * StoredEvent::JSON_BYTES_MAX;

/// Arguments of `newswire log import`.
#[derive(Debug, Args)]
pub(super) struct ImportLogArgs {
    /// File to read; -: standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn import(files: &LogFiles, arguments: &ImportLogArgs) -> anyhow::Result<Exit> {
    let mut lines = ImportLines::open(&arguments.file)?;
    let mut import = StoreImport::begin(&files.store).map_err(failed)?;
    let (mut events, mut known) = (0, 0);
    while lines.next()? {
        match import.add(lines.event()?, lines.number) {
            Ok(ImportedEvent::New) => events += 1,
            Ok(ImportedEvent::Known) => known += 1,
            Err(error @ (ToolError::TooLarge { .. } | ToolError::OtherContent { .. })) => {
                return Err(lines.refused(&error.to_string()));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    if events == 0 {
        return Err(anyhow!(
            "{} has no event, and nothing was imported; if a command writes it, see why that one failed",
            lines.name
        ));
    }
    let epoch = import.epoch().clone();
    import.finish().map_err(failed)?;
    if arguments.json {
        let report = json!({ "store": files.store, "epoch": epoch, "events": events, "events_known": known });
        out::stdout_line(&report.to_string())?;
        return Ok(Exit::Ok);
    }
    let (store, events) = (safe(&files.store.display().to_string()), counted(events, "event"));
    let left_out = match known {
        0 => String::new(),
        1 => ", and left out 1 that came again".to_owned(),
        known => format!(", and left out {known} that came again"),
    };
    out::stdout_line(&format!("imported {events} into {store}{left_out}; its epoch is {epoch}"))?;
    Ok(Exit::Ok)
}

/// The lines of the input, one at a time.
struct ImportLines {
    input: Box<dyn BufRead>,
    name: String,
    /// The one that was read last, without white space around it.
    line: Vec<u8>,
    /// Its number.
    number: u64,
}

impl ImportLines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let (input, name): (Box<dyn BufRead>, _) = if path.as_os_str() == "-" {
            (Box::new(BufReader::new(io::stdin().lock())), "standard input".to_owned())
        } else {
            let file = File::open(path).map_err(|source| {
                failed(ToolError::File { attempt: "read", path: path.to_owned(), source })
            })?;
            (Box::new(BufReader::new(file)), safe(&path.display().to_string()))
        };
        Ok(Self { input, name, line: Vec::new(), number: 0 })
    }

    /// Reads the next line that is not empty; returns false at the end.
    fn next(&mut self) -> anyhow::Result<bool> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut part = self.input.by_ref().take(LINE_BYTES_MAX as u64);
            let read = part.read_until(b'\n', &mut self.line);
            if read.with_context(|| format!("cannot read {}", self.name))? == 0 {
                return Ok(false);
            }
            if self.line.len() == LINE_BYTES_MAX && !self.line.ends_with(b"\n") {
                return Err(self.too_long()?);
            }
            let line = self.line.trim_ascii();
            if !line.is_empty() {
                self.line = line.to_vec();
                return Ok(true);
            }
        }
    }

    /// How long the line is, without keeping it.
    fn too_long(&mut self) -> anyhow::Result<anyhow::Error> {
        let mut bytes = self.line.len();
        loop {
            let part = self.input.fill_buf().with_context(|| format!("cannot read {}", self.name))?;
            let end = part.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(part.len());
            bytes += length;
            if end.is_some() || length == 0 {
                break;
            }
            self.input.consume(length);
        }
        Ok(self.refused(&ToolError::TooLarge { bytes, limit: StoredEvent::JSON_BYTES_MAX }.to_string()))
    }

    fn event(&self) -> anyhow::Result<Event> {
        let event = serde_json::from_slice::<Event>(&self.line);
        let mut event = event.map_err(|error| self.refused(&not_an_event(&self.line, &error)))?;
        // The JSON of an item does not have it, and a visit recognises the item by it.
        event.item.evidence = feed::evidence_of(&event.item);
        Ok(event)
    }

    /// What is wrong with the line that was read last, and what to do.
    fn refused(&self, why: &str) -> anyhow::Error {
        let Self { name, number, .. } = self;
        anyhow!("line {number} of {name}: {}; nothing was imported", whole(why))
    }
}

/// Why a line is none that `newswire log export` has written, and what to do.
fn not_an_event(line: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The place is added behind, with a line that is always 1.
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    let at = error.column();
    match error.classify() {
        Category::Eof => format!(
            "it ends in the middle of an event, after {}; write the file again, or remove the line",
            counted(line.len() as u64, "byte")
        ),
        Category::Data if !line.starts_with(b"{") => {
            "it is JSON, but no object; each line is one event, as `newswire log export` writes it".to_owned()
        }
        Category::Data => {
            format!("it is JSON, but no event ({reason}, byte {at}); correct it, or remove the line")
        }
        Category::Syntax | Category::Io => {
            format!("it is not JSON ({reason}, byte {at}); correct it, or remove the line")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_event_is_told_in_words_about_the_line() {
        let told = |line: &str| {
            let error = serde_json::from_str::<Event>(line).unwrap_err();
            not_an_event(line.as_bytes(), &error)
        };
        for (line, expected) in [
            (r#"{"id":"a-1","#, "it ends in the middle of an event, after 12 bytes; "),
            ("{", "it ends in the middle of an event, after 1 byte; "),
            ("[]", "it is JSON, but no object; each line is one event"),
            ("17", "it is JSON, but no object; "),
            (r#"{"id":"a-1"}"#, "it is JSON, but no event (missing field `kind`, byte 12); correct it"),
            ("id,title", "it is not JSON (expected value, byte 1); correct it"),
            (r#"{"id":"\u12"}"#, "it is not JSON ("),
        ] {
            let text = told(line);
            assert!(text.starts_with(expected), "{line}: {text}");
            assert!(!text.contains("line 1 ") && !text.contains("struct"), "{line}: {text}");
        }
    }
}
