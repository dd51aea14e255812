//! A ring that a seed drives: io_uring as an I/O thread sees it, with everything it may do wrong.
//!
//! Modelled after Linux 6.1 and later with DEFER_TASKRUN: nothing completes outside `enter`. A submission names a
//! descriptor, which is looked up only when it is submitted. Buffers are taken before the socket is looked at, so a
//! receive without buffers ends with ENOBUFS whatever there is to receive. A multishot ends when its completion does
//! not fit the queue; completions beyond the queue wait, and `enter` is EBUSY until there is room.
//!
//! What it checks by itself: a lent buffer's bytes are nobody's but the kernel's; a block's content does not change
//! while it is lent; a descriptor is closed when no operation holds it, and no operation reaches a descriptor that is
//! closed or another's by now; there is at most one receive and one send for a connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use disrust::exchange::blocks::Block;
use disrust::exchange::buffer_pool::{Buffer, BufferPool};
use disrust::exchange::event::ConnectionId;
use disrust::exchange::wake::Alarm;
use disrust::kernel::{Completion, Entrance, ReceiveOutcome, Shots};
use fastrand::Rng;

use super::network::{Descriptor, Incoming, Network, Outgoing, StreamNumber, errno};
use super::swarm::Faults;
use super::trace::note;

/// What a lent buffer is filled with.
const CANARY: u8 = 0xa5;

/// Calls between two times that a thread lets others run; more is a loop without end.
const CALLS_MAX: usize = 100_000;

/// The longest that an operation is late for no reason, and for its end.
const LATE_NS_MAX: u64 = 3_000_000;
const LATE_END_NS_MAX: u64 = 300_000_000;

/// An eventfd, or a park token: a count that its sleeper takes.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<AtomicU64>);

impl Bell {
    pub fn has_rung(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub fn take(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) > 0
    }
}

impl Alarm for Bell {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an operation does.
pub enum Kind {
    Accept(Entrance),
    Receive { stream: StreamNumber, id: ConnectionId, shots: Shots },
    Send { stream: StreamNumber, id: ConnectionId, block: Box<Block>, checksum: u64 },
    CancelAccept(Entrance),
    CancelReceive(ConnectionId),
    Timer,
    Alarm,
}

/// An operation that was submitted.
struct Operation {
    kind: Kind,
    /// It has not been tried yet.
    fresh: bool,
    cancelled: bool,
    /// Nothing happens to it before this time.
    due_ns: u64,
}

/// An operation that was not submitted yet.
struct Submission {
    descriptor: Option<Descriptor>,
    operation: Operation,
}

/// A thread's ring, seen from both sides.
pub struct Ring {
    pub thread: usize,
    pub network: Rc<RefCell<Network>>,
    rng: Rng,
    faults: Faults,
    pool: Arc<BufferPool>,
    /// What a lent buffer holds.
    canaries: Box<[u8]>,
    bell: Bell,
    completions_max: usize,
    submissions: VecDeque<Submission>,
    operations: Vec<Operation>,
    /// Lent, but not told to the kernel.
    lending: Vec<Buffer>,
    lent: VecDeque<Buffer>,
    completions: VecDeque<Completion<Descriptor>>,
    overflow: VecDeque<Completion<Descriptor>>,
    /// The stream that each slot has last received from.
    received_from: Vec<StreamNumber>,
    asleep: bool,
    calls: usize,
    pub reached: RingReached,
}

/// How often something rare happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct RingReached {
    pub enters_failed: u64,
    pub overflows: u64,
    pub cancels: u64,
    pub one_shots: u64,
    pub unix_accepts: u64,
}

impl Ring {
    pub fn new(
        thread: usize,
        network: Rc<RefCell<Network>>,
        rng: Rng,
        faults: Faults,
        pool: Arc<BufferPool>,
        bell: Bell,
        completions_max: usize,
    ) -> Ring {
        let mut ring = Ring {
            thread,
            network,
            rng,
            faults,
            canaries: vec![CANARY; pool.geometry().buffer_bytes()].into(),
            bell,
            completions_max,
            submissions: VecDeque::new(),
            operations: Vec::new(),
            lending: Vec::new(),
            lent: VecDeque::with_capacity(usize::from(pool.geometry().buffers)),
            completions: VecDeque::with_capacity(completions_max),
            overflow: VecDeque::new(),
            received_from: Vec::new(),
            asleep: false,
            calls: 0,
            reached: RingReached::default(),
            pool,
        };
        for index in 0..ring.pool.geometry().buffers {
            let buffer = ring.pool.adopt(index);
            ring.lend(buffer);
        }
        ring
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Whether a thread that sleeps in `enter` could have a completion now.
    pub fn can_wake(&self) -> bool {
        let network = self.network.borrow();
        self.operations.iter().any(|operation| self.is_ready(&network, operation))
    }

    /// Goes on where `enter` waits. Returns whether there is a completion, and with it an end to the sleep.
    pub fn wake(&mut self) -> bool {
        self.work(true);
        self.asleep = self.completions.is_empty();
        !self.asleep
    }

    /// The next time at which something that waits for the clock alone can happen.
    pub fn next_due_ns(&self) -> Option<u64> {
        let now_ns = self.network.borrow().now_ns;
        self.operations.iter().map(|operation| operation.due_ns).filter(|due_ns| *due_ns > now_ns).min()
    }

    /// Whether an alarm has been rung that the thread will hear.
    pub fn alarm_is_under_way(&self) -> bool {
        self.bell.has_rung() && self.has_operation(|kind| matches!(kind, Kind::Alarm))
    }

    /// What the ring holds beside its listener's accept, its timer and its alarm, in words; empty at rest. A cancel that
    /// is under way holds nothing.
    pub fn held(&self) -> String {
        let at_rest = |kind: &Kind| !matches!(kind, Kind::Receive { .. } | Kind::Send { .. });
        let operations = self.operations.iter().filter(|operation| !at_rest(&operation.kind)).count();
        let buffers = usize::from(self.pool.geometry().buffers) - self.lent.len() - self.lending.len();
        let submissions = self.submissions.iter().filter(|submission| !at_rest(&submission.operation.kind)).count();
        let tells_of_time = |completion: &&_| matches!(completion, Completion::Timer | Completion::Alarm);
        let completions = self.completions.iter().chain(&self.overflow);
        let completions = completions.filter(|completion| !tells_of_time(completion)).count();
        if operations + buffers + submissions + completions == 0 {
            return String::new();
        }
        format!(
            "ring {}: {operations} operations, {submissions} submissions, {buffers} buffers away, {completions} completions",
            self.thread
        )
    }

    pub fn called(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_MAX, "a turn of an I/O thread has an end");
    }

    pub fn now_ns(&self) -> u64 {
        self.network.borrow().now_ns
    }

    // ---- Submitting.

    pub fn queue(&mut self, descriptor: Option<Descriptor>, kind: Kind, after: Duration) {
        self.called();
        let due_ns = if after.is_zero() { 0 } else { self.now_ns() + after.as_nanos() as u64 };
        let operation = Operation { kind, fresh: true, cancelled: false, due_ns };
        if let Some(stream) = operation.stream() {
            self.network.borrow_mut().operation_began(stream);
        }
        if let Kind::Receive { stream, id, .. } = operation.kind {
            let slot = id.slot as usize;
            self.received_from.resize(self.received_from.len().max(slot + 1), 0);
            self.received_from[slot] = stream;
        }
        self.submissions.push_back(Submission { descriptor, operation });
    }

    fn submit(&mut self, most: usize) {
        for _ in 0..most {
            let Some(Submission { descriptor, mut operation }) = self.submissions.pop_front() else { return };
            if let (Some(descriptor), Some(stream)) = (descriptor, operation.stream()) {
                let found = self.network.borrow().stream_of(descriptor);
                assert!(found == stream, "an operation reaches the socket that it was meant for");
            }
            if operation.due_ns == 0 && self.faults.late.hits(&mut self.rng) {
                operation.due_ns = self.now_ns() + self.rng.u64(1..LATE_NS_MAX);
            }
            self.operations.push(operation);
        }
    }

    pub fn enter(&mut self, wait: bool) {
        self.calls = 0;
        assert!(!self.asleep, "a thread that sleeps does nothing");
        self.lent.extend(self.lending.drain(..));
        if self.faults.enter_fails.hits(&mut self.rng) {
            let taken = self.rng.usize(..=self.submissions.len());
            note(|| format!("ring {}: enter fails after {taken} submissions", self.thread));
            self.reached.enters_failed += 1;
            self.submit(taken);
            return;
        }
        while self.completions.len() < self.completions_max
            && let Some(completion) = self.overflow.pop_front()
        {
            self.completions.push_back(completion);
        }
        if !self.overflow.is_empty() {
            note(|| format!("ring {}: enter fails, completions overflow", self.thread));
            return;
        }
        if self.rng.bool() {
            self.work(false);
        }
        self.submit(self.submissions.len());
        self.work(false);
        self.asleep = wait && self.completions.is_empty();
        if self.asleep {
            note(|| format!("ring {}: asleep", self.thread));
        }
    }

    // ---- Completing.

    #[inline]
    fn is_ready(&self, network: &Network, operation: &Operation) -> bool {
        if network.now_ns < operation.due_ns {
            return false;
        }
        if operation.fresh || operation.cancelled {
            return true;
        }
        match &operation.kind {
            Kind::Accept(from) => {
                network.listener(self.thread, *from).is_some_and(|listener| network.ends_accept(listener))
            }
            Kind::Receive { stream, .. } => network.is_readable(*stream),
            Kind::Send { stream, .. } => network.is_writable(*stream),
            Kind::CancelAccept(_) | Kind::CancelReceive(_) | Kind::Timer => true,
            Kind::Alarm => self.bell.has_rung(),
        }
    }

    /// Gives operations that can go on a chance to; with `insist`, to all of them until one has completed.
    fn work(&mut self, insist: bool) {
        let count = self.operations.len();
        if count == 0 {
            return;
        }
        // In any order; their ends may overtake one another.
        let mut index = self.rng.usize(..count);
        for _ in 0..count {
            index = if index < self.operations.len() { index } else { 0 };
            let insists = insist && self.completions.is_empty();
            let ready = self.is_ready(&self.network.borrow(), &self.operations[index]);
            if !ready || (!insists && self.faults.later.hits(&mut self.rng)) {
                index += 1;
                continue;
            }
            // The others keep their order: each is looked at once, and none is overlooked.
            let operation = self.operations.remove(index);
            let stream = operation.stream();
            match self.attempt(operation) {
                Some(unfinished) => {
                    self.operations.insert(index, unfinished);
                    index += 1;
                }
                None => {
                    if let Some(stream) = stream {
                        self.network.borrow_mut().operation_ended(stream);
                    }
                }
            }
        }
    }

    /// Cancels an operation, if it has not completed yet.
    fn cancel(&mut self, is_target: impl Fn(&Kind) -> bool) {
        let late = self.faults.late.hits(&mut self.rng);
        let due_ns = if late { self.now_ns() + self.rng.u64(..LATE_END_NS_MAX) } else { 0 };
        self.reached.cancels += 1;
        if let Some(target) = self.operations.iter_mut().find(|operation| is_target(&operation.kind)) {
            (target.cancelled, target.due_ns) = (true, due_ns);
        }
    }

    /// Tries an operation that is ready; returns it unless its final completion has been posted.
    fn attempt(&mut self, operation: Operation) -> Option<Operation> {
        let Operation { kind, cancelled, due_ns, .. } = operation;
        let kind = match kind {
            Kind::Accept(from) => self.attempt_accept(from, cancelled),
            Kind::Receive { stream, id, shots } => self.attempt_receive(stream, id, shots, cancelled),
            Kind::Send { stream, id, block, checksum } => self.attempt_send(stream, id, block, checksum),
            Kind::CancelAccept(target) => {
                self.cancel(|kind| matches!(kind, Kind::Accept(from) if *from == target));
                None
            }
            Kind::CancelReceive(target) => {
                self.cancel(|kind| matches!(kind, Kind::Receive { id, .. } if *id == target));
                None
            }
            Kind::Timer => {
                self.post(Completion::Timer);
                None
            }
            Kind::Alarm => {
                if self.bell.take() {
                    self.post(Completion::Alarm);
                    None
                } else {
                    Some(kind)
                }
            }
        }?;
        Some(Operation { kind, fresh: false, cancelled, due_ns })
    }

    /// From a listener that threads share, one at a time.
    fn attempt_accept(&mut self, from: Entrance, cancelled: bool) -> Option<Kind> {
        if cancelled {
            self.post(Completion::Accepted { from, result: Err(error(errno::ECANCELED)), more: false });
            return None;
        }
        let listener = self.network.borrow().listener(self.thread, from).expect("it has been armed");
        loop {
            // A descriptor is reserved before the queue is looked at.
            let out = self.network.borrow().descriptors_are_out();
            if out || self.faults.accept_fails.hits(&mut self.rng) {
                let number = if out { errno::EMFILE } else { errno::ENOMEM };
                let mut network = self.network.borrow_mut();
                let now_ns = network.now_ns;
                network.accept_failures_ns.push(now_ns);
                drop(network);
                self.post(Completion::Accepted { from, result: Err(error(number)), more: false });
                return None;
            }
            let accepted = self.network.borrow_mut().accept(listener);
            let Some(descriptor) = accepted else {
                if !self.network.borrow().is_shut(listener) {
                    return Some(Kind::Accept(from));
                }
                self.post(Completion::Accepted { from, result: Err(error(errno::EINVAL)), more: false });
                return None;
            };
            self.reached.unix_accepts += u64::from(from == Entrance::Unix);
            let more = from == Entrance::Tcp && self.has_room() && !self.faults.shots_end.hits(&mut self.rng);
            self.post(Completion::Accepted { from, result: Ok(descriptor), more });
            if !more {
                return None;
            }
        }
    }

    fn attempt_receive(
        &mut self,
        stream: StreamNumber,
        id: ConnectionId,
        shots: Shots,
        cancelled: bool,
    ) -> Option<Kind> {
        // A cancel races with what arrives: sometimes a last burst comes before the end.
        let readable = self.network.borrow().is_readable(stream);
        if cancelled && (!readable || shots == Shots::One || self.rng.bool()) {
            return self.received(id, ReceiveOutcome::Ended, false);
        }
        if self.faults.receive_ends.hits(&mut self.rng) {
            return self.received(id, ReceiveOutcome::Ended, false);
        }
        loop {
            let Some(mut buffer) = self.lent.pop_front() else {
                return self.received(id, ReceiveOutcome::NoBuffers, false);
            };
            let incoming = self.fill(stream, &mut buffer);
            let outcome = match incoming {
                Incoming::Bytes(bytes) => ReceiveOutcome::Bytes { buffer, bytes },
                other => {
                    self.lent.push_front(buffer);
                    match other {
                        Incoming::End => ReceiveOutcome::End,
                        Incoming::Error(number) => ReceiveOutcome::Failed(error(number)),
                        Incoming::Nothing | Incoming::Bytes(_) => return Some(Kind::Receive { stream, id, shots }),
                    }
                }
            };
            let goes_on = matches!(outcome, ReceiveOutcome::Bytes { .. }) && shots == Shots::Many && self.has_room();
            let more = goes_on && !self.faults.shots_end.hits(&mut self.rng);
            self.received(id, outcome, more);
            if !more {
                return None;
            }
            // Without anything left it waits for more, and does not look for a buffer.
            if cancelled || !self.network.borrow().is_readable(stream) {
                return Some(Kind::Receive { stream, id, shots });
            }
        }
    }

    /// Receives into a lent buffer, whose bytes nobody has touched since it was lent.
    fn fill(&mut self, stream: StreamNumber, buffer: &mut Buffer) -> Incoming {
        let geometry = self.pool.geometry();
        let bytes = self.pool.bytes_mut(buffer);
        assert!(bytes[..] == self.canaries[..], "a buffer that the kernel holds is written by nobody else");
        let area = &mut bytes[geometry.headroom_bytes..];
        let short = self.faults.short_receive.hits(&mut self.rng);
        let most = if short { 1 + self.rng.usize(..area.len()) } else { area.len() };
        self.network.borrow_mut().receive(stream, &mut area[..most])
    }

    fn received(&mut self, id: ConnectionId, outcome: ReceiveOutcome, more: bool) -> Option<Kind> {
        self.post(Completion::Received { id, outcome, more });
        None
    }

    fn attempt_send(
        &mut self,
        stream: StreamNumber,
        id: ConnectionId,
        block: Box<Block>,
        checksum: u64,
    ) -> Option<Kind> {
        let content = block.content();
        assert!(checksum == checksum_of(content), "a block that is being sent does not change");
        let result = if self.faults.send_again.hits(&mut self.rng) {
            Ok(0)
        } else {
            let short = self.faults.short_send.hits(&mut self.rng);
            let most = if short { 1 + self.rng.usize(..content.len()) } else { content.len() };
            match self.network.borrow_mut().send(stream, content, most) {
                Outgoing::NoRoom => return Some(Kind::Send { stream, id, block, checksum }),
                Outgoing::Taken(bytes) => Ok(bytes),
                Outgoing::Error(number) => Err(error(number)),
            }
        };
        self.post(Completion::Sent { id, block, result });
        None
    }

    fn has_room(&self) -> bool {
        self.completions.len() < self.completions_max && self.overflow.is_empty()
    }

    fn post(&mut self, completion: Completion<Descriptor>) {
        note(|| format!("ring {}: {}", self.thread, describe(&completion)));
        if self.has_room() {
            self.completions.push_back(completion);
        } else {
            self.overflow.push_back(completion);
            self.reached.overflows += 1;
        }
    }

    // ---- What acts at once.

    pub fn lend(&mut self, mut buffer: Buffer) {
        self.called();
        self.pool.bytes_mut(&mut buffer).fill(CANARY);
        self.lending.push(buffer);
    }

    pub fn abort(&mut self, descriptor: Descriptor) {
        self.called();
        self.network.borrow_mut().abort(descriptor);
        let stream = self.network.borrow().stream_of(descriptor);
        let now_ns = self.now_ns();
        for operation in &mut self.operations {
            if operation.stream() == Some(stream) && self.faults.late.hits(&mut self.rng) {
                operation.due_ns = now_ns + self.rng.u64(..LATE_END_NS_MAX);
            }
        }
    }

    /// The next completion that is there, for the thread.
    pub fn next_completion(&mut self) -> Option<Completion<Descriptor>> {
        assert!(!self.asleep, "a thread that sleeps does nothing");
        self.called();
        let completion = self.completions.pop_front();
        if let Some(Completion::Received { id, outcome: ReceiveOutcome::Bytes { bytes, .. }, .. }) = &completion {
            self.network.borrow_mut().deliver(self.received_from[id.slot as usize], *bytes);
        }
        completion
    }

    pub fn has_operation(&self, matches: impl Fn(&Kind) -> bool) -> bool {
        let submitted = self.operations.iter().any(|operation| matches(&operation.kind));
        submitted || self.submissions.iter().any(|submission| matches(&submission.operation.kind))
    }
}

impl Operation {
    fn stream(&self) -> Option<StreamNumber> {
        match self.kind {
            Kind::Receive { stream, .. } | Kind::Send { stream, .. } => Some(stream),
            Kind::Accept(_) | Kind::CancelAccept(_) | Kind::CancelReceive(_) | Kind::Timer | Kind::Alarm => None,
        }
    }
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Any change of one byte changes it (FNV-1a over words of up to 8 bytes).
pub fn checksum_of(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn describe(completion: &Completion<Descriptor>) -> String {
    match completion {
        Completion::Accepted { from, result, more } => format!("accepted {result:?} from {from:?}, more {more}"),
        Completion::Received { id, outcome: ReceiveOutcome::Bytes { buffer, bytes }, more } => {
            format!("received {bytes} bytes for {id:?} in buffer {}, more {more}", buffer.index())
        }
        Completion::Received { id, outcome, more } => format!("received {outcome:?} for {id:?}, more {more}"),
        Completion::Sent { id, block, result } => {
            format!("sent {result:?} of {} bytes for {id:?}", block.content().len())
        }
        Completion::Alarm => "alarm".to_owned(),
        Completion::Timer => "timer".to_owned(),
    }
}
