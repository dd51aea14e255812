//! Answers written where their requests were.
//!
//! One pass reads the requests and writes the answers, both from front to back, and never writes on what it has not read. Answers
//! that are longer than their requests get a head start for that: they begin before the requests, by as much as all of them
//! together outgrow these, and so end where the requests end. Each of them outgrows its own request then, so that the first of
//! them outgrow theirs by no more. Answers that are shorter begin where the requests begin.
#![forbid(unsafe_code)]

use disrust_protocol::{
    ERROR_ANSWER_BYTES, ErrorCode, REQUEST_HEADER_BYTES, RequestLayout, read_vector_count, write_answer_of,
};

use crate::exchange::event::InferenceEvent;

/// How far before an event's requests their answers begin, in bytes. The buffer's headroom has room for it
/// ([`crate::limits::PoolGeometry::headroom_bytes_for`]).
pub(super) fn head_start(layout: RequestLayout, event: &InferenceEvent) -> usize {
    let answer_bytes = layout.answer_bytes(usize::from(event.requests), event.rows as usize);
    answer_bytes.saturating_sub(event.request_bytes as usize)
}

/// Writes the answers to the requests in `space[head_start..]` from the front of `space` on, taking scores from the front of
/// `scores`. Returns the answers' length in bytes. `has_failed` tells, by the request's number, whether it gets error 2.
pub(super) fn write_answers(
    layout: RequestLayout,
    space: &mut [u8],
    head_start: usize,
    scores: &mut &[f32],
    mut has_failed: impl FnMut(usize) -> bool,
) -> usize {
    let (mut read, mut written, mut request) = (head_start, 0, 0);
    while let Some(header) = space[read..].first_chunk::<REQUEST_HEADER_BYTES>() {
        let num_vectors = read_vector_count(*header).expect("the I/O thread framed valid requests");
        read += layout.request_bytes(num_vectors);
        let answer = scores.split_off(..num_vectors as usize * layout.outputs()).expect("every vector was scored");
        // Everything up to `read` has been read and scored, and the answer fits there.
        let place = &mut space[written..read];
        written += if has_failed(request) {
            place[..ERROR_ANSWER_BYTES].copy_from_slice(&ErrorCode::ModelFailed.answer());
            ERROR_ANSWER_BYTES
        } else {
            write_answer_of(layout.outputs(), answer, place)
        };
        request += 1;
    }
    assert!(read == space.len(), "whole requests");
    written
}

#[cfg(test)]
mod tests {
    use disrust_protocol::write_request;
    use proptest::prelude::*;

    use super::*;

    /// A burst of requests of so many vectors each, some of which fail, is answered in place, whole and in order.
    fn check(layout: RequestLayout, requests: &[(usize, bool)]) {
        let (features, outputs) = (layout.feature_dim(), layout.outputs());
        let (mut bytes, mut expected, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for (vectors, fails) in requests {
            write_request(layout, &vec![1.0; vectors * features], &mut bytes);
            let first = scores.len();
            scores.extend((first..first + vectors * outputs).map(|score| score as f32));
            if *fails {
                expected.extend(ErrorCode::ModelFailed.answer());
            } else {
                let mut answer = vec![0; layout.answer_bytes(1, *vectors)];
                write_answer_of(outputs, &scores[first..], &mut answer);
                expected.extend(answer);
            }
        }
        let event = InferenceEvent {
            requests: requests.len() as u16,
            rows: requests.iter().map(|(vectors, _)| *vectors as u32).sum(),
            request_bytes: bytes.len() as u32,
            ..InferenceEvent::default()
        };
        let head_start = head_start(layout, &event);
        assert!(head_start <= layout.growth_bytes_max(bytes.len()), "the headroom has room for it");
        assert!(outputs > features || head_start == 0, "shorter answers stay where their requests were");
        let mut space = vec![0xee; head_start];
        space.extend(&bytes);
        let mut left = &scores[..];
        let written = write_answers(layout, &mut space, head_start, &mut left, |request| requests[request].1);
        assert!(space[..written] == expected, "{features} features, {outputs} outputs, {requests:?}");
        assert!(left.is_empty());
    }

    #[test]
    fn answers_are_written_where_their_requests_were() {
        let requests = [(1, false), (64, false), (3, false), (2, true), (1, false)];
        for (features, outputs) in [(1, 1), (2, 1), (16, 1), (3, 3), (3, 4), (1, 2), (5, 700), (1, 4096)] {
            check(RequestLayout::with_outputs(features, outputs), &requests);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever the shape and whichever requests fail, no answer is written on a request that is still to be read.
        #[test]
        fn any_burst_is_answered_in_place(
            features in 1..=8_usize,
            outputs in prop_oneof![1..=9_usize, 1..=700_usize],
            requests in prop::collection::vec((prop_oneof![Just(1_usize), 1..=3_usize, 1..=64_usize], prop::bool::weighted(0.2)), 1..24),
        ) {
            check(RequestLayout::with_outputs(features, outputs), &requests);
        }
    }
}
