//! Open elements: balances what was opened with what is closed, and hands the content on to the drafts.

use std::{borrow::Cow, rc::Rc};

use url::Url;

use super::{
    Normal, Notes,
    capture::{Capture, Mode},
    draft::{Draft, ItemSide, Link, Person, Words},
    names::{ATOM_03, Namespaces, Vocabulary, is_atom},
    words::{Empty, Field, Meaning, Scope, meaning},
    write::Writer,
};
use crate::{
    dates,
    document::Format,
    error::ReadError,
    html::{plain_text, resolve},
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
enum Role {
    Scope(Scope),
    Field,
    /// A tag inside a field.
    Markup,
    Skip,
}

#[derive(Debug)]
struct Open<'a> {
    name: &'a str,
    role: Role,
    namespaces: usize,
    language: Option<Rc<str>>,
    base: Option<Rc<Url>>,
    /// Its end is the end of the item, person or field that it began.
    begins: bool,
}

type Attribute<'a> = (&'a str, Cow<'a, str>);

/// Reads elements into drafts.
pub(super) struct Builder<'a> {
    url: Option<&'a Url>,
    format: Option<Format>,
    stack: Vec<Open<'a>>,
    names: Namespaces<'a>,
    capture: Option<Capture>,
    feed: Draft,
    item: Option<Draft>,
    person: Option<(u8, Person, String)>,
    writer: Writer,
    sides: Vec<ItemSide>,
    dropped: usize,
    pub(super) notes: Notes,
    pub(super) damaged: bool,
    saw_feed: bool,
    done: bool,
}

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
        let begins_item = matches!(local.as_str(), "item" | "entry");
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
        if begins_item
            && self.capture.is_none()
            && let Some(level) =
                self.stack.iter().position(|o| o.begins && o.role == Role::Scope(Scope::Item))
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
        let version = attributes.iter().find(|(k, _)| *k == "version").map_or("", |(_, v)| v.trim());
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

    fn format(&self) -> Format {
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
                item.add_link(Link { href: absolute(value, open.base.as_deref()), ..Link::default() });
            }
        }
        self.item = Some(item);
    }

    fn begin_field(
        &mut self,
        open: &mut Open<'a>,
        field: Field,
        vocabulary: Vocabulary,
        attributes: &[Attribute<'a>],
        offset: usize,
    ) {
        open.role = Role::Field;
        open.begins = true;
        let get =
            |name: &str| attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        let atom =
            vocabulary == Vocabulary::Atom || (vocabulary == Vocabulary::Core && self.format().is_atom());
        let (mode, base64) = match field {
            Field::Title(_) | Field::Summary(_) | Field::Content(_) if vocabulary == Vocabulary::Xhtml => {
                (Mode::Xhtml, false)
            }
            Field::Title(_) | Field::Summary(_) | Field::Content(_) if atom => {
                text_mode(get("type"), get("mode"), self.format())
            }
            Field::Title(_) | Field::Summary(_)
                if vocabulary == Vocabulary::Media && get("type") == Some("plain") =>
            {
                (Mode::Plain, false)
            }
            Field::Title(_) | Field::Summary(_) | Field::Content(_) | Field::Category | Field::Author(_) => {
                (Mode::Html, false)
            }
            _ => (Mode::Plain, false),
        };
        self.field_attributes(field, open, &get);
        if matches!(field, Field::Content(_) | Field::Summary(_))
            && let Some(item) = &mut self.item
        {
            item.content_base.clone_from(&open.base);
        }
        self.capture = Some(Capture::new(field, mode, base64, offset, self.stack.len()));
    }

    /// What a field says in attributes, beside or instead of its text.
    fn field_attributes<'x>(&mut self, field: Field, open: &Open<'a>, get: &dyn Fn(&str) -> Option<&'x str>) {
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        match field {
            Field::Link => {
                if let Some(href) = get("href").filter(|h| !h.is_empty()) {
                    draft.add_link(Link {
                        href: absolute(href, open.base.as_deref()),
                        rel: relation(get("rel").unwrap_or_default()),
                        media_type: get("type").map(|t| fold(t, TITLE_BYTES_MAX)),
                        length: get("length").map(|t| fold(t, 32)),
                    });
                }
            }
            Field::Category => {
                if let Some(term) = get("label").filter(|t| !t.is_empty()).or(get("term")) {
                    draft.add_category(Words { value: fold(term, TITLE_BYTES_MAX), html: false });
                }
            }
            Field::Id(0) => {
                draft.id_is_opaque = get("isPermaLink").is_some_and(|p| p.eq_ignore_ascii_case("false"))
            }
            Field::Content(_) => {
                if let Some(src) = get("src").filter(|s| !s.is_empty()) {
                    let media_type = get("type").map(|t| fold(t, TITLE_BYTES_MAX));
                    let rel =
                        if media_type.as_deref().is_some_and(is_media) { "enclosure" } else { "related" };
                    let href = absolute(src, open.base.as_deref());
                    draft.add_link(Link { href, rel: rel.to_owned(), media_type, length: None });
                }
            }
            _ => {}
        }
    }

    fn attributes_only(&mut self, empty: Empty, open: &Open<'a>, attributes: &[Attribute<'a>]) {
        let get =
            |name: &str| attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        let Some(address) = get("url").or(get("href")).filter(|a| !a.is_empty()) else { return };
        let address = absolute(address, open.base.as_deref());
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        let media_type = get("type").filter(|t| !t.is_empty()).map(|t| fold(t, TITLE_BYTES_MAX));
        match empty {
            Empty::Enclosure => draft.add_link(Link {
                href: address,
                rel: "enclosure".to_owned(),
                media_type,
                length: get("length").map(|l| fold(l, 32)),
            }),
            Empty::MediaThumbnail => draft.add_image(1, address),
            Empty::ItunesImage => draft.add_image(3, address),
            Empty::MediaContent => {
                let kind = media_type.as_deref().or(get("medium")).unwrap_or_default().to_ascii_lowercase();
                if kind.starts_with("image") || (kind.is_empty() && looks_like_image(&address)) {
                    draft.add_image(2, address);
                } else if kind.starts_with("audio") || kind.starts_with("video") {
                    let length = get("fileSize").map(|l| fold(l, 32));
                    draft.add_link(Link { href: address, rel: "enclosure".to_owned(), media_type, length });
                }
            }
        }
    }

    fn enter_markup(&mut self, open: &mut Open<'a>, attributes: &[Attribute<'a>]) {
        open.role = Role::Markup;
        let Some(capture) = &mut self.capture else { return };
        let local = open.name.rsplit(':').next().unwrap_or(open.name);
        let mut kept: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (key, value) in attributes {
            match *key {
                "href" | "src" => {
                    kept.push((Cow::Borrowed(*key), Cow::Owned(absolute(value, open.base.as_deref()))))
                }
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

    fn end_field(&mut self) {
        let Some(capture) = self.capture.take() else { return };
        let (field, offset) = (capture.field, capture.offset);
        let was_cut = capture.cut;
        let words = capture.finish();
        if was_cut {
            let draft = self.item.as_mut().unwrap_or(&mut self.feed);
            self.notes.warn_about(draft, offset, "a text was longer than is kept, and was cut".to_owned());
        }
        if words.value.is_empty() {
            return;
        }
        if let Some((_, person, _)) = &mut self.person {
            let value = fold(&words.value, TITLE_BYTES_MAX);
            match field {
                Field::PersonName => person.name = value,
                Field::PersonEmail => person.email = value,
                _ => person.uri = value,
            }
            return;
        }
        self.keep(field, words, offset);
    }

    fn keep(&mut self, field: Field, words: Words, offset: usize) {
        let base = self.stack.last().and_then(|o| o.base.clone());
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        let line = |w: &Words, max| fold(&w.value, max);
        match field {
            Field::Title(rank) => draft.title.offer(rank, words),
            Field::Summary(rank) => draft.summary.offer(rank, words),
            Field::Content(rank) => draft.content.offer(rank, words),
            Field::Id(rank) => {
                let value = (line(&words, GUID_BYTES_MAX), rank == 0 && !draft.id_is_opaque);
                draft.id.offer(rank, value);
            }
            Field::Link => {
                draft.add_link(Link { href: absolute(&words.value, base.as_deref()), ..Link::default() })
            }
            Field::Published(rank) | Field::Updated(rank) => match dates::parse(&words.value) {
                Some(date) if matches!(field, Field::Published(_)) => draft.published.offer(rank, date),
                Some(date) => draft.updated.offer(rank, date),
                None => {
                    let shown = cut(&words.value, 60).to_owned();
                    self.notes.warn_about(draft, offset, format!("\"{}\" is no date", fold(&shown, 60)));
                }
            },
            Field::Author(rank) => {
                draft.add_author(rank, Person::named(&plain_text(&words.value, TITLE_BYTES_MAX)))
            }
            Field::Category => draft.add_category(words),
            Field::Keywords => words.value.split(',').for_each(|word| {
                draft.add_category(Words { value: word.trim().to_owned(), html: words.html });
            }),
            Field::Comments => draft.comments.offer(0, absolute(&words.value, base.as_deref())),
            Field::Language => draft.language.offer(0, line(&words, 64)),
            Field::Image(rank) => draft.add_image(rank, absolute(&words.value, base.as_deref())),
            Field::Ttl => draft.ttl.offer(0, line(&words, 16)),
            Field::Hour if draft.skip_hours.len() < 24 => draft.skip_hours.push(line(&words, 16)),
            Field::Day if draft.skip_days.len() < 7 => draft.skip_days.push(line(&words, 16)),
            Field::Period => draft.update_period.offer(0, line(&words, 16)),
            Field::Frequency => draft.update_frequency.offer(0, line(&words, 16)),
            Field::Hour | Field::Day | Field::PersonName | Field::PersonEmail | Field::PersonUri => {}
        }
    }

    fn end_person(&mut self) {
        let Some((rank, mut person, text)) = self.person.take() else { return };
        if person.is_empty() {
            person = Person::named(&plain_text(&text, TITLE_BYTES_MAX));
        }
        self.item.as_mut().unwrap_or(&mut self.feed).add_author(rank, person);
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

/// An address made absolute where the document itself says against what; else as it was written.
fn absolute(address: &str, base: Option<&Url>) -> String {
    let address = fold(address, 2 * crate::limits::LINK_BYTES_MAX + 1);
    match base {
        Some(base) => resolve(&address, Some(base)).map_or(address, Into::into),
        None => address,
    }
}

/// What a link is to its item: the registered name, or the last part of IANA's URI for it.
fn relation(rel: &str) -> String {
    let rel = rel.trim().to_ascii_lowercase();
    let name = rel.rsplit('/').next().unwrap_or_default();
    // Of several, the one that we would use.
    let known = ["alternate", "enclosure", "self", "hub", "replies"];
    known
        .into_iter()
        .find(|k| name.split_ascii_whitespace().any(|n| n == *k))
        .unwrap_or(cut(name, 32))
        .to_owned()
}

/// How the content of an Atom text is to be read (RFC 4287 section 3.1; Atom 0.3 section 3.1).
fn text_mode(media_type: Option<&str>, mode: Option<&str>, format: Format) -> (Mode, bool) {
    let media_type = media_type.unwrap_or_default().to_ascii_lowercase();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let base64 = mode.is_some_and(|m| m.eq_ignore_ascii_case("base64"));
    let escaped = mode.is_some_and(|m| m.eq_ignore_ascii_case("escaped")) || base64;
    let mode = match media_type {
        "xhtml" | "application/xhtml+xml" | "application/xml" | "text/xml" if !escaped => Mode::Xhtml,
        "html" | "text/html" if format == Format::Atom03 && mode.is_some() && !escaped => Mode::Xhtml,
        "html" | "text/html" | "xhtml" | "application/xhtml+xml" | "application/xml" | "text/xml" => {
            Mode::Html
        }
        _ => Mode::Plain,
    };
    (mode, base64)
}

fn is_media(media_type: &str) -> bool {
    ["audio/", "video/", "image/"].iter().any(|m| media_type.starts_with(m))
}

fn looks_like_image(address: &str) -> bool {
    let path = address.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    [".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif"].iter().any(|e| path.ends_with(e))
}

fn is_void(name: &str) -> bool {
    VOID.iter().any(|v| v.eq_ignore_ascii_case(name))
}
