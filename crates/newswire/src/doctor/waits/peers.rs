//! The other end of a Unix socket, which only the kernel's socket diagnosis reports (sock_diag(7)).

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    unix::{ShowFlags, StateFlags, UnixRequest},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// Longest answer about one socket, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// The inode of the socket that a Unix socket is connected to, in this network namespace.
///
/// # Errors
/// If the kernel cannot tell, for example because the socket is in another network namespace, or has no peer.
pub(crate) fn of_unix(inode: u64) -> io::Result<u64> {
    let inode = u32::try_from(inode).map_err(io::Error::other)?;
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request =
        UnixRequest { state_flags: StateFlags::all(), inode, show_flags: ShowFlags::PEER, cookie: [0xff; 8] };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::UnixRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    // The kernel answers while it takes the request, so this does not wait.
    let len = socket.recv(&mut &mut answer[..], 0)?;
    let answer = answer.get(..len).unwrap_or_default();
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(found)) => found
            .peer()
            .map(u64::from)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the socket has no peer")),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel answered with something else")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd as _, unix::net::UnixStream};

    use super::*;
    use crate::doctor::waits::ends::{Channel, channel_of};

    #[test]
    fn the_other_end_of_a_unix_socket_is_found() {
        let (a, b) = UnixStream::pair().unwrap();
        let me = std::process::id().cast_signed();
        let inode = |stream: &UnixStream| match channel_of(me, stream.as_raw_fd()) {
            Some(Channel::Socket(inode)) => inode,
            other => panic!("{other:?}"),
        };
        assert_eq!(of_unix(inode(&a)).unwrap(), inode(&b));
        let left = inode(&a);
        drop(a);
        of_unix(left).unwrap_err();
    }
}
