//! The network between one of our programs and NATS: relays that can be stalled, as by a lost route, or cut.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// What becomes of the bytes on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// They are passed on.
    Open,
    /// They are kept back until the path is open again, and nothing is closed: a lost route, a sleeping machine.
    Stalled,
    /// All connections are closed, and new ones, too.
    Cut,
}

/// A path to one or several servers. All its connections are closed when it is dropped.
pub struct NatsPath {
    addresses: Vec<SocketAddr>,
    state: Arc<watch::Sender<PathState>>,
    _accept: JoinSet<()>,
}

impl NatsPath {
    /// An open path to these servers.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let state = Arc::new(watch::channel(PathState::Open).0);
        let (mut addresses, mut accept) = (Vec::new(), JoinSet::new());
        for server in servers.iter().copied() {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
            addresses.push(listener.local_addr()?);
            let state = Arc::clone(&state);
            accept.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    while connections.try_join_next().is_some() {}
                    connections.spawn(pass_on(client, server, state.subscribe()));
                }
            });
        }
        Ok(Self { addresses, state, _accept: accept })
    }

    /// Where this end of the path is, for each of the servers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// `wire.nats_urls` for a program at this end of the path, as TOML.
    #[must_use]
    pub fn urls(&self) -> String {
        let url = |address: &SocketAddr| format!("\"nats://{address}\"");
        format!("[{}]", self.addresses.iter().map(url).collect::<Vec<_>>().join(", "))
    }

    /// Changes what becomes of the bytes, also of those of open connections.
    pub fn set(&self, state: PathState) {
        self.state.send_replace(state);
    }
}

async fn pass_on(client: TcpStream, server: SocketAddr, state: watch::Receiver<PathState>) {
    if *state.borrow() == PathState::Cut {
        return;
    }
    let mut until_open = state.clone();
    let open = until_open.wait_for(|state| *state != PathState::Stalled);
    let cut = {
        let mut state = state.clone();
        async move {
            // Fails only if the path is dropped.
            state.wait_for(|state| *state == PathState::Cut).await.ok();
        }
    };
    let both_ways = async {
        open.await.ok()?;
        let server = TcpStream::connect(server).await.ok()?;
        server.set_nodelay(true).ok()?;
        client.set_nodelay(true).ok()?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            end = one_way(from_client, to_server, state.clone()) => end,
            end = one_way(from_server, to_client, state.clone()) => end,
        }
    };
    tokio::select! {
        _ = both_ways => {}
        () = cut => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<PathState>,
) -> Option<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        state.wait_for(|state| *state == PathState::Open).await.ok()?;
        to.write_all(&buffer[..count]).await.ok()?;
    }
}
