//! The batch processor's role, for whoever plays it: its own thread, or an I/O thread that has just published and would have to
//! wake that one.
//!
//! Where the batch processor has no CPU of its own, waking it is what costs most: two context switches on one CPU. So an I/O
//! thread that has published takes the role itself, if it is free and the work is short. The batch processor's
//! own thread remains: it does what takes long, since an I/O thread that helps keeps its connections waiting, and only
//! it sees the end.
//!
//! Nobody can interrupt a model. So the bound of a help is on the time that is expected, by the time that rows of the steps
//! before took ([`Pace`]): unknown (at the start, and after a reload) or too long, and nobody helps; what a look finds beyond
//! it is left for the batch processor's thread.
//!
//! Invariants
//! - The processor is locked only by who has the token: the lock is never waited for.
//! - Whoever leaves the role with work undone wakes the batch processor's thread.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `row_ns` | who has the role | I/O threads | nothing: it is a guess | Relaxed |
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::model_place::ModelPlace;
use super::processor::{BatchProcessor, Found};
use crate::exchange::token::Token;
use crate::exchange::wake::Wake;
use crate::limits::{HELP_LOOKS_MAX, HELP_NS_MAX};

/// What came of an offer to help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// The work is done, or who plays the role will see it.
    Done,
    /// As that, by this thread.
    Helped,
    /// The batch processor's thread was woken for it (or is awake).
    Left {
        /// Waking took a system call.
        woken: bool,
    },
}

/// The role, shared by all threads.
pub struct BatchRole {
    token: Token,
    processor: Mutex<BatchProcessor>,
    /// Nanoseconds that a row takes, 0 if that is not known.
    row_ns: AtomicU64,
    model_place: Arc<ModelPlace>,
    /// The batch processor's thread.
    wake: Arc<Wake>,
    /// The longest that a help is expected to take.
    help_ns_max: u64,
}

impl BatchRole {
    /// The role of `processor`, whose own thread `wake` wakes.
    pub fn new(processor: BatchProcessor, wake: Arc<Wake>) -> BatchRole {
        let model_place = Arc::clone(processor.model_place());
        let (token, row_ns) = (Token::new(), AtomicU64::new(0));
        BatchRole { token, processor: Mutex::new(processor), row_ns, model_place, wake, help_ns_max: HELP_NS_MAX }
    }

    /// The same with another bound of a help.
    #[must_use]
    pub fn with_help_max(self, help_ns_max: u64) -> BatchRole {
        BatchRole { help_ns_max, ..self }
    }

    /// Where the model can be replaced.
    pub fn model_place(&self) -> &Arc<ModelPlace> {
        &self.model_place
    }

    // ---- An I/O thread.

    /// Has `rows` rows scored that the calling thread has just published, together with whatever else there is: by itself, if the
    /// role is free and that does not take long. `now_ns` reads the process's clock.
    pub fn help(&self, rows: usize, now_ns: impl Fn() -> u64) -> Help {
        // Relaxed: see the table.
        let row_ns = self.row_ns.load(Ordering::Relaxed);
        if row_ns == 0 || row_ns.saturating_mul(rows as u64) > self.help_ns_max {
            return self.leave_to_thread();
        }
        if !self.token.knock() {
            return Help::Done;
        }
        for _ in 0..HELP_LOOKS_MAX {
            let found = self.look(self.help_ns_max, &now_ns);
            if found != Found::Rest && self.token.give_back() {
                return Help::Helped;
            }
            if found == Found::Rest {
                break;
            }
        }
        self.token.leave();
        self.leave_to_thread()
    }

    fn leave_to_thread(&self) -> Help {
        Help::Left { woken: self.wake.wake_sleeper() }
    }

    // ---- The batch processor's thread.

    /// Plays the role until there is nothing to do, unless somebody else plays it. It is for the batch processor's thread.
    pub fn play(&self, now_ns: impl Fn() -> u64) -> Found {
        if !self.take() {
            return Found::Nothing;
        }
        let mut found = Found::Nothing;
        loop {
            match self.look(u64::MAX, &now_ns) {
                Found::End => return Found::End,
                Found::Nothing => {}
                Found::Events => found = Found::Events,
                Found::Rest => {
                    found = Found::Events;
                    continue;
                }
            }
            if self.give_back() {
                return found;
            }
        }
    }

    /// Announces that the batch processor's thread is about to sleep. Returns whether it may, as far as it knows: it must
    /// [`BatchRole::play`] once more, and sleep only if there was nothing to do. Follow it with [`BatchRole::wake_up`].
    pub fn fall_asleep(&self) {
        self.wake.flag.announce_sleep();
    }

    /// Announces that it is awake again.
    pub fn wake_up(&self) {
        self.wake.flag.announce_awake();
    }

    // ---- Cut in pieces, for who steps threads one after the other.

    /// The first piece of [`BatchRole::play`].
    pub fn take(&self) -> bool {
        self.token.knock()
    }

    /// The second, for as long as `most_ns` by what is expected.
    pub fn look(&self, most_ns: u64, now_ns: impl Fn() -> u64) -> Found {
        self.token.begin_look();
        let mut processor = self.processor();
        let found = processor.step_within(most_ns, now_ns);
        // Relaxed: see the table.
        self.row_ns.store(processor.row_ns(), Ordering::Relaxed);
        found
    }

    /// The last: whether nobody has knocked since.
    pub fn give_back(&self) -> bool {
        self.token.give_back()
    }

    fn processor(&self) -> MutexGuard<'_, BatchProcessor> {
        match self.processor.try_lock() {
            Ok(processor) => processor,
            Err(TryLockError::WouldBlock) => unreachable!("only who has the token plays the role"),
            Err(TryLockError::Poisoned(_)) => panic!("the batch processor has failed in another thread"),
        }
    }
}

/// How long rows take, by the steps that there were.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of a row; 0 if that is not known.
    row_ns: u64,
}

impl Pace {
    /// A step of `rows` rows has taken so long.
    pub fn took(&mut self, rows: usize, ns: u64) {
        if rows == 0 {
            return;
        }
        let now = (ns / rows as u64).max(1);
        // Slower at once, faster by and by: one long step costs more than some that another thread does.
        self.row_ns = if now > self.row_ns { now } else { self.row_ns - (self.row_ns - now) / 8 };
    }

    /// Nothing is known any more.
    pub fn forget(&mut self) {
        self.row_ns = 0;
    }

    /// Nanoseconds of a row; 0 if that is not known.
    pub fn row_ns(&self) -> u64 {
        self.row_ns
    }

    /// How many rows may be scored in so long; all, if nothing is known.
    pub fn rows_within(&self, most_ns: u64) -> usize {
        most_ns.checked_div(self.row_ns).map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::super::processor::tests::Bench;
    use super::*;
    use crate::exchange::wake::Alarm;

    struct Count(Arc<AtomicUsize>);

    impl Alarm for Count {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whoever helps with more than he was told of (others publish too) leaves what is too much, and wakes who does that; what is
    /// too much from the beginning he does not take at all.
    #[test]
    fn what_is_too_much_is_left_to_the_batch_processors_thread() {
        let ticks = Cell::new(0);
        let clock = || ticks.replace(ticks.get() + 8_000);
        let mut bench = Bench::new(1);
        let rings = Arc::new(AtomicUsize::new(0));
        let other = Bench::new(1).processor;
        let processor = std::mem::replace(&mut bench.processor, other);
        let role = BatchRole::new(processor, Arc::new(Wake::new(Count(Arc::clone(&rings))))).with_help_max(25_000);
        let publish = |bench: &mut Bench| (0..4).for_each(|index| drop(bench.publish(index, &[vec![1.0; 2]])));
        publish(&mut bench);
        role.fall_asleep();
        assert_eq!(role.help(8, clock), Help::Left { woken: true }, "it is not known how long it takes");
        assert_eq!((bench.answered(), role.play(clock), bench.answered()), (0, Found::Events, 4));
        let row_ns = role.row_ns.load(Ordering::Relaxed);
        let role = role.with_help_max(10 * row_ns);
        publish(&mut bench);
        role.fall_asleep();
        assert_eq!(role.help(11, clock), Help::Left { woken: true });
        assert_eq!(bench.answered(), 0);
        assert_eq!((role.help(8, clock), bench.answered()), (Help::Helped, 4));
        let role = role.with_help_max(3 * row_ns);
        publish(&mut bench);
        role.fall_asleep();
        assert_eq!(role.help(2, clock), Help::Left { woken: true }, "of the other six rows nobody has told");
        assert_eq!(bench.answered(), 1);
        assert_eq!((role.play(clock), bench.answered()), (Found::Events, 3));
        assert_eq!(rings.load(Ordering::Relaxed), 3);
    }

    /// Where waiting is bounded, steps are short; who plays the role leaves nothing, and who helps leaves it to the thread.
    #[test]
    fn short_steps_are_taken_to_the_end() {
        let ticks = Cell::new(0);
        let clock = || ticks.replace(ticks.get() + 8_000);
        let mut bench = Bench::new(1);
        bench.waiting_since_ns = u64::MAX;
        let other = Bench::new(1).processor;
        let processor = std::mem::replace(&mut bench.processor, other);
        let processor = processor.with_queue_delay_max(Some(Duration::from_micros(4)));
        let rings = Arc::new(AtomicUsize::new(0));
        let role = BatchRole::new(processor, Arc::new(Wake::new(Count(Arc::clone(&rings)))));
        let publish = |bench: &mut Bench| (0..4).for_each(|index| drop(bench.publish(index, &[vec![1.0; 2]])));
        for _ in 0..2 {
            publish(&mut bench);
            assert_eq!((role.play(clock), bench.answered()), (Found::Events, 4));
        }
        publish(&mut bench);
        role.fall_asleep();
        assert_eq!((role.help(8, clock), bench.answered()), (Help::Left { woken: true }, 1));
        assert_eq!((role.play(clock), bench.answered()), (Found::Events, 3));
    }

    #[test]
    fn a_pace_is_slower_at_once_and_faster_by_and_by() {
        let mut pace = Pace::default();
        assert_eq!((pace.row_ns(), pace.rows_within(1)), (0, usize::MAX));
        pace.took(10, 1_000);
        pace.took(0, 1_000_000);
        assert_eq!((pace.row_ns(), pace.rows_within(550)), (100, 5));
        pace.took(1, 5_000);
        assert_eq!(pace.row_ns(), 5_000);
        (0..60).for_each(|_| pace.took(10, 1_000));
        assert!((100..120).contains(&pace.row_ns()), "{}", pace.row_ns());
        pace.took(100, 1);
        assert!(pace.row_ns() > 0, "it is known");
        pace.forget();
        assert_eq!(pace.row_ns(), 0);
    }
}
