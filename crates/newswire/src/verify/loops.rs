//! Checks whether an event loop of either process is blocked, by asking their watchdogs, which do not run on these loops.

use control::{ControlClient, ControlSocket, WatchReport, paths, watch::ProgressReport};
use daemon::config::Config;
use serde_json::json;

use super::report::CheckResult;

const NAME: &str = "no-loop-blocked";
const UNKNOWN_LOCATION: &str = "location unknown";

/// The reports of the watchdogs of both processes at one moment.
pub(super) struct WatchdogReports([(&'static str, WatchAnswer); 2]);

enum WatchAnswer {
    /// No process listens, or its report is unreadable.
    Unavailable(String),
    /// A process accepts connections and does not answer.
    Stuck(String),
    Watch(Box<WatchReport>),
}

impl WatchdogReports {
    pub(super) async fn fetch(config: &Config) -> Self {
        let (gateway, ingestd) = tokio::join!(
            query(ControlSocket::GatewayAdmin, config),
            query(ControlSocket::IngestdAdmin, config)
        );
        Self([("gateway", gateway), ("ingestd", ingestd)])
    }

    /// The check: no loop is stalled now or was stalled between the two reports.
    /// `is_of_config` is whether the configuration is that of the gateway: the loops of another one cannot be seen.
    pub(super) fn compare(&self, after: &Self, is_of_config: bool) -> CheckResult {
        let (mut stuck, mut unseen, mut figures) = (Vec::new(), Vec::new(), json!({}));
        for ((process, before), (_, after)) in self.0.iter().zip(&after.0) {
            match after {
                WatchAnswer::Unavailable(why) => unseen.push(format!("{process}: {why}")),
                WatchAnswer::Stuck(why) => stuck.push(format!("{process}: {why}")),
                WatchAnswer::Watch(watch) => {
                    let watch = &watch.progress;
                    stuck.extend(stalled(watch).map(|which| format!("{process}: {which}")));
                    let total = watch.stalls_total;
                    let earlier = match before {
                        WatchAnswer::Watch(before) => before.progress.stalls_total,
                        _ => total,
                    };
                    if total > earlier {
                        let newest = watch.stalls.first();
                        stuck.push(format!(
                            "{process}: {} stalls meanwhile, the newest in {} ({})",
                            total - earlier,
                            newest.map_or("?", |stall| &stall.name),
                            newest.and_then(|stall| stall.culprit.as_deref()).unwrap_or(UNKNOWN_LOCATION),
                        ));
                    }
                    let lag = watch.loops.iter().map(|l| l.lag_ms_max).max();
                    figures[format!("{process}_loops")] = json!(watch.loops.len());
                    figures[format!("{process}_lag_ms_max")] = json!(lag);
                    figures[format!("{process}_stalls")] = json!([earlier, total]);
                }
            }
        }
        if !stuck.is_empty() {
            CheckResult::failed(NAME, stuck.join("; "), figures)
        } else if !unseen.is_empty() && is_of_config {
            CheckResult::skipped(NAME, unseen.join("; "))
        } else if !unseen.is_empty() {
            CheckResult::not_applicable(NAME, unseen.join("; "))
        } else {
            CheckResult::passed(NAME, figures)
        }
    }
}

/// The stalled loops, with the function that blocks each.
fn stalled(watch: &ProgressReport) -> impl Iterator<Item = String> {
    watch.loops.iter().filter(|l| l.stalled).map(|l| {
        let stall = watch.stalls.iter().find(|stall| stall.name == l.name);
        let culprit = stall.and_then(|stall| stall.culprit.as_deref()).unwrap_or(UNKNOWN_LOCATION);
        format!("{} has been blocked for {} ms ({culprit})", l.name, l.beat_ms_ago)
    })
}

async fn query(socket: ControlSocket, config: &Config) -> WatchAnswer {
    match ControlClient::new(config.socket(socket)).get(paths::WATCH).await {
        Ok(watch) => WatchAnswer::Watch(Box::new(watch)),
        Err(error) if error.is_timeout() => WatchAnswer::Stuck(format!("{error}; is its process stopped?")),
        Err(error) => WatchAnswer::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::report::CheckOutcome;

    fn loops(stalled: bool, total: u64) -> WatchdogReports {
        let watch = json!({
            "name": "testd", "version": "1", "pid": 1, "uptime_ms": 1, "vitals": null,
            "loops": [{"name": "worker-0", "kind": "worker", "tid": 2, "beat_ms_ago": 40, "lag_ms": 0,
                       "lag_ms_max": 3, "stalled": stalled, "work": null}],
            "threads": [],
            "stalls": [{"loop": "worker-0", "kind": "worker", "tid": 2, "began_ms_ago": 40, "lasted_ms": null,
                        "work": null, "culprit": "gateway::x at x.rs:1"}],
            "stalls_total": total,
            "clock": {"jumps": 0},
            "pauses": {"count": 0},
        });
        let watch: WatchReport = serde_json::from_value(watch).unwrap();
        WatchdogReports([
            ("gateway", WatchAnswer::Watch(Box::new(watch.clone()))),
            ("ingestd", WatchAnswer::Watch(Box::new(watch))),
        ])
    }

    #[test]
    fn a_stall_is_found_while_it_lasts_and_afterwards() {
        let outcome =
            |before: &WatchdogReports, after: &WatchdogReports| before.compare(after, true).outcome();
        assert_eq!(outcome(&loops(false, 1), &loops(false, 1)), CheckOutcome::Passed);
        assert_eq!(outcome(&loops(false, 1), &loops(false, 2)), CheckOutcome::Failed);
        assert_eq!(outcome(&loops(false, 1), &loops(true, 1)), CheckOutcome::Failed);
        let absent = || WatchAnswer::Unavailable("no such file".to_owned());
        let unseen = WatchdogReports([("gateway", absent()), ("ingestd", absent())]);
        assert_eq!(outcome(&loops(false, 1), &unseen), CheckOutcome::Skipped);
        let stuck =
            WatchdogReports([("gateway", WatchAnswer::Stuck("silent".to_owned())), ("ingestd", absent())]);
        assert_eq!(outcome(&unseen, &stuck), CheckOutcome::Failed);
    }
}
