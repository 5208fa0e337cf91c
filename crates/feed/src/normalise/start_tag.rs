//! Start tags: the role of an element, and the item, person or field it begins.

use std::{borrow::Cow, rc::Rc};

use url::Url;

use super::{
    draft::{Draft, FeedLink, Person},
    elements::{Attribute, Builder, OpenElement, Role},
    fields::absolute,
    meaning::{AttributeElement, ElementScope, Meaning, meaning},
    namespaces::{ATOM_03, is_atom},
};
use crate::{
    document::FeedFormat,
    html::resolve,
    limits::GUID_BYTES_MAX,
    text::{fold, truncate},
};

impl<'a> Builder<'a> {
    /// Sets the role of the element and begins its item, person or field.
    pub(super) fn enter(&mut self, open: &mut OpenElement<'a>, attributes: &[Attribute<'a>], offset: usize) {
        let Some(parent) = self.stack.last() else { return self.enter_root(open, attributes) };
        let scope = match parent.role {
            Role::Scope(scope) => scope,
            Role::Skip => return,
            Role::Field | Role::Markup => return self.enter_markup(open, attributes),
        };
        let (vocabulary, local) = self.names.resolve(open.name);
        let meaning = meaning(scope, vocabulary, local);
        if scope == ElementScope::Item && meaning == Meaning::Skip && self.is_nested_item(open.name) {
            open.role = Role::Scope(ElementScope::Item);
            return self.begin_item(open, attributes);
        }
        if let Some(item) = &mut self.item {
            item.has_elements = true;
        }
        match meaning {
            Meaning::Skip => open.role = Role::Skip,
            Meaning::Group => open.role = Role::Scope(scope),
            Meaning::Scope(ElementScope::Item) => {
                open.role = Role::Scope(ElementScope::Item);
                self.begin_item(open, attributes);
            }
            Meaning::Scope(inner) => {
                self.saw_feed |= inner == ElementScope::Feed;
                open.role = Role::Scope(inner);
                match inner {
                    ElementScope::Feed => self.describe_feed(open),
                    ElementScope::Image => self.attributes_only(AttributeElement::Image, open, attributes),
                    _ => {}
                }
            }
            Meaning::Person(rank) => {
                open.role = Role::Scope(ElementScope::Person);
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

    fn enter_root(&mut self, open: &mut OpenElement<'a>, attributes: &[Attribute<'a>]) {
        open.role = Role::Scope(ElementScope::Feed);
        let local = open.name.rsplit(':').next().unwrap_or(open.name);
        self.saw_feed = !local.eq_ignore_ascii_case("rdf");
        self.describe_feed(open);
        if local.eq_ignore_ascii_case("entry") {
            open.role = Role::Scope(ElementScope::Item);
            self.begin_item(open, attributes);
        }
    }

    fn describe_feed(&mut self, open: &OpenElement<'a>) {
        self.feed.base.clone_from(&open.base);
        if let Some(language) = &open.language {
            self.feed.language.offer(1, language.to_string());
        }
    }

    fn begin_item(&mut self, open: &mut OpenElement<'a>, attributes: &[Attribute<'a>]) {
        self.saw_feed = true;
        open.begins = true;
        let mut item = Draft { base: open.base.clone(), ..Draft::default() };
        if let Some(language) = &open.language {
            item.language.offer(1, language.to_string());
        }
        for (key, value) in attributes {
            let local = key.rsplit(':').next().unwrap_or(key);
            if local.eq_ignore_ascii_case("about") && self.format().is_rdf() {
                item.id.offer(3, (fold(value, GUID_BYTES_MAX), true));
            } else if local.eq_ignore_ascii_case("href") {
                item.add_link(FeedLink {
                    href: absolute(&mut self.growth_left, value, open.base.as_deref()),
                    ..FeedLink::default()
                });
            }
        }
        let outer = self.item.replace(item);
        self.outer_items.extend(outer.map(|outer| (outer, self.nested_items.len())));
    }

    fn enter_markup(&mut self, open: &mut OpenElement<'a>, attributes: &[Attribute<'a>]) {
        open.role = Role::Markup;
        let Some(capture) = &mut self.capture else { return };
        let local = open.name.rsplit(':').next().unwrap_or(open.name);
        let mut kept: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (key, value) in attributes {
            match *key {
                "href" | "src" | "data" | "poster" => kept.push((
                    Cow::Borrowed(*key),
                    Cow::Owned(absolute(&mut self.growth_left, value, open.base.as_deref())),
                )),
                "data-src" | "data-lazy-src" | "data-original" | "srcset" | "data-srcset" | "width"
                | "height" | "alt" | "title" | "name" | "value" => {
                    kept.push((Cow::Borrowed(*key), Cow::Borrowed(value.as_ref())));
                }
                _ => {}
            }
        }
        capture.push_tag("", local, &kept);
    }

    /// The format of a feed with this root element.
    pub(super) fn root(&mut self, name: &str, attributes: &[Attribute<'_>]) -> Option<FeedFormat> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let uri = self.names.uri(prefix).unwrap_or_default();
        let version =
            attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case("version")).map_or("", |(_, v)| v.trim());
        let netscape = self.names.uri("").is_some_and(|u| u.contains("netscape.com"));
        match local.to_ascii_lowercase().as_str() {
            "rss" if version.starts_with("0.") => Some(FeedFormat::Rss0),
            "rss" => Some(FeedFormat::Rss2),
            "rdf" if netscape => Some(FeedFormat::Rss0),
            "rdf" => Some(FeedFormat::Rss1),
            "channel" if uri.contains("rss1.1") => Some(FeedFormat::Rss1),
            "channel" => Some(FeedFormat::Rss2),
            "feed" | "entry" => {
                let old = version == "0.3" || uri.trim().eq_ignore_ascii_case(ATOM_03);
                if !uri.is_empty() && !is_atom(uri) && !prefix.is_empty() {
                    return None;
                }
                self.names.atom_is_core = true;
                Some(if old { FeedFormat::Atom03 } else { FeedFormat::Atom10 })
            }
            _ => None,
        }
    }

    pub(super) fn language_in(&self, attributes: &[Attribute<'_>]) -> Option<Rc<str>> {
        let own = attributes.iter().find(|(k, _)| *k == "xml:lang").map(|(_, v)| v.trim());
        match own {
            Some(own) if !own.is_empty() => Some(truncate(own, 64).into()),
            _ => self.stack.last().and_then(|o| o.language.clone()),
        }
    }

    pub(super) fn base_in(&self, attributes: &[Attribute<'_>]) -> Option<Rc<Url>> {
        let outer = self.stack.last().and_then(|o| o.base.clone());
        let own = attributes.iter().find(|(k, _)| *k == "xml:base");
        own.and_then(|(_, v)| resolve(v, outer.as_deref().or(self.url))).map(Rc::new).or(outer)
    }
}
