//! Time passes: timers for what is due, and the sweep that holds every connection to its deadlines.
//!
//! Invariant: whatever is due has a timer before it, and where nothing is due there is none.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Accept, IoThread, named, nanoseconds};
use crate::connections::{Drain, Expiry, Timeouts, Turn};
use crate::kernel::{Kernel, Unacknowledged};
use crate::limits::{IN_FLIGHT_LOOK, PEER_SILENCE_MAX, SWEEP_INTERVAL_MAX, SWEEP_WAIT_MAX, TICK, TRIM_INTERVAL};
use crate::metrics::CloseReason;

impl<K: Kernel> IoThread<K> {
    /// Starts a timer for what is due next, unless there is one before that.
    pub(super) fn start_timer_when_due(&mut self) {
        let Some(due_ns) = self.next_due_ns() else { return };
        let due_in_ns = due_ns.saturating_sub(self.turn.now_ns);
        let due_at_ns = self.clock_ns.saturating_add(due_in_ns);
        if self.timers.iter().all(|timer_ns| *timer_ns > due_at_ns) {
            self.timers.push(due_at_ns);
            self.kernel.start_timer(Duration::from_nanos(due_in_ns.max(1)));
        }
    }

    /// When this thread has to look at something that no completion tells of, by its own time.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let now_ns = self.turn.now_ns;
        let in_a_tick_ns = now_ns + nanoseconds(TICK);
        let ticks = self.drain_began_ns.is_some() || self.is_short;
        let paused_until =
            |accept: &Accept| if let Accept::Paused { until_ns } = accept { Some(*until_ns) } else { None };
        let accept_ns = self.accept.iter().filter_map(paused_until).min();
        let sweep_ns = if self.eventful { Some(self.swept_at_ns + self.sweep_interval_ns) } else { self.deadline_ns };
        let in_flight_ns = (self.events_in_flight > 0).then_some(now_ns + nanoseconds(IN_FLIGHT_LOOK));
        let trim_ns = self.blocks.can_trim().then_some(self.trimmed_at_ns + nanoseconds(TRIM_INTERVAL));
        let due_ns = [ticks.then_some(in_a_tick_ns), accept_ns, sweep_ns, in_flight_ns, trim_ns];
        due_ns.into_iter().flatten().min().map(|due_ns| due_ns.max(now_ns))
    }

    /// One of the timers has completed: the first one, unless the kernel is late with it.
    pub(super) fn timer_completed(&mut self) {
        let first = (0..self.timers.len()).min_by_key(|index| self.timers[*index]);
        self.timers.swap_remove(first.expect("a timer completes once"));
        let now_ns = self.turn.now_ns;
        if now_ns - self.trimmed_at_ns >= nanoseconds(TRIM_INTERVAL) {
            self.trimmed_at_ns = now_ns;
            self.blocks.trim();
            let released_bytes = self.blocks.released_bytes();
            self.parts.metrics.trimmed_bytes.add(released_bytes - self.parts.metrics.trimmed_bytes.get());
        }
        let has_deadline = self.eventful && now_ns - self.swept_at_ns >= self.sweep_interval_ns;
        let has_passed = self.deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns);
        if self.turn.drain > Drain::No || self.is_short || has_deadline || has_passed {
            self.sweep_due_at_ns.get_or_insert(now_ns);
        }
    }

    /// Sweeps, if a timer has asked for it and what arrived before that has been taken.
    ///
    /// This thread may have been stopped for longer than a deadline is long. Then the timer's completion can come
    /// before those of bytes that arrived in time: io_uring hands out a bounded number each time it is entered. So the
    /// deadlines are judged as of the timer, and only after the kernel, entered since, had nothing else; `worked` says
    /// that this turn had. A thread that is never without work sweeps after a while all the same.
    pub(super) fn sweep_when_due(&mut self, worked: bool) {
        let Some(due_at_ns) = self.sweep_due_at_ns else { return };
        let waited_ns = self.turn.now_ns - due_at_ns;
        if waited_ns > 0 && (!worked || waited_ns >= nanoseconds(SWEEP_WAIT_MAX)) {
            self.sweep_due_at_ns = None;
            self.swept_at_ns = due_at_ns;
            self.eventful = false;
            self.sweep(due_at_ns);
        }
    }

    /// Holds every connection to its deadlines, as of a time at which all that had arrived has been taken.
    pub(super) fn sweep(&mut self, as_of_ns: u64) {
        let cut = self.drain_is_over();
        let as_of = Turn { now_ns: as_of_ns, ..self.turn };
        self.deadline_ns = None;
        self.is_short = false;
        for key in 0..self.slots_end {
            if !self.connections.contains(key) {
                continue;
            }
            self.look_at(key, as_of);
            self.judge(key, as_of, cut);
            self.carry_on(key as u32);
            let Some(connection) = self.connections.get(key) else { continue };
            let deadline_ns = connection.deadline(&self.parts.rules).map(|(due_ns, _)| due_ns + 1);
            // Whether the peer takes what it is owed, no completion may tell.
            let look_ns = (connection.unacknowledged_bytes() > 0).then_some(as_of_ns + self.sweep_interval_ns);
            self.deadline_ns = self.deadline_ns.into_iter().chain(deadline_ns).chain(look_ns).min();
        }
    }

    /// Asks the kernel how much a connection's peer has acknowledged.
    pub(super) fn look_at(&mut self, key: usize, as_of: Turn) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.awaits_acknowledgement() {
            match self.kernel.unacknowledged(connection.socket) {
                Unacknowledged::Bytes(bytes) => connection.acknowledged(bytes, as_of),
                Unacknowledged::Memory(bytes) => connection.unread(bytes, as_of),
            }
        }
    }

    /// Gives a connection up if one of its deadlines has passed, its peer has vanished, or with `cut` the drain's time is
    /// over.
    pub(super) fn judge(&mut self, key: usize, as_of: Turn, cut: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let stalled_ns = as_of.now_ns.saturating_sub(connection.stalled_since_ns());
        if cut && !connection.is_gone() {
            connection.abandon(CloseReason::Cut, &mut self.blocks);
        } else if let Some(expiry) = connection.expired(&self.parts.rules, as_of) {
            // That a connection is old is nobody's fault.
            if expiry != Expiry::Age
                && let Some(suppressed) = self.expiry_log.pass(self.turn.now_ns)
            {
                let peer = named(self.kernel.peer(connection.socket));
                tracing::info!(%peer, suppressed, "a connection is closed: {expiry}");
            }
            connection.expire(expiry, as_of, &mut self.blocks);
        } else if connection.awaits_acknowledgement()
            && stalled_ns >= nanoseconds(PEER_SILENCE_MAX)
            && self.kernel.peer_has_vanished(connection.socket)
        {
            connection.abandon(CloseReason::Broken, &mut self.blocks);
        }
    }
}

/// Often enough that a deadline passes at most an eighth late, and not more often than the timer.
pub(super) fn sweep_interval(timeouts: Timeouts, age: Option<Duration>) -> Duration {
    let shortest = [timeouts.request, timeouts.idle, age].into_iter().flatten().min();
    shortest.map_or(SWEEP_INTERVAL_MAX, |shortest| (shortest / 8).clamp(TICK, SWEEP_INTERVAL_MAX))
}
