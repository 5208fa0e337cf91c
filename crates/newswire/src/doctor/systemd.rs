//! What systemd reports about our units, if it runs them.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde::Serialize;
use tokio::{process::Command, time::timeout};

use super::part::Part;

/// How long `systemctl` may take.
const WITHIN: Duration = Duration::from_secs(1);
/// The properties to read of each unit.
const PROPERTIES: &str =
    "Id,LoadState,ActiveState,SubState,MainPID,NRestarts,Result,WatchdogTimestamp,ActiveEnterTimestamp";
/// Our units.
const UNITS: [&str; 3] = ["newswire-ingestd.service", "newswire-gateway.service", "newswire-gateway.socket"];

/// A unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SystemdUnit {
    pub(crate) id: String,
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) main_pid: Option<i32>,
    pub(crate) restarts: Option<u64>,
    pub(crate) result: String,
    pub(crate) watchdog: String,
    pub(crate) since: String,
}

/// Those of our units that systemd knows, or why they are unknown.
pub(crate) struct SystemdUnits(Part<Vec<SystemdUnit>>);

impl SystemdUnits {
    pub(crate) async fn query() -> Self {
        let mut command = Command::new("systemctl");
        command.arg("show").args(UNITS).args(["--no-pager", "-p", PROPERTIES]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let units = match timeout(WITHIN, command.output()).await {
            Err(_) => Part::timed_out(format!("systemctl did not answer within {WITHIN:?}")),
            Ok(Err(error)) => Part::missing(format!("systemctl: {error}")),
            Ok(Ok(output)) if !output.status.success() => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                Part::missing(format!("systemctl: {}", stderr.lines().next().unwrap_or("failed")))
            }
            Ok(Ok(output)) => Part::Found(parse(&String::from_utf8_lossy(&output.stdout))),
        };
        Self(units)
    }

    pub(crate) fn not_asked() -> Self {
        Self(Part::not_asked())
    }

    /// The same without the units of a program.
    pub(crate) fn without(self, program: &str) -> Self {
        let is_other = |unit: &SystemdUnit| unit.id.split_once('.').is_none_or(|(name, _)| name != program);
        Self(match self.0 {
            Part::Found(units) => Part::Found(units.into_iter().filter(is_other).collect()),
            missing => missing,
        })
    }

    /// The units that run this process: another gateway may be the one of the unit.
    pub(crate) fn that_run(self, pid: i32) -> Self {
        Self(match self.0 {
            Part::Found(units) => {
                Part::Found(units.into_iter().filter(|unit| unit.main_pid == Some(pid)).collect())
            }
            missing => missing,
        })
    }

    /// The service that runs a program of ours.
    pub(crate) fn of(&self, program: &str) -> Part<SystemdUnit> {
        match &self.0 {
            Part::Missing { missing, cause } => Part::Missing { missing: missing.clone(), cause: *cause },
            Part::Found(units) => {
                let unit = units.iter().find(|unit| unit.id.strip_suffix(".service") == Some(program));
                Part::from_result(unit.cloned().ok_or_else(|| format!("systemd has no {program}.service")))
            }
        }
    }
}

/// Parses blocks of `Name=value`, one per unit; units that systemd does not know are left out.
fn parse(text: &str) -> Vec<SystemdUnit> {
    let mut units = Vec::new();
    for block in text.split("\n\n") {
        let values: BTreeMap<_, _> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let text = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
        if values.contains_key("Id") && text("LoadState") != "not-found" {
            units.push(SystemdUnit {
                id: text("Id"),
                active: text("ActiveState"),
                sub: text("SubState"),
                main_pid: text("MainPID").parse().ok().filter(|pid| *pid > 0),
                restarts: text("NRestarts").parse().ok(),
                result: text("Result"),
                watchdog: text("WatchdogTimestamp"),
                since: text("ActiveEnterTimestamp"),
            });
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_systemd_does_not_know_are_left_out() {
        let text = "Id=newswire-gateway.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\
                    MainPID=42\nNRestarts=3\nResult=success\nWatchdogTimestamp=Fri 2026-01-02 03:04:05 UTC\n\n\
                    Id=newswire-ingestd.service\nLoadState=not-found\nActiveState=inactive\nMainPID=0\n\n\
                    Id=newswire-gateway.socket\nLoadState=loaded\nActiveState=failed\nResult=service-start-limit-hit\n";
        let units = SystemdUnits(Part::Found(parse(text)));
        let gateway = units.of("newswire-gateway");
        let gateway = gateway.get().unwrap();
        assert_eq!(
            (gateway.main_pid, gateway.restarts, gateway.active.as_str()),
            (Some(42), Some(3), "active")
        );
        assert!(units.of("newswire-ingestd").get().is_none());
        assert_eq!(units.0.get().unwrap().len(), 2);
        let units = units.that_run(42);
        assert!(units.of("newswire-gateway").get().is_some());
        assert!(units.that_run(43).of("newswire-gateway").get().is_none());
    }

    #[test]
    fn other_text_contains_no_units() {
        assert!(parse("").is_empty() && parse("System has not been booted\n\n=\n").is_empty());
    }
}
