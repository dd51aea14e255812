//! A server as a whole: how it is put together, started, watched, and stopped.
//!
//! What its threads do is elsewhere ([`crate::io_thread`], [`crate::batch_processor`]). A start either succeeds, with
//! every thread running, or leaves nothing behind and says why.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disruptor::{BusySpin, build_multi_producer};
use thiserror::Error;

use crate::batch_processor::{BatchProcessor, IoThreadPort};
use crate::buffer_pool::BufferPool;
use crate::config::Config;
use crate::connections::{Connection, Timeouts};
use crate::control::Control;
use crate::event::InferenceEvent;
use crate::io_thread::{IoThread, IoThreadParts};
use crate::kernel::{
    BindError, EventFd, Listener, RingSizes, ServedPort, ThreadAlarm, UringKernel, available_cpus, bind_port,
    explain_refusal, give_up_system_calls, kernel_release, pin_current_thread, probe_ring, raise_descriptor_limit,
    release_free_memory, resolve,
};
use crate::limits::{
    COMPLETION_ENTRIES, ConnectionLimits, DESCRIPTORS_RESERVED, HANDOVER_MAX, MODEL_STALL_MAX, PoolGeometry,
    RELEASE_BYTES_MIN, SUBMISSION_ENTRIES, beyond_budget_bytes, request_ring_slots, thread_budget_bytes,
};
use crate::metrics::report::Reporter;
use crate::metrics::{BatchMetrics, Counter, IoMetrics};
use crate::model::Model;
use crate::placement::{
    BATCH_THREAD_NAME, PinError, PinPolicy, Placement, Topology, default_io_threads, io_thread_name, place,
};
use crate::protocol::RequestLayout;
use crate::response_queue::response_queue;
use crate::threads::{run_batch_processor, run_io_thread};
use crate::wait::Waiter;
use crate::wake::Wake;

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
    /// The model does not come back.
    #[error("the model has been working on one batch for more than {MODEL_STALL_MAX:?} and is taken for hung")]
    ModelHung,
    /// The drain did not end in time, because requests are still with the model.
    #[error("the drain timed out while the model was still working")]
    DrainStuck,
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    threads: Vec<JoinHandle<()>>,
    ends: Receiver<ThreadEnd>,
    io_metrics: Vec<Arc<IoMetrics>>,
    batch_metrics: Arc<BatchMetrics>,
    reporter: Option<RunningReporter>,
    drain_timeout: Duration,
    banner: String,
}

/// A thread that prints metrics until this is dropped.
struct RunningReporter {
    /// Its end is the reporter's.
    stop: Option<Sender<()>>,
    /// Ends when the reporter has printed its last line.
    done: Receiver<()>,
}

impl RunningReporter {
    /// How long the last line may take: nobody may be reading it.
    const LAST_LINE_MAX: Duration = Duration::from_secs(1);

    fn start(reporter: Reporter, interval: Duration) -> io::Result<RunningReporter> {
        let ((stop, stopped), (printed, done)) = (channel(), channel());
        std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            reporter.run(interval, &stopped);
            drop(printed);
        })?;
        Ok(RunningReporter { stop: Some(stop), done })
    }
}

impl Drop for RunningReporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either it ends, or it is stuck in its write, and the process ends without it.
        let _ended = self.done.recv_timeout(Self::LAST_LINE_MAX);
    }
}

/// Stops a server, from any thread.
#[derive(Clone)]
pub struct ServerHandle {
    control: Arc<Control>,
    io_wakes: Vec<Arc<Wake>>,
    /// The port, until the drain gives it up. Locked as long as that is being done.
    port: Arc<Mutex<Option<ServedPort>>>,
}

impl ServerHandle {
    /// Begins the drain: no new connections, every request received is answered, then the connections are closed.
    ///
    /// If the port is shared with another process, new connections are that one's from now on, and the drain begins a
    /// moment later, which this waits for.
    pub fn drain(&self) {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut port) = port.take() else { return self.request(Control::request_drain) };
        std::thread::sleep(port.begin_handover());
        self.request(Control::request_drain);
        self.wait_for_closed_listeners();
        port.finish_handover();
    }

    /// Ends the drain (beginning it if need be) by cutting the connections that are still open.
    pub fn cut(&self) {
        self.request(Control::request_cut);
        if let Ok(mut port) = self.port.try_lock() {
            *port = None;
        }
    }

    fn request(&self, what: fn(&Control)) {
        what(&self.control);
        self.io_wakes.iter().for_each(|wake| wake.wake_always());
    }

    fn wait_for_closed_listeners(&self) {
        let begun_at = Instant::now();
        while self.control.listeners_closed() < self.io_wakes.len() && begun_at.elapsed() < HANDOVER_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.control.open_connections()
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

/// Says that a thread has ended, and whether in order.
struct ThreadEnd {
    name: String,
    failed: bool,
}

/// Reports a thread's end when the thread drops it, panicking or not.
struct EndReporter {
    name: String,
    ends: Sender<ThreadEnd>,
}

impl Drop for EndReporter {
    fn drop(&mut self) {
        let end = ThreadEnd { name: std::mem::take(&mut self.name), failed: std::thread::panicking() };
        // Nobody listens any more if the start has failed, which is reported otherwise.
        let _unheard = self.ends.send(end);
    }
}

impl Server {
    /// Starts a server for `model`. When this returns, it accepts connections.
    ///
    /// # Errors
    /// See [`StartError`]; then nothing runs or listens.
    pub fn start(config: &Config, model: Box<dyn Model>) -> Result<Server, StartError> {
        let topology = topology();
        let io_threads = config.io_threads_asked().unwrap_or_else(|| default_io_threads(&topology));
        let placement = place(io_threads, &config.pin, config.pin_policy, config.wait, &topology)?;
        placement.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let connections_max = connections_max(config, io_threads)?;
        probe_ring(SUBMISSION_ENTRIES, COMPLETION_ENTRIES)
            .map_err(|error| StartError::RingUnavailable(explain_refusal(&error)))?;
        let mut bound = bind_port(resolve(&config.host, config.port)?, io_threads, config.reuse_port)?;
        let (listeners, address) = (bound.take_listeners(), bound.address());
        let banner = banner(config, &*model, &placement, address, connections_max);
        let assembly = Assembly::new(config, placement, connections_max, model)?;
        let mut server = assembly.start(listeners, bound.listen()?, address, banner, config.drain_timeout)?;
        if let Some(interval) = config.metrics_interval {
            let reporter = Reporter::new(server.io_metrics.clone(), Arc::clone(&server.batch_metrics));
            let reporter = RunningReporter::start(reporter, interval);
            server.reporter = Some(reporter.map_err(|source| StartError::System { what: "start a thread", source })?);
        }
        if config.seccomp
            && let Err(source) = give_up_system_calls()
        {
            server.handle.cut();
            // However it ends, the reason is the one below.
            let _ended = server.wait();
            let what = "give up system calls as --seccomp asks (does the kernel have CONFIG_SECCOMP_FILTER?)";
            return Err(StartError::System { what, source });
        }
        Ok(server)
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops the server.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// A description of the running server, in lines.
    pub fn banner(&self) -> &str {
        &self.banner
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

    /// Watches over the server until it has drained.
    ///
    /// # Errors
    /// See [`RunError`]: threads may still run then, and the process should end.
    pub fn wait(mut self) -> Result<Report, RunError> {
        let mut watchdog = Watchdog::new(self.drain_timeout);
        let mut released = TrimmedMemory::default();
        let mut running = self.threads.len();
        while running > 0 {
            match self.ends.recv_timeout(Watchdog::INTERVAL) {
                Ok(end) if end.failed => return Err(RunError::ThreadFailed(end.name)),
                Ok(_) => running -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    watchdog.look(&self.batch_metrics, &self.handle.control)?;
                    released.release(&self.io_metrics);
                }
            }
        }
        for thread in std::mem::take(&mut self.threads) {
            if let Err(_panic) = thread.join() {
                return Err(RunError::ThreadFailed("after its end".to_owned()));
            }
        }
        // A drain that hands the port over ends first: otherwise it would be left half handed over.
        drop(self.handle.port.lock());
        // Its last line tells of everything.
        drop(self.reporter.take());
        let report = self.report();
        assert!(report.requests == report.answered + report.discarded, "every request was answered or discarded");
        Ok(report)
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

/// Sees whether the batch processor comes back from the model, and whether a drain comes to its end.
struct Watchdog {
    /// Steps begun when last seen to change, and when that was.
    steps_begun: u64,
    changed_at: Instant,
    drain_timeout: Duration,
    drain_seen_at: Option<Instant>,
}

impl Watchdog {
    /// How often it looks.
    const INTERVAL: Duration = Duration::from_millis(250);

    /// What the I/O threads may take for closing the connections that they have cut.
    const DRAIN_GRACE: Duration = Duration::from_secs(2);

    fn new(drain_timeout: Duration) -> Watchdog {
        Watchdog { steps_begun: 0, changed_at: Instant::now(), drain_timeout, drain_seen_at: None }
    }

    fn look(&mut self, batch: &BatchMetrics, control: &Control) -> Result<(), RunError> {
        let begun = batch.steps_begun.get();
        if begun != self.steps_begun || batch.steps_finished.get() == begun {
            (self.steps_begun, self.changed_at) = (begun, Instant::now());
        }
        if self.changed_at.elapsed() > MODEL_STALL_MAX {
            return Err(RunError::ModelHung);
        }
        if control.drain_requested() {
            let seen_at = *self.drain_seen_at.get_or_insert_with(Instant::now);
            if seen_at.elapsed() > self.drain_timeout + Self::DRAIN_GRACE {
                return Err(RunError::DrainStuck);
            }
        }
        Ok(())
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
        Ok(Assembly {
            pin_policy: config.pin_policy,
            control,
            processor: BatchProcessor::new(consumer, ports, model, Arc::clone(&batch_metrics)),
            batch_alarm,
            batch_wake,
            batch_metrics,
            io_parts,
            ring_sizes: RingSizes {
                submissions: SUBMISSION_ENTRIES,
                completions: COMPLETION_ENTRIES,
                connections: connections_max,
            },
            placement,
        })
    }

    fn start(
        self,
        listeners: Vec<Listener>,
        port: ServedPort,
        address: SocketAddr,
        banner: String,
        drain_timeout: Duration,
    ) -> Result<Server, StartError> {
        let (end_sender, ends) = channel();
        let (ready_sender, ready) = channel();
        let io_metrics: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.metrics)).collect();
        let io_wakes: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.wake)).collect();
        let handle = ServerHandle { control: self.control, io_wakes, port: Arc::new(Mutex::new(Some(port))) };
        let policy = self.pin_policy;
        let starter = Starter { policy, ready: ready_sender, ends: end_sender };
        let mut threads = Vec::new();
        let mut failure = None;

        let waiter = Waiter::new(self.placement.wait);
        let (processor, alarm, wake) = (self.processor, self.batch_alarm, Arc::clone(&self.batch_wake));
        let spawned = starter.spawn(BATCH_THREAD_NAME.to_owned(), self.placement.batch_cpu, move |ready| {
            alarm.attach_current_thread();
            ready.send(Ok(()));
            run_batch_processor(processor, waiter, &wake);
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => failure = Some(error),
        }

        for (index, ((parts, alarm), listener)) in self.io_parts.into_iter().zip(listeners).enumerate() {
            let (sizes, batch_wake) = (self.ring_sizes, Arc::clone(&self.batch_wake));
            let waiter = Waiter::new(self.placement.wait);
            let spawned = starter.spawn(io_thread_name(index), self.placement.io_cpus[index], move |ready| {
                match UringKernel::new(sizes, Arc::clone(&parts.pool), listener, alarm) {
                    Ok(kernel) => {
                        let thread = IoThread::new(kernel, parts);
                        ready.send(Ok(()));
                        run_io_thread(thread, waiter);
                    }
                    Err(error) => {
                        drop(parts);
                        ready.send(Err(StartError::RingUnavailable(explain_refusal(&error))));
                    }
                }
                // This thread's producer is gone. If it was the last one, the batch processor ends when it looks.
                batch_wake.wake_always();
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => failure = Some(error),
            }
        }

        drop(starter);
        while let Ok(outcome) = ready.recv() {
            if let Err(error) = outcome {
                failure.get_or_insert(error);
            }
        }
        if let Some(failure) = failure {
            handle.cut();
            self.batch_wake.wake_always();
            for thread in threads {
                // A thread that failed has said so in the log; the first reason is the one to report.
                let _failed = thread.join();
            }
            return Err(failure);
        }
        let batch_metrics = self.batch_metrics;
        let reporter = None;
        Ok(Server { address, handle, threads, ends, io_metrics, batch_metrics, reporter, drain_timeout, banner })
    }
}

/// Starts threads and hears from them whether they are ready.
struct Starter {
    policy: PinPolicy,
    ready: Sender<Result<(), StartError>>,
    ends: Sender<ThreadEnd>,
}

/// A thread's one chance to say whether it is ready.
struct Ready(Sender<Result<(), StartError>>);

impl Ready {
    fn send(self, outcome: Result<(), StartError>) {
        // The starter listens until every thread has spoken or ended.
        let _unheard = self.0.send(outcome);
    }
}

impl Starter {
    fn spawn(
        &self,
        name: String,
        cpu: Option<usize>,
        body: impl FnOnce(Ready) + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let (policy, ready) = (self.policy, Ready(self.ready.clone()));
        let reporter = EndReporter { name: name.clone(), ends: self.ends.clone() };
        let run = move || {
            let _reporter = reporter;
            if let Some(cpu) = cpu
                && !pin_current_thread(cpu)
            {
                if policy == PinPolicy::Strict {
                    let thread = _reporter.name.clone();
                    ready.send(Err(StartError::Pin(PinError {
                        thread,
                        cpu,
                        available: "other CPUs by now".to_owned(),
                    })));
                    return;
                }
                tracing::warn!(cpu, "the thread runs unpinned: the system refused its CPU");
            }
            body(ready);
        };
        std::thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|source| StartError::System { what: "start a thread", source })
    }
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
    // A ring, a listener, an eventfd for each I/O thread, and the listener once more if the port is to be handed over.
    let each = 3 + usize::from(config.reuse_port);
    let available = limit.saturating_sub(DESCRIPTORS_RESERVED + each * io_threads).min(crate::limits::CONNECTIONS_MAX);
    if available == 0 {
        return Err(StartError::Descriptors { limit });
    }
    match config.max_connections {
        Some(asked) if asked > available => {
            tracing::warn!("--max-connections {asked} is lowered to {available}: the descriptor limit is {limit}");
            Ok(available)
        }
        Some(asked) => Ok(asked),
        None => Ok(available),
    }
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
