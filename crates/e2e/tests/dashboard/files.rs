//! The files that are shipped for Prometheus and Grafana.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

/// A file under `deploy`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name).canonicalize().unwrap_or_else(
        |error| {
            panic!("deploy/{name}: {error}");
        },
    )
}

#[derive(Debug, Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// An alert or a recording rule.
#[derive(Debug, Deserialize)]
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

pub(crate) fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(deploy("prometheus/newswire-rules.yml")).unwrap();
    let rules: Rules = serde_saphyr::from_str(&text).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// A query of a panel.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) panel: String,
    pub(crate) expr: String,
    pub(crate) legend: String,
}

/// Every query of the dashboard, with `range` in place of Grafana's `$__rate_interval`.
pub(crate) fn targets(range: &str) -> Vec<Target> {
    let text = fs::read_to_string(deploy("grafana/newswire-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut targets = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            targets.push(Target {
                panel: panel["title"].as_str().unwrap().to_owned(),
                expr: target["expr"].as_str().unwrap().replace("$__rate_interval", range),
                legend: target["legendFormat"].as_str().unwrap().to_owned(),
            });
        }
    }
    targets
}

/// Faults of the dashboard that Grafana would import without complaint and then show nothing.
pub(crate) fn dashboard_faults() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/newswire-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut faults = Vec::new();
    let mut taken: Vec<(u64, [u64; 4])> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let (title, id) = (&panel["title"], panel["id"].as_u64().unwrap());
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        for (other, [ox, oy, ow, oh]) in &taken {
            if id == *other {
                faults.push(format!("{title}: duplicate id"));
            }
            if x < ox + ow && *ox < x + w && y < oy + oh && *oy < y + h {
                faults.push(format!("{title} overlaps another panel"));
            }
        }
        taken.push((id, [x, y, w, h]));
        if x + w > 24 {
            faults.push(format!("{title} is outside of the 24 columns"));
        }
        if panel["type"] == "row" {
            continue;
        }
        if panel["description"].as_str().is_none_or(str::is_empty) {
            faults.push(format!("{title} has no description"));
        }
        let sources = panel["targets"].as_array().unwrap().iter().map(|target| &target["datasource"]["uid"]);
        if sources.chain([&panel["datasource"]["uid"]]).any(|uid| uid != "${datasource}") {
            faults.push(format!("{title} does not use ${{datasource}}"));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    if variables.len() != 1 || variables[0]["name"] != "datasource" || variables[0]["type"] != "datasource" {
        faults.push("the one variable is the data source".to_owned());
    }
    faults
}
