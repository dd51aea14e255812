//! Which I/O thread serves a new connection: the one with the fewest, whichever thread's listener it came to.
//!
//! SO_REUSEPORT chooses a listener by a hash of the addresses, which is even only for many connections: of 8 on 8 listeners, 3
//! get none on average. Connections live long and are few, so a thread that has accepted more than its share gives the next one away,
//! as a socket in the other's inbox. Here is who gives to whom, and the inboxes; accepting and serving are
//! [`crate::io_thread`]'s.
//!
//! Invariants
//! - What was given is taken: an inbox closes with what is in it in its owner's hands, and gives back what comes later.
//! - A thread that sleeps is woken for what it is given.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `connections` | its thread counts its own, a giver counts what it gives | all, to compare | nothing | Relaxed read-modify-write: the counts are exact, and a comparison that is late by a moment gives a socket to the second best |
//! | `has_guests` | givers set it, its thread clears it, both under the inbox's lock | its thread | nothing but the decision to look into the inbox | Relaxed: the lock orders what is in it; against falling asleep the fences of [`super::wake`] do |
#![forbid(unsafe_code)]

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use super::sync::{Mutex, MutexGuard};
use super::wake::Wake;

/// A thread gives a connection away if it would have this part more than the thread with the fewest, and at least one more:
/// among many, the hash is even enough, and to give costs a wake.
const SLACK_PART: usize = 8;

struct Place<S> {
    connections: AtomicUsize,
    has_guests: AtomicBool,
    inbox: Mutex<Inbox<S>>,
    wake: Arc<Wake>,
}

struct Inbox<S> {
    is_open: bool,
    sockets: Vec<S>,
}

/// One I/O thread's part in the spread. `S` is the kernel's name for a socket.
pub struct Share<S> {
    places: Arc<[CachePadded<Place<S>>]>,
    own: usize,
}

impl<S> Share<S> {
    /// A share for each of the threads that are woken by these.
    pub fn of_all(wakes: impl IntoIterator<Item = Arc<Wake>>) -> Vec<Share<S>> {
        let place = |wake| Place {
            connections: AtomicUsize::new(0),
            has_guests: AtomicBool::new(false),
            inbox: Mutex::new(Inbox { is_open: true, sockets: Vec::new() }),
            wake,
        };
        let places: Arc<[_]> = wakes.into_iter().map(|wake| CachePadded::new(place(wake))).collect();
        (0..places.len()).map(|own| Share { places: Arc::clone(&places), own }).collect()
    }

    /// The thread that should serve the next connection that this one has accepted, unless it should do so itself.
    pub fn better_place(&self) -> Option<usize> {
        let count = |place: &Place<S>| place.connections.load(Ordering::Relaxed);
        let (better, fewest) =
            self.places.iter().map(|place| count(place)).enumerate().min_by_key(|(_, connections)| *connections)?;
        (count(&self.places[self.own]) > fewest + fewest / SLACK_PART).then_some(better)
    }

    /// Gives a socket to another thread, or back if that takes no more.
    ///
    /// # Errors
    /// The socket.
    pub fn give(&self, to: usize, socket: S) -> Result<(), S> {
        let place = &self.places[to];
        {
            let mut inbox = lock(&place.inbox);
            if !inbox.is_open {
                return Err(socket);
            }
            inbox.sockets.push(socket);
            place.has_guests.store(true, Ordering::Relaxed);
            place.connections.fetch_add(1, Ordering::Relaxed);
        }
        place.wake.wake_sleeper();
        Ok(())
    }

    /// Counts a connection that this thread has accepted and serves.
    pub fn opened(&self) {
        self.places[self.own].connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one of this thread's out, given or accepted.
    pub fn closed(&self) {
        self.places[self.own].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is something to take. A thread that is about to sleep asks after it has said so.
    pub fn has_guests(&self) -> bool {
        self.places[self.own].has_guests.load(Ordering::Relaxed)
    }

    /// What this thread was given and has not taken; it is counted already.
    pub fn take(&self) -> Vec<S> {
        let place = &self.places[self.own];
        let mut inbox = lock(&place.inbox);
        place.has_guests.store(false, Ordering::Relaxed);
        std::mem::take(&mut inbox.sockets)
    }

    /// The same, and takes no more.
    pub fn close(&self) -> Vec<S> {
        lock(&self.places[self.own].inbox).is_open = false;
        self.take()
    }
}

fn lock<S>(inbox: &Mutex<Inbox<S>>) -> MutexGuard<'_, Inbox<S>> {
    inbox.lock().expect("no thread panics while it holds the lock")
}

#[cfg(test)]
mod tests {
    use super::super::sync::check;
    use super::super::wake::Alarm;
    use super::*;

    struct Nobody;

    impl Alarm for Nobody {
        fn ring(&self) {}
    }

    fn shares(threads: usize) -> Vec<Share<u32>> {
        Share::of_all((0..threads).map(|_| Arc::new(Wake::new(Nobody))))
    }

    /// Accepts as an I/O thread does. Returns who has it then.
    fn accept(shares: &[Share<u32>], at: usize, socket: u32) -> usize {
        match shares[at].better_place() {
            Some(to) => {
                assert_eq!(shares[at].give(to, socket), Ok(()));
                assert_eq!(shares[to].take(), [socket]);
                to
            }
            None => {
                shares[at].opened();
                at
            }
        }
    }

    #[test]
    fn whoever_has_more_than_the_others_gives_away() {
        check(|| {
            let shares = shares(3);
            assert_eq!([0, 1, 2].map(|socket| accept(&shares, 0, socket)), [0, 1, 2]);
            assert_eq!(accept(&shares, 2, 3), 2);
            assert_eq!(accept(&shares, 2, 4), 0);
            shares[1].closed();
            assert_eq!(accept(&shares, 0, 5), 1);
        });
    }

    #[test]
    fn among_many_a_small_difference_is_left() {
        check(|| {
            let shares = shares(2);
            (0..64).for_each(|socket| assert!(accept(&shares, socket as usize % 2, socket) < 2));
            let kept = (0..10).take_while(|socket| accept(&shares, 0, 64 + socket) == 0).count();
            assert_eq!(kept, 5, "32 may become 37: an eighth more, and the one that is over it");
        });
    }

    #[test]
    fn a_closed_inbox_gives_back() {
        check(|| {
            let shares = shares(2);
            assert_eq!(shares[0].give(1, 7), Ok(()));
            assert!(shares[1].has_guests());
            assert_eq!(shares[1].close(), [7]);
            assert!(!shares[1].has_guests());
            assert_eq!(shares[0].give(1, 8), Err(8));
        });
    }
}
