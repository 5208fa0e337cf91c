//! What an element means where it stands.

use super::names::Vocabulary;

/// What surrounds an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The feed: `<channel>`, `<feed>`, and the root of RDF.
    Feed,
    /// `<item>` or `<entry>`.
    Item,
    /// `<author>` and other persons.
    Person,
    /// `<image>` of RSS.
    Image,
}

/// Where the text of an element goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// With rank: titles, summaries and dates are said in several places.
    Title(u8),
    Summary(u8),
    Content(u8),
    Id(u8),
    Link,
    Published(u8),
    Updated(u8),
    /// `dc:date` and the like: when it was published, unless somebody says better.
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
    /// Its text is wanted.
    Field(Field),
    /// All that it says, it says in attributes.
    Attributes(Empty),
    /// It is a frame around others.
    Scope(Scope),
    /// A person, of the rank.
    Person(u8),
    /// The words inside it mean what they would mean outside.
    Group,
    /// Nothing for us.
    Skip,
}

/// Elements whose attributes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    Enclosure,
    MediaContent,
    MediaThumbnail,
    ItunesImage,
}

/// The meaning of a word within a scope.
pub(super) fn meaning(scope: Scope, vocabulary: Vocabulary, local: &str) -> Meaning {
    let mut buffer = [0; WORD_BYTES_MAX];
    let local = lower(local, &mut buffer);
    match (scope, vocabulary) {
        (Scope::Person, _) => person(local),
        (Scope::Image, Vocabulary::Core) if local == "url" => Meaning::Field(Field::Image(0)),
        (Scope::Image, _) => Meaning::Skip,
        (Scope::Feed, Vocabulary::Core | Vocabulary::Atom) => feed(vocabulary, local),
        (Scope::Item, Vocabulary::Core | Vocabulary::Atom) => item(vocabulary, local),
        (_, Vocabulary::Media) => media(scope, local),
        (_, Vocabulary::Itunes) => itunes(scope, local),
        (Scope::Item, Vocabulary::Content) if local == "encoded" => Meaning::Field(Field::Content(0)),
        (Scope::Item, Vocabulary::Xhtml) if matches!(local, "body" | "div") => {
            Meaning::Field(Field::Content(2))
        }
        (Scope::Feed, Vocabulary::Syndication) => match local {
            "updateperiod" => Meaning::Field(Field::Period),
            "updatefrequency" => Meaning::Field(Field::Frequency),
            _ => Meaning::Skip,
        },
        (_, Vocabulary::DublinCore | Vocabulary::DublinTerms) => dublin(local),
        _ => Meaning::Skip,
    }
}

/// Longest word that means anything to us, in bytes.
const WORD_BYTES_MAX: usize = 16;

/// A word in lower case; nothing for one that is too long to mean anything.
fn lower<'b>(word: &str, buffer: &'b mut [u8; WORD_BYTES_MAX]) -> &'b str {
    let Some(buffer) = buffer.get_mut(..word.len()) else { return "" };
    buffer.copy_from_slice(word.as_bytes());
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

/// How good Atom's words are as a source in a feed that is not Atom's: worse than its own.
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
        "image" => return Meaning::Scope(Scope::Image),
        "item" | "entry" => return Meaning::Scope(Scope::Item),
        "channel" => return Meaning::Scope(Scope::Feed),
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
        "updated" | "modified" => Field::Updated(rank),
        "category" => Field::Category,
        "comments" => Field::Comments,
        "language" => Field::Language,
        "author" => return Meaning::Person(if vocabulary == Vocabulary::Core { 5 } else { 3 }),
        "image" => return Meaning::Scope(Scope::Image),
        "enclosure" => return Meaning::Attributes(Empty::Enclosure),
        _ => return Meaning::Skip,
    })
}

/// <https://www.rssboard.org/media-rss>
fn media(scope: Scope, local: &str) -> Meaning {
    match (scope, local) {
        (_, "group") => Meaning::Group,
        (_, "content") => Meaning::Attributes(Empty::MediaContent),
        (_, "thumbnail") => Meaning::Attributes(Empty::MediaThumbnail),
        (Scope::Item, "title") => Meaning::Field(Field::Title(8)),
        (Scope::Item, "description") => Meaning::Field(Field::Summary(8)),
        _ => Meaning::Skip,
    }
}

fn itunes(scope: Scope, local: &str) -> Meaning {
    match local {
        "author" => Meaning::Field(Field::Author(1)),
        "image" => Meaning::Attributes(Empty::ItunesImage),
        "summary" | "description" => Meaning::Field(Field::Summary(5)),
        "subtitle" if scope == Scope::Item => Meaning::Field(Field::Summary(6)),
        "title" => Meaning::Field(Field::Title(7)),
        "keywords" => Meaning::Field(Field::Keywords),
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
