//! What a connection is told, and what it asks for: the words between it and its I/O thread.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use disrust_protocol::{BadVectorCount, RequestLayout};

use super::framing::Framed;
use super::hello::HelloAnswers;
use crate::exchange::blocks::Block;
use crate::kernel::Shots;
use crate::limits::ConnectionLimits;

/// What the I/O thread has to do next for a connection.
#[derive(Debug)]
pub enum Step {
    /// Send this block.
    Send(Box<Block>),
    /// Arm a receive.
    Receive(Shots),
    /// Cancel the armed receive; its final completion is still to come.
    CancelReceive,
    /// Tell the peer that no more answers come (FIN).
    HalfClose,
    /// Shut both directions down, so that the operations in the kernel complete.
    Abort,
    /// Close the descriptor.
    Close,
    /// Free the slot.
    Free,
}

/// How far the server's drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// The server serves.
    No,
    /// Requests are still taken, for what was sent before the peer could know.
    LastCall,
    /// Requests are refused; connections are closed as soon as they are owed nothing and have been quiet or refused for
    /// long enough.
    Refuse,
}

/// The turn of the event loop in which something happens.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Its time on the thread's clock, read once a turn.
    pub now_ns: u64,
    /// How far the server's drain is.
    pub drain: Drain,
}

/// What all connections of a thread are held to, for its life.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Sizes of requests and answers.
    pub layout: RequestLayout,
    /// What a connection may take.
    pub limits: ConnectionLimits,
    /// Its deadlines.
    pub timeouts: Timeouts,
    /// What is said to hellos.
    pub hello: HelloAnswers,
}

/// Bytes that arrived: `buffer[headroom..headroom + bytes]`. What lies before them is room for the beginning of a request.
pub struct Arrival<'a> {
    /// The whole buffer.
    pub buffer: &'a mut [u8],
    /// Where the bytes begin.
    pub headroom: usize,
    /// How many they are.
    pub bytes: usize,
}

/// What a receive brought. A buffer without requests to take goes home at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Whole requests for the batch processor, to be published.
    pub framed: Option<Framed>,
    /// When these could have been received, by the thread's clock.
    pub waiting_since_ns: u64,
    /// Requests that are answered with error 4 instead.
    pub refused: u32,
    /// Hellos that are answered with what the server is.
    pub hellos: u32,
    /// Hellos that are answered with error 4, whatever they said.
    pub hellos_refused: u32,
    /// Why nothing behind all of that is read.
    pub lost: Option<Lost>,
}

/// Why nothing more of what a peer sends can be read. It is told by an error answer, and the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// A count that no request has (error 1): the framing is lost.
    BadCount(BadVectorCount),
    /// Its hello named so many features, and the model takes others (error 5): so its requests are framed otherwise.
    WrongFeatureDim(u32),
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::BadCount(bad) => bad.fmt(formatter),
            Lost::WrongFeatureDim(features) => {
                write!(formatter, "hello for vectors of {features} features, and the model takes others")
            }
        }
    }
}

/// Deadlines that every connection is held to.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From a request's first byte to its last; and a quarter longer, at most twice as long, without the peer's
    /// acknowledging anything of what it is owed.
    pub request: Option<Duration>,
    /// Without a request or an answer under way.
    pub idle: Option<Duration>,
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// A request was not completed in time.
    Request,
    /// The peer does not read its answers.
    Send,
    /// The connection was idle for too long.
    Idle,
    /// The peer has acknowledged everything, and did not close after the half-close.
    Linger,
    /// It is old enough to be closed in order, or what that waits for has passed.
    Age,
}

impl fmt::Display for Expiry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Expiry::Request => "its request was not completed in time (--request-timeout)",
            Expiry::Send => "its peer does not take its answers (--request-timeout)",
            Expiry::Idle => "it was idle (--idle-timeout)",
            Expiry::Linger => "its peer has all answers, and did not close",
            Expiry::Age => "it is old (--max-connection-age)",
        })
    }
}
