//! An item: one entry of a feed, normalised.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One entry of a feed, normalised: the `items` of `newswire check`, and most of an [`Event`](crate::Event).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Identity within its source; the same at every visit.
    pub key: String,
    /// The identifier as the publisher sent it.
    pub guid: Option<String>,
    /// Plain text.
    pub title: String,
    /// `http` or `https`, absolute.
    pub link: Option<String>,
    /// Plain text.
    pub summary: String,
    /// Sanitised HTML.
    pub content_html: Option<String>,
    /// In the order of the feed.
    pub authors: Vec<Author>,
    /// Categories of the publisher, plain text.
    pub categories: Vec<String>,
    /// Publication date of the publisher; `None` if there is none, never "now".
    pub published: Option<Timestamp>,
    /// Date of the last change, according to the publisher.
    pub updated: Option<Timestamp>,
    /// BCP 47, as in the feed.
    pub language: Option<String>,
    /// `http` or `https`, absolute.
    pub image: Option<String>,
    /// Attached files.
    pub enclosures: Vec<Enclosure>,
    /// Address of the comments.
    pub comments: Option<String>,
    /// What was repaired or left out in this item.
    pub warnings: Vec<String>,
    /// What tells it from other items and recognises it at the next visit. Not part of the JSON.
    #[serde(skip)]
    pub evidence: ItemEvidence,
    /// Which part of its document it is from. Not part of the JSON.
    #[serde(skip)]
    pub part: DocumentPart,
}

/// A part of a document. One with more items than are read, most of them without a date, may list the newest first or last:
/// its middle is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DocumentPart {
    /// The document is whole, or its oldest items were left out.
    #[default]
    Whole,
    /// Before what was left out.
    Head,
    /// After it.
    Tail,
}

impl Item {
    /// Bytes of memory that it takes, the allocator's rounding aside.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let list = |list: &Vec<String>| {
            list.capacity() * size_of::<String>() + list.iter().map(String::capacity).sum::<usize>()
        };
        let author = |it: &Author| size_of::<Author>() + text(&it.name) + text(&it.email) + text(&it.url);
        let enclosure = |it: &Enclosure| size_of::<Enclosure>() + it.url.capacity() + text(&it.media_type);
        size_of::<Self>()
            + [&self.key, &self.title, &self.summary].into_iter().map(String::capacity).sum::<usize>()
            + [&self.guid, &self.link, &self.content_html, &self.language, &self.image, &self.comments]
                .into_iter()
                .map(text)
                .sum::<usize>()
            + self.authors.iter().map(author).sum::<usize>()
            + self.enclosures.iter().map(enclosure).sum::<usize>()
            + list(&self.categories)
            + list(&self.warnings)
    }
}

/// What identifies an item from visit to visit: hashes of 64 bits, 0 for what it does not have. Each is a function of this
/// item alone. With the date of publication, a source's items are recognised by them (crate `seen`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ItemEvidence {
    /// The guid; of one that is an address, its comparison form (see `link`).
    pub guid: u64,
    /// The link as it is compared: without scheme, `www.`, a slash at the end, parameters for tracking and session ids.
    pub link: u64,
    /// The link without its host; 0 if it is the root.
    pub path: u64,
    /// The link without query and fragment.
    pub page: u64,
    /// The title, without white space.
    pub title: u64,
    /// Summary and content as a reader sees them: no markup, no addresses, no white space.
    pub text: u64,
    /// The addresses of the enclosures, without host and query, which may be a cache and a signature.
    pub media: u64,
    /// The guid is the link with another fragment, which some publishers count up with each edit.
    pub guid_follows_link: bool,
}

/// An author of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Plain text.
    pub name: Option<String>,
    /// As in the feed.
    pub email: Option<String>,
    /// `http` or `https`.
    pub url: Option<String>,
}

/// A file that comes with an item (RSS 2.0 `<enclosure>`, Atom `rel="enclosure"`, JSON Feed `attachments`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// `http` or `https`, absolute.
    pub url: String,
    /// Media type, as in the feed.
    #[serde(rename = "type")]
    pub media_type: Option<String>,
    /// Bytes, if the number is plausible.
    pub length: Option<u64>,
}

/// A repair of a document, and its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// From 1; `None` if it is about the whole document.
    pub line: Option<u32>,
    /// From 1, in characters.
    pub column: Option<u32>,
    /// What was wrong and how it was repaired.
    pub message: String,
}
