//! The way to the service manager that started the process, which is systemd mostly: a datagram for its socket (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that has the socket's address: a path, or an abstract name behind `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Sends it `message`; or does nothing, if nobody has asked to be told. It does not wait: a manager that reads nothing must not hold
/// the process up.
///
/// # Errors
/// The address is none, nobody is there, or too much waits there already; then the message is lost.
pub fn send_to_service_manager(message: &str) -> io::Result<()> {
    match std::env::var_os(VARIABLE) {
        Some(address) if !address.is_empty() => send(&address, message),
        _ => Ok(()),
    }
}

fn send(address: &OsStr, message: &str) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(address),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 100];
        let count = manager.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn a_message_reaches_a_path_and_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("disrust-manager-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).expect("a free path");
        send(path.as_os_str(), "READY=1\n").expect("somebody is there");
        assert_eq!(received(&manager), "READY=1\n");
        drop(manager);
        let gone = send(path.as_os_str(), "READY=1\n").map_err(|error| error.kind());
        assert_eq!(gone, Err(io::ErrorKind::ConnectionRefused));
        std::fs::remove_file(&path).expect("it was made here");

        let name = format!("disrust-manager-{}", std::process::id());
        let manager = SocketAddr::from_abstract_name(&name).and_then(|address| UnixDatagram::bind_addr(&address));
        let manager = manager.expect("a free name");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n").expect("somebody is there");
        assert_eq!(received(&manager), "STOPPING=1\n");
    }

    /// One that reads nothing is told nothing more, and nobody waits for it.
    #[test]
    fn a_manager_that_reads_nothing_holds_nobody_up() {
        let name = format!("disrust-deaf-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let deaf = UnixDatagram::bind_addr(&address).expect("a free name");
        let sent = (0..1_000_000).map(|_| send(OsStr::new(&format!("@{name}")), "READY=1\n")).find(Result::is_err);
        assert_eq!(sent.expect("its queue has an end").map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        drop(deaf);
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for address in ["", "x".repeat(200).as_str(), &format!("@{}", "x".repeat(200)), "/no/such/folder/socket"] {
            assert!(send(OsStr::new(address), "READY=1\n").is_err(), "{address}");
        }
    }
}
