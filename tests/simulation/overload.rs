//! Overload, in open loop: requests come at a rate of their own, whatever becomes of those before, to a model that takes
//! 50 µs a row; with `--max-queue-delay`, those that are served are served in time.
//!
//! The server's own I/O thread and batch processor on the simulated kernel, without its faults. While the model works, the
//! I/O thread and the clients go on: the model lets them, for as long as it takes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{BusySpin, build_multi_producer};
use disrust::batch::{BatchProcessor, Found, IoThreadPort};
use disrust::connections::{HelloAnswers, Rules, Timeouts};
use disrust::exchange::buffer_pool::BufferPool;
use disrust::exchange::control::Control;
use disrust::exchange::event::InferenceEvent;
use disrust::exchange::response_queue::response_queue;
use disrust::exchange::spread::Share;
use disrust::exchange::wake::Wake;
use disrust::io_thread::{BatchAccess, IoThread, IoThreadParts};
use disrust::limits::{BUFFER_MEMORY_BYTES, ConnectionLimits, PoolGeometry, RECEIVE_BYTES, request_ring_slots};
use disrust::metrics::{BatchMetrics, IoMetrics};
use disrust_model::{Model, PredictError, Rows};
use disrust_protocol::{ERROR_ANSWER_BYTES, ErrorCode, RequestLayout, answer_bytes, write_request};
use fastrand::Rng;

use super::kernel::SimulatedKernel;
use super::network::{Network, Read, StreamNumber};
use super::ring::{Bell, Ring};
use super::swarm::Faults;

const LAYOUT: RequestLayout = RequestLayout::new(16);

/// What the model takes for a row, and so how many it scores in a second.
const ROW_NS: u64 = 50_000;
const CAPACITY: f64 = 1e9 / ROW_NS as f64;

/// How often the I/O thread and the clients look.
const TURN_NS: u64 = 50_000;

/// How long requests come, and those that are asked for before what time are not judged: it takes a while until a queue is
/// taken for an overload.
const LOAD_NS: u64 = 300_000_000;
const WARM_NS: u64 = 80_000_000;

const DELAY: Duration = Duration::from_millis(10);

/// A client that sends when the time has come, and reads at once.
struct Client {
    stream: StreamNumber,
    /// Of the requests that are not answered: what they are known by, and when they had to be sent.
    waiting: VecDeque<(f32, u64)>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
}

/// Everything but the batch processor.
struct Site {
    network: Rc<RefCell<Network>>,
    thread: IoThread<SimulatedKernel>,
    clients: Vec<Client>,
    rng: Rng,
    gap_ns: f64,
    next_at_ns: f64,
    sent: u32,
    /// When each request that was scored had to be sent, and when it was answered.
    scored: Vec<(u64, u64)>,
    shed: u64,
}

impl Site {
    /// So much time passes.
    fn pass(&mut self, ns: u64) {
        let now_ns = self.network.borrow().now_ns;
        let end_ns = now_ns + ns;
        let mut next_ns = now_ns;
        while next_ns < end_ns {
            // Whole turns, wherever they begin.
            next_ns = (next_ns / TURN_NS * TURN_NS + TURN_NS).min(end_ns);
            self.network.borrow_mut().now_ns = next_ns;
            if next_ns.is_multiple_of(TURN_NS) {
                self.turn(next_ns);
            }
        }
    }

    fn turn(&mut self, now_ns: u64) {
        while self.next_at_ns <= now_ns as f64 && self.next_at_ns < LOAD_NS as f64 {
            let client = self.rng.usize(..self.clients.len());
            let client = &mut self.clients[client];
            self.sent += 1;
            let known_by = self.sent as f32;
            client.waiting.push_back((known_by, self.next_at_ns as u64));
            write_request(LAYOUT, &[[known_by].as_slice(), &[0.0; 15]].concat(), &mut client.unsent);
            self.next_at_ns -= self.gap_ns * self.rng.f64().max(f64::MIN_POSITIVE).ln();
        }
        let mut network = self.network.borrow_mut();
        for client in &mut self.clients {
            let taken = network.client_write(client.stream, &client.unsent).expect("the server goes on");
            client.unsent.drain(..taken);
        }
        drop(network);
        self.thread.turn();
        self.thread.enter();
        self.read(now_ns);
    }

    /// All clients read what there is, and compare it with what they have asked.
    fn read(&mut self, now_ns: u64) {
        let mut place = [0; 4096];
        let mut network = self.network.borrow_mut();
        for client in &mut self.clients {
            while network.client_has_input(client.stream) {
                let Read::Bytes(bytes) = network.client_read(client.stream, &mut place) else { panic!("it ends") };
                client.unread.extend_from_slice(&place[..bytes]);
            }
            let mut unread = &client.unread[..];
            while let Some(first) = unread.first() {
                let length = if *first == 0 { ERROR_ANSWER_BYTES } else { answer_bytes(1) };
                let Some((answer, rest)) = unread.split_at_checked(length) else { break };
                let (known_by, due_ns) = client.waiting.pop_front().expect("an answer to a request");
                if answer == ErrorCode::Shed.answer() {
                    self.shed += 1;
                } else {
                    assert_eq!((answer[0], &answer[1..]), (1, &known_by.to_le_bytes()[..]), "in order");
                    self.scored.push((due_ns, now_ns));
                }
                unread = rest;
            }
            client.unread = unread.to_vec();
        }
    }

    fn is_done(&self) -> bool {
        self.next_at_ns >= LOAD_NS as f64 && self.clients.iter().all(|client| client.waiting.is_empty())
    }
}

thread_local! {
    /// What goes on while the model works, on this thread, which is the only one.
    static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
}

fn with_site<T>(act: impl FnOnce(&mut Site) -> T) -> T {
    SITE.with_borrow_mut(|site| act(site.as_mut().expect("a run is under way")))
}

/// Its score is the first feature.
struct Slow;

impl Model for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn feature_dim(&self) -> usize {
        LAYOUT.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        with_site(|site| site.pass(rows.count() as u64 * ROW_NS));
        let mut matrix = vec![0.0; rows.count() * LAYOUT.feature_dim()];
        rows.gather(&mut matrix);
        matrix.chunks(LAYOUT.feature_dim()).zip(scores).for_each(|(row, score)| *score = row[0]);
        Ok(())
    }
}

/// What a connection may have in flight, and what one receive brings.
#[derive(Debug, Clone, Copy)]
struct Size {
    credit_bytes: usize,
    receive_bytes: usize,
}

const SERVING: Size =
    Size { credit_bytes: ConnectionLimits::SERVING.request_bytes_in_flight_max, receive_bytes: RECEIVE_BYTES };
const SMALL: Size = Size { credit_bytes: 4096, receive_bytes: 1024 };

/// What came of a run.
#[derive(Debug)]
struct Outcome {
    shed: u64,
    /// Scores a second while requests came.
    goodput: f64,
    p99_ns: u64,
    step_ns_max: u64,
}

/// Requests come at `load` times the capacity, on so many connections.
fn run(load: f64, connections: usize, size: Size, delay: Option<Duration>) -> Outcome {
    let network = Network::new(Rng::with_seed(1), 1, usize::MAX, 1 << 20, 1 << 20, 1 << 20);
    let network = Rc::new(RefCell::new(network));
    let geometry = PoolGeometry { receive_bytes: size.receive_bytes, ..PoolGeometry::for_layout(LAYOUT) };
    let pool = Arc::new(BufferPool::new(geometry));
    let (bell, control) = (Bell::default(), Arc::new(Control::new(connections)));
    let ring = Ring::new(0, Rc::clone(&network), Rng::with_seed(2), Faults::default(), Arc::clone(&pool), bell, 2048);
    let ring = Rc::new(RefCell::new(ring));
    let slots = request_ring_slots(1, geometry.buffers);
    let (consumer, builder) = build_multi_producer(slots, InferenceEvent::default, BusySpin).new_event_poller();
    let (responses_in, responses) = response_queue(usize::from(geometry.buffers));
    let wake = Arc::new(Wake::new(Bell::default()));
    let port = IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake: Arc::clone(&wake) };
    let mut processor = BatchProcessor::new(consumer, vec![port], Box::new(Slow), Arc::new(BatchMetrics::default()))
        .with_queue_delay_max(delay);
    let parts = IoThreadParts {
        index: 0,
        io_threads: 1,
        pool,
        producer: builder.build(),
        responses,
        wake: Arc::clone(&wake),
        batch: BatchAccess::Wake(Arc::new(Wake::new(Bell::default()))),
        share: Share::of_all([wake]).remove(0),
        control,
        metrics: Arc::new(IoMetrics::default()),
        rules: Rules {
            layout: LAYOUT,
            limits: ConnectionLimits { request_bytes_in_flight_max: size.credit_bytes, ..ConnectionLimits::SERVING },
            timeouts: Timeouts { request: None, idle: None },
            hello: HelloAnswers::new(LAYOUT, "slow", Arc::clone(processor.model_version())),
        },
        drain_timeout: Duration::from_secs(1),
        connections_max: connections,
        times_backlogs: true,
        connection_age_max: None,
        seed: 4,
        budget_bytes: BUFFER_MEMORY_BYTES,
    };
    let thread = IoThread::new(SimulatedKernel(Rc::clone(&ring)), parts);
    let connect = |_| Client {
        stream: network.borrow_mut().connect(0).expect("it listens"),
        waiting: VecDeque::new(),
        unsent: Vec::new(),
        unread: Vec::new(),
    };
    let clients = (0..connections).map(connect).collect();
    let site = Site {
        network: Rc::clone(&network),
        thread,
        clients,
        rng: Rng::with_seed(3),
        gap_ns: 1e9 / (load * CAPACITY),
        next_at_ns: 0.0,
        sent: 0,
        scored: Vec::new(),
        shed: 0,
    };
    SITE.set(Some(site));
    let (mut step_ns_max, now_ns) = (0, || network.borrow().now_ns);
    while !with_site(|site| site.is_done()) {
        let begun_at_ns = now_ns();
        assert!(begun_at_ns < 100 * LOAD_NS, "all are answered in the end");
        if processor.step(now_ns) == Found::Nothing {
            with_site(|site| site.pass(1));
        }
        step_ns_max = step_ns_max.max(now_ns() - begun_at_ns);
    }
    let site = SITE.take().expect("it was under way");
    let in_time = site.scored.iter().filter(|(_, at_ns)| (WARM_NS..LOAD_NS).contains(at_ns)).count();
    let judged = site.scored.iter().filter(|(due_ns, _)| *due_ns >= WARM_NS);
    let mut waits_ns: Vec<u64> = judged.map(|(due_ns, at_ns)| at_ns - due_ns).collect();
    waits_ns.sort_unstable();
    Outcome {
        shed: site.shed,
        goodput: in_time as f64 * 1e9 / (LOAD_NS - WARM_NS) as f64,
        p99_ns: waits_ns[waits_ns.len() * 99 / 100],
        step_ns_max,
    }
}

/// What waits in sockets, for credit or for buffers, counts; so nobody is served late, as much is served as can be, and nobody is
/// shed without need. With the small sizes, what a connection has in the ring is scored in a third of the delay, and no more than
/// a few times that comes through.
#[test]
fn who_is_served_in_an_overload_is_served_in_time() {
    let delay_ns = DELAY.as_nanos() as u64;
    let all: &[_] = &[0.9, 1.0, 2.0, 10.0];
    for (connections, size, loads) in [(1, SERVING, all), (1, SMALL, &all[..3]), (200, SERVING, all)] {
        for &load in loads {
            let outcome = run(load, connections, size, Some(DELAY));
            let said = format!("{connections} connections, {size:?}, {load} × the capacity: {outcome:?}");
            println!("{said}");
            assert!(outcome.shed == 0 || load > 0.9, "{said}");
            assert!(outcome.shed > 0 || load <= 1.0, "{said}");
            assert!(outcome.goodput >= 0.9 * CAPACITY * load.min(1.0), "{said}");
            // To be received, and to be read, takes a turn.
            assert!(outcome.p99_ns <= delay_ns + outcome.step_ns_max + 4 * TURN_NS, "{said}");
        }
    }
}

/// Without a bound, the same overload makes everybody wait.
#[test]
fn without_a_bound_an_overload_is_waited_for() {
    let outcome = run(2.0, 16, SERVING, None);
    assert!(outcome.shed == 0 && outcome.p99_ns > 10 * DELAY.as_nanos() as u64, "{outcome:?}");
}
