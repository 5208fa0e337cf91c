//! A forward proxy that speaks HTTP (CONNECT, and requests with a whole URL) and SOCKS5 on one port, and records what it was
//! asked for. It has names of its own, which no resolver knows.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use url::Url;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a client asked the proxy for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxiedRequest {
    /// `CONNECT`, `GET`, `POST` or `SOCKS`.
    pub method: String,
    /// Host and port.
    pub to: String,
    /// `Proxy-Authorization`, or `user:password` of SOCKS; empty if there was none.
    pub credentials: String,
}

/// A running proxy; dropping it refuses further connections.
pub struct ForwardProxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct ProxyState {
    names: Mutex<BTreeMap<String, SocketAddr>>,
    requests: Mutex<Vec<ProxiedRequest>>,
}

impl ForwardProxy {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::<ProxyState>::default();
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let serving = Arc::clone(&serving);
                // What a client does wrong ends its connection.
                tokio::spawn(async move { serving.serve(client).await.ok() });
            }
        });
        Ok(Self { address, state, task })
    }

    /// Makes a name that of the server of this URL; returns the URL under that name, at the default port.
    ///
    /// # Errors
    /// If it is no URL with an address.
    pub fn name(&self, name: &str, url: &str) -> io::Result<String> {
        let mut url = Url::parse(url).map_err(io::Error::other)?;
        let to = url.socket_addrs(|| None)?.first().copied().ok_or(io::ErrorKind::NotFound)?;
        lock(&self.state.names).insert(name.to_owned(), to);
        url.set_host(Some(name)).map_err(io::Error::other)?;
        url.set_port(None).map_err(|()| io::ErrorKind::InvalidInput)?;
        Ok(url.into())
    }

    /// Its URL, such as `socks5://user:password@127.0.0.1:1080`.
    #[must_use]
    pub fn url(&self, scheme: &str, credentials: &str) -> String {
        let at = if credentials.is_empty() { "" } else { "@" };
        format!("{scheme}://{credentials}{at}{}", self.address)
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ProxiedRequest> {
        lock(&self.state.requests).clone()
    }

    /// How many requests there were for a host.
    #[must_use]
    pub fn count(&self, host: &str) -> usize {
        let of_host = |request: &&ProxiedRequest| request.to.rsplit_once(':').is_some_and(|(h, _)| h == host);
        lock(&self.state.requests).iter().filter(of_host).count()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no thread panics while holding it")
}

impl ProxyState {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut first = [0];
        client.peek(&mut first).await?;
        let (mut server, sent) = if first == [5] {
            let (to, credentials) = greet(&mut client).await?;
            let server = self.connect("SOCKS", &to, credentials).await;
            let code = if server.is_ok() { 0 } else { 4 };
            client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            (server?, Vec::new())
        } else {
            self.read_http(&mut client).await?
        };
        server.write_all(&sent).await?;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    /// The server that an HTTP request is for, and what it gets of the request.
    async fn read_http(&self, client: &mut TcpStream) -> io::Result<(TcpStream, Vec<u8>)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
            if head.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let (line, rest) = head.split_once("\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let credentials = rest.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
        });
        let credentials = credentials.unwrap_or_default();
        if method == "CONNECT" {
            let server = self.connect(method, target, credentials).await;
            let answer: &[u8] = match server {
                Ok(_) => b"HTTP/1.1 200 Connected\r\n\r\n",
                Err(_) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            };
            client.write_all(answer).await?;
            return Ok((server?, Vec::new()));
        }
        let url = Url::parse(target).map_err(io::Error::other)?;
        let to = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        let server = self.connect(method, &to, credentials).await?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        // A real proxy removes what is for itself.
        let kept = rest.lines().filter(|line| !line.to_ascii_lowercase().starts_with("proxy-"));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        Ok((server, format!("{method} {}{query} HTTP/1.1\r\n{kept}", url.path()).into_bytes()))
    }

    /// Records a request and connects to its server: one of the names, or an address.
    async fn connect(&self, method: &str, to: &str, credentials: String) -> io::Result<TcpStream> {
        let request = ProxiedRequest { method: method.to_owned(), to: to.to_owned(), credentials };
        lock(&self.requests).push(request);
        let host = to.rsplit_once(':').map_or(to, |(host, _)| host);
        let named = lock(&self.names).get(host).copied();
        match named {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect(to.parse::<SocketAddr>().map_err(io::Error::other)?).await,
        }
    }
}

/// The server's side of RFC 1928 and RFC 1929, up to the request: its target, and `user:password`.
async fn greet(client: &mut TcpStream) -> io::Result<(String, String)> {
    client.read_u8().await?;
    let has_password = counted(client).await?.contains(&2);
    client.write_all(&[5, if has_password { 2 } else { 0 }]).await?;
    let mut credentials = String::new();
    if has_password {
        client.read_u8().await?;
        let (user, password) = (counted(client).await?, counted(client).await?);
        credentials = String::from_utf8([user, password].join(&b':')).map_err(io::Error::other)?;
        client.write_all(&[1, 0]).await?;
    }
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let ip = |ip: IpAddr, port| SocketAddr::new(ip, port).to_string();
    let to = match head[3] {
        1 => ip(Ipv4Addr::from(client.read_u32().await?).into(), client.read_u16().await?),
        4 => ip(Ipv6Addr::from(client.read_u128().await?).into(), client.read_u16().await?),
        _ => {
            let name = String::from_utf8(counted(client).await?).map_err(io::Error::other)?;
            format!("{name}:{}", client.read_u16().await?)
        }
    };
    Ok((to, credentials))
}

/// Bytes with their number before them.
async fn counted(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}
