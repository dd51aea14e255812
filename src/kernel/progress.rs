//! What the kernel knows of a peer: how much of what it has sent waits here, and if it is owed something, how much of that it
//! has acknowledged, and whether it is still there.
//!
//! Completed sends tell neither: the kernel takes bytes off a server's hands in large steps, and keeps them for a peer that
//! has vanished as for one that does not read. For TCP; of a Unix socket the same call tells how much memory the messages
//! take that the peer has not read to the end.

use std::io;
use std::os::fd::RawFd;

use crate::limits::PEER_SILENCE_MAX;

/// Questions in a row (segments sent again, probes of a closed window) without any answer: fewer may have been lost on the
/// way. Each comes later than the one before, so that it takes a while until there are so many.
const UNANSWERED_MIN: u8 = 3;

/// Bytes in the socket that have not been received (SIOCINQ, tcp(7)).
pub(super) fn unreceived_bytes(socket: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCINQ (the same number as FIONREAD) writes one int, which `bytes` is.
    let outcome = unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut bytes) };
    // As below.
    if outcome == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Bytes in the socket that have not been acknowledged, sent or not; a FIN counts as one (SIOCOUTQ, tcp(7)). Of a Unix socket,
/// the memory of what was sent and has not been read (unix_outq_len in net/unix/af_unix.c).
pub(super) fn outgoing_bytes(socket: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int, which `bytes` is.
    let outcome = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) };
    // It fails for no such socket; one that is broken has nothing to acknowledge any more, and its operations fail.
    if outcome == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether nothing has come from the peer for [`PEER_SILENCE_MAX`] although TCP has asked several times.
///
/// TCP_USER_TIMEOUT is no substitute: it gives up a live peer whose window stays closed, although that answers every probe
/// (tcp_probe_timer in net/ipv4/tcp_timer.c counts from the first one).
pub(super) fn peer_has_vanished(socket: RawFd) -> bool {
    tcp_info(socket).is_ok_and(|info| {
        let unanswered = info.tcpi_retransmits.max(info.tcpi_probes);
        u128::from(info.tcpi_last_ack_recv) >= PEER_SILENCE_MAX.as_millis() && unanswered >= UNANSWERED_MIN
    })
}

/// TCP_INFO, tcp(7).
fn tcp_info(socket: RawFd) -> io::Result<libc::tcp_info> {
    // SAFETY: a tcp_info is made of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut bytes = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a small structure");
    let place = (&raw mut info).cast();
    // SAFETY: getsockopt(2) writes at most `bytes` bytes to `place`, which is that long.
    let outcome = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut bytes) };
    if outcome == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::limits::UNIX_SEND_OVERHEAD_MIN;

    #[test]
    fn what_a_peer_has_sent_is_there_until_it_is_received() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (mut socket, _) = listener.accept().expect("one has connected");
        assert_eq!(unreceived_bytes(socket.as_raw_fd()), 0);
        peer.write_all(&[0; 1000]).expect("there is room");
        while unreceived_bytes(socket.as_raw_fd()) < 1000 {
            std::thread::yield_now();
        }
        socket.read_exact(&mut [0; 600]).expect("they are there");
        assert_eq!(unreceived_bytes(socket.as_raw_fd()), 400);
    }

    #[test]
    fn what_a_peer_does_not_take_is_unacknowledged_until_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (mut socket, _) = listener.accept().expect("one has connected");
        socket.set_nonblocking(true).expect("a TCP socket");
        let mut sent = 0;
        while let Ok(bytes) = socket.write(&[0; 65536]) {
            sent += bytes;
        }
        let unread = outgoing_bytes(socket.as_raw_fd());
        assert!(0 < unread && unread < sent, "{unread} of {sent} bytes, some of which the peer's side has taken");
        assert!(!peer_has_vanished(socket.as_raw_fd()), "it does not read, and is there");
        let mut read = vec![0; sent];
        peer.read_exact(&mut read).expect("all of it arrives");
        while outgoing_bytes(socket.as_raw_fd()) > 0 {
            std::thread::yield_now();
        }
    }

    /// What [`crate::connections::Connection::unread`] makes of it relies on this.
    #[test]
    fn what_a_peer_does_not_read_takes_memory_in_a_unix_socket() {
        let (mut socket, mut peer) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let (mut sent, mut taken) = (0, 0);
        for bytes in [1, 5, 200, 4000, 20_000] {
            socket.write_all(&vec![0; bytes]).expect("there is room");
            sent += bytes;
            let memory = outgoing_bytes(socket.as_raw_fd());
            assert!(memory >= taken + bytes + UNIX_SEND_OVERHEAD_MIN, "{bytes} bytes take {taken} to {memory}");
            taken = memory;
        }
        peer.read_exact(&mut vec![0; sent - 1]).expect("it was sent");
        let memory = outgoing_bytes(socket.as_raw_fd());
        assert!(0 < memory && memory < taken, "a byte of the last one is left");
        peer.read_exact(&mut [0]).expect("it was sent");
        assert_eq!(outgoing_bytes(socket.as_raw_fd()), 0);
        assert!(!peer_has_vanished(socket.as_raw_fd()));
    }
}
