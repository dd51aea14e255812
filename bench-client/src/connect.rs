//! Connections: from a host and port to a stream that sends at once and never waits for ever.
//!
//! Whom a connection goes to is a [`Target`], which every command is told.
//!
//! Invariants: a stream that leaves here has TCP_NODELAY and both timeouts set.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::failure::Failure;

/// The server, and what every command needs to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The port that the server listens on.
    pub port: u16,
    /// The name or address of the server.
    pub host: String,
    /// Features in a vector, as the server has them.
    pub features: u32,
    /// How long the server may let us wait.
    pub timeout: Duration,
    /// Of the random vectors; the same seed sends the same bytes.
    pub seed: u64,
}

/// Connects to the server, by the first of its addresses that answers.
pub fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let stream = addresses(target).and_then(|addresses| connect_any(&addresses, target.timeout));
    stream.map_err(|source| Failure::Connect { address: format!("{}:{}", target.host, target.port), source })
}

fn addresses(target: &Target) -> io::Result<Vec<SocketAddr>> {
    Ok((target.host.as_str(), target.port).to_socket_addrs()?.collect())
}

fn connect_any(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Lets this process open as many descriptors as it is allowed to, which is often far more than it starts with.
pub fn raise_descriptor_limit() -> Result<(), Failure> {
    let raise = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    };
    raise().map_err(Failure::local("raise the limit of open descriptors"))
}
