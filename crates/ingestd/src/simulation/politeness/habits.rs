//! The kinds of servers that a poller meets, each as what it does.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// How a server answers.
#[derive(Clone, Copy)]
pub(super) struct Habits {
    pub(super) name: &'static str,
    pub(super) host: &'static str,
    /// Something new comes so often.
    pub(super) news_every: Duration,
    /// Of the version of the document and the number of the request.
    pub(super) etag: Option<fn(u64, u64) -> String>,
    /// Of the time of the newest item.
    pub(super) last_modified: Option<fn(i64) -> String>,
    pub(super) full: Fresh,
    pub(super) same: Fresh,
    pub(super) busy: Option<Busy>,
    /// A hint in the document, and how long it asks for.
    pub(super) hint: (&'static str, Duration),
    pub(super) skip_hours: u32,
    pub(super) skip_days: u8,
    /// Status, and the host where the feed is; the same host when empty.
    pub(super) redirect: Option<(u16, &'static str)>,
    /// Gone after so long.
    pub(super) gone_after: Option<Duration>,
    /// Every so many bodies break off in the middle.
    pub(super) cut_every: Option<u64>,
    /// And those of who asks for everything, most of the time.
    pub(super) cut_in_full: bool,
}

/// What the head says of the answer's simulated.
#[derive(Clone, Copy)]
pub(super) enum Fresh {
    Silent,
    MaxAge(u64),
    MaxAgeLessAge(u64, u64),
    ExpiresLessAge(u64, u64),
}

/// Answers that send visitors away.
#[derive(Clone, Copy)]
pub(super) struct Busy {
    pub(super) status: u16,
    pub(super) wait: Duration,
    /// As a date instead of seconds, in all three forms by turns.
    pub(super) as_date: bool,
    /// Of the number of the request, and whether it is conditional.
    pub(super) when: fn(u64, bool) -> bool,
}

pub(super) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

impl Habits {
    const PLAIN: Self = Self {
        name: "plain",
        host: "",
        news_every: Duration::from_secs(4 * 3600),
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

/// The form of the standard.
pub(super) fn http_date(ms: i64) -> String {
    date(ms).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn no_http_date(ms: i64) -> String {
    date(ms).format("%Y/%m/%d at %H:%M").to_string()
}

pub(super) fn date(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// Every kind.
pub(super) fn all() -> Vec<Habits> {
    [caching(), trouble(), calendars_and_places()].concat()
}

/// What is issued, and for how long it lives.
fn caching() -> Vec<Habits> {
    vec![
        Habits { name: "etag", ..Habits::TAGGED },
        Habits { name: "quiet", news_every: hours(60), ..Habits::TAGGED },
        Habits { name: "quiet-date", news_every: hours(60), last_modified: Some(http_date), ..Habits::PLAIN },
        Habits {
            name: "quiet-302",
            news_every: hours(60),
            redirect: Some((302, "cdn.example")),
            ..Habits::TAGGED
        },
        Habits { name: "last-modified", last_modified: Some(http_date), ..Habits::PLAIN },
        Habits { name: "no-http-date", last_modified: Some(no_http_date), ..Habits::PLAIN },
        Habits { name: "both", last_modified: Some(http_date), ..Habits::TAGGED },
        Habits { name: "neither", ..Habits::PLAIN },
        Habits { name: "weak-etag", etag: Some(weak), ..Habits::PLAIN },
        Habits { name: "odd-etag", etag: Some(odd), ..Habits::PLAIN },
        Habits { name: "etag-each-time", etag: Some(restless), ..Habits::PLAIN },
        Habits { name: "busy-newsroom", news_every: Duration::from_secs(600), ..Habits::TAGGED },
        Habits { name: "max-age", full: Fresh::MaxAge(3600), same: Fresh::MaxAge(3600), ..Habits::TAGGED },
        Habits { name: "max-age-less-age", full: Fresh::MaxAgeLessAge(7200, 1000), ..Habits::TAGGED },
        Habits {
            name: "expires-less-age",
            full: Fresh::ExpiresLessAge(9000, 1800),
            same: Fresh::ExpiresLessAge(9000, 0),
            ..Habits::TAGGED
        },
        Habits {
            name: "max-age-of-304",
            full: Fresh::MaxAge(600),
            same: Fresh::MaxAge(3 * 3600),
            ..Habits::TAGGED
        },
        Habits { name: "max-age-of-a-day", full: Fresh::MaxAge(86_400), ..Habits::TAGGED },
    ]
}

/// Throttled, and cut off.
fn trouble() -> Vec<Habits> {
    let busy = |status, wait, as_date, when| Some(Busy { status, wait, as_date, when });
    let fifth: fn(u64, bool) -> bool = |nth, _| nth % 5 == 4;
    // Sends away who asks for everything, but for the first time: such a server is at work when it is asked in full.
    let in_full: fn(u64, bool) -> bool = |nth, conditional| nth > 0 && !conditional && !nth.is_multiple_of(4);
    vec![
        Habits { name: "429-seconds", busy: busy(429, hours(2), false, fifth), ..Habits::TAGGED },
        Habits { name: "503-date", busy: busy(503, hours(3), true, fifth), ..Habits::TAGGED },
        Habits {
            name: "429-in-full",
            news_every: hours(60),
            busy: busy(429, hours(1), true, in_full),
            ..Habits::TAGGED
        },
        Habits {
            name: "503-in-full",
            news_every: hours(60),
            busy: busy(503, hours(1), false, in_full),
            ..Habits::TAGGED
        },
        Habits { name: "cut-off", cut_every: Some(3), ..Habits::TAGGED },
        Habits { name: "cut-in-full", news_every: hours(60), cut_in_full: true, ..Habits::TAGGED },
    ]
}

/// What the document asks for, where it moves to, and who its neighbours are.
fn calendars_and_places() -> Vec<Habits> {
    vec![
        Habits { name: "skip-hours", skip_hours: 0x00c0_003f, ..Habits::TAGGED },
        Habits { name: "skip-days", skip_days: 1 << 5, ..Habits::TAGGED },
        Habits { name: "skip-hours-plain", skip_hours: 0x000f_ff00, ..Habits::PLAIN },
        Habits { name: "ttl", hint: ("<ttl>180</ttl>", hours(3)), ..Habits::TAGGED },
        Habits {
            name: "update-period",
            hint: (
                "<sy:updatePeriod>daily</sy:updatePeriod><sy:updateFrequency>6</sy:updateFrequency>",
                hours(4),
            ),
            ..Habits::TAGGED
        },
        Habits { name: "moved-301", redirect: Some((301, "")), ..Habits::TAGGED },
        Habits { name: "moved-308-away", redirect: Some((308, "elsewhere.example")), ..Habits::TAGGED },
        Habits { name: "found-302", redirect: Some((302, "cdn.example")), ..Habits::TAGGED },
        Habits { name: "gone", gone_after: Some(hours(50)), ..Habits::TAGGED },
        Habits { name: "shared-1", host: "many.example", ..Habits::TAGGED },
        Habits { name: "shared-2", host: "many.example", ..Habits::TAGGED },
        Habits { name: "shared-3", host: "many.example", ..Habits::PLAIN },
        Habits { name: "shared-4", host: "many.example", full: Fresh::MaxAge(3600), ..Habits::TAGGED },
        Habits { name: "shared-5", host: "many.example", full: Fresh::MaxAge(3600), ..Habits::TAGGED },
        Habits { name: "shared-6", host: "many.example", same: Fresh::MaxAge(3600), ..Habits::TAGGED },
        Habits { name: "shared-7", host: "many.example", last_modified: Some(http_date), ..Habits::PLAIN },
        Habits {
            name: "shared-8",
            host: "many.example",
            hint: ("<ttl>60</ttl>", hours(1)),
            ..Habits::TAGGED
        },
    ]
}

impl Habits {
    pub(super) fn host(&self) -> String {
        if self.host.is_empty() { format!("{}.example", self.name) } else { self.host.to_owned() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/feed/{}", self.host(), self.name)
    }

    /// Where the feed is in the end.
    pub(super) fn home(&self) -> String {
        match self.redirect {
            None => self.url(),
            Some((_, "")) => format!("http://{}/new/{}", self.host(), self.name),
            Some((_, host)) => format!("http://{host}/feed/{}", self.name),
        }
    }

    /// Which version of the document is current.
    pub(super) fn version(&self, now_ms: i64) -> u64 {
        now_ms.unsigned_abs() / u64::try_from(self.news_every.as_millis()).unwrap()
    }

    pub(super) fn born_ms(&self, version: u64) -> i64 {
        i64::try_from(version * u64::try_from(self.news_every.as_millis()).unwrap()).unwrap()
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
                format!("<item><title>Item {version}</title><guid>{version}</guid><pubDate>{born}</pubDate></item>")
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
    /// Header lines, and for how long they ask visitors to stay away.
    pub(super) fn said(self, now_ms: i64) -> (Vec<(&'static str, String)>, Duration) {
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

impl Busy {
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
