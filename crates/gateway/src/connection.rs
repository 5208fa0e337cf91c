//! One client's TCP connection, and how to close it from outside.
//!
//! actix polls no body while the client's buffer is full, and its only deadline is that for the first head. So each
//! connection keeps a second descriptor of its socket, and is closed through that, whatever actix waits for. The
//! socket is gone when actix has dropped its own descriptor, too.

pub(crate) mod capacity;

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::rt::{net::TcpStream, task::JoinHandle};
use socket2::{SockRef, Socket};

use crate::{client_address::ClientAddress, state::AppState};

/// What the kernel buffers for a client that does not read (it counts as much again for its own bookkeeping); its
/// default grows to 4 MB.
const SEND_BUFFER_BYTES: usize = 96 * 1024;

/// One connection; lives as long as actix keeps it.
pub(crate) struct ClientConnection {
    state: Arc<AppState>,
    /// `None` if the connection was refused.
    counted: Option<ClientAddress>,
    /// The peer, as the watchdog shows it; formatted once, because every poll needs it.
    pub(crate) peer: Arc<str>,
    /// The second descriptor; `None` if none was left for it.
    handle: Option<Socket>,
    was_cut: Cell<bool>,
    /// Closes the connection unless it becomes a stream.
    deadline: RefCell<Option<JoinHandle<()>>>,
}

impl ClientConnection {
    /// Registers a connection that was just accepted; call it on its worker's thread.
    pub(crate) fn open(state: &Arc<AppState>, stream: &TcpStream) -> Rc<Self> {
        let socket = SockRef::from(stream);
        let limits = state.settings().limits;
        let bounded = socket
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .and(socket.set_tcp_user_timeout(Some(limits.unacknowledged)));
        if let Err(error) = bounded {
            tracing::debug!(%error, "could not set the options of a client's socket");
        }
        let handle = state.connections.acquire_handle().then(|| {
            let handle = socket.try_clone();
            if let Err(error) = &handle {
                tracing::debug!(%error, "could not duplicate a client's socket");
                state.connections.release_handle();
            }
            handle.ok()
        });
        let peer = stream.peer_addr();
        let address =
            peer.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let is_trusted = state.settings().trusts(address);
        let address = ClientAddress::from(address);
        let added = state.connections.try_add(address, is_trusted);
        let peer = peer.map_or_else(|_| "unknown".into(), |peer| peer.to_string().into());
        let connection = Rc::new(Self {
            state: Arc::clone(state),
            counted: added.is_ok().then_some(address),
            peer,
            handle: handle.flatten(),
            was_cut: Cell::default(),
            deadline: RefCell::default(),
        });
        state.metrics.connections.inc();
        match added {
            Ok(()) => connection.cut_after(limits.connection),
            Err(reason) => {
                // Without a response: a flood of connections must not become a flood of responses.
                socket.set_linger(Some(Duration::ZERO)).and(socket.shutdown(std::net::Shutdown::Both)).ok();
                state.metrics.connections_cut.get_or_create(&[("reason", reason)]).inc();
            }
        }
        connection
    }

    fn cut_after(self: &Rc<Self>, deadline: Duration) {
        let weak = Rc::downgrade(self);
        let timer = async move {
            tokio::time::sleep(deadline).await;
            if let Some(connection) = weak.upgrade() {
                connection.cut("deadline");
            }
        };
        *self.deadline.borrow_mut() = Some(actix_web::rt::spawn(timer));
    }

    /// Removes the deadline: the connection has become a stream, which is judged by its throughput.
    pub(crate) fn cancel_deadline(&self) {
        if let Some(deadline) = self.deadline.take() {
            deadline.abort();
        }
    }

    /// Closes the connection at once, and discards what the kernel still holds for it.
    pub(crate) fn cut(&self, reason: &'static str) {
        if self.was_cut.replace(true) {
            return;
        }
        self.state.metrics.connections_cut.get_or_create(&[("reason", reason)]).inc();
        tracing::debug!(subscriber = %self.peer, reason, "closed a connection");
        let Some(handle) = &self.handle else { return };
        let closed = handle.set_linger(Some(Duration::ZERO)).and(handle.shutdown(std::net::Shutdown::Both));
        if let Err(error) = closed {
            // It was closed already.
            tracing::debug!(subscriber = %self.peer, reason, %error, "could not close a connection");
        }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.cancel_deadline();
        if self.handle.is_some() {
            self.state.connections.release_handle();
        }
        if let Some(address) = self.counted {
            self.state.connections.remove(address);
        }
        self.state.metrics.connections.dec();
    }
}
