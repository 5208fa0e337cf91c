//! Requests to another process: HTTP over a Unix socket or TCP, or request and reply over NATS.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    endpoint::{ClientError, Endpoint},
    http::{EndpointClient, PeerRequest, RequestMethod},
    nats::{NatsConnection, requests::NatsRequester},
};

/// A client for one endpoint. One for HTTP takes milliseconds and 100 KB, so keep one per runtime; one for NATS is cheap.
#[derive(Clone, Debug)]
pub struct PeerClient(Carrier);

#[derive(Clone, Debug)]
enum Carrier {
    Http(EndpointClient),
    Nats(NatsRequester),
}

impl PeerClient {
    /// Creates a client for an endpoint that speaks HTTP; no connection is made yet.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn try_new(endpoint: Endpoint) -> Result<Self, ClientError> {
        Ok(Self(Carrier::Http(EndpointClient::try_new(endpoint)?)))
    }

    /// A client for the daemon of this name, over a connection to NATS that may serve others too.
    #[must_use]
    pub fn over_nats(connection: NatsConnection, daemon: &str) -> Self {
        Self(Carrier::Nats(NatsRequester::new(connection, daemon)))
    }

    /// Fetches a route, within `deadline` and at most `bytes_max` of body.
    ///
    /// # Errors
    /// [`ClientError`], also for any status but 2xx.
    pub async fn get(&self, path: &str, deadline: Duration, bytes_max: usize) -> Result<Bytes, ClientError> {
        self.exchange(PeerRequest {
            method: RequestMethod::Get,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            deadline,
            bytes_max,
        })
        .await
    }

    /// Sends JSON to a route; otherwise as [`PeerClient::get`].
    ///
    /// # Errors
    /// [`ClientError`], also for any status but 2xx.
    pub async fn post(
        &self,
        path: &str,
        json: String,
        deadline: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, ClientError> {
        let headers = [("content-type", "application/json")];
        self.post_bytes(path, &headers, json.into(), deadline, bytes_max).await
    }

    /// Sends bytes with these headers to a route; otherwise as [`PeerClient::get`].
    ///
    /// # Errors
    /// [`ClientError`], also for any status but 2xx.
    pub async fn post_bytes(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        deadline: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, ClientError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.exchange(PeerRequest {
            method: RequestMethod::Post,
            path: path.to_owned(),
            headers: headers.iter().map(owned).collect(),
            body,
            deadline,
            bytes_max,
        })
        .await
    }

    async fn exchange(&self, request: PeerRequest) -> Result<Bytes, ClientError> {
        match &self.0 {
            Carrier::Http(client) => client.exchange(request).await,
            Carrier::Nats(requester) => requester.exchange(request).await,
        }
    }
}
