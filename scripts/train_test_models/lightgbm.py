#!/usr/bin/env python3
"""Trains the small LightGBM models of model/tests/data/lightgbm.

    pip install lightgbm==4.7.0 pandas
    python3 scripts/train_test_models/lightgbm.py model/tests/data/lightgbm

Writes NAME.txt, NAME.inputs.csv, NAME.expected.csv (Booster.predict) and NAME.margins.csv (with raw_score=True). The same
versions give the same files.
"""

import re
import sys
from pathlib import Path

from hard_rows import hard_rows, write

# This file's own name is lightgbm: its folder must not be searched any more.
sys.path.pop(0)

import lightgbm as lgb  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

FOLDER = Path(sys.argv[1])
ROWS, FEATURES, TESTED = 800, 6, 40
ALWAYS = {"verbose": -1, "num_threads": 1, "deterministic": True, "seed": 3, "min_data_in_leaf": 5, "num_leaves": 12}


def training_rows(missing=0.1, zeros=0.0, features=FEATURES):
    random = np.random.RandomState(1)
    rows = random.randn(ROWS, features).astype(np.float32)
    known = rows.copy()
    rows[random.rand(ROWS, features) < zeros] = 0
    rows[random.rand(ROWS, features) < missing] = np.nan
    labels = 2 * known[:, 0] + np.sin(3 * known[:, 1]) + (known[:, 2] > 0) * known[:, 3] + 0.3 * random.randn(ROWS)
    return rows, labels


def thresholds(model):
    """What the model compares with, feature by feature."""
    found = {}
    for tree in model.split("\nTree=")[1:]:
        lists = dict(re.findall("^(split_feature|threshold|decision_type)=(.+)$", tree, re.M))
        columns = [lists.get(key, "").split() for key in ("split_feature", "threshold", "decision_type")]
        for feature, threshold, decision in zip(*columns):
            if int(decision) % 2 == 0:
                found.setdefault(int(feature), []).append(float(threshold))
    return found


def save(name, booster, rows, num_iteration=None):
    path = FOLDER / f"{name}.txt"
    booster.save_model(path, num_iteration=num_iteration)
    saved = lgb.Booster(model_file=path)
    inputs = hard_rows(np.random.RandomState(7), rows, thresholds(path.read_text()), TESTED)
    write(path.with_suffix(".inputs.csv"), inputs, 9)
    write(path.with_suffix(".expected.csv"), saved.predict(inputs), 17)
    write(path.with_suffix(".margins.csv"), saved.predict(inputs, raw_score=True), 17)


def train(rows, labels, iterations=6, data=None, **parameters):
    """`data` goes to the data set."""
    linear = {"linear_tree": True} if parameters.get("linear_tree") else {}
    bins = {key: parameters[key] for key in ("max_bin", "zero_as_missing", "use_missing") if key in parameters}
    dataset = lgb.Dataset(rows, labels, params={"verbose": -1, **linear, **bins}, **(data or {}))
    return lgb.train({**ALWAYS, **parameters}, dataset, iterations)


def objectives(rows, labels):
    unit = 1 / (1 + np.exp(-labels))
    counts = np.random.RandomState(2).poisson(np.exp(np.clip(labels / 2, -3, 3)))
    of_three = np.digitize(labels, [-1, 1])
    for objective, target in [
        ("regression", labels),
        ("quantile", labels),
        ("huber", labels),
        ("binary", labels > 0),
        ("cross_entropy", unit),
        ("cross_entropy_lambda", unit),
        ("poisson", counts),
        ("gamma", counts + 0.1),
        ("tweedie", counts),
    ]:
        save(objective, train(rows, target, objective=objective), rows)
    save("sqrt", train(rows, 10 * labels, objective="regression", reg_sqrt=True), rows)
    save("sigmoid", train(rows, labels > 0, objective="binary", sigmoid=0.37), rows)
    save("lambdarank", train(rows, of_three, objective="lambdarank", data={"group": [10] * (ROWS // 10)}), rows)
    for objective in ("multiclass", "multiclassova"):
        save(objective, train(rows, of_three, 3, objective=objective, num_class=3), rows)
    save("own_objective", train(rows, labels, objective=lambda found, data: (found - data.get_label(), 0 * found + 1)), rows)


def boosting(rows, labels):
    forest = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
    save("forest", train(rows, labels > 0, objective="binary", **forest), rows)
    save("forest_multiclass", train(rows, np.digitize(labels, [-1, 1]), 3, objective="multiclass", num_class=3, **forest), rows)
    save("dart", train(rows, labels, objective="regression", boosting="dart"), rows)
    save("goss", train(rows, labels, objective="regression", data_sample_strategy="goss"), rows)
    monotone = [1, 0, -1] + [0] * (FEATURES - 3)
    save("monotone", train(rows, labels, objective="regression", extra_trees=True, monotone_constraints=monotone), rows)
    save("first_iterations", train(rows, labels, 30, objective="regression"), rows, num_iteration=4)
    save("leaf_wise", train(rows, labels, 2, objective="regression", num_leaves=150, min_data_in_leaf=1), rows)
    save("one_leaf", train(rows, labels, objective="regression", min_data_in_leaf=ROWS), rows)
    many, labels = training_rows(features=40)
    save("many_features", train(many, labels, objective="regression", feature_fraction=0.3), many)


def missing(rows, labels):
    save("no_missing", train(rows, labels, objective="regression", use_missing=False), rows)
    zeros, labels = training_rows(missing=0.1, zeros=0.3)
    save("zero_as_missing", train(zeros, labels, objective="regression", zero_as_missing=True), zeros)
    clean, labels = training_rows(missing=0)
    save("fine_bins", train(clean, labels, objective="regression", max_bin=1023), clean)
    for name, factor in [("tiny_values", 1e-35), ("huge_values", 1e37)]:
        scaled = (clean * factor).astype(np.float32)
        save(name, train(scaled, labels, objective="regression"), scaled)
    infinite = clean.copy()
    infinite[np.random.RandomState(3).rand(*clean.shape) < 0.05] = np.inf
    infinite[np.random.RandomState(4).rand(*clean.shape) < 0.05] = -np.inf
    save("infinite_values", train(infinite, labels, objective="regression"), infinite)


def linear(rows, labels):
    save("linear", train(rows, labels, 4, objective="regression", linear_tree=True, num_leaves=5), rows)
    save("linear_binary", train(rows, labels > 0, 4, objective="binary", linear_tree=True, num_leaves=5), rows)


def categories(rows):
    random = np.random.RandomState(5)
    rows = rows.copy()
    for count in (4, 500):
        rows[:, 0] = random.randint(0, count, ROWS)
        rows[:, 3] = random.randint(0, 5, ROWS)
        labels = 2 * np.isin(rows[:, 0] % 7, [1, 3, 4]) + (rows[:, 3] == 2) + 0.2 * random.randn(ROWS)
        data = {"categorical_feature": [0, 3]}
        booster = train(rows, labels, 3, objective="regression", min_data_per_group=3, cat_smooth=1, data=data)
        tested = rows + random.rand(ROWS, FEATURES).astype(np.float32) - (random.rand(ROWS, 1) < 0.1)
        save(f"categories_{count}", booster, np.concatenate([rows, tested]))
    letters = pd.DataFrame({"letter": pd.Categorical(random.choice(list("xyzuvw"), ROWS)), "größe": rows[:, 1]})
    labels = 2.0 * letters["letter"].isin(["x", "w"]) + np.nan_to_num(rows[:, 1])
    booster = train(letters, labels, objective="regression", min_data_per_group=3)
    save("pandas", booster, np.stack([letters["letter"].cat.codes, rows[:, 1]], axis=1))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    ROWS_AND_LABELS = training_rows()
    objectives(*ROWS_AND_LABELS)
    boosting(*ROWS_AND_LABELS)
    missing(*ROWS_AND_LABELS)
    linear(*ROWS_AND_LABELS)
    categories(ROWS_AND_LABELS[0])
