//! Work for the pool on behalf of a request, and the answer that it becomes.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};

use super::{problem::HttpProblem, routes};
use crate::{
    client_address::ClientAddress,
    pages::{body::SharedBody, pool::PageClient},
    state::AppState,
};

/// A request that the pool works for.
#[derive(Clone, Copy)]
pub(super) struct PageJob<'a> {
    state: &'a AppState,
    what: &'static str,
    client: PageClient,
}

impl<'a> PageJob<'a> {
    pub(super) fn of(request: &HttpRequest, state: &'a AppState) -> Self {
        let settings = state.settings();
        let client = PageClient::new(ClientAddress::of_request(request, &settings), &settings);
        Self { state, what: routes::label(request.method(), request.path()), client }
    }

    /// Whose request it is.
    pub(super) fn address(self) -> ClientAddress {
        self.client.address
    }

    /// Does the work, within the limit of a handler.
    ///
    /// # Errors
    /// 429, 503: there is too much work, or it was not finished in time.
    pub(super) async fn run<T: Send + 'static>(
        self,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, HttpProblem> {
        let deadline = self.state.settings().limits.handler;
        Ok(self.state.pages.run(self.what, self.client, deadline, job).await?)
    }

    /// The body, once its bytes are reserved.
    ///
    /// # Errors
    /// 429, 503: too many bytes wait for clients.
    pub(super) fn reserve(self, body: SharedBody) -> Result<SharedBody, HttpProblem> {
        let reserved = self.state.unsent.reserve(self.client.address, body.len())?;
        Ok(body.with_reservation(reserved))
    }
}

/// JSON that clients may store, and ask about each time.
pub(super) fn revalidated_json(etag: &str, body: SharedBody) -> HttpResponse {
    HttpResponse::build(StatusCode::OK)
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::ETAG, etag))
        .body(body)
}

/// 304 for a client that has the current version.
pub(super) fn still_current(etag: &str) -> HttpResponse {
    HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish()
}
