//! The kinds of servers that a feed reader meets.

use std::time::Duration;

use chrono::{DateTime, Utc};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// How a server answers.
#[derive(Clone, Copy)]
pub(super) struct ServerProfile {
    pub(super) name: &'static str,
    pub(super) host: &'static str,
    /// How often something new is published.
    pub(super) news_every: Duration,
    /// Only between these hours of the day; all day if both are 0.
    pub(super) news_hours: (u64, u64),
    /// Whether its items have dates.
    pub(super) is_dated: bool,
    /// By the version of the document and the number of the request.
    pub(super) etag: Option<fn(u64, u64) -> String>,
    /// By the time of the newest item.
    pub(super) last_modified: Option<fn(i64) -> String>,
    pub(super) full: Fresh,
    pub(super) same: Fresh,
    pub(super) busy: Option<BusyRule>,
    /// A hint in the document, and the interval that it asks for.
    pub(super) hint: (&'static str, Duration),
    pub(super) skip_hours: u32,
    pub(super) skip_days: u8,
    /// Status, and the host of the target; empty for the same host.
    pub(super) redirect: Option<(u16, &'static str)>,
    /// Answers 410 after so long.
    pub(super) gone_after: Option<Duration>,
    /// Every n-th body is truncated.
    pub(super) cut_every: Option<u64>,
    /// Most bodies of requests without validators are truncated.
    pub(super) cut_in_full: bool,
}

/// How long the response is fresh, by its header.
#[derive(Clone, Copy)]
pub(super) enum Fresh {
    Silent,
    MaxAge(u64),
    MaxAgeLessAge(u64, u64),
    ExpiresLessAge(u64, u64),
}

/// Responses that ask clients to retry later.
#[derive(Clone, Copy)]
pub(super) struct BusyRule {
    pub(super) status: u16,
    pub(super) wait: Duration,
    /// As a date instead of seconds, alternating between the three formats.
    pub(super) as_date: bool,
    /// By the number of the request, and whether it is conditional.
    pub(super) when: fn(u64, bool) -> bool,
}

pub(super) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

impl ServerProfile {
    const PLAIN: Self = Self {
        name: "plain",
        host: "",
        news_every: Duration::from_secs(4 * 3600),
        news_hours: (0, 0),
        is_dated: true,
        etag: None,
        last_modified: None,
        full: Fresh::Silent,
        same: Fresh::Silent,
        busy: None,
        hint: ("", Duration::ZERO),
        skip_hours: 0,
        skip_days: 0,
        redirect: None,
        gone_after: None,
        cut_every: None,
        cut_in_full: false,
    };
    const TAGGED: Self = Self { etag: Some(strong), ..Self::PLAIN };
}

fn strong(version: u64, _: u64) -> String {
    format!("\"v{version}\"")
}

fn weak(version: u64, _: u64) -> String {
    format!("W/\"{version}-gzip\"")
}

fn odd(version: u64, _: u64) -> String {
    format!("v{version} \u{e9}; no quotes, and \"one")
}

fn restless(_: u64, nth: u64) -> String {
    format!("\"n{nth}\"")
}

/// The format of RFC 9110.
pub(super) fn http_date(ms: i64) -> String {
    date(ms).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn no_http_date(ms: i64) -> String {
    date(ms).format("%Y/%m/%d at %H:%M").to_string()
}

pub(super) fn date(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// All profiles.
pub(super) fn all() -> Vec<ServerProfile> {
    [caching(), trouble(), schedules_and_redirects()].concat()
}

/// Feeds that publish often, and ask to be visited rarely.
pub(super) fn bursts() -> Vec<ServerProfile> {
    let burst = ServerProfile { news_every: Duration::from_secs(600), ..ServerProfile::TAGGED };
    let fresh = Fresh::MaxAge(86_400);
    let weekly = "<sy:updatePeriod>weekly</sy:updatePeriod>";
    let always = "<ttl>always</ttl><sy:updatePeriod>always</sy:updatePeriod>";
    vec![
        ServerProfile { name: "burst-max-age", full: fresh, same: fresh, ..burst },
        ServerProfile { name: "burst-bare-304", full: fresh, ..burst },
        ServerProfile { name: "burst-ttl-3600", hint: ("<ttl>3600</ttl>", hours(1)), ..burst },
        ServerProfile { name: "burst-weekly", hint: (weekly, hours(24)), ..burst },
        ServerProfile { name: "burst-always", hint: (always, Duration::ZERO), ..burst },
        ServerProfile { name: "burst-undated", full: fresh, same: fresh, is_dated: false, ..burst },
        ServerProfile { name: "mornings", full: fresh, same: fresh, news_hours: (6, 10), ..burst },
        ServerProfile {
            name: "every-40-min",
            full: fresh,
            same: fresh,
            news_every: Duration::from_secs(2400),
            ..burst
        },
        ServerProfile { name: "hourly", full: fresh, same: fresh, news_every: hours(1), ..burst },
    ]
}

/// Validators and freshness.
fn caching() -> Vec<ServerProfile> {
    vec![
        ServerProfile { name: "etag", ..ServerProfile::TAGGED },
        ServerProfile { name: "quiet", news_every: hours(60), ..ServerProfile::TAGGED },
        ServerProfile {
            name: "quiet-date",
            news_every: hours(60),
            last_modified: Some(http_date),
            ..ServerProfile::PLAIN
        },
        ServerProfile {
            name: "quiet-302",
            news_every: hours(60),
            redirect: Some((302, "cdn.example")),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "last-modified", last_modified: Some(http_date), ..ServerProfile::PLAIN },
        ServerProfile { name: "no-http-date", last_modified: Some(no_http_date), ..ServerProfile::PLAIN },
        ServerProfile { name: "both", last_modified: Some(http_date), ..ServerProfile::TAGGED },
        ServerProfile { name: "neither", ..ServerProfile::PLAIN },
        ServerProfile { name: "weak-etag", etag: Some(weak), ..ServerProfile::PLAIN },
        ServerProfile { name: "odd-etag", etag: Some(odd), ..ServerProfile::PLAIN },
        ServerProfile { name: "etag-each-time", etag: Some(restless), ..ServerProfile::PLAIN },
        ServerProfile {
            name: "busy-newsroom",
            news_every: Duration::from_secs(600),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "max-age",
            full: Fresh::MaxAge(3600),
            same: Fresh::MaxAge(3600),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "max-age-less-age",
            full: Fresh::MaxAgeLessAge(7200, 1000),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "expires-less-age",
            full: Fresh::ExpiresLessAge(9000, 1800),
            same: Fresh::ExpiresLessAge(9000, 0),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "max-age-of-304",
            full: Fresh::MaxAge(600),
            same: Fresh::MaxAge(3 * 3600),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "max-age-of-a-day", full: Fresh::MaxAge(86_400), ..ServerProfile::TAGGED },
    ]
}

/// Throttled and truncated.
fn trouble() -> Vec<ServerProfile> {
    let busy = |status, wait, as_date, when| Some(BusyRule { status, wait, as_date, when });
    let fifth: fn(u64, bool) -> bool = |nth, _| nth % 5 == 4;
    // Rejects requests without validators, except the first: such a server is overloaded by full responses.
    let in_full: fn(u64, bool) -> bool = |nth, conditional| nth > 0 && !conditional && !nth.is_multiple_of(4);
    vec![
        ServerProfile {
            name: "429-seconds",
            busy: busy(429, hours(2), false, fifth),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "503-date", busy: busy(503, hours(3), true, fifth), ..ServerProfile::TAGGED },
        ServerProfile {
            name: "429-in-full",
            news_every: hours(60),
            busy: busy(429, hours(1), true, in_full),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "503-in-full",
            news_every: hours(60),
            busy: busy(503, hours(1), false, in_full),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "cut-off", cut_every: Some(3), ..ServerProfile::TAGGED },
        ServerProfile {
            name: "cut-in-full",
            news_every: hours(60),
            cut_in_full: true,
            ..ServerProfile::TAGGED
        },
    ]
}

/// What the document asks for, where it moves to, and which feeds share its host.
fn schedules_and_redirects() -> Vec<ServerProfile> {
    vec![
        ServerProfile { name: "skip-hours", skip_hours: 0x00c0_003f, ..ServerProfile::TAGGED },
        ServerProfile { name: "skip-days", skip_days: 1 << 5, ..ServerProfile::TAGGED },
        ServerProfile { name: "skip-hours-plain", skip_hours: 0x000f_ff00, ..ServerProfile::PLAIN },
        ServerProfile { name: "ttl", hint: ("<ttl>180</ttl>", hours(3)), ..ServerProfile::TAGGED },
        ServerProfile {
            name: "update-period",
            hint: (
                "<sy:updatePeriod>daily</sy:updatePeriod><sy:updateFrequency>6</sy:updateFrequency>",
                hours(4),
            ),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "moved-301", redirect: Some((301, "")), ..ServerProfile::TAGGED },
        ServerProfile {
            name: "moved-308-away",
            redirect: Some((308, "elsewhere.example")),
            ..ServerProfile::TAGGED
        },
        ServerProfile { name: "found-302", redirect: Some((302, "cdn.example")), ..ServerProfile::TAGGED },
        ServerProfile { name: "gone", gone_after: Some(hours(50)), ..ServerProfile::TAGGED },
        ServerProfile { name: "shared-1", host: "many.example", ..ServerProfile::TAGGED },
        ServerProfile { name: "shared-2", host: "many.example", ..ServerProfile::TAGGED },
        ServerProfile { name: "shared-3", host: "many.example", ..ServerProfile::PLAIN },
        ServerProfile {
            name: "shared-4",
            host: "many.example",
            full: Fresh::MaxAge(3600),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "shared-5",
            host: "many.example",
            full: Fresh::MaxAge(3600),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "shared-6",
            host: "many.example",
            same: Fresh::MaxAge(3600),
            ..ServerProfile::TAGGED
        },
        ServerProfile {
            name: "shared-7",
            host: "many.example",
            last_modified: Some(http_date),
            ..ServerProfile::PLAIN
        },
        ServerProfile {
            name: "shared-8",
            host: "many.example",
            hint: ("<ttl>60</ttl>", hours(1)),
            ..ServerProfile::TAGGED
        },
    ]
}

impl ServerProfile {
    pub(super) fn host(&self) -> String {
        if self.host.is_empty() { format!("{}.example", self.name) } else { self.host.to_owned() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/feed/{}", self.host(), self.name)
    }

    /// Where the redirect leads.
    pub(super) fn target_url(&self) -> String {
        match self.redirect {
            None => self.url(),
            Some((_, "")) => format!("http://{}/new/{}", self.host(), self.name),
            Some((_, host)) => format!("http://{host}/feed/{}", self.name),
        }
    }

    /// Milliseconds between two items, and the items of a day, if it publishes at some hours only.
    fn daily(&self) -> Option<(u64, u64, u64)> {
        let (from, until) = self.news_hours;
        let every_ms = u64::try_from(self.news_every.as_millis()).unwrap();
        (until > from).then(|| (from * HOUR_MS, every_ms, (until - from) * HOUR_MS / every_ms))
    }

    /// Which version of the document is current.
    pub(super) fn version(&self, now_ms: i64) -> u64 {
        let now_ms = now_ms.unsigned_abs();
        let Some((from_ms, every_ms, items)) = self.daily() else {
            return now_ms / u64::try_from(self.news_every.as_millis()).unwrap();
        };
        let published = match (now_ms % DAY_MS).checked_sub(from_ms) {
            Some(since_ms) => (since_ms / every_ms + 1).min(items),
            None => 0,
        };
        now_ms / DAY_MS * items + published - 1
    }

    pub(super) fn born_ms(&self, version: u64) -> i64 {
        let born_ms = match self.daily() {
            Some((from_ms, every_ms, items)) => {
                version / items * DAY_MS + from_ms + version % items * every_ms
            }
            None => version * u64::try_from(self.news_every.as_millis()).unwrap(),
        };
        i64::try_from(born_ms).unwrap()
    }

    pub(super) fn document(&self, now_ms: i64) -> String {
        let skipped = |count: u32, set: u32, element: fn(u32) -> String| {
            (0..count).filter(|n| set >> n & 1 == 1).map(element).collect::<String>()
        };
        let skip_hours = skipped(24, self.skip_hours, |hour| format!("<hour>{hour}</hour>"));
        let skip_days = skipped(7, self.skip_days.into(), |day| {
            let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
            format!("<day>{}</day>", days[day as usize])
        });
        let newest = self.version(now_ms);
        let items: String = (newest - 14..=newest)
            .rev()
            .map(|version| {
                let born = http_date(self.born_ms(version));
                let date = if self.is_dated { format!("<pubDate>{born}</pubDate>") } else { String::new() };
                format!("<item><title>Item {version}</title><guid>{version}</guid>{date}</item>")
            })
            .collect();
        format!(
            "<rss version='2.0' xmlns:sy='http://purl.org/rss/1.0/modules/syndication/'><channel>\
             <title>{}</title><link>http://x.example/</link><description>d</description>{}\
             <skipHours>{skip_hours}</skipHours><skipDays>{skip_days}</skipDays>{items}</channel></rss>",
            self.name, self.hint.0
        )
    }
}

impl Fresh {
    /// Header lines, and how long they ask clients to wait.
    pub(super) fn header_lines(self, now_ms: i64) -> (Vec<(&'static str, String)>, Duration) {
        match self {
            Self::Silent => (Vec::new(), Duration::ZERO),
            Self::MaxAge(s) => {
                (vec![("cache-control", format!("public, max-age={s}"))], Duration::from_secs(s))
            }
            Self::MaxAgeLessAge(s, age) => (
                vec![("cache-control", format!("max-age={s}")), ("age", age.to_string())],
                Duration::from_secs(s - age),
            ),
            Self::ExpiresLessAge(s, age) => {
                let expires = http_date(now_ms + i64::try_from(s * 1000).unwrap());
                let lines = vec![("expires", expires), ("date", http_date(now_ms)), ("age", age.to_string())];
                // Dates have no fractions of a second.
                (lines, Duration::from_secs(s - age - 1))
            }
        }
    }
}

impl BusyRule {
    /// The value of `Retry-After`.
    pub(super) fn retry_after(&self, now_ms: i64, nth: u64) -> String {
        let until = date(now_ms + i64::try_from(self.wait.as_millis()).unwrap() + 1000);
        match (self.as_date, nth % 3) {
            (false, _) => self.wait.as_secs().to_string(),
            (true, 0) => until.format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            (true, 1) => until.format("%A, %d-%b-%y %H:%M:%S GMT").to_string(),
            (true, _) => until.format("%a %b %e %H:%M:%S %Y").to_string(),
        }
    }
}
