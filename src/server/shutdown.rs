//! The order in which a server stops: serve on for a while if that was asked for, give the port up, tell the I/O threads, let them accept what waits, and then close.
//!
//! It never sleeps and reads no clock, so that whoever goes through it can hear a second request meanwhile; the time is
//! what the process lived through ([`crate::exchange::lived_time`]).
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::limits::HANDOVER_MAX;

/// A port as it is given up. What each method does is [`crate::kernel::ServedPort`]'s page.
pub trait Port {
    /// Begins; returns for how long handshakes are left to end.
    fn begin_handover(&mut self) -> Duration;
    /// Ends.
    fn finish_handover(self);
}

/// What the I/O threads are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Accept what waits, close the listeners, answer what has come.
    Drain,
    /// And cut what is open.
    Cut,
}

/// How far the stop is.
#[derive(Debug)]
pub struct Shutdown<P> {
    /// Until it is given up.
    port: Option<P>,
    /// How long it serves on when it is asked to stop.
    delay: Duration,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// It serves and accepts as ever, so that who sends others here can notice that it leaves.
    Leaving {
        until: Duration,
    },
    /// The port is being handed over, and handshakes that have begun here end.
    Settling {
        until: Duration,
    },
    /// The I/O threads accept what waits, and close their listeners.
    Closing {
        until: Duration,
    },
    /// The port is no longer ours.
    Closed,
}

impl<P: Port> Shutdown<P> {
    /// How often to come back while the I/O threads close their listeners.
    const CLOSING_STEP: Duration = Duration::from_millis(1);

    /// Nothing has been asked for yet. When it is, the server serves on for as long as `delay`.
    pub fn of(port: P, delay: Duration) -> Shutdown<P> {
        Shutdown { port: Some(port), delay, stage: Stage::Serving }
    }

    /// Begins, unless it has begun.
    pub fn drain(&mut self, now: Duration) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Leaving { until: now + self.delay };
        }
        self.leave(now, self.delay.is_zero());
    }

    /// Asked once more, goes on to the next stage at once. Returns what to tell the I/O threads, if that is a cut.
    pub fn hurry(&mut self, now: Duration) -> Option<Order> {
        match self.stage {
            Stage::Serving | Stage::Leaving { .. } => {
                self.drain(now);
                self.leave(now, true);
                None
            }
            Stage::Settling { .. } | Stage::Closing { .. } | Stage::Closed => Some(self.cut(now)),
        }
    }

    /// Gives the port up if it is time to, or `at_once`.
    fn leave(&mut self, now: Duration, at_once: bool) {
        if let Stage::Leaving { until } = self.stage
            && (at_once || now >= until)
        {
            let settle = self.port.as_mut().map_or(Duration::ZERO, P::begin_handover);
            self.stage = Stage::Settling { until: now + settle };
        }
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// Begins if need be, and waits for nobody. Returns what to tell the I/O threads at once.
    pub fn cut(&mut self, now: Duration) -> Order {
        self.drain(now);
        self.leave(now, true);
        if matches!(self.stage, Stage::Settling { .. }) {
            self.stage = Stage::Closing { until: now + HANDOVER_MAX };
        }
        Order::Cut
    }

    /// Goes on as far as it can at this time; `closed` says that all listeners are. Returns what to tell the I/O threads.
    pub fn carry_on(&mut self, now: Duration, closed: bool) -> Option<Order> {
        self.leave(now, false);
        match self.stage {
            Stage::Settling { until } if now >= until => {
                self.stage = Stage::Closing { until: now + HANDOVER_MAX };
                Some(Order::Drain)
            }
            Stage::Closing { until } if closed || now >= until => {
                self.finish();
                None
            }
            Stage::Serving | Stage::Leaving { .. } | Stage::Settling { .. } | Stage::Closing { .. } | Stage::Closed => {
                None
            }
        }
    }

    /// How long it has nothing to do, unless something is asked for.
    pub fn rests_for(&self, now: Duration) -> Duration {
        match self.stage {
            Stage::Serving | Stage::Closed => Duration::MAX,
            Stage::Leaving { until } | Stage::Settling { until } => until.saturating_sub(now),
            Stage::Closing { .. } => Self::CLOSING_STEP,
        }
    }

    /// Gives the port up in any case: all I/O threads have ended.
    pub fn finish(&mut self) {
        self.stage = Stage::Closed;
        if let Some(port) = self.port.take() {
            port.finish_handover();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const SETTLE: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(3600);

    struct FakePort<'a> {
        settle: Duration,
        done: &'a RefCell<Vec<&'static str>>,
    }

    impl Port for FakePort<'_> {
        fn begin_handover(&mut self) -> Duration {
            self.done.borrow_mut().push("begin");
            self.settle
        }

        fn finish_handover(self) {
            self.done.borrow_mut().push("finish");
        }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The listeners are told to close after the handshakes had their time, and the port goes after the listeners.
    #[test]
    fn a_port_is_given_up_in_order() {
        let done = RefCell::default();
        let mut shutdown = Shutdown::of(FakePort { settle: SETTLE, done: &done }, Duration::ZERO);
        assert_eq!((shutdown.carry_on(ms(5), false), shutdown.rests_for(ms(5))), (None, Duration::MAX));
        shutdown.drain(ms(10));
        shutdown.drain(ms(20));
        assert_eq!((shutdown.carry_on(ms(30), false), shutdown.rests_for(ms(30))), (None, ms(80)));
        assert_eq!(shutdown.carry_on(ms(110), false), Some(Order::Drain));
        assert_eq!(shutdown.carry_on(ms(111), false), None);
        assert_eq!(*done.borrow(), ["begin"]);
        assert_eq!(shutdown.carry_on(ms(112), true), None);
        assert_eq!((shutdown.carry_on(ms(113), true), shutdown.rests_for(ms(113))), (None, Duration::MAX));
        shutdown.finish();
        assert_eq!(*done.borrow(), ["begin", "finish"]);
    }

    /// A cut is heard at any moment, and the port is given up in order all the same.
    #[test]
    fn a_cut_waits_for_nothing() {
        for drain_first in [false, true] {
            let done = RefCell::default();
            let mut shutdown = Shutdown::of(FakePort { settle: SETTLE, done: &done }, Duration::ZERO);
            if drain_first {
                shutdown.drain(ms(1));
            }
            assert_eq!(shutdown.cut(ms(2)), Order::Cut);
            assert_eq!(shutdown.carry_on(ms(3), false), None);
            assert_eq!(shutdown.cut(ms(4)), Order::Cut);
            assert_eq!((shutdown.carry_on(ms(5), true), done.borrow().as_slice()), (None, &["begin", "finish"][..]));
        }
    }

    /// With a delay, the server leaves and serves on, and only then gives the port up.
    #[test]
    fn a_server_serves_on_for_its_delay() {
        let done = RefCell::default();
        let mut shutdown = Shutdown::of(FakePort { settle: SETTLE, done: &done }, ms(50));
        assert!(!shutdown.has_begun());
        shutdown.drain(ms(10));
        shutdown.drain(ms(40));
        assert!(shutdown.has_begun());
        assert_eq!((shutdown.carry_on(ms(59), false), shutdown.rests_for(ms(59))), (None, ms(1)));
        assert!(done.borrow().is_empty(), "the port is served");
        assert_eq!((shutdown.carry_on(ms(60), false), shutdown.rests_for(ms(60))), (None, SETTLE));
        assert_eq!(*done.borrow(), ["begin"]);
        assert_eq!(shutdown.carry_on(ms(160), false), Some(Order::Drain));
    }

    /// Asked again, a server that leaves drains at once, and one that drains is cut.
    #[test]
    fn who_asks_again_is_not_kept_waiting() {
        let done = RefCell::default();
        let mut shutdown = Shutdown::of(FakePort { settle: Duration::ZERO, done: &done }, LONG);
        shutdown.drain(ms(10));
        assert_eq!((shutdown.hurry(ms(20)), done.borrow().len()), (None, 1));
        assert_eq!(shutdown.carry_on(ms(20), false), Some(Order::Drain));
        assert_eq!(shutdown.hurry(ms(30)), Some(Order::Cut));
        let mut shutdown = Shutdown::of(FakePort { settle: Duration::ZERO, done: &done }, LONG);
        shutdown.drain(ms(10));
        assert_eq!((shutdown.cut(ms(20)), shutdown.carry_on(ms(21), true)), (Order::Cut, None));
        assert_eq!(*done.borrow(), ["begin", "begin", "finish"]);
    }

    /// Listeners that do not close are not waited for without end.
    #[test]
    fn a_stuck_listener_is_given_up() {
        let done = RefCell::default();
        let mut shutdown = Shutdown::of(FakePort { settle: Duration::ZERO, done: &done }, Duration::ZERO);
        shutdown.drain(ms(0));
        assert_eq!(shutdown.carry_on(ms(0), false), Some(Order::Drain));
        shutdown.carry_on(HANDOVER_MAX - ms(1), false);
        assert_eq!(*done.borrow(), ["begin"]);
        shutdown.carry_on(HANDOVER_MAX, false);
        assert_eq!(*done.borrow(), ["begin", "finish"]);
    }
}
