//! The date table: texts as publishers write them, and the instant, or none.

use super::{day_order, exact, fold::fold, grammar, parse, windows, words, zones};

fn read(text: &str) -> Option<String> {
    parse(text, None).map(|instant| instant.to_string())
}

/// Compares a table, and lists every row that differs.
#[track_caller]
fn table(language: Option<&str>, rows: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    for (instant, spellings) in rows {
        for spelling in *spellings {
            let ours = parse(spelling, language).map(|instant| instant.to_string());
            if ours.as_deref() != Some(*instant).filter(|instant| !instant.is_empty()) {
                wrong.push(format!("{spelling:?}: {ours:?}, right is {instant:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[track_caller]
fn same(instant: &str, spellings: &[&str]) {
    table(None, &[(instant, spellings)]);
}

#[track_caller]
fn none(spellings: &[&str]) {
    table(None, &[("", spellings)]);
}

#[test]
fn one_instant_in_all_its_spellings() {
    same(
        "2021-09-06T12:00:00Z",
        &[
            "Mon, 06 Sep 2021 12:00:00 GMT",
            "Mon, 06 Sep 2021 12:00:00 +0000",
            "Mon, 6 Sep 21 12:00 UT",
            "Wed, 06 Sep 2021 12:00:00 Z",
            "Thurs, 06 Sep 2021 12:00:00 GMT",
            "6 September 2021 14:00 CEST",
            "Mon, 06 Sep 2021 13:00:00 CET",
            "Mon, 06 Sep 2021 08:00:00 EDT",
            "Mon, 06 Sept. 2021 12:00:00 PM",
            "Sep 6, 2021 12:00:00 PM",
            "Mon, 06-Sep-2021 12:00:00 GMT",
            "Mon, 06 Sep 2021 14:00:00 GMT+0200",
            "Mon Sep 06 2021 14:00:00 GMT+0200 (Central European Summer Time)",
            "Mon Sep  6 12:00:00 2021",
            "Mon Sep  6 14:00:00 CEST 2021",
            "Mon Sep 06 05:00:00 -0700 2021",
            "2021-09-06T12:00:00Z",
            "2021-09-06T04:00:00-0800",
            "2021-09-06T04:00:00-08:00",
            "2021-09-06T04:00-08",
            "2021-09-06 12:00:00",
            "2021-09-06T12:00Z",
            "2021-09-06 14:00:00 +0200",
            "20210906T120000Z",
            "20210906120000",
            "1630929600",
            "1630929600000",
            "06.09.2021 12:00",
            "06.09.2021, 12:00 Uhr",
            "2021/09/06 12:00:00",
            "9/6/2021 12:00:00 PM",
            "Mon, 06 Sep 2021 12:00:00 +0000 (UTC)",
            "Monday, September 6th, 2021 12:00 GMT",
            "2021-9-6T12:0:0Z",
            "Montag, 6. September 2021 12:00",
            "lun., 06 sept. 2021 12:00:00 +0000",
            "lundi 6 septembre 2021 12h00",
            "lunes, 6 de septiembre de 2021 12:00",
            "lun, 06 set 2021 12:00:00 GMT",
            "segunda, 6 de setembro de 2021 12:00",
            "2021-09-06T24:00:00+12:00",
            "2021-09-06 12:00:00.000 UTC",
        ],
    );
}

#[test]
fn months_in_six_languages() {
    same(
        "2021-03-09T00:00:00Z",
        &["9 mars 2021", "9. März 2021", "mar, 09 mar 2021", "9 marzo 2021", "9 de março de 2021"],
    );
    same(
        "2021-02-09T00:00:00Z",
        &["mar. 9 févr. 2021", "9 feb 2021", "9 Februar 2021", "mar, 9 feb 2021", "9 fev 2021"],
    );
    same(
        "2021-05-09T00:00:00Z",
        &["9 mai 2021", "9 mag 2021", "9 mayo 2021", "9 May 2021", "9 de maio de 2021"],
    );
    same("2021-08-09T00:00:00Z", &["9 août 2021", "9 ago 2021", "9 Aug. 2021", "9 agosto 2021"]);
    same(
        "2021-12-09T00:00:00Z",
        &["9 déc. 2021", "9 dic 2021", "9 Dez 2021", "9 dicembre 2021", "9 dezembro 2021"],
    );
    same(
        "2021-01-09T00:00:00Z",
        &["9 janv. 2021", "9 ene 2021", "9 gen 2021", "9 Jan 2021", "9 janeiro 2021"],
    );
    same(
        "2021-07-09T00:00:00Z",
        &["9 juil. 2021", "9 Juli 2021", "9 lug 2021", "9 julio 2021", "9 julho 2021"],
    );
}

#[test]
fn edges_of_the_calendar() {
    same("2021-09-07T00:00:00Z", &["2021-09-06T24:00:00Z", "2021-09-07", "20210907", "2021-250"]);
    same(
        "2017-01-01T00:00:00Z",
        &["2016-12-31T23:59:60Z", "Sat, 31 Dec 2016 23:59:60 GMT", "2017", "2017-01"],
    );
    same("2021-09-06T12:00:00.250Z", &["2021-09-06T12:00:00.25Z", "2021-09-06T12:00:00,250999999Z"]);
    same("2021-09-06T00:05:00Z", &["6 Sep 2021 12:05 AM", "6 Sep 2021 12:05 a.m.", "6 Sep 2021 0:05"]);
    same("1999-12-31T23:05:00Z", &["Fri, 31 Dec 99 23:05:00 GMT", "31 Dec 1999 11:05 p.m."]);
}

#[test]
fn a_text_that_is_not_a_date_is_none() {
    for text in [
        "",
        "   ",
        "yesterday",
        "never",
        "0",
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0000-00-00 00:00:00",
        "31 Feb 2021",
        "2021-13-01",
        "2021-09-06T25:00:00Z",
        "99999-01-01T00:00:00Z",
        "12:00",
        "Sep 2021",
        "+++",
        "1",
        "99999999999999999999999",
        "1601-01-01T00:00:00Z",
        "1 2 3 4 5 6 7 8",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
    assert_eq!(read(&"2021-09-06 ".repeat(10_000)), None);
}

#[test]
fn a_zone_by_name_is_applied() {
    same(
        "2004-01-26T21:31:00Z",
        &[
            "Mon, 26 Jan 2004 16:31:00 ET",
            "Mon, 26 January 2004 16:31:00 EST",
            "Mon, 26 Jan 2004 16:31:00 (EST)",
            "Mon, 26 Jan 2004 16:31:00 Eastern Standard Time",
            "Mon, 26 Jan 2004 16:31:00 (Eastern Standard Time)",
            "Mon, 26 Jan 2004 4:31 PM Eastern Time",
            "Mon, 26 Jan 2004 16:31:00 America/New_York",
            "Mon, 26 Jan 2004 16:31:00 america/indiana/indianapolis",
            "Mon, 26 Jan 2004 16:31:00 US/Eastern",
            "2004-01-26T16:31:00[America/New_York]",
            "2004-01-26T16:31:00-05:00[America/New_York]",
            "Mon, 26 Jan 2004 16:31:00 UTC-5",
            "Mon, 26 Jan 2004 16:31:00 UTC-05:00",
            "Mon, 26 Jan 2004 16:31:00 GMT-0500 (EST)",
            "Mon, 26 Jan 2004 16:31:00 -0500 EST",
            "Mon, 26 Jan 2004 16:31:00 EST-05:00",
            "Mon, 26 Jan 2004 16:31:00 Etc/GMT+5",
            "Mon, 26 Jan 2004 16:31:00 EST5EDT",
            "Mon, 26 Jan 2004 16:31:00 Jamaica",
            "Tue, 27 Jan 2004 06:31:00 JST",
            "Tue, 27 Jan 2004 06:31:00 Tokyo Standard Time",
            "Tue, 27 Jan 2004 08:31:00 AEDT",
            "Tue, 27 Jan 2004 08:31:00 AUS Eastern Standard Time",
            "Tue, 27 Jan 2004 10:31:00 NZDT",
            "Mon, 26 Jan 2004 22:31:00 MEZ",
            "Mon, 26 Jan 2004 22:31:00 Europe/Brussels",
            "Mon, 26 Jan 2004 22:31:00 W. Europe Standard Time",
            "Mon, 26 Jan 2004 22:31:00 Central European Standard Time",
            "Mon, 26 Jan 2004 22:31:00 Romance Standard Time",
            "Mon, 26 Jan 2004 23:31:00 EET",
            "Mon, 26 Jan 2004 23:31:00 FLE Standard Time",
            "Tue, 27 Jan 2004 00:31:00 MSK",
            "Tue, 27 Jan 2004 00:31:00 EEDT",
            "Tue, 27 Jan 2004 03:01:00 IST",
            "Tue, 27 Jan 2004 03:01:00 India Standard Time",
            "Tue, 27 Jan 2004 08:01:00 ACDT",
            "Mon, 26 Jan 2004 13:31:00 PT",
            "Mon, 26 Jan 2004 14:31:00 MT",
            "Mon, 26 Jan 2004 15:31:00 CT",
            "Mon, 26 Jan 2004 17:31:00 AT",
            "Mon, 26 Jan 2004 21:31:00 GMT Standard Time",
            "Mon, 26 Jan 2004 21:31:00 Greenwich Mean Time",
            "Mon, 26 Jan 2004 21:31:00 Etc/UTC",
            "Tue, 27 Jan 2004 00:31 МСК",
        ],
    );
}

#[test]
fn a_zone_whose_name_leaves_summer_open_has_its_summer_time() {
    same(
        "2004-07-26T20:31:00Z",
        &[
            "Mon, 26 Jul 2004 16:31:00 ET",
            "Mon, 26 Jul 2004 15:31:00 EST",
            "Mon, 26 Jul 2004 16:31:00 EDT",
            "Mon, 26 Jul 2004 16:31:00 America/New_York",
            "Mon, 26 Jul 2004 16:31:00 Eastern Daylight Time",
            "Mon, 26 Jul 2004 16:31:00 Eastern Time",
            "Mon, 26 Jul 2004 13:31:00 PT",
            "Mon, 26 Jul 2004 13:31:00 America/Los_Angeles",
            "Mon, 26 Jul 2004 22:31:00 Europe/Brussels",
            "Mon, 26 Jul 2004 22:31:00 W. Europe Standard Time",
            "Mon, 26 Jul 2004 22:31:00 CEST",
            "Mon, 26 Jul 2004 22:31:00 MESZ",
            "Mon, 26 Jul 2004 21:31:00 BST",
            "Mon, 26 Jul 2004 21:31:00 British Summer Time",
            "Mon, 26 Jul 2004 23:31:00 EEST",
            "Mon, 26 Jul 2004 22:31:00 GMT+0200 (MESZ)",
            "Mon, 26 Jul 2004 22:31:00 GMT+0200 (Mitteleuropäische Sommerzeit)",
        ],
    );
    // Of the hour that occurs twice, the first.
    same("2021-11-07T05:30:00Z", &["Sun, 7 Nov 2021 1:30 am ET"]);
}

#[test]
fn an_ambiguous_zone_is_that_of_the_feeds_language() {
    for (language, text) in [
        ("zh-CN", "Mon Jan 26 16:31:00 CST 2004"),
        ("en-us", "Mon, 26 Jan 2004 02:31:00 CST"),
        ("he", "26 Jan 2004 10:31 IST"),
        ("en-IE", "26 Jan 2004 09:31 IST"),
        ("en-in", "26 Jan 2004 14:01 IST"),
        ("bn", "26 Jan 2004 14:31 BST"),
        ("zhx", "26 Jan 2004 02:31 CST"),
        ("en-AU", "26 Jan 2004 19:31 EDT"),
    ] {
        table(Some(language), &[("2004-01-26T08:31:00Z", &[text])]);
    }
}

#[test]
fn a_zone_that_is_unknown_ambiguous_or_contradictory_is_not_utc() {
    none(&[
        "Mon, 26 Jan 2004 16:31:00 XYZ",
        "Mon, 26 Jan 2004 16:31:00 Local Time",
        "Mon, 26 Jan 2004 16:31:00 (local)",
        "Mon, 26 Jan 2004 16:31:00 Europe/Atlantis",
        "Mon, 26 Jan 2004 16:31:00 Arabian Standard Time",
        "Mon, 26 Jul 2004 16:31:00 Eastern Standard Time",
        "Mon, 26 Jan 2004 16:31:00 SST",
        "Mon, 26 Jan 2004 16:31:00 A",
        "Mon, 26 Jan 2004 16:31:00 PST +0100",
        "Mon, 26 Jan 2004 16:31:00 EST PST",
        "Sun, 14 Mar 2021 02:30:00 ET",
        "Mon, 06 Sep 2021 12:00:00 +9900",
        "Mon, 06 Sep 2021 12:00:00 +0275",
        "Mon, 06 Sep 2021 12:00:00 +1500",
        "Mon, 06 Sep 2021 12:00:00 -1300",
    ]);
}

#[test]
fn a_date_that_is_understood_in_part_is_none() {
    none(&[
        "2024-01-02T10:00:00Z+01:00",
        "2024-01-02 10:00:00 Z -0500",
        "2024-01-02T10:00:00+05:3",
        "2024-01-02T10:00:00+5:3",
        "2021-09-06 15:04 Dienstagnacht",
        "2021-09-06 15:04 at the",
        "2021-09-06 15:04 de",
        "2021-09-06 15:04 o",
        "2021-09-06 15:04 N",
        "2021-09-06T12:00:00Z and more",
        "2021-09-06T12:00:00+02:00 (",
        "2021-09-06 12:00:00 13:00:00",
        "2021-09-06 12:00:00.0 13:00:00.0 +0200",
        "6-8 Sep 2021",
        "2021-09-06 - 2021-09-08",
        "Sun, 16 Dec 2012 1:2:3:4 GMT",
        "Sun, 16 zzz 2012 11:47:32 GMT",
        "Sun, 16 Dec 2012 11:47:32 +zz:00",
        "Sun, 16 Dec 2012 11:47:32 +00:zz",
        "2013-01-27-01",
        "2013-01-28T11:30:00-06:00Textra",
        "2013-01-28T09:xx:00Z",
        "2013-01-28T09:00:00+00:xx",
        "2003-12-31T10:61:55Z",
        "2003-12-31T10:14:61Z",
        "2003-12-31T10:14:60Z",
        "2003-12-31T24:01:00Z",
        "2021-02-29",
        "31 April 2021",
        "2021-09-06T12:",
        "2021-09-",
        "Mon, 06 Sep 2021 12:",
        "2021-09-06T14:00:00 02:00",
        "2021-09-06-05:00",
        "-2021-09-06",
        "2021-09-06/2021-09-08",
        "2021-09-06T12:00:00 +020",
        "2021-09-06T12:00:00+01:00+02:00",
        "6 Sep 2021, 12:30 - 13:30",
        "6.9.2021 12.30-13.30",
        "2021年9月6日 下午",
        "2021年9月6日 25:04",
        "Mon, 06 Sep 2021 12:00:00 ET/PT",
        "6 Sep 2021 3:04 pm am",
        "6 Sep 2021 15:04 am",
        "6 Sep 2021 13:04 a. m.",
        "6 Sep 2021 3:04 in the afternoon",
    ]);
}

#[test]
fn a_date_with_two_readings_or_a_missing_part_is_none() {
    none(&[
        // Calendars with other years, and eras.
        "令和6年1月5日",
        "R6.1.5",
        "平成31年4月30日 12:00",
        "民國113年1月5日",
        "۱۵ شهریور ۱۴۰۰",
        "1402/10/15",
        // Years of two digits, and day or month first.
        "03/04/2005",
        "03-04-2005 12:00",
        "03/04/05",
        "03-12-31",
        "24.10.23",
        "Sep 6, 21",
        "6 Sep 55",
        "6 Sep 099",
        "2021090612",
        "202109061200",
        "10/01/02 3:04 PM",
        // DateParts missing.
        "2004-W05",
        "2004-W54-1",
        "2004-W05-8",
        "2021-366",
        "2021-000",
        "2021-09 12:00",
        "1月5日 15:04",
        "2024年1月",
        "24年1月5日",
        "6 Sep",
        "Sep 6 12:00",
    ]);
}

#[test]
fn forms_of_feedparser() {
    table(
        None,
        &[
            // feedparser: tests/test_date_parsers.py.
            ("2004-07-11T17:00:00Z", &["Κυρ, 11 Ιούλ 2004 12:00:00 EST"]),
            ("2004-07-13T14:15:00Z", &["2004-július-13T9:15-05:00"]),
            ("2004-05-25T23:23:17Z", &["2004-05-25 오후 11:23:17"]),
            ("2004-05-28T01:31:15Z", &["2004년 05월 28일  01:31:15"]),
            ("2006-09-15T12:19:53Z", &["Fri, 2006/09/15 08:19:53 EDT"]),
            ("2003-12-31T10:14:55.123Z", &["2003-12-31T10:14:55.1234Z"]),
            ("2015-04-30T07:57:00Z", &["Thu, 30 Apr 2015 08:57:00 MET"]),
            ("2015-04-30T06:57:00Z", &["Thu, 30 Apr 2015 08:57:00 MEST"]),
            ("2004-01-01T19:48:21Z", &["Thu, 01 Jan 04 19:48:21 GMT", "Thu, 01 Jan 2004 19:48:21 GMT"]),
            ("2009-08-19T18:28:00Z", &["Wed, 19 Aug 2009 18:28:00 Etc/GMT"]),
            (
                "2012-02-19T23:41:00Z",
                &["Wed, 19 Feb 2012 22:40:00 GMT-01:01", "Wed, 19 Feb 2012 22:40:00 -01:01"],
            ),
            ("2012-02-13T06:28:00Z", &["Mon, 13 Feb, 2012 06:28:00 UTC"]),
            ("2012-08-30T15:26:16Z", &["Thu Aug 30 2012 17:26:16 +0200"]),
            ("2012-07-15T01:16:00Z", &["Sun Jul 15 01:16:00 +0000 2012"]),
            ("2023-11-24T18:28:36Z", &["Fri,24 Nov 2023 18:28:36 -0000"]),
            ("2004-07-09T00:16:58Z", &["2004-07-08 23:56:58 -00:20"]),
            ("2004-07-08T23:56:58Z", &["2004-07-08 23:56:58.0"]),
            ("", &["Thu, 01 Jan 0100 00:00:01 +0100", "22013", "013", "-0312", "031231", "03335", "-03-12"]),
        ],
    );
}

#[test]
fn forms_of_miniflux() {
    table(
        None,
        &[
            // Miniflux: internal/reader/date.
            ("2017-12-17T18:55:00Z", &["Sun, 17 Dec 2017 1:55 PM EST"]),
            ("2017-12-22T15:09:00Z", &["Friday, December 22, 2017 - 3:09pm"]),
            ("2018-04-09T16:04:00Z", &["Mon, 09 Apr 2018, 16:04"]),
            ("2018-01-22T23:00:00Z", &["Di, 23 Jan 2018 00:00:00 +0100"]),
            ("2018-03-28T22:00:00Z", &["Do, 29 Mär 2018 00:00:00 +0200"]),
            ("2018-04-08T22:00:00Z", &["mer, 9 avr 2018 00:00:00 +0200"]),
            ("2020-03-30T19:02:38Z", &["March 30 2020 07:02:38 PM"]),
            ("2020-03-30T19:19:00Z", &["Mon, 03/30/2020 - 19:19"]),
            ("2020-11-08T21:20:00Z", &["2020-11-08T16:20:00-05:00Z", "2020-11-08T16:20:00-05:00:00"]),
            ("2020-11-16T10:57:00Z", &["Nov. 16, 2020, 10:57 a.m."]),
            ("2020-11-17T04:12:00Z", &["Mon, November 16, 2020, 11:12 PM EST"]),
            ("2020-11-16T15:54:00Z", &["Lundi, 16. Novembre 2020 - 15:54"]),
            // The weekday decides: Miniflux reads 4 November, which was a Wednesday.
            ("2020-04-11T07:51:49Z", &["Sat, 11 04 2020 08:51:49 +0100"]),
            ("2020-11-16T13:16:28Z", &["Mon, 16th Nov 2020 13:16:28 GMT"]),
            ("2020-06-26T00:00:00Z", &["Fri, 26/06/2020"]),
            (
                "2020-10-29T14:36:03Z",
                &["Thu, 29 Oct 2020 07:36:03 GMT-07:00", "Thu, 29 Oct 2020 07:36:03 --0700"],
            ),
            ("2020-12-01T16:11:02Z", &["mar., 01 déc. 2020 16:11:02 +0000"]),
            ("2020-11-19T00:00:39Z", &["Thur, 19 Nov 2020 00:00:39 +0000"]),
            ("2022-09-26T00:00:00Z", &["26 Sep 2022 GMT"]),
            ("2023-06-22T17:11:00Z", &["Thu, June 22, 2023 at 01:11 PM EDT"]),
            ("2014-09-16T00:20:00Z", &["09/15/2014 4:20 pm PST"]),
            ("2023-10-30T21:55:58Z", &["10/30/23 21:55:58"]),
            (
                "2006-01-02T22:04:05Z",
                &[
                    "Mon, 02 Jan 2006 15:04:05 MST-07:00",
                    "2006-01-02T15:04:05:-0700",
                    "15:04:05 02.01.2006 -0700",
                    "01/02/2006 15:04:05 MST",
                ],
            ),
            ("2006-01-02T07:00:00Z", &["02.01.2006 -0700"]),
            ("2006-01-02T15:04:05Z", &["2006-01-02 at 15:04:05", "Mon, 02 Jan 2006 15:04:05 00"]),
            (
                "",
                &[
                    "Nov. 2020",
                    "6/1/2 15:04",
                    "Mon, 2 Jan 15:04:05 MST",
                    "2006-01-02 00:00:00.0 15:04:05.0 -0700",
                ],
            ),
        ],
    );
}

#[test]
fn forms_of_iso_8601() {
    same(
        "2004-01-26T18:20:30Z",
        &[
            "20040126T192030+01:00",
            "20040126T182030Z",
            "2004-01-26T192030+01:00",
            "2004-W05-1T19:20:30+01:00",
            "2004W051T182030Z",
            "2004-026T18:20:30Z",
            "2004-01-26T18:20:30,000Z",
            "20040126182030Z",
        ],
    );
    same("2004-01-26T18:00:00Z", &["2004-01-26T19+01:00", "20040126T18Z", "2004-01-26T1800Z"]);
    same("2004-01-26T00:00:00Z", &["2004-W05-1", "2004W051", "2004-026", "2004-01-26Z", "20040126"]);
    same("2004-01-25T23:00:00Z", &["2004-01-26+01:00"]);
}

#[test]
fn halves_of_the_day() {
    same(
        "2024-01-05T15:04:00Z",
        &[
            "5 Jan 2024 3:04 PM",
            "05-JAN-24 03.04.00.000000 PM",
            "5 Jan 2024 3:04 p.m.",
            "5 de enero de 2024, 3:04 p. m.",
            "5 ene 2024 3:04 p.\u{a0}m.",
            "2024年1月5日 下午3:04",
            "2024年1月5日下午3:04:00",
            "2024/1/5 下午 3:04",
            "2024年1月5日 午後3時04分",
            "2024年1月5日(金) 15時04分",
            "2024년 1월 5일 오후 3:04",
            "2024년 1월 5일 금요일 오후 3시 4분",
            "2024. 1. 5. 오후 3:04",
            "2024. január 5. du. 3:04",
            "5 Ιανουαρίου 2024, 3:04 μ.μ.",
            "5 Ιαν 2024 03:04 ΜΜ",
            "5 يناير 2024 في 3:04 م",
            "٥ يناير ٢٠٢٤ ٣:٠٤ م",
            "5 Ocak 2024 ÖS 3:04",
            "5 tháng 1, 2024 lúc 3:04 CH",
            "5 januari 2024 3:04 em",
            "5. ledna 2024 3:04 odp.",
            "2024-01-05 15:04 PM",
            "5 Jan 2024 15:04 h",
        ],
    );
    same(
        "2024-01-05T00:04:00Z",
        &[
            "5 Jan 2024 12:04 AM",
            "12:04 am, 5 Jan 2024",
            "5 ene 2024 12:04 a. m.",
            "2024年1月5日 上午12:04",
            "2024년 1월 5일 오전 12:04",
            "2024年1月5日 午前0:04",
        ],
    );
    same(
        "2024-01-05T12:04:00Z",
        &[
            "5 Jan 2024 12:04 PM",
            "um 12:04 am 5. Januar 2024",
            "2024年1月5日 午後0:04",
            "5 يناير 2024 12:04 م",
        ],
    );
    same(
        "2024-01-05T03:04:00Z",
        &[
            "5 de enero de 2024, 3:04 a. m.",
            "5 Ιανουαρίου 2024 3:04 π.μ.",
            "5 يناير 2024 3:04 ص",
            "5 tháng 1 năm 2024 3:04 SA",
        ],
    );
    same(
        "2024-01-05T15:00:00Z",
        &["5 Jan 2024 3pm", "5 janvier 2024 à 15h", "5. Januar 2024, 15 Uhr", "2024年1月5日15時"],
    );
}

#[test]
fn dates_in_the_languages_of_the_catalogue() {
    table(
        None,
        &[(
            "2021-09-06T12:00:00Z",
            &[
                "Montag, den 6. September 2021 um 12:00 Uhr",
                "Mo, 06 Sep 2021 12:00:00",
                "lundi 6 septembre 2021 à 12h00",
                "lunes, 6 de septiembre de 2021 a las 12:00",
                "6 sept. 2021 12:00",
                "segunda-feira, 6 de setembro de 2021 às 12:00",
                "lunedì 6 settembre 2021 alle ore 12:00",
                "maandag 6 september 2021 om 12:00 uur",
                "måndag 6 september 2021 kl. 12.00",
                "mandag den 6. september 2021 kl. 12.00",
                "mandag 6. september 2021 kl. 12:00",
                "mánudagur 6. september 2021 kl. 12:00",
                "maanantai 6. syyskuuta 2021 klo 12.00",
                "poniedziałek, 6 września 2021, godz. 12:00",
                "6 wrz 2021 12:00",
                "pondělí 6. září 2021 v 12:00",
                "pondelok 6. septembra 2021 12:00",
                "2021. szeptember 6., hétfő 12:00",
                "2021. szept. 6. 12:00",
                "luni, 6 septembrie 2021, ora 12:00",
                "Δευτέρα, 6 Σεπτεμβρίου 2021 12:00",
                "ΔΕΥΤΕΡΑ, 6 ΣΕΠΤΕΜΒΡΙΟΣ 2021 12:00",
                "понедельник, 6 сентября 2021 г., 12:00",
                "Пн, 06 сен 2021 12:00:00 +0000",
                "понеділок, 6 вересня 2021 р. о 12:00",
                "6 Eylül 2021 Pazartesi 12:00",
                "6 EYLÜL 2021 12:00",
                "الاثنين، 6 سبتمبر 2021 12:00",
                "٦ أيلول ٢٠٢١ ١٢:٠٠",
                "6 شتنبر 2021 12:00",
                "6 أيلول/سبتمبر 2021 12:00",
                "יום שני, 6 בספטמבר 2021 בשעה 12:00",
                "دوشنبه ۶ سپتامبر ۲۰۲۱ ساعت ۱۲:۰۰",
                "۲۰۲۱-۰۹-۰۶ ۱۲:۰۰",
                "6 सितंबर 2021 12:00",
                "सोमवार, ६ सितंबर २०२१ १२:००",
                "সোমবার, ৬ সেপ্টেম্বর ২০২১ ১২:০০",
                "Thứ Hai, 6 tháng 9, 2021 12:00",
                "ngày 6 tháng 9 năm 2021 lúc 12:00",
                "06 Th9 2021 12:00",
                "Senin, 6 September 2021 pukul 12.00",
                "Senin, 6 September 2021 19.00 WIB",
                "Jumatatu, 6 Septemba 2021 12:00",
                "2021年9月6日 12:00",
                "6 九月 2021 12:00",
                "月, 06 9月 2021 21:00:00 +0900",
                "월, 06 9월 2021 21:00:00 +0900",
                "週一, 06 9月 2021 20:00:00 +0800",
                "2021年09月06日 星期一 12:00:00",
                "2021年9月6日（月）12:00",
                "2021/09/06(月) 12:00",
                "2021年9月6日 月曜日 12:00",
                "２０２１年９月６日１２時００分",
                "2021년 9월 6일 12:00",
                "2021년 9월 6일 (월) 12:00",
            ],
        )],
    );
}

#[test]
fn all_months_of_inflected_languages() {
    let months = [
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
        "січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня",
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
        "ledna února března dubna května června července srpna září října listopadu prosince",
        "januára februára marca apríla mája júna júla augusta septembra októbra novembra decembra",
        "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
        "tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta lokakuuta \
         marraskuuta joulukuuta",
        "január február március április május június július augusztus szeptember október november december",
        "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie noiembrie decembrie",
        "Ιανουαρίου Φεβρουαρίου Μαρτίου Απριλίου Μαΐου Ιουνίου Ιουλίου Αυγούστου Σεπτεμβρίου Οκτωβρίου Νοεμβρίου \
         Δεκεμβρίου",
        "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
        "كانون_الثاني شباط آذار نيسان أيار حزيران تموز آب أيلول تشرين_الأول تشرين_الثاني كانون_الأول",
        "ינואר פברואר מרץ אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר",
        "जनवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर",
    ];
    for names in months {
        assert_eq!(names.split_whitespace().count(), 12, "{names}");
        for (month, name) in (1..).zip(names.split_whitespace()) {
            same(&format!("2021-{month:02}-09T00:00:00Z"), &[&format!("9 {} 2021", name.replace('_', " "))]);
        }
    }
}

#[test]
fn all_short_months_as_systems_write_them() {
    let months = [
        (None, "led úno bře dub kvě čen čec srp zář říj lis pro"),
        (None, "led úno bře dub kvě čer čvc srp zář říj lis pro"),
        (None, "sty lut mar kwi maj cze lip sie wrz paź lis gru"),
        (None, "ian feb mar apr mai iun iul aug sep oct noi dec"),
        (None, "січ лют бер кві тра чер лип сер вер жов лис гру"),
        (None, "янв фев мар апр май июн июл авг сен окт ноя дек"),
        (None, "saus vas kov bal geg birž liep rugp rugs spal lapkr gruod"),
        (None, "Oca Şub Mar Nis May Haz Tem Ağu Eyl Eki Kas Ara"),
        (Some("hr-HR"), "sij velj ožu tra svi lip srp kol ruj lis stu pro"),
        (
            Some("hr"),
            "siječnja veljače ožujka travnja svibnja lipnja srpnja kolovoza rujna listopada studenoga prosinca",
        ),
    ];
    for (language, names) in months {
        assert_eq!(names.split(' ').count(), 12, "{names}");
        for (month, name) in (1..).zip(names.split(' ')) {
            table(language, &[(&format!("2021-{month:02}-09T00:00:00Z"), &[&format!("9 {name} 2021")])]);
        }
    }
}

#[test]
fn a_month_with_two_readings_is_that_of_the_feeds_language() {
    table(Some("hr"), &[("2021-07-09T00:00:00Z", &["pet, 09 srp 2021", "9. srpnja 2021."])]);
    table(Some("cs"), &[("2021-08-09T00:00:00Z", &["9 srp 2021"])]);
    table(Some("pl"), &[("2021-11-09T00:00:00Z", &["9 listopada 2021"])]);
    table(None, &[("2021-11-09T00:00:00Z", &["9 listopada 2021"])]);
}

#[test]
fn day_or_month_first_is_decided_by_day_weekday_language_or_country() {
    same("2005-04-13T00:00:00Z", &["13/04/2005", "04/13/2005", "13-04-2005", "13.04.2005"]);
    same("2005-04-03T00:00:00Z", &["03.04.2005", "Sun, 03/04/2005"]);
    same("2005-03-04T00:00:00Z", &["Fri, 03/04/2005"]);
    same("2005-04-04T00:00:00Z", &["04/04/2005"]);
    same("2005-03-04T15:04:00Z", &["03/04/2005 3:04 PM"]);
    none(&["3/04/2005 3:04 PM", "03/04/2005 3:04 pm", "04.13.2005"]);
    for language in ["de", "fr-FR", "en-GB", "en_au", "pt-BR"] {
        table(
            Some(language),
            &[("2005-04-03T00:00:00Z", &["03/04/2005", "03-04-2005", "03/04/05", "3.4.05"])],
        );
    }
    table(Some("en-us"), &[("2005-03-04T00:00:00Z", &["03/04/2005", "03/04/05"])]);
    table(Some("en"), &[("", &["03/04/2005"])]);
    table(Some("ja"), &[("", &["03/04/2005"]), ("2005-03-04T00:00:00Z", &["2005/03/04"])]);
    assert_eq!(day_order(""), None);
}

#[test]
fn years_of_the_buddhist_era_are_those_of_a_thai_feed() {
    let spellings = ["Mon, 05 Jul 2547 10:00:00 +0700", "2547-07-05T10:00:00+07:00", "2004-07-05T03:00:00Z"];
    table(Some("th"), &[("2004-07-05T03:00:00Z", &spellings)]);
    table(Some("th-TH"), &[("2024-02-29T00:00:00Z", &["2567-02-29"]), ("", &["2562-02-29"])]);
    table(Some("en"), &[("2547-07-05T03:00:00Z", &["2547-07-05T03:00:00Z"])]);
}

#[test]
fn far_years_stay_as_they_are() {
    same("9999-12-31T23:59:59Z", &["9999-12-31T23:59:59Z", "Fri, 31 Dec 9999 23:59:59 GMT"]);
    none(&["0001-01-01T00:00:00Z", "Mon, 01 Jan 0001 00:00:00 GMT", "Sun, 31 Dec 9999 23:59:59 -9999"]);
}

#[test]
fn the_fast_forms_agree_with_the_grammar() {
    for text in [
        "2021-09-06T12:00:00Z",
        "2021-09-06t12:00:00.5z",
        "2021-09-06 12:00:00.123456789+02:00",
        "2021-09-06T12:00:00-0830",
        "Mon, 06 Sep 2021 12:00:00 GMT",
        "Mon, 6 Sep 2021 12:00:00 +0200",
        "06 Sep 2021 12:00:00 Z",
    ] {
        let fast = exact::instant_ms(text);
        assert!(fast.is_some(), "{text}");
        assert_eq!(fast, grammar::instant_ms(&fold(text), "", None, false), "{text}");
    }
}

#[test]
fn every_name_of_a_zone_is_known() {
    assert!(windows::zone("w. europe standard time").is_some());
    for name in
        ["america/los_angeles", "europe/kiev", "europe/kyiv", "asia/calcutta", "america/port-au-prince"]
    {
        assert!(zones::iana(name).is_some(), "{name}");
    }
}

#[test]
fn every_text_of_a_date_ends() {
    let pieces = [
        "5", "2021", "-", "+", ":", "t", "pm", "(", ")", " ", ".", "/", "jan", "年", "오", "w", "gmt", "th",
        "de", "a",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let text: String = (0..random.usize(1..16)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let _ = read(&text);
        let _ = words::meaning(&text);
    }
}
