//! Reverse proxies in front of a gateway: nginx and Caddy as we ship them, and nginx as many people write it.
//!
//! What must never happen here: a proxy that outlives its test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{ExternalProgram, free_address, log_line, on_path, wait_for};

const NGINX: &str = include_str!("../../../deploy/nginx/newswire.conf");
const CADDY: &str = include_str!("../../../deploy/caddy/Caddyfile");
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// Which program, with which configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// nginx with `proxy_pass` and nothing else: HTTP/1.0 to the gateway, and a 502 while it is down.
    PlainNginx,
    /// nginx with `deploy/nginx/newswire.conf`: TLS and HTTP/2.
    Nginx,
    /// Caddy with `deploy/caddy/Caddyfile`: TLS and HTTP/2.
    Caddy,
}

/// A running proxy in its own folder; killed when dropped.
pub struct ReverseProxy {
    running: ExternalProgram,
    kind: ProxyKind,
    address: SocketAddr,
    folder: PathBuf,
}

impl ReverseProxy {
    /// The host name in the shipped files.
    pub const HOST: &'static str = "news.example.org";
    /// The origin in the shipped files whose pages may read.
    const READER: &'static str = "https://reader.example.org";

    /// Starts it in front of `upstream`, in a new folder. Pages of `reader` may read its own answers. Reports a skipped
    /// test and returns `None` if the program is not installed.
    ///
    /// # Errors
    /// If it does not start, or under `CI=true` is not installed.
    pub async fn start(
        kind: ProxyKind,
        folder: PathBuf,
        upstream: SocketAddr,
        reader: &str,
    ) -> anyhow::Result<Option<Self>> {
        let name = if kind == ProxyKind::Caddy { "caddy" } else { "nginx" };
        let places = ["/usr/sbin", "/usr/bin"].map(|place| Path::new(place).join(name));
        let Some(binary) = on_path(name).or_else(|| places.into_iter().find(|path| path.exists())) else {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            anyhow::ensure!(!ci, "{name} is not installed (.ci/run does)");
            log_line(&format!("SKIPPED: {name} is not installed; its configuration was not tested"));
            return Ok(None);
        };
        fs::create_dir(&folder)?;
        let listen = [free_address()?, free_address()?];
        let arguments = match kind {
            ProxyKind::PlainNginx => nginx(&folder, &plain(upstream, listen[1]))?,
            ProxyKind::Nginx => nginx(&folder, &shipped_nginx(&folder, upstream, listen, reader)?)?,
            ProxyKind::Caddy => caddy(&folder, upstream, listen, reader)?,
        };
        let running = ExternalProgram::start(&binary, &arguments, &folder)?;
        let mut proxy = Self { running, kind, address: listen[1], folder };
        let up = wait_for(name, STARTED_WITHIN, async || match std::net::TcpStream::connect(proxy.address) {
            Err(_) if proxy.running.is_running() => None,
            _ => Some(()),
        });
        up.await?;
        anyhow::ensure!(proxy.running.is_running(), "{name} exited: {}", proxy.running.stderr());
        Ok(Some(proxy))
    }

    /// Where it serves clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its origin; a browser must resolve [`ReverseProxy::HOST`] and accept any certificate.
    #[must_use]
    pub fn origin(&self) -> String {
        match self.kind {
            ProxyKind::PlainNginx => format!("http://{}", self.address),
            ProxyKind::Nginx | ProxyKind::Caddy => format!("https://{}:{}", Self::HOST, self.address.port()),
        }
    }

    /// What it has written to standard error, and to its access log if it has one.
    #[must_use]
    pub fn logs(&self) -> String {
        self.running.stderr() + &fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }
}

/// Replaces texts of a shipped file; each must occur.
pub(crate) fn substituted(text: &str, changes: &[(&str, String)]) -> anyhow::Result<String> {
    changes.iter().try_fold(text.to_owned(), |text, (from, to)| {
        anyhow::ensure!(text.contains(from), "the shipped file has no {from:?}");
        Ok(text.replace(from, to))
    })
}

pub(crate) fn certificate(folder: &Path) -> anyhow::Result<[String; 2]> {
    let paths = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    if paths.iter().all(|path| path.exists()) {
        return Ok(paths.map(|path| path.display().to_string()));
    }
    let made = rcgen::generate_simple_self_signed([ReverseProxy::HOST.to_owned()])?;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok([cert, key].map(|path| path.display().to_string()))
}

fn plain(upstream: SocketAddr, listen: SocketAddr) -> String {
    format!("server {{ listen {listen}; location / {{ proxy_pass http://{upstream}; }} }}\n")
}

pub(crate) fn shipped_nginx(
    folder: &Path,
    upstream: SocketAddr,
    [plain, tls]: [SocketAddr; 2],
    reader: &str,
) -> anyhow::Result<String> {
    let [cert, key] = certificate(folder)?;
    let live = format!("/etc/letsencrypt/live/{}", ReverseProxy::HOST);
    substituted(
        NGINX,
        &[
            ("127.0.0.1:8700;", format!("{upstream};")),
            ("listen 80;", format!("listen {plain};")),
            ("    listen [::]:80;\n", String::new()),
            ("    listen 443 ssl http2;", format!("    listen {tls} ssl http2;")),
            ("    listen [::]:443 ssl http2;\n", String::new()),
            (&format!("{live}/fullchain.pem"), cert),
            (&format!("{live}/privkey.pem"), key),
            (&format!("# \"{}\"", ReverseProxy::READER), format!("\"{reader}\"")),
            ("/var/log/nginx/access.log", folder.join("access.log").display().to_string()),
        ],
    )
}

/// Writes the whole file and returns the arguments.
pub(crate) fn nginx(folder: &Path, servers: &str) -> anyhow::Result<Vec<String>> {
    let shown = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {shown}/{name};\n"))
        .concat();
    let whole = format!(
        "daemon off;\npid {shown}/pid;\nerror_log stderr warn;\nworker_processes 1;\nevents {{}}\n\
         http {{\n    access_log off;\n{temporary}{servers}}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, whole)?;
    Ok(vec!["-e".into(), "stderr".into(), "-c".into(), file.display().to_string()])
}

/// Writes the file and returns the arguments.
fn caddy(
    folder: &Path,
    upstream: SocketAddr,
    [plain, tls]: [SocketAddr; 2],
    reader: &str,
) -> anyhow::Result<Vec<String>> {
    let [cert, key] = certificate(folder)?;
    let host = ReverseProxy::HOST;
    let globals = format!("{{\n\tadmin off\n\thttp_port {}\n\thttps_port {}\n", plain.port(), tls.port());
    let site = format!("\n{host} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}\n");
    let whole = substituted(
        CADDY,
        &[
            ("{\n\t# Streams last", format!("{globals}\t# Streams last")),
            (&format!("\n{host} {{\n"), site),
            ("reverse_proxy 127.0.0.1:8700", format!("reverse_proxy {upstream}")),
            // So that every request is logged, whatever this version of Caddy logs of its own accord.
            ("\tlog {\n", "\tlog {\n\t\tlevel DEBUG\n".to_owned()),
            (ReverseProxy::READER, reader.to_owned()),
        ],
    )?;
    let file = folder.join("Caddyfile");
    fs::write(&file, whole)?;
    let arguments = ["run", "--adapter", "caddyfile", "--config"].map(str::to_owned);
    Ok(arguments.into_iter().chain([file.display().to_string()]).collect())
}
