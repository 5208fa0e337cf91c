//! Step 4 of the life of an item: canonical XML, or JSON, to items.
//!
//! The crates `rss` and `atom_syndication` parse the canonical document; what they do not support is passed alongside it.
//! All formats become a [`RawItem`], from which one function makes the item, so that RSS items and Atom entries are
//! cleaned by the same rules. Never here: a document that was not normalised.

mod assemble;
pub(crate) mod json;
mod xml;

pub(crate) use xml::read_xml;

use std::rc::Rc;

use news::{Author, DocumentPart, Item, Timestamp};
use url::Url;

use crate::{
    document::{FeedInfo, Rhythm},
    limits::{ITEMS_KEPT_MAX, LAST_ITEMS_KEPT},
    normalise::{FeedLink, FeedText},
};

/// A parsed document without format, encoding and warnings.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) feed: FeedInfo,
    pub(crate) items: Vec<Item>,
    pub(crate) rhythm: Rhythm,
    /// Warnings about the rhythm.
    pub(crate) rhythm_warnings: Vec<String>,
    pub(crate) dropped: usize,
}

/// What to do with the HTML of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HtmlMode {
    /// Sanitise it.
    Sanitise,
    /// Leave it out, for benchmarks of everything else.
    Omit,
}

/// Defaults for all items of a feed.
#[derive(Debug)]
struct Context<'a> {
    /// The base of relative URLs, unless the document sets another.
    site: Option<&'a Url>,
    language: Option<&'a str>,
    html: HtmlMode,
}

/// An item of any format, before cleaning.
#[derive(Debug, Default)]
pub(crate) struct RawItem<'a> {
    pub(crate) guid: Option<String>,
    /// The guid may be used as the link.
    pub(crate) guid_is_link: bool,
    pub(crate) title: Option<FeedText<'a>>,
    /// Best first.
    pub(crate) links: Vec<String>,
    pub(crate) summary: Option<FeedText<'a>>,
    pub(crate) content: Option<FeedText<'a>>,
    pub(crate) authors: Vec<Author>,
    pub(crate) categories: Vec<FeedText<'a>>,
    pub(crate) published: Option<Timestamp>,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) language: Option<String>,
    /// Best first; images in enclosures and content are tried after these.
    pub(crate) images: Vec<String>,
    pub(crate) enclosures: Vec<FeedLink>,
    /// Addresses of its media, each with the words that describe it.
    pub(crate) captions: Vec<(String, FeedText<'a>)>,
    pub(crate) comments: Option<String>,
    pub(crate) warnings: Vec<String>,
    /// The base of its relative URLs.
    pub(crate) base: Option<Rc<Url>>,
    /// The base of relative URLs in its HTML.
    pub(crate) content_base: Option<Rc<Url>>,
}

/// Which items are kept, and what part of the document they are: the newest [`ITEMS_KEPT_MAX`], in document order. An item
/// without a date is as new as the one before it that has one. If most have none, nothing tells at which end new ones are
/// added: the first and the last ones are kept.
fn kept(dates: &[Option<Timestamp>]) -> Vec<Option<DocumentPart>> {
    let count = dates.len();
    if count <= ITEMS_KEPT_MAX {
        return vec![Some(DocumentPart::Whole); count];
    }
    let dated = dates.iter().flatten().count();
    if dated * 2 < count {
        let (head_end, tail_start) = (ITEMS_KEPT_MAX - LAST_ITEMS_KEPT, count - LAST_ITEMS_KEPT);
        let part = |n| match n {
            _ if n < head_end => Some(DocumentPart::Head),
            _ if n >= tail_start => Some(DocumentPart::Tail),
            _ => None,
        };
        return (0..count).map(part).collect();
    }
    let first = dates.iter().flatten().next();
    let newest = dates.iter().scan(first, |last, date| {
        *last = date.as_ref().or(*last);
        Some(*last)
    });
    let mut order: Vec<_> = newest.enumerate().collect();
    order.sort_by_key(|(_, date)| std::cmp::Reverse(*date));
    let mut kept = vec![None; count];
    for (n, _) in order.into_iter().take(ITEMS_KEPT_MAX) {
        kept[n] = Some(DocumentPart::Whole);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(n: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(n))
    }

    #[test]
    fn the_newest_items_are_kept_wherever_they_are() {
        let mut dates: Vec<_> = (0..1500).map(date).collect();
        let flags = kept(&dates);
        assert!(flags[499].is_none() && flags[500].is_some() && flags[1499].is_some());
        // Two thirds of them have a date.
        for n in (0..1500).step_by(3) {
            dates[n] = None;
        }
        let flags = kept(&dates);
        assert!(flags[498].is_none() && flags[501].is_some() && flags[1499].is_some());
        assert_eq!(flags.iter().flatten().count(), ITEMS_KEPT_MAX);
        dates.reverse();
        let flags = kept(&dates);
        assert!(flags[0].is_some() && flags[998].is_some() && flags[1003].is_none());
    }

    #[test]
    fn of_undated_items_the_first_and_the_last_are_kept() {
        let mut dates = vec![None; 5000];
        dates[2000] = date(7);
        let flags = kept(&dates);
        let parts = [0, 749, 750, 4749, 4750, 4999].map(|n| flags[n]);
        let (head, tail) = (Some(DocumentPart::Head), Some(DocumentPart::Tail));
        assert_eq!(parts, [head, head, None, None, tail, tail]);
        assert_eq!(flags.iter().flatten().count(), ITEMS_KEPT_MAX);
        assert_eq!(kept(&[None; 1000]), [Some(DocumentPart::Whole); 1000]);
    }
}
