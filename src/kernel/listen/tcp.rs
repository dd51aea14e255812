//! One listening socket for each I/O thread, all on the same address, and nobody else's on it.
//!
//! The kernel spreads connections over the sockets of an SO_REUSEPORT group by a hash of their addresses. The same
//! option lets a second server join the group in silence; so unless that is asked for, nobody else may be there: no server
//! of ours, which [`super::claim`] tells, and no other program that listens, which a bind without the option tells.
//!
//! Whoever binds holds the lock on the port until it listens, because the kernel tells neither of two that are bound of the
//! other. Where this process may have no Unix sockets there is no lock, and two that start at one instant may share a port.
//!
//! Accepted sockets inherit TCP_NODELAY, TCP_NOTSENT_LOWAT and keepalive from their listener, so accepting needs no
//! further system call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::claim::{Claim, PortLock};
use super::handover::{Handover, Reserved};
use super::port_owner::Owner;
use crate::limits::{KEEPALIVE_PROBES, KERNEL_UNSENT_BYTES, LISTEN_BACKLOG, PEER_SILENCE_MAX};

/// How long others who start or stop on the same port are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long a listener without a process is waited for.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);

/// How many ports are tried when the kernel chooses, and others start on the one that it has chosen.
const PORT_CHOICES: usize = 16;

/// A socket that listens, or will, for one I/O thread.
#[derive(Debug)]
pub struct Listener(pub(in crate::kernel) OwnedFd);

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
    /// Another process listens there, and this one was not to share.
    #[error(
        "port {port} on {host} is already served by {owner}. Choose another --port, stop that process, or, to share \
         the port on purpose (a rolling restart), start both servers with --reuse-port, as the same user",
        port = address.port(), host = address.ip()
    )]
    Taken {
        /// The address that is taken.
        address: SocketAddr,
        /// Who listens, as far as we may know.
        owner: Owner,
    },
    /// A server listens there that was not to share.
    #[error(
        "port {port} on {host} is already served by {owner}, which does not share it. Choose another --port, stop that \
         process, or, to share the port on purpose (a rolling restart), start both servers with --reuse-port",
        port = address.port(), host = address.ip()
    )]
    NotShared {
        /// The address that is taken.
        address: SocketAddr,
        /// Who listens, as far as we may know.
        owner: Owner,
    },
    /// Another user's process listens there, with whom no port can be shared.
    #[error(
        "port {port} on {host} is already served by {owner} of the user {owner_uid}, and this process is of the user \
         {uid}: only processes of the same user can share a port. Start both servers as the same user, choose another \
         --port, or stop that process",
        port = address.port(), host = address.ip()
    )]
    OtherUser {
        /// The address that is taken.
        address: SocketAddr,
        /// Who listens, as far as we may know.
        owner: Owner,
        /// That process's user.
        owner_uid: u32,
        /// This process's user.
        uid: u32,
    },
    /// A program listens there that does not know of sharing.
    #[error(
        "port {port} on {host} is already served by {owner}, and cannot be shared with it: it listens without \
         SO_REUSEPORT, or is another user's. Choose another --port, or stop that process",
        port = address.port(), host = address.ip()
    )]
    Unsharable {
        /// The address that is taken.
        address: SocketAddr,
        /// Who listens, as far as we may know.
        owner: Owner,
    },
    /// Another server has been starting or stopping on the port all the time.
    #[error(
        "another server ({owner}) is starting or stopping on port {port}, and has not come to an end for {LOCK_PATIENCE:?}. \
         Try again; if no other disrust is on this port, a foreign program holds the abstract Unix socket @{name}: stop \
         it, or choose another --port"
    )]
    Locked {
        /// The port.
        port: u16,
        /// The lock's name.
        name: String,
        /// Who holds it, as far as we may know.
        owner: Owner,
    },
    /// The address is not a host's, although one could listen on it.
    #[error(
        "cannot listen on {address}: that is a {kind} address, to which nobody can connect. Give --host an address of \
         this machine, such as 127.0.0.1 or 0.0.0.0"
    )]
    NoHost {
        /// The address as resolved.
        address: SocketAddr,
        /// What it is.
        kind: &'static str,
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
/// before that. The lock on the port is held as long as there is one of these, so others wait for it.
#[derive(Debug)]
pub struct BoundPort {
    address: SocketAddr,
    sockets: Vec<Socket>,
    /// The same sockets once more, until they are taken.
    listeners: Vec<Listener>,
    kind: Kind,
    _lock: PortLock,
}

/// What a server that shares its port needs for its end, and what keeps others away from one that does not.
#[derive(Debug)]
enum Kind {
    Shared(Reserved),
    Exclusive {
        claim: Claim,
        /// Keeps others without SO_REUSEPORT from binding; let go of when ours listen.
        _bound_alone: Socket,
    },
}

/// A port that is served, and what its end needs: no descriptor is opened for that.
#[derive(Debug)]
pub struct ServedPort {
    handover: Option<Handover>,
    _claim: Option<Claim>,
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
    // An IPv4 address that is written as IPv6 is IPv4 for the kernel, too, but a group of its own for SO_REUSEPORT.
    let address = match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if let Some(kind) = no_host(address.ip()) {
        return Err(BindError::NoHost { address, kind });
    }
    if address.port() != 0 {
        return Binding { address, count, shared }.locked(LOCK_PATIENCE);
    }
    let mut choices = PORT_CHOICES;
    loop {
        // Held until our own sockets are bound, so that the port stays ours meanwhile.
        let chosen = bind_alone(address).and_then(|socket| Ok((bound_address(&socket)?, socket)));
        let (chosen, _socket) = chosen.map_err(other(address))?;
        choices -= 1;
        match (Binding { address: chosen, count, shared }).locked(Duration::ZERO) {
            Err(BindError::Locked { .. } | BindError::Taken { .. } | BindError::NotShared { .. }) if choices > 0 => {}
            outcome => return outcome,
        }
    }
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

    /// Listens on all sockets: from now on connections come. Lets others start on the port.
    ///
    /// # Errors
    /// See [`BindError`]: a foreign program has begun to listen after we had bound.
    pub fn listen(self) -> Result<ServedPort, BindError> {
        let shared = matches!(self.kind, Kind::Shared(_));
        for socket in &self.sockets {
            socket.listen(LISTEN_BACKLOG).map_err(|error| explain(self.address, shared, error))?;
        }
        Ok(match self.kind {
            Kind::Shared(reserved) => {
                let listeners = self.sockets.into_iter().map(OwnedFd::from).collect();
                ServedPort { handover: Some(Handover::new(listeners, reserved)), _claim: None }
            }
            Kind::Exclusive { claim, .. } => ServedPort { handover: None, _claim: Some(claim) },
        })
    }
}

impl ServedPort {
    /// Begins the end: from now on new connections begin with other processes' listeners, if there are any.
    ///
    /// Returns how long the handshakes that have begun here may take to end, before the I/O threads stop accepting. Does not
    /// sleep, but waits for 50 ms at most for one who starts on the port.
    pub fn begin_handover(&mut self) -> Duration {
        self.handover.as_mut().map_or(Duration::ZERO, Handover::begin)
    }

    /// Gives the port up, after all I/O threads have closed their listeners, or have had their time. Does not sleep. The
    /// same as to drop it.
    pub fn finish_handover(self) {}

    #[cfg(test)]
    pub(super) fn handover(&self) -> &Handover {
        self.handover.as_ref().expect("it shares")
    }

    #[cfg(test)]
    pub(super) fn handover_mut(&mut self) -> &mut Handover {
        self.handover.as_mut().expect("it shares")
    }
}

/// What is to be bound, for whom.
#[derive(Clone, Copy)]
struct Binding {
    address: SocketAddr,
    count: usize,
    shared: bool,
}

impl Binding {
    /// Binds under the port's lock. What is taken but by nobody is tried again for a while: a process that was killed with
    /// an io_uring lets go of its listeners only when the kernel has worked off the ring, which can take a moment longer.
    fn locked(self, patience: Duration) -> Result<BoundPort, BindError> {
        let port = self.address.port();
        let lock = PortLock::new(port).map_err(other(self.address))?;
        if !lock.is_available() {
            tracing::warn!(
                "this process may not use Unix sockets: another server that starts may share the port unnoticed"
            );
        }
        if !lock.take(patience).map_err(other(self.address))? {
            let name = lock.name().to_owned();
            return Err(BindError::Locked { port, owner: Owner::of_name(&name), name });
        }
        let begun_at = Instant::now();
        loop {
            match self.once() {
                Err(BindError::Taken { owner, .. } | BindError::Unsharable { owner, .. })
                    if !owner.is_known() && begun_at.elapsed() < ORPHAN_PATIENCE =>
                {
                    std::thread::sleep(ORPHAN_PATIENCE / 100);
                }
                outcome => {
                    let (sockets, listeners, kind) = outcome?;
                    return Ok(BoundPort { address: self.address, sockets, listeners, kind, _lock: lock });
                }
            }
        }
    }

    fn once(self) -> Result<(Vec<Socket>, Vec<Listener>, Kind), BindError> {
        let Binding { address, count, shared } = self;
        let failed = |error| explain(address, shared, error);
        let only_v6 = address.is_ipv6() && socket(address).and_then(|socket| socket.only_v6()).map_err(failed)?;
        if let Some(name) = Claim::find(address, only_v6).map_err(failed)? {
            return Err(claimed(address, shared, &name));
        }
        let alone = if shared { None } else { Some(bind_alone(address).map_err(failed)?) };
        let (mut sockets, mut listeners) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let socket = bind(address).map_err(failed)?;
            listeners.push(Listener(socket.try_clone().map_err(failed)?.into()));
            sockets.push(socket);
        }
        let kind = match alone {
            None => Kind::Shared(Reserved::new(&sockets, address).map_err(failed)?),
            Some(alone) => {
                let claim = Claim::new(address, only_v6).map_err(failed)?;
                Kind::Exclusive {
                    claim: claim.ok_or(BindError::Taken { address, owner: Owner::default() })?,
                    _bound_alone: alone,
                }
            }
        };
        Ok((sockets, listeners, kind))
    }
}

/// Why nobody can connect to an address that one can listen on.
fn no_host(ip: IpAddr) -> Option<&'static str> {
    if ip.is_multicast() {
        return Some("multicast");
    }
    // Whether an IPv4 address is a network's broadcast address only the routes tell; a UDP socket is refused it. Nothing
    // is sent.
    let unbound = UdpSocket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).ok()?;
    let refused =
        ip.is_ipv4() && unbound.connect((ip, 9)).is_err_and(|error| error.raw_os_error() == Some(libc::EACCES));
    refused.then_some("broadcast")
}

/// Binds without SO_REUSEPORT and without listening: it fails if anyone listens, and does not keep us from listening.
fn bind_alone(address: SocketAddr) -> io::Result<Socket> {
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

/// What the kernel's refusal means to one who was to share the port, or not.
fn explain(address: SocketAddr, shared: bool, source: io::Error) -> BindError {
    if source.kind() != io::ErrorKind::AddrInUse {
        return other(address)(source);
    }
    let owner = Owner::of_port(address);
    match (shared, other_user(&owner)) {
        (false, _) => BindError::Taken { address, owner },
        (true, Some((owner_uid, uid))) => BindError::OtherUser { address, owner, owner_uid, uid },
        (true, None) => BindError::Unsharable { address, owner },
    }
}

/// The same, for a claim that is in the way. Whoever has it listens, or does not any more, or has only taken the name.
fn claimed(address: SocketAddr, shared: bool, name: &str) -> BindError {
    let listening = Owner::of_port(address);
    let owner = if listening.is_known() { listening } else { Owner::of_name(name) };
    match (shared, other_user(&owner)) {
        (false, _) => BindError::Taken { address, owner },
        (true, Some((owner_uid, uid))) => BindError::OtherUser { address, owner, owner_uid, uid },
        (true, None) => BindError::NotShared { address, owner },
    }
}

/// The owner's user and ours, if they are known to differ.
fn other_user(owner: &Owner) -> Option<(u32, u32)> {
    // SAFETY: geteuid(2) touches no memory and does not fail.
    let uid = unsafe { libc::geteuid() };
    owner.other_than(uid).map(|owner_uid| (owner_uid, uid))
}

fn other(address: SocketAddr) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Other { address, hint: hint(&source), source }
}

fn hint(source: &io::Error) -> &'static str {
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::AddrNotAvailable, _) => ". --host must be an address of this machine",
        (io::ErrorKind::PermissionDenied, _) => ". Ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher --port",
        (_, Some(libc::EMFILE | libc::ENFILE)) => ". Raise the limit on open descriptors (ulimit -n)",
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
        let Err(BindError::Taken { address: taken, owner }) = serve(address.port(), 1, false) else {
            panic!("the port is taken")
        };
        assert_eq!(taken, address);
        assert!(owner.to_string().contains(&std::process::id().to_string()), "{owner}");
    }

    #[test]
    fn sharing_a_port_is_possible_when_it_is_meant() {
        let (_first, address) = serve(0, 1, true).expect("a free port");
        assert!(serve(address.port(), 2, true).is_ok());
        assert!(matches!(serve(address.port(), 1, false), Err(BindError::Taken { .. })));
    }

    /// Promise: a server that was not told to share is not made to by one that was.
    #[test]
    fn one_that_shares_is_refused_by_one_that_does_not() {
        let (served, address) = serve(0, 1, false).expect("a free port");
        let Err(BindError::NotShared { owner, .. }) = serve(address.port(), 1, true) else {
            panic!("it is not shared")
        };
        assert!(owner.to_string().contains(&std::process::id().to_string()), "{owner}");
        // However often it is written differently.
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().expect("an address"), address.port());
        assert!(matches!(bind_port(mapped, 1, true), Err(BindError::NotShared { .. })));
        drop(served);
        assert!(serve(address.port(), 1, true).is_ok());
    }

    #[test]
    fn sharing_does_not_help_with_a_program_that_does_not_share() {
        let foreign = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = foreign.local_addr().expect("it is bound").port();
        let error = serve(port, 1, true).expect_err("it is taken");
        assert!(matches!(error, BindError::Unsharable { .. }) && !error.to_string().contains("--reuse"), "{error}");
    }

    /// Promise: of two servers that start at one instant, the second waits for the first, and then sees it.
    #[test]
    fn nobody_binds_between_anothers_binding_and_listening() {
        for (first_shares, second_shares, both_serve) in
            [(false, false, false), (false, true, false), (true, false, false), (true, true, true)]
        {
            let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
            let first = bind_port(loopback, 2, first_shares).expect("a free port");
            let address = first.address();
            let second = std::thread::spawn(move || serve(address.port(), 2, second_shares));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            let _served = first.listen().expect("nobody else is there");
            let second = second.join().expect("it does not panic");
            assert_eq!(second.is_ok(), both_serve, "{first_shares}, {second_shares}");
        }
    }

    #[test]
    fn a_start_that_fails_leaves_the_port_to_the_next() {
        let bound = bind_port(SocketAddr::from(([127, 0, 0, 1], 0)), 2, false).expect("a free port");
        let port = bound.address().port();
        drop(bound);
        assert!(serve(port, 1, false).is_ok());
    }

    /// Promise: with port 0, servers that start at one instant have a port each, although they would share.
    #[test]
    fn every_server_that_lets_the_kernel_choose_has_a_port_of_its_own() {
        let start = |shared| std::thread::spawn(move || serve(0, 2, shared).expect("there are many ports"));
        let started: Vec<_> = (0..40).map(|index| start(index % 2 == 0)).collect();
        let served: Vec<_> = started.into_iter().map(|thread| thread.join().expect("it starts")).collect();
        let mut ports: Vec<_> = served.iter().map(|(_, address)| address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 40);
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_a_hint() {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind_port(address, 1, false).expect_err("TEST-NET-1 is nobody's");
        assert!(error.to_string().contains("--host must be an address of this machine"), "{error}");
    }

    #[test]
    fn an_address_of_a_group_of_hosts_is_refused_by_its_kind() {
        for (host, kind) in [
            ("224.0.0.1", "multicast"),
            ("::ffff:224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("127.255.255.255", "broadcast"),
        ] {
            let error = resolve(host, 0).and_then(|address| bind_port(address, 1, false)).expect_err("nobody is that");
            assert!(error.to_string().contains(&format!("a {kind} address")), "{host}: {error}");
        }
        assert!([Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST].into_iter().all(|ip| no_host(ip.into()).is_none()));
    }
}
