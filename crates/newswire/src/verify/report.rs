//! What the boxes say, for people and for programs.

use std::{io, time::Duration};

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

/// One box.
#[derive(Debug, Serialize)]
pub(super) struct CheckResult {
    name: &'static str,
    outcome: CheckOutcome,
    /// Why, unless it passed.
    reason: Option<String>,
    /// What was measured.
    figures: Value,
}

impl CheckResult {
    pub(super) fn passed(name: &'static str, figures: Value) -> Self {
        Self { name, outcome: CheckOutcome::Passed, reason: None, figures }
    }

    pub(super) fn failed(name: &'static str, reason: String, figures: Value) -> Self {
        Self { name, outcome: CheckOutcome::Failed, reason: Some(reason), figures }
    }

    /// It could not be found out.
    pub(super) fn skipped(name: &'static str, reason: String) -> Self {
        Self { name, outcome: CheckOutcome::Skipped, reason: Some(reason), figures: json!({}) }
    }

    /// It could not be found out, as far as it was measured.
    pub(super) fn skipped_with(name: &'static str, reason: String, figures: Value) -> Self {
        Self { figures, ..Self::skipped(name, reason) }
    }

    #[cfg(test)]
    pub(super) fn outcome(&self) -> CheckOutcome {
        self.outcome
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct VerifyReport {
    pub(super) url: String,
    pub(super) took: Duration,
    pub(super) checks: Vec<CheckResult>,
}

impl VerifyReport {
    pub(super) fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.outcome == CheckOutcome::Failed)
    }

    pub(super) fn print(&self, as_json: bool) -> io::Result<()> {
        if as_json {
            let all = json!({
                "url": self.url,
                "passed": !self.failed(),
                "took_ms": millis(self.took),
                "boxes": self.checks,
            });
            return out::stdout_line(&format!("{all:#}"));
        }
        let paint = Paint::for_stdout();
        for CheckResult { name, outcome, reason, figures } in &self.checks {
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
            // One line a reason: what is shown of a line is bounded.
            let mut reasons = reason.as_deref().unwrap_or_default().split("; ");
            out::stdout_line(&format!("{mark} {name}{word}{}", safe(reasons.next().unwrap_or_default())))?;
            for reason in reasons {
                out::stdout_line(&format!("    {}", safe(reason)))?;
            }
            let figures = words(figures);
            if !figures.is_empty() {
                out::stdout_line(&format!("    {}", paint.dim(&safe(&figures))))?;
            }
        }
        let verdict = if self.failed() { paint.bad("failed") } else { paint.good("passed") };
        out::stdout_line(&format!("{}: {verdict} in {:.1} s", self.url, self.took.as_secs_f64()))
    }
}

/// `a 1, b 2`; what is nested is written `a 1→2` for lists.
fn words(figures: &Value) -> String {
    let show = |value: &Value| match value {
        Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("→"),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let figures = figures.as_object().into_iter().flatten();
    figures.map(|(name, value)| format!("{name} {}", show(value))).collect::<Vec<_>>().join(", ")
}

/// Milliseconds with two digits after the point.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
