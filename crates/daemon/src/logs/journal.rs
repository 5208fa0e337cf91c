//! The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram per event, `NAME=value` lines in it.
//!
//! The message carries the fields too, so that a plain `journalctl -u` is readable; each field is also sent under its own
//! name, so that `journalctl SOURCE=bbc` finds it. Values are escaped and therefore have no newlines, so the protocol's
//! binary form is never needed.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{Level, Metadata};

use super::fields::{EventFields, Scalar};
use crate::line_queue::LineSink;
use notation::escaped;

/// The socket that journald listens on.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// How long one attempt waits for a journal whose queue is full. The next one looks up the path again: meanwhile journald
/// may have a new socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest datagram, bytes: below what Linux sends at once by default (`net.core.wmem_default`, 212,992).
const RECORD_BYTES_MAX: usize = 128 * 1_024;
/// Longest name of a field, bytes (systemd.journal-fields(7)).
const NAME_BYTES_MAX: usize = 64;
/// Names that the record itself uses; a field of that name is prefixed with `FIELD_`.
const RESERVED_NAMES: [&str; 6] =
    ["MESSAGE", "PRIORITY", "TARGET", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE"];

/// A connection to the journal.
pub(super) struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    identifier: String,
}

impl Journal {
    /// Connects, and checks with an empty datagram, which the journal discards.
    pub(super) fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.send_to(&[], &path)?;
        let program = std::env::args_os().next().unwrap_or_default();
        let identifier =
            Path::new(&program).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Self { path: path.as_ref().to_path_buf(), socket, identifier })
    }
}

impl LineSink for Journal {
    fn batch_bytes_max(&self) -> usize {
        0
    }

    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let mut datagram = format!("SYSLOG_IDENTIFIER={}\n", escaped(&self.identifier)).into_bytes();
        datagram.extend_from_slice(record);
        loop {
            // By path each time: a restarted journald listens on a new socket with the same name.
            match self.socket.send_to(&datagram, &self.path) {
                Ok(_) => return Ok(record.len()),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether standard error is the stream that systemd connected to the journal: `JOURNAL_STREAM` is its device and inode.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The record of an event without the program's name. `message` is one escaped line.
pub(super) fn record(metadata: &Metadata<'_>, message: &str, fields: &EventFields) -> String {
    let priority = match *metadata.level() {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let mut record =
        format!("PRIORITY={priority}\nMESSAGE={message}\nTARGET={}\n", escaped(metadata.target()));
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        push_field(&mut record, "CODE_FILE", file);
        push_field(&mut record, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &fields.list {
        let Some(name) = journal_name(name) else { continue };
        match value {
            Scalar::Text(text) => push_field(&mut record, &name, text),
            Scalar::Number(digits) => push_field(&mut record, &name, digits),
            Scalar::Bool(yes) => push_field(&mut record, &name, if *yes { "true" } else { "false" }),
        }
    }
    record
}

/// Appends a field unless the record would become too large; the message shows the beginning in any case.
fn push_field(record: &mut String, name: &str, value: &str) {
    let value = escaped(value);
    if record.len() + name.len() + value.len() < RECORD_BYTES_MAX {
        writeln!(record, "{name}={value}").expect("a String takes every write");
    }
}

/// A name in the journal's form: capitals, digits and underscores, beginning with a capital.
fn journal_name(name: &str) -> Option<String> {
    let capitals = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = capitals.skip_while(|c| !c.is_ascii_uppercase()).take(NAME_BYTES_MAX - 6).collect();
    match name.as_str() {
        "" => None,
        reserved if RESERVED_NAMES.contains(&reserved) => Some(format!("FIELD_{reserved}")),
        _ => Some(name),
    }
}
