//! `newswire sources import`: adds the feeds of an OPML file, each once, however often it is imported.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context as _;
use clap::Args;
use control::PauseOrder;
use daemon::Exit;
use feed::opml::{BYTES_MAX, read_opml};
use news::{Catalogue, Pause, Timestamp};
use serde_json::{Value, json};
use sources::opml::{ImportPlan, ImportedPause, KnownOutline, PlannedSource, plan_with_requests};

use super::{
    CommandContext,
    file::ListFile,
    lists, now,
    orders::{self, ListReload},
};
use crate::out::{self, safe, whole};

/// Arguments of `newswire sources import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// OPML file, or - for standard input
    #[arg(value_name = "FILE|-")]
    opml: String,
    /// Show what would be added, without changing anything
    #[arg(long)]
    dry_run: bool,
    /// Category of all added sources [default: the outermost folder of each]
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Print what was added, already known or refused as a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &CommandContext, arguments: ImportArgs) -> anyhow::Result<Exit> {
    let bytes = read(&arguments.opml)?;
    let opml =
        read_opml(&bytes).with_context(|| format!("{}: nothing was imported", safe(&arguments.opml)))?;
    drop(bytes);
    let file = ListFile::open(&context.list)?;
    let listed = lists::listed(context, &file.catalogue);
    let plan = plan_with_requests(&opml, &file.catalogue, arguments.category.as_deref(), &listed);
    let total = file.catalogue.sources.len() + plan.added.len();
    anyhow::ensure!(
        total <= Catalogue::SOURCES_MAX,
        "{} would have {total} sources, but the limit is {}: nothing was imported",
        file.path().display(),
        Catalogue::SOURCES_MAX
    );
    let changes = !arguments.dry_run && !plan.added.is_empty();
    let pauses = if changes { marked_pauses(&plan.added) } else { Vec::new() };
    let reload = if changes {
        announce(context, &pauses).await;
        let sources = plan.added.iter().map(|added| added.source.clone()).collect();
        file.replace(&Catalogue::append_to(&file.text, sources))?;
        Some(orders::reload(context).await?)
    } else {
        None
    };
    let mut succeeded = plan.refused.is_empty();
    if let Some(reload) = &reload {
        succeeded &= matches!(reload.print(file.path()), Exit::Ok);
        succeeded &= pause_marked(context, &pauses, reload).await?;
    }
    // Last, because a closed standard output ends the command.
    print_result(&arguments, &plan, &file, reload.as_ref())?;
    Ok(if succeeded { Exit::Ok } else { Exit::Failure })
}

fn read(opml: &str) -> anyhow::Result<Vec<u8>> {
    let read_up_to_limit = |reader: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if opml == "-" {
        return read_up_to_limit(&mut io::stdin().lock()).context("read standard input");
    }
    File::open(Path::new(opml))
        .and_then(|mut file| read_up_to_limit(&mut file))
        .with_context(|| format!("read {}", safe(opml)))
}

fn print_result(
    arguments: &ImportArgs,
    plan: &ImportPlan,
    file: &ListFile,
    reload: Option<&ListReload>,
) -> anyhow::Result<()> {
    if arguments.json {
        out::stdout_line(&as_json(arguments, plan, file, reload).to_string())?;
        return Ok(());
    }
    for PlannedSource { source, .. } in &plan.added {
        let keys = source.access.keys();
        if !keys.is_empty() {
            // A foreign list could have its server sent what is in a file of this machine.
            let keys = keys.join(", ");
            out::stderr_line(&format!(
                "{}: takes {keys} from the list; make sure that it is yours",
                source.id
            ));
        }
        let verb = if arguments.dry_run { "would add" } else { "added" };
        out::stdout_line(&format!("{verb} {} [{}] {}", source.id, source.category, source.url))?;
    }
    for KnownOutline { line, url, id } in &plan.known {
        out::stdout_line(&format!("known already {id}: {url} (line {line})"))?;
    }
    for refused in &plan.refused {
        let name = refused.name.as_deref().map_or(String::new(), |name| format!("{}: ", safe(name)));
        out::stderr_line(&format!(
            "{}:{}: {name}{}",
            safe(&arguments.opml),
            refused.line,
            whole(&refused.reason)
        ));
    }
    let (added, known, refused) = (plan.added.len(), plan.known.len(), plan.refused.len());
    let unchanged = if added == 0 || arguments.dry_run { "; nothing was changed" } else { "" };
    let counts = format!("{added} new, {known} known already, {refused} refused{unchanged}");
    Ok(out::stdout_line(&format!("{}: {counts}", file.path().display()))?)
}

fn as_json(arguments: &ImportArgs, plan: &ImportPlan, file: &ListFile, reload: Option<&ListReload>) -> Value {
    let added = |PlannedSource { line, source, .. }: &PlannedSource| json!({ "line": line, "id": source.id, "name": source.name, "url": source.url, "category": source.category });
    let known = |KnownOutline { line, url, id }: &KnownOutline| json!({ "line": line, "id": id, "url": url });
    json!({
        "file": file.path(),
        "dry_run": arguments.dry_run,
        "added": plan.added.iter().map(added).collect::<Vec<_>>(),
        "known": plan.known.iter().map(known).collect::<Vec<_>>(),
        "refused": plan.refused.iter()
            .map(|r| json!({ "line": r.line, "name": r.name, "reason": r.reason }))
            .collect::<Vec<_>>(),
        "reload": reload,
    })
}

/// The orders that pause the sources which the list marks as paused, each with their ids.
fn marked_pauses(added: &[PlannedSource]) -> Vec<(PauseOrder<Timestamp>, Vec<String>)> {
    let now = now();
    let mut orders: HashMap<&ImportedPause, Vec<String>> = HashMap::new();
    for PlannedSource { source, paused, .. } in added {
        if let Some(pause) = paused
            && source.enabled
            && pause.until.is_none_or(|until| until > now)
        {
            orders.entry(pause).or_default().push(source.id.to_string());
        }
    }
    let order = |ImportedPause { until, reason }: &ImportedPause| PauseOrder {
        sources: Vec::new(),
        for_s: None,
        until: *until,
        reason: reason.as_deref().map(|r| r[..r.floor_char_boundary(Pause::REASON_BYTES_MAX)].to_owned()),
        select: None,
        coming: false,
    };
    orders.into_iter().map(|(pause, ids)| (order(pause), ids)).collect()
}

/// Announces the pauses to the daemon, so that it does not visit the sources once before.
async fn announce(context: &CommandContext, pauses: &[(PauseOrder<Timestamp>, Vec<String>)]) {
    for (order, ids) in pauses {
        let order = PauseOrder { coming: true, ..order.clone() };
        let Err(error) = orders::pause_quietly(context, ids, &order).await else { continue };
        if !error.is_absent() {
            out::stderr_line(&format!(
                "may be visited once before they are paused, because {}: {}",
                orders::explain(&error),
                ids.join(" ")
            ));
        }
    }
}

/// Pauses the sources, which are listed now; returns whether that was possible.
async fn pause_marked(
    context: &CommandContext,
    pauses: &[(PauseOrder<Timestamp>, Vec<String>)],
    reload: &ListReload,
) -> anyhow::Result<bool> {
    let is_running = matches!(reload, ListReload::Reloaded(_));
    for (order, ids) in pauses {
        if is_running {
            orders::pause_quietly(context, ids, order).await.map_err(|error| orders::explain(&error))?;
        } else {
            out::stderr_line(&format!("not paused, because the daemon is not running: {}", ids.join(" ")));
        }
    }
    Ok(is_running || pauses.is_empty())
}
