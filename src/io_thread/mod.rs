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

mod accepting;
mod deadlines;
mod draining;
mod eviction;
mod roster;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{MultiProducer, Producer, SingleConsumerBarrier};
use fastrand::Rng;
use slab::Slab;

use crate::batch::{BatchRole, Help};
use crate::connections::{Arrival, Connection, Drain, Lost, Rules, Step, Turn};
use crate::exchange::blocks::{Block, BlockPool, Pressure};
use crate::exchange::buffer_pool::{Buffer, BufferPool};
use crate::exchange::control::Control;
use crate::exchange::event::{ConnectionId, InferenceEvent, Response};
use crate::exchange::response_queue::ResponseConsumer;
use crate::exchange::spread::Share;
use crate::exchange::wake::Wake;
use crate::kernel::{Completion, Entrance, Kernel, Peer, ReceiveOutcome};
use crate::limits::{COMPLETION_ENTRIES, STOP_MIN, SUBMISSIONS_PER_TIMED_ONE};
use crate::log_gate::LogGate;
use crate::metrics::{CloseReason, IoMetrics};
use accepting::Accept;
use deadlines::sweep_interval;

/// The I/O threads' end of the disruptor.
pub type EventProducer = MultiProducer<InferenceEvent, SingleConsumerBarrier>;

/// What an I/O thread is made of, beside its kernel.
pub struct IoThreadParts<S> {
    /// Which of the I/O threads this is.
    pub index: u16,
    /// How many there are.
    pub io_threads: usize,
    /// The thread's buffers; the kernel lends them.
    pub pool: Arc<BufferPool>,
    /// Where events go.
    pub producer: EventProducer,
    /// Where responses come from.
    pub responses: ResponseConsumer,
    /// This thread, as the batch processor wakes it.
    pub wake: Arc<Wake>,
    /// The batch processor.
    pub batch: BatchAccess,
    /// Its part of the connections.
    pub share: Share<S>,
    /// The server's state.
    pub control: Arc<Control>,
    /// What this thread counts.
    pub metrics: Arc<IoMetrics>,
    /// What connections are held to.
    pub rules: Rules,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Connections that there can be at once, on all threads together.
    pub connections_max: usize,
    /// Whether it matters since when requests wait in sockets.
    pub times_backlogs: bool,
    /// How old connections may become, about, if that is bounded.
    pub connection_age_max: Option<Duration>,
    /// What their ages are drawn from.
    pub seed: u64,
    /// Bytes that blocks may take before the thread stops receiving.
    pub budget_bytes: usize,
}

/// How an I/O thread has scored what it has published.
#[derive(Clone)]
pub enum BatchAccess {
    /// It wakes the batch processor's thread.
    Wake(Arc<Wake>),
    /// It plays that role itself, or wakes the thread.
    Role(Arc<BatchRole>),
}

/// An I/O thread's state.
pub struct IoThread<K: Kernel> {
    kernel: K,
    parts: IoThreadParts<K::Socket>,
    connections: Slab<Connection<K::Socket>>,
    /// One more than the highest slot that was ever used.
    slots_end: usize,
    /// Draws how old each connection may become.
    ages: Rng,
    /// Generation of the next connection.
    generation: u32,
    /// The kernel's clock when this turn began.
    clock_ns: u64,
    /// Since when the thread works without a pause, by that clock, at the end of a turn that found something.
    works_since_ns: Option<u64>,
    /// How often it has slept, while times are taken.
    sleeps: u64,
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
    /// The slot at which the next look at who has most under way begins.
    roster_at: usize,
    /// By entrance.
    accept: [Accept; Entrance::ALL.len()],
    /// When each timer that is under way is due, by the kernel's clock.
    timers: Vec<u64>,
    /// Events that have not come back.
    events_in_flight: usize,
    /// Something has happened since the last sweep, so that there may be deadlines which that did not see.
    eventful: bool,
    /// Memory has been short for somebody since the last sweep began. Whoever was not let receive for it has nothing in the
    /// kernel that would complete, so that only a sweep finds that there is memory again, or that the peer has gone.
    is_short: bool,
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
    expiry_log: LogGate,
    eviction_log: LogGate,
}

impl<K: Kernel> IoThread<K> {
    /// A thread that accepts, once it takes turns. All buffers of the pool have been lent to the kernel.
    pub fn new(mut kernel: K, parts: IoThreadParts<K::Socket>) -> IoThread<K> {
        let accept = Entrance::ALL.map(|from| {
            if !kernel.listens(from) {
                return Accept::Closed;
            }
            kernel.accept(from);
            Accept::Armed
        });
        kernel.await_alarm();
        let clock_ns = kernel.now_ns();
        let buffers = usize::from(parts.pool.geometry().buffers);
        let completions = COMPLETION_ENTRIES as usize;
        let blocks = BlockPool::new(parts.rules.limits.block_sizes(parts.rules.layout, parts.budget_bytes));
        IoThread {
            kernel,
            // By use: what a descriptor limit allows may be a thousand times what there will ever be.
            connections: Slab::new(),
            slots_end: 0,
            ages: Rng::with_seed(parts.seed),
            generation: 0,
            clock_ns,
            works_since_ns: None,
            sleeps: 0,
            turn: Turn { now_ns: 0, drain: Drain::No },
            events: Vec::with_capacity(buffers),
            touched: Vec::with_capacity(2 * completions + buffers),
            starved: VecDeque::new(),
            buffers_lent: buffers,
            buffers_kept: Vec::with_capacity(buffers),
            blocks,
            victims: Vec::new(),
            evicted_at_ns: 0,
            roster_at: 0,
            accept,
            timers: Vec::with_capacity(4),
            events_in_flight: 0,
            eventful: false,
            is_short: false,
            deadline_ns: None,
            sweep_interval_ns: nanoseconds(sweep_interval(parts.rules.timeouts, parts.connection_age_max)),
            swept_at_ns: 0,
            sweep_due_at_ns: None,
            trimmed_at_ns: 0,
            drain_began_ns: None,
            rejected_log: LogGate::default(),
            accept_log: LogGate::default(),
            framing_log: LogGate::default(),
            expiry_log: LogGate::default(),
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
        worked |= self.take_guests();
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
        let metrics = &self.parts.metrics;
        metrics.buffers_in_use_peak.raise(buffers - self.buffers_lent);
        metrics.buffers_in_use.set(buffers - self.buffers_lent);
        metrics.buffer_memory_bytes.set(self.blocks.lent_bytes());
        self.works_since_ns = worked.then_some(self.clock_ns);
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
        self.count_busy_time();
        self.parts.wake.flag.announce_sleep();
        let nothing_there = self.parts.responses.is_empty() && !self.parts.share.has_guests() && !self.goes_on();
        self.kernel.enter(nothing_there);
    }

    /// The second half of [`IoThread::sleep`].
    pub fn wake_up(&mut self) {
        self.parts.wake.flag.announce_awake();
    }

    /// Adds what the turn before a sleep has taken, up to now. What the kernel does with the submissions of that turn, it does
    /// when it is entered, and then it waits; so that this can be told from waiting, a few turns enter it without waiting
    /// first, and count for the others.
    fn count_busy_time(&mut self) {
        if !self.parts.metrics.stage_times {
            return;
        }
        let now_ns = self.kernel.now_ns();
        let mut busy_ns = now_ns.saturating_sub(self.clock_ns);
        self.works_since_ns = None;
        self.sleeps += 1;
        if self.sleeps.is_multiple_of(SUBMISSIONS_PER_TIMED_ONE) {
            self.kernel.enter(false);
            busy_ns += SUBMISSIONS_PER_TIMED_ONE * self.kernel.now_ns().saturating_sub(now_ns);
        }
        self.parts.metrics.busy_ns.add(busy_ns);
    }

    /// Whether the next turn has something to do that no completion tells of.
    fn goes_on(&self) -> bool {
        let takes = |accept: &Accept| matches!(accept, Accept::Taking { from_ns, .. } if *from_ns <= self.turn.now_ns);
        let takes = self.accept.iter().any(takes);
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
        self.accepts_no_more() && self.connections.is_empty()
    }

    /// Ends a finished thread: nothing may be in flight, lent or owed.
    ///
    /// # Panics
    /// If something is: it has been lost.
    pub fn finish(self) {
        assert!(self.is_finished(), "a thread ends after its drain");
        assert!(self.buffers_lent == usize::from(self.parts.pool.geometry().buffers), "every buffer came home");
        assert!((self.blocks.lent(), self.blocks.lent_bytes()) == (0, 0), "every block came home");
        // For good, to who looks whether it makes progress.
        self.parts.wake.flag.announce_sleep();
    }

    fn begin_turn(&mut self) {
        self.parts.metrics.turns.add(1);
        let before_ns = std::mem::replace(&mut self.clock_ns, self.kernel.now_ns());
        if self.parts.metrics.stage_times
            && let Some(since_ns) = self.works_since_ns
        {
            self.parts.metrics.busy_ns.add(self.clock_ns.saturating_sub(since_ns));
        }
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
            Completion::Accepted { from, result, more } => self.accept_completed(from, result, more),
            Completion::Received { id, outcome, more } => self.receive_completed(id, outcome, more),
            Completion::Sent { id, block, result } => self.send_completed(id, block, result),
            Completion::Alarm => {
                self.kernel.await_alarm();
                self.tell_roster_when_asked();
            }
            Completion::Timer => self.timer_completed(),
        }
    }

    // ---- Its requests come in, and go to the batch processor.

    fn receive_completed(&mut self, id: ConnectionId, outcome: ReceiveOutcome, more: bool) {
        let connection = connection(&mut self.connections, id);
        if !more {
            connection.receive_ended(self.turn);
        }
        match outcome {
            ReceiveOutcome::Bytes { buffer, bytes } => self.received(id, buffer, bytes),
            ReceiveOutcome::End => connection.peer_ended(&mut self.blocks),
            ReceiveOutcome::NoBuffers => {
                connection.starve(self.turn);
                // What is midway lets go of memory when it comes to its end; who begins takes some.
                if connection.is_midway() {
                    self.starved.push_front(id);
                } else {
                    self.starved.push_back(id);
                }
                self.parts.metrics.starved.add(1);
            }
            ReceiveOutcome::Ended => {}
            ReceiveOutcome::Failed(_) => {
                connection.abandon(CloseReason::Broken, &mut self.blocks);
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
        let received = connection.received(
            Arrival { buffer: space, headroom, bytes },
            &self.parts.rules,
            self.turn,
            &mut self.blocks,
        );
        let metrics = &self.parts.metrics;
        metrics.refused.add(u64::from(received.refused));
        if received.hellos + received.hellos_refused > 0 {
            metrics.hellos.add(u64::from(received.hellos));
            metrics.hellos_refused.add(u64::from(received.hellos_refused));
        }
        if let Some(lost) = received.lost {
            match lost {
                Lost::BadCount(_) => metrics.bad.add(1),
                Lost::WrongFeatureDim(_) => metrics.hellos_wrong.add(1),
            }
            if let Some(suppressed) = self.framing_log.pass(self.turn.now_ns) {
                let peer = named(self.kernel.peer(connection.socket));
                tracing::warn!(%peer, bad = %lost, suppressed, "a peer sent a bad request; its connection is closed");
            }
        }
        match received.framed {
            Some(framed) => {
                let index = pool.ship(buffer);
                let event = connection.event_for(framed, &self.parts.rules, self.parts.index, index);
                let waited_ns = self.turn.now_ns - received.waiting_since_ns;
                self.events.push(InferenceEvent {
                    received_at_ns: self.clock_ns,
                    waiting_since_ns: self.clock_ns.saturating_sub(waited_ns),
                    ..event
                });
                self.parts.metrics.requests.add(u64::from(framed.requests));
            }
            None => self.provide(buffer),
        }
    }

    fn publish_events(&mut self) {
        if self.events.is_empty() {
            return;
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
        let rows = events.iter().map(|event| event.rows as usize).sum();
        self.events.clear();
        let help = match &self.parts.batch {
            BatchAccess::Wake(wake) => Help::Left { woken: wake.wake_sleeper() },
            BatchAccess::Role(role) => {
                let kernel = RefCell::new(&mut self.kernel);
                role.help(rows, || kernel.borrow_mut().now_ns())
            }
        };
        let metrics = &self.parts.metrics;
        let counter = match help {
            Help::Helped => &metrics.helps,
            Help::Left { woken: true } => &metrics.wakes,
            Help::Done | Help::Left { woken: false } => &metrics.wakes_coalesced,
        };
        counter.add(1);
    }

    // ---- Its answers come back, and go out.

    fn take_responses(&mut self) -> bool {
        if self.parts.responses.is_empty() {
            return false;
        }
        let now_ns = if self.parts.metrics.stage_times { self.kernel.now_ns() } else { 0 };
        let mut taken = 0;
        while let Some(response) = self.parts.responses.pop() {
            taken += 1;
            let buffer = self.parts.pool.adopt(response.buffer);
            let start = response.offset as usize;
            let answers = &self.parts.pool.bytes(&buffer)[start..start + response.answer_bytes as usize];
            let connection = connection(&mut self.connections, response.connection);
            let kept = connection.answered(&response, answers, &self.parts.rules, self.turn, &mut self.blocks);
            self.count_answers(&response, kept, now_ns);
            self.provide(buffer);
            self.touched.push(response.connection.slot);
        }
        self.events_in_flight -= taken;
        self.parts.metrics.responses.add(taken as u64);
        self.parts.metrics.responses_peak.raise(taken);
        true
    }

    /// Counts each of a response's requests once, by its result. Those that were `kept` are in the send buffer.
    fn count_answers(&self, response: &Response, kept: bool, now_ns: u64) {
        let metrics = &self.parts.metrics;
        let [requests, failed, shed] = [response.requests, response.failed, response.shed].map(u64::from);
        if !kept {
            metrics.discarded.add(requests);
            return;
        }
        metrics.ok.add(requests - failed - shed);
        metrics.model_errors.add(failed);
        metrics.shed.add(shed);
        if metrics.stage_times {
            metrics.request_ns.record_many(now_ns.saturating_sub(response.received_at_ns), requests);
        }
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
            connection.abandon(CloseReason::Broken, &mut self.blocks);
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
        if self.blocks.pressure() >= Pressure::High {
            // What it may take depends on what its peer has taken.
            self.look_at(key, self.turn);
        }
        while let Some(connection) = self.connections.get_mut(key)
            && let Some(step) = connection.next_step(&self.parts.rules, self.turn, &mut self.blocks)
        {
            let (id, socket) = (connection.id, connection.socket);
            match step {
                Step::Send(block) => self.kernel.send(socket, id, block),
                Step::Receive(shots) => {
                    if connection.resumes(self.turn) && self.parts.times_backlogs {
                        connection.waits(self.kernel.unreceived_bytes(socket));
                    }
                    self.kernel.receive(socket, id, shots);
                }
                Step::CancelReceive => self.kernel.cancel_receive(id),
                Step::HalfClose => self.kernel.half_close(socket),
                Step::Abort => self.kernel.abort(socket),
                Step::Close => {
                    self.kernel.close(socket);
                    self.descriptor_freed();
                }
                Step::Free => {
                    let connection = self.connections.remove(key);
                    self.parts.control.close_connection();
                    self.parts.share.closed();
                    self.parts.metrics.closed.by(connection.close_reason()).add(1);
                }
            }
        }
        self.is_short |= self.blocks.pressure() >= Pressure::High;
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
}

/// A peer, as the log calls it.
fn named(peer: Option<Peer>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

/// The connection that a completion or response is for.
fn connection<S: Copy>(connections: &mut Slab<Connection<S>>, id: ConnectionId) -> &mut Connection<S> {
    let connection = connections.get_mut(id.slot as usize).expect("a slot is freed when nothing refers to it");
    assert!(connection.id == id, "a slot is reused when nothing refers to its last tenant");
    connection
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
