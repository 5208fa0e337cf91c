//! The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an event, `NAME=value` lines in it.
//!
//! The message carries the fields too, so that a plain `journalctl -u` is readable, and each field stands beside it
//! under its own name, so that `journalctl SOURCE=bbc` finds it. Values arrive escaped, hence without newlines, and need
//! no binary form.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{Level, Metadata};

use super::Counts;
use super::fields::{Fields, Scalar};
use super::lines::Write;
use notation::escaped;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// How long one line waits for a journal whose queue is full. A stuck journal costs this once, not once a line.
const PATIENCE: Duration = Duration::from_millis(100);
/// Largest datagram, bytes: below what Linux sends at once by default (`net.core.wmem_default`, 212,992).
const RECORD_BYTES_MAX: usize = 128 * 1_024;
/// Longest name of a field, bytes (systemd.journal-fields(7)).
const NAME_BYTES_MAX: usize = 64;
/// Names that the record itself uses; a field of that name gets `FIELD_` before it.
const OWN: [&str; 6] = ["MESSAGE", "PRIORITY", "TARGET", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE"];

/// A connection to the journal.
pub(super) struct Journal {
    path: PathBuf,
    patient: UnixDatagram,
    impatient: UnixDatagram,
    stuck: AtomicBool,
    counts: Arc<Counts>,
    identifier: String,
}

impl Journal {
    /// Checks that the journal takes something; an empty datagram is discarded there.
    pub(super) fn connect(path: impl AsRef<Path>, counts: Arc<Counts>) -> io::Result<Self> {
        let (patient, impatient) = (UnixDatagram::unbound()?, UnixDatagram::unbound()?);
        patient.set_write_timeout(Some(PATIENCE))?;
        impatient.set_nonblocking(true)?;
        patient.send_to(&[], &path)?;
        let program = std::env::args_os().next().unwrap_or_default();
        let identifier =
            Path::new(&program).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let path = path.as_ref().to_path_buf();
        Ok(Self { path, patient, impatient, stuck: AtomicBool::new(false), counts, identifier })
    }
}

impl Write for Journal {
    fn write(&self, record: &[u8]) {
        let mut datagram = format!("SYSLOG_IDENTIFIER={}\n", escaped(&self.identifier)).into_bytes();
        datagram.extend_from_slice(record);
        let socket = if self.stuck.load(Ordering::Relaxed) { &self.impatient } else { &self.patient };
        // By path each time, because a restarted journald listens at a new socket of the same name.
        let sent = socket.send_to(&datagram, &self.path);
        let full = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.stuck.store(full, Ordering::Relaxed);
        if sent.is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether standard error is the stream that systemd connected to the journal: `JOURNAL_STREAM` is its device and inode.
pub(super) fn stderr_goes_there() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The record of an event but for the program's name. `message` is one escaped line.
pub(super) fn record(metadata: &Metadata<'_>, message: &str, fields: &Fields) -> String {
    let priority = match *metadata.level() {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let mut record =
        format!("PRIORITY={priority}\nMESSAGE={message}\nTARGET={}\n", escaped(metadata.target()));
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut record, "CODE_FILE", file);
        put(&mut record, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &fields.list {
        let Some(name) = journal_name(name) else { continue };
        match value {
            Scalar::Text(text) => put(&mut record, &name, text),
            Scalar::Number(digits) => put(&mut record, &name, digits),
            Scalar::Bool(yes) => put(&mut record, &name, if *yes { "true" } else { "false" }),
        }
    }
    record
}

/// Appends a field unless the record would become too large; the message has its beginning in any case.
fn put(record: &mut String, name: &str, value: &str) {
    let value = escaped(value);
    if record.len() + name.len() + value.len() < RECORD_BYTES_MAX {
        writeln!(record, "{name}={value}").expect("a String takes every write");
    }
}

/// A name as the journal takes it: capitals, digits and underscores, beginning with a capital.
fn journal_name(name: &str) -> Option<String> {
    let capitals = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = capitals.skip_while(|c| !c.is_ascii_uppercase()).take(NAME_BYTES_MAX - 6).collect();
    match name.as_str() {
        "" => None,
        own if OWN.contains(&own) => Some(format!("FIELD_{own}")),
        _ => Some(name),
    }
}
