//! The CPUs of this machine: who runs on which.
//!
//! Placement is pure. The client takes the last CPUs, the server the first ones, in order, and only then the client's.
//!
//! Invariants: all servers of a point have the same CPUs, and the client the same at all points; a thread is pinned
//! unless the system does not tell its CPUs.

use std::collections::BTreeSet;
use std::thread::available_parallelism;

use crate::pinning::available_cpus;

/// The CPUs that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    cpus: Vec<usize>,
    /// Threads of the client.
    pub client_threads: u32,
}

impl Machine {
    /// This machine, for a client of `client_threads` threads, or of half as many as there are CPUs. Of a container that
    /// may use up fewer CPUs than it may run on, so many are used.
    pub fn here(client_threads: Option<u32>) -> Machine {
        let cpus = available_cpus();
        let usable = available_parallelism().map_or(cpus.len(), usize::from);
        Machine::new(cpus, usable, client_threads)
    }

    fn new(mut cpus: Vec<usize>, usable: usize, client_threads: Option<u32>) -> Machine {
        cpus.sort_unstable();
        cpus.truncate(usable);
        let half = u32::try_from(cpus.len() / 2).unwrap_or(u32::MAX).max(1);
        Machine { cpus, client_threads: client_threads.unwrap_or(half) }
    }

    /// CPUs that this process may use; 1 if the system does not tell.
    pub fn cpu_count(&self) -> usize {
        self.cpus.len().max(1)
    }

    /// CPUs of the client's threads, in order.
    pub fn client_cpus(&self) -> Vec<usize> {
        let first = self.cpus.len().saturating_sub(self.client_threads as usize);
        self.cpus[first..].to_vec()
    }

    /// CPUs for `io_threads` I/O threads and then the batch processor, as `disrust --pin` takes them; empty if the
    /// system does not tell. On one or two CPUs the batch processor shares the first I/O thread's, as it does by
    /// default: the other is left to the client.
    pub fn server_cpus(&self, io_threads: u32) -> Vec<usize> {
        if self.cpus.is_empty() {
            return Vec::new();
        }
        let io_threads = io_threads as usize;
        let batch = if self.cpus.len() <= 2 { 0 } else { io_threads };
        (0..io_threads).chain([batch]).map(|index| self.cpus[index % self.cpus.len()]).collect()
    }

    /// The same CPUs, each once, for a server that is given a set of them.
    pub fn server_cpu_set(&self, io_threads: u32) -> BTreeSet<usize> {
        self.server_cpus(io_threads).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize) -> Machine {
        Machine::new((0..cpus).collect(), cpus, None)
    }

    /// The promise: client and server have CPUs of their own as long as there are enough.
    #[test]
    fn the_client_takes_the_last_cpus_and_the_server_the_first() {
        assert_eq!((machine(2).client_cpus(), machine(2).server_cpus(1)), (vec![1], vec![0, 0]));
        assert_eq!((machine(8).client_cpus(), machine(8).server_cpus(3)), (vec![4, 5, 6, 7], vec![0, 1, 2, 3]));
        assert_eq!(Machine::new(vec![9, 4], 2, Some(1)).client_cpus(), [9]);
    }

    /// The promise: more threads than CPUs share them, and nothing is out of bounds.
    #[test]
    fn threads_share_what_there_is() {
        assert_eq!(machine(2).server_cpus(2), [0, 1, 0]);
        assert_eq!(machine(4).server_cpus(4), [0, 1, 2, 3, 0]);
        assert_eq!((machine(1).server_cpus(2), machine(1).client_cpus()), (vec![0, 0, 0], vec![0]));
        assert_eq!(Machine::new(vec![0, 1], 2, Some(9)).client_cpus(), [0, 1]);
        assert_eq!(Machine::new(vec![0, 1, 2, 3], 2, None).cpu_count(), 2, "a quota");
        assert_eq!((machine(0).server_cpus(1), machine(0).client_cpus()), (vec![], vec![]));
        assert_eq!(machine(2).server_cpu_set(2), BTreeSet::from([0, 1]));
    }
}
