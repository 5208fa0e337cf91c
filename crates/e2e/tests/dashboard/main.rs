//! The shipped Prometheus and Grafana files against the running system: the table of metrics is complete, every panel has
//! data, every rule evaluates, and the expected alerts fire.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod files;
mod live;
mod prometheus;
mod table;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    Behaviour, Binary, DocumentFormat, Origin, TestSource, TestStack, TestSubscriber, http, http::Address,
    log_line, on_path, wait_for,
};
use tokio::{task::JoinHandle, time::sleep};

use self::{files::deploy, live::Live, prometheus::Prometheus};

/// The gateway scrapes the daemon's metrics every 5 s.
const SOON: Duration = Duration::from_secs(60);
/// Deadline for data in every panel.
const SHOWN_WITHIN: Duration = Duration::from_secs(90);
/// The type of every family is named in this format.
const OPENMETRICS: &str = "application/openmetrics-text";
/// Limit of series of both processes, on a machine with a few processors.
const SERIES_MAX: usize = 500;

/// Both programs with a few feeds, some of them in trouble, and two clients.
struct Fixture {
    stack: TestStack,
    _origins: [std::sync::Arc<Origin>; 2],
    _clients: [TestSubscriber; 2],
    publishing: JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Self {
        let origin = std::sync::Arc::new(Origin::start().await.unwrap());
        // A Retry-After concerns all feeds of its host.
        let busy = std::sync::Arc::new(Origin::start().await.unwrap());
        let names: Vec<_> = (0..12).map(|n| format!("feed-{n}")).collect();
        let origin_of = |n: usize| if n == 9 { &busy } else { &origin };
        let feed = |(n, name): (usize, &String)| {
            TestSource::new(name, origin_of(n).add_feed(name, DocumentFormat::of(n)))
        };
        let sources: Vec<_> = names.iter().enumerate().map(feed).collect();
        for (n, behaviour) in [
            (8, Behaviour::Status(500, Vec::new())),
            (9, Behaviour::Status(429, vec!["Retry-After: 60".to_owned()])),
            (10, Behaviour::Status(410, Vec::new())),
            (11, Behaviour::CutOff),
        ] {
            origin_of(n).set_behaviour(&names[n], behaviour);
        }
        let mut stack = TestStack::new(&sources).unwrap();
        stack.start_both().await.unwrap();
        let clients = ["/news/stream?snapshot=10", "/news/stream"].map(|path| stack.subscribe(path));
        let publisher = std::sync::Arc::clone(&origin);
        let publishing = tokio::spawn(async move {
            for n in 0.. {
                publisher.publish(&names[n % 8], &format!("Item {n}"));
                sleep(Duration::from_millis(200)).await;
            }
        });
        Self { stack, _origins: [origin, busy], _clients: clients, publishing }
    }

    /// The metrics of the gateway once they include the daemon's.
    async fn live(&self) -> Live {
        let text = wait_for("the metrics of both", SOON, async || {
            let text = metrics(&self.stack.gateway(), OPENMETRICS).await.ok()?;
            text.contains("\nnewswire_ingestd_log_head ").then_some(text)
        });
        Live::parse(&text.await.unwrap())
    }
}

/// The metrics in the format that `accept` asks for.
async fn metrics(address: &Address, accept: &str) -> std::io::Result<String> {
    http::get(address, "/metrics", &[("Connection", "close"), ("Accept", accept)]).await?.text().await
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.publishing.abort();
    }
}

#[tokio::test]
async fn the_table_lists_every_metric_and_rules_and_panels_use_no_other() {
    let fixture = Fixture::start().await;
    let live = fixture.live().await;
    log_line(&format!("{} metrics, {} series", live.families.len(), live.series));
    assert!(live.series <= SERIES_MAX, "{} series", live.series);
    for program in [Binary::Gateway, Binary::Ingestd] {
        let own = metrics(&fixture.stack.admin(program), OPENMETRICS).await.unwrap();
        let prefix = format!("newswire_{}_", program.name().trim_start_matches("newswire-"));
        let shown = live.families.keys().filter(|name| name.starts_with(&prefix));
        assert!(
            shown.eq(Live::parse(&own).families.keys()),
            "the admin socket of {} has other metrics",
            program.name()
        );
    }
    for (name, family) in &live.families {
        assert!(family.help.len() > 7, "the help of {name} is only {:?}", family.help);
    }
    compare_table(&table::render(&live));

    let rules = files::rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule.record.clone()).collect();
    let targets = files::targets("1m");
    let expressions = rules.iter().map(|rule| &rule.expr).chain(targets.iter().map(|target| &target.expr));
    let mut wrong: Vec<_> = expressions.flat_map(|expr| live.objections(expr, &recorded)).collect();
    for rule in rules.iter().filter(|rule| rule.alert.is_some()) {
        wrong.extend(alert_faults(rule, &live));
    }
    for target in &targets {
        let labels = live.labels_of(&target.expr);
        let named = target.legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
        let unknown = named.map(|(label, _)| label.trim()).filter(|label| !labels.contains(*label));
        wrong.extend(unknown.map(|label| format!("panel {} has no label {label}", target.panel)));
    }
    wrong.extend(files::dashboard_faults());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Compares the table with the file, or writes the file if `BLESS` is set.
fn compare_table(table: &str) {
    let path = deploy("prometheus").join("METRICS.md");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, table).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let (kept_lines, lines): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), table.lines().collect());
    assert!(
        kept == table,
        "deploy/prometheus/METRICS.md differs from what the programs export; update it with\n\
         BLESS=1 cargo nextest run -p e2e --test dashboard\nremoved: {:#?}\nadded: {:#?}",
        kept_lines.difference(&lines).collect::<Vec<_>>(),
        lines.difference(&kept_lines).collect::<Vec<_>>(),
    );
}

/// An alert must say how severe it is, what is wrong, and what to do next.
fn alert_faults(rule: &files::Rule, live: &Live) -> Vec<String> {
    let name = rule.alert.as_deref().unwrap();
    let annotation = |key: &str| rule.annotations.get(key).map_or("", String::as_str);
    let mut faults = Vec::new();
    let severity = rule.labels.get("severity").map_or("", String::as_str);
    if !["critical", "warning", "info"].contains(&severity) {
        faults.push(format!("{name} has the severity {severity:?}"));
    }
    if !annotation("summary").contains("newswire") || !annotation("description").contains("Next: ") {
        faults.push(format!("{name} does not say what is wrong and what comes next"));
    }
    let anchor = format!("alert-{}", name.to_lowercase());
    if !annotation("runbook_url").ends_with(&format!("ALERTS.md#{anchor}")) {
        faults.push(format!("{name} points at {:?}", annotation("runbook_url")));
    }
    let runbook = fs::read_to_string(deploy("prometheus/ALERTS.md")).unwrap();
    if !runbook.contains(&format!("id=\"{anchor}\"")) {
        faults.push(format!("ALERTS.md does not say what {name} means"));
    }
    let labels = live.labels_of(&rule.expr);
    let named = annotation("description").split("$labels.").skip(1).collect::<Vec<_>>();
    for rest in named {
        let label = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        if !labels.contains(label) {
            faults.push(format!("{name} shows the label {label}, which it does not have"));
        }
    }
    faults
}

#[tokio::test]
async fn every_panel_has_data_and_every_rule_evaluates_in_a_real_prometheus() {
    let Some(program) = on_path("prometheus") else {
        log_line(
            "SKIPPED: prometheus is not on the PATH; panels were not queried, only names and labels compared",
        );
        return;
    };
    let mut fixture = Fixture::start().await;
    fixture.live().await;
    let Address::Tcp(target) = fixture.stack.gateway() else { panic!("the gateway listens on TCP") };
    let rules_file = deploy("prometheus/newswire-rules.yml");
    let prometheus = Prometheus::start(&program, fixture.stack.folder(), target, &rules_file).await.unwrap();

    let mut empty = files::targets("10s");
    let questions = empty.len();
    let filled = wait_for("data in every panel", SHOWN_WITHIN, async || {
        let mut left = Vec::new();
        for target in std::mem::take(&mut empty) {
            // An error is a fault of the expression and would not go away.
            if prometheus.values(&target.expr).await.unwrap().is_empty() {
                left.push(target);
            }
        }
        empty = left;
        empty.is_empty().then_some(())
    });
    filled.await.unwrap_or_else(|error| panic!("{error}: {empty:#?}"));

    let rules = prometheus.rules().await.unwrap();
    assert_eq!(rules.len(), files::rules().len());
    let sick: Vec<_> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
    assert!(sick.is_empty(), "{sick:#?}");
    log_line(&format!("{questions} panel queries have data, {} rules evaluate", rules.len()));
    // A loaded machine may cut the wire for a moment.
    let dead = ["NewswireDaemonGone", "NewswireGatewayNotReady", "NewswireWireCut"];
    let mut raised = Vec::new();
    let quiet = wait_for("no alert while all is well", SOON, async || {
        raised = prometheus.raised().await.unwrap();
        let others = ["NewswireDown", "NewswirePanics", "NewswireOutage", "NewswireRestarting"];
        (!dead.iter().chain(&others).any(|alert| raised.iter().any(|name| name == alert))).then_some(())
    });
    quiet.await.unwrap_or_else(|error| panic!("{error}: {raised:?}"));

    fixture.stack.kill(Binary::Ingestd).unwrap();
    let noticed = wait_for("the alerts of a dead daemon", SOON, async || {
        raised = prometheus.raised().await.unwrap();
        dead.iter().all(|alert| raised.iter().any(|name| name == alert)).then_some(())
    });
    noticed.await.unwrap_or_else(|error| panic!("{error}: {raised:?}"));
}

#[tokio::test]
async fn promtool_accepts_the_metrics_that_a_client_gets_who_asks_for_no_format() {
    let Some(promtool) = on_path("promtool") else {
        log_line("SKIPPED: promtool is not on the PATH; the text format of the metrics was not checked");
        return;
    };
    let fixture = Fixture::start().await;
    fixture.live().await;
    let sockets = [Binary::Gateway, Binary::Ingestd].map(|program| fixture.stack.admin(program));
    for address in sockets.into_iter().chain([fixture.stack.gateway()]) {
        let text = metrics(&address, "*/*").await.unwrap();
        assert!(text.contains("_total counter\n"), "{text}");
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{address:?}: {said}\n{text}");
    }
}

#[test]
fn the_rules_pass_their_own_tests() {
    let Some(promtool) = on_path("promtool") else {
        log_line("SKIPPED: promtool is not on the PATH; the rules were not tested");
        return;
    };
    let folder = deploy("prometheus");
    for arguments in [
        ["check", "rules", "newswire-rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "newswire-rules-test.yml"],
    ] {
        let output = Command::new(&promtool).args(arguments).current_dir(&folder).output().unwrap();
        let output_text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "promtool {}:\n{output_text}", arguments.join(" "));
    }
}
