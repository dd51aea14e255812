//! The primitives that threads share memory through, named once.
//!
//! The lock-free modules ([`super::wake`], [`crate::exchange::response_queue`]) import them from here, so that their model test
//! (`tests/models.rs`) can compile the same source against loom's instead.

pub use std::sync::atomic;

/// Runs a unit test of a lock-free module; under loom, in every interleaving.
#[cfg(test)]
pub(crate) fn check(test: impl Fn() + Send + Sync + 'static) {
    test();
}
