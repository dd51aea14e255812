//! What it costs to hand events to the batch processor's thread and to get them back: publish, poll, respond, wake.
//!
//! ```sh
//! cargo bench --bench hand_off
//! ```
//!
//! 1, 2 and 4 producers stand for the I/O threads: each runs the server's code from framing to the copied answer, and
//! sleeps by the server's protocol, but has no sockets. The batch processor's thread is the server's
//! (`threads::run_batch_processor`). Every event is one request of one vector, of random features.
//!
//! - `round_trip`: each producer publishes an event and waits for its answer; the time is from the one to the other.
//! - `stream`: each producer publishes 16 events at a time and has up to 64 in flight; the time is that of one event of
//!   all producers together.
//!
//! Producers park (`ThreadAlarm`, a futex), while I/O threads sleep in io_uring and are woken through an eventfd: that
//! costs more, and is a part of what `pipeline` measures.
//!
//! Each id says how many threads there were on how many CPUs. Where each thread has a CPU of its own, it is pinned to
//! it; where threads outnumber CPUs, the scheduler places them, and the figure tells of the scheduler as much as of the
//! hand-off. `2_threads_on_1_cpu` pins both to one CPU, as the server does on a machine of two.

#[path = "parts/answer_side.rs"]
mod answer_side;
#[path = "parts/bursts.rs"]
mod bursts;
#[path = "parts/measure.rs"]
mod measure;
#[path = "parts/request_side.rs"]
mod request_side;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use disrust::exchange::clock::Clock;
use disrust::exchange::event::InferenceEvent;
use disrust::exchange::wait::{Pause, WaitStrategy, Waiter};
use disrust::exchange::wake::Wake;
use disrust::kernel::{ThreadAlarm, available_cpus, pin_current_thread};
use disrust::limits::PoolGeometry;
use disrust::server::threads::run_batch_processor;

use answer_side::{IoSide, assemble};
use bursts::{BURSTS, Network};
use measure::{criterion, group, iter_items};
use request_side::LAYOUT;

/// Events that a producer has answered before the clock starts.
const WARM_UP_EVENTS: u64 = 256;

/// Buffers of a producer: as many as it has events in flight at most.
const BUFFERS: u16 = 64;

fn main() {
    // The scheduler has its part in these figures, so they scatter: more of them than elsewhere.
    let mut criterion = criterion(50, Duration::from_secs(1));
    let settings = settings();
    round_trip(&mut criterion, &settings);
    stream(&mut criterion, &settings);
    criterion.final_summary();
}

fn round_trip(criterion: &mut Criterion, settings: &[Setting]) {
    let mut group = group(criterion, "round_trip");
    for setting in settings {
        group.bench_function(setting.name(), |bencher| {
            iter_items(bencher, |events| {
                let spans = setting.run(Flow { window: 1, batch: 1 }, events);
                let waited: Duration = spans.iter().map(|span| span.end - span.start).sum();
                (events * spans.len() as u64, waited)
            });
        });
    }
    group.finish();
}

fn stream(criterion: &mut Criterion, settings: &[Setting]) {
    let mut group = group(criterion, "stream");
    for setting in settings {
        group.bench_function(setting.name(), |bencher| {
            iter_items(bencher, |events| {
                let each = events.div_ceil(setting.producers as u64);
                let spans = setting.run(Flow { window: u64::from(BUFFERS), batch: 16 }, each);
                let start = spans.iter().map(|span| span.start).min().expect("there is a producer");
                let end = spans.iter().map(|span| span.end).max().expect("there is a producer");
                (each * spans.len() as u64, end - start)
            });
        });
    }
    group.finish();
}

/// Which threads there are, where they run, and how they wait.
struct Setting {
    producers: usize,
    wait: WaitStrategy,
    /// The CPU of each producer, then the batch processor's; or the scheduler decides.
    pins: Option<Vec<usize>>,
    /// CPUs that the threads have together.
    cpus: usize,
}

fn settings() -> Vec<Setting> {
    let cpus = available_cpus();
    let mut settings = Vec::new();
    for wait in [WaitStrategy::Park, WaitStrategy::SpinThenPark] {
        if wait == WaitStrategy::Park {
            settings.push(Setting { producers: 1, wait, pins: Some(vec![cpus[0]; 2]), cpus: 1 });
        }
        for producers in [1, 2, 4] {
            let threads = producers + 1;
            let pins = (threads <= cpus.len()).then(|| cpus[..threads].to_vec());
            settings.push(Setting { producers, wait, pins, cpus: threads.min(cpus.len()) });
        }
    }
    settings
}

/// How a producer publishes: up to `window` events in flight, `batch` of them at a time.
#[derive(Clone, Copy)]
struct Flow {
    window: u64,
    batch: u64,
}

/// When a producer began and ended.
struct Span {
    start: Instant,
    end: Instant,
}

impl Setting {
    fn name(&self) -> String {
        let wait = if self.wait == WaitStrategy::Park { "park" } else { "spin_then_park" };
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (producers, threads, cpus) = (self.producers, self.producers + 1, self.cpus);
        format!("{wait}/{producers}_producer{}/{threads}_threads_on_{cpus}_cpu{}", plural(producers), plural(cpus))
    }

    fn pin(&self, thread: usize) {
        if let Some(pins) = &self.pins {
            assert!(pin_current_thread(pins[thread]), "the CPU was there");
        }
    }

    /// Has each producer's `events` answered, in threads of their own, and says when each of them began and ended.
    fn run(&self, flow: Flow, events: u64) -> Vec<Span> {
        let alarms: Vec<ThreadAlarm> = (0..=self.producers).map(|_| ThreadAlarm::default()).collect();
        let wakes: Vec<Arc<Wake>> = alarms.iter().map(|alarm| Arc::new(Wake::new(alarm.clone()))).collect();
        let (batch_wake, io_wakes) = wakes.split_last().expect("there is a batch processor");
        let headroom_bytes = LAYOUT.request_bytes_max().next_multiple_of(64);
        let geometry = PoolGeometry { buffers: BUFFERS, headroom_bytes, receive_bytes: headroom_bytes };
        let (sides, processor) = assemble(io_wakes, batch_wake, 1, geometry);
        let begin = Barrier::new(self.producers);
        thread::scope(|scope| {
            let batch_alarm = &alarms[self.producers];
            scope.spawn(move || {
                self.pin(self.producers);
                batch_alarm.attach_current_thread();
                run_batch_processor(processor, Waiter::new(self.wait), batch_wake, Clock::starting());
            });
            let threads: Vec<_> = sides
                .into_iter()
                .zip(&alarms)
                .zip(io_wakes)
                .enumerate()
                .map(|(index, ((side, alarm), wake))| {
                    let begin = &begin;
                    scope.spawn(move || {
                        self.pin(index);
                        alarm.attach_current_thread();
                        let mut producer = Producer::new(side, Arc::clone(wake), self.wait);
                        producer.run(flow, WARM_UP_EVENTS);
                        begin.wait();
                        let start = Instant::now();
                        producer.run(flow, events);
                        let end = Instant::now();
                        drop(producer);
                        // As an I/O thread at its end: if it was the last one, the batch processor ends too.
                        batch_wake.wake_always();
                        Span { start, end }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no producer fails")).collect()
        })
    }
}

/// An I/O thread without sockets.
struct Producer {
    side: IoSide,
    wake: Arc<Wake>,
    waiter: Waiter,
    network: Network,
    next_buffer: u16,
    epoch: Instant,
}

impl Producer {
    fn new(side: IoSide, wake: Arc<Wake>, wait: WaitStrategy) -> Producer {
        let waiter = Waiter::new(wait);
        Producer { side, wake, waiter, network: Network::new(), next_buffer: 0, epoch: Instant::now() }
    }

    /// Publishes `events` events and takes their answers.
    fn run(&mut self, flow: Flow, events: u64) {
        let (mut published, mut answered) = (0, 0);
        let mut batch = Vec::with_capacity(flow.batch as usize);
        while answered < events {
            while published < events && published + flow.batch <= answered + flow.window {
                let count = flow.batch.min(events - published);
                batch.extend((0..count).map(|_| self.next_event()));
                self.side.requests.publish(&batch);
                batch.clear();
                published += count;
            }
            let taken = self.side.answers.take(&mut self.side.requests);
            answered += taken;
            self.pause(taken > 0);
        }
    }

    fn next_event(&mut self) -> InferenceEvent {
        let index = self.next_buffer;
        self.next_buffer = (index + 1) % BUFFERS;
        let (buffer, bytes) = self.side.requests.fill(index, |area| self.network.receive(BURSTS[0].0, area));
        self.side.requests.received(0, buffer, bytes).expect("a whole request was received")
    }

    /// Waits as `disrust::server::threads` has an I/O thread wait, but only if there is nothing to publish first.
    fn pause(&mut self, worked: bool) {
        let now_ns = if self.waiter.needs_clock() { self.epoch.elapsed().as_nanos() as u64 } else { 0 };
        match self.waiter.pause(worked, now_ns) {
            Pause::Poll => std::hint::spin_loop(),
            Pause::Yield => unreachable!("no setting yields"),
            Pause::Sleep if worked => {}
            Pause::Sleep => {
                self.wake.flag.announce_sleep();
                if self.side.answers.responses.is_empty() {
                    thread::park();
                }
                self.wake.flag.announce_awake();
            }
        }
    }
}
