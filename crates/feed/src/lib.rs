//! Steps 3, 4 and 5 of the life of an item: feed bytes to items.
//!
//! In order: `decode` turns bytes into text, `scan` enforces limits, `normalise` repairs the document and writes
//! canonical XML, `parse` reads that (or JSON) with the crates `rss` and `atom_syndication`, `identity` computes the key
//! of each item. `dates`, `html` and `text` are shared by them.
//!
//! Pure, total and bounded: any bytes have a result within [`limits`], in linear time and on a 2 MiB stack. Never here:
//! network, runtime, clock, panic.

mod dates;
mod decode;
mod document;
mod error;
mod html;
mod identity;
mod last_items;
pub mod limits;
mod normalise;
pub mod opml;
mod parse;
mod scan;
mod sniff;
mod text;
mod versions;

pub use decode::{Decided, Encoding};
pub use document::{Days, FeedDocument, FeedFormat, FeedInfo, Hints, Hours, Rhythm};
pub use error::FeedError;
pub use text::drop_forbidden;

use limits::DOCUMENT_BYTES_MAX;
use news::{Item, Warning};
use parse::{HtmlMode, Parsed};
use sniff::{DocumentKind, EmbeddedFeed};

/// Parses a feed from bytes and what is known about them.
///
/// # Errors
/// [`FeedError`] if the bytes are not a feed at all; a damaged feed is a [`FeedDocument`] with warnings.
pub fn read(bytes: &[u8], hints: &Hints<'_>) -> Result<FeedDocument, FeedError> {
    read_with(bytes, hints, HtmlMode::Sanitise)
}

/// Like [`read`], but without `content_html`: for benchmarks that exclude sanitising.
///
/// # Errors
/// As [`read`].
#[doc(hidden)]
pub fn read_without_html(bytes: &[u8], hints: &Hints<'_>) -> Result<FeedDocument, FeedError> {
    read_with(bytes, hints, HtmlMode::Omit)
}

fn read_with(bytes: &[u8], hints: &Hints<'_>, html: HtmlMode) -> Result<FeedDocument, FeedError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(FeedError::TooLarge { bytes: bytes.len(), bytes_max: DOCUMENT_BYTES_MAX });
    }
    if let Some(error) = sniff::binary_error(bytes) {
        return Err(error);
    }
    let (text, encoding) = decode::decode(bytes, hints.content_type)?;
    let kind = sniff::kind(&text);
    let whole = match kind {
        DocumentKind::Json => read_json(&decode::without_c1(&text), encoding, hints, html),
        DocumentKind::Xml => read_markup(&text, encoding, hints, html),
        DocumentKind::Html => Err(sniff::html_page_error(&text, hints.url)),
        DocumentKind::Empty | DocumentKind::Text => Err(sniff::no_root_error(&text)),
    };
    match whole {
        Err(e @ FeedError::NotAFeed { .. }) => match sniff::embedded_feed(&text) {
            Some(feed) => read_embedded(&text, &feed, encoding, hints, html).map_err(|inner| match inner {
                // What the document has is not a feed, but an example of one.
                FeedError::NotAFeed { .. } => e,
                _ if kind == DocumentKind::Json => e,
                other => other,
            }),
            None => Err(e),
        },
        other => other,
    }
}

/// Parses a feed inside other text.
fn read_embedded(
    text: &str,
    feed: &EmbeddedFeed<'_>,
    encoding: Encoding,
    hints: &Hints<'_>,
    html: HtmlMode,
) -> Result<FeedDocument, FeedError> {
    // Line ends are kept, so that warnings have the right lines.
    let mut rest: String = text[..feed.at].chars().filter(|c| *c == '\n').collect();
    rest.push_str(&feed.text);
    let read = if feed.is_json { read_json } else { read_markup };
    let mut document = read(&rest, encoding, hints, html)?;
    let message = "text before the feed was ignored".to_owned();
    document.warnings.insert(0, Warning { line: Some(1), column: Some(1), message });
    Ok(document)
}

fn read_json(
    text: &str,
    encoding: Encoding,
    hints: &Hints<'_>,
    html: HtmlMode,
) -> Result<FeedDocument, FeedError> {
    let json = parse::json::read_json(text, hints, html)?;
    Ok(document(json.format, encoding, json.parsed, json.warnings, json.damaged))
}

fn read_markup(
    text: &str,
    encoding: Encoding,
    hints: &Hints<'_>,
    html: HtmlMode,
) -> Result<FeedDocument, FeedError> {
    let scanned = scan::scan(text)?;
    let mut normal = normalise::normalise(&scanned, hints)?;
    let (format, damaged, dropped) = (normal.format, normal.damaged, normal.dropped);
    let warnings = std::mem::take(&mut normal.warnings);
    let parsed = parse::read_xml(normal, hints, html);
    debug_assert!(parsed.is_ok(), "a normalised document was rejected: {parsed:?}");
    let mut parsed =
        parsed.map_err(|e| sniff::not_a_feed(&format!("a feed that could not be read ({e})")))?;
    parsed.dropped += dropped;
    Ok(document(format, encoding, parsed, warnings, damaged))
}

fn document(
    format: FeedFormat,
    encoding: Encoding,
    parsed: Parsed,
    mut warnings: Vec<Warning>,
    damaged: bool,
) -> FeedDocument {
    let Parsed { feed, mut items, rhythm, rhythm_warnings, dropped } = parsed;
    let about_all = |message: String| Warning { line: None, column: None, message };
    if encoding.lossy {
        warnings.push(about_all(format!("bytes that are not valid {encoding} were replaced by U+FFFD")));
    }
    warnings.extend(rhythm_warnings.into_iter().map(about_all));
    let silent = drop_silent(&mut items);
    if silent > 0 {
        warnings.push(about_all(format!("items without title, link and text were dropped: {silent}")));
    }
    let older = if format.is_atom() { versions::drop_older(&mut items) } else { 0 };
    if older > 0 {
        warnings.push(about_all(format!("older versions of entries were dropped: {older}")));
    }
    let duplicates = identity::assign(&mut items);
    if duplicates > 0 {
        warnings.push(about_all(format!("duplicate items were dropped: {duplicates}")));
    }
    if dropped > 0 {
        warnings.push(about_all(format!("items were dropped because the feed has too many: {dropped}")));
    }
    FeedDocument { format, encoding, feed, items, warnings, damaged, rhythm, dropped }
}

/// Drops the items that say nothing to a reader; returns their number. In a document of which no item says anything, they
/// are kept: their guids and dates are all that it has.
fn drop_silent(items: &mut Vec<Item>) -> usize {
    let is_silent = |item: &Item| {
        item.title.is_empty()
            && item.summary.is_empty()
            && item.link.as_ref().or(item.content_html.as_ref()).or(item.image.as_ref()).is_none()
            && item.enclosures.is_empty()
            && item.authors.is_empty()
    };
    let silent = items.iter().filter(|item| is_silent(item)).count();
    if silent == items.len() {
        return 0;
    }
    items.retain(|item| !is_silent(item));
    silent
}
