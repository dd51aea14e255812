//! What the kernel holds for a server's connections, as ss(8) tells it.

use std::process::Command;

use super::site::{Stop, needs_program};

/// One connection of a server.
#[derive(Debug, Clone, Copy)]
pub struct SocketMemory {
    /// The client's port.
    pub peer_port: u16,
    /// Memory of what is to be sent or acknowledged, with the kernel's own structures (`sk_wmem_queued`).
    pub send_bytes: u64,
}

/// All connections of the server on this port; the clients' sides are not among them.
pub fn of_port(port: u16) -> Result<Vec<SocketMemory>, Stop> {
    needs_program("ss")?;
    let mut ss = Command::new("ss");
    let output = ss.args(["-tmnHO", "state", "connected", &format!("sport = :{port}")]).output();
    let output = output.map_err(|error| Stop::Skipped(format!("ss does not start: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // One in TIME_WAIT is no socket any more, and holds nothing.
    let sockets = text.lines().filter(|line| line.contains("skmem:("));
    sockets.map(|line| parse(line).ok_or_else(|| Stop::Failed(format!("ss says: {line}")))).collect()
}

/// A line such as `ESTAB 0 4711 127.0.0.1:9900 127.0.0.1:45678 skmem:(r0,rb131072,t0,tb87040,f0,w8192,o0,bl0,d0)`.
fn parse(line: &str) -> Option<SocketMemory> {
    let (addresses, memory) = line.split_once("skmem:(")?;
    let peer = addresses.split_whitespace().last()?;
    let peer_port = peer.rsplit_once(':')?.1.parse().ok()?;
    let queued = memory.split([',', ')']).find_map(|field| field.strip_prefix('w'))?;
    Some(SocketMemory { peer_port, send_bytes: queued.parse().ok()? })
}

/// Pages of TCP memory of the whole machine, and how many there may be before the kernel presses its sockets.
pub fn machine_pages() -> Option<(u64, u64)> {
    let used = std::fs::read_to_string("/proc/net/sockstat").ok()?;
    let used = used.lines().find(|line| line.starts_with("TCP:"))?.rsplit(' ').next()?.parse().ok()?;
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
    Some((used, limits.split_whitespace().nth(1)?.parse().ok()?))
}
