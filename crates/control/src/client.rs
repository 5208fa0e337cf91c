//! A client of the control sockets: HTTP/1.1 over a Unix socket, one connection per request.
//!
//! One deadline covers connecting, the request and the last byte of the body, and the body has a limit: the process at
//! the other end may be stuck, stopped or not ours at all.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::{
    problem::{self, Problem},
    watch::ProcessIdentity,
};

/// The default deadline.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// The default limit of a body, bytes; the stacks of hundreds of threads fit.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The version of this crate, and so of the program that it is part of.
const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Sends requests to one socket. Cheap to create: it opens a connection per request.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
    deadline: Duration,
    body_bytes_max: usize,
}

/// A request without what the client adds (`Host`, `Connection: close`).
#[derive(Clone, Debug)]
pub struct ControlRequest {
    method: Method,
    path: String,
    accept: &'static str,
    content_type: Option<&'static str>,
    body: Bytes,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct ControlAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket does not exist: most likely its process is not running.
    #[error("there is no socket {}", .0.display())]
    Missing(PathBuf),
    /// The socket exists, but no process listens on it: a killed process left it behind.
    #[error("no process listens on {}", .0.display())]
    Refused(PathBuf),
    /// This user may not connect.
    #[error("no permission to connect to {}", .0.display())]
    Denied(PathBuf),
    /// The connection failed for any other reason.
    #[error("cannot connect to {}: {source}", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The answer was not complete before the deadline.
    #[error("{request} on {}: no complete answer within {deadline:?}", .socket.display())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// How long the client waited.
        deadline: Duration,
    },
    /// The connection was closed early, or the answer is not HTTP.
    #[error("{request} on {}: {source}", .socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// The reason.
        source: hyper::Error,
    },
    /// The body is larger than the client's limit.
    #[error("{request} on {}: the answer is larger than {bytes_max} bytes", .socket.display())]
    TooLarge {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The process answered with a problem.
    #[error(transparent)]
    Problem(Problem),
    /// The process answered with an error status and no problem, or has no such route: then it is another version.
    #[error("{request} on {}: status {status}", .socket.display())]
    Status {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// The HTTP status code.
        status: u16,
    },
    /// The body is not JSON.
    #[error("{request} on {}: the answer is not JSON: {source}", .socket.display())]
    NotJson {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// The body is JSON, but of another shape, such as that of another version.
    #[error("{request} on {}: {}{source}", .socket.display(), explain(.process.as_deref()))]
    Shape {
        /// The socket.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// Which process answered, if it said so.
        process: Option<Box<ProcessIdentity>>,
        /// Which field is missing or wrong.
        source: serde_json::Error,
    },
    /// The request is invalid, for example its path.
    #[error("cannot send {request}: {reason}")]
    BadRequest {
        /// Method and path.
        request: String,
        /// The reason.
        reason: String,
    },
}

fn explain(process: Option<&ProcessIdentity>) -> String {
    match process {
        Some(ProcessIdentity { name, version, .. }) if version != OUR_VERSION => {
            format!("{name} is version {version}, this tool is {OUR_VERSION}: ")
        }
        Some(ProcessIdentity { name, .. }) => format!("unexpected answer from {name}: "),
        None => "unexpected answer: ".to_owned(),
    }
}

impl ControlError {
    /// Whether no process listens there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Refused(_))
    }

    /// Whether the deadline passed before the answer was complete.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

impl ControlRequest {
    /// `GET`, of JSON.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST` without a body.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// `PUT` of text.
    #[must_use]
    pub fn put_text(path: impl Into<String>, text: impl Into<String>) -> Self {
        let body = Bytes::from(text.into());
        Self { content_type: Some("text/plain"), body, ..Self::new(Method::PUT, path) }
    }

    /// `POST` of `value` as JSON.
    ///
    /// # Errors
    /// [`ControlError::BadRequest`] if `value` cannot be serialised.
    pub fn post_json(path: impl Into<String>, value: &impl Serialize) -> Result<Self, ControlError> {
        let mut request = Self::new(Method::POST, path);
        let body = serde_json::to_vec(value);
        let body = body.map_err(|error| request.invalid(&error))?;
        (request.content_type, request.body) = (Some(JSON), body.into());
        Ok(request)
    }

    /// `POST` of any bytes.
    #[must_use]
    pub fn post_bytes(path: impl Into<String>, bytes: Bytes) -> Self {
        Self { content_type: Some(BYTES), body: bytes, ..Self::new(Method::POST, path) }
    }

    /// Sets `Accept`, which is JSON otherwise, such as `text/plain` or `*/*`.
    #[must_use]
    pub fn accept(self, media_type: &'static str) -> Self {
        Self { accept: media_type, ..self }
    }

    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), accept: JSON, content_type: None, body: Bytes::new() }
    }

    /// Method and path, for errors.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn invalid(&self, reason: &impl ToString) -> ControlError {
        ControlError::BadRequest { request: self.name(), reason: reason.to_string() }
    }

    fn build(&self) -> Result<Request<Full<Bytes>>, ControlError> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(self.path.as_str())
            .header(HOST, "localhost")
            .header(CONNECTION, "close")
            .header(ACCEPT, self.accept);
        if let Some(content_type) = self.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        request.body(Full::new(self.body.clone())).map_err(|error| self.invalid(&error))
    }
}

impl ControlClient {
    /// A client of `socket`, with [`DEADLINE`] and [`BODY_BYTES_MAX`].
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), deadline: DEADLINE, body_bytes_max: BODY_BYTES_MAX }
    }

    /// Sets the deadline of each request.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sets the limit of a body, bytes.
    #[must_use]
    pub fn body_bytes_max(self, body_bytes_max: usize) -> Self {
        Self { body_bytes_max, ..self }
    }

    /// The socket that it connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`, read as `T`.
    ///
    /// # Errors
    /// [`ControlError`]; a status other than 2xx is [`ControlError::Problem`] or [`ControlError::Status`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.request(ControlRequest::get(path)).await
    }

    /// `POST path` with `body` as JSON; otherwise as [`ControlClient::get`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        self.request(ControlRequest::post_json(path, body)?).await
    }

    /// Sends any request and reads the answer as `T`; otherwise as [`ControlClient::get`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn request<T: DeserializeOwned>(&self, request: ControlRequest) -> Result<T, ControlError> {
        let answer = self.send(&request).await?;
        let (socket, name) = (self.socket.clone(), request.name());
        if !(200..300).contains(&answer.status) {
            return Err(match serde_json::from_slice::<Problem>(&answer.body) {
                // Older versions answer an unknown route without a problem.
                Ok(problem) if problem.code != problem::UNKNOWN_ROUTE => ControlError::Problem(problem),
                _ => ControlError::Status { socket, request: name, status: answer.status },
            });
        }
        serde_json::from_slice(&answer.body).map_err(|source| {
            if source.is_data() {
                let process = ProcessIdentity::from_body(&answer.body).map(Box::new);
                ControlError::Shape { socket, request: name, process, source }
            } else {
                ControlError::NotJson { socket, request: name, source }
            }
        })
    }

    /// Sends any request and returns the answer as it is, also with an error status.
    ///
    /// # Errors
    /// [`ControlError`], if there is no complete answer.
    pub async fn send(&self, request: &ControlRequest) -> Result<ControlAnswer, ControlError> {
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
            let sent =
                exchange(stream, request.build()?, async |response| self.read(response, request).await);
            sent.await.unwrap_or_else(|source| Err(self.broken(request, source)))
        };
        let timeout = |_| ControlError::Timeout {
            socket: self.socket.clone(),
            request: request.name(),
            deadline: self.deadline,
        };
        tokio::time::timeout(self.deadline, exchange).await.map_err(timeout)?
    }

    async fn read(
        &self,
        mut response: Response<Incoming>,
        request: &ControlRequest,
    ) -> Result<ControlAnswer, ControlError> {
        let mut body = BytesMut::new();
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(|source| self.broken(request, source))?;
            let Ok(data) = frame.into_data() else { continue }; // trailers
            if body.len() + data.len() > self.body_bytes_max {
                return Err(ControlError::TooLarge {
                    socket: self.socket.clone(),
                    request: request.name(),
                    bytes_max: self.body_bytes_max,
                });
            }
            body.extend_from_slice(&data);
        }
        Ok(ControlAnswer { status: response.status().as_u16(), body: body.freeze() })
    }

    fn unreachable(&self, source: io::Error) -> ControlError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => ControlError::Missing(socket),
            io::ErrorKind::ConnectionRefused => ControlError::Refused(socket),
            io::ErrorKind::PermissionDenied => ControlError::Denied(socket),
            _ => ControlError::Connect { socket, source },
        }
    }

    fn broken(&self, request: &ControlRequest, source: hyper::Error) -> ControlError {
        ControlError::Broken { socket: self.socket.clone(), request: request.name(), source }
    }
}

/// One HTTP/1.1 exchange over any connection: sends `request`, and drives the connection while `read` works on the
/// response. Has neither a deadline nor a limit.
///
/// # Errors
/// If there is no response.
pub async fn exchange<T>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> Result<T, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move { Ok(read(sender.send_request(request).await?).await) };
    drive(connection, answer).await
}

/// Polls `connection` until `answer`, which depends on it, is ready. Errors of the connection reach `answer` as well.
async fn drive<T>(connection: impl Future<Output = hyper::Result<()>>, answer: impl Future<Output = T>) -> T {
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ended = &mut connection => {}
    }
    answer.await
}
