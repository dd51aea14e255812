//! Sets of categories: bit sets in the file, intervals of values in the form.
#![forbid(unsafe_code)]

use super::fields::Fields;
use crate::form::Interval;
use crate::read::ReadError;

/// The bit sets of a tree. `cat_boundaries` says which words of `cat_threshold` are whose.
pub(super) struct Categories {
    boundaries: Vec<usize>,
    words: Vec<u32>,
    /// A set has one split, so that its intervals are made once: a small file can't ask for many copies of a large set.
    taken: Vec<bool>,
}

impl Categories {
    pub fn read(fields: &Fields<'_>) -> Result<Categories, ReadError> {
        let count: usize = fields.number("num_cat")?;
        if count == 0 {
            return Ok(Categories { boundaries: Vec::new(), words: Vec::new(), taken: Vec::new() });
        }
        let boundaries: Vec<usize> = fields.numbers("cat_boundaries", count.saturating_add(1))?;
        if boundaries[0] != 0 || !boundaries.is_sorted() {
            return Err(fields.malformed("cat_boundaries", "they do not ascend from 0"));
        }
        let words = fields.numbers("cat_threshold", boundaries[count])?;
        Ok(Categories { boundaries, words, taken: vec![false; count] })
    }

    /// The set of a split, whose number stands where others have their threshold.
    pub fn take(&mut self, fields: &Fields<'_>, split: usize, number: f64) -> Result<Box<[Interval]>, ReadError> {
        let count = self.taken.len();
        // As a cast of C: towards 0. What is negative or NaN fits nowhere.
        let Some(set) = Some(number as usize).filter(|set| *set < count && number >= 0.0) else {
            let what = format!("split {split} is of categories {number}, num_cat={count}");
            return Err(fields.malformed("threshold", what));
        };
        if std::mem::replace(&mut self.taken[set], true) {
            return Err(fields.malformed("threshold", format!("split {split} is of categories {set}, as another one")));
        }
        Ok(intervals(&self.words[self.boundaries[set]..self.boundaries[set + 1]]))
    }
}

/// The f32 that, cut to an integer, are a bit of the set: `Tree::CategoricalDecision`. What is negative or has no bit is
/// outside, as is what a C int does not hold (an x86 cast makes it negative).
fn intervals(words: &[u32]) -> Box<[Interval]> {
    let mut intervals: Vec<Interval> = Vec::new();
    for category in categories(words) {
        let interval = Interval::of_category(category);
        // Beyond 2²⁴, no f32 is cut to a category that is none itself.
        if category as f32 as u32 != category {
            continue;
        }
        match intervals.last_mut() {
            Some(previous) if previous.last.next_up() >= interval.first => previous.last = interval.last,
            _ => intervals.push(interval),
        }
    }
    intervals.into_boxed_slice()
}

/// The bits that are set, ascending, as far as a C int goes.
fn categories(words: &[u32]) -> impl Iterator<Item = u32> {
    const WORDS_MAX: usize = (1 << 31) / u32::BITS as usize;
    words.iter().take(WORDS_MAX).enumerate().flat_map(|(index, word)| {
        let bits = (0..u32::BITS).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| index as u32 * u32::BITS + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interval holds exactly the values that C's cast makes its categories, and neighbours share one.
    #[test]
    fn a_bit_set_is_the_values_that_are_cut_to_its_bits() {
        let set = intervals(&[0b1011, 0, 1 << 31]);
        assert_eq!(set.len(), 3);
        let holds = |x: f32| set.iter().any(|interval| interval.first <= x && x <= interval.last);
        for (x, inside) in [
            (-1.0, false),
            (-0.999, true),
            (-0.0, true),
            (1.999, true),
            (2.0, false),
            (2.999, false),
            (3.0, true),
            (3.999, true),
            (4.0, false),
            (95.0, true),
            (96.0, false),
            (f32::INFINITY, false),
            (f32::NEG_INFINITY, false),
            (3e9, false),
        ] {
            assert_eq!(holds(x), inside, "{x}");
        }
        assert!(intervals(&[]).is_empty() && intervals(&[0, 0]).is_empty());
    }

    /// 2²⁴ + 1 is no f32, so its bit may not let 2²⁴ in.
    #[test]
    fn categories_that_f32_does_not_have_are_left_out() {
        let mut words = vec![0_u32; (1 << 24) / 32 + 1];
        words[(1 << 24) / 32] = 0b110;
        let set = intervals(&words);
        assert_eq!(*set, [Interval { first: 16_777_218.0, last: 16_777_218.0 }]);
    }
}
