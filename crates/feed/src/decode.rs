//! Step 3 of the life of an item, first half: bytes to text.
//!
//! The rules, in order: a byte order mark; UTF-16 or UTF-32 detected by zero bytes; valid UTF-8, whatever is declared; the
//! charset of the HTTP header; the XML declaration; detection; windows-1252. A declared encoding that the bytes contradict
//! is ignored. Never here: an error because of single invalid bytes, which become U+FFFD.

use std::{borrow::Cow, fmt};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use memchr::{memchr, memchr_iter};
use serde::{Serialize, Serializer};

use crate::{error::FeedError, text::windows_1252};

/// How the bytes were decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Lower case, as in the WHATWG Encoding Standard, plus `utf-32le` and `utf-32be`.
    pub name: &'static str,
    /// The rule that decided.
    pub decided_by: Decided,
    /// Whether invalid bytes were replaced by U+FFFD.
    pub lossy: bool,
}

/// The rule that decided an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// A byte order mark.
    Bom,
    /// The zero bytes of ASCII characters in UTF-16 and UTF-32.
    Zeros,
    /// The bytes are valid UTF-8.
    #[serde(rename = "valid-utf-8")]
    ValidUtf8,
    /// The charset of the HTTP header.
    Http,
    /// The XML declaration.
    Declaration,
    /// Statistics over the bytes.
    Detected,
    /// None of the above: windows-1252.
    Fallback,
}

impl Decided {
    /// The name of the rule.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bom => "bom",
            Self::Zeros => "zeros",
            Self::ValidUtf8 => "valid-utf-8",
            Self::Http => "http",
            Self::Declaration => "declaration",
            Self::Detected => "detected",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// How much of the document is searched for the XML declaration, in bytes.
const DECLARATION_BYTES_MAX: usize = 1024;

/// How much of the document is used for detection, in bytes.
const SAMPLE_BYTES_MAX: usize = 256 << 10;

/// Decodes a document.
pub(crate) fn decode<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
) -> Result<(Cow<'a, str>, Encoding), FeedError> {
    if let Some(found) = by_mark(bytes) {
        return Ok(found);
    }
    let http = content_type.and_then(charset_of);
    let declared = declaration(bytes);
    for label in [&http, &declared].into_iter().flatten() {
        if label.eq_ignore_ascii_case("utf-7") || label.eq_ignore_ascii_case("unicode-1-1-utf-7") {
            return Err(FeedError::BadEncoding("UTF-7".to_owned()));
        }
    }
    if bytes.starts_with(&[0x4c, 0x6f, 0xa7, 0x94]) {
        return Err(FeedError::BadEncoding("EBCDIC".to_owned()));
    }
    let escapes = memchr(0x1b, bytes).is_some();
    if !(escapes && [&http, &declared].into_iter().flatten().any(|l| is_iso_2022_jp(l)))
        && let Some(text) = valid_utf8(bytes)
    {
        return Ok((Cow::Borrowed(text), decided("utf-8", Decided::ValidUtf8, text.len() < bytes.len())));
    }
    if let Some(joined) = join_surrogates(bytes) {
        let (text, encoding) = by_label(&joined, http.as_deref(), declared.as_deref())?;
        return Ok((Cow::Owned(text.into_owned()), encoding));
    }
    by_label(bytes, http.as_deref(), declared.as_deref())
}

/// The bytes with each pair of surrogates, as CESU-8 and some databases write characters beyond U+FFFF, as UTF-8. `None`
/// if there is no such pair, or if the rest is not UTF-8.
fn join_surrogates(bytes: &[u8]) -> Option<Vec<u8>> {
    let pair_at = |at: usize| match bytes.get(at..at + 6) {
        Some([0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf]) => {
            let [a, b, c, d] = [a, b, c, d].map(|byte| u32::from(*byte));
            let (high, low) = ((a & 0x0f) << 6 | (b & 0x3f), (c & 0x0f) << 6 | (d & 0x3f));
            char::from_u32(0x1_0000 + (high << 10) + low)
        }
        _ => None,
    };
    let mut joined = Vec::new();
    let mut copied = 0;
    for at in memchr_iter(0xed, bytes) {
        if let Some(c) = pair_at(at) {
            joined.extend_from_slice(&bytes[copied..at]);
            joined.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            copied = at + 6;
        }
    }
    joined.extend_from_slice(&bytes[copied..]);
    (copied > 0 && is_mostly_utf8(&joined)).then_some(joined)
}

/// Text whose C1 controls are the characters of windows-1252 that they stand for. The scan does this for XML: not later,
/// because one of them is white space.
pub(crate) fn without_c1(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let is_c1 = |at: usize| bytes.get(at + 1).is_some_and(|b| (0x80..=0x9f).contains(b));
    if memchr_iter(0xc2, bytes).any(is_c1) {
        Cow::Owned(text.chars().map(|c| windows_1252(c).unwrap_or(c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn decided(name: &'static str, decided_by: Decided, lossy: bool) -> Encoding {
    Encoding { name, decided_by, lossy }
}

/// The text if it is valid UTF-8, without a truncated last character.
fn valid_utf8(bytes: &[u8]) -> Option<&str> {
    // Faster than the standard library, with the same result.
    if let Some(Cow::Borrowed(text)) = UTF_8.decode_without_bom_handling_and_without_replacement(bytes) {
        return Some(text);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&bytes[..e.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

/// Detects UTF-8, UTF-16 and UTF-32 by byte order mark, or by zero bytes around the first `<` or `{`.
fn by_mark(bytes: &[u8]) -> Option<(Cow<'_, str>, Encoding)> {
    let begins = |mark: &[u8]| bytes.starts_with(mark);
    if begins(&[0xef, 0xbb, 0xbf]) {
        let text = String::from_utf8_lossy(&bytes[3..]);
        let lossy = matches!(text, Cow::Owned(_));
        return Some((text, decided("utf-8", Decided::Bom, lossy)));
    }
    if begins(&[0xff, 0xfe, 0, 0]) {
        return Some(utf32(&bytes[4..], u32::from_le_bytes, "utf-32le", Decided::Bom));
    }
    if begins(&[0, 0, 0xfe, 0xff]) {
        return Some(utf32(&bytes[4..], u32::from_be_bytes, "utf-32be", Decided::Bom));
    }
    if begins(&[0xff, 0xfe]) {
        return Some(with(UTF_16LE, &bytes[2..], "utf-16le", Decided::Bom));
    }
    if begins(&[0xfe, 0xff]) {
        return Some(with(UTF_16BE, &bytes[2..], "utf-16be", Decided::Bom));
    }
    let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let is_ascii = |b: u8| (0x09..0x7f).contains(&b);
    match head {
        [a, 0, 0, 0] if is_ascii(a) => Some(utf32(bytes, u32::from_le_bytes, "utf-32le", Decided::Zeros)),
        [0, 0, 0, a] if is_ascii(a) => Some(utf32(bytes, u32::from_be_bytes, "utf-32be", Decided::Zeros)),
        [a, 0, b, 0] if is_ascii(a) && is_ascii(b) => Some(with(UTF_16LE, bytes, "utf-16le", Decided::Zeros)),
        [0, a, 0, b] if is_ascii(a) && is_ascii(b) => Some(with(UTF_16BE, bytes, "utf-16be", Decided::Zeros)),
        _ => None,
    }
}

fn with<'a>(
    encoding: &'static encoding_rs::Encoding,
    bytes: &'a [u8],
    name: &'static str,
    by: Decided,
) -> (Cow<'a, str>, Encoding) {
    let (text, lossy) = encoding.decode_without_bom_handling(bytes);
    (text, decided(name, by, lossy))
}

fn utf32(
    bytes: &[u8],
    unit: fn([u8; 4]) -> u32,
    name: &'static str,
    by: Decided,
) -> (Cow<'static, str>, Encoding) {
    let mut lossy = !bytes.len().is_multiple_of(4);
    let mut text = String::with_capacity(bytes.len() / 4);
    for four in bytes.chunks_exact(4) {
        let value = unit([four[0], four[1], four[2], four[3]]);
        text.push(char::from_u32(value).unwrap_or_else(|| {
            lossy = true;
            char::REPLACEMENT_CHARACTER
        }));
    }
    (Cow::Owned(text), decided(name, by, lossy))
}

/// Decodes as declared unless the bytes contradict it; else by detection.
fn by_label<'a>(
    bytes: &'a [u8],
    http: Option<&str>,
    declared: Option<&str>,
) -> Result<(Cow<'a, str>, Encoding), FeedError> {
    for (label, by) in [(http, Decided::Http), (declared, Decided::Declaration)] {
        let Some(label) = label else { continue };
        let Some(encoding) = encoding_rs::Encoding::for_label(label.as_bytes()) else { continue };
        if encoding == REPLACEMENT {
            return Err(FeedError::BadEncoding(label.chars().take(40).collect()));
        }
        // UTF-16 would have been detected by its zero bytes before.
        let contradicted = encoding == UTF_16LE
            || encoding == UTF_16BE
            || (encoding == UTF_8 && !is_mostly_utf8(bytes))
            || (encoding != UTF_8 && is_mostly_utf8(bytes));
        if !contradicted {
            return Ok(with(encoding, bytes, short_name(encoding), by));
        }
    }
    if is_mostly_utf8(bytes) {
        return Ok(with(UTF_8, bytes, "utf-8", Decided::Detected));
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    let sample = &bytes[..bytes.len().min(SAMPLE_BYTES_MAX)];
    detector.feed(sample, sample.len() == bytes.len());
    let guess = detector.guess(None, Utf8Detection::Deny);
    let by = if guess == WINDOWS_1252 { Decided::Fallback } else { Decided::Detected };
    Ok(with(guess, bytes, short_name(guess), by))
}

/// Whether the bytes have more of valid multi-byte sequences of UTF-8 than invalid bytes. In another encoding, three bytes
/// that are one by chance are far rarer than two, and so are two that begin one.
fn is_mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().bytes().map(|b| usize::from(b >= 0xc2) + usize::from(b >= 0xe0)).sum::<usize>();
        match chunk.invalid() {
            [] => {}
            [_] => bad += 1,
            _ => good += 1,
        }
    }
    good > bad
}

fn is_iso_2022_jp(label: &str) -> bool {
    encoding_rs::Encoding::for_label(label.as_bytes()) == Some(encoding_rs::ISO_2022_JP)
}

/// The name in lower case, from a fixed set, so that it can be `'static`.
fn short_name(encoding: &'static encoding_rs::Encoding) -> &'static str {
    const UPPER: [(&str, &str); 14] = [
        ("UTF-8", "utf-8"),
        ("IBM866", "ibm866"),
        ("ISO-8859-2", "iso-8859-2"),
        ("ISO-8859-5", "iso-8859-5"),
        ("ISO-8859-7", "iso-8859-7"),
        ("ISO-8859-15", "iso-8859-15"),
        ("KOI8-R", "koi8-r"),
        ("KOI8-U", "koi8-u"),
        ("GBK", "gbk"),
        ("Big5", "big5"),
        ("EUC-JP", "euc-jp"),
        ("ISO-2022-JP", "iso-2022-jp"),
        ("Shift_JIS", "shift_jis"),
        ("EUC-KR", "euc-kr"),
    ];
    UPPER.iter().find(|(upper, _)| *upper == encoding.name()).map_or(encoding.name(), |(_, lower)| lower)
}

/// The charset parameter of a `Content-Type`.
fn charset_of(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']).trim();
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The encoding in an XML declaration (ASCII).
fn declaration(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(DECLARATION_BYTES_MAX)];
    let start = head.windows(5).position(|w| w == b"<?xml")?;
    let rest = &head[start..];
    let rest = &rest[..rest.windows(2).position(|w| w == b"?>")?];
    let rest = &rest[rest.windows(8).position(|w| w == b"encoding")? + 8..];
    let value = String::from_utf8_lossy(rest);
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (label, _) = value[1..].split_once(quote)?;
    Some(label.trim().to_owned()).filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], content_type: Option<&str>) -> (String, &'static str, Decided) {
        let (text, encoding) = decode(bytes, content_type).unwrap();
        (text.into_owned(), encoding.name, encoding.decided_by)
    }

    #[test]
    fn valid_utf8_wins_over_a_wrong_declaration() {
        let text = "<?xml version='1.0' encoding='ISO-8859-1'?><a>café</a>";
        assert_eq!(read(text.as_bytes(), Some("text/xml; charset=latin1")).1, "utf-8");
        assert_eq!(read(text.as_bytes(), None).2, Decided::ValidUtf8);
    }

    #[test]
    fn the_header_comes_before_the_declaration() {
        let bytes = b"<?xml version='1.0' encoding='windows-1251'?><a>\xe9</a>";
        let (text, name, by) = read(bytes, Some("text/xml; charset=\"iso-8859-2\""));
        assert_eq!((name, by), ("iso-8859-2", Decided::Http));
        assert!(text.contains('é'));
        assert_eq!(read(bytes, None).1, "windows-1251");
        assert_eq!(read(bytes, Some("text/xml; charset=nonsense")).2, Decided::Declaration);
    }

    #[test]
    fn utf8_with_a_latin1_byte_and_nothing_else_is_windows_1252() {
        let (text, name, by) = read(b"<?xml version='1.0' encoding='utf-8'?><a>caf\xe9</a>", None);
        assert_eq!((name, by), ("windows-1252", Decided::Fallback));
        assert!(text.contains("café"));
    }

    #[test]
    fn a_little_that_is_broken_does_not_make_utf8_another_encoding() {
        let declared = |rest: &[u8]| [b"<?xml version='1.0' encoding='utf-8'?><a>", rest, b"</a>"].concat();
        let text = |rest: &[u8]| {
            let (text, name, _) = read(&declared(rest), None);
            assert_eq!(name, "utf-8", "{text}");
            text.split("<a>").nth(1).unwrap().trim_end_matches("</a>").to_owned()
        };
        assert_eq!(text("It’s \0".replace('\0', "").as_bytes()), "It’s ");
        let emoji = b"\xed\xa0\xbd\xed\xb8\x80";
        assert_eq!(text(&["It’s ".as_bytes(), emoji].concat()), "It’s \u{1f600}");
        assert_eq!(text(emoji), "\u{1f600}");
        assert_eq!(
            text(&["日本".as_bytes(), &emoji.repeat(20)].concat()),
            format!("日本{}", "\u{1f600}".repeat(20))
        );
        assert_eq!(text(&["It’s caf".as_bytes(), b"\xe9 and"].concat()), "It’s caf\u{fffd} and");
        assert_eq!(text(b"cut \xe2\x80 off"), "cut \u{fffd} off");
    }

    #[test]
    fn only_the_invalid_byte_in_utf8_is_replaced() {
        let (text, name, _) = read("<a>éééé\u{0}</a>".replace('\0', "").as_bytes(), None);
        assert_eq!((text.as_str(), name), ("<a>éééé</a>", "utf-8"));
        let mut bytes = "<a>éééé".as_bytes().to_vec();
        bytes.push(0xff);
        bytes.extend(b"</a>");
        assert_eq!(read(&bytes, None).0, "<a>éééé\u{fffd}</a>");
    }

    #[test]
    fn utf16_and_utf32_are_detected_by_mark_or_by_zero_bytes() {
        let text = "<?xml version='1.0' encoding='utf-16'?><a>é…</a>";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let le32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let be32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for (bytes, mark, name) in [
            (&le, &[0xff, 0xfe][..], "utf-16le"),
            (&be, &[0xfe, 0xff], "utf-16be"),
            (&le32, &[0xff, 0xfe, 0, 0], "utf-32le"),
            (&be32, &[0, 0, 0xfe, 0xff], "utf-32be"),
        ] {
            assert_eq!(read(bytes, None), (text.to_owned(), name, Decided::Zeros));
            let marked = [mark, bytes].concat();
            assert_eq!(read(&marked, None), (text.to_owned(), name, Decided::Bom));
        }
    }

    #[test]
    fn utf7_is_refused_by_name() {
        let e = decode(b"<?xml version='1.0' encoding='UTF-7'?>", None).unwrap_err();
        assert_eq!(e.class().as_str(), "bad-encoding");
        assert_eq!(
            decode(b"<a/>", Some("text/xml;charset=utf-7")).unwrap_err().class().as_str(),
            "bad-encoding"
        );
    }

    #[test]
    fn a_character_cut_at_the_end_does_not_change_the_encoding() {
        let whole = "<a>é".as_bytes();
        assert_eq!(read(&whole[..whole.len() - 1], None).0, "<a>");
    }
}
