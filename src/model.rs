//! The seam between the server and whatever scores: rows in, one score a row out.
//!
//! A model sees all vectors of a poll at once, as they lie in the receive buffers; one that needs a contiguous matrix
//! gathers it ([`Rows::gather`]). It knows no connection and no wire format. [`Sum`] is the default model.
//!
//! Invariant: the scores' slice has exactly one place a row, so a model cannot return a wrong number of them.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use disrust_protocol::{F32_BYTES, REQUEST_HEADER_BYTES, RequestLayout, read_vector_count};

/// Scores vectors. Owned by the batch processor's thread, called by nobody else.
pub trait Model: Send {
    /// What to call the model in logs and the banner.
    fn name(&self) -> &str;

    /// Features in each vector (>= 1); constant for the model's life.
    fn feature_dim(&self) -> usize;

    /// Scores `rows` (shape `[rows.count(), feature_dim]`) into `scores` (shape `[rows.count()]`), in order.
    ///
    /// A score must depend on its own row alone: which rows come together is an accident of timing.
    ///
    /// # Errors
    /// If these rows can't be scored. The batch processor then asks again for fewer requests, down to single ones, so that
    /// one request that the model fails on costs no other request its answer. A panic counts as an error.
    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError>;
}

/// Why a model could not score the rows that it was given.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct PredictError(pub String);

/// The vectors of one or many requests, where they lie: a contiguous part of the requests of a step.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    runs: Runs<'a>,
    layout: RequestLayout,
    start: Place,
    end: Place,
}

/// Gives the runs of requests of a step, by number: whole requests, headers and all. None beyond the last one.
pub(crate) type Runs<'a> = &'a dyn Fn(usize) -> Option<&'a [u8]>;

/// A place between two requests of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Number of the run.
    pub run: usize,
    /// Bytes of that run that lie before the place.
    pub byte: usize,
    /// Requests of the step before the place.
    pub request: usize,
    /// Vectors of the step before the place.
    pub row: usize,
}

impl<'a> Rows<'a> {
    /// The vectors of all requests in `runs`, which end at `end`. The requests are complete and valid.
    pub(crate) fn of_runs(layout: RequestLayout, runs: Runs<'a>, end: Place) -> Rows<'a> {
        Rows { runs, layout, start: Place::default(), end }
    }

    /// How many vectors.
    pub fn count(&self) -> usize {
        self.end.row - self.start.row
    }

    /// Where the vectors' scores are among those of the step.
    pub(crate) fn places(&self) -> Range<usize> {
        self.start.row..self.end.row
    }

    /// How many requests.
    pub(crate) fn requests(&self) -> usize {
        self.end.request - self.start.request
    }

    /// The number of the first request in the step.
    pub(crate) fn first_request(&self) -> usize {
        self.start.request
    }

    /// The first requests that have together at most `rows_max` vectors, but one request at least; and the others.
    pub(crate) fn split(&self, rows_max: usize) -> (Rows<'a>, Rows<'a>) {
        let mut place = self.start;
        'walk: for (run, byte, bytes) in self.parts() {
            (place.run, place.byte) = (run, byte);
            for request in requests(self.layout, bytes) {
                let row = place.row + (request.len() - REQUEST_HEADER_BYTES) / self.layout.row_bytes();
                if row - self.start.row > rows_max && place.request > self.start.request {
                    break 'walk;
                }
                place = Place { byte: place.byte + request.len(), request: place.request + 1, row, ..place };
            }
        }
        (Rows { end: place, ..*self }, Rows { start: place, ..*self })
    }

    /// The runs as far as they belong to the rows: each with its number and how many of its bytes come before.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, &'a [u8])> {
        let Rows { runs, start, end, .. } = *self;
        (start.run..=end.run).map_while(move |index| {
            let run = runs(index)?;
            let first = if index == start.run { start.byte } else { 0 };
            let last = if index == end.run { end.byte } else { run.len() };
            Some((index, first, &run[first..last]))
        })
    }

    /// Features in each vector.
    pub fn feature_dim(&self) -> usize {
        self.layout.feature_dim()
    }

    /// Calls `each` with the bytes of the vectors of one request after the other: `feature_dim` little-endian f32 for
    /// each vector, at any alignment.
    pub fn for_each_request(&self, mut each: impl FnMut(&[u8])) {
        for (_, _, run) in self.parts() {
            requests(self.layout, run).for_each(|request| each(&request[REQUEST_HEADER_BYTES..]));
        }
    }

    /// Copies the vectors into `matrix`, row by row (shape `[count, feature_dim]`).
    ///
    /// # Panics
    /// If `matrix` has not exactly that many elements.
    pub fn gather(&self, matrix: &mut [f32]) {
        assert!(matrix.len() == self.count() * self.feature_dim(), "a matrix of count × feature_dim");
        let mut places = matrix.iter_mut();
        self.for_each_request(|rows| {
            for (feature, place) in rows.as_chunks::<F32_BYTES>().0.iter().zip(&mut places) {
                *place = f32::from_le_bytes(*feature);
            }
        });
    }
}

/// Splits a run of complete, valid requests into requests, headers and all.
///
/// # Panics
/// If the run is not that: whoever framed it was wrong.
fn requests(layout: RequestLayout, mut run: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = *run.first_chunk::<REQUEST_HEADER_BYTES>()?;
        let num_vectors = read_vector_count(header).expect("the I/O thread framed valid requests");
        let (request, rest) = run.split_at(layout.request_bytes(num_vectors));
        run = rest;
        Some(request)
    })
}

/// The default model: the sum of a vector's features, added from left to right.
///
/// The order is fixed so that the same vector always gives the same bits.
#[derive(Debug, Clone)]
pub struct Sum {
    feature_dim: usize,
}

impl Sum {
    /// Sums vectors of `feature_dim` features (>= 1).
    pub fn new(feature_dim: usize) -> Sum {
        assert!(feature_dim >= 1, "a vector has at least one feature");
        Sum { feature_dim }
    }
}

impl Model for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut places = scores.iter_mut();
        rows.for_each_request(|request| {
            // The usual width is known to the compiler, which unrolls it.
            let (wide, rest) = request.as_chunks::<{ 16 * F32_BYTES }>();
            if self.feature_dim == 16 && rest.is_empty() {
                wide.iter().zip(&mut places).for_each(|(row, place)| *place = sum(row));
            } else {
                let rows = request.chunks_exact(self.feature_dim * F32_BYTES);
                rows.zip(&mut places).for_each(|(row, place)| *place = sum(row));
            }
        });
        Ok(())
    }
}

/// Adds the features of one row from left to right.
#[inline(always)]
fn sum(row: &[u8]) -> f32 {
    let (features, _) = row.as_chunks::<F32_BYTES>();
    features.iter().map(|feature| f32::from_le_bytes(*feature)).fold(-0.0, |sum, feature| sum + feature)
}

/// Calls the model; a panic is an error like any other.
///
/// # Errors
/// As [`Model::predict`], or the model panicked.
pub fn guarded_predict(model: &mut dyn Model, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
    // A model that panics may leave itself in any state, and scores half written: neither is used as an answer.
    MODEL_RUNS.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| model.predict(rows, scores)));
    MODEL_RUNS.set(false);
    outcome.unwrap_or_else(|panic| Err(PredictError(format!("the model panicked: {}", panic_message(&*panic)))))
}

/// Whether this thread is inside the model. A panic there is an error of the model, reported as such and not too often;
/// a panic hook need not print it.
pub fn model_runs() -> bool {
    MODEL_RUNS.get()
}

thread_local! {
    static MODEL_RUNS: Cell<bool> = const { Cell::new(false) };
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use disrust_protocol::write_request;

    fn scores(feature_dim: usize, rows: &[f32]) -> Vec<f32> {
        let layout = RequestLayout::new(feature_dim);
        let mut run = Vec::new();
        write_request(layout, rows, &mut run);
        let mut scores = vec![f32::NAN; rows.len() / feature_dim];
        let runs = |index| (index == 0).then_some(&run[..]);
        let end = Place { run: 1, byte: 0, request: 1, row: scores.len() };
        assert!(Sum::new(feature_dim).predict(&Rows::of_runs(layout, &runs, end), &mut scores).is_ok());
        scores
    }

    #[test]
    fn features_are_added_from_left_to_right() {
        let row: Vec<f32> = (0..16).map(|index| 1.0e7 / (index as f32 + 0.1)).collect();
        let expected = row.iter().fold(0.0, |sum, feature| sum + feature);
        assert_eq!(scores(16, &row), [expected]);
        assert_eq!(scores(3, &[1.0e8, 1.0, -1.0e8, 1.0, 2.0, 3.0]), [0.0, 6.0]);
    }

    #[test]
    fn special_values_stay_in_their_row() {
        let mut rows = vec![1.0; 5 * 16];
        rows[3] = f32::NAN;
        rows[16] = f32::INFINITY;
        rows[32..48].fill(-0.0);
        rows[48..64].fill(f32::from_bits(1));
        let scores = scores(16, &rows);
        assert!(scores[0].is_nan() && scores[1].is_infinite());
        assert_eq!(scores[2].to_bits(), (-0.0f32).to_bits());
        assert_eq!(scores[3].to_bits(), 16);
        assert_eq!(scores[4], 16.0);
    }

    #[test]
    fn runs_of_requests_are_seen_as_one_batch_in_order() {
        let layout = RequestLayout::new(2);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_request(layout, &[1.0, 2.0, 3.0, 4.0], &mut first);
        write_request(layout, &[5.0, 6.0], &mut first);
        write_request(layout, &[7.0, 8.0], &mut second);
        let runs = |index| [&first[..], &second[..]].get(index).copied();
        let rows = Rows::of_runs(layout, &runs, Place { run: 2, byte: 0, request: 3, row: 4 });
        let mut matrix = [0.0; 8];
        rows.gather(&mut matrix);
        assert_eq!(matrix, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let mut scores = [0.0; 4];
        assert!(Sum::new(2).predict(&rows, &mut scores).is_ok());
        assert_eq!(scores, [3.0, 7.0, 11.0, 15.0]);
    }

    #[test]
    fn rows_are_split_between_requests() {
        let layout = RequestLayout::new(1);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_request(layout, &[1.0, 2.0], &mut first);
        write_request(layout, &[3.0], &mut first);
        write_request(layout, &[4.0, 5.0, 6.0], &mut second);
        write_request(layout, &[7.0], &mut second);
        let runs = |index| [&first[..], &second[..]].get(index).copied();
        let all = Rows::of_runs(layout, &runs, Place { run: 2, byte: 0, request: 4, row: 7 });
        for (rows_max, requests, rows) in
            [(0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 2, 3), (5, 2, 3), (6, 3, 6), (7, 4, 7), (100, 4, 7)]
        {
            let (front, back) = all.split(rows_max);
            assert_eq!((front.requests(), front.places()), (requests, 0..rows), "at most {rows_max}");
            assert_eq!((back.requests(), back.places(), back.first_request()), (4 - requests, rows..7, requests));
            let mut matrix = [0.0; 7];
            front.gather(&mut matrix[..rows]);
            back.gather(&mut matrix[rows..]);
            assert_eq!(matrix, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "at most {rows_max}");
        }
        let (_, back) = all.split(2);
        let (middle, last) = back.split(4);
        assert_eq!((middle.places(), last.places()), (2..6, 6..7));
    }

    struct Panicking;

    impl Model for Panicking {
        fn name(&self) -> &str {
            "panicking"
        }
        fn feature_dim(&self) -> usize {
            1
        }
        fn predict(&mut self, _rows: &Rows<'_>, _scores: &mut [f32]) -> Result<(), PredictError> {
            panic!("as a test")
        }
    }

    #[test]
    fn a_models_panic_is_an_error() {
        let rows = Rows::of_runs(RequestLayout::new(1), &|_| None, Place { row: 1, ..Place::default() });
        let Err(error) = guarded_predict(&mut Panicking, &rows, &mut [0.0]) else { panic!("an error") };
        assert!(error.to_string().contains("the model panicked: as a test") && !model_runs(), "{error}");
    }
}
