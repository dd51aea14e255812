//! Nanoseconds a row that each engine takes, on each path that this CPU has, by the number of rows that come together.
//!
//! ```sh
//! cargo bench -p disrust-model --bench trees [-- FILE...]
//! ```
//!
//! Without files: random ensembles of the shapes that users have. No row comes twice within a run, so that no CPU learns the
//! ways by heart; a figure is the median of the runs, and the smallest one. Paths take turns, so that what else the machine
//! does meets all of them.
#![forbid(unsafe_code)]

use std::time::Instant;

use disrust_model::engine::{Compiled, Simd};
use disrust_model::form::{Child, Ensemble, Form, Leaves, Rounding, Split, Step, Targets, Test, Tree};
use disrust_model::{Model, RowSource, Rows};

/// Rows that come together.
const COUNTS: [usize; 7] = [1, 4, 8, 16, 64, 512, 4096];

/// Rows in all: as many as no CPU remembers.
const ROWS: usize = 16384;

/// Rows of a run, if so many come together: short enough not to be interrupted often.
const RUN_ROWS: usize = 1024;

/// All rows come this often.
const ROUNDS: usize = 3;

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if files.is_empty() {
        let mut random = Random(1);
        measure("100 trees of 63 leaves", &random.forest(100, 63, 16, 254, 1));
        measure("100 trees of 63 leaves, 40 features, NaN", &random.forest(100, 63, 40, 254, 2));
        measure("500 trees of 127 leaves", &random.forest(500, 127, 16, 254, 1));
        measure("100 oblivious trees of 6 levels", &random.oblivious(100, 6));
        measure("200 trees of 2000 leaves", &random.forest(200, 2000, 16, 5000, 1));
    }
    for file in files {
        let bytes = std::fs::read(&file).expect("a model file");
        measure(&file, &disrust_model::read::read(&bytes, None).expect("a model"));
    }
}

fn measure(what: &str, form: &Form) {
    println!("\n{what}");
    let features = form.feature_dim;
    let mut models = Vec::new();
    for simd in Simd::available() {
        let start = Instant::now();
        let model = Compiled::with_simd(form.clone(), "bench", simd);
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        println!("  {:8} {}, {} bytes, compiled in {compile_ms:.1} ms", simd.name(), model.engine(), model.bytes());
        models.push((simd, model));
    }
    let mut random = Random(2);
    let has_missing = what.contains("NaN");
    let rows: Vec<u8> = (0..ROWS * features).flat_map(|_| random.feature(has_missing).to_le_bytes()).collect();
    for count in COUNTS {
        let run_bytes = count.max(RUN_ROWS) * features * 4;
        let mut spans_ns = vec![Vec::new(); models.len()];
        for run in rows.chunks_exact(run_bytes).cycle().take(ROUNDS * rows.len() / run_bytes) {
            for ((_, model), spans_ns) in models.iter_mut().zip(&mut spans_ns) {
                spans_ns.push(run_ns(model, run, count));
            }
        }
        for ((simd, _), spans_ns) in models.iter().zip(&mut spans_ns) {
            spans_ns.sort_by(f64::total_cmp);
            let median = spans_ns[spans_ns.len() / 2];
            println!("  {:8} {count:5} rows: {median:8.1} ns a row, min {:8.1}", simd.name(), spans_ns[0]);
        }
    }
}

/// Scores all rows, some at a time; what one of them took.
fn run_ns(model: &mut Compiled, rows: &[u8], count: usize) -> f64 {
    let row_bytes = model.feature_dim() * 4;
    let mut scores = vec![0.0; count * model.outputs()];
    let start = Instant::now();
    for part in rows.chunks_exact(count * row_bytes) {
        let part = Part(part);
        let rows = Rows::new(&part, count, model.feature_dim());
        model.predict(&rows, &mut scores).expect("trees score any row");
        std::hint::black_box(&scores);
    }
    start.elapsed().as_secs_f64() * 1e9 / (rows.len() / row_bytes) as f64
}

struct Part<'a>(&'a [u8]);

impl RowSource for Part<'_> {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[self.0]);
    }
}

/// A reproducible source of random choices (splitmix64).
struct Random(u64);

impl Random {
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

    /// From -1 to 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn feature(&mut self, may_miss: bool) -> f32 {
        if may_miss && self.below(10) == 0 { f32::NAN } else { self.number() }
    }

    /// Trees that were grown leaf by leaf, the one with the most rows next; missing values go to one of `sides` sides.
    fn forest(&mut self, trees: usize, leaves: usize, features: usize, thresholds: usize, sides: usize) -> Form {
        let trees = (0..trees).map(|_| self.leaf_wise(leaves, features, thresholds, sides)).collect();
        form(features, trees)
    }

    fn leaf_wise(&mut self, leaves: usize, features: usize, thresholds: usize, sides: usize) -> Tree {
        // A leaf: the share of rows that it gets, where it hangs, and its bounds.
        let mut open = vec![(1.0_f64, None, vec![(0, thresholds); features])];
        let mut splits: Vec<Split> = Vec::new();
        while open.len() < leaves {
            let gain = |share: f64, random: &mut Random| share * (0.2 + random.below(1000) as f64 / 1000.0);
            let gains: Vec<f64> = open.iter().map(|leaf| gain(leaf.0, self)).collect();
            let best = (0..open.len()).max_by(|one, other| gains[*one].total_cmp(&gains[*other])).expect("a leaf");
            let (share, place, bounds) = open.swap_remove(best);
            let feature = self.below(features);
            let (first, end) = bounds[feature];
            let at = first + self.below((end - first).max(1));
            let part = (at + 1 - first) as f64 / (end - first + 1) as f64;
            let threshold = (at as f32 + 0.5) * 2.0 / thresholds as f32 - 1.0;
            let test = Test::AtMost { threshold, zero: None };
            let missing = self.below(sides) == 1;
            let index = splits.len();
            let split = Split { feature: feature as u32, test, missing, yes: Child::Leaf(0), no: Child::Leaf(0) };
            splits.push(split);
            hang(&mut splits, place, Child::Split(index as u32));
            let (mut yes, mut no) = (bounds.clone(), bounds);
            yes[feature] = (first, at.max(first + 1));
            no[feature] = ((at + 1).min(end.max(1) - 1), end);
            open.push((share * part, Some((index, true)), yes));
            open.push((share * (1.0 - part), Some((index, false)), no));
        }
        for (leaf, (_, place, _)) in open.into_iter().enumerate() {
            hang(&mut splits, place, Child::Leaf(leaf as u32));
        }
        self.with_leaves(splits)
    }

    fn oblivious(&mut self, trees: usize, levels: usize) -> Form {
        let trees = (0..trees).map(|_| self.level_wise(levels)).collect();
        form(16, trees)
    }

    fn level_wise(&mut self, levels: usize) -> Tree {
        let thresholds: Vec<(usize, f32)> =
            (0..levels).map(|_| (self.below(16), self.below(254) as f32 / 127.0 - 1.0)).collect();
        let inner = (1 << levels) - 1;
        let child =
            |node: usize| if node < inner { Child::Split(node as u32) } else { Child::Leaf((node - inner) as u32) };
        let split = |node: usize| {
            let (feature, threshold) = thresholds[(node + 1).ilog2() as usize];
            let test = Test::AtMost { threshold, zero: None };
            Split { feature: feature as u32, test, missing: false, yes: child(2 * node + 1), no: child(2 * node + 2) }
        };
        self.with_leaves((0..inner).map(split).collect())
    }

    fn with_leaves(&mut self, splits: Vec<Split>) -> Tree {
        let count = splits.len() + 1;
        let values = (0..count).map(|_| f64::from(self.number())).collect();
        let leaves = Leaves { count, targets: Targets::One(0), values, linear: Vec::new() };
        Tree { root: Child::Split(0), splits, leaves }
    }
}

fn hang(splits: &mut [Split], place: Option<(usize, bool)>, child: Child) {
    match place {
        None => {}
        Some((split, true)) => splits[split].yes = child,
        Some((split, false)) => splits[split].no = child,
    }
}

fn form(features: usize, trees: Vec<Tree>) -> Form {
    let (start, offset, factor) = (vec![0.0], vec![0.0], 1.0);
    let ensemble = Ensemble { targets: 1, trees, rounding: Rounding::F64, start, factor, offset };
    let form = Form {
        kind: "bench".to_owned(),
        feature_dim: features,
        feature_names: Vec::new(),
        steps: vec![Step::Trees { input: 0, ensemble }],
        margin: 1,
        score: 1,
        output_names: vec!["0".to_owned()],
    };
    form.check().expect("a valid form");
    form
}
