//! Load balancers in front of several gateways, as we ship them: nginx and HAProxy.
//!
//! What must never happen here: a balancer that outlives its test.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;

use crate::{
    ExternalProgram, ReverseProxy, free_address, log_line, on_path,
    reverse_proxy::{certificate, nginx, shipped_nginx, substituted},
    wait_for,
};

const NGINX_GATEWAYS: &str = include_str!("../../../deploy/nginx/newswire-gateways.conf");
const HAPROXY: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");
/// The gateways in the shipped files.
const SHIPPED: [&str; 2] = ["10.0.0.21:8700", "10.0.0.22:8700"];
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancerKind {
    /// nginx with `deploy/nginx/newswire.conf` and `newswire-gateways.conf`.
    Nginx,
    /// HAProxy with `deploy/haproxy/haproxy.cfg`.
    HaProxy,
}

/// A running balancer; killed when dropped.
pub struct LoadBalancer {
    running: ExternalProgram,
    kind: BalancerKind,
    folder: PathBuf,
    gateways: [SocketAddr; 2],
    /// For plain HTTP to another port, plain HTTP, and TLS.
    listen: [SocketAddr; 3],
    reader: String,
}

impl LoadBalancer {
    /// Starts it in front of two gateways, in a new folder. Pages of `reader` may read its own answers. Reports a skipped test
    /// and returns `None` if the program is not installed.
    ///
    /// # Errors
    /// If it does not start, or under `CI=true` is not installed.
    pub async fn start(
        kind: BalancerKind,
        folder: PathBuf,
        gateways: [SocketAddr; 2],
        reader: &str,
    ) -> anyhow::Result<Option<Self>> {
        let name = if kind == BalancerKind::Nginx { "nginx" } else { "haproxy" };
        let places = ["/usr/sbin", "/usr/bin"].map(|place| Path::new(place).join(name));
        let Some(binary) = on_path(name).or_else(|| places.into_iter().find(|path| path.exists())) else {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            anyhow::ensure!(!ci, "{name} is not installed (.ci/run does)");
            log_line(&format!("SKIPPED: {name} is not installed; its configuration was not tested"));
            return Ok(None);
        };
        fs::create_dir(&folder)?;
        let listen = [free_address()?, free_address()?, free_address()?];
        let reader = reader.to_owned();
        let arguments = match kind {
            BalancerKind::Nginx => nginx(&folder, &nginx_servers(&folder, gateways, listen, &reader, None)?)?,
            BalancerKind::HaProxy => haproxy(&folder, gateways, listen, &reader)?,
        };
        let running = ExternalProgram::start(&binary, &arguments, &folder)?;
        let mut balancer = Self { running, kind, folder, gateways, listen, reader };
        let address = balancer.plain();
        let up = wait_for(name, STARTED_WITHIN, async || match std::net::TcpStream::connect(address) {
            Err(_) if balancer.running.is_running() => None,
            _ => Some(()),
        });
        up.await?;
        anyhow::ensure!(balancer.running.is_running(), "{name} exited: {}", balancer.running.stderr());
        Ok(Some(balancer))
    }

    /// Where it serves plain HTTP, which the shipped files do not.
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        self.listen[1]
    }

    /// Where it serves HTTPS, with the certificate `cert.pem` of its folder.
    #[must_use]
    pub fn tls(&self) -> SocketAddr {
        self.listen[2]
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Does what the shipped file says before a gateway is stopped: nothing with HAProxy, which asks the gateway itself.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn take_out(&self, gateway: usize) -> anyhow::Result<()> {
        self.rewrite(Some(gateway))
    }

    /// Puts all gateways in again.
    ///
    /// # Errors
    /// As [`LoadBalancer::take_out`].
    pub fn put_in(&self) -> anyhow::Result<()> {
        self.rewrite(None)
    }

    fn rewrite(&self, out: Option<usize>) -> anyhow::Result<()> {
        if self.kind == BalancerKind::Nginx {
            nginx(
                &self.folder,
                &nginx_servers(&self.folder, self.gateways, self.listen, &self.reader, out)?,
            )?;
            self.running.signal(Signal::HUP)?;
        }
        Ok(())
    }

    /// What HAProxy thinks of a server, such as `UP` of `newswire/a`; `None` if it does not say.
    #[must_use]
    pub fn state_of(&self, server: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
        socket.set_read_timeout(Some(STARTED_WITHIN)).ok()?;
        socket.write_all(b"show stat\n").ok()?;
        let mut table = String::new();
        socket.read_to_string(&mut table).ok()?;
        // pxname,svname, and the status is the 18th column.
        let line =
            table.lines().find(|line| line.replacen(',', "/", 1).starts_with(&format!("{server},")))?;
        line.split(',').nth(17).map(str::to_owned)
    }

    /// What it has written.
    #[must_use]
    pub fn logs(&self) -> String {
        self.running.stderr() + &fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }
}

fn nginx_servers(
    folder: &Path,
    gateways: [SocketAddr; 2],
    [other, plain, tls]: [SocketAddr; 3],
    reader: &str,
    out: Option<usize>,
) -> anyhow::Result<String> {
    let server = |number: usize| {
        let down = if out == Some(number) { " down" } else { "" };
        (format!("{} ", SHIPPED[number]), format!("{}{down} ", gateways[number]))
    };
    let changes = [server(0), server(1)];
    let changes: Vec<_> = changes.iter().map(|(from, to)| (from.as_str(), to.clone())).collect();
    let upstream = substituted(NGINX_GATEWAYS, &changes)?;
    let whole = shipped_nginx(folder, gateways[0], [other, tls], reader)?;
    let (begin, end) = (whole.find("upstream newswire {"), whole.find("}\n"));
    let (begin, end) = begin.zip(end).context("newswire.conf has a block `upstream newswire`")?;
    let whole = format!("{}{upstream}{}", &whole[..begin], &whole[end + 2..]);
    let listen = format!("    listen {tls} ssl http2;");
    substituted(&whole, &[(&listen, format!("    listen {plain};\n{listen}"))])
}

fn haproxy(
    folder: &Path,
    gateways: [SocketAddr; 2],
    [other, plain, tls]: [SocketAddr; 3],
    reader: &str,
) -> anyhow::Result<Vec<String>> {
    let [cert, key] = certificate(folder)?;
    let both = folder.join("both.pem");
    fs::write(&both, fs::read_to_string(cert)? + &fs::read_to_string(key)?)?;
    let whole = substituted(
        HAPROXY,
        &[
            (SHIPPED[0], gateways[0].to_string()),
            (SHIPPED[1], gateways[1].to_string()),
            ("    bind :80\n", format!("    bind {other}\n")),
            ("    bind :443 ssl", format!("    bind {plain}\n    bind {tls} ssl")),
            ("/etc/haproxy/news.example.org.pem", both.display().to_string()),
            ("/run/haproxy/admin.sock", folder.join("admin.sock").display().to_string()),
            ("https://reader.example.org", reader.to_owned()),
            // Its limit of open files follows from that.
            ("maxconn 20000", "maxconn 500".to_owned()),
            ("log /dev/log local0", "log stderr format raw local0".to_owned()),
        ],
    )?;
    anyhow::ensure!(whole.contains(ReverseProxy::HOST), "the shipped file names the host");
    let file = folder.join("haproxy.cfg");
    fs::write(&file, whole)?;
    Ok(vec!["-db".into(), "-f".into(), file.display().to_string()])
}
