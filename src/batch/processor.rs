//! The batch processor: everything that all I/O threads have published, through the model, and back.
//!
//! It makes no system call and does not wait ([`crate::server::threads`] does); one [`BatchProcessor::step`] handles what is
//! there. Which thread steps it, [`super::role`] says where that can change. It knows connections only as addresses on responses.
//!
//! Invariants
//! - Every event is answered exactly once, with as many answers as it has requests, each as long as its request asked
//!   for or an error answer.
//! - The events' places in the ring are given back before the model runs: it may take long, panic or fail without
//!   touching the ring. The events' buffers bound how many there can be.
//! - A step has one model: it is replaced between two of them.
//! - Who has waited for too long, where that is bounded, is answered with error 3 instead; of a connection's events, always the
//!   first ones that are there.
//! - A step's events are taken in parts, so many at once as there is room for scores. Answers are written over a part's
//!   requests only after all of them have been scored or have failed.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use disruptor::{EventPoller, MultiProducerBarrier, Polling};
use disrust_model::Model;
use disrust_protocol::{ERROR_ANSWER_BYTES, ErrorCode, RequestLayout};

use super::answers::{head_start, write_answers};
use super::model_place::{ModelPlace, PlacedModel};
use super::requests::{Place, Requests};
use super::role::Pace;
use super::scoring::Scoring;
use super::shedding::Shedding;
use crate::exchange::buffer_pool::{Buffer, BufferPool};
use crate::exchange::event::{InferenceEvent, Response};
use crate::exchange::model_version::ModelVersion;
use crate::exchange::response_queue::ResponseProducer;
use crate::exchange::wake::Wake;
use crate::limits::{PoolGeometry, request_ring_slots};
use crate::log_gate::LogGate;
use crate::metrics::BatchMetrics;

/// The batch processor's end of the disruptor.
pub type EventConsumer = EventPoller<InferenceEvent, MultiProducerBarrier>;

/// One I/O thread, as the batch processor sees it.
pub struct IoThreadPort {
    /// Where its requests are.
    pub pool: Arc<BufferPool>,
    /// Where its responses go.
    pub responses: ResponseProducer,
    /// What wakes it.
    pub wake: Arc<Wake>,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Events, which are answered now.
    Events,
    /// Nothing.
    Nothing,
    /// Events, not all of which are answered: the rest would take too long.
    Rest,
    /// Nothing, and nothing will come: all I/O threads have ended.
    End,
}

/// An event whose buffer the batch processor holds.
struct Burst {
    event: InferenceEvent,
    buffer: Buffer,
}

impl Burst {
    /// The event's requests, one after the other.
    fn requests<'a>(&'a self, pool: &'a BufferPool) -> &'a [u8] {
        let start = self.event.offset as usize;
        &pool.bytes(&self.buffer)[start..start + self.event.request_bytes as usize]
    }
}

/// The answers to an event: where in its buffer they are, and how many say an error.
struct Answers {
    offset: u32,
    bytes: u32,
    failed: u16,
    shed: u16,
}

impl Answers {
    /// The response that brings them back, in `buffer`.
    fn to(&self, event: &InferenceEvent, buffer: u16, model_version: u64) -> Response {
        Response {
            connection: event.connection,
            buffer,
            requests: event.requests,
            request_bytes: event.request_bytes,
            offset: self.offset,
            answer_bytes: self.bytes,
            sequence: event.sequence,
            received_at_ns: event.received_at_ns,
            failed: self.failed,
            shed: self.shed,
            model_version,
        }
    }
}

/// How many of a step's bursts are taken at once, and what they hold.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    bursts: usize,
    requests: usize,
    rows: usize,
}

/// The batch processor's state.
pub struct BatchProcessor {
    consumer: EventConsumer,
    ports: Vec<IoThreadPort>,
    model: PlacedModel,
    layout: RequestLayout,
    metrics: Arc<BatchMetrics>,
    /// The bursts of this step that are still to be answered, in the order in which they were published.
    bursts: Vec<Burst>,
    /// One place for each output of each vector of a part.
    scores: Vec<f32>,
    /// Which of this part's requests the model failed on, counted over all of its bursts, ascending.
    failed: Vec<usize>,
    /// How long rows take; asked only where somebody may help, or where waiting is bounded.
    pace: Pace,
    /// What decides who has waited for too long, if anything does.
    shedding: Option<Shedding>,
    failure_log: LogGate,
}

impl BatchProcessor {
    /// A batch processor for these I/O threads, in the order of their indices.
    ///
    /// # Panics
    /// If the pools are not all of one geometry.
    pub fn new(
        consumer: EventConsumer,
        ports: Vec<IoThreadPort>,
        model: Box<dyn Model>,
        metrics: Arc<BatchMetrics>,
    ) -> BatchProcessor {
        let layout = RequestLayout::with_outputs(model.feature_dim(), model.outputs());
        let geometry = ports.first().map(|port| port.pool.geometry()).expect("there is an I/O thread");
        assert!(ports.iter().all(|port| port.pool.geometry() == geometry), "all pools are alike");
        let events_max = request_ring_slots(ports.len(), geometry.buffers);
        let headroom_bytes = PoolGeometry::headroom_bytes_for(layout, geometry.receive_bytes);
        assert!(geometry.headroom_bytes >= headroom_bytes || layout.outputs() <= layout.feature_dim(), "answers fit");
        BatchProcessor {
            consumer,
            ports,
            model: PlacedModel::new(model),
            layout,
            metrics,
            bursts: Vec::with_capacity(events_max),
            scores: vec![0.0; geometry.scores_max(layout, events_max)],
            failed: Vec::new(),
            pace: Pace::default(),
            shedding: None,
            failure_log: LogGate::default(),
        }
    }

    /// The same with a bound on how long requests wait.
    #[must_use]
    pub fn with_queue_delay_max(self, delay: Option<Duration>) -> BatchProcessor {
        BatchProcessor { shedding: delay.map(Shedding::new), ..self }
    }

    /// Where the model can be replaced.
    pub fn model_place(&self) -> &Arc<ModelPlace> {
        self.model.place()
    }

    /// The version of the model that scores, as the I/O threads tell it.
    pub fn model_version(&self) -> &Arc<ModelVersion> {
        self.model.version()
    }

    /// Answers everything that has been published until now, with a new model if one is offered; or where waiting is bounded, as much
    /// as is expected to take a part of that. `now_ns` reads the process's clock, which is asked only where somebody looks at
    /// the answer.
    pub fn step(&mut self, now_ns: impl Fn() -> u64) -> Found {
        let learns = self.shedding.is_some();
        self.take_step(u64::MAX, learns, now_ns)
    }

    /// As [`BatchProcessor::step`], where others may help: learns how long rows take, and answers no more than is expected to
    /// take `most_ns`. What is left is answered by the next step.
    pub(super) fn step_within(&mut self, most_ns: u64, now_ns: impl Fn() -> u64) -> Found {
        self.take_step(most_ns, true, now_ns)
    }

    fn take_step(&mut self, most_ns: u64, learns: bool, now_ns: impl Fn() -> u64) -> Found {
        self.take_offered_model();
        if let Err(end) = self.poll() {
            return end;
        }
        if self.bursts.is_empty() {
            return Found::Nothing;
        }
        if most_ns < u64::MAX && self.pace.row_ns() == 0 {
            return Found::Rest;
        }
        let begun_at_ns = if learns || self.metrics.stage_times { now_ns() } else { 0 };
        let most_ns = most_ns.min(self.shed(begun_at_ns));
        let rows_max = self.pace.rows_within(most_ns);
        if !self.bursts.is_empty() {
            let rows = self.answer(rows_max, begun_at_ns, &now_ns);
            if learns {
                self.pace.took(rows, now_ns().saturating_sub(begun_at_ns));
            }
        }
        if self.bursts.is_empty() { Found::Events } else { Found::Rest }
    }

    /// Answers whoever has waited for too long, in a step that begins at this time. Returns how long the step may take.
    fn shed(&mut self, now_ns: u64) -> u64 {
        let Some(shedding) = &mut self.shedding else { return u64::MAX };
        let oldest_ns = self.bursts.iter().map(|burst| burst.event.waiting_since_ns).min();
        let wait_ns_max = shedding.step_begins(oldest_ns.unwrap_or(now_ns), now_ns);
        let step_ns_max = shedding.step_ns_max();
        let too_late = |burst: &mut Burst| now_ns.saturating_sub(burst.event.waiting_since_ns) > wait_ns_max;
        let (mut requests, version) = (0, self.model.version().get());
        // Of a connection's events, the first ones have waited longest: its answers stay in order.
        for Burst { event, mut buffer } in self.bursts.extract_if(.., too_late) {
            let port = &mut self.ports[usize::from(event.io_thread)];
            let start = event.offset as usize;
            // An error answer is shorter than any request.
            let place = &mut port.pool.bytes_mut(&mut buffer)[start..];
            let answers = place.chunks_exact_mut(ERROR_ANSWER_BYTES).take(usize::from(event.requests));
            answers.for_each(|answer| answer.copy_from_slice(&ErrorCode::Shed.answer()));
            let answer_bytes = u32::from(event.requests) * ERROR_ANSWER_BYTES as u32;
            let answers = Answers { offset: event.offset, bytes: answer_bytes, failed: 0, shed: event.requests };
            port.responses.push(answers.to(&event, port.pool.ship(buffer), version));
            requests += u64::from(event.requests);
        }
        if requests > 0 {
            self.metrics.requests.add(requests);
            self.publish_responses();
        }
        step_ns_max
    }

    /// Nanoseconds that a row takes by the steps before; 0 if that is not known.
    pub(super) fn row_ns(&self) -> u64 {
        self.pace.row_ns()
    }

    fn take_offered_model(&mut self) {
        if self.model.take_offered() {
            self.metrics.model_swaps.add(1);
            self.pace.forget();
        }
    }

    /// Takes all events that have been published; how many, or that it is the end.
    fn poll(&mut self) -> Result<usize, Found> {
        let before = self.bursts.len();
        match self.consumer.poll() {
            Err(Polling::NoEvents) => {
                self.metrics.polls_empty.add(1);
                return Ok(0);
            }
            Err(Polling::Shutdown) => return Err(Found::End),
            Ok(mut events) => {
                for event in &mut events {
                    let buffer = self.ports[usize::from(event.io_thread)].pool.adopt(event.buffer);
                    self.bursts.push(Burst { event: *event, buffer });
                }
            }
        }
        let fresh = self.bursts.len() - before;
        self.metrics.events.add(fresh as u64);
        self.metrics.events_peak.raise(fresh);
        Ok(fresh)
    }

    /// Answers the bursts that are there, but no more than so many rows, or one burst, in a step that has begun at this time.
    fn answer(&mut self, rows_max: usize, begun_at_ns: u64, now_ns: impl Fn() -> u64) -> usize {
        let takes_times = self.metrics.stage_times;
        let stage_ns = || if takes_times { now_ns() } else { 0 };
        self.metrics.steps_begun.add(1);
        let (mut rows, mut predict_ns, mut respond_ns, mut at_ns) = (0, 0, 0, begun_at_ns);
        while let Some(part) = self.next_part(rows_max.saturating_sub(rows)) {
            if rows > 0 && part.rows > rows_max.saturating_sub(rows) {
                break;
            }
            if takes_times {
                self.record_waits(part, begun_at_ns);
            }
            self.predict(part, &now_ns);
            let predicted_at_ns = stage_ns();
            self.respond(part);
            let responded_at_ns = stage_ns();
            rows += part.rows;
            predict_ns += predicted_at_ns.saturating_sub(at_ns);
            respond_ns += responded_at_ns.saturating_sub(predicted_at_ns);
            at_ns = responded_at_ns;
        }
        if takes_times {
            self.metrics.batch_rows.record(rows as u64);
            self.metrics.predict_ns.record(predict_ns);
            self.metrics.respond_ns.record(respond_ns);
            self.metrics.busy_ns.add(at_ns.saturating_sub(begun_at_ns));
        }
        self.metrics.steps_finished.add(1);
        rows
    }

    /// Records how long the requests of a part have waited until their step.
    fn record_waits(&self, part: Part, begun_at_ns: u64) {
        for Burst { event, .. } in &self.bursts[..part.bursts] {
            let waited_ns = begun_at_ns.saturating_sub(event.waiting_since_ns);
            self.metrics.queue_ns.record_many(waited_ns, u64::from(event.requests));
        }
    }

    /// Announces through `wake`, the processor's own, that its thread is about to sleep. Returns whether it may: it may
    /// not if there is something to do. The end of all I/O threads is not seen here. Follow it with
    /// [`BatchProcessor::wake_up`] in either case.
    pub fn fall_asleep(&self, wake: &Wake) -> bool {
        wake.flag.announce_sleep();
        self.bursts.is_empty() && !self.consumer.has_available() && !self.model.is_offered()
    }

    /// Announces that the processor's thread is awake again.
    pub fn wake_up(&self, wake: &Wake) {
        wake.flag.announce_awake();
    }

    /// The first bursts that are still to be answered, as many as there is room for scores and no more than so many rows, but
    /// one at least. Nearly always all of them.
    fn next_part(&self, rows_max: usize) -> Option<Part> {
        let room = self.scores.len() / self.layout.outputs();
        let mut part = Part::default();
        for Burst { event, .. } in &self.bursts {
            let rows = part.rows + event.rows as usize;
            if rows > room || (rows > rows_max && part.bursts > 0) {
                break;
            }
            part = Part { bursts: part.bursts + 1, requests: part.requests + usize::from(event.requests), rows };
        }
        assert!(part.bursts > 0 || self.bursts.is_empty(), "there is room for the scores of any burst");
        (part.bursts > 0).then_some(part)
    }

    /// Scores all rows of a part.
    fn predict(&mut self, part: Part, now_ns: impl Fn() -> u64) {
        let (bursts, ports) = (&self.bursts[..part.bursts], &self.ports);
        let run = |index: usize| {
            let burst: &Burst = bursts.get(index)?;
            Some(burst.requests(&ports[usize::from(burst.event.io_thread)].pool))
        };
        let end = Place { run: part.bursts, byte: 0, request: part.requests, row: part.rows };
        let log = &mut self.failure_log;
        self.failed.clear();
        let scoring = Scoring {
            model: self.model.model(),
            scores: &mut self.scores[..part.rows * self.layout.outputs()],
            failed: &mut self.failed,
            calls: &self.metrics.model_calls,
            report: &mut |error| {
                if let Some(suppressed) = log.pass(now_ns()) {
                    tracing::warn!(%error, suppressed, "the model failed on a request, which gets error 2");
                }
            },
        };
        scoring.score(&Requests::of_runs(self.layout, &run, end));
    }

    /// Writes the answers of a part, which has been scored, over its requests, and sends the buffers back.
    fn respond(&mut self, part: Part) {
        let mut scores = &self.scores[..part.rows * self.layout.outputs()];
        let mut failed = self.failed.iter().copied().peekable();
        let (mut index, version) = (0, self.model.version().get());
        for Burst { event, mut buffer } in self.bursts.drain(..part.bursts) {
            let port = &mut self.ports[usize::from(event.io_thread)];
            let head_start = head_start(self.layout, &event);
            let (start, end) = (event.offset as usize - head_start, (event.offset + event.request_bytes) as usize);
            let space = &mut port.pool.bytes_mut(&mut buffer)[start..end];
            let requests = usize::from(event.requests);
            let mut failed_here = 0;
            let answer_bytes = write_answers(self.layout, space, head_start, &mut scores, |request| {
                let has_failed = failed.next_if_eq(&(index + request)).is_some();
                failed_here += u16::from(has_failed);
                has_failed
            });
            index += requests;
            let narrow = |size: usize| u32::try_from(size).expect("a buffer's sizes fit 32 bits");
            let answers = Answers { offset: narrow(start), bytes: narrow(answer_bytes), failed: failed_here, shed: 0 };
            port.responses.push(answers.to(&event, port.pool.ship(buffer), version));
        }
        assert!(scores.is_empty() && failed.peek().is_none(), "every score is somebody's answer");
        self.metrics.requests.add(index as u64);
        self.metrics.rows.add(part.rows as u64);
        self.publish_responses();
    }

    fn publish_responses(&mut self) {
        for port in &mut self.ports {
            let responses = port.responses.publish();
            if responses > 0 {
                self.metrics.responses.add(responses);
                let counter =
                    if port.wake.wake_sleeper() { &self.metrics.wakes } else { &self.metrics.wakes_coalesced };
                counter.add(1);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use disruptor::{BusySpin, MultiProducer, Producer, SingleConsumerBarrier, build_multi_producer};
    use disrust_model::{PredictError, Rows};
    use disrust_protocol::{ErrorCode, write_answer_of, write_request};

    use super::*;
    use crate::exchange::event::ConnectionId;
    use crate::exchange::response_queue::{ResponseConsumer, response_queue};
    use crate::exchange::wake::Alarm;
    use crate::limits::SCORES_PER_CALL;

    /// Output o of a row is its only feature, o and `base`; a negative feature fails.
    struct Steps {
        outputs: usize,
        base: f32,
        /// Where it offers another model in the middle of its first call, with another base.
        offers_at: Option<Arc<OnceLock<Arc<ModelPlace>>>>,
    }

    impl Model for Steps {
        fn name(&self) -> &str {
            "steps"
        }
        fn feature_dim(&self) -> usize {
            1
        }
        fn outputs(&self) -> usize {
            self.outputs
        }
        fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
            if let Some(place) = self.offers_at.take().as_ref().and_then(|place| place.get()) {
                let other = Steps { outputs: self.outputs, base: self.base + 10_000.0, offers_at: None };
                place.offer(Box::new(other), &Wake::new(Nobody)).expect("it is the only one");
            }
            let layout = RequestLayout::with_outputs(1, self.outputs);
            let of_event = PoolGeometry::for_layout(layout).rows_per_buffer_max(layout) * self.outputs;
            assert!(scores.len() <= SCORES_PER_CALL.max(of_event), "a call has a bound");
            let mut matrix = vec![0.0; rows.count()];
            rows.gather(&mut matrix);
            for (row, scores) in matrix.iter().zip(scores.chunks_mut(self.outputs)) {
                scores.iter_mut().enumerate().for_each(|(output, score)| *score = self.base + row + output as f32);
            }
            let fails = matrix.iter().any(|feature| *feature < 0.0);
            if fails { Err(PredictError("a negative feature".to_owned())) } else { Ok(()) }
        }
    }

    struct Nobody;

    impl Alarm for Nobody {
        fn ring(&self) {}
    }

    /// A batch processor, and this test as its only I/O thread.
    pub struct Bench {
        pub processor: BatchProcessor,
        metrics: Arc<BatchMetrics>,
        pool: Arc<BufferPool>,
        layout: RequestLayout,
        producer: MultiProducer<InferenceEvent, SingleConsumerBarrier>,
        responses: ResponseConsumer,
        /// Since when the requests of the next event have waited.
        pub waiting_since_ns: u64,
    }

    impl Bench {
        pub fn new(outputs: usize) -> Bench {
            Bench::of(Steps { outputs, base: 0.0, offers_at: None })
        }

        fn of(model: Steps) -> Bench {
            let outputs = model.outputs;
            let layout = RequestLayout::with_outputs(1, outputs);
            let geometry = PoolGeometry::for_layout(layout);
            let pool = Arc::new(BufferPool::new(geometry));
            let slots = request_ring_slots(1, geometry.buffers);
            let (consumer, builder) = build_multi_producer(slots, InferenceEvent::default, BusySpin).new_event_poller();
            let (responses_in, responses) = response_queue(usize::from(geometry.buffers));
            let wake = Arc::new(Wake::new(Nobody));
            let port = IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake };
            let metrics = Arc::new(BatchMetrics::default());
            let processor = BatchProcessor::new(consumer, vec![port], Box::new(model), Arc::clone(&metrics));
            Bench { processor, metrics, pool, layout, producer: builder.build(), responses, waiting_since_ns: 0 }
        }

        /// Publishes a burst of requests of these rows; returns the answers to them.
        pub fn publish(&mut self, index: u16, requests: &[Vec<f32>]) -> Vec<u8> {
            let (mut bytes, mut answers) = (Vec::new(), Vec::new());
            for rows in requests {
                write_request(self.layout, rows, &mut bytes);
                if rows.iter().any(|row| *row < 0.0) {
                    answers.extend(ErrorCode::ModelFailed.answer());
                } else {
                    let scores: Vec<f32> =
                        rows.iter().flat_map(|row| (0..self.layout.outputs()).map(move |o| row + o as f32)).collect();
                    let mut answer = vec![0; self.layout.answer_bytes(1, rows.len())];
                    write_answer_of(self.layout.outputs(), &scores, &mut answer);
                    answers.extend(answer);
                }
            }
            let mut buffer = self.pool.adopt(index);
            let offset = self.pool.geometry().headroom_bytes;
            self.pool.bytes_mut(&mut buffer)[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let event = InferenceEvent {
                connection: ConnectionId { slot: u32::from(index), generation: 0 },
                buffer: self.pool.ship(buffer),
                offset: offset as u32,
                request_bytes: bytes.len() as u32,
                requests: requests.len() as u16,
                rows: requests.iter().map(|rows| rows.len() as u32).sum(),
                waiting_since_ns: self.waiting_since_ns,
                ..InferenceEvent::default()
            };
            self.producer.try_publish(|slot| *slot = event).expect("there is a slot for each buffer");
            answers
        }

        /// Which events have been answered since the last look, and how many of each one's requests were shed.
        fn taken(&mut self) -> Vec<(u32, u16)> {
            std::iter::from_fn(|| self.responses.pop())
                .map(|response| {
                    let buffer = self.pool.adopt(response.buffer);
                    let answers =
                        &self.pool.bytes(&buffer)[response.offset as usize..][..response.answer_bytes as usize];
                    let is_shed = response.shed > 0;
                    assert_eq!(answers.chunks(2).all(|answer| answer == [0, 3]), is_shed, "{answers:?}");
                    assert!(!is_shed || response.shed == response.requests);
                    self.pool.ship(buffer);
                    (response.connection.slot, response.shed)
                })
                .collect()
        }

        /// How many events have been answered since the last look.
        pub fn answered(&mut self) -> usize {
            let mut count = 0;
            while let Some(response) = self.responses.pop() {
                let buffer = self.pool.adopt(response.buffer);
                self.pool.ship(buffer);
                count += 1;
            }
            count
        }
    }

    /// A step with more scores than there is room for is taken in parts, each a call of the model; each event is answered
    /// once, in order, and a request that fails costs no other its answer, in its part or another.
    #[test]
    fn a_large_step_is_answered_in_parts() {
        for outputs in [1, 700, 4096] {
            let mut bench = Bench::new(outputs);
            for failing in [None, Some(0), Some(9), Some(15)] {
                let calls_before = bench.metrics.model_calls.get();
                let expected: Vec<_> = (0..16)
                    .map(|index| {
                        let row =
                            |row: u16| f32::from(index * 10 + row) * if failing == Some(index) { -1.0 } else { 1.0 };
                        let requests = [vec![1.0], (1..9).map(row).collect(), vec![f32::from(index)], vec![2.5; 10]];
                        bench.publish(index, &requests)
                    })
                    .collect();
                assert_eq!(bench.processor.step(|| 0), Found::Events);
                for (index, expected) in expected.into_iter().enumerate() {
                    let response = bench.responses.pop().expect("each event is answered");
                    assert_eq!((response.connection.slot as usize, response.requests), (index, 4));
                    let buffer = bench.pool.adopt(response.buffer);
                    let answers =
                        &bench.pool.bytes(&buffer)[response.offset as usize..][..response.answer_bytes as usize];
                    assert!(answers == expected, "{outputs} outputs, event {index}, {failing:?} fails");
                    bench.pool.ship(buffer);
                }
                assert!(bench.responses.pop().is_none());
                if failing.is_none() {
                    let parts = (16 * 20 * outputs).div_ceil(bench.processor.scores.len()) as u64;
                    let calls = bench.metrics.model_calls.get() - calls_before;
                    assert!((parts..=parts + 2).contains(&calls), "{calls} calls for {parts} parts");
                }
                assert_eq!(bench.processor.step(|| 0), Found::Nothing);
            }
            assert_eq!((bench.metrics.requests.get(), bench.metrics.rows.get()), (4 * 64, 4 * 320));
        }
    }

    /// However many parts a step has, one model scores all of it; the one that came meanwhile has the next step.
    #[test]
    fn a_step_has_one_model() {
        let offers_at = Arc::new(OnceLock::new());
        let mut bench = Bench::of(Steps { outputs: 4096, base: 0.0, offers_at: Some(Arc::clone(&offers_at)) });
        assert!(offers_at.set(Arc::clone(bench.processor.model_place())).is_ok());
        for (base, swaps) in [(0.0, 0), (10_000.0, 1)] {
            (0..16).for_each(|index| drop(bench.publish(index, &[vec![1.0; 20]])));
            assert_eq!(bench.processor.step(|| 0), Found::Events);
            while let Some(response) = bench.responses.pop() {
                let buffer = bench.pool.adopt(response.buffer);
                let first = bench.pool.bytes(&buffer)[response.offset as usize + 1..]
                    .first_chunk()
                    .map(|score| f32::from_le_bytes(*score));
                assert_eq!(first, Some(base + 1.0));
                bench.pool.ship(buffer);
            }
            assert_eq!(bench.metrics.model_swaps.get(), swaps);
        }
        assert!(bench.metrics.model_calls.get() > 2, "a step has several parts");
    }

    /// Where waiting is bounded, who has waited for longer is answered at once, before the others are scored: ten times as long if the
    /// queue is not known to have been long for a while. A step takes half of the bound; what is left is shed by a later one.
    #[test]
    fn who_has_waited_for_too_long_is_shed() {
        const MS: u64 = 1_000_000;
        let mut bench = Bench::new(1);
        let other = Bench::new(1).processor;
        let processor = std::mem::replace(&mut bench.processor, other);
        bench.processor = processor.with_queue_delay_max(Some(Duration::from_millis(4)));
        // Each look at the clock is a millisecond later while this says so: then a row takes half of one.
        let (now_ns, tick_ns) = (Cell::new(100 * MS), Cell::new(MS));
        let clock = || now_ns.replace(now_ns.get() + tick_ns.get());
        let publish = |bench: &mut Bench, index: u16, waited_ms: u64, now_ns: u64| {
            bench.waiting_since_ns = now_ns - waited_ms * MS;
            bench.publish(index, &[vec![1.0], vec![2.0]]);
        };
        for (index, waited_ms) in [(0, 41), (1, 40), (2, 0)] {
            publish(&mut bench, index, waited_ms, 100 * MS);
        }
        assert_eq!(bench.processor.step(clock), Found::Events, "it is not known how long rows take");
        assert_eq!(bench.taken(), [(0, 2), (1, 0), (2, 0)]);
        tick_ns.set(0);
        bench.processor.pace.forget();
        bench.processor.pace.took(2, 2 * MS);
        // The first one has waited since before the first step, and the queue was long then.
        for (time_ms, expected) in [(109, vec![(3, 0), (4, 0)]), (119, vec![(3, 2), (4, 0)])] {
            now_ns.set(time_ms * MS);
            publish(&mut bench, 3, time_ms - 99, time_ms * MS);
            publish(&mut bench, 4, 3, time_ms * MS);
            let steps = [bench.processor.step(clock), bench.processor.step(clock)];
            assert_eq!((bench.taken(), steps[1] == Found::Events), (expected, time_ms == 109));
        }
        // One that is left grows too old meanwhile.
        now_ns.set(130 * MS);
        publish(&mut bench, 5, 3, 130 * MS);
        publish(&mut bench, 6, 3, 130 * MS);
        assert_eq!((bench.processor.step(clock), bench.taken()), (Found::Rest, vec![(5, 0)]));
        assert!(!bench.processor.fall_asleep(&Wake::new(Nobody)), "one is left");
        now_ns.set(171 * MS);
        assert_eq!((bench.processor.step(clock), bench.taken()), (Found::Events, vec![(6, 2)]));
        assert_eq!(bench.metrics.requests.get(), 2 * 9);
        assert_eq!(bench.processor.step(clock), Found::Nothing);
    }

    /// A step that is bounded answers what the bound allows, one burst at least, and the next one goes on with the rest. Until it
    /// is known how long rows take, also after a new model, nothing is answered within a bound.
    #[test]
    fn a_bounded_step_leaves_the_rest() {
        let mut bench = Bench::new(1);
        let ticks = Cell::new(0);
        // A step of eight rows takes 8 µs.
        let clock = || ticks.replace(ticks.get() + 1_000);
        let publish = |bench: &mut Bench| (0..4).for_each(|index| drop(bench.publish(index, &[vec![1.0; 2]])));
        publish(&mut bench);
        assert_eq!(bench.processor.step_within(1_000_000, clock), Found::Rest, "it is not known how long it takes");
        assert_eq!(bench.answered(), 0);
        assert_eq!(bench.processor.step_within(u64::MAX, clock), Found::Events);
        assert_eq!(bench.answered(), 4);
        let row_ns = bench.processor.row_ns();
        assert!(row_ns > 0);
        publish(&mut bench);
        assert_eq!(bench.processor.step_within(row_ns * 5, clock), Found::Rest);
        assert_eq!(bench.answered(), 2, "of two rows each");
        assert_eq!(bench.processor.step_within(0, clock), Found::Rest);
        assert_eq!(bench.answered(), 1, "one at least");
        assert_eq!(bench.processor.step_within(u64::MAX, clock), Found::Events);
        assert_eq!(bench.answered(), 1);
        assert_eq!(bench.processor.step_within(u64::MAX, clock), Found::Nothing);
        assert_eq!((bench.metrics.events.get(), bench.metrics.rows.get()), (8, 16), "each is counted once");

        let other = Steps { outputs: 1, base: 1.0, offers_at: None };
        let place = Arc::clone(bench.processor.model_place());
        place.offer(Box::new(other), &Wake::new(Nobody)).expect("it is the only one");
        publish(&mut bench);
        assert_eq!(bench.processor.step_within(1_000_000, clock), Found::Rest, "the new model may be slow");
        assert_eq!((bench.answered(), bench.processor.row_ns()), (0, 0));
        assert_eq!(bench.processor.step_within(u64::MAX, clock), Found::Events);
        assert_eq!(bench.answered(), 4);
    }
}
