//! `newswire up --demo`: local feeds that publish plausible news every few seconds. One is slow, one never answers, one is
//! broken. A new user without a network sees newswire at work, and that bad feeds do not delay the others.
//!
//! Every feed is a pure function of the time since the start: nothing is stored, and `304` is sent only if it is true.

use std::{
    fmt::Write as _,
    hash::{Hash as _, Hasher as _},
    io,
    net::TcpListener,
    path::PathBuf,
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::header, web};
use anyhow::Context as _;
use daemon::Clock;
use news::Timestamp;
use tempfile::TempDir;

/// The running demo; stops when dropped.
pub(crate) struct Demo {
    server: ServerHandle,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    directory: TempDir,
}

/// How a feed behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedBehaviour {
    Good,
    /// Answers late.
    Slow,
    /// Accepts the connection and never answers.
    Hanging,
    /// Sends a web page, or half a feed.
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum DemoFormat {
    Rss2,
    Rss1,
    Atom,
    Json,
}

#[derive(Clone, Copy, Debug)]
struct DemoFeed {
    id: &'static str,
    name: &'static str,
    category: &'static str,
    country: &'static str,
    format: DemoFormat,
    behaviour: FeedBehaviour,
    /// Seconds between two items.
    period_s: i64,
    /// Subjects, verbs, objects.
    words: [&'static [&'static str]; 3],
}

const POLITICS: [&[&str]; 3] = [
    &["Parliament", "The coalition", "The mayor", "The finance committee", "A court", "The opposition"],
    &["approves", "postpones", "debates", "rejects", "publishes", "reopens"],
    &[
        "the ferry budget",
        "a new library law",
        "the tram extension",
        "its own pay rise",
        "the harbour treaty",
    ],
];
const SCIENCE: [&[&str]; 3] = [
    &["A small telescope", "The polar expedition", "A student team", "The ocean survey", "An old probe"],
    &["finds", "measures", "loses sight of", "photographs", "explains"],
    &["a quiet comet", "ice from 40,000 winters", "a shy octopus", "the hum of the seabed", "a missing moon"],
];
const BUSINESS: [&[&str]; 3] = [
    &["The tea exchange", "A bicycle maker", "The central bank", "A chip plant", "The grain market"],
    &["raises", "halves", "pauses", "doubles", "surprises with"],
    &["its forecast", "the night shift", "interest rates", "its dividend", "the price of oats"],
];
const SPORT: [&[&str]; 3] = [
    &[
        "The underdogs",
        "A veteran goalkeeper",
        "The national team",
        "A 16-year-old climber",
        "The relay squad",
    ],
    &["won", "survived", "delayed", "celebrated", "protested"],
    &["the derby in the rain", "a record final", "the last stage", "extra time", "the opening match"],
];

const fn feed(
    [id, name, category, country]: [&'static str; 4],
    format: DemoFormat,
    behaviour: FeedBehaviour,
    period_s: i64,
    words: [&'static [&'static str]; 3],
) -> DemoFeed {
    DemoFeed { id, name, category, country, format, behaviour, period_s, words }
}

const FEEDS: [DemoFeed; 8] = [
    feed(
        ["harbour-times", "Harbour Times", "politics", "NO"],
        DemoFormat::Rss2,
        FeedBehaviour::Good,
        5,
        POLITICS,
    ),
    feed(["alpine-post", "Alpine Post", "world", "CH"], DemoFormat::Atom, FeedBehaviour::Good, 7, POLITICS),
    feed(
        ["orbit-weekly", "Orbit Weekly", "science", "JP"],
        DemoFormat::Rss1,
        FeedBehaviour::Good,
        9,
        SCIENCE,
    ),
    feed(
        ["market-ticker", "Market Ticker", "business", "GB"],
        DemoFormat::Json,
        FeedBehaviour::Good,
        6,
        BUSINESS,
    ),
    feed(["final-whistle", "Final Whistle", "sport", "BR"], DemoFormat::Rss2, FeedBehaviour::Good, 8, SPORT),
    feed(["slow-gazette", "Slow Gazette", "world", "IE"], DemoFormat::Rss2, FeedBehaviour::Slow, 11, SCIENCE),
    feed(
        ["silent-herald", "Silent Herald", "world", "FR"],
        DemoFormat::Rss2,
        FeedBehaviour::Hanging,
        5,
        POLITICS,
    ),
    feed(
        ["broken-bugle", "Broken Bugle", "business", "US"],
        DemoFormat::Rss2,
        FeedBehaviour::Broken,
        5,
        BUSINESS,
    ),
];

/// Items in a document.
const ITEMS: i64 = 12;
/// How late the slow feed answers.
const SLOWNESS: Duration = Duration::from_secs(4);
/// One in this many items is corrected after [`CORRECTED_AFTER_S`].
const CORRECTED_EVERY: i64 = 6;
/// Age at which an item is corrected, in seconds.
const CORRECTED_AFTER_S: i64 = 12;

impl Demo {
    /// Starts the feeds on a loopback port and writes a list of sources for them.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("newswire-demo-").tempdir().context("create a directory")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on the loopback interface")?;
        let port = listener.local_addr()?.port();
        std::fs::write(directory.path().join("sources.toml"), sources(port))
            .context("write the list of sources")?;
        let clock = Clock::system();
        // As if the demo had run for a minute, so that the first visit finds items.
        let start = clock.now_millis() / 1000 - 60;
        let (handles, handle) = std::sync::mpsc::sync_channel(1);
        let serve = move || {
            actix_web::rt::System::new().block_on(async move {
                let app = move || {
                    let origin = web::Data::new((clock.clone(), start));
                    App::new().app_data(origin).route("/{id}", web::get().to(answer))
                };
                let server =
                    HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0).listen(listener)?;
                let server = server.run();
                handles.send(server.handle()).ok();
                server.await
            })
        };
        let thread = std::thread::Builder::new().name("demo".into()).spawn(serve)?;
        let server = handle.recv().context("the demo's server did not start")?;
        Ok(Self { server, thread: Some(thread), directory })
    }

    /// The configuration of the daemons for the demo, as keys and values.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        vec![
            ("daemon.run_dir", path("run").display().to_string()),
            ("store.path", path("data").display().to_string()),
            ("ingestd.sources", path("sources.toml").display().to_string()),
            ("fetch.allow", "127.0.0.0/8".to_owned()),
            ("fetch.interval_min", "2s".to_owned()),
            ("fetch.host_spacing", "0s".to_owned()),
            ("fetch.host_in_flight", "16".to_owned()),
        ]
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Not awaited: the server's own thread stops it.
        drop(self.server.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn sources(port: u16) -> String {
    let mut text = String::new();
    for feed in FEEDS {
        let DemoFeed { id, name, category, country, .. } = feed;
        let timeout = if feed.behaviour == FeedBehaviour::Hanging { "timeout = \"8s\"\n" } else { "" };
        write!(
            text,
            "[[source]]\nid = \"{id}\"\nurl = \"http://127.0.0.1:{port}/{id}\"\nname = \"{name}\"\n\
             category = \"{category}\"\ncountry = \"{country}\"\nlanguage = \"en\"\ntags = [\"demo\"]\n\
             every = \"3s\"\n{timeout}\n"
        )
        .expect("writing to a String cannot fail");
    }
    text
}

async fn answer(
    request: HttpRequest,
    id: web::Path<String>,
    origin: web::Data<(Clock, i64)>,
) -> HttpResponse {
    let (clock, start) = origin.get_ref();
    let Some(feed) = FEEDS.iter().find(|feed| feed.id == id.as_str()) else {
        return HttpResponse::NotFound().finish();
    };
    match feed.behaviour {
        FeedBehaviour::Slow => tokio::time::sleep(SLOWNESS).await,
        FeedBehaviour::Hanging => std::future::pending().await,
        FeedBehaviour::Good | FeedBehaviour::Broken => {}
    }
    let elapsed = clock.now_millis() / 1000 - start;
    let (kind, mut body) = feed.render(*start, elapsed);
    if feed.behaviour == FeedBehaviour::Broken {
        if elapsed / 20 % 2 == 0 {
            let page = "<!doctype html><title>We will be back soon</title><p>Maintenance.";
            return HttpResponse::Ok().content_type("text/html").body(page);
        }
        body.truncate(body.len() / 2);
        return HttpResponse::Ok().content_type(kind).body(body);
    }
    let etag = format!("\"{:x}\"", hash(&body));
    if request.headers().get("if-none-match").is_some_and(|ours| ours.as_bytes() == etag.as_bytes()) {
        return HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish();
    }
    HttpResponse::Ok().content_type(kind).insert_header((header::ETAG, etag)).body(body)
}

fn hash(body: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// One made-up article.
struct Article {
    number: i64,
    title: String,
    summary: String,
    published: Timestamp,
    link: String,
}

impl DemoFeed {
    /// The articles of the document, newest first.
    fn articles(&self, start: i64, elapsed: i64) -> Vec<Article> {
        let newest = elapsed / self.period_s;
        let oldest = (newest - ITEMS + 1).max(0);
        (oldest..=newest).rev().map(|number| self.article(start, elapsed, number)).collect()
    }

    fn article(&self, start: i64, elapsed: i64, number: i64) -> Article {
        // A pseudo-random choice that is the same at every visit.
        let pick = |words: &'static [&'static str], step: i64| {
            let index = (number * step + number / 7 + step).rem_euclid(words.len() as i64);
            words[usize::try_from(index).unwrap_or(0)]
        };
        let [subjects, verbs, objects] = self.words;
        let (subject, verb, object) = (pick(subjects, 5), pick(verbs, 7), pick(objects, 3));
        let appeared = number * self.period_s;
        let corrected = number % CORRECTED_EVERY == 0 && elapsed >= appeared + CORRECTED_AFTER_S;
        let correction = if corrected { " (corrected)" } else { "" };
        Article {
            number,
            title: format!("{subject} {verb} {object}{correction}"),
            summary: format!(
                "{subject} {verb} {object}, {} reports in its story number {number}.",
                self.name
            ),
            published: Timestamp::from_millis((start + appeared) * 1000),
            link: format!("https://{}.example/stories/{number}", self.id),
        }
    }

    fn render(&self, start: i64, elapsed: i64) -> (&'static str, String) {
        let articles = self.articles(start, elapsed);
        match self.format {
            DemoFormat::Rss2 => ("application/rss+xml", self.rss2(&articles)),
            DemoFormat::Rss1 => ("application/rdf+xml", self.rss1(&articles)),
            DemoFormat::Atom => ("application/atom+xml", self.atom(&articles)),
            DemoFormat::Json => ("application/feed+json", self.json(&articles)),
        }
    }

    fn rss2(&self, articles: &[Article]) -> String {
        let items: String = articles
            .iter()
            .map(|a| {
                format!(
                    "<item><title>{}</title><link>{}</link><guid>{}</guid><dc:date>{}</dc:date>\
                     <description>{}</description></item>\n",
                    a.title, a.link, a.link, a.published, a.summary
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<rss version=\"2.0\" \
             xmlns:dc=\"http://purl.org/dc/elements/1.1/\"><channel><title>{0}</title>\
             <link>https://{1}.example/</link><description>{0}, made up</description>\n{items}</channel></rss>\n",
            self.name, self.id
        )
    }

    fn rss1(&self, articles: &[Article]) -> String {
        let items: String = articles
            .iter()
            .map(|a| {
                format!(
                    "<item rdf:about=\"{}\"><title>{}</title><link>{}</link><dc:date>{}</dc:date>\
                     <description>{}</description></item>\n",
                    a.link, a.title, a.link, a.published, a.summary
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
             <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\" xmlns=\"http://purl.org/rss/1.0/\" \
             xmlns:dc=\"http://purl.org/dc/elements/1.1/\"><channel rdf:about=\"https://{1}.example/\">\
             <title>{0}</title><link>https://{1}.example/</link><description>{0}, made up</description></channel>\n\
             {items}</rdf:RDF>\n",
            self.name, self.id
        )
    }

    fn atom(&self, articles: &[Article]) -> String {
        let updated = articles.first().map_or(Timestamp::from_millis(0), |a| a.published);
        let entries: String = articles
            .iter()
            .map(|a| {
                format!(
                    "<entry><id>{}</id><title>{}</title><link href=\"{}\"/><published>{}</published>\
                     <updated>{}</updated><summary>{}</summary></entry>\n",
                    a.link, a.title, a.link, a.published, a.published, a.summary
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\
             <id>https://{1}.example/</id><title>{0}</title><link href=\"https://{1}.example/\"/>\
             <updated>{updated}</updated>\n{entries}</feed>\n",
            self.name, self.id
        )
    }

    fn json(&self, articles: &[Article]) -> String {
        let item = |a: &Article| {
            serde_json::json!({
                "id": a.number.to_string(), "url": a.link, "title": a.title, "content_text": a.summary,
                "date_published": a.published,
            })
        };
        serde_json::json!({
            "version": "https://jsonfeed.org/version/1.1",
            "title": self.name,
            "home_page_url": format!("https://{}.example/", self.id),
            "items": articles.iter().map(item).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_demo_feed_parses_without_warnings_and_keeps_its_guids() {
        for feed in FEEDS {
            let read = |elapsed| {
                let (kind, body) = feed.render(1_800_000_000, elapsed);
                let hints = feed::Hints { content_type: Some(kind), ..feed::Hints::default() };
                feed::read(body.as_bytes(), &hints).unwrap()
            };
            let (first, later) = (read(100), read(100 + feed.period_s));
            assert!(first.warnings.is_empty() && !first.damaged, "{}: {:?}", feed.id, first.warnings);
            assert!(first.items.iter().all(|i| i.published.is_some() && !i.title.is_empty()), "{}", feed.id);
            // A title may change meanwhile, and with it the key that a new item would get.
            assert!(first.items[0].guid.is_some(), "{}", feed.id);
            assert_eq!(first.items[0].guid, later.items[1].guid, "{}", feed.id);
            assert_ne!(first.items[0].guid, later.items[0].guid, "{}", feed.id);
        }
    }

    #[test]
    fn the_list_of_the_demo_is_a_catalogue() {
        assert_eq!(news::Catalogue::parse(&sources(8080)).unwrap().sources.len(), FEEDS.len());
    }
}
