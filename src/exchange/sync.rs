//! The primitives that threads share memory through, named once.
//!
//! The modules whose orderings need a proof ([`super::wake`], [`crate::exchange::response_queue`], [`super::spread`], [`super::swap_place`], [`super::model_version`]) import them from here, so that their model test
//! (`tests/models.rs`) can compile the same source against loom's instead.

pub use std::sync::{Condvar, Mutex, MutexGuard, atomic};

/// Runs a unit test of such a module; under loom, in every interleaving.
#[cfg(test)]
pub(crate) fn check(test: impl Fn() + Send + Sync + 'static) {
    test();
}
