//! Receives as clients would cause them: whole requests of random rows, as many and as large as a generator says.
//!
//! No branch predictor learns them: how many requests a receive brings, and of how many vectors each, is drawn anew
//! for every receive, from a generator whose period is 2⁶⁴, before the clock starts. Features are copied from random
//! places of a table of random rows.

use disrust_protocol::MAX_VECTORS_PER_REQUEST;
use fastrand::Rng;

use crate::request_side::LAYOUT;

/// Rows in the table: with all the requests of a round, about what the second-level cache holds.
const TABLE_ROWS: usize = 1024;

/// What a receive brings: how many requests, and of how many vectors each; both inclusive.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    requests: (u32, u32),
    vectors: (u32, u32),
}

/// The bursts that are measured, with their names in the results: many connections that each wait for an answer;
/// connections that pipeline; and requests of all sizes.
pub const BURSTS: [(Burst, &str); 3] = [
    (Burst { requests: (1, 1), vectors: (1, 1) }, "1_request_of_1_vector"),
    (Burst { requests: (1, 31), vectors: (1, 1) }, "1_to_31_requests_of_1_vector"),
    (Burst { requests: (1, 7), vectors: (1, MAX_VECTORS_PER_REQUEST) }, "1_to_7_requests_of_1_to_64_vectors"),
];

/// Where receives come from.
pub struct Network {
    table: Vec<u8>,
    random: Rng,
}

impl Network {
    pub fn new() -> Network {
        let mut random = Rng::with_seed(1);
        let features = TABLE_ROWS * LAYOUT.feature_dim();
        let table = (0..features).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect();
        Network { table, random }
    }

    /// Writes the requests of one receive to the front of `area`; returns how many bytes that were.
    pub fn receive(&mut self, burst: Burst, area: &mut [u8]) -> usize {
        let mut written = 0;
        for _ in 0..self.random.u32(burst.requests.0..=burst.requests.1) {
            let vectors = self.random.u32(burst.vectors.0..=burst.vectors.1);
            let place = &mut area[written..written + LAYOUT.request_bytes(vectors)];
            let (header, rows) = place.split_at_mut(size_of::<u32>());
            header.copy_from_slice(&vectors.to_le_bytes());
            let row = self.random.usize(..=TABLE_ROWS - vectors as usize);
            rows.copy_from_slice(&self.table[row * LAYOUT.row_bytes()..][..rows.len()]);
            written += place.len();
        }
        written
    }
}
