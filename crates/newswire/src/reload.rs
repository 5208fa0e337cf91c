//! `newswire reload`: has both daemons read their configuration again, and says what came of it.

use std::{path::Path, time::Duration};

use daemon::Exit;
use serde_json::{Map, Value, json};
use wire::{Endpoint, PeerClient};

use crate::{
    config_file::ConfigFile,
    out::{self, safe},
};

/// How long a reload of 100,000 sources may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Largest answer, bytes: a complaint about each of many sources.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Who is asked, and where.
const DAEMONS: [(&str, &str); 2] = [("ingestd", "ingestd.sock"), ("gateway", "gateway-admin.sock")];

/// Arguments of `newswire reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReloadArgs {
    /// As a JSON object: what each daemon answered
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// What came of asking one daemon.
enum ReloadOutcome {
    /// Its answer: `changes`, and what became of the sources.
    Reloaded(Value),
    /// It keeps what it had.
    Refused(Vec<String>),
    /// It does not run, or does not answer.
    Silent(String),
}

pub(crate) async fn run(arguments: ReloadArgs) -> anyhow::Result<Exit> {
    let folder = arguments.config.load()?.config.daemon.run_dir;
    let mut exit = Exit::Ok;
    let mut all = Map::new();
    for (name, socket) in DAEMONS {
        let outcome = ask(&folder.join(socket)).await;
        if !matches!(outcome, ReloadOutcome::Reloaded(_)) {
            exit = Exit::Failure;
        }
        if arguments.json {
            all.insert(name.to_owned(), outcome.as_json());
        } else {
            outcome.tell(name)?;
        }
    }
    if arguments.json {
        out::stdout_line(&serde_json::to_string_pretty(&all)?)?;
    }
    Ok(exit)
}

async fn ask(socket: &Path) -> ReloadOutcome {
    let asked = async {
        let peer = PeerClient::try_new(Endpoint::Socket(socket.to_path_buf()))?;
        peer.ask("/reload", String::new(), ANSWER_WITHIN, ANSWER_BYTES_MAX).await
    };
    match asked.await {
        Ok((status, body)) => ReloadOutcome::of(status, serde_json::from_slice(&body).unwrap_or_default()),
        Err(error) => ReloadOutcome::Silent(format!("{error}; is it running?")),
    }
}

impl ReloadOutcome {
    fn of(status: u16, answer: Value) -> Self {
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        match status {
            200 if answer["changes"].is_array() => Self::Reloaded(answer),
            200 => Self::Silent("the answer is none of ours".to_owned()),
            422 => {
                let listed = answer["complaints"].as_array().into_iter().flatten();
                Self::Refused(listed.filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => Self::Silent(
                text("detail").or_else(|| text("title")).unwrap_or_else(|| format!("it answered {status}")),
            ),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Self::Reloaded(answer) => {
                let mut said = answer.clone();
                said["outcome"] = json!("reloaded");
                said
            }
            Self::Refused(complaints) => json!({ "outcome": "refused", "complaints": complaints }),
            Self::Silent(why) => json!({ "outcome": "not-asked", "error": why }),
        }
    }

    fn tell(&self, name: &str) -> std::io::Result<()> {
        match self {
            Self::Reloaded(answer) => {
                return lines(answer).iter().try_for_each(|l| out::stdout_line(&format!("{name}: {l}")));
            }
            Self::Refused(complaints) => {
                out::stderr_line(&format!("newswire: {name} keeps everything as it was:"));
                complaints.iter().for_each(|complaint| out::stderr_line(&safe(complaint)));
            }
            Self::Silent(why) => out::stderr_line(&format!("newswire: {name} was not asked: {}", safe(why))),
        }
        Ok(())
    }
}

/// What a reload did, a fact a line.
fn lines(answer: &Value) -> Vec<String> {
    let mut head = "reloaded".to_owned();
    if let (Some(added), Some(changed), Some(removed)) =
        (answer["added"].as_u64(), answer["changed"].as_u64(), answer["removed"].as_u64())
    {
        head += &format!("; sources: {added} added, {changed} changed, {removed} removed");
    }
    let changes: Vec<_> = answer["changes"].as_array().into_iter().flatten().collect();
    if changes.is_empty() {
        head += "; no key of the configuration has another value";
    }
    let text = |change: &Value, name: &str| safe(change[name].as_str().unwrap_or_default());
    let line = |change: &&Value| {
        let waits = if change["live"] == true { "" } else { ", which waits for a restart" };
        format!("{}: {} -> {}{waits}", text(change, "key"), text(change, "old"), text(change, "new"))
    };
    std::iter::once(head).chain(changes.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_told_for_what_it_is() {
        let change = |key: &str, live: bool| json!({ "key": key, "old": "1", "new": "2", "live": live });
        let changes = json!({ "changes": [change("a.b", true), change("a.c", false)] });
        let ReloadOutcome::Reloaded(answer) = ReloadOutcome::of(200, changes) else {
            panic!("it was reloaded")
        };
        assert_eq!(lines(&answer), ["reloaded", "a.b: 1 -> 2", "a.c: 1 -> 2, which waits for a restart"]);
        let refused = ReloadOutcome::of(422, json!({ "complaints": ["f.toml:1: wrong"] })).as_json();
        assert_eq!(refused, json!({ "outcome": "refused", "complaints": ["f.toml:1: wrong"] }));
        let busy = ReloadOutcome::of(503, json!({ "title": "come again" })).as_json();
        assert_eq!(busy, json!({ "outcome": "not-asked", "error": "come again" }));
        assert!(matches!(ReloadOutcome::of(200, json!({})), ReloadOutcome::Silent(_)));
    }
}
