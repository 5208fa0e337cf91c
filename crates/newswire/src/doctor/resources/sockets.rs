//! Whether the sockets on which a process listens can still be reached by their paths: a socket lives on when its file is
//! deleted, but no process can connect to it any more.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio::{net::UnixStream, time::timeout};

use super::SAMPLE_WITHIN;
use crate::{doctor::listener, within};

/// How long connecting may take. It does not wait for the process, unless the queue of the socket is full.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// A socket on which a process listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SocketPlace {
    pub(crate) path: String,
    pub(crate) state: SocketState,
}

/// What is at the path of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SocketState {
    /// The socket, as far as this user may tell.
    InPlace,
    /// Nothing.
    Missing,
    /// A socket of another process, or of none.
    Replaced {
        /// The process, and the name of its program.
        by: Option<(i32, String)>,
    },
}

/// Looks at the sockets of a process, which must be in the network namespace of this one.
pub(crate) async fn places(pid: i32) -> Vec<SocketPlace> {
    let paths = within::later(SAMPLE_WITHIN, move || listener::unix_of(pid)).await.unwrap_or_default();
    let mut places = Vec::new();
    for path in paths {
        let state = state(pid, &path).await;
        places.push(SocketPlace { path: path.display().to_string(), state });
    }
    places
}

async fn state(pid: i32, path: &Path) -> SocketState {
    let seen_by_it = PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path));
    // A path may have at most 108 bytes: the one through the root of the process may be too long.
    let ours = path.to_path_buf();
    let path = match within::later(CONNECT_WITHIN, move || ours.exists()).await {
        Some(true) => path,
        Some(false) => &seen_by_it,
        // Its file system hangs, which says nothing about the socket.
        None => return SocketState::InPlace,
    };
    match timeout(CONNECT_WITHIN, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => {
            let holder = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
            match holder.filter(|holder| *holder != pid) {
                Some(other) => SocketState::Replaced { by: Some((other, program(other))) },
                None => SocketState::InPlace,
            }
        }
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SocketState::Missing,
            io::ErrorKind::ConnectionRefused => SocketState::Replaced { by: None },
            _ => SocketState::InPlace,
        },
        // Its queue is full.
        Err(_) => SocketState::InPlace,
    }
}

fn program(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_whose_file_is_deleted_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let me = std::process::id().cast_signed();
        assert_eq!(state(me, &path).await, SocketState::InPlace);
        // As seen by the first process, which is not this one.
        let replaced = state(1, &path).await;
        assert!(
            matches!(&replaced, SocketState::Replaced { by: Some((pid, _)) } if *pid == me),
            "{replaced:?}"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(state(me, &path).await, SocketState::Missing);
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(state(me, &path).await, SocketState::Replaced { by: None });
    }
}
