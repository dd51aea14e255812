//! Wake only a sleeper: the flag that lets a publisher skip the system call when the other side is awake.
//!
//! Not here: how a thread sleeps ([`super::wait`] decides when, [`crate::kernel`] knows how), nor what it waits for.
//! One side sleeps, any number of sides wake; there is one flag for each sleeping thread.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `WakeFlag::asleep` | its sleeper sets and clears, wakers clear | wakers | nothing but the decision to wake | SeqCst fences on both sides, see below |
//!
//! The danger is that the sleeper sees no work while the waker sees no sleeper. Each side writes one thing and then
//! reads the other's (Dekker's pattern):
//!
//! ```text
//! sleeper: asleep = true;  fence(SeqCst);  is there work? no: sleep
//! waker:   publish work;   fence(SeqCst);  is it asleep?  yes, and it was I who cleared it: wake
//! ```
//!
//! SeqCst is needed: with Release stores and Acquire loads alone, both loads may be satisfied before either store
//! leaves its core's store buffer (x86 does so), both sides see the old value, and the sleeper never wakes. The two
//! fences are totally ordered; whichever comes second sees the other side's store. `tests/models.rs` checks every
//! interleaving under the C11 memory model and fails when either fence is taken away.
#![forbid(unsafe_code)]

use crossbeam_utils::CachePadded;

use super::sync::atomic::{AtomicBool, Ordering, fence};

/// Says whether a thread sleeps, or is about to.
#[derive(Debug)]
pub struct WakeFlag {
    asleep: CachePadded<AtomicBool>,
}

impl WakeFlag {
    /// A flag that says "awake".
    pub fn new() -> WakeFlag {
        WakeFlag { asleep: CachePadded::new(AtomicBool::new(false)) }
    }

    /// Sleeper: announces the sleep. Look for work once more after this, and sleep only if there is none.
    pub fn announce_sleep(&self) {
        // Relaxed: the fence orders it against the look for work that follows.
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: awake again, for whatever reason.
    pub fn announce_awake(&self) {
        // Relaxed: a waker that still reads true wakes once too often, which is harmless.
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the thread sleeps or is about to, as far as is known at this moment: for who watches, not for who wakes.
    pub fn is_asleep(&self) -> bool {
        // Relaxed: it decides nothing.
        self.asleep.load(Ordering::Relaxed)
    }

    /// Waker, after publishing: whether the sleeper must be woken, and by this caller.
    pub fn take_sleeper(&self) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: ordered after the publication by the fence. The load keeps the line shared while nobody sleeps,
        // and the swap lets exactly one of several wakers pay for the system call.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

impl Default for WakeFlag {
    fn default() -> WakeFlag {
        WakeFlag::new()
    }
}

/// What ends a thread's sleep, whether it sleeps already or is about to.
pub trait Alarm: Send + Sync {
    /// Ends the present sleep, or else the next one at once.
    fn ring(&self);
}

/// A sleeping thread as its wakers see it.
pub struct Wake {
    /// The thread's flag; its owner announces sleep through it.
    pub flag: WakeFlag,
    alarm: Box<dyn Alarm>,
}

impl Wake {
    /// A thread that is awake and that `alarm` wakes.
    pub fn new(alarm: impl Alarm + 'static) -> Wake {
        Wake { flag: WakeFlag::new(), alarm: Box::new(alarm) }
    }

    /// Wakes the thread if it sleeps; call it after publishing. Returns whether that took a system call.
    pub fn wake_sleeper(&self) -> bool {
        let sleeps = self.flag.take_sleeper();
        if sleeps {
            self.alarm.ring();
        }
        sleeps
    }

    /// Wakes the thread whether it sleeps or not.
    pub fn wake_always(&self) {
        self.alarm.ring();
    }
}
