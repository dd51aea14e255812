//! [`Kernel`] on io_uring: one ring, its listeners, one thread.
//!
//! It translates operations to submissions and completions back, and holds what the kernel holds; it decides nothing.
//! The ring's settings, and their reasons (DEFER_TASKRUN needs Linux 6.1):
//! - SINGLE_ISSUER and DEFER_TASKRUN: completions are worked off when the thread enters the kernel, not by interrupting
//!   it: a quarter to two fifths less CPU. Both bind the ring to the thread that made it.
//! - TASKRUN_FLAG: with DEFER_TASKRUN, a thread that polls without entering sees that there is something to enter for.
//! - SUBMIT_ALL: one failing submission does not hold back those behind it.
//! - R_DISABLED: it takes nothing until it has been restricted to what a server submits.
//!
//! Invariants
//! - Every submission has one final completion; `operations_in_kernel` counts those still to come.
//! - A block is in `sends` from its submission to its completion, and nobody else can reach it meanwhile.
//! - The ring is closed before the memory that it was given is freed: [`UringKernel`] waits for all completions when
//!   it is dropped, and its fields are dropped in order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use socket2::SockRef;

use super::Shots;
use super::alarm::EventFd;
use super::buffer_ring::{BufferRing, GROUP};
use super::listen::Listeners;
use super::process::restrict;
use super::progress::{outgoing_bytes, peer_has_vanished, unreceived_bytes};
use super::{Completion, Entrance, Kernel, Peer, Queued, ReceiveOutcome, Unacknowledged};
use crate::exchange::blocks::Block;
use crate::exchange::buffer_pool::{Buffer, BufferPool};
use crate::exchange::clock::Clock;
use crate::exchange::event::ConnectionId;
use crate::limits::UNIX_SEND_BUFFER_BYTES;

/// Sizes of a ring.
#[derive(Debug, Clone, Copy)]
pub struct RingSizes {
    /// Entries of the submission queue.
    pub submissions: u32,
    /// Entries of the completion queue.
    pub completions: u32,
}

/// A socket that this ring has accepted. Only the ring can make one, so that nobody can name a descriptor that is not his.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSocket {
    descriptor: RawFd,
    from: Entrance,
}

impl RingSocket {
    /// What has just been accepted.
    fn accepted(descriptor: RawFd, from: Entrance) -> RingSocket {
        let socket = RingSocket { descriptor, from };
        if from == Entrance::Unix {
            // It inherits nothing from its listener. Without this the kernel holds more for a peer that does not read.
            let _as_it_is = SockRef::from(&socket.borrow()).set_send_buffer_size(UNIX_SEND_BUFFER_BYTES);
        }
        socket
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor came from an accept, and is open for as long as its connection asks for something.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

/// An I/O thread's ring, listeners and alarm.
pub struct UringKernel {
    // The queues point into the ring and come before it: fields are dropped in order.
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    submitter: Submitter<'static>,
    _ring: OwnedRing,
    // From here on, memory that the ring was given.
    buffers: BufferRing,
    /// The block that the kernel is sending, of each connection slot up to the highest that has sent.
    sends: Vec<Option<Box<Block>>>,
    /// Where the kernel puts the alarm's count.
    alarm_count: Box<u64>,
    timer: Box<Timespec>,
    alarm: EventFd,
    listeners: Listeners,
    /// Submissions that did not fit the queue; they go before later ones.
    backlog: VecDeque<squeue::Entry>,
    /// Submissions whose final completion has not come.
    operations_in_kernel: usize,
    clock: Clock,
}

/// A ring on the heap, so that its queues can point to it.
struct OwnedRing(NonNull<IoUring>);

impl Drop for OwnedRing {
    fn drop(&mut self) {
        // SAFETY: a leaked box, made in `UringKernel::new`, freed only here; the queues that point into it are
        // fields before this one and are gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What a submission was, in the top bits of its user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Accept = 1,
    Receive = 2,
    Send = 3,
    Cancel = 4,
    Timer = 5,
    Alarm = 6,
}

/// Bits of a slot in user data; four above them name the operation, 32 below them hold the generation.
const SLOT_BITS: u32 = 28;

const _: () = assert!(crate::limits::CONNECTIONS_MAX <= 1 << SLOT_BITS, "a slot fits a token");

fn token(operation: Operation, id: ConnectionId) -> u64 {
    (operation as u64) << (32 + SLOT_BITS) | u64::from(id.slot) << 32 | u64::from(id.generation)
}

/// Of an accept, which has no connection yet: its slot is the listener.
fn accept_token(from: Entrance) -> u64 {
    token(Operation::Accept, ConnectionId { slot: from as u32, generation: 0 })
}

fn read_token(token: u64) -> (Operation, ConnectionId) {
    let operation = match token >> (32 + SLOT_BITS) {
        1 => Operation::Accept,
        2 => Operation::Receive,
        3 => Operation::Send,
        4 => Operation::Cancel,
        5 => Operation::Timer,
        6 => Operation::Alarm,
        other => panic!("every completion is of an operation that was submitted, not of kind {other}"),
    };
    let slot = (token >> 32) as u32 & ((1 << SLOT_BITS) - 1);
    (operation, ConnectionId { slot, generation: token as u32 })
}

fn build_ring(submissions: u32, completions: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_cqsize(completions)
        .build(submissions)
}

/// Makes a small ring, uses it once and lets go of it: whether one can be had, before anything else is begun.
///
/// Its descriptor is not registered: a thread keeps a ring that is registered with it for as long as it lives, and its locked
/// memory with it.
///
/// # Errors
/// As [`UringKernel::new`].
pub fn probe_ring() -> io::Result<()> {
    let mut ring = build_ring(1, 2)?;
    restrict(&ring.submitter())?;
    // There is nothing to cancel, which is soon told.
    // SAFETY: the entry points to no memory.
    let pushed = unsafe { ring.submission().push(&opcode::AsyncCancel::new(0).build()) };
    assert!(pushed.is_ok(), "a new ring is empty");
    ring.submit_and_wait(1).map(drop)
}

impl UringKernel {
    /// Makes the calling thread's ring and lends it the pool's buffers.
    ///
    /// # Errors
    /// io_uring is unavailable, too old, or out of memory or descriptors; [`super::explain_refusal`] tells which.
    pub fn new(
        sizes: RingSizes,
        pool: Arc<BufferPool>,
        listeners: Listeners,
        alarm: EventFd,
        clock: Clock,
    ) -> io::Result<UringKernel> {
        let ring = build_ring(sizes.submissions, sizes.completions)?;
        let ring = OwnedRing(NonNull::from(Box::leak(Box::new(ring))));
        // Its queues are split off once, for as long as the kernel lives, since a field cannot borrow from another one, and to split
        // anew each turn would read the heads and tails that the kernel writes over and over.
        // SAFETY: the ring lives until `OwnedRing` is dropped, which the field order puts after everything that borrows
        // from it here; no other reference to it is made.
        let (mut submitter, submissions, completions) = unsafe { &mut *ring.0.as_ptr() }.split();
        submitter.register_ring_fd()?;
        let buffers = BufferRing::register(pool, &submitter)?;
        restrict(&submitter)?;
        Ok(UringKernel {
            submissions,
            completions,
            submitter,
            _ring: ring,
            buffers,
            sends: Vec::new(),
            alarm_count: Box::new(0),
            timer: Box::new(Timespec::new()),
            alarm,
            listeners,
            backlog: VecDeque::with_capacity(sizes.completions as usize),
            operations_in_kernel: 0,
            clock,
        })
    }

    /// Queues a submission.
    ///
    /// # Safety
    /// Memory that the entry points to stays valid and untouched until the operation's final completion has been
    /// taken, or, for what the kernel copies while submitting, until the next `enter`.
    unsafe fn submit(&mut self, entry: squeue::Entry) {
        self.operations_in_kernel += 1;
        self.backlog.push_back(entry);
        self.fill_submissions();
    }

    fn fill_submissions(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            // SAFETY: `submit`'s callers vouch for the entry.
            if unsafe { self.submissions.push(&entry) }.is_err() {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// io_uring_enter(2). What it says about being busy or interrupted needs no other answer than reaping and coming
    /// back, which the caller's loop does.
    fn enter_once(&mut self, wait: bool) {
        self.submissions.sync();
        if let Err(error) = self.submitter.submit_and_wait(usize::from(wait)) {
            let passing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY));
            assert!(passing, "io_uring_enter fails only for passing reasons, not with: {error}");
        }
        self.submissions.sync();
    }

    fn received(&mut self, id: ConnectionId, entry: &cqueue::Entry, more: bool) -> Completion<RingSocket> {
        let buffer = cqueue::buffer_select(entry.flags()).map(|index| self.buffers.pool().adopt(index));
        let outcome = match (entry.result(), buffer) {
            (bytes @ 1.., Some(buffer)) => ReceiveOutcome::Bytes { buffer, bytes: bytes as usize },
            (1.., None) => panic!("received bytes are in a buffer"),
            (other, unused) => {
                if let Some(buffer) = unused {
                    self.buffers.lend(buffer);
                }
                match -other {
                    0 => ReceiveOutcome::End,
                    libc::ENOBUFS => ReceiveOutcome::NoBuffers,
                    libc::ECANCELED | libc::EINTR | libc::EAGAIN => ReceiveOutcome::Ended,
                    errno => ReceiveOutcome::Failed(io::Error::from_raw_os_error(errno)),
                }
            }
        };
        Completion::Received { id, outcome, more }
    }

    fn sent(&mut self, id: ConnectionId, result: i32) -> Completion<RingSocket> {
        let block = self.sends[id.slot as usize].take().expect("a send completes once");
        let result = match result {
            0.. => Ok(result as usize),
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) => Ok(0),
            _ => Err(io::Error::from_raw_os_error(-result)),
        };
        assert!(!result.as_ref().is_ok_and(|sent| *sent > block.content().len()), "no more is sent than was asked");
        Completion::Sent { id, block, result }
    }
}

impl Kernel for UringKernel {
    type Socket = RingSocket;

    fn now_ns(&mut self) -> u64 {
        self.clock.now_ns()
    }

    fn listens(&self, from: Entrance) -> bool {
        self.listeners.descriptor(from).is_some()
    }

    fn accept(&mut self, from: Entrance) {
        let listener = Fd(self.listeners.descriptor(from).expect("accepting needs a listener"));
        let entry = match from {
            Entrance::Tcp => opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build(),
            // A thread that goes on accepting keeps its place at the front of those who wait, and gets nearly all.
            Entrance::Unix => {
                let (address, its_bytes) = (std::ptr::null_mut(), std::ptr::null_mut());
                opcode::Accept::new(listener, address, its_bytes).flags(libc::SOCK_CLOEXEC).build()
            }
        };
        // SAFETY: the entry points to no memory.
        unsafe { self.submit(entry.user_data(accept_token(from))) }
    }

    fn cancel_accept(&mut self, from: Entrance) {
        let entry = opcode::AsyncCancel::new(accept_token(from)).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.submit(entry.user_data(token(Operation::Cancel, ConnectionId::default()))) }
    }

    fn accept_queued(&mut self, from: Entrance) -> Queued<RingSocket> {
        let Some(listener) = self.listeners.descriptor(from) else { return Queued::Nothing };
        match from {
            // A listener that does not block; it has blocked until now because io_uring fails rather than waits otherwise.
            // SAFETY: fcntl(2) with F_SETFL takes integers and touches no memory.
            Entrance::Tcp => unsafe { libc::fcntl(listener, libc::F_SETFL, libc::O_NONBLOCK) },
            // What waits can be taken as before, and then it is an error to take more: it does not block either.
            // SAFETY: shutdown(2) takes two integers and touches no memory.
            Entrance::Unix => unsafe { libc::shutdown(listener, libc::SHUT_RDWR) },
        };
        // SAFETY: accept4(2) with null pointers asks for no address and touches no memory.
        let socket = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
        if socket >= 0 {
            return Queued::Connection(RingSocket::accepted(socket, from));
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Queued::NoDescriptor,
            // One that has been reset meanwhile, or an interruption: there may be others behind it.
            Some(libc::ECONNABORTED | libc::EINTR) => self.accept_queued(from),
            _ => Queued::Nothing,
        }
    }

    fn close_listener(&mut self, from: Entrance) {
        self.listeners.close(from);
    }

    fn receive(&mut self, socket: RingSocket, id: ConnectionId, shots: Shots) {
        let entry = match shots {
            Shots::Many => opcode::RecvMulti::new(Fd(socket.descriptor), GROUP).build(),
            Shots::One => opcode::Recv::new(Fd(socket.descriptor), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        // SAFETY: the entry points to no memory: the kernel fills a lent buffer, which is shipped until the completion.
        unsafe { self.submit(entry.user_data(token(Operation::Receive, id))) }
    }

    fn cancel_receive(&mut self, id: ConnectionId) {
        let entry = opcode::AsyncCancel::new(token(Operation::Receive, id)).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.submit(entry.user_data(token(Operation::Cancel, id))) }
    }

    fn send(&mut self, socket: RingSocket, id: ConnectionId, block: Box<Block>) {
        let content = block.content();
        let bytes = u32::try_from(content.len()).expect("a block's size fits 32 bits");
        let entry = opcode::Send::new(Fd(socket.descriptor), content.as_ptr(), bytes).flags(libc::MSG_NOSIGNAL).build();
        let slot = id.slot as usize;
        if self.sends.len() <= slot {
            self.sends.resize_with(slot + 1, || None);
        }
        assert!(self.sends[slot].is_none(), "one send in flight a connection");
        self.sends[slot] = Some(block);
        // SAFETY: the content is on the heap, is reached by nobody else while the block is in `sends`, and stays there
        // until the send's completion.
        unsafe { self.submit(entry.user_data(token(Operation::Send, id))) }
    }

    fn unreceived_bytes(&mut self, socket: RingSocket) -> usize {
        unreceived_bytes(socket.descriptor)
    }

    fn unacknowledged(&mut self, socket: RingSocket) -> Unacknowledged {
        let bytes = outgoing_bytes(socket.descriptor);
        match socket.from {
            Entrance::Tcp => Unacknowledged::Bytes(bytes),
            Entrance::Unix => Unacknowledged::Memory(bytes),
        }
    }

    fn peer_has_vanished(&mut self, socket: RingSocket) -> bool {
        socket.from == Entrance::Tcp && peer_has_vanished(socket.descriptor)
    }

    fn peer(&mut self, socket: RingSocket) -> Option<Peer> {
        Peer::of(socket.borrow())
    }

    fn half_close(&mut self, socket: RingSocket) {
        // A socket that is broken already can't be shut down, and needs no FIN.
        // SAFETY: shutdown(2) takes two integers and touches no memory.
        unsafe { libc::shutdown(socket.descriptor, libc::SHUT_WR) };
    }

    fn abort(&mut self, socket: RingSocket) {
        // Fails likewise for a broken socket, whose operations complete by themselves.
        // SAFETY: shutdown(2) takes two integers and touches no memory.
        unsafe { libc::shutdown(socket.descriptor, libc::SHUT_RDWR) };
    }

    fn close(&mut self, socket: RingSocket) {
        // SAFETY: the descriptor came from an accept, the connection owned it, and closes it once.
        let result = unsafe { libc::close(socket.descriptor) };
        assert!(
            result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EBADF),
            "a socket is closed once"
        );
    }

    fn provide(&mut self, buffer: Buffer) {
        self.buffers.lend(buffer);
    }

    fn start_timer(&mut self, after: Duration) {
        *self.timer = Timespec::from(after);
        let entry = opcode::Timeout::new(&raw const *self.timer).build();
        // SAFETY: the time is on the heap and outlives the ring, so it may wait in the backlog for as long as it must. The kernel
        // copies it while submitting; should that not have come yet when another timer is started, both get the other's time, which is sooner: a timer is only started for
        // what is due before all others.
        unsafe { self.submit(entry.user_data(token(Operation::Timer, ConnectionId::default()))) }
    }

    fn await_alarm(&mut self) {
        let place = (&raw mut *self.alarm_count).cast::<u8>();
        let entry = opcode::Read::new(Fd(self.alarm.descriptor()), place, size_of::<u64>() as u32).build();
        // SAFETY: the count is on the heap, nobody reads or writes it, and it outlives the ring.
        unsafe { self.submit(entry.user_data(token(Operation::Alarm, ConnectionId::default()))) }
    }

    fn enter(&mut self, wait: bool) {
        self.buffers.publish();
        while !self.backlog.is_empty() {
            let before = self.backlog.len();
            self.enter_once(false);
            self.fill_submissions();
            if self.backlog.len() == before {
                // The kernel takes nothing until completions are reaped, which the caller does next.
                return;
            }
        }
        self.submissions.sync();
        let due = !self.submissions.is_empty() || self.submissions.taskrun() || self.submissions.cq_overflow();
        if wait || due {
            self.enter_once(wait);
        }
    }

    fn next_completion(&mut self) -> Option<Completion<RingSocket>> {
        loop {
            let entry = match self.completions.next() {
                Some(entry) => entry,
                None => {
                    self.completions.sync();
                    self.completions.next()?
                }
            };
            let more = cqueue::more(entry.flags());
            if !more {
                let rest = self.operations_in_kernel.checked_sub(1);
                self.operations_in_kernel = rest.expect("each operation has one final completion");
            }
            let (operation, id) = read_token(entry.user_data());
            match operation {
                Operation::Accept => {
                    let from = Entrance::ALL[id.slot as usize];
                    let result = match entry.result() {
                        socket @ 0.. => Ok(RingSocket::accepted(socket, from)),
                        errno => Err(io::Error::from_raw_os_error(-errno)),
                    };
                    return Some(Completion::Accepted { from, result, more });
                }
                Operation::Receive => return Some(self.received(id, &entry, more)),
                Operation::Send => return Some(self.sent(id, entry.result())),
                // What was cancelled completes by itself; if there was nothing to cancel, it had completed.
                Operation::Cancel => {}
                Operation::Timer => return Some(Completion::Timer),
                Operation::Alarm => return Some(Completion::Alarm),
            }
        }
    }
}

impl Drop for UringKernel {
    /// Cancels what is left (the alarm's read, the timer; after a panic, anything) and waits for it, so that the kernel
    /// writes to no memory that is freed next.
    fn drop(&mut self) {
        /// Each try cancels everything there is; more than a few mean that the kernel does not let go.
        const TRIES_MAX: usize = 1000;
        for _ in 0..TRIES_MAX {
            while let Some(completion) = self.next_completion() {
                if let Completion::Accepted { result: Ok(socket), .. } = completion {
                    self.close(socket);
                }
            }
            if self.operations_in_kernel == 0 {
                return;
            }
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            // SAFETY: the entry points to no memory.
            unsafe { self.submit(entry.user_data(token(Operation::Cancel, ConnectionId::default()))) };
            self.enter(true);
        }
        // The memory that the kernel may still write to must outlive it; the process is about to end anyway.
        std::mem::forget(std::mem::take(&mut self.sends));
        std::mem::forget(std::mem::take(&mut self.alarm_count));
        self.buffers.leak_pool();
        tracing::warn!(operations = self.operations_in_kernel, "the kernel did not let go of all operations");
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

    use super::*;
    use crate::kernel::PathListener;
    use crate::limits::PoolGeometry;

    #[test]
    fn a_ring_takes_nothing_that_a_server_does_not_submit() {
        let Ok(mut ring) = build_ring(4, 8) else { panic!("this machine has io_uring") };
        restrict(&ring.submitter()).expect("a disabled ring can be restricted once");
        let (nop, cancel) = (opcode::Nop::new().build(), opcode::AsyncCancel::new(0).build());
        let linked = opcode::AsyncCancel::new(0).build().flags(squeue::Flags::IO_LINK);
        for (entry, result) in [(nop, -libc::EACCES), (linked, -libc::EACCES), (cancel, -libc::ENOENT)] {
            // SAFETY: the entries point to no memory.
            let pushed = unsafe { ring.submission().push(&entry) };
            assert!(pushed.is_ok(), "one at a time");
            ring.submit_and_wait(1).expect("it is enabled");
            assert_eq!(ring.completion().next().map(|entry| entry.result()), Some(result));
        }
    }

    /// However it was accepted.
    #[test]
    fn a_connection_at_a_path_has_a_small_send_buffer() {
        let name = format!("disrust/test/{}", std::process::id());
        let address = UnixAddress::from_abstract_name(name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("a name of our own");
        let unix = Some(PathListener(Arc::new(listener.into())));
        let pool = Arc::new(BufferPool::new(PoolGeometry { buffers: 1, headroom_bytes: 0, receive_bytes: 64 }));
        let (sizes, alarm) = (RingSizes { submissions: 2, completions: 4 }, EventFd::new().expect("a descriptor"));
        let kernel = UringKernel::new(sizes, pool, Listeners { tcp: None, unix }, alarm, Clock::starting());
        let mut kernel = kernel.expect("this machine has io_uring");
        let _streams = [(); 2].map(|()| UnixStream::connect_addr(&address).expect("it listens"));
        kernel.accept(Entrance::Unix);
        kernel.enter(true);
        let accepted = kernel.next_completion();
        let Some(Completion::Accepted { from: Entrance::Unix, result: Ok(first), more: false }) = accepted else {
            panic!("one that waits is accepted: {accepted:?}")
        };
        let Queued::Connection(second) = kernel.accept_queued(Entrance::Unix) else { panic!("the other one waits") };
        assert_eq!(kernel.accept_queued(Entrance::Unix), Queued::Nothing);
        for socket in [first, second] {
            let bytes = SockRef::from(&socket.borrow()).send_buffer_size().expect("it is open");
            assert_eq!(bytes, 2 * UNIX_SEND_BUFFER_BYTES);
            kernel.close(socket);
        }
    }

    #[test]
    fn tokens_name_their_operation_and_connection() {
        let ids = [(0, 0), ((1 << SLOT_BITS) - 1, u32::MAX), (5, 9)];
        for (slot, generation) in ids {
            let id = ConnectionId { slot, generation };
            for operation in [Operation::Accept, Operation::Receive, Operation::Send, Operation::Cancel] {
                assert_eq!(read_token(token(operation, id)), (operation, id));
            }
        }
    }
}
