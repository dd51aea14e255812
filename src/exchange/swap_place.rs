//! A place where a running thread is given what it is to use from its next step on, and gives back what it has used.
//!
//! One thread, the user, looks once a step and never waits. Any others offer, one at a time, and wait for what comes back, so
//! that it is let go of on their side. It wakes nobody that sleeps ([`super::wake`]): whoever offers does that after
//! [`SwapPlace::offer`], and the user looks at [`SwapPlace::is_offered`] after it has announced its sleep.
//!
//! Invariants: what is offered is taken once or comes to nothing; `is_offered` is true while something is, from shortly
//! after it was put there on. The lock is held for moments only; the user tries it, and comes back a step later if
//! somebody has it (who may be a thread of no priority that the system does not let run).
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `is_offered` | who offers sets; the user, or who withdraws, clears under the lock | the user | that the offer is in the slot | Release in `offer`, Acquire in `is_offered` |
//!
//! The slot itself is a mutex's.
#![forbid(unsafe_code)]

use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::{Condvar, Mutex, MutexGuard};

/// A place for the next `T` of one thread.
pub struct SwapPlace<T> {
    /// On a line of its own: the user reads it in each step.
    is_offered: CachePadded<AtomicBool>,
    slot: Mutex<Slot<T>>,
    changed: Condvar,
}

struct Slot<T> {
    /// For the user to take.
    offered: Option<T>,
    /// What the user has used until it took the last offer; for who made that.
    returned: Option<T>,
    /// The user has ended.
    closed: bool,
}

/// Why what was offered is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSwapped {
    /// Somebody else's offer has not come to its end.
    Busy,
    /// The user did not come to its next step in time.
    Late,
    /// The user has ended.
    Ended,
}

impl<T> SwapPlace<T> {
    /// A place in which nothing is offered.
    pub fn new() -> SwapPlace<T> {
        SwapPlace {
            is_offered: CachePadded::new(AtomicBool::new(false)),
            slot: Mutex::new(Slot { offered: None, returned: None, closed: false }),
            changed: Condvar::new(),
        }
    }

    // ---- Whoever offers.

    /// Offers `value`. The user must be woken after this, and the outcome waited for.
    ///
    /// # Errors
    /// Another's offer is under way, or the user has ended; then `value` is dropped here.
    pub fn offer(&self, value: T) -> Result<(), NotSwapped> {
        let mut slot = self.lock();
        if slot.closed {
            return Err(NotSwapped::Ended);
        }
        if slot.offered.is_some() || slot.returned.is_some() {
            return Err(NotSwapped::Busy);
        }
        slot.offered = Some(value);
        drop(slot);
        // Release: pairs with the Acquire in `is_offered`; the offer is in the slot, and the lock is free, when it is seen.
        self.is_offered.store(true, Ordering::Release);
        Ok(())
    }

    /// What came of the offer: what the user gave back for it, or that it has ended; none while it has not looked. For who
    /// cannot wait.
    pub fn outcome(&self) -> Option<Result<T, NotSwapped>> {
        self.lock().outcome()
    }

    /// Waits for what comes of the offer, for about `patience`; then takes it back, and drops it.
    ///
    /// # Errors
    /// The offer is not used.
    pub fn wait(&self, patience: Duration) -> Result<T, NotSwapped> {
        let mut slot = self.lock();
        loop {
            if let Some(outcome) = slot.outcome() {
                return outcome;
            }
            let waited = self.changed.wait_timeout(slot, patience);
            let (again, wait) = waited.unwrap_or_else(PoisonError::into_inner);
            slot = again;
            if wait.timed_out() && slot.offered.take().is_some() {
                // Relaxed: the user that still reads true finds nothing in the slot.
                self.is_offered.store(false, Ordering::Relaxed);
                return Err(NotSwapped::Late);
            }
        }
    }

    // ---- The user.

    /// Whether there is something to take.
    pub fn is_offered(&self) -> bool {
        // Acquire: pairs with the Release in `offer`.
        self.is_offered.load(Ordering::Acquire)
    }

    /// Takes what is offered, if anything is, in exchange for `value`, and calls `taken` with it before whoever offered it learns
    /// of that. Returns whether it did; if not although something is offered, the next call does.
    pub fn swap(&self, value: &mut T, taken: impl FnOnce(&T)) -> bool {
        let mut slot = match self.slot.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // Relaxed, under the lock: the next offer takes the lock after this, and says true after that.
        self.is_offered.store(false, Ordering::Relaxed);
        let Some(offered) = slot.offered.take() else { return false };
        taken(&offered);
        slot.returned = Some(std::mem::replace(value, offered));
        drop(slot);
        self.changed.notify_one();
        true
    }

    /// The user ends: nothing is taken any more, and nobody waits for that.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    fn outcome(&mut self) -> Option<Result<T, NotSwapped>> {
        if let Some(returned) = self.returned.take() {
            return Some(Ok(returned));
        }
        (self.closed && self.offered.take().is_some()).then_some(Err(NotSwapped::Ended))
    }
}

impl<T> Default for SwapPlace<T> {
    fn default() -> SwapPlace<T> {
        SwapPlace::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::check;
    use super::*;

    #[test]
    fn what_is_offered_is_swapped_once_and_what_was_used_comes_back() {
        check(|| {
            let (place, mut used) = (SwapPlace::new(), 1);
            assert!(!place.is_offered() && !place.swap(&mut used, |_| ()));
            assert_eq!(place.offer(2), Ok(()));
            assert_eq!((place.outcome(), place.offer(3)), (None, Err(NotSwapped::Busy)));
            let told = std::cell::Cell::new(0);
            assert!(place.is_offered() && place.swap(&mut used, |taken| told.set(*taken)));
            assert_eq!((told.get(), used, place.is_offered(), place.swap(&mut used, |_| ())), (2, 2, false, false));
            assert_eq!(place.offer(3), Err(NotSwapped::Busy), "what came back is still to be fetched");
            assert_eq!((place.outcome(), place.offer(3)), (Some(Ok(1)), Ok(())));
        });
    }

    #[test]
    fn nobody_waits_for_a_user_that_has_ended() {
        check(|| {
            let (place, mut used) = (SwapPlace::new(), 1);
            assert_eq!(place.offer(2), Ok(()));
            assert!(place.swap(&mut used, |_| ()));
            place.close();
            assert_eq!(place.wait(Duration::MAX), Ok(1), "it had taken the offer");
            assert_eq!(place.offer(3), Err(NotSwapped::Ended));
            let place = SwapPlace::new();
            assert_eq!(place.offer(2), Ok(()));
            place.close();
            assert_eq!(place.wait(Duration::MAX), Err(NotSwapped::Ended));
        });
    }
}
