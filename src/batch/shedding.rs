//! Which requests have waited for too long to be scored, where `--max-queue-delay` says how long that is.
//!
//! A queue that is long for a moment is no overload: it is there to take bursts up. Overload is a queue that has not been short
//! for a while, until it has not been long for a while; and then whoever has waited for longer than the delay is answered with
//! error 3 at once, so that those behind are answered in time. The rule is CoDel's (Nichols and Jacobson, ACM Queue 10(5), 2012) as servers use it (Maurer,
//! "Fail at Scale", ACM Queue 13(8), 2015); the signal is Breakwater's (Cho et al., OSDI 2020), with the credits of the
//! connections beside it. Waiting counts from when a request could have been received ([`crate::connections`]): credits and
//! buffers bound what waits in the ring, so an overload is in the sockets, where some wait for long while others do not. So it
//! is who waits longest that tells.
//!
//! A step takes no more than half of the delay takes, as far as that is known; so who is scored has waited for the delay and one
//! step at most.
//!
//! It reads no clock and answers nobody.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::limits::{SHED_CALM_FACTOR, SHED_WINDOW};

/// What decides.
#[derive(Debug)]
pub(super) struct Shedding {
    delay_ns: u64,
    /// When the last step began.
    begun_at_ns: u64,
    is_overload: bool,
    /// The first step since which no step found the queue to be as it is to be for a while, until that is or is no overload.
    otherwise_since_ns: Option<u64>,
}

impl Shedding {
    /// For a delay of so long.
    pub fn new(delay: Duration) -> Shedding {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Shedding { delay_ns, begun_at_ns: 0, is_overload: false, otherwise_since_ns: None }
    }

    /// What a step is to take, at most.
    pub fn step_ns_max(&self) -> u64 {
        self.delay_ns / 2
    }

    /// A step begins; of all that waits, the first could have been received at `oldest_ns`. Returns how long a request may
    /// have waited.
    pub fn step_begins(&mut self, oldest_ns: u64, now_ns: u64) -> u64 {
        let before_ns = std::mem::replace(&mut self.begun_at_ns, now_ns);
        // Whatever has come since the last step began waits for that step only, however long it took.
        let is_short = now_ns.saturating_sub(oldest_ns) <= self.delay_ns / 2 || oldest_ns >= before_ns;
        if is_short == self.is_overload {
            let since_ns = *self.otherwise_since_ns.get_or_insert(now_ns);
            if now_ns.saturating_sub(since_ns) >= SHED_WINDOW.as_nanos() as u64 {
                (self.is_overload, self.otherwise_since_ns) = (!is_short, None);
            }
        } else {
            self.otherwise_since_ns = None;
        }
        if self.is_overload { self.delay_ns } else { self.delay_ns.saturating_mul(SHED_CALM_FACTOR) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// For a delay of 4 ms.
    fn shedding() -> Shedding {
        Shedding::new(Duration::from_millis(4))
    }

    /// Steps every millisecond from 100 ms on, each with something that has waited for so long. Returns how long it may have,
    /// in the last one.
    fn after_steps(shedding: &mut Shedding, waits_us: &[u64]) -> u64 {
        let step = |(step, wait_us): (usize, &u64)| {
            let now_ns = (100 + step as u64) * MS;
            shedding.step_begins(now_ns - wait_us * 1000, now_ns)
        };
        waits_us.iter().enumerate().map(step).last().expect("there is a step")
    }

    #[test]
    fn a_queue_that_is_never_short_for_10_ms_is_overload() {
        assert_eq!(after_steps(&mut shedding(), &[2001; 11]), 40 * MS);
        assert_eq!(after_steps(&mut shedding(), &[2001; 12]), 4 * MS, "before the first step there was no queue");
        assert_eq!(after_steps(&mut shedding(), &[2000; 100]), 40 * MS, "half of the delay is short");
    }

    /// One short wait keeps it from being one, and one long wait from being over.
    #[test]
    fn one_step_that_is_otherwise_counts_for_10_ms() {
        let mut waits = [3000; 22];
        waits[10] = 2000;
        assert_eq!(after_steps(&mut shedding(), &waits[..21]), 40 * MS);
        assert_eq!(after_steps(&mut shedding(), &waits), 4 * MS);
        let mut waits = [3000; 40];
        waits[15..].fill(0);
        assert_eq!(after_steps(&mut shedding(), &waits[..25]), 4 * MS);
        assert_eq!(after_steps(&mut shedding(), &waits[..26]), 40 * MS);
        waits[20] = 3000;
        assert_eq!(after_steps(&mut shedding(), &waits[..31]), 4 * MS);
        assert_eq!(after_steps(&mut shedding(), &waits[..32]), 40 * MS);
    }

    /// A pause or a long step is calm, unless something has waited for longer than that.
    #[test]
    fn what_has_come_since_the_last_step_is_no_queue() {
        let mut shedding = shedding();
        let overload = |shedding: &mut Shedding| assert_eq!(after_steps(shedding, &[3000; 20]), 4 * MS);
        overload(&mut shedding);
        assert_eq!([510, 530].map(|ms| shedding.step_begins((ms - 10) * MS, ms * MS)), [4 * MS, 40 * MS]);
        overload(&mut shedding);
        assert_eq!([510, 530].map(|ms| shedding.step_begins(119 * MS - 1, ms * MS)), [4 * MS, 4 * MS]);
    }

    /// Something that happens once, such as a step that takes long, is no overload, however long all have waited then.
    #[test]
    fn one_long_queue_is_no_overload() {
        let mut shedding = shedding();
        after_steps(&mut shedding, &[100; 20]);
        assert_eq!(shedding.step_begins(110 * MS, 150 * MS), 40 * MS);
        assert_eq!(shedding.step_begins(115 * MS, 159 * MS), 40 * MS);
        assert_eq!(shedding.step_begins(118 * MS, 160 * MS), 4 * MS);
    }

    #[test]
    fn the_longest_delay_is_no_overflow() {
        let mut shedding = Shedding::new(Duration::MAX);
        assert_eq!((shedding.step_begins(0, u64::MAX), shedding.step_ns_max()), (u64::MAX, u64::MAX / 2));
    }
}
