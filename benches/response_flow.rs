//! What it costs to answer requests that have reached the batch processor, and to bring the answers to the blocks that
//! are sent.
//!
//! ```sh
//! cargo bench --bench response_flow
//! ```
//!
//! The time is the thread's processor time for one event, which is one receive of one connection; steps are of 1, 4, 16 and 64 events.
//!
//! - `step`: `BatchProcessor::step`: poll, adopt, sum, write the answers over the requests, ship, push, and publish the
//!   responses. A step needs published events, so publishing is in the time (`request_flow`'s `publish_and_poll` tells
//!   how much that is).
//! - `take_answers`: what the I/O thread does with 64 responses: pop, adopt, copy the answers to the connection's block,
//!   ship, and hand the block to a kernel that sends it at once.
//! - `queue`: push, publish and pop of responses alone.
//!
//! Not here: system calls, and a second thread: both ends of the queue are in this thread's cache. What crossing threads
//! costs is in `hand_off`. What no branch predictor learns is in `parts/bursts.rs`.

#[path = "parts/answer_side.rs"]
mod answer_side;
#[path = "parts/bursts.rs"]
mod bursts;
#[path = "parts/measure.rs"]
mod measure;
#[path = "parts/request_side.rs"]
mod request_side;
#[path = "parts/stopwatch.rs"]
mod stopwatch;

use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use disrust::batch::{BatchProcessor, Found};
use disrust::exchange::event::{ConnectionId, InferenceEvent, Response};
use disrust::exchange::response_queue::response_queue;
use disrust::exchange::wake::Wake;
use disrust::kernel::ThreadAlarm;
use disrust::limits::{BUFFERS_PER_THREAD, PoolGeometry};

use answer_side::{AnswerSide, IoSide, assemble};
use bursts::{BURSTS, Burst, Network};
use measure::{criterion, group, iter_items};
use request_side::{LAYOUT, RequestSide};
use stopwatch::Stopwatch;

/// Receives that are prepared before the clock starts; each is of another connection.
const RECEIVES_PER_ROUND: usize = 64;

const BATCHES: [usize; 4] = [1, 4, 16, 64];

/// Batches for a reading of the clock where nothing has to be prepared.
const BATCHES_PER_ROUND: usize = 256;

fn main() {
    let mut criterion = criterion(20, Duration::from_millis(600));
    step(&mut criterion);
    take_answers(&mut criterion);
    queue(&mut criterion);
    criterion.final_summary();
}

/// The batch processor's work.
fn step(criterion: &mut Criterion) {
    let mut group = group(criterion, "step");
    for (burst, scenario) in BURSTS {
        for batch in BATCHES {
            let mut bench = Bench::new();
            group.bench_function(format!("{scenario}/batch_of_{batch}"), |bencher| {
                iter_items(bencher, |_| {
                    bench.receive(burst);
                    let took = bench.step(batch);
                    bench.take();
                    (RECEIVES_PER_ROUND as u64, took)
                });
            });
        }
    }
    group.finish();
}

/// The I/O thread's work afterwards.
fn take_answers(criterion: &mut Criterion) {
    let mut group = group(criterion, "take_answers");
    for (burst, scenario) in BURSTS {
        let mut bench = Bench::new();
        group.bench_function(scenario, |bencher| {
            iter_items(bencher, |_| {
                bench.receive(burst);
                bench.step(RECEIVES_PER_ROUND);
                let took = bench.take();
                (RECEIVES_PER_ROUND as u64, took)
            });
        });
    }
    group.finish();
}

/// The way back by itself.
fn queue(criterion: &mut Criterion) {
    let mut group = group(criterion, "queue");
    for batch in BATCHES {
        let (mut producer, mut consumer) = response_queue(usize::from(BUFFERS_PER_THREAD));
        let stopwatch = Stopwatch::new();
        group.bench_function(format!("batch_of_{batch}"), |bencher| {
            iter_items(bencher, |_| {
                stopwatch.time(|| {
                    for _ in 0..BATCHES_PER_ROUND {
                        (0..batch).for_each(|number| producer.push(response(number as u32)));
                        assert!(producer.publish() == batch as u64, "all are new");
                        for number in 0..batch {
                            assert!(consumer.pop() == Some(response(number as u32)), "responses come in order");
                        }
                    }
                    (BATCHES_PER_ROUND * batch) as u64
                })
            });
        });
    }
    group.finish();
}

fn response(number: u32) -> Response {
    Response {
        connection: ConnectionId { slot: number, generation: 0 },
        buffer: number as u16,
        requests: 1,
        request_bytes: number,
        offset: 0,
        answer_bytes: 5,
        sequence: number,
        received_at_ns: 0,
        failed: 0,
        shed: 0,
        model_version: 0,
    }
}

/// A server without kernel or threads, and receives to put through it.
struct Bench {
    requests: RequestSide,
    answers: AnswerSide,
    processor: BatchProcessor,
    network: Network,
    events: Vec<InferenceEvent>,
    stopwatch: Stopwatch,
}

impl Bench {
    fn new() -> Bench {
        let wake = Arc::new(Wake::new(ThreadAlarm::default()));
        let geometry = PoolGeometry::for_layout(LAYOUT);
        let (mut sides, processor) = assemble(&[Arc::clone(&wake)], &wake, RECEIVES_PER_ROUND as u32, geometry);
        let IoSide { requests, answers } = sides.pop().expect("one was asked for");
        let (network, stopwatch) = (Network::new(), Stopwatch::new());
        Bench { requests, answers, processor, network, events: Vec::new(), stopwatch }
    }

    /// Receives something on each connection, and makes the events of it.
    fn receive(&mut self, burst: Burst) {
        self.events.clear();
        for index in 0..RECEIVES_PER_ROUND {
            let (buffer, bytes) = self.requests.fill(index as u16, |area| self.network.receive(burst, area));
            let event = self.requests.received(index, buffer, bytes).expect("whole requests were received");
            self.events.push(event);
        }
    }

    /// Publishes the events and answers them, `batch` at a time; returns how long that took.
    fn step(&mut self, batch: usize) -> Duration {
        let step_all = || {
            for events in self.events.chunks(batch) {
                self.requests.publish(events);
                assert!(self.processor.step(|| 0) == Found::Events, "what is published is there");
            }
        };
        self.stopwatch.time(step_all).1
    }

    /// Takes all answers; returns how long that took.
    fn take(&mut self) -> Duration {
        let (answered, took) = self.stopwatch.time(|| self.answers.take(&mut self.requests));
        let requests: u64 = self.events.iter().map(|event| u64::from(event.requests)).sum();
        assert!(answered == requests, "every request is answered");
        took
    }
}
