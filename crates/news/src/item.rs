//! What a feed says about one article.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// One entry of a feed, made readable: the `items` of `newswire check`, and most of an [`Event`](crate::Event).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who this is within its source: stays the same from visit to visit.
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
    /// In the feed's order.
    pub authors: Vec<Author>,
    /// The publisher's own categories, plain text.
    pub categories: Vec<String>,
    /// When the publisher says it appeared; nothing when it does not say, never "now".
    pub published: Option<Timestamp>,
    /// When the publisher says it last changed.
    pub updated: Option<Timestamp>,
    /// BCP 47, as the feed gave it.
    pub language: Option<String>,
    /// `http` or `https`, absolute.
    pub image: Option<String>,
    /// Files that come with it.
    pub enclosures: Vec<Enclosure>,
    /// Where it is discussed.
    pub comments: Option<String>,
    /// What had to be repaired or left out in this item.
    pub warnings: Vec<String>,
    /// Changes when the article does; decides whether a known key is an update. Not part of the JSON.
    #[serde(skip)]
    pub content_hash: u64,
    /// Link and title: who this is when the publisher gives its items new guids at every visit. Nothing without a
    /// link. Not part of the JSON.
    #[serde(skip)]
    pub second_key: Option<u64>,
}

/// Who wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Plain text.
    pub name: Option<String>,
    /// As given.
    pub email: Option<String>,
    /// `http` or `https`.
    pub url: Option<String>,
}

/// A file that comes with an item (RSS 2.0 `<enclosure>`, Atom `rel="enclosure"`, JSON Feed `attachments`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// `http` or `https`, absolute.
    pub url: String,
    /// Media type as given.
    #[serde(rename = "type")]
    pub media_type: Option<String>,
    /// Bytes, when the publisher says a plausible number.
    pub length: Option<u64>,
}

/// What had to be repaired in a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// From 1; nothing when it concerns the document as a whole.
    pub line: Option<u32>,
    /// From 1, in characters.
    pub column: Option<u32>,
    /// What was found and what was done about it.
    pub message: String,
}
