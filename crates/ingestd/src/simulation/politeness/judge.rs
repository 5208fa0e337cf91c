//! The server that answers as its habits are, remembers every request, and names every offence.

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
    habits::{Habits, date, http_date},
};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// From a request to the head of its answer.
const LATENCY: Duration = Duration::from_millis(400);
/// What the daemon promises to every host and every feed, whoever says what.
const SPACING_MS: i64 = 1000;
const HOST_IN_FLIGHT: u32 = 2;
const INTERVAL_MIN_MS: i64 = 300_000;
/// A feed that is gone may be asked so often until that is believed.
const GONE_ASKED_MAX: u32 = 3;

/// `ETag` and `Last-Modified`.
type Validators = (Option<String>, Option<String>);

/// The closed set of offences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offence {
    UnconditionalRepeat,
    InventedValidator,
    TooEarly,
    SkippedTime,
    HostSpacing,
    HostCrowd,
    AskedTheGone,
    Cookie,
    Referrer,
    UnknownAddress,
    Agent,
    Method,
}

/// What one feed's server has seen.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) unconditional: u64,
    pub(super) answers: BTreeMap<&'static str, u64>,
    /// The address that was asked last.
    asked: String,
    /// What the last whole answer issued, and the address that issued it: no other has ever heard of that.
    issued: Option<(String, Validators)>,
    /// When each of its addresses was last asked for everything.
    asked_in_full: HashMap<String, i64>,
    not_before: (i64, &'static str),
    last_ms: Option<i64>,
    gone: u32,
    /// It was sent to its home just now: the next request there is the same visit.
    is_sent_home: bool,
    has_read_skips: bool,
}

#[derive(Default)]
struct Host {
    last_ms: Option<i64>,
    in_flight: u32,
}

#[derive(Default)]
struct Book {
    feeds: BTreeMap<&'static str, Tally>,
    hosts: HashMap<String, Host>,
    offences: Vec<(Offence, String)>,
}

/// All servers of the score card.
pub(super) struct Judge {
    habits: Vec<Habits>,
    born_ms: i64,
    book: Mutex<Book>,
}

impl Judge {
    pub(super) fn new(habits: Vec<Habits>, born_ms: i64) -> Self {
        Self { habits, born_ms, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub(super) fn offences(&self) -> Vec<(Offence, String)> {
        self.book().offences.clone()
    }

    pub(super) fn of<T>(&self, name: &str, see: impl Fn(&Tally) -> T) -> T {
        see(self.book().feeds.get(name).unwrap_or_else(|| panic!("{name} was never asked")))
    }

    /// One line a feed.
    pub(super) fn card(&self) -> String {
        let book = self.book();
        let mut card = format!("{:<18}{:>9}{:>15}  answers\n", "feed", "requests", "unconditional");
        for (name, tally) in &book.feeds {
            let answers: Vec<_> = tally.answers.iter().map(|(what, n)| format!("{what}: {n}")).collect();
            let (requests, unconditional) = (tally.requests, tally.unconditional);
            writeln!(card, "{name:<18}{requests:>9}{unconditional:>15}  {}", answers.join(", ")).unwrap();
        }
        let requests: u64 = book.feeds.values().map(|tally| tally.requests).sum();
        writeln!(card, "{requests} requests, {} offences", book.offences.len()).unwrap();
        card
    }
}

impl Servers for Judge {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let mut book = self.book();
        let url = request.url().as_str();
        let Some(habits) = self.habits.iter().find(|h| h.url() == url || h.home() == url) else {
            book.offend(Offence::UnknownAddress, now_ms, request, "no link leads here");
            return Reply::After(LATENCY, answer(404, &[], Body::default()));
        };
        book.manners(now_ms, request);
        let mut tally = book.feeds.remove(habits.name).unwrap_or_default();
        let continues = tally.is_sent_home && habits.home() == url;
        if !continues {
            book.timing(now_ms, request, habits, &tally);
        }
        book.spacing(now_ms, request, continues);
        book.validators(now_ms, request, &mut tally);
        let reply = if habits.redirect.is_some() && habits.home() != url {
            tally.redirect(habits)
        } else {
            tally.answer(habits, now_ms, now_ms - self.born_ms, request.headers())
        };
        tally.last_ms = Some(now_ms);
        book.feeds.insert(habits.name, tally);
        Reply::After(LATENCY, reply)
    }

    fn ended(&self, url: &url::Url) {
        let mut book = self.book();
        if let Some(host) = book.hosts.get_mut(url.host_str().unwrap_or_default()) {
            host.in_flight -= 1;
        }
    }
}

impl Book {
    fn offend(&mut self, offence: Offence, now_ms: i64, request: &Request, why: &str) {
        let (method, url, headers) = (request.method(), request.url(), request.headers());
        let text = format!("{} {offence:?}: {method} {url}: {why}\n    {headers:?}", date(now_ms));
        self.offences.push((offence, text));
    }

    fn manners(&mut self, now_ms: i64, request: &Request) {
        let head = request.headers();
        for (name, offence) in [("cookie", Offence::Cookie), ("referer", Offence::Referrer)] {
            if head.contains_key(name) {
                self.offend(offence, now_ms, request, "nobody asked for it");
            }
        }
        let agent = head.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let version = agent.strip_prefix("newswire/").unwrap_or_default();
        if !version.starts_with(|c: char| c.is_ascii_digit()) {
            self.offend(Offence::Agent, now_ms, request, "who is it, and which version?");
        }
        if request.method() != "GET" || request.body().is_some() {
            self.offend(Offence::Method, now_ms, request, "a feed is read");
        }
    }

    fn timing(&mut self, now_ms: i64, request: &Request, habits: &Habits, tally: &Tally) {
        let (until, asked_by) = tally.not_before;
        if now_ms < until {
            let why = format!("{} s before the end of {asked_by}", (until - now_ms) / 1000);
            self.offend(Offence::TooEarly, now_ms, request, &why);
        }
        if let Some(last) = tally.last_ms.filter(|last| now_ms - last < INTERVAL_MIN_MS) {
            let why = format!("{} s after the last request", (now_ms - last) / 1000);
            self.offend(Offence::TooEarly, now_ms, request, &why);
        }
        let hour = now_ms.rem_euclid(DAY_MS) / HOUR_MS;
        // 1970-01-01 was a Thursday, day 3.
        let day = (now_ms.div_euclid(DAY_MS) + 3).rem_euclid(7);
        let is_skipped = habits.skip_hours >> hour & 1 == 1 || habits.skip_days >> day & 1 == 1;
        if tally.has_read_skips && is_skipped {
            self.offend(Offence::SkippedTime, now_ms, request, "the feed wants no visit at this hour");
        }
        if tally.gone >= GONE_ASKED_MAX {
            self.offend(Offence::AskedTheGone, now_ms, request, "it is gone, and was asked often enough");
        }
    }

    /// A redirect inside a host is one visit: its second request comes at once, as in any client.
    fn spacing(&mut self, now_ms: i64, request: &Request, continues: bool) {
        let host = self.hosts.entry(request.url().host_str().unwrap_or_default().to_owned()).or_default();
        host.in_flight += 1;
        let crowd = host.in_flight > HOST_IN_FLIGHT;
        let apart = host.last_ms.map_or(i64::MAX, |last| now_ms - last);
        if !continues {
            host.last_ms = Some(now_ms);
        }
        if crowd {
            self.offend(Offence::HostCrowd, now_ms, request, "too many at a time");
        }
        if apart < SPACING_MS && !continues {
            let why = format!("{apart} ms after another visit of the host");
            self.offend(Offence::HostSpacing, now_ms, request, &why);
        }
    }

    fn validators(&mut self, now_ms: i64, request: &Request, tally: &mut Tally) {
        let said =
            |name| request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let (etag, last_modified) = (said("if-none-match"), said("if-modified-since"));
        tally.requests += u64::from(!tally.is_sent_home);
        tally.asked = request.url().to_string();
        let issued = tally.issued.clone().filter(|(by, _)| *by == tally.asked);
        let issued = issued.map(|(_, issued)| issued).unwrap_or_default();
        let is_issued = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || ours == theirs;
        if !is_issued(&etag, &issued.0) || !is_issued(&last_modified, &issued.1) {
            let why = format!("issued were {issued:?}");
            self.offend(Offence::InventedValidator, now_ms, request, &why);
        }
        if etag.is_some() || last_modified.is_some() {
            return;
        }
        tally.unconditional += u64::from(!tally.is_sent_home);
        let last = tally.asked_in_full.insert(tally.asked.clone(), now_ms);
        // Who was never given a validator has none to send.
        let could = issued.0.is_some() || issued.1.is_some();
        if let Some(last) = last.filter(|last| could && now_ms - last < DAY_MS) {
            let why = format!("asked for everything {} s ago already", (now_ms - last) / 1000);
            self.offend(Offence::UnconditionalRepeat, now_ms, request, &why);
        }
    }
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.answers.entry(what).or_default() += 1;
    }

    fn stay_away(&mut self, now_ms: i64, wait: Duration, asked_by: &'static str) {
        let until = now_ms + i64::try_from(wait.as_millis()).unwrap();
        if until > self.not_before.0 {
            self.not_before = (until, asked_by);
        }
    }

    fn redirect(&mut self, habits: &Habits) -> Response<Body> {
        self.is_sent_home = true;
        self.count("redirect");
        let (status, _) = habits.redirect.expect("only those that redirect come here");
        answer(status, &[("location", habits.home())], Body::default())
    }

    fn answer(&mut self, habits: &Habits, now_ms: i64, age_ms: i64, head: &HeaderMap) -> Response<Body> {
        self.is_sent_home = false;
        if habits.gone_after.is_some_and(|after| age_ms >= i64::try_from(after.as_millis()).unwrap()) {
            self.gone += 1;
            self.count("410");
            return answer(410, &[], Body::default());
        }
        let nth = self.requests - 1;
        let conditional = head.contains_key("if-none-match") || head.contains_key("if-modified-since");
        if let Some(busy) = habits.busy.filter(|busy| (busy.when)(nth, conditional)) {
            self.count(if busy.status == 429 { "429" } else { "503" });
            self.stay_away(now_ms, busy.wait, "Retry-After");
            let lines = [("retry-after", busy.retry_after(now_ms, nth)), ("date", http_date(now_ms))];
            return answer(busy.status, &lines, Body::default());
        }
        let version = habits.version(now_ms);
        let etag = habits.etag.map(|tag| tag(version, nth));
        let last_modified = habits.last_modified.map(|date| date(habits.born_ms(version)));
        let has = |name: &str, ours: &Option<String>| {
            head.get(name).is_some_and(|v| Some(v.as_bytes()) == ours.as_deref().map(str::as_bytes))
        };
        let is_same = has("if-none-match", &etag)
            || !head.contains_key("if-none-match") && has("if-modified-since", &last_modified);
        let (lines, stay) = if is_same { habits.same } else { habits.full }.said(now_ms);
        let mut lines = [lines, vec![("set-cookie", "id=1; Path=/".to_owned())]].concat();
        lines.extend(etag.clone().map(|etag| ("etag", etag)));
        lines.extend(last_modified.clone().map(|date| ("last-modified", date)));
        let document = habits.document(now_ms);
        let in_turn = habits.cut_every.is_some_and(|every| nth % every == every - 1);
        let in_full = habits.cut_in_full && !conditional && nth > 0 && !nth.is_multiple_of(4);
        if !is_same && (in_turn || in_full) {
            self.count("cut");
            return answer(200, &lines, cut(&document));
        }
        self.issued = Some((self.asked.clone(), (etag, last_modified)));
        self.has_read_skips = true;
        self.stay_away(now_ms, stay, "max-age or Expires");
        self.stay_away(now_ms, habits.hint.1, "the document's hint");
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

/// Half of it, and then the connection breaks.
fn cut(document: &str) -> Body {
    let half = document.as_bytes()[..document.len() / 2].to_vec();
    let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    Body::wrap_stream(futures_util::stream::iter([Ok(half), Err(broken)]))
}
