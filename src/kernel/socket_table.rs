//! Which TCP sockets listen, on the whole machine or in this network namespace, as /proc/net/tcp and tcp6 tell (proc(5)).

use std::fs;

/// A socket in state LISTEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListeningSocket {
    /// Its address and port, as the table writes them: hexadecimal, the address in the machine's byte order.
    pub local: String,
    /// Its inode, as fstat(2) of a descriptor gives it too.
    pub inode: u64,
}

impl ListeningSocket {
    pub fn port(&self) -> Option<u16> {
        let (_, port) = self.local.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    }
}

/// All of them; none of a table that cannot be read.
pub(super) fn listening_sockets() -> Vec<ListeningSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| listening_in(&table)).collect()
}

fn listening_in(table: &str) -> Vec<ListeningSocket> {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?.to_owned();
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some(ListeningSocket { local, inode })
    };
    table.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:26AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n   \
            1: 0100007F:26AC 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n   \
            2: 0100007F:26AD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n";
        let sockets = listening_in(table);
        assert_eq!(sockets.iter().map(|socket| socket.inode).collect::<Vec<_>>(), [4711, 4713]);
        assert_eq!(sockets[0], ListeningSocket { local: "0100007F:26AC".to_owned(), inode: 4711 });
        assert_eq!(sockets[0].port(), Some(9900));
    }
}
