//! The actix server: its workers and its timeouts.

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer, dev::ServerHandle, http::KeepAlive, middleware::from_fn, rt::net::TcpStream, web,
};
use anyhow::Context as _;

use super::{middleware, routes};
use crate::{connection::ClientConnection, state::AppState, stream::worker_streams::WorkerStreams};

/// The head of a response fits, so that it goes out with the first events.
const WRITE_BUFFER_BYTES: usize = 2048;

/// Starts the server; `workers` of 0 means one per processor.
///
/// # Errors
/// If it cannot use the socket.
pub(crate) fn start(
    state: &Arc<AppState>,
    listener: TcpListener,
    workers: usize,
) -> anyhow::Result<ServerHandle> {
    let workers = match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let limits = state.settings().limits;
    let (app_state, connection_state) = (Arc::clone(state), Arc::clone(state));
    let app = move || {
        App::new()
            .app_data(web::Data::from(Arc::clone(&app_state)))
            .app_data(WorkerStreams::start(Arc::clone(&app_state)))
            .wrap(from_fn(middleware::secure))
            .configure(routes::configure)
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .disable_signals()
        .shutdown_timeout(1)
        .client_request_timeout(limits.head)
        .client_disconnect_timeout(Duration::from_secs(1))
        // actix has a deadline for the first head of a connection only, so there is one request per connection.
        .keep_alive(KeepAlive::Disabled)
        // A stream is not polled while more than this waits to be sent; otherwise the buffer would double.
        .h1_write_buffer_size(WRITE_BUFFER_BYTES)
        .tcp_nodelay(true)
        // Otherwise a client that closes an idle stream is noticed only when the next write fails.
        .h1_allow_half_closed(false)
        // At actix's own limit clients would wait in the backlog, neither served nor refused.
        .max_connections(usize::MAX / 2)
        .on_connect(move |stream, data| {
            if let Some(stream) = stream.downcast_ref::<TcpStream>() {
                data.insert(ClientConnection::open(&connection_state, stream));
            }
        })
        .listen(listener)
        .context("serve")?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}
