//! `newswire reload`: makes both daemons read their configuration again, and shows what changed.

use std::{path::PathBuf, time::Duration};

use control::{ControlClient, ControlError, ControlRequest, ControlSocket, ReloadAnswer, paths};
use daemon::Exit;
use serde_json::{Map, Value, json};

use crate::{
    config_file::ConfigFile,
    out::{self, safe},
    unanswered::explain_reload,
};

/// How long a reload of 100,000 sources may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Largest answer, in bytes: a complaint about each of many sources.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The daemons, and the socket of each that serves `/reload`.
const DAEMONS: [(&str, ControlSocket); 2] =
    [("ingestd", ControlSocket::IngestdAdmin), ("gateway", ControlSocket::GatewayAdmin)];

/// Arguments of `newswire reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReloadArgs {
    /// Print the answer of each daemon as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// The result for one daemon.
enum ReloadOutcome {
    Reloaded(ReloadAnswer),
    /// The configuration or the list has mistakes, and the daemon keeps the old one.
    Refused(Vec<String>),
    /// No answer, or one that says nothing about mistakes in a file.
    NotAsked(String),
}

pub(crate) async fn run(arguments: ReloadArgs) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let mut exit = Exit::Ok;
    let mut all = Map::new();
    for (name, socket) in DAEMONS {
        let outcome = ReloadOutcome::new(name, reload(config.socket(socket)).await);
        if !matches!(outcome, ReloadOutcome::Reloaded(_)) {
            exit = Exit::Failure;
        }
        if arguments.json {
            all.insert(name.to_owned(), outcome.to_json()?);
        } else {
            outcome.print(name)?;
        }
    }
    if arguments.json {
        out::stdout_line(&serde_json::to_string_pretty(&all)?)?;
    }
    Ok(exit)
}

/// Makes the daemon behind a socket reload its configuration.
pub(crate) async fn reload(socket: PathBuf) -> Result<ReloadAnswer, ControlError> {
    let client = ControlClient::new(socket).deadline(ANSWER_WITHIN).body_bytes_max(ANSWER_BYTES_MAX);
    client.request(ControlRequest::post(paths::RELOAD)).await
}

impl ReloadOutcome {
    fn new(name: &str, answer: Result<ReloadAnswer, ControlError>) -> Self {
        match answer {
            Ok(answer) => Self::Reloaded(answer),
            Err(ControlError::Problem(problem)) if !problem.complaints.is_empty() => {
                Self::Refused(problem.complaints)
            }
            Err(error) => Self::NotAsked(explain_reload(&error, name)),
        }
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        Ok(match self {
            Self::Reloaded(answer) => {
                let mut value = serde_json::to_value(answer)?;
                value["outcome"] = json!("reloaded");
                value
            }
            Self::Refused(complaints) => json!({ "outcome": "refused", "complaints": complaints }),
            Self::NotAsked(why) => json!({ "outcome": "not-asked", "error": why }),
        })
    }

    fn print(&self, name: &str) -> std::io::Result<()> {
        match self {
            Self::Reloaded(answer) => {
                return lines(answer).iter().try_for_each(|l| out::stdout_line(&format!("{name}: {l}")));
            }
            Self::Refused(complaints) => {
                out::stderr_line(&format!("newswire: {name} keeps its old configuration:"));
                complaints.iter().for_each(|complaint| out::stderr_line(&safe(complaint)));
            }
            Self::NotAsked(why) => out::stderr_line(&format!("newswire: {name} was not reloaded: {why}")),
        }
        Ok(())
    }
}

/// What a reload changed, one fact per line.
fn lines(answer: &ReloadAnswer) -> Vec<String> {
    let mut first = "reloaded".to_owned();
    if let Some(sources) = &answer.catalogue {
        let (added, changed, removed) = (sources.added, sources.changed, sources.removed);
        first += &format!("; sources: {added} added, {changed} changed, {removed} removed");
    }
    if answer.changes.is_empty() && answer.credentials.is_empty() {
        first += "; the configuration has not changed";
    }
    let changes = answer.changes.iter().map(|change| {
        let remark = if change.live { "" } else { ", takes effect after a restart" };
        format!("{}: {} -> {}{remark}", safe(&change.key), safe(&change.old), safe(&change.new))
    });
    let credentials = answer.credentials.iter().map(|file| safe(&file.to_string()));
    std::iter::once(first).chain(changes).chain(credentials).collect()
}

#[cfg(test)]
mod tests {
    use control::{ConfigChange, CredentialChanges, Problem};

    use super::*;

    #[test]
    fn a_changed_file_of_tokens_is_a_change() {
        assert_eq!(lines(&ReloadAnswer::default()), ["reloaded; the configuration has not changed"]);
        let file = CredentialChanges { key: "a.tokens_file".into(), added: 2, changed: 0, removed: 1 };
        let answer = ReloadAnswer { credentials: vec![file], ..ReloadAnswer::default() };
        let expected = ["reloaded", "a.tokens_file: 2 added, 0 changed, 1 removed"];
        assert_eq!(lines(&answer), expected);
        let sent = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<ReloadAnswer>(&sent).unwrap(), answer, "{sent}");
    }

    #[test]
    fn each_answer_has_its_outcome() {
        let change =
            |key: &str, live| ConfigChange { key: key.into(), old: "1".into(), new: "2".into(), live };
        let answer = ReloadAnswer {
            changes: vec![change("a.b", true), change("a.c", false)],
            ..ReloadAnswer::default()
        };
        let ReloadOutcome::Reloaded(answer) = ReloadOutcome::new("ingestd", Ok(answer)) else {
            panic!("it was reloaded")
        };
        assert_eq!(lines(&answer), ["reloaded", "a.b: 1 -> 2", "a.c: 1 -> 2, takes effect after a restart"]);
        let json =
            |problem| ReloadOutcome::new("ingestd", Err(ControlError::Problem(problem))).to_json().unwrap();
        let refused = json(Problem::bad_configuration(vec!["f.toml:1: wrong".into()]));
        assert_eq!(refused, json!({ "outcome": "refused", "complaints": ["f.toml:1: wrong"] }));
        let busy = json(Problem::new(503, "reload-busy", "try again later"));
        assert_eq!(busy, json!({ "outcome": "not-asked", "error": "try again later" }));
        let absent = ReloadOutcome::new("gateway", Err(ControlError::Missing("x.sock".into())));
        let absent = absent.to_json().unwrap();
        assert!(absent["error"].as_str().unwrap().contains("is newswire-gateway running"), "{absent}");
        let old = json(Problem::new(404, "not-found", "there is no such path"));
        assert!(old["error"].as_str().unwrap().contains("older than this tool"), "{old}");
    }
}
