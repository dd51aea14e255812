//! The io_uring floor: one thread, one ring, and one chain of operations a turn for each connection.
//!
//! It is written on the io-uring crate alone, with none of the server's code, so that it is a limit of its own. A turn's
//! chain is "send the answers, then receive": linked, so that the kernel begins to receive when all is sent, and a
//! peer that does not read is not received from. Of a chain only the receive, or whatever failed before it, posts a
//! completion (IOSQE_CQE_SKIP_SUCCESS, io_uring_enter(2)). Rejected: provided buffers with a multishot receive, which
//! save the receive's submission, but need a copy of each partial request and care for buffers that run out; the CPU
//! time of a request is the same.
//!
//! The journey of a request: a completion → [`Connection::received`] → [`answer_all`] → [`Server::submit_turn`]; all
//! turns go to the kernel with the next wait, in one system call.
//!
//! Invariants
//! - A connection in the slab has exactly one chain in the kernel, which posts exactly one completion. Its buffers are
//!   touched, and it is removed, only between that completion and the next chain.
//! - Connections that are open when the server ends are never freed: the kernel may write to them until the process ends.
#![expect(unsafe_code, reason = "a ring takes pointers to memory that it goes on using")]

use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use disrust_protocol::RequestLayout;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use slab::Slab;

use super::responder::{Framing, answer_all};
use super::{FloorError, accept_failed};

/// Submissions that go to the kernel at once. Larger: only memory. Smaller: more system calls.
const SUBMISSIONS: u32 = 1024;

/// Completions that the kernel holds without taking memory for more. A connection has one at a time.
const COMPLETIONS: u32 = 4096;

/// Bytes that are received at once, unless a request is larger. Larger: more memory for each connection. Smaller: more
/// system calls for large bursts.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Operations of a chain: a send, the end of our side, a receive.
const CHAIN_MAX: usize = 3;

/// Waits for bytes before it tries to receive: behind a send there are none yet (IORING_RECVSEND_POLL_FIRST, io_uring(7)).
const POLL_FIRST: u16 = 1;

/// What the ring calls the multishot accept; a connection's operations are called by its slot, see [`token`].
const ACCEPT: u64 = u64::MAX;

/// What the ring calls the wait for the stream that tells to stop.
const STOP: u64 = u64::MAX - 1;

/// What the ring calls an operation of the connection in `slot`: whether it is the receive at the end of the chain, or
/// one before it, which is only heard of if it failed.
fn token(slot: usize, is_receive: bool) -> u64 {
    (slot as u64) << 1 | u64::from(is_receive)
}

/// The server.
pub struct Server {
    ring: IoUring,
    listener: TcpListener,
    stop: UnixStream,
    layout: RequestLayout,
    /// Holds nothing between turns.
    chain: Vec<Entry>,
    /// Never freed, see the invariants.
    connections: ManuallyDrop<Slab<Connection>>,
}

impl Server {
    /// A server on `listener` until `stop` is readable.
    pub fn new(listener: TcpListener, layout: RequestLayout, stop: UnixStream) -> Result<Server, FloorError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(FloorError::RingUnavailable)?;
        let connections = ManuallyDrop::new(Slab::new());
        Ok(Server { ring, listener, stop, layout, chain: Vec::with_capacity(CHAIN_MAX), connections })
    }

    /// Serves until it is told to stop. The sockets that are open then are closed by the end of the process.
    pub fn run(mut self) -> Result<(), FloorError> {
        self.submit_accept()?;
        let stop = opcode::PollAdd::new(Fd(self.stop.as_raw_fd()), libc::POLLIN as u32).build().user_data(STOP);
        // SAFETY: the entry points to no memory.
        unsafe { submit(&mut self.ring, &[stop]) }?;
        loop {
            enter(&self.ring, 1)?;
            while let Some(completion) = self.next_completion() {
                match completion.user_data() {
                    STOP => return Ok(()),
                    ACCEPT => self.accepted(&completion)?,
                    token => self.turn((token >> 1) as usize, token & 1 == 1, completion.result())?,
                }
            }
        }
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn submit_accept(&mut self) -> Result<(), FloorError> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the entry points to no memory.
        unsafe { submit(&mut self.ring, &[accept.build().user_data(ACCEPT)]) }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> Result<(), FloorError> {
        match socket(completion.result()) {
            Ok(socket) => {
                let slot = self.connections.insert(Connection::new(socket, self.layout));
                self.submit_turn(slot)?;
            }
            Err(error) => accept_failed(error)?,
        }
        if cqueue::more(completion.flags()) { Ok(()) } else { self.submit_accept() }
    }

    /// The chain of the connection in `slot` has ended, with `result`.
    fn turn(&mut self, slot: usize, is_receive: bool, result: i32) -> Result<(), FloorError> {
        match usize::try_from(result) {
            Ok(bytes) if is_receive && bytes > 0 => {
                self.connections[slot].received(self.layout, bytes);
                self.submit_turn(slot)
            }
            // The peer's end, which is received only when nothing is owed, or an error of the peer's.
            _ => {
                self.connections.remove(slot);
                Ok(())
            }
        }
    }

    /// Hands the next chain of the connection in `slot` to the ring.
    fn submit_turn(&mut self, slot: usize) -> Result<(), FloorError> {
        self.chain.clear();
        self.connections[slot].chain(slot, &mut self.chain);
        // SAFETY: the chain points to the connection's two buffers, on the heap. A connection is touched and removed only by
        // `turn`, for the one completion of its chain, after which the kernel uses them no more.
        unsafe { submit(&mut self.ring, &self.chain) }
    }
}

/// Puts a chain into the submission queue, whole: a chain that is cut in two is two.
///
/// # Safety
/// The memory that the entries point to stays valid, and untouched, until the chain's completion.
unsafe fn submit(ring: &mut IoUring, chain: &[Entry]) -> Result<(), FloorError> {
    // SAFETY: what the caller promises.
    while unsafe { ring.submission().push_multiple(chain) }.is_err() {
        enter(ring, 0)?;
    }
    Ok(())
}

/// Submits what is queued and waits for so many completions.
fn enter(ring: &IoUring, completions: usize) -> Result<(), FloorError> {
    match ring.submit_and_wait(completions) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => Ok(()),
        Err(error) => Err(FloorError::system("enter the kernel")(error)),
    }
}

/// The socket, or the error, of an accept.
fn socket(result: i32) -> io::Result<OwnedFd> {
    let socket = RawFd::from(result);
    if socket < 0 {
        return Err(io::Error::from_raw_os_error(-socket));
    }
    // SAFETY: the kernel has just opened it for the accept that this is the result of, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

struct Connection {
    socket: OwnedFd,
    /// Its first `held` bytes are the beginning of a request whose end has not come yet.
    received: Vec<u8>,
    held: usize,
    /// What the next chain sends.
    answers: Vec<u8>,
    framing: Next,
}

/// What follows the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Requests,
    /// A bad count came: our side of the stream ends.
    End,
    /// Our side has ended. What still comes is dropped: closing with unread input would reset the connection, and the peer
    /// could lose answers.
    Nothing,
}

impl Connection {
    fn new(socket: OwnedFd, layout: RequestLayout) -> Connection {
        let received = vec![0; RECEIVE_BYTES.max(layout.request_bytes_max())];
        Connection { socket, received, held: 0, answers: Vec::new(), framing: Next::Requests }
    }

    /// Answers what is whole of what has come, `bytes` of which are new. All that was to be sent before is sent.
    fn received(&mut self, layout: RequestLayout, bytes: usize) {
        self.answers.clear();
        if self.framing != Next::Requests {
            self.framing = Next::Nothing;
            return;
        }
        let end = self.held + bytes;
        match answer_all(layout, &self.received[..end], &mut self.answers) {
            Framing::Kept(taken) => {
                self.received.copy_within(taken..end, 0);
                self.held = end - taken;
            }
            Framing::Lost => (self.framing, self.held) = (Next::End, 0),
        }
    }

    /// Everything until the next completion: sends the answers, if there are any, and ends our side, if that is due; then
    /// receives.
    fn chain(&mut self, slot: usize, chain: &mut Vec<Entry>) {
        let socket = Fd(self.socket.as_raw_fd());
        let before_the_receive =
            |entry: Entry| entry.flags(Flags::IO_LINK | Flags::SKIP_SUCCESS).user_data(token(slot, false));
        if !self.answers.is_empty() {
            let bytes = u32::try_from(self.answers.len()).expect("answers are shorter than what was received");
            // MSG_WAITALL: a send that is short would be a completion of its own, and the rest a chain of its own.
            let send = opcode::Send::new(socket, self.answers.as_ptr(), bytes);
            chain.push(before_the_receive(send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build()));
        }
        if self.framing == Next::End {
            chain.push(before_the_receive(opcode::Shutdown::new(socket, libc::SHUT_WR).build()));
        }
        let room = &mut self.received[self.held..];
        let bytes = u32::try_from(room.len()).expect("a receive buffer is shorter than 4 GiB");
        let receive = opcode::Recv::new(socket, room.as_mut_ptr(), bytes).ioprio(POLL_FIRST);
        chain.push(receive.build().user_data(token(slot, true)));
    }
}
