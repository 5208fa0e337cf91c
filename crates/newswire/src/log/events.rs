//! `newswire log export`, `import` and `salvage`: events as NDJSON.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use daemon::Exit;
use news::{Cursor, Event, SourceId};
use serde_json::json;
use store::tools::{self, StoreImport};

use super::{LogFiles, failed};
use crate::out::{self, safe};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Arguments of `newswire log export`.
#[derive(Debug, Args)]
pub(super) struct ExportLogArgs {
    /// Begin after this id
    #[arg(long, value_name = "ID")]
    after: Option<Cursor>,
    /// Only the events of this source
    #[arg(long, value_name = "ID", value_parser = |id: &str| SourceId::try_new(id))]
    source: Option<SourceId>,
    /// File to write; - or none: standard output
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
}

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

/// Arguments of `newswire log salvage`.
#[derive(Debug, Args)]
pub(super) struct SalvageArgs {
    /// Folder of the damaged store, a folder in it, or one of its files
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// File to write; - or none: standard output
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
}

pub(super) fn export(files: &LogFiles, arguments: &ExportLogArgs) -> anyhow::Result<Exit> {
    let mut output = Output::open(arguments.file.as_deref())?;
    let (after, source) = (arguments.after.as_ref(), arguments.source.as_ref());
    let report = tools::export(&files.store, after, source, |json| output.line(json)).map_err(failed)?;
    output.finish()?;
    if report.lost == 0 {
        return Ok(Exit::Ok);
    }
    out::stderr_line(&format!(
        "newswire: {} events were written, and {} could not be read; `newswire log verify` names them",
        report.events, report.lost
    ));
    Ok(Exit::Failure)
}

pub(super) fn salvage(arguments: &SalvageArgs) -> anyhow::Result<Exit> {
    let mut output = Output::open(arguments.file.as_deref())?;
    let report = tools::salvage(&arguments.folder, |json| output.line(json)).map_err(failed)?;
    output.finish()?;
    for (epoch, events) in &report.events {
        out::stderr_line(&format!("newswire: found {events} events of the epoch {}", safe(epoch)));
    }
    for (path, why) in &report.unreadable {
        let path = safe(&path.display().to_string());
        out::stderr_line(&format!("newswire: could not read {path} to its end: {}", safe(why)));
    }
    if report.broken > 0 {
        out::stderr_line(&format!(
            "newswire: {} more events begin somewhere and are not whole anywhere",
            report.broken
        ));
    }
    if report.events.is_empty() {
        out::stderr_line(&format!("newswire: found no event in {} files", report.files));
    }
    let is_all = report.broken == 0 && report.unreadable.is_empty() && !report.events.is_empty();
    Ok(if is_all { Exit::Ok } else { Exit::Failure })
}

pub(super) fn import(files: &LogFiles, arguments: &ImportLogArgs) -> anyhow::Result<Exit> {
    let name = safe(&arguments.file.display().to_string());
    let mut input: Box<dyn BufRead> = if arguments.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin().lock()))
    } else {
        Box::new(BufReader::new(File::open(&arguments.file).with_context(|| format!("read {name}"))?))
    };
    let mut import = StoreImport::begin(&files.store).map_err(failed)?;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.with_context(|| format!("read {name}"))? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut event: Event = serde_json::from_slice(&line)
            .with_context(|| format!("line {number} of {name} is no event; nothing was imported"))?;
        // The JSON of an item does not have it, and a visit recognises the item by it.
        event.item.evidence = feed::evidence_of(&event.item);
        import.add(event).map_err(failed)?;
    }
    let epoch = import.epoch().clone();
    let events = import.finish().map_err(failed)?;
    if arguments.json {
        out::stdout_line(&json!({ "store": files.store, "epoch": epoch, "events": events }).to_string())?;
    } else {
        let store = safe(&files.store.display().to_string());
        out::stdout_line(&format!("imported {events} events into {store}; its epoch is {epoch}"))?;
    }
    Ok(Exit::Ok)
}

/// Where lines go.
struct Output(BufWriter<Box<dyn Write>>);

impl Output {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let output: Box<dyn Write> = match path.filter(|path| path.as_os_str() != "-") {
            Some(path) => {
                let file = File::create(path);
                Box::new(file.with_context(|| format!("write {}", safe(&path.display().to_string())))?)
            }
            None => Box::new(io::stdout().lock()),
        };
        Ok(Self(BufWriter::new(output)))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        self.0.write_all(b"\n")
    }

    fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}
