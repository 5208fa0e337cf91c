//! All limits in one place: what a document may contain, and how much of it is kept.
//!
//! A document over a limit of the first kind is rejected (`too-complex`, `too-large`). Over one of the second kind the
//! rest is truncated or dropped, with a count or a warning, and the feed is read.

/// Longest document, in bytes as received; the fetcher has its own, smaller limit.
pub const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// Deepest nesting of elements (XML) or of arrays and objects (JSON), the root included.
pub const DEPTH_MAX: usize = 128;
/// Maximum number of elements (XML) or values (JSON) in a document.
pub const ELEMENTS_MAX: usize = 1_000_000;
/// Maximum number of attributes of one element.
pub const ATTRIBUTES_MAX: usize = 256;
/// Maximum number of namespace declarations in scope at once.
pub const NAMESPACES_MAX: usize = 64;
/// Longest DOCTYPE, in bytes. It is always skipped: its entities are never expanded.
pub const DOCTYPE_BYTES_MAX: usize = 8 << 10;

/// Maximum number of items read from a document: the first ones, and the last [`ITEMS_KEPT_MAX`]; the others are counted.
pub const ITEMS_READ_MAX: usize = 10_000;
/// Maximum number of items returned: the newest. If most have no date, the first ones and the last ones.
pub const ITEMS_KEPT_MAX: usize = 1_000;
/// How many of these are the last ones. Most feeds list the newest item first; in one that lists it last, as many may be
/// added between two visits.
pub const LAST_ITEMS_KEPT: usize = 250;
/// Maximum number of warnings returned.
pub const WARNINGS_MAX: usize = 100;
/// Maximum number of warnings attached to one item.
pub const ITEM_WARNINGS_MAX: usize = 8;

/// Longest title, name or category, in bytes.
pub const TITLE_BYTES_MAX: usize = 1 << 10;
/// Longest guid, in bytes.
pub const GUID_BYTES_MAX: usize = 1 << 10;
/// Longest URL, in bytes: a longer one is dropped, since a truncated one would lead elsewhere. Signed ones have 3,000.
pub const LINK_BYTES_MAX: usize = 8 << 10;
/// Longest summary, in bytes of plain text.
pub const SUMMARY_BYTES_MAX: usize = 64 << 10;
/// Longest `content_html`, in bytes as it is written, before the open elements are closed. Nearly all articles are shorter
/// than a tenth of it. A stream has a bound of its own, for one line; what is longer there is in `/news/{id}`.
pub const CONTENT_BYTES_MAX: usize = 256 << 10;
/// Longest text of one element that is read, in bytes of source: markup that sanitising removes can be most of it.
pub const FIELD_BYTES_MAX: usize = 1 << 20;
/// Maximum number of categories of an item.
pub const CATEGORIES_MAX: usize = 64;
/// Maximum number of authors of an item.
pub const AUTHORS_MAX: usize = 32;
/// Maximum number of enclosures of an item.
pub const ENCLOSURES_MAX: usize = 32;
/// Maximum number of links and images of an item or a feed that are read.
pub const LINKS_MAX: usize = 64;
/// Longest text that is parsed as a date, in bytes.
pub const DATE_BYTES_MAX: usize = 128;

/// Deepest nesting of HTML that is passed to the sanitiser.
pub const HTML_DEPTH_MAX: usize = 256;
