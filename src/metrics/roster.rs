//! The connections of one I/O thread that have most under way: told when somebody asks, and only then.
//!
//! A thread that is asked looks at its connections once, for as long as that is short, and writes down a few. It never waits for who
//! reads. Who asks wakes it, and reads what is there a moment later.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `asked` | who asks sets it, the thread clears it | the thread, when it is woken | nothing | Relaxed: a thread that sees it late answers when it is woken the next time |
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Connections that a thread tells of, at most. Larger: each takes it a system call. Smaller: a page shows fewer.
pub const ROSTER_MAX: usize = 10;

/// What one I/O thread tells of its connections.
#[derive(Debug, Default)]
pub struct Roster {
    asked: AtomicBool,
    entries: Mutex<Vec<RosterEntry>>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterEntry {
    /// Who is at the other end, unless it has gone.
    pub peer: Option<String>,
    /// Bursts (the requests of one receive) of it that are with the batch processor.
    pub in_flight: u32,
    /// Whether nothing is received from it until it takes answers.
    pub out_of_credit: bool,
    /// How long it has been open.
    pub age_seconds: u32,
}

impl Roster {
    /// Asks. The thread must be woken after this.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// The thread: whether somebody has asked since the last time.
    pub fn take_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed)
    }

    /// The thread: answers, unless somebody just reads.
    pub fn answer(&self, entries: impl Iterator<Item = RosterEntry>) {
        if let Ok(mut told) = self.entries.try_lock() {
            told.clear();
            told.extend(entries.take(ROSTER_MAX));
        }
    }

    /// What it told when it was last asked.
    pub fn entries(&self) -> Vec<RosterEntry> {
        // Nothing that is done while it is locked can panic half-way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_answers_once_for_each_time_that_it_is_asked() {
        let roster = Roster::default();
        assert!(!roster.take_asked());
        roster.ask();
        roster.ask();
        assert!(roster.take_asked() && !roster.take_asked());
        let entry = |in_flight| RosterEntry { peer: None, in_flight, out_of_credit: false, age_seconds: 0 };
        roster.answer((0..100).map(entry));
        assert_eq!(roster.entries().len(), ROSTER_MAX);
        roster.answer([entry(7)].into_iter());
        assert_eq!(roster.entries(), [entry(7)]);
    }
}
