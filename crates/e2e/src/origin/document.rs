//! The documents that the origin serves: one template per format, newest entry first, as publishers do it.

/// The format of a served feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// RSS 2.0.
    Rss,
    /// Atom 1.0.
    Atom,
    /// JSON Feed 1.1.
    Json,
}

impl DocumentFormat {
    /// The formats in turn, for numbered feeds.
    #[must_use]
    pub fn of(number: usize) -> Self {
        [Self::Rss, Self::Atom, Self::Json][number % 3]
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Rss => "application/rss+xml",
            Self::Atom => "application/atom+xml",
            Self::Json => "application/feed+json",
        }
    }
}

/// One article.
#[derive(Clone, Debug)]
pub(super) struct FeedEntry {
    pub(super) guid: String,
    pub(super) title: String,
    link: String,
    /// Seconds after midnight of the day on which everything here is published.
    second: u64,
}

impl FeedEntry {
    pub(super) fn new(feed: &str, number: u64, title: &str) -> Self {
        Self {
            guid: format!("urn:newswire-test:{feed}:{number}"),
            title: title.to_owned(),
            link: format!("https://{feed}.example/articles/{number}"),
            second: number % 86_400,
        }
    }

    fn clock(&self) -> String {
        clock(self.second)
    }
}

/// `hh:mm:ss`.
pub(super) fn clock(second: u64) -> String {
    format!("{:02}:{:02}:{:02}", second / 3600 % 24, second / 60 % 60, second % 60)
}

/// The feed with these entries (oldest first), as its publisher would send it.
pub(super) fn write(format: DocumentFormat, feed: &str, entries: &[FeedEntry]) -> String {
    match format {
        DocumentFormat::Rss => rss(feed, entries),
        DocumentFormat::Atom => atom(feed, entries),
        DocumentFormat::Json => json(feed, entries),
    }
}

fn rss(feed: &str, entries: &[FeedEntry]) -> String {
    let items: String = entries
        .iter()
        .rev()
        .map(|entry| {
            format!(
                "<item><title>{title}</title><link>{}</link><guid isPermaLink=\"false\">{}</guid>\
                 <pubDate>Sat, 31 Jan 2026 {} GMT</pubDate><description>About {title}</description></item>\n",
                entry.link,
                entry.guid,
                entry.clock(),
                title = escaped(&entry.title),
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\"><channel><title>{feed}</title>\
         <link>https://{feed}.example/</link><description>News of {feed}</description>\n{items}</channel></rss>\n"
    )
}

fn atom(feed: &str, entries: &[FeedEntry]) -> String {
    let updated = entries.last().map_or_else(|| clock(0), FeedEntry::clock);
    let items: String = entries
        .iter()
        .rev()
        .map(|entry| {
            format!(
                "<entry><title>{title}</title><link href=\"{}\"/><id>{}</id><updated>2026-01-31T{}Z</updated>\
                 <summary>About {title}</summary></entry>\n",
                entry.link,
                entry.guid,
                entry.clock(),
                title = escaped(&entry.title),
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\
         <title>{feed}</title><id>urn:newswire-test:{feed}</id><link href=\"https://{feed}.example/\"/>\
         <updated>2026-01-31T{updated}Z</updated>\n{items}</feed>\n"
    )
}

fn json(feed: &str, entries: &[FeedEntry]) -> String {
    let items: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| {
            serde_json::json!({
                "id": entry.guid, "url": entry.link, "title": entry.title,
                "content_text": format!("About {}", entry.title),
                "date_published": format!("2026-01-31T{}Z", entry.clock()),
            })
        })
        .collect();
    serde_json::json!({
        "version": "https://jsonfeed.org/version/1.1", "title": feed,
        "home_page_url": format!("https://{feed}.example/"), "items": items,
    })
    .to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
