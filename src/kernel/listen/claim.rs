//! Who may use a port: a lock for those who start and stop on it, and claims of those who do not share it.
//!
//! The kernel's own answer does not do. It lets two sockets with SO_REUSEPORT share a port in silence, and of two that are
//! bound, neither sees the other before one of them listens. So servers tell each other, through the names of abstract Unix
//! sockets (unix(7)): a name belongs to a network namespace, as a port does, has one holder, and is free again when its
//! holder's process has ended, however it ended.
//!
//! - [`PortLock`], `disrust/port/9900/lock`: held from binding until listening, and while a port is handed over.
//! - [`Claim`]: held for life by a server that does not share its port, looked for under the lock by every server that
//!   starts. A server on a specific address holds `disrust/port/9900/4/127.0.0.1`, and beside it the first free one of
//!   [`MARKERS`] names `disrust/port/9900/4/some/0`…, by which one on all addresses finds it, which itself holds
//!   `disrust/port/9900/4/any`. IPv6 likewise, with `6`; a socket on `::` that takes IPv4 too stands in both.
//!
//! Names have no permissions: any process of the namespace can take them and keep a server from its port, as it can by taking
//! the port. Nothing is ever received: the sockets are shut down for that. Where the system refuses Unix sockets to this
//! process, there is neither lock nor claim.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// Servers that don't share a port and are each on a specific address of it. Larger: one on all addresses has more names
/// to look for, two microseconds each. Smaller: fewer such servers.
const MARKERS: usize = 256;

/// How often a lock that is taken is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// The lock on a port: with a socket from the beginning, so that taking it needs no descriptor. Held from
/// [`PortLock::take`] until it is dropped.
#[derive(Debug)]
pub(super) struct PortLock {
    name: String,
    /// None where the system refuses it.
    socket: Option<Socket>,
}

impl PortLock {
    /// A lock that is not taken yet.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new(port: u16) -> io::Result<PortLock> {
        Ok(PortLock { name: format!("{}/lock", prefix(port)), socket: unix_socket()? })
    }

    /// Its name, for a message.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is a lock at all; one that there is not can be taken by all.
    pub fn is_available(&self) -> bool {
        self.socket.is_some()
    }

    /// Takes it, and waits for that. False if it stays taken.
    ///
    /// # Errors
    /// The system is out of memory.
    pub fn take(&self, patience: Duration) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(true) };
        let begun_at = Instant::now();
        loop {
            if bind(socket, &self.name)? {
                return Ok(true);
            }
            if begun_at.elapsed() >= patience {
                return Ok(false);
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }
}

/// What a server holds for life that does not share its port; the lock is held when it is made.
#[derive(Debug)]
pub(super) struct Claim {
    _names: Vec<Socket>,
}

impl Claim {
    /// Claims an address. None if others have, or a foreign program is in the way.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new(address: SocketAddr, only_v6: bool) -> io::Result<Option<Claim>> {
        let mut names = Vec::new();
        for reach in reaches(address, only_v6) {
            let prefix = reach.prefix(address.port());
            let own = hold_one([reach.name(address.port())].into_iter())?;
            let marker = match reach.host {
                Some(_) => hold_one((0..MARKERS).map(|marker| some(&prefix, marker)))?,
                None => Hold::NotNeeded,
            };
            for hold in [own, marker] {
                match hold {
                    Hold::Held(socket) => names.push(socket),
                    Hold::NotNeeded => {}
                    Hold::Taken => return Ok(None),
                }
            }
        }
        Ok(Some(Claim { _names: names }))
    }

    /// The name that is held if anyone claims an address that overlaps this one.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn find(address: SocketAddr, only_v6: bool) -> io::Result<Option<String>> {
        let Some(socket) = unix_socket()? else { return Ok(None) };
        for reach in reaches(address, only_v6) {
            for name in reach.names_in_the_way(address.port()) {
                if is_held(&socket, &name)? {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }
}

/// Whether sockets on these two addresses may get each other's connections. `::` is taken to be for IPv4 too.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let names = |address| -> Vec<String> {
        reaches(address, false).iter().flat_map(|reach| reach.names_in_the_way(address.port())).collect()
    };
    let held = |address: SocketAddr| -> Vec<String> {
        let hold = |reach: Reach| {
            let marker = reach.host.as_ref().map(|_| some(&reach.prefix(address.port()), 0));
            [reach.name(address.port())].into_iter().chain(marker)
        };
        reaches(address, false).into_iter().flat_map(hold).collect()
    };
    held(one).iter().any(|name| names(other).contains(name))
}

/// All addresses of a family, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    family: char,
    host: Option<String>,
}

impl Reach {
    fn prefix(&self, port: u16) -> String {
        format!("{}/{}", prefix(port), self.family)
    }

    fn name(&self, port: u16) -> String {
        format!("{}/{}", self.prefix(port), self.host.as_deref().unwrap_or("any"))
    }

    /// The names, one of which is held if anyone claims what overlaps this.
    fn names_in_the_way(&self, port: u16) -> Vec<String> {
        let prefix = self.prefix(port);
        let any = format!("{prefix}/any");
        match &self.host {
            Some(_) => vec![any, self.name(port)],
            None => std::iter::once(any).chain((0..MARKERS).map(|marker| some(&prefix, marker))).collect(),
        }
    }
}

fn prefix(port: u16) -> String {
    format!("disrust/port/{port}")
}

fn some(prefix: &str, marker: usize) -> String {
    format!("{prefix}/some/{marker}")
}

/// What connections a socket on this address gets.
fn reaches(address: SocketAddr, only_v6: bool) -> Vec<Reach> {
    let one = |family, host| vec![Reach { family, host: Some(host) }];
    let all = |family| Reach { family, host: None };
    match (address.ip().to_canonical(), address) {
        (IpAddr::V4(ip), _) if ip.is_unspecified() => vec![all('4')],
        (IpAddr::V4(ip), _) => one('4', ip.to_string()),
        (IpAddr::V6(ip), _) if ip.is_unspecified() && only_v6 => vec![all('6')],
        (IpAddr::V6(ip), _) if ip.is_unspecified() => vec![all('6'), all('4')],
        // A link-local address may be there once on each link; elsewhere a scope means nothing.
        (IpAddr::V6(ip), SocketAddr::V6(scoped)) if ip.is_unicast_link_local() && scoped.scope_id() != 0 => {
            one('6', format!("{ip}%{}", scoped.scope_id()))
        }
        (IpAddr::V6(ip), _) => one('6', ip.to_string()),
    }
}

/// What came of holding a name.
enum Hold {
    Held(Socket),
    /// The system refuses Unix sockets to this process.
    NotNeeded,
    Taken,
}

/// Holds the first of the names that is free.
fn hold_one(mut names: impl Iterator<Item = String>) -> io::Result<Hold> {
    let Some(socket) = unix_socket()? else { return Ok(Hold::NotNeeded) };
    loop {
        let Some(name) = names.next() else { return Ok(Hold::Taken) };
        if bind(&socket, &name)? {
            return Ok(Hold::Held(socket));
        }
    }
}

/// A socket to bind to a name, or to look for names with; none if this process may have none. Names are told apart by the
/// kind of their sockets, too: all of ours are of this one.
fn unix_socket() -> io::Result<Option<Socket>> {
    let refused = [libc::EPERM, libc::EACCES, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ENOSYS];
    let socket = match Socket::new(Domain::UNIX, Type::DGRAM, None) {
        Err(error) if error.raw_os_error().is_some_and(|errno| refused.contains(&errno)) => return Ok(None),
        outcome => outcome?,
    };
    // Nobody can fill our memory through a name, or give us descriptors.
    socket.shutdown(std::net::Shutdown::Read)?;
    Ok(Some(socket))
}

/// Binds to a name; false if it is held.
fn bind(socket: &Socket, name: &str) -> io::Result<bool> {
    match socket.bind(&abstract_address(name)?) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// Whether a name is held. A security module may refuse to connect, which it does only where there is somebody.
fn is_held(socket: &Socket, name: &str) -> io::Result<bool> {
    match socket.connect(&abstract_address(name)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error),
    }
}

fn abstract_address(name: &str) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> SocketAddr {
        SocketAddr::new(host.parse().expect("an address"), port)
    }

    fn exists(address: SocketAddr, only_v6: bool) -> bool {
        Claim::find(address, only_v6).expect("descriptors").is_some()
    }

    /// Ports that nobody listens on are as good as any for names; they differ by process, for tests that run at one time.
    fn some_port(number: u16) -> u16 {
        (std::process::id() as u16).wrapping_mul(31).wrapping_add(number) | 1
    }

    /// Promise: a server that does not share its port is found by every other whose address overlaps, and by no other.
    #[test]
    fn claims_are_found_by_overlap() {
        let cases = [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "::", true),
            ("127.0.0.1", "::1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.2", false),
            ("127.0.0.1", "::ffff:0.0.0.0", true),
            ("0.0.0.0", "0.0.0.0", true),
            ("0.0.0.0", "::", true),
            ("0.0.0.0", "::1", false),
            ("0.0.0.0", "::ffff:127.0.0.1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("::1", "::", true),
            ("::", "::", true),
        ];
        let port = some_port(0);
        for (one, other, expected) in cases {
            for (held, sought) in [(one, other), (other, one)] {
                let (held, sought) = (address(held, port), address(sought, port));
                let claim = Claim::new(held, false).expect("descriptors").expect("nobody else is there");
                assert_eq!(exists(sought, false), expected, "{held}, {sought}");
                assert_eq!(overlap(held, sought), expected, "{held}, {sought}");
                assert!(!exists(address(&sought.ip().to_string(), port ^ 2), false));
                drop(claim);
                assert!(!exists(sought, false), "{held} leaves nothing");
            }
        }
    }

    #[test]
    fn a_socket_for_ipv6_only_leaves_ipv4_to_others() {
        let port = some_port(4);
        let _claim = Claim::new(address("::", port), true).expect("descriptors").expect("nobody else is there");
        for (host, expected) in [("127.0.0.1", false), ("0.0.0.0", false), ("::1", true), ("::", true)] {
            assert_eq!(exists(address(host, port), false), expected, "{host}");
        }
    }

    #[test]
    fn a_link_local_address_is_one_on_each_link() {
        let on_link =
            |scope| SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().expect("one"), 80, 0, scope));
        assert!(overlap(on_link(1), on_link(1)) && !overlap(on_link(1), on_link(2)));
        assert!(overlap(on_link(1), address("::", 80)));
    }

    #[test]
    fn many_servers_on_specific_addresses_are_all_in_the_way_of_one_on_all() {
        let port = some_port(8);
        let claim = |last| Claim::new(SocketAddr::from(([127, 0, 0, last], port)), false).expect("descriptors");
        let mut claims: Vec<_> = (1..=5).map(claim).collect();
        assert!(claims.iter().all(Option::is_some) && claim(3).is_none());
        while !claims.is_empty() {
            assert!(exists(address("0.0.0.0", port), false));
            claims.remove(0);
        }
        assert!(!exists(address("0.0.0.0", port), false));
    }

    #[test]
    fn a_lock_has_one_holder_and_is_free_after_it() {
        let port = some_port(12);
        let lock = || PortLock::new(port).expect("descriptors");
        let (first, second, third) = (lock(), lock(), lock());
        assert!(first.take(Duration::ZERO).expect("memory"));
        assert!(!second.take(2 * LOCK_RETRY).expect("memory"));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.take(Duration::from_secs(60)).expect("memory"));
            drop(first);
            assert!(waiting.join().expect("it does not panic"));
        });
        assert!(!third.take(Duration::ZERO).expect("memory"));
    }
}
