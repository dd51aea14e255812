#!/usr/bin/env python3
"""Makes the small ONNX models of model/tests/data/onnx.

    pip install catboost==1.2.10 lightgbm==4.7.0 onnx==1.23.2 onnxmltools==1.16.0 onnxruntime==1.32.0 \
        scikit-learn==1.9.1 skl2onnx==1.20.0 xgboost==3.2.0
    python3 scripts/train_test_models/onnx_models.py model/tests/data/onnx

Writes NAME.onnx, NAME.inputs.csv, NAME.expected.csv (what onnxruntime gives; of two classes, the second) and
NAME.margins.csv (the same without the last transform). The same versions give the same files.
"""

import sys
import tempfile
from pathlib import Path

from hard_rows import hard_rows, write

# Files beside this one are called as the libraries are.
sys.path.pop(0)

import catboost  # noqa: E402
import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxmltools  # noqa: E402
import onnxruntime  # noqa: E402
import xgboost  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxmltools.convert.common.data_types import FloatTensorType as InputOfTools  # noqa: E402
from skl2onnx import convert_sklearn  # noqa: E402
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge  # noqa: E402
from sklearn.multiclass import OneVsRestClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline, make_union  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler  # noqa: E402
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: E402

FOLDER = Path(sys.argv[1])
ROWS, FEATURES, TESTED = 400, 6, 30
OPSETS = {"": 18, "ai.onnx.ml": 3}


def plain_attributes():
    """Converters of today hand booleans and arrays of NumPy to an onnx that takes neither."""
    make = helper.make_attribute

    def plain(value):
        if isinstance(value, (bool, np.bool_)):
            return int(value)
        return value.item() if isinstance(value, np.generic) else value

    def make_plain(name, value, *rest, **named):
        if isinstance(value, np.ndarray):
            value = value.tolist()
        value = [plain(item) for item in value] if isinstance(value, list) else plain(value)
        return make(name, value, *rest, **named)

    helper.make_attribute = make_plain


def training_rows(missing):
    random = np.random.RandomState(1)
    rows = random.randn(ROWS, FEATURES).astype(np.float32)
    labels = 2 * rows[:, 0] + np.sin(3 * rows[:, 1]) + (rows[:, 2] > 0) * rows[:, 3]
    rows[random.rand(ROWS, FEATURES) < missing] = np.nan
    return rows, labels


def attributes(node):
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def thresholds(model):
    """What the first trees compare with, feature by feature."""
    found = {}
    for node in model.graph.node:
        lists = attributes(node)
        if "nodes_values" in lists:
            for feature, value, mode in zip(lists["nodes_featureids"], lists["nodes_values"], lists["nodes_modes"]):
                if mode != b"LEAF":
                    found.setdefault(int(feature), []).append(float(value))
            break
    return found


def without_transform(model):
    """The model as it is before its last transform, if it ends with one."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph, passed = model.graph, ("ZipMap", "Cast", "Identity", "Normalizer", "Mul", "Sub", "Concat")
    producers = {output: node for node in graph.node for output in node.output}
    name = [output.name for output in graph.output if not output.type.tensor_type.elem_type == TensorProto.INT64][-1]
    while name in producers and producers[name].op_type in passed:
        inputs = [given for given in producers[name].input if given in producers]
        if not inputs:
            return model
        name = inputs[-1]
    last = producers[name]
    if last.op_type in ("Sigmoid", "Softmax", "Exp"):
        last.op_type = "Identity"
        del last.attribute[:]
        if any(node.op_type in ("Sub", "Concat") for node in graph.node):
            # The margin is of the second class; [1 − p, p] becomes [1 − m, m].
            return model
    elif "post_transform" in attributes(last):
        for attribute in last.attribute:
            if attribute.name == "post_transform":
                attribute.s = b"NONE"
        for node in graph.node:
            if node.op_type == "Normalizer" and node.input[0] in last.output:
                node.op_type, node.domain = "Identity", ""
                del node.attribute[:]
    return model


def scores(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed, start = {}, 0
    for given in session.get_inputs():
        width = given.shape[1] if len(session.get_inputs()) > 1 else inputs.shape[1]
        columns = inputs[:, start : start + width].reshape([-1, *given.shape[1:]])
        feed[given.name] = columns.astype(np.float64 if "double" in given.type else np.float32)
        start += width
    found = [out for out in session.run(None, feed) if isinstance(out, list) or out.dtype in (np.float32, np.float64)]
    if isinstance(found[0], list):
        found[0] = np.array([list(row.values()) for row in found[0]])
    return found[0].reshape(len(inputs), -1)


def save(name, model, rows, classes=False):
    """`classes` tells that two columns are two classes."""
    path = FOLDER / f"{name}.onnx"
    # Names of the day, and the order of a set.
    model.graph.name = name
    del model.metadata_props[:]
    imports = sorted(model.opset_import, key=lambda version: version.domain)
    del model.opset_import[:]
    model.opset_import.extend(imports)
    path.write_bytes(model.SerializeToString(deterministic=True))
    inputs = hard_rows(np.random.RandomState(7), rows, thresholds(model), TESTED).astype(np.float32)
    for what, of in [("expected", model), ("margins", without_transform(model))]:
        found = scores(of, inputs)
        write(path.with_suffix(f".{what}.csv"), found[:, 1:] if classes and found.shape[1] == 2 else found, 9)
    write(path.with_suffix(".inputs.csv"), inputs, 9)


def trees(rows, labels):
    kinds, classes = np.digitize(labels, [-1, 1]), (labels > 0).astype(int)
    given = [("input", InputOfTools([None, FEATURES]))]
    lgbm = {"n_estimators": 5, "num_leaves": 12, "verbose": -1, "n_jobs": 1, "random_state": 1}
    for name, model, target, options in [
        ("lightgbm_regression", lightgbm.LGBMRegressor(**lgbm), labels, {}),
        ("lightgbm_poisson", lightgbm.LGBMRegressor(objective="poisson", **lgbm), np.exp(labels / 3), {}),
        ("lightgbm_two_classes", lightgbm.LGBMClassifier(**lgbm), classes, {}),
        ("lightgbm_three_classes", lightgbm.LGBMClassifier(**lgbm), kinds, {"zipmap": False}),
    ]:
        model.fit(rows, target)
        converted = onnxmltools.convert_lightgbm(model, initial_types=given, target_opset=15, **options)
        save(name, converted, rows, "two" in name)
    of_categories = rows.copy()
    of_categories[:, 2] = np.random.RandomState(2).randint(0, 12, ROWS)
    model = lightgbm.LGBMRegressor(min_child_samples=5, **lgbm)
    model.fit(of_categories, labels + np.sin(of_categories[:, 2] * 3), categorical_feature=[2])
    converted = onnxmltools.convert_lightgbm(model, initial_types=given, target_opset=15)
    save("lightgbm_categories", converted, of_categories)
    boosted = {"n_estimators": 5, "max_depth": 4, "n_jobs": 1, "random_state": 1}
    for name, model, target in [
        ("xgboost_regression", xgboost.XGBRegressor(**boosted), labels),
        ("xgboost_two_classes", xgboost.XGBClassifier(base_score=0.3, **boosted), classes),
        ("xgboost_three_classes", xgboost.XGBClassifier(**boosted), kinds),
    ]:
        model.fit(rows, target)
        save(name, onnxmltools.convert_xgboost(model, initial_types=given, target_opset=15), rows, "two" in name)
    boosted = {"iterations": 5, "depth": 4, "verbose": 0, "thread_count": 1, "random_seed": 1, "allow_writing_files": False}
    for name, model, target in [
        ("catboost_regression", catboost.CatBoostRegressor(**boosted), labels),
        ("catboost_two_classes", catboost.CatBoostClassifier(**boosted), classes),
        ("catboost_three_classes", catboost.CatBoostClassifier(**boosted), kinds),
    ]:
        model.fit(rows, target)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            model.save_model(file.name, format="onnx")
            save(name, onnx.load(file.name), rows, "two" in name)


def sklearn(rows, labels, missing_rows):
    kinds, classes = np.digitize(labels, [-1, 1]), (labels > 0).astype(int)
    words = np.array(["no", "yes"])[classes]
    forest = {"n_estimators": 4, "max_depth": 4, "random_state": 1}
    parts = [("a", StandardScaler(), [0, 2]), ("b", MinMaxScaler(clip=True), [5, 1]), ("c", "passthrough", [4])]
    tree, network = {"max_depth": 4, "random_state": 1}, {"hidden_layer_sizes": (8, 5), "max_iter": 60, "random_state": 1}
    several = {"types": [("p", FloatTensorType([None, 2])), ("q", FloatTensorType([None, 4]))]}
    for name, model, target, options in [
        ("linear", LinearRegression(), labels, {}),
        ("ridge_two_targets", make_pipeline(StandardScaler(), Ridge()), np.stack([labels, labels**2], axis=1), {}),
        ("logistic", make_pipeline(StandardScaler(), LogisticRegression()), words, {}),
        ("logistic_three", LogisticRegression(), kinds, {}),
        ("one_versus_rest", OneVsRestClassifier(LogisticRegression()), kinds, {}),
        ("columns", make_pipeline(ColumnTransformer(parts), LogisticRegression()), classes, several),
        ("union", make_pipeline(make_union(StandardScaler(), MinMaxScaler()), Ridge()), labels, {}),
        ("normalized", make_pipeline(Normalizer("l2"), LogisticRegression()), kinds, {}),
        ("imputed", make_pipeline(SimpleImputer(), DecisionTreeRegressor(**tree)), labels, {"missing": True}),
        ("forest_two", RandomForestClassifier(**forest), classes, {}),
        ("forest_three", RandomForestClassifier(**forest), kinds, {}),
        ("forest_regression", RandomForestRegressor(**forest), labels, {}),
        ("extra_two_targets", ExtraTreesRegressor(**forest), np.stack([labels, -labels], axis=1), {}),
        ("forest_double", RandomForestClassifier(**forest), kinds, {"types": [("X", DoubleTensorType([None, FEATURES]))]}),
        ("gradient_boosting", GradientBoostingClassifier(n_estimators=5, random_state=1), classes, {}),
        ("gradient_boosting_three", GradientBoostingClassifier(n_estimators=3, random_state=1), kinds, {}),
        ("hist_gradient_boosting", HistGradientBoostingRegressor(max_iter=4), labels, {"missing": True}),
        ("network_classes", MLPClassifier(**network), classes, {}),
        ("network", MLPRegressor(activation="tanh", **network), labels, {}),
        ("calibrated", CalibratedClassifierCV(DecisionTreeClassifier(**tree), cv=2), kinds, {}),
        ("bagging", BaggingClassifier(DecisionTreeClassifier(**tree), n_estimators=3, random_state=1), kinds, {}),
        ("voting", VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(**tree))]), labels, {}),
        ("stacking", StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(**tree))]), kinds, {}),
    ]:
        data = missing_rows if options.get("missing") else rows
        model.fit(data, target)
        types = options.get("types", [("X", FloatTensorType([None, FEATURES]))])
        converted = convert_sklearn(model, initial_types=types, target_opset=OPSETS)
        save(f"sklearn_{name}", converted, data, hasattr(model, "predict_proba"))


def network(name, nodes, weights, classes=False, dims=(FEATURES,), opset=17):
    """As PyTorch writes them: Gemm with transB, weights as initializers."""
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *dims])]
    result = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", None])]
    initializers = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, "main_graph", given, result, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="pytorch")
    onnx.checker.check_model(model)
    save(f"torch_{name}", model, training_rows(0)[0], classes)


def torch():
    random = np.random.RandomState(3)

    def layer(index, inputs, outputs):
        weight = random.randn(outputs, inputs).astype(np.float32) / np.float32(np.sqrt(inputs))
        return {f"{index}.weight": weight, f"{index}.bias": random.randn(outputs).astype(np.float32)}

    def gemm(index, given, result):
        return helper.make_node("Gemm", [given, f"{index}.weight", f"{index}.bias"], [result], alpha=1.0, beta=1.0, transB=1)

    def layers(last, outputs, activation, **options):
        nodes = [gemm(0, "input", "a"), helper.make_node(activation, ["a"], ["b"], **options), gemm(2, "b", "c")]
        nodes.append(last("c"))
        return nodes, {**layer(0, FEATURES, 40), **layer(2, 40, outputs)}

    network("sigmoid", *layers(lambda given: helper.make_node("Sigmoid", [given], ["output"]), 1, "Relu"))
    softmax = lambda given: helper.make_node("Softmax", [given], ["output"], axis=1)  # noqa: E731
    network("softmax", *layers(softmax, 3, "LeakyRelu", alpha=0.1))
    network("softmax_two", *layers(softmax, 2, "Elu"), classes=True)
    normal = {f"1.{key}": np.abs(random.randn(40)).astype(np.float32) + 0.1 for key in ("weight", "bias", "mean", "var")}
    batch_normalization = helper.make_node("BatchNormalization", ["a", *normal], ["n"], epsilon=1e-5)
    nodes = [gemm(0, "input", "a"), batch_normalization, helper.make_node("Tanh", ["n"], ["b"])]
    nodes += [helper.make_node("Dropout", ["b"], ["d"]), gemm(2, "d", "output")]
    network("batch_normalization", nodes, {**layer(0, FEATURES, 40), **normal, **layer(2, 40, 2)})
    nodes = [helper.make_node("Flatten", ["input"], ["f"], axis=1), gemm(0, "f", "a")]
    nodes += [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"]), gemm(2, "b", "output")]
    network("silu", nodes, {**layer(0, FEATURES, 33), **layer(2, 33, 1)}, dims=(2, 3))


def by_hand():
    """A TreeEnsemble of version 5, whose members, modes and shared leaves no converter of today writes."""
    floats = lambda values: helper.make_tensor("", TensorProto.FLOAT, [len(values)], values)  # noqa: E731
    node = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=2,
        aggregate_function=1,
        nodes_featureids=[0, 1, 2, 1, 0],
        nodes_splits=floats([0.5, 0.0, -0.25, 1.0, 0.0]),
        nodes_modes=helper.make_tensor("", TensorProto.UINT8, [5], [3, 6, 1, 5, 2]),
        nodes_truenodeids=[1, 0, 1, 3, 0],
        nodes_trueleafs=[0, 1, 1, 1, 1],
        nodes_falsenodeids=[2, 1, 2, 4, 2],
        nodes_falseleafs=[0, 1, 1, 0, 1],
        nodes_missing_value_tracks_true=[0, 1, 0, 0, 1],
        membership_values=floats([1.0, 3.0, 7.0, float("nan")]),
        leaf_targetids=[0, 1, 0, 1],
        leaf_weights=floats([1.5, -2.25, 4.0, 0.125]),
        tree_roots=[0, 3],
    )
    given = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", FEATURES])]
    result = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 2])]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    graph = helper.make_graph([node], "g", given, result)
    rows = np.random.RandomState(4).choice([-1, -0.25, 0, 0.5, 1, 2, 3, 7], (ROWS, FEATURES)).astype(np.float32)
    save("tree_ensemble", helper.make_model(graph, opset_imports=imports, ir_version=10), rows)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    plain_attributes()
    onnxruntime.set_default_logger_severity(3)
    trees(*training_rows(0.1))
    sklearn(*training_rows(0), training_rows(0.1)[0])
    torch()
    by_hand()
