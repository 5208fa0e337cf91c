//! The stack of open elements: balances start and end tags, and passes the content on to the drafts.

use std::{borrow::Cow, rc::Rc};

use memchr::{memchr, memchr2};
use url::Url;

use super::{
    Normalised, WarningLog,
    canonical::CanonicalWriter,
    capture::Capture,
    draft::{Draft, ItemExtras, Person},
    meaning::{AttributeElement, ElementScope},
    namespaces::Namespaces,
};
use crate::{
    document::{FeedFormat, Hints},
    error::FeedError,
    last_items::LastItems,
    limits::{ATTRIBUTES_MAX, DEPTH_MAX, ITEMS_READ_MAX, LINK_BYTES_MAX, NAMESPACES_MAX, TITLE_BYTES_MAX},
    text::{truncate, unescape, unescape_attribute},
};

/// Whether to continue reading.
pub(super) enum Flow {
    Continue,
    /// The root is closed.
    Done,
    /// A limit was exceeded.
    Refuse {
        what: &'static str,
        max: usize,
    },
    /// The root element is not that of a feed.
    Foreign(String),
}

/// The role of an open element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Scope(ElementScope),
    Field,
    /// A tag inside a field.
    Markup,
    Skip,
}

#[derive(Debug)]
pub(super) struct OpenElement<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) namespaces: usize,
    pub(super) language: Option<Rc<str>>,
    pub(super) base: Option<Rc<Url>>,
    /// It began an item, person or field, which ends with it.
    pub(super) begins: bool,
    /// It has an end tag; what is inside it is certain.
    pub(super) is_closed: bool,
}

pub(super) type Attribute<'a> = (&'a str, Cow<'a, str>);

/// A file that comes with an item, or a picture, without its address.
#[derive(Debug)]
pub(super) struct MediaFile {
    pub(super) element: AttributeElement,
    /// The number of open elements around it.
    pub(super) level: usize,
    pub(super) media_type: Option<String>,
    /// The kind of file in Media RSS: `image`, `video` and others.
    pub(super) medium: Option<String>,
    pub(super) length: Option<String>,
    /// Its text, as far as read.
    pub(super) text: String,
}

/// Reads elements into drafts.
pub(super) struct Builder<'a> {
    pub(super) url: Option<&'a Url>,
    /// That of the source, for a feed that has none.
    pub(super) language: Option<&'a str>,
    /// Offsets of start tags without an end tag that have not been read yet, ascending.
    unclosed: &'a [usize],
    pub(super) format: Option<FeedFormat>,
    pub(super) stack: Vec<OpenElement<'a>>,
    pub(super) names: Namespaces<'a>,
    pub(super) capture: Option<Capture<'a>>,
    pub(super) feed: Draft<'a>,
    pub(super) item: Option<Draft<'a>>,
    /// Items that the open item is nested in, the innermost last, and how many nested items ended before it began.
    pub(super) outer_items: Vec<(Draft<'a>, usize)>,
    /// Nested items that have ended, in the order in which they began. They are written after the outermost one.
    pub(super) nested_items: Vec<Draft<'a>>,
    pub(super) person: Option<(u8, Person, String)>,
    /// The innermost open element whose text may be an address.
    pub(super) file: Option<MediaFile>,
    /// The open `media:content`: the number of open elements around it, and its address.
    pub(super) described: Option<(usize, String)>,
    pub(super) writer: CanonicalWriter,
    pub(super) sides: Vec<ItemExtras<'a>>,
    /// Those that are written after all others.
    last_items: LastItems<Draft<'a>>,
    pub(super) dropped: usize,
    pub(super) warnings: WarningLog,
    pub(super) damaged: bool,
    pub(super) saw_feed: bool,
    pub(super) done: bool,
    pub(super) growth_left: usize,
}

/// By how many bytes all URLs of a document together may grow when made absolute: a long base could otherwise be repeated
/// for a million links.
const GROWTH_BYTES_MAX: usize = 8 << 20;

/// Void elements of HTML: in a field they are closed at once.
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

impl<'a> Builder<'a> {
    pub(super) fn new(hints: &Hints<'a>, unclosed: &'a [usize]) -> Self {
        Self {
            url: hints.url,
            language: hints.language,
            unclosed,
            format: None,
            stack: Vec::new(),
            names: Namespaces::default(),
            capture: None,
            feed: Draft::default(),
            item: None,
            outer_items: Vec::new(),
            nested_items: Vec::new(),
            person: None,
            file: None,
            described: None,
            writer: CanonicalWriter::default(),
            sides: Vec::new(),
            last_items: LastItems::default(),
            dropped: 0,
            warnings: WarningLog::default(),
            damaged: false,
            saw_feed: false,
            done: false,
            growth_left: GROWTH_BYTES_MAX,
        }
    }

    pub(super) fn start(&mut self, tag: &'a str, offset: usize) -> Flow {
        self.open(tag, offset, false)
    }

    pub(super) fn empty(&mut self, tag: &'a str, offset: usize) -> Flow {
        match self.open(tag, offset, true) {
            Flow::Continue if !self.done => Flow::Continue,
            Flow::Continue => Flow::Done,
            other => other,
        }
    }

    fn open(&mut self, tag: &'a str, offset: usize, closes: bool) -> Flow {
        let (name, attributes) = read_tag(tag);
        if self.stack.len() >= DEPTH_MAX {
            return Flow::Refuse { what: "levels of nested elements", max: DEPTH_MAX };
        }
        self.end_unclosed(name, offset);
        let is_closed = closes || !self.is_unclosed(offset);
        let namespaces = self.names.len();
        for (key, value) in &attributes {
            if let Some(prefix) = key.strip_prefix("xmlns")
                && let Some(prefix) = prefix.strip_prefix(':').or(prefix.is_empty().then_some(""))
                && self.names.declare(prefix, value.clone()).is_err()
            {
                return Flow::Refuse { what: "namespace declarations", max: NAMESPACES_MAX };
            }
        }
        if self.stack.is_empty() {
            match self.root(name, &attributes) {
                Some(format) => self.format = Some(format),
                None => return Flow::Foreign(name.to_owned()),
            }
        }
        let mut open = OpenElement {
            name,
            role: Role::Skip,
            namespaces,
            language: self.language_in(&attributes),
            base: self.base_in(&attributes),
            begins: false,
            is_closed,
        };
        self.enter(&mut open, &attributes, offset);
        let is_empty = closes || self.is_read_as_empty(&open, offset);
        if is_empty {
            let level = self.stack.len();
            self.stack.push(open);
            self.close_to(level, offset);
        } else {
            self.stack.push(open);
        }
        Flow::Continue
    }

    pub(super) fn format(&self) -> FeedFormat {
        self.format.unwrap_or(FeedFormat::Rss2)
    }

    pub(super) fn text(&mut self, text: &'a str) -> Flow {
        if let Some(capture) = &mut self.capture {
            capture.push(text);
        } else {
            self.direct_text(text);
        }
        Flow::Continue
    }

    /// Text directly inside a person or file, outside its elements.
    fn direct_text(&mut self, text: &str) {
        let (depth, innermost) = (self.stack.len(), self.stack.last().map_or("", |open| open.name));
        // Or inside an element of its own: <enclosure><url>…</url></enclosure>.
        let is_in = |file: &&mut MediaFile| {
            file.level + 1 == depth || (file.level + 2 == depth && innermost.eq_ignore_ascii_case("url"))
        };
        if let Some(file) = self.file.as_mut().filter(is_in) {
            let room = (2 * LINK_BYTES_MAX).saturating_sub(file.text.len());
            file.text.push_str(truncate(text, room));
        } else if let (Some((.., collected)), Some(top)) = (&mut self.person, self.stack.last())
            && top.role == Role::Scope(ElementScope::Person)
            && collected.len() < TITLE_BYTES_MAX
        {
            collected.push_str(truncate(text, TITLE_BYTES_MAX));
        }
    }

    /// Appends text with references, given with its offset. A `&` that does not begin a reference is kept.
    pub(super) fn references(&mut self, (text, offset): (&'a str, usize)) {
        if self.capture.is_none() && self.person.is_none() && self.file.is_none() {
            return;
        }
        let mut at = 0;
        while let Some(found) = memchr(b'&', &text.as_bytes()[at..]) {
            let start = at + found;
            if found > 0 {
                self.text(&text[at..start]);
            }
            let rest = &text.as_bytes()[start + 1..];
            let end = start + 1 + memchr2(b';', b'&', rest).unwrap_or(rest.len());
            at = if text.as_bytes().get(end) == Some(&b';') {
                self.reference(&text[start + 1..end], offset + start);
                end + 1
            } else {
                self.text(&text[start..end]);
                end
            };
        }
        if at < text.len() {
            self.text(&text[at..]);
        }
    }

    pub(super) fn reference(&mut self, name: &'a str, offset: usize) -> Flow {
        if let Some(capture) = &mut self.capture {
            if !capture.push_reference(name) {
                let name = truncate(name, 40);
                self.warnings.warn(offset, format!("\"&{name};\" is not a character or a known entity"));
            }
        } else if self.person.is_some() || self.file.is_some() {
            let text = unescape(&format!("&{};", truncate(name, 40))).into_owned();
            self.direct_text(&text);
        }
        Flow::Continue
    }

    pub(super) fn end(&mut self, name: &[u8], offset: usize) -> Flow {
        let name = std::str::from_utf8(name).unwrap_or_default();
        match self.stack.iter().rposition(|o| o.name.eq_ignore_ascii_case(name)) {
            Some(level) => {
                if level + 1 < self.stack.len() && self.stack[level + 1].role != Role::Markup {
                    self.warnings.warn(offset, format!("<{}> was not closed", self.stack[level + 1].name));
                }
                self.close_to(level, offset);
                if self.stack.is_empty() { Flow::Done } else { Flow::Continue }
            }
            None => {
                self.warnings.warn(offset, format!("</{}> has no start tag", truncate(name, 40)));
                Flow::Continue
            }
        }
    }

    /// Whether the start tag at `offset` has no end tag. Offsets come in ascending order.
    fn is_unclosed(&mut self, offset: usize) -> bool {
        let passed = self.unclosed.iter().take_while(|at| **at < offset).count();
        self.unclosed = &self.unclosed[passed..];
        self.unclosed.first() == Some(&offset)
    }

    /// Closes all elements from the innermost to the given level, inclusive.
    pub(super) fn close_to(&mut self, level: usize, offset: usize) {
        while self.stack.len() > level {
            let Some(open) = self.stack.pop() else { break };
            self.names.truncate(open.namespaces);
            if self.file.as_ref().is_some_and(|file| file.level == self.stack.len()) {
                self.end_file(open.base.as_deref());
            }
            if self.described.as_ref().is_some_and(|(level, _)| *level == self.stack.len()) {
                self.described = None;
            }
            match open.role {
                // The others are closed because the one at this level is: they have no end tag.
                Role::Markup if self.stack.len() == level => {
                    let local = open.name.rsplit(':').next().unwrap_or(open.name);
                    if let Some(capture) = self.capture.as_mut().filter(|_| open.is_closed && !is_void(local))
                    {
                        capture.push_tag("/", local, &[]);
                    }
                }
                Role::Field if open.begins => self.end_field(),
                Role::Scope(ElementScope::Person) if open.begins => self.end_person(),
                Role::Scope(ElementScope::Item) if open.begins => self.end_item(offset),
                _ => {}
            }
        }
        self.done = self.stack.is_empty();
    }

    fn end_item(&mut self, offset: usize) {
        let Some(item) = self.item.take() else { return };
        if let Some((outer, before)) = self.outer_items.pop() {
            self.item = Some(outer);
            if item.is_empty() {
                return;
            }
            if self.nested_items.len() < ITEMS_READ_MAX {
                self.nested_items.insert(before, item);
            } else {
                self.dropped += 1;
            }
            return;
        }
        self.write_item(item, offset);
        self.write_nested_items(offset);
    }

    fn write_nested_items(&mut self, offset: usize) {
        for item in std::mem::take(&mut self.nested_items) {
            self.write_item(item, offset);
        }
    }

    fn write_item(&mut self, mut item: Draft<'a>, offset: usize) {
        if item.is_empty() {
            return;
        }
        item.settle_pictures();
        let was_whole = self.last_items.dropped == 0;
        if let Some(item) = self.last_items.keep(item, self.sides.len()) {
            self.write_read_item(item);
        } else if was_whole && self.last_items.dropped > 0 {
            self.warnings.warn(offset, LastItems::<Draft<'_>>::warning());
        }
    }

    fn write_read_item(&mut self, item: Draft<'a>) {
        let side = if self.format().is_atom() { self.writer.entry(item) } else { self.writer.item(item) };
        self.sides.push(side);
    }

    /// Finishes the document.
    pub(super) fn finish(mut self, text: &str) -> Result<Normalised<'a>, FeedError> {
        let Some(format) = self.format else { return Err(crate::sniff::no_root_error(text)) };
        if !self.saw_feed {
            return Err(super::foreign("rdf:RDF"));
        }
        self.close_reopened();
        if let Some(outermost) = self.stack.first() {
            self.damaged = true;
            let inner = self.stack.iter().rev().find(|o| o.begins).unwrap_or(outermost);
            let what = match (&self.item, inner.name) {
                (Some(_), name) => {
                    format!("the document ends inside <{name}>: the incomplete item was dropped")
                }
                (None, name) => format!("the document ends inside <{name}>"),
            };
            self.warnings.warn(text.len(), what);
        }
        self.write_nested_items(text.len());
        for item in self.last_items.take() {
            self.write_read_item(item);
        }
        if self.damaged && self.sides.is_empty() {
            return Err(FeedError::Truncated);
        }
        let (xml, feed) = self.writer.finish(self.feed, format);
        let warnings = self.warnings.with_lines(text);
        Ok(Normalised {
            format,
            xml,
            feed,
            items: self.sides,
            warnings,
            damaged: self.damaged,
            dropped: self.dropped + self.last_items.dropped,
        })
    }
}

/// The name of a tag and its attributes with decoded values. `source` is the text between `<` and `>`.
fn read_tag(source: &str) -> (&str, Vec<Attribute<'_>>) {
    let source = source.strip_suffix('/').unwrap_or(source);
    let name_end = source.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(source.len());
    let (name, rest) = source.split_at(name_end);
    let attributes = crate::html::attributes(rest).take(ATTRIBUTES_MAX);
    (name, attributes.map(|(key, value)| (key, unescape_attribute(value))).collect())
}

pub(super) fn is_void(name: &str) -> bool {
    VOID.iter().any(|v| v.eq_ignore_ascii_case(name))
}
