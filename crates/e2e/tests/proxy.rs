//! The shipped configurations of nginx and Caddy in front of the real gateway: TLS, HTTP/2, streams without delay, client
//! addresses, and no response that would end a browser's EventSource for good.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use e2e::{Binary, ExternalProgram, Origin, TestStack, free_address, log_line, on_path, scenario, wait_for};

const NGINX: &str = include_str!("../../../deploy/nginx/newswire.conf");
const CADDY: &str = include_str!("../../../deploy/caddy/Caddyfile");
const HOST: &str = "news.example.org";
/// Deadline of an event through proxy, TLS and HTTP/2 on a busy machine; an event held in a buffer never arrives. The
/// actual delay is printed.
const AT_ONCE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running proxy in its own folder.
struct Proxy {
    running: ExternalProgram,
    address: SocketAddr,
    folder: PathBuf,
    curl: PathBuf,
}

/// Replaces texts of a shipped file; each must occur.
fn substituted(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the shipped file has no {from:?}");
        text.replace(from, to)
    })
}

fn certificate(folder: &Path) -> anyhow::Result<[String; 2]> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok([cert, key].map(|path| path.display().to_string()))
}

fn nginx(folder: &Path, stack: &TestStack, [plain, tls]: [SocketAddr; 2]) -> anyhow::Result<Vec<String>> {
    let [cert, key] = certificate(folder)?;
    let live = format!("/etc/letsencrypt/live/{HOST}");
    let ours = substituted(
        NGINX,
        &[
            ("127.0.0.1:8700;", format!("{};", gateway(stack))),
            ("listen 80;", format!("listen {plain};")),
            ("    listen [::]:80;\n", String::new()),
            ("    listen 443 ssl http2;", format!("    listen {tls} ssl http2;")),
            ("    listen [::]:443 ssl http2;\n", String::new()),
            (&format!("{live}/fullchain.pem"), cert),
            (&format!("{live}/privkey.pem"), key),
        ],
    );
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {}/{name};\n", folder.display()))
        .concat();
    let whole = format!(
        "daemon off;\npid {0}/pid;\nerror_log stderr warn;\nworker_processes 1;\nevents {{}}\n\
         http {{\n    access_log off;\n{temporary}{ours}}}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, whole)?;
    Ok(vec!["-e".into(), "stderr".into(), "-c".into(), file.display().to_string()])
}

fn caddy(folder: &Path, stack: &TestStack, [plain, tls]: [SocketAddr; 2]) -> anyhow::Result<Vec<String>> {
    let [cert, key] = certificate(folder)?;
    let globals = format!("{{\n\tadmin off\n\thttp_port {}\n\thttps_port {}\n", plain.port(), tls.port());
    let site = format!("\n{HOST} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}\n");
    let ours = substituted(
        CADDY,
        &[
            ("{\n\t# Streams last", format!("{globals}\t# Streams last")),
            (&format!("\n{HOST} {{\n"), site),
            ("reverse_proxy 127.0.0.1:8700", format!("reverse_proxy {}", gateway(stack))),
        ],
    );
    let file = folder.join("Caddyfile");
    fs::write(&file, ours)?;
    Ok(["run", "--adapter", "caddyfile", "--config"]
        .map(str::to_owned)
        .into_iter()
        .chain([file.display().to_string()])
        .collect())
}

fn gateway(stack: &TestStack) -> SocketAddr {
    let e2e::http::Address::Tcp(address) = stack.gateway() else { unreachable!("it listens on TCP") };
    address
}

impl Proxy {
    async fn start(program: &str, stack: &TestStack) -> anyhow::Result<Option<Self>> {
        let also = ["/usr/sbin/nginx", "/usr/bin/caddy"].map(PathBuf::from);
        let there = on_path(program)
            .or_else(|| also.into_iter().find(|path| path.ends_with(program) && path.exists()));
        let (Some(binary), Some(curl)) = (there, on_path("curl")) else {
            log_line(&format!(
                "SKIPPED: {program} or curl is not installed; the configuration was not tested"
            ));
            return Ok(None);
        };
        let folder = stack.path(program);
        fs::create_dir(&folder)?;
        let ports = [free_address()?, free_address()?];
        let arguments = match program {
            "nginx" => nginx(&folder, stack, ports)?,
            _ => caddy(&folder, stack, ports)?,
        };
        let running = ExternalProgram::start(&binary, &arguments, &folder)?;
        let mut proxy = Self { running, address: ports[1], folder, curl };
        let up = wait_for(program, TIMEOUT, async || match std::net::TcpStream::connect(proxy.address) {
            Ok(_) => Some(()),
            Err(_) if proxy.running.is_running() => None,
            Err(_) => Some(()),
        });
        up.await?;
        anyhow::ensure!(proxy.running.is_running(), "{program} exited: {}", proxy.running.stderr());
        Ok(Some(proxy))
    }

    /// Starts curl with HTTP/2 over TLS from a loopback address.
    fn curl(&self, name: &str, from: &str, path: &str, more: &[&str]) -> anyhow::Result<ExternalProgram> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        let port = self.address.port();
        let mut arguments: Vec<String> =
            ["-sSN", "--noproxy", "*", "--http2", "--max-time", "60", "--interface", from]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(["--cacert".to_owned(), self.folder.join("cert.pem").display().to_string()]);
        arguments.extend(["--resolve".to_owned(), format!("{HOST}:{port}:{}", self.address.ip())]);
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

async fn check_proxy(program: &str) -> anyhow::Result<()> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1))?;
    origin.publish("feed-0", "First");
    stack.set("gateway.hosts", &format!("[{HOST:?}]"));
    stack.set("gateway.trusted_proxies", "[\"127.0.0.1\"]");
    stack.set("gateway.clients_per_address_max", "1");
    // It follows from the number of clients, and this test asks again and again until something is so.
    stack.set("gateway.requests_per_address", "0");
    stack.set("gateway.heartbeat", "\"2s\"");
    stack.start_both().await?;
    let Some(proxy) = Proxy::start(program, &stack).await? else { return Ok(()) };

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
    log_line(&format!("behind {program} the event arrived {:?} after the gateway had it", since.elapsed()));
    let before = stream.output_lines().len();
    wait_for("a heartbeat", Duration::from_secs(2) + AT_ONCE, async || {
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
    let resume = format!("Last-Event-ID: {}", id.context("the stream has ids")?);
    let other = proxy.curl("other", "127.0.0.2", "/news/stream?kinds=item", &["-H", &resume])?;
    let hello = wait_line(&other, "\"resume\":\"exact\"", TIMEOUT).await;
    hello.context("a client of another address resumes with an id")?;
    wait_line(&other, "Second", AT_ONCE).await?;

    assert_eq!(proxy.get("health", "/health").await?.1, "status 200 over 2");
    assert_eq!(proxy.get("metrics", "/metrics").await?.1, "status 404 over 2");

    stack.kill(Binary::Gateway)?;
    let (lines, status) = proxy.get("down", "/news/stream").await?;
    assert!(lines.iter().any(|l| l == "retry: 5000"), "{lines:?}");
    assert_eq!(status, "status 200 over 2", "{lines:?}");
    assert_eq!(proxy.get("page", "/health").await?.1, "status 502 over 2");
    Ok(())
}

#[tokio::test]
async fn behind_nginx_events_arrive_at_once_and_client_addresses_are_preserved() {
    check_proxy("nginx").await.unwrap();
}

#[tokio::test]
async fn behind_caddy_events_arrive_at_once_and_client_addresses_are_preserved() {
    check_proxy("caddy").await.unwrap();
}
