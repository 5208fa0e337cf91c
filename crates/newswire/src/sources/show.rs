//! `newswire sources list` and `show`: the state of sources in the daemon, as a table or as JSON.

use std::{collections::HashMap, fmt, time::Duration};

use clap::Args;
use control::{ControlError, Problem};
use daemon::Exit;
use news::{Flooding, Quiet, SourceStatus, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{CommandContext, lists, now, orders::explain};
use crate::out::{self, safe, span};

/// Arguments of `newswire sources list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    /// List only sources whose last visit failed or found the feed gone, or which have more new items than may be recorded
    /// at once
    #[arg(long)]
    failing: bool,
    /// List only sources that answer, and have had nothing new for much longer than usual; they are not failing
    #[arg(long)]
    quiet: bool,
    /// List only paused sources
    #[arg(long)]
    paused: bool,
    /// List only sources of this category; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
}

/// Arguments of `newswire sources show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Id of the source
    id: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

/// The answer of `GET /sources`.
#[derive(Debug)]
struct SourceList(Vec<ListedSource>);

impl<'de> Deserialize<'de> for SourceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not derived: that would take an array, too.
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = SourceList;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with the list `sources`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<SourceList, A::Error> {
                let mut sources = None;
                while let Some(name) = fields.next_key::<String>()? {
                    if name == "sources" {
                        sources = Some(fields.next_value()?);
                    } else {
                        fields.next_value::<IgnoredAny>()?;
                    }
                }
                sources.map(SourceList).ok_or_else(|| A::Error::missing_field("sources"))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A source as the daemon wrote it, and what the commands here use of it.
#[derive(Debug)]
pub(super) struct ListedSource {
    raw: Box<RawValue>,
    pub(super) status: SourceStatus,
}

impl<'de> Deserialize<'de> for ListedSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let mut fields: Map<String, Value> = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        // Written in another form than in the store; it is only shown.
        fields.remove("attempts");
        let id = fields.get("id").and_then(Value::as_str).unwrap_or("without an id").to_owned();
        match SourceStatus::deserialize(Value::Object(fields)) {
            Ok(status) => Ok(Self { raw, status }),
            Err(error) => Err(D::Error::custom(format!("source {id}: {error}"))),
        }
    }
}

impl ListArgs {
    fn includes(&self, source: &SourceStatus) -> bool {
        (!self.failing || source.is_failing())
            && (!self.quiet || source.quiet.is_some())
            && (!self.paused || source.paused.is_some())
            && (self.category.is_empty() || self.category.contains(&source.category))
    }
}

/// All sources, as JSON and parsed.
pub(super) async fn fetch(context: &CommandContext) -> anyhow::Result<Vec<(Box<RawValue>, SourceStatus)>> {
    let SourceList(sources) = context.daemon.get("/sources").await.map_err(|error| explain(&error))?;
    Ok(sources.into_iter().map(|source| (source.raw, source.status)).collect())
}

pub(super) async fn list(context: &CommandContext, arguments: ListArgs) -> anyhow::Result<Exit> {
    let mut sources = fetch(context).await?;
    sources.retain(|(_, source)| arguments.includes(source));
    if arguments.json {
        let sources: Vec<_> = sources.iter().map(|(raw, _)| raw).collect();
        out::stdout_line(&serde_json::to_string(&HashMap::from([("sources", sources)]))?)?;
        return Ok(Exit::Ok);
    }
    // An older daemon has none.
    lists::tell_failing(&lists::fetch(context).await.unwrap_or_default());
    let mut sources: Vec<_> = sources.into_iter().map(|(_, source)| source).collect();
    sources.sort_by_key(|s| (std::cmp::Reverse(s.consecutive_failures), s.id.clone()));
    for line in out::table(&rows(&sources)) {
        out::stdout_line(&line)?;
    }
    Ok(Exit::Ok)
}

fn rows(sources: &[SourceStatus]) -> Vec<Vec<String>> {
    let now = now();
    let head = ["ID", "STATE", "LAST", "FAILED", "VISITED", "NEXT", "ITEMS", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let has_lists = sources.iter().any(|source| source.list.is_some());
    if has_lists {
        rows[0].insert(1, "LIST".to_owned());
    }
    for source in sources {
        let next = source.next_visit.map_or("-".to_owned(), |t| format!("in {}", span(now, t)));
        // A wait comes first. A failure explains the next visit, unless the source is not visited at all.
        let not_visited = source.paused.is_some() || !source.enabled;
        let failed = source.last_error.as_deref().filter(|_| !not_visited);
        let quiet = source.quiet.map(|quiet| quiet_for(now, quiet));
        // It is as much a reason for `--failing` as a failure.
        let flooding = source.flooding.as_ref().map(flooding);
        let why = source.waiting_for.as_deref().or(failed).or(flooding.as_deref()).or(quiet.as_deref());
        let why = why.unwrap_or(&source.why);
        rows.push(vec![
            source.id.to_string(),
            source.activity.clone(),
            last(source),
            source.consecutive_failures.to_string(),
            source.last_visit.map_or("never".to_owned(), |t| format!("{} ago", span(t, now))),
            next,
            source.counts.items.to_string(),
            safe(why),
        ]);
        if has_lists && let Some(row) = rows.last_mut() {
            row.insert(1, source.list.as_ref().map_or("-".to_owned(), ToString::to_string));
        }
    }
    rows
}

fn flooding(flooding: &Flooding) -> String {
    let Flooding { waiting_items, waiting_bytes, bound, lost_items, .. } = flooding;
    let bound = bound.as_str();
    let lost = match lost_items {
        0 => String::new(),
        lost => format!(", {lost} are lost"),
    };
    format!("flooding: {waiting_items} items of {waiting_bytes} bytes wait (bound: {bound}){lost}")
}

fn quiet_for(now: Timestamp, quiet: Quiet) -> String {
    let usually = Duration::from_secs(quiet.usually_every_s.into());
    format!(
        "quiet: nothing new for {}, usually every {}",
        span(quiet.since, now),
        notation::humanize(usually)
    )
}

/// How the last visit ended, with the HTTP status if there was one.
pub(super) fn last(source: &SourceStatus) -> String {
    match (source.last_status, source.last_code) {
        (None, _) => "-".to_owned(),
        (Some(status), None) => status.as_str().to_owned(),
        (Some(status), Some(code)) => format!("{} {code}", status.as_str()),
    }
}

/// One source; `None` if the daemon has none with this id.
pub(super) async fn fetch_one(context: &CommandContext, id: &str) -> anyhow::Result<Option<SourceStatus>> {
    Ok(get(context, id).await?.map(|source| source.status))
}

async fn get(context: &CommandContext, id: &str) -> anyhow::Result<Option<ListedSource>> {
    // Only a valid id may become part of a path.
    let parsed = news::SourceId::try_new(id);
    let id = parsed.map_err(|bad| anyhow::anyhow!("{}: {bad}", safe(id)))?;
    match context.daemon.get(&format!("/sources/{id}")).await {
        Ok(source) => Ok(Some(source)),
        Err(
            ControlError::Problem(Problem { status: 404, .. }) | ControlError::Status { status: 404, .. },
        ) => Ok(None),
        Err(error) => Err(explain(&error)),
    }
}

pub(super) async fn show(context: &CommandContext, ShowArgs { id, json }: ShowArgs) -> anyhow::Result<Exit> {
    let Some(ListedSource { raw: source, .. }) = get(context, &id).await? else {
        anyhow::bail!("there is no source {id}; `newswire sources list` shows all ids")
    };
    if json {
        out::stdout_line(source.get())?;
        return Ok(Exit::Ok);
    }
    let mut rows = Vec::new();
    flatten("", &serde_json::from_str(source.get())?, &mut rows);
    for line in out::table(&rows) {
        out::stdout_line(&line)?;
    }
    Ok(Exit::Ok)
}

/// One row per value; nested values are named `outer.inner`.
fn flatten(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let text = |value: &Value| match value {
        Value::String(text) => safe(text),
        Value::Null => "-".to_owned(),
        other => safe(&other.to_string()),
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, rows);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (n, value) in list.iter().enumerate() {
                let fields = value.as_object().into_iter().flatten();
                let row: Vec<_> = fields.map(|(key, value)| format!("{key} {}", text(value))).collect();
                rows.push(vec![format!("{name}.{}", n + 1), row.join(", ")]);
            }
        }
        Value::Array(list) if list.is_empty() => rows.push(vec![name.to_owned(), "-".to_owned()]),
        Value::Array(list) => {
            rows.push(vec![name.to_owned(), list.iter().map(text).collect::<Vec<_>>().join(", ")]);
        }
        other => rows.push(vec![name.to_owned(), text(other)]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_another_shape_is_an_error_that_names_the_field() {
        let list = |text: &str| serde_json::from_str::<SourceList>(text).unwrap_err();
        let one = |text: &str| serde_json::from_str::<ListedSource>(text).unwrap_err();
        for text in ["[]", "null", "[[]]", "1"] {
            assert!(list(text).is_data() && one(text).is_data(), "{text}");
        }
        assert!(list("{}").to_string().contains("missing field `sources`"));
        assert!(list(r#"{"sources": {}}"#).to_string().contains("invalid type: map, expected a sequence"));
        let error = list(r#"{"sources": [{"id": "a", "name": "A", "url": "u"}]}"#).to_string();
        assert!(error.contains("source a: missing field `category`"), "{error}");
        let error = one(r#"{"name": "A"}"#).to_string();
        assert!(error.contains("source without an id: missing field `id`"), "{error}");
    }

    #[test]
    fn a_source_that_floods_says_so_in_the_list() {
        let flooding = |flooding: Value| {
            let source = json!({
                "id": "a", "name": "A", "url": "https://example.org/", "category": "general", "tags": [],
                "activity": "idle", "enabled": true, "consecutive_failures": 0, "warnings": [],
                "counts": {}, "restarts": 0, "why": "usual", "flooding": flooding,
            });
            let source: ListedSource = serde_json::from_value(source).unwrap();
            (source.status.is_failing(), rows(&[source.status])[1].last().unwrap().clone())
        };
        assert_eq!(flooding(Value::Null), (false, "usual".to_owned()));
        let mut state = json!({"since": Timestamp::from_millis(0), "waiting_items": 3, "waiting_bytes": 70, "bound": "ring"});
        let waits = "flooding: 3 items of 70 bytes wait (bound: ring)";
        assert_eq!(flooding(state.clone()), (true, waits.to_owned()));
        state["lost_items"] = json!(2);
        assert_eq!(flooding(state), (true, format!("{waits}, 2 are lost")));
    }

    #[test]
    fn every_field_of_a_source_is_shown() {
        let source = json!({
            "id": "a", "tags": ["x", "y"], "warnings": [], "paused": null, "counts": {"visits": 3},
            "attempts": [{"status": "error", "code": 503}, {"status": "new", "code": 200}],
        });
        let mut rows = Vec::new();
        flatten("", &source, &mut rows);
        let has = |name: &str, value: &str| rows.contains(&vec![name.to_owned(), value.to_owned()]);
        assert!(has("id", "a") && has("tags", "x, y") && has("warnings", "-") && has("paused", "-"));
        assert!(has("counts.visits", "3") && has("attempts.2", "code 200, status new"), "{rows:?}");
    }
}
