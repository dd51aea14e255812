//! Every engine, on every path that this CPU has and with any number of rows, gives the bits that the form's own words give:
//! [`oracle`] walks the trees as the form's documentation says, and shares no code with the engines.
#![forbid(unsafe_code)]

mod ensembles;
mod oracle;

use disrust_model::engine::{Compiled, Simd};
use disrust_model::form::{Ensemble, Form, Step};
use disrust_model::{Model, RowSource, Rows};
use proptest::prelude::*;

use ensembles::{Shape, Source};

/// Numbers of rows at which engines change hands, and their neighbours.
const COUNTS: [usize; 20] = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 129, 200];

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn all_paths_give_the_same_bits(seed in any::<u64>(), shape in prop::sample::select(Shape::ALL.to_vec())) {
        compare(shape, seed, &COUNTS);
    }
}

/// As `PROPTEST_CASES` says, which the configuration above would else override.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

/// Each shape, with every number of rows.
#[test]
fn any_number_of_rows_gives_the_same_bits() {
    let counts: Vec<usize> = (1..=200).collect();
    for (seed, shape) in Shape::ALL.into_iter().enumerate() {
        compare(shape, seed as u64, &counts);
    }
}

/// More columns than any engine but the plain walk can tell apart.
#[test]
fn a_row_too_wide_for_the_engines_is_scored_all_the_same() {
    let mut source = Source::new(7);
    let ensemble = source.wide_ensemble(4000);
    assert_eq!(Compiled::new(form(&ensemble, 4000), "test").engine(), "walk");
    compare_ensemble(&ensemble, 4000, &mut source, &[1, 70]);
}

/// A model that has learnt nothing.
#[test]
fn trees_without_splits_are_scored() {
    let mut source = Source::new(3);
    for trees in [0, 1, 2, 40] {
        let ensemble = source.constant_ensemble(trees);
        compare_ensemble(&ensemble, 2, &mut source, &[1, 7, 16, 64, 70]);
    }
}

fn compare(shape: Shape, seed: u64, counts: &[usize]) {
    let mut source = Source::new(seed);
    let (ensemble, features) = source.ensemble(shape);
    compare_ensemble(&ensemble, features, &mut source, counts);
}

fn compare_ensemble(ensemble: &Ensemble, features: usize, source: &mut Source, counts: &[usize]) {
    let rows_max = counts.iter().copied().max().unwrap_or(0);
    let rows = source.rows(ensemble, features, rows_max);
    let expected: Vec<u32> = oracle::scores(ensemble, features, &rows).into_iter().map(bits).collect();
    for simd in Simd::available() {
        let mut model = Compiled::with_simd(form(ensemble, features), "test", simd);
        for count in counts {
            let scores = predict(&mut model, &rows[..count * features], *count);
            let expected = &expected[..scores.len()];
            let differs = scores.iter().zip(expected).position(|(score, expected)| bits(*score) != *expected);
            if let Some(place) = differs {
                let (row, target) = (place / ensemble.targets, place % ensemble.targets);
                let (score, expected) = (scores[place], f32::from_bits(expected[place]));
                let engine = model.engine();
                panic!("{engine}: row {row} of {count}, target {target}: {score} is not {expected}");
            }
        }
    }
}

fn predict(model: &mut Compiled, rows: &[f32], count: usize) -> Vec<f32> {
    let bytes = Bytes(rows.iter().flat_map(|feature| feature.to_le_bytes()).collect());
    let mut scores = vec![f32::NAN; count * model.outputs()];
    let rows = Rows::new(&bytes, count, model.feature_dim());
    model.predict(&rows, &mut scores).expect("trees score any row");
    scores
}

struct Bytes(Vec<u8>);

impl RowSource for Bytes {
    fn visit(&self, visitor: &mut dyn FnMut(&[&[u8]])) {
        visitor(&[&self.0]);
    }
}

/// All NaN are alike: which of two NaN an addition keeps is not said.
fn bits(score: f32) -> u32 {
    if score.is_nan() { f32::NAN.to_bits() } else { score.to_bits() }
}

fn form(ensemble: &Ensemble, features: usize) -> Form {
    let form = Form {
        kind: "test".to_owned(),
        feature_dim: features,
        feature_names: Vec::new(),
        steps: vec![Step::Trees { input: 0, ensemble: ensemble.clone() }],
        margin: 1,
        score: 1,
        output_names: (0..ensemble.targets).map(|target| target.to_string()).collect(),
    };
    form.check().expect("a valid form");
    form
}
