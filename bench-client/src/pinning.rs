//! Threads on CPUs of their own: which there are, and how a thread gets one. The kernel is asked, and its answer told.
//!
//! Invariants: threads that are started later inherit the CPU.
#![forbid(unsafe_code)]

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that the calling thread may run on, ascending; none if the system does not tell. A pinned thread sees its own
/// CPU only.
pub fn available_cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Pins the calling thread to a CPU. Returns false if the CPU is not there or not allowed.
pub fn pin_current_thread(cpu: usize) -> bool {
    if cpu >= CpuSet::MAX_CPU {
        return false;
    }
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).is_ok()
}
