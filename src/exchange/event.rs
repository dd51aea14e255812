//! What travels through the disruptor: one event for each connection and receive burst.
//!
//! Plain data: the features stay in the buffer that the event names. Invariant: an event in flight owns its buffer
//! (shipped by the I/O thread, adopted by the batch processor), so there are never more events than buffers.
#![forbid(unsafe_code)]

/// A connection of one I/O thread: its slot, and which of the slot's tenants it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionId {
    /// Index in the thread's slab of connections; below 2²⁸.
    pub slot: u32,
    /// Counts the connections that the thread has accepted, modulo 2³².
    pub generation: u32,
}

/// All complete requests of one receive of one connection.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub struct InferenceEvent {
    /// Whose requests these are; the answers go there and nowhere else.
    pub connection: ConnectionId,
    /// The I/O thread that received them, an index.
    pub io_thread: u16,
    /// The buffer of that thread that holds them.
    pub buffer: u16,
    /// Where in the buffer the first request starts, in bytes.
    pub offset: u32,
    /// Bytes of all requests together.
    pub request_bytes: u32,
    /// How many requests; at least 1.
    pub requests: u16,
    /// Vectors of all requests together.
    pub rows: u32,
    /// Counts the connection's events, modulo 2³²; its responses come back in this order.
    pub sequence: u32,
    /// When they were received, by the process's clock.
    pub received_at_ns: u64,
    /// When the first of them could have been received: before that if it waited for us. Of a connection's events, none has an
    /// earlier time than one before it.
    pub waiting_since_ns: u64,
}

const _: () = assert!(size_of::<InferenceEvent>() == 64, "one event, one cache line");

/// What comes back: the same buffer, with the answers at `offset` in the order of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// As in the event.
    pub connection: ConnectionId,
    /// As in the event.
    pub buffer: u16,
    /// How many requests are answered here.
    pub requests: u16,
    /// Bytes that the requests had, as in the event: the credit that comes back.
    pub request_bytes: u32,
    /// Where in the buffer the answers start, in bytes.
    pub offset: u32,
    /// Bytes of all answers together.
    pub answer_bytes: u32,
    /// As in the event.
    pub sequence: u32,
    /// As in the event.
    pub received_at_ns: u64,
    /// How many of the answers say that the model failed (error 2).
    pub failed: u16,
    /// How many say that the requests had waited for too long (error 3).
    pub shed: u16,
    /// The version of the model in force when they were answered.
    pub model_version: u64,
}

impl Response {
    /// Words that a packed response takes.
    pub const WORDS: usize = 6;

    /// Packs the response into words that a queue can hold in atomics.
    pub fn to_words(self) -> [u64; Response::WORDS] {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        [
            pair(self.connection.slot, self.connection.generation),
            pair(self.offset, self.answer_bytes),
            pair(self.request_bytes, u32::from(self.requests) << 16 | u32::from(self.buffer)),
            pair(u32::from(self.failed) << 16 | u32::from(self.shed), self.sequence),
            self.received_at_ns,
            self.model_version,
        ]
    }

    /// Undoes [`Response::to_words`].
    pub fn from_words(words: [u64; Response::WORDS]) -> Response {
        let (high, low) = (|word: u64| (word >> 32) as u32, |word: u64| word as u32);
        Response {
            connection: ConnectionId { slot: high(words[0]), generation: low(words[0]) },
            offset: high(words[1]),
            answer_bytes: low(words[1]),
            request_bytes: high(words[2]),
            requests: (low(words[2]) >> 16) as u16,
            buffer: low(words[2]) as u16,
            sequence: low(words[3]),
            received_at_ns: words[4],
            failed: (high(words[3]) >> 16) as u16,
            shed: high(words[3]) as u16,
            model_version: words[5],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_survives_its_words() {
        let response = Response {
            connection: ConnectionId { slot: 0x1234_5678, generation: 0x9abc_def0 },
            buffer: 0xfedc,
            requests: 0xba98,
            request_bytes: 0x7654_3210,
            offset: 0x0fed_cba9,
            answer_bytes: 0x8765_4321,
            sequence: 0xffff_fffe,
            received_at_ns: u64::MAX - 1,
            failed: 0x9182,
            shed: 0xa3b4,
            model_version: 0x0f1e_2d3c_4b5a_6978,
        };
        assert_eq!(Response::from_words(response.to_words()), response);
    }
}
