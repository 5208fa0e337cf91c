//! Orders to the running daemon: visit, pause, resume, and read the list again.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use clap::Args;
use daemon::Exit;
use notation::{BadDuration, DURATION_MAX, parse_duration_within};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::ClientError;

use super::{ANSWER_BYTES_MAX, ANSWER_WITHIN, CommandContext, RUNNING};
use crate::out::{self, safe};

/// Sources in one order, as the daemon takes them.
const ORDER_SOURCES_MAX: usize = 1000;
/// How long a reload of 100,000 sources may take.
const RELOAD_WITHIN: Duration = Duration::from_secs(90);

/// Arguments of `newswire sources refresh`.
#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// Ids of the sources
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Arguments of `newswire sources pause`.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Ids of the sources
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
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
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// A duration on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, BadDuration> {
    parse_duration_within(text, Duration::from_secs(1)..=DURATION_MAX)
}

pub(super) async fn refresh(
    context: &CommandContext,
    RefreshArgs { ids }: RefreshArgs,
) -> anyhow::Result<Exit> {
    let groups = [
        ("accepted", "is being visited", true),
        ("busy", "has an order already", true),
        ("paused", "is paused: not visited before `newswire sources resume`", false),
        ("disabled", "is disabled in the catalogue", false),
        ("unknown", "is unknown", false),
    ];
    order(context, "/visits", &ids, json!({}), &groups).await
}

pub(super) async fn pause(context: &CommandContext, arguments: PauseArgs) -> anyhow::Result<Exit> {
    let groups = [
        ("done", "is paused", true),
        ("disabled", "is disabled in the catalogue, and so not visited anyway", false),
        ("unknown", "is unknown", false),
    ];
    let for_s = arguments.duration.map(|duration| duration.as_secs());
    let details = json!({ "for_s": for_s, "reason": arguments.reason });
    order(context, "/pauses", &arguments.ids, details, &groups).await
}

pub(super) async fn resume(context: &CommandContext, ResumeArgs { ids }: ResumeArgs) -> anyhow::Result<Exit> {
    let groups = [
        ("done", "is visited again", true),
        ("idle", "was not paused", true),
        ("disabled", "is disabled in the catalogue: change it there", false),
        ("unknown", "is unknown", false),
    ];
    order(context, "/pauses/end", &ids, json!({}), &groups).await
}

/// Sends the order, in as many parts as it takes, and says what became of each source.
async fn order(
    context: &CommandContext,
    path: &str,
    ids: &[String],
    mut order: Value,
    groups: &[(&str, &str, bool)],
) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for ids in ids.chunks(ORDER_SOURCES_MAX) {
        order["sources"] = json!(ids);
        let answer = send(context, path, &order).await?;
        for (group, what, fine) in groups {
            for id in answer[group].as_array().into_iter().flatten().filter_map(Value::as_str) {
                out::stdout_line(&format!("{} {what}", safe(id)))?;
                if !fine {
                    exit = Exit::Failure;
                }
            }
        }
    }
    Ok(exit)
}

async fn send(context: &CommandContext, path: &str, order: &Value) -> anyhow::Result<Value> {
    let answer = context.daemon.ask(path, order.to_string(), ANSWER_WITHIN, ANSWER_BYTES_MAX).await;
    let (status, body) = answer.context(RUNNING)?;
    let answer: Value = serde_json::from_slice(&body).context("the daemon's answer is none of ours")?;
    anyhow::ensure!(
        (200..300).contains(&status),
        "the daemon refuses: {}",
        safe(answer["title"].as_str().unwrap_or("without a reason"))
    );
    Ok(answer)
}

/// Pauses sources that have just been added; nothing is printed.
pub(super) async fn pause_quietly(
    context: &CommandContext,
    ids: &[String],
    details: &Value,
) -> anyhow::Result<()> {
    let mut order = details.clone();
    for ids in ids.chunks(ORDER_SOURCES_MAX) {
        order["sources"] = json!(ids);
        send(context, "/pauses", &order).await?;
    }
    Ok(())
}

/// What became of asking the daemon to read the list again.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "daemon")]
pub(super) enum ListReload {
    /// It did.
    Reloaded(ReloadCounts),
    /// It does not run, or does not answer.
    NotRunning { reason: String },
    /// It keeps the old list.
    Refused { complaints: Vec<String> },
}

/// What the new list changed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReloadCounts {
    file: String,
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
}

/// Asks the daemon to read the list again.
pub(super) async fn reload(context: &CommandContext) -> anyhow::Result<ListReload> {
    let answer = context.daemon.ask("/reload", String::new(), RELOAD_WITHIN, ANSWER_BYTES_MAX).await;
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error @ ClientError::Unreachable(..)) => {
            return Ok(ListReload::NotRunning { reason: error.to_string() });
        }
        Err(error) => return Err(error.into()),
    };
    let answer: Value = serde_json::from_slice(&body).context("the daemon's answer is none of ours")?;
    if status == 200 {
        return Ok(ListReload::Reloaded(serde_json::from_value(answer).context("the daemon's answer")?));
    }
    let listed = answer["complaints"].as_array().into_iter().flatten();
    let mut complaints: Vec<_> = listed.filter_map(Value::as_str).map(str::to_owned).collect();
    if complaints.is_empty() {
        complaints.push(answer["title"].as_str().unwrap_or("the daemon gives no reason").to_owned());
    }
    Ok(ListReload::Refused { complaints })
}

impl ListReload {
    /// Says what became of it on standard error, where it disturbs no JSON.
    pub(super) fn print(&self, list: &Path) -> Exit {
        match self {
            Self::Reloaded(done) => {
                let ReloadCounts { added, changed, removed, unchanged, .. } = done;
                out::stderr_line(&format!(
                    "newswire-ingestd reads the new list: {added} added, {changed} changed, {removed} removed, \
                     {unchanged} unchanged"
                ));
                let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
                    (Ok(a), Ok(b)) => a == b,
                    _ => a == b,
                };
                if same(Path::new(&done.file), list) {
                    return Exit::Ok;
                }
                out::stderr_line(&format!(
                    "but it reads {}, not {}: name the right one with --sources or in ingestd.sources",
                    safe(&done.file),
                    list.display()
                ));
                Exit::Failure
            }
            Self::NotRunning { reason } => {
                out::stderr_line(&format!(
                    "newswire-ingestd does not run ({}): the list counts from its next start",
                    safe(reason)
                ));
                Exit::Ok
            }
            Self::Refused { complaints } => {
                out::stderr_line("newswire-ingestd keeps the old list:");
                complaints.iter().for_each(|complaint| out::stderr_line(&safe(complaint)));
                Exit::Failure
            }
        }
    }
}
