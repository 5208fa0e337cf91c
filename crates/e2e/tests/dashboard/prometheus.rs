//! A real Prometheus that scrapes the running system.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use e2e::{free_address, http, http::Address, wait_for};
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

/// Deadline of its start and of each query.
const SOON: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: Address,
}

impl Prometheus {
    /// Starts a server with the shipped rules that scrapes `target` every second.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        target: SocketAddr,
        rules: &Path,
    ) -> anyhow::Result<Self> {
        let listen = free_address()?;
        let config = folder.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: ['{}']\n\
                 scrape_configs: [{{job_name: newswire, static_configs: [{{targets: ['{target}']}}]}}]\n",
                rules.display()
            ),
        )?;
        let log = File::create(folder.join("prometheus.log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={listen}"))
            .args(["--log.level=warn", "--storage.tsdb.min-block-duration=2h"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start Prometheus")?;
        let prometheus = Self { child, address: listen.into() };
        wait_for("Prometheus", SOON, async || {
            matches!(http::fetch(&prometheus.address, "/-/ready", SOON).await, Ok((200, _))).then_some(())
        })
        .await
        .with_context(|| fs::read_to_string(folder.join("prometheus.log")).unwrap_or_default())?;
        Ok(prometheus)
    }

    async fn query(&self, path: &str) -> anyhow::Result<Value> {
        let (status, text) = http::fetch(&self.address, path, SOON).await?;
        anyhow::ensure!(status == 200, "{path} answered {status}: {text}");
        Ok(serde_json::from_str::<Value>(&text)?["data"].take())
    }

    /// The finite values of an expression now.
    pub(crate) async fn values(&self, expression: &str) -> anyhow::Result<Vec<f64>> {
        let query: String = byte_serialize(expression.as_bytes()).collect();
        let data = self.query(&format!("/api/v1/query?query={query}")).await?;
        let samples = data["result"].as_array().with_context(|| format!("{expression} returned {data}"))?;
        let numbers = samples.iter().filter_map(|sample| sample["value"][1].as_str()?.parse().ok());
        Ok(numbers.filter(|number: &f64| number.is_finite()).collect())
    }

    /// Every rule with its health and, of alerts, its state.
    pub(crate) async fn rules(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.query("/api/v1/rules").await?;
        let groups = data["groups"].as_array().context("groups of rules")?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }

    /// Alerts whose expression holds now.
    pub(crate) async fn raised(&self) -> anyhow::Result<Vec<String>> {
        let raised = |rule: &Value| matches!(rule["state"].as_str(), Some("pending" | "firing"));
        let rules = self.rules().await?;
        Ok(rules
            .iter()
            .filter(|rule| raised(rule))
            .filter_map(|rule| rule["name"].as_str().map(str::to_owned))
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
