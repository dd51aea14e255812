//! The admin port: what the server does, over HTTP, to scrapers, orchestrators, balancers and people.
//!
//! One thread of its own, pinned nowhere, reads what the others count and changes nothing. It knows neither requests nor
//! connections of clients, and none of the other threads waits for it or knows that it is there. There is no TLS and no
//! authentication: it is meant for a loopback address or a network of the operator's.
//!
//! | path | status | what |
//! |---|---|---|
//! | `/metrics` | 200 | all of [`crate::metrics::families`], for Prometheus |
//! | `/livez` | 200, 503 | whether the threads make progress |
//! | `/readyz` | 200, 503 | whether requests should be sent here |
//! | `/drainz` | 200, 404, 503 | the same for balancers that keep what is connected: ready, not to be given more, broken |
//! | `/status.json` | 200 | what the status page shows |
//! | `/` | 200 | the status page |
//!
//! Invariants
//! - What peers can make it hold is bounded: connections, the size of a head, the time of each, and answers are of a size.
//! - A connection ends after some seconds, however many requests it has. Who holds connections keeps nobody out: one too many
//!   ends the oldest.
//! - It answers until the server has ended, and while the model hangs.
#![forbid(unsafe_code)]

mod chronicle;
mod connections;
mod health;
mod history;
mod pages;
pub mod probe;
mod snapshot;
mod status;
mod watch;

use std::io;
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::kernel::explain_thread_refusal;
pub use chronicle::{Chronicle, ModelFacts};
pub use watch::Subject;
use watch::Watch;

/// Why there is no admin thread.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The system gives no thread.
    #[error("cannot start the thread {THREAD_NAME}: {}", explain_thread_refusal(.0))]
    Thread(io::Error),
    /// It gives nothing to wait with.
    #[error(
        "cannot wait for connections to the admin port: {0}. The likely cause is the limit on descriptors. Try: a higher ulimit -n"
    )]
    Wait(io::Error),
}

/// The thread, as it is called everywhere.
pub const THREAD_NAME: &str = "admin";

/// The admin thread, until this is dropped; then it ends at once.
pub struct AdminThread {
    /// The word to begin.
    begin: Option<Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminThread {
    /// Starts the thread, with all that it needs of the system. It answers nobody until it is told to begin.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub fn start(listener: TcpListener, subject: Subject) -> Result<AdminThread, AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(AdminError::Wait)?;
        let listener = {
            let _registers_here = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(AdminError::Wait)?
        };
        let (begin, begun) = channel();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            if begun.recv().is_ok() {
                run(&runtime, listener, Watch::beginning(subject), stopped);
            }
        };
        let thread = Builder::new().name(THREAD_NAME.to_owned()).spawn(run).map_err(AdminError::Thread)?;
        Ok(AdminThread { begin: Some(begin), stop: Some(stop), thread: Some(thread) })
    }

    /// Lets it answer.
    pub fn begin(&mut self) {
        if let Some(begin) = self.begin.take() {
            // It waits for this.
            let _unheard = begin.send(());
        }
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        // If it has not begun, it does not.
        drop((self.begin.take(), self.stop.take()));
        if let Some(thread) = self.thread.take() {
            // If it has panicked, the log has it; nobody else depends on it.
            let _failed = thread.join();
        }
    }
}

/// Until the other end of `stopped` is gone.
fn run(runtime: &Runtime, listener: tokio::net::TcpListener, watch: Watch, stopped: oneshot::Receiver<()>) {
    let watch = watch.shared();
    let tasks = LocalSet::new();
    tasks.spawn_local(watch::tick_without_end(watch.clone()));
    tasks.spawn_local(connections::accept_without_end(listener, watch));
    tasks.block_on(runtime, async {
        // Nobody says anything: it ends.
        let _ended = stopped.await;
    });
}
