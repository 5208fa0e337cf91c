//! The headers of a response: validators, freshness, `Retry-After`.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderMap,
    HeaderName, LAST_MODIFIED, LOCATION, RETRY_AFTER, SERVER, TRANSFER_ENCODING, VARY,
};
use news::{Escaped, FeedUrl, Timestamp};
use url::Url;

use crate::{
    Freshness,
    decode::{self, ContentCoding, UnusableCodings},
};

/// Longest validator that is stored, and longest value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Longest `Transfer-Encoding` in a message, in bytes.
const SHOWN_CODINGS_BYTES_MAX: usize = 100;
/// More seconds than this mean infinity (RFC 9111, section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// The headers that explain a visit. Not `Set-Cookie`, nor `Link`, which may repeat a secret address.
const SHOWN: [HeaderName; 12] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    ETAG,
    LAST_MODIFIED,
    CACHE_CONTROL,
    EXPIRES,
    AGE,
    DATE,
    RETRY_AFTER,
    VARY,
    SERVER,
];

/// The headers of a response that explain the visit, in a fixed order; the target of a redirect without secrets.
pub(crate) fn shown(headers: &HeaderMap, base: &Url) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for name in SHOWN {
        for value in headers.get_all(&name).iter().take(4) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let end = value.floor_char_boundary(VALUE_BYTES_MAX);
            shown.push((name.as_str().to_owned(), value[..end].to_owned()));
        }
    }
    if let Some(location) = location(headers) {
        let target = base.join(&location).ok().and_then(|url| FeedUrl::try_new(url.as_str()).ok());
        let target = target.map_or_else(|| "(not a web address)".to_owned(), |url| url.to_string());
        shown.push((LOCATION.as_str().to_owned(), target));
    }
    shown
}

/// The target of a redirect as it was sent. Some servers send UTF-8 unescaped, which [`Url`] then escapes.
pub(crate) fn location(headers: &HeaderMap) -> Option<String> {
    headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
}

/// `ETag` and `Last-Modified` of a response, byte for byte. Those over 1 KiB or not in UTF-8 are ignored, because they
/// could not be sent back unchanged.
pub(crate) fn validators(headers: &HeaderMap) -> (Option<String>, Option<String>) {
    let kept = |name| {
        let bytes = headers.get(name)?.as_bytes();
        let fits = !bytes.is_empty() && bytes.len() <= VALUE_BYTES_MAX;
        if fits { String::from_utf8(bytes.to_vec()).ok() } else { None }
    };
    (kept(ETAG), kept(LAST_MODIFIED))
}

/// The content codings of the body, in the order in which they were applied. A type of gzip files says the same as the
/// coding: a server that knows no codings sends `feed.xml.gz` like that.
///
/// # Errors
/// [`UnusableCodings`].
pub(crate) fn codings(headers: &HeaderMap) -> Result<Vec<ContentCoding>, UnusableCodings> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let codings = decode::codings(&values.join(","))?;
    if codings.is_empty() && is_gzip_file(headers) {
        return Ok(vec![ContentCoding::GzipFile]);
    }
    Ok(codings)
}

/// Refuses a body whose chunks were not recognised, or whose transfer coding is another one, which no request asks for.
///
/// Chunks are recognised by the last coding only, and `chunked` twice is read as once: that is how servers behind a proxy
/// mean it.
///
/// # Errors
/// What the server has sent.
pub(crate) fn check_transfer_codings(headers: &HeaderMap) -> Result<(), String> {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let all = values.join(", ");
    let is = |coding: &str, name: &str| coding.trim().eq_ignore_ascii_case(name);
    let mut codings = all.split(',').skip_while(|coding| is(coding, "") || is(coding, "identity"));
    if codings.all(|coding| is(coding, "chunked")) {
        return Ok(());
    }
    let end = all.floor_char_boundary(SHOWN_CODINGS_BYTES_MAX);
    Err(format!(
        "the server sent the body with `Transfer-Encoding: {}`; only `chunked` alone is read, and nothing else was asked for",
        Escaped(&all[..end])
    ))
}

/// Whether the type of the document is that of a gzip file, which says nothing about the feed in it.
pub(crate) fn is_gzip_file(headers: &HeaderMap) -> bool {
    let media_type = text(headers, &CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    ["application/gzip", "application/x-gzip"].iter().any(|gzip| media_type.eq_ignore_ascii_case(gzip))
}

/// Whether a 226 response is a feed delta (RFC 3229).
pub(crate) fn is_feed_delta(headers: &HeaderMap) -> bool {
    text(headers, &HeaderName::from_static("im"))
        .is_none_or(|im| im.split(',').any(|m| m.trim().eq_ignore_ascii_case("feed")))
}

/// How long the response is fresh (RFC 9111, section 4.2.1): `max-age` overrides `Expires`; `Age` is subtracted.
pub(crate) fn cache_life(headers: &HeaderMap, now: Timestamp) -> Freshness {
    let (cached, expiry) = (headers.contains_key(CACHE_CONTROL), headers.contains_key(EXPIRES));
    let said = Freshness { is_stated: cached || expiry, ..Freshness::default() };
    let mut max_age = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" | "no-store" => return said,
                "max-age" => max_age = max_age.or_else(|| seconds(argument.trim().trim_matches('"'))),
                _ => {}
            }
        }
    }
    let expires = || {
        let expires = http_date(text(headers, &EXPIRES)?)?;
        let date = text(headers, &DATE).and_then(http_date).unwrap_or(now);
        Some(expires.since(date))
    };
    let age = text(headers, &AGE).and_then(seconds).unwrap_or_default();
    let lifetime = max_age.or_else(expires).filter(|life| !life.is_zero());
    let left = lifetime.map(|life| life.saturating_sub(age));
    let is_by_date = max_age.is_none() && lifetime.is_some();
    Freshness { fresh_for: left.filter(|left| !left.is_zero()), lifetime, age, is_by_date, ..said }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date in one of three forms, relative to the `Date` of the
/// response if there is one.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?.trim();
    if let Some(wait) = seconds(value) {
        return Some(wait);
    }
    let date = text(headers, &DATE).and_then(http_date).unwrap_or(now);
    http_date(value).map(|until| until.since(date))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whole seconds; a fraction, which some servers send, is rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let more = u64::from(fraction.bytes().any(|b| b != b'0'));
    let seconds = whole.parse::<u64>().map_or(SECONDS_MAX, |s| s.saturating_add(more).min(SECONDS_MAX));
    Some(Duration::from_secs(seconds))
}

/// A date in any of the three forms of HTTP (RFC 9110, section 5.6.7). The day of the week is ignored.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let read = |text: &str, format| NaiveDateTime::parse_from_str(text, format).ok();
    let date = match text.split_once(',') {
        Some((_, rest)) => {
            let rest = rest.trim().strip_suffix("GMT").or_else(|| rest.trim().strip_suffix("UTC"))?.trim();
            read(rest, "%d %b %Y %H:%M:%S").or_else(|| read(rest, "%d-%b-%y %H:%M:%S"))
        }
        None => read(text.split_once(' ')?.1.trim(), "%b %e %H:%M:%S %Y"),
    }?;
    Some(Timestamp::from(DateTime::<Utc>::from_naive_utc_and_offset(date, Utc)))
}

#[cfg(test)]
mod tests;
