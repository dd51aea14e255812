//! Handing a port over to other processes that listen on it too, so that no connection is refused or reset.
//!
//! Closing a listener resets every connection whose handshake ends at that moment on another CPU: the kernel looks whether
//! the listener listens, and then puts the connection into a queue that is gone by now. `net.ipv4.tcp_migrate_req`
//! (Linux 5.14) moves connections that come a little earlier or later to another listener, and cannot move those. So
//! the listeners are closed when no handshake is under way:
//!
//! 1. Every new connection begins with a listener of the others ([`super::steering`]). What would begin with ours after all is
//!    dropped, and is sent again by its peer after a second ([`Handover::begin`]).
//! 2. The handshakes that have begun here end, and the connections are accepted. That is the caller's part.
//! 3. The listeners are closed ([`Drop`]).
//!
//! The dropping alone makes it right, whoever else is there and in whatever order: all that the steering saves is the second.
//! So where it is not certain, nothing is steered: others are starting or stopping at this moment, /proc does not tell how
//! many they are, or our place among them cannot be found out. The lock on the port is held meanwhile, so that the others'
//! listeners stay where they are. A process that is killed half-way leaves the steering on: the others then share new
//! connections unevenly until the next one starts or stops.
//!
//! Some systems let no unprivileged process attach a filter to a socket. There the listeners are closed as those of a port that
//! is not shared: each by its I/O thread, right behind the last connection that waits in it. A handshake that ends in
//! the microseconds between is reset.
//!
//! Alone on the port, there is nobody to hand it over to: all is done as if it were not shared.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use socket2::Socket;

use super::claim::PortLock;
use super::socket_table::SocketTable;
use super::steering::{Probe, drop_handshakes, steer_past, stop_steering};
use crate::limits::HANDOVER_SETTLE;

/// How long others who start or stop at the same moment are waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

/// Descriptors that the handover needs, had when there are some.
#[derive(Debug)]
pub(super) struct Reserved {
    address: SocketAddr,
    lock: PortLock,
    probe: Probe,
    /// None where there is no /proc.
    table: Option<SocketTable>,
    /// Of our listeners.
    inodes: Vec<u64>,
}

impl Reserved {
    /// For all of a process' listeners, which are on `address`.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new(listeners: &[Socket], address: SocketAddr) -> io::Result<Reserved> {
        let table = match SocketTable::open(address) {
            Err(error) if error.raw_os_error().is_some_and(|errno| [libc::EMFILE, libc::ENFILE].contains(&errno)) => {
                return Err(error);
            }
            outcome => outcome.ok(),
        };
        let inode = |socket: &Socket| Ok(File::from(OwnedFd::from(socket.try_clone()?)).metadata()?.ino());
        Ok(Reserved {
            address,
            lock: PortLock::new(address.port())?,
            probe: Probe::new(address)?,
            table,
            inodes: listeners.iter().map(inode).collect::<io::Result<_>>()?,
        })
    }

    /// How many sockets, of whatever other process, listen on our address and port; none if the table does not tell.
    fn others(&mut self) -> Option<usize> {
        let sockets = self.table.as_mut()?.listening().ok()?;
        let on_port = sockets.iter().filter(|socket| (socket.local.ip(), socket.local.port()) == self.ip_and_port());
        let (ours, others): (Vec<_>, Vec<_>) = on_port.partition(|socket| self.inodes.contains(&socket.inode));
        // A table that changes while it is read may leave something out.
        (ours.len() == self.inodes.len()).then_some(others.len())
    }

    fn ip_and_port(&self) -> (std::net::IpAddr, u16) {
        (self.address.ip(), self.address.port())
    }
}

/// A process' listeners on a port that it may share. They listen until this is dropped, too.
#[derive(Debug)]
pub(super) struct Handover {
    /// All, in ascending order of their indices if `steered`.
    listeners: Vec<OwnedFd>,
    steered: Option<Steered>,
    reserved: Reserved,
}

/// What is known of the group while the lock is held.
#[derive(Debug)]
struct Steered {
    /// Of our listeners, in ascending order.
    indices: Vec<usize>,
    /// Listeners in the group, of all processes.
    total: usize,
}

impl Handover {
    /// For all of a process' listeners, which listen, and the lock is held.
    pub fn new(listeners: Vec<OwnedFd>, reserved: Reserved) -> Handover {
        // Somebody may have been killed half-way. Where the kernel can't do this, it did not steer either.
        let _unsteered = stop_steering(&listeners[0]);
        Handover { listeners, steered: None, reserved }
    }

    /// From now on no connection begins here, if there are others or may be. Returns how long those that have begun may take
    /// to end.
    pub fn begin(&mut self) -> Duration {
        let locked = self.reserved.lock.take(LOCK_PATIENCE).unwrap_or(false);
        let others = self.reserved.others();
        if locked && others == Some(0) {
            self.listeners.clear();
            return Duration::ZERO;
        }
        if locked && let Some(others) = others {
            // What can't be steered is dropped below.
            let _unsteered = self.steer_past_ours(others);
        }
        let dropping = self.listeners.iter().try_for_each(drop_handshakes);
        match (dropping, &self.steered) {
            (Err(error), _) => {
                tracing::warn!(%error, "the system refuses what hands a port over: it is closed as one that is not shared");
                self.close_at_once();
                return Duration::ZERO;
            }
            (Ok(()), Some(_)) => {
                tracing::info!(others, "handing the port over: new connections go to other processes' listeners");
            }
            (Ok(()), None) => tracing::info!(
                "handing the port over: some new connections are made a second later, with other processes' listeners"
            ),
        }
        HANDOVER_SETTLE
    }

    /// Lets go of the listeners, so that the I/O threads' are the last: each closes its own as soon as it has taken what waits.
    fn close_at_once(&mut self) {
        if let Some(listener) = self.listeners.first() {
            // Nothing may be left for the others; that there was nothing is no error.
            let _unsteered = stop_steering(listener);
        }
        self.listeners.clear();
        self.steered = None;
    }

    fn steer_past_ours(&mut self, others: usize) -> io::Result<()> {
        let total = self.listeners.len() + others;
        let indices = self.reserved.probe.indices(&self.listeners, total)?;
        let mut indexed: Vec<_> = match indices {
            Some(indices) => indices.into_iter().zip(std::mem::take(&mut self.listeners)).collect(),
            None => return stop_steering(&self.listeners[0]),
        };
        indexed.sort_by_key(|(index, _)| *index);
        let (indices, listeners): (Vec<_>, Vec<_>) = indexed.into_iter().unzip();
        self.listeners = listeners;
        steer_past(&self.listeners[0], &indices, total)?;
        self.steered = Some(Steered { indices, total });
        Ok(())
    }

    /// Closes all listeners, so that each new connection finds another's.
    fn close_steered(&mut self, Steered { mut indices, mut total }: Steered) -> io::Result<()> {
        // From the last to the first: the group's last one, which takes the place of the one that leaves, is another's.
        while self.listeners.len() > 1 {
            self.listeners.pop();
            indices.pop();
            total -= 1;
            steer_past(&self.listeners[0], &indices, total)?;
        }
        stop_steering(&self.listeners[0])
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(steered) = self.steered.take()
            && let Err(error) = self.close_steered(steered)
        {
            tracing::warn!(%error, "the last new connections may have been made a second late");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::kernel::listen::tcp::{Listener, ServedPort, bind_port};

    /// A server on a shared port: what its I/O threads have, and what its stop does.
    struct Sharer {
        listeners: Vec<Listener>,
        port: ServedPort,
    }

    impl Sharer {
        fn start(host: &str, port: u16, count: usize) -> (Sharer, SocketAddr) {
            let address = SocketAddr::new(host.parse().expect("an address"), port);
            let mut bound = bind_port(address, count, true).expect("a port to share");
            let (listeners, address) = (bound.take_listeners(), bound.address());
            (Sharer { listeners, port: bound.listen().expect("all share") }, address)
        }

        /// Takes the connections that wait: how many in each listener.
        fn accepted(&self) -> Vec<usize> {
            let accept_all = |listener: &Listener| {
                let listener = TcpListener::from(listener.0.try_clone().expect("a descriptor"));
                listener.set_nonblocking(true).expect("a socket");
                std::iter::from_fn(|| listener.accept().ok()).count()
            };
            self.listeners.iter().map(accept_all).collect()
        }

        fn is_steering(&self) -> bool {
            self.port.handover().steered.is_some()
        }

        /// The rest of a stop that has begun.
        fn finish(self) {
            drop(self.listeners);
            self.port.finish_handover();
        }
    }

    fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(address).expect("somebody listens")).collect()
    }

    /// Begins the stop of one of several, and sees that all connections are the others', at once, and evenly.
    fn assert_steered(sharers: &mut Vec<Sharer>, stopped: usize, address: SocketAddr) -> Sharer {
        let mut stopped = sharers.remove(stopped);
        assert_eq!(stopped.port.begin_handover(), HANDOVER_SETTLE);
        assert!(stopped.is_steering(), "our place among the others is found");
        let begun_at = Instant::now();
        // So many that none is left out by chance.
        let count = 20 * sharers.iter().map(|sharer| sharer.listeners.len()).sum::<usize>();
        let _streams = connect(address, count);
        assert!(begun_at.elapsed() < Duration::from_secs(1), "no handshake was dropped");
        assert_eq!(stopped.accepted().iter().sum::<usize>(), 0);
        assert_all_accept(sharers, count);
        stopped
    }

    fn assert_all_accept(sharers: &[Sharer], count: usize) {
        let taken: Vec<_> = sharers.iter().flat_map(Sharer::accepted).collect();
        assert!(taken.iter().sum::<usize>() == count && taken.iter().all(|&count| count > 0), "{taken:?}");
    }

    /// Promise: whichever of the servers on a port stops, new connections begin with the others, and with all of them.
    #[test]
    fn whichever_stops_new_connections_begin_with_the_others() {
        for host in ["127.0.0.1", "::1"] {
            if TcpListener::bind((host, 0)).is_err() {
                // This machine has no IPv6.
                continue;
            }
            for counts in [&[1, 1][..], &[2, 2], &[3, 1], &[1, 3], &[2, 1, 3]] {
                for stopped in 0..counts.len() {
                    let (first, address) = Sharer::start(host, 0, counts[0]);
                    let others = counts[1..].iter().map(|count| Sharer::start(host, address.port(), *count).0);
                    let mut sharers: Vec<_> = std::iter::once(first).chain(others).collect();
                    assert_steered(&mut sharers, stopped, address).finish();
                    let _streams = connect(address, 200);
                    assert_all_accept(&sharers, 200);
                }
            }
        }
    }

    /// Promise: servers come and go in any order, for as long as one likes, and each one that stops hands over.
    #[test]
    fn servers_come_and_go_in_any_order() {
        let (first, address) = Sharer::start("127.0.0.1", 0, 2);
        let mut sharers = vec![first];
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..30 {
            while sharers.len() < 3 || rng.bool() {
                sharers.push(Sharer::start("127.0.0.1", address.port(), rng.usize(1..4)).0);
            }
            let stopped = rng.usize(0..sharers.len());
            assert_steered(&mut sharers, stopped, address).finish();
        }
    }

    #[test]
    fn after_a_handover_the_others_share_connections_as_ever() {
        let (mut old, address) = Sharer::start("127.0.0.1", 0, 2);
        let (new, _) = Sharer::start("127.0.0.1", address.port(), 3);
        old.port.begin_handover();
        old.finish();
        let (newest, _) = Sharer::start("127.0.0.1", address.port(), 2);
        let _streams = connect(address, 300);
        assert_all_accept(&[new, newest], 300);
    }

    /// Promise: what a server leaves that was killed while it handed over, the next one that starts takes away.
    #[test]
    fn a_start_ends_the_steering_of_one_that_was_killed() {
        let (old, address) = Sharer::start("127.0.0.1", 0, 2);
        let (new, _) = Sharer::start("127.0.0.1", address.port(), 2);
        let killed = &new.port.handover().listeners[0];
        steer_past(killed, &[0, 1, 2], 4).expect("the program is taken");
        let _streams = connect(address, 50);
        assert_eq!([old.accepted(), new.accepted()].concat(), [0, 0, 0, 50]);
        let (newest, _) = Sharer::start("127.0.0.1", address.port(), 1);
        let _streams = connect(address, 200);
        assert_all_accept(&[old, new, newest], 200);
    }

    #[test]
    fn alone_on_a_port_it_ends_as_if_the_port_were_not_shared() {
        let (mut alone, address) = Sharer::start("127.0.0.1", 0, 2);
        // On another address of the same port is nobody that it could hand over to.
        let _elsewhere = Sharer::start("127.0.0.2", address.port(), 2);
        assert_eq!(alone.port.begin_handover(), Duration::ZERO);
        let _streams = connect(address, 10);
        assert_eq!(alone.accepted().iter().sum::<usize>(), 10);
        drop(alone.listeners);
        let refused = TcpStream::connect(address).expect_err("the I/O threads' were the last ones");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// Promise: without the table, or while somebody else starts, no connect is refused or reset either.
    #[test]
    fn where_steering_is_not_possible_handshakes_are_dropped_and_come_again() {
        for without_table in [true, false] {
            let (mut old, address) = Sharer::start("127.0.0.1", 0, 2);
            let (new, _) = Sharer::start("127.0.0.1", address.port(), 1);
            let starting = bind_port(address, 1, true).expect("a port to share");
            if without_table {
                drop(starting);
                old.port.handover_mut().reserved.table = None;
            }
            assert_eq!(old.port.begin_handover(), HANDOVER_SETTLE);
            assert!(!old.is_steering());
            let streams = std::thread::spawn(move || connect(address, 20));
            std::thread::sleep(HANDOVER_SETTLE);
            assert_eq!(old.accepted().iter().sum::<usize>(), 0);
            old.finish();
            assert_eq!(streams.join().expect("every connect is answered").len(), 20);
            assert_eq!(new.accepted(), [20]);
        }
    }

    /// Promise: one that starts while another hands over waits until that has ended.
    #[test]
    fn nobody_starts_while_a_port_is_handed_over() {
        let (mut old, address) = Sharer::start("127.0.0.1", 0, 1);
        let _new = Sharer::start("127.0.0.1", address.port(), 1);
        old.port.begin_handover();
        let newest = std::thread::spawn(move || Sharer::start("127.0.0.1", address.port(), 1));
        std::thread::sleep(HANDOVER_SETTLE);
        assert!(!newest.is_finished());
        old.finish();
        newest.join().expect("it starts");
    }
}
