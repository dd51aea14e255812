//! The listener of the admin thread: one, on an address of its own, shared with nobody.
//!
//! What is served on it is [`crate::admin`]'s. It is bound and listens from before the process gives up system calls; who connects
//! before somebody serves waits in its queue.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::port_owner::Owner;
use crate::limits::ADMIN_BACKLOG;

/// Why there is no admin port.
#[derive(Debug, Error)]
pub enum AdminBindError {
    /// Somebody else listens there.
    #[error(
        "the admin port {address} is already served by {owner}. Try: another --admin ADDR:PORT (servers that share a port \
         have an admin port each), or stop that process"
    )]
    Taken {
        /// The address that is taken.
        address: SocketAddr,
        /// Who listens, as far as we may know.
        owner: Owner,
    },
    /// It is no address of this machine, or no port of this user's, or something else.
    #[error("cannot listen on the admin address {address}: {source}. {}", hint(source))]
    Other {
        /// The address as given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "The likely cause is that it is no address of this machine. Try: --admin 127.0.0.1:9901, or --admin off"
        }
        io::ErrorKind::PermissionDenied => {
            "The likely cause is a port below 1024, for which a privilege is needed. Try: --admin 127.0.0.1:9901"
        }
        _ => "Try: --admin 127.0.0.1:9901, or --admin off",
    }
}

/// Listens on an address, for who does not block; with port 0 the kernel chooses one.
///
/// # Errors
/// See [`AdminBindError`].
pub fn bind_admin(address: SocketAddr) -> Result<TcpListener, AdminBindError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of a server before this one that are still being closed are in nobody's way.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(ADMIN_BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    listen().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => AdminBindError::Taken { address, owner: Owner::of_port(address) },
        _ => AdminBindError::Other { address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that is taken is refused with the name of who has it; so is an address of another machine, in words.
    #[test]
    fn a_port_that_cannot_be_had_is_explained() {
        let first = bind_admin(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_addr().expect("a bound socket has an address");
        let taken = bind_admin(address).expect_err("it is taken").to_string();
        assert!(taken.contains(&address.to_string()), "{taken}");
        assert!(taken.contains(&format!("pid {} (", std::process::id())) && taken.contains("--admin"), "{taken}");
        // TEST-NET-1 (RFC 5737).
        let foreign = bind_admin(SocketAddr::from(([192, 0, 2, 1], 0))).expect_err("it is nobody's").to_string();
        assert!(foreign.contains("no address of this machine"), "{foreign}");
    }
}
