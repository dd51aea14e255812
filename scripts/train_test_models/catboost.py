#!/usr/bin/env python3
"""Trains the small CatBoost models of model/tests/data/catboost.

    pip install catboost==1.2.10
    python3 scripts/train_test_models/catboost.py model/tests/data/catboost

Writes NAME.json, NAME.inputs.csv, NAME.expected.csv (predict_proba of classifiers, of two classes P(class 1); predict of others)
and NAME.margins.csv (RawFormulaVal). The same version gives the same files, but for the time of training and the model's id.
"""

import json
import sys
from pathlib import Path

from hard_rows import hard_rows, write

# This file's own name is catboost: its folder must not be searched any more.
sys.path.pop(0)

import numpy as np  # noqa: E402
from catboost import CatBoostClassifier, CatBoostRanker, CatBoostRegressor, sum_models  # noqa: E402

FOLDER = Path(sys.argv[1])
ROWS, FEATURES, TESTED = 600, 5, 40
ALWAYS = {"iterations": 6, "depth": 3, "border_count": 32, "random_seed": 1, "thread_count": 1, "verbose": 0}
LABELLED = ("MultiLogloss", "MultiCrossEntropy")


def training_rows(missing=0.1):
    random = np.random.RandomState(1)
    rows = random.randn(ROWS, FEATURES).astype(np.float32)
    labels = 2 * rows[:, 0] + np.sin(3 * rows[:, 1]) + (rows[:, 2] > 0) * rows[:, 3] + 0.3 * random.randn(ROWS)
    rows[random.rand(ROWS, FEATURES) < missing] = np.nan
    return rows, labels


def thresholds(model):
    """What the model compares with, feature by feature."""
    places = {feature["feature_index"]: feature["flat_feature_index"] for feature in model["features_info"]["float_features"]}
    found = {}

    def search(node):
        if isinstance(node, dict):
            if "float_feature_index" in node:
                found.setdefault(places[node["float_feature_index"]], []).append(node["border"])
            node = list(node.values())
        for part in node if isinstance(node, list) else []:
            search(part)

    search([model.get("oblivious_trees"), model.get("trees")])
    return found


def save(name, model, rows, classifier=None):
    """`classifier` says whether to predict probabilities, if the model's class does not."""
    path = FOLDER / f"{name}.json"
    model.save_model(path, format="json")
    inputs = hard_rows(np.random.RandomState(7), rows, thresholds(json.loads(path.read_text())), TESTED)
    if isinstance(model, CatBoostClassifier) or classifier:
        scores, margins = model.predict_proba(inputs), model.predict(inputs, prediction_type="RawFormulaVal")
        if scores.shape[1] == 2 and model.get_param("loss_function") not in LABELLED:
            scores, margins = scores[:, 1], margins[:, 1] if margins.ndim == 2 else margins
    else:
        scores = margins = model.predict(inputs)
        if isinstance(model, CatBoostRegressor):
            margins = model.predict(inputs, prediction_type="RawFormulaVal")
    write(path.with_suffix(".inputs.csv"), inputs, 9)
    write(path.with_suffix(".expected.csv"), scores, 17)
    write(path.with_suffix(".margins.csv"), margins, 17)


def train(model, rows, labels, fit=None, **parameters):
    """`fit` goes to the model's fit."""
    return model(**{**ALWAYS, "allow_writing_files": False, **parameters}).fit(rows, labels, **(fit or {}))


def shapes(rows, labels):
    names = np.array(["zebra", "ant", "cow"])[np.digitize(labels, [-1, 1])]
    for policy in ("SymmetricTree", "Depthwise", "Lossguide"):
        for mode in ("Min", "Max"):
            model = train(CatBoostRegressor, rows, labels, grow_policy=policy, nan_mode=mode)
            save(f"regression_{policy}_{mode}", model, rows)
        save(f"names_{policy}", train(CatBoostClassifier, rows, names, grow_policy=policy, iterations=3), rows)
    clean = training_rows(missing=0)[0]
    save("no_missing", train(CatBoostRegressor, clean, labels, nan_mode="Max"), clean)
    save("deep", train(CatBoostRegressor, rows, labels, depth=9, iterations=1), rows)
    save("ignored", train(CatBoostRegressor, rows, labels, ignored_features=[0, FEATURES - 1]), rows)


def losses(rows, labels):
    counts = np.random.RandomState(2).poisson(np.exp(np.clip(labels / 2, -3, 3)))
    targets = np.stack([labels, -labels], axis=1)
    for loss, target in [
        ("Poisson", counts),
        ("Tweedie:variance_power=1.5", counts),
        ("LogLinQuantile", np.abs(labels) + 0.1),
        ("RMSEWithUncertainty", labels),
        ("MultiQuantile:alpha=0.1,0.5,0.9", labels),
        ("MultiRMSE", targets),
    ]:
        save(loss.split(":")[0], train(CatBoostRegressor, rows, target, loss_function=loss), rows)
    of_three = np.digitize(labels, [-1, 1])
    for loss, target in [
        ("Logloss", labels > 0),
        ("CrossEntropy", 1 / (1 + np.exp(-labels))),
        ("MultiClass", of_three),
        ("MultiClassOneVsAll", of_three),
        ("MultiLogloss", np.stack([labels > 0, labels > 1], axis=1).astype(int)),
    ]:
        save(loss, train(CatBoostClassifier, rows, target, loss_function=loss), rows)
    two = train(CatBoostClassifier, rows, labels > 0, loss_function="MultiClass")
    save("MultiClass_of_two", two, rows)
    groups = {"group_id": np.repeat(np.arange(ROWS // 10), 10)}
    save("YetiRank", train(CatBoostRanker, rows, of_three / 2, loss_function="YetiRank", fit=groups), rows)


def changed(rows, labels):
    model = train(CatBoostRegressor, rows, labels)
    model.set_scale_and_bias(2.5, -1.25)
    save("scaled", model, rows)
    regression = train(CatBoostRegressor, rows, labels)
    save("sum", sum_models([regression, regression], weights=[0.25, 1]), rows)
    weights = {"sample_weight": np.random.RandomState(3).rand(ROWS)}
    save("weights", train(CatBoostClassifier, rows, labels > 0, boost_from_average=True, fit=weights), rows)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    ROWS_AND_LABELS = training_rows()
    shapes(*ROWS_AND_LABELS)
    losses(*ROWS_AND_LABELS)
    changed(*ROWS_AND_LABELS)
