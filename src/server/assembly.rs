//! How a server is put together: what each thread is made of, and all of them started until they are ready.
//!
//! If anything fails half-way, what has been started ends by itself ([`super::crew`]), and nothing is left behind.
#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use disruptor::{BusySpin, build_multi_producer};
use disrust_model::Model;
use disrust_protocol::RequestLayout;

use super::banner::Banner;
use super::crew::Crew;
use super::listening::Bound;
use super::reload::Reloader;
use super::reporter::RunningReporter;
use super::served::ServedFile;
use super::threads::{run_batch_processor, run_batch_role, run_io_thread};
use super::{Core, ReadyServer, ServerHandle, StartError};
use crate::admin::{AdminThread, Chronicle, Subject};
use crate::batch::{BatchProcessor, BatchRole, IoThreadPort, ModelPlace};
use crate::config::Config;
use crate::config::placement::{BATCH_THREAD_NAME, PinError, PinPolicy, Placement, io_thread_name};
use crate::connections::{HelloAnswers, Rules, Timeouts};
use crate::exchange::buffer_pool::BufferPool;
use crate::exchange::clock::Clock;
use crate::exchange::control::Control;
use crate::exchange::event::InferenceEvent;
use crate::exchange::response_queue::response_queue;
use crate::exchange::spread::Share;
use crate::exchange::wait::Waiter;
use crate::exchange::wake::Wake;
use crate::io_thread::{BatchAccess, IoThread, IoThreadParts};
use crate::kernel::{
    EventFd, RingSizes, RingSocket, ThreadAlarm, UringKernel, explain_refusal, kernel_release, pin_current_thread,
};
use crate::limits::{ConnectionLimits, PoolGeometry, request_ring_slots, ring_entries, thread_budget_bytes};
use crate::metrics::{BatchMetrics, IoMetrics};

/// The batch processor, of its own thread alone or for all threads.
enum Batch {
    Alone(Box<BatchProcessor>),
    Shared(Arc<BatchRole>),
}

/// What others are told, beside the log.
pub(super) struct Told {
    /// What has happened.
    pub chronicle: Arc<Chronicle>,
    /// Where they ask, if they may.
    pub admin: Option<TcpListener>,
    pub admin_address: Option<SocketAddr>,
}

/// Everything that the threads are made of.
pub(super) struct Assembly {
    placement: Placement,
    pin_policy: PinPolicy,
    control: Arc<Control>,
    batch: Batch,
    model_place: Arc<ModelPlace>,
    batch_alarm: ThreadAlarm,
    batch_wake: Arc<Wake>,
    batch_metrics: Arc<BatchMetrics>,
    io_parts: Vec<(IoThreadParts<RingSocket>, EventFd)>,
    ring_sizes: RingSizes,
    connections_max: usize,
    buffers_each: u16,
    /// What all threads' budgets come to.
    budget_bytes: usize,
}

impl Assembly {
    pub fn new(
        config: &Config,
        placement: Placement,
        connections_max: usize,
        model: Box<dyn Model>,
        layout: RequestLayout,
    ) -> Result<Assembly, StartError> {
        let io_threads = placement.io_cpus.len();
        let geometry = PoolGeometry::for_layout(layout);
        let control = Arc::new(Control::new(connections_max));
        let batch_alarm = ThreadAlarm::default();
        let batch_wake = Arc::new(Wake::new(batch_alarm.clone()));
        // The wait strategy is for consumers that disruptor runs itself; ours polls.
        let ring_slots = request_ring_slots(io_threads, geometry.buffers);
        let builder = build_multi_producer(ring_slots, InferenceEvent::default, BusySpin);
        let (consumer, builder) = builder.new_event_poller();
        let producer = builder.build();
        let timeouts = Timeouts { request: config.request_timeout, idle: config.idle_timeout };
        let alarms: Result<Vec<_>, _> = (0..io_threads).map(|_| EventFd::new()).collect();
        let alarms = alarms.map_err(|source| StartError::System { what: "make an eventfd", source })?;
        let wakes: Vec<_> = alarms.iter().map(|alarm| Arc::new(Wake::new(alarm.clone()))).collect();
        let shares = Share::of_all(wakes.iter().cloned());
        let (mut ports, mut ends) = (Vec::new(), Vec::new());
        for wake in wakes {
            let pool = Arc::new(BufferPool::new(geometry));
            let (responses_in, responses_out) = response_queue(usize::from(geometry.buffers));
            ports.push(IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake: Arc::clone(&wake) });
            ends.push((pool, responses_out, wake));
        }
        let batch_metrics = Arc::new(BatchMetrics::new(config.stage_times));
        let model_name = model.name().to_owned();
        let processor = BatchProcessor::new(consumer, ports, model, Arc::clone(&batch_metrics))
            .with_queue_delay_max(config.max_queue_delay);
        let model_place = Arc::clone(processor.model_place());
        let hello = HelloAnswers::new(layout, &model_name, Arc::clone(processor.model_version()));
        let rules = Rules { layout, limits: ConnectionLimits::SERVING, timeouts, hello };
        let (batch, access) = if placement.helps {
            let role = Arc::new(BatchRole::new(processor, Arc::clone(&batch_wake)));
            (Batch::Shared(Arc::clone(&role)), BatchAccess::Role(role))
        } else {
            (Batch::Alone(Box::new(processor)), BatchAccess::Wake(Arc::clone(&batch_wake)))
        };
        let mut io_parts = Vec::new();
        for (index, (((pool, responses, wake), alarm), share)) in ends.into_iter().zip(alarms).zip(shares).enumerate() {
            let parts = IoThreadParts {
                index: u16::try_from(index).expect("at most 64 I/O threads"),
                io_threads,
                pool,
                producer: producer.clone(),
                responses,
                wake,
                batch: access.clone(),
                share,
                control: Arc::clone(&control),
                metrics: Arc::new(IoMetrics::new(config.stage_times)),
                rules: rules.clone(),
                drain_timeout: config.drain_timeout,
                connections_max,
                times_backlogs: config.max_queue_delay.is_some() || config.stage_times,
                connection_age_max: config.max_connection_age,
                seed: fastrand::u64(..),
                budget_bytes: thread_budget_bytes(config.buffer_memory, io_threads, layout),
            };
            io_parts.push((parts, alarm));
        }
        let (submissions, completions) = ring_entries(io_threads);
        Ok(Assembly {
            pin_policy: config.pin_policy,
            control,
            batch,
            model_place,
            batch_alarm,
            batch_wake,
            batch_metrics,
            io_parts,
            ring_sizes: RingSizes { submissions, completions },
            connections_max,
            buffers_each: geometry.buffers,
            budget_bytes: io_threads * thread_budget_bytes(config.buffer_memory, io_threads, layout),
            placement,
        })
    }

    /// Starts all threads and waits until they are ready.
    pub fn get_ready(
        self,
        config: &Config,
        mut bound: Bound,
        banner: Banner,
        file: Option<ServedFile>,
        told: Told,
    ) -> Result<ReadyServer, StartError> {
        let (requests, notices) = channel();
        let io_metrics: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.metrics)).collect();
        let io_wakes: Vec<_> = self.io_parts.iter().map(|(parts, _)| Arc::clone(&parts.wake)).collect();
        let (policy, batch_metrics) = (self.pin_policy, self.batch_metrics);
        let (model_place, batch_wake) = (self.model_place, Arc::clone(&self.batch_wake));
        let mut crew = Crew::new(requests.clone());
        let refused: Arc<[_]> = (0..=self.io_parts.len()).map(|_| AtomicBool::new(false)).collect();
        let clock = Clock::starting();

        let (cpu, waiter, batch) = (self.placement.batch_cpu, Waiter::new(self.placement.wait), self.batch);
        let (alarm, wake) = (self.batch_alarm, Arc::clone(&self.batch_wake));
        let pins = Arc::clone(&refused);
        let prepare = move || {
            pin(BATCH_THREAD_NAME, cpu, policy, pins.last().expect("each thread has one"))?;
            alarm.attach_current_thread();
            Ok(batch)
        };
        let run = move |batch| match batch {
            Batch::Alone(processor) => run_batch_processor(*processor, waiter, &wake, clock),
            Batch::Shared(role) => run_batch_role(&role, waiter, clock),
        };
        crew.spawn(BATCH_THREAD_NAME.to_owned(), prepare, run)?;

        let listeners = bound.take_listeners(self.io_parts.len());
        for (index, ((parts, alarm), listeners)) in self.io_parts.into_iter().zip(listeners).enumerate() {
            let (cpu, sizes, waiter) =
                (self.placement.io_cpus[index], self.ring_sizes, Waiter::new(self.placement.wait));
            let batch_wake = Arc::clone(&self.batch_wake);
            let name = io_thread_name(index);
            let pins = Arc::clone(&refused);
            let prepare = move || {
                pin(&io_thread_name(index), cpu, policy, &pins[index])?;
                let kernel = UringKernel::new(sizes, Arc::clone(&parts.pool), listeners, alarm, clock);
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
        // Relaxed: the threads wrote before they said that they are ready.
        let is_refused = |place: usize| refused[place].load(Ordering::Relaxed);
        let threads = banner.threads(is_refused);
        let banner = banner.lines(is_refused);
        let Told { chronicle, admin, admin_address } = told;
        let subject = Subject {
            control: Arc::clone(&self.control),
            io_metrics: io_metrics.clone(),
            io_wakes: io_wakes.clone(),
            batch_metrics: Arc::clone(&batch_metrics),
            chronicle: Arc::clone(&chronicle),
            threads,
            listen: bound.addresses(),
            wait: self.placement.wait.to_string(),
            helping: self.placement.helps,
            buffers_each: self.buffers_each.into(),
            buffer_memory_limit_bytes: self.budget_bytes as u64,
            connections_max: self.connections_max as u64,
            kernel: kernel_release(),
        };
        let admin = admin.map(|listener| AdminThread::start(listener, subject)).transpose()?;
        let io_metrics = io_metrics.into();
        let mut handle = ServerHandle {
            requests,
            control: self.control,
            io_metrics,
            model_place,
            batch_wake,
            shutdown_delay: config.shutdown_delay,
            reloader: None,
        };
        if let Some(file) = file {
            let replacing = handle.clone();
            handle.reloader = Some(Reloader::start(file, chronicle, move |model| replacing.replace_model(model))?);
        }
        let (address, drain_timeout) = (bound.address(), config.drain_timeout);
        let core = Core {
            address,
            admin_address,
            handle,
            notices,
            io_wakes,
            batch_metrics,
            reporter,
            admin,
            drain_timeout,
            banner,
        };
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

/// Pins the calling thread, if it has a CPU. `refused` becomes true if it does without.
fn pin(thread: &str, cpu: Option<usize>, policy: PinPolicy, refused: &AtomicBool) -> Result<(), StartError> {
    match cpu {
        Some(cpu) if !pin_current_thread(cpu) => match policy {
            PinPolicy::Strict => {
                let (thread, available) = (thread.to_owned(), "other CPUs by now".to_owned());
                Err(StartError::Pin(PinError { thread, cpu, available }))
            }
            PinPolicy::BestEffort => {
                // Relaxed: the thread's being ready orders it.
                refused.store(true, Ordering::Relaxed);
                tracing::warn!(cpu, "the thread runs unpinned: the system refused its CPU");
                Ok(())
            }
        },
        Some(_) | None => Ok(()),
    }
}
