//! The server's threads, as the simulation steps them: the server's own code, with its loops cut into pieces.
//!
//! What is here mirrors `disrust::server::threads`, cut at every place where another thread could come in between: after a turn,
//! before a sleep, in a sleep. A thread that sleeps is not stepped until the kernel has a completion for it, or its
//! token has been given.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use disrust::batch::{BatchProcessor, BatchRole, Found};
use disrust::exchange::wait::{Pause, Waiter};
use disrust::exchange::wake::Wake;
use disrust::io_thread::IoThread;
use fastrand::Rng;

use super::kernel::SimulatedKernel;
use super::ring::{Bell, Ring};

/// The longest that a yield takes.
const YIELD_NS_MAX: u64 = 1_000_000;

/// Where a thread is in its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It looks for work next.
    Look,
    /// It has looked, found some (`worked`) or none, and decides how to wait.
    Pause {
        worked: bool,
    },
    Asleep,
    Ended,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// It cannot be stepped.
    Blocked,
    /// It found nothing to do.
    Idle,
    Worked,
}

/// An I/O thread.
pub struct IoActor {
    thread: Option<IoThread<SimulatedKernel>>,
    pub ring: Rc<RefCell<Ring>>,
    waiter: Waiter,
    phase: Phase,
}

impl IoActor {
    pub fn new(thread: IoThread<SimulatedKernel>, ring: Rc<RefCell<Ring>>, waiter: Waiter) -> IoActor {
        IoActor { thread: Some(thread), ring, waiter, phase: Phase::Look }
    }

    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// As `run_io_thread`; `batch_wake` is the batch processor's, which is woken when the thread has ended.
    pub fn step(&mut self, batch_wake: &Wake, rng: &mut Rng) -> Stepped {
        let IoActor { thread, ring, waiter, phase } = self;
        let Some(io_thread) = thread else { return Stepped::Blocked };
        match *phase {
            Phase::Look => {
                let worked = io_thread.turn();
                *phase = Phase::Pause { worked };
                if io_thread.is_finished()
                    && let Some(finished) = thread.take()
                {
                    finished.finish();
                    batch_wake.wake_always();
                    *phase = Phase::Ended;
                }
                if worked { Stepped::Worked } else { Stepped::Idle }
            }
            Phase::Pause { worked } => {
                *phase = Phase::Look;
                match waiter.pause(worked, io_thread.clock_ns()) {
                    Pause::Poll => io_thread.enter(),
                    Pause::Yield => {
                        io_thread.enter();
                        let before_ns = io_thread.read_clock_ns();
                        waiter.yielded(before_ns, before_ns + rng.u64(..YIELD_NS_MAX));
                    }
                    Pause::Sleep => {
                        io_thread.fall_asleep();
                        if ring.borrow().is_asleep() {
                            *phase = Phase::Asleep;
                        } else {
                            io_thread.wake_up();
                        }
                    }
                }
                Stepped::Idle
            }
            Phase::Asleep => {
                if !ring.borrow().can_wake() {
                    return Stepped::Blocked;
                }
                if ring.borrow_mut().wake() {
                    io_thread.wake_up();
                    *phase = Phase::Look;
                }
                Stepped::Idle
            }
            Phase::Ended => Stepped::Blocked,
        }
    }
}

/// The batch processor, of its own thread alone, or as a role that I/O threads may play.
enum Seat {
    /// Until it has ended.
    Alone(Option<Box<BatchProcessor>>),
    Shared(SharedSeat),
}

/// How far the thread is that comes to play the role.
struct SharedSeat {
    /// Until it has ended.
    role: Option<Arc<BatchRole>>,
    stage: Stage,
    /// It has found events since it took the role.
    found: bool,
    /// It has announced its sleep, and looks for the last time.
    is_last: bool,
}

/// Whoever has the role keeps it from one step to another, so that others come and find it played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Knock,
    Look,
    GiveBack,
}

/// The batch processor's thread.
pub struct BatchActor {
    seat: Seat,
    pub wake: Arc<Wake>,
    /// Its park token.
    token: Bell,
    waiter: Waiter,
    phase: Phase,
}

impl BatchActor {
    pub fn new(processor: BatchProcessor, wake: Arc<Wake>, token: Bell, waiter: Waiter) -> BatchActor {
        BatchActor { seat: Seat::Alone(Some(Box::new(processor))), wake, token, waiter, phase: Phase::Look }
    }

    /// One of whose role others play a part.
    pub fn sharing(role: Arc<BatchRole>, wake: Arc<Wake>, token: Bell, waiter: Waiter) -> BatchActor {
        let seat = SharedSeat { role: Some(role), stage: Stage::Knock, found: false, is_last: false };
        BatchActor { seat: Seat::Shared(seat), wake, token, waiter, phase: Phase::Look }
    }

    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// As `run_batch_processor` and `run_batch_role`, but for the end of a park that nobody asked for: that would hide a lost
    /// wake.
    pub fn step(&mut self, now_ns: u64, rng: &mut Rng) -> Stepped {
        match &mut self.seat {
            Seat::Alone(None) | Seat::Shared(SharedSeat { role: None, .. }) => Stepped::Blocked,
            Seat::Alone(Some(_)) => self.step_alone(now_ns, rng),
            Seat::Shared(_) => self.step_shared(now_ns, rng),
        }
    }

    fn step_alone(&mut self, now_ns: u64, rng: &mut Rng) -> Stepped {
        let BatchActor { seat: Seat::Alone(running), wake, token, waiter, phase } = self else { unreachable!("alone") };
        let Some(processor) = running else { return Stepped::Blocked };
        match *phase {
            Phase::Look => {
                let found = processor.step(|| now_ns);
                *phase = match found {
                    Found::Events => Phase::Pause { worked: true },
                    Found::Rest => Phase::Look,
                    Found::Nothing => Phase::Pause { worked: false },
                    Found::End => Phase::Ended,
                };
                if found == Found::End {
                    *running = None;
                }
                if matches!(found, Found::Events | Found::Rest) { Stepped::Worked } else { Stepped::Idle }
            }
            Phase::Pause { worked } => {
                *phase = Phase::Look;
                match waiter.pause(worked, now_ns) {
                    Pause::Poll => {}
                    Pause::Yield => waiter.yielded(now_ns, now_ns + rng.u64(..YIELD_NS_MAX)),
                    Pause::Sleep => {
                        if processor.fall_asleep(wake) && !token.take() {
                            *phase = Phase::Asleep;
                        } else {
                            processor.wake_up(wake);
                        }
                    }
                }
                Stepped::Idle
            }
            Phase::Asleep => {
                if !token.take() {
                    return Stepped::Blocked;
                }
                processor.wake_up(wake);
                *phase = Phase::Look;
                Stepped::Idle
            }
            Phase::Ended => Stepped::Blocked,
        }
    }

    fn step_shared(&mut self, now_ns: u64, rng: &mut Rng) -> Stepped {
        let BatchActor { seat: Seat::Shared(seat), token, waiter, phase, .. } = self else { unreachable!("shared") };
        let Some(role) = &seat.role else { return Stepped::Blocked };
        match *phase {
            Phase::Look => {
                let (mut done, mut worked) = (false, false);
                match seat.stage {
                    Stage::Knock if role.take() => (seat.stage, seat.found) = (Stage::Look, false),
                    Stage::Knock => (done, seat.found) = (true, false),
                    Stage::Look => {
                        // Some of its steps are slow, so that I/O threads help at times, and at times do not.
                        let (slow_ns, ticks) = ([0, 0, 100_000][rng.usize(..3)], Cell::new(0));
                        let clock = || now_ns + slow_ns * ticks.replace(ticks.get() + 1);
                        let found = role.look(u64::MAX, clock);
                        match found {
                            Found::End => {
                                (seat.role, *phase) = (None, Phase::Ended);
                                return Stepped::Idle;
                            }
                            Found::Nothing => {}
                            Found::Events | Found::Rest => (worked, seat.found) = (true, true),
                        }
                        seat.stage = if found == Found::Rest { Stage::Look } else { Stage::GiveBack };
                    }
                    Stage::GiveBack if role.give_back() => (seat.stage, done) = (Stage::Knock, true),
                    Stage::GiveBack => seat.stage = Stage::Look,
                }
                if done && !seat.is_last {
                    *phase = Phase::Pause { worked: seat.found };
                }
                if done && seat.is_last {
                    seat.is_last = false;
                    if !seat.found && !token.take() {
                        *phase = Phase::Asleep;
                    } else {
                        role.wake_up();
                    }
                }
                if worked { Stepped::Worked } else { Stepped::Idle }
            }
            Phase::Pause { worked } => {
                *phase = Phase::Look;
                match waiter.pause(worked, now_ns) {
                    Pause::Poll => {}
                    Pause::Yield => waiter.yielded(now_ns, now_ns + rng.u64(..YIELD_NS_MAX)),
                    Pause::Sleep => {
                        role.fall_asleep();
                        seat.is_last = true;
                    }
                }
                Stepped::Idle
            }
            Phase::Asleep => {
                if !token.take() {
                    return Stepped::Blocked;
                }
                role.wake_up();
                *phase = Phase::Look;
                Stepped::Idle
            }
            Phase::Ended => Stepped::Blocked,
        }
    }
}
