//! What stands before the trees.
#![forbid(unsafe_code)]

use super::fields::{Fields, Lines, shortened, tokens, unsupported};
use super::objective::Objective;
use crate::form::limits::{COLUMNS_MAX, FEATURES_MAX};
use crate::read::ReadError;

/// All keys that LightGBM 2.0.12 to 4.x writes there.
const KEYS: &[&str] = &[
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "average_output",
    "feature_names",
    "monotone_constraints",
    "feature_infos",
    "tree_sizes",
];

/// Versions of the format whose meaning is known.
const VERSIONS: [&str; 3] = ["v2", "v3", "v4"];

pub(super) struct Header {
    /// 1 to [`FEATURES_MAX`].
    pub feature_dim: usize,
    /// As many.
    pub feature_names: Vec<String>,
    /// Sums that trees add to in turn: 1 to [`COLUMNS_MAX`].
    pub trees_per_iteration: usize,
    pub objective: Objective,
    /// Whether sums are divided by the number of iterations (random forests).
    pub average: bool,
    /// How many trees follow, if the file says so.
    pub trees: Option<usize>,
}

impl Header {
    pub fn read(lines: &mut Lines<'_>) -> Result<Header, ReadError> {
        let fields = Fields::read(lines, "the header".to_owned(), KEYS)?;
        check_version(&fields)?;
        let feature_dim = feature_dim(&fields)?;
        let trees_per_iteration = trees_per_iteration(&fields)?;
        let objective = match fields.optional("objective")? {
            Some(line) => Objective::read(&fields, line, trees_per_iteration)?,
            None => Objective::none(),
        };
        // They have no part in predictions, but a file in which they disagree is damaged.
        listed(&fields, "feature_infos", feature_dim)?;
        Ok(Header {
            feature_dim,
            feature_names: listed(&fields, "feature_names", feature_dim)?,
            trees_per_iteration,
            objective,
            average: fields.optional("average_output")?.is_some(),
            trees: fields.optional("tree_sizes")?.map(|sizes| tokens(sizes).count()),
        })
    }
}

/// Before 2.0.12, which began to write versions, all within 1e-20 was a zero, not within 1e-35.
fn check_version(fields: &Fields<'_>) -> Result<(), ReadError> {
    let version = fields.optional("version")?;
    if version.is_some_and(|version| VERSIONS.contains(&version)) {
        return Ok(());
    }
    let what = version.map_or("no version".to_owned(), |version| format!("version={}", shortened(version)));
    Err(unsupported(what, "v2, v3 and v4 are, which LightGBM 2.0.12 to 4.x save"))
}

fn feature_dim(fields: &Fields<'_>) -> Result<usize, ReadError> {
    let index: usize = fields.number("max_feature_idx")?;
    if index >= FEATURES_MAX {
        let instead = format!("train on at most {FEATURES_MAX} features");
        return Err(unsupported(format!("max_feature_idx={index}"), instead));
    }
    Ok(index + 1)
}

fn trees_per_iteration(fields: &Fields<'_>) -> Result<usize, ReadError> {
    let key = if fields.optional("num_tree_per_iteration")?.is_some() { "num_tree_per_iteration" } else { "num_class" };
    let trees: usize = fields.number(key)?;
    if trees == 0 {
        return Err(fields.malformed(key, "it is 0"));
    }
    if trees > COLUMNS_MAX {
        return Err(unsupported(format!("{key}={trees}"), format!("at most {COLUMNS_MAX} classes are")));
    }
    if fields.number::<usize>("num_class")? != trees {
        return Err(fields.malformed("num_class", format!("it is not num_tree_per_iteration={trees}")));
    }
    Ok(trees)
}

/// A list that has one entry for each feature; none contains a space.
fn listed(fields: &Fields<'_>, key: &str, feature_dim: usize) -> Result<Vec<String>, ReadError> {
    let text = fields.required(key)?;
    let count = tokens(text).count();
    if count != feature_dim {
        return Err(fields.malformed(key, format!("it has {count} entries for {feature_dim} features")));
    }
    Ok(tokens(text).map(str::to_owned).collect())
}
