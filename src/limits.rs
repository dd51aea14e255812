//! Every bound of the server, in one place: what breaks if it is larger, what if it is smaller.
//!
//! Not here: what the wire format fixes ([`crate::protocol`]), and what a flag sets ([`crate::config`]).
//!
//! The bounds prove each other. Every event in flight holds a buffer, so a thread has at most its pool's count of
//! events in flight; the request ring holds that many of every thread and each response queue that many of its own
//! thread. So publishing and pushing a response cannot fail, and the code asserts it.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::protocol::{F32_BYTES, MAX_VECTORS_PER_REQUEST, REQUEST_HEADER_BYTES, RequestLayout, answer_bytes};

/// Threads that may do I/O. Larger: more rings and pools than any one batch processor feeds. Smaller: a large
/// machine cannot be used.
pub const IO_THREADS_MAX: usize = 64;

/// Features of a vector. Larger: one request outgrows a receive buffer by far and the pool's memory with it. Smaller:
/// wide models cannot be served.
pub const FEATURE_DIM_MAX: usize = 4096;

/// Receive buffers of a thread. Larger: the ring recycles them first in, first out, so all of the pool passes through
/// the cache. Smaller: more connections than this that send at the same moment run out of buffers and wait a turn.
pub const BUFFERS_PER_THREAD: u16 = 128;

/// Bytes that one receive takes at most, unless a request is larger. Larger: the pool outgrows the cache. Smaller:
/// more completions, and more bytes copied for requests that straddle two buffers.
pub const RECEIVE_BYTES: usize = 32 * 1024;

/// Bytes of receive buffers of a thread that are aimed at when requests are large.
pub const POOL_BYTES: usize = BUFFERS_PER_THREAD as usize * RECEIVE_BYTES;

/// The fewest buffers of a thread, however large they are: fewer would let a single connection starve the others.
pub const BUFFERS_PER_THREAD_MIN: u16 = 16;

/// Entries of a thread's submission queue. Larger: more locked memory for each ring. Smaller: more submissions a turn.
pub const SUBMISSION_ENTRIES: u32 = 512;

/// Entries of a thread's completion queue. Larger: more locked memory. Smaller: it overflows sooner, which ends
/// multishot operations and costs a new submission for each.
pub const COMPLETION_ENTRIES: u32 = 4 * SUBMISSION_ENTRIES;

/// How often a thread looks at its clocks: deadlines, accept retries, drain. Larger: they fire later. Smaller: an
/// idle server wakes more often.
pub const TICK: Duration = Duration::from_millis(50);

/// The longest time between two looks at all connections' deadlines.
pub const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// A thread that is never without work puts a sweep off for this long at most. Larger: deadlines pass later under load.
/// Smaller: after a stall, some pass for peers whose bytes have arrived and wait to be taken.
pub const SWEEP_WAIT_MAX: Duration = Duration::from_millis(250);

/// How often a thread gives back blocks that nobody has needed meanwhile. Larger: memory of a crowd stays for longer.
/// Smaller: blocks are given back and allocated anew from one burst to the next.
pub const TRIM_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes that threads have given back to the allocator before it is told to give them to the system. Larger: as much
/// stays resident. Smaller: it walks all of its memory for little.
pub const RELEASE_BYTES_MIN: u64 = 1024 * 1024;

/// After a failed accept (descriptors exhausted) a thread waits this long, times the number of threads, before it
/// tries again, so that all threads together try at most eight times a second; or until it has closed a connection.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(125);

/// After the server has half-closed a connection, the peer has this long to read what it was sent and close.
/// Larger: a peer that does neither holds its descriptor for longer. Smaller: closing with unread input resets the
/// connection, and a slow peer loses answers that were sent to it.
pub const LINGER: Duration = Duration::from_secs(2);

/// A drain takes requests as ever for this long, for what was sent before the peers could know of it.
pub const DRAIN_LAST_CALL: Duration = Duration::from_millis(500);

/// While a port is handed over to another process, handshakes that have begun here have this long to end. Larger: a drain on
/// a shared port begins later. Smaller: a peer whose round trip takes longer may find its new connection reset.
pub const HANDOVER_SETTLE: Duration = Duration::from_millis(100);

/// How long the I/O threads may take to accept what waits in their listeners before the port is handed over without that.
pub const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// After the last call, requests are refused for this long at most before the connection is half-closed.
pub const DRAIN_REFUSE: Duration = Duration::from_secs(1);

/// After the last call, a connection that is owed nothing and has sent nothing for this long is half-closed. Larger: the
/// drain takes longer. Smaller: a peer that is slow to go on is closed on just as it sends.
pub const DRAIN_QUIET: Duration = Duration::from_millis(250);

/// A batch processor that has been inside the model for this long is taken for hung, and the process ends.
/// Larger: clients wait for longer before their connections break. Smaller: a slow model is killed at work.
pub const MODEL_STALL_MAX: Duration = Duration::from_secs(30);

/// Descriptors that are left for everything that is not a connection, beside three for each I/O thread.
pub const DESCRIPTORS_RESERVED: usize = 16;

/// Connections that may wait to be accepted on one listener; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;

/// A peer that has vanished is given up after this long without an acknowledgement (TCP_USER_TIMEOUT), and an idle
/// one is probed as often (SO_KEEPALIVE).
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(60);

/// What `--buffer-memory` is unless it is said: what all peers together can make the server hold beyond its fixed buffers,
/// in bytes. Larger: a crowd that does not read or does not end its requests fills a small machine. Smaller: a crowd of slow
/// peers that mean no harm is closed sooner.
pub const BUFFER_MEMORY_BYTES: usize = 256 << 20;

/// The smallest `--buffer-memory`, in bytes. Smaller: with the most I/O threads, a thread's part does not hold one block of
/// answers.
pub const BUFFER_MEMORY_BYTES_MIN: usize = 1 << 20;

/// The largest `--buffer-memory`, in bytes: more than machines have. Larger: arithmetic on it gets near its limits.
pub const BUFFER_MEMORY_BYTES_MAX: usize = 1 << 40;

/// Slots of connections that an operation's token can name (28 bits).
pub const CONNECTIONS_MAX: usize = 1 << 28;

const _: () = assert!(BUFFERS_PER_THREAD.is_power_of_two() && BUFFERS_PER_THREAD <= 1 << 15, "a provided-buffer ring");
const _: () = assert!(BUFFERS_PER_THREAD_MIN.is_power_of_two() && BUFFERS_PER_THREAD_MIN <= BUFFERS_PER_THREAD);
const _: () = assert!(SUBMISSION_ENTRIES.is_power_of_two());
const _: () = assert!(
    ConnectionLimits::SERVING.send_block_bytes > answer_bytes(MAX_VECTORS_PER_REQUEST),
    "a block holds any answer"
);
const _: () = assert!(BUFFER_MEMORY_BYTES_MIN <= BUFFER_MEMORY_BYTES && BUFFER_MEMORY_BYTES <= BUFFER_MEMORY_BYTES_MAX);
const _: () = assert!(
    BUFFER_MEMORY_BYTES_MIN / IO_THREADS_MAX >= ConnectionLimits::SERVING.send_block_bytes,
    "each thread's part of the smallest budget holds a block of answers"
);
const _: () = assert!(
    RECEIVE_BYTES * IO_THREADS_MAX * (BUFFERS_PER_THREAD as usize) < u32::MAX as usize,
    "offsets and row counts fit 32 bits"
);

/// What a thread's connections may take. The server always runs with [`ConnectionLimits::SERVING`]; they travel as
/// values because tests reach them sooner when they are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Answer bytes that a connection may be owed, in flight and unsent together, before receiving from it stops.
    /// Larger: a peer that does not read holds more memory. Smaller: deep pipelines stall on the round trip.
    pub answer_bytes_owed_max: usize,
    /// Request bytes of one connection that may be in flight before receiving from it stops.
    /// Larger: a greedy connection delays its neighbours for longer. Smaller: it is served in more turns.
    pub request_bytes_in_flight_max: usize,
    /// Bytes of a block of unsent answers. Larger: a slow peer that is owed little holds more. Smaller: a deep pipeline
    /// of large requests needs more sends for its answers.
    pub send_block_bytes: usize,
    /// Blocks for unsent answers that a thread keeps for reuse even when nobody has used them for a while. Larger:
    /// more memory at rest. Smaller: the first burst after a pause allocates.
    pub send_blocks_retained: usize,
    /// Blocks for requests that are only partly received, kept likewise.
    pub partial_blocks_retained: usize,
}

impl ConnectionLimits {
    /// What the server runs with.
    pub const SERVING: ConnectionLimits = ConnectionLimits {
        answer_bytes_owed_max: 64 * 1024,
        request_bytes_in_flight_max: 256 * 1024,
        send_block_bytes: 16 * 1024,
        send_blocks_retained: 64,
        partial_blocks_retained: 64,
    };
}

/// The sizes of one thread's buffer pool, for one layout of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolGeometry {
    /// How many buffers; a power of two.
    pub buffers: u16,
    /// Bytes before each receive area, for the part of a request that came with the connection's previous buffer.
    pub headroom_bytes: usize,
    /// Bytes that the kernel may fill.
    pub receive_bytes: usize,
}

impl PoolGeometry {
    /// Sizes a pool so that any request fits one buffer with its headroom and the pool stays near [`POOL_BYTES`].
    pub fn for_layout(layout: RequestLayout) -> PoolGeometry {
        let headroom_bytes = layout.request_bytes_max().next_multiple_of(64);
        let receive_bytes = RECEIVE_BYTES.max(headroom_bytes);
        let fitting = (POOL_BYTES / receive_bytes).max(usize::from(BUFFERS_PER_THREAD_MIN));
        let buffers = u16::try_from(1 << fitting.ilog2()).unwrap_or(BUFFERS_PER_THREAD).min(BUFFERS_PER_THREAD);
        PoolGeometry { buffers, headroom_bytes, receive_bytes }
    }

    /// Bytes of one buffer, headroom and receive area.
    pub const fn buffer_bytes(self) -> usize {
        self.headroom_bytes + self.receive_bytes
    }

    /// The most vectors that the complete requests of one buffer can hold.
    pub const fn rows_per_buffer_max(self, layout: RequestLayout) -> usize {
        self.buffer_bytes() / layout.row_bytes()
    }

    /// The most complete requests that one buffer can hold.
    pub const fn requests_per_buffer_max(self, layout: RequestLayout) -> usize {
        self.buffer_bytes() / layout.request_bytes_min()
    }
}

/// Slots of the request ring that `io_threads` pools of `buffers` buffers can never fill.
pub fn request_ring_slots(io_threads: usize, buffers: u16) -> usize {
    (io_threads * usize::from(buffers)).next_power_of_two().max(64)
}

const _: () = assert!(
    (RECEIVE_BYTES + REQUEST_HEADER_BYTES + MAX_VECTORS_PER_REQUEST as usize * F32_BYTES)
        / (REQUEST_HEADER_BYTES + F32_BYTES)
        < u16::MAX as usize,
    "the requests of one buffer are counted in 16 bits"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_holds_any_request_and_its_counts_fit_their_types() {
        for feature_dim in 1..=FEATURE_DIM_MAX {
            let layout = RequestLayout::new(feature_dim);
            let geometry = PoolGeometry::for_layout(layout);
            assert!(geometry.buffers.is_power_of_two() && geometry.buffers >= BUFFERS_PER_THREAD_MIN);
            assert!(geometry.headroom_bytes >= layout.request_bytes_max());
            assert!(geometry.receive_bytes >= layout.request_bytes_max());
            assert!(geometry.requests_per_buffer_max(layout) <= usize::from(u16::MAX));
            assert!(
                request_ring_slots(IO_THREADS_MAX, geometry.buffers) >= IO_THREADS_MAX * usize::from(geometry.buffers)
            );
        }
    }

    #[test]
    fn the_usual_pool_is_the_documented_one() {
        let geometry = PoolGeometry::for_layout(RequestLayout::new(16));
        assert_eq!((geometry.buffers, geometry.receive_bytes), (BUFFERS_PER_THREAD, RECEIVE_BYTES));
    }
}
