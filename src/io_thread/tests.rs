//! An I/O thread on a kernel that does what a test says, for what depends on a moment.

use std::time::Duration;

use disruptor::{BusySpin, build_multi_producer};
use disrust_model::Sum;
use disrust_protocol::{RequestLayout, write_request};

use super::*;
use crate::batch::{BatchProcessor, EventConsumer, Found, IoThreadPort};
use crate::connections::{HelloAnswers, Timeouts};
use crate::exchange::event::Response;
use crate::exchange::model_version::ModelVersion;
use crate::exchange::response_queue::{ResponseProducer, response_queue};
use crate::exchange::wake::Alarm;
use crate::kernel::{Queued, Shots, Unacknowledged};
use crate::limits::{ConnectionLimits, PoolGeometry, TICK};
use crate::metrics::BatchMetrics;

const LAYOUT: RequestLayout = RequestLayout::new(1);
const GEOMETRY: PoolGeometry =
    PoolGeometry { buffers: 2, headroom_bytes: LAYOUT.request_bytes_max(), receive_bytes: 1024 };
/// The limit on what a peer may be owed when memory is short.
const OWED_UNDER_PRESSURE: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What the kernel was told, and what it has to say.
#[derive(Default)]
struct Script {
    now_ns: u64,
    completions: VecDeque<Completion<u32>>,
    queued: VecDeque<Queued<u32>>,
    /// Whether there is a Unix socket too, and which accepts were armed.
    listens_at_path: bool,
    accepts: Vec<Entrance>,
    lent: Vec<Buffer>,
    armed: Vec<ConnectionId>,
    half_closed: Vec<u32>,
    aborted: Vec<u32>,
    closed: Vec<u32>,
    listener_closed: bool,
    timers: Vec<u64>,
    /// What every peer leaves unacknowledged.
    unacknowledged_bytes: usize,
    /// Or the memory of what it leaves unread.
    unread_memory_bytes: Option<usize>,
    /// Whether the last enter was one that waits.
    waited: bool,
    /// How long an enter takes that waits, and one that does not.
    sleep_ns: u64,
    submit_ns: u64,
}

impl Kernel for Script {
    type Socket = u32;

    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }
    fn listens(&self, from: Entrance) -> bool {
        from == Entrance::Tcp || self.listens_at_path
    }
    fn accept(&mut self, from: Entrance) {
        self.accepts.push(from);
    }
    fn cancel_accept(&mut self, from: Entrance) {
        self.completions.push_back(Completion::Accepted {
            from,
            result: Err(io::ErrorKind::Other.into()),
            more: false,
        });
    }
    fn accept_queued(&mut self, _from: Entrance) -> Queued<u32> {
        self.queued.pop_front().unwrap_or(Queued::Nothing)
    }
    fn close_listener(&mut self, from: Entrance) {
        self.listener_closed |= from == Entrance::Tcp;
    }
    fn receive(&mut self, _socket: u32, id: ConnectionId, _shots: Shots) {
        self.armed.push(id);
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
        let bytes = Unacknowledged::Bytes(self.unacknowledged_bytes);
        self.unread_memory_bytes.map_or(bytes, Unacknowledged::Memory)
    }
    fn peer_has_vanished(&mut self, _socket: u32) -> bool {
        false
    }
    fn peer(&mut self, _socket: u32) -> Option<Peer> {
        None
    }
    fn half_close(&mut self, socket: u32) {
        self.half_closed.push(socket);
    }
    fn abort(&mut self, socket: u32) {
        self.aborted.push(socket);
    }
    fn close(&mut self, socket: u32) {
        self.closed.push(socket);
    }
    fn provide(&mut self, buffer: Buffer) {
        self.lent.push(buffer);
    }
    fn start_timer(&mut self, after: Duration) {
        self.timers.push(self.now_ns + nanoseconds(after));
    }
    fn await_alarm(&mut self) {}
    fn enter(&mut self, wait: bool) {
        self.now_ns += if wait { self.sleep_ns } else { self.submit_ns };
        self.waited = wait;
    }
    fn next_completion(&mut self) -> Option<Completion<u32>> {
        self.completions.pop_front()
    }
}

struct Nobody;

impl Alarm for Nobody {
    fn ring(&self) {}
}

/// A thread of a server with one, and the batch processor's end of the disruptor and of the responses.
struct Bench {
    thread: IoThread<Script>,
    consumer: EventConsumer,
    responses: ResponseProducer,
}

/// What a thread is made of, the buffers that are lent, and the other ends.
type Made = (IoThreadParts<u32>, Vec<Buffer>, EventConsumer, ResponseProducer);

impl Bench {
    fn new(budget_bytes: usize) -> Bench {
        let (parts, lent, consumer, responses) = Bench::parts(budget_bytes);
        let thread = IoThread::new(Script { lent, ..Script::default() }, parts);
        Bench { thread, consumer, responses }
    }

    fn parts(budget_bytes: usize) -> Made {
        let (consumer, builder) = build_multi_producer(64, InferenceEvent::default, BusySpin).new_event_poller();
        let (responses_in, responses) = response_queue(usize::from(GEOMETRY.buffers));
        let pool = Arc::new(BufferPool::new(GEOMETRY));
        let lent = (0..GEOMETRY.buffers).map(|index| pool.adopt(index)).collect();
        let limits = ConnectionLimits {
            answer_bytes_owed_under_pressure_max: OWED_UNDER_PRESSURE,
            blocks_retained: 0,
            ..ConnectionLimits::SERVING
        };
        let wake = Arc::new(Wake::new(Nobody));
        let parts = IoThreadParts {
            index: 0,
            io_threads: 1,
            pool,
            producer: builder.build(),
            responses,
            wake: Arc::clone(&wake),
            batch: BatchAccess::Wake(Arc::new(Wake::new(Nobody))),
            share: Share::of_all([wake]).remove(0),
            control: Arc::new(Control::new(100)),
            metrics: Arc::new(IoMetrics::default()),
            rules: Rules {
                layout: LAYOUT,
                limits,
                timeouts: Timeouts { request: Some(REQUEST_TIMEOUT), idle: None },
                hello: HelloAnswers::new(LAYOUT, "sum", Arc::new(ModelVersion::new(0))),
            },
            drain_timeout: Duration::from_secs(10),
            connections_max: 100,
            times_backlogs: false,
            connection_age_max: None,
            seed: 1,
            budget_bytes,
        };
        (parts, lent, consumer, responses_in)
    }

    fn kernel(&mut self) -> &mut Script {
        &mut self.thread.kernel
    }

    /// A turn, and what follows it. Returns whether the thread sleeps until something comes.
    fn turn(&mut self) -> bool {
        self.thread.turn();
        self.thread.sleep();
        self.kernel().waited
    }

    /// So much time passes; timers that come due complete.
    fn pass(&mut self, time: Duration) {
        let kernel = self.kernel();
        kernel.now_ns += nanoseconds(time);
        let now_ns = kernel.now_ns;
        let due = kernel.timers.extract_if(.., |due_ns| *due_ns <= now_ns).count();
        kernel.completions.extend((0..due).map(|_| Completion::Timer));
    }

    fn accept(&mut self, sockets: std::ops::Range<u32>) {
        for socket in sockets {
            self.kernel().completions.push_back(Completion::Accepted {
                from: Entrance::Tcp,
                result: Ok(socket),
                more: true,
            });
        }
        self.turn();
    }

    /// The connection's receive brings these bytes, in a buffer that was lent.
    fn arrive(&mut self, place: usize, bytes: &[u8]) {
        let pool = Arc::clone(&self.thread.parts.pool);
        let kernel = self.kernel();
        let id = kernel.armed[place];
        let mut buffer = kernel.lent.pop().expect("a buffer is lent");
        pool.bytes_mut(&mut buffer)[GEOMETRY.headroom_bytes..][..bytes.len()].copy_from_slice(bytes);
        let outcome = ReceiveOutcome::Bytes { buffer, bytes: bytes.len() };
        kernel.completions.push_back(Completion::Received { id, outcome, more: true });
    }

    /// The batch processor answers all requests of one vector that were published.
    fn answer(&mut self) {
        let mut events = self.consumer.poll().expect("something was published");
        for event in &mut events {
            self.responses.push(Response {
                connection: event.connection,
                buffer: event.buffer,
                requests: event.requests,
                request_bytes: event.request_bytes,
                offset: event.offset,
                answer_bytes: 5 * u32::from(event.requests),
                sequence: event.sequence,
                received_at_ns: event.received_at_ns,
                failed: 0,
                shed: 0,
                model_version: 0,
            });
        }
        self.responses.publish();
    }
}

/// Once it is known how long rows take, a thread scores what it has received itself, and the answers go out in the same turn. A
/// bound that it would exceed leaves that to the batch processor's thread.
#[test]
fn what_a_thread_scores_itself_goes_out_in_the_same_turn() {
    for (help_ns_max, helped) in [(1_000_000, 2), (1, 0)] {
        let (mut parts, lent, consumer, responses) = Bench::parts(1 << 20);
        let port = IoThreadPort { pool: Arc::clone(&parts.pool), responses, wake: Arc::clone(&parts.wake) };
        let processor =
            BatchProcessor::new(consumer, vec![port], Box::new(Sum::new(1)), Arc::new(BatchMetrics::default()));
        let role = Arc::new(BatchRole::new(processor, Arc::new(Wake::new(Nobody))).with_help_max(help_ns_max));
        parts.batch = BatchAccess::Role(Arc::clone(&role));
        let metrics = Arc::clone(&parts.metrics);
        let mut thread = IoThread::new(Script { lent, ..Script::default() }, parts);
        let mut request = Vec::new();
        write_request(LAYOUT, &[1.0], &mut request);
        thread.kernel.completions.push_back(Completion::Accepted { from: Entrance::Tcp, result: Ok(0), more: true });
        thread.turn();
        let ticks = std::cell::Cell::new(0);
        for (sent, by_thread) in [(1, true), (2, false), (3, false)] {
            let pool = Arc::clone(&thread.parts.pool);
            let (id, mut buffer) = (thread.kernel.armed[0], thread.kernel.lent.pop().expect("a buffer is lent"));
            pool.bytes_mut(&mut buffer)[GEOMETRY.headroom_bytes..][..request.len()].copy_from_slice(&request);
            let outcome = ReceiveOutcome::Bytes { buffer, bytes: request.len() };
            thread.kernel.completions.push_back(Completion::Received { id, outcome, more: true });
            thread.turn();
            if by_thread || helped == 0 {
                assert_eq!(metrics.answered(), sent - 1, "by nobody yet");
                assert_eq!(role.play(|| ticks.replace(ticks.get() + 100)), Found::Events);
                thread.turn();
            }
            assert_eq!(metrics.answered(), sent);
            let is_sent = matches!(thread.kernel.completions.back(), Some(Completion::Sent { .. }));
            assert!(is_sent, "the answer is on its way without anything else that happens");
        }
        assert_eq!(metrics.helps.get(), helped);
    }
}

/// Whoever was not let receive because memory was short is looked at soon after it is free: no completion tells of that.
#[test]
fn whoever_waited_for_memory_is_not_forgotten() {
    // The beginning of a request takes more than half of it.
    let mut bench = Bench::new(300);
    bench.accept(0..2);
    let mut requests = Vec::new();
    (0..OWED_UNDER_PRESSURE / 5 + 1).for_each(|_| write_request(LAYOUT, &[1.0], &mut requests));
    bench.arrive(0, &requests);
    bench.turn();
    bench.answer();
    bench.turn();
    // The answers are the kernel's, and the peer has not acknowledged them.
    bench.kernel().unacknowledged_bytes = OWED_UNDER_PRESSURE;
    bench.turn();
    bench.arrive(1, &beginning());
    let (waiting, midway) = (bench.kernel().armed[0], bench.kernel().armed[1]);
    bench.kernel().armed.clear();
    let starved = Completion::Received { id: waiting, outcome: ReceiveOutcome::NoBuffers, more: false };
    bench.kernel().completions.push_back(starved);
    bench.turn();
    assert!(bench.thread.starved.is_empty() && bench.kernel().armed.is_empty(), "it may not receive now");
    let end = Completion::Received { id: midway, outcome: ReceiveOutcome::End, more: false };
    bench.kernel().completions.push_back(end);
    bench.turn();
    assert_eq!(bench.thread.blocks.lent(), 0);
    bench.pass(TICK);
    bench.turn();
    bench.pass(Duration::from_micros(1));
    bench.turn();
    assert_eq!(bench.kernel().armed, [waiting]);
    for _ in 0..20 {
        bench.pass(TICK);
        bench.turn();
    }
    assert!(!bench.thread.is_short, "and nobody ticks any more");
}

/// The beginning of a request of 64 vectors.
fn beginning() -> Vec<u8> {
    let mut request = Vec::new();
    write_request(LAYOUT, &[1.0; 64], &mut request);
    request.truncate(100);
    request
}

/// A drain goes on to take what waits in the listener after a try for which there was no descriptor.
#[test]
fn a_queued_connection_waits_for_a_descriptor() {
    let mut bench = Bench::new(1 << 20);
    bench.turn();
    bench.kernel().queued.extend([Queued::NoDescriptor, Queued::Connection(7)]);
    bench.thread.parts.control.request_drain();
    bench.turn();
    bench.turn();
    assert!(!bench.kernel().listener_closed, "one waits in it");
    for _ in 0..10 {
        bench.pass(TICK);
        bench.turn();
    }
    assert!(bench.kernel().listener_closed);
    assert_eq!(bench.thread.parts.metrics.accepted.get(), 1);
}

/// A thread of two, and the other's share.
fn neighbours() -> (IoThread<Script>, Share<u32>) {
    let (mut parts, lent, ..) = Bench::parts(1 << 20);
    let mut shares = Share::of_all([Arc::clone(&parts.wake), Arc::new(Wake::new(Nobody))]);
    let neighbour = shares.remove(1);
    parts.share = shares.remove(0);
    (IoThread::new(Script { lent, ..Script::default() }, parts), neighbour)
}

#[test]
fn connections_go_to_the_thread_with_the_fewest() {
    let (mut thread, neighbour) = neighbours();
    let metrics = Arc::clone(&thread.parts.metrics);
    let accepted = |socket| Completion::Accepted { from: Entrance::Tcp, result: Ok(socket), more: true };
    thread.kernel.completions.extend([1, 2, 3, 4].map(accepted));
    thread.turn();
    assert_eq!((metrics.accepted.get(), metrics.given_away.get(), neighbour.take()), (2, 2, vec![2, 4]));
    (0..2).for_each(|_| neighbour.closed());
    assert_eq!(neighbour.give(0, 5), Ok(()));
    assert!(thread.turn());
    assert_eq!((metrics.accepted.get(), thread.kernel.armed.len()), (3, 3));
    (0..3).for_each(|_| neighbour.opened());
    assert_eq!((neighbour.better_place(), thread.parts.share.better_place()), (None, None), "each has three");
}

#[test]
fn whatever_a_thread_was_given_when_its_listener_closes_it_serves() {
    let (mut thread, neighbour) = neighbours();
    let metrics = Arc::clone(&thread.parts.metrics);
    assert_eq!(neighbour.give(0, 1), Ok(()));
    Entrance::ALL.into_iter().for_each(|from| thread.close_listener(from));
    assert_eq!((metrics.accepted.get(), thread.kernel.armed.len()), (1, 1));
    assert_eq!(neighbour.give(0, 2), Err(2));
}

#[test]
fn a_draining_thread_gives_nothing_away() {
    let (mut thread, neighbour) = neighbours();
    thread.kernel.queued.extend([1, 2].map(Queued::Connection));
    thread.parts.control.request_drain();
    thread.turn();
    thread.turn();
    assert!(thread.kernel.listener_closed && !neighbour.has_guests());
    assert_eq!(thread.parts.metrics.accepted.get(), 2);
}

/// A listener that threads share is accepted from one connection at a time, beside the thread's own; that another thread has begun
/// to end it is no failure; and the thread accepts no more when both are closed.
#[test]
fn a_thread_has_two_listeners() {
    let (parts, lent, _consumer, _responses) = Bench::parts(1 << 20);
    let (control, metrics) = (Arc::clone(&parts.control), Arc::clone(&parts.metrics));
    let mut thread = IoThread::new(Script { lent, listens_at_path: true, ..Script::default() }, parts);
    assert_eq!(thread.kernel.accepts, [Entrance::Tcp, Entrance::Unix]);
    let accepted = |from, result, more| Completion::Accepted { from, result, more };
    thread.kernel.completions.push_back(accepted(Entrance::Tcp, Ok(1), true));
    thread.kernel.completions.push_back(accepted(Entrance::Unix, Ok(2), false));
    thread.turn();
    assert_eq!(thread.kernel.accepts[2..], [Entrance::Unix]);
    let ended = io::Error::from(io::ErrorKind::InvalidInput);
    thread.kernel.completions.push_back(accepted(Entrance::Unix, Err(ended), false));
    thread.turn();
    assert_eq!((thread.kernel.accepts.len(), metrics.accept_failures.get()), (3, 0));
    control.request_drain();
    thread.kernel.queued.extend([Queued::Connection(3), Queued::NoDescriptor]);
    thread.turn();
    assert_eq!((control.listeners_closed(), metrics.accepted.get()), (0, 3), "one of them waits for a descriptor");
    for _ in 0..10 {
        thread.kernel.now_ns += nanoseconds(TICK);
        thread.turn();
    }
    assert_eq!((control.listeners_closed(), metrics.accepted.get()), (1, 3));
}

/// A peer that leaves far more memory unread than it was sent bytes, and less than before, is not late.
#[test]
fn what_a_unix_socket_tells_is_memory() {
    let mut bench = Bench::new(1 << 20);
    bench.accept(0..1);
    let mut request = Vec::new();
    (0..2).for_each(|_| write_request(LAYOUT, &[1.0], &mut request));
    bench.arrive(0, &request);
    bench.turn();
    bench.answer();
    bench.turn();
    let expired_after = |bench: &mut Bench, ticks: usize| {
        for _ in 0..ticks {
            bench.pass(TICK);
            bench.turn();
        }
        bench.kernel().aborted.len()
    };
    bench.kernel().unread_memory_bytes = Some(2000);
    assert_eq!(expired_after(&mut bench, 20), 0);
    bench.kernel().unread_memory_bytes = Some(1000);
    assert_eq!(expired_after(&mut bench, 20), 0, "it reads");
    assert_eq!(expired_after(&mut bench, 60), 1, "and does not any more");
}

/// However long the process was stopped, a request that had begun may still come to its end.
#[test]
fn a_stop_is_not_the_peers_time() {
    let mut bench = Bench::new(1 << 20);
    bench.accept(0..1);
    bench.arrive(0, &beginning());
    bench.turn();
    bench.pass(Duration::from_secs(3600));
    for _ in 0..3 {
        bench.turn();
        bench.pass(Duration::from_micros(1));
    }
    assert!(bench.kernel().aborted.is_empty(), "it had hardly any time");
    for _ in 0..40 {
        bench.pass(TICK);
        bench.turn();
    }
    assert_eq!(bench.kernel().aborted, [0], "and now it had two seconds");
}

/// A thread is busy while it does not wait: neither asleep nor spinning without work. What the kernel does for a turn before the
/// thread sleeps is part of that, as one turn in so many shows.
#[test]
fn busy_time_is_all_but_waiting() {
    for stage_times in [false, true] {
        let (parts, lent, _consumer, _responses) = Bench::parts(1 << 20);
        let parts = IoThreadParts { metrics: Arc::new(IoMetrics::new(stage_times)), ..parts };
        let metrics = Arc::clone(&parts.metrics);
        let script = Script { lent, sleep_ns: 1_000_000, submit_ns: 100, ..Script::default() };
        let mut thread = IoThread::new(script, parts);
        let work = |thread: &mut IoThread<Script>| {
            thread.kernel.completions.push_back(Completion::Alarm);
            assert!(thread.turn());
            thread.kernel.now_ns += 1000;
        };
        let busy_ns = |expected: u64| assert_eq!(metrics.busy_ns.get(), if stage_times { expected } else { 0 });
        for _ in 0..SUBMISSIONS_PER_TIMED_ONE {
            work(&mut thread);
            thread.sleep();
        }
        busy_ns(SUBMISSIONS_PER_TIMED_ONE * (1000 + 100));
        let before_ns = metrics.busy_ns.get();
        for _ in 0..5 {
            assert!(!thread.turn());
            thread.enter();
        }
        busy_ns(before_ns);
        work(&mut thread);
        thread.enter();
        work(&mut thread);
        thread.enter();
        assert!(!thread.turn());
        busy_ns(before_ns + 2 * (1000 + 100));
    }
}

/// A connection that nothing happens to is closed at its age all the same; no two at the same time.
#[test]
fn connections_are_closed_at_their_age() {
    let (parts, lent, consumer, responses) = Bench::parts(1 << 20);
    let parts = IoThreadParts { connection_age_max: Some(Duration::from_secs(100)), ..parts };
    let thread = IoThread::new(Script { lent, ..Script::default() }, parts);
    let mut bench = Bench { thread, consumer, responses };
    bench.accept(0..20);
    let mut closed = Vec::new();
    let begun_at_ns = bench.kernel().now_ns;
    for _ in 0..113 * 20 {
        bench.pass(TICK);
        bench.turn();
        let second = (bench.kernel().now_ns - begun_at_ns) / 1_000_000_000;
        closed.extend((closed.len()..bench.kernel().half_closed.len()).map(|_| second));
    }
    assert!(closed.len() == 20 && closed[0] >= 90, "{closed:?}");
    closed.dedup();
    assert!(closed.len() > 5, "{closed:?}");
}

/// A thread whose budget is lent keeps the buffers that come home, and lends them when a block has come back.
#[test]
fn buffers_stay_at_home_while_the_budget_is_lent() {
    let mut bench = Bench::new(1);
    bench.accept(0..1);
    bench.arrive(0, &beginning());
    bench.turn();
    assert_eq!((bench.kernel().lent.len(), bench.thread.buffers_kept.len()), (1, 1));
    let id = bench.kernel().armed[0];
    bench.kernel().completions.push_back(Completion::Received { id, outcome: ReceiveOutcome::End, more: false });
    bench.turn();
    assert_eq!((bench.kernel().lent.len(), bench.thread.buffers_kept.len()), (2, 0));
}

/// Whoever is midway in a request gets a buffer before those who would begin one.
#[test]
fn what_is_midway_goes_first() {
    let mut bench = Bench::new(1 << 20);
    bench.accept(0..5);
    bench.arrive(4, &beginning());
    bench.turn();
    for place in 0..5 {
        let id = bench.kernel().armed[place];
        let starved = Completion::Received { id, outcome: ReceiveOutcome::NoBuffers, more: false };
        bench.kernel().completions.push_back(starved);
    }
    let midway = bench.kernel().armed[4];
    bench.kernel().armed.clear();
    bench.turn();
    assert_eq!(bench.kernel().armed[0], midway);
}

/// While more connections wait for buffers than could be fed in a turn, and there are buffers, the thread does not sleep.
#[test]
fn whoever_waits_for_a_buffer_is_fed_before_the_thread_sleeps() {
    let mut bench = Bench::new(1 << 20);
    bench.accept(0..5);
    for place in 0..5 {
        let id = bench.kernel().armed[place];
        let starved = Completion::Received { id, outcome: ReceiveOutcome::NoBuffers, more: false };
        bench.kernel().completions.push_back(starved);
    }
    bench.kernel().armed.clear();
    assert!(!bench.turn(), "two were fed, three wait, and there are buffers");
    assert_eq!(bench.kernel().armed.len(), 2);
    assert!(!bench.turn());
    assert!(bench.turn(), "all are fed");
    assert_eq!(bench.kernel().armed.len(), 5);
}
