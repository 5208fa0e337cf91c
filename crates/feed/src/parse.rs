//! Canonical XML, or JSON, to items: step 4 of an item's life.
//!
//! The crates `rss` and `atom_syndication` read the canonical document; what they cannot carry comes beside it.
//! All dialects meet in [`Raw`], and one function makes the item of it, so that an RSS item and an Atom entry are
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
    normalise::{Link, Words},
};

/// A document before it gets its format, encoding and warnings.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) feed: FeedInfo,
    pub(crate) items: Vec<Item>,
    pub(crate) rhythm: Rhythm,
    pub(crate) dropped: usize,
}

/// What becomes of an item's HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Html {
    /// It is made safe.
    Safe,
    /// It is left out: for measuring what all the rest costs.
    LeftOut,
}

/// What the whole feed says, for the items that do not say it themselves.
#[derive(Debug)]
struct Context<'a> {
    /// What addresses are relative to when nothing closer says so.
    site: Option<&'a Url>,
    language: Option<&'a str>,
    html: Html,
}

/// An item as any dialect says it.
#[derive(Debug, Default)]
pub(crate) struct Raw<'a> {
    pub(crate) guid: Option<String>,
    /// The guid may stand in for the link.
    pub(crate) guid_is_link: bool,
    pub(crate) title: Option<Words<'a>>,
    /// Best first.
    pub(crate) links: Vec<String>,
    pub(crate) summary: Option<Words<'a>>,
    pub(crate) content: Option<Words<'a>>,
    pub(crate) authors: Vec<Author>,
    pub(crate) categories: Vec<Words<'a>>,
    pub(crate) published: Option<Timestamp>,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) language: Option<String>,
    /// Best first; the enclosures and the content come after them.
    pub(crate) images: Vec<String>,
    pub(crate) enclosures: Vec<Link>,
    pub(crate) comments: Option<String>,
    pub(crate) warnings: Vec<String>,
    /// What its addresses are relative to.
    pub(crate) base: Option<Rc<Url>>,
    /// What those in its HTML are relative to.
    pub(crate) content_base: Option<Rc<Url>>,
}

/// Which of many items are kept: the newest [`ITEMS_KEPT_MAX`], in document order. Where one has no date, the first
/// ones are taken for the newest.
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
