//! Linear models, networks, and what changes shapes: row by row, or not at all.

use super::{File, INFINITY, NAN, assert_near, integers, node};

fn one(operator: super::Node) -> File {
    File::new(2).node(operator).output("Y")
}

/// `alpha × A B + beta × C`, with the matrix either way round and a bias of one number, a list or a row.
#[test]
fn a_product_is_scaled_and_turned() {
    let file = |bias: &[f32], dims: &[i64]| {
        File::new(2).floats("W", &[2, 3], &[1., 2., 3., 4., 5., 6.]).floats("C", dims, bias)
    };
    let gemm = node("Gemm", "X W C", "Y");
    assert_eq!(
        file(&[10.0, 20.0, 30.0], &[3]).node(gemm.clone()).output("Y").scores(&[[1.0, -1.0]]),
        [7.0, 17.0, 27.0]
    );
    let scaled = gemm.clone().float("alpha", 2.0).float("beta", 0.5);
    assert_eq!(file(&[10.0], &[]).node(scaled).output("Y").scores(&[[1.0, -1.0]]), [-1.0, -1.0, -1.0]);
    let turned = File::new(3).floats("W", &[2, 3], &[1., 2., 3., 4., 5., 6.]).floats("C", &[1, 2], &[1.0, 2.0]);
    let turned = turned.node(gemm.clone().integer("transB", 1)).output("Y");
    assert_eq!(turned.scores(&[[1.0, 0.0, -1.0]]), [-1.0, 0.0]);
    let refused =
        |node: super::Node, words: &[&str]| file(&[1.0; 3], &[3]).node(node).output("Y").assert_refused(words);
    refused(gemm.clone().integer("transA", 1), &["node 0 (Gemm)", "transA"]);
    refused(gemm.integer("transB", 1), &["2 columns", "3"]);
    let rows = file(&[1.0; 6], &[2, 3]).node(node("Gemm", "X W C", "Y")).output("Y");
    rows.assert_refused(&["bias of dimensions [2, 3]"]);
}

/// Terms that cancel out are added as BLAS libraries add them: fused, from 0, the bias last.
#[test]
fn large_terms_cancel_as_in_onnxruntime() {
    let model =
        node("ml.LinearRegressor", "X", "Y").floats("coefficients", &[1.0, 1.0]).floats("intercepts", &[16_777_216.0]);
    assert_eq!(one(model).scores(&[[-16_777_216.0, 1.0]]), [1.0]);
    let fused = node("ml.LinearRegressor", "X", "Y").floats("coefficients", &[-1.0, 1.000_000_1]);
    let x = 1.000_000_1_f32;
    assert_eq!(one(fused).scores(&[[x * x, x]]), [x.mul_add(x, -(x * x))]);
}

/// A linear regression of one target applies PROBIT alone, of several every transform.
#[test]
fn linear_regressions() {
    let model =
        node("ml.LinearRegressor", "X", "Y").floats("coefficients", &[1.0, 0.0, 0.0, 1.0]).integer("targets", 2);
    let model = model.floats("intercepts", &[0.0, 1.0]);
    assert_eq!(one(model.clone()).scores(&[[3.0, 4.0]]), [3.0, 5.0]);
    assert_near(
        &one(model.clone().text("post_transform", "SOFTMAX")).scores(&[[0.0, 0.0]]),
        &[0.268_941_42, 0.731_058_58],
    );
    let one_target = node("ml.LinearRegressor", "X", "Y").floats("coefficients", &[1.0, 2.0]);
    assert_eq!(one(one_target.clone().text("post_transform", "LOGISTIC")).scores(&[[3.0, 4.0]]), [11.0]);
    one(one_target.clone().integer("targets", 3)).assert_refused(&["2 coefficients for 2 columns and 3 outputs"]);
    one(one_target.clone().integer("targets", -1)).assert_refused(&["-1 targets"]);
    one(one_target.floats("intercepts", &[1.0, 2.0])).assert_refused(&["2 intercepts for 1 targets"]);
}

/// One row of coefficients for two classes gives `[1 − s, s]`, unless the transform is LOGISTIC.
#[test]
fn linear_classifiers() {
    let model = node("ml.LinearClassifier", "X", "L Y").integers("classlabels_ints", &[5, 7]).integer("multi_class", 1);
    let two = model.clone().floats("coefficients", &[-1.0, 0.0, 1.0, 0.0]).floats("intercepts", &[0.0, 0.5]);
    let file = |node: super::Node| File::new(2).node(node).label("L").output("Y");
    let logistic = file(two.clone().text("post_transform", "LOGISTIC"));
    assert_near(&logistic.scores(&[[0.5, 9.0]]), &[0.731_058_58]);
    assert_eq!((logistic.margins(&[[0.5, 9.0]]), logistic.form().output_names), (vec![1.0], vec!["7".to_owned()]));
    let softmax = file(two.text("post_transform", "SOFTMAX"));
    assert_near(&softmax.scores(&[[0.5, 9.0]]), &[0.817_574_48]);
    let single = model.clone().floats("coefficients", &[1.0, 0.0]).floats("intercepts", &[0.25]);
    for post in ["NONE", "SOFTMAX", "SOFTMAX_ZERO"] {
        assert_eq!(file(single.clone().text("post_transform", post)).scores(&[[0.5, 9.0]]), [0.75]);
    }
    assert_near(&file(single.clone().text("post_transform", "LOGISTIC")).scores(&[[0.5, 9.0]]), &[0.679_178_7]);
    file(single.text("post_transform", "PROBIT")).assert_refused(&["PROBIT"]);
    file(model.clone().floats("coefficients", &[1.0; 6]).floats("intercepts", &[0.0; 3]))
        .assert_refused(&["2 labels and 3"]);
    file(model.floats("coefficients", &[1.0; 4])).assert_refused(&["no intercepts"]);
}

/// Scaling, imputing and normalizing, with one number for all columns or one for each.
#[test]
fn preprocessing() {
    let scaler = |offset: &[f32], scale: &[f32]| {
        one(node("ml.Scaler", "X", "Y").floats("offset", offset).floats("scale", scale))
    };
    assert_eq!(scaler(&[1.0], &[2.0]).scores(&[[3.0, 0.0]]), [4.0, -2.0]);
    assert_eq!(scaler(&[1.0, 2.0], &[2.0, 0.5]).scores(&[[3.0, 0.0]]), [4.0, -1.0]);
    scaler(&[1.0], &[2.0, 0.5]).assert_refused(&["1 offsets and 2 scales"]);
    scaler(&[1.0; 3], &[2.0; 3]).assert_refused(&["3 numbers for 2 columns"]);
    scaler(&[], &[]).assert_refused(&["0 numbers for 2 columns"]);
    let imputer = node("ml.Imputer", "X", "Y").floats("imputed_value_floats", &[7.0]);
    assert_eq!(one(imputer.clone().float("replaced_value_float", NAN)).scores(&[[NAN, 0.0]]), [7.0, 0.0]);
    let zeros = one(imputer.floats("imputed_value_floats", &[7.0, 8.0])).scores(&[[NAN, -0.0]]);
    assert!(zeros[0].is_nan() && zeros[1] == 8.0);
    let norm = |name| one(node("ml.Normalizer", "X", "Y").text("norm", name));
    assert_eq!(norm("L1").scores(&[[3.0, -1.0], [0.0, 0.0]]), [0.75, -0.25, 0.0, 0.0]);
    assert_near(&norm("L2").scores(&[[3.0, -4.0]]), &[0.6, -0.8]);
    assert_eq!(norm("MAX").scores(&[[3.0, -6.0]]), [1.0, -2.0]);
    norm("L3").assert_refused(&["L3"]);
    let normal =
        File::new(2).floats("g", &[2], &[2.0, 1.0]).floats("b", &[2], &[1.0, 0.0]).floats("m", &[2], &[1.0, 0.0]);
    let normal =
        normal.floats("v", &[2], &[3.0, 0.0]).node(node("BatchNormalization", "X g b m v", "Y").float("epsilon", 1.0));
    assert_eq!(normal.output("Y").scores(&[[3.0, 5.0]]), [3.0, 5.0]);
}

/// Activations are those of the definitions, with their default attributes.
#[test]
fn activations() {
    let of = |operator: &str, x: f32| one(node(operator, "X", "Y")).scores(&[[x, 0.0]])[0];
    assert_eq!((of("Relu", -2.0), of("Relu", 2.0), of("Neg", 2.0)), (0.0, 2.0, -2.0));
    assert!(of("Relu", NAN).is_nan());
    assert_near(
        &[of("LeakyRelu", -2.0), of("Elu", -1.0), of("Softplus", 0.0)],
        &[-0.02, -0.632_120_56, std::f64::consts::LN_2],
    );
    assert_near(
        &[of("Sigmoid", 1.0), of("Tanh", 1.0), of("Exp", 1.0)],
        &[0.731_058_58, 0.761_594_16, std::f64::consts::E],
    );
    let old = one(node("Clip", "X", "Y").float("min", -1.0)).opset(9);
    assert_eq!(old.scores(&[[-3.0, INFINITY]]), [-1.0, f32::MAX]);
    let bounds = File::new(2).floats("low", &[], &[-1.0]).floats("high", &[], &[1.0]);
    assert_eq!(bounds.clone().node(node("Clip", "X low high", "Y")).output("Y").scores(&[[-3.0, 3.0]]), [-1.0, 1.0]);
    assert_eq!(bounds.node(node("Clip", "X - high", "Y")).output("Y").scores(&[[-3.0, 3.0]]), [-3.0, 1.0]);
}

/// A softmax over each row is one; over the batch it is refused. Of two columns, the second is served, the margin is before.
#[test]
fn softmax_is_over_a_row() {
    let model = |opset| one(node("Softmax", "X", "Y")).opset(opset);
    for opset in [9, 13] {
        assert_near(&model(opset).scores(&[[0.0, 1.0]]), &[0.731_058_58]);
        assert_eq!(model(opset).margins(&[[5.0, 1.0]]), [1.0]);
    }
    one(node("Softmax", "X", "Y").integer("axis", 0))
        .assert_refused(&["node 0 (Softmax)", "axis 0 of the shape [batch, 2]"]);
    one(node("Softmax", "X", "Y").integer("axis", -7)).assert_refused(&["axis -7"]);
}

/// Constants are broadcast over columns and never over rows.
#[test]
fn constants_meet_rows_column_by_column() {
    let of = |operator: &str, dims: &[i64], numbers: &[f32]| {
        File::new(2).floats("C", dims, numbers).node(node(operator, "X C", "Y")).output("Y")
    };
    assert_eq!(of("Add", &[], &[1.0]).scores(&[[3.0, 4.0]]), [4.0, 5.0]);
    assert_eq!(of("Sub", &[2], &[1.0, 2.0]).scores(&[[3.0, 4.0]]), [2.0, 2.0]);
    assert_eq!(of("Mul", &[1, 2], &[2.0, 3.0]).scores(&[[3.0, 4.0]]), [6.0, 12.0]);
    assert_eq!(of("Div", &[1, 1], &[2.0]).scores(&[[3.0, 4.0]]), [1.5, 2.0]);
    of("Add", &[2, 2], &[0.0; 4]).assert_refused(&["constant of dimensions [2, 2]", "[batch, 2]", "row by row"]);
    of("Add", &[2, 1], &[0.0; 2]).assert_refused(&["[2, 1]"]);
    of("Add", &[3], &[0.0; 3]).assert_refused(&["[2] and [3]"]);
    // A vector product has no second dimension: a list of two would make two rows of it.
    let vector =
        File::new(2).floats("V", &[2], &[1.0, 2.0]).floats("C", &[2], &[5.0, 6.0]).node(node("MatMul", "X V", "P"));
    assert_eq!(vector.clone().output("P").scores(&[[3.0, 4.0]]), [11.0]);
    vector.node(node("Add", "P C", "Y")).output("Y").assert_refused(&["[2]", "[batch]"]);
    let folded = File::new(2).floats("C", &[2], &[1.0, 2.0]).floats("D", &[], &[3.0]).node(node("Mul", "C D", "E"));
    assert_eq!(folded.node(node("Add", "X E", "Y")).output("Y").scores(&[[1.0, 1.0]]), [4.0, 7.0]);
}

/// Rows meet rows of the same shape, or of one column.
#[test]
fn rows_meet_rows() {
    let file = File::new(2).integers("one", &[], &[1]).integers("ones", &[1], &[1]);
    let column = file
        .node(node("Gather", "X ones", "c").integer("axis", 1))
        .node(node("Gather", "X one", "v").integer("axis", 1));
    let product = column.clone().node(node("Mul", "X c", "Y")).output("Y");
    assert_eq!(product.scores(&[[3.0, 4.0]]), [12.0, 16.0]);
    let mixed = column.node(node("Mul", "X v", "Y")).output("Y");
    mixed.assert_refused(&["node 2 (Mul)", "[batch, 2] and [batch]"]);
}

/// Columns are chosen, put together and reduced.
#[test]
fn columns_are_chosen() {
    let file =
        || File::new(3).integers("i", &[2], &[2, -3]).integers("ax", &[1], &[1]).integers("far", &[1], &[i64::MAX]);
    let scores = |file: File| file.output("Y").scores(&[[1.0, 2.0, 4.0]]);
    let gather = |indices: &str| node("Gather", indices, "Y").integer("axis", 1);
    assert_eq!(scores(file().node(gather("X i"))), [4.0, 1.0]);
    assert_eq!(scores(file().node(node("ml.ArrayFeatureExtractor", "X i", "Y"))), [4.0, 1.0]);
    assert_eq!(scores(file().node(node("Slice", "X ax far ax", "Y"))), [2.0, 4.0]);
    let old = node("Slice", "X", "Y").integers("starts", &[-2]).integers("ends", &[3]).integers("axes", &[1]);
    assert_eq!(scores(file().opset(9).node(old)), [2.0, 4.0]);
    let concat = node("Concat", "A X", "Y").integer("axis", -1);
    assert_eq!(scores(file().node(node("Neg", "X", "A")).node(concat)), [-1.0, -2.0, -4.0, 1.0, 2.0, 4.0]);
    assert_eq!(scores(file().node(node("ReduceSum", "X ax", "Y"))), [7.0]);
    let mean = node("ReduceMean", "X", "Y").integers("axes", &[1]).integer("keepdims", 0);
    assert_near(&scores(file().node(mean)), &[7.0 / 3.0]);
    let split = node("Split", "X", "A Y").integer("axis", 1).integers("split", &[1, 2]);
    assert_eq!(scores(file().opset(11).node(split)), [2.0, 4.0]);
    let refused = |file: File, words: &[&str]| file.output("Y").assert_refused(words);
    refused(file().node(node("Gather", "X i", "Y")), &["axis 0 of [batch, 3], which is the batch"]);
    refused(file().integers("j", &[1], &[3]).node(gather("X j")), &["index 3 of 3"]);
    refused(file().node(node("Slice", "X ax far", "Y")), &["slice of the batch"]);
    refused(file().integers("zero", &[1], &[0]).node(node("ReduceSum", "X zero", "Y")), &["axis 0"]);
    refused(file().node(node("Concat", "X X", "Y").integer("axis", 0)), &["axis 0"]);
}

/// A reshape may name the batch or leave it open, and may not cut rows.
#[test]
fn reshapes_keep_rows_whole() {
    let file = |shape: &[i64]| {
        let count = i64::try_from(shape.len()).expect("few");
        File::new(6).no_input().input("X", super::element::FLOAT, &[None, Some(2), Some(3)]).integers(
            "s",
            &[count],
            shape,
        )
    };
    let row = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]];
    for shape in [&[-1, 6][..], &[0, -1], &[0, 6]] {
        assert_eq!(file(shape).node(node("Reshape", "X s", "Y")).output("Y").scores(&row), row[0]);
    }
    for shape in [&[-1, 3][..], &[1, 6], &[6, -1], &[2, 3], &[-1, -1], &[0, 0], &[-1, 7], &[-2, 6], &[0, 9, 0]] {
        file(shape).node(node("Reshape", "X s", "Y")).output("Y").assert_refused(&["node 0 (Reshape)"]);
    }
    assert_eq!(file(&[]).node(node("Flatten", "X", "Y")).output("Y").scores(&row), row[0]);
    file(&[]).node(node("Flatten", "X", "Y").integer("axis", 2)).output("Y").assert_refused(&["axis 2"]);
    file(&[]).node(node("Transpose", "X", "Y")).output("Y").assert_refused(&["output \"Y\" of shape [3, 2, batch]"]);
    let turned =
        file(&[-1, 6]).node(node("Transpose", "X", "T").integers("perm", &[0, 2, 1])).node(node("Reshape", "T s", "Y"));
    assert_eq!(turned.output("Y").scores(&row), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    // The shape that PyTorch computes for view(x.size(0), -1).
    let viewed = file(&[-1]).integers("zero", &[], &[0]).integers("axes", &[1], &[0]).node(node("Shape", "X", "a"));
    let viewed = viewed.node(node("Gather", "a zero", "b")).node(node("Unsqueeze", "b axes", "c"));
    let viewed =
        viewed.node(node("Concat", "c s", "d").integer("axis", 0)).node(node("Reshape", "X d", "Y")).output("Y");
    assert_eq!(viewed.scores(&row), row[0]);
    // One row at a time.
    let alone = file(&[1, 6]).no_input().input("X", super::element::FLOAT, &[Some(1), Some(2), Some(3)]);
    assert_eq!(alone.node(node("Reshape", "X s", "Y")).output("Y").scores(&row), row[0]);
}

/// Estimators whose answers are stacked, averaged and put side by side.
#[test]
fn estimators_are_stacked() {
    let file = File::new(2).integers("s", &[3], &[1, -1, 2]).integers("axis", &[1], &[0]).node(node("Neg", "X", "A"));
    let file = file.node(node("Exp", "A", "B")).node(node("Reshape", "X s", "x")).node(node("Reshape", "B s", "b"));
    let file = file.node(node("Concat", "x b x", "all").integer("axis", 0));
    let file = file.node(node("ReduceMean", "all axis", "Y").integer("keepdims", 0)).output("Y");
    let found = file.scores(&[[0.0, 3.0], [NAN, 0.0]]);
    assert_near(&found[..2], &[1.0 / 3.0, (6.0 + (-3.0_f64).exp()) / 3.0]);
    assert!(found[2].is_nan());
    assert_near(&found[3..], &[1.0 / 3.0]);
}

/// Bools are of comparisons with one number.
#[test]
fn comparisons_are_zero_or_one() {
    let file = || File::new(2).floats("C", &[], &[1.0]);
    let of = |operator: &str| {
        let file = file().node(node(operator, "X C", "b")).node(node("Cast", "b", "Y").integer("to", 1)).output("Y");
        file.scores(&[[0.5, 1.0], [1.5, NAN]])
    };
    assert_eq!(of("Less"), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(of("LessOrEqual"), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(of("Greater"), [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(of("GreaterOrEqual"), [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(of("Equal"), [0.0, 1.0, 0.0, 0.0]);
    let not = file().node(node("Cast", "X", "b").integer("to", 9)).node(node("Not", "b", "c"));
    let not = not.node(node("Cast", "c", "Y").integer("to", 1)).output("Y");
    assert_eq!(not.scores(&[[0.0, -0.0], [NAN, 3.0]]), [1.0, 1.0, 0.0, 0.0]);
}

/// Casts that round are refused, and so is arithmetic in double; parts of a row and trees may be double.
#[test]
fn casts_do_not_round() {
    let cast = |to| one(node("Cast", "X", "Y").integer("to", to));
    assert_eq!(cast(1).scores(&[[0.5, 1.0]]), [0.5, 1.0]);
    assert_eq!(cast(11).scores(&[[0.5, 1.0]]), [0.5, 1.0]);
    cast(7).assert_refused(&["cast of floats to int64"]);
    cast(10).assert_refused(&["cast to float16"]);
    cast(8).assert_refused(&["cast to string"]);
    let double = |operator: &str| {
        let file = File::new(2).no_input().input("X", super::element::DOUBLE, &[None, Some(2)]);
        file.node(node(operator, "X", "Y")).output("Y")
    };
    double("Relu").assert_refused(&["node 0 (Relu)", "arithmetic in double", "FloatTensorType"]);
    assert_eq!(double("Identity").scores(&[[0.5, 1.0]]), [0.5, 1.0]);
    let constant = node("Constant", "", "i").tensor("value", &integers(&[1], &[1]));
    let index =
        File::new(2).node(constant).node(node("ArgMax", "X", "a").integer("axis", 1)).node(node("Add", "a i", "Y"));
    index.output("Y").assert_refused(&["arithmetic in integers"]);
}
