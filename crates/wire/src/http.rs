//! HTTP to another process, over a Unix socket or TCP.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response};
use serde::{Deserialize, Serialize};

use crate::endpoint::{ClientError, Endpoint, Refusal};

/// How a route is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestMethod {
    /// Something is read.
    Get,
    /// Something is ordered.
    Post,
}

/// A request to another process.
#[derive(Clone, Debug)]
pub(crate) struct PeerRequest {
    pub(crate) method: RequestMethod,
    /// The route, which begins with `/`, and the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// How long the whole answer may take.
    pub(crate) deadline: Duration,
    /// Largest body of the answer.
    pub(crate) bytes_max: usize,
}

/// A client for one endpoint that speaks HTTP.
#[derive(Clone, Debug)]
pub(crate) struct EndpointClient {
    endpoint: Endpoint,
    client: Client,
}

/// The answer to a request that was not refused; its body is yet to come.
pub(crate) struct HttpAnswer {
    endpoint: Endpoint,
    response: Response,
    /// Bytes of the body that may still come.
    bytes_left: usize,
    bytes_max: usize,
}

impl EndpointClient {
    pub(crate) fn try_new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let client = endpoint.client()?;
        Ok(Self { endpoint, client })
    }

    /// Sends a request; returns once the head of its answer is there.
    pub(crate) async fn send(&self, request: PeerRequest) -> Result<HttpAnswer, ClientError> {
        let PeerRequest { method, path, headers, body, deadline, bytes_max } = request;
        let url = self.endpoint.url(&path)?;
        let builder = match method {
            RequestMethod::Get => self.client.get(url),
            RequestMethod::Post => self.client.post(url).body(body),
        };
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        let response = builder.timeout(deadline).send().await.map_err(|e| self.endpoint.no_response(&e))?;
        if !response.status().is_success() {
            return Err(ClientError::Refused(self.endpoint.clone(), Refusal::read(response).await));
        }
        Ok(HttpAnswer { endpoint: self.endpoint.clone(), response, bytes_left: bytes_max, bytes_max })
    }

    /// Sends a request; returns the whole body of the answer.
    pub(crate) async fn exchange(&self, request: PeerRequest) -> Result<Bytes, ClientError> {
        let mut answer = self.send(request).await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

impl HttpAnswer {
    /// The next bytes of the body; `None` after its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.response.chunk().await.map_err(|e| self.endpoint.no_response(&e))?;
        let Some(chunk) = chunk else { return Ok(None) };
        self.bytes_left = self
            .bytes_left
            .checked_sub(chunk.len())
            .ok_or_else(|| ClientError::TooLarge(self.endpoint.clone(), self.bytes_max))?;
        Ok(Some(chunk))
    }
}
