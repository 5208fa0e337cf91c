//! Step 11 of the life of an item: its bytes, rendered once. Every client gets the same ones.
//!
//! ```text
//! {"event":"item","id":"e-1","data": | id: e-1⏎event: item⏎data: | {…,"content_html":"…",…} | ⏎⏎ | }⏎
//! ──────── head of a JSON line ───── ─── head of an SSE block ── ──────── the JSON ──────── ─ends──
//! ```
//!
//! A block is made of slices of these, in either format, and with or without `content_html`. Many clients read lines of
//! at most 64 KiB; so the JSON of a larger event is shortened for streams, and kept whole for `/news/{id}`.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use news::{Event, EventKind, Item, Seq, SourceId, SourceStatus, Timestamp};

use super::encoding::{BlockForm, ContentHtml, StreamFormat};

/// An event as every client gets it, and what filters look at.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) seq: Seq,
    pub(crate) kind: EventKind,
    pub(crate) source: SourceId,
    pub(crate) category: Box<str>,
    pub(crate) labels: FilterLabels,
    /// Title and summary in lower case, for word filters.
    pub(crate) text: Box<str>,
    pub(crate) first_seen: Timestamp,
    /// See the drawing.
    rendered: Bytes,
    /// Where the head of the SSE block begins.
    sse_head: usize,
    /// Where the JSON is.
    json: Range<usize>,
    /// Where `content_html` is in it, with the comma before it.
    content: Option<Range<usize>>,
    /// Where `truncated` says that `content_html` is not whole, which is no news to a client that did not ask for it.
    content_mark: Option<Range<usize>>,
    /// The JSON as it was received, and where `content_html` is in it, if streams get a shorter one.
    whole: Option<Box<(Bytes, Option<Range<usize>>)>>,
}

/// What filters compare, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterLabels {
    pub(crate) category: Box<str>,
    pub(crate) tags: Box<[Box<str>]>,
    /// Empty if there is none.
    pub(crate) language: Box<str>,
    /// Empty if there is none.
    pub(crate) country: Box<str>,
}

impl FilterLabels {
    pub(crate) fn new(
        category: &str,
        tags: &[String],
        language: Option<&str>,
        country: Option<&str>,
    ) -> Self {
        let lower = |text: Option<&str>| text.unwrap_or_default().to_lowercase().into_boxed_str();
        Self {
            category: lower(Some(category)),
            tags: tags.iter().map(|tag| lower(Some(tag))).collect(),
            // Many feeds write `en_US`; BCP 47 has hyphens.
            language: lower(language).replace('_', "-").into(),
            country: lower(country),
        }
    }

    fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| size_of::<Box<str>>() + tag.len()).sum();
        self.category.len() + tags + self.language.len() + self.country.len()
    }
}

impl From<&SourceStatus> for FilterLabels {
    fn from(source: &SourceStatus) -> Self {
        Self::new(&source.category, &source.tags, source.language.as_deref(), source.country.as_deref())
    }
}

impl Frame {
    /// Longest line of a stream, in bytes, its end included: clients that read lines of at most 64 KiB read it (Go's
    /// `bufio.Scanner`, Python's `asyncio.StreamReader`).
    pub(crate) const LINE_BYTES_MAX: usize = 60 * 1024;
    const NDJSON_END: &'static [u8] = b"}\n";
    const SSE_END: &'static [u8] = b"\n\n";

    /// Renders an event that was received as JSON on one line, in the form of [`Event::to_json`].
    ///
    /// # Errors
    /// If it is not an event.
    pub(crate) fn render(json: &[u8]) -> Result<Self, serde_json::Error> {
        let event: Event = serde_json::from_slice(json)?;
        let kind = event.kind;
        let text = format!("{}\n{}", event.item.title, event.item.summary).to_lowercase();
        let line_head = format!("{{\"event\":\"{}\",\"id\":\"{}\",\"data\":", kind.as_str(), event.id);
        let sse_head = format!("id: {}\nevent: {}\ndata: ", event.id, kind.as_str());
        let language = event.item.language.as_deref();
        let labels = FilterLabels::new(&event.category, &event.tags, language, event.country.as_deref());
        let (event_id, source, category, first_seen) =
            (event.id.clone(), event.source.clone(), event.category.as_str().into(), event.first_seen);
        let room = Self::LINE_BYTES_MAX - line_head.len() - Self::NDJSON_END.len();
        let shortened = (json.len() > room).then(|| shortened(event, room));
        let sent = shortened.as_deref().map_or(json, str::as_bytes);

        let ends = Self::SSE_END.len() + Self::NDJSON_END.len();
        let mut rendered = BytesMut::with_capacity(line_head.len() + sse_head.len() + sent.len() + ends);
        rendered.put_slice(line_head.as_bytes());
        rendered.put_slice(sse_head.as_bytes());
        let json_from = rendered.len();
        rendered.put_slice(sent);
        let json_to = rendered.len();
        rendered.put_slice(Self::SSE_END);
        rendered.put_slice(Self::NDJSON_END);
        let in_rendered = |at: Range<usize>| json_from + at.start..json_from + at.end;
        let content = content_member(sent).map(in_rendered);
        let content_mark = shortened.as_ref().and_then(|json| content_mark(json)).map(in_rendered);
        let whole = shortened.is_some().then(|| (Bytes::copy_from_slice(json), content_member(json)).into());
        Ok(Self {
            seq: event_id.seq,
            kind,
            source,
            category,
            labels,
            text: text.into(),
            first_seen,
            rendered: rendered.freeze(),
            sse_head: line_head.len(),
            json: json_from..json_to,
            content,
            content_mark,
            whole,
        })
    }

    /// The same without the whole JSON of an event that streams get shortened: only for streams.
    pub(crate) fn shortened_only(self) -> Self {
        Self { whole: None, ..self }
    }

    /// The event as JSON, as it was received.
    pub(crate) fn json(&self) -> Bytes {
        match &self.whole {
            Some(whole) => whole.0.clone(),
            None => self.rendered.slice(self.json.clone()),
        }
    }

    /// The same without `content_html`: what is before it, and what is after it.
    pub(crate) fn json_without_content(&self) -> [Bytes; 2] {
        let (json, content) = match &self.whole {
            Some(whole) => (whole.0.clone(), whole.1.clone()),
            None => {
                let from = self.json.start;
                (self.json(), self.content.clone().map(|at| at.start - from..at.end - from))
            }
        };
        let content = content.unwrap_or(json.len()..json.len());
        [json.slice(..content.start), json.slice(content.end..)]
    }

    /// The slices of a block, in order.
    fn parts(&self, form: BlockForm) -> [Range<usize>; 5] {
        let Range { start, end } = self.json;
        let sse_end = end + Self::SSE_END.len();
        let (head, tail) = match form.format {
            StreamFormat::EventStream => (self.sse_head..start, end..sse_end),
            StreamFormat::NdJson => (0..self.sse_head, sse_end..self.rendered.len()),
        };
        let left_out = |at: &Option<Range<usize>>| match form.content {
            ContentHtml::LeftOut => at.clone().unwrap_or(end..end),
            ContentHtml::Included => end..end,
        };
        let (content, mark) = (left_out(&self.content), left_out(&self.content_mark));
        joined([head, start..content.start, content.end..mark.start, mark.end..end, tail])
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self, form: BlockForm) -> usize {
        self.parts(form).iter().map(Range::len).sum()
    }

    /// A block, as slices of the bytes that all clients share.
    pub(crate) fn block(&self, form: BlockForm) -> impl Iterator<Item = Bytes> + '_ {
        self.parts(form).into_iter().filter(|part| !part.is_empty()).map(|part| self.rendered.slice(part))
    }

    /// Whether a block is one slice.
    pub(crate) fn is_one_slice(&self, form: BlockForm) -> bool {
        self.parts(form).iter().filter(|part| !part.is_empty()).count() == 1
    }

    /// Copies a block.
    pub(crate) fn copy_block(&self, form: BlockForm, to: &mut BytesMut) {
        for part in self.parts(form) {
            to.extend_from_slice(&self.rendered[part]);
        }
    }

    /// Bytes of memory that the frame takes, about.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 384;
        let whole = self.whole.as_ref().map_or(0, |whole| whole.0.len());
        self.rendered.len() + whole + self.text.len() + self.labels.bytes() + FIXED
    }
}

/// The same bytes in as few ranges as possible; the rest of them are empty.
fn joined<const N: usize>(mut ranges: [Range<usize>; N]) -> [Range<usize>; N] {
    let mut last = 0;
    for n in 1..N {
        let next = std::mem::take(&mut ranges[n]);
        if next.is_empty() {
            continue;
        }
        if ranges[last].end == next.start {
            ranges[last].end = next.end;
        } else {
            last += 1;
            ranges[last] = next;
        }
    }
    ranges
}

/// Where the JSON of a shortened event says that `content_html` is not whole: its name in the list, or the whole list.
fn content_mark(json: &str) -> Option<Range<usize>> {
    const ALONE: &str = ",\"truncated\":[\"content_html\"]";
    const FIRST: &str = ",\"truncated\":[\"content_html\", ";
    const LIST: &str = ",\"truncated\":[";
    // The list is the last member, and within a string the quote after the name would be escaped.
    let start = memchr::memmem::rfind(json.as_bytes(), LIST.as_bytes())?;
    match &json[start..] {
        list if list.starts_with(ALONE) => Some(start..start + ALONE.len()),
        list if list.starts_with(FIRST) => Some(start + LIST.len()..start + FIRST.len()),
        _ => None,
    }
}

/// Where `,"content_html":…` is in the JSON of an event. Within a string the quote after the name would be escaped.
fn content_member(json: &[u8]) -> Option<Range<usize>> {
    const NAME: &[u8] = b",\"content_html\":";
    let start = memchr::memmem::find(json, NAME)?;
    let value = start + NAME.len();
    if json[value..].starts_with(b"null") {
        return Some(start..value + "null".len());
    }
    let mut at = value + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(start..at + 1);
        }
        at += 2;
    }
}

/// The JSON of an event that is too long for a line, with `"truncated":[…]`, the names of the fields that are not whole.
fn shortened(mut event: Event, room: usize) -> String {
    /// Makes a field shorter.
    type Shorten = fn(&mut Item);
    /// In the order in which they are tried.
    const STEPS: [(&str, Shorten); 9] = [
        ("content_html", |item| item.content_html = None),
        ("summary", |item| item.summary.truncate(item.summary.floor_char_boundary(8 * 1024))),
        ("enclosures", |item| item.enclosures.truncate(4)),
        ("authors", |item| item.authors.truncate(4)),
        ("categories", |item| item.categories.truncate(8)),
        ("warnings", |item| item.warnings.clear()),
        ("enclosures", |item| item.enclosures.clear()),
        ("authors", |item| item.authors.clear()),
        ("categories", |item| item.categories.clear()),
    ];
    let mut truncated = Vec::new();
    let mut json = event.to_json();
    for (name, shorten) in STEPS {
        let before = event.item.clone();
        shorten(&mut event.item);
        if event.item == before {
            continue;
        }
        if !truncated.contains(&name) {
            truncated.push(name);
        }
        json = event.to_json();
        json.pop();
        json.push_str(&format!(",\"truncated\":{truncated:?}}}"));
        if json.len() <= room {
            break;
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use news::{Author, Cursor, Enclosure, Epoch, FeedUrl, Source};

    use super::*;

    const FORMS: [BlockForm; 4] = {
        const fn form(format: StreamFormat, content: ContentHtml) -> BlockForm {
            BlockForm { format, content }
        }
        [
            form(StreamFormat::EventStream, ContentHtml::Included),
            form(StreamFormat::EventStream, ContentHtml::LeftOut),
            form(StreamFormat::NdJson, ContentHtml::Included),
            form(StreamFormat::NdJson, ContentHtml::LeftOut),
        ]
    };

    fn event(item: Item) -> Event {
        let url = FeedUrl::try_new("https://example.org/").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        let id = Cursor { epoch: Epoch::try_new("e").unwrap(), seq: Seq(7) };
        Event::new(id, EventKind::Item, &source, Timestamp::from_millis(0), item)
    }

    fn block(frame: &Frame, form: BlockForm) -> String {
        let shared: Vec<u8> = frame.block(form).flatten().collect();
        let mut copied = BytesMut::new();
        frame.copy_block(form, &mut copied);
        assert_eq!((&shared[..], shared.len()), (&copied[..], frame.block_bytes(form)));
        String::from_utf8(shared).unwrap()
    }

    /// The data of a block, whatever its form.
    fn data(frame: &Frame, form: BlockForm) -> serde_json::Value {
        let text = block(frame, form);
        match form.format {
            StreamFormat::EventStream => {
                let lines = text.strip_prefix("id: e-7\nevent: item\ndata: ").unwrap();
                serde_json::from_str(lines.strip_suffix("\n\n").unwrap()).unwrap()
            }
            StreamFormat::NdJson => {
                let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
                assert_eq!((&line["event"], &line["id"]), (&"item".into(), &"e-7".into()));
                line["data"].clone()
            }
        }
    }

    #[test]
    fn a_block_is_one_event_whatever_its_title_contains() {
        for title in
            ["plain", "two\nlines", "\r\n\r\nevent: error\n\n", "\u{2028}\u{0}\u{FEFF}", "data: x\n\nid: 9"]
        {
            let event = event(Item { title: title.to_owned(), ..Item::default() });
            let json = event.to_json();
            let frame = Frame::render(json.as_bytes()).unwrap();
            let text = block(&frame, FORMS[0]);
            assert_eq!(text, format!("id: e-7\nevent: item\ndata: {json}\n\n"));
            assert_eq!(text.matches(['\n', '\r']).count(), 4, "{title:?}");
            assert_eq!(block(&frame, FORMS[2]).matches(['\n', '\r']).count(), 1, "{title:?}");
            assert_eq!(frame.json(), json.as_bytes());
        }
    }

    #[test]
    fn without_content_html_a_block_has_every_other_field() {
        for content in [
            None,
            Some("<p>plain</p>"),
            Some(""),
            Some("\\"),
            Some("ends with a backslash \\"),
            Some("a \" quote, \\\" and ,\"content_html\":\"another\""),
        ] {
            let content_html = content.map(str::to_owned);
            let title = ",\"content_html\":\"not here\"".to_owned();
            let event = event(Item { title, content_html, ..Item::default() });
            let whole = serde_json::to_value(&event).unwrap();
            let mut without = whole.clone();
            without.as_object_mut().unwrap().remove("content_html").unwrap();
            let frame = Frame::render(event.to_json().as_bytes()).unwrap();
            for (form, expected) in FORMS.into_iter().zip([&whole, &without, &whole, &without]) {
                assert_eq!(&data(&frame, form), expected, "{content:?}");
            }
            let parts = frame.json_without_content().concat();
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&parts).unwrap(), without);
        }
    }

    #[test]
    fn no_line_is_longer_than_clients_read_and_the_whole_event_is_kept() {
        let text = |bytes: usize| "\"".repeat(bytes);
        let author = Author { name: Some(text(1024)), email: Some(text(1024)), url: Some(text(2048)) };
        let enclosure = Enclosure { url: text(2048), media_type: Some(text(1024)), length: Some(1) };
        let largest = Item {
            title: text(1024),
            summary: "ß".repeat(32 * 1024),
            content_html: Some(text(256 * 1024)),
            authors: vec![author; 32],
            categories: vec![text(1024); 64],
            enclosures: vec![enclosure; 32],
            warnings: vec![text(300); 8],
            ..Item::default()
        };
        let long = Item { content_html: Some("x".repeat(256 * 1024)), ..Item::default() };
        let others: &[&str] = &["summary", "enclosures"];
        for (item, expected) in [(largest, others), (long, &[])] {
            let event = event(item);
            let json = event.to_json();
            let frame = Frame::render(json.as_bytes()).unwrap();
            for form in FORMS {
                let text = block(&frame, form);
                let longest = text.lines().map(str::len).max().unwrap();
                assert!(longest < Frame::LINE_BYTES_MAX, "{longest}");
                let data = data(&frame, form);
                let names = data.get("truncated").map_or(&[][..], |names| names.as_array().unwrap());
                let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
                // A client that did not ask for it knows that it is not there.
                let is_content_named = form.content == ContentHtml::Included;
                assert_eq!(names.first() == Some(&"content_html"), is_content_named, "{names:?}");
                let others = &names[usize::from(is_content_named)..];
                assert!(others.starts_with(expected), "{names:?}");
                assert_eq!(data.get("truncated").is_some(), !names.is_empty(), "an empty list is left out");
                assert_eq!(data["title"], event.item.title);
            }
            assert_eq!(frame.json(), json.as_bytes());
            let parts = frame.json_without_content().concat();
            assert!(serde_json::from_slice::<serde_json::Value>(&parts).unwrap()["content_html"].is_null());
            assert!(frame.weight() > json.len() + block(&frame, FORMS[0]).len());
            let sent = block(&frame, FORMS[0]);
            let frame = frame.shortened_only();
            assert_eq!(block(&frame, FORMS[0]), sent);
            assert!(frame.weight() < json.len(), "the whole event is not kept");
        }
    }

    #[test]
    fn an_event_that_fits_is_sent_whole() {
        let room = Frame::LINE_BYTES_MAX - event(Item::default()).to_json().len() - 64;
        let event = event(Item { content_html: Some("x".repeat(room)), ..Item::default() });
        let frame = Frame::render(event.to_json().as_bytes()).unwrap();
        let sent = data(&frame, FORMS[0]);
        assert_eq!(sent, serde_json::to_value(&event).unwrap());
    }

    #[test]
    fn labels_are_compared_in_lower_case() {
        let labels = FilterLabels::new("ÄRZTE", &["Top".to_owned()], Some("en_GB"), Some("GB"));
        assert_eq!((&*labels.category, &*labels.tags[0]), ("ärzte", "top"));
        assert_eq!((&*labels.language, &*labels.country), ("en-gb", "gb"));
        assert_eq!(FilterLabels::new("", &[], None, None), FilterLabels::default());
    }
}
