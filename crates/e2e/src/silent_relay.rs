//! A TCP relay that can go silent: what a sleeping laptop, a NAT that has forgotten a connection, or a lost wifi looks
//! like to both ends. Nothing is closed, and nothing arrives any more.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A running relay; dropping it closes all connections.
pub struct SilentRelay {
    address: SocketAddr,
    /// How many connections are passed on.
    passing: watch::Sender<usize>,
    /// Counts the calls of [`SilentRelay::mute`].
    mutings: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl SilentRelay {
    /// Relays from a free port of 127.0.0.1 to `upstream`. While that cannot be reached, connections are closed at once.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (passing, mutings) = (watch::Sender::new(0), watch::Sender::new(0));
        let (count, muted) = (passing.clone(), mutings.subscribe());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut muted = muted.clone();
                muted.mark_unchanged();
                connections.spawn(relay(client, upstream, count.clone(), muted));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, passing, mutings, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes every open connection silent for ever; later ones are passed on. Returns how many there were.
    pub fn mute(&self) -> usize {
        let passing = *self.passing.borrow();
        self.mutings.send_modify(|count| *count += 1);
        passing
    }
}

impl Drop for SilentRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    mut client: TcpStream,
    upstream: SocketAddr,
    passing: watch::Sender<usize>,
    mut muted: watch::Receiver<u64>,
) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    // Delays would be blamed on the programs under test.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    passing.send_modify(|count| *count += 1);
    let is_muted = tokio::select! {
        // However the connection ended, both ends are closed.
        _ended = copy_bidirectional(&mut client, &mut server) => false,
        changed = muted.changed() => changed.is_ok(),
    };
    passing.send_modify(|count| *count -= 1);
    if is_muted {
        std::future::pending::<()>().await;
    }
}
