//! Who listens on a port, for an error message. Best effort: it reads /proc, where other users' processes may be hidden.

use std::fs;
use std::path::Path;

/// A process, as `pid 123 (name)`, that listens on TCP `port`.
pub(super) fn port_owner(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            listening_inodes(&table, port).iter().map(|inode| format!("socket:[{inode}]")).collect::<Vec<_>>()
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        holds_any(&process.path(), &inodes).then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("pid {pid} ({})", name.trim())
        })
    })
}

/// The inodes of sockets in state LISTEN (0A) on `port`, from a table like /proc/net/tcp (proc(5)).
fn listening_inodes(table: &str, port: u16) -> Vec<&str> {
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local_port = fields.next().and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
        local_port.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port) && fields.nth(1) == Some("0A")
    };
    table.lines().skip(1).filter(listens).filter_map(|line| line.split_whitespace().nth(9)).collect()
}

fn holds_any(process: &Path, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_in_the_table_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:26AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n   \
            1: 0100007F:26AC 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n   \
            2: 0100007F:26AD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n";
        assert_eq!(listening_inodes(table, 9900), ["4711"]);
        assert!(listening_inodes(table, 80).is_empty());
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let expected = format!("pid {} (", std::process::id());
        assert!(port_owner(port).is_some_and(|owner| owner.starts_with(&expected)));
    }
}
