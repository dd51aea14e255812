//! The half of an I/O thread that requests pass through, without its kernel: buffers, framing, events, publishing.
//!
//! The calls are those of `disrust::io_thread`, in its order; what is not here is the kernel, the counters and the
//! bookkeeping of connections that come and go.

use std::sync::Arc;

use disruptor::Producer;
use disrust::connections::{Arrival, Connection, Drain, HelloAnswers, Rules, Timeouts, Turn};
use disrust::exchange::blocks::BlockPool;
use disrust::exchange::buffer_pool::{Buffer, BufferPool};
use disrust::exchange::event::{ConnectionId, InferenceEvent};
use disrust::exchange::model_version::ModelVersion;
use disrust::exchange::wake::Wake;
use disrust::io_thread::EventProducer;
use disrust::limits::{BUFFER_MEMORY_BYTES, ConnectionLimits, PoolGeometry};
use disrust_protocol::{FEATURE_DIM, RequestLayout};

/// The default layout, which the server is tuned for.
pub const LAYOUT: RequestLayout = RequestLayout::new(FEATURE_DIM);

/// The benches' time stands still: no deadline passes.
pub const TURN: Turn = Turn { now_ns: 0, drain: Drain::No };

/// What the server holds connections to, without deadlines.
fn rules() -> Rules {
    let hello = HelloAnswers::new(LAYOUT, "sum", Arc::new(ModelVersion::new(0)));
    Rules { layout: LAYOUT, limits: ConnectionLimits::SERVING, timeouts: Timeouts { request: None, idle: None }, hello }
}

/// What requests pass through on their way in.
pub struct RequestSide {
    pub pool: Arc<BufferPool>,
    pub connections: Vec<Connection<()>>,
    pub rules: Rules,
    io_thread: u16,
    producer: EventProducer,
    batch_wake: Arc<Wake>,
    blocks: BlockPool,
}

impl RequestSide {
    /// An I/O thread with `connections` connections and a pool whose memory is there.
    pub fn new(
        io_thread: u16,
        connections: u32,
        geometry: PoolGeometry,
        producer: EventProducer,
        batch_wake: Arc<Wake>,
    ) -> RequestSide {
        let pool = Arc::new(BufferPool::new(geometry));
        for index in 0..geometry.buffers {
            let mut buffer = pool.adopt(index);
            // Brings the pages in, so that no fault is measured.
            pool.bytes_mut(&mut buffer).fill(1);
            pool.ship(buffer);
        }
        let connection = |slot| Connection::new(ConnectionId { slot, generation: 0 }, (), 0, None);
        let rules = rules();
        RequestSide {
            pool,
            connections: (0..connections).map(connection).collect(),
            io_thread,
            producer,
            batch_wake,
            blocks: BlockPool::new(rules.limits.block_sizes(LAYOUT, BUFFER_MEMORY_BYTES)),
            rules,
        }
    }

    /// The kernel's part: a buffer whose receive area `fill` writes to from its front; and how many bytes that were.
    pub fn fill(&self, index: u16, fill: impl FnOnce(&mut [u8]) -> usize) -> (Buffer, usize) {
        let mut buffer = self.pool.adopt(index);
        let headroom = self.pool.geometry().headroom_bytes;
        let bytes = fill(&mut self.pool.bytes_mut(&mut buffer)[headroom..]);
        (buffer, bytes)
    }

    /// Frames what a connection has received. None if no request has become whole; the buffer is shipped either way.
    pub fn received(&mut self, connection: usize, mut buffer: Buffer, bytes: usize) -> Option<InferenceEvent> {
        let connection = &mut self.connections[connection];
        let headroom = self.pool.geometry().headroom_bytes;
        let space = self.pool.bytes_mut(&mut buffer);
        let received =
            connection.received(Arrival { buffer: space, headroom, bytes }, &self.rules, TURN, &mut self.blocks);
        assert!(received.lost.is_none() && received.refused == 0, "a bench sends good requests");
        let index = self.pool.ship(buffer);
        Some(connection.event_for(received.framed?, &self.rules, self.io_thread, index))
    }

    /// Publishes the events of a turn, and wakes the batch processor if it sleeps.
    pub fn publish(&mut self, events: &[InferenceEvent]) {
        let published = self.producer.try_batch_publish(events.len(), |slots| {
            for (slot, event) in slots.zip(events) {
                *slot = *event;
            }
        });
        assert!(published.is_ok(), "the request ring holds as many events as there are buffers");
        self.batch_wake.wake_sleeper();
    }
}
