//! One I/O thread's event loop, in the order in which a request travels through it.
//!
//! It decides nothing about a connection's life (that is [`crate::connections`]) and makes no system call (that is its
//! [`Kernel`]); it brings the two together with the buffers, the disruptor and the response queue.
//! How it waits between turns is [`crate::server::threads`]' business.
//!
//! Invariants
//! - A buffer is lent to the kernel, in flight, or held for a moment within a turn; none is anywhere else.
//! - Every completion and every response finds its connection, in its slot, of its generation: slots are freed only
//!   when nothing can refer to them.
//! - Publishing never fails: there are as many slots in the ring as buffers in all pools.
//! - What peers leave unread or unfinished takes no more than the budget for blocks, and what the buffers that were lent by
//!   then bring: a thread whose budget is lent keeps its buffers until something comes back.
//! - Whatever is due has a timer before it, and where nothing is due there is none: an idle thread sleeps.
//!
//! Time is the thread's own ([`Turn::now_ns`]): it goes on while the thread runs or sleeps as it meant to, and hardly while
//! the process is stopped (SIGSTOP, a frozen container). So nobody is late because we were.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{MultiProducer, Producer, SingleConsumerBarrier};
use slab::Slab;

use crate::connections::{Connection, Drain, Expiry, Step, Timeouts, Turn};
use crate::exchange::blocks::{Block, BlockPool, Pressure};
use crate::exchange::buffer_pool::{Buffer, BufferPool};
use crate::exchange::control::Control;
use crate::exchange::event::{ConnectionId, InferenceEvent};
use crate::exchange::response_queue::ResponseConsumer;
use crate::exchange::wake::Wake;
use crate::kernel::{Completion, Kernel, Queued, ReceiveOutcome};
use crate::limits::{
    ACCEPT_RETRY, COMPLETION_ENTRIES, ConnectionLimits, DRAIN_LAST_CALL, EVICTION_PART, EVICTION_STALL_MIN,
    IN_FLIGHT_LOOK, LISTEN_BACKLOG, PEER_SILENCE_MAX, QUEUED_ACCEPTS_A_TURN, STOP_MIN, SWEEP_INTERVAL_MAX,
    SWEEP_WAIT_MAX, TICK, TRIM_INTERVAL,
};
use crate::log_gate::LogGate;
use crate::metrics::{DETAILED, IoMetrics, stage_clock_ns};
use disrust_protocol::RequestLayout;

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
    /// Bytes that blocks may take before the thread stops receiving.
    pub budget_bytes: usize,
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
    /// The kernel's clock when this turn began.
    clock_ns: u64,
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
    /// Buffers that are not lent because the budget for blocks is.
    buffers_kept: Vec<Buffer>,
    blocks: BlockPool,
    /// Room for the candidates of an eviction: what each is worth, and its slot.
    victims: Vec<(u128, u32)>,
    evicted_at_ns: u64,
    accept: Accept,
    /// When each timer that is under way is due, by the kernel's clock.
    timers: Vec<u64>,
    /// Events that have not come back.
    events_in_flight: usize,
    /// Something has happened since the last sweep, so that there may be deadlines which that did not see.
    eventful: bool,
    /// The first deadline that the last sweep saw.
    deadline_ns: Option<u64>,
    sweep_interval_ns: u64,
    swept_at_ns: u64,
    /// When the next sweep became due.
    sweep_due_at_ns: Option<u64>,
    trimmed_at_ns: u64,
    drain_began_ns: Option<u64>,
    rejected_log: LogGate,
    accept_log: LogGate,
    framing_log: LogGate,
    eviction_log: LogGate,
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
    /// So many connections at most are taken out of the queue before the listener closes, the next ones at this time.
    Taking {
        left: usize,
        from_ns: u64,
    },
    /// The listener is closed.
    Closed,
}

impl<K: Kernel> IoThread<K> {
    /// A thread that accepts, once it takes turns. All buffers of the pool have been lent to the kernel.
    pub fn new(mut kernel: K, parts: IoThreadParts) -> IoThread<K> {
        kernel.accept();
        kernel.await_alarm();
        let clock_ns = kernel.now_ns();
        let buffers = usize::from(parts.pool.geometry().buffers);
        let completions = COMPLETION_ENTRIES as usize;
        let limits = parts.limits;
        let blocks = BlockPool::new(limits.block_sizes(parts.layout, parts.budget_bytes));
        IoThread {
            kernel,
            // By use: what a descriptor limit allows may be a thousand times what there will ever be.
            connections: Slab::new(),
            slots_end: 0,
            generation: 0,
            clock_ns,
            turn: Turn { now_ns: 0, drain: Drain::No, limits },
            events: Vec::with_capacity(buffers),
            touched: Vec::with_capacity(2 * completions + buffers),
            starved: VecDeque::new(),
            buffers_lent: buffers,
            buffers_kept: Vec::with_capacity(buffers),
            blocks,
            victims: Vec::new(),
            evicted_at_ns: 0,
            accept: Accept::Armed,
            timers: Vec::with_capacity(4),
            events_in_flight: 0,
            eventful: false,
            deadline_ns: None,
            sweep_interval_ns: nanoseconds(sweep_interval(parts.timeouts)),
            swept_at_ns: 0,
            sweep_due_at_ns: None,
            trimmed_at_ns: 0,
            drain_began_ns: None,
            rejected_log: LogGate::default(),
            accept_log: LogGate::default(),
            framing_log: LogGate::default(),
            eviction_log: LogGate::default(),
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
        self.eventful |= worked;
        self.take_queued();
        self.carry_on_touched();
        // Before the starved are fed: their bytes may have waited for buffers, and the kernel is not asked yet.
        self.sweep_when_due(worked);
        self.evict_when_full();
        self.lend_kept();
        self.feed_starved();
        self.retry_accept_when_due();
        self.start_timer_when_due();
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
        let nothing_there = self.parts.responses.is_empty() && !self.goes_on();
        self.kernel.enter(nothing_there);
    }

    /// The second half of [`IoThread::sleep`].
    pub fn wake_up(&mut self) {
        self.parts.wake.flag.announce_awake();
    }

    /// Whether the next turn has something to do that no completion tells of.
    fn goes_on(&self) -> bool {
        let takes = matches!(self.accept, Accept::Taking { from_ns, .. } if from_ns <= self.turn.now_ns);
        let feeds = !self.starved.is_empty() && self.buffers_lent > 0;
        self.sweep_due_at_ns.is_some() || takes || feeds
    }

    /// The kernel's clock when the last turn began.
    pub fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    /// The kernel's clock.
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
        assert!(self.blocks.lent() == 0, "every block came home");
    }

    fn begin_turn(&mut self) {
        let before_ns = std::mem::replace(&mut self.clock_ns, self.kernel.now_ns());
        // The thread has slept until its first timer at most, unless it was not let run.
        let until_timer_ns = self.timers.iter().min().map_or(u64::MAX, |due_ns| due_ns.saturating_sub(before_ns));
        let passed_ns = self.clock_ns.saturating_sub(before_ns);
        self.turn.now_ns += passed_ns.min(until_timer_ns.saturating_add(nanoseconds(STOP_MIN)));
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
            Completion::Timer => self.timer_completed(),
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
            Accept::Paused { .. } | Accept::Taking { .. } | Accept::Closed => unreachable!("an accept ends once"),
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
            ReceiveOutcome::End => connection.end_received(&mut self.blocks),
            ReceiveOutcome::NoBuffers => {
                connection.starve();
                self.starved.push_back(id);
                self.parts.metrics.starved.add(1);
            }
            ReceiveOutcome::Ended => {}
            ReceiveOutcome::Failed(_) => {
                connection.abandon(&mut self.blocks);
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
        let received = connection.received(self.parts.layout, space, headroom, bytes, self.turn, &mut self.blocks);
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
        self.events_in_flight += events.len();
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
            let kept = connection.answered(self.parts.layout, &response, answers, self.turn, &mut self.blocks);
            let counter = if kept { &self.parts.metrics.answered } else { &self.parts.metrics.discarded };
            counter.add(u64::from(response.requests));
            self.provide(buffer);
            self.touched.push(response.connection.slot);
        }
        self.events_in_flight -= taken;
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
        connection.send_completed(block, sent, self.turn, &mut self.blocks);
        if result.is_err() {
            connection.abandon(&mut self.blocks);
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
            && let Some(step) = connection.next_step(self.turn, &mut self.blocks)
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
        if self.blocks.pressure() == Pressure::Full {
            self.buffers_kept.push(buffer);
        } else {
            self.kernel.provide(buffer);
            self.buffers_lent += 1;
        }
    }

    /// Lends the buffers that were kept, if there are blocks again for what they may bring.
    fn lend_kept(&mut self) {
        if self.blocks.pressure() < Pressure::Full {
            self.buffers_lent += self.buffers_kept.len();
            self.buffers_kept.drain(..).for_each(|buffer| self.kernel.provide(buffer));
        }
    }

    /// Arms the receives of connections that found no buffer, as many as there are buffers now.
    fn feed_starved(&mut self) {
        for _ in 0..self.buffers_lent {
            let Some(id) = self.starved.pop_front() else { return };
            match self.connections.get_mut(id.slot as usize) {
                Some(connection) if connection.id == id => {
                    connection.feed();
                    self.eventful = true;
                    self.carry_on(id.slot);
                }
                // It is gone, and another may have its slot.
                Some(_) | None => {}
            }
        }
    }

    // ---- Time passes.

    /// Starts a timer for what is due next, unless there is one before that.
    fn start_timer_when_due(&mut self) {
        let Some(due_ns) = self.next_due_ns() else { return };
        let due_in_ns = due_ns.saturating_sub(self.turn.now_ns);
        let due_at_ns = self.clock_ns.saturating_add(due_in_ns);
        if self.timers.iter().all(|timer_ns| *timer_ns > due_at_ns) {
            self.timers.push(due_at_ns);
            self.kernel.start_timer(Duration::from_nanos(due_in_ns.max(1)));
        }
    }

    /// When this thread has to look at something that no completion tells of, by its own time.
    fn next_due_ns(&self) -> Option<u64> {
        let now_ns = self.turn.now_ns;
        let in_a_tick_ns = now_ns + nanoseconds(TICK);
        let ticks = self.drain_began_ns.is_some() || self.blocks.pressure() == Pressure::Full;
        let accept_ns = if let Accept::Paused { until_ns } = self.accept { Some(until_ns) } else { None };
        let sweep_ns = if self.eventful { Some(self.swept_at_ns + self.sweep_interval_ns) } else { self.deadline_ns };
        let in_flight_ns = (self.events_in_flight > 0).then_some(now_ns + nanoseconds(IN_FLIGHT_LOOK));
        let trim_ns = self.blocks.can_trim().then_some(self.trimmed_at_ns + nanoseconds(TRIM_INTERVAL));
        let due_ns = [ticks.then_some(in_a_tick_ns), accept_ns, sweep_ns, in_flight_ns, trim_ns];
        due_ns.into_iter().flatten().min().map(|due_ns| due_ns.max(now_ns))
    }

    /// One of the timers has completed: the first one, unless the kernel is late with it.
    fn timer_completed(&mut self) {
        let first = (0..self.timers.len()).min_by_key(|index| self.timers[*index]);
        self.timers.swap_remove(first.expect("a timer completes once"));
        let now_ns = self.turn.now_ns;
        if now_ns - self.trimmed_at_ns >= nanoseconds(TRIM_INTERVAL) {
            self.trimmed_at_ns = now_ns;
            self.blocks.trim();
            let released_bytes = self.blocks.released_bytes();
            self.parts.metrics.trimmed_bytes.add(released_bytes - self.parts.metrics.trimmed_bytes.get());
        }
        let has_deadline = self.eventful && now_ns - self.swept_at_ns >= self.sweep_interval_ns;
        let has_passed = self.deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns);
        if self.turn.drain > Drain::No || has_deadline || has_passed {
            self.sweep_due_at_ns.get_or_insert(now_ns);
        }
    }

    /// Sweeps, if a timer has asked for it and what arrived before that has been taken.
    ///
    /// This thread may have been stopped for longer than a deadline is long. Then the timer's completion can come
    /// before those of bytes that arrived in time: io_uring hands out a bounded number each time it is entered. So the
    /// deadlines are judged as of the timer, and only after the kernel, entered since, had nothing else; `worked` says
    /// that this turn had. A thread that is never without work sweeps after a while all the same.
    fn sweep_when_due(&mut self, worked: bool) {
        let Some(due_at_ns) = self.sweep_due_at_ns else { return };
        let waited_ns = self.turn.now_ns - due_at_ns;
        if waited_ns > 0 && (!worked || waited_ns >= nanoseconds(SWEEP_WAIT_MAX)) {
            self.sweep_due_at_ns = None;
            self.swept_at_ns = due_at_ns;
            self.eventful = false;
            self.sweep(due_at_ns);
        }
    }

    /// Holds every connection to its deadlines, as of a time at which all that had arrived has been taken.
    fn sweep(&mut self, as_of_ns: u64) {
        let cut = self.drain_is_over();
        let as_of = Turn { now_ns: as_of_ns, ..self.turn };
        self.deadline_ns = None;
        for key in 0..self.slots_end {
            if !self.connections.contains(key) {
                continue;
            }
            self.look_at(key, as_of);
            self.judge(key, as_of, cut);
            self.carry_on(key as u32);
            let Some(connection) = self.connections.get(key) else { continue };
            let deadline_ns = connection.deadline(self.parts.timeouts, as_of).map(|(due_ns, _)| due_ns + 1);
            // Whether the peer takes what it is owed, no completion may tell.
            let look_ns = (connection.unacknowledged_bytes() > 0).then_some(as_of_ns + self.sweep_interval_ns);
            self.deadline_ns = self.deadline_ns.into_iter().chain(deadline_ns).chain(look_ns).min();
        }
    }

    /// Asks the kernel how much a connection's peer has acknowledged.
    fn look_at(&mut self, key: usize, as_of: Turn) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.awaits_acknowledgement() {
            let unacknowledged_bytes = self.kernel.unacknowledged_bytes(connection.socket);
            connection.acknowledged(unacknowledged_bytes, as_of);
        }
    }

    /// Gives a connection up if one of its deadlines has passed, its peer has vanished, or with `cut` the drain's time is
    /// over.
    fn judge(&mut self, key: usize, as_of: Turn, cut: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let metrics = &self.parts.metrics;
        let stalled_ns = as_of.now_ns.saturating_sub(connection.stalled_since_ns());
        if cut && !connection.is_gone() {
            connection.abandon(&mut self.blocks);
            metrics.cut.add(1);
        } else if let Some(expiry) = connection.expired(self.parts.timeouts, as_of) {
            connection.expire(expiry, &mut self.blocks);
            metrics.expired.add(1);
            if as_of.drain > Drain::No && matches!(expiry, Expiry::Request | Expiry::Send) {
                metrics.cut.add(1);
            }
        } else if connection.awaits_acknowledgement()
            && stalled_ns >= nanoseconds(PEER_SILENCE_MAX)
            && self.kernel.peer_has_vanished(connection.socket)
        {
            connection.abandon(&mut self.blocks);
            metrics.broken.add(1);
        }
    }

    // ---- The budget is used up.

    /// Closes connections that hold blocks and let none of them go, those that hold most for longest first, until a part of
    /// the budget is free again.
    fn evict_when_full(&mut self) {
        let now_ns = self.turn.now_ns;
        let is_due = now_ns - self.evicted_at_ns >= nanoseconds(TICK);
        if self.blocks.pressure() < Pressure::Full || !is_due {
            return;
        }
        self.evicted_at_ns = now_ns;
        let stalled_ns = |connection: &Connection<K::Socket>| now_ns.saturating_sub(connection.stalled_since_ns());
        let mut victims = std::mem::take(&mut self.victims);
        victims.extend(self.connections.iter().filter_map(|(key, connection)| {
            let (held_bytes, stalled_ns) = (connection.held_bytes(), stalled_ns(connection));
            let is_candidate = !connection.is_gone() && held_bytes > 0 && stalled_ns >= nanoseconds(EVICTION_STALL_MIN);
            is_candidate.then_some((held_bytes as u128 * u128::from(stalled_ns), key as u32))
        }));
        victims.sort_unstable();
        let goal_bytes = self.parts.budget_bytes - self.parts.budget_bytes / EVICTION_PART;
        let mut evicted = 0;
        while self.blocks.lent_bytes() > goal_bytes
            && let Some((_, slot)) = victims.pop()
        {
            self.look_at(slot as usize, self.turn);
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            // It has taken something since the last look.
            if stalled_ns(connection) < nanoseconds(EVICTION_STALL_MIN) {
                continue;
            }
            connection.abandon(&mut self.blocks);
            self.carry_on(slot);
            evicted += 1;
        }
        victims.clear();
        self.victims = victims;
        self.parts.metrics.evicted.add(evicted);
        if evicted > 0
            && let Some(suppressed) = self.eviction_log.pass(now_ns)
        {
            tracing::warn!(
                evicted,
                suppressed,
                "the memory for what peers do not read or finish is used up; those that held most of it for longest are \
                 closed (--buffer-memory)"
            );
        }
    }

    // ---- Accepting goes on after a failure.

    /// A descriptor may be what accepting waits for.
    fn descriptor_freed(&mut self) {
        if let Accept::Paused { until_ns: from_ns } | Accept::Taking { from_ns, .. } = &mut self.accept {
            *from_ns = self.turn.now_ns;
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
        if elapsed_ns < nanoseconds(DRAIN_LAST_CALL) { Drain::LastCall } else { Drain::Refuse }
    }

    fn begin_drain(&mut self) -> u64 {
        self.drain_began_ns = Some(self.turn.now_ns);
        match self.accept {
            Accept::Armed => {
                self.accept = Accept::Ending;
                self.kernel.cancel_accept();
            }
            Accept::Paused { .. } => self.accept_ended(),
            Accept::Ending | Accept::Taking { .. } | Accept::Closed => unreachable!("a drain begins once"),
        }
        self.turn.now_ns
    }

    /// Begins to take the connections that are established already: closing the listener would reset them.
    fn accept_ended(&mut self) {
        // What had been established by now; more may come for as long as the listener is open.
        let left = usize::try_from(LISTEN_BACKLOG).expect("a count") + 1;
        self.accept = Accept::Taking { left, from_ns: self.turn.now_ns };
    }

    /// Takes some of them, and closes the listener behind the last one. Where there is no descriptor for them they wait for
    /// one, as long as the drain may take.
    fn take_queued(&mut self) {
        let Accept::Taking { left, from_ns } = self.accept else { return };
        let now_ns = self.turn.now_ns;
        if now_ns < from_ns && !self.drain_is_over() {
            return;
        }
        let a_turn = left.min(QUEUED_ACCEPTS_A_TURN);
        for taken in 0..a_turn {
            match self.kernel.accept_queued() {
                Queued::Connection(socket) => self.accepted(socket),
                Queued::NoDescriptor if !self.drain_is_over() => {
                    let from_ns = now_ns + nanoseconds(ACCEPT_RETRY);
                    self.accept = Accept::Taking { left: left - taken, from_ns };
                    return;
                }
                Queued::Nothing | Queued::NoDescriptor => return self.close_listener(),
            }
        }
        self.accept = Accept::Taking { left: left - a_turn, from_ns };
        if left == a_turn {
            self.close_listener();
        }
    }

    fn close_listener(&mut self) {
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
