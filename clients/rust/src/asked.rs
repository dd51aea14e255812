//! What a call asks for, and the requests that it becomes.
#![forbid(unsafe_code)]

use disrust_protocol::{F32_BYTES, HELLO_REQUEST_BYTES, HelloRequest, REQUEST_HEADER_BYTES};

/// What a call asks for and has not yet put in line.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// Scores of whole rows of so many features.
    Scores { rows: &'a [f32], features: usize },
    /// What the server is.
    Hello,
    /// Nothing more.
    Nothing,
}

impl Asked<'_> {
    /// Rows that are not yet in line.
    pub fn rows(&self) -> usize {
        match self {
            Asked::Scores { rows, features } => rows.len() / features,
            Asked::Hello | Asked::Nothing => 0,
        }
    }

    /// Rows and bytes of the request that is next, if there is one. A hello has no rows.
    pub fn next(&self, rows_max: usize) -> Option<(usize, usize)> {
        match self {
            Asked::Scores { rows: [], .. } => None,
            Asked::Scores { features, .. } => {
                let count = self.rows().min(rows_max);
                Some((count, REQUEST_HEADER_BYTES + count * features * F32_BYTES))
            }
            Asked::Hello => Some((0, HELLO_REQUEST_BYTES)),
            Asked::Nothing => None,
        }
    }

    /// Writes the request of so many rows that is next.
    pub fn write(&mut self, count: usize, out: &mut Vec<u8>) {
        match self {
            Asked::Scores { rows, features } => {
                let (request, rest) = rows.split_at(count * *features);
                write_rows(count, request, out);
                *rows = rest;
            }
            Asked::Hello => {
                out.extend_from_slice(&HelloRequest { feature_dim: 0 }.to_bytes());
                *self = Asked::Nothing;
            }
            Asked::Nothing => {}
        }
    }
}

/// Appends a request of whole rows, 1 to 64.
fn write_rows(rows: usize, values: &[f32], out: &mut Vec<u8>) {
    out.extend_from_slice(&(rows as u32).to_le_bytes());
    let begin = out.len();
    out.resize(begin + size_of_val(values), 0);
    for (place, value) in out[begin..].as_chunks_mut::<F32_BYTES>().0.iter_mut().zip(values) {
        *place = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_requests_of_as_many_as_one_may_have() {
        let rows: Vec<f32> = (0..14).map(|value| value as f32).collect();
        let mut asked = Asked::Scores { rows: &rows, features: 2 };
        let mut counts = Vec::new();
        let mut bytes = Vec::new();
        while let Some((count, size)) = asked.next(3) {
            let before = bytes.len();
            asked.write(count, &mut bytes);
            assert_eq!(bytes.len() - before, size);
            counts.push(count);
        }
        assert_eq!(counts, [3, 3, 1]);
        assert_eq!(bytes[..12], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f]);
        assert_eq!(bytes[56..], [1, 0, 0, 0, 0, 0, 0x40, 0x41, 0, 0, 0x50, 0x41]);
    }

    #[test]
    fn a_hello_is_asked_once() {
        let (mut asked, mut bytes) = (Asked::Hello, Vec::new());
        assert_eq!(asked.next(64), Some((0, 8)));
        asked.write(0, &mut bytes);
        assert_eq!((asked.next(64), &*bytes), (None, &b"DSR1\0\0\0\0"[..]));
    }
}
