//! What it costs to bring requests from a filled buffer to the batch processor: framing, event, disruptor, poll.
//!
//! ```sh
//! cargo bench --bench request_flow
//! ```
//!
//! The time is the thread's processor time for one event, which is one receive of one connection. Batches are of 1, 4, 16 and 64 events: a turn
//! of an I/O thread publishes together what its connections have received, and the poll takes all of it.
//!
//! - `publish_and_poll`: `try_batch_publish` and the poll that reads the events; nothing else.
//! - `frame_publish_and_poll`: before that, each buffer is framed, shipped, and made an event of.
//! - `frame_cut`: framing alone, of a stream that is cut anywhere: with and without a request that straddles two
//!   receives, which is copied to a block and from there to the headroom. The difference is what a cut costs.
//!
//! Not here: system calls, the model, and a second thread: both ends of the ring are in this thread's cache. What
//! crossing threads costs is in `hand_off`. What no branch predictor learns is in `parts/bursts.rs`.

#[path = "parts/bursts.rs"]
mod bursts;
#[path = "parts/measure.rs"]
mod measure;
#[path = "parts/request_side.rs"]
mod request_side;
#[path = "parts/stopwatch.rs"]
mod stopwatch;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use disruptor::{BusySpin, build_multi_producer};
use disrust::batch::EventConsumer;
use disrust::connections::framing::PartialRequest;
use disrust::exchange::blocks::BlockPool;
use disrust::exchange::buffer_pool::Buffer;
use disrust::exchange::event::InferenceEvent;
use disrust::exchange::wake::Wake;
use disrust::kernel::ThreadAlarm;
use disrust::limits::{BUFFER_MEMORY_BYTES, ConnectionLimits, PoolGeometry, request_ring_slots};
use fastrand::Rng;

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
    publish_and_poll(&mut criterion);
    frame_publish_and_poll(&mut criterion);
    frame_cut(&mut criterion);
    criterion.final_summary();
}

/// The ring by itself.
fn publish_and_poll(criterion: &mut Criterion) {
    let mut group = group(criterion, "publish_and_poll");
    for batch in BATCHES {
        let mut bench = Bench::new();
        group.bench_function(format!("batch_of_{batch}"), |bencher| {
            let events = vec![InferenceEvent::default(); batch];
            iter_items(bencher, |_| {
                bench.stopwatch.time(|| {
                    for _ in 0..BATCHES_PER_ROUND {
                        bench.requests.publish(&events);
                        poll(&mut bench.consumer, batch);
                    }
                    (BATCHES_PER_ROUND * batch) as u64
                })
            });
        });
    }
    group.finish();
}

/// A turn's receives on their way to the batch processor.
fn frame_publish_and_poll(criterion: &mut Criterion) {
    let mut group = group(criterion, "frame_publish_and_poll");
    for (burst, scenario) in BURSTS {
        for batch in BATCHES {
            let mut bench = Bench::new();
            group.bench_function(format!("{scenario}/batch_of_{batch}"), |bencher| {
                iter_items(bencher, |_| bench.round(burst, batch));
            });
        }
    }
    group.finish();
}

/// Both ends of the ring, and receives to put through it.
struct Bench {
    requests: RequestSide,
    consumer: EventConsumer,
    network: Network,
    received: Vec<(Buffer, usize)>,
    events: Vec<InferenceEvent>,
    stopwatch: Stopwatch,
}

impl Bench {
    fn new() -> Bench {
        let geometry = PoolGeometry::for_layout(LAYOUT);
        let slots = request_ring_slots(1, geometry.buffers);
        let (consumer, builder) = build_multi_producer(slots, InferenceEvent::default, BusySpin).new_event_poller();
        let wake = Arc::new(Wake::new(ThreadAlarm::default()));
        let requests = RequestSide::new(0, RECEIVES_PER_ROUND as u32, geometry, builder.build(), wake);
        Bench {
            requests,
            consumer,
            network: Network::new(),
            received: Vec::new(),
            events: Vec::new(),
            stopwatch: Stopwatch::new(),
        }
    }

    fn round(&mut self, burst: Burst, batch: usize) -> (u64, Duration) {
        for index in 0..RECEIVES_PER_ROUND {
            let fill = |area: &mut [u8]| self.network.receive(burst, area);
            self.received.push(self.requests.fill(index as u16, fill));
        }
        let mut received = self.received.drain(..).enumerate();
        self.stopwatch.time(|| {
            for _ in 0..RECEIVES_PER_ROUND / batch {
                self.events.clear();
                for (connection, (buffer, bytes)) in received.by_ref().take(batch) {
                    let event = self.requests.received(connection, buffer, bytes);
                    self.events.push(event.expect("whole requests were received"));
                }
                self.requests.publish(&self.events);
                poll(&mut self.consumer, batch);
            }
            RECEIVES_PER_ROUND as u64
        })
    }
}

/// Reads all events that are there.
fn poll(consumer: &mut EventConsumer, expected: usize) {
    let Ok(mut events) = consumer.poll() else { panic!("what is published is there") };
    let mut read = 0;
    for event in &mut events {
        black_box(*event);
        read += 1;
    }
    assert!(read == expected, "a poll takes everything");
}

/// What it costs that the network cuts requests where it likes.
fn frame_cut(criterion: &mut Criterion) {
    let mut group = group(criterion, "frame_cut");
    for (burst, scenario) in BURSTS {
        for (cut, straddles) in [("between_requests", false), ("within_requests", true)] {
            let mut framing = Framing::new();
            group.bench_function(format!("{scenario}/{cut}"), |bencher| {
                iter_items(bencher, |_| framing.round(burst, straddles));
            });
        }
    }
    group.finish();
}

/// One connection's framing, over the prepared receives of a round.
struct Framing {
    partial: PartialRequest,
    blocks: BlockPool,
    network: Network,
    random: Rng,
    /// Of each receive: the buffer, the headroom first, and how much was received.
    receives: Vec<(Vec<u8>, usize)>,
    /// The bytes that have come but were cut off from the last receive.
    cut_off: Vec<u8>,
    stopwatch: Stopwatch,
}

impl Framing {
    fn new() -> Framing {
        let geometry = PoolGeometry::for_layout(LAYOUT);
        Framing {
            partial: PartialRequest::default(),
            blocks: BlockPool::new(ConnectionLimits::SERVING.block_sizes(LAYOUT, BUFFER_MEMORY_BYTES)),
            network: Network::new(),
            random: Rng::with_seed(2),
            receives: vec![(vec![0; geometry.buffer_bytes()], 0); RECEIVES_PER_ROUND],
            cut_off: Vec::new(),
            stopwatch: Stopwatch::new(),
        }
    }

    fn round(&mut self, burst: Burst, straddles: bool) -> (u64, Duration) {
        let headroom = PoolGeometry::for_layout(LAYOUT).headroom_bytes;
        for (buffer, received) in &mut self.receives {
            let area = &mut buffer[headroom..];
            let before = self.cut_off.len();
            area[..before].copy_from_slice(&self.cut_off);
            let whole = self.network.receive(burst, &mut area[before..]);
            // The last request of each receive is cut; its end comes first in the next.
            let cut = if straddles { self.random.usize(1..LAYOUT.request_bytes_min()) } else { 0 };
            *received = before + whole - cut;
            self.cut_off.clear();
            self.cut_off.extend_from_slice(&area[*received..*received + cut]);
        }
        self.stopwatch.time(|| {
            for (buffer, received) in &mut self.receives {
                let found = self.partial.join(LAYOUT, buffer, headroom, *received, &mut self.blocks);
                assert!(found.lost.is_none(), "a bench sends good requests");
                black_box(found.framed);
            }
            RECEIVES_PER_ROUND as u64
        })
    }
}
