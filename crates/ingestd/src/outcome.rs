//! What a visit came to: a pure function from what was fetched and read to what is remembered.
//!
//! Every way a visit can end goes through [`Outcome::conclude`], so that none can forget the next visit.

use std::time::Duration;

use fetch::{
    FailureClass, FetchReport, FetchResult,
    schedule::{IntervalBounds, ScheduleInput, ask_max, next_visit},
};
use news::{Attempt, Escaped, FeedRhythm, Item, Source, SourceState, Timestamp, VisitStatus};
use notation::humanize;

use crate::moving::{self, Change};

use crate::websub;

/// What was made of the body.
#[derive(Debug)]
pub(crate) enum Reading {
    /// There was none, or nobody looked.
    None,
    /// The same bytes as last time.
    Same,
    /// A feed.
    Document(Box<feed::FeedDocument>),
    /// Not a feed.
    Failed {
        /// Why, as a word.
        class: FailureClass,
        /// Why, as a sentence.
        message: String,
    },
    /// Our reader failed on it, with this message.
    Panicked(String),
}

/// A visit on its way into the log.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Oldest first.
    pub(crate) items: Vec<Item>,
    /// What is remembered; `last_status` is final only after the append.
    pub(crate) state: SourceState,
    /// Label of the failure metric. A panic of ours has none: it is counted for itself.
    pub(crate) class: Option<FailureClass>,
    /// Whether another address is asked from now on.
    pub(crate) moved: Option<Change>,
    /// Items over the caps.
    pub(crate) dropped: usize,
    /// Not blamed on the feed.
    pub(crate) is_pardoned: bool,
}

/// What conclusions are drawn from, besides the visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) source: &'a Source,
    pub(crate) before: &'a SourceState,
    /// What the validators of this visit belong to: see [`binding`].
    pub(crate) binding: u64,
    pub(crate) pace: IntervalBounds,
    pub(crate) now: Timestamp,
    pub(crate) took: Duration,
    /// From 0 to 1.
    pub(crate) jitter: f64,
}

/// Warnings kept of a document.
const WARNINGS_MAX: usize = 8;
/// Publication dates kept of a document, for the rhythm.
const RECENT_MAX: usize = 20;
/// A document that takes longer to read is dangerous.
pub(crate) const READ_SLOW: Duration = Duration::from_secs(2);
/// During an outage of ours nobody is put off for longer.
const PARDON_MAX: Duration = Duration::from_secs(3600);
/// A source is asked for everything once a day, whatever its validators say: servers that answer 304 for ever exist.
const FULL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The hash that binds validators to the catalogue's address and to what is sent with it, secrets included.
/// `fingerprint` is that of the source's [`fetch::RequestOptions`]. An adopted address changes nothing: they know their validator_key.
pub(crate) fn binding(source: &Source, fingerprint: u64) -> u64 {
    moving::url_hash(&source.url) ^ fingerprint
}

/// The validators to send: none when the address or the credentials changed, and none once a day. Once: a server that
/// had no document for us then (throttled, cut off) is asked with validators again, not for everything over and over.
pub(crate) fn validators(binding: u64, state: &SourceState, now: Timestamp) -> (Option<&str>, Option<&str>) {
    let lately = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < FULL_EVERY);
    let fresh = lately(state.last_full) || lately(state.asked_in_full);
    if state.url_hash != binding || !fresh {
        return (None, None);
    }
    (state.etag.as_deref(), state.last_modified.as_deref())
}

impl Outcome {
    /// Draws the conclusions.
    pub(crate) fn conclude(given: Given<'_>, visit: &FetchReport, reading: Reading) -> Self {
        let mut state = given.before.clone();
        belong(&mut state, given.binding);
        if !visit.is_conditional {
            state.asked_in_full = Some(given.now);
        }
        state.last_visit = Some(given.now);
        state.last_code = visit.code;
        state.last_took_ms = Some(u64::try_from(given.took.as_millis()).unwrap_or(u64::MAX));
        state.counts.visits += 1;
        state.counts.body_bytes += visit.body_bytes;
        if visit.answer.is_healthy() && !matches!(reading, Reading::Failed { .. } | Reading::Panicked(_)) {
            let document = match &reading {
                Reading::Document(document) => Some(&document.feed),
                _ => None,
            };
            websub::discover(&mut state.websub, given.source, &visit.links, document);
        }
        let mut outcome = Self::of(state);
        let status = outcome.take_answer(given, visit, reading);
        outcome.moved = moving::learn(&mut outcome.state.moves, given.source, visit, status, given.now);
        outcome.count(status, given.now);
        outcome.log_attempt(given, visit.code, visit.body_bytes, status);
        outcome.plan(given, visit, status);
        outcome
    }

    fn of(state: SourceState) -> Self {
        Self { items: Vec::new(), state, class: None, moved: None, dropped: 0, is_pardoned: false }
    }

    /// The conclusion when our own code failed on a visit.
    pub(crate) fn crashed(given: Given<'_>, message: &str) -> Self {
        let mut outcome = Self::of(given.before.clone());
        outcome.state.last_visit = Some(given.now);
        outcome.state.counts.visits += 1;
        outcome.panicked(message);
        outcome.count(VisitStatus::Error, given.now);
        outcome.log_attempt(given, None, 0, VisitStatus::Error);
        let mut facts = ScheduleInput::new(given.pace, given.now, fetch::schedule::ScheduleOutcome::Failed);
        facts.failures = outcome.state.failures;
        let next = next_visit(&facts, given.jitter);
        outcome.state.next_visit = next.at;
        outcome.state.why = next.why;
        outcome
    }

    /// Our own network is down: the failure says nothing about the feed. It is asked again within its usual interval,
    /// at a random time, so that the end of the outage is no burst either.
    pub(crate) fn pardon(&mut self, given: Given<'_>) {
        let (before, pace) = (given.before, given.pace);
        let usual =
            before.last_visit.zip(before.next_visit).map_or(Duration::ZERO, |(last, next)| next.since(last));
        let longest = usual.min(PARDON_MAX).max(pace.interval_min * 2);
        let wait = pace.interval_min + (longest - pace.interval_min).mul_f64(given.jitter);
        self.state.failures = before.failures;
        self.state.gone_in_a_row = before.gone_in_a_row;
        self.state.next_visit = Some(given.now.plus(wait));
        self.state.why = format!(
            "local outage, not blamed on the feed: most hosts cannot be reached, again in {}",
            humanize(wait)
        );
        self.is_pardoned = true;
    }

    /// A document was read, in so much time. Tells whether it was slow.
    pub(crate) fn judge_reading(&mut self, took: Duration) -> bool {
        let slow = took > READ_SLOW;
        self.state.quarantine = slow.then(|| format!("its document took {} to read", humanize(took)));
        slow
    }

    /// A source in quarantine is visited every `interval_max`.
    pub(crate) fn confine(&mut self, given: Given<'_>) {
        let (Some(reason), Some(next)) = (&self.state.quarantine, self.state.next_visit) else { return };
        let max = given.pace.interval_max;
        let confined = given.now.plus(max - (max / 10).mul_f64(given.jitter));
        if next < confined {
            self.state.why = format!("in quarantine ({reason}): every {}", humanize(max));
            self.state.next_visit = Some(confined);
        }
    }

    fn take_answer(&mut self, given: Given<'_>, visit: &FetchReport, reading: Reading) -> VisitStatus {
        match &visit.answer {
            FetchResult::Full(full) => {
                let is_damaged = match &reading {
                    Reading::Failed { class, message } => return self.fail(*class, message),
                    Reading::Panicked(message) => return self.panicked(message),
                    Reading::Document(document) => document.damaged,
                    Reading::Same | Reading::None => false,
                };
                self.state.body_hash = Some(full.body_hash);
                // What was cut off must not hide behind a 304. When the same bytes come again, they are all there is.
                if !is_damaged {
                    self.state.etag.clone_from(&full.etag);
                    self.state.last_modified.clone_from(&full.last_modified);
                    self.state.validator_key = Some(full.validator_key);
                    if !full.is_delta {
                        self.state.last_full = Some(given.now);
                    }
                }
                match reading {
                    Reading::Document(document) => self.take_document(*document),
                    _ => VisitStatus::Unchanged,
                }
            }
            FetchResult::NotModified { etag, last_modified } => {
                for (ours, theirs) in
                    [(&mut self.state.etag, etag), (&mut self.state.last_modified, last_modified)]
                {
                    if theirs.is_some() {
                        ours.clone_from(theirs);
                    }
                }
                self.state.counts.not_modified += 1;
                VisitStatus::Unchanged
            }
            FetchResult::Throttled => {
                self.fail(FailureClass::HttpStatus, "the server asks us to come later");
                VisitStatus::Throttled
            }
            FetchResult::Gone => {
                self.fail(FailureClass::HttpStatus, "the server says that the feed is gone (410)");
                VisitStatus::Gone
            }
            FetchResult::Failed(failure) => self.fail(failure.class, &failure.message),
        }
    }

    fn take_document(&mut self, document: feed::FeedDocument) -> VisitStatus {
        let said = |w: &news::Warning| match w.line {
            Some(line) => format!("line {line}: {}", w.message),
            None => w.message.clone(),
        };
        self.state.warnings = document.warnings.iter().take(WARNINGS_MAX).map(said).collect();
        self.state.rhythm = remember_rhythm(&document);
        self.dropped = document.dropped;
        self.items = oldest_first(document.items);
        if document.damaged { VisitStatus::Partial } else { VisitStatus::New }
    }

    fn fail(&mut self, class: FailureClass, message: &str) -> VisitStatus {
        self.class = Some(class);
        self.state.last_error = Some(format!("{class}: {message}"));
        VisitStatus::Error
    }

    fn panicked(&mut self, message: &str) -> VisitStatus {
        self.state.last_error = Some(format!("panic: {}", Escaped(message)));
        VisitStatus::Error
    }

    fn log_attempt(&mut self, given: Given<'_>, code: Option<u16>, body_bytes: u64, status: VisitStatus) {
        let attempt = Attempt {
            at: given.now,
            status,
            code,
            took_ms: u32::try_from(given.took.as_millis()).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
            new: 0,
            updated: 0,
            class: self.class,
        };
        Attempt::push(&mut self.state.attempts, attempt);
    }

    fn count(&mut self, status: VisitStatus, now: Timestamp) {
        let state = &mut self.state;
        state.last_status = Some(status);
        if status.is_healthy() {
            state.last_success = Some(now);
            state.last_error = None;
            state.failures = 0;
            state.counts.unchanged += u64::from(status == VisitStatus::Unchanged);
        } else {
            state.failures = state.failures.saturating_add(1);
            state.counts.errors += 1;
        }
        state.gone_in_a_row =
            if status == VisitStatus::Gone { state.gone_in_a_row.saturating_add(1) } else { 0 };
    }

    fn plan(&mut self, given: Given<'_>, visit: &FetchReport, status: VisitStatus) {
        use fetch::schedule::ScheduleOutcome as Ended;
        let ended = match status {
            VisitStatus::New | VisitStatus::Partial => Ended::Healthy,
            VisitStatus::Unchanged => Ended::Unchanged,
            VisitStatus::Throttled => Ended::Throttled,
            VisitStatus::Gone => Ended::Gone,
            VisitStatus::Error => Ended::Failed,
        };
        // Another address is another chance: it is asked soon, and nothing is counted against it yet.
        let is_elsewhere = self.moved.is_some() && !status.is_healthy();
        let (ended, failures) = if is_elsewhere { (Ended::Failed, 1) } else { (ended, self.state.failures) };
        let rhythm = &self.state.rhythm;
        let facts = ScheduleInput {
            code: visit.code,
            failures,
            gone_in_a_row: self.state.gone_in_a_row,
            every: given.source.every,
            recent: &rhythm.recent,
            quiet_for: quiet_for(given.before, given.now),
            ttl: rhythm.ttl_s.map(Duration::from_secs),
            update_period: rhythm.update_interval_s.map(Duration::from_secs),
            skip_hours: rhythm.skip_hours,
            skip_days: rhythm.skip_days,
            cache_life: visit.cache.fresh_for,
            retry_after: visit.retry_after,
            ..ScheduleInput::new(given.pace, given.now, ended)
        };
        let next = next_visit(&facts, given.jitter);
        let next = websub::stretch(next, &facts, self.state.websub.as_deref(), given.before.last_visit);
        self.state.next_visit = next.at;
        self.state.why = next.why;
        if is_elsewhere {
            self.state.gone_in_a_row = 0;
            self.state.why.push_str(", then at another address");
        }
        let asked = visit.retry_after.filter(|_| visit.code == Some(429) && visit.hops.is_empty());
        self.state.host_asked_until = asked.map(|asked| given.now.plus(asked.min(ask_max(given.pace))));
    }
}

/// Binds what is remembered to an address. What was had from another one is no answer of this one, also when the first
/// visit here fails.
fn belong(state: &mut SourceState, binding: u64) {
    if state.url_hash != binding {
        (state.url_hash, state.etag, state.last_modified, state.validator_key) = (binding, None, None, None);
        (state.body_hash, state.last_full, state.asked_in_full) = (None, None, None);
    }
}

/// For how long the source has given us nothing new, when anything is known about that.
fn quiet_for(before: &SourceState, now: Timestamp) -> Option<Duration> {
    match (before.last_news, before.last_visit) {
        (Some(news), _) => Some(now.since(news)),
        (None, None) => Some(Duration::ZERO),
        (None, Some(_)) => None,
    }
}

fn remember_rhythm(document: &feed::FeedDocument) -> FeedRhythm {
    let rhythm = &document.rhythm;
    let mut recent: Vec<_> = document.items.iter().filter_map(|i| i.published.or(i.updated)).collect();
    recent.sort_unstable_by(|a, b| b.cmp(a));
    recent.truncate(RECENT_MAX);
    FeedRhythm {
        ttl_s: rhythm.ttl.map(|d| d.as_secs()),
        update_interval_s: rhythm.update_interval.map(|d| d.as_secs()),
        skip_hours: rhythm.skip_hours.0,
        skip_days: rhythm.skip_days.0,
        recent,
    }
}

/// Feeds put the newest first; the log wants the oldest first. Dates decide where every item has one.
fn oldest_first(mut items: Vec<Item>) -> Vec<Item> {
    items.reverse();
    if items.iter().all(|i| i.published.is_some()) {
        items.sort_by_key(|i| i.published);
    }
    items
}

#[cfg(test)]
mod tests {
    use fetch::{Failure, Freshness, Full, Timings};
    use news::{FeedUrl, SourceId};

    use super::*;

    const NOW: fn() -> Timestamp = || Timestamp::from_millis(1_800_000_000_000);

    fn source() -> Source {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        Source::new(SourceId::try_new("a").unwrap(), url)
    }

    fn visit(code: u16, answer: FetchResult) -> FetchReport {
        FetchReport {
            answer,
            code: Some(code),
            is_conditional: code == 304,
            hops: Vec::new(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: fetch::HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            body_bytes: 10,
        }
    }

    fn full(etag: &str) -> FetchResult {
        FetchResult::Full(Full {
            body: bytes::Bytes::new(),
            body_hash: 7,
            content_type: None,
            etag: Some(etag.to_owned()),
            last_modified: None,
            validator_key: 5,
            url: "https://example.org/feed".parse().unwrap(),
            is_delta: false,
        })
    }

    fn conclude(before: &SourceState, visit: &FetchReport, reading: Reading) -> Outcome {
        let source = source();
        let took = Duration::from_millis(12);
        let binding = binding(&source, 0);
        let pace = IntervalBounds::default();
        let given = Given { source: &source, before, binding, pace, now: NOW(), took, jitter: 0.5 };
        Outcome::conclude(given, visit, reading)
    }

    #[test]
    fn validators_are_sent_only_for_the_address_they_came_from_and_not_for_ever() {
        let state = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let mut source = source();
        assert_eq!(validators(binding(&source, 0), &state, NOW()), (Some("\"v1\""), None));
        assert_eq!(validators(binding(&source, 0), &state, NOW().plus(FULL_EVERY)), (None, None));
        assert_eq!(validators(binding(&source, 1), &state, NOW()), (None, None), "other credentials");
        source.url = FeedUrl::try_new("https://example.org/other").unwrap();
        assert_eq!(validators(binding(&source, 0), &state, NOW()), (None, None));
    }

    #[test]
    fn everything_is_asked_for_once_a_day_also_when_that_fails() {
        let good = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let a_day_ago = SourceState {
            last_full: Some(Timestamp::from_millis(NOW().millis() - 86_400_000)),
            asked_in_full: None,
            ..good
        };
        let validators = |state, now| validators(binding(&source(), 0), state, now);
        assert_eq!(validators(&a_day_ago, NOW()), (None, None));
        let busy = conclude(&a_day_ago, &visit(503, FetchResult::Throttled), Reading::None).state;
        assert_eq!(validators(&busy, NOW()), (Some("\"v1\""), None));
        assert_eq!(validators(&busy, NOW().plus(FULL_EVERY)), (None, None));
    }

    #[test]
    fn validators_of_an_old_address_do_not_come_back_after_a_failure_at_the_new_one() {
        let good = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let elsewhere = SourceState { url_hash: good.url_hash ^ 1, ..good };
        let busy = conclude(&elsewhere, &visit(503, FetchResult::Throttled), Reading::None).state;
        assert_eq!(validators(binding(&source(), 0), &busy, NOW()), (None, None));
        assert_eq!(busy.body_hash, None, "nor is its document the one that we have");
    }

    #[test]
    fn a_failure_keeps_the_validators_and_plans_the_next_visit() {
        let good = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let failure = Failure::new(FailureClass::Timeout, "no answer within 30s");
        let bad = conclude(&good, &visit(200, FetchResult::Failed(failure)), Reading::None);
        assert_eq!(bad.class, Some(FailureClass::Timeout));
        assert_eq!((bad.state.failures, bad.state.etag.as_deref()), (1, Some("\"v1\"")));
        assert_eq!(bad.state.last_error.as_deref(), Some("timeout: no answer within 30s"));
        assert!(bad.state.next_visit > Some(NOW()));
        let again = conclude(
            &bad.state,
            &visit(304, FetchResult::NotModified { etag: None, last_modified: None }),
            Reading::None,
        );
        assert_eq!((again.state.failures, again.state.last_error), (0, None));
        assert_eq!(again.state.etag.as_deref(), Some("\"v1\""), "a 304 without validators changes none");
    }

    #[test]
    fn a_document_that_cannot_be_read_keeps_the_old_validators() {
        let good = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let reading = Reading::Failed { class: FailureClass::NotAFeed, message: "an HTML page".into() };
        let bad = conclude(&good, &visit(200, full("\"v2\"")), reading);
        assert_eq!((bad.state.etag.as_deref(), bad.class), (Some("\"v1\""), Some(FailureClass::NotAFeed)));
    }

    #[test]
    fn the_third_410_in_a_row_ends_the_visits_and_a_success_in_between_does_not() {
        let mut state = SourceState::default();
        for _ in 0..2 {
            state = conclude(&state, &visit(410, FetchResult::Gone), Reading::None).state;
            assert!(state.next_visit.is_some());
        }
        let healed = conclude(&state, &visit(200, full("\"v\"")), Reading::Same).state;
        assert_eq!(healed.gone_in_a_row, 0);
        let gone = conclude(&state, &visit(410, FetchResult::Gone), Reading::None).state;
        assert_eq!((gone.next_visit, gone.last_status), (None, Some(VisitStatus::Gone)));
    }

    #[test]
    fn every_way_a_visit_ends_has_a_reason_for_the_next() {
        let failed = FetchResult::Failed(Failure::new(FailureClass::Dns, "no such name"));
        let same = FetchResult::NotModified { etag: None, last_modified: None };
        for (code, answer) in [
            (200, full("x")),
            (304, same),
            (429, FetchResult::Throttled),
            (410, FetchResult::Gone),
            (0, failed),
        ] {
            let outcome = conclude(&SourceState::default(), &visit(code, answer), Reading::Same);
            assert!(!outcome.state.why.is_empty() && outcome.state.next_visit.is_some(), "{code}");
        }
        let source = source();
        let before = SourceState::default();
        let took = Duration::ZERO;
        let (binding, pace) = (binding(&source, 0), IntervalBounds::default());
        let given = Given { source: &source, before: &before, binding, pace, now: NOW(), took, jitter: 0.5 };
        let crashed = Outcome::crashed(given, "index out of bounds");
        assert!(crashed.state.next_visit > Some(NOW()));
        assert_eq!(crashed.state.last_error.as_deref(), Some("panic: index out of bounds"));
    }

    #[test]
    fn an_outage_of_ours_is_not_blamed_on_the_feed() {
        let good = conclude(&SourceState::default(), &visit(200, full("\"v1\"")), Reading::Same).state;
        let failed = || visit(0, FetchResult::Failed(Failure::new(FailureClass::Dns, "no answer")));
        let source = source();
        let mut state = good;
        for _ in 0..5 {
            let mut outcome = conclude(&state, &failed(), Reading::None);
            let (pace, took) = (IntervalBounds::default(), Duration::ZERO);
            let binding = binding(&source, 0);
            let before = &state;
            outcome.pardon(Given { source: &source, before, binding, pace, now: NOW(), took, jitter: 1.0 });
            assert!(outcome.state.next_visit <= Some(NOW().plus(PARDON_MAX)));
            assert!(outcome.state.why.starts_with("local outage"), "{}", outcome.state.why);
            state = outcome.state;
        }
        assert_eq!(state.failures, 0);
    }

    #[test]
    fn a_slow_document_puts_its_source_into_quarantine_until_one_is_fast() {
        let source = source();
        let before = SourceState::default();
        let (pace, took) = (IntervalBounds::default(), Duration::ZERO);
        let binding = binding(&source, 0);
        let given = Given { source: &source, before: &before, binding, pace, now: NOW(), took, jitter: 0.5 };
        let mut outcome = conclude(&before, &visit(200, full("x")), Reading::Same);
        outcome.confine(given);
        let usual = outcome.state.next_visit;
        assert!(outcome.judge_reading(READ_SLOW * 2));
        outcome.confine(given);
        assert!(outcome.state.next_visit >= Some(NOW().plus(pace.interval_max * 9 / 10)));
        assert_eq!(outcome.state.why, "in quarantine (its document took 4s to read): every 24h");
        let mut again = conclude(&outcome.state, &visit(200, full("x")), Reading::Same);
        assert!(!again.judge_reading(READ_SLOW / 2));
        again.confine(given);
        assert!(again.state.next_visit < outcome.state.next_visit && usual.is_some());
    }

    #[test]
    fn the_oldest_item_comes_first() {
        let item = |key: &str, ms: Option<i64>| Item {
            key: key.into(),
            published: ms.map(Timestamp::from_millis),
            ..Item::default()
        };
        let keys = |items| oldest_first(items).into_iter().map(|i| i.key).collect::<String>();
        assert_eq!(keys(vec![item("c", Some(3)), item("a", Some(1)), item("b", Some(2))]), "abc");
        assert_eq!(keys(vec![item("c", None), item("b", Some(9)), item("a", None)]), "abc");
    }
}
