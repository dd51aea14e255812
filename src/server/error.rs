//! Why a server does not start, or does not go on. Each message says what, the likely cause, and what to try.
#![forbid(unsafe_code)]

use std::io;

use thiserror::Error;

use super::crew::CrewError;
use super::watchdog::Stall;
use crate::admin::AdminError;
use crate::config::placement::PinError;
use crate::kernel::{AdminBindError, BindError, BindPathError};
use crate::limits::ShapeError;

/// Why a server did not start. Each message says what, the likely cause, and what to try.
#[derive(Debug, Error)]
pub enum StartError {
    /// The model can't be served whatever the machine.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// io_uring can't be had.
    #[error("{0}")]
    RingUnavailable(String),
    /// The address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin address can't be listened on.
    #[error(transparent)]
    AdminBind(#[from] AdminBindError),
    /// There is no admin thread.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The Unix socket's path can't be listened at.
    #[error(transparent)]
    BindPath(#[from] BindPathError),
    /// A CPU of a strict pinning is not there.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The descriptor limit leaves none for connections.
    #[error("the limit of {limit} open descriptors leaves none for connections. Try: ulimit -n 1024 or more")]
    Descriptors {
        /// The limit that holds.
        limit: usize,
    },
    /// A thread can't be had, or failed while it got ready.
    #[error(transparent)]
    Thread(#[from] CrewError),
    /// The address space is too small for what the server reserves.
    #[error(
        "cannot reserve {} MiB of address space for {io_threads} I/O threads: {source}. The likely cause is a limit on it. \
         Try: a higher ulimit -v, fewer --io-threads, or a smaller --buffer-memory",
        .bytes.div_ceil(1024 * 1024)
    )]
    AddressSpace {
        /// What is needed.
        bytes: usize,
        /// For so many threads.
        io_threads: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a running server ended without a drain.
#[derive(Debug, Error)]
pub enum RunError {
    /// A thread panicked; its message is in the log.
    #[error("the thread {0} failed; the server stops rather than answer wrongly")]
    ThreadFailed(String),
    /// Something does not come to an end.
    #[error(transparent)]
    Stalled(#[from] Stall),
}
