//! Random ensembles of all shapes, and rows that look for trouble in them.

use disrust_model::form::{
    Child, Ensemble, Interval, Leaves, LinearLeaf, Rounding, Split, Targets, Test, Tree, less_than,
};

/// What an ensemble is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[rustfmt::skip]
pub enum Shape {
    /// One split a tree, or none.
    Stumps,
    /// Leaf-wise trees, as LightGBM grows them.
    LeafWise,
    /// As those, over more than 255 thresholds a feature.
    ManyThresholds,
    /// As those, over so many features that their columns exceed 64, and then 256.
    ManyFeatures,
    VeryManyFeatures,
    /// Each split has a leaf: trees as deep as they have splits.
    Chains,
    /// At most six levels, of which most leaves are there.
    Shallow,
    /// All leaves at the same depth, each split its own.
    Full,
    /// As those, all splits of a level alike, as CatBoost grows them; up to 8 levels, and more.
    Oblivious,
    DeepOblivious,
    /// More leaves than a byte counts.
    Large,
    /// Trees of a forest: their leaves are vectors.
    Vectors,
    /// A tree for each of several classes, in turn.
    Classes,
    /// Leaves that are functions.
    Linear,
    /// Splits that ask for sets, few and many.
    Sets,
    ManySets,
    /// All kinds of splits, small and large trees.
    Mixed,
}

impl Shape {
    pub const ALL: [Shape; 17] = [
        Shape::Stumps,
        Shape::LeafWise,
        Shape::ManyThresholds,
        Shape::ManyFeatures,
        Shape::VeryManyFeatures,
        Shape::Chains,
        Shape::Shallow,
        Shape::Full,
        Shape::Oblivious,
        Shape::DeepOblivious,
        Shape::Large,
        Shape::Vectors,
        Shape::Classes,
        Shape::Linear,
        Shape::Sets,
        Shape::ManySets,
        Shape::Mixed,
    ];
}

/// A reproducible source of random choices (splitmix64).
pub struct Source(u64);

/// From what the splits of a tree are drawn.
struct Questions {
    features: usize,
    /// Of each feature.
    thresholds: Vec<Vec<f32>>,
    sets: Vec<Box<[Interval]>>,
    /// Of a hundred splits, how many ask for sets.
    set_percent: u64,
    /// Whether missing values and zeros go to either side.
    has_rules: bool,
}

impl Source {
    pub fn new(seed: u64) -> Source {
        Source(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// From -4 to 4.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 21) as f32 - 4.0
    }

    /// An ensemble, and how many features its rows have.
    pub fn ensemble(&mut self, shape: Shape) -> (Ensemble, usize) {
        let features = match shape {
            Shape::ManyFeatures => self.between(65, 200),
            Shape::VeryManyFeatures => self.between(257, 400),
            _ => self.between(1, 40),
        };
        let thresholds = match shape {
            Shape::ManyThresholds => 2000,
            _ => self.pick(&[1, 5, 16, 17, 100, 254, 255, 256, 300]),
        };
        let set_percent = match shape {
            Shape::Sets | Shape::Mixed => 30,
            Shape::ManySets => 70,
            _ => 0,
        };
        let sets = if shape == Shape::ManySets { 300 } else { 20 };
        let has_rules = self.percent(50) || shape == Shape::Mixed;
        let questions = self.questions(features, thresholds, sets, set_percent, has_rules);
        let trees = match shape {
            Shape::Large => self.between(1, 4),
            Shape::Stumps => self.between(1, 300),
            _ => self.between(1, 70),
        };
        let targets = match shape {
            Shape::Vectors | Shape::Classes => self.between(2, 5),
            _ => 1,
        };
        let trees = (0..trees).map(|index| self.tree(shape, &questions, index, targets)).collect();
        let rounding = self.pick(&[Rounding::F32, Rounding::F64]);
        let factor = self.pick(&[1.0, 0.1]);
        let numbers = |source: &mut Source| (0..targets).map(|_| f64::from(source.number()) / 3.0).collect();
        let (start, offset) = (numbers(self), numbers(self));
        (Ensemble { targets, trees, rounding, start, factor, offset }, features)
    }

    /// Stumps over each feature, by all rules: more columns than a node can name.
    pub fn wide_ensemble(&mut self, features: usize) -> Ensemble {
        let mut trees = Vec::new();
        for feature in 0..features as u32 {
            for missing in [false, true] {
                let test = Test::AtMost { threshold: self.number(), zero: None };
                let split = Split { feature, test, missing, yes: Child::Leaf(0), no: Child::Leaf(1) };
                trees.push(self.with_leaves(Child::Split(0), vec![split], 2, Targets::One(0), 1));
            }
        }
        let (start, offset) = (vec![0.5], vec![0.0]);
        Ensemble { targets: 1, trees, rounding: Rounding::F32, start, factor: 1.0, offset }
    }

    /// Trees that are one leaf each.
    pub fn constant_ensemble(&mut self, trees: usize) -> Ensemble {
        let trees = (0..trees).map(|_| self.with_leaves(Child::Leaf(0), Vec::new(), 1, Targets::One(0), 1)).collect();
        let (start, offset) = (vec![0.5], vec![0.25]);
        Ensemble { targets: 1, trees, rounding: Rounding::F64, start, factor: 0.5, offset }
    }

    fn questions(
        &mut self,
        features: usize,
        thresholds: usize,
        sets: usize,
        set_percent: u64,
        has_rules: bool,
    ) -> Questions {
        let thresholds = (0..features).map(|_| (0..thresholds).map(|_| self.threshold()).collect()).collect();
        let sets = (0..sets).map(|_| self.set()).collect();
        Questions { features, thresholds, sets, set_percent, has_rules }
    }

    fn threshold(&mut self) -> f32 {
        if self.percent(96) {
            return self.number();
        }
        self.pick(&[
            0.0,
            -0.0,
            1e-35,
            -1e-35,
            1e-40,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::from_bits(1),
        ])
    }

    fn set(&mut self) -> Box<[Interval]> {
        let count = self.between(0, 12);
        let intervals = (0..count).map(|_| match self.below(8) {
            0 => {
                let (one, other) = (self.threshold(), self.threshold());
                Interval { first: one.min(other), last: one.max(other) }
            }
            1 => Interval { first: f32::NEG_INFINITY, last: -2.5 },
            2 => Interval { first: 2.5, last: f32::INFINITY },
            _ => Interval::of_category(self.below(6) as u32),
        });
        Interval::union(intervals.collect())
    }

    fn split(&mut self, questions: &Questions) -> Split {
        let feature = self.below(questions.features);
        let test = if self.percent(questions.set_percent) {
            Test::Within(questions.sets[self.below(questions.sets.len())].clone())
        } else {
            let threshold = self.pick(&questions.thresholds[feature]);
            let zero = if questions.has_rules { self.pick(&[None, None, Some(false), Some(true)]) } else { None };
            if zero.is_none() && self.percent(10) { less_than(threshold) } else { Test::AtMost { threshold, zero } }
        };
        let missing = questions.has_rules && self.percent(50);
        // Where it leads to is set later.
        Split { feature: feature as u32, test, missing, yes: Child::Leaf(0), no: Child::Leaf(0) }
    }

    fn tree(&mut self, shape: Shape, questions: &Questions, index: usize, targets: usize) -> Tree {
        let splits = match shape {
            Shape::Stumps => self.below(2),
            Shape::Chains => self.between(0, 150),
            Shape::Large => self.between(256, 1500),
            Shape::Mixed => self.pick(&[0, 1, 5, 30, 62, 254, 255]),
            Shape::Shallow => self.pick(&[0, 40, 50, 62, 62, 63]),
            Shape::LeafWise => self.pick(&[7, 30, 62, 126, 254]),
            _ => self.between(0, 62),
        };
        let (root, splits) = match shape {
            Shape::Full | Shape::Oblivious | Shape::DeepOblivious => {
                let depth_max = if shape == Shape::DeepOblivious { 10 } else { 8 };
                let depth = self.between(if shape == Shape::DeepOblivious { 5 } else { 0 }, depth_max);
                self.full(questions, depth, shape != Shape::Full)
            }
            Shape::Shallow => self.grown(questions, splits, false, 6),
            _ => self.grown(questions, splits, shape == Shape::Chains, usize::MAX),
        };
        let adds_to = match shape {
            Shape::Vectors => Targets::All,
            Shape::Classes => Targets::One((index % targets) as u32),
            _ => Targets::One(0),
        };
        let leaves = splits.len() + 1;
        let mut tree = self.with_leaves(root, splits, leaves, adds_to, targets);
        if shape == Shape::Linear {
            tree.leaves.linear = self.linear(leaves, questions.features);
        }
        tree
    }

    fn with_leaves(&mut self, root: Child, splits: Vec<Split>, count: usize, targets: Targets, width: usize) -> Tree {
        let width = if targets == Targets::All { width } else { 1 };
        let values = (0..count * width).map(|_| f64::from(self.number()) / 7.0).collect();
        Tree { root, splits, leaves: Leaves { count, targets, values, linear: Vec::new() } }
    }

    /// Splits a leaf again and again, down to a level: any, or always one of the last two.
    fn grown(&mut self, questions: &Questions, count: usize, is_chain: bool, levels_max: usize) -> (Child, Vec<Split>) {
        let mut splits: Vec<Split> = Vec::new();
        // Where a leaf hangs: split, and whether on its yes side; and its level.
        let mut open: Vec<(Option<(usize, bool)>, usize)> = vec![(None, 0)];
        let mut root = Child::Leaf(0);
        while splits.len() < count {
            let place = if is_chain { open.len() - 1 - self.below(open.len().min(2)) } else { self.below(open.len()) };
            if open[place].1 == levels_max {
                continue;
            }
            let (place, level) = open.swap_remove(place);
            let index = splits.len();
            splits.push(self.split(questions));
            hang(&mut root, &mut splits, place, Child::Split(index as u32));
            open.extend([(Some((index, true)), level + 1), (Some((index, false)), level + 1)]);
        }
        for leaf in 0..=count {
            let (place, _) = open.swap_remove(self.below(open.len()));
            hang(&mut root, &mut splits, place, Child::Leaf(leaf as u32));
        }
        (root, splits)
    }

    fn full(&mut self, questions: &Questions, depth: usize, is_oblivious: bool) -> (Child, Vec<Split>) {
        let levels: Vec<Split> = (0..depth).map(|_| self.split(questions)).collect();
        let inner = (1 << depth) - 1;
        let child = |node: usize| {
            let leaf = node.checked_sub(inner).map(|leaf| Child::Leaf(leaf as u32));
            leaf.unwrap_or(Child::Split(node as u32))
        };
        let splits = (0..inner).map(|node| {
            let level = (node + 1).ilog2() as usize;
            let split = if is_oblivious { levels[level].clone() } else { self.split(questions) };
            Split { yes: child(2 * node + 1), no: child(2 * node + 2), ..split }
        });
        let splits = splits.collect();
        (child(0), splits)
    }

    fn linear(&mut self, leaves: usize, features: usize) -> Vec<(u32, LinearLeaf)> {
        let mut linear = Vec::new();
        for leaf in 0..leaves as u32 {
            if self.percent(70) {
                let terms =
                    (0..self.below(4)).map(|_| (self.below(features) as u32, f64::from(self.number()))).collect();
                linear.push((leaf, LinearLeaf { constant: f64::from(self.number()), terms }));
            }
        }
        linear
    }

    /// Rows of numbers, many of which lie on thresholds, beside them, or are no numbers.
    pub fn rows(&mut self, ensemble: &Ensemble, features: usize, count: usize) -> Vec<f32> {
        let mut edges: Vec<Vec<f32>> = vec![Vec::new(); features];
        for split in ensemble.trees.iter().flat_map(|tree| &tree.splits) {
            let edges = &mut edges[split.feature as usize];
            match &split.test {
                Test::AtMost { threshold, .. } => edges.push(*threshold),
                Test::Within(intervals) => edges.extend(intervals.iter().flat_map(|range| [range.first, range.last])),
            }
        }
        (0..count * features).map(|place| self.value(&edges[place % features])).collect()
    }

    fn value(&mut self, edges: &[f32]) -> f32 {
        const ODD: [f32; 13] = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            1e-35,
            -1e-35,
            1.1e-35,
            1e-40,
            f32::MAX,
            f32::MIN,
            -0.5,
            3.0,
        ];
        match self.below(10) {
            0 | 1 => self.pick(&ODD),
            2 | 3 if !edges.is_empty() => self.pick(edges),
            4 if !edges.is_empty() => self.pick(edges).next_up(),
            5 if !edges.is_empty() => self.pick(edges).next_down(),
            _ => self.number(),
        }
    }
}

fn hang(root: &mut Child, splits: &mut [Split], place: Option<(usize, bool)>, child: Child) {
    match place {
        None => *root = child,
        Some((split, true)) => splits[split].yes = child,
        Some((split, false)) => splits[split].no = child,
    }
}
