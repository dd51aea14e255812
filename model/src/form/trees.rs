//! Ensembles of decision trees, with the semantics of all formats in one vocabulary.
//!
//! A row walks each tree from its root to a leaf; the leaves' values are added, in the order of the trees, to the targets'
//! sums, in the precision of the library that made the model. All tests are unions of closed intervals of f32: what a format
//! compares in f64 or by category is turned into them exactly ([`at_most_f64`], [`less_than`], [`Interval::of_category`]).

/// Trees whose leaves are added up, target by target.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// How many sums there are (>= 1): one for a regression or two classes, else one for each class or target.
    pub targets: usize,
    /// In the order in which their leaves are added.
    pub trees: Vec<Tree>,
    /// In which precision sums are added.
    pub rounding: Rounding,
    /// Where each target's sum starts, before the first tree.
    pub start: Vec<f64>,
    /// What a sum is multiplied by in the end (an average has `1 / count`).
    pub factor: f64,
    /// What is added to each target after that.
    pub offset: Vec<f64>,
}

/// In which precision leaves are added: each sum is rounded to it after each tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// f32 throughout, leaves, start, factor and offset included (XGBoost, ONNX).
    F32,
    /// f64 throughout; the result is rounded to f32 (LightGBM, CatBoost, ONNX's `_as_tensor` attributes).
    F64,
}

/// One tree. Its splits form a tree: each split and each leaf but the root is the child of exactly one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// Where a row starts: a leaf if the tree has no split.
    pub root: Child,
    /// In any order.
    pub splits: Vec<Split>,
    /// What rows end at.
    pub leaves: Leaves,
}

/// A place in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// Index of a split.
    Split(u32),
    /// Index of a leaf.
    Leaf(u32),
}

/// Where a row goes one of two ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Which column of the ensemble's input is looked at.
    pub feature: u32,
    /// What is asked of it.
    pub test: Test,
    /// Whether NaN is answered with yes.
    pub missing: bool,
    /// Where a row goes whose value passes the test.
    pub yes: Child,
    /// Where it goes otherwise.
    pub no: Child,
}

/// What a split asks of a value that is not NaN.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `x <= threshold`, −0 and 0 being equal. The threshold is not NaN.
    AtMost {
        /// The largest value that passes.
        threshold: f32,
        /// If given, the answer for all `|x| <= 1e-35` (LightGBM's missing type Zero), whatever the threshold.
        zero: Option<bool>,
    },
    /// Whether the value lies in one of the intervals, which are sorted and do not touch. None at all: always no.
    Within(Box<[Interval]>),
}

/// From `first` to `last`, both included, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The smallest value inside.
    pub first: f32,
    /// The largest value inside.
    pub last: f32,
}

impl Interval {
    /// All values that, cut to an integer towards zero, are `category`: −0.5 is category 0. Categories up to 2²⁴ are told
    /// apart by f32; beyond, those that f32 cannot tell apart share an interval (and must be merged by the caller).
    pub fn of_category(category: u32) -> Interval {
        let first = if category == 0 { (-1.0_f32).next_up() } else { category as f32 };
        Interval { first, last: ((category as f32) + 1.0).next_down().max(first) }
    }

    /// The union of the intervals, sorted, what touches or overlaps put together.
    pub fn union(mut intervals: Vec<Interval>) -> Box<[Interval]> {
        intervals.sort_by(|one, other| one.first.total_cmp(&other.first));
        let mut union: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals {
            match union.last_mut() {
                Some(previous) if interval.first <= previous.last.next_up() => {
                    previous.last = previous.last.max(interval.last)
                }
                _ => union.push(interval),
            }
        }
        union.into_boxed_slice()
    }
}

/// What the leaves of a tree add.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaves {
    /// How many leaves there are (>= 1).
    pub count: usize,
    /// To which targets they add.
    pub targets: Targets,
    /// Leaf by leaf: one value, or one for each target if they add to all.
    pub values: Vec<f64>,
    /// For linear trees, which have one target: for each leaf that has one, its linear function, by the leaf's index, ascending.
    pub linear: Vec<(u32, LinearLeaf)>,
}

/// To which targets of the ensemble a tree adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// To this one.
    One(u32),
    /// To each: leaves are vectors.
    All,
}

/// A leaf's linear function, LightGBM's `linear_tree`: `constant + Σ coefficient × x`, in f64, in this order. If any of its
/// features is NaN, the leaf's plain value stands instead.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearLeaf {
    /// Where the sum starts.
    pub constant: f64,
    /// Features and their coefficients.
    pub terms: Vec<(u32, f64)>,
}

/// The threshold in f32 that answers `x <= threshold` for every f32 as f64 does: the largest f32 that is not above it.
/// NaN stays NaN, which [`super::Form::check`] refuses.
pub fn at_most_f64(threshold: f64) -> f32 {
    let nearest = threshold as f32;
    if f64::from(nearest) > threshold { nearest.next_down() } else { nearest }
}

/// `x < threshold` as a [`Test::AtMost`]; nothing is below −∞.
pub fn less_than(threshold: f32) -> Test {
    if threshold == f32::NEG_INFINITY {
        return Test::Within(Box::default());
    }
    // next_down of 0 is the smallest negative number, of −0 too: −0 < 0 does not hold.
    Test::AtMost { threshold: threshold.next_down(), zero: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_in_f64_decides_as_before() {
        let passes = |x: f32, threshold: f64| x <= at_most_f64(threshold);
        for threshold in
            [0.1, -0.1, 1e300, -1e300, 1e-60, -1e-60, 16_777_217.0, f64::from(f32::MAX) * 1.0000000001, 0.0]
        {
            let near = threshold as f32;
            for x in [
                near,
                near.next_up(),
                near.next_down(),
                0.0,
                -0.0,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::MAX,
                f32::MIN,
            ] {
                assert_eq!(passes(x, threshold), f64::from(x) <= threshold, "{x} <= {threshold}");
            }
        }
        assert!(at_most_f64(f64::NAN).is_nan());
    }

    #[test]
    fn less_than_is_at_most_the_next_one() {
        for threshold in [0.0, -0.0, 1.5, f32::MIN, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 1e-45] {
            let test = less_than(threshold);
            let passes = |x: f32| matches!(test, Test::AtMost { threshold, .. } if x <= threshold);
            for x in [threshold, threshold.next_up(), threshold.next_down(), 0.0, -0.0, f32::MIN, f32::NEG_INFINITY] {
                assert_eq!(passes(x), x < threshold, "{x} < {threshold}");
            }
        }
    }

    #[test]
    fn categories_are_what_is_cut_to_them() {
        for category in [0, 1, 2, 77, (1 << 24) - 1] {
            let Interval { first, last } = Interval::of_category(category);
            let cut = |x: f32| x.trunc() as i64;
            assert_eq!((cut(first), cut(last)), (i64::from(category), i64::from(category)));
            assert_ne!(cut(first.next_down()), i64::from(category));
            assert_ne!(cut(last.next_up()), i64::from(category));
        }
        let union = Interval::union([5, 3, 4, 9].map(Interval::of_category).to_vec());
        assert_eq!(union.len(), 2);
        assert_eq!((union[0].first, union[0].last), (3.0, 6.0_f32.next_down()));
    }
}
