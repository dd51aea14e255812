//! The requests that are scored together, as the model's rows and as what can fail by itself.
//!
//! They stay where they were received. A model sees their vectors ([`Requests::rows`]); whoever finds out on which of them it
//! fails splits them between two requests ([`Requests::split`]).

use std::ops::Range;

use disrust_model::{RowSource, Rows};
use disrust_protocol::{REQUEST_HEADER_BYTES, RequestLayout, read_vector_count};

/// Requests that are shown to a model at a time. Larger: more of the stack. Smaller: more calls of what only passes them on.
const SPANS: usize = 32;

/// A contiguous part of the requests of a step, where they lie.
#[derive(Clone, Copy)]
pub(super) struct Requests<'a> {
    runs: Runs<'a>,
    layout: RequestLayout,
    start: Place,
    end: Place,
}

/// Gives the runs of requests of a step, by number: whole requests, headers and all. None beyond the last one.
pub(super) type Runs<'a> = &'a dyn Fn(usize) -> Option<&'a [u8]>;

/// A place between two requests of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Number of the run.
    pub run: usize,
    /// Bytes of that run that lie before the place.
    pub byte: usize,
    /// Requests of the step before the place.
    pub request: usize,
    /// Vectors of the step before the place.
    pub row: usize,
}

impl<'a> Requests<'a> {
    /// All requests in `runs`, which end at `end`. They are complete and valid.
    pub fn of_runs(layout: RequestLayout, runs: Runs<'a>, end: Place) -> Requests<'a> {
        Requests { runs, layout, start: Place::default(), end }
    }

    /// How many vectors they have.
    pub fn rows_count(&self) -> usize {
        self.end.row - self.start.row
    }

    /// Where the vectors' scores are among those of the step.
    pub fn places(&self) -> Range<usize> {
        self.start.row..self.end.row
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.end.request - self.start.request
    }

    /// The number of the first request in the step.
    pub fn first_request(&self) -> usize {
        self.start.request
    }

    /// The first requests that have together at most `rows_max` vectors, but one request at least; and the others.
    pub fn split(&self, rows_max: usize) -> (Requests<'a>, Requests<'a>) {
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
        (Requests { end: place, ..*self }, Requests { start: place, ..*self })
    }

    /// The runs as far as they belong to the part: each with its number and how many of its bytes come before.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, &'a [u8])> {
        let Requests { runs, start, end, .. } = *self;
        (start.run..=end.run).map_while(move |index| {
            let run = runs(index)?;
            let first = if index == start.run { start.byte } else { 0 };
            let last = if index == end.run { end.byte } else { run.len() };
            Some((index, first, &run[first..last]))
        })
    }

    /// The vectors, as a model sees them.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(self, self.rows_count(), self.layout.feature_dim())
    }
}

impl RowSource for Requests<'_> {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        let mut spans: [&[u8]; SPANS] = [&[]; SPANS];
        let mut count = 0;
        for (_, _, run) in self.parts() {
            for request in requests(self.layout, run) {
                spans[count] = &request[REQUEST_HEADER_BYTES..];
                count += 1;
                if count == SPANS {
                    visitor(&spans);
                    count = 0;
                }
            }
        }
        visitor(&spans[..count]);
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

#[cfg(test)]
mod tests {
    use disrust_protocol::write_request;

    use super::*;

    #[test]
    fn runs_of_requests_are_seen_as_one_batch_in_order() {
        let layout = RequestLayout::new(2);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write_request(layout, &[1.0, 2.0, 3.0, 4.0], &mut first);
        write_request(layout, &[5.0, 6.0], &mut first);
        write_request(layout, &[7.0, 8.0], &mut second);
        let runs = |index| [&first[..], &second[..]].get(index).copied();
        let requests = Requests::of_runs(layout, &runs, Place { run: 2, byte: 0, request: 3, row: 4 });
        let mut matrix = [0.0; 8];
        requests.rows().gather(&mut matrix);
        assert_eq!(matrix, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn any_number_of_requests_is_visited() {
        let layout = RequestLayout::new(1);
        for count in [0, 1, SPANS - 1, SPANS, SPANS + 1, 5 * SPANS] {
            let mut run = Vec::new();
            let vectors: Vec<f32> = (0..count).map(|index| index as f32).collect();
            vectors.iter().for_each(|vector| write_request(layout, &[*vector], &mut run));
            let runs = |index| (index == 0).then_some(&run[..]);
            let requests = Requests::of_runs(layout, &runs, Place { run: 1, byte: 0, request: count, row: count });
            let mut matrix = vec![f32::NAN; count];
            requests.rows().gather(&mut matrix);
            assert_eq!(matrix, vectors);
        }
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
        let all = Requests::of_runs(layout, &runs, Place { run: 2, byte: 0, request: 4, row: 7 });
        for (rows_max, requests, rows) in
            [(0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 2, 3), (5, 2, 3), (6, 3, 6), (7, 4, 7), (100, 4, 7)]
        {
            let (front, back) = all.split(rows_max);
            assert_eq!((front.count(), front.places()), (requests, 0..rows), "at most {rows_max}");
            assert_eq!((back.count(), back.places(), back.first_request()), (4 - requests, rows..7, requests));
            let mut matrix = [0.0; 7];
            front.rows().gather(&mut matrix[..rows]);
            back.rows().gather(&mut matrix[rows..]);
            assert_eq!(matrix, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "at most {rows_max}");
        }
        let (_, back) = all.split(2);
        let (middle, last) = back.split(4);
        assert_eq!((middle.places(), last.places()), (2..6, 6..7));
    }
}
