//! What the sizes of a buffer pool cost: how large the pool is, and how large each of its buffers.
//!
//! ```sh
//! cargo bench --bench buffer_pool_bench                      # both
//! cargo bench --bench buffer_pool_bench -- --pool-sizes      # pools of 256 KiB to 64 MiB
//! cargo bench --bench buffer_pool_bench -- --alloc-sizes     # buffers of 4 KiB to 256 KiB
//! ```
//!
//! One thread takes every buffer of a pool in turn, first in, first out, as the kernel's ring of provided buffers does:
//! it adopts the buffer, writes what the kernel would have written, frames it (with the copy of a cut-off request to
//! the headroom), publishes it, lets the batch processor sum it and write the answers over it, copies the answers out
//! and ships the buffer. All of it is the server's own code but for the kernel's write, which is a copy from a stream
//! of requests. The time is the thread's processor time for one request, the copy included.
//!
//! - `pool_sizes`: buffers as large as the server's; the pool's bytes are those of its receive areas. Full receives touch
//!   nearly all of them; few requests (1 to 32) touch the front of each buffer only, which is what most receives do.
//! - `alloc_sizes`: a pool as large as the server's, cut into more or fewer buffers, which a peer fills.
//!
//! Not here: system calls, other threads, more than one burst for a step of the batch processor, and other processes'
//! use of the cache.
//!
//! No branch predictor learns the input: all features are random, though the sum does not branch on them, and what
//! code does branch on, the length of a receive and so where requests are cut and how many are whole, is drawn anew
//! for each receive from a generator whose period is 2⁶⁴.

#[path = "parts/answer_side.rs"]
mod answer_side;
#[path = "parts/measure.rs"]
mod measure;
#[path = "parts/request_side.rs"]
mod request_side;
#[path = "parts/stopwatch.rs"]
mod stopwatch;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use disrust::batch::{BatchProcessor, Found};
use disrust::exchange::wake::Wake;
use disrust::kernel::ThreadAlarm;
use disrust::limits::{BUFFERS_PER_THREAD, POOL_BYTES, PoolGeometry, RECEIVE_BYTES};
use disrust_protocol::write_request;
use fastrand::Rng;

use answer_side::{AnswerSide, IoSide, assemble};
use measure::{criterion, group, iter_items};
use request_side::{LAYOUT, RequestSide};
use stopwatch::Stopwatch;

/// Receives in a round, so that reading the clock costs nothing beside them.
const RECEIVES_PER_ROUND: usize = 16;

/// Bytes of the stream before it repeats: small beside the second-level cache, which is for the pool.
const STREAM_BYTES: usize = 96 * 1024;

const KIB: usize = 1024;

fn main() {
    select_groups();
    let mut criterion = criterion(20, Duration::from_millis(600));
    pool_sizes(&mut criterion);
    alloc_sizes(&mut criterion);
    criterion.final_summary();
}

/// Translates `--pool-sizes` and `--alloc-sizes` to criterion's filter. Criterion reads the process's own arguments and
/// knows no others, so the process starts itself again with those that it knows.
fn select_groups() {
    const FILTERS: [(&str, &str); 2] = [("--pool-sizes", "^pool_sizes/"), ("--alloc-sizes", "^alloc_sizes/")];
    let (selectors, mut arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| FILTERS.iter().any(|(selector, _)| selector == argument));
    if selectors.is_empty() {
        return;
    }
    let selected = FILTERS.iter().filter(|(selector, _)| selectors.iter().any(|given| given == selector));
    arguments.push(selected.map(|(_, filter)| *filter).collect::<Vec<_>>().join("|"));
    let itself = std::env::current_exe().expect("the system says where this program is");
    let error = Command::new(itself).args(arguments).exec();
    panic!("cannot start again: {error}");
}

/// The effect of the caches: the same work, in ever more memory.
fn pool_sizes(criterion: &mut Criterion) {
    let mut group = group(criterion, "pool_sizes");
    let usual = PoolGeometry::for_layout(LAYOUT);
    for (scenario, vectors, receives) in [
        ("few_requests_of_1_vector", 1, Receives::UpTo(32 * LAYOUT.request_bytes(1))),
        ("full_receives_of_1_vector", 1, Receives::Full),
        ("full_receives_of_64_vectors", 64, Receives::Full),
    ] {
        for pool_kib in [256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
            let buffers = u16::try_from(pool_kib * KIB / RECEIVE_BYTES).expect("a pool has few buffers");
            let mut bench = Bench::new(PoolGeometry { buffers, ..usual }, vectors, receives);
            group.bench_function(format!("{scenario}/{pool_kib}_KiB"), |bencher| {
                iter_items(bencher, |_| bench.round());
            });
        }
    }
    group.finish();
}

/// The effect of cutting: small buffers mean more events, and more requests that straddle two of them.
fn alloc_sizes(criterion: &mut Criterion) {
    let mut group = group(criterion, "alloc_sizes");
    let usual = PoolGeometry::for_layout(LAYOUT);
    assert!(usual.buffers == BUFFERS_PER_THREAD, "the usual pool is {} KiB", POOL_BYTES / KIB);
    for (scenario, vectors) in [("full_receives_of_1_vector", 1), ("full_receives_of_64_vectors", 64)] {
        for buffer_kib in [4, 8, 16, 32, 64, 128, 256] {
            let receive_bytes = buffer_kib * KIB;
            let buffers = u16::try_from(POOL_BYTES / receive_bytes).expect("a pool has few buffers");
            let geometry = PoolGeometry { buffers, receive_bytes, ..usual };
            let mut bench = Bench::new(geometry, vectors, Receives::Full);
            group.bench_function(format!("{scenario}/{buffer_kib}_KiB"), |bencher| {
                iter_items(bencher, |_| bench.round());
            });
        }
    }
    group.finish();
}

/// How much a receive brings.
#[derive(Clone, Copy)]
enum Receives {
    /// The buffer's receive area, but for a random part of its last eighth.
    Full,
    /// 1 byte to this many.
    UpTo(usize),
}

/// A flow of requests, timed.
struct Bench {
    flow: Flow,
    stopwatch: Stopwatch,
}

/// One connection of one I/O thread, whose bytes pass through one buffer after the other.
struct Flow {
    requests: RequestSide,
    answers: AnswerSide,
    processor: BatchProcessor,
    stream: Stream,
    receives: Receives,
    random: Rng,
    next_buffer: u16,
}

impl Bench {
    fn new(geometry: PoolGeometry, vectors: usize, receives: Receives) -> Bench {
        let wake = Arc::new(Wake::new(ThreadAlarm::default()));
        let (mut sides, processor) = assemble(&[Arc::clone(&wake)], &wake, 1, geometry);
        let IoSide { requests, answers } = sides.pop().expect("one was asked for");
        let mut random = Rng::with_seed(1);
        let stream = Stream::new(vectors, &mut random);
        let flow = Flow { requests, answers, processor, stream, receives, random, next_buffer: 0 };
        Bench { flow, stopwatch: Stopwatch::new() }
    }

    /// Some receives; returns how many requests they answered, and the time that took.
    fn round(&mut self) -> (u64, Duration) {
        // Small buffers may hold no whole request, but not all of them.
        let Bench { flow, stopwatch } = self;
        stopwatch.time(|| (0..RECEIVES_PER_ROUND).map(|_| flow.receive_and_answer()).sum())
    }
}

impl Flow {
    /// One buffer's way; returns how many requests became whole.
    fn receive_and_answer(&mut self) -> u64 {
        let geometry = self.requests.pool.geometry();
        let bytes = match self.receives {
            Receives::Full => geometry.receive_bytes - self.random.usize(..geometry.receive_bytes / 8),
            Receives::UpTo(bytes_max) => self.random.usize(1..=bytes_max),
        };
        let index = self.next_buffer;
        self.next_buffer = (index + 1) % geometry.buffers;
        let (buffer, bytes) = self.requests.fill(index, |area| self.stream.write(&mut area[..bytes]));
        let Some(event) = self.requests.received(0, buffer, bytes) else { return 0 };
        self.requests.publish(&[event]);
        assert!(self.processor.step(|| 0) == Found::Events, "what is published is there");
        self.answers.take(&mut self.requests)
    }
}

/// What a peer sends: requests without end, of random rows.
struct Stream {
    requests: Vec<u8>,
    position: usize,
}

impl Stream {
    fn new(vectors: usize, random: &mut Rng) -> Stream {
        let mut requests = Vec::new();
        while requests.len() < STREAM_BYTES {
            let rows: Vec<f32> = (0..vectors * LAYOUT.feature_dim()).map(|_| random.f32() - 0.5).collect();
            write_request(LAYOUT, &rows, &mut requests);
        }
        Stream { requests, position: 0 }
    }

    /// Fills `place` with what comes next.
    fn write(&mut self, mut place: &mut [u8]) -> usize {
        let bytes = place.len();
        while !place.is_empty() {
            let next = &self.requests[self.position..];
            let count = next.len().min(place.len());
            let (front, rest) = place.split_at_mut(count);
            front.copy_from_slice(&next[..count]);
            place = rest;
            self.position = (self.position + count) % self.requests.len();
        }
        bytes
    }
}
