//! A minimal parser of OpenMetrics 1.0 and of the selectors in PromQL expressions. Where Prometheus is installed, it
//! checks the expressions itself.

use std::collections::{BTreeMap, BTreeSet};

/// One metric family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// By name; without `le`.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

/// The result of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// By sample name (with `_total`, `_info`); histograms by family name.
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) series: usize,
}

impl Live {
    pub(crate) fn parse(text: &str) -> Self {
        let mut live = Self::default();
        let mut name = String::new();
        let mut help = BTreeMap::new();
        for line in text.lines() {
            if let Some((of, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                help.insert(of.to_owned(), words.to_owned());
            } else if let Some((of, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                name = format!("{of}{suffix}");
                let help = help.remove(of).unwrap_or_default();
                let family = Family { kind: kind.to_owned(), help, labels: BTreeMap::new() };
                let double = live.families.insert(name.clone(), family);
                assert!(double.is_none(), "{name} is there twice");
            } else if !line.starts_with('#') {
                live.series += 1;
                let family = live.families.get_mut(&name).unwrap_or_else(|| panic!("no TYPE before {line}"));
                for (label, _, value) in selectors(line).pop().expect("a sample has a name").1 {
                    if label != "le" {
                        family.labels.entry(label).or_default().insert(value);
                    }
                }
            }
        }
        live
    }

    /// The faults of an expression: unknown names and labels, and values that a label with a fixed set of values never has.
    pub(crate) fn objections(&self, expression: &str, recorded: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, matchers) in selectors(expression) {
            if recorded.contains(&name) {
                continue;
            }
            let bare = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
            let found = self
                .families
                .get(&name)
                .or_else(|| self.families.get(bare?).filter(|family| family.kind == "histogram"));
            let Some(family) = found else {
                wrong.push(format!("{name} does not exist, in {expression}"));
                continue;
            };
            for (label, operator, value) in matchers {
                let known = family.labels.get(&label);
                let is_known = match operator.as_str() {
                    "=" | "!=" => known.is_some_and(|values| values.contains(&value)),
                    _ => known.is_some_and(|values| value.split('|').all(|one| values.contains(one))),
                };
                if !is_known && label != "job" {
                    wrong.push(format!("{name} has no {label}{operator}{value:?}, in {expression}"));
                }
            }
        }
        wrong
    }

    /// The labels that a result of the expression may have. With several daemons, their series have the label `daemon`,
    /// which the one daemon here does not have.
    pub(crate) fn labels_of(&self, expression: &str) -> BTreeSet<String> {
        let mut labels = BTreeSet::from(["instance".to_owned(), "job".to_owned()]);
        for (name, _) in selectors(expression) {
            labels.extend(name.starts_with("newswire_ingestd_").then(|| "daemon".to_owned()));
            labels.extend(
                self.families.get(&name).into_iter().flat_map(|family| family.labels.keys().cloned()),
            );
        }
        labels
    }
}

/// Label, operator, value.
type Matcher = (String, String, String);

/// Every `newswire_name{label="value"}` or `newswire:name` in an expression.
pub(crate) fn selectors(text: &str) -> Vec<(String, Vec<Matcher>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("newswire").filter(|_| !rest.is_empty()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (name, after) = from.split_at(end);
        rest = after;
        if before.ends_with('"') || !name["newswire".len()..].starts_with(['_', ':']) {
            continue;
        }
        let mut matchers = Vec::new();
        if let Some((inside, after)) = after.strip_prefix('{').and_then(|braces| braces.split_once('}')) {
            rest = after;
            let mut parts = inside.split('"');
            while let (Some(head), Some(value)) = (parts.next(), parts.next()) {
                let head = head.trim_start_matches([',', ' ']);
                let label = head.trim_end_matches(['=', '!', '~']);
                matchers.push((label.to_owned(), head[label.len()..].to_owned(), value.to_owned()));
            }
        }
        found.push((name.to_owned(), matchers));
    }
    found
}
