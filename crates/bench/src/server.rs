//! What is measured: the gateway as it is shipped, and the peer. Each a process of its own that we publish to.

mod gateway;
mod nchan;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
pub(crate) use gateway::{Door, Gateway};
pub(crate) use nchan::Nchan;
use tokio::time::Instant;

use crate::{
    fleet::Target,
    payload,
    process::{Process, Seats},
};

/// Events that both keep for whoever comes later: the gateway's default.
const KEPT: usize = 20_000;
/// How often both write to a client that gets nothing.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a server may take to serve.
const START: Duration = Duration::from_secs(10);

/// A server that takes events and gives them to clients.
pub(crate) trait Server {
    fn target(&self) -> Target;
    fn process(&self) -> &Process;
    /// Publishes what is given in one go.
    fn publish(&mut self, events: Vec<String>) -> anyhow::Result<()>;
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Ours,
    Peer,
}

/// A server, what has been published to it, and the clock that its events are stamped with.
pub(crate) struct Stand<S: ?Sized> {
    pub(crate) head: u64,
    pub(crate) began: Instant,
    item_bytes: usize,
    pub(crate) server: Box<S>,
}

impl Stand<dyn Server> {
    pub(crate) fn start(which: Which, seats: &Seats, item_bytes: usize) -> anyhow::Result<Self> {
        let server: Box<dyn Server> = match which {
            Which::Ours => Box::new(Gateway::start(seats, "", Door::Own(free_address()?), None)?),
            Which::Peer => Box::new(Nchan::start(seats)?),
        };
        Ok(Self { head: 0, began: Instant::now(), item_bytes, server })
    }
}

impl<S: ?Sized> Stand<S> {
    pub(crate) fn of(server: Box<S>, item_bytes: usize) -> Self {
        Self { head: 0, began: Instant::now(), item_bytes, server }
    }

    /// The next `n` events, stamped now.
    pub(crate) fn next(&mut self, n: u64) -> Vec<String> {
        let stamp = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let from = self.head + 1;
        self.head += n;
        (from..=self.head).map(|seq| payload::json(seq, stamp, self.item_bytes)).collect()
    }
}

impl<S: Server + ?Sized> Stand<S> {
    pub(crate) fn publish(&mut self, n: u64) -> anyhow::Result<()> {
        let events = self.next(n);
        self.server.publish(events)
    }
}

/// A port of ours that nobody uses.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    listener.local_addr().context("look for a free port")
}
