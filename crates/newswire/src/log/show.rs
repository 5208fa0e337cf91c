//! `newswire log verify` and `stats`.

use clap::Args;
use daemon::Exit;
use serde_json::json;
use store::tools::{DamagedPlace, StoreSurvey, survey};

use super::{LogFiles, counted, failed};
use crate::out::{self, Paint, safe};

/// Arguments of `newswire log verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyLogArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `newswire log stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Show at most this many sources, those with most bytes first; --json has all
    #[arg(long, value_name = "N", default_value = "20")]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn exit_of(survey: &StoreSurvey) -> Exit {
    if survey.damaged_places == 0 { Exit::Ok } else { Exit::Failure }
}

fn print_json(files: &LogFiles, survey: &StoreSurvey, left_out: &str) -> anyhow::Result<()> {
    let mut value = json!(survey);
    value["store"] = json!(files.store);
    if let Some(all) = value.as_object_mut() {
        all.remove(left_out);
    }
    Ok(out::stdout_line(&value.to_string())?)
}

pub(super) fn verify(files: &LogFiles, arguments: &VerifyLogArgs) -> anyhow::Result<Exit> {
    let survey = survey(&files.store).map_err(failed)?;
    let exit = exit_of(&survey);
    if arguments.json {
        print_json(files, &survey, "sources")?;
        return Ok(exit);
    }
    head(files, &survey)?;
    for place in &survey.places {
        out::stdout_line(&format!("{}  {}", Paint::for_stdout().bad("damaged"), damage(place)))?;
    }
    let more = survey.damaged_places - survey.places.len() as u64;
    if more > 0 {
        out::stdout_line(&format!("and {more} more places"))?;
    }
    out::stdout_line(&if survey.damaged_places == 0 {
        "every checksum is right".to_owned()
    } else {
        format!(
            "{} damaged, {} lost; readers are told a gap for them. A backup may have them (newswire log restore), and \
             `newswire log salvage` finds what can still be read",
            counted(survey.damaged_places, "place"),
            counted(survey.lost_events, "event")
        )
    })?;
    Ok(exit)
}

pub(super) fn stats(files: &LogFiles, arguments: &StatsArgs) -> anyhow::Result<Exit> {
    let survey = survey(&files.store).map_err(failed)?;
    let exit = exit_of(&survey);
    if arguments.json {
        print_json(files, &survey, "places")?;
        return Ok(exit);
    }
    head(files, &survey)?;
    let row = |source: &store::tools::SourceEvents| {
        vec![source.source.to_string(), source.events.to_string(), source.bytes.to_string()]
    };
    let titles = vec!["source".to_owned(), "events".to_owned(), "bytes".to_owned()];
    let rows: Vec<_> =
        std::iter::once(titles).chain(survey.sources.iter().take(arguments.top).map(row)).collect();
    for line in out::table(&rows) {
        out::stdout_line(&line)?;
    }
    let more = survey.sources.len().saturating_sub(arguments.top);
    if more > 0 {
        out::stdout_line(&format!("and {more} more; see --top"))?;
    }
    if survey.damaged_places > 0 {
        let places = counted(survey.damaged_places, "damaged place");
        out::stderr_line(&format!("newswire: {places}; run `newswire log verify`"));
    }
    Ok(exit)
}

fn head(files: &LogFiles, survey: &StoreSurvey) -> anyhow::Result<()> {
    let StoreSurvey { epoch, oldest, head, events, bytes, segments, segment_bytes, .. } = survey;
    let recorded = match (survey.first_recorded, survey.last_recorded) {
        (Some(first), Some(last)) => format!(", recorded from {first} to {last}"),
        _ => String::new(),
    };
    for line in [
        format!("store     {}", safe(&files.store.display().to_string())),
        format!("epoch     {epoch}"),
        format!("events    {events} ({oldest} to {head}), {bytes} bytes{recorded}"),
        format!("segments  {segments}, {segment_bytes} bytes"),
    ] {
        out::stdout_line(&line)?;
    }
    Ok(())
}

/// Where, what, and what is lost.
fn damage(place: &DamagedPlace) -> String {
    let at = place.at.map_or(String::new(), |at| format!(", byte {at}"));
    let of = place.source.as_ref().map_or(String::new(), |source| format!(" of {source}"));
    let lost = match place.first {
        Some(first) if place.events == 1 => format!(": event {first}{of} is lost"),
        Some(first) => format!(": events {first} to {}{of} are lost", first.0 + place.events - 1),
        None => String::new(),
    };
    format!("segment {}{at}: {}{lost}", place.segment, place.kind.sentence())
}
