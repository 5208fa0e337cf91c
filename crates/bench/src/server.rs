//! The measured servers: the release gateway and the peer, each a process that events are published to.

mod gateway;
mod nats;
mod nchan;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
pub(crate) use gateway::{DaemonOf, GatewayServer, ListenOn, for_many_clients};
pub(crate) use nats::NatsServers;
pub(crate) use nchan::Nchan;
use tokio::time::Instant;

use crate::{
    fleet::StreamTarget,
    payload,
    process::{CpuPartition, ServerProcess},
};

/// Events that both keep for later clients: the gateway's default.
const KEPT: usize = 20_000;
/// Heartbeat interval of both.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Deadline of a start.
const START: Duration = Duration::from_secs(60);

/// A server that delivers published events to clients.
pub(crate) trait Server {
    fn target(&self) -> StreamTarget;
    fn process(&self) -> &ServerProcess;
    /// Publishes events all at once.
    fn publish(&mut self, events: Vec<String>) -> anyhow::Result<()>;
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Peer,
}

/// A server with the events published to it and the origin of their stamps.
pub(crate) struct MeasuredServer<S: ?Sized> {
    pub(crate) head: u64,
    pub(crate) began: Instant,
    item_bytes: usize,
    pub(crate) server: Box<S>,
}

impl MeasuredServer<dyn Server> {
    pub(crate) fn start(side: Side, cpus: &CpuPartition, item_bytes: usize) -> anyhow::Result<Self> {
        let server: Box<dyn Server> = match side {
            Side::Ours => Box::new(GatewayServer::start_empty(cpus, &for_many_clients())?),
            Side::Peer => Box::new(Nchan::start(cpus)?),
        };
        Ok(Self { head: 0, began: Instant::now(), item_bytes, server })
    }
}

impl<S: ?Sized> MeasuredServer<S> {
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

impl<S: Server + ?Sized> MeasuredServer<S> {
    pub(crate) fn publish(&mut self, n: u64) -> anyhow::Result<()> {
        let events = self.next(n);
        self.server.publish(events)
    }
}

/// A free port of 127.0.0.1.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    listener.local_addr().context("find a free port")
}
