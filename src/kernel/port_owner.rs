//! Who listens on a port, for an error message. Best effort: it reads /proc, where other users' processes may be hidden.

use std::fs;
use std::path::Path;

use super::socket_table::listening_sockets;

/// A process, as `pid 123 (name)`, that listens on TCP `port`.
pub(super) fn port_owner(port: u16) -> Option<String> {
    let listeners = listening_sockets().into_iter().filter(|socket| socket.port() == Some(port));
    let inodes: Vec<String> = listeners.map(|socket| format!("socket:[{}]", socket.inode)).collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        holds_any(&process.path(), &inodes).then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("pid {pid} ({})", name.trim())
        })
    })
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
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let expected = format!("pid {} (", std::process::id());
        assert!(port_owner(port).is_some_and(|owner| owner.starts_with(&expected)));
    }
}
