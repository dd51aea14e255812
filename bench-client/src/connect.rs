//! Connections: from a host and port, or a Unix socket's path, to a socket that sends at once and never waits for ever.
//!
//! Whom a connection goes to is a [`Target`], which every command is told.
//!
//! Invariants: a socket that leaves here has both timeouts set, and TCP_NODELAY if it is one of TCP.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::failure::Failure;
use crate::hello::{Hello, HelloFault};

/// The server, and what every command needs to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The port that the server listens on.
    pub port: u16,
    /// The path of the server's Unix socket, which is connected to instead of host and port.
    pub path: Option<PathBuf>,
    /// The name or address of the server.
    pub host: String,
    /// Features in a vector, as the server has them.
    pub features: u32,
    /// How long the server may let us wait.
    pub timeout: Duration,
    /// Whether each connection says hello first.
    pub says_hello: bool,
    /// Of the random vectors; the same seed sends the same bytes.
    pub seed: u64,
}

/// As the command line has it.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(formatter, "unix:{}", path.display()),
            None => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// What each connection says first, if it says anything.
    pub fn hello(&self) -> Option<Hello> {
        self.says_hello.then(|| Hello::new(self.features))
    }
}

/// Connects to the server, by the first of its addresses that answers, and says hello if that is asked for.
pub fn connect(target: &Target) -> Result<Socket, Failure> {
    let socket = addresses(target).and_then(|addresses| connect_any(&addresses, target.timeout));
    let socket = socket.map_err(|source| Failure::Connect { address: target.to_string(), source })?;
    if let Some(mut hello) = target.hello() {
        (&socket).write_all(&hello.bytes()).map_err(Failure::local("say hello"))?;
        receive_hello(&socket, &mut hello, &target.to_string())?;
    }
    Ok(socket)
}

/// Receives the rest of the answer to hello over a socket that blocks, and nothing behind it.
fn receive_hello(mut socket: &Socket, hello: &mut Hello, address: &str) -> Result<(), Failure> {
    let failed = |fault| Failure::Hello { address: address.to_owned(), fault };
    let mut byte = [0; 1];
    loop {
        // One byte at a time: what follows is somebody else's.
        match socket.read(&mut byte) {
            Ok(0) => return Err(failed(HelloFault::ClosedEarly(hello.received_bytes()))),
            Ok(_) => {
                let (_, is_complete) = hello.take(&byte).map_err(failed)?;
                if is_complete {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::local("receive the answer to hello")(error)),
        }
    }
}

/// Where else a connection goes that is to follow this one.
pub fn same_address(target: &Target, socket: &Socket) -> io::Result<SockAddr> {
    match &target.path {
        // A server may have bound another name before it took this one.
        Some(path) => SockAddr::unix(path),
        None => socket.peer_addr(),
    }
}

fn addresses(target: &Target) -> io::Result<Vec<SockAddr>> {
    if let Some(path) = &target.path {
        return Ok(vec![SockAddr::unix(path)?]);
    }
    let addresses = (target.host.as_str(), target.port).to_socket_addrs()?;
    Ok(addresses.map(|address: SocketAddr| address.into()).collect())
}

fn connect_any(addresses: &[SockAddr], timeout: Duration) -> io::Result<Socket> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let socket = socket_for(address, Type::STREAM)?;
        match socket.connect_timeout(address, timeout) {
            Ok(()) => {
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))?;
                return Ok(socket);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// A socket that sends at once, to be connected to this address.
pub fn socket_for(address: &SockAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), kind.cloexec(), None)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// Lets this process open as many descriptors as it is allowed to, which is often far more than it starts with.
pub fn raise_descriptor_limit() -> Result<(), Failure> {
    let raise = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    };
    raise().map_err(Failure::local("raise the limit of open descriptors"))
}
