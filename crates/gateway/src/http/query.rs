//! The query parameters that several routes share.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde::Serialize;
use wire::IgnoredParameter;

use super::problem::HttpProblem;
use crate::{
    auth::scope::CategoryScope,
    ingest::catalogue_labels::{CatalogueLabels, LabelKind},
    stream::{
        encoding::ContentHtml,
        filter::{EventFilter, Since, Word},
    },
};

/// Values of one parameter.
const VALUES_MAX: usize = 32;
/// Characters of one value.
const VALUE_CHARS_MAX: usize = 64;
/// Parameters that may be repeated.
const REPEATABLE: [&str; 5] = ["category", "source", "tag", "language", "country"];
/// Names of events that `kinds` may list.
const KINDS: [&str; 5] = ["item", "update", "source", "refresh", "heartbeat"];
/// Bytes of a whole query.
pub(super) const QUERY_BYTES_MAX: usize = 2048;
/// Parameters that every route with events has.
const SHARED: [&str; 10] =
    ["category", "source", "tag", "language", "country", "q", "kinds", "content", "since", "after"];
/// Parameters of `GET /news` only.
const OF_PAGES: [&str; 2] = ["before", "limit"];
/// Parameters of `GET /news/stream` only.
const OF_STREAMS: [&str; 3] = ["snapshot", "heartbeat", "last_event_id"];
/// Parameters of `GET /news/{id}`.
const OF_EVENTS: [&str; 1] = ["content"];
/// A parameter of another route, and what does the same here.
const SAME_ELSEWHERE: [(&str, &str); 3] =
    [("snapshot", "limit"), ("last_event_id", "after"), ("limit", "snapshot")];
/// Parameters without a meaning that are named in an answer.
const IGNORED_MAX: usize = 8;
/// Unknown values that are named in an answer.
const UNKNOWN_MAX: usize = 32;

/// The route that a query was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryRoute {
    Page,
    Stream,
    Event,
}

/// The name of a parameter as it is written here. That of the id has as many spellings as there are EventSource libraries.
fn canonical(name: &str) -> &str {
    match name.replace(['-', '_'], "").to_ascii_lowercase().as_str() {
        "lasteventid" => "last_event_id",
        _ => name,
    }
}

impl QueryRoute {
    fn parameters(self) -> impl Iterator<Item = &'static str> {
        let (shared, own): (&[&str], &[&str]) = match self {
            Self::Page => (&SHARED, &OF_PAGES),
            Self::Stream => (&SHARED, &OF_STREAMS),
            Self::Event => (&[], &OF_EVENTS),
        };
        shared.iter().chain(own).copied()
    }

    fn known(self, name: &str) -> Option<&'static str> {
        let name = canonical(name);
        self.parameters().find(|known| *known == name)
    }

    /// The parameter that was probably meant: a similar one, one that begins in the same way, or the one that does here
    /// what a similar one does on another route.
    fn closest(self, name: &str) -> Option<&'static str> {
        const CHARS_MIN: usize = 3; // a shorter name is similar to nearly everything
        name.chars().nth(CHARS_MIN - 1)?;
        let begins = |known: &&str| known.starts_with(&name.to_ascii_lowercase());
        let here = notation::closest(name, self.parameters()).or_else(|| self.parameters().find(begins));
        here.or_else(|| {
            let elsewhere = notation::closest(canonical(name), SAME_ELSEWHERE.map(|(there, _)| there))?;
            let (_, same) = SAME_ELSEWHERE.into_iter().find(|(there, _)| *there == elsewhere)?;
            self.known(same)
        })
    }
}

/// Parsed query parameters that several routes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewsQuery {
    pub(crate) filter: EventFilter,
    pub(crate) content: ContentHtml,
    /// Heartbeats are requested as events with data.
    pub(crate) heartbeat: bool,
    pub(crate) since: Option<Since>,
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) last_event_id: Option<String>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) limit: Option<usize>,
    /// Parameters that mean nothing to the route.
    pub(crate) ignored: Vec<IgnoredParameter>,
    /// Values of the filters as they were sent, to name those that do not exist.
    named: Vec<(LabelKind, String)>,
}

/// What the sender of a query is told about it, as fields of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct QueryRemarks {
    pub(crate) ignored: Vec<IgnoredParameter>,
    pub(crate) unknown: Vec<String>,
}

impl QueryRemarks {
    /// The part of an `ETag` that changes with what is unknown, which changes with the catalogue.
    pub(crate) fn tag(&self) -> String {
        if self.unknown.is_empty() {
            return String::new();
        }
        let mut hasher = DefaultHasher::new();
        self.unknown.hash(&mut hasher);
        format!("-{:x}", hasher.finish())
    }
}

impl NewsQuery {
    /// Parses a query string of `GET /news`. Parameters that mean nothing to it are passed over, as clients and proxies
    /// add their own, and named in `ignored`.
    ///
    /// # Errors
    /// A [`HttpProblem`] that names the parameter and what is expected.
    pub(crate) fn parse(query: &str) -> Result<Self, HttpProblem> {
        Self::parse_for(QueryRoute::Page, query)
    }

    /// The same of `GET /news/stream`.
    ///
    /// # Errors
    /// As [`NewsQuery::parse`].
    pub(crate) fn parse_stream(query: &str) -> Result<Self, HttpProblem> {
        Self::parse_for(QueryRoute::Stream, query)
    }

    /// The same of `GET /news/{id}`.
    ///
    /// # Errors
    /// As [`NewsQuery::parse`].
    pub(crate) fn parse_event(query: &str) -> Result<Self, HttpProblem> {
        Self::parse_for(QueryRoute::Event, query)
    }

    fn parse_for(route: QueryRoute, query: &str) -> Result<Self, HttpProblem> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(HttpProblem::long_query());
        }
        let mut parsed = Self::default();
        let mut counts = [0; REPEATABLE.len()];
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some(known) = route.known(&name) else {
                parsed.ignore(route, &name);
                continue;
            };
            // Empty values count here, though they mean nothing.
            if let Some(which) = REPEATABLE.iter().position(|repeatable| *repeatable == known) {
                counts[which] += 1;
                if counts[which] > VALUES_MAX {
                    return Err(HttpProblem::many_values(known));
                }
            }
            // An empty parameter is as good as none: forms and programs send all of theirs.
            if !value.is_empty() {
                parsed.set(known, value)?;
            }
        }
        Ok(parsed)
    }

    fn ignore(&mut self, route: QueryRoute, name: &str) {
        let shown: String = name.chars().take(VALUE_CHARS_MAX).collect();
        let is_new = self.ignored.iter().all(|ignored| ignored.name != shown);
        if !shown.is_empty() && is_new && self.ignored.len() < IGNORED_MAX {
            let did_you_mean = route.closest(&shown).map(str::to_owned);
            self.ignored.push(IgnoredParameter { name: shown, did_you_mean });
        }
    }

    /// What to tell the sender, as far as the catalogue is known: `unknown` names the categories, sources, tags and
    /// countries that no source has which a reader of this scope may see.
    pub(crate) fn remarks(&self, catalogue: &CatalogueLabels, scope: Option<&CategoryScope>) -> QueryRemarks {
        let unknown = self.named.iter().filter(|(kind, value)| !catalogue.has(*kind, value, scope));
        let unknown = unknown.take(UNKNOWN_MAX).map(|(_, value)| value.clone()).collect();
        QueryRemarks { ignored: self.ignored.clone(), unknown }
    }

    fn set(&mut self, name: &'static str, value: Cow<'_, str>) -> Result<(), HttpProblem> {
        let filter = &mut self.filter;
        let (values, kind) = match name {
            "category" => (&mut filter.categories, Some(LabelKind::Category)),
            "source" => (&mut filter.sources, Some(LabelKind::Source)),
            "tag" => (&mut filter.tags, Some(LabelKind::Tag)),
            "country" => (&mut filter.countries, Some(LabelKind::Country)),
            // Items have languages of their own: the catalogue does not list them all.
            "language" => (&mut filter.languages, None),
            _ => return self.set_single(name, value),
        };
        check_value(name, &value, values.len())?;
        values.push(match name {
            "language" => value.to_lowercase().replace('_', "-"),
            _ => value.to_lowercase(),
        });
        if let Some(kind) = kind {
            self.named.push((kind, value.into_owned()));
        }
        Ok(())
    }

    /// Parameters that have one value, or a list in it.
    fn set_single(&mut self, name: &'static str, value: Cow<'_, str>) -> Result<(), HttpProblem> {
        match name {
            "kinds" => self.set_kinds(&value)?,
            "q" => value.split_whitespace().try_for_each(|word| self.add_word(word))?,
            "content" => {
                self.content = if flag(name, &value)? { ContentHtml::Included } else { ContentHtml::LeftOut }
            }
            "heartbeat" => self.heartbeat = flag(name, &value)?,
            "since" => {
                let expected = "expected an RFC 3339 time, or a duration of at most 10000d such as 90s, 15m, 1h30m or 3d";
                self.since = Some(Since::parse(&value).ok_or(HttpProblem::bad_parameter("since", expected))?);
            }
            "snapshot" => self.snapshot = Some(number("snapshot", &value, 0, 1000)?),
            "limit" => self.limit = usize::try_from(number("limit", &value, 1, 1000)?).ok(),
            "after" => self.after = Some(value.into_owned()),
            "before" => self.before = Some(value.into_owned()),
            "last_event_id" => self.last_event_id = Some(value.into_owned()),
            _ => {}
        }
        Ok(())
    }

    fn set_kinds(&mut self, list: &str) -> Result<(), HttpProblem> {
        if list.split(',').count() > VALUES_MAX {
            return Err(HttpProblem::many_values("kinds"));
        }
        for kind in list.split(',').map(|kind| kind.trim().to_ascii_lowercase()).filter(|k| !k.is_empty()) {
            if !KINDS.contains(&kind.as_str()) {
                let expected = "expected a list of item, update, source, refresh and heartbeat";
                return Err(HttpProblem::bad_parameter("kinds", expected));
            }
            check_value("kinds", &kind, self.filter.kinds.len())?;
            self.filter.kinds.push(kind);
        }
        Ok(())
    }

    fn add_word(&mut self, word: &str) -> Result<(), HttpProblem> {
        check_value("q", word, self.filter.words.len())?;
        self.filter.words.push(Word::new(word));
        Ok(())
    }
}

fn check_value(name: &str, value: &str, values: usize) -> Result<(), HttpProblem> {
    if value.chars().nth(VALUE_CHARS_MAX).is_some() {
        return Err(HttpProblem::bad_parameter(name, "a value may have at most 64 characters"));
    }
    if values >= VALUES_MAX { Err(HttpProblem::many_values(name)) } else { Ok(()) }
}

fn flag(name: &str, value: &str) -> Result<bool, HttpProblem> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(HttpProblem::bad_parameter(name, "expected 0 or 1")),
    }
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
    use crate::stream::frame::FilterLabels;

    fn filter(query: &str) -> EventFilter {
        NewsQuery::parse(query).unwrap().filter
    }

    fn labels(category: &str, tags: &[&str]) -> FilterLabels {
        let tags: Vec<_> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        FilterLabels::new(category, &tags, Some("en-GB"), Some("GB"))
    }

    fn selects(filter: &EventFilter, source: &str, category: &str, tags: &[&str]) -> bool {
        filter.matches_source(source, &labels(category, tags))
    }

    #[test]
    fn parameters_are_joined_by_and_and_their_values_by_or() {
        let f = filter("category=world&category=sport&source=bbc&tag=public");
        assert!(selects(&f, "bbc", "sport", &["public"]));
        assert!(!selects(&f, "bbc", "science", &["public"]));
        assert!(!selects(&f, "cnn", "sport", &["public"]));
        assert!(!selects(&f, "bbc", "sport", &[]));
        assert_eq!(
            filter("category=&x=y"),
            EventFilter::default(),
            "empty values and unknown names filter nothing"
        );
    }

    #[test]
    fn values_match_in_upper_and_lower_case() {
        for query in [
            "category=WORLD&source=BBC&tag=pUBlic",
            "category=world&language=EN&country=gb",
            "language=en_gb",
        ] {
            assert!(selects(&filter(query), "bbc", "World", &["Public"]), "{query}");
        }
        assert!(selects(&filter("category=%C3%84RZTE"), "a", "Ärzte", &[]));
        for query in ["language=de", "language=en-us", "country=us", "country=gb&language=de"] {
            assert!(!selects(&filter(query), "bbc", "World", &[]), "{query}");
        }
        assert!(filter("kinds=Item").matches_kind("item"));
    }

    #[test]
    fn a_scope_limits_every_filter_and_without_one_nothing_is_limited() {
        let scope = Some(Arc::new(CategoryScope::new(["sport", "world"])));
        let sees =
            |query: &str, category: &str| selects(&filter(query).within(scope.clone()), "a", category, &[]);
        assert!(sees("", "sport") && sees("category=sport", "sport"));
        assert!(!sees("", "science") && !sees("category=science", "science") && !sees("source=a", "science"));
        assert!(sees("category=sport", "Sport") && sees("", "WORLD"), "upper and lower case are the same");
        assert!(selects(&filter("").within(None), "a", "science", &[]));
        let within = filter("category=sport").within(scope.clone());
        assert!(within.may_see(["sport", "world"]) && !within.may_see(["sport", "science"]));
    }

    #[test]
    fn an_empty_id_is_none_and_hides_no_other() {
        let ids = |query: &str| {
            let query = NewsQuery::parse_stream(query).unwrap();
            (query.last_event_id, query.after)
        };
        let id = |id: &str| Some(id.to_owned());
        assert_eq!(ids("last_event_id=&after=e-1"), (None, id("e-1")));
        assert_eq!(ids("last_event_id=e-2&lastEventId=&after="), (id("e-2"), None));
        assert_eq!(ids("lastEventId=e-1&lastEventId=e-2"), (id("e-2"), None), "the newest is the last");
        for name in
            ["last_event_id", "lastEventId", "Last-Event-ID", "last-event-id", "LAST_EVENT_ID", "LastEventId"]
        {
            assert_eq!(ids(&format!("{name}=e-3")), (id("e-3"), None), "{name}");
        }
    }

    #[test]
    fn an_empty_parameter_counts_as_absent_and_hides_no_other() {
        let all = [SHARED.as_slice(), &OF_PAGES, &OF_STREAMS].concat();
        for parse in [NewsQuery::parse, NewsQuery::parse_stream, NewsQuery::parse_event] {
            for name in &all {
                let query = parse(&format!("{name}=")).unwrap();
                assert_eq!((query.filter, query.content), (EventFilter::default(), ContentHtml::Included));
                assert!(!query.heartbeat && query.since.is_none() && query.limit.is_none());
                assert_eq!((query.snapshot, query.after, query.before), (None, None, None), "{name}");
            }
        }
        let page = NewsQuery::parse("limit=7&limit=&content=0&content=&before=e-1&before=").unwrap();
        let expected = (Some(7), ContentHtml::LeftOut, Some("e-1"));
        assert_eq!((page.limit, page.content, page.before.as_deref()), expected);
        let stream = NewsQuery::parse_stream("snapshot=3&snapshot=&heartbeat=1&heartbeat=&since=1h&since=");
        let stream = stream.unwrap();
        assert!(stream.snapshot == Some(3) && stream.heartbeat && stream.since.is_some());
    }

    #[test]
    fn flags_are_0_or_1() {
        let query = |query: &str| NewsQuery::parse_stream(query);
        let content = |text: &str| query(text).unwrap().content;
        assert_eq!(
            (content("content=0"), content("content=1")),
            (ContentHtml::LeftOut, ContentHtml::Included)
        );
        assert!(query("heartbeat=1").unwrap().heartbeat && !query("heartbeat=0").unwrap().heartbeat);
        for bad in ["content=no", "heartbeat=2", "heartbeat=true"] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_without_a_meaning_is_named_with_the_one_that_was_probably_meant() {
        let ignored = |query: NewsQuery| -> Vec<(String, Option<String>)> {
            query.ignored.into_iter().map(|i| (i.name, i.did_you_mean)).collect()
        };
        let stream = |query: &str| ignored(NewsQuery::parse_stream(query).unwrap());
        for (name, meant) in [
            ("categroy", Some("category")),
            ("Category", Some("category")),
            ("categories", Some("category")),
            ("sources", Some("source")),
            ("lang", Some("language")),
            ("kind", Some("kinds")),
            ("snapshots", Some("snapshot")),
            ("last_event", Some("last_event_id")),
            ("limit", Some("snapshot")),
            ("before", None),
            ("_", None),
            ("utm_campaign", None),
        ] {
            let expected = vec![(name.to_owned(), meant.map(str::to_owned))];
            assert_eq!(stream(&format!("{name}=x&{name}=y&category=a")), expected);
        }
        let page = |query: &str| ignored(NewsQuery::parse(query).unwrap());
        for (name, meant) in [
            ("snapshot", Some("limit")),
            ("snapshots", Some("limit")),
            ("last_event_id", Some("after")),
            ("lastEventId", Some("after")),
            ("Last-Event-ID", Some("after")),
            ("heartbeat", None),
        ] {
            let expected = vec![(name.to_owned(), meant.map(str::to_owned))];
            assert_eq!(page(&format!("{name}=x")), expected, "it means nothing to a page");
        }
        assert_eq!(page("before=e-1&limit=1&content=0"), []);
        let many: String = (0..40).map(|n| format!("{n}{}=&", "ä".repeat(20))).collect();
        let many = page(&format!("{many}&=&{}=1", "x".repeat(200)));
        assert!(many.len() == IGNORED_MAX && many.iter().all(|(name, _)| name.chars().count() <= 64));
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
