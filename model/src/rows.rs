//! The rows of one call of a model, where they lie.
//!
//! They are spans of bytes: little-endian f32 at any alignment, whole rows each. Where the spans are, and what lies between
//! them, is their source's business.

/// Bytes of one feature.
pub const F32_BYTES: usize = size_of::<f32>();

/// Where rows lie.
pub trait RowSource {
    /// Calls `visitor` with the spans of whole rows, in order, some of them at a time.
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]]));
}

/// The rows that a model is to score.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    source: &'a dyn RowSource,
    count: usize,
    feature_dim: usize,
}

impl<'a> Rows<'a> {
    /// The `count` rows of `source`, of `feature_dim` features each.
    pub fn new(source: &'a dyn RowSource, count: usize, feature_dim: usize) -> Rows<'a> {
        Rows { source, count, feature_dim }
    }

    /// How many rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Features in each row.
    pub fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    /// Calls `each` with the bytes of the rows, some whole rows at a time: `feature_dim` little-endian f32 for each row, at any
    /// alignment.
    pub fn for_each_span(&self, mut each: impl FnMut(&[u8])) {
        self.source.visit(&mut |spans| spans.iter().for_each(|span| each(span)));
    }

    /// Copies the rows into `matrix`, one after the other (shape `[count, feature_dim]`).
    ///
    /// # Panics
    /// If `matrix` has not exactly that many elements.
    pub fn gather(&self, matrix: &mut [f32]) {
        assert!(matrix.len() == self.count * self.feature_dim, "a matrix of count × feature_dim");
        let mut places = matrix.iter_mut();
        self.for_each_span(|span| {
            for (feature, place) in span.as_chunks::<F32_BYTES>().0.iter().zip(&mut places) {
                *place = f32::from_le_bytes(*feature);
            }
        });
    }
}

/// Rows that lie one after the other.
impl RowSource for &[u8] {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[self]);
    }
}
