//! Step 3 of the life of an item, second half: XML as sent to canonical XML.
//!
//! ```text
//! text ─► quick-xml events ─► open elements (balanced here) ─► drafts ─► canonical RSS 2.0 or Atom 1.0
//!                                                                  └──► what the crates do not support, and
//!                                                                       long texts, which they would copy: extras
//! ```
//!
//! One pass. Repairs nesting, missing end tags, references, prefixes, old formats and dates, with warnings where it
//! matters. The result is flat, so that no depth reaches a recursive parser. Items are written when they end: a truncated
//! one never is. Never here: recursion, or evaluation of a DTD.

mod canonical;
mod capture;
mod draft;
mod elements;
mod fields;
mod meaning;
mod namespaces;
mod start_tag;
mod structure;

pub(crate) use draft::{CONTENT_REL, FeedExtras, FeedLink, FeedText, ItemExtras, ORIGINAL_REL};

use std::io::BufRead as _;

use memchr::memchr;
use news::Warning;
use quick_xml::{Reader, events::Event};

use self::{
    draft::Draft,
    elements::{Builder, Flow},
};
use crate::{
    document::{FeedFormat, Hints},
    error::FeedError,
    limits::{ITEM_WARNINGS_MAX, WARNINGS_MAX},
    scan::{Scanned, line_of},
};

/// The canonical document, and what it cannot represent.
#[derive(Debug)]
pub(crate) struct Normalised<'a> {
    pub(crate) format: FeedFormat,
    /// RSS 2.0 for every RSS, Atom 1.0 for every Atom; flat and well-formed.
    pub(crate) xml: String,
    pub(crate) feed: FeedExtras,
    /// One per item in `xml`, in the same order.
    pub(crate) items: Vec<ItemExtras<'a>>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) damaged: bool,
    /// Items past [`ITEMS_READ_MAX`](crate::limits::ITEMS_READ_MAX).
    pub(crate) dropped: usize,
}

/// Normalises scanned text that was fetched from `url`.
pub(crate) fn normalise<'a>(
    scanned: &'a Scanned<'_>,
    hints: &Hints<'a>,
) -> Result<Normalised<'a>, FeedError> {
    let text: &'a str = &scanned.text;
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let mut builder = Builder::new(hints, &scanned.unclosed);
    builder.warnings.warnings.clone_from(&scanned.repairs);
    loop {
        let offset = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let flow = match reader.read_event() {
            Ok(Event::Start(tag)) => {
                let (source, offset) = span(text, &reader, tag.len(), 1);
                builder.start(source, offset)
            }
            Ok(Event::Empty(tag)) => {
                let (source, offset) = span(text, &reader, tag.len(), 2);
                builder.empty(source, offset)
            }
            Ok(Event::End(tag)) => builder.end(tag.name().as_ref(), offset),
            Ok(Event::Text(event)) => builder.text(span(text, &reader, event.len(), 0).0),
            Ok(Event::CData(event)) => builder.text(span(text, &reader, event.len(), 3).0),
            Ok(Event::GeneralRef(name)) => {
                let name = span(text, &reader, name.len(), 1).0;
                let flow = builder.reference(name, offset);
                builder.references(run_of_text(text, &mut reader));
                flow
            }
            Ok(Event::Eof) => break,
            Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => Flow::Continue,
            Err(quick_xml::Error::IllFormed(_)) => Flow::Continue,
            Err(e) => {
                builder.warnings.warn(offset, format!("parsing stopped here: {e}"));
                builder.damaged = true;
                break;
            }
        };
        match flow {
            Flow::Continue => {}
            Flow::Done => {
                let end = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
                if !builder.reopens_for_items(text, end) {
                    break;
                }
            }
            Flow::Refuse { what, max } => {
                return Err(FeedError::TooComplex { what, max, line: line_of(text, offset) });
            }
            Flow::Foreign(root) => return Err(foreign(&root)),
        }
    }
    builder.finish(text)
}

/// The content of the event just read, borrowed from the text, and the offset of the event (one byte before its content).
/// The content ends `tail` bytes before the reader's position.
fn span<'a>(text: &'a str, reader: &Reader<&[u8]>, len: usize, tail: usize) -> (&'a str, usize) {
    let end = usize::try_from(reader.buffer_position()).unwrap_or(text.len()).saturating_sub(tail);
    let start = end.saturating_sub(len);
    (text.get(start..end).unwrap_or_default(), start.saturating_sub(1))
}

/// Consumes the text up to the next tag and returns it with its offset. The reader itself would emit two events for each
/// escaped character of escaped HTML.
fn run_of_text<'a>(text: &'a str, reader: &mut Reader<&[u8]>) -> (&'a str, usize) {
    let start = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
    let rest = text.get(start..).unwrap_or_default();
    let run = &rest[..memchr(b'<', rest.as_bytes()).unwrap_or(rest.len())];
    reader.stream().consume(run.len());
    (run, start)
}

fn foreign(root: &str) -> FeedError {
    let root: String = root.chars().take(40).collect();
    FeedError::NotAFeed {
        looks_like: format!("an XML document with the root element <{root}>"),
        feeds: Vec::new(),
    }
}

/// Collects warnings, with offsets instead of lines.
#[derive(Debug, Default)]
struct WarningLog {
    warnings: Vec<(usize, String)>,
}

impl WarningLog {
    fn warn(&mut self, offset: usize, message: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push((offset, message));
        }
    }

    /// Adds a warning, also to the item or feed it concerns.
    fn warn_about(&mut self, draft: &mut Draft<'_>, offset: usize, message: String) {
        if draft.warnings.len() < ITEM_WARNINGS_MAX {
            draft.warnings.push(message.clone());
        }
        self.warn(offset, message);
    }

    /// Computes the lines and columns of all warnings in one pass over the text.
    fn with_lines(mut self, text: &str) -> Vec<Warning> {
        self.warnings.sort_by_key(|(offset, _)| *offset);
        let (mut line, mut line_start, mut at) = (1_usize, 0, 0);
        let locate = |(offset, message): (usize, String)| {
            let offset = offset.min(text.len());
            for (n, _) in text.as_bytes()[at..offset].iter().enumerate().filter(|(_, b)| **b == b'\n') {
                line += 1;
                line_start = at + n + 1;
            }
            at = offset;
            let column = text.get(line_start..offset).map_or(0, |l| l.chars().count()) + 1;
            Warning { line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), message }
        };
        self.warnings.into_iter().map(locate).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::scan;

    /// Pieces of feeds, valid and broken.
    const PIECES: [&str; 56] = [
        "<item>",
        "</item>",
        "<entry>",
        "</entry>",
        "<title>",
        "</title>",
        "<title type='html'>",
        "<title type='xhtml'>",
        "<link>",
        "</link>",
        "<link href='/a?b=1&c=2'/>",
        "<link rel='enclosure' href='x.mp3' length='5'/>",
        "<description>",
        "</description>",
        "<content type='xhtml'>",
        "</content>",
        "<content:encoded>",
        "</content:encoded>",
        "<guid>",
        "</guid>",
        "<id>",
        "</id>",
        "<pubDate>",
        "</pubDate>",
        "<updated>",
        "</updated>",
        "Mon, 06 Sep 2021 12:00:00 PST",
        "2021-09-06",
        "<author>",
        "</author>",
        "<name>",
        "</name>",
        "<dc:creator>",
        "</dc:creator>",
        "<category term='t&amp;u'/>",
        "<category>",
        "</category>",
        "<b>",
        "</b>",
        "<br>",
        "<p a='b'>",
        "&amp;",
        "&lt;b>",
        "&nbsp;",
        "&",
        "<",
        ">",
        "\"",
        "\r\n",
        "<![CDATA[",
        "]]>",
        " text é ",
        "<!-- c -->",
        "<enclosure url='http://x.example/a b'/>",
        "&amp;lt;i&amp;gt;",
        "<dc:subject>s</dc:subject>",
    ];

    fn document() -> impl Strategy<Value = String> {
        let roots = prop::sample::select(vec![
            ("<rss version='2.0'><channel>", "</channel></rss>"),
            ("<feed xmlns='http://www.w3.org/2005/Atom' xml:base='http://x.example/'>", "</feed>"),
            ("<feed version='0.3' xmlns='http://purl.org/atom/ns#'>", "</feed>"),
            ("<rdf:RDF xmlns='http://purl.org/rss/1.0/'><channel/>", "</rdf:RDF>"),
        ]);
        let pieces = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60);
        (roots, pieces).prop_map(|((open, close), pieces)| format!("{open}{}{close}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn normalising_is_idempotent(text in document()) {
            if let Ok(once) = normalise(&scan(&text).unwrap(), &Hints::default()) {
                let again = scan(&once.xml).unwrap();
                let twice = normalise(&again, &Hints::default()).unwrap();
                prop_assert_eq!(&once.xml, &twice.xml);
                prop_assert!(!twice.damaged && twice.warnings.is_empty(), "{:?}", twice.warnings);
                prop_assert_eq!(once.items.len(), twice.items.len());
                prop_assert!(crate::parse::read_xml(once, &Hints::default(), crate::parse::HtmlMode::Sanitise).is_ok());
            }
        }
    }
}
