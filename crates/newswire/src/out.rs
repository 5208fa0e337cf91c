//! Writing to the terminal. A closed standard output (`| head`) ends a command and is not an error.

use std::io::{self, IsTerminal as _, Write as _};

use news::{Escaped, Timestamp};

/// Writes one line to standard output and flushes it.
pub(crate) fn stdout_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes one line to standard error; a failure to write is ignored.
pub(crate) fn stderr_line(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether an error says that the reader of our output has closed it.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Colours, if the output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn for_stdout() -> Self {
        Self(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
    }

    pub(crate) fn for_stderr() -> Self {
        Self(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.code("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.code("31", text)
    }

    pub(crate) fn name(self, text: &str) -> String {
        self.code("36", text)
    }
}

/// Escapes a sentence about a failure for a terminal, and leaves it whole: the remedy is at its end.
pub(crate) fn whole(text: &str) -> String {
    notation::escaped(text).into_owned()
}

/// Escapes text from outside for a terminal, and cuts it.
pub(crate) fn safe(text: &str) -> String {
    Escaped(text).to_string()
}

/// The time between two instants in the coarsest unit that is still precise enough: `90s`, `10m`, `2h`, `10d`.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> String {
    notation::approximate(to.since(from))
}

/// A number of things: `1 item`, `3 items`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Why a visit is due when it is, without the wait at its beginning: the text before it says that.
pub(crate) fn reason(why: &str) -> String {
    let rest = why.strip_prefix("in ").and_then(|rest| rest.split_once(": "));
    whole(rest.filter(|(wait, _)| !wait.contains(' ')).map_or(why, |(_, reason)| reason))
}

/// Aligns columns; the last one is not padded. Cells must not contain colour codes.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_not_by_bytes() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("é", "x"), row("long", "y")]), ["é     x", "long  y"]);
    }

    #[test]
    fn a_sentence_about_a_failure_is_not_cut_and_controls_no_terminal() {
        let remedy = format!("{}\u{1b}[31m\n; put it into tls_ca_file", "why ".repeat(200));
        let expected = format!("{}\\u{{1b}}[31m\\n; put it into tls_ca_file", "why ".repeat(200));
        assert_eq!(whole(&remedy), expected);
        assert!(safe(&remedy).ends_with('…'), "the control");
    }

    #[test]
    fn one_thing_is_not_many_and_a_wait_is_said_once() {
        assert_eq!([0, 1, 2].map(|n| count(n, "item")), ["0 items", "1 item", "2 items"]);
        for (why, reason_shown) in [
            ("in 10s: a new source is visited often at first", "a new source is visited often at first"),
            ("in half an hour: x", "in half an hour: x"),
            ("first failure: retry in 10s", "first failure: retry in 10s"),
        ] {
            assert_eq!(reason(why), reason_shown);
        }
    }

    #[test]
    fn spans_are_coarse() {
        let span = |seconds: i64| span(Timestamp::from_millis(0), Timestamp::from_millis(seconds * 1000));
        assert_eq!(
            [span(-5), span(90), span(600), span(7200), span(864_000)],
            ["0s", "90s", "10m", "2h", "10d"]
        );
    }
}
