//! `newswire sources refresh`: orders visits, and says of each source whether it is visited already or what it waits for.

use std::{cmp::Reverse, collections::HashMap};

use clap::{ArgGroup, Args};
use control::{SourceSelection, VisitAnswer, VisitOrder, orders::ORDER_SOURCES_MAX, paths};
use daemon::Exit;
use news::{SourceStatus, Timestamp};

use super::{
    CommandContext, now,
    orders::{BEGIN_WITHIN, print_each, print_unknown_categories, send},
    show,
};
use crate::out::{self, count, safe, whole};

/// Arguments of `newswire sources refresh`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["ids", "all", "failing", "category"]))]
pub(super) struct RefreshArgs {
    /// Ids of the sources
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Visit every source, except disabled and paused ones
    #[arg(long, conflicts_with_all = ["ids", "failing", "category"])]
    all: bool,
    /// Visit the sources that `newswire sources list --failing` lists
    #[arg(long)]
    failing: bool,
    /// Visit the sources of this category; may be given several times; with --failing only the failing ones of them
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
    /// Once without validators: the server sends the whole document, and it is read even if it is the same
    #[arg(long)]
    full: bool,
}

/// Of more sources only the counts are shown.
const SHOWN_MAX: usize = 20;
/// Of more reasons only the most frequent ones are shown.
const REASONS_MAX: usize = 10;

impl RefreshArgs {
    fn orders(&self) -> Vec<VisitOrder> {
        let named = self.ids.chunks(ORDER_SOURCES_MAX).map(|ids| VisitOrder {
            sources: Some(ids.to_vec()),
            full: self.full,
            ..VisitOrder::default()
        });
        let is_selection = self.all || self.failing || !self.category.is_empty();
        let select = SourceSelection { failing: self.failing, categories: self.category.clone() };
        let selected =
            is_selection.then_some(VisitOrder { sources: None, select: Some(select), full: self.full });
        named.chain(selected).collect()
    }
}

pub(super) async fn refresh(context: &CommandContext, arguments: RefreshArgs) -> anyhow::Result<Exit> {
    let (mut exit, mut accepted, ordered_at) = (Exit::Ok, Vec::new(), now());
    for order in arguments.orders() {
        let answer: VisitAnswer = send(context, paths::VISITS, &order).await?;
        if order.select.is_some() {
            print_left_out(&answer, &order)?;
        } else {
            print_each(&answer.busy, "has been ordered already")?;
            let paused =
                print_each(&answer.paused, "is paused: not visited before `newswire sources resume`")?;
            let disabled = print_each(&answer.disabled, "is disabled in the list of sources")?;
            let unknown = print_each(&answer.unknown, "is unknown")?;
            if paused || disabled || unknown {
                exit = Exit::Failure;
            }
        }
        if print_unknown_categories(&answer.unknown_categories) {
            exit = Exit::Failure;
        }
        accepted.extend(answer.accepted);
    }
    if !accepted.is_empty() {
        tokio::time::sleep(BEGIN_WITHIN).await;
        print_progress(context, &accepted, ordered_at).await?;
    }
    Ok(exit)
}

/// Of a selection: the sources that are not visited, which is no mistake.
fn print_left_out(answer: &VisitAnswer, order: &VisitOrder) -> std::io::Result<()> {
    let nothing = answer.accepted.is_empty() && answer.busy.is_empty() && answer.paused.is_empty();
    if nothing && answer.unknown_categories.is_empty() {
        let failing = order.select.as_ref().is_some_and(|select| select.failing);
        let which = if failing { "no source is failing" } else { "there is no source to visit" };
        return out::stdout_line(which);
    }
    for (ids, what) in [(&answer.busy, "ordered already"), (&answer.paused, "paused, so not visited")] {
        if !ids.is_empty() {
            out::stdout_line(&format!("{}: {what}", count(ids.len(), "source")))?;
        }
    }
    Ok(())
}

/// What has become of the visits so far.
async fn print_progress(
    context: &CommandContext,
    ids: &[String],
    ordered_at: Timestamp,
) -> anyhow::Result<()> {
    if ids.len() <= SHOWN_MAX {
        for id in ids {
            let source = show::fetch_one(context, id).await?;
            let progress = source.map_or(VisitProgress::Removed, |source| progress(&source, ordered_at));
            out::stdout_line(&format!("{} {}", safe(id), progress.text()))?;
        }
        return Ok(());
    }
    let sources = show::fetch(context).await?;
    let known: HashMap<_, _> = sources.iter().map(|(_, source)| (source.id.as_str(), source)).collect();
    let mut counts: HashMap<VisitProgress, usize> = HashMap::new();
    for id in ids {
        let progress =
            known.get(id.as_str()).map_or(VisitProgress::Removed, |source| progress(source, ordered_at));
        *counts.entry(progress).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(progress, n)| (progress.text(), n)).collect();
    counts.sort_by_key(|(text, n)| (Reverse(*n), text.clone()));
    for (text, n) in counts.iter().take(REASONS_MAX) {
        out::stdout_line(&format!("{}: {text}", count(*n, "source")))?;
    }
    let rest: usize = counts.iter().skip(REASONS_MAX).map(|(_, n)| n).sum();
    if rest > 0 {
        out::stdout_line(&format!(
            "{}: other reasons; `newswire sources list` shows them",
            count(rest, "source")
        ))?;
    }
    Ok(())
}

/// How far an ordered visit is.
#[derive(Debug, PartialEq, Eq, Hash)]
enum VisitProgress {
    /// It has ended like this.
    Ended(String),
    Running,
    /// For this reason.
    Waiting(String),
    /// The actor has not taken the order up yet.
    Ordered,
    /// The source left the list meanwhile.
    Removed,
}

fn progress(source: &SourceStatus, ordered_at: Timestamp) -> VisitProgress {
    match source.activity.as_str() {
        "fetching" | "parsing" | "recording" => VisitProgress::Running,
        "waiting" => {
            let reason = source.waiting_for.clone();
            VisitProgress::Waiting(reason.unwrap_or_else(|| "its turn comes at once".to_owned()))
        }
        _ if source.last_visit.is_some_and(|last| last >= ordered_at) => {
            let error = source.last_error.as_ref().filter(|_| source.consecutive_failures > 0);
            let error = error.map_or_else(String::new, |error| format!(", {error}"));
            VisitProgress::Ended(show::last(source) + &error)
        }
        _ => VisitProgress::Ordered,
    }
}

impl VisitProgress {
    fn text(&self) -> String {
        match self {
            Self::Ended(how) => format!("was visited: {}", whole(how)),
            Self::Running => "is being visited".to_owned(),
            Self::Waiting(reason) => format!("waits: {}", whole(reason)),
            Self::Ordered => "is visited next".to_owned(),
            Self::Removed => "has left the list of sources".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        refresh: RefreshArgs,
    }

    fn orders(arguments: &str) -> Result<String, clap::Error> {
        let words = std::iter::once("refresh").chain(arguments.split_whitespace());
        let line = CommandLine::try_parse_from(words)?;
        Ok(line.refresh.orders().iter().map(|order| serde_json::to_string(order).unwrap()).collect())
    }

    #[test]
    fn an_order_that_chooses_nothing_is_told_every_way_to_choose() {
        for arguments in ["", "--full"] {
            let told = orders(arguments).unwrap_err().to_string();
            for way in ["<ID", "--all", "--failing", "--category"] {
                assert!(told.contains(way), "{arguments}: {told}");
            }
        }
    }

    #[test]
    fn every_way_to_choose_sources_is_one_order() {
        for (arguments, order) in [
            ("a b", r#"{"sources":["a","b"]}"#),
            ("a --full", r#"{"sources":["a"],"full":true}"#),
            ("--all", r#"{"select":{}}"#),
            ("--failing --full", r#"{"select":{"failing":true},"full":true}"#),
            ("--category x --category y", r#"{"select":{"categories":["x","y"]}}"#),
            ("--failing --category x", r#"{"select":{"failing":true,"categories":["x"]}}"#),
            ("a --category x", r#"{"sources":["a"]}{"select":{"categories":["x"]}}"#),
        ] {
            assert_eq!(orders(arguments).unwrap(), order, "{arguments}");
        }
        for wrong in ["", "--full", "a --all", "--all --failing", "--all --category x"] {
            assert!(orders(wrong).is_err(), "{wrong}");
        }
    }
}
