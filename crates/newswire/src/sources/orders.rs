//! Orders to the running daemon: pause and resume sources, and reload the list.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use clap::Args;
use control::{
    CatalogueChanges, ControlError, ControlSocket, PauseAnswer, PauseOrder, ReloadAnswer, ResumeOrder,
    SourceSelection, orders::ORDER_SOURCES_MAX, paths,
};
use daemon::Exit;
use notation::{BadDuration, DURATION_MAX, parse_duration_within};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::CommandContext;
use crate::{
    out::{self, safe},
    reload, unanswered,
};

/// How long the daemon has to begin before it is asked what the visits wait for.
pub(super) const BEGIN_WITHIN: std::time::Duration = std::time::Duration::from_millis(300);

/// How long other commands may keep the daemon reloading.
const RELOAD_BUSY_MAX: Duration = Duration::from_secs(60);
const RELOAD_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Arguments of `newswire sources pause`.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Ids of the sources
    #[arg(required_unless_present = "category", value_name = "ID")]
    ids: Vec<String>,
    /// Pause all sources of this category; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
    /// Duration, such as 90s, 15m, 2h or 3d [default: until they are resumed]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Reason, shown with the source
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `newswire sources resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Ids of the sources
    #[arg(required_unless_present = "category", value_name = "ID")]
    ids: Vec<String>,
    /// Resume all sources of this category that are paused; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
}

/// A duration on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, BadDuration> {
    parse_duration_within(text, Duration::from_secs(1)..=DURATION_MAX)
}

/// What each of the orders is for: some of the ids, or the categories.
fn parts(
    ids: &[String],
    categories: Vec<String>,
) -> impl Iterator<Item = (Vec<String>, Option<SourceSelection>)> {
    let select = SourceSelection { failing: false, categories };
    let selected = (!select.categories.is_empty()).then_some((Vec::new(), Some(select)));
    ids.chunks(ORDER_SOURCES_MAX).map(|ids| (ids.to_vec(), None)).chain(selected)
}

pub(super) async fn pause(context: &CommandContext, arguments: PauseArgs) -> anyhow::Result<Exit> {
    let PauseArgs { ids, category, duration, reason } = arguments;
    let for_s = duration.map(|duration| duration.as_secs());
    let mut exit = Exit::Ok;
    for (sources, select) in parts(&ids, category) {
        let order = PauseOrder::<String> { sources, for_s, until: None, reason: reason.clone(), select };
        let answer: PauseAnswer = send(context, paths::PAUSES, &order).await?;
        print_each(&answer.done, "is paused")?;
        let disabled =
            print_each(&answer.disabled, "is disabled in the list of sources, so it is not visited anyway")?;
        let unknown = print_each(&answer.unknown, "is unknown")?;
        if print_unknown_categories(&answer.unknown_categories) || disabled || unknown {
            exit = Exit::Failure;
        }
    }
    Ok(exit)
}

pub(super) async fn resume(context: &CommandContext, arguments: ResumeArgs) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for (sources, select) in parts(&arguments.ids, arguments.category) {
        let is_selection = select.is_some();
        let answer: PauseAnswer = send(context, paths::PAUSES_END, &ResumeOrder { sources, select }).await?;
        print_each(&answer.done, "is visited again")?;
        if !is_selection {
            print_each(&answer.idle, "was not paused")?;
        } else if answer.done.is_empty() && answer.unknown_categories.is_empty() {
            out::stdout_line("none of these sources was paused")?;
        }
        let disabled = print_each(&answer.disabled, "is disabled in the list of sources; enable it there")?;
        let unknown = print_each(&answer.unknown, "is unknown")?;
        if print_unknown_categories(&answer.unknown_categories) || disabled || unknown {
            exit = Exit::Failure;
        }
    }
    Ok(exit)
}

/// Returns whether there are any.
pub(super) fn print_unknown_categories(categories: &[String]) -> bool {
    for category in categories {
        out::stderr_line(&format!("no source has the category {}", safe(category)));
    }
    !categories.is_empty()
}

/// Prints the result for these sources; returns whether there are any.
pub(super) fn print_each(ids: &[String], what: &str) -> std::io::Result<bool> {
    ids.iter().try_for_each(|id| out::stdout_line(&format!("{} {what}", safe(id))))?;
    Ok(!ids.is_empty())
}

pub(super) async fn send<T: DeserializeOwned>(
    context: &CommandContext,
    path: &str,
    order: &impl Serialize,
) -> anyhow::Result<T> {
    context.daemon.post(path, order).await.map_err(|error| explain(&error))
}

/// Why the daemon did not answer, and the remedy; a refusal explains itself.
pub(super) fn explain(error: &ControlError) -> anyhow::Error {
    let text = unanswered::explain(error, "ingestd");
    match error {
        // An older daemon, which does not know a field of the order.
        ControlError::Problem(problem) if problem.code == "bad-body" => {
            anyhow::anyhow!(
                "the daemon does not understand the order: {text}; if it is older than this tool, restart it"
            )
        }
        ControlError::Problem(problem) if problem.code == "starting" => anyhow::anyhow!(text),
        ControlError::Problem(_) => anyhow::anyhow!("the daemon refuses: {text}"),
        _ => anyhow::anyhow!(text),
    }
}

/// Pauses sources that have just been added; prints nothing.
pub(super) async fn pause_quietly<T: Clone + Serialize>(
    context: &CommandContext,
    ids: &[String],
    order: &PauseOrder<T>,
) -> anyhow::Result<()> {
    for ids in ids.chunks(ORDER_SOURCES_MAX) {
        let order = PauseOrder { sources: ids.to_vec(), ..order.clone() };
        let _: PauseAnswer = send(context, paths::PAUSES, &order).await?;
    }
    Ok(())
}

/// The result of asking the daemon to reload the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "daemon")]
pub(super) enum ListReload {
    Reloaded(CatalogueChanges),
    /// No process listens on its socket.
    NotRunning {
        reason: String,
    },
    /// It keeps the old list.
    Refused {
        complaints: Vec<String>,
    },
}

/// As [`reload::reload`]; waits while the daemon carries out other orders to reload.
async fn reload_in_turn(context: &CommandContext) -> Result<ReloadAnswer, ControlError> {
    let until = Instant::now() + RELOAD_BUSY_MAX;
    loop {
        match reload::reload(context.config.socket(ControlSocket::IngestdAdmin)).await {
            Err(ControlError::Problem(busy)) if busy.code == "reload-busy" && Instant::now() < until => {
                tokio::time::sleep(RELOAD_AGAIN_AFTER).await;
            }
            answer => return answer,
        }
    }
}

/// Asks the daemon to reload the list.
pub(super) async fn reload(context: &CommandContext) -> anyhow::Result<ListReload> {
    let answer = match reload_in_turn(context).await {
        Ok(answer) => answer,
        Err(ControlError::Problem(problem)) if problem.complaints.is_empty() => {
            return Ok(ListReload::Refused { complaints: vec![problem.to_string()] });
        }
        Err(ControlError::Problem(problem)) => {
            return Ok(ListReload::Refused { complaints: problem.complaints });
        }
        Err(error) if error.is_absent() => {
            return Ok(ListReload::NotRunning { reason: error.to_string() });
        }
        Err(error) => anyhow::bail!(
            "the list is written, but newswire-ingestd was not reloaded: {}",
            unanswered::explain_reload(&error, "ingestd")
        ),
    };
    let changes = answer.catalogue.context("the daemon reloaded its configuration but no list of sources")?;
    Ok(ListReload::Reloaded(changes))
}

impl ListReload {
    /// Whether the daemon runs; it may have refused the list.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self, Self::NotRunning { .. })
    }

    /// Prints the result to standard error, where it does not mix with JSON.
    pub(super) fn print(&self, list: &Path) -> Exit {
        match self {
            Self::Reloaded(done) => {
                let CatalogueChanges { added, changed, removed, unchanged, .. } = done;
                out::stderr_line(&format!(
                    "newswire-ingestd reloaded its list: {added} added, {changed} changed, {removed} removed, \
                     {unchanged} unchanged"
                ));
                let is_same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
                    (Ok(a), Ok(b)) => a == b,
                    _ => a == b,
                };
                if is_same(Path::new(&done.file), list) {
                    return Exit::Ok;
                }
                out::stderr_line(&format!(
                    "but its list is {}, not {}: name the right one with --sources or in ingestd.sources",
                    safe(&done.file),
                    list.display()
                ));
                Exit::Failure
            }
            Self::NotRunning { reason } => {
                out::stderr_line(&format!(
                    "newswire-ingestd does not run ({}); it reads the new list when it starts",
                    safe(reason)
                ));
                Exit::Ok
            }
            Self::Refused { complaints } => {
                out::stderr_line("newswire-ingestd keeps its old list:");
                complaints.iter().for_each(|complaint| out::stderr_line(&safe(complaint)));
                Exit::Failure
            }
        }
    }
}
