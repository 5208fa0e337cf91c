//! A client's connection, seen from outside.
//!
//! actix polls no body while the client's buffer is full, and has no deadline for anything but the first head. So each
//! connection keeps a second descriptor of its socket: whoever is to be ended is ended by that, whatever actix waits
//! for. Dropping the last handle closes the socket.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::rt::{net::TcpStream, task::JoinHandle};
use socket2::{SockRef, Socket};

use crate::hub::{Hub, neighbourhood};

/// What the kernel holds for a client that does not read, and the same again for its own accounts; its default goes
/// to 4 MB.
const SEND_BUFFER_BYTES: usize = 96 * 1024;
/// Connections beside the streams: health checks, pages, the page's own requests, streams on their way to a refusal.
const BESIDE_STREAMS: usize = 2048;
/// The same for one address.
const BESIDE_STREAMS_OF_AN_ADDRESS: usize = 1024;
/// Descriptors that the rest of the process needs: listeners, the wire, the workers' pollers, the log.
const DESCRIPTORS_OURS: usize = 64;
/// Fewer connections than this are no service.
const CONNECTIONS_MIN: usize = 8;

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<Open>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Room {
    /// Over it, a connection is closed as soon as it is accepted.
    max: usize,
    of_an_address_max: usize,
    /// Connections that have a second descriptor. The others cannot be ended from outside; what ends them when they do
    /// not read is the kernel's limit for what stays unacknowledged.
    twins_max: usize,
}

#[derive(Debug, Default)]
struct Open {
    room: Room,
    all: usize,
    twins: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Room {
    /// Room for the streams and what comes beside them, as far as `descriptors` go.
    fn new(clients_max: usize, of_an_address_max: usize, descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let ours = DESCRIPTORS_OURS.min(descriptors / 4 * 3);
        let (wanted, free) = (clients_max.saturating_add(BESIDE_STREAMS), descriptors - ours);
        // Every connection first, then the second descriptors; a sixth for those where there is too little for both.
        let max = wanted.min(free - free / 6).max(CONNECTIONS_MIN);
        Self {
            max,
            twins_max: free.saturating_sub(max),
            of_an_address_max: of_an_address_max.saturating_add(BESIDE_STREAMS_OF_AN_ADDRESS),
        }
    }
}

impl Connections {
    /// Room for the streams and what comes beside them, as far as `descriptors` go.
    pub(crate) fn new(clients_max: usize, of_an_address_max: usize, descriptors: u64) -> Self {
        let room = Room::new(clients_max, of_an_address_max, descriptors);
        Self { open: Mutex::new(Open { room, ..Open::default() }) }
    }

    /// The same room for other limits; nobody who is in is put out.
    pub(crate) fn resize(&self, clients_max: usize, of_an_address_max: usize, descriptors: u64) {
        self.open().room = Room::new(clients_max, of_an_address_max, descriptors);
    }

    pub(crate) fn max(&self) -> usize {
        self.open().room.max
    }

    /// Whether the last eighth is in use: then only what shows how we fare is answered.
    pub(crate) fn is_crowded(&self) -> bool {
        let open = self.open();
        open.all > open.room.max - open.room.max / 8
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Every change under it is complete before it can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more; tells whether there is room for it. A trusted proxy stands for many.
    fn enter(&self, address: IpAddr, trusted: bool) -> bool {
        let mut open = self.open();
        open.all += 1;
        let room = open.room;
        let here = open.by_address.entry(address).or_default();
        *here += 1;
        (trusted || *here <= room.of_an_address_max) && open.all <= room.max
    }

    /// Takes one of the second descriptors, if there is one left.
    fn take_twin(&self) -> bool {
        let mut open = self.open();
        let left = open.twins < open.room.twins_max;
        open.twins += usize::from(left);
        left
    }

    fn give_twin_back(&self) {
        self.open().twins -= 1;
    }

    fn leave(&self, address: IpAddr) {
        let mut open = self.open();
        open.all -= 1;
        if let Some(here) = open.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

/// One connection; lives as long as actix keeps it.
pub(crate) struct Connection {
    hub: Arc<Hub>,
    address: IpAddr,
    /// The peer, as the watchdog shows it; made once, as it is handed on at each poll.
    pub(crate) peer: Arc<str>,
    /// Nothing when there was no descriptor left for it.
    twin: Option<Socket>,
    was_cut: Cell<bool>,
    /// Ends it if it does not become a stream.
    deadline: RefCell<Option<JoinHandle<()>>>,
}

impl Connection {
    /// Takes over a connection that was just accepted; call it on its worker's thread.
    pub(crate) fn open(hub: &Arc<Hub>, stream: &TcpStream) -> Rc<Self> {
        let socket = SockRef::from(stream);
        let limits = hub.settings().limits;
        let bounded = socket
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .and(socket.set_tcp_user_timeout(Some(limits.unacknowledged)));
        if let Err(error) = bounded {
            tracing::debug!(%error, "could not bound a client's socket");
        }
        let twin = hub.connections.take_twin().then(|| {
            let twin = socket.try_clone();
            if let Err(error) = &twin {
                tracing::debug!(%error, "could not duplicate a client's socket");
                hub.connections.give_twin_back();
            }
            twin.ok()
        });
        let peer = stream.peer_addr();
        let address = peer.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let address = neighbourhood(address);
        let peer = peer.map_or_else(|_| "unknown".into(), |peer| peer.to_string().into());
        let (was_cut, deadline) = (Cell::default(), RefCell::default());
        let connection =
            Rc::new(Self { hub: Arc::clone(hub), address, peer, twin: twin.flatten(), was_cut, deadline });
        hub.numbers.connections.inc();
        let fits = hub.connections.enter(address, hub.settings().trusts(address));
        if fits {
            connection.end_after(limits.connection);
        } else {
            // Not counted below: a flood would be a flood of answers, too.
            socket.set_linger(Some(Duration::ZERO)).and(socket.shutdown(std::net::Shutdown::Both)).ok();
            hub.numbers.connections_cut.get_or_create(&[("reason", "full")]).inc();
        }
        connection
    }

    fn end_after(self: &Rc<Self>, within: Duration) {
        let weak = Rc::downgrade(self);
        let watch = async move {
            tokio::time::sleep(within).await;
            if let Some(connection) = weak.upgrade() {
                connection.cut("deadline");
            }
        };
        *self.deadline.borrow_mut() = Some(actix_web::rt::spawn(watch));
    }

    /// It has become a stream: from now on its pace counts.
    pub(crate) fn stays(&self) {
        if let Some(deadline) = self.deadline.take() {
            deadline.abort();
        }
    }

    /// Ends it at once, with what the kernel still holds for it.
    pub(crate) fn cut(&self, reason: &'static str) {
        if self.was_cut.replace(true) {
            return;
        }
        self.hub.numbers.connections_cut.get_or_create(&[("reason", reason)]).inc();
        tracing::debug!(subscriber = %self.peer, reason, "cut a connection");
        let Some(twin) = &self.twin else { return };
        let cut = twin.set_linger(Some(Duration::ZERO)).and(twin.shutdown(std::net::Shutdown::Both));
        if let Err(error) = cut {
            // It was gone already.
            tracing::debug!(subscriber = %self.peer, reason, %error, "could not cut a connection");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stays();
        if self.twin.is_some() {
            self.hub.connections.give_twin_back();
        }
        self.hub.connections.leave(self.address);
        self.hub.numbers.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_mean_few_connections_and_never_none() {
        let max = |clients, descriptors| Connections::new(clients, 64, descriptors).max();
        assert_eq!(max(10_000, u64::MAX), 12_048);
        assert_eq!(max(10_000, 20_000), 12_048, "where two each are too many, some go without the second");
        assert_eq!(max(10_000, 1024), 800);
        assert_eq!(max(10_000, 64), 14);
        assert_eq!(max(10_000, 3), 8);
    }

    #[test]
    fn the_last_eighth_is_a_crowd_and_an_address_has_its_share() {
        let connections = Connections::new(10, 0, 96);
        let room = Room { max: 16, of_an_address_max: 10, ..connections.open().room };
        connections.open().room = room;
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!((0..10).all(|_| connections.enter(one, false)));
        assert!(!connections.enter(one, false), "one address has its share");
        connections.leave(one);
        assert!((0..4).all(|_| connections.enter(other, false)));
        assert!(!connections.is_crowded());
        assert!(connections.enter(other, false) && connections.is_crowded());
        assert!(
            connections.enter(other, false) && !connections.enter(other, false),
            "nobody has more than all"
        );
        (0..10).for_each(|_| connections.leave(one));
        assert!(!connections.is_crowded());
    }
}
