//! Every bound that a request meets, and of what peers can make the server hold or wait for: what breaks if it is larger, what
//! if it is smaller.
//!
//! Not here: what the wire format fixes ([`disrust_protocol`]), what a flag sets ([`crate::config`]), and the patience of one
//! mechanism that no request meets (a lock on a port, a probe, the log's queue, a spinning thread), which stands beside it.
//!
//! The bounds prove each other. Every event in flight holds a buffer, so a thread has at most its pool's count of
//! events in flight; the request ring holds that many of every thread and each response queue that many of its own
//! thread. So publishing and pushing a response cannot fail, and the code asserts it.
#![forbid(unsafe_code)]

use std::time::Duration;

use disrust_protocol::{F32_BYTES, MAX_VECTORS_PER_REQUEST, REQUEST_HEADER_BYTES, RequestLayout, answer_bytes};
use thiserror::Error;

/// Threads that may do I/O. Larger: more rings and pools than any one batch processor feeds. Smaller: a large
/// machine cannot be used.
pub const IO_THREADS_MAX: usize = 64;

/// Features of a vector. Larger: one request outgrows a receive buffer by far and the pool's memory with it. Smaller:
/// wide models cannot be served.
pub const FEATURE_DIM_MAX: usize = 4096;

/// Scores of a vector. Larger: one answer outgrows a receive buffer by far, and all buffers' memory with it. Smaller: models
/// with many classes can only be served one output at a time.
pub const OUTPUTS_MAX: usize = 4096;

/// Scores that the model is asked for in one call, in numbers, unless one receive asks for more. Larger: scores of a large step
/// leave the cache before they are written into answers, and the first of its answers wait for the last. Smaller: a
/// model that scores many rows at once is called more often.
pub const SCORES_PER_CALL: usize = 256 * 1024;

/// Bytes of answers that one receive is to bring at most, where answers are longer than their requests. Larger: the pool, in
/// which they are written, has fewer buffers or outgrows the cache. Smaller: more completions.
pub const ANSWER_BYTES_PER_RECEIVE: usize = 64 * 1024;

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

/// Entries of a thread's submission queue, of the largest ring. Larger: more locked memory for each ring. Smaller: more
/// submissions a turn.
pub const SUBMISSION_ENTRIES: u32 = 512;

/// Entries of a thread's completion queue, of the largest ring. Larger: more locked memory. Smaller: it overflows sooner,
/// which ends multishot operations and costs a new submission for each.
pub const COMPLETION_ENTRIES: u32 = COMPLETIONS_PER_SUBMISSION * SUBMISSION_ENTRIES;

/// A submission can bring many completions, and each of a crowd of connections one at the same moment.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;

/// With more I/O threads than this, rings are half as large. Larger: the rings of two large servers outgrow
/// [`LOCKED_BYTES_USUAL`]. Smaller: the busier rings of a smaller server overflow sooner.
const IO_THREADS_WITH_LARGE_RINGS: usize = 32;

/// What a process without privileges may lock, by default since Linux 5.16 (RLIMIT_MEMLOCK); it counts for each user, and
/// a rolling restart has two servers of one.
const LOCKED_BYTES_USUAL: usize = 8 * 1024 * 1024;

/// Entries of the submission and completion queues of each of `io_threads` rings.
pub const fn ring_entries(io_threads: usize) -> (u32, u32) {
    let submissions =
        if io_threads > IO_THREADS_WITH_LARGE_RINGS { SUBMISSION_ENTRIES / 2 } else { SUBMISSION_ENTRIES };
    (submissions, COMPLETIONS_PER_SUBMISSION * submissions)
}

/// Locked memory of a ring and its provided buffers' ring, at most: io_uring_setup(2) rounds each up to pages, older kernels
/// to a power of two of them.
pub const fn ring_bytes(io_threads: usize) -> usize {
    let (submissions, completions) = ring_entries(io_threads);
    let (submission_bytes, completion_bytes, index_bytes) = (64, 16, 4);
    let submission_queue = submissions as usize * submission_bytes;
    let rings = completions as usize * completion_bytes + submissions as usize * index_bytes + PAGE_BYTES;
    let provided = BUFFERS_PER_THREAD as usize * completion_bytes;
    submission_queue.next_power_of_two() + rings.next_power_of_two() + provided.next_multiple_of(PAGE_BYTES)
}

const PAGE_BYTES: usize = 4096;

/// How often a thread looks at its clocks while it drains or is out of memory, and the most often otherwise. Larger: deadlines
/// fire later. Smaller: more wakes. A thread for which nothing is due does not look at all.
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

/// After a failed accept (descriptors exhausted) a thread waits this long, times the number of threads and of its listeners,
/// before it tries again, so that all threads together try at most eight times a second; or until it has closed a connection.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(125);

/// When the server has half-closed a connection and the peer's side has acknowledged everything, the peer has this long,
/// counted from its last byte, to read that and close. Larger: a peer that does neither holds its descriptor for longer.
/// Smaller: closing while the peer still sends resets the connection, and a slow peer takes answers for lost that it
/// has not read yet.
pub const LINGER: Duration = Duration::from_secs(2);

/// A peer that goes on sending is given this long all in all. Larger: one that never reads to the end holds its
/// descriptor for longer. Smaller: one that reads slowly, and sends meanwhile, is reset before it has read to the end.
pub const LINGER_MAX: Duration = Duration::from_secs(10);

/// The age at which a connection is closed differs from `--max-connection-age` by one part in so many, up or down, so that those which
/// came together do not all come back together. Larger: they do. Smaller: the age says little.
pub const AGE_JITTER_PART: u64 = 10;

/// A drain takes requests as ever for this long, for what was sent before the peers could know of it.
pub const DRAIN_LAST_CALL: Duration = Duration::from_millis(500);

/// While a port is handed over to another process, handshakes that have begun here have this long to end. Larger: a drain on
/// a shared port begins later. Smaller: a peer whose round trip takes longer may find its new connection reset.
pub const HANDOVER_SETTLE: Duration = Duration::from_millis(100);

/// How long the I/O threads may take to accept what waits in their listeners before the port is handed over without that. The
/// descriptors that the handover needed are theirs then: where there are no others, that is what the last connections are
/// accepted with. Larger: those wait for longer. Smaller: new connections that the kernel gives to a listener which is
/// still open are dropped, and made when their peer tries again.
pub const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// The shortest time between two lines of metrics. Larger: a short event is smeared over the line's time. Smaller: nothing but the
/// printing is measured.
#[cfg(feature = "metrics")]
pub const METRICS_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// After the last call, requests of a connection are refused for this long at most before it is half-closed; from when the
/// server can receive from it, which a peer that reads slowly may hold up.
pub const DRAIN_REFUSE: Duration = Duration::from_secs(1);

/// After the last call, a connection that is owed nothing and has sent nothing for this long is half-closed. Larger: the
/// drain takes longer. Smaller: a peer that is slow to go on is closed on just as it sends.
pub const DRAIN_QUIET: Duration = Duration::from_millis(250);

/// A batch processor that has been inside the model for this long is taken for hung, and the process ends.
/// Larger: clients wait for longer before their connections break. Smaller: a slow model is killed at work.
pub const MODEL_STALL_MAX: Duration = Duration::from_secs(30);

/// What an I/O thread that helps the batch processor is expected to take, at most. Larger: its connections wait for a slow model.
/// Smaller: the batch processor's thread is woken for what takes less time than waking it.
pub const HELP_NS_MAX: u64 = 50_000;

/// How often such a thread looks again, because others have published meanwhile, before it leaves the rest to the batch
/// processor's thread. Larger: it serves others for longer than its own connections. Smaller: that thread is woken more often.
pub const HELP_LOOKS_MAX: usize = 4;

/// Where a request may wait for `--max-queue-delay` only: a queue that was not short for so long is overload. Larger: more requests are
/// answered late before any is shed. Smaller: a burst that would soon be over is shed.
pub const SHED_WINDOW: Duration = Duration::from_millis(10);

/// And where there is no overload, it may wait this many times as long. Larger: who waits behind a single long step is answered
/// although nobody may be waiting for that any more. Smaller: bursts are shed.
pub const SHED_CALM_FACTOR: u64 = 10;

/// Parts in which a connection remembers since when what waits in its socket does; more are taken together, as the oldest of them.
/// Larger: more memory for each connection that more is asked of than can be scored. Smaller: what came last is shed with what
/// came before.
pub const BACKLOG_PARTS_MAX: usize = 16;

/// A new model waits this long for the batch processor to come to its next step. Larger: whoever reloads waits for longer where
/// the model hangs, which ends the process. Smaller: a model that is slow at one step cannot be replaced.
pub const MODEL_SWAP_MAX: Duration = Duration::from_secs(60);

/// When the model fails on a step, it may see this many times the step's rows in parts on which it fails again, before what
/// is left goes request by request. Larger: peers that send many requests that fail cost all others more passes. Smaller:
/// fewer failing requests of a step, about 2 to the power of this less one, are found by halving alone.
pub const RESCORED_PASSES_MAX: usize = 4;

/// A model that has been at work on one batch for this long after the drain's timeout ends the process. Larger: an end that
/// is late anyway comes later. Smaller: connections that the I/O threads are cutting are lost uncounted.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// And the I/O threads may take this long to cut what is open, which takes them milliseconds. Larger: a defect of theirs
/// keeps the process for longer. Smaller: a machine that is busy otherwise is taken for one.
pub const THREAD_STALL_MAX: Duration = Duration::from_secs(20);

/// Descriptors of each I/O thread: a ring, an eventfd, a listener, and that listener once more until it listens, or for good
/// if the port is shared.
pub const DESCRIPTORS_PER_IO_THREAD: usize = 4;

/// Descriptors for everything that is neither a connection nor an I/O thread's: three standard streams, two that signals come
/// through, up to five that the port needs until it is handed over, two for the Unix socket's path, and what is open for a moment, such as a file of /proc.
/// Larger: a small limit leaves fewer for connections. Smaller: the last connections take what the rest of the server needs.
pub const DESCRIPTORS_RESERVED: usize = 16;

/// Connections that the admin port serves at once. One more ends that which has been open for longest, so that nobody who holds
/// many and sends nothing keeps a health check out. Larger: they take more memory. Smaller: scrapers and checks that come
/// together end each other.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Connections that may wait to be accepted on the admin port. Larger: a flood takes more of the kernel's memory. Smaller: checks
/// that come together with one are dropped, and come a second later.
pub const ADMIN_BACKLOG: i32 = 128;

/// Bytes of the head of a request to the admin port, at most. Larger: each of [`ADMIN_CONNECTIONS_MAX`] can hold as much. Smaller:
/// browsers' cookies do not fit.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long that head may take. Larger: who sends none is there for longer. Smaller: one that is lost on the way once is too late.
pub const ADMIN_HEAD_MAX: Duration = Duration::from_secs(5);

/// How long a connection to the admin port may last, all in all. Larger: a scraper that does not read keeps its answer in memory
/// for longer. Smaller: a slow one does not get it whole.
pub const ADMIN_CONNECTION_MAX: Duration = Duration::from_secs(10);

/// Connections that the admin port accepts in each [`ADMIN_TICK`], at most. Larger: a flood takes more of a CPU. Smaller: a crowd of
/// health checks waits.
pub const ADMIN_ACCEPTS_A_TICK: usize = 128;

/// Requests on the admin port, of all its connections, after which their connection goes on, in each [`ADMIN_TICK`]; behind the
/// others it is closed, and then [`ADMIN_ACCEPTS_A_TICK`] holds them back. Larger: who asks without a pause takes more of a CPU.
/// Smaller: who scrapes often has to connect each time, which takes longer than the answer.
pub const ADMIN_KEPT_A_TICK: usize = 128;

/// Seconds that the status page shows.
pub const ADMIN_HISTORY_SECONDS: usize = 300;

/// Events that it shows.
pub const ADMIN_EVENTS_MAX: usize = 50;

/// Bytes of all names of a model's features together that it is told, at most. Larger: each of many who ask for the page's numbers
/// is sent as much. Smaller: wide models have no names there.
pub const ADMIN_NAMES_BYTES_MAX: usize = 16 * 1024;

/// Connections that an I/O thread looks at when it is asked which of them have most under way, at most; the next ones when it is
/// asked again. Larger: requests wait for that. Smaller: a page about very many connections tells of them later.
pub const ROSTER_SLOTS_MAX: usize = 4096;

/// Whoever has asked for the status page's numbers within this time is told of connections, too. Larger: threads tell of
/// them for longer when nobody looks any more. Smaller: a page that is loaded now and then has none.
pub const ADMIN_ROSTER_FOR: Duration = Duration::from_secs(5);

/// How often the admin thread looks whether the others make progress. Larger: a stuck one is noticed later. Smaller: an idle server
/// wakes more often.
pub const ADMIN_TICK: Duration = Duration::from_millis(250);

/// A server is not ready whose batch processor has been in one step for longer than this. Larger: balancers send to a server that
/// hangs. Smaller: a slow model looks like one that hangs.
pub const READY_STEP_MAX: Duration = Duration::from_secs(1);

/// A server is not alive whose batch processor, or one of whose I/O threads, has made no progress for longer than this.
/// Larger: it is restarted later. Smaller: one that has no CPU for a moment is restarted for it.
pub const LIVE_STALL_MAX: Duration = Duration::from_secs(5);

/// Descriptors of the admin thread: its listener, three that it waits with, its connections and one more, and two files of /proc.
pub const DESCRIPTORS_ADMIN: usize = 7 + ADMIN_CONNECTIONS_MAX;

/// Address space that a thread takes: Rust's stack of 2 MiB, and a little for what the C library keeps beside it.
/// Larger: a limit that would do is refused. Smaller: a thread can't be had after the server has said that all is well.
pub const THREAD_BYTES: usize = 2 * 1024 * 1024 + 128 * 1024;

/// With room for fewer connections than this, the server says at its start that its limit on descriptors is low.
/// Larger: a small limit that is meant is complained about. Smaller: one that is not meant is not noticed.
pub const CONNECTIONS_FEW: usize = 64;

/// Connections that there can be if nobody says how many, however many descriptors there may be. Larger: a crowd can take
/// more memory (each has some hundred bytes in the server, and kilobytes in the kernel) where a container sets no limit on
/// descriptors at all. Smaller: a server with many quiet clients has to be told so.
pub const CONNECTIONS_DEFAULT_MAX: usize = 262_144;

/// Connections that may wait to be accepted on one listener; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;

/// A peer that has vanished is given up after about this long: an idle one by TCP itself (SO_KEEPALIVE, which probes it
/// [`KEEPALIVE_PROBES`] times in the last quarter), one that is owed something when nothing of it has come for so long
/// although TCP has asked repeatedly. A live peer that does not read answers what TCP asks, and is no matter of this.
/// Larger: the vanished hold descriptors for longer. Smaller: a network that is down for a moment costs connections.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(60);

/// What `--buffer-memory` is unless it is said: what all peers together can make the server hold beyond its fixed buffers,
/// in bytes. Larger: a crowd that does not read or does not end its requests fills a small machine. Smaller: a crowd of slow
/// peers that mean no harm is closed sooner.
pub const BUFFER_MEMORY_BYTES: usize = 256 << 20;

/// The smallest `--buffer-memory`, in bytes. Smaller: a thread's part holds a handful of answers to peers that read slowly.
/// A thread's part is never less than [`thread_budget_bytes`] says.
pub const BUFFER_MEMORY_BYTES_MIN: usize = 1 << 20;

/// The largest `--buffer-memory`, in bytes: more than machines have. Larger: arithmetic on it gets near its limits.
pub const BUFFER_MEMORY_BYTES_MAX: usize = 1 << 40;

/// Probes of an idle peer that must all be lost before it is given up. Larger: more packets for each that has vanished.
/// Smaller: a lossy network costs connections.
pub const KEEPALIVE_PROBES: u32 = 3;

/// A peer that was seen to take a while until it acknowledged more has this many times as long for more, within twice
/// the request timeout: the first step of one that reads steadily is its shortest, and later ones were measured to take
/// up to three times as long. Larger: one that stops reading is closed later. Smaller: a slow reader is closed at its
/// second step.
pub const STEP_GROWTH_MAX: u32 = 3;

/// Answer bytes that wait in a socket without having been sent once, because the peer's window is closed
/// (TCP_NOTSENT_LOWAT): the kernel takes no more above it. Larger: a peer that does not read costs more of the kernel's
/// memory, 4.2 MB without this. Smaller: a send each few packets for peers that are far away.
pub const KERNEL_UNSENT_BYTES: u32 = 64 * 1024;

/// Memory that a Unix socket holds for a peer that does not read, in bytes; the kernel doubles it (SO_SNDBUF, socket(7)), and
/// counts more for each send than its bytes. Larger: a peer that does not read costs more of the kernel's memory, 208 KiB
/// without this. Smaller: fewer answers are on their way to one that does.
pub const UNIX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Memory that a send takes in a Unix socket beyond its bytes, at least: a buffer's head and end (SKB_TRUESIZE in
/// include/linux/skbuff.h), 576 bytes in kernels of 64 bits. Larger than it is: a send is taken for the peer's progress, once
/// each, as long as there is room for it. Smaller: some progress of a peer that reads more slowly than it asks is not seen.
pub const UNIX_SEND_OVERHEAD_MIN: usize = 512;

/// A peer that is owed as much as a connection may be, and has taken nothing for this long, is taken for one that reads when it
/// has written all. Larger: such a peer waits for longer. Smaller: a pause of a peer that reads slowly is taken for that, and a
/// drain then finds more that it has not read.
pub const WRITER_STALL_MIN: Duration = Duration::from_millis(500);

/// While a thread has lent fewer bytes of blocks than this, and than an eighth of its budget, peers that take nothing may write
/// on. Larger: a crowd that never reads holds more. Smaller: fewer requests can be written before anything is read.
pub const SLACK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// When its budget for blocks is used up, a thread closes connections that hold blocks and have let none of them go for at
/// least this long, those that hold most for longest first. Larger: everybody waits for longer. Smaller: peers
/// that read in large steps are closed for it.
pub const EVICTION_STALL_MIN: Duration = Duration::from_millis(200);

/// Of the budget, so much is free again afterwards: one part in so many. Larger: the thread looks for victims more often.
/// Smaller: more of them are closed than have to be.
pub const EVICTION_PART: usize = 8;

/// The least budget for a thread's blocks, in largest blocks of requests or answers. Smaller: a single large request
/// could use it up.
pub const BUDGET_BLOCKS_MIN: usize = 4;

/// Connections that a thread takes out of its listener's queue in a turn, when it stops listening. Larger: those that it
/// serves wait for longer. Smaller: more turns.
pub const QUEUED_ACCEPTS_A_TURN: usize = 64;

/// A thread whose requests are with the batch processor looks for responses this often even if nobody wakes it. It is not
/// needed (the wake flag's model test shows that), and only bounds the damage should that ever be wrong.
pub const IN_FLIGHT_LOOK: Duration = Duration::from_millis(500);

/// Where times are taken, of so many turns that end in a sleep one lets the kernel take its submissions before it sleeps, so that
/// what that takes can be told from sleeping. Larger: a thread's busy time is known less exactly. Smaller: more system calls.
pub const SUBMISSIONS_PER_TIMED_ONE: u64 = 16;

/// A turn that comes this much later than the thread's timer has not been late by the thread's own doing: the process was
/// stopped, or had no CPU. Deadlines do not count the rest. Larger: more of such a stop counts against the peers, and
/// against a drain. Smaller: a busy machine makes every deadline pass later.
pub const STOP_MIN: Duration = Duration::from_millis(50);

/// The longest time that a flag takes. Larger: sums of times and clocks get near the end of their types. Smaller: somebody's
/// patience may be longer.
pub const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Bytes of a config file at most. Larger: something else that was named by mistake is read for longer. Smaller: long
/// comments do not fit.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a table of inputs or expected scores, at most, that `disrust verify` reads. Larger: a disk image that was named by
/// mistake fills the memory. Smaller: large tests have to be split.
pub const TABLE_BYTES_MAX: u64 = 4 << 30;

/// Rows that `disrust verify` can be asked to time at once. Larger: they no longer fit the memory of a small machine. Smaller:
/// nobody learns how a huge batch does.
pub const VERIFY_ROWS_MAX: usize = 65_536;

/// Numbers of rows that it can be asked to time in one run. Larger: each of them has less time. Smaller: a curve has gaps.
pub const VERIFY_ROW_COUNTS_MAX: usize = 32;

/// Slots of connections that an operation's token can name (28 bits).
pub const CONNECTIONS_MAX: usize = 1 << 28;

const _: () = assert!(BUFFERS_PER_THREAD.is_power_of_two() && BUFFERS_PER_THREAD <= 1 << 15, "a provided-buffer ring");
const _: () = assert!(BUFFERS_PER_THREAD_MIN.is_power_of_two() && BUFFERS_PER_THREAD_MIN <= BUFFERS_PER_THREAD);
const _: () = assert!(SUBMISSION_ENTRIES.is_power_of_two() && ring_entries(IO_THREADS_MAX).0.is_power_of_two());
const _: () = assert!(
    2 * IO_THREADS_MAX * ring_bytes(IO_THREADS_MAX) <= LOCKED_BYTES_USUAL
        && 2 * IO_THREADS_WITH_LARGE_RINGS * ring_bytes(IO_THREADS_WITH_LARGE_RINGS) <= LOCKED_BYTES_USUAL,
    "a rolling restart needs no privilege"
);
const _: () = assert!(CONNECTIONS_DEFAULT_MAX <= CONNECTIONS_MAX);
const _: () = assert!(
    READY_STEP_MAX.as_nanos() < LIVE_STALL_MAX.as_nanos() && LIVE_STALL_MAX.as_nanos() < MODEL_STALL_MAX.as_nanos(),
    "a model that hangs is told of before the process ends for it"
);
const _: () = assert!(MODEL_SWAP_MAX.as_secs() > MODEL_STALL_MAX.as_secs(), "a model that hangs is noticed as that");
const _: () = assert!(
    ConnectionLimits::SERVING.send_block_bytes_max > answer_bytes(MAX_VECTORS_PER_REQUEST),
    "a block holds any answer of one score a vector"
);
const _: () = assert!(BUFFER_MEMORY_BYTES_MIN <= BUFFER_MEMORY_BYTES && BUFFER_MEMORY_BYTES <= BUFFER_MEMORY_BYTES_MAX);
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
    /// The same for a peer that has taken nothing of it for [`WRITER_STALL_MIN`]: it may read only when it has written all,
    /// and would wait for us as we for it. Larger: one that never reads holds more. Smaller: less can be written at a go.
    pub answer_bytes_owed_to_writer_max: usize,
    /// The same when half of the thread's budget for blocks is lent. Larger: those who hold much take what is left for
    /// those who hold nothing. Smaller: more of them wait.
    pub answer_bytes_owed_under_pressure_max: usize,
    /// Request bytes of one connection that may be in flight before receiving from it stops.
    /// Larger: a greedy connection delays its neighbours for longer. Smaller: it is served in more turns.
    pub request_bytes_in_flight_max: usize,
    /// Bytes of the smallest block; a power of two. Larger: a few bytes of answers that nobody reads hold more. Smaller: less
    /// than a block's own fields.
    pub block_bytes_min: usize,
    /// Bytes of the largest block of unsent answers. Larger: the last block of a long chain may hold little. Smaller: a
    /// deep pipeline of large requests needs more sends for its answers.
    pub send_block_bytes_max: usize,
    /// Blocks of each size for unsent answers that a thread keeps for reuse even when nobody has used them for a while.
    /// Larger: more memory at rest. Smaller: the first burst after a pause allocates.
    pub blocks_retained: usize,
}

impl ConnectionLimits {
    /// What the server runs with.
    pub const SERVING: ConnectionLimits = ConnectionLimits {
        answer_bytes_owed_max: 64 * 1024,
        answer_bytes_owed_to_writer_max: 4 * 1024 * 1024,
        answer_bytes_owed_under_pressure_max: 4 * 1024,
        request_bytes_in_flight_max: 256 * 1024,
        block_bytes_min: 64,
        send_block_bytes_max: 16 * 1024,
        blocks_retained: 64,
    };
}

impl ConnectionLimits {
    /// The sizes of a thread's blocks, of which it may lend `budget_bytes`.
    pub const fn block_sizes(self, layout: RequestLayout, budget_bytes: usize) -> BlockSizes {
        BlockSizes {
            bytes_min: self.block_bytes_min,
            answer_bytes_max: self.send_block_bytes_max,
            request_bytes_max: layout.request_bytes_max(),
            retained: self.blocks_retained,
            budget_bytes,
        }
    }
}

/// The sizes of one thread's blocks, for one layout of requests.
#[derive(Debug, Clone, Copy)]
pub struct BlockSizes {
    /// The smallest block; a power of two.
    pub bytes_min: usize,
    /// The largest block for answers. A longer chain has larger blocks, up to this.
    pub answer_bytes_max: usize,
    /// The largest block for a request.
    pub request_bytes_max: usize,
    /// Blocks of each size for answers that are kept even when nobody has used them for a while.
    pub retained: usize,
    /// What may be lent before the pressure is full.
    pub budget_bytes: usize,
}

/// A model's shape is beyond what can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A request can't be received.
    #[error(
        "cannot serve a model of {0} features: a request of {MAX_VECTORS_PER_REQUEST} rows has to fit a receive buffer, and \
         that has room for 1 to {FEATURE_DIM_MAX} features a row. Try: a model of fewer features"
    )]
    Features(usize),
    /// An answer can't be held.
    #[error(
        "cannot answer with all {0} outputs of the model: an answer to {MAX_VECTORS_PER_REQUEST} rows has to fit a buffer, and \
         that has room for 1 to {OUTPUTS_MAX} outputs a row. Try: one of them, --output N"
    )]
    Outputs(usize),
}

/// The layout of requests and answers for a model of this shape.
///
/// # Errors
/// The shape is beyond the limits.
pub fn layout_of(feature_dim: usize, outputs: usize) -> Result<RequestLayout, ShapeError> {
    if !(1..=FEATURE_DIM_MAX).contains(&feature_dim) {
        return Err(ShapeError::Features(feature_dim));
    }
    if !(1..=OUTPUTS_MAX).contains(&outputs) {
        return Err(ShapeError::Outputs(outputs));
    }
    Ok(RequestLayout::with_outputs(feature_dim, outputs))
}

/// The sizes of one thread's buffer pool, for one layout of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolGeometry {
    /// How many buffers; a power of two.
    pub buffers: u16,
    /// Bytes before each receive area, for the part of a request that came with the connection's previous buffer, and for
    /// what the answers are longer than the requests: as [`PoolGeometry::headroom_bytes_for`] says, or more.
    pub headroom_bytes: usize,
    /// Bytes that the kernel may fill.
    pub receive_bytes: usize,
}

impl PoolGeometry {
    /// Sizes a pool so that any request fits one buffer with its headroom and the pool stays near [`POOL_BYTES`].
    pub fn for_layout(layout: RequestLayout) -> PoolGeometry {
        let largest = layout.request_bytes_max().next_multiple_of(64);
        // Where answers outgrow requests, what a receive brings is bounded by its answers.
        let growing = layout.outputs() > layout.feature_dim();
        let answered = ANSWER_BYTES_PER_RECEIVE * layout.feature_dim() / layout.outputs();
        let usual = if growing { RECEIVE_BYTES.min(answered) } else { RECEIVE_BYTES };
        let receive_bytes = usual.next_multiple_of(64).max(largest);
        let geometry = PoolGeometry {
            buffers: BUFFERS_PER_THREAD_MIN,
            headroom_bytes: PoolGeometry::headroom_bytes_for(layout, receive_bytes).next_multiple_of(64),
            receive_bytes,
        };
        let fitting = (POOL_BYTES / geometry.answered_bytes(layout)).max(usize::from(BUFFERS_PER_THREAD_MIN));
        let buffers = u16::try_from(1 << fitting.ilog2()).unwrap_or(BUFFERS_PER_THREAD).min(BUFFERS_PER_THREAD);
        PoolGeometry { buffers, ..geometry }
    }

    /// The headroom that goes with `receive_bytes`: the longest part of a request that can come before a receive, and what
    /// the answers to all that has come then are longer than it, so that they can be written from there on.
    pub const fn headroom_bytes_for(layout: RequestLayout, receive_bytes: usize) -> usize {
        let before = layout.request_bytes_max();
        before + layout.growth_bytes_max(before + receive_bytes)
    }

    /// Bytes of one buffer, headroom and receive area.
    pub const fn buffer_bytes(self) -> usize {
        self.headroom_bytes + self.receive_bytes
    }

    /// Bytes that the complete requests of one buffer can take, at most.
    const fn burst_bytes_max(self, layout: RequestLayout) -> usize {
        layout.request_bytes_max() + self.receive_bytes
    }

    /// Bytes that what one receive brings can take, answered or not.
    const fn answered_bytes(self, layout: RequestLayout) -> usize {
        self.receive_bytes + layout.growth_bytes_max(self.burst_bytes_max(layout))
    }

    /// The most vectors that the complete requests of one buffer can hold.
    pub const fn rows_per_buffer_max(self, layout: RequestLayout) -> usize {
        self.burst_bytes_max(layout) / layout.row_bytes()
    }

    /// The most complete requests that one buffer can hold.
    pub const fn requests_per_buffer_max(self, layout: RequestLayout) -> usize {
        self.burst_bytes_max(layout) / layout.request_bytes_min()
    }

    /// How many scores the batch processor has room for, if it takes at most `events_max` events at once: those of one
    /// event, or as many more as [`SCORES_PER_CALL`] and the events allow.
    pub fn scores_max(self, layout: RequestLayout, events_max: usize) -> usize {
        let of_event = self.rows_per_buffer_max(layout) * layout.outputs();
        of_event.max(SCORES_PER_CALL.min(events_max * of_event))
    }
}

/// A thread's part of `--buffer-memory`, in bytes: what its blocks may take. At least what a few of the largest requests,
/// answers or blocks of answers take.
pub fn thread_budget_bytes(buffer_memory_bytes: usize, io_threads: usize, layout: RequestLayout) -> usize {
    let send_block = ConnectionLimits::SERVING.send_block_bytes_max;
    let largest = layout.request_bytes_max().max(layout.answer_bytes_max()).max(send_block);
    (buffer_memory_bytes / io_threads).max(BUDGET_BLOCKS_MIN * largest)
}

/// What a thread's blocks may take beyond its budget, in bytes: what arrives in the buffers that are lent when the budget is
/// used up. Each brings beginnings of requests that are no longer than itself, or answers that are no longer than itself
/// and what they grow by, in blocks that are at most twice as large.
pub fn beyond_budget_bytes(geometry: PoolGeometry, layout: RequestLayout) -> usize {
    2 * usize::from(geometry.buffers) * geometry.answered_bytes(layout)
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

    /// Answers that are longer than their requests have room before these, in pools that are no larger than those of the
    /// widest models.
    #[test]
    fn answers_fit_before_what_they_outgrow() {
        let widest = PoolGeometry::for_layout(RequestLayout::new(FEATURE_DIM_MAX));
        let pool_bytes = |geometry: PoolGeometry| usize::from(geometry.buffers) * geometry.buffer_bytes();
        let features = [1, 2, 3, 4, 5, 8, 16, 40, 100, 699, 700, 701, 2048, 4095, 4096];
        for (feature_dim, outputs) in features.into_iter().flat_map(|dim| features.map(|outputs| (dim, outputs))) {
            let layout = layout_of(feature_dim, outputs).expect("within the limits");
            let geometry = PoolGeometry::for_layout(layout);
            let before = layout.request_bytes_max();
            assert!(geometry.receive_bytes >= before);
            let burst = before - 1 + geometry.receive_bytes;
            assert!(geometry.headroom_bytes >= before - 1 + layout.growth_bytes_max(burst));
            assert!(geometry.buffer_bytes() >= layout.answer_bytes_max());
            assert!(geometry.requests_per_buffer_max(layout) <= usize::from(u16::MAX));
            assert!(pool_bytes(geometry) <= pool_bytes(widest) * 3 / 2, "{feature_dim} × {outputs}: {geometry:?}");
            assert!(geometry.scores_max(layout, 64) >= outputs * MAX_VECTORS_PER_REQUEST as usize);
            if outputs <= feature_dim {
                assert_eq!(geometry, PoolGeometry::for_layout(RequestLayout::new(feature_dim)));
            }
        }
    }

    #[test]
    fn a_shape_beyond_the_limits_is_refused_with_what_would_work() {
        assert!(layout_of(1, 1).is_ok() && layout_of(FEATURE_DIM_MAX, OUTPUTS_MAX).is_ok());
        for features in [0, FEATURE_DIM_MAX + 1, usize::MAX] {
            assert_eq!(layout_of(features, 1), Err(ShapeError::Features(features)));
        }
        for outputs in [0, OUTPUTS_MAX + 1, usize::MAX] {
            let error = layout_of(16, outputs).expect_err("beyond the limits");
            assert_eq!(error, ShapeError::Outputs(outputs));
            assert!(error.to_string().contains("--output N"), "{error}");
        }
    }

    #[test]
    fn the_usual_pool_is_the_documented_one() {
        let geometry = PoolGeometry::for_layout(RequestLayout::new(16));
        assert_eq!((geometry.buffers, geometry.receive_bytes), (BUFFERS_PER_THREAD, RECEIVE_BYTES));
    }
}
