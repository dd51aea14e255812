//! What a connection is, without any I/O: which bytes are whole requests, what is owed to the peer, and which
//! operation is due next. The I/O thread carries that out ([`crate::io_thread`]).
//!
//! Nothing here makes a system call, reads a clock, or knows another connection.
#![forbid(unsafe_code)]

mod backlog;
mod connection;
pub mod framing;
mod hello;
mod interface;
mod send_buffer;

pub use connection::Connection;
pub use hello::{HelloAnswers, HelloRun};
pub use interface::{Arrival, Drain, Expiry, Lost, Received, Rules, Step, Timeouts, Turn};
