//! The query parameters that several routes share.

use std::borrow::Cow;

use super::problem::HttpProblem;
use crate::stream::filter::{EventFilter, Since};

/// Values of one parameter.
const VALUES_MAX: usize = 32;
/// Characters of one value.
const VALUE_CHARS_MAX: usize = 64;
/// Parameters that may be repeated.
const REPEATABLE: [&str; 3] = ["category", "source", "tag"];
/// Names of events that `kinds` may list.
const KINDS: [&str; 4] = ["item", "update", "source", "refresh"];
/// Bytes of a whole query.
pub(super) const QUERY_BYTES_MAX: usize = 2048;

/// Parsed query parameters that several routes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewsQuery {
    pub(crate) filter: EventFilter,
    pub(crate) since: Option<Since>,
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
    /// `last_event_id` or `lastEventId`.
    pub(crate) last_event_id: Option<String>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) limit: Option<usize>,
}

impl NewsQuery {
    /// Parses a query string. Unknown names are ignored: clients and proxies add their own.
    ///
    /// # Errors
    /// A [`HttpProblem`] that names the parameter and what is expected.
    pub(crate) fn parse(query: &str) -> Result<Self, HttpProblem> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(HttpProblem::long_query());
        }
        let mut parsed = Self::default();
        let mut counts = [0; REPEATABLE.len()];
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // Empty values count here, though a filter ignores them.
            if let Some(which) = REPEATABLE.iter().position(|repeatable| *repeatable == name) {
                counts[which] += 1;
                if counts[which] > VALUES_MAX {
                    return Err(HttpProblem::many_values(&name));
                }
            }
            parsed.set(&name, value)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), HttpProblem> {
        let filter = &mut self.filter;
        match name {
            "category" => add(&mut filter.categories, name, value),
            "source" => add(&mut filter.sources, name, value),
            "tag" => add(&mut filter.tags, name, value),
            "kinds" => {
                if value.split(',').count() > VALUES_MAX {
                    return Err(HttpProblem::many_values(name));
                }
                for kind in value.split(',').map(str::trim).filter(|k| !k.is_empty()) {
                    if !KINDS.contains(&kind) {
                        let expected = "expected a list of item, update, source and refresh";
                        return Err(HttpProblem::bad_parameter("kinds", expected));
                    }
                    add(&mut filter.kinds, name, kind.into())?;
                }
                Ok(())
            }
            "q" => value.split_whitespace().try_for_each(|word| add(&mut filter.words, name, word.into())),
            "since" => {
                let expected = "expected an RFC 3339 time, or a duration of at most 10000d such as 90s, 15m, 1h30m or 3d";
                self.since = Some(Since::parse(&value).ok_or(HttpProblem::bad_parameter("since", expected))?);
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

fn add<V: From<String>>(values: &mut Vec<V>, name: &str, value: Cow<'_, str>) -> Result<(), HttpProblem> {
    if value.is_empty() {
        return Ok(());
    }
    if value.chars().nth(VALUE_CHARS_MAX).is_some() {
        return Err(HttpProblem::bad_parameter(name, "a value may have at most 64 characters"));
    }
    if values.len() == VALUES_MAX {
        return Err(HttpProblem::many_values(name));
    }
    values.push(value.into_owned().into());
    Ok(())
}

pub(super) fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, HttpProblem> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    // More digits than a u64 has are a large number all the same.
    match digits.then(|| value.parse::<u64>().unwrap_or(max)).filter(|n| *n >= min) {
        Some(number) => Ok(number.min(max)),
        None => Err(HttpProblem::bad_parameter(name, &format!("expected a whole number of at least {min}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use news::Timestamp;

    use super::*;
    use crate::auth::scope::CategoryScope;

    fn filter(query: &str) -> EventFilter {
        NewsQuery::parse(query).unwrap().filter
    }

    #[test]
    fn parameters_are_joined_by_and_and_their_values_by_or() {
        let f = filter("category=world&category=sport&source=bbc&tag=public");
        let tags = ["public".to_owned()];
        assert!(f.matches_source("bbc", "sport", &tags));
        assert!(!f.matches_source("bbc", "science", &tags));
        assert!(!f.matches_source("cnn", "sport", &tags));
        assert!(!f.matches_source("bbc", "sport", &[]));
        assert_eq!(
            filter("category=&x=y"),
            EventFilter::default(),
            "empty values and unknown names filter nothing"
        );
    }

    #[test]
    fn a_scope_limits_every_filter_and_without_one_nothing_is_limited() {
        let scope = Some(Arc::new(CategoryScope::new(["sport", "world"])));
        let sees = |query: &str, category: &str| {
            filter(query).within(scope.clone()).matches_source("a", category, &[])
        };
        assert!(sees("", "sport") && sees("category=sport", "sport"));
        assert!(!sees("", "science") && !sees("category=science", "science") && !sees("source=a", "science"));
        assert!(filter("").within(None).matches_source("a", "science", &[]));
        let within = filter("category=sport").within(scope.clone());
        assert!(within.may_see(["sport", "world"]) && !within.may_see(["sport", "science"]));
    }

    #[test]
    fn kinds_are_a_list() {
        let f = filter("kinds=item,update");
        assert!(f.matches_kind("item") && f.matches_kind("update") && !f.matches_kind("source"));
        assert!(NewsQuery::parse("kinds=items").is_err());
    }

    #[test]
    fn since_takes_a_time_or_a_duration() {
        let now = Timestamp::from_millis(10_000_000);
        let at = |text: &str| {
            NewsQuery::parse(&format!("since={text}")).unwrap().since.unwrap().instant(now).millis()
        };
        assert_eq!(at("90s"), 10_000_000 - 90_000);
        assert_eq!(at("1h30m"), 10_000_000 - 5_400_000);
        assert_eq!(at("1970-01-01T00:00:01Z"), 1000);
        assert_eq!(at("1970-01-01T01:00:01+01:00"), 1000, "an unescaped plus sign");
        assert!(NewsQuery::parse("since=yesterday").is_err());
        assert!(NewsQuery::parse("since=10000d").is_ok() && NewsQuery::parse("since=10001d").is_err());
    }

    #[test]
    fn values_that_are_too_many_or_too_long_are_refused() {
        for query in ["source=a&".repeat(33), "tag=&".repeat(33), "kinds=item&".repeat(33), "q=a&".repeat(33)]
        {
            assert!(NewsQuery::parse(&query).is_err(), "{query}");
        }
        for query in [&format!("tag={}", "x".repeat(65)), "limit=0", "limit=x", &"a".repeat(3000)] {
            assert!(NewsQuery::parse(query).is_err(), "{query}");
        }
        for number in ["99999", "99999999999999999999999999"] {
            assert_eq!(NewsQuery::parse(&format!("limit={number}")).unwrap().limit, Some(1000));
        }
        assert!(NewsQuery::parse(&format!("q={}", "ß".repeat(64))).is_ok(), "characters, not bytes");
    }
}
