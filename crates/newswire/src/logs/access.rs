//! Lines of access logs: the combined and common formats of nginx, Apache and others.

use news::Timestamp;
use reqwest::StatusCode;

use super::{severity::Severity, stamp};

/// One request and its answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AccessEntry {
    pub(super) time: Timestamp,
    pub(super) level: Option<Severity>,
    /// `GET /news: 502 Bad Gateway`
    pub(super) text: String,
}

/// `10.0.0.7 - user [25/Nov/2026:19:00:00 +0000] "GET /news?a=b HTTP/1.1" 502 157 "-" "curl/8"`. `None` for other lines. An
/// answer of 5xx is an error, of 4xx a warning. The text has neither the query nor the client, so that the same route with
/// the same status is one group.
pub(super) fn parse(line: &str) -> Option<AccessEntry> {
    let (client, rest) = line.split_once(" [")?;
    let (time, rest) = rest.split_once("] \"")?;
    let time = stamp::access_time(time)?;
    let (request, rest) = rest.split_once("\" ")?;
    let status: u16 = rest.split(' ').next()?.parse().ok()?;
    if client.split(' ').count() < 3 || !(100..600).contains(&status) {
        return None;
    }
    let level = match status {
        500.. => Some(Severity::Error),
        400.. => Some(Severity::Warn),
        _ => None,
    };
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    // In words, because numbers are replaced when lines are grouped.
    let reason =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let text = format!("{method} {path}: {status} {reason}");
    Some(AccessEntry { time, level, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_level_of_its_status() {
        let line = |status: &str| {
            format!(
                r#"10.0.0.7 - - [25/Nov/2026:19:00:00 +0100] "GET /news?token=x HTTP/1.1" {status} 157 "-" "curl/8""#
            )
        };
        let found = parse(&line("502")).unwrap();
        assert_eq!(found.level, Some(Severity::Error));
        assert_eq!(found.text, "GET /news: 502 Bad Gateway");
        assert_eq!(found.time, "2026-11-25T18:00:00Z".parse().unwrap());
        assert_eq!(parse(&line("404")).unwrap().level, Some(Severity::Warn));
        assert_eq!(parse(&line("200")).unwrap().level, None);
        assert_eq!(parse(&line("x")), None);
        assert_eq!(parse("[warning] 12#12: a buffered response"), None);
    }
}
