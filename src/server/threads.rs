//! How the threads run: look for work, and between looks spin, yield or sleep.
//!
//! What the work is, the I/O thread and the batch processor know; when to do what in between, [`crate::exchange::wait`] decides.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::batch::{BatchProcessor, BatchRole, Found};
use crate::exchange::clock::Clock;
use crate::exchange::wait::{Pause, Waiter};
use crate::exchange::wake::Wake;
use crate::io_thread::IoThread;
use crate::kernel::Kernel;

/// A parked batch processor looks for work this often even if nobody wakes it. It is not needed (the wake flag's model
/// test shows that), and only bounds the damage should that ever be wrong.
const PARK_MAX: Duration = Duration::from_millis(500);

/// Runs an I/O thread until its drain is over.
pub fn run_io_thread<K: Kernel>(mut thread: IoThread<K>, mut waiter: Waiter) {
    loop {
        let worked = thread.turn();
        if thread.is_finished() {
            break;
        }
        match waiter.pause(worked, thread.clock_ns()) {
            Pause::Poll => {
                thread.enter();
                std::hint::spin_loop();
            }
            Pause::Yield => {
                thread.enter();
                let before_ns = thread.read_clock_ns();
                std::thread::yield_now();
                waiter.yielded(before_ns, thread.read_clock_ns());
            }
            Pause::Sleep => thread.sleep(),
        }
    }
    thread.finish();
}

/// Runs the batch processor until all I/O threads have ended. `wake` is the calling thread's own.
pub fn run_batch_processor(mut processor: BatchProcessor, mut waiter: Waiter, wake: &Arc<Wake>, clock: Clock) {
    loop {
        let found = processor.step(|| clock.now_ns());
        match found {
            Found::End => return,
            Found::Rest => continue,
            Found::Events | Found::Nothing => {}
        }
        pause(&mut waiter, found, clock, || {
            // The last I/O thread wakes this one after it has ended, so its end is not slept through.
            if processor.fall_asleep(wake) {
                std::thread::park_timeout(PARK_MAX);
            }
            processor.wake_up(wake);
        });
    }
}

/// The same where I/O threads may play the batch processor's role.
pub fn run_batch_role(role: &BatchRole, mut waiter: Waiter, clock: Clock) {
    let mut found = role.play(|| clock.now_ns());
    while found != Found::End {
        let mut found_before_sleep = Found::Nothing;
        pause(&mut waiter, found, clock, || {
            role.fall_asleep();
            found_before_sleep = role.play(|| clock.now_ns());
            if found_before_sleep == Found::Nothing {
                // As above.
                std::thread::park_timeout(PARK_MAX);
            }
            role.wake_up();
        });
        found = if found_before_sleep == Found::Nothing { role.play(|| clock.now_ns()) } else { found_before_sleep };
    }
}

/// Waits as the batch processor's thread does after a look; `sleep` is how it sleeps.
fn pause(waiter: &mut Waiter, found: Found, clock: Clock, sleep: impl FnOnce()) {
    let now_ns = |waiter: &Waiter| if waiter.needs_clock() { clock.now_ns() } else { 0 };
    match waiter.pause(found != Found::Nothing, now_ns(waiter)) {
        Pause::Poll => std::hint::spin_loop(),
        Pause::Yield => {
            let before_ns = now_ns(waiter);
            std::thread::yield_now();
            waiter.yielded(before_ns, now_ns(waiter));
        }
        Pause::Sleep => sleep(),
    }
}
