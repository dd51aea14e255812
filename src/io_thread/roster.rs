//! Tells who asks of the connections that have most under way.
#![forbid(unsafe_code)]

use super::IoThread;
use crate::kernel::Kernel;
use crate::limits::ROSTER_SLOTS_MAX;
use crate::metrics::{ROSTER_MAX, RosterEntry};

impl<K: Kernel> IoThread<K> {
    /// Answers if it was asked: of the connections, or of so many of them as do not take long, the next ones when it is asked again.
    pub(super) fn tell_roster_when_asked(&mut self) {
        if !self.parts.metrics.roster.take_asked() {
            return;
        }
        if self.roster_at >= self.slots_end {
            self.roster_at = 0;
        }
        let end = self.slots_end.min(self.roster_at + ROSTER_SLOTS_MAX);
        // What they have under way, and are owed, and their slots, the most first.
        let mut most: Vec<((u32, usize), usize)> = Vec::with_capacity(ROSTER_MAX + 1);
        for key in self.roster_at..end {
            let Some(connection) = self.connections.get(key).filter(|connection| !connection.is_gone()) else {
                continue;
            };
            let owed = connection.unacknowledged_bytes();
            let under_way = (connection.bursts_in_flight(), owed);
            let place = most.partition_point(|(other, _)| *other >= under_way);
            if place < ROSTER_MAX {
                most.insert(place, (under_way, key));
                most.truncate(ROSTER_MAX);
            }
        }
        self.roster_at = end;
        let pressure = self.blocks.pressure();
        let told: Vec<RosterEntry> = most
            .iter()
            .filter_map(|(_, key)| {
                let connection = self.connections.get(*key)?;
                Some(RosterEntry {
                    peer: self.kernel.peer(connection.socket).map(|peer| peer.to_string()),
                    in_flight: connection.bursts_in_flight(),
                    out_of_credit: connection.is_out_of_credit(self.parts.rules.limits, pressure),
                    age_seconds: connection.age_seconds(self.turn),
                })
            })
            .collect();
        self.parts.metrics.roster.answer(told.into_iter());
    }
}
