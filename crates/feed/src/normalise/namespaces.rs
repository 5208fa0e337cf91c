//! Resolves the vocabulary of an element, whatever its prefix.

use std::borrow::Cow;

use crate::limits::NAMESPACES_MAX;

/// A vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// RSS of any version, Atom of any version, or no namespace: their names do not conflict.
    Core,
    /// Atom in a feed of another format: like [`Vocabulary::Core`], with lower rank.
    Atom,
    Rdf,
    Content,
    DublinCore,
    DublinTerms,
    Itunes,
    Media,
    /// Podcasting 2.0.
    Podcast,
    /// Russian portals, for the text of an article.
    FullText,
    /// PRISM of scholarly publishers.
    Prism,
    Syndication,
    /// Of programs that replace the links of a feed by their own and keep the original.
    LinkProxy,
    Xhtml,
    Other,
}

const ATOM: [&str; 2] = ["http://www.w3.org/2005/atom", "http://purl.org/atom/ns#"];
pub(super) const ATOM_03: &str = "http://purl.org/atom/ns#";

/// Namespace URIs in lower case, without trailing slash.
const KNOWN: [(&str, Vocabulary); 36] = [
    ("http://www.w3.org/1999/02/22-rdf-syntax-ns#", Vocabulary::Rdf),
    ("http://purl.org/rss/1.0", Vocabulary::Core),
    ("http://purl.org/net/rss1.1#", Vocabulary::Core),
    ("http://my.netscape.com/rdf/simple/0.9", Vocabulary::Core),
    ("http://channel.netscape.com/rdf/simple/0.9", Vocabulary::Core),
    ("http://backend.userland.com/rss", Vocabulary::Core),
    ("http://backend.userland.com/rss2", Vocabulary::Core),
    ("http://blogs.law.harvard.edu/tech/rss", Vocabulary::Core),
    ("http://purl.org/rss/1.0/modules/content", Vocabulary::Content),
    ("http://purl.org/dc/elements/1.0", Vocabulary::DublinCore),
    ("http://purl.org/dc/elements/1.1", Vocabulary::DublinCore),
    ("http://purl.org/dc/terms", Vocabulary::DublinTerms),
    ("http://www.itunes.com/dtds/podcast-1.0.dtd", Vocabulary::Itunes),
    ("http://www.itunes.com/dtd/podcast-1.0.dtd", Vocabulary::Itunes),
    ("http://www.google.com/schemas/play-podcasts/1.0", Vocabulary::Itunes),
    ("http://search.yahoo.com/mrss", Vocabulary::Media),
    ("http://search.yahoo.com/searchmonkey/media", Vocabulary::Media),
    ("http://video.search.yahoo.com/mrss", Vocabulary::Media),
    ("https://podcastindex.org/namespace/1.0", Vocabulary::Podcast),
    ("http://news.yandex.ru", Vocabulary::FullText),
    ("http://turbo.yandex.ru", Vocabulary::FullText),
    ("http://news.rambler.ru", Vocabulary::FullText),
    ("https://news.rambler.ru", Vocabulary::FullText),
    ("https://github.com/podcastindex-org/podcast-namespace/blob/main/docs/1.0.md", Vocabulary::Podcast),
    ("http://prismstandard.org/namespaces/basic/1.2", Vocabulary::Prism),
    ("http://prismstandard.org/namespaces/1.2/basic", Vocabulary::Prism),
    ("http://prismstandard.org/namespaces/basic/2.0", Vocabulary::Prism),
    ("http://prismstandard.org/namespaces/basic/2.1", Vocabulary::Prism),
    ("http://prismstandard.org/namespaces/basic/3.0", Vocabulary::Prism),
    ("http://purl.org/rss/1.0/modules/syndication", Vocabulary::Syndication),
    ("http://rssnamespace.org/feedburner/ext/1.0", Vocabulary::LinkProxy),
    ("http://www.pheedo.com/namespace/pheedo", Vocabulary::LinkProxy),
    ("http://www.pheedo.com/namespace/pheedo#", Vocabulary::LinkProxy),
    ("http://www.w3.org/1999/xhtml", Vocabulary::Xhtml),
    ("http://www.w3.org/2005/atom", Vocabulary::Atom),
    ("http://purl.org/atom/ns#", Vocabulary::Atom),
];

/// Prefixes that publishers use without declaring them.
const USUAL_PREFIXES: [(&str, Vocabulary); 18] = [
    ("rdf", Vocabulary::Rdf),
    ("rss", Vocabulary::Core),
    ("content", Vocabulary::Content),
    ("dc", Vocabulary::DublinCore),
    ("dcterms", Vocabulary::DublinTerms),
    ("itunes", Vocabulary::Itunes),
    ("media", Vocabulary::Media),
    ("podcast", Vocabulary::Podcast),
    ("yandex", Vocabulary::FullText),
    ("turbo", Vocabulary::FullText),
    ("rambler", Vocabulary::FullText),
    ("prism", Vocabulary::Prism),
    ("sy", Vocabulary::Syndication),
    ("feedburner", Vocabulary::LinkProxy),
    ("pheedo", Vocabulary::LinkProxy),
    ("xhtml", Vocabulary::Xhtml),
    ("atom", Vocabulary::Atom),
    ("a10", Vocabulary::Atom),
];

/// The declarations in scope, innermost last.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    declared: Vec<(&'a str, Cow<'a, str>, Vocabulary)>,
    /// The root is Atom: its names are [`Vocabulary::Core`].
    pub(super) atom_is_core: bool,
}

/// More declarations than [`NAMESPACES_MAX`].
pub(super) struct TooMany;

impl<'a> Namespaces<'a> {
    /// The number of declarations in scope; restore it with [`Namespaces::truncate`].
    pub(super) fn len(&self) -> usize {
        self.declared.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.declared.truncate(len);
    }

    /// Declares a prefix ("" is the default); repeating a declaration in scope is free.
    pub(super) fn declare(&mut self, prefix: &'a str, uri: Cow<'a, str>) -> Result<(), TooMany> {
        if self.uri(prefix).is_some_and(|known| known == uri) {
            return Ok(());
        }
        if self.declared.len() >= NAMESPACES_MAX {
            return Err(TooMany);
        }
        let vocabulary = vocabulary(&uri);
        self.declared.push((prefix, uri, vocabulary));
        Ok(())
    }

    /// The URI of a prefix.
    pub(super) fn uri(&self, prefix: &str) -> Option<&str> {
        self.declaration(prefix).map(|(uri, _)| uri)
    }

    fn declaration(&self, prefix: &str) -> Option<(&str, Vocabulary)> {
        let found = self.declared.iter().rev().find(|(p, ..)| *p == prefix);
        found.map(|(_, uri, vocabulary)| (uri.as_ref(), *vocabulary))
    }

    /// The vocabulary and the local name of a qualified name.
    pub(super) fn resolve<'n>(&self, name: &'n str) -> (Vocabulary, &'n str) {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let by_uri = self.declaration(prefix).filter(|(uri, _)| !uri.is_empty()).map(|(_, known)| known);
        let vocabulary = match (prefix, by_uri) {
            (_, Some(known)) if known != Vocabulary::Other => known,
            // No prefix: names of the feed itself, whatever the default namespace is.
            ("", _) => Vocabulary::Core,
            (_, Some(other)) => other,
            (prefix, None) => USUAL_PREFIXES
                .iter()
                .find(|(p, _)| p.eq_ignore_ascii_case(prefix))
                .map_or(Vocabulary::Other, |(_, v)| *v),
        };
        match vocabulary {
            Vocabulary::Atom if self.atom_is_core => (Vocabulary::Core, local),
            other => (other, local),
        }
    }
}

pub(super) fn is_atom(uri: &str) -> bool {
    ATOM.iter().any(|a| a.eq_ignore_ascii_case(uri.trim().trim_end_matches('/')))
}

fn vocabulary(uri: &str) -> Vocabulary {
    let uri = uri.trim().trim_end_matches('/');
    KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(uri)).map_or(Vocabulary::Other, |(_, v)| *v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_recognised_by_uri_then_by_prefix() {
        let mut names = Namespaces::default();
        assert_eq!(names.resolve("dc:creator"), (Vocabulary::DublinCore, "creator"));
        assert_eq!(names.resolve("x:creator"), (Vocabulary::Other, "creator"));
        assert!(names.declare("x", "http://purl.org/dc/elements/1.1".into()).is_ok());
        assert_eq!(names.resolve("x:creator"), (Vocabulary::DublinCore, "creator"));
        assert!(names.declare("dc", "http://example.org/else".into()).is_ok());
        assert_eq!(names.resolve("dc:creator"), (Vocabulary::Other, "creator"));
        assert!(names.declare("", "http://example.org/mine".into()).is_ok());
        assert_eq!(names.resolve("title"), (Vocabulary::Core, "title"));
    }

    #[test]
    fn repeated_declarations_are_free_and_distinct_ones_are_bounded() {
        let mut names = Namespaces::default();
        for n in 0..NAMESPACES_MAX {
            assert!(names.declare("x", format!("u{n}").into()).is_ok());
            assert!(names.declare("x", format!("u{n}").into()).is_ok());
        }
        assert!(names.declare("x", "one more".into()).is_err());
    }
}
