//! The metrics of several daemons as one text, in which each series names its daemon.

use std::collections::BTreeMap;

/// The lines of one metric.
#[derive(Default)]
struct MetricLines {
    /// `# HELP`, `# TYPE` and `# UNIT`, of the first daemon that has the metric.
    head: String,
    series: String,
}

/// Joins the texts of several daemons: each metric is described once, and its series have the label `daemon`.
pub(super) fn join_with_names<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut metrics = BTreeMap::<String, MetricLines>::new();
    for (daemon, text) in texts {
        add(&mut metrics, daemon, text);
    }
    let mut joined = String::new();
    for MetricLines { head, series } in metrics.into_values() {
        joined.push_str(&head);
        joined.push_str(&series);
    }
    joined
}

fn add(metrics: &mut BTreeMap<String, MetricLines>, daemon: &str, text: &str) {
    let label = format!("daemon=\"{}\"", escaped(daemon));
    let mut name = String::new();
    // Whether an earlier daemon has described the metric.
    let mut is_described = false;
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let Some(of) = comment.split(' ').nth(1) else { continue };
            if of != name {
                of.clone_into(&mut name);
                is_described = metrics.contains_key(of);
            }
            if !is_described {
                let head = &mut metrics.entry(name.clone()).or_default().head;
                head.push_str(line);
                head.push('\n');
            }
            continue;
        }
        let Some(end) = line.find(['{', ' ']) else { continue };
        let (series, rest) = line.split_at(end);
        let lines = &mut metrics.entry(name.clone()).or_default().series;
        match rest.strip_prefix('{') {
            Some(labels) if labels.starts_with('}') => {
                lines.push_str(&format!("{series}{{{label}{labels}\n"));
            }
            Some(labels) => lines.push_str(&format!("{series}{{{label},{labels}\n")),
            None => lines.push_str(&format!("{series}{{{label}}}{rest}\n")),
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_described_once_and_each_series_names_its_daemon() {
        let one = "# HELP a_seconds How long\n# TYPE a_seconds histogram\na_seconds_sum 1.5\na_seconds_bucket{le=\"1\"} 2\n\
                   # HELP b B\n# TYPE b gauge\nb{} 1\n# EOF\n";
        let other = "# HELP b B, in words of another version\n# TYPE b gauge\nb 7\n# HELP c C\n# TYPE c counter\nc_total 3\n# EOF\n";
        assert_eq!(
            join_with_names([("k3v9q2", one), ("x\"y", other)]),
            "# HELP a_seconds How long\n# TYPE a_seconds histogram\na_seconds_sum{daemon=\"k3v9q2\"} 1.5\n\
             a_seconds_bucket{daemon=\"k3v9q2\",le=\"1\"} 2\n# HELP b B\n# TYPE b gauge\nb{daemon=\"k3v9q2\"} 1\n\
             b{daemon=\"x\\\"y\"} 7\n# HELP c C\n# TYPE c counter\nc_total{daemon=\"x\\\"y\"} 3\n"
        );
    }
}
