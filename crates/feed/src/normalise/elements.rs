//! Open elements: balances what was opened with what is closed, and hands the content on to the drafts.

use std::{borrow::Cow, rc::Rc};

use url::Url;

use super::{
    Normal, Notes,
    capture::{Capture, Mode},
    draft::{Draft, ItemSide, Link, Person},
    fields::absolute,
    names::{ATOM_03, Namespaces, is_atom},
    words::{Field, Meaning, Scope, meaning},
    write::Writer,
};
use crate::{
    document::Format,
    error::ReadError,
    html::resolve,
    limits::{ATTRIBUTES_MAX, DEPTH_MAX, GUID_BYTES_MAX, ITEMS_READ_MAX, NAMESPACES_MAX, TITLE_BYTES_MAX},
    text::{cut, fold, unescape},
};

/// Whether reading goes on.
pub(super) enum Flow {
    Go,
    /// The root is closed.
    Done,
    /// A limit was passed.
    Refuse {
        what: &'static str,
        max: usize,
    },
    /// The root is no feed's.
    Foreign(String),
}

/// What an open element is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Scope(Scope),
    Field,
    /// A tag inside a field.
    Markup,
    Skip,
}

#[derive(Debug)]
pub(super) struct Open<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) namespaces: usize,
    pub(super) language: Option<Rc<str>>,
    pub(super) base: Option<Rc<Url>>,
    /// Its end is the end of the item, person or field that it began.
    pub(super) begins: bool,
}

pub(super) type Attribute<'a> = (&'a str, Cow<'a, str>);

/// Reads elements into drafts.
pub(super) struct Builder<'a> {
    pub(super) url: Option<&'a Url>,
    pub(super) format: Option<Format>,
    pub(super) stack: Vec<Open<'a>>,
    pub(super) names: Namespaces<'a>,
    pub(super) capture: Option<Capture>,
    pub(super) feed: Draft,
    pub(super) item: Option<Draft>,
    pub(super) person: Option<(u8, Person, String)>,
    pub(super) writer: Writer,
    pub(super) sides: Vec<ItemSide>,
    pub(super) dropped: usize,
    pub(super) notes: Notes,
    pub(super) damaged: bool,
    pub(super) saw_feed: bool,
    pub(super) done: bool,
    pub(super) growth_left: usize,
}

/// How much longer all addresses of a document may become by being made absolute, in bytes: a long base would
/// otherwise be repeated for each of a million links.
const GROWTH_BYTES_MAX: usize = 8 << 20;

/// HTML's elements without an end tag: where they stand in a field, nothing is open after them.
const VOID: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

impl<'a> Builder<'a> {
    pub(super) fn new(url: Option<&'a Url>) -> Self {
        Self {
            url,
            format: None,
            stack: Vec::new(),
            names: Namespaces::default(),
            capture: None,
            feed: Draft::default(),
            item: None,
            person: None,
            writer: Writer::default(),
            sides: Vec::new(),
            dropped: 0,
            notes: Notes::default(),
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
            Flow::Go if !self.done => Flow::Go,
            Flow::Go => Flow::Done,
            other => other,
        }
    }

    fn open(&mut self, tag: &'a str, offset: usize, closes: bool) -> Flow {
        let (name, attributes) = read_tag(tag);
        if self.stack.len() >= DEPTH_MAX {
            return Flow::Refuse { what: "levels of nested elements", max: DEPTH_MAX };
        }
        self.imply_ends(name, offset);
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
        let mut open = Open {
            name,
            role: Role::Skip,
            namespaces,
            language: self.language_in(&attributes),
            base: self.base_in(&attributes),
            begins: false,
        };
        self.enter(&mut open, &attributes, offset);
        if closes || (open.role == Role::Markup && is_void(name)) {
            let level = self.stack.len();
            self.stack.push(open);
            self.close_to(level, offset);
        } else {
            self.stack.push(open);
        }
        Flow::Go
    }

    /// A tag that cannot stand inside the field that is open: the field's end was forgotten.
    fn imply_ends(&mut self, name: &str, offset: usize) {
        let local = name.rsplit(':').next().unwrap_or(name).to_ascii_lowercase();
        if let Some(capture) = &self.capture {
            let long = matches!(capture.field, Field::Summary(_) | Field::Content(_));
            let ends = match local.as_str() {
                "item" | "entry" | "pubdate" | "guid" | "description" => true,
                "title" | "link" | "summary" | "content" | "published" | "updated" | "id" => !long,
                _ => false,
            };
            if ends && capture.mode != Mode::Xhtml {
                let level = capture.level;
                self.notes.warn(offset, format!("<{}> was not closed", self.stack[level].name));
                self.close_to(level, offset);
            }
        }
        let item = self.stack.iter().position(|o| o.begins && o.role == Role::Scope(Scope::Item));
        if let Some(level) = item
            && self.capture.is_none()
            && self.stack[level].name.eq_ignore_ascii_case(name)
            && self.stack.last().is_some_and(|o| o.role != Role::Skip)
        {
            self.notes.warn(offset, format!("<{}> was not closed", self.stack[level].name));
            self.close_to(level, offset);
        }
        if let Some(top) = self.stack.last()
            && top.role == Role::Markup
            && matches!(local.as_str(), "p" | "li")
            && top.name.eq_ignore_ascii_case(name)
        {
            self.close_to(self.stack.len() - 1, offset);
        }
    }

    /// Which feed has this root.
    fn root(&mut self, name: &str, attributes: &[Attribute<'_>]) -> Option<Format> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let uri = self.names.uri(prefix).unwrap_or_default();
        let version =
            attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case("version")).map_or("", |(_, v)| v.trim());
        let netscape = self.names.uri("").is_some_and(|u| u.contains("netscape.com"));
        match local.to_ascii_lowercase().as_str() {
            "rss" if version.starts_with("0.") => Some(Format::Rss0),
            "rss" => Some(Format::Rss2),
            "rdf" if netscape => Some(Format::Rss0),
            "rdf" => Some(Format::Rss1),
            "channel" if uri.contains("rss1.1") => Some(Format::Rss1),
            "channel" => Some(Format::Rss2),
            "feed" | "entry" => {
                let old = version == "0.3" || uri.trim().eq_ignore_ascii_case(ATOM_03);
                if !uri.is_empty() && !is_atom(uri) && !prefix.is_empty() {
                    return None;
                }
                self.names.atom_is_core = true;
                Some(if old { Format::Atom03 } else { Format::Atom10 })
            }
            _ => None,
        }
    }

    fn language_in(&self, attributes: &[Attribute<'_>]) -> Option<Rc<str>> {
        let own = attributes.iter().find(|(k, _)| *k == "xml:lang").map(|(_, v)| v.trim());
        match own {
            Some(own) if !own.is_empty() => Some(cut(own, 64).into()),
            _ => self.stack.last().and_then(|o| o.language.clone()),
        }
    }

    fn base_in(&self, attributes: &[Attribute<'_>]) -> Option<Rc<Url>> {
        let outer = self.stack.last().and_then(|o| o.base.clone());
        let own = attributes.iter().find(|(k, _)| *k == "xml:base");
        own.and_then(|(_, v)| resolve(v, outer.as_deref().or(self.url))).map(Rc::new).or(outer)
    }

    pub(super) fn format(&self) -> Format {
        self.format.unwrap_or(Format::Rss2)
    }

    /// Decides what the element is, and begins whatever begins with it.
    fn enter(&mut self, open: &mut Open<'a>, attributes: &[Attribute<'a>], offset: usize) {
        let Some(parent) = self.stack.last() else { return self.enter_root(open, attributes) };
        let scope = match parent.role {
            Role::Scope(scope) => scope,
            Role::Skip => return,
            Role::Field | Role::Markup => return self.enter_markup(open, attributes),
        };
        let (vocabulary, local) = self.names.resolve(open.name);
        match meaning(scope, vocabulary, local) {
            Meaning::Skip => open.role = Role::Skip,
            Meaning::Group => open.role = Role::Scope(scope),
            Meaning::Scope(Scope::Item) => {
                open.role = Role::Scope(Scope::Item);
                self.begin_item(open, attributes);
            }
            Meaning::Scope(inner) => {
                self.saw_feed |= inner == Scope::Feed;
                open.role = Role::Scope(inner);
                if inner == Scope::Feed {
                    self.describe_feed(open);
                }
            }
            Meaning::Person(rank) => {
                open.role = Role::Scope(Scope::Person);
                open.begins = true;
                self.person = Some((rank, Person::default(), String::new()));
            }
            Meaning::Attributes(empty) => {
                open.role = Role::Scope(scope);
                self.attributes_only(empty, open, attributes);
            }
            Meaning::Field(field) => self.begin_field(open, field, vocabulary, attributes, offset),
        }
    }

    fn enter_root(&mut self, open: &mut Open<'a>, attributes: &[Attribute<'a>]) {
        open.role = Role::Scope(Scope::Feed);
        let local = open.name.rsplit(':').next().unwrap_or(open.name);
        self.saw_feed = !local.eq_ignore_ascii_case("rdf");
        self.describe_feed(open);
        if local.eq_ignore_ascii_case("entry") {
            open.role = Role::Scope(Scope::Item);
            self.begin_item(open, attributes);
        }
    }

    fn describe_feed(&mut self, open: &Open<'a>) {
        self.feed.base.clone_from(&open.base);
        if let Some(language) = &open.language {
            self.feed.language.offer(1, language.to_string());
        }
    }

    fn begin_item(&mut self, open: &mut Open<'a>, attributes: &[Attribute<'a>]) {
        self.saw_feed = true;
        open.begins = true;
        let mut item = Draft { base: open.base.clone(), ..Draft::default() };
        if let Some(language) = &open.language {
            item.language.offer(1, language.to_string());
        }
        for (key, value) in attributes {
            let local = key.rsplit(':').next().unwrap_or(key);
            if local.eq_ignore_ascii_case("about") && self.format().is_rdf() {
                item.id.offer(3, (fold(value, GUID_BYTES_MAX), false));
            } else if local.eq_ignore_ascii_case("href") {
                item.add_link(Link {
                    href: absolute(&mut self.growth_left, value, open.base.as_deref()),
                    ..Link::default()
                });
            }
        }
        self.item = Some(item);
    }

    fn enter_markup(&mut self, open: &mut Open<'a>, attributes: &[Attribute<'a>]) {
        open.role = Role::Markup;
        let Some(capture) = &mut self.capture else { return };
        let local = open.name.rsplit(':').next().unwrap_or(open.name);
        let mut kept: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (key, value) in attributes {
            match *key {
                "href" | "src" => kept.push((
                    Cow::Borrowed(*key),
                    Cow::Owned(absolute(&mut self.growth_left, value, open.base.as_deref())),
                )),
                "data-src" | "data-lazy-src" | "data-original" | "srcset" | "width" | "height" => {
                    kept.push((Cow::Borrowed(*key), Cow::Borrowed(value.as_ref())));
                }
                _ => {}
            }
        }
        capture.push_tag("", local, &kept);
    }

    pub(super) fn text(&mut self, bytes: &[u8]) -> Flow {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if let Some(capture) = &mut self.capture {
            capture.push(text);
        } else if let (Some((.., words)), Some(top)) = (&mut self.person, self.stack.last())
            && top.role == Role::Scope(Scope::Person)
            && words.len() < TITLE_BYTES_MAX
        {
            words.push_str(cut(text, TITLE_BYTES_MAX));
        }
        Flow::Go
    }

    pub(super) fn reference(&mut self, name: &[u8], offset: usize) -> Flow {
        let name = std::str::from_utf8(name).unwrap_or_default();
        if let Some(capture) = &mut self.capture {
            if !capture.push_reference(name) {
                let name = cut(name, 40);
                self.notes.warn(offset, format!("\"&{name};\" is no character or known entity"));
            }
        } else if self.person.is_some() {
            return self.text(unescape(&format!("&{};", cut(name, 40))).as_bytes());
        }
        Flow::Go
    }

    pub(super) fn end(&mut self, name: &[u8], offset: usize) -> Flow {
        let name = std::str::from_utf8(name).unwrap_or_default();
        match self.stack.iter().rposition(|o| o.name.eq_ignore_ascii_case(name)) {
            Some(level) => {
                if level + 1 < self.stack.len() && self.stack[level + 1].role != Role::Markup {
                    self.notes.warn(offset, format!("<{}> was not closed", self.stack[level + 1].name));
                }
                self.close_to(level, offset);
                if self.stack.is_empty() { Flow::Done } else { Flow::Go }
            }
            None => {
                self.notes.warn(offset, format!("</{}> closes nothing", cut(name, 40)));
                Flow::Go
            }
        }
    }

    /// Closes all elements from the innermost down to the given level, that one included.
    fn close_to(&mut self, level: usize, offset: usize) {
        while self.stack.len() > level {
            let Some(open) = self.stack.pop() else { break };
            self.names.truncate(open.namespaces);
            match open.role {
                Role::Markup => {
                    let local = open.name.rsplit(':').next().unwrap_or(open.name);
                    if let Some(capture) = self.capture.as_mut().filter(|_| !is_void(local)) {
                        capture.push_tag("/", local, &[]);
                    }
                }
                Role::Field if open.begins => self.end_field(),
                Role::Scope(Scope::Person) if open.begins => self.end_person(),
                Role::Scope(Scope::Item) if open.begins => self.end_item(offset),
                _ => {}
            }
        }
        self.done = self.stack.is_empty();
    }

    fn end_item(&mut self, offset: usize) {
        let Some(item) = self.item.take() else { return };
        if self.sides.len() >= ITEMS_READ_MAX {
            if self.dropped == 0 {
                self.notes.warn(offset, format!("only the first {ITEMS_READ_MAX} items were read"));
            }
            self.dropped += 1;
            return;
        }
        let side = if self.format().is_atom() { self.writer.entry(item) } else { self.writer.item(item) };
        self.sides.push(side);
    }

    /// The document, once there is no more of it.
    pub(super) fn finish(mut self, text: &str) -> Result<Normal, ReadError> {
        let Some(format) = self.format else { return Err(crate::sniff::nothing(text)) };
        if !self.saw_feed {
            return Err(super::foreign("rdf:RDF"));
        }
        if let Some(outermost) = self.stack.first() {
            self.damaged = true;
            let inner = self.stack.iter().rev().find(|o| o.begins).unwrap_or(outermost);
            let what = match (&self.item, inner.name) {
                (Some(_), name) => {
                    format!("the document ends inside <{name}>: the item that it belongs to was left out")
                }
                (None, name) => format!("the document ends inside <{name}>"),
            };
            self.notes.warn(text.len(), what);
        }
        if self.damaged && self.sides.is_empty() {
            return Err(ReadError::Truncated);
        }
        let (xml, feed) = self.writer.finish(self.feed, format);
        let warnings = self.notes.placed(text);
        Ok(Normal {
            format,
            xml,
            feed,
            items: self.sides,
            warnings,
            damaged: self.damaged,
            dropped: self.dropped,
        })
    }
}

/// The name of a tag, and its attributes with their values decoded. `source` is what stands between `<` and `>`.
fn read_tag(source: &str) -> (&str, Vec<Attribute<'_>>) {
    let source = source.strip_suffix('/').unwrap_or(source);
    let name_end = source.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(source.len());
    let (name, rest) = source.split_at(name_end);
    let attributes = crate::html::attributes(rest).take(ATTRIBUTES_MAX);
    (name, attributes.map(|(key, value)| (key, unescape(value))).collect())
}

fn is_void(name: &str) -> bool {
    VOID.iter().any(|v| v.eq_ignore_ascii_case(name))
}
