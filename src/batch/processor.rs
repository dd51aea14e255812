//! The batch processor: everything that all I/O threads have published, through the model, and back.
//!
//! It makes no system call and does not wait ([`crate::server::threads`] does); one [`BatchProcessor::step`] handles what is
//! there. It knows connections only as addresses on responses.
//!
//! Invariants
//! - Every event is answered exactly once, with as many answers as it has requests, each as long as its request asked
//!   for or an error answer.
//! - The events' places in the ring are given back before the model runs: it may take long, panic or fail without
//!   touching the ring. The events' buffers bound how many there can be.
//! - Answers are written over requests only after the model has seen all of them.
#![forbid(unsafe_code)]

use std::sync::Arc;

use disruptor::{EventPoller, MultiProducerBarrier, Polling};
use disrust_model::Model;
use disrust_protocol::{
    ERROR_ANSWER_BYTES, ErrorCode, REQUEST_HEADER_BYTES, RequestLayout, read_vector_count, write_answer,
};

use super::requests::{Place, Requests};
use super::scoring::Scoring;
use crate::exchange::buffer_pool::{Buffer, BufferPool};
use crate::exchange::event::{InferenceEvent, Response};
use crate::exchange::response_queue::ResponseProducer;
use crate::exchange::wake::Wake;
use crate::limits::request_ring_slots;
use crate::log_gate::LogGate;
use crate::metrics::{BatchMetrics, DETAILED};

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

/// The batch processor's state.
pub struct BatchProcessor {
    consumer: EventConsumer,
    ports: Vec<IoThreadPort>,
    model: Box<dyn Model>,
    layout: RequestLayout,
    metrics: Arc<BatchMetrics>,
    /// The bursts of this step, in the order in which they were published.
    bursts: Vec<Burst>,
    /// One place for each output of each vector that all buffers together can hold.
    scores: Vec<f32>,
    /// Which of this step's requests the model failed on, counted over all bursts, ascending.
    failed: Vec<usize>,
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
        let layout = RequestLayout::new(model.feature_dim());
        let geometry = ports.first().map(|port| port.pool.geometry()).expect("there is an I/O thread");
        assert!(ports.iter().all(|port| port.pool.geometry() == geometry), "all pools are alike");
        let events_max = request_ring_slots(ports.len(), geometry.buffers);
        let scores_max = events_max * geometry.rows_per_buffer_max(layout) * model.outputs();
        BatchProcessor {
            consumer,
            ports,
            model,
            layout,
            metrics,
            bursts: Vec::with_capacity(events_max),
            scores: vec![0.0; scores_max],
            failed: Vec::new(),
            failure_log: LogGate::default(),
        }
    }

    /// Answers everything that has been published until now. `now_ns` reads the process's clock, which is asked only where
    /// somebody looks at the answer.
    pub fn step(&mut self, now_ns: impl Fn() -> u64) -> Found {
        match self.consumer.poll() {
            Err(Polling::NoEvents) => {
                self.metrics.polls_empty.add(1);
                return Found::Nothing;
            }
            Err(Polling::Shutdown) => return Found::End,
            Ok(mut events) => {
                for event in &mut events {
                    let buffer = self.ports[usize::from(event.io_thread)].pool.adopt(event.buffer);
                    self.bursts.push(Burst { event: *event, buffer });
                }
            }
        }
        self.metrics.steps_begun.add(1);
        let stage_ns = || if DETAILED { now_ns() } else { 0 };
        let begun_at_ns = stage_ns();
        self.count_events(begun_at_ns);
        let rows = self.predict(&now_ns);
        let predicted_at_ns = stage_ns();
        self.metrics.predict_ns.record(predicted_at_ns - begun_at_ns);
        self.respond(rows);
        self.metrics.respond_ns.record(stage_ns() - predicted_at_ns);
        self.metrics.steps_finished.add(1);
        Found::Events
    }

    /// Announces through `wake`, the processor's own, that its thread is about to sleep. Returns whether it may: it may
    /// not if there is something to do. The end of all I/O threads is not seen here. Follow it with
    /// [`BatchProcessor::wake_up`] in either case.
    pub fn fall_asleep(&self, wake: &Wake) -> bool {
        wake.flag.announce_sleep();
        !self.consumer.has_available()
    }

    /// Announces that the processor's thread is awake again.
    pub fn wake_up(&self, wake: &Wake) {
        wake.flag.announce_awake();
    }

    fn count_events(&self, now_ns: u64) {
        self.metrics.events.add(self.bursts.len() as u64);
        self.metrics.events_peak.raise(self.bursts.len());
        if DETAILED {
            for burst in &self.bursts {
                self.metrics.queue_ns.record(now_ns.saturating_sub(burst.event.published_at_ns));
            }
        }
    }

    /// Scores all rows of the step. Returns how many.
    fn predict(&mut self, now_ns: impl Fn() -> u64) -> usize {
        let (bursts, ports) = (&self.bursts, &self.ports);
        let rows = bursts.iter().map(|burst| burst.event.rows as usize).sum();
        let requests = bursts.iter().map(|burst| usize::from(burst.event.requests)).sum();
        let run = |index: usize| {
            let burst: &Burst = bursts.get(index)?;
            Some(burst.requests(&ports[usize::from(burst.event.io_thread)].pool))
        };
        let end = Place { run: bursts.len(), byte: 0, request: requests, row: rows };
        let log = &mut self.failure_log;
        self.failed.clear();
        let scores = &mut self.scores[..rows * self.model.outputs()];
        let scoring = Scoring {
            model: &mut *self.model,
            scores,
            failed: &mut self.failed,
            calls: &self.metrics.model_calls,
            report: &mut |error| {
                if let Some(suppressed) = log.pass(now_ns()) {
                    tracing::warn!(%error, suppressed, "the model failed on a request, which gets error 2");
                }
            },
        };
        scoring.score(&Requests::of_runs(self.layout, &run, end));
        self.metrics.model_failures.add(self.failed.len() as u64);
        rows
    }

    /// Writes the answers over the requests and sends the buffers back. `rows` were scored.
    fn respond(&mut self, rows: usize) {
        let outputs = self.model.outputs();
        let mut scores = &mut self.scores[..rows * outputs];
        let mut failed = self.failed.iter().copied().peekable();
        let mut index = 0;
        for Burst { event, mut buffer } in self.bursts.drain(..) {
            let port = &mut self.ports[usize::from(event.io_thread)];
            let start = event.offset as usize;
            let bytes = &mut port.pool.bytes_mut(&mut buffer)[start..start + event.request_bytes as usize];
            let requests = usize::from(event.requests);
            let answer_bytes = write_answers(self.layout, bytes, outputs, &mut scores, |request| {
                failed.next_if_eq(&(index + request)).is_some()
            });
            index += requests;
            port.responses.push(Response {
                connection: event.connection,
                buffer: port.pool.ship(buffer),
                requests: event.requests,
                request_bytes: event.request_bytes,
                offset: event.offset,
                answer_bytes: u32::try_from(answer_bytes).expect("answers are shorter than their requests"),
                sequence: event.sequence,
                published_at_ns: event.published_at_ns,
            });
        }
        assert!(scores.is_empty() && failed.peek().is_none(), "every score is somebody's answer");
        self.metrics.requests.add(index as u64);
        self.metrics.rows.add(rows as u64);
        self.metrics.batch_rows.record(rows as u64);
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

/// Writes the answers to the requests in `bytes` to the front of `bytes`, taking scores from the front of `scores`, of which
/// there are `outputs` a vector: an answer has the first ones.
/// Returns the answers' length in bytes. `has_failed` tells, by the request's number, whether it gets error 2.
fn write_answers(
    layout: RequestLayout,
    bytes: &mut [u8],
    outputs: usize,
    scores: &mut &mut [f32],
    mut has_failed: impl FnMut(usize) -> bool,
) -> usize {
    let (mut read, mut written, mut request) = (0, 0, 0);
    while let Some(header) = bytes[read..].first_chunk::<REQUEST_HEADER_BYTES>() {
        let num_vectors = read_vector_count(*header).expect("the I/O thread framed valid requests");
        read += layout.request_bytes(num_vectors);
        let vectors = num_vectors as usize;
        let answer = scores.split_off_mut(..vectors * outputs).expect("every vector was scored");
        // In place: the first output of each vector moves towards the front.
        (1..if outputs > 1 { vectors } else { 0 }).for_each(|vector| answer[vector] = answer[vector * outputs]);
        // An answer is shorter than its request, so this never reaches what has not been read.
        let place = &mut bytes[written..read];
        written += if has_failed(request) {
            place[..ERROR_ANSWER_BYTES].copy_from_slice(&ErrorCode::ModelFailed.answer());
            ERROR_ANSWER_BYTES
        } else {
            write_answer(&answer[..vectors], place)
        };
        request += 1;
    }
    assert!(read == bytes.len(), "whole requests");
    written
}

#[cfg(test)]
mod tests {
    use disrust_protocol::{answer_bytes, write_request};

    use super::*;

    #[test]
    fn answers_are_compacted_over_their_requests() {
        for feature_dim in [1, 2, 16] {
            let layout = RequestLayout::new(feature_dim);
            let (mut bytes, mut expected, mut all_scores) = (Vec::new(), Vec::new(), Vec::new());
            for (index, count) in [1_usize, 64, 3, 2, 1].into_iter().enumerate() {
                write_request(layout, &vec![1.0; count * feature_dim], &mut bytes);
                let scores: Vec<f32> = (0..count).map(|row| (1000 * index + row) as f32).collect();
                if index == 3 {
                    expected.extend(ErrorCode::ModelFailed.answer());
                } else {
                    let mut answer = vec![0; answer_bytes(count as u32)];
                    write_answer(&scores, &mut answer);
                    expected.extend(answer);
                }
                all_scores.extend(scores);
            }
            for outputs in [1, 3] {
                let others = |score: &f32| [*score, f32::NAN, f32::NAN].into_iter().take(outputs);
                let mut all_scores: Vec<f32> = all_scores.iter().flat_map(others).collect();
                let (mut bytes, mut scores) = (bytes.clone(), &mut all_scores[..]);
                let written = write_answers(layout, &mut bytes, outputs, &mut scores, |request| request == 3);
                assert_eq!(bytes[..written], expected);
                assert!(scores.is_empty());
            }
        }
    }
}
