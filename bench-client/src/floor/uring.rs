//! The io_uring floor: one thread, and everything of the server but its hand-off.
//!
//! The ring's settings, the provided buffers, multishot accept and receive, framing, and the life of a connection are
//! the server's own code ([`disrust::kernel`], [`disrust::connections`]); only the way from a burst of requests to its
//! answers is different: sums, taken in place. So a comparison shows what the disruptor, the batch processor
//! and the response queue cost or save, and nothing else.
//!
//! The journey of a request: `received` → [`answer_all`] → `answered` → at the end of the turn, with
//! everything else that came for the connection, one send.
//!
//! Invariants: a buffer is lent to the kernel, or held within one completion, so buffers never run out for
//! longer than a turn; slots are freed only when no operation can refer to them ([`Connection`] sees to it).

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use disrust::connections::{Arrival, Connection, Drain, Rules, Step, Timeouts, Turn};
use disrust::exchange::blocks::{Block, BlockPool};
use disrust::exchange::buffer_pool::{Buffer, BufferPool};
use disrust::exchange::clock::Clock;
use disrust::exchange::event::{ConnectionId, InferenceEvent, Response};
use disrust::kernel::RingSocket;
use disrust::kernel::{
    Completion, EventFd, Kernel, ReceiveOutcome, RingSizes, ServedPort, UringKernel, bind_port, explain_refusal,
    resolve,
};
use disrust::limits::{
    BUFFER_MEMORY_BYTES, COMPLETION_ENTRIES, ConnectionLimits, PoolGeometry, RECEIVE_BYTES, SUBMISSION_ENTRIES, TICK,
};
use disrust_protocol::RequestLayout;
use slab::Slab;

use super::responder::{Framing, answer_all};
use super::{FloorError, accept_failed};

/// Connections that there is room for from the start; more cost an allocation each time that they double.
const CONNECTIONS_RESERVED: usize = 1024;

/// Nothing here has a deadline or drains, so all turns are alike and no clock is read.
const TURN: Turn = Turn { now_ns: 0, drain: Drain::No };

/// The server.
pub struct Server {
    kernel: UringKernel,
    /// Held for as long as it is served.
    _port: ServedPort,
    stop: UnixStream,
    layout: RequestLayout,
    rules: Rules,
    pool: Arc<BufferPool>,
    /// Holds nothing between bursts.
    answers: Vec<u8>,
    connections: Slab<Connection<RingSocket>>,
    /// Generation of the next connection.
    generation: u32,
    /// Slots of connections that something happened to in this turn; a slot may stand here twice.
    touched: Vec<u32>,
    blocks: BlockPool,
}

impl Server {
    /// A server on `host` and `port`, until `stop`, which does not block, is readable; and its address.
    pub fn new(
        host: &str,
        port: u16,
        layout: RequestLayout,
        stop: UnixStream,
    ) -> Result<(Server, SocketAddr), FloorError> {
        let mut bound = bind_port(resolve(host, port)?, 1, false)?;
        let address = bound.address();
        let listener = bound.take_listeners().pop().expect("one listener was asked for");
        let port = bound.listen()?;
        let pool = Arc::new(BufferPool::new(PoolGeometry::for_layout(layout)));
        let sizes = RingSizes { submissions: SUBMISSION_ENTRIES, completions: COMPLETION_ENTRIES };
        // Nobody rings the alarm: there is no other thread.
        let alarm = EventFd::new().map_err(FloorError::system("make an eventfd"))?;
        let kernel = UringKernel::new(sizes, Arc::clone(&pool), listener, alarm, Clock::starting())
            .map_err(|error| FloorError::RingUnavailable(explain_refusal(&error)))?;
        let server = Server {
            kernel,
            _port: port,
            stop,
            layout,
            rules: Rules {
                layout,
                limits: ConnectionLimits::SERVING,
                timeouts: Timeouts { request: None, idle: None },
            },
            pool,
            answers: Vec::with_capacity(RECEIVE_BYTES),
            connections: Slab::with_capacity(CONNECTIONS_RESERVED),
            generation: 0,
            touched: Vec::with_capacity(2 * COMPLETION_ENTRIES as usize),
            blocks: BlockPool::new(ConnectionLimits::SERVING.block_sizes(layout, BUFFER_MEMORY_BYTES)),
        };
        Ok((server, address))
    }

    /// Serves until it is told to stop; it looks for that at every tick. The sockets that are open then are closed by the
    /// end of the process.
    pub fn run(mut self) -> Result<(), FloorError> {
        self.kernel.accept();
        self.kernel.start_timer(TICK);
        loop {
            self.kernel.enter(true);
            while let Some(completion) = self.kernel.next_completion() {
                match completion {
                    Completion::Accepted { result, more } => self.accept_completed(result, more)?,
                    Completion::Received { id, outcome, more } => self.receive_completed(id, outcome, more),
                    Completion::Sent { id, block, result } => self.send_completed(id, block, result.ok()),
                    Completion::Timer if self.told_to_stop() => return Ok(()),
                    Completion::Timer => self.kernel.start_timer(TICK),
                    Completion::Alarm => unreachable!("no alarm is awaited"),
                }
            }
            self.carry_on_touched();
        }
    }

    fn told_to_stop(&mut self) -> bool {
        !matches!(self.stop.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    fn accept_completed(&mut self, result: io::Result<RingSocket>, more: bool) -> Result<(), FloorError> {
        match result {
            Ok(socket) => self.accepted(socket),
            Err(error) => accept_failed(error)?,
        }
        if !more {
            self.kernel.accept();
        }
        Ok(())
    }

    fn accepted(&mut self, socket: RingSocket) {
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("there are fewer descriptors than slot numbers");
        let id = ConnectionId { slot, generation: self.generation };
        self.generation = self.generation.wrapping_add(1);
        entry.insert(Connection::new(id, socket, TURN.now_ns));
        self.touched.push(slot);
    }

    fn receive_completed(&mut self, id: ConnectionId, outcome: ReceiveOutcome, more: bool) {
        let connection = connection(&mut self.connections, id);
        if !more {
            connection.receive_ended();
        }
        match outcome {
            ReceiveOutcome::Bytes { buffer, bytes } => self.received(id, buffer, bytes),
            ReceiveOutcome::End => connection.peer_ended(&mut self.blocks),
            // It is armed again at the end of the turn, when all buffers are home.
            ReceiveOutcome::NoBuffers | ReceiveOutcome::Ended => {}
            ReceiveOutcome::Failed(_) => connection.abandon(&mut self.blocks),
        }
        self.touched.push(id.slot);
    }

    fn received(&mut self, id: ConnectionId, mut buffer: Buffer, bytes: usize) {
        let connection = connection(&mut self.connections, id);
        let headroom = self.pool.geometry().headroom_bytes;
        let space = self.pool.bytes_mut(&mut buffer);
        let received =
            connection.received(Arrival { buffer: space, headroom, bytes }, &self.rules, TURN, &mut self.blocks);
        if let Some(framed) = received.framed {
            let event = connection.event_for(framed, 0, buffer.index());
            self.answer(event, &buffer);
        }
        self.kernel.provide(buffer);
    }

    /// What the disruptor, the batch processor and the response queue do in the server.
    fn answer(&mut self, event: InferenceEvent, buffer: &Buffer) {
        let start = event.offset as usize;
        let requests = &self.pool.bytes(buffer)[start..start + event.request_bytes as usize];
        let framing = answer_all(self.layout, requests, &mut self.answers);
        assert!(framing == Framing::Kept(requests.len()), "a burst is whole, valid requests");
        let response = Response {
            connection: event.connection,
            buffer: event.buffer,
            requests: event.requests,
            request_bytes: event.request_bytes,
            offset: event.offset,
            answer_bytes: u32::try_from(self.answers.len()).expect("answers are shorter than their requests"),
            sequence: event.sequence,
            published_at_ns: 0,
        };
        let connection = connection(&mut self.connections, event.connection);
        // If the connection is gone, its answers are dropped, which is all that there is to do.
        let _kept = connection.answered(&response, &self.answers, &self.rules, TURN, &mut self.blocks);
        self.answers.clear();
    }

    /// `sent` is nothing if the connection is broken.
    fn send_completed(&mut self, id: ConnectionId, block: Box<Block>, sent: Option<usize>) {
        let connection = connection(&mut self.connections, id);
        connection.send_completed(block, sent.unwrap_or(0), TURN, &mut self.blocks);
        if sent.is_none() {
            connection.abandon(&mut self.blocks);
        }
        self.touched.push(id.slot);
    }

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
            && let Some(step) = connection.next_step(&self.rules, TURN, &mut self.blocks)
        {
            let (id, socket) = (connection.id, connection.socket);
            match step {
                Step::Send(block) => self.kernel.send(socket, id, block),
                Step::Receive(shots) => self.kernel.receive(socket, id, shots),
                Step::CancelReceive => self.kernel.cancel_receive(id),
                Step::HalfClose => self.kernel.half_close(socket),
                Step::Abort => self.kernel.abort(socket),
                Step::Close => self.kernel.close(socket),
                Step::Free => drop(self.connections.remove(key)),
            }
        }
    }
}

/// The connection that a completion is for.
fn connection(connections: &mut Slab<Connection<RingSocket>>, id: ConnectionId) -> &mut Connection<RingSocket> {
    let connection = connections.get_mut(id.slot as usize).expect("a slot is freed when nothing refers to it");
    assert!(connection.id == id, "a slot is reused when nothing refers to its last tenant");
    connection
}
