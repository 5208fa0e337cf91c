//! A relay between a client and the gateway that can stop passing anything on, without closing a connection: what a
//! sleeping machine, a lost route or a stuck proxy look like.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// The relay; its connections are closed when it is dropped.
pub struct MuteRelay {
    /// Where clients connect.
    pub address: SocketAddr,
    state: Arc<RelayState>,
    _accept: JoinSet<()>,
}

struct RelayState {
    to: SocketAddr,
    /// How often the open connections were muted.
    muted: watch::Sender<usize>,
    /// New connections are accepted, and mute from the start.
    mute_new: AtomicBool,
    accepted: AtomicUsize,
}

impl MuteRelay {
    /// Starts to pass everything on.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr()?;
        let state = Arc::new(RelayState {
            to,
            muted: watch::channel(0).0,
            mute_new: AtomicBool::default(),
            accepted: AtomicUsize::default(),
        });
        let mut accept = JoinSet::new();
        let accepting = Arc::clone(&state);
        accept.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepting.accepted.fetch_add(1, Relaxed);
                connections.spawn(Arc::clone(&accepting).relay(client));
            }
        });
        Ok(Self { address, state, _accept: accept })
    }

    /// Passes nothing on any more for the connections that are open now; they stay open.
    pub fn mute_open(&self) {
        self.state.muted.send_modify(|times| *times += 1);
    }

    /// Whether new connections are accepted and then mute.
    pub fn mute_new(&self, mute: bool) {
        self.state.mute_new.store(mute, Relaxed);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Relaxed)
    }
}

impl RelayState {
    async fn relay(self: Arc<Self>, mut client: TcpStream) {
        let mut muted = self.muted.subscribe();
        if !self.mute_new.load(Relaxed) {
            let Ok(mut gateway) = TcpStream::connect(self.to).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut gateway) => return,
                _ = muted.changed() => {}
            }
            std::future::pending::<()>().await;
        }
        std::future::pending::<()>().await;
    }
}
