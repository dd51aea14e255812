//! The epoll floor: one thread, level-triggered, nonblocking; a receive and a send for each ready connection.
//!
//! The calls go through nix, which adds nothing to them. Rejected: `mio`, which is edge-triggered only, and
//! `polling`, which sets a timer on each wait. With level-triggered events one receive a turn is enough: what it leaves
//! is told again, so a greedy connection cannot starve a polite one, and no call is made only to hear "would block".
//!
//! The journey of a request: `epoll_wait` → [`Connection::receive`] into the one receive buffer, behind what was left
//! over → [`answer_all`] → [`Connection::send`].
//!
//! Invariants: a connection waits either to receive or, while it has unsent answers, to send, never for both; between
//! turns the receive buffer and the answers hold nothing.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use disrust_protocol::RequestLayout;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;

use super::responder::{Framing, answer_all};
use super::{FloorError, accept_failed};

/// Bytes that are received at once, unless a request is larger. Larger: out of the L2 cache. Smaller: more system calls
/// for large bursts.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Connections that are served between two waits. Larger: more memory. Smaller: more system calls.
const EVENTS_MAX: usize = 256;

/// What epoll calls the listener; connections are called by their slots, of which there are fewer.
const LISTENER: u64 = u64::MAX;

/// What epoll calls the stream that tells to stop.
const STOP: u64 = u64::MAX - 1;

/// The server.
pub struct Server {
    epoll: Epoll,
    listener: TcpListener,
    _stop: UnixStream,
    connections: Slab<Connection>,
    shared: Shared,
}

/// What all connections use in turn.
struct Shared {
    layout: RequestLayout,
    receive_buffer: Vec<u8>,
    answers: Vec<u8>,
}

impl Server {
    /// A server on `listener`, which does not block, until `stop` is readable.
    pub fn new(listener: TcpListener, layout: RequestLayout, stop: UnixStream) -> Result<Server, FloorError> {
        let watch = || {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
            epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
            Ok::<_, Errno>(epoll)
        };
        let epoll = watch().map_err(FloorError::system("watch the listener"))?;
        let shared = Shared {
            layout,
            receive_buffer: vec![0; layout.request_bytes_max() + RECEIVE_BYTES.max(layout.request_bytes_max())],
            answers: Vec::with_capacity(RECEIVE_BYTES),
        };
        Ok(Server { epoll, listener, _stop: stop, connections: Slab::new(), shared })
    }

    /// Serves until it is told to stop.
    pub fn run(mut self) -> Result<(), FloorError> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(FloorError::system("wait for readiness")(error)),
            };
            for event in &events[..ready] {
                match event.data() {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    slot => self.turn(slot as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), FloorError> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => return accept_failed(error),
        };
        stream.set_nonblocking(true).map_err(FloorError::system("make a connection nonblocking"))?;
        let entry = self.connections.vacant_entry();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, entry.key() as u64);
        self.epoll.add(&stream, event).map_err(FloorError::system("watch a connection"))?;
        entry.insert(Connection::new(stream));
        Ok(())
    }

    /// A connection is ready for what it waits for, or broken. Only its own turn removes it, and a wait brings each
    /// connection once, so it is there.
    fn turn(&mut self, slot: usize) -> Result<(), FloorError> {
        let connection = &mut self.connections[slot];
        let waited = connection.waits_for();
        let outcome = match waited {
            EpollFlags::EPOLLOUT => connection.send_rest(),
            _ => connection.receive(&mut self.shared),
        };
        let connection = &self.connections[slot];
        let waits = connection.waits_for();
        match outcome {
            Ok(Next::GoOn) if waits == waited => Ok(()),
            Ok(Next::GoOn) => self
                .epoll
                .modify(&connection.stream, &mut EpollEvent::new(waits, slot as u64))
                .map_err(FloorError::system("watch a connection")),
            Ok(Next::Close) | Err(_) => {
                self.connections.remove(slot);
                Ok(())
            }
        }
    }
}

/// What follows a connection's turn.
enum Next {
    GoOn,
    Close,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not come yet.
    partial: Vec<u8>,
    /// Answers that the kernel has not taken.
    unsent: Vec<u8>,
    /// A bad count came: nothing behind it is read, and the stream ends behind the answers.
    framing_lost: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection { stream, partial: Vec::new(), unsent: Vec::new(), framing_lost: false }
    }

    fn waits_for(&self) -> EpollFlags {
        if self.unsent.is_empty() { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT }
    }

    /// Receives once and answers what is whole. The end of the peer's stream closes the connection at once: it is
    /// received only when nothing is owed.
    fn receive(&mut self, shared: &mut Shared) -> io::Result<Next> {
        let held = self.partial.len();
        shared.receive_buffer[..held].copy_from_slice(&self.partial);
        let received = match self.stream.read(&mut shared.receive_buffer[held..]) {
            Ok(0) => return Ok(Next::Close),
            Ok(received) => received,
            Err(error) if is_passing(&error) => return Ok(Next::GoOn),
            Err(error) => return Err(error),
        };
        if self.framing_lost {
            return Ok(Next::GoOn);
        }
        self.partial.clear();
        let bytes = &shared.receive_buffer[..held + received];
        match answer_all(shared.layout, bytes, &mut shared.answers) {
            Framing::Kept(taken) => self.partial.extend_from_slice(&bytes[taken..]),
            Framing::Lost => self.framing_lost = true,
        }
        let sent = self.send(&shared.answers)?;
        self.unsent.extend_from_slice(&shared.answers[sent..]);
        shared.answers.clear();
        self.end_if_due()
    }

    /// Sends on where the kernel took no more.
    fn send_rest(&mut self) -> io::Result<Next> {
        let sent = self.send(&self.unsent)?;
        self.unsent.drain(..sent);
        self.end_if_due()
    }

    /// Sends as much of `bytes` as the kernel takes.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match (&self.stream).write(&bytes[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// After a bad count, ends our side once everything is sent. The peer's end is still waited for: closing with
    /// unread input would reset the connection, and the peer could lose answers.
    fn end_if_due(&self) -> io::Result<Next> {
        if self.framing_lost && self.unsent.is_empty() {
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(Next::GoOn)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
