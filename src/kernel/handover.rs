//! Handing a port over to another process that listens on it too, so that no connection is refused or reset.
//!
//! Closing a listener resets every connection whose handshake ends at that moment on another CPU: the kernel looks whether
//! the listener listens, and then puts the connection into a queue that is gone by now. `net.ipv4.tcp_migrate_req`
//! (Linux 5.14) moves connections that come a little earlier or later to another listener, and cannot move those. So
//! the listeners are closed when no handshake is under way:
//!
//! 1. A classic BPF program, attached to the SO_REUSEPORT group (socket(7), Linux 4.6; needs no privilege), lets every
//!    new connection begin with a listener of the others ([`Handover::steer_to_others`]).
//! 2. The handshakes that have begun here end, and the connections are accepted. That is the caller's part.
//! 3. The listeners are closed, each behind a filter that drops what would begin a handshake (the peer sends it again after
//!    a second), and the program is taken off ([`Drop`]).
//!
//! The program names a listener by its index in the group. Listeners are added to its end, and when one leaves, the last
//! one takes its place (`reuseport_add_sock` and `reuseport_detach_sock` in net/core/sock_reuseport.c): those of the
//! process that is the oldest of the group have the first indices. Is it not the oldest, or do others come and go
//! meanwhile, then connections may still begin here, and the port is handed over as it would be without all this.
//! A process that is killed half-way leaves the program on: the others then share new connections unevenly until the next
//! of them hands over.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use socket2::{SockFilter, SockRef};

use super::socket_table::listening_sockets;

/// A process' listeners on a port that it may share. They listen until this is dropped, too.
#[derive(Debug)]
pub struct Handover {
    listeners: Vec<OwnedFd>,
    steered: bool,
}

impl Handover {
    /// For all of a process' listeners, which are on one port.
    pub fn new(listeners: Vec<OwnedFd>) -> Handover {
        Handover { listeners, steered: false }
    }

    /// From now on new connections begin with other processes' listeners. Returns how many of those there are; with none,
    /// nothing has changed.
    ///
    /// # Errors
    /// The system refuses the program, or does not tell of the others.
    pub fn steer_to_others(&mut self) -> io::Result<usize> {
        let ours = self.listeners.len();
        let others = count_on_port(&self.listeners[0])?.saturating_sub(ours);
        if others > 0 {
            attach_to_group(&self.listeners[0], &one_of(ours, others))?;
            self.steered = true;
        }
        Ok(others)
    }

    /// Closes the listeners such that each new connection finds another's, or is asked for once more.
    fn close_steered(&mut self) -> io::Result<()> {
        for listener in &self.listeners {
            SockRef::from(listener).attach_filter(&DROP_SYN)?;
        }
        // As ours leave, the others' last ones take their places. This index is another's as long as there is one of ours.
        attach_to_group(&self.listeners[0], &one_of(self.listeners.len(), 1))?;
        self.listeners.truncate(1);
        detach_from_group(&self.listeners[0])
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.steered
            && let Err(error) = self.close_steered()
        {
            tracing::warn!(%error, "the port is handed over at once, which may reset a connection");
        }
    }
}

/// How many sockets, of whatever process, listen on a listener's address and port.
fn count_on_port(listener: &OwnedFd) -> io::Result<usize> {
    let inode = File::from(listener.try_clone()?).metadata()?.ino();
    let sockets = listening_sockets();
    let own = sockets.iter().find(|socket| socket.inode == inode);
    let own = own.ok_or_else(|| io::Error::other("our own listener is not in /proc/net/tcp"))?;
    Ok(sockets.iter().filter(|socket| socket.local == own.local).count())
}

// ---- Programs of classic BPF (linux/filter.h).

const fn instruction(code: u32, operand: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, operand)
}

/// One of `count` listeners, at random, from the index `first` on.
fn one_of(first: usize, count: usize) -> [SockFilter; 4] {
    let number = |count| u32::try_from(count).expect("a machine has fewer listeners than that");
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, number(count)),
        instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, number(first)),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// Lets everything through but a SYN without an ACK. A listener's filter sees the TCP header first.
static DROP_SYN: [SockFilter; 5] = {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS_OFFSET),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, SYN),
        instruction(libc::BPF_RET | libc::BPF_K, 0),
        instruction(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ]
};

/// Lets a program choose the listener of each new connection to a listener's group: by its index, and if there is none
/// of that index, by the hash of the addresses, as without a program.
fn attach_to_group(listener: &OwnedFd, program: &[SockFilter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a short program"),
        // A SockFilter is a sock_filter, transparently.
        filter: program.as_ptr().cast_mut().cast(),
    };
    set_option(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Takes the program off a listener's group (Linux 5.3). That there is none is no error.
fn detach_from_group(listener: &OwnedFd) -> io::Result<()> {
    match set_option(listener, libc::SO_DETACH_REUSEPORT_BPF, &0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

fn set_option<T>(listener: &OwnedFd, name: libc::c_int, value: &T) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: setsockopt(2) reads `bytes` bytes from `value`, which is that long, and, for a sock_fprog, the instructions
    // that it points to: it is built above from a slice that outlives the call. The kernel keeps neither pointer.
    let outcome =
        unsafe { libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const *value).cast(), bytes) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::kernel::listener::{Listener, bind_port};

    fn listeners(port: u16, count: usize) -> (Vec<Listener>, Handover, SocketAddr) {
        let mut bound = bind_port(SocketAddr::from(([127, 0, 0, 1], port)), count, true).expect("a port to share");
        let (listeners, address) = (bound.take_listeners(), bound.address());
        (listeners, bound.listen().expect("all share").into_handover().expect("it shares"), address)
    }

    /// How many connections wait in each of the listeners; takes them.
    fn accepted(listeners: &[Listener]) -> Vec<usize> {
        let accept_all = |listener: &Listener| {
            let listener = TcpListener::from(listener.0.try_clone().expect("a descriptor"));
            listener.set_nonblocking(true).expect("a socket");
            std::iter::from_fn(|| listener.accept().ok()).count()
        };
        listeners.iter().map(accept_all).collect()
    }

    fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(address).expect("somebody listens")).collect()
    }

    #[test]
    fn new_connections_begin_with_the_others_once_the_port_is_being_handed_over() {
        for (ours, theirs) in [(1, 1), (2, 2), (3, 1), (1, 3)] {
            let (old, mut handover, address) = listeners(0, ours);
            let (new, _others, _) = listeners(address.port(), theirs);
            assert_eq!(handover.steer_to_others().expect("the program is taken"), theirs);
            let _streams = connect(address, 100);
            assert_eq!(accepted(&old).iter().sum::<usize>(), 0, "{ours} to {theirs}");
            let taken = accepted(&new);
            assert!(taken.iter().sum::<usize>() == 100 && taken.iter().all(|&count| count > 0), "{taken:?}");
        }
    }

    #[test]
    fn after_a_handover_the_others_share_connections_as_ever() {
        let (old, mut handover, address) = listeners(0, 2);
        let (new, _others, _) = listeners(address.port(), 3);
        handover.steer_to_others().expect("the program is taken");
        drop(old);
        drop(handover);
        assert_eq!(listening_sockets().iter().filter(|socket| socket.port() == Some(address.port())).count(), 3);
        let _streams = connect(address, 200);
        let taken = accepted(&new);
        assert!(taken.iter().sum::<usize>() == 200 && taken.iter().all(|&count| count > 0), "{taken:?}");
        // Nothing is left that the next one would have to take off.
        assert_eq!(
            set_option(&new[0].0, libc::SO_DETACH_REUSEPORT_BPF, &0).unwrap_err().raw_os_error(),
            Some(libc::ENOENT)
        );
    }

    #[test]
    fn alone_on_a_port_nothing_is_steered() {
        let (old, mut handover, address) = listeners(0, 2);
        assert_eq!(handover.steer_to_others().expect("the table can be read"), 0);
        let _streams = connect(address, 10);
        assert_eq!(accepted(&old).iter().sum::<usize>(), 10);
    }

    #[test]
    fn what_begins_a_handshake_is_dropped_and_not_refused() {
        let (old, _handover, address) = listeners(0, 1);
        SockRef::from(&old[0].0).attach_filter(&DROP_SYN).expect("a filter");
        let patience = std::time::Duration::from_millis(50);
        let error = TcpStream::connect_timeout(&address, patience).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
