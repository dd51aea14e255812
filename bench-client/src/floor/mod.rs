//! `floor`: reference servers of the same wire format, to measure the server against.
//!
//! They answer in the thread that received, and score as the sum model does, so what the server adds
//! to them is its hand-off and its batching:
//! - [`epoll`]: one thread, level-triggered epoll. The limit of readiness-based input and output.
//! - [`uring`]: one thread on io_uring, the same calls in fewer entries into the kernel. The limit of completion-based
//!   input and output; it shares no code with the server.
//! - [`mod@tokio`]: many threads, a task a connection. Not a limit, but what users have today.
//!
//! They are no servers to deploy: they hold no peer to a deadline, do not limit connections, do not drain, and end with
//! an error where the server would recover (no descriptors left to accept with).
//!
//! Invariants: they keep the wire contract: answers in request order whatever the cuts, a bad count's error answer
//! behind all answers owed and then the end of the stream, every answer to a peer that has shut down its sending side,
//! and no further receive from a peer that does not read. The line with the address is printed once connections
//! are accepted.

mod epoll;
mod responder;
mod tokio;
mod uring;

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;

use disrust_protocol::RequestLayout;
use nix::errno::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::args::{FloorPlan, Kind};
use crate::connect::{Target, raise_descriptor_limit};
use crate::failure::Failure;
use crate::pinning::pin_current_thread;

/// Connections that may wait to be accepted, as many as at the server, and not the 128 of `TcpListener::bind`.
///
/// Larger: the kernel caps it. Smaller: a crowd that connects at once is measured by its lost SYNs.
const LISTEN_BACKLOG: i32 = 4096;

/// Why a reference server did not start, or could not go on.
#[derive(Debug, Error)]
pub enum FloorError {
    /// The address can't be listened on.
    #[error("cannot listen on {host}:{port}: {source}\nIs it an address of this machine, and its port free?")]
    Listen {
        /// The host as given.
        host: String,
        /// The port as given.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// io_uring can't be had.
    #[error(
        "cannot set up io_uring: {0}\n\
         It needs Linux 6.1, and a container's seccomp profile or kernel.io_uring_disabled may forbid it."
    )]
    RingUnavailable(io::Error),
    /// The CPU is not there.
    #[error("cannot run on CPU {0}: it is not there, or this process may not use it. Choose another --pin")]
    Pin(usize),
    /// Descriptors or memory have run out.
    #[error("cannot accept: {0}\nToo many connections for this process? Raise `ulimit -n`, or make fewer.")]
    Accept(io::Error),
    /// This machine refused something else.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

impl FloorError {
    /// For `map_err`: this machine refused `action`.
    fn system<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> FloorError {
        move |error| FloorError::System { action, source: error.into() }
    }
}

impl From<FloorError> for Failure {
    fn from(error: FloorError) -> Failure {
        Failure::Command(Box::new(error))
    }
}

/// Serves as `plan` says until the process is told to stop.
pub fn run(target: &Target, plan: &FloorPlan, out: &mut impl Write) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    // Before the port is open, so that a signal that comes early ends this process in order too.
    let stop = stop_signals().map_err(FloorError::system("catch signals"))?;
    // Threads that are started later inherit this.
    if let Some(cpu) = plan.pin
        && !pin_current_thread(cpu)
    {
        return Err(FloorError::Pin(cpu).into());
    }
    let layout = RequestLayout::new(target.features as usize);
    let (host, port) = (target.host.as_str(), plan.port(target));
    let mut announce = |address| announce(plan.kind, target, address, out);
    match plan.kind {
        Kind::Epoll => {
            let (listener, address) = listen(host, port)?;
            let server = epoll::Server::new(listener, layout, stop)?;
            announce(address)?;
            server.run()?;
        }
        Kind::Uring => {
            let (listener, address) = listen(host, port)?;
            let server = uring::Server::new(listener, layout, stop)?;
            announce(address)?;
            server.run()?;
        }
        Kind::Tokio => {
            let (listener, address) = listen(host, port)?;
            let server = tokio::Server::new(listener, layout, stop, plan.threads)?;
            announce(address)?;
            server.run()?;
        }
    }
    Ok(())
}

fn announce(kind: Kind, target: &Target, address: SocketAddr, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "listening on {address} ({} floor, sum model, {} features)", kind.name(), target.features)
        .and_then(|()| out.flush())
        .map_err(Failure::local("print"))
}

/// A stream that becomes readable when the process is told to stop.
fn stop_signals() -> io::Result<UnixStream> {
    let (stop, raised) = UnixStream::pair()?;
    stop.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGTERM, raised.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, raised)?;
    Ok(stop)
}

/// A listener that does not block, whose connections inherit TCP_NODELAY from it, as the server's do.
fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), FloorError> {
    let bound = (host, port).to_socket_addrs().and_then(|mut addresses| {
        let address = addresses.next().ok_or(io::Error::new(ErrorKind::NotFound, "the name has no address"))?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| FloorError::Listen { host: host.to_owned(), port, source })
}

/// Of an accept that failed: nothing, if only the connection is lost, or an error that would come again at once.
fn accept_failed(error: io::Error) -> Result<(), FloorError> {
    let exhausted = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    let code = error.raw_os_error().map(Errno::from_raw);
    if code.is_some_and(|code| exhausted.contains(&code)) { Err(FloorError::Accept(error)) } else { Ok(()) }
}
