//! Whatever the publisher sent, to canonical XML: step 3 of an item's life, second half.
//!
//! ```text
//! text ─► quick-xml events ─► open elements (balanced here) ─► drafts ─► canonical RSS 2.0 or Atom 1.0
//!                                                                  └──► what the crates cannot carry, and long
//!                                                                       texts, which they would copy: "side"
//! ```
//!
//! One pass. Wrong nesting, missing ends, stray references, prefixes, old dialects and dates are mended on the way,
//! each with a warning where it matters; the result is flat, so no depth reaches a parser that recurses. Items are
//! written when they end: one that is cut is never written. Never here: recursion, or a DTD that is read.

mod capture;
mod draft;
mod elements;
mod enter;
mod fields;
mod names;
mod words;
mod write;

pub(crate) use draft::{FeedSide, ItemSide, Link, Words};

use std::io::BufRead as _;

use memchr::memchr;
use news::Warning;
use quick_xml::{Reader, events::Event};
use url::Url;

use self::{
    draft::Draft,
    elements::{Builder, Flow},
};
use crate::{
    document::FeedFormat,
    error::FeedError,
    limits::{ITEM_WARNINGS_MAX, WARNINGS_MAX},
    scan::{Scanned, line_of},
};

/// The canonical document and everything that does not fit into it.
#[derive(Debug)]
pub(crate) struct Normal<'a> {
    pub(crate) format: FeedFormat,
    /// RSS 2.0 for every RSS, Atom 1.0 for every Atom; flat and well-formed.
    pub(crate) xml: String,
    pub(crate) feed: FeedSide,
    /// One for each item in `xml`, in the same order.
    pub(crate) items: Vec<ItemSide<'a>>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) damaged: bool,
    /// Items past [`ITEMS_READ_MAX`](crate::limits::ITEMS_READ_MAX).
    pub(crate) dropped: usize,
}

/// Normalises scanned text. `url` is where it came from.
pub(crate) fn normalise<'a>(scanned: &'a Scanned<'_>, url: Option<&'a Url>) -> Result<Normal<'a>, FeedError> {
    let text: &'a str = &scanned.text;
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let mut builder = Builder::new(url);
    builder.notes.warnings.clone_from(&scanned.repairs);
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
            Ok(Event::Text(words)) => builder.text(span(text, &reader, words.len(), 0).0),
            Ok(Event::CData(words)) => builder.text(span(text, &reader, words.len(), 3).0),
            Ok(Event::GeneralRef(name)) => {
                let name = span(text, &reader, name.len(), 1).0;
                let flow = builder.reference(name, offset);
                builder.references(run_of_text(text, &mut reader));
                flow
            }
            Ok(Event::Eof) => break,
            Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => Flow::Go,
            Err(quick_xml::Error::IllFormed(_)) => Flow::Go,
            Err(e) => {
                builder.notes.warn(offset, format!("reading ended here: {e}"));
                builder.damaged = true;
                break;
            }
        };
        match flow {
            Flow::Go => {}
            Flow::Done => break,
            Flow::Refuse { what, max } => {
                return Err(FeedError::TooComplex { what, max, line: line_of(text, offset) });
            }
            Flow::Foreign(root) => return Err(foreign(&root)),
        }
    }
    builder.finish(text)
}

/// The inside of the event just read, which ends so many bytes before the reader's place, and where the event began
/// if one byte stood before that. It is the same as the event holds, borrowed from the text.
fn span<'a>(text: &'a str, reader: &Reader<&[u8]>, len: usize, tail: usize) -> (&'a str, usize) {
    let end = usize::try_from(reader.buffer_position()).unwrap_or(text.len()).saturating_sub(tail);
    let start = end.saturating_sub(len);
    (text.get(start..end).unwrap_or_default(), start.saturating_sub(1))
}

/// Takes the text up to the next tag from the reader, and says where it began. Of escaped HTML, the reader would make
/// two events for each of its characters that are escaped.
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

/// Warnings while they are collected, with offsets instead of lines.
#[derive(Debug, Default)]
struct Notes {
    warnings: Vec<(usize, String)>,
}

impl Notes {
    fn warn(&mut self, offset: usize, message: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push((offset, message));
        }
    }

    /// Warns about an item or a feed, and tells the item.
    fn warn_about(&mut self, draft: &mut Draft<'_>, offset: usize, message: String) {
        if draft.warnings.len() < ITEM_WARNINGS_MAX {
            draft.warnings.push(message.clone());
        }
        self.warn(offset, message);
    }

    /// Lines and columns for all of them, in one walk over the text.
    fn placed(mut self, text: &str) -> Vec<Warning> {
        self.warnings.sort_by_key(|(offset, _)| *offset);
        let (mut line, mut line_start, mut at) = (1_usize, 0, 0);
        let place = |(offset, message): (usize, String)| {
            let offset = offset.min(text.len());
            for (n, _) in text.as_bytes()[at..offset].iter().enumerate().filter(|(_, b)| **b == b'\n') {
                line += 1;
                line_start = at + n + 1;
            }
            at = offset;
            let column = text.get(line_start..offset).map_or(0, |l| l.chars().count()) + 1;
            Warning { line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), message }
        };
        self.warnings.into_iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::scan;

    /// Pieces of feeds, sound and broken.
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
            if let Ok(once) = normalise(&scan(&text).unwrap(), None) {
                let again = scan(&once.xml).unwrap();
                let twice = normalise(&again, None).unwrap();
                prop_assert_eq!(&once.xml, &twice.xml);
                prop_assert!(!twice.damaged && twice.warnings.is_empty(), "{:?}", twice.warnings);
                prop_assert_eq!(once.items.len(), twice.items.len());
                prop_assert!(crate::parse::read_xml(once, &crate::Hints::default(), crate::parse::Html::Safe).is_ok());
            }
        }
    }
}
