//! The table of all metrics, `deploy/prometheus/METRICS.md`, generated from what both daemons export.

use std::fmt::Write as _;

use crate::live::{Family, Live};

/// Labels whose values depend on machine or version, and what the table shows instead.
const OPEN: [(&str, &str); 3] =
    [("loop", "the name of a loop"), ("worker", "the number of a worker"), ("version", "such as 0.1.0")];

/// Sections of the table.
const PARTS: [(&str, &str); 2] = [
    ("gateway", "The gateway: clients, the wire, its process"),
    ("ingestd", "The ingestion daemon: feeds, store, wire, its process"),
];

pub(crate) fn render(live: &Live) -> String {
    let mut out = String::from(
        "# The metrics of newswire\n\n\
         Generated from what the running daemons export; a test compares the two, and writes this file if `BLESS=1` is set:\n\
         `BLESS=1 cargo nextest run -p e2e --test dashboard`. `GET /metrics` of the gateway has all of it, the admin socket of\n\
         each daemon its own. No label is a source, a host or a client: 100,000 sources make as many series as one.\n\
         A counter restarts at zero with its process, as `process_start_time_seconds` shows.\n",
    );
    for (part, title) in PARTS {
        write!(out, "\n## {title}\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n")
            .expect("a String takes it");
        let prefix = format!("newswire_{part}_");
        for (name, family) in live.families.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            let (kind, unit, labels) = (&family.kind, unit(name), labels(family));
            writeln!(
                out,
                "| `{name}` | {kind} | {unit} | {labels} | {} |",
                family.help.trim_end_matches('.')
            )
            .expect("a String takes it");
        }
    }
    out
}

fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let name = name.strip_suffix("_max").unwrap_or(name);
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "bytes"
    } else {
        ""
    }
}

fn labels(family: &Family) -> String {
    let shown =
        family.labels.iter().map(|(label, values)| match OPEN.iter().find(|(open, _)| open == label) {
            Some((_, words)) => format!("`{label}`: {words}"),
            None => format!("`{label}`: {}", values.iter().cloned().collect::<Vec<_>>().join(", ")),
        });
    shown.collect::<Vec<_>>().join("; ")
}
