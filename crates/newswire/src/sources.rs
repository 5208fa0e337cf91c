//! `newswire sources`: what the running daemon says about its sources, over its socket.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use daemon::{Clock, Exit};
use news::{SourceStatus, Timestamp};
use serde::Deserialize;
use serde_json::json;
use wire::{Endpoint, Peer};

use crate::{
    cli::ConfigFile,
    out::{self, safe, span},
};

/// Arguments of `newswire sources`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every source with its health, the unhealthy ones first
    List {
        /// As the daemon's JSON
        #[arg(long)]
        json: bool,
    },
    /// One source, in full
    Show {
        /// Its id
        id: String,
        /// As the daemon's JSON
        #[arg(long)]
        json: bool,
    },
    /// Visit sources now: still conditional, still within the bounds of their hosts
    Refresh {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// How long the daemon may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Largest list: 100,000 sources.
const LIST_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Deserialize)]
struct List {
    sources: Vec<SourceStatus>,
}

#[derive(Deserialize)]
struct Ordered {
    accepted: Vec<String>,
    unknown: Vec<String>,
    disabled: Vec<String>,
    busy: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let run_dir = arguments.file.load()?.config.daemon.run_dir;
    let daemon = Peer::try_new(Endpoint::Socket(run_dir.join("ingestd.sock")))?;
    let list = async || -> anyhow::Result<List> {
        let body = daemon.get("/sources", ANSWER_WITHIN, LIST_BYTES_MAX).await;
        let body = body.context("is newswire-ingestd running, and daemon.run_dir the same?")?;
        serde_json::from_slice(&body).context("the daemon's answer is no list of sources")
    };
    match arguments.command {
        Command::List { json: true } => out::line(&json!({ "sources": list().await?.sources }).to_string())?,
        Command::List { json: false } => print_list(list().await?.sources)?,
        Command::Show { id, json } => {
            let found = list().await?.sources.into_iter().find(|s| s.id.as_str() == id);
            let source = found.with_context(|| format!("there is no source {}", safe(&id)))?;
            print_one(&source, json)?;
        }
        Command::Refresh { ids } => return refresh(&daemon, ids).await,
    }
    Ok(Exit::Ok)
}

fn now() -> Timestamp {
    Timestamp::from_millis(Clock::system().now_millis())
}

fn status_word(source: &SourceStatus) -> String {
    match (source.enabled, source.last_status) {
        (false, _) => "disabled".to_owned(),
        (true, None) => "new here".to_owned(),
        (true, Some(status)) => status.as_str().to_owned(),
    }
}

fn print_list(mut sources: Vec<SourceStatus>) -> anyhow::Result<()> {
    let now = now();
    sources.sort_by_key(|s| (std::cmp::Reverse(s.consecutive_failures), s.id.clone()));
    let head = ["ID", "STATUS", "FAILED", "NOW", "VISITED", "NEXT", "ITEMS", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for source in &sources {
        let ago = source.last_visit.map_or("never".to_owned(), |t| format!("{} ago", span(t, now)));
        let next = source.next_visit.map_or("-".to_owned(), |t| format!("in {}", span(now, t)));
        rows.push(vec![
            source.id.to_string(),
            status_word(source),
            source.consecutive_failures.to_string(),
            source.activity.clone(),
            ago,
            next,
            source.counts.items.to_string(),
            safe(source.last_error.as_deref().unwrap_or(&source.why)),
        ]);
    }
    for line in out::table(&rows) {
        out::line(&line)?;
    }
    Ok(())
}

fn print_one(source: &SourceStatus, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return Ok(out::line(&serde_json::to_string(source)?)?);
    }
    let serde_json::Value::Object(fields) = serde_json::to_value(source)? else {
        anyhow::bail!("a source is an object");
    };
    let shown = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => safe(text),
        other => safe(&other.to_string()),
    };
    let rows: Vec<_> = fields.iter().map(|(name, value)| vec![name.clone(), shown(value)]).collect();
    for line in out::table(&rows) {
        out::line(&line)?;
    }
    Ok(())
}

async fn refresh(daemon: &Peer, ids: Vec<String>) -> anyhow::Result<Exit> {
    let order = json!({ "sources": ids }).to_string();
    let body = daemon.post("/visits", order, ANSWER_WITHIN, LIST_BYTES_MAX).await;
    let body = body.context("is newswire-ingestd running, and daemon.run_dir the same?")?;
    let ordered: Ordered = serde_json::from_slice(&body).context("the daemon's answer is none of ours")?;
    let mut exit = Exit::Ok;
    for (ids, what, fine) in [
        (ordered.accepted, "is being visited", true),
        (ordered.busy, "has an order already", true),
        (ordered.disabled, "is disabled in the catalogue", false),
        (ordered.unknown, "is unknown", false),
    ] {
        for id in ids {
            out::line(&format!("{} {what}", safe(&id)))?;
            if !fine {
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}
