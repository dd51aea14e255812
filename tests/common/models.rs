//! Model files, small enough to be written by hand, and a place for them.

use std::fs;
use std::path::{Path, PathBuf};

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
    let trees: Vec<String> = trees.iter().enumerate().map(tree).collect();
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

/// A model that answers every row with this number.
pub fn constant(number: u32) -> String {
    lightgbm("regression", &["a", "b"], 1, &[(0, 0.0, f64::from(number), f64::from(number))])
}

/// What is there of a model while it is written: all that comes before its first tree's leaves.
pub fn cut(model: &str) -> &str {
    model.split_once("leaf_value=").expect("a tree has leaves").0
}
