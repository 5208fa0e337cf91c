//! Checks whether an event loop of either process is blocked, by asking their watchdogs, which do not run on these loops.

use std::{path::PathBuf, time::Duration};

use daemon::config::Config;
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};
use wire::{ClientError, Endpoint, PeerClient};

use super::report::CheckResult;

const NAME: &str = "no-loop-blocked";
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The reports of the watchdogs of both processes at one moment.
pub(super) struct WatchdogReports([(&'static str, WatchAnswer); 2]);

enum WatchAnswer {
    /// No process listens.
    Absent(String),
    /// A process accepts connections and does not answer.
    Stuck(String),
    Watch(Value),
}

impl WatchdogReports {
    pub(super) async fn fetch(config: &Config) -> Self {
        let socket = |process: &str| config.daemon.run_dir.join(format!("{process}-admin.sock"));
        Self([("gateway", ask(socket("gateway")).await), ("ingestd", ask(socket("ingestd")).await)])
    }

    /// The check: no loop is stalled now or was stalled between the two reports.
    pub(super) fn compare(&self, after: &Self) -> CheckResult {
        let (mut stuck, mut unseen, mut figures) = (Vec::new(), Vec::new(), json!({}));
        for ((process, before), (_, after)) in self.0.iter().zip(&after.0) {
            match after {
                WatchAnswer::Absent(why) => unseen.push(format!("{process}: {why}")),
                WatchAnswer::Stuck(why) => stuck.push(format!("{process}: {why}")),
                WatchAnswer::Watch(watch) => {
                    stuck.extend(stalled(watch).map(|which| format!("{process}: {which}")));
                    let total = watch["stalls_total"].as_u64().unwrap_or(0);
                    let earlier = match before {
                        WatchAnswer::Watch(before) => before["stalls_total"].as_u64().unwrap_or(0),
                        _ => total,
                    };
                    if total > earlier {
                        let newest = &watch["stalls"][0];
                        stuck.push(format!(
                            "{process}: {} stalls meanwhile, the newest in {} ({})",
                            total - earlier,
                            newest["loop"].as_str().unwrap_or("?"),
                            newest["culprit"].as_str().unwrap_or("location unknown"),
                        ));
                    }
                    let loops = watch["loops"].as_array();
                    let lag = loops.into_iter().flatten().filter_map(|l| l["lag_ms_max"].as_u64()).max();
                    figures[format!("{process}_loops")] = json!(loops.map_or(0, Vec::len));
                    figures[format!("{process}_lag_ms_max")] = json!(lag);
                    figures[format!("{process}_stalls")] = json!([earlier, total]);
                }
            }
        }
        if !stuck.is_empty() {
            CheckResult::failed(NAME, stuck.join("; "), figures)
        } else if !unseen.is_empty() {
            CheckResult::skipped(NAME, unseen.join("; "))
        } else {
            CheckResult::passed(NAME, figures)
        }
    }
}

/// The stalled loops, with the function that blocks each.
fn stalled(watch: &Value) -> impl Iterator<Item = String> {
    let stalled = watch["loops"].as_array().into_iter().flatten().filter(|l| l["stalled"] == true);
    stalled.map(|l| {
        let name = l["name"].as_str().unwrap_or("?");
        let stall = watch["stalls"].as_array().into_iter().flatten().find(|stall| stall["loop"] == l["name"]);
        let culprit = stall.and_then(|stall| stall["culprit"].as_str()).unwrap_or("location unknown");
        format!("{name} has been blocked for {} ms ({culprit})", l["beat_ms_ago"])
    })
}

async fn ask(socket: PathBuf) -> WatchAnswer {
    let name = socket.display().to_string();
    match timeout(ANSWER_WITHIN, UnixStream::connect(&socket)).await {
        Ok(Ok(connection)) => drop(connection),
        Ok(Err(error)) => return WatchAnswer::Absent(format!("cannot connect to {name}: {error}")),
        // Connecting to a Unix socket waits only if its queue is full.
        Err(_) => return WatchAnswer::Stuck(format!("{name} accepts no connections")),
    }
    let peer = match PeerClient::try_new(Endpoint::Socket(socket)) {
        Ok(peer) => peer,
        Err(error) => return WatchAnswer::Absent(error.to_string()),
    };
    match peer.get("/watch", ANSWER_WITHIN, ANSWER_BYTES_MAX).await {
        Ok(answer) => match serde_json::from_slice(&answer) {
            Ok(watch) => WatchAnswer::Watch(watch),
            Err(_) => WatchAnswer::Absent(format!("the answer of {name} to /watch is not JSON")),
        },
        Err(ClientError::Unreachable(..)) => WatchAnswer::Stuck(format!(
            "{name} accepts connections but did not answer within {ANSWER_WITHIN:?}; is its process stopped?"
        )),
        Err(error) => WatchAnswer::Absent(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::report::CheckOutcome;

    fn loops(stalled: bool, total: u64) -> WatchdogReports {
        let watch = json!({
            "loops": [{"name": "worker-0", "beat_ms_ago": 40, "lag_ms_max": 3, "stalled": stalled}],
            "stalls": [{"loop": "worker-0", "culprit": "gateway::x at x.rs:1"}],
            "stalls_total": total,
        });
        WatchdogReports([
            ("gateway", WatchAnswer::Watch(watch.clone())),
            ("ingestd", WatchAnswer::Watch(watch)),
        ])
    }

    #[test]
    fn a_stall_is_found_while_it_lasts_and_afterwards() {
        let outcome = |before: &WatchdogReports, after: &WatchdogReports| before.compare(after).outcome();
        assert_eq!(outcome(&loops(false, 1), &loops(false, 1)), CheckOutcome::Passed);
        assert_eq!(outcome(&loops(false, 1), &loops(false, 2)), CheckOutcome::Failed);
        assert_eq!(outcome(&loops(false, 1), &loops(true, 1)), CheckOutcome::Failed);
        let absent = || WatchAnswer::Absent("no such file".to_owned());
        let unseen = WatchdogReports([("gateway", absent()), ("ingestd", absent())]);
        assert_eq!(outcome(&loops(false, 1), &unseen), CheckOutcome::Skipped);
        let stuck =
            WatchdogReports([("gateway", WatchAnswer::Stuck("silent".to_owned())), ("ingestd", absent())]);
        assert_eq!(outcome(&unseen, &stuck), CheckOutcome::Failed);
    }
}
