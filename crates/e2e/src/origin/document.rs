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
    /// Seconds after the midnight at which the origin began to publish.
    second: u64,
    /// The size of its text; 0 if it has only a summary.
    article_bytes: usize,
}

impl FeedEntry {
    pub(super) fn new(feed: &str, number: u64, title: &str, article_bytes: usize) -> Self {
        Self {
            guid: format!("urn:newswire-test:{feed}:{number}"),
            title: title.to_owned(),
            link: format!("https://{feed}.example/articles/{number}"),
            second: number,
            article_bytes,
        }
    }

    /// About its bytes in a document.
    pub(super) fn bytes(&self) -> usize {
        500 + self.article_bytes
    }

    /// When it was published, as in Atom.
    fn timestamp(&self) -> String {
        let (_, month, day) = date(self.second);
        format!("2026-{month:02}-{day:02}T{}Z", clock(self.second))
    }

    /// When it was published, as in RSS.
    fn rfc822(&self) -> String {
        let (weekday, month, day) = date(self.second);
        let month = if month == 1 { "Jan" } else { "Feb" };
        format!("{weekday}, {day:02} {month} 2026 {} GMT", clock(self.second))
    }

    /// Words that differ from those of other entries, as HTML.
    fn article(&self) -> String {
        const WORDS: [&str; 8] =
            ["river", "council", "harbour", "winter", "bridge", "letter", "engine", "garden"];
        let mut text = String::with_capacity(self.article_bytes + 16);
        let mut state = self.second.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        text.push_str("<p>");
        while text.len() < self.article_bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = usize::try_from(state >> 61).unwrap_or_default();
            text.push_str(WORDS[word]);
            text.push(' ');
        }
        text.push_str("</p>");
        text
    }
}

/// Weekday, month and day. The first day is the last one of January.
fn date(second: u64) -> (&'static str, u64, u64) {
    const WEEKDAYS: [&str; 7] = ["Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"];
    let days = second / 86_400;
    let weekday = WEEKDAYS[usize::try_from(days % 7).unwrap_or_default()];
    if days == 0 { (weekday, 1, 31) } else { (weekday, 2, days.min(28)) }
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
                 <pubDate>{}</pubDate><description>About {title}</description>{}</item>\n",
                entry.link,
                entry.guid,
                entry.rfc822(),
                element("content:encoded", "", entry),
                title = escaped(&entry.title),
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\">\
         <channel><title>{feed}</title>\
         <link>https://{feed}.example/</link><description>News of {feed}</description>\n{items}</channel></rss>\n"
    )
}

fn atom(feed: &str, entries: &[FeedEntry]) -> String {
    let updated = entries.last().map_or_else(|| "2026-01-31T00:00:00Z".to_owned(), FeedEntry::timestamp);
    let items: String = entries
        .iter()
        .rev()
        .map(|entry| {
            format!(
                "<entry><title>{title}</title><link href=\"{}\"/><id>{}</id><updated>{}</updated>\
                 <summary>About {title}</summary>{}</entry>\n",
                entry.link,
                entry.guid,
                entry.timestamp(),
                element("content", " type=\"html\"", entry),
                title = escaped(&entry.title),
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\
         <title>{feed}</title><id>urn:newswire-test:{feed}</id><link href=\"https://{feed}.example/\"/>\
         <updated>{updated}</updated>\n{items}</feed>\n"
    )
}

fn json(feed: &str, entries: &[FeedEntry]) -> String {
    let items: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| {
            let mut item = serde_json::json!({
                "id": entry.guid, "url": entry.link, "title": entry.title,
                "date_published": entry.timestamp(),
            });
            let summary = format!("About {}", entry.title);
            if entry.article_bytes == 0 {
                item["content_text"] = summary.into();
            } else {
                (item["summary"], item["content_html"]) = (summary.into(), entry.article().into());
            }
            item
        })
        .collect();
    serde_json::json!({
        "version": "https://jsonfeed.org/version/1.1", "title": feed,
        "home_page_url": format!("https://{feed}.example/"), "items": items,
    })
    .to_string()
}

/// The text of an entry as an element; nothing if it has none.
fn element(name: &str, attributes: &str, entry: &FeedEntry) -> String {
    if entry.article_bytes == 0 {
        return String::new();
    }
    format!("<{name}{attributes}>{}</{name}>", escaped(&entry.article()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
