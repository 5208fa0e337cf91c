//! Lists of feeds, OPML 1 and 2 (<http://opml.org/spec2.opml>), read as people have them: broken, and all the same.
//!
//! What the bytes say is given as it stands; what is a good address or a good name is for the caller to judge. One
//! linear pass over the tags, no tree: a mistake costs its own outline. Never here: an expanded entity of a DOCTYPE,
//! an `include` that is followed, recursion.

use std::sync::Arc;

use crate::{
    FeedError,
    decode::decode,
    html::{Lexer, Token, attributes},
    text::{cut, unescape},
};

/// Longest document, in bytes.
pub const BYTES_MAX: usize = 32 << 20;
/// Most feeds of one document.
pub const FEEDS_MAX: usize = 100_000;
/// Most levels of outlines within outlines.
pub const DEPTH_MAX: usize = 64;
/// Longest value of an attribute, in bytes: longer ones are cut, and then too long for any use of ours.
const VALUE_BYTES_MAX: usize = 4096;
/// Most attributes of one outline that are kept; those after them are passed over.
const ATTRIBUTES_MAX: usize = 32;
/// Most mistakes that are kept.
const FAULTS_MAX: usize = 1000;

/// A list of feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opml {
    /// The attributes of the root: where the namespaces are.
    pub root: Attributes,
    /// What looks as if it should be a feed, in the order of the document.
    pub feeds: Vec<Outline>,
    /// What could not be read, by line.
    pub faults: Vec<(usize, String)>,
}

/// One feed of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Where it stands, from 1.
    pub line: usize,
    /// The outline around it.
    pub folder: Option<Arc<Folder>>,
    /// All that is said about it.
    pub attributes: Attributes,
}

/// An outline with others in it. Each knows the one around it, so that a feed costs no copy of its whole path.
#[derive(Debug, PartialEq, Eq)]
pub struct Folder {
    /// Its name.
    pub name: String,
    /// The outline around it.
    pub within: Option<Arc<Folder>>,
}

impl Outline {
    /// The names of the outlines around it, the outermost first; at most [`DEPTH_MAX`].
    #[must_use]
    pub fn folders(&self) -> Vec<&str> {
        let around = std::iter::successors(self.folder.as_deref(), |folder| folder.within.as_deref());
        let mut names: Vec<_> = around.map(|folder| folder.name.as_str()).collect();
        names.reverse();
        names
    }
}

/// The attributes of a tag, references replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn read(source: &str) -> Self {
        let value = |value| cut(&unescape(value), VALUE_BYTES_MAX).to_owned();
        let given = attributes(source).filter(|(_, value)| !value.is_empty());
        Self(given.take(ATTRIBUTES_MAX).map(|(name, v)| (name.to_owned(), value(v))).collect())
    }

    /// The first one of this name, in any case, that is not empty; trimmed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, v)| n.eq_ignore_ascii_case(name) && !v.is_empty()).map(|(_, v)| v)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.trim()))
    }
}

/// Why nothing of a list could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpmlError {
    /// Longer than we read.
    #[error("the list has {0} bytes, more than the {BYTES_MAX} that are read: split it")]
    TooLarge(usize),
    /// More feeds than we take; all were counted.
    #[error("the list names {0} feeds, more than the {FEEDS_MAX} that are taken: split it")]
    TooManyFeeds(usize),
    /// Outlines within outlines within outlines.
    #[error(
        "line {line}: more than {DEPTH_MAX} levels of nested outlines; is an outline before it not closed?"
    )]
    TooDeep {
        /// Where, from 1.
        line: usize,
    },
    /// In an encoding that is not read.
    #[error(transparent)]
    Encoding(#[from] FeedError),
    /// Something else.
    #[error("this is no OPML: it has neither an <opml> nor an <outline>")]
    NotOpml,
}

/// Reads a list of feeds.
///
/// # Errors
/// [`OpmlError`] when it is none, or over a limit; a list that is merely damaged has [`Opml::faults`].
pub fn read_opml(bytes: &[u8]) -> Result<Opml, OpmlError> {
    if bytes.len() > BYTES_MAX {
        return Err(OpmlError::TooLarge(bytes.len()));
    }
    let (text, _) = decode(bytes, None)?;
    let mut reader = Reader { text: &text, at: 0, line: 1, open: Vec::new(), feeds: 0, found: None };
    for token in Lexer::new(&text) {
        reader.take(token)?;
    }
    let Reader { open, feeds, found, line, .. } = reader;
    if feeds > FEEDS_MAX {
        return Err(OpmlError::TooManyFeeds(feeds));
    }
    let mut found = found.ok_or(OpmlError::NotOpml)?;
    if !open.is_empty() {
        complain(&mut found, line, "the list ends inside an outline: is something missing?");
    }
    Ok(found)
}

struct Reader<'a> {
    text: &'a str,
    /// Up to where lines have been counted, and how many there were.
    at: usize,
    line: usize,
    /// The open outlines: for each the folder that it is, or is in when it is a feed itself.
    open: Vec<Option<Arc<Folder>>>,
    feeds: usize,
    /// Nothing before the first tag of a list.
    found: Option<Opml>,
}

impl<'a> Reader<'a> {
    /// The line of a piece of the text.
    fn line_of(&mut self, piece: &'a str) -> usize {
        let at = (piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        self.line += self.text.as_bytes()[self.at..at].iter().filter(|b| **b == b'\n').count();
        self.at = at;
        self.line
    }

    fn take(&mut self, token: Token<'a>) -> Result<(), OpmlError> {
        let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        match token {
            Token::Open { name, attributes, .. } if is(name, "opml") => {
                self.found.get_or_insert_default().root = Attributes::read(attributes);
            }
            Token::Open { name, attributes, source } if is(name, "outline") => {
                let line = self.line_of(source);
                self.outline(attributes, line)?;
            }
            Token::Close { name, .. } if is(name, "outline") => drop(self.open.pop()),
            Token::Text(text) if text.get(..8).is_some_and(|t| is(t, "<outline")) => {
                let line = self.line_of(text);
                complain(self.found.get_or_insert_default(), line, "this outline is not closed by a >");
            }
            _ => {}
        }
        Ok(())
    }

    fn outline(&mut self, source: &str, line: usize) -> Result<(), OpmlError> {
        let around = self.open.last().cloned().unwrap_or_default();
        let attributes = Attributes::read(source);
        let kind = attributes.get("type").unwrap_or_default().to_ascii_lowercase();
        let is_feed = attributes.get("xmlUrl").is_some() || matches!(&*kind, "rss" | "atom" | "include");
        if !source.trim_end().ends_with('/') {
            if self.open.len() == DEPTH_MAX {
                return Err(OpmlError::TooDeep { line });
            }
            let name = attributes.get("text").or(attributes.get("title")).filter(|_| !is_feed);
            let within = match name {
                Some(name) => Some(Arc::new(Folder { name: name.to_owned(), within: around.clone() })),
                None => around.clone(),
            };
            self.open.push(within);
        }
        let found = self.found.get_or_insert_default();
        if attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case("xmlUrl")).count() > 1 {
            complain(found, line, "this outline has two addresses, and the first was taken: is a > missing?");
        }
        if is_feed {
            self.feeds += 1;
            // One too many is counted on, and none is kept.
            if self.feeds <= FEEDS_MAX {
                found.feeds.push(Outline { line, folder: around, attributes });
            } else {
                found.feeds.clear();
            }
        }
        Ok(())
    }
}

fn complain(found: &mut Opml, line: usize, message: &str) {
    if found.faults.len() < FAULTS_MAX {
        found.faults.push((line, message.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(opml: &Opml) -> Vec<&str> {
        opml.feeds.iter().map(|f| f.attributes.get("xmlUrl").unwrap_or("-")).collect()
    }

    #[test]
    fn feeds_are_returned_with_line_folder_and_attributes() {
        let text = "<?xml version='1.0'?>\n<opml version='2.0' xmlns:n='urn:x'><head><title>t</title></head>\n<body>\n\
            <outline text='World'>\n<outline title=\"Far &amp; away\"><outline type='rss' TEXT='A' xmlurl='http://a/'/>\n\
            </outline>\n<outline xmlUrl='http://b/'></outline></outline><outline text='a note'/>\n\
            <outline type=rss xmlUrl='http://c/?x=1&amp;y=&eacute;'/></body></opml>";
        let opml = read_opml(text.as_bytes()).unwrap();
        assert_eq!(urls(&opml), ["http://a/", "http://b/", "http://c/?x=1&y=é"]);
        let places: Vec<_> = opml.feeds.iter().map(|f| (f.line, f.folders().join("/"))).collect();
        assert_eq!(places, [(5, "World/Far & away".into()), (7, "World".into()), (8, String::new())]);
        assert_eq!(opml.root.get("xmlns:n"), Some("urn:x"));
        assert!(opml.faults.is_empty());
    }

    #[test]
    fn broken_xml_loses_only_the_broken_outline() {
        let text = "<opml><body><outline text=\"AT&T &nosuch; <b>\" xmlUrl=\"http://a/?x=1&y=2\"/>\n\
                    <outline text=\"no end xmlUrl=http://b/>\n<outline xmlUrl='http://c/'/>\n</folder>\n\
                    <outline type='rss' text='d'/>\n\
                    <outline xmlUrl='http://f/' <outline xmlUrl='http://g/'/>\n<outline xmlUrl='http://e/'";
        let opml = read_opml(text.as_bytes()).unwrap();
        assert_eq!(urls(&opml), ["http://a/?x=1&y=2", "http://c/", "-", "http://f/"]);
        assert_eq!(opml.feeds[0].attributes.get("text"), Some("AT&T &nosuch; <b>"));
        let lines: Vec<_> = opml.faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [6, 7], "{:?}", opml.faults);
    }

    #[test]
    fn a_doctype_is_ignored_and_its_entities_are_not_expanded() {
        let text = "<!DOCTYPE opml [<!ENTITY a \"aaaa\"><!ENTITY b SYSTEM 'file:///etc/passwd'>]>\
                    <opml><outline text='&a;&b;' xmlUrl='http://a/'/></opml>";
        assert_eq!(read_opml(text.as_bytes()).unwrap().feeds[0].attributes.get("text"), Some("&a;&b;"));
    }

    #[test]
    fn wrong_encodings_and_byte_order_marks_are_handled() {
        let text = "<opml><outline text='café' xmlUrl='http://a/'/></opml>";
        let mut utf16 = vec![0xff, 0xfe];
        utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        let latin1 = text.replace('é', "\u{0}").bytes().map(|b| if b == 0 { 0xe9 } else { b }).collect();
        let lying = [b"<?xml version='1.0' encoding='utf-8'?>".to_vec(), latin1].concat();
        for bytes in [format!("\u{feff}{text}").into_bytes(), utf16, lying] {
            assert_eq!(read_opml(&bytes).unwrap().feeds[0].attributes.get("text"), Some("café"));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_result(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "<opml>", "<outline", "</outline>", " xmlUrl='", "\"", "'", ">", "/>", "<!--", "-->", "<!DOCTYPE",
                    "<![CDATA[", "]]>", "&amp;", "&", "\n", "=", "é", "http://a/", "\u{feff}", "\0", "<script>",
                ]),
                0..60,
            ),
            tail in proptest::collection::vec(proptest::num::u8::ANY, 0..8),
        ) {
            let bytes = [pieces.concat().into_bytes(), tail].concat();
            if let Ok(opml) = read_opml(&bytes) {
                proptest::prop_assert!(opml.feeds.is_sorted_by_key(|feed| feed.line));
            }
        }
    }

    #[test]
    fn the_limits_hold_at_the_limit_and_one_past_it() {
        let list = |feeds: usize| format!("<opml>{}</opml>", "<outline xmlUrl='http://a/'/>".repeat(feeds));
        assert_eq!(read_opml(list(FEEDS_MAX).as_bytes()).unwrap().feeds.len(), FEEDS_MAX);
        assert_eq!(read_opml(list(FEEDS_MAX + 1).as_bytes()), Err(OpmlError::TooManyFeeds(100_001)));
        let deep = |levels: usize| {
            format!("<opml>{}{}", "<outline text='x'>".repeat(levels), "</outline>".repeat(levels))
        };
        assert!(read_opml(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(read_opml(deep(DEPTH_MAX + 1).as_bytes()), Err(OpmlError::TooDeep { line: 1 }));
        assert_eq!(read_opml(&vec![b' '; BYTES_MAX + 1]), Err(OpmlError::TooLarge(BYTES_MAX + 1)));
        for other in ["", "<html><body>no list</body></html>", "<rss/>", "[]"] {
            assert_eq!(read_opml(other.as_bytes()), Err(OpmlError::NotOpml), "{other}");
        }
    }
}
