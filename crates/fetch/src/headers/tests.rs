//! Response headers, as servers send them.

use reqwest::header::HeaderValue;

use super::*;

/// 1994-11-06T08:49:37Z
const NOW_MS: i64 = 784_111_777_000;

type Lines<'a> = &'a [(&'static str, &'a str)];

fn head(lines: Lines<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn now() -> Timestamp {
    Timestamp::from_millis(NOW_MS)
}

#[test]
fn all_three_forms_of_a_date_are_read() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Tue, 06 Nov 1994 08:49:37 UTC",
    ] {
        assert_eq!(http_date(text), Some(now()), "{text}");
    }
    for text in
        ["", "0", "-1", "tomorrow", "Sun, 06 Nov 1994", "Sun, 99 Nov 1994 08:49:37 GMT", "é, é", ", GMT"]
    {
        assert_eq!(http_date(text), None, "{text:?}");
    }
}

#[test]
fn retry_after_is_read_in_every_form() {
    for (value, expected) in [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("1.5", Some(2)),
        ("99999999999999999999999", Some(SECONDS_MAX)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
        ("Sun Nov  6 08:50:37 1994", Some(60)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
        ("-5", None),
        ("soon", None),
        ("", None),
    ] {
        let found = retry_after(&head(&[("retry-after", value)]), now());
        assert_eq!(found, expected.map(Duration::from_secs), "{value:?}");
    }
}

#[test]
fn retry_after_is_relative_to_the_date_of_the_server() {
    let headers =
        head(&[("retry-after", "Sun, 06 Nov 1994 10:00:00 GMT"), ("date", "Sun, 06 Nov 1994 09:59:00 GMT")]);
    assert_eq!(retry_after(&headers, now()), Some(Duration::from_secs(60)));
}

#[test]
fn freshness_is_max_age_or_expires_minus_age() {
    let cases: [(Lines<'_>, Option<u64>); 15] = [
        (&[("cache-control", "public, max-age=3600")], Some(3600)),
        (&[("cache-control", "Max-Age=\"60\"")], Some(60)),
        (&[("cache-control", "max-age=3600"), ("age", "600")], Some(3000)),
        (&[("cache-control", "max-age=60"), ("age", "600")], None),
        (&[("cache-control", "s-maxage=9, max-age=60, max-age=7")], Some(60)),
        (&[("cache-control", "public"), ("cache-control", "max-age=5")], Some(5)),
        (&[("cache-control", "no-cache, max-age=60")], None),
        (&[("cache-control", "max-age=60, no-store")], None),
        (&[("cache-control", "max-age=-60")], None),
        (&[("cache-control", "max-age=0"), ("expires", "Sun, 06 Nov 1994 10:00:00 GMT")], None),
        (&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], Some(60)),
        (&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT"), ("age", "20")], Some(40)),
        (
            &[("expires", "Sun, 06 Nov 1994 09:00:00 GMT"), ("date", "Sun, 06 Nov 1994 08:59:00 GMT")],
            Some(60),
        ),
        (&[("expires", "0")], None),
        (&[], None),
    ];
    for (lines, expected) in cases {
        let found = cache_life(&head(lines), now()).fresh_for;
        assert_eq!(found, expected.map(Duration::from_secs), "{lines:?}");
    }
}

#[test]
fn validators_are_kept_byte_for_byte_or_not_at_all() {
    let kept = validators(&head(&[("etag", "W/\"a b\u{e9}\""), ("last-modified", "not even a date")]));
    assert_eq!(kept, (Some("W/\"a b\u{e9}\"".to_owned()), Some("not even a date".to_owned())));
    assert_eq!(validators(&head(&[("etag", &"x".repeat(1025)), ("last-modified", "")])), (None, None));
    assert!(validators(&head(&[("etag", &"x".repeat(1024))])).0.is_some());
    let mut latin = HeaderMap::new();
    latin.insert(ETAG, HeaderValue::from_bytes(b"\"\xe9\"").unwrap());
    assert_eq!(validators(&latin), (None, None));
}

#[test]
fn codings_are_known_by_all_their_names_and_in_any_number_of_headers() {
    use ContentCoding::{Brotli, Deflate, Gzip, GzipFile, Zstd};
    let of = |list: &[(&'static str, &str)]| codings(&head(list));
    for (list, expected) in [
        (&[("content-encoding", "GZip")][..], vec![Gzip]),
        (&[("content-encoding", " X-GZIP ,")], vec![Gzip]),
        (&[("content-encoding", "x-deflate")], vec![Deflate]),
        (&[("content-encoding", "BR"), ("content-encoding", "identity, Zstd")], vec![Brotli, Zstd]),
        (&[("content-type", "application/x-gzip")], vec![GzipFile]),
        (
            &[("content-type", "Application/GZIP; charset=binary"), ("content-encoding", "none")],
            vec![GzipFile],
        ),
        (&[("content-type", "application/x-gzip"), ("content-encoding", "gzip")], vec![Gzip]),
        (&[("content-type", "application/xml")], vec![]),
    ] {
        assert_eq!(of(list), Ok(expected), "{list:?}");
    }
    for plain in
        ["", "identity", "Identity, ", "UTF-8", "utf8", "none", "ISO-8859-1", "windows-1251", "binary"]
    {
        assert_eq!(of(&[("content-encoding", plain)]), Ok(vec![]), "{plain:?}");
    }
}

#[test]
fn a_coding_that_is_not_known_or_repeated_is_named() {
    for (list, message) in [
        ("compress", "the content coding compress is not supported"),
        ("gzip, AWS-chunked", "the content coding aws-chunked is not supported"),
        ("gzip;q=1", "the content coding gzip;q=1 is not supported"),
        ("gzip, X-Gzip", "the content coding gzip is repeated"),
    ] {
        assert_eq!(codings(&head(&[("content-encoding", list)])).unwrap_err().to_string(), message);
    }
}

#[test]
fn headers_are_shown_without_secrets() {
    let base = Url::parse("https://example.org/feed").unwrap();
    let headers = head(&[
        ("set-cookie", "session=SECRET"),
        ("location", "https://u:SECRET@example.org/x?token=SECRET"),
        ("etag", "\"1\""),
        ("x-powered-by", "y"),
    ]);
    let shown = shown(&headers, &base);
    assert_eq!(
        shown,
        [
            ("etag".to_owned(), "\"1\"".to_owned()),
            ("location".to_owned(), "https://…@example.org/x?token=…".to_owned())
        ]
    );
}
