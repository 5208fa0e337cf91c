//! Requests about sources that come while the daemon starts: they are answered when all sources are there.

use std::time::Duration;

use actix_web::{FromRequest, HttpRequest, dev::Payload, error::InternalError, web};
use control::Problem;
use futures_util::{FutureExt as _, future::LocalBoxFuture};

use super::control_state::ControlState;

/// Clients wait for three seconds at least.
const WITHIN: Duration = Duration::from_secs(2);

/// An argument of a handler that is called only when the sources of the first catalogue are there. Until then there is
/// nothing to say about a source that is missing; after two seconds the answer is 503, `starting`.
pub(super) struct AfterStart;

impl FromRequest for AfterStart {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<ControlState>>().cloned();
        async move {
            let Some(state) = state else { return Ok(Self) };
            state.registry.complete(WITHIN).await.map(|()| Self).map_err(|starting| {
                let response = daemon::problem::response(&Problem::new(503, "starting", starting));
                InternalError::from_response("starting", response).into()
            })
        }
        .boxed_local()
    }
}
