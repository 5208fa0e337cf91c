//! The socket that clients connect to: inherited from systemd, or bound.

use std::net::TcpListener;

use anyhow::Context as _;
use daemon::sockets::bind_tcp;
use listenfd::ListenFd;

use crate::error::GatewayError;

/// The socket that clients connect to.
pub(crate) struct ListeningSocket {
    pub(crate) listener: TcpListener,
    /// It was open before the process started, and stays open after its end.
    pub(crate) inherited: bool,
}

/// Takes the socket that systemd listens at for the process (`sd_listen_fds(3)`), or else binds `listen`.
///
/// # Errors
/// If neither is possible.
pub(crate) fn acquire(listen: std::net::SocketAddr) -> Result<ListeningSocket, GatewayError> {
    let inherited = ListenFd::from_env().take_tcp_listener(0).context("use the socket of LISTEN_FDS")?;
    match inherited {
        Some(listener) => {
            listener.set_nonblocking(true).context("use the socket of LISTEN_FDS")?;
            tracing::info!("using the listening socket of LISTEN_FDS; gateway.listen is ignored");
            Ok(ListeningSocket { listener, inherited: true })
        }
        None => Ok(ListeningSocket { listener: bind_tcp(listen)?, inherited: false }),
    }
}
