//! One I/O thread's event loop, in the order in which a request travels through it.
//!
//! It decides nothing about a connection's life (that is [`crate::connections`]) and makes no system call (that is its
//! [`Kernel`]); it brings the two together with the buffers, the disruptor and the response queue.
//! How it waits between turns is [`crate::threads`]' business.
//!
//! Invariants
//! - A buffer is lent to the kernel, in flight, or held for a moment within a turn; none is anywhere else.
//! - Every completion and every response finds its connection, in its slot, of its generation: slots are freed only
//!   when nothing can refer to them.
//! - Publishing never fails: there are as many slots in the ring as buffers in all pools.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{MultiProducer, Producer, SingleConsumerBarrier};
use slab::Slab;

use crate::blocks::{Block, BlockPool};
use crate::buffer_pool::{Buffer, BufferPool};
use crate::connections::{Connection, Drain, Step, Timeouts, Turn};
use crate::control::Control;
use crate::event::{ConnectionId, InferenceEvent};
use crate::kernel::{Completion, Kernel, ReceiveOutcome};
use crate::limits::{
    ACCEPT_RETRY, COMPLETION_ENTRIES, ConnectionLimits, DRAIN_LAST_CALL, DRAIN_REFUSE, SWEEP_INTERVAL_MAX,
    SWEEP_WAIT_MAX, TICK, TRIM_INTERVAL,
};
use crate::logging::LogGate;
use crate::metrics::{DETAILED, IoMetrics, stage_clock_ns};
use crate::protocol::RequestLayout;
use crate::response_queue::ResponseConsumer;
use crate::wake::Wake;

/// The I/O threads' end of the disruptor.
pub type EventProducer = MultiProducer<InferenceEvent, SingleConsumerBarrier>;

/// What an I/O thread is made of, beside its kernel.
pub struct IoThreadParts {
    /// Which of the I/O threads this is.
    pub index: u16,
    /// How many there are.
    pub io_threads: usize,
    /// Sizes of requests.
    pub layout: RequestLayout,
    /// The thread's buffers; the kernel lends them.
    pub pool: Arc<BufferPool>,
    /// Where events go.
    pub producer: EventProducer,
    /// Where responses come from.
    pub responses: ResponseConsumer,
    /// This thread, as the batch processor wakes it.
    pub wake: Arc<Wake>,
    /// The batch processor.
    pub batch_wake: Arc<Wake>,
    /// The server's state.
    pub control: Arc<Control>,
    /// What this thread counts.
    pub metrics: Arc<IoMetrics>,
    /// What connections may take.
    pub limits: ConnectionLimits,
    /// Deadlines of connections.
    pub timeouts: Timeouts,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Connections that there can be at once, on all threads together.
    pub connections_max: usize,
}

/// An I/O thread's state.
pub struct IoThread<K: Kernel> {
    kernel: K,
    parts: IoThreadParts,
    connections: Slab<Connection<K::Socket>>,
    /// One more than the highest slot that was ever used.
    slots_end: usize,
    /// Generation of the next connection.
    generation: u32,
    /// This turn, read from the clock and the control when it begins.
    turn: Turn,
    /// Events of this turn, published together.
    events: Vec<InferenceEvent>,
    /// Slots of connections that something happened to in this turn; a slot may stand here twice.
    touched: Vec<u32>,
    /// Connections whose receive found no buffer, the longest waiting first. Some may be gone.
    starved: VecDeque<ConnectionId>,
    /// Buffers that the kernel may fill.
    buffers_lent: usize,
    send_blocks: BlockPool,
    partial_blocks: BlockPool,
    accept: Accept,
    sweep_interval_ns: u64,
    swept_at_ns: u64,
    /// The tick at which the next sweep became due.
    sweep_due_at_ns: Option<u64>,
    trimmed_at_ns: u64,
    drain_began_ns: Option<u64>,
    rejected_log: LogGate,
    accept_log: LogGate,
    framing_log: LogGate,
}

/// The state of accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accept {
    Armed,
    /// It failed; the next try is due at this time.
    Paused {
        until_ns: u64,
    },
    /// A cancel is under way.
    Ending,
    /// The listener is closed.
    Closed,
}

impl<K: Kernel> IoThread<K> {
    /// A thread that accepts, once it takes turns. All buffers of the pool have been lent to the kernel.
    pub fn new(mut kernel: K, parts: IoThreadParts) -> IoThread<K> {
        kernel.accept();
        kernel.await_alarm();
        kernel.start_timer(TICK);
        let buffers = usize::from(parts.pool.geometry().buffers);
        let completions = COMPLETION_ENTRIES as usize;
        let limits = parts.limits;
        IoThread {
            kernel,
            connections: Slab::with_capacity(parts.connections_max),
            slots_end: 0,
            generation: 0,
            turn: Turn { now_ns: 0, drain: Drain::No, limits },
            events: Vec::with_capacity(buffers),
            touched: Vec::with_capacity(2 * completions + buffers),
            starved: VecDeque::with_capacity(parts.connections_max),
            buffers_lent: buffers,
            send_blocks: BlockPool::new(limits.send_block_bytes, limits.send_blocks_retained),
            partial_blocks: BlockPool::new(parts.layout.request_bytes_max(), limits.partial_blocks_retained),
            accept: Accept::Armed,
            sweep_interval_ns: nanoseconds(sweep_interval(parts.timeouts)),
            swept_at_ns: 0,
            sweep_due_at_ns: None,
            trimmed_at_ns: 0,
            drain_began_ns: None,
            rejected_log: LogGate::default(),
            accept_log: LogGate::default(),
            framing_log: LogGate::default(),
            parts,
        }
    }

    /// One turn of the loop: takes what the kernel and the batch processor have for this thread, and queues what
    /// follows from it. Returns whether there was anything. Call [`IoThread::enter`] or [`IoThread::sleep`] next.
    pub fn turn(&mut self) -> bool {
        self.begin_turn();
        let (mut worked, mut ticked) = (false, false);
        while let Some(completion) = self.kernel.next_completion() {
            let is_tick = matches!(completion, Completion::Timer);
            (worked, ticked) = (worked | !is_tick, ticked | is_tick);
            self.completed(completion);
        }
        self.publish_events();
        worked |= self.take_responses();
        self.carry_on_touched();
        // Before the starved are fed: their bytes may have waited for buffers, and the kernel is not asked yet.
        self.sweep_when_due(worked);
        self.feed_starved();
        self.retry_accept_when_due();
        let buffers = usize::from(self.parts.pool.geometry().buffers);
        self.parts.metrics.buffers_in_use_peak.raise(buffers - self.buffers_lent);
        worked | ticked
    }

    /// Submits what the turn has queued, without waiting.
    pub fn enter(&mut self) {
        self.kernel.enter(false);
    }

    /// Submits what the turn has queued and sleeps until the kernel or the batch processor has something.
    pub fn sleep(&mut self) {
        self.fall_asleep();
        self.wake_up();
    }

    /// The first half of [`IoThread::sleep`], which ends when the kernel's wait ends: on a kernel that cannot block,
    /// others go on from here until there is a completion.
    pub fn fall_asleep(&mut self) {
        self.parts.wake.flag.announce_sleep();
        let nothing_there = self.parts.responses.is_empty();
        self.kernel.enter(nothing_there);
    }

    /// The second half of [`IoThread::sleep`].
    pub fn wake_up(&mut self) {
        self.parts.wake.flag.announce_awake();
    }

    /// The time of the last turn.
    pub fn now_ns(&self) -> u64 {
        self.turn.now_ns
    }

    /// The clock.
    pub fn read_clock_ns(&mut self) -> u64 {
        self.kernel.now_ns()
    }

    /// Whether the drain is over.
    pub fn is_finished(&self) -> bool {
        self.accept == Accept::Closed && self.connections.is_empty()
    }

    /// Ends a finished thread: nothing may be in flight, lent or owed.
    ///
    /// # Panics
    /// If something is: it has been lost.
    pub fn finish(self) {
        assert!(self.is_finished(), "a thread ends after its drain");
        assert!(self.buffers_lent == usize::from(self.parts.pool.geometry().buffers), "every buffer came home");
        assert!(self.send_blocks.lent() == 0 && self.partial_blocks.lent() == 0, "every block came home");
    }

    fn begin_turn(&mut self) {
        self.turn.now_ns = self.kernel.now_ns();
        if self.parts.control.drain_requested() {
            self.turn.drain = self.drain();
        }
    }

    fn completed(&mut self, completion: Completion<K::Socket>) {
        match completion {
            Completion::Accepted { result, more } => self.accept_completed(result, more),
            Completion::Received { id, outcome, more } => self.receive_completed(id, outcome, more),
            Completion::Sent { id, block, result } => self.send_completed(id, block, result),
            Completion::Alarm => self.kernel.await_alarm(),
            Completion::Timer => self.tick(),
        }
    }

    // ---- A connection comes.

    fn accept_completed(&mut self, result: Result<K::Socket, io::Error>, more: bool) {
        let failed = result.is_err();
        match result {
            Ok(socket) => self.accepted(socket),
            Err(error) if self.accept != Accept::Ending => {
                self.parts.metrics.accept_failures.add(1);
                if let Some(suppressed) = self.accept_log.pass(self.turn.now_ns) {
                    tracing::warn!(%error, suppressed, "accepting failed; it is tried again later");
                }
            }
            Err(_) => {}
        }
        if more {
            return;
        }
        match self.accept {
            Accept::Armed if failed => {
                // Descriptors or memory have run out. Trying again at once would fail at once, over and over.
                let pause_ns = nanoseconds(ACCEPT_RETRY) * self.parts.io_threads as u64;
                self.accept = Accept::Paused { until_ns: self.turn.now_ns + pause_ns };
            }
            Accept::Armed => self.kernel.accept(),
            Accept::Ending => self.accept_ended(),
            Accept::Paused { .. } | Accept::Closed => unreachable!("an accept ends once"),
        }
    }

    fn accepted(&mut self, socket: K::Socket) {
        if !self.parts.control.open_connection() {
            self.kernel.close(socket);
            self.parts.metrics.rejected.add(1);
            if let Some(suppressed) = self.rejected_log.pass(self.turn.now_ns) {
                let limit = self.parts.connections_max;
                tracing::warn!(limit, suppressed, "a connection over the limit was closed at once");
            }
            return;
        }
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("the limit on connections fits a slot number");
        let id = ConnectionId { slot, generation: self.generation };
        self.generation = self.generation.wrapping_add(1);
        entry.insert(Connection::new(id, socket, self.turn.now_ns));
        self.slots_end = self.slots_end.max(slot as usize + 1);
        self.parts.metrics.accepted.add(1);
        self.carry_on(slot);
    }

    // ---- Its requests come in, and go to the batch processor.

    fn receive_completed(&mut self, id: ConnectionId, outcome: ReceiveOutcome, more: bool) {
        let connection = connection(&mut self.connections, id);
        if !more {
            connection.receive_ended();
        }
        match outcome {
            ReceiveOutcome::Bytes { buffer, bytes } => self.received(id, buffer, bytes),
            ReceiveOutcome::End => connection.end_received(&mut self.partial_blocks),
            ReceiveOutcome::NoBuffers => {
                connection.starve();
                self.starved.push_back(id);
                self.parts.metrics.starved.add(1);
            }
            ReceiveOutcome::Ended => {}
            ReceiveOutcome::Failed(_) => {
                connection.abandon(&mut self.send_blocks, &mut self.partial_blocks);
                self.parts.metrics.broken.add(1);
            }
        }
        self.touched.push(id.slot);
    }

    fn received(&mut self, id: ConnectionId, mut buffer: Buffer, bytes: usize) {
        self.buffers_lent -= 1;
        self.parts.metrics.received_bytes.add(bytes as u64);
        let connection = connection(&mut self.connections, id);
        let pool = &self.parts.pool;
        let headroom = pool.geometry().headroom_bytes;
        let space = pool.bytes_mut(&mut buffer);
        let received =
            connection.received(self.parts.layout, space, headroom, bytes, self.turn, &mut self.partial_blocks);
        if let Some(bad) = received.bad {
            self.parts.metrics.framing_errors.add(1);
            if let Some(suppressed) = self.framing_log.pass(self.turn.now_ns) {
                tracing::warn!(%bad, suppressed, "a peer sent a bad request; its connection is closed");
            }
        }
        self.parts.metrics.refused.add(u64::from(received.refused));
        match received.burst {
            Some(burst) => {
                let index = pool.ship(buffer);
                self.events.push(connection.publish(burst, self.parts.index, index));
                self.parts.metrics.requests.add(u64::from(burst.requests));
            }
            None => self.provide(buffer),
        }
    }

    fn publish_events(&mut self) {
        if self.events.is_empty() {
            return;
        }
        if DETAILED {
            let now_ns = stage_clock_ns();
            self.events.iter_mut().for_each(|event| event.published_at_ns = now_ns);
        }
        let events = &self.events;
        // Plain stores only: a closure that panicked or stopped early would leave the ring broken for good.
        let published = self.parts.producer.try_batch_publish(events.len(), |slots| {
            for (slot, event) in slots.zip(events) {
                *slot = *event;
            }
        });
        if published.is_err() {
            self.parts.metrics.request_ring_full.add(1);
        }
        assert!(published.is_ok(), "the request ring holds as many events as there are buffers");
        self.parts.metrics.events.add(events.len() as u64);
        self.events.clear();
        let metrics = &self.parts.metrics;
        let counter = if self.parts.batch_wake.wake_sleeper() { &metrics.wakes } else { &metrics.wakes_coalesced };
        counter.add(1);
    }

    // ---- Its answers come back, and go out.

    fn take_responses(&mut self) -> bool {
        if self.parts.responses.is_empty() {
            return false;
        }
        let now_ns = stage_clock_ns();
        let mut taken = 0;
        while let Some(response) = self.parts.responses.pop() {
            taken += 1;
            self.parts.metrics.round_ns.record(now_ns.saturating_sub(response.published_at_ns));
            let buffer = self.parts.pool.adopt(response.buffer);
            let start = response.offset as usize;
            let answers = &self.parts.pool.bytes(&buffer)[start..start + response.answer_bytes as usize];
            let connection = connection(&mut self.connections, response.connection);
            let kept = connection.answered(self.parts.layout, &response, answers, self.turn, &mut self.send_blocks);
            let counter = if kept { &self.parts.metrics.answered } else { &self.parts.metrics.discarded };
            counter.add(u64::from(response.requests));
            self.provide(buffer);
            self.touched.push(response.connection.slot);
        }
        self.parts.metrics.responses.add(taken as u64);
        self.parts.metrics.responses_peak.raise(taken);
        true
    }

    fn send_completed(&mut self, id: ConnectionId, block: Box<Block>, result: Result<usize, io::Error>) {
        let connection = connection(&mut self.connections, id);
        let sent = *result.as_ref().unwrap_or(&0);
        self.parts.metrics.sent_bytes.add(sent as u64);
        if result.is_ok() && sent < block.content().len() {
            self.parts.metrics.partial_sends.add(1);
        }
        connection.send_completed(block, sent, self.turn, &mut self.send_blocks);
        if result.is_err() {
            connection.abandon(&mut self.send_blocks, &mut self.partial_blocks);
            self.parts.metrics.broken.add(1);
        }
        self.touched.push(id.slot);
    }

    // ---- Whatever a connection needs next.

    fn carry_on_touched(&mut self) {
        for index in 0..self.touched.len() {
            self.carry_on(self.touched[index]);
        }
        self.touched.clear();
    }

    /// Carries out every operation that is due for a connection. Does nothing if there is none in the slot any more.
    fn carry_on(&mut self, slot: u32) {
        let key = slot as usize;
        while let Some(connection) = self.connections.get_mut(key)
            && let Some(step) = connection.next_step(self.turn, &mut self.send_blocks)
        {
            let (id, socket) = (connection.id, connection.socket);
            match step {
                Step::Send(block) => self.kernel.send(socket, id, block),
                Step::Receive(shots) => self.kernel.receive(socket, id, shots),
                Step::CancelReceive => self.kernel.cancel_receive(id),
                Step::HalfClose => self.kernel.half_close(socket),
                Step::Abort => self.kernel.abort(socket),
                Step::Close => {
                    self.kernel.close(socket);
                    self.descriptor_freed();
                }
                Step::Free => {
                    self.connections.remove(key);
                    self.parts.control.close_connection();
                    self.parts.metrics.closed.add(1);
                }
            }
        }
    }

    fn provide(&mut self, buffer: Buffer) {
        self.kernel.provide(buffer);
        self.buffers_lent += 1;
    }

    /// Arms the receives of connections that found no buffer, as many as there are buffers now.
    fn feed_starved(&mut self) {
        for _ in 0..self.buffers_lent {
            let Some(id) = self.starved.pop_front() else { return };
            match self.connections.get_mut(id.slot as usize) {
                Some(connection) if connection.id == id => {
                    connection.feed();
                    self.carry_on(id.slot);
                }
                // It is gone, and another may have its slot.
                Some(_) | None => {}
            }
        }
    }

    // ---- Time passes.

    fn tick(&mut self) {
        self.kernel.start_timer(TICK);
        let now_ns = self.turn.now_ns;
        if now_ns - self.trimmed_at_ns >= nanoseconds(TRIM_INTERVAL) {
            self.trimmed_at_ns = now_ns;
            self.trim();
        }
        if self.turn.drain > Drain::No || now_ns - self.swept_at_ns >= self.sweep_interval_ns {
            self.sweep_due_at_ns.get_or_insert(now_ns);
        }
    }

    /// Sweeps, if a tick has asked for it and what arrived before that tick has been taken.
    ///
    /// This thread may have been stopped for longer than a deadline is long. Then the timer's completion can come
    /// before those of bytes that arrived in time: io_uring hands out a bounded number each time it is entered. So the
    /// deadlines are judged as of the tick, and only after the kernel, entered since, had nothing else; `worked` says
    /// that this turn had. A thread that is never without work sweeps after a while all the same.
    fn sweep_when_due(&mut self, worked: bool) {
        let Some(due_at_ns) = self.sweep_due_at_ns else { return };
        let waited_ns = self.turn.now_ns - due_at_ns;
        if waited_ns > 0 && (!worked || waited_ns >= nanoseconds(SWEEP_WAIT_MAX)) {
            self.sweep_due_at_ns = None;
            self.swept_at_ns = due_at_ns;
            self.sweep(due_at_ns);
        }
    }

    /// Holds every connection to its deadlines, as of a time at which all that had arrived has been taken.
    fn sweep(&mut self, as_of_ns: u64) {
        let cut = self.drain_is_over();
        let as_of = Turn { now_ns: as_of_ns, ..self.turn };
        for key in 0..self.slots_end {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let expiry = connection.expired(self.parts.timeouts, as_of);
            if cut && !connection.is_gone() {
                connection.abandon(&mut self.send_blocks, &mut self.partial_blocks);
                self.parts.metrics.cut.add(1);
            } else if let Some(expiry) = expiry {
                connection.expire(expiry, &mut self.send_blocks, &mut self.partial_blocks);
                self.parts.metrics.expired.add(1);
            }
            self.carry_on(key as u32);
        }
    }

    /// Gives memory back that nobody has needed since the last time.
    fn trim(&mut self) {
        let bytes = self.send_blocks.trim() + self.partial_blocks.trim();
        self.parts.metrics.trimmed_bytes.add(bytes as u64);
    }

    // ---- Accepting goes on after a failure.

    /// A descriptor may be what accepting waits for.
    fn descriptor_freed(&mut self) {
        if let Accept::Paused { until_ns } = &mut self.accept {
            *until_ns = self.turn.now_ns;
        }
    }

    fn retry_accept_when_due(&mut self) {
        if let Accept::Paused { until_ns } = self.accept
            && until_ns <= self.turn.now_ns
        {
            self.accept = Accept::Armed;
            self.kernel.accept();
        }
    }

    // ---- It ends.

    /// How far the drain is; begins it if it has not begun.
    fn drain(&mut self) -> Drain {
        let began_ns = match self.drain_began_ns {
            Some(began_ns) => began_ns,
            None => self.begin_drain(),
        };
        let elapsed_ns = self.turn.now_ns - began_ns;
        if elapsed_ns < nanoseconds(DRAIN_LAST_CALL) {
            Drain::LastCall
        } else if elapsed_ns < nanoseconds(DRAIN_LAST_CALL + DRAIN_REFUSE) {
            Drain::Refuse
        } else {
            Drain::Finish
        }
    }

    fn begin_drain(&mut self) -> u64 {
        self.drain_began_ns = Some(self.turn.now_ns);
        match self.accept {
            Accept::Armed => {
                self.accept = Accept::Ending;
                self.kernel.cancel_accept();
            }
            Accept::Paused { .. } => self.accept_ended(),
            Accept::Ending | Accept::Closed => unreachable!("a drain begins once"),
        }
        self.turn.now_ns
    }

    /// Takes the connections that are established already: closing the listener would reset them.
    fn accept_ended(&mut self) {
        while let Some(socket) = self.kernel.accept_queued() {
            self.accepted(socket);
        }
        self.kernel.close_listener();
        self.parts.control.listener_closed();
        self.accept = Accept::Closed;
    }

    fn drain_is_over(&self) -> bool {
        let timed_out = self
            .drain_began_ns
            .is_some_and(|began_ns| self.turn.now_ns - began_ns >= nanoseconds(self.parts.drain_timeout));
        timed_out || self.parts.control.cut_requested()
    }
}

/// The connection that a completion or response is for.
fn connection<S: Copy>(connections: &mut Slab<Connection<S>>, id: ConnectionId) -> &mut Connection<S> {
    let connection = connections.get_mut(id.slot as usize).expect("a slot is freed when nothing refers to it");
    assert!(connection.id == id, "a slot is reused when nothing refers to its last tenant");
    connection
}

/// Often enough that a deadline passes at most an eighth late, and not more often than the timer.
fn sweep_interval(timeouts: Timeouts) -> Duration {
    let shortest = [timeouts.request, timeouts.idle].into_iter().flatten().min();
    shortest.map_or(SWEEP_INTERVAL_MAX, |shortest| (shortest / 8).clamp(TICK, SWEEP_INTERVAL_MAX))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
