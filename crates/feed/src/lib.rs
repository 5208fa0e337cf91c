//! Feed bytes to items: steps 3, 4 and 5 of an item's life.
//!
//! The modules stand in the order of the story: `decode` bytes to text, `scan` what must never get further,
//! `normalise` whatever the publisher sent to canonical XML, `parse` canonical XML (or JSON) to items by way of the
//! crates `rss` and `atom_syndication`, `identity` who each item is; `dates`, `html` and `text` are their tools.
//!
//! Pure, total, bounded: any bytes give an answer, within the caps of [`limits`], in time linear in their number
//! and on a 2 MiB stack. Never here: a network, a runtime, a clock, a panic.

mod dates;
mod decode;
mod document;
mod error;
mod html;
mod identity;
pub mod limits;
mod normalise;
pub mod opml;
mod parse;
mod scan;
mod sniff;
mod text;

pub use decode::{Decided, Encoding};
pub use document::{Days, FeedDocument, FeedFormat, FeedInfo, Hints, Hours, Rhythm};
pub use error::FeedError;

use limits::DOCUMENT_BYTES_MAX;
use news::Warning;
use parse::{Html, Parsed};
use sniff::Kind;

/// Reads a feed: bytes and what is known about them in, everything that could be made of them out.
///
/// # Errors
/// [`FeedError`] when nothing of a feed could be had from the bytes; a feed that is merely damaged is a
/// [`FeedDocument`] with warnings.
pub fn read(bytes: &[u8], hints: &Hints<'_>) -> Result<FeedDocument, FeedError> {
    read_with(bytes, hints, Html::Safe)
}

/// Like [`read`], but every `content_html` is empty: what is left is the cost of reading alone, to be measured.
///
/// # Errors
/// As [`read`].
#[doc(hidden)]
pub fn read_without_html(bytes: &[u8], hints: &Hints<'_>) -> Result<FeedDocument, FeedError> {
    read_with(bytes, hints, Html::LeftOut)
}

fn read_with(bytes: &[u8], hints: &Hints<'_>, html: Html) -> Result<FeedDocument, FeedError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(FeedError::TooLarge { bytes: bytes.len(), bytes_max: DOCUMENT_BYTES_MAX });
    }
    if let Some(error) = sniff::magic(bytes) {
        return Err(error);
    }
    let (text, encoding) = decode::decode(bytes, hints.content_type)?;
    match sniff::kind(&text) {
        Kind::Json => {
            let json = parse::json::read_json(&text, hints, html)?;
            Ok(document(json.format, encoding, json.parsed, json.warnings, json.damaged))
        }
        Kind::Empty | Kind::Text => Err(sniff::nothing(&text)),
        Kind::Html => match sniff::buried_feed(&text) {
            Some(at) => read_buried(&text, at, encoding, hints, html),
            None => Err(sniff::page(&text, hints.url)),
        },
        Kind::Xml => match read_markup(&text, encoding, hints, html) {
            Err(e @ FeedError::NotAFeed { .. }) => match sniff::buried_feed(&text) {
                Some(at) => read_buried(&text, at, encoding, hints, html),
                None => Err(e),
            },
            other => other,
        },
    }
}

/// Reads a feed that stands behind something else.
fn read_buried(
    text: &str,
    at: usize,
    encoding: Encoding,
    hints: &Hints<'_>,
    html: Html,
) -> Result<FeedDocument, FeedError> {
    // Line ends stay, so that warnings name the right lines.
    let mut rest: String = text[..at].chars().filter(|c| *c == '\n').collect();
    rest.push_str(&text[at..]);
    let mut document = read_markup(&rest, encoding, hints, html)?;
    let message = "what stood before the feed was left out".to_owned();
    document.warnings.insert(0, Warning { line: Some(1), column: Some(1), message });
    Ok(document)
}

fn read_markup(
    text: &str,
    encoding: Encoding,
    hints: &Hints<'_>,
    html: Html,
) -> Result<FeedDocument, FeedError> {
    let scanned = scan::scan(text)?;
    let mut normal = normalise::normalise(&scanned, hints.url)?;
    let (format, damaged, dropped) = (normal.format, normal.damaged, normal.dropped);
    let warnings = std::mem::take(&mut normal.warnings);
    let parsed = parse::read_xml(normal, hints, html);
    debug_assert!(parsed.is_ok(), "a normalised document was refused: {parsed:?}");
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
    let Parsed { feed, mut items, rhythm, dropped } = parsed;
    let about_all = |message: String| Warning { line: None, column: None, message };
    if encoding.lossy {
        warnings.push(about_all(format!("bytes that are no {encoding} were replaced by U+FFFD")));
    }
    let repeated = identity::assign(&mut items);
    if repeated > 0 {
        warnings.push(about_all(format!("{repeated} items repeat another one and were left out")));
    }
    if dropped > 0 {
        warnings.push(about_all(format!("{dropped} items were left out, since there are too many")));
    }
    FeedDocument { format, encoding, feed, items, warnings, damaged, rhythm, dropped }
}
