//! What bodies, rows and answers may take together.
//!
//! | atomic | written by | read by | orders |
//! |---|---|---|---|
//! | `used` | whoever reserves or gives back | the same, and /metrics | nothing: Relaxed, only the sum counts, and no data hangs on it |
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The bytes that there are.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    limit: usize,
}

/// Bytes that somebody may use, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

/// Why there are no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMemory {
    /// Others use them.
    Now,
    /// There are not so many.
    Ever,
}

impl Memory {
    /// So many bytes.
    pub fn new(limit: usize) -> Arc<Memory> {
        Arc::new(Memory { used: AtomicUsize::new(0), limit })
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// How many there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// None yet.
    pub fn reservation(self: &Arc<Memory>) -> Reservation {
        Reservation { memory: Arc::clone(self), bytes: 0 }
    }
}

impl Reservation {
    /// Takes more or gives some back, so that it is `bytes`.
    ///
    /// # Errors
    /// There are none; it is as it was.
    pub fn set(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let used = &self.memory.used;
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes - bytes, Relaxed);
        } else {
            let more = bytes - self.bytes;
            let before = used.fetch_add(more, Relaxed);
            if before.saturating_add(more) > self.memory.limit {
                used.fetch_sub(more, Relaxed);
                return Err(if bytes > self.memory.limit { NoMemory::Ever } else { NoMemory::Now });
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let memory = Memory::new(100);
        let (mut one, mut other) = (memory.reservation(), memory.reservation());
        assert_eq!((one.set(60), other.set(50), memory.used()), (Ok(()), Err(NoMemory::Now), 60));
        assert_eq!((one.set(101), one.set(usize::MAX), memory.used()), (Err(NoMemory::Ever), Err(NoMemory::Ever), 60));
        assert_eq!((one.set(50), other.set(50), memory.used()), (Ok(()), Ok(()), 100));
        drop(one);
        assert_eq!((other.set(100), memory.used()), (Ok(()), 100));
        drop(other);
        assert_eq!(memory.used(), 0);
    }
}
