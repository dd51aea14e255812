//! Which TCP sockets listen, on the whole machine or in this network namespace, as /proc/net/tcp and tcp6 tell (proc(5)).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A socket in state LISTEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListeningSocket {
    /// Its address and port; without a scope, which the table does not tell.
    pub local: SocketAddr,
    /// The user whose it is.
    pub uid: u32,
    /// Its inode, as fstat(2) of a descriptor gives it too.
    pub inode: u64,
}

/// One of the two tables, open: it can be read again and again, and needs no descriptor then.
#[derive(Debug)]
pub(super) struct SocketTable(File);

impl SocketTable {
    /// The table that the sockets of an address are in.
    ///
    /// # Errors
    /// There is no /proc, or no descriptor.
    pub fn open(address: SocketAddr) -> io::Result<SocketTable> {
        File::open(if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" }).map(SocketTable)
    }

    /// The sockets that listen now.
    ///
    /// # Errors
    /// The table can't be read.
    pub fn listening(&mut self) -> io::Result<Vec<ListeningSocket>> {
        self.0.rewind()?;
        listening_in(BufReader::new(&self.0))
    }
}

/// All of them; none of a table that cannot be read.
pub(super) fn listening_sockets() -> Vec<ListeningSocket> {
    let tables = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let tables = tables.map(|family: IpAddr| SocketTable::open(SocketAddr::new(family, 0))?.listening());
    tables.into_iter().flat_map(|sockets| sockets.unwrap_or_default()).collect()
}

/// Listeners come before all connections (tcp_get_idx in net/ipv4/tcp_ipv4.c), of which there may be very many: they are
/// not read.
fn listening_in(table: impl BufRead) -> io::Result<Vec<ListeningSocket>> {
    let mut sockets = Vec::new();
    for line in table.lines().skip(1) {
        let Some(socket) = listening_socket(&line?) else { break };
        sockets.push(socket);
    }
    Ok(sockets)
}

fn listening_socket(line: &str) -> Option<ListeningSocket> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let local = local_address(fields.next()?)?;
    let state = fields.nth(1)?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    (state == LISTEN).then_some(ListeningSocket { local, uid, inode })
}

/// An address as the tables write it: hexadecimal words in the machine's byte order, and the port as a number.
fn local_address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let word = |index: usize| u32::from_str_radix(address.get(8 * index..8 * (index + 1))?, 16).ok();
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        _ => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_mut(4).enumerate() {
                octets.copy_from_slice(&word(index)?.to_ne_bytes());
            }
            IpAddr::from(octets)
        }
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:26AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 x\n   \
            2: 0100007F:26AD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n   \
            1: 0100007F:26AC 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n";
        let sockets = listening_in(table.as_bytes()).expect("it is in memory");
        assert_eq!(sockets.iter().map(|socket| socket.inode).collect::<Vec<_>>(), [4711, 4713]);
        let local = SocketAddr::from(([127, 0, 0, 1], 9900));
        assert_eq!(sockets[0], ListeningSocket { local, uid: 1000, inode: 4711 });
    }

    #[test]
    fn an_open_table_tells_of_what_has_begun_to_listen_since() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(before) = TcpListener::bind((host, 0)) else { continue };
            let address = before.local_addr().expect("it is bound");
            let mut table = SocketTable::open(address).expect("this machine has a /proc");
            let mut listens = |address| {
                let sockets = table.listening().expect("it could be opened");
                sockets.iter().any(|socket| socket.local == address)
            };
            assert!(listens(address));
            let after = TcpListener::bind((host, 0)).expect("a free port").local_addr().expect("it is bound");
            assert!(listens(address) && !listens(after));
        }
    }
}
