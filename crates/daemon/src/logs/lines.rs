//! Turns an event into its line: time, level, message, and the fields of the event and of the spans around it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use control::black_box::BlackBoxEvent;
use tokio::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::{EventFields, Scalar};
use super::journal;
use super::output::LineWriter;
use super::repeats::{self, LineAction, RepeatFilter};
use super::unfiltered::DUMP_TARGET;
use crate::black_box;
use crate::brief_lock::try_briefly;
use crate::clock::Clock;
use notation::{is_dangerous, push_escaped};

/// Longest message or value in a line, characters; a longer one is cut and ends in an ellipsis.
const VALUE_CHARS_MAX: usize = 2_000;
/// Longest line in the black box, characters; a longer one is cut and ends in an ellipsis.
const BLACK_BOX_CHARS_MAX: usize = 600;

/// What a line looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum LineFormat {
    Text { colour: bool },
    Json,
    Journal,
}

/// Writes a line for each event that the filter lets through.
pub(super) struct LineLayer {
    format: LineFormat,
    out: Box<dyn LineWriter>,
    clock: Clock,
    repeats: Mutex<RepeatFilter>,
    started: Instant,
    suppressed: Arc<AtomicU64>,
}

impl LineLayer {
    pub(super) fn new(
        format: LineFormat,
        out: Box<dyn LineWriter>,
        clock: Clock,
        suppressed: Arc<AtomicU64>,
    ) -> Self {
        Self { format, out, clock, repeats: Mutex::default(), started: Instant::now(), suppressed }
    }

    /// `None` if the line is to be suppressed; otherwise how many of its kind were suppressed before it.
    fn repeats_before(&self, metadata: &Metadata<'_>, fields: &EventFields) -> Option<u64> {
        let Some(kind) = repeats::kind(metadata, fields) else { return Some(0) };
        let repeats = try_briefly(|| match self.repeats.try_lock() {
            Ok(repeats) => Some(repeats),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        // Its holder is stuck: one line too many is better than a thread that waits for it.
        let Some(mut repeats) = repeats else { return Some(0) };
        match repeats.check(kind, self.started.elapsed()) {
            LineAction::Write { repeats } => Some(repeats),
            LineAction::Suppress => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = EventFields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<EventFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = EventFields::default();
        event.record(&mut own);
        let mut all = EventFields { message: own.message, list: Vec::new() };
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<EventFields>() {
                outer.list.iter().for_each(|(name, value)| all.set(name, value.clone()));
            }
        }
        own.list.into_iter().for_each(|(name, value)| all.set(name, value));
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        match self.repeats_before(metadata, &all) {
            None => return,
            Some(0) => {}
            Some(repeats) => all.set("repeats", Scalar::Number(repeats.to_string())),
        }
        record_line(metadata, &all);
        let line = match self.format {
            LineFormat::Text { colour } => text_line(&self.time(), metadata, &all, colour),
            LineFormat::Json => json_line(&self.time(), metadata, &all),
            LineFormat::Journal => journal::record(metadata, &readable(&all, false), &all),
        };
        self.out.write(line, repeats::share(metadata));
    }
}

impl LineLayer {
    /// UTC in RFC 3339 with milliseconds.
    fn time(&self) -> String {
        chrono::DateTime::from_timestamp_millis(self.clock.now_millis())
            .map_or_else(String::new, |time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    }
}

/// The line without its time, for the black box. What an operator raised the level for, and the lines of a stack dump, would
/// displace everything else there.
fn record_line(metadata: &Metadata<'_>, fields: &EventFields) {
    if *metadata.level() > Level::INFO || metadata.target() == DUMP_TARGET || !black_box::is_on() {
        return;
    }
    let mut text = readable(fields, false);
    if let Some((cut, _)) = text.char_indices().nth(BLACK_BOX_CHARS_MAX) {
        text.truncate(cut);
        text.push('…');
    }
    black_box::record(BlackBoxEvent::Log { level: metadata.level().as_str().into(), text: text.into() });
}

const RESET: &str = "\u{1b}[0m";
const DIM: &str = "\u{1b}[2m";

fn text_line(time: &str, metadata: &Metadata<'_>, fields: &EventFields, colour: bool) -> String {
    let mut line = String::with_capacity(160);
    let level = metadata.level();
    if colour {
        let paint = match *level {
            Level::ERROR => "\u{1b}[1;31m",
            Level::WARN => "\u{1b}[33m",
            Level::INFO => "\u{1b}[32m",
            _ => "\u{1b}[34m",
        };
        append(&mut line, format_args!("{DIM}{time}{RESET} {paint}{:<5}{RESET} ", level.as_str()));
    } else {
        append(&mut line, format_args!("{time} {:<5} ", level.as_str()));
    }
    line.push_str(&readable(fields, colour));
    if *level >= Level::DEBUG {
        // Filters are set by module, so a reader of these lines needs the module's name.
        append(&mut line, format_args!(" target={}", metadata.target()));
    }
    line.push('\n');
    line
}

/// Message and fields as `message key=value key="two words"`.
fn readable(fields: &EventFields, colour: bool) -> String {
    let mut line = String::with_capacity(120);
    push_value(&mut line, &fields.message, "");
    for (name, value) in &fields.list {
        let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
        append(&mut line, format_args!(" {dim}{name}={reset}"));
        match value {
            Scalar::Number(digits) => line.push_str(digits),
            Scalar::Bool(yes) => append(&mut line, format_args!("{yes}")),
            Scalar::Text(text) if is_plain(text) => push_value(&mut line, text, ""),
            Scalar::Text(text) => {
                line.push('"');
                push_value(&mut line, text, "\"\\");
                line.push('"');
            }
        }
    }
    line
}

/// Whether a value needs no quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || matches!(c, '"' | '='))
}

/// Appends text, with dangerous characters escaped and a backslash before each of `quoted`.
fn push_value(line: &mut String, text: &str, quoted: &str) {
    for (n, c) in text.chars().enumerate() {
        if n == VALUE_CHARS_MAX {
            return line.push('…');
        }
        if quoted.contains(c) {
            line.push('\\');
        }
        push_escaped(line, c);
    }
}

/// Names that the line itself uses; a field of that name is prefixed with `field_`.
const JSON_RESERVED: [&str; 4] = ["time", "level", "message", "target"];

fn json_line(time: &str, metadata: &Metadata<'_>, fields: &EventFields) -> String {
    let mut line = String::with_capacity(200);
    let (level, target) = (metadata.level().as_str().to_ascii_lowercase(), metadata.target());
    append(&mut line, format_args!(r#"{{"time":"{time}","level":"{level}","message":"#));
    push_json(&mut line, &fields.message);
    line.push_str(",\"target\":");
    push_json(&mut line, target);
    for (name, value) in &fields.list {
        let prefix = if JSON_RESERVED.contains(name) { "field_" } else { "" };
        line.push(',');
        push_json(&mut line, &format!("{prefix}{name}"));
        line.push(':');
        match value {
            Scalar::Number(digits) => line.push_str(digits),
            Scalar::Bool(yes) => append(&mut line, format_args!("{yes}")),
            Scalar::Text(text) => push_json(&mut line, text),
        }
    }
    line.push_str("}\n");
    line
}

/// A JSON string in which every dangerous character is a `\u` escape; `serde_json` escapes only C0.
fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == VALUE_CHARS_MAX => {
                line.push('…');
                break;
            }
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            // All of them are in the basic multilingual plane, so four digits are enough.
            c if is_dangerous(c) => append(line, format_args!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

fn append(line: &mut String, arguments: std::fmt::Arguments<'_>) {
    line.write_fmt(arguments).expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::line_queue::{LineQueue, LineShare};
    use crate::logs::journal::Journal;

    /// Characters that could control a terminal, break a line or mislead a reader.
    const HOSTILE: &str =
        "a\0\u{7}\u{1b}[31m\nb\r\u{7f}\u{85}\u{9b}\u{2028}\u{202e}\u{2066}\u{200f}\" seq=9 \\";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl LineWriter for Buffer {
        fn write(&self, line: String, _: LineShare) {
            self.0.lock().unwrap().extend_from_slice(line.as_bytes());
        }
    }

    /// What `work` logged.
    fn logged(format: LineFormat, work: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let lines = LineLayer::new(
            format,
            Box::new(buffer.clone()),
            Clock::from_tokio(1_767_323_045_678),
            Arc::default(),
        );
        tracing::subscriber::with_default(Registry::default().with(lines), work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn log_hostile() {
        let error = std::io::Error::other(HOSTILE);
        let _visit = tracing::info_span!("visit", source = %HOSTILE).entered();
        tracing::warn!(shown = %HOSTILE, quoted = ?HOSTILE, plain = HOSTILE, error = &error as &dyn std::error::Error, "{}", HOSTILE);
    }

    fn assert_harmless(text: &str) {
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n'));
        assert!(!text.chars().any(|c| c != '\n' && is_dangerous(c)), "{text:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_has_time_level_message_and_fields() {
        let line = logged(LineFormat::Text { colour: false }, || {
            let _visit = tracing::info_span!("visit", source = "bbc", items = 0).entered();
            tracing::info!(items = 3, title = "two words", empty = "", late = true, "recorded items");
        });
        let expected = "2026-01-02T03:04:05.678Z INFO  recorded items source=bbc items=3 title=\"two words\" empty=\"\" late=true\n";
        assert_eq!(line, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_debug_line_names_its_module_and_only_colour_adds_escapes() {
        let line = logged(LineFormat::Text { colour: false }, || tracing::debug!("looked"));
        assert_eq!(line, "2026-01-02T03:04:05.678Z DEBUG looked target=daemon::logs::lines::tests\n");
        let line = logged(LineFormat::Text { colour: true }, || tracing::error!(n = 1, "failed"));
        let expected = "\u{1b}[2m2026-01-02T03:04:05.678Z\u{1b}[0m \u{1b}[1;31mERROR\u{1b}[0m failed \u{1b}[2mn=\u{1b}[0m1\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn no_control_character_reaches_a_text_line() {
        let line = logged(LineFormat::Text { colour: false }, log_hostile);
        assert_harmless(&line);
        assert!(line.contains(r#"shown="a\u{0}\u{7}\u{1b}[31m\nb\r\u{7f}"#), "{line}");
        assert!(line.contains(r#"\u{200f}\" seq=9 \\" "#), "a quoted value cannot end early: {line}");
    }

    #[test]
    fn no_control_character_reaches_a_json_line_and_the_value_survives() {
        let line = logged(LineFormat::Json, log_hostile);
        assert_harmless(&line);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for field in ["shown", "plain", "error", "source", "message"] {
            assert_eq!(value[field], HOSTILE, "{field}");
        }
        assert_eq!(value["level"], "warn");
    }

    #[test]
    fn a_json_line_keeps_numbers_and_its_own_names() {
        let line = logged(LineFormat::Json, || {
            tracing::info!(seq = 7_u64, wait_ms = 1.5, nan = f64::NAN, level = "x", "m")
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["seq"], 7);
        assert_eq!(value["wait_ms"], 1.5);
        assert_eq!(value["nan"], "NaN");
        assert_eq!((&value["level"], &value["field_level"]), (&"info".into(), &"x".into()));
    }

    #[test]
    fn a_long_value_is_cut() {
        for format in [LineFormat::Text { colour: false }, LineFormat::Json] {
            let line = logged(format, || tracing::info!(title = "é".repeat(9_000), "m"));
            assert_eq!(line.matches('é').count(), VALUE_CHARS_MAX);
            assert_eq!(line.matches('…').count(), 1);
        }
    }

    #[test]
    fn the_journal_gets_a_readable_message_and_each_field_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let journal = LineQueue::start("log", journal, |_, _| {}).unwrap();
        let lines = LineLayer::new(LineFormat::Journal, Box::new(journal), Clock::system(), Arc::default());
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            tracing::info!(source = "bbc", seq = 412, _x = 1, priority = 0, note = HOSTILE, "recorded items");
        });
        let mut bytes = [0; 8_192];
        assert_eq!(journald.recv(&mut bytes).unwrap(), 0, "the check at the start");
        let length = journald.recv(&mut bytes).unwrap();
        let record = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let has = |line: &str| assert!(record.lines().any(|l| l == line), "{line} in {record}");
        has("PRIORITY=6");
        has("SOURCE=bbc");
        has("SEQ=412");
        has("X=1");
        has("FIELD_PRIORITY=0");
        has("TARGET=daemon::logs::lines::tests");
        assert!(record.contains("\nMESSAGE=recorded items source=bbc seq=412 "), "{record}");
        assert!(record.lines().all(|line| line.contains('=') && !line.chars().any(is_dangerous)), "{record}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_after_repeats_says_how_many_were_suppressed() {
        let buffer = Buffer::default();
        let suppressed = Arc::<AtomicU64>::default();
        let clock = Clock::from_tokio(1_767_323_045_678);
        let format = LineFormat::Text { colour: false };
        let lines = LineLayer::new(format, Box::new(buffer.clone()), clock, Arc::clone(&suppressed));
        let _guard = tracing::subscriber::set_default(Registry::default().with(lines));
        for round in 0..2 {
            for n in 0..47 {
                tracing::error!(source = "bbc", n, "failed");
                tracing::debug!(source = "bbc", n, "looked");
            }
            tracing::error!(source = "cnn", round, "failed");
            tokio::time::advance(repeats::WINDOW).await;
        }
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let of = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        let shown = 2 * repeats::LINES_MAX as usize;
        assert_eq!((of("failed source=bbc"), of("failed source=cnn"), of("looked")), (shown, 2, 94));
        assert_eq!(of("failed source=bbc n=0 repeats=37"), 1, "{text}");
        assert_eq!(of("repeats="), 1, "{text}");
        assert_eq!(suppressed.load(Ordering::Relaxed), 74);
    }

    #[test]
    fn a_stuck_journal_keeps_no_thread_waiting_and_gets_the_queued_lines_when_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journald = UnixDatagram::bind(&path).unwrap();
        let queue = LineQueue::start("log", Journal::connect(&path).unwrap(), |_, _| {}).unwrap();
        let pushed = 20_000;
        for n in 0..pushed {
            queue.push(format!("MESSAGE={n}\n").into_bytes(), LineShare::Ordinary);
        }
        let kept = pushed - queue.dropped();
        assert!(0 < kept && kept < pushed, "{kept}");
        journald.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut bytes = [0; 512];
        assert_eq!(journald.recv(&mut bytes).unwrap(), 0, "the check at the start");
        for n in 0..kept {
            let length = journald.recv(&mut bytes).unwrap();
            assert!(bytes[..length].ends_with(format!("MESSAGE={n}\n").as_bytes()));
        }
    }
}
