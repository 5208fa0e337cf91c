//! `newswire tail`: items as they arrive. Comes back by itself and says when something was missed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, stop};
use news::{Cursor, Event, EventKind};
use url::Url;
use wire::{
    Coverage, Endpoint, ReceivedEvent, Resume, StreamOpened, Subscription, SubscriptionEvent,
    SubscriptionTiming,
};

use crate::{
    cli::{ConfigFile, UsageError},
    out::{self, Paint, safe},
};

/// Arguments of `newswire tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Gateway to listen to [default: gateway.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Only this category (repeatable)
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
    /// Only this source (repeatable)
    #[arg(long, value_name = "ID")]
    source: Vec<String>,
    /// Begin with what was recorded since then, such as 2h or 2026-01-31T09:30:00Z
    #[arg(long, value_name = "WHEN", conflicts_with = "after")]
    since: Option<String>,
    /// Begin after this event
    #[arg(long, value_name = "ID")]
    after: Option<Cursor>,
    /// File with the read token, where the gateway asks for one
    #[arg(long, value_name = "FILE", env = "NEWSWIRE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Items shown before the first live one.
const SNAPSHOT: &str = "10";
/// Gateways beat every ten seconds by default, and may be set to sixty.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(75);
/// Longest token, in bytes: what a gateway takes.
const TOKEN_BYTES_MAX: usize = 4096;

pub(crate) async fn run(arguments: TailArgs) -> anyhow::Result<Exit> {
    let base = match &arguments.url {
        Some(url) => url.clone(),
        None => {
            let listen = arguments.file.load()?.config.gateway.listen;
            Url::parse(&format!("http://{listen}/")).context("make a URL of gateway.listen")?
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
    let mut screen = Printer { json: arguments.json, paint: Paint::for_stdout(), lost: false, met: false };
    loop {
        tokio::select! {
            () = signals.stop.cancelled() => return Ok(Exit::Ok),
            signal = stream.next() => screen.show(signal, &endpoint)?,
        }
    }
}

/// A file, because what stands on a command line or in the environment can be read by others.
pub(crate) fn read_token(file: &Path) -> anyhow::Result<String> {
    let wrong = |why: String| UsageError(format!("{}: {why}", file.display()));
    let text =
        std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot read the token: {error}")))?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || token.contains(char::is_whitespace) {
        return Err(wrong(format!("one token of at most {TOKEN_BYTES_MAX} bytes is wanted")).into());
    }
    Ok(token.to_owned())
}

fn path(arguments: &TailArgs) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("kinds", "item,update");
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

struct Printer {
    json: bool,
    paint: Paint,
    /// The loss has been told of; repeats are not.
    lost: bool,
    /// There has been a stream before.
    met: bool,
}

impl Printer {
    fn show(&mut self, signal: SubscriptionEvent, endpoint: &Endpoint) -> anyhow::Result<()> {
        match signal {
            SubscriptionEvent::Event(incoming) => self.event(&incoming)?,
            SubscriptionEvent::Connected(hello) => self.connected(&hello, endpoint),
            SubscriptionEvent::Gap(missed) => {
                out::complain(&format!("newswire: missed {} events", missed.missed))
            }
            SubscriptionEvent::Lost { reason, .. } => {
                if !self.lost {
                    out::complain(&format!(
                        "newswire: no stream from {endpoint}: {}; trying again",
                        safe(&reason)
                    ));
                }
                self.lost = true;
            }
            SubscriptionEvent::Notice(..) | SubscriptionEvent::Heartbeat(_) => {}
        }
        Ok(())
    }

    fn connected(&mut self, hello: &StreamOpened, endpoint: &Endpoint) {
        let again = self.met;
        self.met = true;
        match hello.resume {
            Resume::Gap => {
                let missed = hello.missed.unwrap_or(0);
                out::complain(&format!("newswire: missed {missed} events that are no longer kept"));
            }
            Resume::Reset => out::complain("newswire: this is another log; starting afresh"),
            Resume::Exact if again && self.lost => {
                out::complain(&format!("newswire: {endpoint} is back, nothing missed"))
            }
            Resume::Exact | Resume::Live if self.lost => {
                out::complain(&format!("newswire: connected to {endpoint}"))
            }
            Resume::Exact | Resume::Live => {}
        }
        self.lost = false;
    }

    fn event(&self, incoming: &ReceivedEvent) -> anyhow::Result<()> {
        if self.json {
            let text = std::str::from_utf8(&incoming.json).context("an event that is no text")?;
            return Ok(out::line(text)?);
        }
        let event: Event = serde_json::from_slice(&incoming.json).context("an event that is none of ours")?;
        let time = event.item.published.unwrap_or(event.first_seen).to_string();
        let time = time.get(..16).unwrap_or(&time).replace('T', " ");
        let update = if event.kind == EventKind::Update { "(update) " } else { "" };
        let title = match event.item.title.as_str() {
            "" => safe(event.item.link.as_deref().unwrap_or("(no title)")),
            title => safe(title),
        };
        let paint = self.paint;
        let (time, source) = (paint.dim(&time), paint.name(&safe(&event.source_name)));
        out::line(&format!("{time}  {source}  {update}{}", paint.bold(&title)))?;
        if let Some(link) = &event.item.link {
            out::line(&format!("                  {}", paint.dim(&safe(link))))?;
        }
        Ok(())
    }
}
