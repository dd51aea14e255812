//! Which CPUs there are, and staying on one of them. Policy is [`crate::config::placement`]'s.

use core_affinity::CoreId;

/// core_affinity 0.8.3 writes past the end of its CPU set, and aborts, for numbers from here on.
const CPU_COUNT_MAX: usize = 1024;

/// The CPUs that the calling thread may run on, ascending. Ask on the main thread, before anything is pinned: a pinned
/// thread sees its own CPU only.
pub fn available_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// Pins the calling thread to a CPU. Returns false if the CPU is not there or not allowed.
pub fn pin_current_thread(cpu: usize) -> bool {
    cpu < CPU_COUNT_MAX && core_affinity::set_for_current(CoreId { id: cpu })
}
