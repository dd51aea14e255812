//! Model files, made by hand.

/// A model of two features.
pub struct Model {
    trees: Vec<String>,
    classes: usize,
    objective: Option<String>,
    average: bool,
}

impl Model {
    /// Of trees, each without its first line.
    pub fn new(trees: &[&str]) -> Model {
        Model::of(&trees.iter().map(|tree| (*tree).to_owned()).collect::<Vec<_>>())
    }

    pub fn of(trees: &[String]) -> Model {
        Model { trees: trees.to_vec(), classes: 1, objective: None, average: false }
    }

    pub fn classes(self, classes: usize) -> Model {
        Model { classes, ..self }
    }

    pub fn objective(self, objective: &str) -> Model {
        Model { objective: Some(objective.to_owned()), ..self }
    }

    pub fn average(self) -> Model {
        Model { average: true, ..self }
    }

    /// As LightGBM writes it.
    pub fn text(&self) -> String {
        let trees: Vec<String> =
            self.trees.iter().enumerate().map(|(index, tree)| format!("Tree={index}\n{tree}\n\n\n")).collect();
        let sizes: Vec<String> = trees.iter().map(|tree| tree.len().to_string()).collect();
        let objective =
            self.objective.as_ref().map_or_else(String::new, |objective| format!("objective={objective}\n"));
        format!(
            "tree\nversion=v4\nnum_class={classes}\nnum_tree_per_iteration={classes}\nlabel_index=0\nmax_feature_idx=1\n\
             {objective}{average}feature_names=Column_0 Column_1\nfeature_infos=none [-1:1]\ntree_sizes={sizes}\n\n{trees}\
             end of trees\n\nfeature_importances:\nColumn_0=1\n",
            classes = self.classes,
            average = if self.average { "average_output\n" } else { "" },
            sizes = sizes.join(" "),
            trees = trees.concat(),
        )
    }
}

/// A tree of one split of the first feature: 1 on the left, 2 on the right.
pub fn stump(threshold: f64, decision_type: i32) -> Model {
    Model::new(&[&format!(
        "num_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold={threshold}\ndecision_type={decision_type}\n\
         left_child=-1\nright_child=-2\nleaf_value=1 2\nleaf_weight=1 1\nleaf_count=1 1\ninternal_value=0\n\
         internal_weight=0\ninternal_count=2\nis_linear=0\nshrinkage=1"
    )])
}

/// A tree that is nothing but a leaf.
pub fn leaf(value: f64) -> String {
    format!("num_leaves=1\nnum_cat=0\nleaf_value={value}\nshrinkage=1")
}
