//! Which thread runs on which CPU, and how the threads wait there.
//!
//! Pure: from what is asked and what the machine has to a plan. [`crate::server`] carries it out.
//!
//! Without flags, a machine with more than two CPUs gets one I/O thread for each CPU but the last, which is the batch
//! processor's. On one or two CPUs there is one I/O thread, and the batch processor shares its CPU: there the hand-off
//! between the two is nearly free, while across CPUs it costs a wake, and the other CPU is left to the clients. More I/O threads than
//! CPUs run unpinned: whoever shares CPUs, with them and with clients, is better placed by the scheduler (PERFORMANCE.md).
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;

use thiserror::Error;

use crate::exchange::wait::WaitStrategy;
use crate::limits::IO_THREADS_MAX;

/// Where threads are asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// Wherever this module finds best.
    Auto,
    /// Wherever the scheduler puts them.
    None,
    /// The i-th CPU for the i-th I/O thread, the last one for the batch processor.
    List(Vec<usize>),
}

/// What to do about a CPU that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinPolicy {
    /// Run the thread unpinned, with a warning.
    BestEffort,
    /// Do not start.
    Strict,
}

/// How threads are asked to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Spin for a moment where each thread has a CPU of its own, else park at once.
    Auto,
    /// As named.
    As(WaitStrategy),
}

/// What the machine gives this process.
#[derive(Debug, Clone)]
pub struct Topology {
    /// CPUs that the process may run on, ascending.
    pub cpus: Vec<usize>,
    /// How many of them it may use up at a time, by a cgroup's quota.
    pub parallelism: usize,
}

/// A pinning that can't be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "cannot pin {thread} to CPU {cpu}: this process may run on {available}. Name CPUs from that list, or leave out \
     --pin-policy strict to run the thread unpinned"
)]
pub struct PinError {
    /// The thread that can't be pinned.
    pub thread: String,
    /// The CPU that is not there.
    pub cpu: usize,
    /// The CPUs that are.
    pub available: String,
}

/// Whether I/O threads are asked to help the batch processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelpBatch {
    /// Where the batch processor has no CPU of its own.
    Auto,
    /// Wherever it is.
    On,
    /// Nowhere.
    Off,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The CPU of each I/O thread, or none if it is not pinned.
    pub io_cpus: Vec<Option<usize>>,
    /// The batch processor's.
    pub batch_cpu: Option<usize>,
    /// How all of them wait.
    pub wait: WaitStrategy,
    /// Whether I/O threads help the batch processor: whoever has published scores it, if that does not take long.
    pub helps: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// How many I/O threads to run if nobody says.
pub fn default_io_threads(topology: &Topology) -> usize {
    match usable(topology) {
        0..=2 => 1,
        cpus => (cpus - 1).min(IO_THREADS_MAX),
    }
}

/// The name of an I/O thread.
pub fn io_thread_name(index: usize) -> String {
    format!("io-{index}")
}

/// The name of the batch processor's thread.
pub const BATCH_THREAD_NAME: &str = "batch-processor";

/// Plans `io_threads` I/O threads and the batch processor.
///
/// # Errors
/// With [`PinPolicy::Strict`], if a CPU of the list is not there.
///
/// # Panics
/// If a list does not name one CPU for each thread.
pub fn place(
    io_threads: usize,
    pin: &Pin,
    policy: PinPolicy,
    wait: Wait,
    help_batch: HelpBatch,
    topology: &Topology,
) -> Result<Placement, PinError> {
    let mut warnings = Vec::new();
    let cpus = match pin {
        Pin::None => vec![None; io_threads + 1],
        Pin::Auto => spread(io_threads, topology),
        Pin::List(list) => {
            assert!(list.len() == io_threads + 1, "a list names one CPU for each thread");
            let mut cpus = Vec::new();
            for (thread, &cpu) in list.iter().enumerate() {
                let present = topology.cpus.contains(&cpu);
                if !present {
                    let name = if thread < io_threads { io_thread_name(thread) } else { BATCH_THREAD_NAME.to_owned() };
                    let available = CpuRanges(&topology.cpus).to_string();
                    if policy == PinPolicy::Strict {
                        return Err(PinError { thread: name, cpu, available });
                    }
                    warnings.push(format!(
                        "{name} runs unpinned: CPU {cpu} is not there (this process may run on {available})"
                    ));
                }
                cpus.push(present.then_some(cpu));
            }
            cpus
        }
    };
    let own_cpus = {
        let distinct: HashSet<usize> = cpus.iter().copied().flatten().collect();
        distinct.len() == cpus.len() && cpus.len() <= usable(topology)
    };
    let helps = match help_batch {
        HelpBatch::Auto => !own_cpus,
        HelpBatch::On => true,
        HelpBatch::Off => false,
    };
    let wait = match wait {
        Wait::Auto if own_cpus => WaitStrategy::SpinThenPark,
        Wait::Auto => WaitStrategy::Park,
        Wait::As(strategy) => strategy,
    };
    if wait == WaitStrategy::Spin && !own_cpus {
        warnings.push(format!(
            "--wait spin with {} threads that do not each have a CPU of their own: they take the CPU from one another. \
             Try --wait auto",
            cpus.len()
        ));
    }
    if usable(topology) == 1 {
        warnings.push("all threads share one CPU; latency under load will suffer".to_owned());
    }
    let (&batch_cpu, io_cpus) = cpus.split_last().expect("there is a batch processor");
    Ok(Placement { io_cpus: io_cpus.to_vec(), batch_cpu, wait, helps, warnings })
}

/// The i-th CPU for the i-th I/O thread; the batch processor gets the next one, or on a small machine shares the first. None if
/// there are more I/O threads than CPUs.
fn spread(io_threads: usize, topology: &Topology) -> Vec<Option<usize>> {
    let cpus = &topology.cpus;
    if io_threads > cpus.len() {
        return vec![None; io_threads + 1];
    }
    let batch = if usable(topology) <= 2 { 0 } else { io_threads % cpus.len() };
    (0..io_threads).chain([batch]).map(|index| Some(cpus[index])).collect()
}

fn usable(topology: &Topology) -> usize {
    topology.cpus.len().min(topology.parallelism)
}

/// Prints ascending CPUs as ranges: `CPU 0-3,6`.
struct CpuRanges<'a>(&'a [usize]);

impl fmt::Display for CpuRanges<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("CPUs that the system does not tell");
        }
        formatter.write_str("CPU ")?;
        for (index, range) in self.0.chunk_by(|first, second| first + 1 == *second).enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match range {
                [first, .., last] => write!(formatter, "{comma}{first}-{last}")?,
                [only] => write!(formatter, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(cpus: usize) -> Topology {
        Topology { cpus: (0..cpus).collect(), parallelism: cpus }
    }

    fn auto(io_threads: usize, topology: &Topology) -> Placement {
        place(io_threads, &Pin::Auto, PinPolicy::BestEffort, Wait::Auto, HelpBatch::Auto, topology)
            .expect("auto never fails")
    }

    #[test]
    fn a_small_machine_gets_one_io_thread_that_shares_its_cpu() {
        for cpus in [1, 2] {
            let topology = topology(cpus);
            assert_eq!(default_io_threads(&topology), 1);
            let placement = auto(1, &topology);
            assert_eq!((placement.io_cpus, placement.batch_cpu), (vec![Some(0)], Some(0)));
            assert_eq!((placement.wait, placement.helps), (WaitStrategy::Park, true));
        }
    }

    #[test]
    fn a_larger_machine_gives_each_thread_a_cpu_of_its_own() {
        let topology = Topology { cpus: vec![2, 3, 8, 9], parallelism: 4 };
        assert_eq!(default_io_threads(&topology), 3);
        let placement = auto(3, &topology);
        assert_eq!((placement.io_cpus, placement.batch_cpu), (vec![Some(2), Some(3), Some(8)], Some(9)));
        assert_eq!((placement.wait, placement.helps), (WaitStrategy::SpinThenPark, false));
        let asked =
            place(3, &Pin::Auto, PinPolicy::BestEffort, Wait::Auto, HelpBatch::On, &topology).expect("as above");
        assert!(asked.helps);
        let asked =
            place(3, &Pin::None, PinPolicy::BestEffort, Wait::Auto, HelpBatch::Off, &topology).expect("as above");
        assert!(!asked.helps);
    }

    #[test]
    fn a_quota_counts_as_fewer_cpus() {
        let topology = Topology { cpus: (0..64).collect(), parallelism: 2 };
        assert_eq!(default_io_threads(&topology), 1);
        assert_eq!(auto(1, &topology).wait, WaitStrategy::Park, "two spinning threads would use up the quota");
    }

    #[test]
    fn more_threads_than_cpus_park_and_are_left_to_the_scheduler() {
        let placement = auto(4, &topology(3));
        assert_eq!((placement.io_cpus, placement.batch_cpu), (vec![None; 4], None));
        assert_eq!((placement.wait, placement.helps), (WaitStrategy::Park, true));
        let placement = auto(3, &topology(3));
        assert_eq!((placement.io_cpus, placement.batch_cpu), (vec![Some(0), Some(1), Some(2)], Some(0)));
    }

    #[test]
    fn absent_cpus_leave_their_threads_unpinned_with_a_warning_or_an_error() {
        let (topology, pin) = (topology(2), Pin::List(vec![0, 1, 2, 3, 4]));
        let placement =
            place(4, &pin, PinPolicy::BestEffort, Wait::Auto, HelpBatch::Auto, &topology).expect("best effort starts");
        assert_eq!(placement.io_cpus, [Some(0), Some(1), None, None]);
        assert_eq!((placement.batch_cpu, placement.wait), (None, WaitStrategy::Park));
        assert_eq!(placement.warnings.len(), 3);
        assert!(placement.warnings[2].contains("batch-processor") && placement.warnings[2].contains("CPU 4"));
        let error =
            place(4, &pin, PinPolicy::Strict, Wait::Auto, HelpBatch::Auto, &topology).expect_err("strict does not");
        assert_eq!((error.thread.as_str(), error.cpu, error.available.as_str()), ("io-2", 2, "CPU 0-1"));
    }

    #[test]
    fn a_shared_cpu_in_a_list_means_parking() {
        let pin = Pin::List(vec![1, 2, 2]);
        let placement =
            place(2, &pin, PinPolicy::Strict, Wait::Auto, HelpBatch::Auto, &topology(8)).expect("they are there");
        assert_eq!(placement.wait, WaitStrategy::Park);
    }

    #[test]
    fn spinning_on_shared_cpus_is_done_with_a_warning() {
        let wait = Wait::As(WaitStrategy::Spin);
        let placement =
            place(2, &Pin::None, PinPolicy::BestEffort, wait, HelpBatch::On, &topology(2)).expect("it is allowed");
        assert_eq!(placement.wait, WaitStrategy::Spin);
        assert!(placement.warnings[0].contains("--wait auto"));
    }

    #[test]
    fn ranges_are_printed_short() {
        assert_eq!(CpuRanges(&[0, 1, 2, 5, 7, 8]).to_string(), "CPU 0-2,5,7-8");
    }
}
