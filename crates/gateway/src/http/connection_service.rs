//! actix-web's `App` on the sockets of one thread.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_http::{HttpService, KeepAlive, error::DispatchError};
use actix_service::{
    IntoServiceFactory as _, Service, ServiceFactory as _, ServiceFactoryExt as _, map_config,
};
use actix_web::{App, Error, dev::AppConfig, middleware::from_fn, web};
use anyhow::Context as _;

use super::{middleware, routes};
use crate::{
    connection::{AcceptedConnection, ClientConnection, client_io::ClientIo},
    state::AppState,
    stream::worker_streams::WorkerStreams,
};

/// The head of a response fits, so that it goes out with the first events.
const WRITE_BUFFER_BYTES: usize = 1024;

/// Serves the connections of this thread. `streams` is `None` on a thread without streams.
///
/// # Errors
/// If the routes are impossible.
pub(super) async fn start(
    state: &Arc<AppState>,
    streams: Option<Rc<WorkerStreams>>,
) -> anyhow::Result<impl Fn(AcceptedConnection) + use<>> {
    let limits = state.settings().limits;
    let app = App::new()
        .app_data(web::Data::from(Arc::clone(state)))
        .wrap(from_fn(middleware::secure))
        .configure(routes::configure);
    let app = match streams {
        Some(streams) => app.app_data(streams),
        None => app,
    };
    let app = app.into_factory().map_err(|error: Error| error.error_response());
    let service = HttpService::build()
        .client_request_timeout(limits.head)
        .client_disconnect_timeout(Duration::from_secs(1))
        // actix has a deadline for the first head of a connection only, so there is one request per connection.
        .keep_alive(KeepAlive::Disabled)
        // A stream is not polled while more than this waits to be sent; otherwise the buffer would double.
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        // Otherwise a client that closes an idle stream is noticed only when the next write fails.
        .h1_allow_half_closed(false)
        .on_connect_ext(|io: &ClientIo, data| {
            data.insert(Rc::clone(io.connection()));
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let service = service.new_service(()).await.ok().context("prepare the routes")?;
    Ok(serve_with(Arc::clone(state), service))
}

/// Serves each connection in a task of its own.
fn serve_with<S>(state: Arc<AppState>, service: S) -> impl Fn(AcceptedConnection)
where
    S: Service<(ClientIo, Option<SocketAddr>), Response = (), Error = DispatchError> + 'static,
{
    move |accepted| {
        let peer = accepted.peer;
        match ClientConnection::open(&state, accepted) {
            Ok((socket, first, connection)) => {
                let io = ClientIo::new(socket, first, Rc::clone(&connection));
                actix_web::rt::spawn(connection.serve(service.call((io, Some(peer)))));
            }
            Err(error) => {
                state.metrics.accept_failures.get_or_create(&[("reason", "other")]).inc();
                tracing::warn!(%error, "could not wait for a client's socket");
            }
        }
    }
}
