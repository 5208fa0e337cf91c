//! `newswire check --diff OLD NEW`: what the daemon would send if a feed was OLD at its first visit and NEW at the next one,
//! and why. It decides with the daemon's own code (crate `seen`); nothing is stored.

use std::collections::HashSet;

use daemon::{Clock, Exit};
use news::{EventKind, Item, Timestamp, Warning};
use seen::{Classification, Classified, ItemStatus, SeenSet};
use serde::Serialize;

use super::FeedReport;
use crate::{
    discover::FeedFailure,
    out::{self, Paint, safe},
};

/// What one visit would send.
#[derive(Debug, Serialize)]
struct DiffReport {
    old: String,
    new: String,
    /// Events of each kind.
    sent: SentCounts,
    /// In the order of the document.
    items: Vec<ItemDiff>,
    /// Items of OLD that NEW does not have: nothing is sent for them.
    gone: Vec<GoneItem>,
    /// The guids of the source flap.
    flapping: bool,
    /// Updates were absorbed, because the source changes its items at most visits.
    damped: bool,
    warnings: Vec<Warning>,
    error: Option<FeedFailure>,
}

#[derive(Debug, Default, Serialize)]
struct SentCounts {
    items: usize,
    updates: usize,
}

#[derive(Debug, Serialize)]
struct ItemDiff {
    /// The event that is sent, if any.
    event: Option<EventKind>,
    status: &'static str,
    /// The sentence for people.
    why: String,
    /// The key that was published first.
    key: String,
    /// By what it was recognised.
    matched: Option<String>,
    /// What differs: guid, link, title, text or date.
    changed: Vec<&'static str>,
    guid: Option<String>,
    title: String,
    link: Option<String>,
    published: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize)]
struct GoneItem {
    key: String,
    title: String,
    link: Option<String>,
}

/// Prints the difference of each document to the one before it, as visits in a row.
pub(super) fn run(reports: Vec<FeedReport>, json: bool) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    let mut source = DiffSource::default();
    for report in reports {
        if report.error.is_some() {
            exit = Exit::Failure;
        }
        let Some(diff) = source.visit(report) else { continue };
        if json {
            out::stdout_line(&serde_json::to_string(&diff)?)?;
        } else {
            print(&diff)?;
        }
    }
    Ok(exit)
}

/// A source whose documents are the inputs.
#[derive(Debug, Default)]
struct DiffSource {
    seen: SeenSet,
    /// The input of the visit before.
    old: Option<String>,
    /// Why it could not be read.
    old_error: Option<FeedFailure>,
    /// The items of the last document.
    before: Vec<GoneItem>,
}

impl DiffSource {
    /// `None` for the first visit. A document that cannot be read changes nothing.
    fn visit(&mut self, report: FeedReport) -> Option<DiffReport> {
        let old = self.old.replace(report.input.clone());
        let old_error = std::mem::replace(&mut self.old_error, report.error.clone());
        let mut diff = DiffReport {
            old: old.clone().unwrap_or_default(),
            new: report.input,
            sent: SentCounts::default(),
            items: Vec::new(),
            gone: Vec::new(),
            flapping: false,
            damped: false,
            warnings: report.warnings,
            error: report.error.or(old_error),
        };
        if !report.items.is_empty() {
            let items = seen::oldest_first(report.items);
            let now = Timestamp::from_millis(Clock::system().now_millis());
            let classification = self.seen.classify(&items, now);
            diff.add(items, classification, &mut self.before);
        }
        old.map(|_| diff)
    }
}

impl DiffReport {
    fn add(&mut self, items: Vec<Item>, classification: Classification, before: &mut Vec<GoneItem>) {
        self.flapping = classification.flapping;
        self.damped = classification.count(ItemStatus::Absorbed) > 0;
        let items = items.into_iter().zip(classification.items).rev();
        self.items = items.map(|(item, classified)| ItemDiff::new(item, classified)).collect();
        let count = |kind| self.items.iter().filter(|item| item.event == Some(kind)).count();
        self.sent = SentCounts { items: count(EventKind::Item), updates: count(EventKind::Update) };
        let keys: HashSet<_> = self.items.iter().map(|item| item.key.as_str()).collect();
        self.gone = before.iter().filter(|item| !keys.contains(item.key.as_str())).cloned().collect();
        let here = |item: &ItemDiff| GoneItem {
            key: item.key.clone(),
            title: item.title.clone(),
            link: item.link.clone(),
        };
        *before = self.items.iter().map(here).collect();
    }
}

impl ItemDiff {
    fn new(item: Item, classified: Classified) -> Self {
        let Classified { status, key, matched, differs } = classified;
        let changed: Vec<_> = differs.names().collect();
        let matched = matched.map(|reason| reason.to_string());
        let by = matched.as_deref().unwrap_or_default();
        let what = changed.join(", ");
        let (event, status, why) = match status {
            ItemStatus::New => (Some(EventKind::Item), "new", "no earlier item is like it".to_owned()),
            ItemStatus::Changed { .. } => {
                let why = format!("recognised by {by}; changed: {what}");
                (Some(EventKind::Update), "changed", why)
            }
            ItemStatus::Known if changed.is_empty() => (None, "known", "unchanged".to_owned()),
            ItemStatus::Known => {
                let why = format!("recognised by {by}; title and text are the same, changed: {what}");
                (None, "known", why)
            }
            ItemStatus::Absorbed => {
                let why = format!("changed, as at most visits: {what}; such updates are absorbed");
                (None, "absorbed", why)
            }
            ItemStatus::Held => {
                let why = "new, but guids flap and the visit has many new items: it waits for the next one";
                (None, "held", why.to_owned())
            }
        };
        let Item { guid, title, link, published, .. } = item;
        Self { event, status, why, key, matched, changed, guid, title, link, published }
    }
}

fn print(diff: &DiffReport) -> anyhow::Result<()> {
    let paint = Paint::for_stdout();
    out::stdout_line(&paint.bold(&format!("{} -> {}", safe(&diff.old), safe(&diff.new))))?;
    if let Some(failure) = &diff.error {
        out::stdout_line(&super::failure_line(failure, paint))?;
    }
    let SentCounts { items, updates } = diff.sent;
    let nothing = diff.items.len() - items - updates;
    let gone = diff.gone.len();
    out::stdout_line(&format!(
        "  sent: {items} as item, {updates} as update; not sent: {nothing}; gone: {gone}"
    ))?;
    for (is_so, text) in [
        (diff.flapping, "guids or links flap: items are matched by link, title, text and date"),
        (diff.damped, "many items change at most visits: their updates are absorbed until it stops"),
    ] {
        if is_so {
            out::stdout_line(&format!("  {}", paint.bad(text)))?;
        }
    }
    for warning in &diff.warnings {
        out::stdout_line(&format!("  warning: {}", safe(&warning.message)))?;
    }
    for item in &diff.items {
        let event = format!("{:<8}", item.event.map_or("nothing", EventKind::as_str));
        let event = if item.event.is_some() { paint.good(&event) } else { paint.dim(&event) };
        let title = if item.title.is_empty() { "(no title)" } else { &item.title };
        out::stdout_line(&format!("  {event} {}", safe(title)))?;
        out::stdout_line(&format!("           {}", paint.dim(&format!("{}: {}", item.key, item.why))))?;
    }
    for item in &diff.gone {
        out::stdout_line(&format!("  {} {}", paint.dim("gone    "), safe(&item.title)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(input: &str, items: &[(&str, &str, &str)]) -> FeedReport {
        let items: String = items
            .iter()
            .map(|(guid, title, text)| {
                format!(
                    "<item><guid>{guid}</guid><link>http://x.example/{guid}</link><title>{title}</title>\
                     <description>{text}</description></item>"
                )
            })
            .collect();
        let rss = format!("<rss version=\"2.0\"><channel><title>t</title>{items}</channel></rss>");
        let read = feed::read(rss.as_bytes(), &feed::Hints::default()).map_err(FeedFailure::from);
        FeedReport::new(input, read, None)
    }

    #[test]
    fn the_difference_says_what_is_sent_and_why() {
        let mut source = DiffSource::default();
        let old = [("3", "Three", "c"), ("2", "Two", "b"), ("1", "One", "a")];
        assert!(source.visit(report("old", &old)).is_none());
        let new = [("4", "Four", "d"), ("3", "Three", "c, corrected"), ("two", "Two", "b")];
        let diff = source.visit(report("new", &new)).unwrap();
        let listed: Vec<_> = diff.items.iter().map(|item| (item.title.as_str(), item.status)).collect();
        assert_eq!(listed, [("Four", "new"), ("Three", "changed"), ("Two", "known")]);
        assert_eq!(diff.items[1].changed, ["text"]);
        assert_eq!(diff.items[1].matched.as_deref(), Some("guid + link + title"));
        assert_eq!(diff.items[2].changed, ["guid", "link"]);
        assert_eq!(diff.gone.iter().map(|item| item.title.as_str()).collect::<Vec<_>>(), ["One"]);
        assert_eq!((diff.sent.items, diff.sent.updates), (1, 1));
        let json = serde_json::to_value(&diff).unwrap();
        assert_eq!((&json["old"], &json["items"][1]["event"]), (&"old".into(), &"update".into()));
        assert!(json["error"].is_null() && json["items"][1]["why"].as_str().unwrap().contains("text"));
    }

    #[test]
    fn a_document_that_cannot_be_read_changes_nothing() {
        let mut source = DiffSource::default();
        let feed = [("1", "One", "a")];
        source.visit(report("1", &feed));
        let failed =
            FeedReport::new("2", Err(FeedFailure::new("unreadable", "cannot read".to_owned())), None);
        assert!(source.visit(failed).unwrap().error.is_some());
        let diff = source.visit(report("3", &feed)).unwrap();
        assert_eq!((diff.items[0].status, diff.old.as_str()), ("known", "2"));
        assert!(diff.error.is_some(), "the input before it could not be read");
    }

    #[test]
    fn visits_in_a_row_show_that_updates_are_absorbed() {
        let mut source = DiffSource::default();
        let mut visit = |n: usize| {
            let text = format!("Points: {n}");
            let items = ["1", "2", "3", "4"].map(|guid| (guid, "Title", text.as_str()));
            source.visit(report("feed", &items))
        };
        assert!(visit(0).is_none());
        assert_eq!(visit(1).unwrap().sent.updates, 4);
        let third = visit(2).unwrap();
        assert!((third.sent.updates, third.damped) == (0, true) && third.items[0].status == "absorbed");
    }
}
