//! A headless browser, driven through `chromedriver` or `geckodriver` by the W3C WebDriver protocol (JSON over HTTP).
//!
//! What must never happen here: a browser that outlives its test. Dropping [`Browser`] ends the session, and
//! with it the browser, then kills the driver and waits for it; Chromium exits when its pipe to chromedriver is closed.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    http::{self, Address},
    wait_for,
};

/// How long the driver, and then the browser, may take to start.
const STARTED_WITHIN: Duration = Duration::from_secs(120);
/// How long one command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// How long the browser may take to end.
const QUIT_WITHIN: Duration = Duration::from_secs(20);

/// No updates, reports or first-run dialogs; no sandbox, because it is unavailable to root.
const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    // Tabs in the background are as quick as the one in front.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--window-size=1280,900",
];

/// A browser with its own profile and one window; [`Browser::new_tab`] opens more tabs.
pub struct Browser {
    driver: Child,
    address: Address,
    session: String,
    profile: TempDir,
}

/// Which browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserKind {
    /// Chromium, driven through chromedriver.
    Chromium,
    /// Firefox, driven through geckodriver.
    Firefox,
}

impl BrowserKind {
    /// Browser and driver, if both are installed.
    fn programs(self) -> Option<(PathBuf, PathBuf)> {
        match self {
            Self::Chromium => on_path("chromium").zip(on_path("chromedriver")),
            Self::Firefox => {
                on_path("firefox-esr").or_else(|| on_path("firefox")).zip(on_path("geckodriver"))
            }
        }
    }

    /// The text before the port in the output of its driver.
    fn before_port(self) -> &'static str {
        match self {
            Self::Chromium => "successfully on port ",
            Self::Firefox => "Listening on 127.0.0.1:",
        }
    }

    /// What a session requires. `local_host` is a name of 127.0.0.1 with any certificate.
    fn capabilities(self, browser: &Path, profile: &Path, local_host: Option<&str>) -> Value {
        match self {
            Self::Chromium => {
                let mut flags: Vec<_> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
                flags.push(format!("--user-data-dir={}", profile.display()));
                flags.extend(local_host.map(|host| format!("--host-resolver-rules=MAP {host} 127.0.0.1")));
                json!({
                    "acceptInsecureCerts": local_host.is_some(),
                    "goog:chromeOptions": { "binary": browser, "args": flags },
                    "goog:loggingPrefs": { "browser": "ALL" },
                })
            }
            Self::Firefox => json!({
                "acceptInsecureCerts": local_host.is_some(),
                "moz:firefoxOptions": {
                    "binary": browser,
                    "args": ["-headless"],
                    "prefs": { "network.dns.localDomains": local_host.unwrap_or_default() },
                },
            }),
        }
    }
}

impl Browser {
    /// Starts Chromium with an empty page. Reports a skipped test and returns `None` if Chromium or chromedriver is not
    /// installed.
    ///
    /// # Errors
    /// If it cannot be started, and under `CI=true` if it is not installed.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let browser = Self::start_if_installed(BrowserKind::Chromium, None).await?;
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        anyhow::ensure!(
            browser.is_some() || !ci,
            "chromium or chromedriver is not on the PATH; install both (.ci/run does)"
        );
        Ok(browser)
    }

    /// Starts a browser with an empty page, in which `local_host` is a name of 127.0.0.1 with any certificate. Reports a
    /// skipped test and returns `None` if it is not installed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_if_installed(
        kind: BrowserKind,
        local_host: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        let Some((browser_path, driver)) = kind.programs() else {
            crate::log_line(&format!("SKIPPED: {kind:?} or its driver is not on the PATH"));
            return Ok(None);
        };
        let profile = tempfile::Builder::new().prefix("newswire-browser-").tempdir()?;
        let log = profile.path().join("driver.log");
        let out = File::create(&log)?;
        let driver = Command::new(driver)
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("start the driver of the browser")?;
        let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
        let mut browser = Self { driver, address: unknown, session: String::new(), profile };
        let port = wait_for("the driver to name its port", STARTED_WITHIN, async || {
            port_in(&log, kind.before_port())
        });
        browser.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.await?)).into();
        let profile = browser.profile.path().join("profile");
        let capabilities = kind.capabilities(&browser_path, &profile, local_host);
        browser.open_session(&capabilities).await?;
        Ok(Some(browser))
    }

    async fn open_session(&mut self, capabilities: &Value) -> anyhow::Result<()> {
        let capabilities = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let session = self.request("POST", "/session", &capabilities, STARTED_WITHIN).await?;
        session["sessionId"].as_str().context("a session has an id")?.clone_into(&mut self.session);
        Ok(())
    }

    /// Opens a URL in the current window and waits until the page has loaded.
    ///
    /// # Errors
    /// As for every command: the error of the driver, or no answer within a minute.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.command("POST", "url", &json!({ "url": url })).await.map(drop)
    }

    /// Runs a script in the page as the body of an `async` function and returns its result.
    ///
    /// # Errors
    /// As [`Browser::open`], and when the script throws.
    pub async fn run(&self, script: &str) -> anyhow::Result<Value> {
        let body = format!("return (async () => {{ {script} }})();");
        self.command("POST", "execute/sync", &json!({ "script": body, "args": [] })).await
    }

    /// Waits until a script returns a truthy value, and returns it.
    ///
    /// # Errors
    /// If it does not within `limit`; the error has the last result.
    pub async fn wait(&self, what: &str, limit: Duration, script: &str) -> anyhow::Result<Value> {
        let mut last = String::new();
        let outcome = wait_for(what, limit, async || match self.run(script).await {
            Ok(value) if !matches!(&value, Value::Null | Value::Bool(false)) && value != 0 && value != "" => {
                Some(value)
            }
            other => {
                last = format!("{other:?}");
                tokio::time::sleep(Duration::from_millis(80)).await;
                None
            }
        })
        .await;
        outcome.with_context(|| format!("the last result of the script was {last}"))
    }

    /// Opens a tab, makes it the current one and returns its handle.
    ///
    /// # Errors
    /// As [`Browser::open`].
    pub async fn new_tab(&self) -> anyhow::Result<String> {
        let tab = self.command("POST", "window/new", &json!({ "type": "tab" })).await?;
        let handle = tab["handle"].as_str().context("a tab has a handle")?.to_owned();
        self.switch_to(&handle).await?;
        Ok(handle)
    }

    /// The handle of the current tab.
    ///
    /// # Errors
    /// As [`Browser::open`].
    pub async fn tab(&self) -> anyhow::Result<String> {
        let handle = self.command("GET", "window", &Value::Null).await?;
        handle.as_str().map(str::to_owned).context("a handle is text")
    }

    /// Makes another tab the current one.
    ///
    /// # Errors
    /// As [`Browser::open`], and if there is no such tab.
    pub async fn switch_to(&self, handle: &str) -> anyhow::Result<()> {
        self.command("POST", "window", &json!({ "handle": handle })).await.map(drop)
    }

    /// Closes the current tab. Call [`Browser::switch_to`] afterwards.
    ///
    /// # Errors
    /// As [`Browser::open`].
    pub async fn close_tab(&self) -> anyhow::Result<()> {
        self.command("DELETE", "window", &Value::Null).await.map(drop)
    }

    /// The lines of the console since the last call: level, source and text of each.
    ///
    /// # Errors
    /// As [`Browser::open`].
    pub async fn console(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let lines = self.command("POST", "se/log", &json!({ "type": "browser" })).await?;
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let lines = lines.as_array().context("the console is a list")?;
        Ok(lines.iter().map(|l| (text(l, "level"), text(l, "source"), text(l, "message"))).collect())
    }

    async fn command(&self, method: &str, command: &str, body: &Value) -> anyhow::Result<Value> {
        let path = format!("/session/{}/{command}", self.session);
        self.request(method, &path, body, COMMAND_WITHIN).await
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Connection", "close"), ("Content-Type", "application/json; charset=utf-8")];
        let exchange = async { http::send(method, &self.address, path, &headers, &body).await?.text().await };
        let response = tokio::time::timeout(limit, exchange)
            .await
            .with_context(|| format!("the driver did not answer {method} {path} within {limit:?}"))??;
        let mut response: Value = serde_json::from_str(&response).context("the driver answers in JSON")?;
        let value = response["value"].take();
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            anyhow::bail!("{method} {path}: {error}: {}", value["message"].as_str().unwrap_or_default());
        }
        Ok(value)
    }

    /// Ends the session and with it the browser, which writes to its profile until then. Blocking: only for `drop`.
    fn quit(&self) -> std::io::Result<()> {
        let Address::Tcp(address) = self.address else { return Ok(()) };
        let mut stream = TcpStream::connect_timeout(&address, QUIT_WITHIN)?;
        stream.set_read_timeout(Some(QUIT_WITHIN))?;
        let (session, host) = (&self.session, address);
        let head = format!("DELETE /session/{session} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // If this fails, closing the pipe ends Chromium a little later.
        let _quit = self.quit();
        // Fails only if it has ended already.
        let _ended = self.driver.kill();
        let _status = self.driver.wait();
    }
}

/// The path of a program, if it is on the `PATH`.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The port in `ChromeDriver was started successfully on port 41234.`, or in `… Listening on 127.0.0.1:41234`, once the
/// line is complete.
fn port_in(log: &Path, before: &str) -> Option<u16> {
    let text = fs::read_to_string(log).ok()?;
    let (_, rest) = text.split_once(before)?;
    let (line, _) = rest.split_once('\n')?;
    line.trim_end_matches('.').parse().ok()
}
