//! Canonical RSS and Atom, parsed by `rss` and `atom_syndication`.

use std::time::Duration;

use news::{Author, Timestamp};
use url::Url;

use super::{Context, HtmlMode, Parsed, RawItem, assemble::assemble, kept};
use crate::{
    document::{Days, FeedInfo, Hints, Hours, Rhythm},
    html::{first_image, resolve, web_url},
    limits::{ITEMS_KEPT_MAX, SUMMARY_BYTES_MAX, TITLE_BYTES_MAX},
    normalise::{CONTENT_REL, FeedExtras, FeedLink, FeedText, ItemExtras, Normalised, ORIGINAL_REL},
    text::fold,
};

/// Reads a normalised document.
///
/// # Errors
/// The error of the crate that rejected it. A normalised document is never rejected, which fuzzing checks.
pub(crate) fn read_xml(normal: Normalised<'_>, hints: &Hints<'_>, html: HtmlMode) -> Result<Parsed, String> {
    if normal.format.is_atom() { read_atom(normal, hints, html) } else { read_rss(normal, hints, html) }
}

fn read_rss(normal: Normalised<'_>, hints: &Hints<'_>, html: HtmlMode) -> Result<Parsed, String> {
    let mut channel = rss::Channel::read_from(normal.xml.as_bytes()).map_err(|e| e.to_string())?;
    let side = normal.feed;
    let own = std::iter::once(channel.link.as_str()).filter(|l| !l.is_empty());
    let base = side.base.as_deref().or(hints.url);
    let link = own.chain(page_links(&side.links)).find_map(|l| web_url(l, base));
    let feed_language = channel.language.take().or(side.language.clone());
    let feed = FeedInfo {
        title: some(FeedText::html(channel.title.as_str()).title(TITLE_BYTES_MAX)),
        description: some(FeedText::html(channel.description.as_str()).line(SUMMARY_BYTES_MAX)),
        updated: instant(channel.last_build_date()).or(instant(channel.pub_date())),
        image: side
            .images
            .iter()
            .find_map(|i| web_url(i, base))
            .or_else(|| first_image(&channel.description, base)),
        ttl_s: channel.ttl().and_then(minutes).map(|d| d.as_secs()),
        hub: linked(&side.links, "hub", base),
        self_url: linked(&side.links, "self", base),
        language: feed_language.as_deref().map(|l| fold(l, 64)).and_then(some),
        link,
    };
    // If the page is on another site, publishers mean relative URLs to be relative to the page.
    let site =
        side.base.as_deref().cloned().or_else(|| resolve(feed.link.as_deref()?, None)).or(hints.url.cloned());
    let language = feed.language.as_deref().or(hints.language);
    let context = Context { site: site.as_ref(), language, html };
    let (rhythm, rhythm_warnings) = rhythm_of(&channel, side.update_period.as_deref());
    let items = std::mem::take(&mut channel.items);
    let (items, dropped) = items_of(items, normal.items, rss_item, rss_date, &context);
    Ok(Parsed { feed, items, rhythm, rhythm_warnings, dropped })
}

fn read_atom(normal: Normalised<'_>, hints: &Hints<'_>, html: HtmlMode) -> Result<Parsed, String> {
    let mut atom = atom_syndication::Feed::read_from(normal.xml.as_bytes()).map_err(|e| e.to_string())?;
    let FeedExtras { updated, images, links, language: feed_language, base, .. } = normal.feed;
    let base = base.as_deref().or(hints.url);
    let feed = FeedInfo {
        title: some(atom_text(&mut atom.title).title(TITLE_BYTES_MAX)),
        link: page_links(&links).find_map(|l| web_url(l, base)),
        description: atom.subtitle.as_mut().map(|s| atom_text(s).line(SUMMARY_BYTES_MAX)).and_then(some),
        language: feed_language.map(|l| fold(&l, 64)).and_then(some),
        updated,
        image: images.iter().find_map(|i| web_url(i, base)),
        ttl_s: None,
        hub: linked(&links, "hub", base),
        self_url: linked(&links, "self", base),
    };
    // RFC 4287 section 4.2.1: an entry without an author has those of its feed.
    let authors: Vec<Author> = atom.authors.drain(..).map(person).collect();
    // A document that came from nowhere says itself where it belongs.
    let self_link = || links.iter().find(|l| l.rel == "self").and_then(|l| resolve(&l.href, None));
    let site = base.cloned().or_else(self_link).or_else(|| resolve(feed.link.as_deref()?, None));
    let language = feed.language.as_deref().or(hints.language);
    let context = Context { site: site.as_ref(), language, html };
    let entries = std::mem::take(&mut atom.entries);
    let entry = |entry, side| {
        let mut raw = atom_entry(entry, side);
        if raw.authors.is_empty() {
            raw.authors.clone_from(&authors);
        }
        raw
    };
    let (items, dropped) = items_of(entries, normal.items, entry, atom_date, &context);
    Ok(Parsed { feed, items, rhythm: Rhythm::default(), rhythm_warnings: Vec::new(), dropped })
}

/// Maps the items that are kept and counts the others.
fn items_of<'a, T>(
    found: Vec<T>,
    sides: Vec<ItemExtras<'a>>,
    map: impl Fn(T, ItemExtras<'a>) -> RawItem<'a>,
    date: impl Fn(&T, &ItemExtras<'a>) -> Option<Timestamp>,
    context: &Context<'_>,
) -> (Vec<news::Item>, usize) {
    debug_assert_eq!(found.len(), sides.len(), "one set of extras per item");
    let dates: Vec<_> = found.iter().zip(&sides).map(|(item, side)| date(item, side)).collect();
    let mut items = Vec::with_capacity(dates.len().min(ITEMS_KEPT_MAX));
    for ((item, side), kept) in found.into_iter().zip(sides).zip(kept(&dates)) {
        if let Some(part) = kept {
            items.push(news::Item { part, ..assemble(map(item, side), context) });
        }
    }
    let dropped = dates.len() - items.len();
    (items, dropped)
}

fn rss_date(item: &rss::Item, side: &ItemExtras<'_>) -> Option<Timestamp> {
    instant(item.pub_date()).or(side.updated)
}

fn atom_date(entry: &atom_syndication::Entry, side: &ItemExtras<'_>) -> Option<Timestamp> {
    entry.published.map(|d| d.to_utc().into()).or(side.updated)
}

fn rss_item(item: rss::Item, side: ItemExtras<'_>) -> RawItem<'_> {
    let mut authors: Vec<Author> = side.authors;
    if let Some(dublin) = &item.dublin_core_ext {
        let named = |name: &String| Author {
            name: some(FeedText::html(name.as_str()).line(TITLE_BYTES_MAX)),
            ..Author::default()
        };
        authors.extend(dublin.creators.iter().map(named));
    }
    let published = instant(item.pub_date());
    let (guid, guid_is_link) = match item.guid {
        Some(guid) => (Some(guid.value), guid.permalink),
        None => (None, false),
    };
    RawItem {
        guid,
        guid_is_link,
        title: item.title.map(FeedText::html),
        links: of_relation(&side.links, ORIGINAL_REL)
            .map(str::to_owned)
            .chain(item.link)
            .chain(page_links(&side.links).map(str::to_owned))
            .chain(side.permalink)
            .collect(),
        summary: side.summary,
        content: side.content,
        authors,
        categories: item.categories.into_iter().map(|c| FeedText::html(c.name)).collect(),
        published,
        updated: side.updated,
        language: side.language,
        images: side.images,
        // The crate keeps only one; the extras have all.
        enclosures: side.enclosures,
        captions: side.captions,
        comments: item.comments.or_else(|| replies(&side.links)),
        warnings: side.warnings,
        base: side.base,
        content_base: side.content_base,
    }
}

fn atom_entry(mut entry: atom_syndication::Entry, side: ItemExtras<'_>) -> RawItem<'_> {
    let (links, enclosures): (Vec<_>, Vec<_>) = entry.links.into_iter().partition(|l| l.rel != "enclosure");
    let links: Vec<FeedLink> = links.into_iter().map(link).collect();
    RawItem {
        guid: Some(entry.id),
        // An id is an IRI that need not lead anywhere, but without links it is the only address there is.
        guid_is_link: true,
        title: Some(atom_text(&mut entry.title)),
        links: of_relation(&links, ORIGINAL_REL)
            .chain(page_links(&links))
            .chain(of_relation(&links, CONTENT_REL))
            .map(str::to_owned)
            .collect(),
        summary: side.summary,
        content: side.content,
        authors: entry.authors.into_iter().map(person).collect(),
        categories: entry.categories.into_iter().map(|c| FeedText::plain(c.term)).collect(),
        published: entry.published.map(|d| d.to_utc().into()),
        // The crate returns 1970 if the feed has no date.
        updated: side.updated,
        language: side.language,
        images: side.images,
        enclosures: enclosures.into_iter().map(link).collect(),
        captions: side.captions,
        comments: replies(&links),
        warnings: side.warnings,
        base: side.base,
        content_base: side.content_base,
    }
}

fn atom_text(text: &mut atom_syndication::Text) -> FeedText<'static> {
    let value = std::mem::take(&mut text.value);
    if text.r#type == atom_syndication::TextType::Text {
        FeedText::plain(value)
    } else {
        FeedText::html(value)
    }
}

fn link(link: atom_syndication::Link) -> FeedLink {
    FeedLink { href: link.href, rel: link.rel, media_type: link.mime_type, length: link.length }
}

fn person(person: atom_syndication::Person) -> Author {
    Author { name: some(person.name), email: person.email, url: person.uri }
}

/// The links to the page (`alternate` or no relation), HTML first.
fn page_links(links: &[FeedLink]) -> impl Iterator<Item = &str> {
    let is_page = |l: &&FeedLink| l.rel.is_empty() || l.rel == "alternate";
    let is_html = |l: &FeedLink| l.media_type.as_deref().is_none_or(|t| t.contains("html"));
    let html = links.iter().filter(is_page).filter(move |l| is_html(l));
    let others = links.iter().filter(is_page).filter(move |l| !is_html(l));
    html.chain(others).map(|l| l.href.as_str())
}

fn of_relation<'l>(links: &'l [FeedLink], rel: &'static str) -> impl Iterator<Item = &'l str> {
    links.iter().filter(move |l| l.rel == rel).map(|l| l.href.as_str())
}

fn replies(links: &[FeedLink]) -> Option<String> {
    let is_page = |l: &&FeedLink| l.media_type.as_deref().is_none_or(|t| t.contains("html"));
    links.iter().filter(|l| l.rel == "replies").find(is_page).map(|l| l.href.clone())
}

/// The first link with this relation that is an `http` or `https` URL.
fn linked(links: &[FeedLink], rel: &str, base: Option<&Url>) -> Option<String> {
    links.iter().filter(|l| l.rel == rel).find_map(|l| web_url(&l.href, base))
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

/// Parses a date as the normaliser writes it.
fn instant(date: Option<&str>) -> Option<Timestamp> {
    date?.parse().ok()
}

fn minutes(text: &str) -> Option<Duration> {
    let minutes: u64 = text.trim().parse().ok()?;
    // At most a year.
    (1..=527_040).contains(&minutes).then(|| Duration::from_secs(minutes * 60))
}

/// From so many minutes on, a `ttl` of full ten minutes is one in seconds: 3600 never means 60 hours.
const TTL_SECONDS_MIN: u64 = 1800;

/// How long a feed asks not to be visited by its `ttl`, and a warning if that is not what the number says.
fn ttl_of(text: &str) -> (Option<Duration>, Option<String>) {
    let shown = fold(text, 16);
    match text.trim().parse::<u64>() {
        Ok(0) => (None, None),
        Ok(number) if number >= TTL_SECONDS_MIN && number.is_multiple_of(600) => {
            let warning = format!("the ttl {shown} is read as seconds; it should be in minutes");
            (Some(Duration::from_secs(number)), Some(warning))
        }
        _ => match minutes(text) {
            Some(ttl) => (Some(ttl), None),
            None => (None, Some(format!("the ttl \"{shown}\" is not a number of minutes, and is ignored"))),
        },
    }
}

/// The period of an `sy:updatePeriod`, in seconds.
fn period_s(word: &str) -> Option<u64> {
    Some(match word.trim().to_ascii_lowercase().as_str() {
        "hourly" => 3_600,
        "daily" => 86_400,
        "weekly" => 7 * 86_400,
        "monthly" => 30 * 86_400,
        "yearly" => 365 * 86_400,
        _ => return None,
    })
}

fn rhythm_of(channel: &rss::Channel, update_period: Option<&str>) -> (Rhythm, Vec<String>) {
    let (ttl, warning) = channel.ttl().map_or((None, None), ttl_of);
    let mut warnings: Vec<_> = warning.into_iter().collect();
    let mut rhythm = Rhythm { ttl, ..Rhythm::default() };
    for hour in channel.skip_hours() {
        // The specification allows 0 to 23, its example has 24.
        if let Some(hour) = hour.trim().parse::<u32>().ok().filter(|h| *h <= 24) {
            rhythm.skip_hours = Hours(rhythm.skip_hours.0 | 1 << (hour % 24));
        }
    }
    for day in channel.skip_days() {
        const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let day = day.trim().to_ascii_lowercase();
        if let Some(n) = DAYS.iter().position(|d| day.starts_with(d)) {
            rhythm.skip_days = Days(rhythm.skip_days.0 | 1 << n);
        }
    }
    rhythm.update_interval = channel.syndication_ext().and_then(|sy| {
        // The specification has a daily feed if the period is missing.
        let word = update_period.filter(|word| !word.trim().is_empty()).unwrap_or("daily");
        let period_s = period_s(word).or_else(|| {
            warnings.push(format!("the sy:updatePeriod \"{}\" is unknown, and is ignored", fold(word, 16)));
            None
        })?;
        Some(Duration::from_secs(period_s / u64::from(sy.frequency().max(1))))
    });
    (rhythm, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> (Rhythm, Vec<String>) {
        let text = format!(
            "<rss version='2.0' xmlns:sy='http://purl.org/rss/1.0/modules/syndication/'><channel><title>t</title>\
             {head}<item><title>i</title></item></channel></rss>"
        );
        let document = crate::read(text.as_bytes(), &Hints::default()).unwrap();
        (document.rhythm, document.warnings.into_iter().map(|warning| warning.message).collect())
    }

    #[test]
    fn a_ttl_in_seconds_or_always_is_no_ttl_in_minutes() {
        for (text, seconds, warns) in [
            ("60", Some(3_600), false),
            (" 1440 ", Some(86_400), false),
            ("2880", Some(172_800), false),
            ("10080", Some(604_800), false),
            ("1800", Some(1_800), true),
            ("3600", Some(3_600), true),
            ("86400", Some(86_400), true),
            ("0", None, false),
            ("always", None, true),
            ("-1", None, true),
            ("60 min", None, true),
            ("99999999", None, true),
        ] {
            let (rhythm, warnings) = read(&format!("<ttl>{text}</ttl>"));
            assert_eq!(rhythm.ttl, seconds.map(Duration::from_secs), "{text}");
            assert_eq!(warnings.iter().any(|warning| warning.contains("ttl")), warns, "{text}: {warnings:?}");
        }
        assert_eq!(read("").0, Rhythm::default());
    }

    #[test]
    fn an_update_period_that_is_unknown_is_ignored_and_not_daily() {
        for (period, seconds) in [("hourly", Some(3_600)), (" Weekly ", Some(604_800)), ("always", None)] {
            let (rhythm, warnings) = read(&format!("<sy:updatePeriod>{period}</sy:updatePeriod>"));
            assert_eq!(rhythm.update_interval, seconds.map(Duration::from_secs), "{period}");
            let warns = warnings.iter().any(|warning| warning.contains("sy:updatePeriod \"always\""));
            assert_eq!(warns, seconds.is_none(), "{period}: {warnings:?}");
        }
        assert_eq!(
            read("<sy:updateFrequency>2</sy:updateFrequency>").0.update_interval,
            Some(Duration::from_secs(43_200))
        );
    }
}
