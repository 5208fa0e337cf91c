//! Opens what is read: plain files, gzip files, and the journal of systemd.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;

/// Where systemd keeps its journals (systemd-journald.service(8)).
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// Formats that are recognised and not read: their first bytes, and the remedy.
const REFUSED: [(&[u8], &str); 4] = [
    (
        b"LPKSHHRH",
        "is a file of the journal; read it with `journalctl --file FILE -o json | newswire logs triage -`",
    ),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; read it with `zstdcat FILE | newswire logs triage -`"),
    (b"\xfd7zXZ\0", "is compressed with xz; read it with `xzcat FILE | newswire logs triage -`"),
    (b"BZh", "is compressed with bzip2; read it with `bzcat FILE | newswire logs triage -`"),
];

/// Opens a log file.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    plain(BufReader::new(File::open(path)?))
}

/// Decompresses gzip, in one part or several, as `logrotate` and `cat a.gz b.gz` write it.
///
/// # Errors
/// For formats that are not read, and if the first bytes cannot be read.
pub(super) fn plain<'a>(mut from: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let beginning = from.fill_buf()?;
    if let Some((_, why)) = REFUSED.iter().find(|(magic, _)| beginning.starts_with(magic)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, *why));
    }
    Ok(match beginning.starts_with(b"\x1f\x8b") {
        true => Box::new(BufReader::new(MultiGzDecoder::new(from))),
        false => Box::new(from),
    })
}

/// Whether this user may read the journal of the system.
///
/// # Errors
/// If there is none, or it may not be read; with the remedy.
pub(super) fn system_journal() -> anyhow::Result<()> {
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    readable_journal(&JOURNALS.map(|folder| Path::new(folder).join(machine.trim())))
}

fn readable_journal(folders: &[PathBuf]) -> anyhow::Result<()> {
    let opened = folders.iter().map(|folder| File::open(folder.join("system.journal")));
    let mut refused = None;
    for opened in opened {
        match opened {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(error).context(
            "this user may not read it; run this as root or as a member of the group systemd-journal",
        ),
        None => anyhow::bail!("this machine has none; name the log files instead"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_in_parts_is_read_as_text_and_other_formats_name_the_remedy() {
        let (mut text, bytes) = (String::new(), [gzip("a\n"), gzip("b\n")].concat());
        plain(&bytes[..]).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\n");
        let cut = &bytes[..bytes.len() - 9];
        assert!(plain(cut).unwrap().read_to_string(&mut text).is_err());
        let why = plain(&b"LPKSHHRH\0"[..]).err().unwrap().to_string();
        assert!(why.contains("journalctl --file"), "{why}");
        assert!(plain(&b""[..]).is_ok());
    }

    #[test]
    fn a_journal_that_is_not_there_is_no_empty_journal() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("var"), folder.path().join("run")];
        let why = readable_journal(&folders).unwrap_err().to_string();
        assert!(why.contains("none"), "{why}");
        fs::create_dir(&folders[1]).unwrap();
        fs::write(folders[1].join("system.journal"), b"LPKSHHRH").unwrap();
        assert!(readable_journal(&folders).is_ok());
    }
}
