//! `newswire tail`: prints items as they arrive. Reconnects and resumes by itself, and reports missed events.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, stop};
use news::{Cursor, Event, EventKind, Timestamp};
use notation::{BadDuration, DURATION_MAX, parse_duration_within};
use reqwest::StatusCode;
use url::Url;
use wire::{
    ClientError, Coverage, Endpoint, LostReason, ReceivedEvent, Refusal, Resume, StreamOpened, Subscription,
    SubscriptionEvent, SubscriptionTiming,
};

use crate::{
    config_file::{ConfigFile, UsageError},
    out::{self, Paint, safe},
};

/// Arguments of `newswire tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Gateway to connect to [default: gateway.listen of the configuration]
    #[arg(long, value_name = "URL", value_parser = gateway_url)]
    url: Option<Url>,
    /// Print only items of this category; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
    /// Print only items of this source; may be given several times
    #[arg(long, value_name = "ID")]
    source: Vec<String>,
    /// Start with events recorded since then: a duration such as 2h, or a time such as 2026-01-31T09:30:00Z
    #[arg(long, value_name = "WHEN", conflicts_with = "after", value_parser = since)]
    since: Option<String>,
    /// Start after the event with this id
    #[arg(long, value_name = "ID")]
    after: Option<Cursor>,
    /// File with a read token, if the gateway requires one
    #[arg(long, value_name = "FILE", env = "NEWSWIRE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print each event as one line of JSON, as the stream has it: see `truncated`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Items shown before the first live one.
const SNAPSHOT: &str = "10";
/// How long a stream may be silent: it asks for heartbeats, of which one comes every 10 s at least.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest token that a gateway accepts, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

pub(crate) async fn run(arguments: TailArgs) -> anyhow::Result<Exit> {
    let base = match &arguments.url {
        Some(url) => url.clone(),
        None => {
            let gateway = arguments.file.load()?.config.gateway;
            Url::parse(&format!("http://{}/", gateway.listen)).context("make a URL of gateway.listen")?
        }
    };
    let path = path(&arguments);
    let timing = SubscriptionTiming { silence: SILENCE_MAX, ..SubscriptionTiming::default() };
    let endpoint = Endpoint::Url(base);
    let mut stream =
        Subscription::new(endpoint.clone(), &path, arguments.after.clone(), Coverage::Filtered, timing);
    if let Some(file) = &arguments.token_file {
        let token = read_token(file)?;
        stream =
            stream.with_bearer(&token).with_context(|| format!("use the token of {}", file.display()))?;
    }
    let signals = stop::on_signals().context("listen for Ctrl-C")?;
    let mut printer = Printer {
        json: arguments.json,
        paint: Paint::for_stdout(),
        lost: false,
        connected_before: false,
        start: start(arguments.since.as_deref()),
        remarks: Vec::new(),
    };
    loop {
        tokio::select! {
            () = signals.stop.cancelled() => return Ok(Exit::Ok),
            event = stream.next() => match event {
                SubscriptionEvent::Lost { reason: LostReason::NotOpened(error), .. } if remedy(&error).is_some() => {
                    out::stderr_line(&format!("newswire: {}", not_opened(&error)));
                    return Ok(Exit::Failure);
                }
                event => printer.print(event, &endpoint)?,
            },
        }
    }
}

/// Reads a token from a file: command lines and environments can be read by other users.
pub(crate) fn read_token(file: &Path) -> anyhow::Result<String> {
    let wrong = |why: String| UsageError(format!("{}: {why}", file.display()));
    let text =
        std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot read the token: {error}")))?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || token.contains(char::is_whitespace) {
        return Err(wrong(format!("expected one token of at most {TOKEN_BYTES_MAX} bytes")).into());
    }
    Ok(token.to_owned())
}

/// Checks a time or a duration as the gateway does, which would refuse it after each reconnection.
fn since(text: &str) -> Result<String, String> {
    let ok = Ok(text.to_owned());
    if text.parse::<Timestamp>().is_ok() {
        return ok;
    }
    match parse_duration_within(text, Duration::ZERO..=DURATION_MAX) {
        Ok(_) => ok,
        Err(error @ BadDuration::OutOfRange { .. }) => Err(error.to_string()),
        Err(BadDuration::NotADuration { .. }) => {
            Err("neither a duration such as 90m or 2h nor a time such as 2026-01-31T09:30:00Z".to_owned())
        }
    }
}

/// The address of a gateway. What the stream is to contain is said by other arguments, so nothing else is accepted.
fn gateway_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected http:// or https:// and a host".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "expected nothing after the host and port; use --category and --source to filter".to_owned()
        );
    }
    Ok(url)
}

fn path(arguments: &TailArgs) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    // Some proxies hold back blocks that are not events, and `gateway.heartbeat` may be long.
    query.append_pair("kinds", "item,update,heartbeat");
    if !arguments.json {
        query.append_pair("content", "0");
    }
    for (name, values) in [("category", &arguments.category), ("source", &arguments.source)] {
        for value in values {
            query.append_pair(name, value);
        }
    }
    match &arguments.since {
        Some(since) => query.append_pair("since", since),
        None => query.append_pair("snapshot", SNAPSHOT),
    };
    format!("/news/stream?{}", query.finish())
}

/// Prints events, and changes of the connection.
struct Printer {
    json: bool,
    paint: Paint,
    /// The loss of the connection has been reported; repeats are not.
    lost: bool,
    connected_before: bool,
    /// What the stream starts with after the gateway could not resume it.
    start: String,
    /// What the gateway said about the query; repeats are not reported.
    remarks: Vec<String>,
}

fn start(since: Option<&str>) -> String {
    since.map_or_else(|| "its newest events".to_owned(), |since| format!("what was recorded since {since}"))
}

/// Why the gateway cannot resume after the id that it was asked for.
fn why_reset(opened: &StreamOpened) -> String {
    let requested = opened.requested.as_deref().unwrap_or_default();
    let same_log = |head: &&Cursor| requested.parse().is_ok_and(|id: Cursor| id.epoch == head.epoch);
    match opened.head.as_ref().filter(same_log) {
        Some(head) => format!("the log of the gateway ends at {head}, before {requested}"),
        None => "the gateway has another log".to_owned(),
    }
}

/// What the user can do about a refusal; `None` if another attempt may succeed without that.
fn remedy(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Refused(_, Refusal { status: StatusCode::UNAUTHORIZED, .. }) => {
            Some("name a file with a valid read token in --token-file")
        }
        ClientError::Refused(_, Refusal { status: StatusCode::FORBIDDEN, .. }) => {
            Some("check --url, --token-file and the proxy before the gateway")
        }
        _ => None,
    }
}

/// What happened and the remedy, if there is one. It names the gateway.
fn not_opened(error: &ClientError) -> String {
    let what = safe(&error.to_string());
    remedy(error).map_or_else(|| what.clone(), |remedy| format!("{what}; {remedy}"))
}

fn why_lost(reason: &LostReason, endpoint: &Endpoint) -> String {
    match reason {
        LostReason::NotOpened(error) => not_opened(error),
        LostReason::Ended(why) => format!("no stream from {endpoint}: {}", safe(why)),
    }
}

/// What in a query means nothing to the gateway, one sentence each.
fn remarks(opened: &StreamOpened) -> Vec<String> {
    let unknown = opened.unknown.iter().map(|value| {
        format!("no source has the category, id, tag or country `{}`; nothing matches it", safe(value))
    });
    let ignored = opened.ignored.iter().map(|parameter| {
        let meant =
            parameter.did_you_mean.as_deref().map(|meant| format!("; did you mean `{}`?", safe(meant)));
        let name = safe(&parameter.name);
        format!("the gateway does not know the parameter `{name}`{}", meant.unwrap_or_default())
    });
    unknown.chain(ignored).collect()
}

impl Printer {
    fn print(&mut self, event: SubscriptionEvent, endpoint: &Endpoint) -> anyhow::Result<()> {
        match event {
            SubscriptionEvent::Event(received) => self.event(&received)?,
            SubscriptionEvent::Connected(opened) => self.connected(&opened, endpoint),
            SubscriptionEvent::Gap(gap) => {
                out::stderr_line(&format!("newswire: missed {} events", gap.missed))
            }
            SubscriptionEvent::Lost { reason, .. } => {
                if !self.lost {
                    out::stderr_line(&format!("newswire: {}; reconnecting", why_lost(&reason, endpoint)));
                }
                self.lost = true;
            }
            SubscriptionEvent::Notice(..) | SubscriptionEvent::Heartbeat(_) => {}
        }
        Ok(())
    }

    fn connected(&mut self, opened: &StreamOpened, endpoint: &Endpoint) {
        let reconnected = std::mem::replace(&mut self.connected_before, true);
        match opened.resume {
            Resume::Gap => {
                let missed = opened.missed.unwrap_or(0);
                out::stderr_line(&format!("newswire: missed {missed} events that are no longer kept"));
            }
            Resume::Reset => {
                let (why, start) = (why_reset(opened), &self.start);
                out::stderr_line(&format!("newswire: {why}; starting with {start}"));
            }
            Resume::Exact if reconnected && self.lost => {
                out::stderr_line(&format!("newswire: reconnected to {endpoint}, nothing was missed"))
            }
            Resume::Exact | Resume::Live if self.lost => {
                out::stderr_line(&format!("newswire: connected to {endpoint}"))
            }
            Resume::Exact | Resume::Live => {}
        }
        self.lost = false;
        let remarks = remarks(opened);
        if remarks != self.remarks {
            remarks.iter().for_each(|remark| out::stderr_line(&format!("newswire: {remark}")));
        }
        self.remarks = remarks;
    }

    fn event(&self, received: &ReceivedEvent) -> anyhow::Result<()> {
        if self.json {
            let text = std::str::from_utf8(&received.json).context("an event is not UTF-8")?;
            return Ok(out::stdout_line(text)?);
        }
        let event: Event =
            serde_json::from_slice(&received.json).context("an event has an unexpected format")?;
        let time = event.item.published.unwrap_or(event.first_seen).to_string();
        let time = time.get(..16).unwrap_or(&time).replace('T', " ");
        let update = if event.kind == EventKind::Update { "(update) " } else { "" };
        let title = match event.item.title.as_str() {
            "" => safe(event.item.link.as_deref().unwrap_or("(no title)")),
            title => safe(title),
        };
        let paint = self.paint;
        let (time, source) = (paint.dim(&time), paint.name(&safe(&event.source_name)));
        out::stdout_line(&format!("{time}  {source}  {update}{}", paint.bold(&title)))?;
        if let Some(link) = &event.item.link {
            out::stdout_line(&format!("                  {}", paint.dim(&safe(link))))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_to_the_gateway_is_told_in_sentences() {
        let opened = serde_json::json!({
            "resume": "live", "requested": null, "oldest": null, "head": null, "missed": 0, "server": "gateway",
            "unknown": ["Wrold\u{1b}"],
            "ignored": [{"name": "categroy", "did_you_mean": "category"}, {"name": "x", "did_you_mean": null}],
        });
        let remarks = remarks(&serde_json::from_value(opened).unwrap());
        assert!(remarks[0].contains("`Wrold") && !remarks[0].contains('\u{1b}'), "{remarks:?}");
        assert!(remarks[1].ends_with("the parameter `categroy`; did you mean `category`?"), "{remarks:?}");
        assert!(remarks[2].ends_with("the parameter `x`"), "{remarks:?}");
    }

    #[test]
    fn a_refusal_is_told_once_with_its_cause_and_its_remedy() {
        let endpoint = Endpoint::Url("http://127.0.0.1:8700/".parse().unwrap());
        let refused = |status, detail: Option<&str>| {
            ClientError::Refused(endpoint.clone(), Refusal { status, detail: detail.map(str::to_owned) })
        };
        let unknown = refused(StatusCode::UNAUTHORIZED, Some("the token is unknown\u{1b}"));
        let text = not_opened(&unknown);
        let start = "http://127.0.0.1:8700 answered 401 Unauthorized: the token is unknown";
        assert!(text.starts_with(start) && text.contains("--token-file"), "{text}");
        assert!(text.matches("127.0.0.1").count() == 1 && !text.contains('\u{1b}'), "{text}");
        assert!(remedy(&refused(StatusCode::FORBIDDEN, None)).is_some());
        let later = refused(StatusCode::SERVICE_UNAVAILABLE, None);
        assert!(remedy(&later).is_none() && remedy(&ClientError::Late(endpoint.clone())).is_none());
        let why = why_lost(&LostReason::NotOpened(later), &endpoint);
        assert_eq!(why, "http://127.0.0.1:8700 answered 503 Service Unavailable");
        let ended = LostReason::Ended("the server ended the stream".to_owned());
        let expected = "no stream from http://127.0.0.1:8700: the server ended the stream";
        assert_eq!(why_lost(&ended, &endpoint), expected);
    }

    #[test]
    fn why_a_stream_starts_anew_is_told_as_it_is() {
        let why = |requested: Option<&str>, head: Option<&str>| {
            let opened = serde_json::json!({
                "resume": "reset", "requested": requested, "oldest": null, "head": head, "missed": null, "server": "x",
            });
            why_reset(&serde_json::from_value(opened).unwrap())
        };
        let beyond = why(Some("abc-99"), Some("abc-5"));
        assert_eq!(beyond, "the log of the gateway ends at abc-5, before abc-99");
        for (requested, head) in
            [(Some("xyz-3"), Some("abc-5")), (Some("abc-99"), None), (None, Some("abc-5"))]
        {
            assert_eq!(why(requested, head), "the gateway has another log");
        }
        assert_eq!(start(None), "its newest events");
        assert_eq!(start(Some("2h")), "what was recorded since 2h");
    }

    #[test]
    fn the_address_of_a_gateway_is_only_that() {
        for good in ["http://127.0.0.1:8700", "https://news.example.org/", "http://[::1]:8700/"] {
            assert!(gateway_url(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("http://localhost:8700/?category=x", "--category"),
            ("http://localhost:8700/news/stream", "nothing after"),
            ("ftp://localhost/", "http://"),
            ("localhost:8700", "http://"),
        ] {
            assert!(gateway_url(bad).unwrap_err().contains(says), "{bad}");
        }
    }

    #[test]
    fn since_is_checked_before_connecting() {
        for good in ["2h", "1h30m", "0", "10000d", "2026-01-31T09:30:00Z", "2026-01-31T09:30:00+02:00"] {
            assert_eq!(since(good).unwrap(), good);
        }
        for bad in ["1.5h", "yesterday", "", "-2h", "2026-01-31"] {
            assert!(since(bad).unwrap_err().contains("such as 90m"), "{bad}");
        }
        assert!(since("10001d").unwrap_err().contains("10001d is outside"));
    }
}
