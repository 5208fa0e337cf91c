//! The meaning of an element in its context.

use super::namespaces::Vocabulary;

/// The context of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementScope {
    /// The feed: `<channel>`, `<feed>`, and the root of RDF.
    Feed,
    /// `<item>` or `<entry>`.
    Item,
    /// `<author>` and other person elements.
    Person,
    /// `<image>` of RSS.
    Image,
}

/// The field that the text of an element belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// With a rank, as are others: several elements may have a title, summary or date.
    Title(u8),
    Summary(u8),
    Content(u8),
    Id(u8),
    Link,
    /// The address that a program such as FeedBurner has replaced in `link`.
    OriginalLink,
    Published(u8),
    Updated(u8),
    /// With a rank: `author`, `dc:creator` and others.
    Author(u8),
    Category,
    Keywords,
    Comments,
    Language,
    Image(u8),
    Ttl,
    Hour,
    Day,
    Period,
    Frequency,
    PersonName,
    PersonEmail,
    PersonUri,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A field: its text is read.
    Field(Field),
    /// An element that has an address in its attributes.
    Attributes(AttributeElement),
    /// A context for other elements.
    Scope(ElementScope),
    /// A person, with a rank.
    Person(u8),
    /// A group: elements inside it have the meaning they would have outside.
    Group,
    /// Ignored.
    Skip,
}

/// Elements whose attributes are read; without an address there, their text is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttributeElement {
    Enclosure,
    MediaContent,
    MediaThumbnail,
    /// A page that plays the video.
    MediaPlayer,
    ItunesImage,
    /// `<image>` of RSS, which usually has an element with the address.
    Image,
}

/// The meaning of an element with this local name within a scope.
pub(super) fn meaning(scope: ElementScope, vocabulary: Vocabulary, local: &str) -> Meaning {
    let mut buffer = [0; NAME_BYTES_MAX];
    let local = lower(local, &mut buffer);
    match (scope, vocabulary) {
        (ElementScope::Person, _) => person(local),
        (ElementScope::Image, Vocabulary::Core) if local == "url" => Meaning::Field(Field::Image(0)),
        (ElementScope::Image, _) => Meaning::Skip,
        (ElementScope::Feed, Vocabulary::Core | Vocabulary::Atom) => feed(vocabulary, local),
        (ElementScope::Item, Vocabulary::Core | Vocabulary::Atom) => item(vocabulary, local),
        (_, Vocabulary::Media) => media(scope, local),
        (_, Vocabulary::Itunes) => itunes(scope, local),
        (ElementScope::Item, Vocabulary::Content) if local == "encoded" => Meaning::Field(Field::Content(0)),
        (ElementScope::Item, Vocabulary::LinkProxy) if local == "origlink" => {
            Meaning::Field(Field::OriginalLink)
        }
        (ElementScope::Item, Vocabulary::Xhtml) if matches!(local, "body" | "div") => {
            Meaning::Field(Field::Content(2))
        }
        (ElementScope::Feed, Vocabulary::Syndication) => match local {
            "updateperiod" => Meaning::Field(Field::Period),
            "updatefrequency" => Meaning::Field(Field::Frequency),
            _ => Meaning::Skip,
        },
        (ElementScope::Item, Vocabulary::FullText)
            if matches!(local, "full-text" | "fulltext" | "content") =>
        {
            Meaning::Field(Field::Content(1))
        }
        (ElementScope::Item, Vocabulary::Podcast) => podcast(local),
        (ElementScope::Item, Vocabulary::Prism) if matches!(local, "publicationdate" | "coverdate") => {
            Meaning::Field(Field::Published(5))
        }
        (_, Vocabulary::DublinCore | Vocabulary::DublinTerms) => dublin(local),
        _ => Meaning::Skip,
    }
}

/// Longest known local name, in bytes.
const NAME_BYTES_MAX: usize = 18;

/// A name in lower case; empty if it is too long to be known.
fn lower<'b>(name: &str, buffer: &'b mut [u8; NAME_BYTES_MAX]) -> &'b str {
    let Some(buffer) = buffer.get_mut(..name.len()) else { return "" };
    buffer.copy_from_slice(name.as_bytes());
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).unwrap_or_default()
}

fn person(local: &str) -> Meaning {
    match local {
        "name" => Meaning::Field(Field::PersonName),
        "email" => Meaning::Field(Field::PersonEmail),
        "uri" | "url" | "homepage" => Meaning::Field(Field::PersonUri),
        _ => Meaning::Skip,
    }
}

/// The rank of an element: Atom elements in a feed that is not Atom rank below the feed's own.
fn rank(vocabulary: Vocabulary) -> u8 {
    if vocabulary == Vocabulary::Core { 0 } else { 4 }
}

fn feed(vocabulary: Vocabulary, local: &str) -> Meaning {
    let rank = rank(vocabulary);
    Meaning::Field(match local {
        "title" => Field::Title(rank),
        "description" | "subtitle" | "tagline" | "abstract" => Field::Summary(rank),
        "link" => Field::Link,
        "language" => Field::Language,
        "pubdate" | "published" => Field::Published(rank),
        "lastbuilddate" | "updated" | "modified" => Field::Updated(rank),
        "ttl" => Field::Ttl,
        "hour" => Field::Hour,
        "day" => Field::Day,
        "logo" => Field::Image(1),
        "icon" => Field::Image(5),
        "author" => return Meaning::Person(rank),
        "image" => return Meaning::Scope(ElementScope::Image),
        "item" | "entry" => return Meaning::Scope(ElementScope::Item),
        // A document with two feeds has the second root inside the first one, which is opened again.
        "channel" | "rss" | "feed" => return Meaning::Scope(ElementScope::Feed),
        "skiphours" | "skipdays" | "items" => return Meaning::Group,
        _ => return Meaning::Skip,
    })
}

fn item(vocabulary: Vocabulary, local: &str) -> Meaning {
    let rank = rank(vocabulary);
    Meaning::Field(match local {
        "title" => Field::Title(rank),
        "description" | "summary" | "abstract" => Field::Summary(rank),
        "content" | "fulltext" | "body" => Field::Content(rank + 1),
        "link" => Field::Link,
        "guid" | "id" => Field::Id(rank),
        "pubdate" | "published" | "issued" => Field::Published(rank),
        "created" => Field::Published(rank + 1),
        "date" => Field::Published(rank + 4),
        "updated" | "modified" => Field::Updated(rank),
        "lastbuilddate" => Field::Updated(rank + 2),
        "category" => Field::Category,
        "comments" => Field::Comments,
        "language" => Field::Language,
        "author" => return Meaning::Person(if vocabulary == Vocabulary::Core { 5 } else { 3 }),
        "image" => return Meaning::Scope(ElementScope::Image),
        "enclosure" => return Meaning::Attributes(AttributeElement::Enclosure),
        "thumbnail" => return Meaning::Attributes(AttributeElement::MediaThumbnail),
        _ => return Meaning::Skip,
    })
}

/// <https://www.rssboard.org/media-rss>
fn media(scope: ElementScope, local: &str) -> Meaning {
    match (scope, local) {
        (_, "group") => Meaning::Group,
        (_, "content" | "peerlink") => Meaning::Attributes(AttributeElement::MediaContent),
        (_, "player" | "embed") => Meaning::Attributes(AttributeElement::MediaPlayer),
        (_, "thumbnail") => Meaning::Attributes(AttributeElement::MediaThumbnail),
        (ElementScope::Item, "title") => Meaning::Field(Field::Title(8)),
        (ElementScope::Item, "description") => Meaning::Field(Field::Summary(8)),
        (ElementScope::Item, "pubdate") => Meaning::Field(Field::Published(6)),
        _ => Meaning::Skip,
    }
}

/// <https://podcasting2.org/docs/podcast-namespace/tags/alternate-enclosure>
fn podcast(local: &str) -> Meaning {
    match local {
        "alternateenclosure" => Meaning::Group,
        "source" => Meaning::Attributes(AttributeElement::Enclosure),
        _ => Meaning::Skip,
    }
}

fn itunes(scope: ElementScope, local: &str) -> Meaning {
    match local {
        "author" => Meaning::Field(Field::Author(1)),
        "image" => Meaning::Attributes(AttributeElement::ItunesImage),
        "summary" | "description" => Meaning::Field(Field::Summary(5)),
        "subtitle" if scope == ElementScope::Item => Meaning::Field(Field::Summary(6)),
        "title" => Meaning::Field(Field::Title(7)),
        "keywords" => Meaning::Field(Field::Keywords),
        "pubdate" if scope == ElementScope::Item => Meaning::Field(Field::Published(6)),
        _ => Meaning::Skip,
    }
}

/// <https://www.dublincore.org/specifications/dublin-core/dcmi-terms/>
fn dublin(local: &str) -> Meaning {
    Meaning::Field(match local {
        "creator" => Field::Author(2),
        "author" => Field::Author(6),
        "title" => Field::Title(5),
        "description" | "abstract" => Field::Summary(4),
        "identifier" => Field::Id(6),
        "subject" => Field::Category,
        "language" => Field::Language,
        "issued" | "available" => Field::Published(1),
        "created" => Field::Published(2),
        "date" => Field::Published(3),
        "modified" => Field::Updated(1),
        _ => return Meaning::Skip,
    })
}
