//! How far a drain is, and when it is over.
#![forbid(unsafe_code)]

use super::{Accept, IoThread, nanoseconds};
use crate::connections::Drain;
use crate::kernel::{Entrance, Kernel};
use crate::limits::DRAIN_LAST_CALL;

impl<K: Kernel> IoThread<K> {
    /// How far the drain is; begins it if it has not begun.
    pub(super) fn drain(&mut self) -> Drain {
        let began_ns = match self.drain_began_ns {
            Some(began_ns) => began_ns,
            None => self.begin_drain(),
        };
        let elapsed_ns = self.turn.now_ns - began_ns;
        if elapsed_ns < nanoseconds(DRAIN_LAST_CALL) { Drain::LastCall } else { Drain::Refuse }
    }

    pub(super) fn begin_drain(&mut self) -> u64 {
        self.drain_began_ns = Some(self.turn.now_ns);
        for from in Entrance::ALL {
            match self.accept[from as usize] {
                Accept::Armed => {
                    self.accept[from as usize] = Accept::Ending;
                    self.kernel.cancel_accept(from);
                }
                Accept::Paused { .. } => self.accept_ended(from),
                Accept::Closed => {}
                Accept::Ending | Accept::Taking { .. } => unreachable!("a drain begins once"),
            }
        }
        self.turn.now_ns
    }

    pub(super) fn drain_is_over(&self) -> bool {
        let timed_out = self
            .drain_began_ns
            .is_some_and(|began_ns| self.turn.now_ns - began_ns >= nanoseconds(self.parts.drain_timeout));
        timed_out || self.parts.control.cut_requested()
    }
}
