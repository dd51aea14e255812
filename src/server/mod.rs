//! A server as a whole: how it is put together, started, watched, and stopped.
//!
//! What its threads do is elsewhere ([`crate::io_thread`], [`crate::batch`]).
//!
//! A start has two steps. [`Server::prepare`] does whatever can fail: it binds the port, reserves memory, and has every
//! thread started and ready, with its ring ([`crate::server::crew`]). [`ReadyServer::serve`] then listens and lets the threads begin,
//! so that nobody has connected to a server that does not come to serve. If anything fails, nothing is left behind.
//!
//! A stop is asked for through a [`ServerHandle`], from any thread, and carried out by [`Server::wait`].
#![forbid(unsafe_code)]

mod assembly;
mod banner;
pub mod crew;
mod error;
mod handle;
mod listening;
pub mod logging;
mod reload;
mod reporter;
mod resources;
mod served;
pub mod service_manager;
pub mod shutdown;
pub mod signals;
pub mod threads;
pub mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::admin::{AdminThread, Chronicle};
pub use crate::batch::ReplaceError;
use crate::config::Config;
use crate::config::placement::{default_io_threads, place};
use crate::exchange::lived_time::LivedTime;
use crate::exchange::wake::Wake;
use crate::kernel::{
    bind_admin, check_address_space, explain_refusal, give_up_system_calls, probe_ring, release_free_memory,
};
use crate::limits::{RELEASE_BYTES_MIN, layout_of};
use crate::metrics::{BatchMetrics, IoMetrics};
use assembly::{Assembly, Told};
use banner::Banner;
use crew::Crew;
pub use error::{RunError, StartError};
use handle::Notice;
pub use handle::{Report, ServerHandle};
use listening::{Bound, Served};
use reporter::RunningReporter;
use resources::{address_space_bytes, connections_max, topology};
pub use served::ServedModel;
use shutdown::{Order, Shutdown};
use watchdog::{Sight, Watchdog};

/// A server that is ready to serve, and does not yet. Dropped, it leaves nothing behind.
pub struct ReadyServer {
    // Before the port: no thread has a listener when it is let go of.
    crew: Crew<StartError, Notice>,
    core: Core,
    bound: Bound,
}

/// A running server.
pub struct Server {
    core: Core,
    threads: Vec<JoinHandle<()>>,
    served: Served,
}

/// What a server is, before it serves and while it does.
struct Core {
    admin_address: Option<SocketAddr>,
    address: Option<SocketAddr>,
    handle: ServerHandle,
    /// What threads and handles say.
    notices: Receiver<Notice>,
    io_wakes: Vec<Arc<Wake>>,
    batch_metrics: Arc<BatchMetrics>,
    reporter: Option<RunningReporter>,
    /// Ends when all else has.
    admin: Option<AdminThread>,
    drain_timeout: Duration,
    banner: String,
}

impl Server {
    /// Starts a server for `model`. When this returns, it accepts connections.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs or listens.
    pub fn start(config: &Config, model: impl Into<ServedModel>) -> Result<Server, StartError> {
        Server::prepare(config, model)?.serve()
    }

    /// Does everything that a start can fail in, but for listening.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs or is bound.
    pub fn prepare(config: &Config, served: impl Into<ServedModel>) -> Result<ReadyServer, StartError> {
        let served: ServedModel = served.into();
        let description = served.description();
        let chronicle = Arc::new(Chronicle::beginning(served.facts()));
        let ServedModel { model, file } = served;
        let layout = layout_of(model.feature_dim(), model.outputs())?;
        let topology = topology();
        let io_threads = config.io_threads_asked().unwrap_or_else(|| default_io_threads(&topology));
        let placement = place(io_threads, &config.pin, config.pin_policy, config.wait, config.help_batch, &topology)?;
        placement.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let connections_max = connections_max(config, io_threads)?;
        let bytes = address_space_bytes(config, layout, io_threads);
        check_address_space(bytes).map_err(|source| StartError::AddressSpace { bytes, io_threads, source })?;
        probe_ring().map_err(|error| StartError::RingUnavailable(explain_refusal(&error)))?;
        let bound = Bound::new(config, io_threads)?;
        let admin = config.admin.map(bind_admin).transpose()?;
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let banner =
            Banner::new(config, &description, layout, &placement, bound.address(), admin_address, connections_max);
        let assembly = Assembly::new(config, placement, connections_max, model, layout)?;
        let ready = assembly.get_ready(config, bound, banner, file, Told { chronicle, admin, admin_address })?;
        if config.seccomp {
            let what = "give up system calls as --seccomp asks (does the kernel have CONFIG_SECCOMP_FILTER?)";
            give_up_system_calls().map_err(|source| StartError::System { what, source })?;
        }
        Ok(ready)
    }

    /// The address of the TCP port that the server listens on, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.core.address
    }

    /// The address of its admin port, if it has one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.core.admin_address
    }

    /// What stops the server.
    pub fn handle(&self) -> ServerHandle {
        self.core.handle.clone()
    }

    /// A description of the running server, in lines.
    pub fn banner(&self) -> &str {
        &self.core.banner
    }

    /// Serves until it is asked to stop, and has drained.
    ///
    /// It is this that carries out what a [`ServerHandle`] asks for, and that notices what does not come to an end.
    ///
    /// # Errors
    /// See [`RunError`]: threads may still run then, and the process should end.
    pub fn wait(self) -> Result<Report, RunError> {
        let Server { mut core, threads, served } = self;
        let delay = core.handle.shutdown_delay();
        core.watch(threads.len(), &mut Shutdown::of(served, delay))?;
        for thread in threads {
            if let Err(_panic) = thread.join() {
                return Err(RunError::ThreadFailed("after its end".to_owned()));
            }
        }
        // Its last line tells of everything.
        drop(core.reporter.take());
        let report = core.handle.report();
        assert!(report.requests == report.answered + report.discarded, "every request was answered or discarded");
        Ok(report)
    }
}

impl ReadyServer {
    /// What stops the server.
    pub fn handle(&self) -> ServerHandle {
        self.core.handle.clone()
    }

    /// Listens, and lets the threads begin.
    ///
    /// # Errors
    /// Somebody else has begun to listen on the port, or the path has gone; then nothing runs or listens here.
    pub fn serve(mut self) -> Result<Server, StartError> {
        let served = self.bound.listen()?;
        let threads = self.crew.go();
        if let Some(reporter) = &self.core.reporter {
            reporter.begin();
        }
        if let Some(admin) = &mut self.core.admin {
            admin.begin();
        }
        Ok(Server { core: self.core, threads, served })
    }
}

impl Core {
    /// Until all of the `running` threads have ended in order.
    fn watch(&mut self, mut running: usize, shutdown: &mut Shutdown<Served>) -> Result<(), RunError> {
        let mut watchdog = Watchdog::new(self.drain_timeout);
        let mut released = TrimmedMemory::default();
        let mut time = LivedTime::starting(Instant::now());
        let mut look_at = watchdog.interval();
        while running > 0 {
            let now = time.lived();
            let wait = shutdown.rests_for(now).min(look_at.saturating_sub(now));
            let notice = self.notices.recv_timeout(wait);
            time.waited(wait, Instant::now());
            let now = time.lived();
            match notice {
                Ok(Notice::Ended(end)) if end.failed => return Err(RunError::ThreadFailed(end.name)),
                Ok(Notice::Ended(_)) => running -= 1,
                Ok(Notice::Drain) => shutdown.drain(now),
                Ok(Notice::Hurry) => shutdown.hurry(now).into_iter().for_each(|order| self.tell(order)),
                Ok(Notice::Cut) => self.tell(shutdown.cut(now)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if shutdown.has_begun() {
                self.handle.control.announce_leaving();
            }
            let closed = self.handle.control.listeners_closed() == self.io_wakes.len();
            if let Some(order) = shutdown.carry_on(now, closed) {
                self.tell(order);
            }
            let draining = self.handle.control.drain_requested();
            if now >= look_at || draining {
                watchdog.look(now, self.sight(draining))?;
                released.release(&self.handle.io_metrics);
                look_at = now + watchdog.interval();
            }
        }
        shutdown.finish();
        Ok(())
    }

    fn tell(&self, order: Order) {
        match order {
            Order::Drain => self.handle.control.request_drain(),
            Order::Cut => self.handle.control.request_cut(),
        }
        self.io_wakes.iter().for_each(|wake| wake.wake_always());
    }

    fn sight(&self, draining: bool) -> Sight {
        // In this order: a batch that ends in between is seen to be unfinished, and as new by the next look.
        let steps_finished = self.batch_metrics.steps_finished.get();
        let steps_begun = self.batch_metrics.steps_begun.get();
        Sight { steps_begun, steps_finished, model_calls: self.batch_metrics.model_calls.get(), draining }
    }
}

/// Sees to it that memory that the I/O threads have given back reaches the system. It is done here, because it takes
/// milliseconds, in which no I/O thread should wait.
#[derive(Default)]
struct TrimmedMemory {
    released_bytes: u64,
}

impl TrimmedMemory {
    fn release(&mut self, io: &[Arc<IoMetrics>]) {
        let trimmed_bytes = io.iter().map(|metrics| metrics.trimmed_bytes.get()).sum();
        if trimmed_bytes - self.released_bytes >= RELEASE_BYTES_MIN {
            self.released_bytes = trimmed_bytes;
            release_free_memory();
        }
    }
}
