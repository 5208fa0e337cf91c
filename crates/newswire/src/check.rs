//! `newswire check`: fetches or reads feeds and shows what the daemon would make of them. Nothing is stored.

mod diff;
mod input;

use std::{
    io::{self, Read},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use control::{ControlClient, ControlSocket};
use daemon::{Clock, Exit, config::Config};
use feed::{FeedDocument, Hints};
use fetch::{
    AddressScope, FailureClass, FetchReport, FetchResult, Policy, VisitRequest, Visitor,
    schedule::{IntervalBounds, ScheduleInput, ScheduleOutcome, next_visit},
};
use news::{FeedUrl, Item, ProxyUrl, Source, Timestamp, Warning};
use serde::Serialize;
use serde_json::{Value, json};
use sources::CredentialFiles;

use self::input::CheckInput;
use crate::{
    config_file::{ConfigFile, UsageError},
    discover::{FeedFailure, is_without_server, read_document},
    out::{self, Paint, safe, span, whole},
};

/// How long the daemon may take to say what it knows about a source.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Arguments of `newswire check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Print one JSON object per input, each on one line
    #[arg(long)]
    json: bool,
    /// Allow addresses of private networks
    #[arg(long)]
    allow_private: bool,
    /// Content-Type to assume for files, as a server would send it
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Take the inputs as visits of one source in a row, OLD and then NEW, and show for each item of NEW what would be
    /// sent, and why
    #[arg(long)]
    diff: bool,
    /// Inputs to check: addresses, files, - for standard input, or ids of sources in the list, which are visited with their
    /// own settings (source:ID, if a file has that name, too)
    #[arg(required = true, value_name = "URL|FILE|ID|-")]
    inputs: Vec<String>,
    #[command(flatten)]
    file: ConfigFile,
}

/// The result for one input.
#[derive(Debug, Serialize)]
struct FeedReport {
    input: String,
    format: Option<feed::FeedFormat>,
    encoding: Option<feed::Encoding>,
    feed: Option<feed::FeedInfo>,
    items: Vec<Item>,
    warnings: Vec<Warning>,
    error: Option<FeedFailure>,
    fetch: Option<Value>,
}

pub(crate) async fn run(arguments: CheckArgs) -> anyhow::Result<Exit> {
    if arguments.diff && arguments.inputs.len() < 2 {
        return Err(UsageError("--diff needs two inputs or more: OLD NEW".to_owned()).into());
    }
    let config = arguments.file.load()?.config;
    let policy = policy(&config, arguments.allow_private)?;
    let bounds =
        IntervalBounds { interval_min: config.fetch.interval_min, interval_max: config.fetch.interval_max };
    let bytes_max = policy.body_bytes_max;
    fetch::install_tls();
    let visitor = Visitor::try_new(policy)?;
    let mut exit = Exit::Ok;
    let mut visits = Vec::new();
    for input in &arguments.inputs {
        let report = match input::find(input, &config) {
            Ok(CheckInput::File) => check_file(input, arguments.content_type.as_deref(), bytes_max),
            Ok(CheckInput::Addresses(urls)) => check_addresses(&urls, &visitor, bounds).await,
            Ok(CheckInput::Source(source)) => check_source(&source, &config, &visitor, bounds).await,
            Err(why) => {
                let failure = FeedFailure::new(FailureClass::BadUrl.as_str(), why);
                FeedReport::new(input, Err(failure), None)
            }
        };
        if arguments.diff {
            visits.push(report);
            continue;
        }
        if report.error.is_some() {
            exit = Exit::Failure;
        }
        if arguments.json {
            out::stdout_line(&serde_json::to_string(&report)?)?;
        } else {
            print(&report)?;
        }
    }
    if arguments.diff { diff::run(visits, arguments.json) } else { Ok(exit) }
}

impl FeedReport {
    fn new(input: &str, read: Result<FeedDocument, FeedFailure>, fetch: Option<Value>) -> Self {
        let input = input.to_owned();
        match read {
            Ok(document) => Self {
                input,
                format: Some(document.format),
                encoding: Some(document.encoding),
                feed: Some(document.feed),
                items: document.items,
                warnings: document.warnings,
                error: None,
                fetch,
            },
            Err(failure) => Self {
                input,
                format: None,
                encoding: None,
                feed: None,
                items: Vec::new(),
                warnings: Vec::new(),
                error: Some(failure),
                fetch,
            },
        }
    }
}

/// The policy of this tool for visits: that of the daemon.
pub(crate) fn policy(config: &Config, allow_private: bool) -> anyhow::Result<Policy> {
    let allow = config.fetch.allow.iter().map(|cidr| cidr.parse()).collect::<Result<_, _>>();
    Ok(Policy {
        timeout_connect: config.fetch.timeout_connect,
        timeout_first_byte: config.fetch.timeout_first_byte,
        timeout_total: config.fetch.timeout_total,
        body_bytes_max: usize::try_from(config.fetch.body_bytes_max).unwrap_or(usize::MAX),
        allow: allow.context("fetch.allow")?,
        ports: config.fetch.ports.clone(),
        allow_private,
        proxy: proxy(config)?,
        user_agent: config.fetch.user_agent.clone(),
        ..Policy::default()
    })
}

/// The proxy of sources without a choice of their own.
pub(crate) fn proxy(config: &Config) -> anyhow::Result<Option<ProxyUrl>> {
    config.fetch.proxy.as_deref().map(ProxyUrl::try_new).transpose().context("fetch.proxy")
}

fn check_file(input: &str, content_type: Option<&str>, bytes_max: usize) -> FeedReport {
    let bytes = if input == "-" {
        read_up_to(io::stdin().lock(), bytes_max)
    } else {
        std::fs::File::open(Path::new(input)).and_then(|file| read_up_to(file, bytes_max))
    };
    let document = match bytes {
        Ok(bytes) if bytes.len() > bytes_max => {
            let limit = format!("it is larger than {bytes_max} bytes (fetch.body_bytes_max)");
            Err(FeedFailure::new(FailureClass::TooLarge.as_str(), limit))
        }
        Ok(bytes) => {
            feed::read(&bytes, &Hints { content_type, ..Hints::default() }).map_err(FeedFailure::from)
        }
        Err(error) => Err(FeedFailure::new("unreadable", format!("cannot read the input: {error}"))),
    };
    FeedReport::new(input, document, None)
}

fn read_up_to(reader: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Visits the first of the addresses that has a server.
async fn check_addresses(urls: &[FeedUrl], visitor: &Visitor, bounds: IntervalBounds) -> FeedReport {
    let (mut url, mut visit) = (&urls[0], visitor.visit(&VisitRequest::new(&urls[0], now())).await);
    for next in &urls[1..] {
        if !is_without_server(&visit) {
            break;
        }
        (url, visit) = (next, visitor.visit(&VisitRequest::new(next, now())).await);
    }
    report(url, &visit, PlanSettings { bounds, every: None, ignores_hints: false })
}

/// Visits a source as the daemon does, with its own settings, but without its validators: the whole document is shown.
async fn check_source(
    source: &Source,
    config: &Config,
    visitor: &Visitor,
    bounds: IntervalBounds,
) -> FeedReport {
    let files = CredentialFiles::new(
        &config.ingestd.sources,
        std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    );
    let options = match files.request_options(&source.access).await {
        Ok(options) => options,
        Err(failure) => {
            let message = files.explain(&source.access, &failure);
            let failure = FeedFailure::new(failure.class.as_str(), message);
            return FeedReport::new(source.id.as_str(), Err(failure), None);
        }
    };
    let request = VisitRequest {
        timeout: source.timeout,
        timeout_first_byte: source.timeout_first_byte,
        body_bytes_max: source.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        options: options.as_ref(),
        scope: if source.has_foreign_address() {
            AddressScope::Named
        } else {
            AddressScope::Configured(&source.url)
        },
        ..VisitRequest::new(&source.url, now())
    };
    let visit = visitor.visit(&request).await;
    let ignores_hints = source.ignores_freshness;
    let mut checked =
        report(&source.url, &visit, PlanSettings { bounds, every: source.every, ignores_hints });
    checked.input = source.id.to_string();
    if let Some(fetch) = &mut checked.fetch {
        fetch["url"] = json!(source.url);
        fetch["daemon"] = daemon_state(config, source).await;
    }
    checked
}

/// What the running daemon knows about a source; `null` if it does not run, or does not have it.
async fn daemon_state(config: &Config, source: &Source) -> Value {
    let daemon = ControlClient::new(config.socket(ControlSocket::Ingestd)).deadline(ANSWER_WITHIN);
    let status: Result<Value, _> = daemon.get(&format!("/sources/{}", source.id)).await;
    status.map_or(Value::Null, |status| {
        let keys = [
            "activity",
            "waiting_for",
            "last_status",
            "last_error",
            "consecutive_failures",
            "next_visit",
            "why",
        ];
        keys.into_iter().map(|key| (key.to_owned(), status[key].clone())).collect()
    })
}

fn now() -> Timestamp {
    Timestamp::from_millis(Clock::system().now_millis())
}

fn report(url: &FeedUrl, visit: &FetchReport, settings: PlanSettings) -> FeedReport {
    let document = read_document(visit).and_then(|read| read.map_err(FeedFailure::from));
    let fetch = describe(visit, document.as_ref().ok(), settings, now());
    // `Display` of a feed URL hides its secrets.
    FeedReport::new(&url.to_string(), document, Some(fetch))
}

/// What besides the answer decides about the next visit.
#[derive(Clone, Copy)]
struct PlanSettings {
    bounds: IntervalBounds,
    every: Option<Duration>,
    /// `fresh = "ignore"`.
    ignores_hints: bool,
}

/// The visit as JSON, and when the daemon would visit next.
fn describe(
    visit: &FetchReport,
    document: Option<&FeedDocument>,
    settings: PlanSettings,
    now: Timestamp,
) -> Value {
    let outcome = match (&visit.answer, document) {
        (FetchResult::Throttled, _) => ScheduleOutcome::Throttled,
        (FetchResult::Gone, _) => ScheduleOutcome::Gone,
        (_, Some(_)) => ScheduleOutcome::Healthy,
        _ => ScheduleOutcome::Failed,
    };
    let mut input = ScheduleInput::new(settings.bounds, now, outcome);
    (input.every, input.ignores_hints) = (settings.every, settings.ignores_hints);
    let recent: Vec<_> =
        document.iter().flat_map(|d| &d.items).filter_map(|item| item.published.or(item.updated)).collect();
    input.code = visit.code;
    input.recent = &recent;
    input.cache_life = visit.cache.fresh_for;
    input.retry_after = visit.retry_after;
    if let Some(document) = document {
        input.ttl = document.rhythm.ttl;
        input.update_period = document.rhythm.update_interval;
        input.skip_hours = document.rhythm.skip_hours.0;
        input.skip_days = document.rhythm.skip_days.0;
    } else {
        // As for a new source.
        input.quiet_for = Some(Duration::ZERO);
    }
    let next = next_visit(&input, 0.5);
    let mut fetch = serde_json::to_value(visit).unwrap_or(Value::Null);
    fetch["next_visit"] =
        json!({ "at": next.at, "in_s": next.at.map(|at| at.since(now).as_secs()), "why": next.why });
    fetch
}

fn print(report: &FeedReport) -> anyhow::Result<()> {
    let paint = Paint::for_stdout();
    out::stdout_line(&paint.bold(&safe(&report.input)))?;
    if let Some(fetch) = &report.fetch {
        print_fetch(fetch, paint)?;
    }
    if let Some(failure) = &report.error {
        out::stdout_line(&failure_line(failure, paint))?;
    }
    if let (Some(format), Some(encoding), Some(feed)) = (report.format, &report.encoding, &report.feed) {
        let title = safe(feed.title.as_deref().unwrap_or("(no title)"));
        let encoding = format!("{} (by {})", encoding.name, encoding.decided_by.as_str());
        let items = out::count(report.items.len(), "item");
        out::stdout_line(&format!("  {}  {format}, {encoding}, {items}", paint.good(&title)))?;
    }
    for warning in &report.warnings {
        let position = match (warning.line, warning.column) {
            (Some(line), Some(column)) => format!("{line}:{column}: "),
            (Some(line), None) => format!("{line}: "),
            _ => String::new(),
        };
        out::stdout_line(&format!("  warning: {position}{}", safe(&warning.message)))?;
    }
    for item in &report.items {
        let time = item.published.map_or("no date             ".to_owned(), |t| t.to_string());
        out::stdout_line(&format!("  {}  {}", paint.dim(&time), safe(&item.title)))?;
        if let Some(link) = &item.link {
            out::stdout_line(&format!("                        {}", paint.dim(&safe(link))))?;
        }
    }
    Ok(())
}

/// Why an input has no document, with the remedy at its end.
fn failure_line(FeedFailure { kind, message }: &FeedFailure, paint: Paint) -> String {
    format!("  {} {}", paint.bad(&format!("{kind}:")), whole(message))
}

fn print_fetch(fetch: &Value, paint: Paint) -> anyhow::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => safe(text),
        Value::Null => "-".to_owned(),
        other => safe(&other.to_string()),
    };
    let timings = &fetch["timings"];
    out::stdout_line(&format!(
        "  status {} from {}, {} bytes in {} ms (dns {}, connect {}, tls {}, first byte {}, body {})",
        text(&fetch["status"]),
        text(&fetch["remote"]),
        text(&fetch["body_bytes"]),
        text(&timings["total_ms"]),
        text(&timings["dns_ms"]),
        text(&timings["connect_ms"]),
        text(&timings["tls_ms"]),
        text(&timings["first_byte_ms"]),
        text(&timings["body_ms"]),
    ))?;
    for hop in fetch["redirects"].as_array().into_iter().flatten() {
        out::stdout_line(&format!(
            "  {} {} -> {}",
            text(&hop["code"]),
            text(&hop["from"]),
            text(&hop["to"])
        ))?;
    }
    if let Some(expired) = fetch["certificate_expired"].as_str() {
        out::stdout_line(&format!(
            "  warning: the certificate of the server expired at {}, and is trusted only because it is in tls_ca_file",
            safe(expired)
        ))?;
    }
    for (name, value) in fetch["headers"].as_object().into_iter().flatten() {
        out::stdout_line(&paint.dim(&format!("  {}: {}", safe(name), text(value))))?;
    }
    let next = &fetch["next_visit"];
    let wait =
        next["in_s"].as_i64().map(|s| span(Timestamp::from_millis(0), Timestamp::from_millis(s * 1000)));
    let wait = wait.map_or("never".to_owned(), |wait| format!("in {wait}"));
    let why = next["why"].as_str().map(out::reason).unwrap_or_default();
    out::stdout_line(&format!("  next visit {wait}: {why}"))?;
    print_daemon(&fetch["daemon"])
}

/// What the running daemon said about a source of the list.
fn print_daemon(daemon: &Value) -> anyhow::Result<()> {
    let Value::Object(known) = daemon else { return Ok(()) };
    let text = |key: &str| known.get(key).and_then(Value::as_str).map(whole);
    let at = text("next_visit").map_or("none".to_owned(), |at| format!("at {at}"));
    let why = text("waiting_for").or_else(|| text("why")).unwrap_or_default();
    out::stdout_line(&format!("  newswire-ingestd: next visit {at}: {why}"))?;
    match text("last_error") {
        Some(error) => {
            let failures = known.get("consecutive_failures").and_then(Value::as_u64).unwrap_or_default();
            Ok(out::stdout_line(&format!(
                "  newswire-ingestd: {failures} failures in a row, the last: {error}"
            ))?)
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::tests::origin;

    #[tokio::test]
    async fn the_failure_of_a_redirect_is_not_hidden_by_the_next_address() {
        let visitor = Visitor::try_new(Policy { allow_private: true, ..Policy::default() }).unwrap();
        for (first, requested, is_found) in [("/dead", &["/dead"][..], false), ("", &["/feed"], true)] {
            let (base, log) = origin().await;
            // The counterpart has no server itself.
            let first = if is_found { "http://127.0.0.1:1/".to_owned() } else { format!("{base}{first}") };
            let urls = [first, format!("{base}/feed")].map(|url| FeedUrl::try_new(&url).unwrap());
            let checked = check_addresses(&urls, &visitor, IntervalBounds::default()).await;
            assert_eq!(*log.lock().unwrap(), requested);
            let failure = checked.error.map(|failure| failure.kind);
            assert_eq!(failure.as_deref(), (!is_found).then_some("connect"));
        }
    }
}
