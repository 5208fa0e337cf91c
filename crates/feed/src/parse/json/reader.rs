//! Reads the members of a feed and its items one by one: what is wrong in one of them is skipped.

use memchr::{memchr_iter, memmem};
use news::Warning;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{super::RawItem, PartialFeed, raw};
use crate::{last_items::LastItems, limits::WARNINGS_MAX};

/// How many times the length of the document the attempts may read that fail.
const FAILED_LENGTHS_MAX: usize = 4;

/// What was read.
#[derive(Debug)]
pub(super) struct ReadFeed {
    pub(super) feed: PartialFeed,
    pub(super) warnings: Vec<Warning>,
    /// The document ends too early, or its rest could not be read.
    pub(super) damaged: bool,
}

/// Reads a feed. `repaired_at` is where the scan has repaired something outside of strings.
pub(super) fn read(text: &str, repaired_at: Option<usize>) -> ReadFeed {
    let mut reader = JsonReader {
        text,
        at: 0,
        failed_bytes_left: FAILED_LENGTHS_MAX * text.len(),
        read: ReadFeed { feed: PartialFeed::default(), warnings: Vec::new(), damaged: false },
        last_items: LastItems::default(),
    };
    if let Some(at) = repaired_at {
        reader.warn(at, "what is not JSON was repaired".to_owned());
    }
    let mut result = reader.top();
    if let Err(e) = &result
        && !reader.read.feed.saw_items
        && let Some(items) = items_after(text, reader.at)
    {
        reader.warn(e.at, format!("what is before the items was skipped: {}", e.message));
        reader.at = items;
        result = reader.items().and_then(|()| reader.members());
    }
    if let Err(e) = result {
        reader.warn(e.at, format!("parsing stopped here: {}", e.message));
        reader.read.damaged = true;
    }
    let feed = &mut reader.read.feed;
    feed.items.extend(reader.last_items.take());
    feed.dropped = reader.last_items.dropped;
    reader.read
}

/// Why a value could not be read.
struct JsonFailure {
    at: usize,
    message: String,
}

struct JsonReader<'t> {
    text: &'t str,
    at: usize,
    failed_bytes_left: usize,
    read: ReadFeed,
    /// Items that follow those of `read`.
    last_items: LastItems<RawItem<'static>>,
}

impl JsonReader<'_> {
    /// Reads the outermost value.
    fn top(&mut self) -> Result<(), JsonFailure> {
        if self.next() != Some(b'{') {
            return self.value::<IgnoredAny>().map(drop);
        }
        self.at += 1;
        self.members()
    }

    /// Reads the members of the outermost object, and its end.
    fn members(&mut self) -> Result<(), JsonFailure> {
        const KEPT_KEYS: [&str; 11] = [
            "version",
            "title",
            "home_page_url",
            "feed_url",
            "description",
            "icon",
            "favicon",
            "author",
            "authors",
            "language",
            "hubs",
        ];
        loop {
            match self.next() {
                Some(b'}') => return Ok(()),
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let key: String = self.value()?;
            if self.next() != Some(b':') {
                return Err(self.failure("expected `:`"));
            }
            self.at += 1;
            if key == "items" && self.next() == Some(b'[') {
                self.items()?;
            } else if KEPT_KEYS.contains(&key.as_str()) {
                let value = self.value()?;
                self.read.feed.top.insert(key, value);
            } else {
                self.read.feed.saw_items |= key == "items" && self.text[self.at..].starts_with("null");
                self.value::<IgnoredAny>()?;
            }
        }
    }

    /// Reads the items; one that is not JSON is skipped.
    fn items(&mut self) -> Result<(), JsonFailure> {
        self.at += 1;
        self.read.feed.saw_items = true;
        loop {
            match self.next() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let begin = self.at;
            match self.value() {
                Ok(Value::Object(item)) => self.add(raw(&item), begin),
                Ok(_) => {}
                Err(e) => self.skip_item(begin, e)?,
            }
        }
    }

    fn add(&mut self, item: RawItem<'static>, offset: usize) {
        let first = self.read.feed.items.len();
        let was_whole = self.last_items.dropped == 0;
        self.read.feed.items.extend(self.last_items.keep(item, first));
        if was_whole && self.last_items.dropped > 0 {
            self.warn(offset, LastItems::<RawItem<'_>>::warning());
        }
    }

    /// Goes on after an item that could not be read: at its end, or else at the next item.
    ///
    /// # Errors
    /// The failure, if neither is found or the attempts cost too much.
    fn skip_item(&mut self, begin: usize, failure: JsonFailure) -> Result<(), JsonFailure> {
        let end = end_of_item(self.text, begin);
        self.at = end.unwrap_or(begin);
        let mut is_found = end.is_some() && matches!(self.next(), Some(b',' | b']' | b'{'));
        let mut from = begin;
        let mut read_to = failure.at.max(end.unwrap_or(self.text.len()));
        while !is_found {
            let Some(next) = next_object(self.text, from).filter(|_| self.pay(from, read_to)) else {
                return Err(failure);
            };
            self.at = next;
            let read = self.value::<Value>();
            is_found = read.as_ref().is_ok_and(is_item);
            read_to = read.map_or_else(|e| e.at, |_| self.at);
            (self.at, from) = (next, next);
        }
        if !self.pay(from, read_to) {
            return Err(failure);
        }
        self.warn(failure.at, format!("an item was skipped: {}", failure.message));
        Ok(())
    }

    /// Counts what a failed attempt has read; returns false if that was too much.
    fn pay(&mut self, from: usize, to: usize) -> bool {
        let left = self.failed_bytes_left.checked_sub(to.saturating_sub(from) + 1);
        self.failed_bytes_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Reads a value at the current offset.
    fn value<T: DeserializeOwned>(&mut self) -> Result<T, JsonFailure> {
        let rest = &self.text[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(e)) => Err(JsonFailure {
                at: self.at + offset_of(rest, e.line(), e.column()),
                message: e.to_string().split(" at line").next().unwrap_or_default().to_owned(),
            }),
            None => {
                let message = "EOF while parsing a value".to_owned();
                Err(JsonFailure { at: self.text.len(), message })
            }
        }
    }

    /// Skips whitespace; returns the next byte.
    fn next(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn failure(&self, message: &str) -> JsonFailure {
        JsonFailure { at: self.at, message: message.to_owned() }
    }

    fn warn(&mut self, offset: usize, message: String) {
        if self.read.warnings.len() < WARNINGS_MAX {
            let (line, column) = position_of(self.text, offset);
            self.read.warnings.push(Warning { line: Some(line), column: Some(column), message });
        }
    }
}

/// The offset of a line and a column, both from 1, as `serde_json` counts them.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let line_start = match line.checked_sub(2) {
        Some(n) => memchr_iter(b'\n', text.as_bytes()).nth(n).map_or(text.len(), |at| at + 1),
        None => 0,
    };
    (line_start + column.saturating_sub(1)).min(text.len())
}

/// The line and the column of an offset, both from 1; columns are bytes.
fn position_of(text: &str, offset: usize) -> (u32, u32) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// The offset of the `[` of the items, after an offset.
fn items_after(text: &str, from: usize) -> Option<usize> {
    const NAME: &str = "\"items\"";
    let mut names = memmem::find_iter(&text.as_bytes()[from..], NAME).map(|at| from + at + NAME.len());
    names.find_map(|at| {
        let value = text[at..].trim_start().strip_prefix(':')?.trim_start();
        value.starts_with('[').then(|| text.len() - value.len())
    })
}

/// The offset after the object that begins at `begin`; `None` if its brackets do not match.
fn end_of_item(text: &str, begin: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (begin, 0_usize);
    loop {
        match bytes.get(at)? {
            // The scan leaves no line end in a string, unless its quote is missing.
            b'"' => loop {
                at += 1 + memchr::memchr3(b'"', b'\\', b'\n', bytes.get(at + 1..)?)?;
                if bytes[at] != b'\\' {
                    break;
                }
                at += 1;
            },
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at).filter(|_| bytes[begin] == b'{' && bytes[at - 1] == b'}');
        }
    }
}

/// The offset of a `{` after `from` that follows `}` and a comma, and that a name follows.
fn next_object(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let blank = |at: usize| at + bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    memmem::find_iter(&bytes[from..], b"}").find_map(|found| {
        let comma = blank(from + found + 1);
        let open = blank(comma + usize::from(bytes.get(comma) == Some(&b',')));
        let name = blank((open + 1).min(bytes.len()));
        (bytes.get(open) == Some(&b'{') && bytes.get(name) == Some(&b'"')).then_some(open)
    })
}

/// Whether this is an item, and not an author or an attachment of one.
fn is_item(value: &Value) -> bool {
    let has = |key: &&str| value.get(key).is_some();
    ["id", "content_html", "content_text", "date_published"].iter().any(has)
        || (has(&"title") && !has(&"mime_type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(items: &str) -> (Vec<String>, bool) {
        let text = format!("{{\"title\":\"t\",\"items\":{items}");
        let read = read(&text, None);
        let titles = read.feed.items.into_iter().map(|i| i.title.unwrap_or_default().value.into_owned());
        (titles.collect(), read.damaged)
    }

    #[test]
    fn an_item_that_is_not_json_costs_itself_only() {
        let sound = |title: &str| format!("{{\"title\":\"{title}\",\"tags\":[{{\"x\":1}},{{\"x\":2}}]}}");
        for bad in [
            r#"{"title":"he said "hello" there"}"#,
            r#"{"title":"one quote " here"}"#,
            r#"{"title" "x"}"#,
            r#"{"title":x}"#,
            r#"{"title":"x" "id":1}"#,
        ] {
            let (titles, damaged) = titles(&format!("[{},{bad},{}]}}", sound("a"), sound("b")));
            assert_eq!(
                (titles.first().map(String::as_str), titles.last().map(String::as_str)),
                (Some("a"), Some("b")),
                "{bad}"
            );
            assert!(!damaged, "{bad}");
        }
        assert_eq!(
            titles(r#"[{"title":"a"} {"title":"b"}]}"#),
            (vec!["a".to_owned(), "b".to_owned()], false)
        );
    }

    #[test]
    fn a_broken_member_before_the_items_costs_only_itself() {
        let text = r#"{"title":"he said "hello" there","items":[{"title":"a"}],"description":"d"}"#;
        let read = read(text, None);
        assert_eq!((read.feed.items.len(), read.damaged), (1, false));
        assert_eq!(read.feed.top["description"], "d");
    }

    #[test]
    fn a_truncated_document_keeps_the_items_before_the_break() {
        assert_eq!(titles(r#"[{"title":"a"},{"title":"b"#), (vec!["a".to_owned()], true));
        assert_eq!(titles(r#"[{"title":"a"},"#), (vec!["a".to_owned()], true));
        assert_eq!(titles(r#"[{"title":"a"}]"#), (vec!["a".to_owned()], true));
    }
}
