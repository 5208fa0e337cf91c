//! `newswire sources lists`: the lists of feeds that the daemon reads by itself.

use std::time::Duration;

use clap::Args;
use control::{ListAnswer, ListOrder, paths};
use daemon::Exit;
use news::{ListStatus, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::{CommandContext, now, orders};
use crate::out::{self, safe, span};

/// How long an ordered read that has begun is waited for.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Arguments of `newswire sources lists`.
#[derive(Debug, Args)]
pub(super) struct ListsArgs {
    /// Ids of lists [default: all of them]
    #[arg(value_name = "LIST", required_if_eq_any([("read", "true"), ("take", "true")]))]
    lists: Vec<String>,
    /// Have the daemon read these lists now
    #[arg(long)]
    read: bool,
    /// The same, and take what they have even if they have lost most of their feeds
    #[arg(long)]
    take: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

/// The answer of `GET /lists`.
#[derive(Debug, Serialize, Deserialize)]
struct AllLists {
    lists: Vec<ListStatus>,
}

/// Every list of the running daemon.
pub(super) async fn fetch(context: &CommandContext) -> anyhow::Result<Vec<ListStatus>> {
    let all: AllLists = context.daemon.get(paths::LISTS).await.map_err(|error| orders::explain(&error))?;
    Ok(all.lists)
}

pub(super) async fn run(context: &CommandContext, arguments: ListsArgs) -> anyhow::Result<Exit> {
    if arguments.read || arguments.take {
        return read(context, arguments).await;
    }
    let mut lists = fetch(context).await?;
    let mut exit = Exit::Ok;
    if !arguments.lists.is_empty() {
        let unknown = arguments.lists.iter().filter(|id| lists.iter().all(|list| list.id.as_str() != **id));
        for id in unknown {
            out::stderr_line(&format!("there is no list {}", safe(id)));
            exit = Exit::Failure;
        }
        lists.retain(|list| arguments.lists.iter().any(|id| id == list.id.as_str()));
    }
    if arguments.json {
        out::stdout_line(&json!(AllLists { lists }).to_string())?;
        return Ok(exit);
    }
    for line in out::table(&rows(&lists)) {
        out::stdout_line(&line)?;
    }
    Ok(exit)
}

async fn read(context: &CommandContext, arguments: ListsArgs) -> anyhow::Result<Exit> {
    let ordered_at = now();
    let order = ListOrder { lists: arguments.lists, take: arguments.take };
    let answer: ListAnswer = orders::send(context, paths::LIST_READS, &order).await?;
    let reads = follow(context, &answer.accepted, ordered_at).await?;
    if arguments.json {
        out::stdout_line(&json!(answer).to_string())?;
    } else {
        for (id, read) in answer.accepted.iter().zip(&reads) {
            out::stdout_line(&format!("{} {}", safe(id), read.text()))?;
        }
        orders::print_each(&answer.busy, "is being read; order it again when that is done")?;
        orders::print_each(&answer.disabled, "is disabled in the list of sources; enable it there")?;
        orders::print_each(&answer.unknown, "is unknown")?;
    }
    let is_done = answer.busy.is_empty() && answer.disabled.is_empty() && answer.unknown.is_empty();
    let is_fine = is_done && !reads.iter().any(ListProgress::is_problem);
    Ok(if is_fine { Exit::Ok } else { Exit::Failure })
}

/// How far an ordered read is.
#[derive(Debug, PartialEq, Eq)]
enum ListProgress {
    /// For this reason.
    Waiting(String),
    Running,
    /// Why it, or some of it, was not.
    NotTaken(String),
    Read,
    Removed,
}

/// What has become of the ordered reads; waits for those in progress, but not for long.
async fn follow(
    context: &CommandContext,
    ids: &[String],
    ordered_at: Timestamp,
) -> anyhow::Result<Vec<ListProgress>> {
    let began = Instant::now();
    loop {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        tokio::time::sleep(orders::BEGIN_WITHIN).await;
        let lists = fetch(context).await?;
        let of = |id: &String| {
            let list = lists.iter().find(|list| list.id.as_str() == id);
            list.map_or(ListProgress::Removed, |list| progress(list, ordered_at))
        };
        let reads: Vec<_> = ids.iter().map(of).collect();
        if !reads.contains(&ListProgress::Running) || began.elapsed() >= READ_WITHIN {
            return Ok(reads);
        }
    }
}

fn progress(list: &ListStatus, ordered_at: Timestamp) -> ListProgress {
    match (&list.waiting_for, &list.error) {
        (Some(reason), _) => ListProgress::Waiting(reason.clone()),
        (None, _) if list.last_read.is_none_or(|last| last < ordered_at) => ListProgress::Running,
        (None, Some(error)) => ListProgress::NotTaken(error.clone()),
        (None, None) => ListProgress::Read,
    }
}

impl ListProgress {
    fn is_problem(&self) -> bool {
        matches!(self, Self::NotTaken(_) | Self::Removed)
    }

    fn text(&self) -> String {
        match self {
            Self::Waiting(reason) => format!("waits: {}", safe(reason)),
            Self::Running => "is read now".to_owned(),
            Self::NotTaken(error) => format!("was not taken: {}", safe(error)),
            Self::Read => "was read".to_owned(),
            Self::Removed => "has left the list of sources".to_owned(),
        }
    }
}

fn rows(lists: &[ListStatus]) -> Vec<Vec<String>> {
    let now = now();
    let head = ["LIST", "SOURCES", "READ", "TAKEN", "NEXT", "FROM", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for list in lists {
        let ago =
            |then: Option<_>| then.map_or("never".to_owned(), |then| format!("{} ago", span(then, now)));
        let why = match (&list.waiting_for, &list.error) {
            (Some(reason), _) => format!("waits: {}", safe(reason)),
            (None, Some(error)) => safe(error),
            (None, None) if !list.enabled => "disabled in the list of sources".to_owned(),
            (None, None) => described(list),
        };
        rows.push(vec![
            list.id.to_string(),
            list.sources.to_string(),
            ago(list.last_read),
            ago(list.last_success),
            list.next_read.map_or("-".to_owned(), |next| format!("in {}", span(now, next))),
            safe(&list.origin),
            why,
        ]);
    }
    rows
}

/// What of a list is no source.
fn described(list: &ListStatus) -> String {
    let known = (list.known > 0).then(|| format!("{} listed elsewhere as well", list.known));
    let refused = (list.refused > 0).then(|| format!("{} no feeds", list.refused));
    known.into_iter().chain(refused).collect::<Vec<_>>().join(", ")
}

/// Tells of lists whose sources are not what they have.
pub(super) fn tell_failing(lists: &[ListStatus]) {
    for list in lists.iter().filter(|list| list.is_failing()) {
        let error = list.error.as_deref().unwrap_or_default();
        out::stderr_line(&format!("list {}: {}", list.id, safe(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(last_read: i64, waiting_for: Option<&str>, error: Option<&str>) -> ListStatus {
        let list = json!({
            "id": "planet", "origin": "https://example.org/", "every_s": 60, "enabled": true, "sources": 1,
            "known": 0, "refused": 0, "failures": 0, "waiting_for": waiting_for, "error": error,
            "last_read": Timestamp::from_millis(last_read),
        });
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn a_list_that_waits_says_so_before_what_its_last_read_found() {
        let why = |waiting_for, error| rows(&[list(0, waiting_for, error)])[1].last().cloned().unwrap();
        let turn = Some("4 other lists are being read");
        assert_eq!(why(turn, Some("it is gone")), "waits: 4 other lists are being read");
        assert_eq!(why(None, Some("it is gone")), "it is gone");
        assert_eq!(why(None, None), "");
    }

    #[test]
    fn an_ordered_read_says_how_far_it_is() {
        let status = |last_read: i64, waiting_for: Option<&str>, error: Option<&str>| {
            let read = progress(&list(last_read, waiting_for, error), Timestamp::from_millis(5_000));
            (read.text(), read.is_problem())
        };
        let is = |text: &str, is_problem| (text.to_owned(), is_problem);
        assert_eq!(status(4_000, None, Some("old")), is("is read now", false));
        let waits = is("waits: example.org answered 503", false);
        assert_eq!(status(4_000, Some("example.org answered 503"), None), waits);
        assert_eq!(status(6_000, None, Some("it is gone")), is("was not taken: it is gone", true));
        assert_eq!(status(6_000, None, None), is("was read", false));
    }
}
