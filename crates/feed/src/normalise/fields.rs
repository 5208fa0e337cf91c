//! Fields: what an element says in its attributes and its text, and where in a draft that goes.

use std::borrow::Cow;

use url::Url;

use super::{
    capture::{Capture, Mode},
    draft::{Link, Person, Words},
    elements::{Attribute, Builder, Open, Role},
    names::Vocabulary,
    words::{Empty, Field},
};
use crate::{
    dates,
    document::FeedFormat,
    html::{plain_text, resolve},
    limits::{GUID_BYTES_MAX, LINK_BYTES_MAX, TITLE_BYTES_MAX},
    text::{cut, fold},
};

impl<'a> Builder<'a> {
    pub(super) fn begin_field(
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
                // RSS's own link is better than one of Atom's beside it.
                let default = if open.name.contains(':') { "alternate" } else { "" };
                if let Some(href) = get("href").filter(|h| !h.is_empty()) {
                    draft.add_link(Link {
                        href: absolute(&mut self.growth_left, href, open.base.as_deref()),
                        rel: relation(get("rel").unwrap_or(default)),
                        media_type: get("type").map(|t| fold(t, TITLE_BYTES_MAX)),
                        length: get("length").map(|t| fold(t, 32)),
                    });
                }
            }
            Field::Category => {
                if let Some(term) = get("label").filter(|t| !t.is_empty()).or(get("term")) {
                    draft.add_category(Words::plain(fold(term, TITLE_BYTES_MAX)));
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
                    let href = absolute(&mut self.growth_left, src, open.base.as_deref());
                    draft.add_link(Link { href, rel: rel.to_owned(), media_type, length: None });
                }
            }
            _ => {}
        }
    }

    pub(super) fn attributes_only(&mut self, empty: Empty, open: &Open<'a>, attributes: &[Attribute<'a>]) {
        let get =
            |name: &str| attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        let Some(address) = get("url").or(get("href")).filter(|a| !a.is_empty()) else { return };
        let address = absolute(&mut self.growth_left, address, open.base.as_deref());
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

    pub(super) fn end_field(&mut self) {
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

    fn keep(&mut self, field: Field, words: Words<'a>, offset: usize) {
        let base = self.stack.last().and_then(|o| o.base.clone());
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        let line = |w: &Words<'_>, max| fold(&w.value, max);
        match field {
            Field::Title(rank) => draft.title.offer(rank, words),
            Field::Summary(rank) => draft.summary.offer(rank, words),
            Field::Content(rank) => draft.content.offer(rank, words),
            Field::Id(rank) => {
                let value = (line(&words, GUID_BYTES_MAX), rank == 0 && !draft.id_is_opaque);
                draft.id.offer(rank, value);
            }
            Field::Link => draft.add_link(Link {
                href: absolute(&mut self.growth_left, &words.value, base.as_deref()),
                ..Link::default()
            }),
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
            Field::Keywords => {
                let html = words.html;
                let mut add = |value: Cow<'a, str>| draft.add_category(Words { value, html });
                match words.value {
                    Cow::Borrowed(value) => value.split(',').for_each(|word| add(word.trim().into())),
                    Cow::Owned(value) => value.split(',').for_each(|word| add(word.trim().to_owned().into())),
                }
            }
            Field::Comments => {
                draft.comments.offer(0, absolute(&mut self.growth_left, &words.value, base.as_deref()))
            }
            Field::Language => draft.language.offer(0, line(&words, 64)),
            Field::Image(rank) => {
                draft.add_image(rank, absolute(&mut self.growth_left, &words.value, base.as_deref()))
            }
            Field::Ttl => draft.ttl.offer(0, line(&words, 16)),
            Field::Hour if draft.skip_hours.len() < 24 => draft.skip_hours.push(line(&words, 16)),
            Field::Day if draft.skip_days.len() < 7 => draft.skip_days.push(line(&words, 16)),
            Field::Period => draft.update_period.offer(0, line(&words, 16)),
            Field::Frequency => draft.update_frequency.offer(0, line(&words, 16)),
            Field::Hour | Field::Day | Field::PersonName | Field::PersonEmail | Field::PersonUri => {}
        }
    }

    pub(super) fn end_person(&mut self) {
        let Some((rank, mut person, text)) = self.person.take() else { return };
        if person.is_empty() {
            person = Person::named(&plain_text(&text, TITLE_BYTES_MAX));
        }
        self.item.as_mut().unwrap_or(&mut self.feed).add_author(rank, person);
    }
}

/// An address made absolute where the document itself says against what; else as it was written. `growth_left` is
/// how much longer addresses may still become in this document: past it they stay relative, and are resolved when
/// few are left.
pub(super) fn absolute(growth_left: &mut usize, address: &str, base: Option<&Url>) -> String {
    let address = fold(address, 2 * LINK_BYTES_MAX + 1);
    let Some(url) = base.filter(|_| *growth_left > 0).and_then(|base| resolve(&address, Some(base))) else {
        return address;
    };
    *growth_left = growth_left.saturating_sub(url.as_str().len().saturating_sub(address.len()));
    url.into()
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
fn text_mode(media_type: Option<&str>, mode: Option<&str>, format: FeedFormat) -> (Mode, bool) {
    let media_type = media_type.unwrap_or_default().to_ascii_lowercase();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let base64 = mode.is_some_and(|m| m.eq_ignore_ascii_case("base64"));
    let escaped = mode.is_some_and(|m| m.eq_ignore_ascii_case("escaped")) || base64;
    let mode = match media_type {
        "xhtml" | "application/xhtml+xml" | "application/xml" | "text/xml" if !escaped => Mode::Xhtml,
        "html" | "text/html" if format == FeedFormat::Atom03 && mode.is_some() && !escaped => Mode::Xhtml,
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
