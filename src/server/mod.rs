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

pub mod crew;
pub mod lived_time;
pub mod logging;
pub mod shutdown;
pub mod signals;
pub mod threads;
pub mod watchdog;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disruptor::{BusySpin, build_multi_producer};
use thiserror::Error;

use crate::batch::{BatchProcessor, IoThreadPort};
use crate::config::Config;
use crate::config::placement::{
    BATCH_THREAD_NAME, PinError, PinPolicy, Placement, Topology, default_io_threads, io_thread_name, place,
};
use crate::connections::{Connection, Timeouts};
use crate::exchange::buffer_pool::BufferPool;
use crate::exchange::control::Control;
use crate::exchange::event::{InferenceEvent, Response};
use crate::exchange::response_queue::response_queue;
use crate::exchange::wait::Waiter;
use crate::exchange::wake::Wake;
use crate::io_thread::{IoThread, IoThreadParts};
use crate::kernel::{
    BindError, BoundPort, EventFd, RingSizes, ServedPort, ThreadAlarm, UringKernel, available_cpus, bind_port,
    check_address_space, explain_refusal, give_up_system_calls, kernel_release, pin_current_thread, probe_ring,
    raise_descriptor_limit, release_free_memory, resolve,
};
use crate::limits::{
    CONNECTIONS_DEFAULT_MAX, CONNECTIONS_FEW, CONNECTIONS_MAX, ConnectionLimits, DESCRIPTORS_PER_IO_THREAD,
    DESCRIPTORS_RESERVED, PoolGeometry, RELEASE_BYTES_MIN, THREAD_BYTES, beyond_budget_bytes, request_ring_slots,
    ring_bytes, ring_entries, thread_budget_bytes,
};
use crate::metrics::report::Reporter;
use crate::metrics::{BatchMetrics, Counter, IoMetrics};
use crate::server::crew::{Crew, CrewError, ThreadEnd};
use crate::server::lived_time::LivedTime;
use crate::server::shutdown::{Order, Shutdown};
use crate::server::threads::{run_batch_processor, run_io_thread};
use crate::server::watchdog::{Sight, Stall, Watchdog};
use disrust_model::Model;
use disrust_protocol::RequestLayout;

/// Why a server did not start. Each message says what, the likely cause, and what to try.
#[derive(Debug, Error)]
pub enum StartError {
    /// io_uring can't be had.
    #[error("{0}")]
    RingUnavailable(String),
    /// The address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
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

/// A server that is ready to serve, and does not yet. Dropped, it leaves nothing behind.
pub struct ReadyServer {
    // Before the port: no thread has a listener when it is let go of.
    crew: Crew<StartError, Notice>,
    core: Core,
    bound: BoundPort,
}

/// A running server.
pub struct Server {
    core: Core,
    threads: Vec<JoinHandle<()>>,
    port: ServedPort,
}

/// What a server is, before it serves and while it does.
struct Core {
    address: SocketAddr,
    handle: ServerHandle,
    /// What threads and handles say.
    notices: Receiver<Notice>,
    io_wakes: Vec<Arc<Wake>>,
    batch_metrics: Arc<BatchMetrics>,
    reporter: Option<RunningReporter>,
    drain_timeout: Duration,
    banner: String,
}

/// What [`Server::wait`] waits for.
enum Notice {
    /// A thread has ended.
    Ended(ThreadEnd),
    /// The drain is asked for.
    Drain,
    /// The end of the drain is asked for.
    Cut,
}

impl From<ThreadEnd> for Notice {
    fn from(end: ThreadEnd) -> Notice {
        Notice::Ended(end)
    }
}

/// A thread that prints metrics until this is dropped.
struct RunningReporter {
    /// The word to begin. Its end is the reporter's.
    stop: Option<Sender<()>>,
    /// Ends when the reporter has printed its last line.
    done: Receiver<()>,
}

impl RunningReporter {
    /// How long the last line may take: nobody may be reading it.
    const LAST_LINE_MAX: Duration = Duration::from_secs(1);

    /// Starts the thread, which prints nothing until it is told to begin.
    fn start(
        io: Vec<Arc<IoMetrics>>,
        batch: Arc<BatchMetrics>,
        interval: Duration,
    ) -> Result<RunningReporter, CrewError> {
        const NAME: &str = "metrics";
        let ((stop, stopped), (printed, done)) = (channel(), channel());
        let run = move || {
            if stopped.recv().is_ok() {
                Reporter::new(io, batch).run(interval, &stopped);
            }
            drop(printed);
        };
        let spawned = std::thread::Builder::new().name(NAME.to_owned()).spawn(run);
        spawned.map_err(|source| CrewError::Refused { name: NAME.to_owned(), source })?;
        Ok(RunningReporter { stop: Some(stop), done })
    }

    fn begin(&self) {
        if let Some(stop) = &self.stop {
            // It listens until it is told to stop.
            let _unheard = stop.send(());
        }
    }
}

impl Drop for RunningReporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either it ends, or it is stuck in its write, and the process ends without it.
        let _ended = self.done.recv_timeout(Self::LAST_LINE_MAX);
    }
}

/// Stops a server, from any thread, and tells what it does.
#[derive(Clone)]
pub struct ServerHandle {
    requests: Sender<Notice>,
    control: Arc<Control>,
    io_metrics: Arc<[Arc<IoMetrics>]>,
}

impl ServerHandle {
    /// Asks for the drain: no new connections, every request received is answered, then the connections are closed.
    ///
    /// It begins as soon as somebody is in [`Server::wait`], which this does not wait for. If the port is shared with
    /// another process, new connections are that one's from then on, and the connections here are drained a moment later.
    pub fn drain(&self) {
        self.ask(Notice::Drain);
    }

    /// Asks for the drain to end (and to begin, if need be) by cutting the connections that are still open.
    pub fn cut(&self) {
        self.ask(Notice::Cut);
    }

    fn ask(&self, request: Notice) {
        // A server that has ended needs no more to be asked.
        let _unheard = self.requests.send(request);
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.control.open_connections()
    }

    /// What the server has done until now.
    pub fn report(&self) -> Report {
        let sum =
            |counter: fn(&IoMetrics) -> &Counter| self.io_metrics.iter().map(|metrics| counter(metrics).get()).sum();
        Report {
            connections: sum(|metrics| &metrics.accepted),
            rejected: sum(|metrics| &metrics.rejected),
            requests: sum(|metrics| &metrics.requests),
            answered: sum(|metrics| &metrics.answered),
            discarded: sum(|metrics| &metrics.discarded),
            refused: sum(|metrics| &metrics.refused),
            cut: sum(|metrics| &metrics.cut),
        }
    }
}

/// What a server did in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections served.
    pub connections: u64,
    /// Connections closed at once, over the limit.
    pub rejected: u64,
    /// Requests handed to the model.
    pub requests: u64,
    /// Requests answered to their peer.
    pub answered: u64,
    /// Requests whose peer was gone before the answer.
    pub discarded: u64,
    /// Requests refused with error 4.
    pub refused: u64,
    /// Connections cut at the end of the drain.
    pub cut: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} connections served, {} cut at the end; {} requests answered, {} discarded because their peer had gone, \
             {} refused while draining",
            self.connections, self.cut, self.answered, self.discarded, self.refused
        )
    }
}

impl Server {
    /// Starts a server for `model`. When this returns, it accepts connections.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs or listens.
    pub fn start(config: &Config, model: Box<dyn Model>) -> Result<Server, StartError> {
        Server::prepare(config, model)?.serve()
    }

    /// Does everything that a start can fail in, but for listening.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs or is bound.
    pub fn prepare(config: &Config, model: Box<dyn Model>) -> Result<ReadyServer, StartError> {
        let topology = topology();
        let io_threads = config.io_threads_asked().unwrap_or_else(|| default_io_threads(&topology));
        let placement = place(io_threads, &config.pin, config.pin_policy, config.wait, &topology)?;
        placement.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let connections_max = connections_max(config, io_threads)?;
        let bytes = address_space_bytes(config, RequestLayout::new(model.feature_dim()), io_threads);
        check_address_space(bytes).map_err(|source| StartError::AddressSpace { bytes, io_threads, source })?;
        probe_ring().map_err(|error| StartError::RingUnavailable(explain_refusal(&error)))?;
        let bound = bind_port(resolve(&config.host, config.port)?, io_threads, config.reuse_port)?;
        let banner = banner(config, &*model, &placement, bound.address(), connections_max);
        let ready = Assembly::new(config, placement, connections_max, model)?.get_ready(config, bound, banner)?;
        if config.seccomp {
            let what = "give up system calls as --seccomp asks (does the kernel have CONFIG_SECCOMP_FILTER?)";
            give_up_system_calls().map_err(|source| StartError::System { what, source })?;
        }
        Ok(ready)
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.core.address
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
        let Server { mut core, threads, port } = self;
        core.watch(threads.len(), &mut Shutdown::of(port))?;
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
    /// Somebody else has begun to listen on the port; then nothing runs or listens here.
    pub fn serve(self) -> Result<Server, StartError> {
        let port = self.bound.listen()?;
        let threads = self.crew.go();
        if let Some(reporter) = &self.core.reporter {
            reporter.begin();
        }
        Ok(Server { core: self.core, threads, port })
    }
}

impl Core {
    /// Until all of the `running` threads have ended in order.
    fn watch(&mut self, mut running: usize, shutdown: &mut Shutdown<ServedPort>) -> Result<(), RunError> {
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
                Ok(Notice::Cut) => self.tell(shutdown.cut(now)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
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

/// Everything that the threads are made of.
struct Assembly {
    placement: Placement,
    pin_policy: PinPolicy,
    control: Arc<Control>,
    processor: BatchProcessor,
    batch_alarm: ThreadAlarm,
    batch_wake: Arc<Wake>,
    batch_metrics: Arc<BatchMetrics>,
    io_parts: Vec<(IoThreadParts, EventFd)>,
    ring_sizes: RingSizes,
}

impl Assembly {
    fn new(
        config: &Config,
        placement: Placement,
        connections_max: usize,
        model: Box<dyn Model>,
    ) -> Result<Assembly, StartError> {
        let io_threads = placement.io_cpus.len();
        let layout = RequestLayout::new(model.feature_dim());
        let geometry = PoolGeometry::for_layout(layout);
        let control = Arc::new(Control::new(connections_max));
        let batch_alarm = ThreadAlarm::default();
        let batch_wake = Arc::new(Wake::new(batch_alarm.clone()));
        // The wait strategy is for consumers that disruptor runs itself; ours polls.
        let ring_slots = request_ring_slots(io_threads, geometry.buffers);
        let builder = build_multi_producer(ring_slots, InferenceEvent::default, BusySpin);
        let (consumer, builder) = builder.new_event_poller();
        let producer = builder.build();
        let (mut ports, mut io_parts) = (Vec::new(), Vec::new());
        for index in 0..io_threads {
            let pool = Arc::new(BufferPool::new(geometry));
            let (responses_in, responses_out) = response_queue(usize::from(geometry.buffers));
            let alarm = EventFd::new().map_err(|source| StartError::System { what: "make an eventfd", source })?;
            let wake = Arc::new(Wake::new(alarm.clone()));
            ports.push(IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake: Arc::clone(&wake) });
            let parts = IoThreadParts {
                index: u16::try_from(index).expect("at most 64 I/O threads"),
                io_threads,
                layout,
                pool,
                producer: producer.clone(),
                responses: responses_out,
                wake,
                batch_wake: Arc::clone(&batch_wake),
                control: Arc::clone(&control),
                metrics: Arc::new(IoMetrics::default()),
                limits: ConnectionLimits::SERVING,
                timeouts: Timeouts { request: config.request_timeout, idle: config.idle_timeout },
                drain_timeout: config.drain_timeout,
                connections_max,
                budget_bytes: thread_budget_bytes(config.buffer_memory, io_threads, layout),
            };
            io_parts.push((parts, alarm));
        }
        let batch_metrics = Arc::new(BatchMetrics::default());
        let (submissions, completions) = ring_entries(io_threads);
        Ok(Assembly {
            pin_policy: config.pin_policy,
            control,
            processor: BatchProcessor::new(consumer, ports, model, Arc::clone(&batch_metrics)),
            batch_alarm,
            batch_wake,
            batch_metrics,
            io_parts,
            ring_sizes: RingSizes { submissions, completions },
            placement,
        })
    }

    /// Starts all threads and waits until they are ready.
    fn get_ready(self, config: &Config, mut bound: BoundPort, banner: String) -> Result<ReadyServer, StartError> {
        let (requests, notices) = channel();
        let io_metrics: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.metrics)).collect();
        let io_wakes: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.wake)).collect();
        let (policy, batch_metrics) = (self.pin_policy, self.batch_metrics);
        let mut crew = Crew::new(requests.clone());

        let (cpu, waiter, processor) = (self.placement.batch_cpu, Waiter::new(self.placement.wait), self.processor);
        let (alarm, wake) = (self.batch_alarm, Arc::clone(&self.batch_wake));
        let prepare = move || {
            pin(BATCH_THREAD_NAME, cpu, policy)?;
            alarm.attach_current_thread();
            Ok(processor)
        };
        let run = move |processor| run_batch_processor(processor, waiter, &wake);
        crew.spawn(BATCH_THREAD_NAME.to_owned(), prepare, run)?;

        for (index, ((parts, alarm), listener)) in self.io_parts.into_iter().zip(bound.take_listeners()).enumerate() {
            let (cpu, sizes, waiter) =
                (self.placement.io_cpus[index], self.ring_sizes, Waiter::new(self.placement.wait));
            let batch_wake = Arc::clone(&self.batch_wake);
            let name = io_thread_name(index);
            let prepare = move || {
                pin(&io_thread_name(index), cpu, policy)?;
                let kernel = UringKernel::new(sizes, Arc::clone(&parts.pool), listener, alarm);
                let kernel = kernel.map_err(|error| StartError::RingUnavailable(explain_refusal(&error)))?;
                Ok(IoThread::new(kernel, parts))
            };
            let run = move |thread| {
                // It is dropped after the thread's parts: its producer is gone then, however the thread ends. If it was
                // the last one, the batch processor ends when it looks.
                let _wakes = WakeOnDrop(batch_wake);
                run_io_thread(thread, waiter);
            };
            crew.spawn(name, prepare, run)?;
        }

        let reporter = config
            .metrics_interval
            .map(|interval| RunningReporter::start(io_metrics.clone(), Arc::clone(&batch_metrics), interval))
            .transpose()?;
        crew.wait_until_ready()?;
        let handle = ServerHandle { requests, control: self.control, io_metrics: io_metrics.into() };
        let (address, drain_timeout) = (bound.address(), config.drain_timeout);
        let core = Core { address, handle, notices, io_wakes, batch_metrics, reporter, drain_timeout, banner };
        Ok(ReadyServer { crew, core, bound })
    }
}

/// Wakes a thread for the last time.
struct WakeOnDrop(Arc<Wake>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake_always();
    }
}

/// Pins the calling thread, if it has a CPU.
fn pin(thread: &str, cpu: Option<usize>, policy: PinPolicy) -> Result<(), StartError> {
    match cpu {
        Some(cpu) if !pin_current_thread(cpu) => match policy {
            PinPolicy::Strict => {
                let (thread, available) = (thread.to_owned(), "other CPUs by now".to_owned());
                Err(StartError::Pin(PinError { thread, cpu, available }))
            }
            PinPolicy::BestEffort => {
                tracing::warn!(cpu, "the thread runs unpinned: the system refused its CPU");
                Ok(())
            }
        },
        Some(_) | None => Ok(()),
    }
}

/// Address space that a server reserves when it starts, and that its peers can then make it use, at most.
fn address_space_bytes(config: &Config, layout: RequestLayout, io_threads: usize) -> usize {
    /// For what is small.
    const REST_BYTES: usize = 8 * 1024 * 1024;
    let geometry = PoolGeometry::for_layout(layout);
    let (buffers, events) = (usize::from(geometry.buffers), request_ring_slots(io_threads, geometry.buffers));
    let blocks = thread_budget_bytes(config.buffer_memory, io_threads, layout) + beyond_budget_bytes(geometry);
    let each = buffers * (geometry.buffer_bytes() + size_of::<Response>()) + blocks + ring_bytes(io_threads);
    let batch = events * (size_of::<InferenceEvent>() + geometry.rows_per_buffer_max(layout) * size_of::<f32>());
    // The batch processor's thread and the reporter's are two more.
    io_threads * each + batch + (io_threads + 2) * THREAD_BYTES + REST_BYTES
}

/// What the machine gives this process; to be read on the main thread, before any pinning.
fn topology() -> Topology {
    let cpus = available_cpus();
    let parallelism = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
    Topology { cpus, parallelism }
}

/// How many connections there can be: as asked, as far as descriptors last.
fn connections_max(config: &Config, io_threads: usize) -> Result<usize, StartError> {
    let limit = raise_descriptor_limit()
        .map_err(|source| StartError::System { what: "read the limit on descriptors", source })?
        .0;
    connections_within(limit, config.max_connections, io_threads)
}

fn connections_within(limit: usize, asked: Option<usize>, io_threads: usize) -> Result<usize, StartError> {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_IO_THREAD * io_threads;
    let available = limit.saturating_sub(reserved).min(CONNECTIONS_MAX);
    if available == 0 {
        return Err(StartError::Descriptors { limit });
    }
    match asked {
        Some(asked) if asked > available => tracing::warn!(
            "--max-connections {asked} is lowered to {available}: the limit is {limit} open descriptors. Try: ulimit -n {}",
            asked.saturating_add(reserved)
        ),
        None if available < CONNECTIONS_FEW => tracing::warn!(
            "{available} connections are the most that the limit of {limit} open descriptors leaves room for. Try: ulimit \
             -n 1024 or more"
        ),
        Some(_) | None => {}
    }
    Ok(asked.unwrap_or(CONNECTIONS_DEFAULT_MAX).min(available))
}

fn banner(
    config: &Config,
    model: &dyn Model,
    placement: &Placement,
    address: SocketAddr,
    connections_max: usize,
) -> String {
    let layout = RequestLayout::new(model.feature_dim());
    let geometry = PoolGeometry::for_layout(layout);
    let io_count = placement.io_cpus.len();
    let cpu = |cpu: Option<usize>| cpu.map_or("not pinned".to_owned(), |cpu| format!("CPU {cpu}"));
    let io_threads = placement.io_cpus.iter().enumerate();
    let threads: Vec<String> = io_threads
        .map(|(index, io_cpu)| format!("{} → {}", io_thread_name(index), cpu(*io_cpu)))
        .chain([format!("{BATCH_THREAD_NAME} → {}", cpu(placement.batch_cpu))])
        .collect();
    let time = |timeout: Option<Duration>| {
        timeout.map_or("off".to_owned(), |timeout| humantime::format_duration(timeout).to_string())
    };
    format!(
        "disrust {version} on Linux {kernel}\n\
         listening on {address}{shared}\n\
         model: {model}, {features} features\n\
         threads: {threads}\n\
         wait: {wait}\n\
         sizes: {buffers} buffers of {receive} KiB for each I/O thread, request ring of {ring} events, \
         at most {connections_max} connections\n\
         memory: at most {budget} MiB for what peers do not read or finish, {beyond} MiB for what is under way then, and \
         {state} bytes a connection\n\
         timeouts: request {request}, idle {idle}, drain {drain}\n",
        version = env!("CARGO_PKG_VERSION"),
        kernel = kernel_release(),
        shared = if config.reuse_port { " (shared)" } else { "" },
        model = model.name(),
        features = model.feature_dim(),
        threads = threads.join(", "),
        wait = placement.wait,
        buffers = geometry.buffers,
        receive = geometry.receive_bytes / 1024,
        ring = request_ring_slots(io_count, geometry.buffers),
        budget = (io_count * thread_budget_bytes(config.buffer_memory, io_count, layout)).div_ceil(1 << 20),
        beyond = (io_count * beyond_budget_bytes(geometry)).div_ceil(1 << 20),
        state = size_of::<Connection<RawFd>>(),
        request = time(config.request_timeout),
        idle = time(config.idle_timeout),
        drain = time(Some(config.drain_timeout)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody who says nothing reserves for as many connections as a container without limits has descriptors; who says how
    /// many has them, as far as descriptors last.
    #[test]
    fn connections_are_bounded_by_what_is_asked_and_by_descriptors() {
        const BOUNDLESS: usize = 1 << 30;
        let reserved = DESCRIPTORS_RESERVED + 2 * DESCRIPTORS_PER_IO_THREAD;
        for (limit, asked, expected) in [
            (BOUNDLESS, None, Some(CONNECTIONS_DEFAULT_MAX)),
            (BOUNDLESS, Some(10_000_000), Some(10_000_000)),
            (BOUNDLESS, Some(usize::MAX), Some(CONNECTIONS_MAX)),
            (1024, None, Some(1024 - reserved)),
            (1024, Some(5), Some(5)),
            (1024, Some(5000), Some(1024 - reserved)),
            (reserved + 1, None, Some(1)),
            (reserved, None, None),
            (0, Some(7), None),
        ] {
            assert_eq!(connections_within(limit, asked, 2).ok(), expected, "{asked:?} of {limit}");
        }
    }
}
