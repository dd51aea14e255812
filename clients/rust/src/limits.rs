//! Every bound of the client: what breaks if it is larger, what if it is smaller. What a caller sets is in
//! [`crate::Builder`].
#![forbid(unsafe_code)]

use std::time::Duration;

use disrust_protocol::MAX_VECTORS_PER_REQUEST;

/// Requests that wait for their answers on one connection. Larger: more memory for places in line, and a slow server gets a
/// longer queue of what nobody waits for any more. Smaller: many callers, or one with many rows, wait for room although the
/// server is free.
pub(crate) const REQUESTS_IN_LINE_MAX: usize = 1024;

/// Bytes of requests that wait to be written to one connection, unless one request is larger. Larger: more memory, and requests
/// leave the cache before they are written. Smaller: a call of many rows is woken more often.
pub(crate) const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes that one read takes at first; more where one answer is longer. Larger: out of the L1 cache. Smaller: more system
/// calls.
pub(crate) const RECEIVE_BYTES: usize = 32 * 1024;

/// Reads of a connection before its requests are written again. Larger: callers wait for a peer that sends without end.
/// Smaller: a burst of answers takes more polls.
pub(crate) const READS_PER_TURN: usize = 8;

/// Callers whose answers come together, from a server that has nothing more to do then, so that half of them are woken first.
/// Larger: the server waits for callers, and they for it. Smaller: more system calls, on both sides, than they are worth.
pub(crate) const CALLERS_HALVED_MIN: usize = 32;

/// Features that a server may claim. Larger: one request can take all memory. Smaller: a wide model is refused that the server
/// takes.
pub(crate) const FEATURES_MAX: u32 = 1 << 20;

/// Outputs that a server may claim. Larger: one answer can take all memory. Smaller: a model of many classes is refused that
/// the server takes.
pub(crate) const OUTPUTS_MAX: u32 = 1 << 16;

/// Scores that a call reserves memory for before any has come. Larger: a server that claims many outputs makes a client reserve
/// much. Smaller: scores of large calls are copied more often as they come.
pub(crate) const SCORES_RESERVED_MAX: usize = 16 * 1024;

/// Addresses that a name may resolve to; others are not used. Larger: a hostile name server makes the client open as many
/// connections. Smaller: replicas stay idle.
pub(crate) const ENDPOINTS_PER_ADDRESS_MAX: usize = 256;

/// The pause after the first connection that failed. It doubles with each one. Longer: a server that is back is found later.
/// Shorter: a server that starts is kept busy by connections.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts to connect. Longer: a server that is back is found later. Shorter: many clients of a
/// server that is away keep its network busy.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long, beside the connect timeout, a connection must have lasted to count as one that worked. Longer: a server that closes
/// quiet connections is reached more slowly. Shorter: one that closes every connection at once is tried more often.
pub(crate) const WORKED_AFTER: Duration = Duration::from_secs(1);

/// The least time between two look-ups of a name. Longer: replaced servers are found later. Shorter: name servers are asked
/// more often when all connections close at once.
pub(crate) const RESOLVE_PAUSE: Duration = Duration::from_millis(200);

/// The pause before a call whose connection was lost is tried again, at first. It doubles with each one. Longer: the call takes
/// longer. Shorter: its last attempts come before the next connection is there.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(2);

const _: () = assert!(MAX_VECTORS_PER_REQUEST <= u8::MAX as u32, "a place in line holds a request's rows in a byte");
