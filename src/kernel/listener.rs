//! One listening socket for each I/O thread, all on the same address, and nobody else's on it.
//!
//! The kernel spreads connections over the sockets of an SO_REUSEPORT group by a hash of their addresses. The same
//! option lets a second server join the group in silence; so unless that is asked for, the address is claimed by a
//! socket without the option first, which fails if anyone listens there.
//!
//! Accepted sockets inherit TCP_NODELAY, TCP_NOTSENT_LOWAT and keepalive from their listener, so accepting needs no
//! further system call.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::handover::Handover;
use super::port_owner::port_owner;
use crate::limits::{HANDOVER_SETTLE, KEEPALIVE_PROBES, KERNEL_UNSENT_BYTES, LISTEN_BACKLOG, PEER_SILENCE_MAX};

/// How long a listener without a process is waited for.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);

/// A socket that listens, for one I/O thread.
#[derive(Debug)]
pub struct Listener(pub(super) OwnedFd);

/// Why the address can't be served.
#[derive(Debug, Error)]
pub enum BindError {
    /// The host name means nothing.
    #[error(
        "cannot resolve the host '{host}': {source}. Give --host an address of this machine, such as 127.0.0.1 or 0.0.0.0"
    )]
    Resolve {
        /// The host as given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error(
        "port {port} on {host} is already served by {owner}. Choose another --port, stop that process, or, to share \
         the port on purpose (a rolling restart), start this server with --reuse-port"
    )]
    Taken {
        /// The host as given.
        host: String,
        /// The port that is taken.
        port: u16,
        /// Who listens, as far as we may know.
        owner: String,
    },
    /// The address is not ours, the port is privileged, or the like.
    #[error("cannot listen on {address}: {source}{hint}")]
    Other {
        /// The address as resolved.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
        /// What to try, if we know.
        hint: &'static str,
    },
}

/// Sockets that are bound to one address, for each I/O thread one, and do not listen yet.
///
/// Nothing is served, and nobody is told to come, before [`BoundPort::listen`]: whatever else may fail in a start comes
/// before that.
#[derive(Debug)]
pub struct BoundPort {
    address: SocketAddr,
    shared: bool,
    sockets: Vec<Socket>,
    /// The same sockets once more, until they are taken.
    listeners: Vec<Listener>,
    /// Keeps others without SO_REUSEPORT from listening; let go of when ours do.
    _claim: Option<Socket>,
}

/// A port that is served, and what its end needs.
#[derive(Debug)]
pub struct ServedPort {
    handover: Option<Handover>,
}

/// The address that a host's name stands for. Asks a name server, perhaps, which may take long: whoever must hear signals
/// meanwhile calls it on a thread of its own.
///
/// # Errors
/// [`BindError::Resolve`].
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, BindError> {
    let unresolved = |source| BindError::Resolve { host: host.to_owned(), source };
    let mut addresses = (host, port).to_socket_addrs().map_err(unresolved)?;
    addresses.next().ok_or_else(|| unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

/// Binds `count` sockets to one address; with port 0 the kernel chooses a free one for all of them.
///
/// `shared` allows other processes' listeners on the same port. It may wait for others who start or stop on this port, for
/// seconds: whoever must hear signals meanwhile calls it on a thread of its own.
///
/// # Errors
/// See [`BindError`]. Nothing is bound then.
pub fn bind_port(address: SocketAddr, count: usize, shared: bool) -> Result<BoundPort, BindError> {
    // Held until our own sockets listen, so that port 0 is chosen once and stays ours meanwhile.
    let claim = if shared { None } else { Some(claim_patiently(address).map_err(explained(address))?) };
    let mut address = match &claim {
        Some(claim) => bound_address(claim).map_err(explained(address))?,
        None => address,
    };
    let mut port = BoundPort { address, shared, sockets: Vec::new(), listeners: Vec::new(), _claim: claim };
    for _ in 0..count {
        let socket = bind(address).map_err(explained(address))?;
        address = bound_address(&socket).map_err(explained(address))?;
        port.listeners.push(Listener(socket.try_clone().map_err(explained(address))?.into()));
        port.sockets.push(socket);
    }
    Ok(BoundPort { address, ..port })
}

impl BoundPort {
    /// The address that is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A listener for each I/O thread, once. They accept nothing before [`BoundPort::listen`]: accepting fails (EINVAL).
    pub fn take_listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Listens on all sockets: from now on connections come.
    ///
    /// # Errors
    /// See [`BindError`]: somebody else has begun to listen after we had bound.
    pub fn listen(self) -> Result<ServedPort, BindError> {
        for socket in &self.sockets {
            socket.listen(LISTEN_BACKLOG).map_err(explained(self.address))?;
        }
        let handover = self.shared.then(|| Handover::new(self.sockets.into_iter().map(OwnedFd::from).collect()));
        Ok(ServedPort { handover })
    }
}

impl ServedPort {
    /// Begins the end: from now on new connections begin with other processes' listeners, if there are any.
    ///
    /// Returns how long the handshakes that have begun here may take to end, before the I/O threads stop accepting. Does not
    /// sleep.
    pub fn begin_handover(&mut self) -> Duration {
        let Some(handover) = &mut self.handover else { return Duration::ZERO };
        match handover.steer_to_others() {
            Ok(0) => Duration::ZERO,
            Ok(others) => {
                tracing::info!(others, "handing the port over: new connections go to other processes' listeners");
                HANDOVER_SETTLE
            }
            Err(error) => {
                tracing::warn!(%error, "the port is handed over at once, which may reset a connection");
                Duration::ZERO
            }
        }
    }

    #[cfg(test)]
    pub(super) fn into_handover(self) -> Option<Handover> {
        self.handover
    }

    /// Gives the port up, after all I/O threads have closed their listeners, or have had their time. Does not sleep.
    pub fn finish_handover(self) {
        drop(self.handover);
    }
}

fn explained(address: SocketAddr) -> impl FnOnce(io::Error) -> BindError {
    move |source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken {
            host: address.ip().to_string(),
            port: address.port(),
            owner: port_owner(address.port()).unwrap_or_else(|| "another process".to_owned()),
        },
        _ => BindError::Other { address, hint: hint(&source), source },
    }
}

/// Claims an address; one that is taken but by nobody is tried again for a while: a process that was killed with an
/// io_uring lets go of its listeners only when the kernel has worked off the ring, which can take a moment longer.
fn claim_patiently(address: SocketAddr) -> io::Result<Socket> {
    let begun_at = Instant::now();
    loop {
        match claim(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begun_at.elapsed() < ORPHAN_PATIENCE
                    && port_owner(address.port()).is_none() =>
            {
                std::thread::sleep(ORPHAN_PATIENCE / 100);
            }
            outcome => return outcome,
        }
    }
}

/// Binds without SO_REUSEPORT and without listening: it fails if anyone listens, and does not keep us from listening.
fn claim(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// A socket as a listener wants it, bound and not listening.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    configure(&socket)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// What a listener is set to, which the connections that it accepts inherit.
fn configure(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    let probes = KEEPALIVE_PROBES;
    let (time, interval) = (PEER_SILENCE_MAX * 3 / 4, PEER_SILENCE_MAX / 4 / probes);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(probes))?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former server in TIME_WAIT must not keep the next one from starting.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn bound_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no internet address"))
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrNotAvailable => ". --host must be an address of this machine",
        io::ErrorKind::PermissionDenied => ". Ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher --port",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(port: u16, count: usize, shared: bool) -> Result<(ServedPort, SocketAddr), BindError> {
        let bound = bind_port(resolve("127.0.0.1", port)?, count, shared)?;
        let address = bound.address();
        Ok((bound.listen()?, address))
    }

    #[test]
    fn one_server_has_many_listeners_on_one_port_and_a_second_server_is_refused() {
        let mut bound = bind_port(SocketAddr::from(([127, 0, 0, 1], 0)), 3, false).expect("a free port");
        let (listeners, address) = (bound.take_listeners(), bound.address());
        let _served = bound.listen().expect("nobody else is there");
        assert_eq!(listeners.len(), 3);
        let Err(BindError::Taken { port, owner, .. }) = serve(address.port(), 1, false) else {
            panic!("the port is taken")
        };
        assert_eq!(port, address.port());
        assert!(owner.contains(&std::process::id().to_string()), "{owner}");
    }

    #[test]
    fn sharing_a_port_is_possible_when_it_is_meant() {
        let (_first, address) = serve(0, 1, true).expect("a free port");
        assert!(serve(address.port(), 2, true).is_ok());
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_a_hint() {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind_port(address, 1, false).expect_err("TEST-NET-1 is nobody's");
        assert!(error.to_string().contains("--host must be an address of this machine"), "{error}");
    }
}
