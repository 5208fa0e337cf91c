//! The server of all feeds of the score card: it answers by their profiles, records every request, and reports every
//! violation.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use http::Response;
use reqwest::{Body, Request, header::HeaderMap};

use super::{
    super::{Reply, Servers},
    server_profiles::{ServerProfile, date, http_date},
};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// From a request to the header of its response.
const LATENCY: Duration = Duration::from_millis(400);
/// What the daemon promises to every host and every feed.
const SPACING_MS: i64 = 1000;
const HOST_IN_FLIGHT: u32 = 2;
const INTERVAL_MIN_MS: i64 = 300_000;
/// Requests for a feed that is gone, until the daemon gives up.
const GONE_REQUESTS_MAX: u32 = 3;

/// `ETag` and `Last-Modified`.
type Validators = (Option<String>, Option<String>);

/// All violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    UnconditionalRepeat,
    InventedValidator,
    TooEarly,
    SkippedTime,
    HostSpacing,
    HostCrowd,
    GoneRequested,
    Cookie,
    Referrer,
    UnknownAddress,
    Agent,
    Method,
}

/// The requests for one feed.
#[derive(Default)]
pub(super) struct FeedRecord {
    pub(super) requests: u64,
    pub(super) unconditional: u64,
    pub(super) answers: BTreeMap<&'static str, u64>,
    /// The URL of the last request.
    last_url: String,
    /// The validators of the last complete response, and its URL: they are unknown at any other.
    issued: Option<(String, Validators)>,
    /// When each of its URLs was last requested without validators.
    last_unconditional: HashMap<String, i64>,
    not_before: (i64, &'static str),
    last_ms: Option<i64>,
    gone: u32,
    /// The last response was a redirect: the next request to its target belongs to the same visit.
    is_redirected: bool,
    has_read_skips: bool,
}

#[derive(Default)]
struct HostRecord {
    last_ms: Option<i64>,
    in_flight: u32,
}

#[derive(Default)]
struct RequestLog {
    feeds: BTreeMap<&'static str, FeedRecord>,
    hosts: HashMap<String, HostRecord>,
    violations: Vec<(Violation, String)>,
}

/// All servers of the score card.
pub(super) struct ScoringServer {
    profiles: Vec<ServerProfile>,
    born_ms: i64,
    log: Mutex<RequestLog>,
}

impl ScoringServer {
    pub(super) fn new(profiles: Vec<ServerProfile>, born_ms: i64) -> Self {
        Self { profiles, born_ms, log: Mutex::default() }
    }

    pub(super) fn profiles(&self) -> &[ServerProfile] {
        &self.profiles
    }

    fn log(&self) -> MutexGuard<'_, RequestLog> {
        self.log.lock().unwrap()
    }

    pub(super) fn violations(&self) -> Vec<(Violation, String)> {
        self.log().violations.clone()
    }

    pub(super) fn of<T>(&self, name: &str, see: impl Fn(&FeedRecord) -> T) -> T {
        see(self.log().feeds.get(name).unwrap_or_else(|| panic!("{name} was never requested")))
    }

    /// One line per feed.
    pub(super) fn card(&self) -> String {
        let log = self.log();
        let mut card = format!("{:<26}{:>7}{:>15}  answers\n", "feed", "requests", "unconditional");
        for (name, record) in &log.feeds {
            let answers: Vec<_> = record.answers.iter().map(|(what, n)| format!("{what}: {n}")).collect();
            let (requests, unconditional) = (record.requests, record.unconditional);
            writeln!(card, "{name:<26}{requests:>7}{unconditional:>15}  {}", answers.join(", ")).unwrap();
        }
        let requests: u64 = log.feeds.values().map(|record| record.requests).sum();
        writeln!(card, "{requests} requests, {} violations", log.violations.len()).unwrap();
        card
    }
}

impl Servers for ScoringServer {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let mut log = self.log();
        let url = request.url().as_str();
        let Some(profile) = self.profiles.iter().find(|h| h.url() == url || h.target_url() == url) else {
            log.report(Violation::UnknownAddress, now_ms, request, "no feed has this URL");
            return Reply::After(LATENCY, answer(404, &[], Body::default()));
        };
        log.check_headers(now_ms, request);
        let mut record = log.feeds.remove(profile.name).unwrap_or_default();
        let continues = record.is_redirected && profile.target_url() == url;
        if !continues {
            log.check_timing(now_ms, request, profile, &record);
        }
        log.check_spacing(now_ms, request);
        log.check_validators(now_ms, request, &mut record);
        let reply = if profile.redirect.is_some() && profile.target_url() != url {
            record.redirect(profile)
        } else {
            record.answer(profile, now_ms, now_ms - self.born_ms, request.headers())
        };
        record.last_ms = Some(now_ms);
        log.feeds.insert(profile.name, record);
        Reply::After(LATENCY, reply)
    }

    fn ended(&self, url: &url::Url) {
        let mut log = self.log();
        if let Some(host) = log.hosts.get_mut(url.host_str().unwrap_or_default()) {
            host.in_flight -= 1;
        }
    }
}

impl RequestLog {
    fn report(&mut self, violation: Violation, now_ms: i64, request: &Request, why: &str) {
        let (method, url, headers) = (request.method(), request.url(), request.headers());
        let text = format!("{} {violation:?}: {method} {url}: {why}\n    {headers:?}", date(now_ms));
        self.violations.push((violation, text));
    }

    fn check_headers(&mut self, now_ms: i64, request: &Request) {
        let head = request.headers();
        for (name, violation) in [("cookie", Violation::Cookie), ("referer", Violation::Referrer)] {
            if head.contains_key(name) {
                self.report(violation, now_ms, request, "unsolicited");
            }
        }
        let agent = head.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let version = agent.strip_prefix("newswire/").unwrap_or_default();
        if !version.starts_with(|c: char| c.is_ascii_digit()) {
            self.report(Violation::Agent, now_ms, request, "the User-Agent does not name us and our version");
        }
        if request.method() != "GET" || request.body().is_some() {
            self.report(Violation::Method, now_ms, request, "a feed is fetched by GET without a body");
        }
    }

    fn check_timing(&mut self, now_ms: i64, request: &Request, profile: &ServerProfile, record: &FeedRecord) {
        let (until, requested_by) = record.not_before;
        if now_ms < until {
            let why = format!("{} s before the end of {requested_by}", (until - now_ms) / 1000);
            self.report(Violation::TooEarly, now_ms, request, &why);
        }
        if let Some(last) = record.last_ms.filter(|last| now_ms - last < INTERVAL_MIN_MS) {
            let why = format!("{} s after the last request", (now_ms - last) / 1000);
            self.report(Violation::TooEarly, now_ms, request, &why);
        }
        let hour = now_ms.rem_euclid(DAY_MS) / HOUR_MS;
        // 1970-01-01 was a Thursday, day 3.
        let day = (now_ms.div_euclid(DAY_MS) + 3).rem_euclid(7);
        let is_skipped = profile.skip_hours >> hour & 1 == 1 || profile.skip_days >> day & 1 == 1;
        if record.has_read_skips && is_skipped {
            self.report(Violation::SkippedTime, now_ms, request, "the feed skips this hour or day");
        }
        if record.gone >= GONE_REQUESTS_MAX {
            self.report(
                Violation::GoneRequested,
                now_ms,
                request,
                "the feed is gone, and was requested often enough",
            );
        }
    }

    fn check_spacing(&mut self, now_ms: i64, request: &Request) {
        let host = self.hosts.entry(request.url().host_str().unwrap_or_default().to_owned()).or_default();
        host.in_flight += 1;
        let is_crowd = host.in_flight > HOST_IN_FLIGHT;
        let gap_ms = host.last_ms.map_or(i64::MAX, |last| now_ms - last);
        host.last_ms = Some(now_ms);
        if is_crowd {
            self.report(Violation::HostCrowd, now_ms, request, "too many at the same time");
        }
        if gap_ms < SPACING_MS {
            let why = format!("{gap_ms} ms after another request to the host");
            self.report(Violation::HostSpacing, now_ms, request, &why);
        }
    }

    fn check_validators(&mut self, now_ms: i64, request: &Request, record: &mut FeedRecord) {
        let header =
            |name| request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let (etag, last_modified) = (header("if-none-match"), header("if-modified-since"));
        record.requests += u64::from(!record.is_redirected);
        record.last_url = request.url().to_string();
        let issued = record.issued.clone().filter(|(by, _)| *by == record.last_url);
        let issued = issued.map(|(_, issued)| issued).unwrap_or_default();
        let is_issued = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || ours == theirs;
        if !is_issued(&etag, &issued.0) || !is_issued(&last_modified, &issued.1) {
            let why = format!("issued were {issued:?}");
            self.report(Violation::InventedValidator, now_ms, request, &why);
        }
        if etag.is_some() || last_modified.is_some() {
            return;
        }
        record.unconditional += u64::from(!record.is_redirected);
        let last = record.last_unconditional.insert(record.last_url.clone(), now_ms);
        // A client without a validator has none to send.
        let has_validators = issued.0.is_some() || issued.1.is_some();
        if let Some(last) = last.filter(|last| has_validators && now_ms - last < DAY_MS) {
            let why = format!("the last request without validators was {} s ago", (now_ms - last) / 1000);
            self.report(Violation::UnconditionalRepeat, now_ms, request, &why);
        }
    }
}

impl FeedRecord {
    fn count(&mut self, what: &'static str) {
        *self.answers.entry(what).or_default() += 1;
    }

    fn no_visit_before(&mut self, now_ms: i64, wait: Duration, requested_by: &'static str) {
        let until = now_ms + i64::try_from(wait.as_millis()).unwrap();
        if until > self.not_before.0 {
            self.not_before = (until, requested_by);
        }
    }

    fn redirect(&mut self, profile: &ServerProfile) -> Response<Body> {
        self.is_redirected = true;
        self.count("redirect");
        let (status, _) = profile.redirect.expect("called for profiles with a redirect only");
        answer(status, &[("location", profile.target_url())], Body::default())
    }

    fn answer(
        &mut self,
        profile: &ServerProfile,
        now_ms: i64,
        age_ms: i64,
        head: &HeaderMap,
    ) -> Response<Body> {
        self.is_redirected = false;
        if profile.gone_after.is_some_and(|after| age_ms >= i64::try_from(after.as_millis()).unwrap()) {
            self.gone += 1;
            self.count("410");
            return answer(410, &[], Body::default());
        }
        let nth = self.requests - 1;
        let conditional = head.contains_key("if-none-match") || head.contains_key("if-modified-since");
        if let Some(busy) = profile.busy.filter(|busy| (busy.when)(nth, conditional)) {
            self.count(if busy.status == 429 { "429" } else { "503" });
            self.no_visit_before(now_ms, busy.wait, "Retry-After");
            let lines = [("retry-after", busy.retry_after(now_ms, nth)), ("date", http_date(now_ms))];
            return answer(busy.status, &lines, Body::default());
        }
        let version = profile.version(now_ms);
        let etag = profile.etag.map(|tag| tag(version, nth));
        let last_modified = profile.last_modified.map(|date| date(profile.born_ms(version)));
        let has = |name: &str, ours: &Option<String>| {
            head.get(name).is_some_and(|v| Some(v.as_bytes()) == ours.as_deref().map(str::as_bytes))
        };
        let is_same = has("if-none-match", &etag)
            || !head.contains_key("if-none-match") && has("if-modified-since", &last_modified);
        let (lines, stay) = if is_same { profile.same } else { profile.full }.header_lines(now_ms);
        let mut lines = [lines, vec![("set-cookie", "id=1; Path=/".to_owned())]].concat();
        lines.extend(etag.clone().map(|etag| ("etag", etag)));
        lines.extend(last_modified.clone().map(|date| ("last-modified", date)));
        let document = profile.document(now_ms);
        let in_turn = profile.cut_every.is_some_and(|every| nth % every == every - 1);
        let in_full = profile.cut_in_full && !conditional && nth > 0 && !nth.is_multiple_of(4);
        if !is_same && (in_turn || in_full) {
            self.count("cut");
            return answer(200, &lines, cut(&document));
        }
        self.issued = Some((self.last_url.clone(), (etag, last_modified)));
        self.has_read_skips = true;
        let patience = profile.patience(now_ms);
        self.no_visit_before(now_ms, stay.min(patience), "max-age or Expires");
        self.no_visit_before(now_ms, profile.hint.1.min(patience), "the document's hint");
        self.count(if is_same { "304" } else { "200" });
        let body = if is_same { Body::default() } else { Body::from(document) };
        answer(if is_same { 304 } else { 200 }, &lines, body)
    }
}

fn answer(status: u16, lines: &[(&str, String)], body: Body) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in lines {
        response = response.header(*name, value.as_bytes());
    }
    response.body(body).unwrap()
}

/// Half of the document, then the connection breaks.
fn cut(document: &str) -> Body {
    let half = document.as_bytes()[..document.len() / 2].to_vec();
    let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    Body::wrap_stream(futures_util::stream::iter([Ok(half), Err(broken)]))
}
