//! What a connection is at, and since when; and how it is told to end.
//!
//! Each connection has a [`Life`], which its stream, its requests and the thread's list of connections share. All deadlines of a
//! connection that are not a request's own are found here, by one look at all connections every
//! [`crate::limits::SWEEP_INTERVAL`]: a timer for each would be set and reset with every request.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::limits::{HEAD_TIME_MAX, WRITE_STALL_MAX};
use crate::metrics::Ended;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a request; perhaps the answer to the one before is still being sent.
    Idle,
    /// A part of a request's head has come.
    Head,
    /// A request is under way.
    Busy,
    /// It has been told the last, and what it still sends is read away.
    Over,
}

/// How it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Not at all.
    No,
    /// When the request that is under way is answered, or at once.
    InOrder,
    /// At once.
    Cut,
}

/// See the module.
#[derive(Debug)]
pub struct Life {
    stage: Cell<Stage>,
    since: Cell<Instant>,
    /// Since when its peer takes nothing of what is to be sent.
    unsent_since: Cell<Option<Instant>>,
    end: Cell<End>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
}

impl Life {
    /// Of a connection that begins.
    pub fn beginning() -> Life {
        Life {
            stage: Cell::new(Stage::Idle),
            since: Cell::new(Instant::now()),
            unsent_since: Cell::new(None),
            end: Cell::new(End::No),
            waker: RefCell::new(None),
        }
    }

    /// Whether it waits for a request, or for the rest of a request's head.
    pub fn is_waiting(&self) -> bool {
        matches!(self.stage.get(), Stage::Idle | Stage::Head)
    }

    /// Whether it has waited for a request for so long.
    pub fn is_idle_for(&self, now: Instant, quiet: Duration) -> bool {
        self.stage.get() == Stage::Idle && self.elapsed(now) >= quiet
    }

    /// Whether it was told to end.
    pub fn is_ending(&self) -> bool {
        self.end.get() != End::No
    }

    /// From now on it is at something else.
    pub fn enter(&self, stage: Stage) {
        if self.stage.replace(stage) != stage {
            self.since.set(Instant::now());
        }
    }

    /// How long it has been at it.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since.get())
    }

    /// Bytes have come.
    pub fn received(&self) {
        if self.stage.get() == Stage::Idle {
            self.enter(Stage::Head);
        }
    }

    /// Whether the peer takes what is to be sent.
    pub fn sends(&self, is_taken: bool) {
        match (is_taken, self.unsent_since.get()) {
            (true, Some(_)) => self.unsent_since.set(None),
            (false, None) => self.unsent_since.set(Some(Instant::now())),
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// Why it is to be ended, if it is late with something.
    pub fn late(&self, now: Instant, idle_max: Duration) -> Option<(End, Ended)> {
        let is_stuck = |since| now.saturating_duration_since(since) >= WRITE_STALL_MAX;
        if self.unsent_since.get().is_some_and(is_stuck) {
            return Some((End::Cut, Ended::WriteTimeout));
        }
        match self.stage.get() {
            Stage::Idle if self.elapsed(now) >= idle_max => Some((End::InOrder, Ended::Idle)),
            Stage::Head if self.elapsed(now) >= HEAD_TIME_MAX => Some((End::Cut, Ended::HeadTimeout)),
            // A request has a deadline of its own, and the end as well.
            Stage::Idle | Stage::Head | Stage::Busy | Stage::Over => None,
        }
    }

    /// Tells the connection to end so, or sooner if it was told so before. Returns whether that is new to it.
    pub fn tell(&self, end: End) -> bool {
        let is_new = self.end.get() < end;
        if is_new {
            self.end.set(end);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        is_new
    }

    /// How it was told to end. The task that asks is woken when that changes.
    pub fn told(&self, waker: &Waker) -> End {
        let mut place = self.waker.borrow_mut();
        match &mut *place {
            Some(own) => own.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
        self.end.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_deadline() {
        let (life, idle_max) = (Life::beginning(), Duration::from_secs(75));
        let after = |time| Instant::now() + time;
        let second = Duration::from_secs(1);
        assert_eq!(life.late(after(idle_max - second), idle_max), None);
        assert_eq!(life.late(after(idle_max), idle_max), Some((End::InOrder, Ended::Idle)));
        life.received();
        assert_eq!((life.stage.get(), life.late(after(HEAD_TIME_MAX - second), idle_max)), (Stage::Head, None));
        assert_eq!(life.late(after(HEAD_TIME_MAX), idle_max), Some((End::Cut, Ended::HeadTimeout)));
        life.enter(Stage::Busy);
        life.received();
        assert_eq!((life.stage.get(), life.late(after(idle_max), idle_max)), (Stage::Busy, None));
        life.sends(false);
        assert_eq!(life.late(after(WRITE_STALL_MAX), idle_max), Some((End::Cut, Ended::WriteTimeout)));
        life.sends(true);
        life.enter(Stage::Idle);
        assert_eq!((life.stage.get(), life.late(after(WRITE_STALL_MAX), idle_max)), (Stage::Idle, None));
    }

    #[test]
    fn an_end_is_never_put_off() {
        let life = Life::beginning();
        let waker = Waker::noop();
        assert_eq!(life.told(waker), End::No);
        assert!(life.tell(End::InOrder) && !life.tell(End::InOrder) && life.tell(End::Cut) && !life.tell(End::InOrder));
        assert_eq!(life.told(waker), End::Cut);
    }
}
