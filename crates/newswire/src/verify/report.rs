//! The results of the checks, as text or as JSON.

use std::{io, time::Duration};

use daemon::Exit;
use serde::Serialize;
use serde_json::{Value, json};

use crate::out::{self, Paint, safe};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckOutcome {
    Passed,
    Failed,
    Skipped,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct CheckResult {
    name: &'static str,
    outcome: CheckOutcome,
    /// Why it did not pass.
    reason: Option<String>,
    /// Whether it was skipped although it should have been made: what it would have found is unknown.
    could_not_tell: bool,
    /// What was measured.
    figures: Value,
}

impl CheckResult {
    pub(super) fn passed(name: &'static str, figures: Value) -> Self {
        Self { name, outcome: CheckOutcome::Passed, reason: None, could_not_tell: false, figures }
    }

    pub(super) fn failed(name: &'static str, reason: String, figures: Value) -> Self {
        Self { name, outcome: CheckOutcome::Failed, reason: Some(reason), could_not_tell: false, figures }
    }

    /// The check could not be made, and may hide a fault.
    pub(super) fn skipped(name: &'static str, reason: String) -> Self {
        Self { could_not_tell: true, ..Self::not_applicable(name, reason) }
    }

    /// There is nothing to check, as on a log without events.
    pub(super) fn not_applicable(name: &'static str, reason: String) -> Self {
        Self {
            name,
            outcome: CheckOutcome::Skipped,
            reason: Some(reason),
            could_not_tell: false,
            figures: json!({}),
        }
    }

    /// The check could only be made in part; `could_not_tell` is whether the rest may hide a fault.
    pub(super) fn skipped_with(
        name: &'static str,
        reason: String,
        figures: Value,
        could_not_tell: bool,
    ) -> Self {
        Self { figures, could_not_tell, ..Self::not_applicable(name, reason) }
    }

    #[cfg(test)]
    pub(super) fn outcome(&self) -> CheckOutcome {
        self.outcome
    }
}

/// The results of all checks.
#[derive(Debug)]
pub(super) struct VerifyReport {
    pub(super) url: String,
    pub(super) took: Duration,
    pub(super) checks: Vec<CheckResult>,
}

impl VerifyReport {
    fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.outcome == CheckOutcome::Failed)
    }

    /// Failed, could not tell, or passed.
    pub(super) fn exit(&self) -> Exit {
        match (self.failed(), self.checks.iter().any(|check| check.could_not_tell)) {
            (true, _) => Exit::Failure,
            (false, true) => Exit::Unknown,
            (false, false) => Exit::Ok,
        }
    }

    pub(super) fn print(&self, as_json: bool) -> io::Result<()> {
        if as_json {
            let all = json!({
                "url": self.url,
                "passed": self.exit() == Exit::Ok,
                "took_ms": millis(self.took),
                "boxes": self.checks,
            });
            return out::stdout_line(&format!("{all:#}"));
        }
        let paint = Paint::for_stdout();
        for CheckResult { name, outcome, reason, figures, .. } in &self.checks {
            let mark = match outcome {
                CheckOutcome::Passed => paint.good("[x]"),
                CheckOutcome::Failed => paint.bad("[ ]"),
                CheckOutcome::Skipped => paint.dim("[-]"),
            };
            let word = match outcome {
                CheckOutcome::Passed => "",
                CheckOutcome::Failed => " FAILED: ",
                CheckOutcome::Skipped => " skipped: ",
            };
            // One line per reason: the length of an escaped line is limited.
            let mut reasons = reason.as_deref().unwrap_or_default().split("; ");
            out::stdout_line(&format!("{mark} {name}{word}{}", safe(reasons.next().unwrap_or_default())))?;
            for reason in reasons {
                out::stdout_line(&format!("    {}", safe(reason)))?;
            }
            let figures = figures_text(figures);
            if !figures.is_empty() {
                out::stdout_line(&format!("    {}", paint.dim(&safe(&figures))))?;
            }
        }
        let verdict = match self.exit() {
            Exit::Ok => paint.good("passed"),
            Exit::Unknown => paint.bad("could not tell: a check that was skipped may hide a fault; it ended"),
            _ => paint.bad("failed"),
        };
        out::stdout_line(&format!("{}: {verdict} in {:.1} s", self.url, self.took.as_secs_f64()))
    }
}

/// `a 1, b 2`; a list is written `a 1→2`.
fn figures_text(figures: &Value) -> String {
    let show = |value: &Value| match value {
        Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("→"),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let figures = figures.as_object().into_iter().flatten();
    figures.map(|(name, value)| format!("{name} {}", show(value))).collect::<Vec<_>>().join(", ")
}

/// Milliseconds, rounded to two decimals.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_skipped_although_it_was_needed_is_no_success() {
        let report = |checks| VerifyReport { url: String::new(), took: Duration::ZERO, checks };
        let passed = || CheckResult::passed("a", json!({}));
        let skipped = || CheckResult::skipped("b", "no socket".to_owned());
        let empty = CheckResult::not_applicable("c", "the log is empty".to_owned());
        assert_eq!(report(vec![passed(), empty]).exit(), Exit::Ok);
        assert_eq!(report(vec![passed(), skipped()]).exit(), Exit::Unknown);
        let failed = CheckResult::failed("d", "late".to_owned(), json!({}));
        assert_eq!(report(vec![skipped(), failed]).exit(), Exit::Failure);
    }
}
