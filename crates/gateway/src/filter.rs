//! What a client asked to see: OR within a name, AND between names.

use std::{borrow::Cow, sync::Arc, time::Duration};

use news::{EventKind, Timestamp};
use notation::{DURATION_MAX, parse_duration_within};

use crate::{problem::Problem, readers::Scope, sse::Frame};

/// Values of one name.
const VALUES_MAX: usize = 32;
/// Characters of one value.
const VALUE_CHARS_MAX: usize = 64;
/// Names that are repeated for each value.
const REPEATABLE: [&str; 3] = ["category", "source", "tag"];
/// Bytes of a whole query.
const QUERY_BYTES_MAX: usize = 2048;

/// Parsed query parameters that several routes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) since: Option<Since>,
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
    /// `last_event_id` or `lastEventId`.
    pub(crate) last_event_id: Option<String>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) limit: Option<usize>,
}

/// A moment, as clients write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    At(Timestamp),
    Ago(Duration),
}

impl Since {
    fn parse(text: &str) -> Option<Self> {
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

/// Which events a client wants. The empty filter wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    categories: Vec<String>,
    sources: Vec<String>,
    tags: Vec<String>,
    /// Lower case; every one must stand in title or summary.
    words: Vec<String>,
    /// Names of events; empty means every kind.
    kinds: Vec<String>,
    /// What its reader may see at all; nothing for everything.
    scope: Option<Arc<Scope>>,
}

impl Filter {
    /// The same, of what a reader may see.
    #[must_use]
    pub(crate) fn within(self, scope: Option<Arc<Scope>>) -> Self {
        Self { scope, ..self }
    }

    /// Whether its reader may see everything of these categories.
    pub(crate) fn may_see<'c>(&self, categories: impl IntoIterator<Item = &'c str>) -> bool {
        self.scope.as_ref().is_none_or(|scope| categories.into_iter().all(|c| scope.allows(c)))
    }

    pub(crate) fn wants_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind)
    }

    pub(crate) fn wants(&self, frame: &Frame) -> bool {
        let kind = match frame.kind {
            EventKind::Item => "item",
            EventKind::Update => "update",
        };
        self.wants_kind(kind)
            && self.wants_source(frame.source.as_str(), &frame.category, &frame.tags)
            && self.words.iter().all(|word| frame.text.contains(word.as_str()))
    }

    /// Whether events of such a source are wanted; words are not looked at.
    pub(crate) fn wants_source(&self, id: &str, category: &str, tags: &[String]) -> bool {
        let among = |wanted: &[String], has: &str| wanted.is_empty() || wanted.iter().any(|w| w == has);
        self.may_see([category])
            && among(&self.sources, id)
            && among(&self.categories, category)
            && (self.tags.is_empty() || tags.iter().any(|tag| self.tags.contains(tag)))
    }
}

impl Query {
    /// Reads a query string. Names that we do not know are passed over: clients and proxies add their own.
    ///
    /// # Errors
    /// A [`Problem`] naming the parameter and what would be right.
    pub(crate) fn parse(query: &str) -> Result<Self, Problem> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Problem::long_query());
        }
        let mut parsed = Self::default();
        let mut times = [0; REPEATABLE.len()];
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // Empty values count here, though a filter passes them over.
            if let Some(which) = REPEATABLE.iter().position(|repeatable| *repeatable == name) {
                times[which] += 1;
                if times[which] > VALUES_MAX {
                    return Err(Problem::many_values(&name));
                }
            }
            parsed.take(&name, value)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), Problem> {
        let filter = &mut self.filter;
        match name {
            "category" => add(&mut filter.categories, name, value),
            "source" => add(&mut filter.sources, name, value),
            "tag" => add(&mut filter.tags, name, value),
            "kinds" => {
                if value.split(',').count() > VALUES_MAX {
                    return Err(Problem::many_values(name));
                }
                for kind in value.split(',').map(str::trim).filter(|k| !k.is_empty()) {
                    if !["item", "update", "source", "refresh"].contains(&kind) {
                        return Err(Problem::bad_parameter(
                            "kinds",
                            "item, update, source and refresh are known",
                        ));
                    }
                    add(&mut filter.kinds, name, kind.into())?;
                }
                Ok(())
            }
            "q" => {
                value.split_whitespace().try_for_each(|word| add(&mut filter.words, name, word.into()))?;
                filter.words.iter_mut().for_each(|word| *word = word.to_lowercase());
                Ok(())
            }
            "since" => {
                let expected = "expected an RFC 3339 time or a duration such as 90s, 15m, 1h30m or 3d";
                self.since = Some(Since::parse(&value).ok_or(Problem::bad_parameter("since", expected))?);
                Ok(())
            }
            "snapshot" => number("snapshot", &value, 0, 1000).map(|n| self.snapshot = Some(n)),
            "limit" => {
                let limit = number("limit", &value, 1, 1000)?;
                self.limit = usize::try_from(limit).ok();
                Ok(())
            }
            "after" => {
                self.after = Some(value.into_owned());
                Ok(())
            }
            "before" => {
                self.before = Some(value.into_owned());
                Ok(())
            }
            "last_event_id" | "lastEventId" => {
                self.last_event_id = Some(value.into_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn add(values: &mut Vec<String>, name: &str, value: Cow<'_, str>) -> Result<(), Problem> {
    if value.is_empty() {
        return Ok(());
    }
    if value.chars().nth(VALUE_CHARS_MAX).is_some() {
        return Err(Problem::bad_parameter(name, "a value has at most 64 characters"));
    }
    if values.len() == VALUES_MAX {
        return Err(Problem::many_values(name));
    }
    values.push(value.into_owned());
    Ok(())
}

fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    // Digits that are no u64 are too many, which is a large number all the same.
    match digits.then(|| value.parse::<u64>().unwrap_or(max)).filter(|n| *n >= min) {
        Some(number) => Ok(number.min(max)),
        None => Err(Problem::bad_parameter(name, &format!("a whole number of at least {min} is wanted"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Filter {
        Query::parse(query).unwrap().filter
    }

    #[test]
    fn names_are_and_and_values_are_or() {
        let f = filter("category=world&category=sport&source=bbc&tag=public");
        let tags = ["public".to_owned()];
        assert!(f.wants_source("bbc", "sport", &tags));
        assert!(!f.wants_source("bbc", "science", &tags));
        assert!(!f.wants_source("cnn", "sport", &tags));
        assert!(!f.wants_source("bbc", "sport", &[]));
        assert_eq!(filter("category=&x=y"), Filter::default(), "what is empty or unknown filters nothing");
    }

    #[test]
    fn a_scope_bounds_every_filter_and_none_bounds_nothing() {
        let scope = Some(Arc::new(Scope::new(["sport", "world"])));
        let sees = |query: &str, category: &str| {
            filter(query).within(scope.clone()).wants_source("a", category, &[])
        };
        assert!(sees("", "sport") && sees("category=sport", "sport"));
        assert!(!sees("", "science") && !sees("category=science", "science") && !sees("source=a", "science"));
        assert!(filter("").within(None).wants_source("a", "science", &[]));
        let within = filter("category=sport").within(scope.clone());
        assert!(within.may_see(["sport", "world"]) && !within.may_see(["sport", "science"]));
    }

    #[test]
    fn kinds_are_a_list() {
        let f = filter("kinds=item,update");
        assert!(f.wants_kind("item") && f.wants_kind("update") && !f.wants_kind("source"));
        assert!(Query::parse("kinds=items").is_err());
    }

    #[test]
    fn moments_are_written_in_two_ways() {
        let now = Timestamp::from_millis(10_000_000);
        let at =
            |text: &str| Query::parse(&format!("since={text}")).unwrap().since.unwrap().instant(now).millis();
        assert_eq!(at("90s"), 10_000_000 - 90_000);
        assert_eq!(at("1h30m"), 10_000_000 - 5_400_000);
        assert_eq!(at("1970-01-01T00:00:01Z"), 1000);
        assert_eq!(at("1970-01-01T01:00:01+01:00"), 1000, "an unescaped plus sign");
        assert!(Query::parse("since=yesterday").is_err());
        assert!(Query::parse("since=10000d").is_ok() && Query::parse("since=10001d").is_err());
    }

    #[test]
    fn what_is_too_much_is_refused_by_name() {
        for query in ["source=a&".repeat(33), "tag=&".repeat(33), "kinds=item&".repeat(33), "q=a&".repeat(33)]
        {
            assert!(Query::parse(&query).is_err(), "{query}");
        }
        for query in [&format!("tag={}", "x".repeat(65)), "limit=0", "limit=x", &"a".repeat(3000)] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
        for number in ["99999", "99999999999999999999999999"] {
            assert_eq!(Query::parse(&format!("limit={number}")).unwrap().limit, Some(1000));
        }
        assert!(Query::parse(&format!("q={}", "ß".repeat(64))).is_ok(), "characters, not bytes");
    }
}
