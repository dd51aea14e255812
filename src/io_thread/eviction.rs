//! The budget for blocks is used up: who is closed for it.
#![forbid(unsafe_code)]

use super::{IoThread, nanoseconds};
use crate::connections::Connection;
use crate::exchange::blocks::Pressure;
use crate::kernel::Kernel;
use crate::limits::{EVICTION_PART, EVICTION_STALL_MIN, TICK};
use crate::metrics::CloseReason;

impl<K: Kernel> IoThread<K> {
    /// Closes connections that hold blocks and let none of them go, those that hold most for longest first, until a part of
    /// the budget is free again.
    pub(super) fn evict_when_full(&mut self) {
        let now_ns = self.turn.now_ns;
        let is_due = now_ns - self.evicted_at_ns >= nanoseconds(TICK);
        if self.blocks.pressure() < Pressure::Full || !is_due {
            return;
        }
        self.evicted_at_ns = now_ns;
        let held_ns = |connection: &Connection<K::Socket>| now_ns.saturating_sub(connection.held_since_ns());
        let mut victims = std::mem::take(&mut self.victims);
        victims.extend(self.connections.iter().filter_map(|(key, connection)| {
            let (held_bytes, held_ns) = (connection.held_bytes(), held_ns(connection));
            let is_candidate = !connection.is_gone() && held_bytes > 0 && held_ns >= nanoseconds(EVICTION_STALL_MIN);
            is_candidate.then_some((held_bytes as u128 * u128::from(held_ns), key as u32))
        }));
        victims.sort_unstable();
        let goal_bytes = self.parts.budget_bytes - self.parts.budget_bytes / EVICTION_PART;
        let mut evicted = 0;
        while self.blocks.lent_bytes() > goal_bytes
            && let Some((_, slot)) = victims.pop()
        {
            self.look_at(slot as usize, self.turn);
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            // It has taken something since the last look.
            if held_ns(connection) < nanoseconds(EVICTION_STALL_MIN) {
                continue;
            }
            connection.abandon(CloseReason::Evicted, &mut self.blocks);
            self.carry_on(slot);
            evicted += 1;
        }
        victims.clear();
        self.victims = victims;
        if evicted > 0
            && let Some(suppressed) = self.eviction_log.pass(now_ns)
        {
            tracing::warn!(
                evicted,
                suppressed,
                "the memory for what peers do not read or finish is used up; those that held most of it for longest are \
                 closed (--buffer-memory)"
            );
        }
    }
}
