//! Model tests: the lock-free parts of the server, in every interleaving and with every reordering that the C11 memory
//! model allows (loom), on the source that serves.
//!
//! The modules are compiled a second time here, with loom's atomics in place of the standard library's.

#![expect(dead_code, reason = "only some of what the modules offer is needed here")]

mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

    /// Explores all executions with at most this many preemptions: enough for any two of the races at once, and done in
    /// seconds.
    pub fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }
}
#[path = "../src/exchange/event.rs"]
mod event;
#[path = "../src/exchange/model_version.rs"]
mod model_version;
#[path = "../src/exchange/response_queue.rs"]
mod response_queue;
#[path = "../src/exchange/spread.rs"]
mod spread;
#[path = "../src/exchange/swap_place.rs"]
mod swap_place;
#[path = "../src/exchange/token.rs"]
mod token;
#[path = "../src/exchange/wake.rs"]
mod wake;

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};

use event::{ConnectionId, Response};
use model_version::ModelVersion;
use response_queue::response_queue;
use spread::Share;
use swap_place::{NotSwapped, SwapPlace};
use sync::check;
use token::Token as RoleToken;
use wake::{Alarm, Wake};

/// An eventfd, or a park token: a count that a sleeper waits for and takes.
#[derive(Default)]
struct Token {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Token {
    fn wait(&self) {
        let mut rung = self.rung.lock().expect("no test panics while it holds the lock");
        while !*rung {
            rung = self.changed.wait(rung).expect("no test panics while it holds the lock");
        }
        *rung = false;
    }
}

struct TokenAlarm(Arc<Token>);

impl Alarm for TokenAlarm {
    fn ring(&self) {
        *self.0.rung.lock().expect("no test panics while it holds the lock") = true;
        self.0.changed.notify_one();
    }
}

fn response(number: u32) -> Response {
    Response {
        connection: ConnectionId { slot: number, generation: !number },
        buffer: number as u16,
        requests: 1,
        request_bytes: 8,
        offset: 0,
        answer_bytes: 5,
        sequence: number,
        received_at_ns: 0,
        failed: 0,
        shed: 0,
        model_version: 0,
    }
}

/// Batch processor to I/O thread: what is published is seen, in order, and a sleeper is never left asleep beside it.
/// A lost wake shows as a deadlock, which loom reports.
#[test]
fn an_io_thread_never_sleeps_through_a_response() {
    check(|| {
        let token = Arc::new(Token::default());
        let wake = Arc::new(Wake::new(TokenAlarm(Arc::clone(&token))));
        let (mut producer, mut consumer) = response_queue(2);
        let waker = Arc::clone(&wake);
        let batch_processor = loom::thread::spawn(move || {
            for number in 0..2 {
                producer.push(response(number));
                producer.publish();
                waker.wake_sleeper();
            }
        });
        for number in 0..2 {
            loop {
                if let Some(popped) = consumer.pop() {
                    assert_eq!(popped, response(number));
                    break;
                }
                wake.flag.announce_sleep();
                if consumer.is_empty() {
                    token.wait();
                }
                wake.flag.announce_awake();
            }
        }
        batch_processor.join().expect("the batch processor does not panic");
    });
}

/// One I/O thread to another: a connection that is given away is taken by the other, which sleeps or is about to end, or stays
/// with the one that has accepted it. A lost wake shows as a deadlock.
#[test]
fn a_connection_that_is_given_away_is_served_by_one_of_two() {
    check(|| {
        let token = Arc::new(Token::default());
        let wake = Arc::new(Wake::new(TokenAlarm(Arc::clone(&token))));
        let mut shares = Share::of_all([Arc::clone(&wake), Arc::new(Wake::new(TokenAlarm(Arc::default())))]);
        let (giver, taker) = (shares.remove(1), shares.remove(0));
        let accepting = loom::thread::spawn(move || [1, 2].map(|socket| giver.give(0, socket).is_ok()));
        let mut taken = Vec::new();
        while taken.is_empty() {
            taken.extend(taker.take());
            wake.flag.announce_sleep();
            if taken.is_empty() && !taker.has_guests() {
                token.wait();
            }
            wake.flag.announce_awake();
        }
        taken.extend(taker.close());
        let given = accepting.join().expect("the accepting thread does not panic");
        let expected: Vec<_> =
            [1, 2].into_iter().zip(given).filter(|(_, given)| *given).map(|(socket, _)| socket).collect();
        assert_eq!(taken, expected);
    });
}

/// I/O threads to batch processor: two producers, one sleeper. The disruptor's availability is a counter here.
#[test]
fn the_batch_processor_never_sleeps_through_an_event() {
    check(|| {
        let token = Arc::new(Token::default());
        let wake = Arc::new(Wake::new(TokenAlarm(Arc::clone(&token))));
        let published = Arc::new(AtomicUsize::new(0));
        let io_threads: Vec<_> = (0..2)
            .map(|_| {
                let (wake, published) = (Arc::clone(&wake), Arc::clone(&published));
                loom::thread::spawn(move || {
                    published.fetch_add(1, Ordering::Release);
                    wake.wake_sleeper();
                })
            })
            .collect();
        while published.load(Ordering::Acquire) < 2 {
            wake.flag.announce_sleep();
            if published.load(Ordering::Acquire) < 2 {
                token.wait();
            }
            wake.flag.announce_awake();
        }
        for io_thread in io_threads {
            io_thread.join().expect("an I/O thread does not panic");
        }
    });
}

/// The bytes of an answer are written before its response is published, and read after it is popped; a slot is
/// written again only after it has been read.
#[test]
fn a_response_brings_its_answer_with_it_and_slots_are_not_reused_early() {
    check(|| {
        let answers: Arc<[AtomicUsize; 3]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let taken = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = response_queue(2);
        let (written, limit) = (Arc::clone(&answers), Arc::clone(&taken));
        let batch_processor = loom::thread::spawn(move || {
            for number in 0..3 {
                // As in the server, where a response owns a buffer and there are as many slots as buffers.
                while number >= limit.load(Ordering::Acquire) + 2 {
                    loom::thread::yield_now();
                }
                written[number].store(number + 1, Ordering::Relaxed);
                producer.push(response(number as u32));
                producer.publish();
            }
        });
        for number in 0..3 {
            let popped = loop {
                match consumer.pop() {
                    Some(popped) => break popped,
                    None => loom::thread::yield_now(),
                }
            };
            assert_eq!(popped, response(number as u32));
            assert_eq!(answers[number].load(Ordering::Relaxed), number + 1);
            taken.store(number + 1, Ordering::Release);
        }
        batch_processor.join().expect("the batch processor does not panic");
    });
}

/// A thread that sleeps takes what it is offered all the same, and what it used until then comes back to who offered.
/// A sleep beside an offer shows as a deadlock. One offer: that a store cannot come between a swap and the store that the
/// swap has read, which a second round of the flag relies on, loom does not know.
#[test]
fn the_batch_processor_never_sleeps_through_another_model() {
    check(|| {
        let token = Arc::new(Token::default());
        let wake = Arc::new(Wake::new(TokenAlarm(Arc::clone(&token))));
        let place = Arc::new(SwapPlace::new());
        let (waker, offered_in) = (Arc::clone(&wake), Arc::clone(&place));
        let loader = loom::thread::spawn(move || {
            offered_in.offer(Box::new(1)).expect("the user has not ended");
            waker.wake_sleeper();
            assert_eq!(offered_in.wait(Duration::MAX), Ok(Box::new(0)), "the one before comes back");
        });
        let mut used = Box::new(0);
        while *used < 1 {
            if place.is_offered() && place.swap(&mut used, |_| ()) {
                continue;
            }
            wake.flag.announce_sleep();
            if !place.is_offered() {
                token.wait();
            }
            wake.flag.announce_awake();
            // The lock may be taken; then it is tried again.
            loom::thread::yield_now();
        }
        loader.join().expect("the loader does not panic");
    });
}

/// Who has been told a version is scored by that one or a newer one; and once a model is known to be in force, it is told.
#[test]
fn nothing_is_scored_by_an_older_model_than_the_one_that_was_told() {
    check(|| {
        let (place, version) = (Arc::new(SwapPlace::new()), Arc::new(ModelVersion::new(0)));
        let published = Arc::new(AtomicUsize::new(0));
        let (offered_in, told_by) = (Arc::clone(&place), Arc::clone(&version));
        let loader = loom::thread::spawn(move || {
            let outcome = offered_in.offer(1).and_then(|()| offered_in.wait(Duration::MAX));
            assert!(outcome.is_err() || told_by.get() == 1, "what is in force is told");
        });
        let (told_by, publishes) = (Arc::clone(&version), Arc::clone(&published));
        let io_thread = loom::thread::spawn(move || {
            let told = told_by.get();
            // As a producer of the disruptor does it.
            publishes.store(1, Ordering::Release);
            told
        });
        let (mut used, mut scored_by) = (0, None);
        for _ in 0..2 {
            if place.is_offered() {
                place.swap(&mut used, |taken| version.set(*taken));
            }
            if scored_by.is_none() && published.load(Ordering::Acquire) == 1 {
                scored_by = Some(used);
            }
        }
        place.close();
        let told = io_thread.join().expect("the I/O thread does not panic");
        assert!(scored_by.is_none_or(|scored_by| scored_by >= told), "{scored_by:?} after {told}");
        loader.join().expect("the loader does not panic");
    });
}

/// Offers follow one another, and each is taken once, in order.
#[test]
fn each_model_comes_back_for_the_one_after_it() {
    check(|| {
        let place = Arc::new(SwapPlace::new());
        let offered_in = Arc::clone(&place);
        let loader = loom::thread::spawn(move || {
            for value in 1..=2 {
                offered_in.offer(Box::new(value)).expect("the one before has been fetched");
                assert_eq!(offered_in.wait(Duration::MAX), Ok(Box::new(value - 1)));
            }
        });
        let mut used = Box::new(0);
        while *used < 2 {
            if !(place.is_offered() && place.swap(&mut used, |_| ())) {
                loom::thread::yield_now();
            }
        }
        assert!(!place.is_offered());
        loader.join().expect("the loader does not panic");
    });
}

/// A user that ends while something is offered takes it or does not, and nobody waits for it.
#[test]
fn nobody_waits_for_a_batch_processor_that_ends() {
    check(|| {
        let place = Arc::new(SwapPlace::new());
        let offered_in = Arc::clone(&place);
        let loader = loom::thread::spawn(move || {
            let outcome = offered_in.offer(1).and_then(|()| offered_in.wait(Duration::MAX));
            assert!(matches!(outcome, Ok(0) | Err(NotSwapped::Ended)), "{outcome:?}");
            outcome.is_ok()
        });
        let mut used = 0;
        if place.is_offered() {
            place.swap(&mut used, |_| ());
        }
        place.close();
        let taken = loader.join().expect("the loader does not panic");
        assert_eq!(taken, used == 1, "what is told is what happened");
    });
}

/// Two publishers, one of whom does what there is by himself if he may, and the thread that sleeps while there is nothing to do:
/// when all rest, all that was published is done, and one at a time did it. Work is a count here.
#[test]
fn what_is_published_is_done_by_whoever_has_the_role() {
    struct Role {
        token: RoleToken,
        wake: Wake,
        published: AtomicUsize,
        /// What has been done, and by whom nobody else can be meanwhile.
        done: loom::cell::UnsafeCell<usize>,
        all_done: AtomicUsize,
    }
    // SAFETY: loom sees whether two threads are at `done` at once; everything else may be shared.
    unsafe impl Sync for Role {}

    impl Role {
        /// As `BatchRole::look`.
        fn look(&self) {
            self.token.begin_look();
            // Relaxed: a knock, or the fences of the wake flag, bring it.
            let published = self.published.load(Ordering::Relaxed);
            self.done.with_mut(|done| {
                // SAFETY: only who has the token is here, and loom fails if that is not so.
                unsafe { *done = published }
            });
            self.all_done.fetch_max(published, Ordering::Relaxed);
        }

        /// As `BatchRole::play`.
        fn play(&self) {
            if self.token.knock() {
                loop {
                    self.look();
                    if self.token.give_back() {
                        return;
                    }
                }
            }
        }

        /// As `BatchRole::help`, which leaves the role after one look if somebody has knocked meanwhile.
        fn help(&self) {
            if self.token.knock() {
                self.look();
                if !self.token.give_back() {
                    self.token.leave();
                    self.wake.wake_sleeper();
                }
            }
        }
    }

    /// A park token, and the end of the publishers.
    #[derive(Default)]
    struct Park {
        rung_and_ended: Mutex<(bool, bool)>,
        changed: Condvar,
    }

    impl Park {
        /// Whether it was rung; if not, all publishers have ended.
        fn wait(&self) -> bool {
            let mut state = self.rung_and_ended.lock().expect("no test panics while it holds the lock");
            while *state == (false, false) {
                state = self.changed.wait(state).expect("no test panics while it holds the lock");
            }
            std::mem::take(&mut state.0)
        }
    }

    struct ParkAlarm(Arc<Park>);

    impl Alarm for ParkAlarm {
        fn ring(&self) {
            self.0.rung_and_ended.lock().expect("no test panics while it holds the lock").0 = true;
            self.0.changed.notify_one();
        }
    }

    check(|| {
        let park = Arc::new(Park::default());
        let role = Arc::new(Role {
            token: RoleToken::new(),
            wake: Wake::new(ParkAlarm(Arc::clone(&park))),
            published: AtomicUsize::new(0),
            done: loom::cell::UnsafeCell::new(0),
            all_done: AtomicUsize::new(0),
        });
        let publishers: Vec<_> = [true, false]
            .into_iter()
            .map(|helps| {
                let role = Arc::clone(&role);
                loom::thread::spawn(move || {
                    role.published.fetch_add(1, Ordering::Relaxed);
                    if helps {
                        role.help();
                    } else {
                        role.wake.wake_sleeper();
                    }
                })
            })
            .collect();
        let batch_processor = {
            let (role, park) = (Arc::clone(&role), Arc::clone(&park));
            loom::thread::spawn(move || {
                loop {
                    role.play();
                    role.wake.flag.announce_sleep();
                    role.play();
                    let is_woken = park.wait();
                    role.wake.flag.announce_awake();
                    if !is_woken {
                        break;
                    }
                }
            })
        };
        for publisher in publishers {
            publisher.join().expect("a publisher does not panic");
        }
        park.rung_and_ended.lock().expect("no test panics while it holds the lock").1 = true;
        park.changed.notify_one();
        batch_processor.join().expect("the batch processor does not panic");
        assert_eq!(role.all_done.load(Ordering::Relaxed), 2, "nobody would have come any more");
    });
}
