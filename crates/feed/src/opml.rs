//! OPML 1 and 2 (<http://opml.org/spec2.opml>), parsed leniently.
//!
//! Values are returned as sent; the caller validates URLs and names. One linear pass over the tags, no tree: an error
//! loses only its own outline. Never here: expanded entities of a DOCTYPE, following an `include`, recursion.

use std::sync::Arc;

use crate::{
    FeedError,
    decode::decode,
    html::{HtmlToken, Lexer, attributes},
    text::{truncate, unescape_attribute},
};

/// Longest document, in bytes.
pub const BYTES_MAX: usize = 32 << 20;
/// Maximum number of feeds of one document.
pub const FEEDS_MAX: usize = 100_000;
/// Maximum number of levels of nested outlines.
pub const DEPTH_MAX: usize = 64;
/// Longest value of an attribute, in bytes: longer ones are truncated, which is still too long to be valid.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of attributes of one outline that are kept; further ones are ignored.
const ATTRIBUTES_MAX: usize = 32;
/// Maximum number of faults that are kept.
const FAULTS_MAX: usize = 1000;

/// A list of feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opml {
    /// The attributes of the root, which declare namespaces.
    pub root: Attributes,
    /// The outlines that are feeds, in document order.
    pub feeds: Vec<Outline>,
    /// Faults of the document: line and message.
    pub faults: Vec<(usize, String)>,
}

/// One feed of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its line, from 1.
    pub line: usize,
    /// The parent outline.
    pub folder: Option<Arc<Folder>>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// An outline with others in it. Each refers to its parent, so that feeds share the path.
#[derive(Debug, PartialEq, Eq)]
pub struct Folder {
    /// Its name.
    pub name: String,
    /// The parent outline.
    pub parent: Option<Arc<Folder>>,
}

impl Outline {
    /// The names of the outlines that contain it, outermost first; at most [`DEPTH_MAX`].
    #[must_use]
    pub fn folders(&self) -> Vec<&str> {
        let ancestors = std::iter::successors(self.folder.as_deref(), |folder| folder.parent.as_deref());
        let mut names: Vec<_> = ancestors.map(|folder| folder.name.as_str()).collect();
        names.reverse();
        names
    }
}

/// The attributes of a tag, references replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn read(source: &str) -> Self {
        let value = |value| truncate(&unescape_attribute(value), VALUE_BYTES_MAX).to_owned();
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

/// Why a document could not be read as OPML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpmlError {
    /// The document is too long.
    #[error("the list has {0} bytes, the limit is {BYTES_MAX}; split it")]
    TooLarge(usize),
    /// Too many feeds; all were counted.
    #[error("the list has {0} feeds, the limit is {FEEDS_MAX}; split it")]
    TooManyFeeds(usize),
    /// nested outlines.
    #[error(
        "line {line}: more than {DEPTH_MAX} levels of nested outlines; is an earlier outline not closed?"
    )]
    TooDeep {
        /// The line, from 1.
        line: usize,
    },
    /// The encoding is not supported.
    #[error(transparent)]
    Encoding(#[from] FeedError),
    /// The document is not OPML.
    #[error("this is not OPML: it has neither an <opml> nor an <outline>")]
    NotOpml,
}

/// Parses an OPML document.
///
/// # Errors
/// [`OpmlError`] if it is not OPML or exceeds a limit; a damaged document has [`Opml::faults`].
pub fn read_opml(bytes: &[u8]) -> Result<Opml, OpmlError> {
    if bytes.len() > BYTES_MAX {
        return Err(OpmlError::TooLarge(bytes.len()));
    }
    let (text, _) = decode(bytes, None)?;
    let mut reader = OpmlReader { text: &text, at: 0, line: 1, open: Vec::new(), feeds: 0, opml: None };
    for token in Lexer::of_markup(&text) {
        reader.take(token)?;
    }
    let OpmlReader { open, feeds, opml, line, .. } = reader;
    if feeds > FEEDS_MAX {
        return Err(OpmlError::TooManyFeeds(feeds));
    }
    let mut opml = opml.ok_or(OpmlError::NotOpml)?;
    if !open.is_empty() {
        add_fault(&mut opml, line, "the document ends inside an outline; is it truncated?");
    }
    Ok(opml)
}

struct OpmlReader<'a> {
    text: &'a str,
    /// The offset up to which lines have been counted, and their number.
    at: usize,
    line: usize,
    /// The open outlines: each with its folder, or that of its parent if it is a feed.
    open: Vec<Option<Arc<Folder>>>,
    feeds: usize,
    /// `None` before the first tag of OPML.
    opml: Option<Opml>,
}

impl<'a> OpmlReader<'a> {
    /// The line of a piece of the text.
    fn line_of(&mut self, piece: &'a str) -> usize {
        let at = (piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        self.line += self.text.as_bytes()[self.at..at].iter().filter(|b| **b == b'\n').count();
        self.at = at;
        self.line
    }

    fn take(&mut self, token: HtmlToken<'a>) -> Result<(), OpmlError> {
        let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        match token {
            HtmlToken::Open { name, attributes, .. } if is(name, "opml") => {
                self.opml.get_or_insert_default().root = Attributes::read(attributes);
            }
            HtmlToken::Open { name, attributes, source, .. } if is(name, "outline") => {
                let line = self.line_of(source);
                self.outline(attributes, line)?;
            }
            HtmlToken::Close { name, .. } if is(name, "outline") => drop(self.open.pop()),
            HtmlToken::Text(text) if text.get(..8).is_some_and(|t| is(t, "<outline")) => {
                let line = self.line_of(text);
                add_fault(self.opml.get_or_insert_default(), line, "this outline has no closing >");
            }
            _ => {}
        }
        Ok(())
    }

    fn outline(&mut self, source: &str, line: usize) -> Result<(), OpmlError> {
        let parent = self.open.last().cloned().unwrap_or_default();
        let attributes = Attributes::read(source);
        let kind = attributes.get("type").unwrap_or_default().to_ascii_lowercase();
        let is_feed = attributes.get("xmlUrl").is_some() || matches!(&*kind, "rss" | "atom" | "include");
        if !source.trim_end().ends_with('/') {
            if self.open.len() == DEPTH_MAX {
                return Err(OpmlError::TooDeep { line });
            }
            let name = attributes.get("text").or(attributes.get("title")).filter(|_| !is_feed);
            let parent = match name {
                Some(name) => Some(Arc::new(Folder { name: name.to_owned(), parent: parent.clone() })),
                None => parent.clone(),
            };
            self.open.push(parent);
        }
        let opml = self.opml.get_or_insert_default();
        if attributes.iter().filter(|(name, _)| name.eq_ignore_ascii_case("xmlUrl")).count() > 1 {
            add_fault(
                opml,
                line,
                "this outline has two xmlUrl attributes, the first was used; is a > missing?",
            );
        }
        if is_feed {
            self.feeds += 1;
            // Over the limit, feeds are counted but none is kept.
            if self.feeds <= FEEDS_MAX {
                opml.feeds.push(Outline { line, folder: parent, attributes });
            } else {
                opml.feeds.clear();
            }
        }
        Ok(())
    }
}

fn add_fault(opml: &mut Opml, line: usize, message: &str) {
    if opml.faults.len() < FAULTS_MAX {
        opml.faults.push((line, message.to_owned()));
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
