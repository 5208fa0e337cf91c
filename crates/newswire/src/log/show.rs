//! `newswire log verify` and `stats`.

use clap::Args;
use daemon::Exit;
use serde_json::json;
use store::tools::{EndWitness, StoreSurvey, survey};

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
        let place = safe(&place.to_string());
        out::stdout_line(&format!("{}  {place}", Paint::for_stdout().bad("damaged")))?;
    }
    let more = survey.damaged_places - survey.places.len() as u64;
    if more > 0 {
        out::stdout_line(&format!("and {more} more places"))?;
    }
    out::stdout_line(&conclusion(&survey))?;
    Ok(exit)
}

fn conclusion(survey: &StoreSurvey) -> String {
    let StoreSurvey { damaged_places, lost_events, end, known_head, .. } = survey;
    match (*damaged_places, *lost_events) {
        (0, _) => match end {
            EndWitness::Backup => {
                "every checksum is right, and all is there that the backup has written".to_owned()
            }
            EndWitness::States => {
                "every checksum is right, and the log has all events that other files know".to_owned()
            }
            EndWitness::NewerStates => format!(
                "every checksum is right; the states of sources know events up to {known_head}: the copy was made while the \
                 daemon ran, or the end of the log is missing"
            ),
            EndWitness::None => {
                "every checksum is right; no other file tells whether there were newer events".to_owned()
            }
        },
        (places, 0) => {
            format!("{} not as it was written, no event is known to be lost", counted(places, "place"))
        }
        (places, events) => format!(
            "{} damaged, {} lost: readers are told a gap of so many. A backup may have them (newswire log restore), and \
             `newswire log salvage` finds what can still be read",
            counted(places, "place"),
            counted(events, "event")
        ),
    }
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
