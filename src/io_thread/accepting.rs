//! How connections come: accepted as they arrive, again after a failure, and at last those that wait when the drain begins.
//!
//! Invariants: of each listener, an accept is under way, or there is a time for the next try, or it closes. It closes only behind
//! the last connection that was established by then: closing it would reset that one. A connection that another thread should serve goes there before
//! anything is received of it, and none is left in this thread's inbox when its listeners have closed.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use fastrand::Rng;

use super::{IoThread, named, nanoseconds};
use crate::connections::{Connection, Drain};
use crate::exchange::event::ConnectionId;
use crate::kernel::{Entrance, Kernel, Queued};
use crate::limits::{ACCEPT_RETRY, AGE_JITTER_PART, LISTEN_BACKLOG, QUEUED_ACCEPTS_A_TURN};
use crate::metrics::CloseReason;

/// The state of accepting from one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    Armed,
    /// It failed; the next try is due at this time.
    Paused {
        until_ns: u64,
    },
    /// A cancel is under way.
    Ending,
    /// So many connections at most are taken out of the queue before the listener closes, the next ones at this time.
    Taking {
        left: usize,
        from_ns: u64,
    },
    /// The listener is closed, or there is none.
    Closed,
}

impl<K: Kernel> IoThread<K> {
    pub(super) fn accept_completed(&mut self, from: Entrance, result: Result<K::Socket, io::Error>, more: bool) {
        let failed = result.is_err();
        match result {
            Ok(socket) => self.accepted(socket),
            // Another thread has begun to drain, and this one does as soon as it looks.
            Err(error) if from == Entrance::Unix && error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) if self.accept[from as usize] != Accept::Ending => {
                self.parts.metrics.accept_failures.add(1);
                if let Some(suppressed) = self.accept_log.pass(self.turn.now_ns) {
                    tracing::warn!(%error, suppressed, "accepting failed; it is tried again later");
                }
            }
            Err(_) => {}
        }
        if more {
            return;
        }
        let listeners = self.accept.iter().filter(|accept| **accept != Accept::Closed).count();
        let accept = &mut self.accept[from as usize];
        match accept {
            Accept::Armed if failed => {
                // Descriptors or memory have run out. Trying again at once would fail at once, over and over.
                let pause_ns = nanoseconds(ACCEPT_RETRY) * (self.parts.io_threads * listeners) as u64;
                *accept = Accept::Paused { until_ns: self.turn.now_ns + pause_ns };
            }
            Accept::Armed => self.kernel.accept(from),
            Accept::Ending => self.accept_ended(from),
            Accept::Paused { .. } | Accept::Taking { .. } | Accept::Closed => unreachable!("an accept ends once"),
        }
    }

    pub(super) fn accepted(&mut self, socket: K::Socket) {
        if !self.parts.control.open_connection() {
            self.parts.metrics.closed.by(CloseReason::Rejected).add(1);
            if let Some(suppressed) = self.rejected_log.pass(self.turn.now_ns) {
                let (peer, limit) = (named(self.kernel.peer(socket)), self.parts.connections_max);
                tracing::warn!(%peer, limit, suppressed, "a connection over the limit was closed at once");
            }
            self.kernel.close(socket);
            return;
        }
        let socket = match self.parts.share.better_place() {
            Some(other) if self.turn.drain == Drain::No => match self.parts.share.give(other, socket) {
                Ok(()) => return self.parts.metrics.given_away.add(1),
                Err(socket) => socket,
            },
            Some(_) | None => socket,
        };
        self.parts.share.opened();
        self.serve(socket);
    }

    /// Takes the connections that other threads have accepted for this one. Returns whether there were any.
    pub(super) fn take_guests(&mut self) -> bool {
        let has_guests = self.parts.share.has_guests();
        if has_guests {
            self.parts.share.take().into_iter().for_each(|socket| self.serve(socket));
        }
        has_guests
    }

    fn serve(&mut self, socket: K::Socket) {
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("the limit on connections fits a slot number");
        let id = ConnectionId { slot, generation: self.generation };
        self.generation = self.generation.wrapping_add(1);
        let old_at_ns =
            self.parts.connection_age_max.map(|age| self.turn.now_ns.saturating_add(drawn_age_ns(age, &mut self.ages)));
        entry.insert(Connection::new(id, socket, self.turn.now_ns, old_at_ns));
        self.slots_end = self.slots_end.max(slot as usize + 1);
        self.parts.metrics.accepted.add(1);
        self.carry_on(slot);
    }

    /// A descriptor may be what accepting waits for: from the listener that waits for the next try soonest.
    pub(super) fn descriptor_freed(&mut self) {
        let now_ns = self.turn.now_ns;
        let waits = self.accept.iter_mut().filter_map(|accept| match accept {
            Accept::Paused { until_ns: from_ns } | Accept::Taking { from_ns, .. } => Some(from_ns),
            Accept::Armed | Accept::Ending | Accept::Closed => None,
        });
        if let Some(from_ns) = waits.filter(|from_ns| **from_ns > now_ns).min() {
            *from_ns = now_ns;
        }
    }

    pub(super) fn retry_accept_when_due(&mut self) {
        for from in Entrance::ALL {
            if let Accept::Paused { until_ns } = self.accept[from as usize]
                && until_ns <= self.turn.now_ns
            {
                self.accept[from as usize] = Accept::Armed;
                self.kernel.accept(from);
            }
        }
    }

    /// Begins to take the connections that are established already: closing the listener would reset them.
    pub(super) fn accept_ended(&mut self, from: Entrance) {
        // What had been established by now; more may come for as long as the listener is open.
        let left = usize::try_from(LISTEN_BACKLOG).expect("a count") + 1;
        self.accept[from as usize] = Accept::Taking { left, from_ns: self.turn.now_ns };
    }

    pub(super) fn take_queued(&mut self) {
        Entrance::ALL.into_iter().for_each(|from| self.take_queued_from(from));
    }

    /// Takes some of them, and closes the listener behind the last one. Where there is no descriptor for them they wait for
    /// one, as long as the drain may take.
    fn take_queued_from(&mut self, from: Entrance) {
        let Accept::Taking { left, from_ns } = self.accept[from as usize] else { return };
        let now_ns = self.turn.now_ns;
        if now_ns < from_ns && !self.drain_is_over() {
            return;
        }
        let a_turn = left.min(QUEUED_ACCEPTS_A_TURN);
        for taken in 0..a_turn {
            match self.kernel.accept_queued(from) {
                Queued::Connection(socket) => self.accepted(socket),
                Queued::NoDescriptor if !self.drain_is_over() => {
                    let from_ns = now_ns + nanoseconds(ACCEPT_RETRY);
                    self.accept[from as usize] = Accept::Taking { left: left - taken, from_ns };
                    return;
                }
                Queued::Nothing | Queued::NoDescriptor => return self.close_listener(from),
            }
        }
        self.accept[from as usize] = Accept::Taking { left: left - a_turn, from_ns };
        if left == a_turn {
            self.close_listener(from);
        }
    }

    pub(super) fn close_listener(&mut self, from: Entrance) {
        self.kernel.close_listener(from);
        self.accept[from as usize] = Accept::Closed;
        if self.accepts_no_more() {
            self.parts.share.close().into_iter().for_each(|socket| self.serve(socket));
            self.parts.control.listener_closed();
        }
    }

    /// Whether all listeners are closed.
    pub(super) fn accepts_no_more(&self) -> bool {
        self.accept.iter().all(|accept| *accept == Accept::Closed)
    }
}

/// How old a connection may become, by chance: `age`, a part of it more or less.
fn drawn_age_ns(age: Duration, rng: &mut Rng) -> u64 {
    let age_ns = nanoseconds(age);
    let part_ns = age_ns / AGE_JITTER_PART;
    age_ns - part_ns + rng.u64(..=2 * part_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_by_a_tenth() {
        let (mut rng, age) = (Rng::with_seed(7), Duration::from_nanos(1000));
        let drawn: Vec<_> = (0..1000).map(|_| drawn_age_ns(age, &mut rng)).collect();
        let (least, most) = (drawn.iter().min(), drawn.iter().max());
        assert!(least < Some(&905) && least >= Some(&900) && most > Some(&1095) && most <= Some(&1100), "{drawn:?}");
        assert_eq!(drawn_age_ns(Duration::from_nanos(3), &mut rng), 3);
    }
}
