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

use super::port_owner::port_owner;
use crate::limits::{KEEPALIVE_PROBES, KERNEL_UNSENT_BYTES, LISTEN_BACKLOG, PEER_SILENCE_MAX};

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

/// Opens `count` listeners on one address; with port 0 the kernel chooses a free one for all of them.
///
/// `shared` allows other processes' listeners on the same port.
///
/// # Errors
/// See [`BindError`]. Nothing listens then.
pub fn bind_listeners(
    host: &str,
    port: u16,
    count: usize,
    shared: bool,
) -> Result<(Vec<Listener>, SocketAddr), BindError> {
    let unresolved = |source| BindError::Resolve { host: host.to_owned(), source };
    let mut address = (host, port)
        .to_socket_addrs()
        .map_err(unresolved)?
        .next()
        .ok_or_else(|| unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")))?;
    let explain = |address: SocketAddr, source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken {
            host: host.to_owned(),
            port: address.port(),
            owner: port_owner(address.port()).unwrap_or_else(|| "another process".to_owned()),
        },
        _ => BindError::Other { address, hint: hint(&source), source },
    };
    // Held until our own listeners are there, so that port 0 is chosen once and stays ours meanwhile.
    let claim = if shared { None } else { Some(claim_patiently(address).map_err(|source| explain(address, source))?) };
    if let Some(claim) = &claim {
        address = bound_address(claim).map_err(|source| explain(address, source))?;
    }
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = listen(address).map_err(|source| explain(address, source))?;
        address = bound_address(&socket).map_err(|source| explain(address, source))?;
        listeners.push(Listener(socket.into()));
    }
    Ok((listeners, address))
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

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    let probes = KEEPALIVE_PROBES;
    let (time, interval) = (PEER_SILENCE_MAX * 3 / 4, PEER_SILENCE_MAX / 4 / probes);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(probes))?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
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

    #[test]
    fn one_server_has_many_listeners_on_one_port_and_a_second_server_is_refused() {
        let (listeners, address) = bind_listeners("127.0.0.1", 0, 3, false).expect("a free port");
        assert_eq!(listeners.len(), 3);
        let second = bind_listeners("127.0.0.1", address.port(), 1, false);
        let Err(BindError::Taken { port, owner, .. }) = second else { panic!("the port is taken") };
        assert_eq!(port, address.port());
        assert!(owner.contains(&std::process::id().to_string()), "{owner}");
    }

    #[test]
    fn sharing_a_port_is_possible_when_it_is_meant() {
        let (_first, address) = bind_listeners("127.0.0.1", 0, 1, true).expect("a free port");
        assert!(bind_listeners("127.0.0.1", address.port(), 2, true).is_ok());
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_a_hint() {
        let error = bind_listeners("192.0.2.1", 0, 1, false).expect_err("TEST-NET-1 is nobody's");
        assert!(error.to_string().contains("--host must be an address of this machine"), "{error}");
    }
}
