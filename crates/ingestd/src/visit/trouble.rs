//! What failed at a visit, for what is concluded from many of them: see [`FeedTrouble`].

use std::time::Duration;

use control::watch::FeedTrouble;
use fetch::{FailedAt, FailureClass, FetchReport, FetchResult};
use news::VisitStatus;

/// A lookup that failed after so long got no answer: libc waits 5 s for each of its attempts (resolv.conf(5)). Its error has no
/// code that would tell.
const UNANSWERED: Duration = Duration::from_secs(4);

/// `class` is that of the visit, whether its request failed or its document. `None` if the visit succeeded.
pub(super) fn trouble(
    report: &FetchReport,
    class: Option<FailureClass>,
    status: VisitStatus,
) -> Option<FeedTrouble> {
    if status.is_healthy() {
        return None;
    }
    let Some(class) = class else { return Some(FeedTrouble::Internal) };
    let at = match &report.answer {
        FetchResult::Failed(failure) => failure.at,
        _ => FailedAt::Answer,
    };
    Some(match (class, at) {
        (_, FailedAt::Proxy) => FeedTrouble::Proxy,
        (_, FailedAt::Lookup) => FeedTrouble::DnsTimeout,
        (FailureClass::Timeout, FailedAt::Connection) => FeedTrouble::ConnectTimeout,
        (FailureClass::Timeout, FailedAt::Answer) => FeedTrouble::Timeout,
        (FailureClass::Dns, _) if report.timings.dns >= UNANSWERED => FeedTrouble::DnsTimeout,
        (FailureClass::Dns, _) => FeedTrouble::Dns,
        (FailureClass::Connect, _) => FeedTrouble::Connect,
        (FailureClass::Tls, _) => FeedTrouble::Tls,
        (FailureClass::HttpStatus, _) => of_status(report.code),
        (FailureClass::BlockedAddress, _) => FeedTrouble::BlockedAddress,
        (FailureClass::BadUrl, _) => FeedTrouble::Configuration,
        (FailureClass::NotAFeed | FailureClass::TooComplex, _) => FeedTrouble::NotAFeed,
        (
            FailureClass::Redirect
            | FailureClass::BadHttp
            | FailureClass::BadEncoding
            | FailureClass::Truncated
            | FailureClass::TooLarge,
            _,
        ) => FeedTrouble::BadResponse,
    })
}

fn of_status(code: Option<u16>) -> FeedTrouble {
    match code {
        Some(429 | 503) => FeedTrouble::Throttled,
        Some(401 | 403 | 451) => FeedTrouble::Refused,
        Some(407) => FeedTrouble::Proxy,
        _ => FeedTrouble::HttpStatus,
    }
}

#[cfg(test)]
mod tests {
    use fetch::Failure;

    use super::*;

    fn of(answer: FetchResult, code: Option<u16>, class: FailureClass) -> Option<FeedTrouble> {
        let report = FetchReport { code, ..FetchReport::of(answer) };
        trouble(&report, Some(class), VisitStatus::Error)
    }

    #[test]
    fn a_time_limit_blames_the_part_that_it_ended() {
        let at = |at| {
            let failure = Failure { at, ..Failure::new(FailureClass::Timeout, "late") };
            of(FetchResult::Failed(failure), None, FailureClass::Timeout)
        };
        assert_eq!(at(FailedAt::Lookup), Some(FeedTrouble::DnsTimeout));
        assert_eq!(at(FailedAt::Connection), Some(FeedTrouble::ConnectTimeout));
        assert_eq!(at(FailedAt::Proxy), Some(FeedTrouble::Proxy));
        assert_eq!(at(FailedAt::Answer), Some(FeedTrouble::Timeout));
    }

    #[test]
    fn a_lookup_that_fails_late_got_no_answer() {
        let after = |seconds| {
            let failed = FetchResult::Failed(Failure::new(FailureClass::Dns, "no address"));
            let mut report = FetchReport::of(failed);
            report.timings.dns = Duration::from_secs(seconds);
            trouble(&report, Some(FailureClass::Dns), VisitStatus::Error)
        };
        assert_eq!([after(0), after(10)], [Some(FeedTrouble::Dns), Some(FeedTrouble::DnsTimeout)]);
    }

    #[test]
    fn statuses_tell_who_refuses_and_a_success_is_no_trouble() {
        let status = |code| {
            let failed = FetchResult::Failed(Failure::new(FailureClass::HttpStatus, "refused"));
            of(failed, Some(code), FailureClass::HttpStatus)
        };
        let expected = [
            (403, FeedTrouble::Refused),
            (429, FeedTrouble::Throttled),
            (407, FeedTrouble::Proxy),
            (404, FeedTrouble::HttpStatus),
            (500, FeedTrouble::HttpStatus),
        ];
        for (code, trouble) in expected {
            assert_eq!(status(code), Some(trouble), "{code}");
        }
        let report = FetchReport::of(FetchResult::NotModified { etag: None, last_modified: None });
        assert_eq!(trouble(&report, None, VisitStatus::Unchanged), None);
        assert_eq!(trouble(&report, None, VisitStatus::Error), Some(FeedTrouble::Internal), "a panic");
    }
}
