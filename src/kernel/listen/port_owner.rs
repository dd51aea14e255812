//! Who holds a port or a name, for an error message. Best effort: it reads /proc, where other users' processes may be hidden.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::claim::overlap;
use super::socket_table::listening_sockets;

/// A process that is in the way, as far as we may know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// As `pid 123 (name)`.
    process: Option<String>,
    /// The user whose socket it is.
    uid: Option<u32>,
}

impl Owner {
    /// Who listens where `address` would.
    pub(super) fn of_port(address: SocketAddr) -> Owner {
        let mut sockets = listening_sockets();
        sockets.retain(|socket| overlap(socket.local, address));
        let inodes: Vec<u64> = sockets.iter().map(|socket| socket.inode).collect();
        Owner { process: process_with(&inodes), uid: sockets.first().map(|socket| socket.uid) }
    }

    /// Who holds an abstract Unix socket of this name, which is without its leading zero.
    pub(super) fn of_name(name: &str) -> Owner {
        Owner::of_unix(|path| path.strip_prefix('@') == Some(name))
    }

    /// Who has bound a Unix socket at this path, or at this other one before it took the path.
    pub(super) fn of_path(path: &Path, before: &Path) -> Owner {
        Owner::of_unix(|bound| [path, before].contains(&Path::new(bound)))
    }

    fn of_unix(is_it: impl Fn(&str) -> bool) -> Owner {
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let inodes = table.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [.., inode, path] = fields[..] else { return None };
            is_it(path).then(|| inode.parse().ok())?
        });
        Owner { process: process_with(&inodes.collect::<Vec<u64>>()), uid: None }
    }

    /// Whether there is a process that we can name.
    pub(super) fn is_known(&self) -> bool {
        self.process.is_some()
    }

    /// The user, if it is known, and is not this one.
    pub(super) fn other_than(&self, uid: u32) -> Option<u32> {
        self.uid.filter(|owner| *owner != uid)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.process.as_deref().unwrap_or("another process"))
    }
}

fn process_with(inodes: &[u64]) -> Option<String> {
    if inodes.is_empty() {
        return None;
    }
    let inodes: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
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
        let address = listener.local_addr().expect("a bound socket has an address");
        let owner = Owner::of_port(address);
        assert!(owner.to_string().starts_with(&format!("pid {} (", std::process::id())), "{owner}");
        assert!(owner.uid.is_some_and(|uid| owner.other_than(uid).is_none() && owner.other_than(uid + 1) == Some(uid)));
    }
}
