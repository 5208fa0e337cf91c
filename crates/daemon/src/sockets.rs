//! Listening sockets that either work or say in one sentence why not and what to do.
//!
//! A socket file that a killed process left behind is taken over; one that somebody listens at is not touched, and
//! neither is anything that is no socket.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::Exit;

/// Connections that wait to be accepted; a burst of clients after a restart must not be refused.
const BACKLOG: i32 = 4_096;
/// Rights of a directory made for sockets: the group may pass, others may not.
const DIRECTORY_MODE: u32 = 0o750;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("{} is in use by another process{}; stop that one or set another daemon.run_dir", path.display(), pid_note(*pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Whoever listens, as far as the system tells.
        pid: Option<i32>,
    },
    /// A file, directory or link has the name.
    #[error("{} exists and is not a socket; move it away or set another daemon.run_dir", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The name does not fit into a socket address.
    #[error("{} is too long for a socket, which takes 107 bytes; set a shorter daemon.run_dir", path.display())]
    TooLong {
        /// The name.
        path: PathBuf,
    },
    /// The system refused for another reason.
    #[error("cannot {attempt} {}: {source}; check that daemon.run_dir can be written", path.display())]
    Unix {
        /// What was tried.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process listens at the port.
    #[error("port {} at {} is in use by another process; stop that one or set another gateway.listen", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("cannot listen at {address}: {source}; {}", tcp_remedy(source))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl SocketError {
    /// How a process ends that cannot go on without the socket: [`Exit::Locked`] when another instance has it, else
    /// [`Exit::Io`].
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            SocketError::InUse { .. } => Exit::Locked,
            _ => Exit::Io,
        }
    }
}

impl From<&SocketError> for Exit {
    fn from(error: &SocketError) -> Self {
        error.exit()
    }
}

fn pid_note(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn tcp_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right of their own, set gateway.listen to a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "set gateway.listen to an address that this machine has",
        _ => "check gateway.listen",
    }
}

/// Listens at a Unix socket with the rights `mode` (such as `0o660`); a missing directory is made with 0750.
///
/// The socket never has more rights than `mode`, not even for a moment.
///
/// # Errors
/// See [`SocketError`]; nothing that stood there before has been touched then.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    // The mask that `bind_narrow` sets belongs to the process, so one thread at a time; the directory is made under the
    // same guard, lest another thread's mask narrows it.
    static MASK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MASK.lock().unwrap_or_else(PoisonError::into_inner);
    let failed =
        |attempt| move |source: io::Error| SocketError::Unix { attempt, path: path.to_path_buf(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        .map_err(failed("make the directory of"))?;
    // Two processes that start together must not both find the old socket dead and remove each other's new one. The
    // lock is held across calls that do not wait.
    let directory = File::open(parent).map_err(failed("open the directory of"))?;
    flock(&directory, FlockOperation::LockExclusive)
        .map_err(|e| failed("lock the directory of")(e.into()))?;
    make_room(path)?;
    let listener = bind_narrow(path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::InUse { path: path.to_path_buf(), pid: None },
        _ => failed("bind")(error),
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the rights of"))?;
    Ok(listener)
}

/// Binds with all rights of group and others masked. What other threads create meanwhile gets fewer rights, never more.
fn bind_narrow(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

/// Removes a socket at which nobody listens, and nothing else.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let failed =
        |attempt| move |source: io::Error| SocketError::Unix { attempt, path: path.to_path_buf(), source };
    let address = SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong { path: path.to_path_buf() })?;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match probe(&address) {
        Ok(pid) => Err(SocketError::InUse { path: path.to_path_buf(), pid }),
        // A full queue has somebody behind it who is slow; another type of socket has another kind of owner.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(SocketError::InUse { path: path.to_path_buf(), pid: None })
        }
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed("remove the stale socket")),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("connect to the socket that exists at")(errno.into())),
    }
}

/// Connects without waiting; returns whom to, as far as the system tells.
fn probe(address: &SocketAddrUnix) -> Result<Option<i32>, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, address)?;
    Ok(rustix::net::sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_nonzero().get()))
}

/// Listens at a TCP address, not blocking, with `SO_REUSEADDR`, so that a restart does not wait for old connections.
///
/// # Errors
/// See [`SocketError`].
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, SocketError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => SocketError::PortInUse { address },
        _ => SocketError::Tcp { address, source },
    })
}
