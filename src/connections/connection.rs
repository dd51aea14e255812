//! One connection's state machine: every event that concerns it goes in, the operation that is due next comes out.
//!
//! It performs nothing: [`Connection::next_step`] names one operation at a time, and the I/O thread carries it out.
//! So the order of a connection's life is decided in this one place, from facts alone.
//!
//! Invariants
//! - Events, and so answers, are numbered; they come back in that order (asserted).
//! - At most one receive is armed and at most one send is in the kernel.
//! - The descriptor is closed only when no operation is in the kernel, and the slot freed only when besides no request
//!   is in flight. So neither the kernel nor the batch processor ever works for a connection that does not exist.
//! - Answers owed (in flight and unsent) and request bytes in flight are bounded: above the limit, receiving stops. The bound
//!   is higher for a peer that takes nothing, which may be writing everything before it reads, while there is memory.
//! - Once gone, a connection sends nothing more.
//! - What counts as progress of a peer is what its side has acknowledged, not what the kernel has taken off our hands: that
//!   may be a third of a megabyte at once, or nothing for as long. How much is unacknowledged, the I/O thread asks
//!   the kernel now and then ([`Connection::acknowledged`]).
#![forbid(unsafe_code)]

mod deadlines;

use std::num::NonZeroU64;
use std::time::Duration;

use disrust_protocol::{ERROR_ANSWER_BYTES, ErrorCode, read_answer_of};

use super::backlog::{Backlog, Hold};
use super::framing::{Found, Framed, PartialRequest};
use super::hello::{Asked, AskedLine, HelloRun};
use super::interface::{Arrival, Drain, Lost, Received, Rules, Step, Turn};
use super::send_buffer::SendBuffer;
use crate::exchange::blocks::{Block, BlockPool, Pressure};
use crate::exchange::event::{ConnectionId, InferenceEvent, Response};
use crate::kernel::Shots;
use crate::limits::{ConnectionLimits, DRAIN_QUIET, DRAIN_REFUSE, UNIX_SEND_OVERHEAD_MIN, WRITER_STALL_MIN};
use crate::metrics::CloseReason;

/// The receiving side's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receive {
    Unarmed,
    Armed(Shots),
    /// A cancel is under way; the armed receive still completes.
    Cancelling,
    /// The pool had no buffer; the I/O thread keeps the connection in its queue for the next ones.
    Starved,
}

/// Why a connection is being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It is open.
    No,
    /// After what is owed: half-close, wait for the peer's end, close.
    Graceful,
    /// Half-closed at the time in `since_ns`; what comes in is discarded, until the peer has acknowledged everything and
    /// then for a while.
    HalfClosed { since_ns: u64 },
    /// Nothing more is sent; `shut` says that both directions have been shut down.
    Gone { shut: bool },
    /// As before, and the descriptor is closed.
    Closed,
}

/// One connection; owned by its I/O thread. `S` is the kernel's name for a socket.
#[derive(Debug)]
pub struct Connection<S> {
    /// Its slot, and its number among the slot's tenants.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: S,
    receive: Receive,
    ending: Ending,
    /// How it ends, as far as is known: the last word counts.
    close_reason: CloseReason,
    /// The peer has shut down its sending side.
    peer_finished: bool,
    /// Nothing more can be read of what the peer sends, and this is what it is told behind all else.
    last_word: Option<ErrorCode>,
    /// The last receive filled its buffer.
    fills_buffers: bool,
    partial: PartialRequest,
    /// Hellos behind requests in flight. On the heap, and rarely there.
    asked: Option<Box<AskedLine>>,
    backlog: Backlog,
    sends: SendBuffer,
    /// Number of the next event, and of the next response.
    event_sequence: u32,
    response_sequence: u32,
    request_bytes_in_flight: usize,
    /// Bytes of the answers to the requests in flight, if the model does not fail, and to the hellos behind them.
    answer_bytes_in_flight: usize,
    /// Requests and hellos to refuse once the answers owed are in the send buffer.
    refused: u32,
    /// When it was accepted, in seconds, which are short enough for who looks at a page. 136 years fit.
    opened_at_s: u32,
    /// When the last byte came.
    received_at_ns: u64,
    /// When the partial request's first byte came, later by as long as nothing was received since.
    request_began_ns: u64,
    /// Since when a receive is in the kernel, or since when none is.
    receive_since_ns: u64,
    /// Bytes of all sends that have completed, and how many of them the peer's side is known to have acknowledged.
    sent_bytes: u64,
    acknowledged_bytes: u64,
    /// What was last seen of a socket that tells its memory.
    look: MemoryLook,
    /// It has acknowledged nothing for a while.
    is_stalled: bool,
    /// When a send last completed.
    sent_at_ns: u64,
    /// When the peer was last seen to have acknowledged something, or answers began to wait for that.
    progress_at_ns: u64,
    /// The longest time that it was seen to take until it acknowledged more.
    longest_step_ns: u64,
    /// When it is old, which is never at the very beginning.
    old_at_ns: Option<NonZeroU64>,
    /// It is old: requests are refused from now on, as they are in a drain.
    is_old: bool,
    /// Since when, in a drain or because it is old, whatever the peer sends can be refused.
    refusing_since_ns: Option<u64>,
}

/// The memory that a Unix socket's unread bytes took when it was last looked at, and what was sent since.
#[derive(Debug, Default)]
struct MemoryLook {
    memory_bytes: u32,
    sent_bytes: u32,
    sends: u32,
}

impl MemoryLook {
    fn sent(&mut self, bytes: usize) {
        self.sent_bytes = self.sent_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.sends = self.sends.saturating_add(1);
    }

    /// Looks again. Of what there would be if nothing had been read, this part is left; 1 if it may be all.
    fn share_left(&mut self, memory_bytes: usize) -> f64 {
        let sends = f64::from(self.sends) * UNIX_SEND_OVERHEAD_MIN as f64;
        let unread = f64::from(self.memory_bytes) + f64::from(self.sent_bytes) + sends;
        let memory_bytes = u32::try_from(memory_bytes).unwrap_or(u32::MAX);
        *self = MemoryLook { memory_bytes, ..MemoryLook::default() };
        (f64::from(memory_bytes) / unread).min(1.0)
    }
}

impl<S: Copy> Connection<S> {
    /// A connection that has just been accepted, and when it is old, if it ever is.
    pub fn new(id: ConnectionId, socket: S, now_ns: u64, old_at_ns: Option<u64>) -> Connection<S> {
        Connection {
            id,
            socket,
            receive: Receive::Unarmed,
            ending: Ending::No,
            close_reason: CloseReason::Peer,
            peer_finished: false,
            last_word: None,
            fills_buffers: false,
            partial: PartialRequest::default(),
            asked: None,
            backlog: Backlog::default(),
            sends: SendBuffer::default(),
            event_sequence: 0,
            response_sequence: 0,
            request_bytes_in_flight: 0,
            answer_bytes_in_flight: 0,
            refused: 0,
            opened_at_s: seconds(now_ns),
            received_at_ns: now_ns,
            request_began_ns: now_ns,
            receive_since_ns: now_ns,
            sent_bytes: 0,
            acknowledged_bytes: 0,
            look: MemoryLook::default(),
            is_stalled: false,
            sent_at_ns: now_ns,
            progress_at_ns: now_ns,
            longest_step_ns: 0,
            old_at_ns: old_at_ns.and_then(NonZeroU64::new),
            is_old: false,
            refusing_since_ns: None,
        }
    }

    // ---- A request comes in.

    /// Bytes have come.
    pub fn received(&mut self, arrival: Arrival<'_>, rules: &Rules, turn: Turn, blocks: &mut BlockPool) -> Received {
        let Arrival { buffer, headroom, bytes } = arrival;
        self.received_at_ns = turn.now_ns;
        self.fills_buffers = headroom + bytes == buffer.len();
        let waiting_since_ns = self.backlog.received(bytes, turn.now_ns);
        if self.discards() {
            return Received::default();
        }
        let had_begun = self.partial.has_begun();
        let Found { framed, hellos, lost } = self.partial.join(rules.layout, buffer, headroom, bytes, blocks);
        if self.partial.has_begun() && !(had_begun && framed.requests == 0 && hellos.is_empty()) {
            self.request_began_ns = turn.now_ns;
        }
        if self.refuses(turn) {
            return self.refuse(framed, &hellos, lost);
        }
        let requests = framed.requests;
        let framed = (requests > 0).then_some(framed);
        let mut received = Received { framed, waiting_since_ns, lost, ..Received::default() };
        for run in hellos {
            received.hellos += run.hellos;
            self.asked(run, requests, rules, turn, blocks);
        }
        match lost {
            None => {}
            Some(Lost::BadCount(_)) => self.end_with(ErrorCode::BadVectorCount, CloseReason::Framing),
            Some(Lost::WrongFeatureDim(_)) => self.end_with(ErrorCode::WrongFeatureDim, CloseReason::FeatureDim),
        }
        received
    }

    /// What came is answered with error 4. A hello for other features is no exception, and the last thing that is read.
    #[cold]
    fn refuse(&mut self, framed: Framed, hellos: &[HelloRun], lost: Option<Lost>) -> Received {
        let mut hellos_refused = hellos.iter().map(|run| run.hellos).sum();
        self.refused += framed.requests + hellos_refused;
        let lost = match lost {
            Some(Lost::BadCount(_)) => {
                self.end_with(ErrorCode::BadVectorCount, CloseReason::Framing);
                lost
            }
            Some(Lost::WrongFeatureDim(_)) => {
                self.end_with(ErrorCode::Closing, self.refusal_reason());
                hellos_refused += 1;
                None
            }
            None => None,
        };
        Received { refused: framed.requests, hellos_refused, lost, ..Received::default() }
    }

    /// Hellos came, at this place among so many requests of the next event. They are answered at once if nothing comes before them.
    #[cold]
    fn asked(&mut self, run: HelloRun, requests: u32, rules: &Rules, turn: Turn, blocks: &mut BlockPool) {
        if run.requests == 0 && !self.has_in_flight() {
            return self.answer_hellos(run.hellos, rules.hello.version_now(), rules, turn, blocks);
        }
        self.answer_bytes_in_flight += run.hellos as usize * rules.hello.answer_bytes();
        let asked = if run.requests > 0 && run.requests == requests {
            let run = HelloRun { requests: 0, ..run };
            Asked { sequence: self.event_sequence.wrapping_add(1), run }
        } else {
            Asked { sequence: self.event_sequence, run }
        };
        self.asked.get_or_insert_default().push(asked);
    }

    /// The event for requests that [`Connection::received`] handed out; they are in flight from now on.
    pub fn event_for(&mut self, framed: Framed, rules: &Rules, io_thread: u16, buffer: u16) -> InferenceEvent {
        let narrow = |size: usize| u32::try_from(size).expect("a buffer's sizes fit 32 bits");
        self.request_bytes_in_flight += framed.request_bytes;
        self.answer_bytes_in_flight += rules.layout.answer_bytes(framed.requests as usize, framed.rows as usize);
        let sequence = self.event_sequence;
        self.event_sequence = sequence.wrapping_add(1);
        InferenceEvent {
            connection: self.id,
            io_thread,
            buffer,
            offset: narrow(framed.offset),
            request_bytes: narrow(framed.request_bytes),
            requests: u16::try_from(framed.requests).expect("a pool's geometry bounds the requests of a buffer"),
            rows: framed.rows,
            sequence,
            received_at_ns: 0,
            waiting_since_ns: 0,
        }
    }

    /// The receive completed for the last time and has to be armed anew, if it is still wanted.
    pub fn receive_ended(&mut self, turn: Turn) {
        assert!(self.receive_in_kernel(), "a receive ends once");
        self.receive = Receive::Unarmed;
        self.receive_since_ns = turn.now_ns;
    }

    /// A receive has been armed: whether it is worth asking the kernel how much waits in the socket, for [`Connection::waits`].
    pub fn resumes(&mut self, turn: Turn) -> bool {
        self.backlog.resumes(turn.now_ns)
    }

    /// So many bytes wait in the socket.
    pub fn waits(&mut self, bytes: usize) {
        self.backlog.waits(bytes);
    }

    /// The peer has shut down its sending side. A request that it left unfinished is dropped.
    pub fn peer_ended(&mut self, blocks: &mut BlockPool) {
        self.peer_finished = true;
        self.partial.clear(blocks);
    }

    /// The receive ended because the pool was empty. The I/O thread queues the connection for buffers.
    pub fn starve(&mut self, turn: Turn) {
        assert!(self.receive == Receive::Unarmed, "the receive has ended");
        self.receive = Receive::Starved;
        self.backlog.held(Hold::Server, turn.now_ns);
    }

    /// There are buffers again.
    pub fn feed(&mut self) {
        if self.receive == Receive::Starved {
            self.receive = Receive::Unarmed;
        }
    }

    // ---- An answer goes out.

    /// The answers to the oldest event in flight have come back. Returns whether they will be sent; if not, the
    /// connection is gone.
    pub fn answered(
        &mut self,
        response: &Response,
        answer_bytes: &[u8],
        rules: &Rules,
        turn: Turn,
        blocks: &mut BlockPool,
    ) -> bool {
        assert!(response.connection == self.id, "a response reaches the connection that asked");
        assert!(response.sequence == self.response_sequence, "answers come in request order");
        self.response_sequence = self.response_sequence.wrapping_add(1);
        let request_bytes = response.request_bytes as usize;
        self.request_bytes_in_flight -= request_bytes;
        let rows = rules.layout.rows_of(request_bytes, u32::from(response.requests));
        self.answer_bytes_in_flight -= rules.layout.answer_bytes(usize::from(response.requests), rows);
        if self.is_gone() {
            return false;
        }
        match self.asked.take() {
            None => self.append(answer_bytes, turn, blocks),
            Some(asked) => self.append_with_hellos(asked, response, answer_bytes, rules, turn, blocks),
        }
        true
    }

    /// Puts the answers to hellos where they belong among those of an event, and behind them if no other request is in flight.
    #[cold]
    fn append_with_hellos(
        &mut self,
        mut asked: Box<AskedLine>,
        response: &Response,
        mut answer_bytes: &[u8],
        rules: &Rules,
        turn: Turn,
        blocks: &mut BlockPool,
    ) {
        let answered = |connection: &mut Connection<S>, hellos: u32, model_version: u64, blocks: &mut BlockPool| {
            connection.answer_bytes_in_flight -= hellos as usize * rules.hello.answer_bytes();
            connection.answer_hellos(hellos, model_version, rules, turn, blocks);
        };
        let mut requests = 0;
        while let Some(run) = asked.next_upto(response.sequence) {
            let end = answers_end(rules.layout.outputs(), answer_bytes, run.requests - requests);
            let answers = answer_bytes.split_off(..end).expect("as many answers as requests");
            requests = run.requests;
            self.append(answers, turn, blocks);
            answered(self, run.hellos, response.model_version, blocks);
        }
        self.append(answer_bytes, turn, blocks);
        if !self.has_in_flight() {
            while let Some(run) = asked.next_upto(self.event_sequence) {
                answered(self, run.hellos, rules.hello.version_now(), blocks);
            }
        }
        self.asked = (!asked.is_empty()).then_some(asked);
    }

    fn answer_hellos(&mut self, hellos: u32, model_version: u64, rules: &Rules, turn: Turn, blocks: &mut BlockPool) {
        self.owe_from(turn);
        self.sends.append_hellos(hellos, model_version, &rules.hello, blocks);
    }

    fn append(&mut self, answer_bytes: &[u8], turn: Turn, blocks: &mut BlockPool) {
        self.owe_from(turn);
        self.sends.append(answer_bytes, blocks);
    }

    /// Something is owed from now on, if nothing is yet.
    fn owe_from(&mut self, turn: Turn) {
        if self.unacknowledged_bytes() == 0 {
            self.progress_at_ns = turn.now_ns;
        }
    }

    /// A send completed: `block` comes back, `sent` bytes of which the kernel has taken.
    pub fn send_completed(&mut self, block: Box<Block>, sent: usize, turn: Turn, blocks: &mut BlockPool) {
        self.sends.send_completed(block, sent, blocks);
        self.sent_bytes += sent as u64;
        self.look.sent(sent);
        self.sent_at_ns = turn.now_ns;
        if self.is_gone() {
            self.sends.clear(blocks);
        }
    }

    /// Whether it is worth asking the kernel how much it has sent of what is acknowledged.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.acknowledged_bytes < self.sent_bytes && !self.is_gone()
    }

    /// All but `unacknowledged` of the bytes that the kernel has taken, of a send that it still has too, have been
    /// acknowledged. Its FIN counts as one more. What is known only grows.
    pub fn acknowledged(&mut self, unacknowledged: usize, turn: Turn) {
        let acknowledged = self.sent_bytes.saturating_sub(unacknowledged as u64);
        if acknowledged > self.acknowledged_bytes {
            self.acknowledged_bytes = acknowledged;
            self.longest_step_ns = self.longest_step_ns.max(turn.now_ns.saturating_sub(self.progress_at_ns));
            self.progress_at_ns = turn.now_ns;
        }
        let stalled_ns = turn.now_ns.saturating_sub(self.progress_at_ns);
        self.is_stalled = self.unacknowledged_bytes() > 0 && stalled_ns >= nanoseconds(WRITER_STALL_MIN);
    }

    /// The same of a socket that tells only how much memory is taken by what the peer has not read: some of it has been read if
    /// that is less than before and what was sent since. How much that was is a guess, until all of it has been.
    pub fn unread(&mut self, memory_bytes: usize, turn: Turn) {
        let before = self.sent_bytes - self.acknowledged_bytes;
        let share_of_before = self.look.share_left(memory_bytes);
        let unread =
            if memory_bytes == 0 { 0 } else { ((before as f64 * share_of_before) as u64).clamp(1, before.max(1)) };
        self.acknowledged(unread as usize, turn);
    }

    // ---- It ends.

    /// Gives the connection up: the peer can't be reached, or its time is over. Nothing more is sent.
    pub fn abandon(&mut self, reason: CloseReason, blocks: &mut BlockPool) {
        if !self.is_gone() {
            self.ending = Ending::Gone { shut: false };
            self.close_reason = reason;
            self.partial.clear(blocks);
            self.sends.clear(blocks);
            self.asked = None;
        }
    }

    /// Closes the connection once everything owed is sent, and behind it this.
    fn end_with(&mut self, last_word: ErrorCode, reason: CloseReason) {
        self.last_word = Some(last_word);
        self.end_gracefully(reason);
    }

    /// Closes the connection once everything owed is sent.
    pub fn end_gracefully(&mut self, reason: CloseReason) {
        if self.ending == Ending::No {
            self.ending = Ending::Graceful;
            self.close_reason = reason;
        }
    }

    // ---- What is due.

    /// The next operation that is due, marked as begun. Call it until there is none.
    pub fn next_step(&mut self, rules: &Rules, turn: Turn, blocks: &mut BlockPool) -> Option<Step> {
        self.refuse_when_due(turn, blocks);
        match self.ending {
            Ending::Gone { shut: false } if self.holds_kernel() => {
                self.ending = Ending::Gone { shut: true };
                Some(Step::Abort)
            }
            Ending::Gone { .. } if !self.holds_kernel() => {
                self.ending = Ending::Closed;
                Some(Step::Close)
            }
            Ending::Gone { .. } => None,
            Ending::Closed => (!self.has_in_flight()).then_some(Step::Free),
            Ending::No | Ending::Graceful | Ending::HalfClosed { .. } => self.next_open_step(rules, turn, blocks),
        }
    }

    fn next_open_step(&mut self, rules: &Rules, turn: Turn, blocks: &mut BlockPool) -> Option<Step> {
        let (limits, pressure) = (rules.limits, blocks.pressure());
        if self.sends.can_send() {
            return Some(Step::Send(self.sends.send(&rules.hello, blocks)));
        }
        let wants_receive = self.wants_receive(limits, pressure);
        if !wants_receive {
            let by = if self.has_credit(limits, pressure, 0) { Hold::Peer } else { Hold::Server };
            self.backlog.held(by, turn.now_ns);
        }
        if self.refuses(turn) && wants_receive && self.receive != Receive::Starved {
            self.refusing_since_ns.get_or_insert(turn.now_ns);
        }
        if self.owes_nothing() {
            if self.peer_finished && self.receive == Receive::Unarmed {
                self.ending = Ending::Closed;
                return Some(Step::Close);
            }
            if !matches!(self.ending, Ending::HalfClosed { .. }) && self.should_half_close(turn) {
                if self.ending == Ending::No {
                    self.close_reason = self.refusal_reason();
                }
                self.ending = Ending::HalfClosed { since_ns: turn.now_ns };
                return Some(Step::HalfClose);
            }
        }
        match self.receive {
            Receive::Unarmed if wants_receive => {
                // One at a time, too, where each may bring what there is no memory for.
                let is_one = self.fills_buffers || pressure >= Pressure::High;
                let shots = if is_one { Shots::One } else { Shots::Many };
                self.receive = Receive::Armed(shots);
                self.request_began_ns += turn.now_ns.saturating_sub(self.receive_since_ns);
                self.receive_since_ns = turn.now_ns;
                Some(Step::Receive(shots))
            }
            Receive::Armed(Shots::Many) if !wants_receive => {
                self.receive = Receive::Cancelling;
                Some(Step::CancelReceive)
            }
            Receive::Unarmed | Receive::Armed(_) | Receive::Cancelling | Receive::Starved => None,
        }
    }

    /// Appends the refusals and the last word, once every answer owed before them is there.
    fn refuse_when_due(&mut self, turn: Turn, blocks: &mut BlockPool) {
        if self.has_in_flight() || self.is_gone() {
            return;
        }
        for _ in 0..std::mem::take(&mut self.refused) {
            self.append(&ErrorCode::Closing.answer(), turn, blocks);
        }
        if let Some(last_word) = self.last_word.take() {
            self.append(&last_word.answer(), turn, blocks);
        }
    }

    fn should_half_close(&self, turn: Turn) -> bool {
        let passed = |since_ns: u64, limit: Duration| turn.now_ns.saturating_sub(since_ns) >= nanoseconds(limit);
        self.ending == Ending::Graceful
            || self.refuses(turn)
                && self.refusing_since_ns.is_some_and(|since_ns| {
                    passed(since_ns.max(self.received_at_ns), DRAIN_QUIET) || passed(since_ns, DRAIN_REFUSE)
                })
    }

    // ---- Facts.

    /// Whether requests are answered with error 4, and the connection is closed when the peer has fallen quiet.
    fn refuses(&self, turn: Turn) -> bool {
        self.is_old || turn.drain == Drain::Refuse
    }

    /// Why a connection is closed whose requests are refused.
    fn refusal_reason(&self) -> CloseReason {
        if self.is_old { CloseReason::Age } else { CloseReason::Drain }
    }

    /// Whether nothing more is sent.
    pub fn is_gone(&self) -> bool {
        matches!(self.ending, Ending::Gone { .. } | Ending::Closed)
    }

    /// How it ended, once it has.
    pub fn close_reason(&self) -> CloseReason {
        self.close_reason
    }

    /// Whether requests are in flight between this thread and the batch processor.
    pub fn has_in_flight(&self) -> bool {
        self.event_sequence != self.response_sequence
    }

    /// Bursts of its requests that are.
    pub fn bursts_in_flight(&self) -> u32 {
        self.event_sequence.wrapping_sub(self.response_sequence)
    }

    /// How many seconds ago it was accepted.
    pub fn age_seconds(&self, turn: Turn) -> u32 {
        seconds(turn.now_ns).saturating_sub(self.opened_at_s)
    }

    /// Whether it is open and nothing is received from it until its peer takes answers, or until requests of it are scored.
    pub fn is_out_of_credit(&self, limits: ConnectionLimits, pressure: Pressure) -> bool {
        !self.peer_finished && !self.is_gone() && !self.wants_receive(limits, pressure)
    }

    /// Whether a request has begun to come.
    pub fn is_midway(&self) -> bool {
        self.partial.has_begun()
    }

    /// What it holds of the thread's budget for blocks.
    pub fn held_bytes(&self) -> usize {
        self.sends.held_bytes() + self.partial.held_bytes()
    }

    /// Bytes of answers that the peer's side is not known to have acknowledged, sent or not.
    pub fn unacknowledged_bytes(&self) -> usize {
        (self.sent_bytes - self.acknowledged_bytes) as usize + self.sends.unsent_bytes()
    }

    /// Whether everything received has been answered and everything answered is the kernel's.
    fn owes_nothing(&self) -> bool {
        !self.has_in_flight() && self.sends.unsent_bytes() == 0 && self.refused == 0 && self.last_word.is_none()
    }

    /// Whether what comes in is thrown away.
    fn discards(&self) -> bool {
        self.ending != Ending::No
    }

    fn wants_receive(&self, limits: ConnectionLimits, pressure: Pressure) -> bool {
        // When memory is short, a peer that leaves answers in the kernel gets no more of it either: it would take what the
        // eviction of others has freed.
        let waiting = if pressure >= Pressure::High { self.unacknowledged_bytes() } else { self.sends.unsent_bytes() };
        let takes = self.discards() || self.has_credit(limits, pressure, waiting);
        !self.peer_finished && !self.is_gone() && takes
    }

    /// Whether more may be received from a peer that leaves so many bytes of answers waiting.
    fn has_credit(&self, limits: ConnectionLimits, pressure: Pressure, waiting: usize) -> bool {
        let owed_max = match pressure {
            Pressure::Slack if self.is_stalled => limits.answer_bytes_owed_to_writer_max,
            Pressure::Slack | Pressure::Low => limits.answer_bytes_owed_max,
            Pressure::High | Pressure::Full => limits.answer_bytes_owed_under_pressure_max,
        };
        let owed = self.answer_bytes_in_flight + waiting + self.refused as usize * ERROR_ANSWER_BYTES;
        owed < owed_max && self.request_bytes_in_flight < limits.request_bytes_in_flight_max
    }

    fn receive_in_kernel(&self) -> bool {
        matches!(self.receive, Receive::Armed(_) | Receive::Cancelling)
    }

    fn holds_kernel(&self) -> bool {
        self.receive_in_kernel() || self.sends.send_in_kernel()
    }
}

/// Where the first answers of so many end.
fn answers_end(outputs: usize, answers: &[u8], count: u32) -> usize {
    (0..count).fold(0, |end, _| {
        let read = read_answer_of(outputs, &answers[end..]);
        let (_, bytes) = read.ok().flatten().expect("the batch processor writes whole answers");
        end + bytes
    })
}

fn seconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds / 1_000_000_000).unwrap_or(u32::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
