//! Which events a client gets: OR within a parameter, AND between parameters.

use std::{sync::Arc, time::Duration};

use memchr::memmem;
use news::{EventKind, Timestamp};
use notation::{DURATION_MAX, parse_duration_within};

use super::frame::{FilterLabels, Frame};
use crate::auth::scope::CategoryScope;

/// A moment, as clients write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    At(Timestamp),
    Ago(Duration),
}

impl Since {
    /// A time of RFC 3339, or a duration such as `15m`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // A plus sign that was not escaped in a query arrives as a space.
        let at = || text.replace(' ', "+").parse().ok().map(Self::At);
        parse_duration_within(text, Duration::ZERO..=DURATION_MAX).ok().map(Self::Ago).or_else(at)
    }

    pub(crate) fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(instant) => instant,
            Self::Ago(ago) => {
                let ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.millis().saturating_sub(ms))
            }
        }
    }
}

/// Selects events. The empty filter selects all. All values are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventFilter {
    pub(crate) categories: Vec<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// Language ranges; see [`is_in_range`].
    pub(crate) languages: Vec<String>,
    pub(crate) countries: Vec<String>,
    /// Title or summary must contain every one.
    pub(crate) words: Vec<Word>,
    /// Names of events; empty for every kind.
    pub(crate) kinds: Vec<String>,
    /// What the reader may see at all; `None` for everything.
    scope: Option<Arc<CategoryScope>>,
}

/// A word in lower case, prepared once to be searched for in many texts.
#[derive(Clone, Debug)]
pub(crate) struct Word(memmem::Finder<'static>);

impl Word {
    pub(crate) fn new(word: &str) -> Self {
        Self(memmem::Finder::new(word.to_lowercase().as_bytes()).into_owned())
    }

    fn is_in(&self, text: &str) -> bool {
        self.0.find(text.as_bytes()).is_some()
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.0.needle() == other.0.needle()
    }
}

impl Eq for Word {}

impl EventFilter {
    /// The same filter, limited to what a reader may see.
    #[must_use]
    pub(crate) fn within(self, scope: Option<Arc<CategoryScope>>) -> Self {
        Self { scope, ..self }
    }

    /// Whether it selects every event.
    pub(crate) fn selects_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the reader may see all these categories.
    pub(crate) fn may_see<'c>(&self, categories: impl IntoIterator<Item = &'c str>) -> bool {
        self.scope.as_ref().is_none_or(|scope| categories.into_iter().all(|c| scope.allows(c)))
    }

    pub(crate) fn matches_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind)
    }

    pub(crate) fn matches(&self, frame: &Frame) -> bool {
        let kind = match frame.kind {
            EventKind::Item => "item",
            EventKind::Update => "update",
        };
        self.matches_kind(kind)
            && self.matches_source(frame.source.as_str(), &frame.labels)
            && self.words.iter().all(|word| word.is_in(&frame.text))
    }

    /// Bytes of text that may have to be searched to tell.
    pub(crate) fn text_bytes(&self, frame: &Frame) -> usize {
        self.words.len() * frame.text.len()
    }

    /// Whether the filter selects events of such a source, whatever their words and kinds.
    pub(crate) fn matches_source(&self, id: &str, labels: &FilterLabels) -> bool {
        let is_among =
            |allowed: &[String], value: &str| allowed.is_empty() || allowed.iter().any(|a| a == value);
        self.may_see([&*labels.category])
            && is_among(&self.sources, id)
            && is_among(&self.categories, &labels.category)
            && is_among(&self.countries, &labels.country)
            && (self.tags.is_empty()
                || labels.tags.iter().any(|tag| self.tags.iter().any(|wanted| **wanted == **tag)))
            && (self.languages.is_empty()
                || self.languages.iter().any(|range| is_in_range(&labels.language, range)))
    }
}

/// Whether a language is in a basic language range (RFC 4647, section 3.3.1): `en` has `en` and `en-gb`, `*` has all.
fn is_in_range(language: &str, range: &str) -> bool {
    if range == "*" {
        return !language.is_empty();
    }
    language.strip_prefix(range).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_range_has_its_variants_and_no_other_language() {
        for (language, range, expected) in [
            ("en", "en", true),
            ("en-gb", "en", true),
            ("en-gb", "en-gb", true),
            ("en", "en-gb", false),
            ("eng", "en", false),
            ("", "en", false),
            ("de", "*", true),
            ("", "*", false),
        ] {
            assert_eq!(is_in_range(language, range), expected, "{language} in {range}");
        }
    }
}
