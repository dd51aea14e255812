//! Scores the rows of a part of a step (nearly always all of it), and where the model fails on them together, finds the requests that it fails on, so that all
//! others get their scores.
//!
//! Requests on which the model fails are halved until each part is scored or is a single request. What that may cost the
//! others is bounded, however many requests fail and wherever they lie:
//! - The model sees at most `2 + RESCORED_PASSES_MAX` times the rows of the part, and is called less than twice for each
//!   request: all rows together; then parts on which it fails, as far as the allowance for them goes; and each row once in
//!   the call that decides about it. A part for which the allowance is used up goes request by request.
//! - With one failing request that is at most 3 times the rows, where 2 cannot be avoided: the first call is in vain, and
//!   the other rows must be scored.
//!
//! Invariant: after [`Scoring::score`], each request's scores are those of a call that the model came back from without an
//! error, or the request is among the failed ones, having failed by itself.
#![forbid(unsafe_code)]

use disrust_model::{Model, PredictError, guarded_predict};

use super::requests::Requests;
use crate::limits::RESCORED_PASSES_MAX;
use crate::metrics::Counter;

/// The scoring of one part of a step.
pub(crate) struct Scoring<'a> {
    /// Who scores.
    pub model: &'a mut dyn Model,
    /// One place for each output of each row of the part.
    pub scores: &'a mut [f32],
    /// The requests that the model fails on by themselves, by their number; ascending in the end.
    pub failed: &'a mut Vec<usize>,
    /// Counts each call before it is made: a step of many calls is not taken for one that hangs.
    pub calls: &'a Counter,
    /// Hears of each request that fails.
    pub report: &'a mut dyn FnMut(&PredictError),
}

impl Scoring<'_> {
    /// Scores all rows of the part.
    pub fn score(mut self, all: &Requests<'_>) {
        if self.is_decided(all) {
            return;
        }
        self.score_halves(all, RESCORED_PASSES_MAX * all.rows_count());
        self.failed.sort_unstable();
    }

    /// Decides about requests, two at least, on which the model fails or seems to fail together. `allowance` is how many rows
    /// it may still see in vain for them.
    fn score_halves(&mut self, requests: &Requests<'_>, mut allowance: usize) {
        let (first, second) = requests.split(requests.rows_count() / 2);
        let failed_before = self.failed.len();
        let first_decided = self.is_decided_within(&first, &mut allowance);
        // If the first half is not to blame, the second one is, and need not be tried as a whole.
        let blameless = first_decided && self.failed.len() == failed_before;
        let second_decided =
            if blameless && second.count() > 1 { false } else { self.is_decided_within(&second, &mut allowance) };
        let for_first = match (first_decided, second_decided) {
            (false, false) => allowance * first.rows_count() / requests.rows_count(),
            (false, true) => allowance,
            (true, _) => 0,
        };
        if !first_decided {
            self.score_halves(&first, for_first);
        }
        if !second_decided {
            self.score_halves(&second, allowance - for_first);
        }
    }

    /// As [`Scoring::is_decided`], at the cost of the allowance; without enough of it, request by request.
    fn is_decided_within(&mut self, requests: &Requests<'_>, allowance: &mut usize) -> bool {
        if requests.count() > 1 && *allowance < requests.rows_count() {
            self.score_one_by_one(*requests);
            return true;
        }
        let decided = self.is_decided(requests);
        if !decided {
            *allowance -= requests.rows_count();
        }
        decided
    }

    fn score_one_by_one(&mut self, mut requests: Requests<'_>) {
        while requests.count() > 0 {
            let (request, rest) = requests.split(1);
            let decided = self.is_decided(&request);
            assert!(decided, "a single request is scored or has failed");
            requests = rest;
        }
    }

    /// Calls the model. Returns whether that decides about the rows: they are scored, or are a single request, which fails.
    fn is_decided(&mut self, requests: &Requests<'_>) -> bool {
        self.calls.add(1);
        let (rows, outputs) = (requests.places(), self.model.outputs());
        let scores = &mut self.scores[rows.start * outputs..rows.end * outputs];
        match guarded_predict(self.model, &requests.rows(), scores) {
            Ok(()) => true,
            Err(error) if requests.count() == 1 => {
                self.failed.push(requests.first_request());
                (self.report)(&error);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use disrust_model::Rows;
    use disrust_protocol::{RequestLayout, write_request};
    use proptest::prelude::*;

    use super::super::requests::Place;
    use super::*;

    /// Its rows' score is their first feature; it fails where a row's second feature says so, by an error or a panic, having
    /// written nonsense. It may also fail on large batches only.
    #[derive(Default)]
    struct Fragile {
        calls: usize,
        rows: usize,
        batch_max: Option<usize>,
    }

    const GOOD: f32 = 0.0;
    const ERROR: f32 = 1.0;
    const PANIC: f32 = 2.0;

    impl Model for Fragile {
        fn name(&self) -> &str {
            "fragile"
        }

        fn feature_dim(&self) -> usize {
            2
        }

        fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
            self.calls += 1;
            self.rows += rows.count();
            assert_eq!(rows.count(), scores.len());
            let mut matrix = vec![0.0; 2 * rows.count()];
            rows.gather(&mut matrix);
            if matrix.chunks(2).any(|row| row[1] == PANIC) {
                scores.fill(f32::NAN);
                panic!("as a test");
            }
            if matrix.chunks(2).any(|row| row[1] == ERROR) || self.batch_max.is_some_and(|max| scores.len() > max) {
                scores.fill(f32::NAN);
                return Err(PredictError("as a test".to_owned()));
            }
            matrix.chunks(2).zip(scores).for_each(|(row, score)| *score = row[0]);
            Ok(())
        }
    }

    /// A request: how many rows, and the second feature of one of them.
    type Shape = (usize, f32);

    /// What scoring the bursts has cost, after it was checked.
    struct Cost {
        calls: usize,
        rows: usize,
    }

    /// Scores bursts of requests and checks each request's outcome.
    fn score(mut model: Fragile, bursts: &[Vec<Shape>]) -> Cost {
        let layout = RequestLayout::new(2);
        let mut expected_scores = Vec::new();
        let mut runs = Vec::new();
        for burst in bursts {
            let mut run = Vec::new();
            for (count, mark) in burst {
                let mut vectors = Vec::new();
                for row in 0..*count {
                    expected_scores.push(expected_scores.len() as f32);
                    vectors.extend([
                        *expected_scores.last().expect("just pushed"),
                        if row == count / 2 { *mark } else { GOOD },
                    ]);
                }
                write_request(layout, &vectors, &mut run);
            }
            runs.push(run);
        }
        let shapes: Vec<_> = bursts.iter().flatten().collect();
        let rows = expected_scores.len();
        let run = |index: usize| runs.get(index).map(|run| &run[..]);
        let all = Requests::of_runs(layout, &run, Place { run: runs.len(), byte: 0, request: shapes.len(), row: rows });
        let (mut scores, mut failed, calls, mut reported) = (vec![-1.0; rows], Vec::new(), Counter::default(), 0);
        let mut report = |_: &PredictError| reported += 1;
        Scoring { model: &mut model, scores: &mut scores, failed: &mut failed, calls: &calls, report: &mut report }
            .score(&all);

        let fails =
            |index: &usize| shapes[*index].1 != GOOD || model.batch_max.is_some_and(|max| shapes[*index].0 > max);
        let expected_failed: Vec<_> = (0..shapes.len()).filter(fails).collect();
        assert_eq!(failed, expected_failed);
        let mut row = 0;
        for (index, (count, _)) in shapes.iter().enumerate() {
            if !fails(&index) {
                assert_eq!(scores[row..row + count], expected_scores[row..row + count], "request {index}");
            }
            row += count;
        }
        assert_eq!((reported, calls.get()), (failed.len(), model.calls as u64));
        assert!(model.calls < 2 * shapes.len().max(1), "{} calls for {} requests", model.calls, shapes.len());
        assert!(model.rows <= (2 + RESCORED_PASSES_MAX) * rows, "{} rows for {rows}", model.rows);
        Cost { calls: model.calls, rows: model.rows }
    }

    fn all_in_one_burst(requests: usize, fails: impl Fn(usize) -> bool) -> Vec<Vec<Shape>> {
        vec![(0..requests).map(|index| (1, if fails(index) { ERROR } else { GOOD })).collect()]
    }

    #[test]
    fn what_does_not_fail_costs_one_call() {
        let Cost { calls, rows } = score(Fragile::default(), &all_in_one_burst(4096, |_| false));
        assert_eq!((calls, rows), (1, 4096));
        let Cost { calls, rows } = score(Fragile::default(), &[vec![(64, ERROR)]]);
        assert_eq!((calls, rows), (1, 64), "a request that is alone has failed alone");
    }

    #[test]
    fn one_failing_request_costs_the_others_one_pass_more() {
        for place in [0, 1, 1000, 2047, 2048, 4094, 4095] {
            let Cost { calls, rows } = score(Fragile::default(), &all_in_one_burst(4096, |index| index == place));
            assert!(rows <= 3 * 4096, "request {place}: {rows} rows");
            assert!(calls <= 1 + 2 * 12, "request {place}: {calls} calls");
        }
    }

    #[test]
    fn a_few_failing_requests_are_found_by_halving() {
        for few in [2, 4, 8] {
            let distance = 4096 / few;
            let Cost { calls, .. } =
                score(Fragile::default(), &all_in_one_burst(4096, |index| index % distance == distance / 3));
            assert!(calls <= 1 + 2 * 12 * few, "{few} failing: {calls} calls");
        }
    }

    #[test]
    fn many_failing_requests_cost_a_bounded_multiple() {
        // The bounds are asserted for each.
        score(Fragile::default(), &all_in_one_burst(4096, |_| true));
        score(Fragile::default(), &all_in_one_burst(4096, |index| index % 2 == 0));
        score(Fragile::default(), &all_in_one_burst(4096, |index| index % 64 == 63));
        score(Fragile::default(), &all_in_one_burst(4097, |index| index < 2048));
    }

    #[test]
    fn a_model_that_fails_on_large_batches_scores_small_ones() {
        for batch_max in [1, 10, 1000, 4000] {
            score(Fragile { batch_max: Some(batch_max), ..Fragile::default() }, &all_in_one_burst(4096, |_| false));
        }
    }

    fn any_bursts() -> impl Strategy<Value = Vec<Vec<Shape>>> {
        // From hardly any failing request to nearly all.
        (1..20_u32).prop_flat_map(|rarity| {
            let mark = prop_oneof![rarity => Just(GOOD), 2 => Just(ERROR), 1 => Just(PANIC)];
            let request = (prop_oneof![1..3_usize, 1..=64_usize], mark);
            prop::collection::vec(prop::collection::vec(request, 1..20), 1..20)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn exactly_the_failing_requests_fail(bursts in any_bursts(), batch_max in prop::option::of(1..500_usize)) {
            score(Fragile { batch_max, ..Fragile::default() }, &bursts);
        }
    }
}
