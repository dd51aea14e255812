//! What the admin thread knows: whom it watches, what it has seen, and when.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::chronicle::Chronicle;
use super::health::{Health, Sight, State};
use super::history::History;
use crate::exchange::control::Control;
use crate::exchange::lived_time::LivedTime;
use crate::exchange::wake::Wake;
use crate::kernel::{process_started_unix_seconds, process_usage, unix_seconds};
use crate::limits::{ADMIN_ROSTER_FOR, ADMIN_TICK};
use crate::metrics::families::{Facts, Sources};
use crate::metrics::{BatchMetrics, IoMetrics};

/// Whom it watches, and what there is to say of a server that does not change.
pub struct Subject {
    /// The server's state.
    pub control: Arc<Control>,
    /// What the I/O threads count.
    pub io_metrics: Vec<Arc<IoMetrics>>,
    /// Whether they sleep.
    pub io_wakes: Vec<Arc<Wake>>,
    /// What the batch processor counts.
    pub batch_metrics: Arc<BatchMetrics>,
    /// What has happened.
    pub chronicle: Arc<Chronicle>,
    /// The I/O threads and then the batch processor's, with the CPUs that they run on.
    pub threads: Vec<(String, Option<usize>)>,
    /// Where it listens.
    pub listen: Vec<String>,
    /// How its threads wait.
    pub wait: String,
    /// Whether I/O threads help the batch processor.
    pub helping: bool,
    /// Receive buffers of each I/O thread.
    pub buffers_each: u64,
    /// What peers can make it hold beyond those, in bytes.
    pub buffer_memory_limit_bytes: u64,
    /// Connections that there can be.
    pub connections_max: u64,
    /// The kernel's release.
    pub kernel: String,
}

/// The state of the admin thread.
pub(super) struct Watch {
    pub subject: Subject,
    pub begun_unix_seconds: f64,
    pub begun_at: Instant,
    time: LivedTime,
    health: Health,
    pub history: History,
    /// What the chronicle has of the state.
    told: State,
    told_shedding: bool,
    process_started_unix_seconds: Option<f64>,
    /// When somebody asked for the status page's numbers.
    status_asked_at: Option<Instant>,
}

/// One for all tasks of the thread.
pub(super) type SharedWatch = Rc<RefCell<Watch>>;

/// Looks now and then, whether somebody asks or not.
pub(super) async fn tick_without_end(watch: SharedWatch) {
    let mut ticks = interval(ADMIN_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut watch = watch.borrow_mut();
        watch.look();
        watch.sample_when_due();
    }
}

impl Watch {
    pub fn beginning(subject: Subject) -> Watch {
        let now = Instant::now();
        let history = History::beginning(&subject.io_metrics, &subject.batch_metrics, now);
        let mut watch = Watch {
            subject,
            begun_unix_seconds: unix_seconds(),
            begun_at: now,
            time: LivedTime::starting(now),
            health: Health::beginning(),
            history,
            told: State::Ready,
            told_shedding: false,
            process_started_unix_seconds: process_started_unix_seconds(),
            status_asked_at: None,
        };
        watch.look();
        watch
    }

    pub fn shared(self) -> SharedWatch {
        Rc::new(RefCell::new(self))
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Sees how far the threads are.
    pub fn look(&mut self) {
        self.time.waited(ADMIN_TICK, Instant::now());
        let Subject { control, io_metrics, io_wakes, batch_metrics, .. } = &self.subject;
        // In this order: a step that ends in between is seen to be unfinished, and as new by the next look.
        let steps_finished = batch_metrics.steps_finished.get();
        let steps_begun = batch_metrics.steps_begun.get();
        let turns = io_metrics.iter().zip(io_wakes).map(|(io, wake)| (io.turns.get(), wake.flag.is_asleep()));
        let sight = Sight {
            steps_begun,
            steps_finished,
            model_calls: batch_metrics.model_calls.get(),
            io: turns.collect(),
            leaving: control.is_leaving(),
            draining: control.drain_requested(),
        };
        self.health.look(self.time.lived(), sight);
        let state = self.health.state();
        if state != self.told {
            self.told = state;
            self.subject.chronicle.note(state.name());
        }
    }

    fn sample_when_due(&mut self) {
        let connections = self.subject.control.open_connections();
        let Subject { io_metrics, batch_metrics, .. } = &self.subject;
        let sampled = self.history.sample_when_due(io_metrics, batch_metrics, connections, Instant::now());
        if self.is_shedding() != self.told_shedding {
            self.told_shedding = self.is_shedding();
            let what = if self.told_shedding { "shedding began" } else { "shedding ended" };
            self.subject.chronicle.note(what);
        }
        if sampled && self.status_asked_at.is_some_and(|asked_at| asked_at.elapsed() < ADMIN_ROSTER_FOR) {
            self.ask_for_connections();
        }
    }

    /// Whether requests were shed in the last second.
    pub fn is_shedding(&self) -> bool {
        self.history.samples().next_back().is_some_and(|sample| sample.shed_per_s > 0.0)
    }

    /// Somebody looks at the status page: from now on the I/O threads tell of their connections, for a while.
    pub fn status_asked(&mut self) {
        let before = self.status_asked_at.replace(Instant::now());
        if before.is_none_or(|before| before.elapsed() >= ADMIN_ROSTER_FOR) {
            self.ask_for_connections();
        }
    }

    fn ask_for_connections(&self) {
        for (io, wake) in self.subject.io_metrics.iter().zip(&self.subject.io_wakes) {
            io.roster.ask();
            wake.wake_always();
        }
    }

    /// Reads everything that scrapers are told.
    pub fn with_sources<R>(&self, read: impl FnOnce(&Sources<'_>) -> R) -> R {
        let Subject { io_metrics, batch_metrics, chronicle, threads, .. } = &self.subject;
        let written = chronicle.read().clone();
        let mut process = process_usage();
        // It is computed of two clocks, one of which may be set; it does not change all the same.
        process.started_unix_seconds = self.process_started_unix_seconds;
        let facts = Facts {
            io_names: threads.iter().map(|(name, _)| name.clone()).take(io_metrics.len()).collect(),
            state: self.health.state().name(),
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("DISRUST_COMMIT"),
            model_version: written.model.version_text(),
            model_name: written.model.name,
            model_format: written.model.format,
            model_loaded_unix_seconds: written.model_loaded_unix_seconds,
            reloads_ok: written.reloads_ok,
            reloads_failed: written.reloads_failed,
            buffers_each: self.subject.buffers_each,
            buffer_memory_limit_bytes: self.subject.buffer_memory_limit_bytes,
            connections_max: self.subject.connections_max,
            process,
        };
        read(&Sources { io: io_metrics, batch: batch_metrics, facts: &facts })
    }

    pub fn uptime(&self) -> Duration {
        self.begun_at.elapsed()
    }
}
