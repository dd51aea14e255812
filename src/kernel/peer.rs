//! Who is at the other end of a connection, for the log.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockRef;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, by its address.
    Tcp(SocketAddr),
    /// Over a Unix socket, by the process that connected, if it is in sight of this one's.
    Unix {
        /// Its number, unless it is in another container.
        pid: Option<i32>,
        /// Its user.
        uid: u32,
    },
}

impl Peer {
    /// Who has connected to this socket; nobody knows once a TCP connection is broken.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Option<Peer> {
        let address = SockRef::from(&socket).peer_addr().ok()?;
        match address.as_socket() {
            Some(address) => Some(Peer::Tcp(address)),
            None => credentials(socket),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(formatter),
            Peer::Unix { pid: Some(pid), uid } => write!(formatter, "unix: pid {pid} of user {uid}"),
            Peer::Unix { pid: None, uid } => write!(formatter, "unix: a process of user {uid}"),
        }
    }
}

/// SO_PEERCRED, unix(7): as they were when the peer connected.
fn credentials(socket: BorrowedFd<'_>) -> Option<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = libc::socklen_t::try_from(size_of::<libc::ucred>()).expect("a small structure");
    let place = (&raw mut credentials).cast();
    let socket = socket.as_raw_fd();
    // SAFETY: getsockopt(2) writes at most `bytes` bytes to `place`, which is that long.
    let outcome = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut bytes) };
    let pid = (credentials.pid > 0).then_some(credentials.pid);
    (outcome == 0).then_some(Peer::Unix { pid, uid: credentials.uid })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_is_named_by_its_address_or_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (socket, address) = listener.accept().expect("one has connected");
        assert_eq!(Peer::of(socket.as_fd()), Some(Peer::Tcp(address)));
        assert_eq!(address, stream.local_addr().expect("it is bound"));
        let (socket, _stream) = UnixStream::pair().expect("descriptors");
        let name = Peer::of(socket.as_fd()).expect("it is connected").to_string();
        assert!(name.starts_with(&format!("unix: pid {} of user ", std::process::id())), "{name}");
        assert_eq!(Peer::Unix { pid: None, uid: 7 }.to_string(), "unix: a process of user 7");
    }
}
