//! What all threads of the gateway share.
//!
//! | atomic | written by | read by | orders |
//! |---|---|---|---|
//! | `phase` | the main thread | the threads that serve | nothing: Relaxed, who reads it late answers as a moment before |
//! | `connections` of a thread | the main thread when it gives one, the thread when one ends | the main thread, /metrics | nothing: Relaxed, a number that bounds another |
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::memory::Memory;
use crate::metrics::{Facts, Metrics, cpu_time, resident_bytes};
use crate::settings::Settings;
use crate::upstream::Upstream;

/// What the gateway is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It serves, and says that it will not for long.
    Leaving,
    /// It serves what is under way.
    Draining,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// What the operator asked for.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// What bodies may take.
    pub memory: Arc<Memory>,
    phase: AtomicU8,
    /// Of each thread that serves.
    pub threads: Vec<ThreadFacts>,
}

/// What is known of a thread that serves.
#[derive(Debug, Default)]
pub struct ThreadFacts {
    /// Connections that it has, or is about to have.
    pub connections: AtomicUsize,
    /// Its runtime, once it runs.
    pub runtime: OnceLock<Handle>,
}

impl ThreadFacts {
    fn busy(&self) -> Duration {
        self.runtime.get().map_or(Duration::ZERO, |runtime| runtime.metrics().worker_total_busy_duration(0))
    }
}

impl Shared {
    /// Of a gateway that begins.
    pub fn new(settings: Settings) -> Arc<Shared> {
        let memory = Memory::new(settings.body_memory.0);
        let threads = (0..settings.threads).map(|_| ThreadFacts::default()).collect();
        let phase = AtomicU8::new(Phase::Serving as u8);
        Arc::new(Shared { settings, metrics: Metrics::default(), memory, phase, threads })
    }

    /// What the gateway is at.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Leaving,
            _ => Phase::Draining,
        }
    }

    /// From now on it is at something else.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.threads.iter().map(|thread| thread.connections.load(Relaxed)).sum()
    }

    /// What is told to Prometheus by a thread with this client.
    pub fn metrics_text(&self, upstream: &Upstream) -> String {
        let state = match self.phase() {
            Phase::Leaving => "leaving",
            Phase::Draining => "draining",
            Phase::Serving if upstream.is_ready() => "ready",
            Phase::Serving => "no_server",
        };
        let busy = self.threads.iter().enumerate().map(|(index, thread)| (format!("serve-{index}"), thread.busy()));
        self.metrics.text(&Facts {
            state,
            connections: self.connections() as u64,
            connections_max: self.settings.max_connections as u64,
            body_memory: self.memory.used() as u64,
            body_memory_max: self.memory.limit() as u64,
            servers: upstream.servers(),
            model: upstream.model().map(|model| (model.name.clone(), model.version.clone())),
            build: (env!("CARGO_PKG_VERSION"), env!("DISRUST_COMMIT")),
            busy: busy.collect(),
            cpu_time: cpu_time(),
            resident_bytes: resident_bytes(),
        })
    }
}
