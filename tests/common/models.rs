//! Model files, small enough to be written by hand, and a place for them.

use std::fs;
use std::path::{Path, PathBuf};

use disrust_model::engine::Compiled;
use disrust_model::form::Choice;
use disrust_model::read::read;
use disrust_model::{F32_BYTES, Model, Rows};

/// A file of one test, in the folder that cargo has for that; it goes when it is dropped.
pub struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub fn new(name: &str, content: impl AsRef<[u8]>) -> TemporaryFile {
        let file = TemporaryFile::named(name);
        fs::write(&file.0, content).expect("cargo's folder for tests can be written");
        file
    }

    /// A name for whatever will be there.
    pub fn named(name: &str) -> TemporaryFile {
        TemporaryFile::at(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id())))
    }

    /// At any place.
    pub fn at(path: PathBuf) -> TemporaryFile {
        TemporaryFile(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// Puts another content into its place at once, as the documents tell people to.
    pub fn replace(&self, content: impl AsRef<[u8]>) {
        let beside = self.0.with_extension("tmp");
        fs::write(&beside, content).expect("cargo's folder for tests can be written");
        fs::rename(&beside, &self.0).expect("both are in one folder");
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // Left behind, it harms nobody.
        let _gone_before = fs::remove_file(Path::new(&self.0));
    }
}

/// A tree of one split: which feature, the threshold, the value of rows that are at most that, and of the others; NaN is one
/// of the others.
pub type Stump = (usize, f64, f64, f64);

/// A LightGBM model of such trees. Of several classes, the trees belong to them in turn.
pub fn lightgbm(objective: &str, names: &[&str], classes: usize, trees: &[Stump]) -> String {
    const RIGHT_IF_MISSING: u32 = 8;
    let tree = |(index, (feature, threshold, at_most, above)): (usize, &Stump)| {
        format!(
            "Tree={index}\nnum_leaves=2\nnum_cat=0\nsplit_feature={feature}\nsplit_gain=1\nthreshold={threshold}\n\
             decision_type={RIGHT_IF_MISSING}\nleft_child=-1\nright_child=-2\nleaf_value={at_most} {above}\n\
             leaf_weight=1 1\nleaf_count=1 1\ninternal_value=0\ninternal_weight=2\ninternal_count=2\nis_linear=0\n\
             shrinkage=1\n\n\n"
        )
    };
    lightgbm_of(objective, names, classes, &trees.iter().enumerate().map(tree).collect::<Vec<_>>())
}

/// A LightGBM model of trees that are written out.
fn lightgbm_of(objective: &str, names: &[&str], classes: usize, trees: &[String]) -> String {
    let sizes: Vec<String> = trees.iter().map(|tree| tree.len().to_string()).collect();
    let infos = vec!["[-10:10]"; names.len()].join(" ");
    format!(
        "tree\nversion=v4\nnum_class={classes}\nnum_tree_per_iteration={classes}\nlabel_index=0\nmax_feature_idx={}\n\
         objective={objective}\nfeature_names={}\nfeature_infos={infos}\ntree_sizes={}\n\n{}end of trees\n",
        names.len() - 1,
        names.join(" "),
        sizes.join(" "),
        trees.concat()
    )
}

/// Of two features: 1 or 2 by the first, and 10 or 20 by the second.
pub fn regression() -> String {
    lightgbm("regression", &["age", "income"], 1, &[(0, 0.5, 1.0, 2.0), (1, -0.5, 10.0, 20.0), (0, 3.0, 0.0, 100.0)])
}

/// Of three classes, each of which has a tree.
pub fn three_classes() -> String {
    lightgbm(
        "multiclass num_class:3",
        &["age", "income"],
        3,
        &[(0, 0.5, 1.0, -1.0), (1, 0.5, 0.5, 0.0), (0, -0.5, -1.0, 1.0)],
    )
}

/// A LightGBM model of trees of 16 leaves, drawn by the seed, whose thresholds are among the features of
/// [`super::Request::random`]. Models of two seeds score hardly any row alike.
pub fn grown(features: usize, seed: u64) -> String {
    const SPLITS: usize = 15;
    let mut rng = fastrand::Rng::with_seed(seed);
    let names: Vec<String> = (0..features).map(|feature| format!("f{feature}")).collect();
    let trees: Vec<String> = (0..20)
        .map(|tree| {
            let mut each = |draw: &mut dyn FnMut(&mut fastrand::Rng) -> String, count| {
                (0..count).map(|_| draw(&mut rng)).collect::<Vec<_>>().join(" ")
            };
            let split_features = each(&mut |rng| rng.usize(..features).to_string(), SPLITS);
            let thresholds = each(&mut |rng| f64::from(super::request::random_feature(rng)).to_string(), SPLITS);
            // What is missing is NaN, and goes to the right or to the left.
            let decisions = each(&mut |rng| [8, 10][rng.usize(..2)].to_string(), SPLITS);
            let leaves = each(&mut |rng| (rng.f64() - 0.5).to_string(), SPLITS + 1);
            let (zeros, ones) = (["0"; SPLITS].join(" "), ["1"; SPLITS + 1].join(" "));
            // A whole tree, level by level; the children of the last level are leaves.
            let child = |node: usize| if node < SPLITS { node as i64 } else { -1 - (node - SPLITS) as i64 };
            let children = |side: usize| {
                (0..SPLITS).map(|split| child(2 * split + side).to_string()).collect::<Vec<_>>().join(" ")
            };
            format!(
                "Tree={tree}\nnum_leaves={}\nnum_cat=0\nsplit_feature={split_features}\nsplit_gain={zeros}\n\
                 threshold={thresholds}\ndecision_type={decisions}\nleft_child={}\nright_child={}\n\
                 leaf_value={leaves}\nleaf_weight={ones}\nleaf_count={ones}\ninternal_value={zeros}\n\
                 internal_weight={zeros}\ninternal_count={zeros}\nis_linear=0\nshrinkage=1\n\n\n",
                SPLITS + 1,
                children(1),
                children(2),
            )
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lightgbm_of("regression", &names, 1, &trees)
}

/// The same model in a file of other bytes, and so of another version.
pub fn renamed(model: &str, number: usize) -> String {
    format!("{model}\nparameters:\n[seed: {number}]\nend of parameters\n")
}

/// What a file of this content serves, in this process.
pub fn compiled(model: &str) -> Compiled {
    let mut form = read(model.as_bytes(), None).expect("a model");
    form.choose(&Choice::default()).expect("of one output");
    Compiled::new(form, "in this process")
}

/// What a model says of rows; bit by bit what a server of it must say.
pub fn scores(model: &mut dyn Model, rows: &[f32]) -> Vec<f32> {
    let bytes: Vec<u8> = rows.iter().flat_map(|feature| feature.to_le_bytes()).collect();
    let count = bytes.len() / F32_BYTES / model.feature_dim();
    let mut scores = vec![0.0; count * model.outputs()];
    model.predict(&Rows::new(&&bytes[..], count, model.feature_dim()), &mut scores).expect("these rows can be scored");
    scores
}

/// A model that answers every row with this number.
pub fn constant(number: u32) -> String {
    lightgbm("regression", &["a", "b"], 1, &[(0, 0.0, f64::from(number), f64::from(number))])
}

/// What is there of a model while it is written: all that comes before its first tree's leaves.
pub fn cut(model: &str) -> &str {
    model.split_once("leaf_value=").expect("a tree has leaves").0
}
