//! Joins the lines of one record: the message of a Rust panic, a Python traceback, a Java exception, a panic of Go. The text
//! of such a record is its first line, its type, its message and its cause, without the frames.
//!
//! Lines of different programs may alternate in one log: each program has a record of its own that is not finished yet.

use std::collections::VecDeque;

use super::{
    log_line::{LogLine, is_rust_panic},
    severity::Severity,
};

/// Programs whose records are joined at the same time; the oldest is finished early.
const OPEN_MAX: usize = 64;
/// Longest text of a joined record, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Exceptions of one record, each with the one that caused it; of further ones nothing is kept.
const CAUSES_MAX: usize = 16;
/// Longest text of one exception, in bytes.
const CAUSE_BYTES_MAX: usize = 1024;

const TRACEBACK: &str = "Traceback (most recent call last):";
/// Between a Python exception and the one that it caused.
const CHAINED: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];

/// The records that are not finished yet.
#[derive(Debug, Default)]
pub(super) struct RecordJoiner {
    open: VecDeque<OpenRecord>,
}

#[derive(Debug)]
struct OpenRecord {
    line: LogLine,
    /// What the text begins with, before the exceptions of Python.
    head: String,
    expects: Expected,
}

/// What the next lines of a record are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// Nothing special: frames of Java may follow any line.
    Any,
    /// The message of a Rust panic.
    RustMessage,
    /// The backtrace of a Rust panic.
    RustFrames,
    /// Frames, then the exception; with the exceptions that caused it.
    PythonFrames { causes: Vec<String>, at: Option<String> },
    /// Perhaps the introduction of another exception.
    PythonChain { causes: Vec<String> },
    /// The same, introduced.
    PythonNext { causes: Vec<String> },
    /// `\tat …` and `Caused by: …`.
    JavaFrames,
    /// Goroutines and their frames.
    GoFrames,
}

impl RecordJoiner {
    /// Takes a line, and passes on the records that it finishes.
    pub(super) fn add(&mut self, line: LogLine, finished: &mut dyn FnMut(LogLine)) {
        let mut parts = line.text.split('\n');
        let first = parts.next().unwrap_or_default().to_owned();
        let rest = parts.map(|text| LogLine {
            text: text.to_owned(),
            program: line.program.clone(),
            ..LogLine::default()
        });
        let rest: Vec<_> = rest.collect();
        self.add_one(LogLine { text: first, ..line }, finished);
        rest.into_iter().for_each(|line| self.add_one(line, finished));
    }

    fn add_one(&mut self, line: LogLine, finished: &mut dyn FnMut(LogLine)) {
        let at = self.open.iter().position(|open| open.line.program == line.program);
        let before = at.and_then(|at| self.open.remove(at));
        let open = match before {
            None => OpenRecord::begin(line),
            Some(mut open) => match open.take(line) {
                None => open,
                Some(line) => {
                    finished(open.line);
                    OpenRecord::begin(line)
                }
            },
        };
        self.open.push_back(open);
        if self.open.len() > OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            finished(oldest.line);
        }
    }

    /// Passes on the records that are not finished.
    pub(super) fn finish(self, finished: &mut dyn FnMut(LogLine)) {
        self.open.into_iter().for_each(|open| finished(open.line));
    }
}

impl OpenRecord {
    fn begin(mut line: LogLine) -> Self {
        let text = line.text.trim();
        let mut head = line.text.clone();
        let expects = if is_rust_panic(text) {
            // Before Rust 1.73 the message stood in quotes on the same line.
            if text.ends_with(':') { Expected::RustMessage } else { Expected::RustFrames }
        } else if text.ends_with(TRACEBACK) {
            line.level = Some(Severity::Panic);
            head = "Python".to_owned();
            Expected::PythonFrames { causes: Vec::new(), at: None }
        } else if text.starts_with("Exception in thread ") {
            line.level = Some(Severity::Panic);
            Expected::JavaFrames
        } else if text.starts_with("panic: ") || text.starts_with("fatal error: ") {
            line.level = Some(Severity::Panic);
            Expected::GoFrames
        } else if java_class(text).is_some() {
            line.level = line.level.max(Some(Severity::Error));
            Expected::JavaFrames
        } else {
            Expected::Any
        };
        Self { line, head, expects }
    }

    /// Takes a line that belongs to the record; returns one that does not.
    fn take(&mut self, line: LogLine) -> Option<LogLine> {
        let text = line.text.trim();
        let is_indented = line.text.starts_with([' ', '\t']);
        match std::mem::replace(&mut self.expects, Expected::Any) {
            Expected::RustMessage => {
                self.append(" ", text);
                self.expects = Expected::RustFrames;
                None
            }
            Expected::RustFrames
                if text.starts_with("note: ") || text == "stack backtrace:" || is_indented =>
            {
                self.expects = Expected::RustFrames;
                None
            }
            Expected::PythonFrames { causes, at } if is_indented || text.is_empty() => {
                let at = python_frame(text).or(at);
                self.expects = Expected::PythonFrames { causes, at };
                None
            }
            Expected::PythonFrames { mut causes, at } => {
                let at = at.map(|at| format!(" at {}", cut(&at, CAUSE_BYTES_MAX))).unwrap_or_default();
                // The last one is what the record is about, so the oldest makes room.
                causes.truncate(CAUSES_MAX - 1);
                causes.insert(0, format!("{}{at}", cut(text, CAUSE_BYTES_MAX)));
                self.set_exceptions(&causes);
                self.expects = Expected::PythonChain { causes };
                None
            }
            Expected::PythonChain { causes } if text.is_empty() => {
                self.expects = Expected::PythonChain { causes };
                None
            }
            Expected::PythonChain { causes } if CHAINED.contains(&text) => {
                self.expects = Expected::PythonNext { causes };
                None
            }
            Expected::PythonNext { causes } if text.is_empty() || text.ends_with(TRACEBACK) => {
                self.expects = match text.is_empty() {
                    true => Expected::PythonNext { causes },
                    false => Expected::PythonFrames { causes, at: None },
                };
                None
            }
            Expected::GoFrames if is_go_frame(text, is_indented) => {
                self.expects = Expected::GoFrames;
                None
            }
            _ => self.take_java_or_traceback(line),
        }
    }

    /// Frames of Java, and a traceback that a logger writes after its own line.
    fn take_java_or_traceback(&mut self, line: LogLine) -> Option<LogLine> {
        let text = line.text.trim();
        let is_frame = text.starts_with("at ") && text.contains('(') || text.starts_with("... ");
        if line.text.starts_with([' ', '\t']) && is_frame {
            self.line.level = self.line.level.max(Some(Severity::Error));
        } else if let Some(cause) = text.strip_prefix("Caused by: ") {
            self.line.level = self.line.level.max(Some(Severity::Error));
            self.append("; caused by ", cause);
        } else if self.line.level.is_some() && line.time.is_none() && text == TRACEBACK {
            self.line.level = self.line.level.max(Some(Severity::Error));
            self.expects = Expected::PythonFrames { causes: Vec::new(), at: None };
            return None;
        } else if self.line.level.is_some() && line.time.is_none() && java_class(text).is_some() {
            self.append(": ", text);
        } else {
            return Some(line);
        }
        self.expects = Expected::JavaFrames;
        None
    }

    /// The exception and its causes replace the introduction of the traceback, or follow the line of a logger.
    fn set_exceptions(&mut self, causes: &[String]) {
        self.line.text = self.head.clone();
        self.append(": ", &causes.join("; caused by "));
    }

    fn append(&mut self, between: &str, text: &str) {
        let left = TEXT_BYTES_MAX.saturating_sub(self.line.text.len() + between.len());
        if left > 0 {
            self.line.text.extend([between, cut(text, left)]);
        }
    }
}

/// The first bytes of a text, up to the end of a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max.min(text.len()))]
}

/// `feeds.py:12 in fetch`, of a line `File "feeds.py", line 12, in fetch`.
fn python_frame(text: &str) -> Option<String> {
    let (file, rest) = text.strip_prefix("File \"")?.split_once("\", line ")?;
    let (line, function) = rest.split_once(", in ").unwrap_or((rest, "the module"));
    Some(format!("{file}:{line} in {function}"))
}

/// The class of a Java exception at the beginning of a line: `java.io.IOException` of `java.io.IOException: no route`.
fn java_class(text: &str) -> Option<&str> {
    let class = text.split([':', ' ']).next()?;
    let (package, name) = class.rsplit_once('.')?;
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
    };
    let is_exception = ["Exception", "Error", "Throwable"].iter().any(|end| name.ends_with(end));
    let fits = package.split('.').all(is_word)
        && is_word(name)
        && name.starts_with(|c: char| c.is_ascii_uppercase());
    let rest = &text[class.len()..];
    (is_exception && fits && (rest.is_empty() || rest.starts_with(": "))).then_some(class)
}

fn is_go_frame(text: &str, is_indented: bool) -> bool {
    is_indented
        || text.is_empty()
        || text.starts_with("goroutine ")
        || text.starts_with("created by ")
        || text.starts_with("[signal ")
        || text.starts_with("exit status ")
        || text.ends_with(')') && text.contains('(') && !text.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Vec<(Option<Severity>, String)> {
        let (mut joiner, mut all) = (RecordJoiner::default(), Vec::new());
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        let mut finished = |line: LogLine| all.push((line.level, line.text));
        text.lines().for_each(|line| joiner.add(LogLine::parse(line, now), &mut finished));
        joiner.finish(&mut finished);
        all
    }

    fn panic(text: &str) -> (Option<Severity>, String) {
        (Some(Severity::Panic), text.to_owned())
    }

    #[test]
    fn a_rust_panic_has_its_message() {
        let new = "thread 'main' (12) panicked at src/main.rs:3:5:\ncalled `Result::unwrap()` on an `Err` value: x\n\
                   note: run with `RUST_BACKTRACE=1`\nstack backtrace:\n   0: std::panicking\n             at /x.rs:1\nnext";
        let message = "called `Result::unwrap()` on an `Err` value: x";
        let expected = format!("thread 'main' (12) panicked at src/main.rs:3:5: {message}");
        assert_eq!(joined(new), [panic(&expected), (None, "next".to_owned())]);
        let old = "thread 'main' panicked at 'no route', src/main.rs:3:5";
        assert_eq!(joined(old), [panic(old)]);
    }

    #[test]
    fn a_python_traceback_has_its_exception_the_place_and_the_cause() {
        let first = "Traceback (most recent call last):\n  File \"a.py\", line 3, in fetch\n    get(url)\nTimeoutError: timed out\n";
        assert_eq!(joined(first), [panic("Python: TimeoutError: timed out at a.py:3 in fetch")]);
        let second = "\nDuring handling of the above exception, another exception occurred:\n\n\
                      Traceback (most recent call last):\n  File \"b.py\", line 9, in <module>\nRuntimeError: no feed\nINFO: next";
        let expected = "Python: RuntimeError: no feed at b.py:9 in <module>; caused by TimeoutError: timed out at a.py:3 in fetch";
        assert_eq!(joined(&format!("{first}{second}")), [panic(expected), (None, "INFO: next".to_owned())]);
        let logged = format!("2026-11-25 19:00:00,123 ERROR feeds: could not fetch\n{first}");
        let expected = "feeds: could not fetch: TimeoutError: timed out at a.py:3 in fetch";
        assert_eq!(joined(&logged), [(Some(Severity::Error), expected.to_owned())]);
    }

    #[test]
    fn a_java_exception_has_its_cause_and_no_frames() {
        let text = "Exception in thread \"main\" java.lang.IllegalStateException: no feed\n\tat a.B.c(B.java:7)\n\
                    Caused by: java.net.UnknownHostException: a.example\n\tat d.E.f(E.java:9)\n\t... 3 more\n";
        let expected = "Exception in thread \"main\" java.lang.IllegalStateException: no feed; \
                        caused by java.net.UnknownHostException: a.example";
        assert_eq!(joined(text), [panic(expected)]);
        let logged = "2026-11-25 19:00:00.123 ERROR 7 --- [main] a.B : it failed\njava.io.IOException: no route\n\tat a.B.c(B.java:7)\nnext";
        let found = joined(logged);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].0, Some(Severity::Error));
        assert!(found[0].1.ends_with("it failed: java.io.IOException: no route"), "{found:?}");
        assert_eq!(joined("java.lang.OutOfMemoryError: Java heap space")[0].0, Some(Severity::Error));
    }

    #[test]
    fn a_go_panic_has_no_frames() {
        let text = "panic: runtime error: index out of range [5]\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:7 +0x1d\nexit status 2";
        assert_eq!(joined(text), [panic("panic: runtime error: index out of range [5]")]);
    }

    #[test]
    fn a_record_without_an_end_is_kept_up_to_a_bound() {
        let long = "ö".repeat(3_000);
        let chained = format!("{TRACEBACK}\n  File \"{long}\", line 3, in f\nE: {long}\n{}\n", CHAINED[0]);
        let caused = format!("Caused by: {long}\n");
        for text in [chained.repeat(50), format!("java.io.IOException: x\n{}", caused.repeat(50))] {
            let found = joined(&text);
            assert_eq!(found.len(), 1);
            assert!(found[0].1.len() <= TEXT_BYTES_MAX, "{}", found[0].1.len());
        }
        let mut open = OpenRecord::begin(LogLine { text: TRACEBACK.to_owned(), ..LogLine::default() });
        for line in chained.repeat(50).lines().skip(1) {
            assert!(open.take(LogLine { text: line.to_owned(), ..LogLine::default() }).is_none());
        }
        let Expected::PythonNext { causes } = open.expects else { panic!("{:?}", open.expects) };
        assert!(causes.len() <= CAUSES_MAX && causes.iter().all(|cause| cause.len() <= 3 * CAUSE_BYTES_MAX));
    }

    #[test]
    fn records_of_two_programs_that_alternate_are_joined_each() {
        let syslog = |program: &str, text: &str| format!("Nov 25 19:00:00 h {program}[7]: {text}\n");
        let text = [
            syslog("a", "Traceback (most recent call last):"),
            syslog("b", "thread 'x' panicked at b.rs:1:2:"),
            syslog("a", "  File \"a.py\", line 3, in f"),
            syslog("b", "boom"),
            syslog("a", "ValueError: bad"),
        ];
        let expected =
            [panic("thread 'x' panicked at b.rs:1:2: boom"), panic("Python: ValueError: bad at a.py:3 in f")];
        assert_eq!(joined(&text.concat()), expected);
    }

    #[test]
    fn lines_that_belong_to_nothing_stay_as_they_are() {
        let text = "WARN a\n  indented\nCaused by nothing\nb.C: x\n  at home\nERROR d";
        assert_eq!(joined(text).len(), 6);
    }
}
