//! The shipped configurations of nginx and Caddy in front of the real gateway: TLS, HTTP/2, streams without delay, client
//! addresses, and no response that would end a browser's EventSource for good.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use e2e::{
    Binary, ExternalProgram, Origin, ProxyKind, ReverseProxy, TestStack, log_line, on_path, scenario,
    wait_for,
};

const HOST: &str = ReverseProxy::HOST;
/// A page of this origin may read.
const READER: &str = "https://pages.example";
/// Must not be in any log.
const QUERY: &str = "only-between-us";
/// Deadline of an event through proxy, TLS and HTTP/2 on a busy machine; an event held in a buffer never arrives. The
/// actual delay is printed.
const AT_ONCE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A proxy, and curl as its client.
struct Proxy {
    running: ReverseProxy,
    curl: PathBuf,
}

impl Proxy {
    async fn start(kind: ProxyKind, stack: &TestStack) -> anyhow::Result<Option<Self>> {
        let Some(curl) = on_path("curl") else {
            log_line("SKIPPED: curl is not installed; the configuration was not tested");
            return Ok(None);
        };
        let e2e::http::Address::Tcp(gateway) = stack.gateway() else { unreachable!("it listens on TCP") };
        let running = ReverseProxy::start(kind, stack.path("proxy"), gateway, READER).await?;
        Ok(running.map(|running| Self { running, curl }))
    }

    /// Starts curl with HTTP/2 over TLS from a loopback address.
    fn curl(&self, name: &str, from: &str, path: &str, more: &[&str]) -> anyhow::Result<ExternalProgram> {
        let folder = self.running.folder().join(name);
        fs::create_dir(&folder)?;
        let port = self.running.address().port();
        let mut arguments: Vec<String> =
            ["-sSN", "--noproxy", "*", "--http2", "--max-time", "60", "--interface", from]
                .map(str::to_owned)
                .to_vec();
        arguments
            .extend(["--cacert".to_owned(), self.running.folder().join("cert.pem").display().to_string()]);
        arguments.extend(["--resolve".to_owned(), format!("{HOST}:{port}:{}", self.running.address().ip())]);
        arguments.extend(["-w".to_owned(), "\nstatus %{http_code} over %{http_version}\n".to_owned()]);
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        arguments.push(format!("https://{HOST}:{port}{path}"));
        ExternalProgram::start(&self.curl, &arguments, &folder)
    }

    /// The body of a finite response as lines, and its last line: status and version.
    async fn get(&self, name: &str, path: &str) -> anyhow::Result<(Vec<String>, String)> {
        let mut curl = self.curl(name, "127.0.0.1", path, &[])?;
        wait_for(path, TIMEOUT, async || (!curl.is_running()).then_some(())).await?;
        let mut lines = curl.output_lines();
        let last = lines.pop().with_context(|| curl.stderr())?;
        Ok((lines, last))
    }
}

/// Waits for a line that contains `word`.
async fn wait_line(stream: &ExternalProgram, word: &str, within: Duration) -> anyhow::Result<String> {
    let found =
        wait_for(word, within, async || stream.output_lines().into_iter().find(|l| l.contains(word))).await;
    found.with_context(|| format!("stdout {:?}, stderr {:?}", stream.output_lines(), stream.stderr()))
}

async fn lines_of_refused_stream(stream: &mut ExternalProgram) -> anyhow::Result<Vec<String>> {
    wait_for("the end of a refused stream", TIMEOUT, async || (!stream.is_running()).then_some(())).await?;
    Ok(stream.output_lines())
}

async fn check_proxy(kind: ProxyKind) -> anyhow::Result<()> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1))?;
    origin.publish("feed-0", "First");
    stack.set("gateway.hosts", &format!("[{HOST:?}]"));
    stack.set("gateway.trusted_proxies", "[\"127.0.0.1\"]");
    stack.set("gateway.clients_per_address_max", "1");
    stack.set("gateway.requests_per_address", "0");
    // A proxy that does not watch its client notices its end only after several writes.
    stack.set("gateway.heartbeat", "\"4s\"");
    stack.start_both().await?;
    let Some(proxy) = Proxy::start(kind, &stack).await? else { return Ok(()) };

    let stream = proxy.curl("stream", "127.0.0.1", "/news/stream?kinds=item", &[])?;
    wait_line(&stream, "First", TIMEOUT).await?;
    origin.publish("feed-0", "Second");
    let gateway_has = wait_for("the second item at the gateway", TIMEOUT, async || {
        let news = stack.json("/news").await.ok()?;
        news.to_string().contains("Second").then_some(())
    });
    gateway_has.await?;
    let since = tokio::time::Instant::now();
    wait_line(&stream, "Second", AT_ONCE).await?;
    log_line(&format!("behind {kind:?} the event arrived {:?} after the gateway had it", since.elapsed()));
    let before = stream.output_lines().len();
    wait_for("a heartbeat", Duration::from_secs(4) + AT_ONCE, async || {
        stream.output_lines()[before..].iter().any(|l| l.starts_with("id: ")).then_some(())
    })
    .await?;

    // A second stream of that address is refused, whatever address it claims; one of another address is not.
    let claim = ["-H", "X-Forwarded-For: 203.0.113.9"];
    let lines =
        lines_of_refused_stream(&mut proxy.curl("claims", "127.0.0.1", "/news/stream", &claim)?).await?;
    assert!(lines.iter().any(|l| l.starts_with("retry:")), "{lines:?}");
    assert!(
        lines.iter().any(|l| l == "status 200 over 2") && !lines.iter().any(|l| l.contains("First")),
        "{lines:?}"
    );
    let id = stream.output_lines().into_iter().find_map(|l| l.strip_prefix("id: ").map(str::to_owned));
    let id = id.context("the stream has ids")?;
    let resume = format!("Last-Event-ID: {id}");
    let other = proxy.curl("other", "127.0.0.2", "/news/stream?kinds=item", &["-H", &resume])?;
    let hello = wait_line(&other, "\"resume\":\"exact\"", TIMEOUT).await;
    hello.context("a client of another address resumes with an id")?;
    wait_line(&other, "Second", AT_ONCE).await?;

    let refused = proxy.get("token", &format!("/news?jwt={QUERY}")).await?;
    assert_eq!(refused.1, "status 400 over 2", "the gateway refuses a token in the query");
    check_leaving(kind, &proxy, &stack, &origin, (&stream, other)).await?;
    if kind == ProxyKind::Nginx {
        check_limits(&proxy).await?;
    }
    assert_eq!(proxy.get("health", "/health").await?.1, "status 200 over 2");
    assert_eq!(proxy.get("metrics", "/metrics").await?.1, "status 404 over 2");
    stack.kill(Binary::Gateway)?;
    check_while_down(&proxy, &id).await?;
    let logs = proxy.running.logs();
    assert!(logs.contains("/news"), "requests are logged: {logs}");
    assert!(!logs.contains(QUERY), "no query is: {logs}");
    Ok(())
}

/// JSON lines come at once, too, and clients that leave are noticed at once. `stream` stays.
async fn check_leaving(
    kind: ProxyKind,
    proxy: &Proxy,
    stack: &TestStack,
    origin: &Origin,
    (stream, other): (&ExternalProgram, ExternalProgram),
) -> anyhow::Result<()> {
    let ndjson = ["-H", "Accept: application/x-ndjson"];
    let lines = proxy.curl("ndjson", "127.0.0.3", "/news/stream?kinds=item", &ndjson)?;
    wait_line(&lines, "Second", TIMEOUT).await?;
    origin.publish("feed-0", "Third");
    wait_line(stream, "Third", TIMEOUT).await?;
    wait_line(&lines, "Third", AT_ONCE).await?;
    assert_eq!(stack.json("/health").await?["clients"], 3);
    drop((lines, other));
    let left = wait_for("the end of the streams of clients that left", AT_ONCE, async || {
        (stack.json("/health").await.ok()?["clients"] == 1).then_some(())
    });
    let since = tokio::time::Instant::now();
    left.await?;
    log_line(&format!("behind {kind:?} the end of two clients was noticed after {:?}", since.elapsed()));
    Ok(())
}

/// The answers of the proxy in place of the gateway.
async fn check_while_down(proxy: &Proxy, id: &str) -> anyhow::Result<()> {
    let (lines, status) = proxy.get("down", "/news/stream").await?;
    assert!(lines.iter().any(|l| l == "retry: 5000"), "{lines:?}");
    assert_eq!(status, "status 200 over 2", "{lines:?}");
    for (name, reader, expected) in
        [("allowed", READER, Some(READER)), ("foreign", "https://evil.example", None), ("same", "", None)]
    {
        let headers = [format!("Origin: {reader}"), format!("Last-Event-ID: {id}")];
        let more = ["-i", "-H", &headers[0], "-H", &headers[1]];
        let lines =
            lines_of_refused_stream(&mut proxy.curl(name, "127.0.0.1", "/news/stream", &more)?).await?;
        let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name).map(str::trim));
        assert_eq!(header("access-control-allow-origin: "), expected, "{lines:?}");
        assert!(header("access-control-allow-credentials: ").is_none(), "{lines:?}");
        assert_eq!(header("vary: "), Some("Origin"), "{lines:?}");
        assert_eq!(header("content-type: "), Some("text/event-stream"), "{lines:?}");
        assert!(lines.contains(&format!("id: {id}")), "the client keeps its id: {lines:?}");
    }
    assert_eq!(proxy.get("page", "/health").await?.1, "status 502 over 2");
    Ok(())
}

/// Many requests of one address at once: plain ones are refused, and streams are told to retry.
async fn check_limits(proxy: &Proxy) -> anyhow::Result<()> {
    for (name, from, path) in
        [("many", "127.0.0.4", "/news?n=[1-120]"), ("streams", "127.0.0.1", "/news/stream?n=[1-160]")]
    {
        let mut curl = proxy.curl(name, from, path, &["-H", "Accept: text/event-stream"])?;
        let lines = lines_of_refused_stream(&mut curl).await?;
        let count = |line: &str| lines.iter().filter(|l| l.as_str() == line).count();
        let (served, refused) = (count("status 200 over 2"), count("status 429 over 2"));
        if name == "many" {
            anyhow::ensure!(served >= 50 && refused > 0 && served + refused == 120, "{served}, {refused}");
        } else {
            let own = count("retry: 5000");
            anyhow::ensure!(
                served == 160 && own > 0,
                "{served}, {refused}, {own} of nginx: {}",
                curl.stderr()
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn behind_nginx_events_arrive_at_once_and_client_addresses_are_preserved() {
    check_proxy(ProxyKind::Nginx).await.unwrap();
}

#[tokio::test]
async fn behind_caddy_events_arrive_at_once_and_client_addresses_are_preserved() {
    check_proxy(ProxyKind::Caddy).await.unwrap();
}
