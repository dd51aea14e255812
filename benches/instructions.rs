//! What the request path executes, to be counted: an I/O thread and the batch processor's role, which it plays itself, on a kernel
//! that has one connection, sends what it is given at once and always has more to receive. All on one thread, so that it is the same in
//! each run.
//!
//! ```sh
//! scripts/instructions.sh
//! ```
//!
//! It measures no time: valgrind counts what it executes. The arguments are how many requests come together (1 to 64), how often, and
//! what is switched on: `admin` (stage times), `delay` (a bound on waiting), `age` (connections end), or `scrape` (after that many
//! turns the metrics are made that often, and nothing is received).
//!
//! Not here: io_uring, and what the kernel does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{BusySpin, build_multi_producer};
use disrust::batch::{BatchProcessor, BatchRole, Found, IoThreadPort};
use disrust::connections::{HelloAnswers, Rules, Timeouts};
use disrust::exchange::blocks::Block;
use disrust::exchange::buffer_pool::{Buffer, BufferPool};
use disrust::exchange::clock::Clock;
use disrust::exchange::control::Control;
use disrust::exchange::event::{ConnectionId, InferenceEvent};
use disrust::exchange::model_version::ModelVersion;
use disrust::exchange::response_queue::response_queue;
use disrust::exchange::spread::Share;
use disrust::exchange::wake::{Alarm, Wake};
use disrust::io_thread::{BatchAccess, IoThread, IoThreadParts};
use disrust::kernel::{Completion, Entrance, Kernel, Peer, Queued, ReceiveOutcome, Shots, Unacknowledged};
use disrust::limits::{BUFFER_MEMORY_BYTES, ConnectionLimits, PoolGeometry, request_ring_slots};
use disrust::metrics::families::{Facts, STATES, Sources, text};
use disrust::metrics::{BatchMetrics, IoMetrics};
use disrust_model::Sum;
use disrust_protocol::{FEATURE_DIM, RequestLayout, write_request};

const LAYOUT: RequestLayout = RequestLayout::new(FEATURE_DIM);

/// More than a model takes that adds numbers, so that the thread always helps itself.
const HELP_NS_MAX: u64 = u64::MAX;

/// A kernel with one connection.
struct OneConnection {
    clock: Clock,
    pool: Arc<BufferPool>,
    /// What each receive brings.
    requests: Vec<u8>,
    receives_left: u64,
    lent: Vec<Buffer>,
    armed: Option<ConnectionId>,
    completions: VecDeque<Completion<u32>>,
}

impl Kernel for OneConnection {
    type Socket = u32;

    fn now_ns(&mut self) -> u64 {
        self.clock.now_ns()
    }
    fn listens(&self, from: Entrance) -> bool {
        from == Entrance::Tcp
    }
    fn accept(&mut self, from: Entrance) {
        self.completions.push_back(Completion::Accepted { from, result: Ok(1), more: true });
    }
    fn cancel_accept(&mut self, _from: Entrance) {}
    fn accept_queued(&mut self, _from: Entrance) -> Queued<u32> {
        Queued::Nothing
    }
    fn close_listener(&mut self, _from: Entrance) {}
    fn receive(&mut self, _socket: u32, id: ConnectionId, _shots: Shots) {
        self.armed = Some(id);
    }
    fn cancel_receive(&mut self, _id: ConnectionId) {}
    fn send(&mut self, _socket: u32, id: ConnectionId, block: Box<Block>) {
        let sent = block.content().len();
        self.completions.push_back(Completion::Sent { id, block, result: Ok(sent) });
    }
    fn unreceived_bytes(&mut self, _socket: u32) -> usize {
        0
    }
    fn unacknowledged(&mut self, _socket: u32) -> Unacknowledged {
        Unacknowledged::Bytes(0)
    }
    fn peer_has_vanished(&mut self, _socket: u32) -> bool {
        false
    }
    fn peer(&mut self, _socket: u32) -> Option<Peer> {
        None
    }
    fn half_close(&mut self, _socket: u32) {}
    fn abort(&mut self, _socket: u32) {}
    fn close(&mut self, _socket: u32) {}
    fn provide(&mut self, buffer: Buffer) {
        self.lent.push(buffer);
    }
    fn start_timer(&mut self, _after: Duration) {}
    fn await_alarm(&mut self) {}

    /// Requests come when the answers to those before have gone, and the thread waits.
    fn enter(&mut self, wait: bool) {
        if !wait || !self.completions.is_empty() || self.receives_left == 0 {
            return;
        }
        let Some(id) = self.armed else { return };
        let mut buffer = self.lent.pop().expect("the buffers come home");
        let headroom = self.pool.geometry().headroom_bytes;
        self.pool.bytes_mut(&mut buffer)[headroom..][..self.requests.len()].copy_from_slice(&self.requests);
        let outcome = ReceiveOutcome::Bytes { buffer, bytes: self.requests.len() };
        self.completions.push_back(Completion::Received { id, outcome, more: true });
        self.receives_left -= 1;
    }
    fn next_completion(&mut self) -> Option<Completion<u32>> {
        self.completions.pop_front()
    }
}

/// Nobody sleeps.
struct Nobody;

impl Alarm for Nobody {
    fn ring(&self) {}
}

/// What is switched on.
struct Options {
    stage_times: bool,
    queue_delay: Option<Duration>,
    connection_age: Option<Duration>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [together, times, words @ ..] = &arguments[..] else {
        println!("instructions: counted by scripts/instructions.sh");
        return;
    };
    let number = |word: &String| word.parse::<u64>().expect("a number");
    let is_on = |name: &str| words.iter().any(|word| word == name);
    let options = Options {
        stage_times: is_on("admin"),
        queue_delay: is_on("delay").then(|| Duration::from_secs(10)),
        connection_age: is_on("age").then(|| Duration::from_secs(3600)),
    };
    let (io, batch) = exchange(number(together), if is_on("scrape") { 100 } else { number(times) }, &options);
    if is_on("scrape") {
        let facts = Facts { state: STATES[0], io_names: vec!["io-0".to_owned()], ..Facts::default() };
        let io = [io];
        let sources = Sources { io: &io, batch: &batch, facts: &facts };
        let bytes: usize = (0..number(times)).map(|_| text(&sources).len()).sum();
        assert!(bytes > 0, "metrics are text");
    }
}

/// So many requests come together, so often, and are answered. Returns what was counted.
fn exchange(together: u64, times: u64, options: &Options) -> (Arc<IoMetrics>, Arc<BatchMetrics>) {
    let geometry = PoolGeometry::for_layout(LAYOUT);
    let pool = Arc::new(BufferPool::new(geometry));
    let (consumer, builder) =
        build_multi_producer(request_ring_slots(1, geometry.buffers), InferenceEvent::default, BusySpin)
            .new_event_poller();
    let (responses_in, responses) = response_queue(usize::from(geometry.buffers));
    let (wake, batch_wake) = (Arc::new(Wake::new(Nobody)), Arc::new(Wake::new(Nobody)));
    let (io_metrics, batch_metrics) =
        (Arc::new(IoMetrics::new(options.stage_times)), Arc::new(BatchMetrics::new(options.stage_times)));
    let port = IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake: Arc::clone(&wake) };
    let sum = Box::new(Sum::new(FEATURE_DIM));
    let processor = BatchProcessor::new(consumer, vec![port], sum, Arc::clone(&batch_metrics))
        .with_queue_delay_max(options.queue_delay);
    let role = Arc::new(BatchRole::new(processor, batch_wake).with_help_max(HELP_NS_MAX));
    let timeouts = Timeouts { request: Some(Duration::from_secs(30)), idle: None };
    let hello = HelloAnswers::new(LAYOUT, "sum", Arc::new(ModelVersion::new(0)));
    let parts = IoThreadParts {
        index: 0,
        io_threads: 1,
        pool: Arc::clone(&pool),
        producer: builder.build(),
        responses,
        wake: Arc::clone(&wake),
        batch: BatchAccess::Role(Arc::clone(&role)),
        share: Share::of_all([wake]).remove(0),
        control: Arc::new(Control::new(1)),
        metrics: Arc::clone(&io_metrics),
        rules: Rules { layout: LAYOUT, limits: ConnectionLimits::SERVING, timeouts, hello },
        drain_timeout: Duration::from_secs(10),
        connections_max: 1,
        times_backlogs: options.stage_times || options.queue_delay.is_some(),
        connection_age_max: options.connection_age,
        seed: 1,
        budget_bytes: BUFFER_MEMORY_BYTES,
    };
    let mut requests = Vec::new();
    (0..together).for_each(|_| write_request(LAYOUT, &[0.5; FEATURE_DIM], &mut requests));
    let clock = Clock::starting();
    let kernel = OneConnection {
        clock,
        lent: (0..geometry.buffers).map(|index| pool.adopt(index)).collect(),
        pool,
        requests,
        receives_left: times,
        armed: None,
        completions: VecDeque::new(),
    };
    let mut thread = IoThread::new(kernel, parts);
    while io_metrics.answered() < together * times {
        thread.turn();
        thread.sleep();
        // Until it is known how long a row takes, the thread does not help itself.
        if io_metrics.answered() == 0 {
            let found = role.play(|| clock.now_ns());
            assert!(found != Found::End, "the thread is there");
        }
    }
    (io_metrics, batch_metrics)
}
