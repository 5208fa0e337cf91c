//! Fields: stores attributes and text of elements in a draft.

use std::borrow::Cow;

use memchr::memchr3;
use news::Timestamp;
use url::Url;

use super::{
    capture::{Capture, TextEncoding, TextMode},
    draft::{CONTENT_REL, FeedLink, FeedText, ORIGINAL_REL, Person, is_address},
    elements::{Attribute, Builder, MediaFile, OpenElement, Role},
    meaning::{AttributeElement, Field},
    namespaces::Vocabulary,
};
use crate::{
    dates,
    document::FeedFormat,
    html::{plain_text, resolve},
    limits::{GUID_BYTES_MAX, LINK_BYTES_MAX, TITLE_BYTES_MAX},
    text::{fold, truncate},
};

impl<'a> Builder<'a> {
    pub(super) fn begin_field(
        &mut self,
        open: &mut OpenElement<'a>,
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
        let (mode, encoding) = match field {
            Field::Title(_) | Field::Summary(_) | Field::Content(_) if vocabulary == Vocabulary::Xhtml => {
                (TextMode::Xhtml, TextEncoding::None)
            }
            Field::Content(_) | Field::Summary(_) if atom && is_file(get("type").unwrap_or_default()) => {
                (TextMode::Plain, TextEncoding::Binary)
            }
            Field::Title(_) | Field::Summary(_) | Field::Content(_) if atom => {
                text_mode(get("type"), get("mode"), self.format())
            }
            Field::Title(_) | Field::Summary(_)
                if vocabulary == Vocabulary::Media && get("type") == Some("plain") =>
            {
                (TextMode::Plain, TextEncoding::None)
            }
            Field::Title(_) | Field::Summary(_) | Field::Content(_) | Field::Category | Field::Author(_) => {
                (TextMode::Html, TextEncoding::None)
            }
            _ => (TextMode::Plain, TextEncoding::None),
        };
        self.field_attributes(field, open, &get);
        if matches!(field, Field::Content(_) | Field::Summary(_))
            && let Some(item) = &mut self.item
        {
            item.content_base.clone_from(&open.base);
        }
        self.capture = Some(Capture::new(field, mode, encoding, offset));
    }

    /// Reads the attributes of a field, which may replace its text.
    fn field_attributes<'x>(
        &mut self,
        field: Field,
        open: &OpenElement<'a>,
        get: &dyn Fn(&str) -> Option<&'x str>,
    ) {
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        match field {
            Field::Link => {
                // RSS's own link has precedence over one of Atom.
                let default = if open.name.contains(':') { "alternate" } else { "" };
                if let Some(href) = get("href").filter(|h| !h.is_empty()) {
                    draft.add_link(FeedLink {
                        href: absolute(&mut self.growth_left, href, open.base.as_deref()),
                        rel: relation(get("rel").unwrap_or(default)),
                        media_type: get("type").map(|t| fold(t, TITLE_BYTES_MAX)),
                        length: get("length").map(|t| fold(t, 32)),
                    });
                }
            }
            Field::Category => {
                if let Some(term) = get("label").filter(|t| !t.is_empty()).or(get("term")) {
                    draft.add_category(FeedText::plain(fold(term, TITLE_BYTES_MAX)));
                }
            }
            Field::Id(0) => {
                let is = |value: &str| get("isPermaLink").is_some_and(|p| p.eq_ignore_ascii_case(value));
                draft.id_is_opaque = is("false");
                draft.id_is_address = is("true");
            }
            Field::Content(_) => {
                if let Some(src) = get("src").filter(|s| !s.is_empty()) {
                    let media_type = get("type").map(|t| fold(t, TITLE_BYTES_MAX));
                    let rel =
                        if media_type.as_deref().is_some_and(is_media) { "enclosure" } else { CONTENT_REL };
                    let href = absolute(&mut self.growth_left, src, open.base.as_deref());
                    draft.add_link(FeedLink { href, rel: rel.to_owned(), media_type, length: None });
                }
            }
            _ => {}
        }
    }

    pub(super) fn attributes_only(
        &mut self,
        empty: AttributeElement,
        open: &OpenElement<'a>,
        attributes: &[Attribute<'a>],
    ) {
        let get =
            |name: &str| attributes.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        let some = |name: &str| get(name).filter(|v| !v.is_empty());
        let file = MediaFile {
            element: empty,
            level: self.stack.len(),
            media_type: some("type").or(some("contentType")).map(|t| fold(t, TITLE_BYTES_MAX)),
            medium: some("medium").map(|m| fold(m, TITLE_BYTES_MAX)),
            length: some("length").or(some("fileSize")).map(|l| fold(l, 32)),
            text: String::new(),
        };
        match some("url").or(some("href")).or(some("src")).or(some("uri")) {
            Some(address) => {
                let address = absolute(&mut self.growth_left, address, open.base.as_deref());
                if empty == AttributeElement::MediaContent {
                    self.described = Some((file.level, address.clone()));
                }
                self.add_file(file, address);
            }
            None => self.file = Some(file),
        }
    }

    /// Ends an element whose address may be its text.
    pub(super) fn end_file(&mut self, base: Option<&Url>) {
        let Some(mut file) = self.file.take() else { return };
        let text = std::mem::take(&mut file.text);
        let text = text.trim();
        if is_address_of_file(text) {
            let address = absolute(&mut self.growth_left, text, base);
            self.add_file(file, address);
        }
    }

    fn add_file(&mut self, file: MediaFile, address: String) {
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        let kind = file.media_type.as_deref().or(file.medium.as_deref()).unwrap_or_default();
        let is_image =
            kind.to_ascii_lowercase().starts_with("image") || (kind.is_empty() && looks_like_image(&address));
        let enclosure = |href| FeedLink {
            href,
            rel: "enclosure".to_owned(),
            media_type: file.media_type,
            length: file.length,
        };
        match file.element {
            AttributeElement::Image => draft.add_image(0, address),
            AttributeElement::MediaThumbnail => draft.add_image(1, address),
            AttributeElement::ItunesImage => draft.add_image(3, address),
            AttributeElement::MediaContent if is_image => draft.add_picture(2, enclosure(address)),
            AttributeElement::MediaContent | AttributeElement::Enclosure => {
                draft.add_link(enclosure(address));
            }
            AttributeElement::MediaPlayer => {
                let page = enclosure(address);
                draft.add_link(FeedLink { media_type: Some("text/html".to_owned()), ..page });
            }
        }
    }

    pub(super) fn end_field(&mut self) {
        let Some(capture) = self.capture.take() else { return };
        let (field, offset) = (capture.field, capture.offset);
        let was_truncated = capture.truncated;
        let text = capture.finish();
        if was_truncated {
            let draft = self.item.as_mut().unwrap_or(&mut self.feed);
            self.warnings.warn_about(draft, offset, "a text was too long and was truncated".to_owned());
        }
        if text.value.is_empty() {
            return;
        }
        if let Some((_, person, _)) = &mut self.person {
            let value = fold(&text.value, TITLE_BYTES_MAX);
            match field {
                Field::PersonName => person.name = value,
                Field::PersonEmail => person.email = value,
                _ => person.uri = value,
            }
            return;
        }
        self.store(field, text, offset);
    }

    /// A date in the language of the item or the feed, as far as it is known here, or else of the source.
    fn date(&self, text: &str) -> Option<Timestamp> {
        let item = self.item.as_ref().and_then(|item| item.language.get());
        let of_document = item.or(self.feed.language.get()).map(String::as_str);
        dates::parse(text, of_document.or(self.language))
    }

    fn store(&mut self, field: Field, text: FeedText<'a>, offset: usize) {
        let base = self.stack.last().and_then(|o| o.base.clone());
        let is_item = self.item.is_some();
        let date = match field {
            Field::Published(_) | Field::Updated(_) => self.date(&text.value),
            _ => None,
        };
        let draft = self.item.as_mut().unwrap_or(&mut self.feed);
        let line = |w: &FeedText<'_>, max| fold(&w.value, max);
        match field {
            Field::Title(rank) => draft.title.offer(rank, text),
            Field::Summary(rank) if is_item => match &self.described {
                Some((_, address)) => draft.add_caption(address.clone(), text),
                None => draft.add_summary(rank, text),
            },
            Field::Summary(rank) => draft.summary.offer(rank, text),
            Field::Content(rank) => draft.add_content(rank, text),
            Field::Id(rank) => {
                let value = (line(&text, GUID_BYTES_MAX), rank == 0 && !draft.id_is_opaque);
                draft.id.offer(rank, value);
            }
            Field::Link => draft.add_link(FeedLink {
                href: absolute(&mut self.growth_left, &text.value, base.as_deref()),
                ..FeedLink::default()
            }),
            Field::OriginalLink => draft.add_link(FeedLink {
                href: absolute(&mut self.growth_left, &text.value, base.as_deref()),
                rel: ORIGINAL_REL.to_owned(),
                ..FeedLink::default()
            }),
            Field::Published(rank) | Field::Updated(rank) => match date {
                Some(date) if matches!(field, Field::Published(_)) => draft.published.offer(rank, date),
                Some(date) => draft.updated.offer(rank, date),
                None => {
                    let shown = truncate(&text.value, 60).to_owned();
                    self.warnings.warn_about(
                        draft,
                        offset,
                        format!("the date \"{}\" is not understood", fold(&shown, 60)),
                    );
                }
            },
            Field::Author(rank) => {
                draft.add_author(rank, Person::named(&plain_text(&text.value, TITLE_BYTES_MAX)))
            }
            Field::Category => draft.add_category(text),
            Field::Keywords => {
                let html = text.html;
                let mut add = |value: Cow<'a, str>| draft.add_category(FeedText { value, html });
                match text.value {
                    Cow::Borrowed(value) => value.split(',').for_each(|word| add(word.trim().into())),
                    Cow::Owned(value) => value.split(',').for_each(|word| add(word.trim().to_owned().into())),
                }
            }
            // Some feeds have a number or a sentence here.
            Field::Comments if !is_address(&text.value) => {}
            Field::Comments => {
                draft.comments.offer(0, absolute(&mut self.growth_left, &text.value, base.as_deref()))
            }
            Field::Language => draft.language.offer(0, line(&text, 64)),
            Field::Image(rank) => {
                draft.add_image(rank, absolute(&mut self.growth_left, &text.value, base.as_deref()))
            }
            Field::Ttl => draft.ttl.offer(0, line(&text, 16)),
            Field::Hour if draft.skip_hours.len() < 24 => draft.skip_hours.push(line(&text, 16)),
            Field::Day if draft.skip_days.len() < 7 => draft.skip_days.push(line(&text, 16)),
            Field::Period => draft.update_period.offer(0, line(&text, 16)),
            Field::Frequency => draft.update_frequency.offer(0, line(&text, 16)),
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

/// Resolves a URL if the document itself sets a base; else returns it as sent. `growth_left` is by how many bytes URLs of
/// this document may still grow: beyond that they stay relative and are resolved later, when few are left.
pub(super) fn absolute(growth_left: &mut usize, address: &str, base: Option<&Url>) -> String {
    let address = fold(&without_line_ends(address), 2 * LINK_BYTES_MAX + 1);
    let Some(url) = base.filter(|_| *growth_left > 0).and_then(|base| resolve(&address, Some(base))) else {
        return address;
    };
    *growth_left = growth_left.saturating_sub(url.as_str().len().saturating_sub(address.len()));
    url.into()
}

/// An address that was wrapped: its line ends and tabs are no part of it (URL Standard, section 4.4).
fn without_line_ends(address: &str) -> Cow<'_, str> {
    let address = address.trim();
    match memchr3(b'\n', b'\r', b'\t', address.as_bytes()) {
        Some(_) => Cow::Owned(address.replace(['\n', '\r', '\t'], "")),
        None => Cow::Borrowed(address),
    }
}

/// Whether the text of an element is an address, and not a word.
fn is_address_of_file(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(char::is_whitespace)
        && (text.contains("://") || text.starts_with('/') || looks_like_image(text))
}

/// The relation of a link: the registered name, or the last part of IANA's URI of it.
fn relation(rel: &str) -> String {
    let rel = rel.trim().to_ascii_lowercase();
    let name = rel.rsplit('/').next().unwrap_or_default();
    // Of several, the first that is used.
    let known = ["alternate", "enclosure", "self", "hub", "replies"];
    known
        .into_iter()
        .find(|k| name.split_ascii_whitespace().any(|n| n == *k))
        .unwrap_or(truncate(name, 32))
        .to_owned()
}

/// How an Atom text construct is interpreted (RFC 4287 section 3.1; Atom 0.3 section 3.1).
fn text_mode(media_type: Option<&str>, mode: Option<&str>, format: FeedFormat) -> (TextMode, TextEncoding) {
    let media_type = media_type.unwrap_or_default().to_ascii_lowercase();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let base64 = mode.is_some_and(|m| m.eq_ignore_ascii_case("base64"));
    let escaped = mode.is_some_and(|m| m.eq_ignore_ascii_case("escaped")) || base64;
    let mode = match media_type {
        "xhtml" | "application/xhtml+xml" | "application/xml" | "text/xml" if !escaped => TextMode::Xhtml,
        "html" | "text/html" if format == FeedFormat::Atom03 && mode.is_some() && !escaped => TextMode::Xhtml,
        "html" | "text/html" | "xhtml" | "application/xhtml+xml" | "application/xml" | "text/xml" => {
            TextMode::Html
        }
        _ => TextMode::Plain,
    };
    (mode, if base64 { TextEncoding::Base64 } else { TextEncoding::None })
}

/// Whether content of this type is base64 of a file, and no text (RFC 4287 section 4.1.3.3).
fn is_file(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_xml = media_type.ends_with("+xml") || media_type.ends_with("/xml");
    media_type.contains('/') && !media_type.starts_with("text/") && !is_xml
}

fn is_media(media_type: &str) -> bool {
    ["audio/", "video/", "image/"].iter().any(|m| media_type.starts_with(m))
}

fn looks_like_image(address: &str) -> bool {
    let path = address.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    [".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif"].iter().any(|e| path.ends_with(e))
}
