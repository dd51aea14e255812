//! Every bound of the gateway that no flag sets: what breaks if it is larger, what if it is smaller.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Threads that serve. Larger: each has connections of its own to each server. Smaller: a large machine cannot be used.
pub const THREADS_MAX: usize = 64;

/// Connections at once. Larger: more memory than a gateway should take for those that do nothing. Smaller: a crowd is turned away.
pub const CONNECTIONS_MAX: usize = 262_144;

/// Servers behind one gateway. Larger: each is asked once a second. Smaller: a fleet needs a balancer in between.
pub const SERVERS_MAX: usize = 64;

/// Bytes of the head of a request. Larger: each connection can hold as much. Smaller: heads that proxies have added to do not fit.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Fields of a head. Larger: more time for each head. Smaller: as above.
pub const HEAD_FIELDS_MAX: usize = 64;

/// Bytes that hyper receives or keeps to send at once, for each connection. Larger: each connection can hold as much. Smaller: more
/// system calls for large bodies.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// How long a head may take from its first byte on. Larger: who sends none to its end is there for longer. Smaller: one of which a
/// part is lost on the way is too late.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of its answer. Larger: who reads nothing holds its answer for longer. Smaller: a peer that is
/// stopped for a moment is cut.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// How often a thread looks at the deadlines of its connections. Larger: they pass later. Smaller: more looks.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// What a peer still sends when it has been answered for the last time is read away for this long, and so much of it. Closing on
/// it would reset the connection, and the answer might be lost. Larger: who goes on sending is there for longer. Smaller: an answer to
/// a body that was refused does not arrive.
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// In a drain, requests are answered as ever for this long, for what was sent before anybody could know of it; then who waits
/// for nothing is closed. Larger: a drain takes longer. Smaller: a request that crosses the close is lost.
pub const DRAIN_LAST_CALL: Duration = Duration::from_millis(500);

/// After the last call, a connection that has waited for a request for this long is closed. Larger: a drain takes longer. Smaller: a
/// peer that is slow to go on is closed on just as it sends.
pub const DRAIN_QUIET: Duration = Duration::from_millis(250);

/// How often a drain looks at what is still open.
pub const DRAIN_TICK: Duration = Duration::from_millis(20);

/// What is cut has this long to be gone. Larger: a defect of ours keeps the process for longer. Smaller: a busy machine is taken for one.
pub const CUT_TIME_MAX: Duration = Duration::from_secs(5);

/// After an accept has failed (descriptors have run out), the next one waits for so long. Larger: a connection waits for longer.
/// Smaller: a CPU is busy with failing.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(125);

/// Connections that may wait to be accepted. Larger: a flood takes more of the kernel's memory. Smaller: a crowd that comes at once is
/// dropped, and comes a second later.
pub const BACKLOG: i32 = 1024;

/// JSON bodies of more bytes are read, and answers of more scores written, on a thread beside, so that nobody waits behind them.
/// Larger: others wait for longer. Smaller: the change of thread costs more than it spares.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// See [`INLINE_BYTES_MAX`].
pub const INLINE_SCORES_MAX: usize = 4 * 1024;

/// Threads beside. Larger: they take the servers' CPUs. Smaller: large bodies wait for one another.
pub const BESIDE_THREADS_MAX: usize = 2;

/// How often each server is asked whether it is there and which model it has. Larger: a reload and a server that has gone are
/// noticed later. Smaller: more questions.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long such a question may take. Larger: a server that hangs is taken for ready for longer. Smaller: a busy one is taken for gone.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// The longest time that can be set.
pub const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Bytes of a body that can be allowed.
pub const BODY_BYTES_MAX: usize = 1 << 30;

/// Bytes of a tensor's name. Larger: every answer carries it. Smaller: names of others' models do not fit.
pub const NAME_BYTES_MAX: usize = 255;
