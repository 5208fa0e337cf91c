//! Listening sockets, with errors that say in one sentence what is wrong and what to do.
//!
//! A socket file left behind by a killed process is replaced. One that a process listens on is never touched, nor is a
//! file that is not a socket.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use control::ControlSocket;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::Exit;

/// Connections that may wait to be accepted: a burst of clients after a restart must not be refused.
const BACKLOG: i32 = 4_096;
/// Mode of a directory created for sockets: the group may enter it, others may not.
const DIRECTORY_MODE: u32 = 0o750;

/// Why a socket is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens on it.
    #[error("{} is in use by another process{}; stop that process or set a different {}", path.display(), pid_note(*pid), key(path))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The process that listens, if known.
        pid: Option<i32>,
    },
    /// A file, directory or link has that path.
    #[error("{} exists and is not a socket; move it or set a different {}", path.display(), key(path))]
    NotASocket {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The path does not fit into a socket address.
    #[error("{} is too long for a socket path (at most 107 bytes); set a shorter {}", path.display(), key(path))]
    TooLong {
        /// The path of the socket.
        path: PathBuf,
    },
    /// Any other error of the operating system.
    #[error("cannot {attempt} {}: {source}; check that {} is writable", path.display(), key(path))]
    Unix {
        /// What was attempted.
        attempt: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process listens on the port.
    #[error("port {} at {} is in use by another process; stop that process or set a different gateway.listen", address.port(), address.ip())]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// Any other error of the operating system.
    #[error("cannot listen on {address}: {source}; {}", tcp_remedy(source))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl SocketError {
    /// How a process ends that needs the socket: [`Exit::Locked`] if another process listens on it, otherwise [`Exit::Io`].
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

/// The key with which an operator moves a socket.
fn key(socket: &Path) -> &'static str {
    match socket.file_name().is_some_and(|name| name == ControlSocket::GatewayAdmin.file_name()) {
        // Several gateways have one `daemon.run_dir`, that of their ingestion daemon.
        true => "gateway.admin_dir",
        false => "daemon.run_dir",
    }
}

fn pid_note(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn tcp_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; set gateway.listen to a higher port"
        }
        io::ErrorKind::AddrNotAvailable => "set gateway.listen to an address that this machine has",
        _ => "check gateway.listen",
    }
}

/// Listens on a Unix socket with the permissions `mode`, such as `0o660`. Creates a missing directory with mode 0750.
///
/// The socket never has more permissions than `mode`, not even for a moment.
///
/// # Errors
/// See [`SocketError`]; an existing file is left as it was.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    // The umask that `bind_private` sets belongs to the process, so one thread at a time; the directory is created under
    // the same lock, so that the umask does not apply to it.
    static UMASK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let failed =
        |attempt| move |source: io::Error| SocketError::Unix { attempt, path: path.to_path_buf(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        .map_err(failed("create the directory of"))?;
    // Two processes that start at once must not both find the old socket dead and then remove each other's new one. The
    // calls under this lock do not block.
    let directory = File::open(parent).map_err(failed("open the directory of"))?;
    flock(&directory, FlockOperation::LockExclusive)
        .map_err(|e| failed("lock the directory of")(e.into()))?;
    remove_stale(path)?;
    let listener = bind_private(path).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::InUse { path: path.to_path_buf(), pid: None },
        _ => failed("bind")(error),
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the permissions of"))?;
    Ok(listener)
}

/// Binds without any permissions for group and others. Files that other threads create meanwhile get fewer permissions,
/// never more.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let previous = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(path);
    rustix::process::umask(previous);
    listener
}

/// Removes a socket that no process listens on, and nothing else.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed =
        |attempt| move |source: io::Error| SocketError::Unix { attempt, path: path.to_path_buf(), source };
    let address = SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong { path: path.to_path_buf() })?;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match probe(&address) {
        Ok(pid) => Err(SocketError::InUse { path: path.to_path_buf(), pid }),
        // A full queue means a slow listener, another socket type a different program: both are in use.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(SocketError::InUse { path: path.to_path_buf(), pid: None })
        }
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed("remove the stale socket")),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("connect to the existing socket")(errno.into())),
    }
}

/// Connects without blocking; returns the pid of the listener, if known.
fn probe(address: &SocketAddrUnix) -> Result<Option<i32>, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, address)?;
    Ok(rustix::net::sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_nonzero().get()))
}

/// Listens on a TCP address, non-blocking and with `SO_REUSEADDR`, so that a restart does not wait for old connections.
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
