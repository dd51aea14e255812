//! Whether the threads make progress, and what follows from that.
//!
//! It reads no clock: its caller tells it the time, as far as the process lived through it
//! ([`crate::exchange::lived_time`]), so that a process which was stopped is not taken for hung. It judges by the same counts as
//! the watchdog that ends the process, sooner: orchestrators and balancers hear of it before their clients do.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::limits::{LIVE_STALL_MAX, READY_STEP_MAX};

/// What there is to see.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    /// Steps that the batch processor has begun, and those of them that it has finished.
    pub steps_begun: u64,
    pub steps_finished: u64,
    /// Calls of the model: many for a step on which it fails, which may take long without being hung.
    pub model_calls: u64,
    /// Of each I/O thread, turns begun, and whether it sleeps.
    pub io: Vec<(u64, bool)>,
    /// The server is about to drain, and serves as ever.
    pub leaving: bool,
    pub draining: bool,
}

/// What the server is, to who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Leaving,
    Draining,
    Broken,
}

/// What was seen, and when it last changed.
#[derive(Debug)]
pub(super) struct Health {
    now: Duration,
    sight: Sight,
    step_since: Duration,
    call_since: Duration,
    turn_since: Vec<Duration>,
}

/// One of the questions, and what is wrong if it is not answered well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub name: String,
    pub wrong: Option<String>,
}

impl Health {
    pub fn beginning() -> Health {
        let (now, sight) = (Duration::ZERO, Sight::default());
        Health { now, sight, step_since: now, call_since: now, turn_since: Vec::new() }
    }

    /// Looks.
    pub fn look(&mut self, now: Duration, sight: Sight) {
        let works = sight.steps_begun != sight.steps_finished;
        if !works || sight.steps_begun != self.sight.steps_begun {
            self.step_since = now;
        }
        if !works || sight.model_calls != self.sight.model_calls {
            self.call_since = now;
        }
        self.turn_since.resize(sight.io.len(), now);
        for (index, (turns, is_asleep)) in sight.io.iter().enumerate() {
            let before = self.sight.io.get(index).map(|(turns, _)| turns);
            if *is_asleep || before != Some(turns) {
                self.turn_since[index] = now;
            }
        }
        (self.now, self.sight) = (now, sight);
    }

    /// What makes a server alive.
    pub fn live_checks(&self) -> Vec<Check> {
        let stalled = |name: &str, since: Duration, what: &str| {
            let stalled_for = self.now.saturating_sub(since);
            let wrong =
                (stalled_for > LIVE_STALL_MAX).then(|| format!("{what} for {:.1} s", stalled_for.as_secs_f64()));
            Check { name: name.to_owned(), wrong }
        };
        let batch = stalled("batch-processor", self.call_since, "the model has not come back from one call");
        let io = self.turn_since.iter().enumerate();
        let io = io.map(|(index, since)| stalled(&format!("io-{index}"), *since, "it has been in one turn"));
        [batch].into_iter().chain(io).collect()
    }

    /// What makes a server ready, beside its being alive.
    pub fn ready_checks(&self) -> Vec<Check> {
        let in_step_for = self.now.saturating_sub(self.step_since);
        let step = (in_step_for > READY_STEP_MAX)
            .then(|| format!("the batch processor has been in one step for {:.1} s", in_step_for.as_secs_f64()));
        let is_leaving = self.sight.leaving && !self.sight.draining;
        let leaving = is_leaving.then(|| "the server is about to drain".to_owned());
        let draining = self.sight.draining.then(|| "the server drains".to_owned());
        let ready = [
            // A server without a model, or that does not listen, does not answer here either.
            Check { name: "model".to_owned(), wrong: None },
            Check { name: "listening".to_owned(), wrong: None },
            Check { name: "step".to_owned(), wrong: step },
            Check { name: "not-leaving".to_owned(), wrong: leaving },
            Check { name: "not-draining".to_owned(), wrong: draining },
        ];
        ready.into_iter().chain(self.live_checks()).collect()
    }

    pub fn state(&self) -> State {
        if self.live_checks().iter().any(Check::is_wrong) {
            State::Broken
        } else if self.sight.draining {
            State::Draining
        } else if self.sight.leaving {
            State::Leaving
        } else {
            State::Ready
        }
    }
}

impl Check {
    pub fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wrong {
            None => write!(formatter, "[+] {} ok", self.name),
            Some(wrong) => write!(formatter, "[-] {}: {wrong}", self.name),
        }
    }
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Leaving => "leaving",
            State::Draining => "draining",
            State::Broken => "broken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families::STATES;

    const WORKING: Sight =
        Sight { steps_begun: 5, steps_finished: 4, model_calls: 9, io: Vec::new(), leaving: false, draining: false };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn is_ready(health: &Health) -> bool {
        !health.ready_checks().iter().any(Check::is_wrong)
    }

    /// One step: not ready after a second, not alive after five; both again as soon as it is done.
    #[test]
    fn a_step_that_lasts_is_told_of_in_two_stages() {
        let mut health = Health::beginning();
        health.look(ms(100), WORKING);
        for (at, ready, state) in [
            (1100, true, State::Ready),
            (1101, false, State::Ready),
            (5100, false, State::Ready),
            (5101, false, State::Broken),
            (100_000, false, State::Broken),
        ] {
            health.look(ms(at), WORKING);
            assert_eq!((is_ready(&health), health.state()), (ready, state), "at {at} ms");
        }
        health.look(ms(100_001), Sight { steps_finished: 5, ..WORKING });
        assert_eq!((is_ready(&health), health.state()), (true, State::Ready));
    }

    /// A batch processor without work, or with many short steps, is well for ever.
    #[test]
    fn idle_and_busy_servers_are_ready() {
        let mut health = Health::beginning();
        for second in 0..1000 {
            health.look(ms(1000 * second), Sight { steps_begun: 4, ..WORKING });
            assert!(is_ready(&health) && health.state() == State::Ready);
        }
        for second in 1000..2000 {
            let sight = Sight { steps_begun: second + 1, steps_finished: second, model_calls: second, ..WORKING };
            health.look(ms(1000 * second), sight);
            assert!(is_ready(&health) && health.state() == State::Ready);
        }
    }

    /// A model that fails is called many times in a step: not ready, but alive.
    #[test]
    fn a_step_of_many_calls_is_alive() {
        let mut health = Health::beginning();
        for second in 0..100 {
            health.look(ms(1000 * second), Sight { model_calls: second, ..WORKING });
        }
        assert_eq!((is_ready(&health), health.state()), (false, State::Ready));
    }

    /// A thread that sleeps or turns is well; one that does neither is named.
    #[test]
    fn an_io_thread_in_one_turn_is_named() {
        let mut health = Health::beginning();
        let idle = Sight { steps_begun: 4, ..WORKING };
        for second in 0..10 {
            health.look(ms(1000 * second), Sight { io: vec![(7, true), (second, false), (7, false)], ..idle.clone() });
        }
        let wrong: Vec<_> = health.live_checks().into_iter().filter(Check::is_wrong).map(|check| check.name).collect();
        assert_eq!((wrong, health.state()), (vec!["io-2".to_owned()], State::Broken));
    }

    #[test]
    fn a_server_that_goes_is_not_ready_and_not_broken() {
        let mut health = Health::beginning();
        let idle = Sight { steps_begun: 4, ..WORKING };
        health.look(ms(0), Sight { leaving: true, ..idle.clone() });
        assert_eq!((is_ready(&health), health.state()), (false, State::Leaving));
        health.look(ms(1), Sight { leaving: true, draining: true, ..idle });
        assert_eq!((is_ready(&health), health.state()), (false, State::Draining));
    }

    #[test]
    fn states_are_those_that_scrapers_know() {
        let states = [State::Ready, State::Leaving, State::Draining, State::Broken].map(State::name);
        assert_eq!(states, STATES);
    }
}
