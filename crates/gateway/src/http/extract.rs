//! The extractors: what handlers take from a request, such as the reader and what it may see.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpMessage as _, HttpRequest, dev::Payload, web};

use super::problem::HttpProblem;
use crate::{auth::authenticator::AuthorisedReader, state::AppState};

/// Marks a request whose response depends on the client's token.
pub(super) struct VaryByCredentials;

/// A handler that takes a reader serves authorised clients only.
impl FromRequest for AuthorisedReader {
    type Error = HttpProblem;
    type Future = Ready<Result<Self, HttpProblem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().expect("the app is given its state");
        let settings = state.settings();
        if settings.authenticator.is_enabled() {
            request.extensions_mut().insert(VaryByCredentials);
        }
        ready(match settings.authenticator.authorise(request.headers(), state.now()) {
            Ok(reader) => {
                if let Some(method) = reader.method {
                    state.metrics.readers_granted.get_or_create(&[("by", method.label())]).inc();
                }
                Ok(reader)
            }
            Err(error) => {
                state.metrics.readers_refused.get_or_create(&[("reason", error.reason())]).inc();
                Err(error.into())
            }
        })
    }
}
