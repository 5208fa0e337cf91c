//! The results: a table for people, JSON for programs.

use serde::Serialize;

/// The result of one scenario.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) scenario: &'static str,
    /// A description of the load.
    pub(crate) load: String,
    /// What the two columns of values are of.
    pub(crate) columns: [&'static str; 2],
    pub(crate) rows: Vec<Row>,
}

/// One measure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) measure: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peer: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) bar: Option<Bar>,
    /// Whether the bar is met; `None` if there is no bar or no value to compare.
    pub(crate) met: Option<bool>,
    /// What a reader has to know about the value; often empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remark: String,
}

/// The required value of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// Our value is at most that.
    AtMost(f64),
    /// Our value divided by the other is at most that.
    RatioAtMost(f64),
}

impl Row {
    pub(crate) fn new(measure: impl Into<String>, unit: &'static str, ours: f64, peer: Option<f64>) -> Self {
        let ratio = peer.filter(|peer| *peer > 0.0).map(|peer| ours / peer);
        Self { measure: measure.into(), unit, ours, peer, ratio, bar: None, met: None, remark: String::new() }
    }

    pub(crate) fn bar(self, bar: Bar) -> Self {
        let met = match bar {
            Bar::AtMost(most) => Some(self.ours <= most),
            Bar::RatioAtMost(most) => self.ratio.map(|ratio| ratio <= most),
        };
        Self { bar: Some(bar), met, ..self }
    }

    pub(crate) fn remark(self, remark: impl Into<String>) -> Self {
        Self { remark: remark.into(), ..self }
    }
}

impl ScenarioReport {
    pub(crate) fn is_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![[
            "measure".to_owned(),
            "unit".into(),
            self.columns[0].into(),
            self.columns[1].into(),
            "ratio".into(),
            "bar".into(),
        ]];
        lines.extend(self.rows.iter().map(|row| {
            let bar = match (row.bar, row.met) {
                (None, _) => row.remark.clone(),
                (Some(bar), met) => {
                    let word = met.map_or("not judged", |met| if met { "met" } else { "MISSED" });
                    let (of, most) = match bar {
                        Bar::AtMost(most) => ("ours", most),
                        Bar::RatioAtMost(most) => ("ratio", most),
                    };
                    format!("{of} <= {}: {word}", short(most))
                }
            };
            let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), short);
            [
                row.measure.clone(),
                row.unit.into(),
                short(row.ours),
                or_dash(row.peer),
                or_dash(row.ratio),
                bar,
            ]
        }));
        let widths: Vec<_> = (0..6).map(|n| lines.iter().map(|l| l[n].len()).max().unwrap_or(0)).collect();
        let line = |cells: &[String; 6]| {
            let [measure, unit, ours, peer, ratio, bar] = cells;
            let [m, u, o, p, r] = [widths[0], widths[1], widths[2], widths[3], widths[4]];
            format!("{measure:m$}  {unit:u$}  {ours:>o$}  {peer:>p$}  {ratio:>r$}  {bar}")
                .trim_end()
                .to_owned()
                + "\n"
        };
        format!("{}: {}\n", self.scenario, self.load) + &lines.iter().map(line).collect::<String>()
    }
}

/// Three significant digits; all digits of a larger integer.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints a progress message or warning to standard error.
#[expect(clippy::print_stderr, reason = "a program for people")]
pub(crate) fn note(text: &str) {
    eprintln!("bench: {text}");
}

/// Prints a result to standard output.
#[expect(clippy::print_stdout, reason = "a program for people")]
pub(crate) fn print_result(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_applies_to_our_value_or_the_ratio_and_needs_one() {
        let row = |ours, peer, bar| Row::new("m", "u", ours, peer).bar(bar).met;
        assert_eq!(row(12.0, None, Bar::AtMost(12.0)), Some(true));
        assert_eq!(row(12.1, None, Bar::AtMost(12.0)), Some(false));
        assert_eq!(row(8.0, Some(10.0), Bar::RatioAtMost(0.85)), Some(true));
        assert_eq!(row(9.0, Some(10.0), Bar::RatioAtMost(0.85)), Some(false));
        assert_eq!(row(9.0, None, Bar::RatioAtMost(0.85)), None);
        assert_eq!(row(9.0, Some(0.0), Bar::RatioAtMost(0.85)), None);
    }

    #[test]
    fn the_table_is_aligned_and_marks_missed_bars() {
        let rows = vec![
            Row::new("lost", "events", 0.0, None),
            Row::new("cpu", "µs", 9.0, Some(10.0)).bar(Bar::RatioAtMost(0.85)),
        ];
        let section =
            ScenarioReport { scenario: "burst", load: "a load".into(), columns: ["ours", "nchan"], rows };
        let table = section.table();
        assert!(table.contains("ratio <= 0.85: MISSED"), "{table}");
        assert!(table.contains("0.90"), "{table}");
        assert!(!section.is_met());
    }
}
