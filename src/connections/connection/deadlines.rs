//! A connection's deadlines: which one is next, by whom it is kept waiting, and what follows when it has passed.
//!
//! Only a peer can be late. Whoever waits for the model, for a buffer or for us to send or to receive is not.
#![forbid(unsafe_code)]

use std::num::NonZeroU64;
use std::time::Duration;

use super::{Connection, Ending, nanoseconds};
use crate::connections::interface::{Drain, Expiry, Rules, Turn};
use crate::exchange::blocks::{BlockPool, Pressure};
use crate::limits::{DRAIN_QUIET, DRAIN_REFUSE, LINGER, LINGER_MAX, STEP_GROWTH_MAX};
use crate::metrics::CloseReason;

impl<S: Copy> Connection<S> {
    /// A deadline has passed.
    pub fn expire(&mut self, expiry: Expiry, turn: Turn, blocks: &mut BlockPool) {
        match expiry {
            Expiry::Idle => self.end_gracefully(CloseReason::Idle),
            // What the drain keeps from going on is cut, whenever that is.
            Expiry::Request | Expiry::Send if turn.drain > Drain::No => self.abandon(CloseReason::Cut, blocks),
            Expiry::Request => self.abandon(CloseReason::RequestTimeout, blocks),
            Expiry::Send => self.abandon(CloseReason::SendTimeout, blocks),
            Expiry::Linger => self.abandon(CloseReason::Linger, blocks),
            // From now on it refuses, and its next step closes it when it may.
            Expiry::Age => self.is_old = true,
        }
    }

    /// Which deadline has passed, if any. Ask when it is known what the peer has acknowledged.
    pub fn expired(&self, rules: &Rules, turn: Turn) -> Option<Expiry> {
        self.deadline(rules).filter(|(due_ns, _)| *due_ns < turn.now_ns).map(|(_, expiry)| expiry)
    }

    /// The next deadline that passes if nothing happens, and which that is.
    pub fn deadline(&self, rules: &Rules) -> Option<(u64, Expiry)> {
        let after = |since_ns: u64, limit: Duration| since_ns.saturating_add(nanoseconds(limit));
        let due = |since_ns: u64, limit: Option<Duration>, expiry| limit.map(|limit| (after(since_ns, limit), expiry));
        match self.ending {
            Ending::Gone { .. } | Ending::Closed => None,
            Ending::HalfClosed { since_ns } => {
                let acknowledged_ns = since_ns.max(self.progress_at_ns);
                if self.unacknowledged_bytes() > 0 {
                    return due(acknowledged_ns, self.send_timeout(rules), Expiry::Send);
                }
                // Acknowledged is not read. Whoever goes on sending has not read to the end yet, and would take it
                // for lost if it were reset.
                let quiet_ns = acknowledged_ns.max(self.received_at_ns);
                Some((after(quiet_ns, LINGER).min(after(acknowledged_ns, LINGER_MAX)), Expiry::Linger))
            }
            Ending::No | Ending::Graceful => {
                let waits_for_peer = self.receive_in_kernel() && self.wants_receive(rules.limits, Pressure::Low);
                let send = (self.unacknowledged_bytes() > 0)
                    .then(|| due(self.progress_at_ns, self.send_timeout(rules), Expiry::Send))
                    .flatten();
                let receive = if !waits_for_peer || self.sends.unsent_bytes() > 0 {
                    None
                } else if self.partial.has_begun() {
                    due(self.request_began_ns, rules.timeouts.request, Expiry::Request)
                } else if self.owes_nothing() && self.unacknowledged_bytes() == 0 {
                    let answered_ns = self.sent_at_ns.max(self.progress_at_ns);
                    let since_ns = answered_ns.max(self.received_at_ns).max(self.receive_since_ns);
                    due(since_ns, rules.timeouts.idle, Expiry::Idle)
                } else {
                    None
                };
                let age = self.age_due_ns().map(|due_ns| (due_ns, Expiry::Age));
                send.into_iter().chain(receive).chain(age).min_by_key(|(due_ns, _)| *due_ns)
            }
        }
    }

    /// When something is due because of its age: that it is old, or that it has refused for long enough to be closed, if that waits
    /// for nothing else.
    fn age_due_ns(&self) -> Option<u64> {
        if self.ending != Ending::No {
            return None;
        }
        if !self.is_old {
            return self.old_at_ns.map(NonZeroU64::get);
        }
        let since_ns = self.refusing_since_ns.filter(|_| self.owes_nothing())?;
        let quiet_ns = since_ns.max(self.received_at_ns).saturating_add(nanoseconds(DRAIN_QUIET));
        Some(quiet_ns.min(since_ns.saturating_add(nanoseconds(DRAIN_REFUSE))))
    }

    /// How long the peer may acknowledge nothing of what it is owed: a quarter longer than a request may take, and up
    /// to twice as long if it has been seen to need that.
    ///
    /// A peer that reads without a pause acknowledges in steps. Once its receive buffer was full, its kernel opens the
    /// window when a sixteenth of that and a whole segment are free again (__tcp_select_window in
    /// net/ipv4/tcp_output.c), so that nobody can tell it from one that does not read until its first step has come.
    /// From then on it can be told: who does not read has filled its buffer without a pause, but for the 200 ms of a
    /// window probe, so that its longest step was as short.
    fn send_timeout(&self, rules: &Rules) -> Option<Duration> {
        let timeout = rules.timeouts.request?;
        let next_step = Duration::from_nanos(self.longest_step_ns).saturating_mul(STEP_GROWTH_MAX);
        Some(next_step.clamp(timeout.saturating_add(timeout / 4), timeout.saturating_mul(2)))
    }

    /// Since when the peer has acknowledged nothing of what it is owed.
    pub fn stalled_since_ns(&self) -> u64 {
        if self.unacknowledged_bytes() > 0 { self.progress_at_ns } else { self.received_at_ns }
    }

    /// Since when something is held for the peer without any of it being let go: a byte more of a request lets go of nothing.
    pub fn held_since_ns(&self) -> u64 {
        let since_ns = self.stalled_since_ns();
        if self.partial.has_begun() { since_ns.min(self.request_began_ns) } else { since_ns }
    }
}
