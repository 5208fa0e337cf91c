//! `newswire log export` and `salvage`: events as NDJSON.

use std::path::PathBuf;

use clap::Args;
use daemon::Exit;
use news::{Cursor, SourceId};
use store::tools;

use super::{LogFiles, counted, output::LineOutput};
use crate::{
    config::read_catalogue,
    config_file::UsageError,
    out::{self, safe},
};

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
    let mut output = LineOutput::new(arguments.file.as_deref())?;
    let (after, source) = (arguments.after.as_ref(), arguments.source.as_ref());
    let report = tools::export(&files.store, after, source, |json| output.line(json))
        .map_err(|error| output.failed(error))?;
    if let Some(source) = source.filter(|_| report.is_source_unknown) {
        let has_none = format!("the log has no event of the source {source}");
        let catalogue = read_catalogue(&files.config.ingestd.sources);
        if !catalogue.is_ok_and(|catalogue| catalogue.sources.iter().any(|known| known.id == *source)) {
            let remedy = "check its id; `newswire log stats --json` has those that the log knows";
            return Err(UsageError(format!("{has_none}; {remedy}")).into());
        }
        out::stderr_line(&format!("newswire: {has_none} yet"));
    }
    output.finish()?;
    if report.lost == 0 {
        return Ok(Exit::Ok);
    }
    out::stderr_line(&format!(
        "newswire: {} could not be read, and {} written; `newswire log verify` names what is damaged",
        counted(report.lost, "event"),
        was(report.events)
    ));
    Ok(Exit::Failure)
}

pub(super) fn salvage(arguments: &SalvageArgs) -> anyhow::Result<Exit> {
    let mut output = LineOutput::new(arguments.file.as_deref())?;
    let report =
        tools::salvage(&arguments.folder, |json| output.line(json)).map_err(|error| output.failed(error))?;
    if report.events.is_empty() {
        let files = counted(report.files, "file");
        let kept = if arguments.file.is_some() { "; nothing was written" } else { "" };
        out::stderr_line(&format!("newswire: found no event in {files}{kept}"));
    } else {
        output.finish()?;
    }
    for (epoch, events) in &report.events {
        let events = counted(*events, "event");
        out::stderr_line(&format!("newswire: found {events} of the epoch {}", safe(epoch)));
    }
    for (path, why) in &report.unreadable {
        let path = safe(&path.display().to_string());
        out::stderr_line(&format!("newswire: could not read {path} to its end: {}", safe(why)));
    }
    if report.broken > 0 {
        let (verb, is) = if report.broken == 1 { ("begins", "is") } else { ("begin", "are") };
        let more = counted(report.broken, "more event");
        out::stderr_line(&format!("newswire: {more} {verb} somewhere and {is} not whole anywhere"));
    }
    let is_all = report.broken == 0 && report.unreadable.is_empty() && !report.events.is_empty();
    Ok(if is_all { Exit::Ok } else { Exit::Failure })
}

fn was(events: u64) -> String {
    format!("{events} {}", if events == 1 { "was" } else { "were" })
}
