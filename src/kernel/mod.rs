//! The operating system, as the server's logic sees it; the only folder that names libc, io_uring, sockets, affinity.
//!
//! [`Kernel`] is the seam: [`crate::io_thread::IoThread`] is written against it alone, so the same code that serves on
//! io_uring ([`UringKernel`]) runs on any other implementation, such as a simulated one. The rest of the folder is
//! what a process needs once, at start: listeners, limits, pinning, and explaining a refusal; and now and then, giving memory back.
//!
//! What a [`Kernel`] promises, and the logic relies on:
//! - Each operation ends with exactly one final completion (`more` is false, or the completion has no such field).
//! - Memory moves by ownership: a buffer or block given to an operation is the kernel's until a completion returns it.
//! - Nothing happens to a socket that the caller did not ask for, and `close` is asked for only when no operation is
//!   in the kernel for that socket.

use std::io;
use std::time::Duration;

use crate::exchange::blocks::Block;
use crate::exchange::buffer_pool::Buffer;
use crate::exchange::event::ConnectionId;

mod alarm;
mod buffer_ring;
mod listen;
mod peer;
mod process;
mod progress;
mod uring;

pub use alarm::{EventFd, ThreadAlarm};
pub use listen::{
    AdminBindError, BindError, BindPathError, BoundPath, BoundPort, Listener, Listeners, Owner, PathListener,
    ServedPath, ServedPort, bind_admin, bind_path, bind_port, resolve,
};
pub use peer::Peer;
#[cfg(feature = "onnxruntime")]
pub use process::refuse_telemetry;
pub use process::{
    DescriptorLimit, ReadFileError, SpeakingAllocator, available_cpus, check_address_space, explain_refusal,
    explain_thread_refusal, give_up_system_calls, outlive_file_size_limit, pin_current_thread,
    process_started_unix_seconds, process_usage, raise_descriptor_limit, read_regular_file, release_free_memory,
    run_when_idle, send_to_service_manager, spare_address_space, unix_seconds, write_to_stderr,
};
pub use uring::{RingSizes, RingSocket, UringKernel, probe_ring};

/// The running kernel's release, such as `6.1.0`; empty if /proc does not say.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Which of a thread's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Its own, on the TCP port.
    Tcp,
    /// The Unix socket, which all threads share: each accepts one connection at a time, so that all get some.
    Unix,
}

impl Entrance {
    /// All that there can be; each at the place of its number.
    pub const ALL: [Entrance; 2] = [Entrance::Tcp, Entrance::Unix];
}

/// How much of what was sent the peer's side has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unacknowledged {
    /// Over TCP: bytes that were not acknowledged; a FIN counts as one.
    Bytes(usize),
    /// Over a Unix socket: memory, in bytes, of what was not read. Each send takes more of it than it has bytes, and lets go
    /// of it as a whole.
    Memory(usize),
}

/// How a receive is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shots {
    /// One completion, one buffer: for a peer whose input fills whole buffers, so that it cannot take all of them.
    One,
    /// A completion for each arrival until it is cancelled or fails.
    Many,
}

/// What an I/O thread asks of the operating system.
///
/// Operations are queued by the methods and submitted by [`Kernel::enter`]; what came of them is read from
/// [`Kernel::next_completion`]. `half_close`, `abort` and `close` act at once, and what asks is answered at once.
pub trait Kernel {
    /// Names a connected socket.
    type Socket: Copy + std::fmt::Debug;

    /// The monotonic clock, in nanoseconds since a moment before the first call.
    fn now_ns(&mut self) -> u64;

    /// Whether the thread has this listener.
    fn listens(&self, from: Entrance) -> bool;

    /// Accepts connections from one of the thread's listeners until the completion says that no more come.
    fn accept(&mut self, from: Entrance);

    /// Ends accepting; the final accept completion follows.
    fn cancel_accept(&mut self, from: Entrance);

    /// Takes a connection that is established but not accepted yet, after accepting has ended. From the first call on nobody can
    /// connect to a listener that threads share, and accepting fails on it (EINVAL).
    fn accept_queued(&mut self, from: Entrance) -> Queued<Self::Socket>;

    /// Stops listening; where threads share the listener, with the last of them.
    fn close_listener(&mut self, from: Entrance);

    /// Receives into a provided buffer.
    fn receive(&mut self, socket: Self::Socket, id: ConnectionId, shots: Shots);

    /// Cancels the connection's receive; its final completion follows.
    fn cancel_receive(&mut self, id: ConnectionId);

    /// Sends the block's content, or a part of it.
    fn send(&mut self, socket: Self::Socket, id: ConnectionId, block: Box<Block>);

    /// Bytes that have come for this socket and have not been received.
    fn unreceived_bytes(&mut self, socket: Self::Socket) -> usize;

    /// What a completed send of this socket took, or one that is in the kernel, and the peer's side has not taken.
    fn unacknowledged(&mut self, socket: Self::Socket) -> Unacknowledged;

    /// Whether the peer has vanished, as far as TCP knows: nothing of it has come for [`crate::limits::PEER_SILENCE_MAX`],
    /// although it was asked repeatedly. A peer that does not read answers such questions. One on this machine does not vanish.
    fn peer_has_vanished(&mut self, socket: Self::Socket) -> bool;

    /// Who is at the other end, for the log; nobody knows once the connection is broken.
    fn peer(&mut self, socket: Self::Socket) -> Option<Peer>;

    /// Ends the sending direction (FIN after what was sent).
    fn half_close(&mut self, socket: Self::Socket);

    /// Ends both directions, so that the operations on the socket complete.
    fn abort(&mut self, socket: Self::Socket);

    /// Closes the socket. No operation on it may be in the kernel.
    fn close(&mut self, socket: Self::Socket);

    /// Lends a buffer for receiving.
    fn provide(&mut self, buffer: Buffer);

    /// Starts a timer that completes once, beside those that are under way and are due later.
    fn start_timer(&mut self, after: Duration);

    /// Waits for the thread's alarm once.
    fn await_alarm(&mut self);

    /// Submits everything queued, and with `wait` sleeps until there is a completion.
    fn enter(&mut self, wait: bool);

    /// The next completion that is there.
    fn next_completion(&mut self) -> Option<Completion<Self::Socket>>;
}

/// What a listener's queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued<S> {
    /// A connection.
    Connection(S),
    /// Nothing.
    Nothing,
    /// Perhaps something, but there is no descriptor or memory for it.
    NoDescriptor,
}

/// What came of an operation.
#[derive(Debug)]
pub enum Completion<S> {
    /// Of [`Kernel::accept`].
    Accepted {
        /// As given.
        from: Entrance,
        /// The new connection's socket.
        result: Result<S, io::Error>,
        /// Whether accepting goes on.
        more: bool,
    },
    /// Of [`Kernel::receive`].
    Received {
        /// As given.
        id: ConnectionId,
        /// What arrived.
        outcome: ReceiveOutcome,
        /// Whether receiving goes on.
        more: bool,
    },
    /// Of [`Kernel::send`].
    Sent {
        /// As given.
        id: ConnectionId,
        /// As given; its content is not consumed yet.
        block: Box<Block>,
        /// Bytes that were sent; 0 if it has to be tried again.
        result: Result<usize, io::Error>,
    },
    /// Of [`Kernel::await_alarm`].
    Alarm,
    /// Of [`Kernel::start_timer`].
    Timer,
}

/// What a receive brought.
#[derive(Debug)]
pub enum ReceiveOutcome {
    /// Bytes, at the front of the buffer's receive area.
    Bytes {
        /// The buffer that holds them.
        buffer: Buffer,
        /// How many, at least 1.
        bytes: usize,
    },
    /// The peer has shut down its sending side.
    End,
    /// There was no buffer.
    NoBuffers,
    /// The receive was cancelled, or the kernel ended it for reasons of its own; arm it anew if it is wanted.
    Ended,
    /// The connection is broken.
    Failed(io::Error),
}
