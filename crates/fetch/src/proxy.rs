//! Through a proxy to the host of a request: `CONNECT` of HTTP (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

use std::{io, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header::HOST};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use news::ProxyUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    cause::{EndlessInterim, causes, is_closed},
    head_bounds::MeteredStream,
    stream::{BoxStream, ConnectionTask, http, is_https},
    userinfo::has_credentials,
};

/// Whether a proxy reads a request to an address of this scheme, as it is sent without a tunnel.
pub(crate) fn reads(proxy: &ProxyUrl, scheme: Option<&str>) -> bool {
    !proxy.is_socks() && scheme != Some("https")
}

/// Methods of SOCKS5.
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
/// Types of addresses in SOCKS5.
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;

/// Why a proxy does not connect to the host of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("it answered {}", status_line(*.status))]
    Status { status: StatusCode, headers: Box<HeaderMap> },
    #[error("it answered {}; {}", status_line(StatusCode::PROXY_AUTHENTICATION_REQUIRED), login_advice(*.has_login))]
    WantsLogin { has_login: bool },
    #[error("what it sent is not HTTP")]
    NotHttp,
    #[error("what it sent is not SOCKS5")]
    NotSocks,
    #[error("{}", login_advice(*.has_login))]
    SocksLogin { has_login: bool },
    #[error("it answered that it {0}")]
    Socks(&'static str),
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
    #[error("it sent {0}")]
    EndlessInterim(EndlessInterim),
    #[error("it closed the connection before it answered")]
    Closed,
    #[error("it closed the connection when it had the user name and the password, which it may not accept")]
    ClosedAtLogin,
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl ProxyError {
    /// Whether the proxy has answered, or has tried a password: another try could lock the account.
    pub(crate) fn is_answer(&self) -> bool {
        !matches!(self, Self::Closed | Self::Io(_))
    }

    /// The head of an answer that does not connect.
    pub(crate) fn into_head(self) -> Option<Box<HeaderMap>> {
        if let Self::Status { headers, .. } = self { Some(headers) } else { None }
    }
}

impl From<io::Error> for ProxyError {
    fn from(error: io::Error) -> Self {
        if is_closed(&error) { Self::Closed } else { Self::Io(error) }
    }
}

impl From<EndlessInterim> for ProxyError {
    fn from(endless: EndlessInterim) -> Self {
        Self::EndlessInterim(endless)
    }
}

impl From<hyper::Error> for ProxyError {
    fn from(error: hyper::Error) -> Self {
        match causes(&error).find_map(|cause| cause.downcast_ref::<EndlessInterim>()) {
            Some(endless) => Self::EndlessInterim(*endless),
            None if error.is_parse() => Self::NotHttp,
            None => Self::Closed,
        }
    }
}

/// A status with the phrase of the standard, if it has one: never that of the server.
pub(crate) fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(phrase) => format!("{} {phrase}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What helps against a 407, the answer of a proxy that wants a login.
pub(crate) fn login_advice_for(proxy: &ProxyUrl) -> &'static str {
    login_advice(has_credentials(proxy.secret()))
}

fn login_advice(has_login: bool) -> &'static str {
    if has_login {
        "it does not accept the user name and the password in its address"
    } else {
        "it wants a user name and a password; write them into its address"
    }
}

/// Asks a proxy that speaks HTTP for a tunnel.
///
/// # Errors
/// [`ProxyError`].
pub(crate) async fn tunnel(
    stream: BoxStream,
    to: &Uri,
    more: HeaderMap,
    has_login: bool,
) -> Result<BoxStream, ProxyError> {
    let authority = format!("{}:{}", to.host().unwrap_or_default(), port(to));
    let uri = Uri::builder().authority(authority.as_str()).build().map_err(io::Error::other)?;
    let host = HeaderValue::try_from(authority).map_err(io::Error::other)?;
    let mut headers = HeaderMap::from_iter([(HOST, host)]);
    headers.extend(more);
    let mut request = Request::connect(uri).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    *request.headers_mut() = headers;
    let (stream, head) = MeteredStream::new(stream);
    let note = Arc::clone(&head);
    hyper::ext::on_informational(&mut request, move |_| note.note_interim());
    let (mut sender, connection) = http().handshake(TokioIo::new(stream)).await?;
    let _task = ConnectionTask(tokio::spawn(connection.with_upgrades()));
    let response = sender.send_request(request).await?;
    head.complete()?;
    match response.status() {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(ProxyError::WantsLogin { has_login }),
        status if !status.is_success() => {
            return Err(ProxyError::Status { status, headers: Box::new(response.into_parts().0.headers) });
        }
        _ => {}
    }
    let upgraded = hyper::upgrade::on(response).await?;
    // Fails for another type only. A server of TLS never speaks first.
    let parts = upgraded.downcast::<TokioIo<MeteredStream>>().map_err(|_| ProxyError::NotHttp)?;
    if parts.read_buf.is_empty() { Ok(parts.io.into_inner().into_inner()) } else { Err(ProxyError::NotHttp) }
}

/// Asks a proxy that speaks SOCKS5 for a connection. With a login, the proxy chooses whether it wants it.
///
/// # Errors
/// [`ProxyError`].
pub(crate) async fn socks(
    mut stream: BoxStream,
    to: &Uri,
    login: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<BoxStream, ProxyError> {
    let has_login = login.is_some();
    let methods: &[u8] = if has_login { &[5, 2, NO_LOGIN, LOGIN] } else { &[5, 1, NO_LOGIN] };
    stream.write_all(methods).await?;
    match (read(&mut stream).await?, login) {
        ([5, NO_LOGIN], _) => {}
        ([5, LOGIN], Some((user, password))) => {
            let (user, password) = (counted("the user name", &user)?, counted("the password", &password)?);
            stream.write_all(&[&[1][..], &user, &password].concat()).await?;
            let closed = |_| ProxyError::ClosedAtLogin;
            let [_, code] = read(&mut stream).await.map_err(closed)?;
            if code != 0 {
                return Err(ProxyError::SocksLogin { has_login });
            }
        }
        ([5, LOGIN | NO_METHOD], _) => return Err(ProxyError::SocksLogin { has_login }),
        _ => return Err(ProxyError::NotSocks),
    }
    let address = socks_address(to.host().unwrap_or_default())?;
    stream.write_all(&[&[5, 1, 0][..], &address, &port(to).to_be_bytes()].concat()).await?;
    match read(&mut stream).await? {
        [5, 0] => {}
        [5, code] => return Err(ProxyError::Socks(socks_refusal(code))),
        _ => return Err(ProxyError::NotSocks),
    }
    let [_reserved, kind] = read(&mut stream).await?;
    let address_bytes = match kind {
        IPV4 => 4,
        IPV6 => 16,
        DOMAIN => usize::from(stream.read_u8().await?),
        _ => return Err(ProxyError::NotSocks),
    };
    stream.read_exact(&mut vec![0; address_bytes + 2]).await?;
    Ok(stream)
}

async fn read<const N: usize>(stream: &mut BoxStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn counted(what: &'static str, text: &[u8]) -> Result<Vec<u8>, ProxyError> {
    let count = u8::try_from(text.len()).map_err(|_| ProxyError::TooLong(what))?;
    Ok([&[count][..], text].concat())
}

fn socks_address(host: &str) -> Result<Vec<u8>, ProxyError> {
    Ok(match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(ip)) => [&[IPV4][..], &ip.octets()].concat(),
        Ok(IpAddr::V6(ip)) => [&[IPV6][..], &ip.octets()].concat(),
        Err(_) => [vec![DOMAIN], counted("the name of the host", host.as_bytes())?].concat(),
    })
}

/// The reply codes of RFC 1928, section 6.
fn socks_refusal(code: u8) -> &'static str {
    match code {
        2 => "does not allow this connection",
        3 => "cannot reach the network of the host",
        4 => "cannot reach the host, or does not know its name",
        5 => "was refused by the host",
        6 => "could not reach the host in time",
        7 => "does not know the command CONNECT",
        8 => "does not support this type of address",
        _ => "failed",
    }
}

fn port(to: &Uri) -> u16 {
    to.port_u16().unwrap_or(if is_https(to) { 443 } else { 80 })
}
