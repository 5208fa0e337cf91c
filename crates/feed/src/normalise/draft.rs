//! A feed and its items while they are read, with ranked candidates for each field.

use std::{borrow::Cow, cmp::Ordering, rc::Rc};

use news::{Author, Timestamp};
use url::Url;

use crate::{
    limits::{AUTHORS_MAX, CATEGORIES_MAX, ENCLOSURES_MAX, LINKS_MAX},
    text::escape,
};

/// Plain text or HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FeedText<'a> {
    /// The text, with XML references replaced.
    pub(crate) value: Cow<'a, str>,
    /// Whether it is HTML.
    pub(crate) html: bool,
}

impl<'a> FeedText<'a> {
    pub(crate) fn plain(value: impl Into<Cow<'a, str>>) -> Self {
        Self { value: value.into(), html: false }
    }

    pub(crate) fn html(value: impl Into<Cow<'a, str>>) -> Self {
        Self { value: value.into(), html: true }
    }

    /// Converts it to HTML, because RSS has nothing else.
    pub(super) fn into_html(self) -> Self {
        if self.html { self } else { Self::html(escape(&self.value)) }
    }
}

/// The best of several candidates: the lowest rank wins, then the first.
#[derive(Debug)]
pub(super) struct Best<T>(Option<(u8, T)>);

impl<T> Default for Best<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Best<T> {
    pub(super) fn offer(&mut self, rank: u8, value: T) {
        if self.0.as_ref().is_none_or(|(best, _)| rank < *best) {
            self.0 = Some((rank, value));
        }
    }

    pub(super) fn take(self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, value)| value)
    }
}

/// The rank of a second summary as content: below everything that is content.
const SECOND_TEXT: u8 = 15;

/// The relation of a link to the address that a program such as FeedBurner has replaced. Not registered.
pub(crate) const ORIGINAL_REL: &str = "original";
/// The relation of a link to content that is elsewhere (`src`, RFC 4287 section 4.1.3.2). Not registered.
pub(crate) const CONTENT_REL: &str = "content";

/// Whether text looks like an absolute or a relative address, and not like words or a number.
pub(super) fn is_address(text: &str) -> bool {
    let text = text.trim();
    let may_be = !text.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"'));
    may_be && (text.contains("://") || text.starts_with('#') || is_path(text))
}

/// Whether text looks like a relative address: it begins or ends like one, or is names with slashes between them.
fn is_path(text: &str) -> bool {
    const BEGINNINGS: [&str; 4] = ["/", "./", "../", "?"];
    const ENDINGS: [&str; 8] = ["/", ".html", ".htm", ".shtml", ".php", ".asp", ".aspx", ".jsp"];
    let path = text.split(['?', '#']).next().unwrap_or_default();
    // Opaque identifiers, as base64 has them, have upper case.
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.~%".contains(&b))
    };
    // "n/a" is not.
    let is_names =
        || path.len() > 3 && path.contains(|c: char| c.is_ascii_lowercase()) && path.split('/').all(is_name);
    !text.contains(char::is_whitespace)
        && !path.contains(':')
        && (BEGINNINGS.iter().any(|b| text.starts_with(b))
            || ENDINGS.iter().any(|e| path.ends_with(e))
            || (path.contains('/') && is_names()))
}

/// A link as sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedLink {
    pub(crate) href: String,
    pub(crate) rel: String,
    pub(crate) media_type: Option<String>,
    pub(crate) length: Option<String>,
}

/// A person as sent: plain text, at least one field not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) uri: String,
}

impl Person {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.name.is_empty() && self.email.is_empty() && self.uri.is_empty()
    }
}

/// The fields of a feed or an item.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) title: Best<FeedText<'a>>,
    pub(super) summary: Best<FeedText<'a>>,
    pub(super) content: Best<FeedText<'a>>,
    pub(super) id: Best<(String, bool)>,
    /// The guid has `isPermaLink="false"`.
    pub(super) id_is_opaque: bool,
    /// The guid has `isPermaLink="true"`: it is an address, also if it is a relative one.
    pub(super) id_is_address: bool,
    pub(super) links: Vec<FeedLink>,
    pub(super) published: Best<Timestamp>,
    pub(super) updated: Best<Timestamp>,
    /// With the rank of their element: only those of the best rank count.
    pub(super) authors: Vec<(u8, Person)>,
    pub(super) categories: Vec<FeedText<'a>>,
    pub(super) comments: Best<String>,
    pub(super) enclosures: Vec<FeedLink>,
    pub(super) images: Vec<(u8, String)>,
    /// Pictures among the files of Media RSS, which are enclosures unless they are the image.
    pub(super) pictures: Vec<FeedLink>,
    /// Addresses of its media, each with the words that describe it.
    pub(super) captions: Vec<(String, FeedText<'a>)>,
    pub(super) language: Best<String>,
    pub(super) base: Option<Rc<Url>>,
    pub(super) content_base: Option<Rc<Url>>,
    pub(super) warnings: Vec<String>,
    /// An element has begun inside it, whether known or not.
    pub(super) has_elements: bool,
    /// Only of feeds.
    pub(super) ttl: Best<String>,
    pub(super) skip_hours: Vec<String>,
    pub(super) skip_days: Vec<String>,
    pub(super) update_period: Best<String>,
    pub(super) update_frequency: Best<String>,
}

impl<'a> Draft<'a> {
    /// Whether it is empty: without elements, and without an identifier or an address in its attributes.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_elements && self.id.get().is_none() && self.links.is_empty()
    }

    /// The guid as a link, if it is a relative address: `isPermaLink` says so, or it is missing and the guid looks like one.
    pub(super) fn relative_permalink(&self) -> Option<&str> {
        let (id, _) = self.id.get().filter(|(_, permalink)| *permalink)?;
        let says_so = self.id_is_address && !id.contains(|c: char| c.is_whitespace() || c == ':');
        (says_so || is_path(id)).then_some(id.as_str())
    }

    pub(super) fn add_link(&mut self, link: FeedLink) {
        let list = if link.rel == "enclosure" { &mut self.enclosures } else { &mut self.links };
        let max = if link.rel == "enclosure" { ENCLOSURES_MAX } else { LINKS_MAX };
        if list.iter().any(|l| l.href == link.href && l.rel == link.rel) {
            return;
        }
        if list.len() < max {
            list.push(link);
        } else {
            let what = if link.rel == "enclosure" { "enclosures" } else { "links" };
            self.warn_of_more(what, max);
        }
    }

    /// Says once that a list is full.
    fn warn_of_more(&mut self, what: &str, max: usize) {
        let warning = format!("{what} after the first {max} were dropped");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Keeps the best summary. Of two texts of different lengths, the longer one may be the content, if there is no other:
    /// publishers have it as `<description>` next to `<summary>`.
    pub(super) fn add_summary(&mut self, rank: u8, text: FeedText<'a>) {
        let Some((best, kept)) = self.summary.0.take() else {
            self.summary.0 = Some((rank, text));
            return;
        };
        let longer = text.value.len() > kept.value.len();
        let (best, summary, other) = match rank.cmp(&best) {
            Ordering::Less => (rank, text, kept),
            Ordering::Equal if !longer => (rank, text, kept),
            Ordering::Equal | Ordering::Greater => (best, kept, text),
        };
        // Markup makes a summary the content itself.
        if other.value.len() > summary.value.len() && !(summary.html && summary.value.contains('<')) {
            self.add_content(SECOND_TEXT, other);
        }
        self.summary.0 = Some((best, summary));
    }

    /// Keeps the best content, of the same rank the longer one.
    pub(super) fn add_content(&mut self, rank: u8, text: FeedText<'a>) {
        match &mut self.content.0 {
            Some((best, kept)) if *best == rank && text.value.len() > kept.value.len() => *kept = text,
            _ => self.content.offer(rank, text),
        }
    }

    pub(super) fn add_image(&mut self, rank: u8, address: String) {
        if self.images.len() < LINKS_MAX && !address.is_empty() {
            self.images.push((rank, address));
        }
    }

    pub(super) fn add_picture(&mut self, rank: u8, picture: FeedLink) {
        self.add_image(rank, picture.href.clone());
        if self.pictures.len() < ENCLOSURES_MAX {
            self.pictures.push(picture);
        }
    }

    pub(super) fn add_caption(&mut self, address: String, text: FeedText<'a>) {
        if self.captions.len() < ENCLOSURES_MAX {
            self.captions.push((address, text));
        } else {
            self.warn_of_more("captions", ENCLOSURES_MAX);
        }
    }

    /// Adds the pictures to the enclosures, without the one that is the image.
    pub(super) fn settle_pictures(&mut self) {
        let pictures = std::mem::take(&mut self.pictures);
        let image = self.images.iter().min_by_key(|(rank, _)| *rank).map(|(_, address)| address.clone());
        for picture in pictures.into_iter().filter(|p| image.as_ref() != Some(&p.href)) {
            self.add_link(picture);
        }
    }

    pub(super) fn add_category(&mut self, category: FeedText<'a>) {
        if category.value.is_empty() {
            return;
        }
        if self.categories.len() < CATEGORIES_MAX {
            self.categories.push(category);
        } else {
            self.warn_of_more("categories", CATEGORIES_MAX);
        }
    }

    pub(super) fn add_author(&mut self, rank: u8, person: Person) {
        if person.is_empty() {
            return;
        }
        if self.authors.len() < AUTHORS_MAX {
            self.authors.push((rank, person));
        } else {
            self.warn_of_more("authors", AUTHORS_MAX);
        }
    }

    /// The authors of the best rank, in their order.
    pub(super) fn best_authors(&self) -> impl Iterator<Item = &Person> {
        let best = self.authors.iter().map(|(rank, _)| *rank).min();
        self.authors.iter().filter(move |(rank, _)| Some(*rank) == best).map(|(_, person)| person)
    }

    /// The images, best first.
    pub(super) fn best_images(&mut self) -> Vec<String> {
        self.images.sort_by_key(|(rank, _)| *rank);
        self.images.drain(..).map(|(_, address)| address).collect()
    }
}

/// What the crates `rss` and `atom_syndication` do not support, for the feed.
#[derive(Debug, Default)]
pub(crate) struct FeedExtras {
    pub(crate) updated: Option<Timestamp>,
    pub(crate) images: Vec<String>,
    pub(crate) links: Vec<FeedLink>,
    pub(crate) language: Option<String>,
    pub(crate) base: Option<Rc<Url>>,
    /// `sy:updatePeriod` as written: the crate takes what it does not know for `daily`.
    pub(crate) update_period: Option<String>,
}

/// What they do not support, for an item, and long texts, which each parser would copy again.
#[derive(Debug, Default)]
pub(crate) struct ItemExtras<'a> {
    pub(crate) summary: Option<FeedText<'a>>,
    pub(crate) content: Option<FeedText<'a>>,
    pub(crate) updated: Option<Timestamp>,
    pub(crate) images: Vec<String>,
    pub(crate) links: Vec<FeedLink>,
    /// All of them, including the one that the crate reads.
    pub(crate) enclosures: Vec<FeedLink>,
    pub(crate) captions: Vec<(String, FeedText<'a>)>,
    pub(crate) authors: Vec<Author>,
    pub(crate) language: Option<String>,
    pub(crate) base: Option<Rc<Url>>,
    pub(crate) content_base: Option<Rc<Url>>,
    pub(crate) warnings: Vec<String>,
    /// The guid, if it is a relative address.
    pub(crate) permalink: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_address_is_told_from_words_and_identifiers() {
        for address in
            ["/a", "./a", "../x?y", "?p=12", "12/a", "2024/05/a-title", "news.php?id=5", "a/", "A.html"]
        {
            assert!(is_path(address), "{address}");
        }
        for other in [
            "",
            "a",
            "12",
            "12/34",
            "No comments",
            "n/a",
            "None.",
            "tag:x.example,2024:/a",
            "aGVs/bG8=",
            "urn:a/b",
        ] {
            assert!(!is_path(other), "{other}");
        }
        assert!(is_address("http://x.example/") && is_address(" #comments") && !is_address("3 comments"));
    }
}
