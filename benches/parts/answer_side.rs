//! The half of an I/O thread that answers pass through, and a server put together from such halves and its batch
//! processor, without kernels. Nothing runs by itself.

use std::sync::Arc;

use disruptor::{BusySpin, build_multi_producer};
use disrust::batch::{BatchProcessor, IoThreadPort};
use disrust::connections::Step;
use disrust::exchange::blocks::BlockPool;
use disrust::exchange::event::InferenceEvent;
use disrust::exchange::response_queue::{ResponseConsumer, response_queue};
use disrust::exchange::wake::Wake;
use disrust::limits::{BUFFER_MEMORY_BYTES, ConnectionLimits, PoolGeometry, request_ring_slots};
use disrust::metrics::BatchMetrics;
use disrust_model::Sum;

use crate::request_side::{LAYOUT, RequestSide, TURN};

/// What answers pass through on their way out.
pub struct AnswerSide {
    pub responses: ResponseConsumer,
    blocks: BlockPool,
}

impl AnswerSide {
    /// Copies the answers that have come back to their connections, gives the buffers back, and sends: the peer takes
    /// all of it at once. Returns how many requests were answered.
    pub fn take(&mut self, requests: &mut RequestSide) -> u64 {
        let mut answered = 0;
        while let Some(response) = self.responses.pop() {
            let buffer = requests.pool.adopt(response.buffer);
            let start = response.offset as usize;
            let answers = &requests.pool.bytes(&buffer)[start..start + response.answer_bytes as usize];
            let connection = &mut requests.connections[response.connection.slot as usize];
            assert!(
                connection.answered(&response, answers, &requests.rules, TURN, &mut self.blocks),
                "nobody has gone"
            );
            requests.pool.ship(buffer);
            while let Some(Step::Send(block)) = connection.next_step(&requests.rules, TURN, &mut self.blocks) {
                let sent = block.content().len();
                connection.send_completed(block, sent, TURN, &mut self.blocks);
            }
            answered += u64::from(response.requests);
        }
        answered
    }
}

/// Both halves of an I/O thread.
pub struct IoSide {
    pub requests: RequestSide,
    pub answers: AnswerSide,
}

/// A server of the sum model, put together as `disrust::server` does it: an I/O thread for each of `io_wakes`, and the
/// batch processor, whose wake is `batch_wake`.
pub fn assemble(
    io_wakes: &[Arc<Wake>],
    batch_wake: &Arc<Wake>,
    connections: u32,
    geometry: PoolGeometry,
) -> (Vec<IoSide>, BatchProcessor) {
    let ring_slots = request_ring_slots(io_wakes.len(), geometry.buffers);
    let (consumer, builder) = build_multi_producer(ring_slots, InferenceEvent::default, BusySpin).new_event_poller();
    let producer = builder.build();
    let (mut ports, mut sides) = (Vec::new(), Vec::new());
    for (index, wake) in io_wakes.iter().enumerate() {
        let index = u16::try_from(index).expect("a bench has few threads");
        let requests = RequestSide::new(index, connections, geometry, producer.clone(), Arc::clone(batch_wake));
        let (responses_in, responses) = response_queue(usize::from(geometry.buffers));
        let (pool, wake) = (Arc::clone(&requests.pool), Arc::clone(wake));
        ports.push(IoThreadPort { pool, responses: responses_in, wake });
        let blocks = BlockPool::new(ConnectionLimits::SERVING.block_sizes(LAYOUT, BUFFER_MEMORY_BYTES));
        sides.push(IoSide { requests, answers: AnswerSide { responses, blocks } });
    }
    let model = Box::new(Sum::new(LAYOUT.feature_dim()));
    (sides, BatchProcessor::new(consumer, ports, model, Arc::new(BatchMetrics::default())))
}
