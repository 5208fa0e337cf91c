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

use news::{Author, Item, Timestamp};
use url::Url;

use crate::{
    document::{FeedInfo, Rhythm},
    limits::ITEMS_KEPT_MAX,
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

/// Which items are kept: the newest [`ITEMS_KEPT_MAX`], in document order. If any item has no date, the first ones count
/// as the newest.
fn kept(dates: &[Option<Timestamp>]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..dates.len()).collect();
    if dates.iter().all(Option::is_some) {
        order.sort_by_key(|n| std::cmp::Reverse(dates[*n]));
    }
    let mut kept = vec![false; dates.len()];
    for n in order.into_iter().take(ITEMS_KEPT_MAX) {
        kept[n] = true;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_items_are_kept_wherever_they_are() {
        let date = |n: i64| Some(Timestamp::from_millis(n));
        let dates: Vec<_> = (0..1500).map(date).collect();
        let flags = kept(&dates);
        assert!(!flags[499] && flags[500] && flags[1499]);
        let mut undated = dates;
        undated[7] = None;
        let flags = kept(&undated);
        assert!(flags[0] && flags[999] && !flags[1000]);
    }
}
