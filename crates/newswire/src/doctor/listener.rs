//! Which processes hold a listening socket, by its inode: a process that inherited the socket keeps it open after the
//! gateway is gone, and then clients connect and are never answered.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use procfs::{
    net::{TcpNetEntry, TcpState, UnixState},
    process::{FDTarget, Process, all_processes},
};
use serde::Serialize;

use super::{process, program};

/// The listening sockets of an address.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ListenerReport {
    pub(crate) address: String,
    pub(crate) sockets: Vec<Socket>,
    /// Processes whose files this user may not see; one of them may hold a socket without a known owner.
    pub(crate) blind_to: u32,
}

/// One listening socket.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Socket {
    pub(crate) inode: u64,
    pub(crate) address: String,
    /// Connections waiting to be accepted (`Recv-Q`).
    pub(crate) backlog: u32,
    /// The user it belongs to.
    pub(crate) uid: u32,
    pub(crate) owners: Vec<Owner>,
}

/// A process that holds a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Owner {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) uptime_ms: u64,
    /// Which of our programs it runs.
    pub(crate) program: Option<&'static str>,
}

impl Owner {
    /// systemd keeps the sockets that it passes to services, which is normal.
    pub(crate) fn is_systemd(&self) -> bool {
        self.name == "systemd"
    }
}

impl ListenerReport {
    /// All processes that hold one of the sockets.
    pub(crate) fn owners(&self) -> Vec<&Owner> {
        let mut owners: Vec<&Owner> = Vec::new();
        for owner in self.sockets.iter().flat_map(|socket| &socket.owners) {
            if owners.iter().all(|known| known.pid != owner.pid) {
                owners.push(owner);
            }
        }
        owners
    }

    pub(crate) fn backlog(&self) -> u32 {
        self.sockets.iter().map(|socket| socket.backlog).max().unwrap_or(0)
    }
}

/// The sockets that listen on an address, and their owners.
pub(crate) fn at(address: SocketAddr) -> Result<ListenerReport, String> {
    let entries = listening()?;
    let mut sockets: Vec<_> =
        entries.iter().filter(|e| serves(e.local_address, address)).map(socket).collect();
    let mut blind_to = 0;
    if !sockets.is_empty() {
        let inodes = sockets.iter().map(|socket| socket.inode).collect();
        let (mut owners, blind) = holders(&inodes);
        blind_to = blind;
        for socket in &mut sockets {
            socket.owners = owners.remove(&socket.inode).unwrap_or_default();
        }
    }
    Ok(ListenerReport { address: address.to_string(), sockets, blind_to })
}

/// The TCP addresses on which a process listens.
pub(crate) fn of(pid: i32) -> Vec<SocketAddr> {
    let (Ok(entries), Ok(process)) = (listening(), Process::new(pid)) else { return Vec::new() };
    let held = sockets_of(&process).unwrap_or_default();
    entries.iter().filter(|entry| held.contains(&entry.inode)).map(|entry| entry.local_address).collect()
}

/// The Unix sockets on which a process listens.
pub(crate) fn unix_of(pid: i32) -> Vec<PathBuf> {
    let Ok(process) = Process::new(pid) else { return Vec::new() };
    // Those of its own network namespace.
    let Ok(entries) = process.unix() else { return Vec::new() };
    let held = sockets_of(&process).unwrap_or_default();
    let folder = process.cwd().unwrap_or_default();
    let listening =
        entries.into_iter().filter(|e| e.state == UnixState::UNCONNECTED && held.contains(&e.inode));
    listening.filter_map(|entry| entry.path).map(|path| folder.join(path)).collect()
}

/// The process that listens on a Unix socket, also if it was bound by another path to the same file.
pub(crate) fn holder_of(socket: &Path) -> Option<i32> {
    let name = socket.file_name()?;
    let entries = procfs::net::unix().ok()?;
    let candidates = entries.into_iter().filter(|entry| {
        entry.state == UnixState::UNCONNECTED && entry.path.as_deref().and_then(Path::file_name) == Some(name)
    });
    let paths: HashMap<u64, PathBuf> = candidates.filter_map(|e| Some((e.inode, e.path?))).collect();
    let (holders, _) = holders(&paths.keys().copied().collect());
    let expected = socket.canonicalize().ok()?;
    holders.into_iter().find_map(|(inode, owners)| {
        let owner = owners.first()?;
        let folder = Process::new(owner.pid).ok()?.cwd().ok()?;
        (folder.join(paths.get(&inode)?).canonicalize().ok()? == expected).then_some(owner.pid)
    })
}

fn listening() -> Result<Vec<TcpNetEntry>, String> {
    let mut entries = procfs::net::tcp().map_err(|error| format!("/proc/net/tcp: {error}"))?;
    // A kernel without IPv6 has no such file.
    entries.extend(procfs::net::tcp6().unwrap_or_default());
    entries.retain(|entry| entry.state == TcpState::Listen);
    Ok(entries)
}

/// Whether a client that connects to `address` could reach this listener.
fn serves(listens: SocketAddr, address: SocketAddr) -> bool {
    let any = listens.ip().is_unspecified() || address.ip().is_unspecified();
    listens.port() == address.port() && (any || listens.ip() == address.ip())
}

fn socket(entry: &TcpNetEntry) -> Socket {
    Socket {
        inode: entry.inode,
        address: entry.local_address.to_string(),
        backlog: entry.rx_queue,
        uid: entry.uid,
        owners: Vec::new(),
    }
}

/// The owners of these sockets, the longest running first, and how many processes could not be examined.
fn holders(inodes: &BTreeSet<u64>) -> (HashMap<u64, Vec<Owner>>, u32) {
    let (mut holders, mut blind): (HashMap<u64, Vec<Owner>>, _) = (HashMap::new(), 0);
    for process in all_processes().into_iter().flatten().flatten() {
        match sockets_of(&process) {
            Some(held) => {
                for inode in held.intersection(inodes) {
                    holders.entry(*inode).or_default().push(owner(&process));
                }
            }
            None => blind += u32::from(process.is_alive()),
        }
    }
    for owners in holders.values_mut() {
        owners.sort_by_key(|owner| std::cmp::Reverse(owner.uptime_ms));
    }
    (holders, blind)
}

/// The sockets that a process holds, by their inodes.
pub(crate) fn held_by(pid: i32) -> Option<BTreeSet<u64>> {
    sockets_of(&Process::new(pid).ok()?)
}

/// The Unix sockets by which a process is connected, by their inodes.
pub(crate) fn connected_unix_of(process: &Process) -> Vec<u64> {
    // Those of its own network namespace.
    let (Ok(entries), Some(held)) = (process.unix(), sockets_of(process)) else { return Vec::new() };
    let connected = entries.into_iter().filter(|entry| entry.state == UnixState::CONNECTED);
    connected.map(|entry| entry.inode).filter(|inode| held.contains(inode)).collect()
}

fn sockets_of(process: &Process) -> Option<BTreeSet<u64>> {
    let inode = |target| match target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    };
    Some(process.fd().ok()?.flatten().filter_map(|fd| inode(fd.target)).collect())
}

fn owner(process: &Process) -> Owner {
    let stat = process.stat().ok();
    Owner {
        pid: process.pid(),
        uptime_ms: stat.as_ref().map_or(0, process::uptime_ms),
        name: stat.map(|stat| stat.comm).unwrap_or_default(),
        command: process::command(process),
        program: program::of(process.pid()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_owner_of_a_listening_socket_is_found_by_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waits = std::net::TcpStream::connect(address).unwrap();
        let found = at(address).unwrap();
        let me = std::process::id().cast_signed();
        assert_eq!(found.owners().iter().map(|owner| owner.pid).collect::<Vec<_>>(), [me]);
        assert_eq!(found.backlog(), 1);
        assert_eq!(of(me), [address]);
        drop(listener);
        assert!(at(address).unwrap().sockets.is_empty());
    }

    #[test]
    fn the_owner_of_a_unix_socket_is_found_even_if_it_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(holder_of(&path), Some(std::process::id().cast_signed()));
        assert_eq!(holder_of(&folder.path().join("b.sock")), None);
        assert_eq!(unix_of(std::process::id().cast_signed()), [path]);
    }

    #[test]
    fn a_listener_on_every_address_serves_each_of_them() {
        let serves = |a: &str, b: &str| serves(a.parse().unwrap(), b.parse().unwrap());
        assert!(serves("0.0.0.0:80", "127.0.0.1:80") && serves("[::]:80", "127.0.0.1:80"));
        assert!(serves("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!serves("127.0.0.1:80", "127.0.0.1:81") && !serves("10.0.0.1:80", "127.0.0.1:80"));
    }
}
