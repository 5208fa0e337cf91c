//! Where another process is reached, and why a request to it failed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::BytesMut;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

/// What is read of the answer to a refused request.
pub(crate) const PROBLEM_BYTES_MAX: usize = 16 * 1024;

/// Where the other process listens.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A Unix socket of this program.
    Socket(PathBuf),
    /// A server, such as `http://127.0.0.1:8700/`.
    Url(Url),
    /// The daemon of this name, over NATS.
    Nats(Arc<str>),
}

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is invalid.
    #[error("cannot create a client for {0}: {1}")]
    Setup(Endpoint, String),
    /// There is no connection, or it ended before the response did.
    #[error("cannot reach {0}: {1}")]
    Unreachable(Endpoint, String),
    /// There was no whole response in time.
    #[error("{0} did not answer in time")]
    Late(Endpoint),
    /// The response has another status than expected.
    #[error("{0} answered {1}")]
    Refused(Endpoint, Refusal),
    /// The response is too large.
    #[error("the response of {0} is larger than {1} bytes")]
    TooLarge(Endpoint, usize),
}

/// A response with another status than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// The `detail` of problem JSON (RFC 9457), if the response has one; untrusted text.
    pub detail: Option<String>,
}

/// What is read of a problem.
#[derive(Deserialize)]
struct RefusalProblem {
    detail: String,
}

impl Refusal {
    /// Reads at most the first [`PROBLEM_BYTES_MAX`] bytes of a response; what is not a problem has no detail.
    pub(crate) async fn read(mut response: Response) -> Self {
        let status = response.status();
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > PROBLEM_BYTES_MAX {
                break;
            }
        }
        let problem = serde_json::from_slice::<RefusalProblem>(&body);
        Self { status, detail: problem.ok().map(|problem| problem.detail) }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.status),
            None => write!(f, "{}", self.status),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Url(url) => write!(f, "{}://{}", url.scheme(), url.authority()),
            Self::Nats(daemon) => write!(f, "daemon {daemon} over NATS"),
        }
    }
}

impl Endpoint {
    /// The URL of a route; `path` begins with `/` and includes the query.
    ///
    /// # Errors
    /// If the path does not form a URL.
    pub(crate) fn url(&self, path: &str) -> Result<Url, ClientError> {
        let joined = match self {
            Self::Socket(_) => Url::parse("http://ingestd").and_then(|base| base.join(path)),
            Self::Url(base) => base.join(path),
            Self::Nats(_) => return Err(self.no_http()),
        };
        joined.map_err(|e| ClientError::Setup(self.clone(), e.to_string()))
    }

    /// A client that connects to this endpoint only: no proxy, no redirects.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        // Fails if another one is installed already, which is fine.
        rustls::crypto::ring::default_provider().install_default().ok();
        let builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A pooled connection may have died with its server: each exchange has a new one.
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(5));
        let builder = match self {
            // No TLS on a socket: the client must work on a machine without certificate authorities.
            Self::Socket(path) => builder.unix_socket(path.as_path()).tls_certs_only([]),
            Self::Url(_) => builder.tcp_keepalive(Duration::from_secs(30)),
            Self::Nats(_) => return Err(self.no_http()),
        };
        builder.build().map_err(|e| ClientError::Setup(self.clone(), deepest(&e)))
    }

    fn no_http(&self) -> ClientError {
        ClientError::Setup(self.clone(), "NATS carries requests and their answers, and not HTTP".to_owned())
    }

    pub(crate) fn no_response(&self, error: &reqwest::Error) -> ClientError {
        match error.is_timeout() {
            true => ClientError::Late(self.clone()),
            false => ClientError::Unreachable(self.clone(), deepest(error)),
        }
    }
}

/// The innermost cause, because the outer ones repeat the URL.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
