//! Which version of the model scores what is published from now on, as the I/O threads tell it to whoever says hello.
//!
//! | atomic | writer | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `version` | who has the batch processor's role, between two steps, before who offered the model learns that it serves | I/O threads, when a hello comes | nothing | Relaxed: see below |
//!
//! Invariant: what an I/O thread publishes after it has read a version is scored by that one or by one that came later. The ring
//! orders it: the read comes before the publication (Release), which comes before the poll that takes it (Acquire). Had a
//! step before the swap taken it, the read would come before the write that it reads.
#![forbid(unsafe_code)]

use super::sync::atomic::{AtomicU64, Ordering};

/// The version of the model in force.
#[derive(Debug)]
pub struct ModelVersion {
    version: AtomicU64,
}

impl ModelVersion {
    /// Of a model that serves from the beginning.
    pub fn new(version: u64) -> ModelVersion {
        ModelVersion { version: AtomicU64::new(version) }
    }

    /// The version now.
    pub fn get(&self) -> u64 {
        // Relaxed: see the top.
        self.version.load(Ordering::Relaxed)
    }

    /// Another model scores from the next step on.
    pub fn set(&self, version: u64) {
        // Relaxed: see the top.
        self.version.store(version, Ordering::Relaxed);
    }
}
