//! The two text formats of metrics, and which of them a client gets.

use std::fmt::Write as _;

use actix_web::http::header::HeaderMap;

use super::{CONTENT_TYPE, END_MARKER};
use crate::accept::AcceptedTypes;

/// The media type of the Prometheus text format, version 0.0.4.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The format in which metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// The older one, which every tool reads (`promtool check metrics`, `curl`):
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
    Prometheus,
    /// What Prometheus asks for: <https://prometheus.io/docs/specs/om/open_metrics_spec/>
    OpenMetrics,
}

impl MetricsFormat {
    /// OpenMetrics for a client that prefers it, and the Prometheus format for every other, as the exporters of
    /// Prometheus' own library answer.
    #[must_use]
    pub fn negotiated(headers: &HeaderMap) -> Self {
        let accepted = AcceptedTypes::of(headers);
        if accepted.acceptance(CONTENT_TYPE) > accepted.acceptance(PROMETHEUS_TEXT) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => PROMETHEUS_TEXT,
            Self::OpenMetrics => CONTENT_TYPE,
        }
    }

    /// Metrics that were encoded as OpenMetrics, in this format.
    #[must_use]
    pub fn of_openmetrics(self, text: String) -> String {
        match self {
            Self::Prometheus => prometheus_text(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// Samples are the same in both formats, as long as there are no exemplars and no timestamps, which this program never
/// writes. Different are the lines that describe them: a family is named as its samples are, there is no type `info` or
/// `unknown`, no unit and no end marker.
fn prometheus_text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    // The help of a family precedes its type, which decides its name.
    let mut help = None;
    for line in openmetrics.split_inclusive('\n').filter(|line| *line != END_MARKER) {
        let Some(comment) = line.strip_prefix("# ") else {
            out.push_str(line);
            continue;
        };
        if let Some(described) = comment.strip_prefix("HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) =
            comment.strip_prefix("TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let (suffix, kind) = match kind.trim_end() {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(described, _)| *described == name) {
                write!(out, "# HELP {name}{suffix} {text}").expect(STRING);
            }
            writeln!(out, "# TYPE {name}{suffix} {kind}").expect(STRING);
        }
    }
    out
}

const STRING: &str = "a String takes every write";

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;

    use super::*;
    use crate::metrics::MetricsRegistry;

    #[test]
    fn a_client_gets_openmetrics_if_it_asks_for_it_and_the_prometheus_format_otherwise() {
        let format = |accept: Option<&'static str>| {
            let request =
                accept.into_iter().fold(TestRequest::default(), |r, a| r.append_header(("accept", a)));
            MetricsFormat::negotiated(request.to_http_request().headers())
        };
        // Prometheus 2.42 and 3.4, and someone who names it.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "text/html, application/*",
            "text/plain;q=0, */*",
        ] {
            assert_eq!(format(Some(accept)), MetricsFormat::OpenMetrics, "{accept}");
        }
        // vmagent, telegraf, curl, browsers.
        for accept in [
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
             text/plain;version=0.0.4;q=0.3",
            "text/plain",
            "*/*",
            "",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2, text/plain;q=0.9",
            "application/json",
        ] {
            assert_eq!(format(Some(accept)), MetricsFormat::Prometheus, "{accept}");
        }
        assert_eq!(format(None), MetricsFormat::Prometheus);
    }

    #[test]
    fn the_prometheus_format_names_a_family_as_its_samples_and_has_the_same_samples() {
        let metrics = MetricsRegistry::new();
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        metrics.register("newswire_test_visits_total", "Visits made", counter);
        metrics.register("newswire_test_feeds", "Feeds, TYPE and HELP", Gauge::<i64>::default());
        metrics.register("newswire_test_wait_seconds", "Waits", Histogram::new([0.5]));
        metrics.register("newswire_test_build", "Build", Info::new([("version", "1 # EOF")]));
        let openmetrics = metrics.encode();
        let text = MetricsFormat::Prometheus.of_openmetrics(openmetrics.clone());
        for family in [
            "# HELP newswire_test_visits_total Visits made.\n# TYPE newswire_test_visits_total counter\n\
             newswire_test_visits_total 3\n",
            "# HELP newswire_test_feeds Feeds, TYPE and HELP.\n# TYPE newswire_test_feeds gauge\n\
             newswire_test_feeds 0\n",
            "# TYPE newswire_test_wait_seconds histogram\n",
            "# TYPE newswire_test_build_info gauge\nnewswire_test_build_info{version=\"1 # EOF\"} 1\n",
        ] {
            assert!(text.contains(family), "{family:?} in\n{text}");
        }
        let samples =
            |text: &str| text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&text), samples(&openmetrics));
        assert!(!text.contains("# EOF\n") && !text.contains("# UNIT"), "{text}");
        assert_eq!(MetricsFormat::OpenMetrics.of_openmetrics(openmetrics.clone()), openmetrics);
    }
}
