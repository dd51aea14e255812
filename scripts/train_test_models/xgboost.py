#!/usr/bin/env python3
"""Trains the small XGBoost models of model/tests/data/xgboost, for the XGBoost that is installed.

    pip install --no-deps xgboost==3.2.0; pip install numpy scipy
    python3 scripts/train_test_models/xgboost.py model/tests/data/xgboost

Writes VERSION/NAME.json or .ubj, NAME.inputs.csv, NAME.expected.csv (Booster.predict) and NAME.margins.csv (with
output_margin). Rows hold NaN, -0, thresholds of the model and their neighbours. The same version gives the same files.
"""

import json
import sys
from pathlib import Path

# This file's own name is xgboost: its folder must not be searched.
sys.path.pop(0)

import numpy as np  # noqa: E402
import xgboost as xgb  # noqa: E402

VERSION = tuple(int(part) for part in xgb.__version__.split(".")[:2])
ROWS, FEATURES = 300, 5
TYPES = ["c", "c", "q", "float", "int"]


def training_rows():
    """Numbers with many equal values and a tenth missing."""
    random = np.random.RandomState(1)
    rows = random.randn(ROWS, FEATURES).astype(np.float32)
    rows[:, ::3] = np.round(rows[:, ::3] * 2) / 2
    rows[random.rand(ROWS, FEATURES) < 0.1] = np.nan
    return rows


def categorical_rows():
    """Two columns of categories, 40 and 5, and three of numbers."""
    random = np.random.RandomState(2)
    rows = random.randn(ROWS, FEATURES).astype(np.float32)
    rows[:, 0] = random.randint(0, 40, ROWS)
    rows[:, 1] = random.randint(0, 5, ROWS)
    rows[random.rand(ROWS, FEATURES) < 0.1] = np.nan
    return rows


def labels(rows):
    """Something to learn."""
    known = np.nan_to_num(rows)
    sums = 1.5 * known[:, 2] + np.sin(2 * known[:, 1]) + known[:, 3] * known[:, 4] + np.cos(known[:, 0])
    return sums.astype(np.float32)


def thresholds(path):
    """What the model compares with, feature by feature."""
    booster = json.loads(path.read_text())["learner"]["gradient_booster"]
    found = {feature: [0.0] for feature in range(FEATURES)}
    for tree in booster.get("gbtree", booster)["model"].get("trees", []):
        for left, feature, condition in zip(tree["left_children"], tree["split_indices"], tree["split_conditions"]):
            if left != -1:
                found[feature].append(condition)
    return found


def probes(rows, compared, categorical):
    """Rows of training, then such as lie on the edges."""
    random = np.random.RandomState(3)
    known = rows[:8].copy()
    edges = rows[:16].copy()
    for feature in range(FEATURES):
        values = np.array(compared[feature], np.float32)
        values = np.concatenate([values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))])
        if categorical and feature < 2:
            values = np.array([-1, -0.5, -0.0, 0, 0.5, 1.75, 2, 3, 31, 32, 39, 40, 64, 16777216, 1e9], np.float32)
        edges[:, feature] = np.where(random.rand(16) < 0.8, random.choice(values, 16), edges[:, feature])
    return np.concatenate([known, edges, np.full((1, FEATURES), np.nan, np.float32)])


def write_table(path, table):
    """One row a line, each number in as many digits as tell it from its neighbours."""
    table = np.asarray(table, np.float32).reshape(len(table), -1)
    path.write_text("".join(",".join(str(value) for value in row) + "\n" for row in table))


def write(folder, name, booster, rows, encoding, categorical=False):
    """Saves a model, and what the library itself says about some rows once it has loaded the file."""
    scratch = folder / f"{name}.json"
    booster.save_model(scratch)
    compared = thresholds(scratch)
    scratch.unlink()
    path = folder / f"{name}.{encoding}"
    booster.save_model(path)
    inputs = probes(rows, compared, categorical)
    types = {"feature_types": TYPES, "enable_categorical": True} if categorical else {}
    matrix = xgb.DMatrix(inputs, nthread=1, **types)
    loaded = xgb.Booster({"nthread": 1}, model_file=path)
    predict = lambda **options: loaded.predict(matrix, validate_features=False, **options)
    write_table(folder / f"{name}.inputs.csv", inputs)
    write_table(folder / f"{name}.expected.csv", predict())
    write_table(folder / f"{name}.margins.csv", predict(output_margin=True))


def main():
    folder = Path(sys.argv[1]) / xgb.__version__
    folder.mkdir(parents=True, exist_ok=True)
    rows, mixed = training_rows(), categorical_rows()
    y, y_mixed = labels(rows), labels(mixed)
    positive, binary = np.exp(y / 3), (y > 0.3).astype(np.float32)
    classes = np.digitize(y, [-1, 1])

    def train(parameters, target, rounds=4, data=rows, **options):
        matrix = xgb.DMatrix(data, target, nthread=1, **options)
        return xgb.train({"nthread": 1, "seed": 1, "max_depth": 3, **parameters}, matrix, rounds)

    def make(name, parameters, target, rounds=4, encoding="ubj", **options):
        write(folder, name, train(parameters, target, rounds, **options), rows, encoding)

    # What is written otherwise, or means something else, in each version.
    make("squared", {}, y, encoding="json", feature_names=["a", "b", "c", "d", "é"])
    make("logistic", {"objective": "binary:logistic", "base_score": 0.3}, binary)
    make("softprob", {"objective": "multi:softprob", "num_class": 3}, classes, 3)
    make("dart", {"booster": "dart", "rate_drop": 0.5, "one_drop": 1, "num_parallel_tree": 2}, y, 3)
    make("linear", {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3}, classes, encoding="json")
    parameters = {"tree_method": "hist", "max_cat_to_onehot": 6}
    categorical = {"feature_types": TYPES, "enable_categorical": True}
    write(folder, "categories", train(parameters, y_mixed, data=mixed, **categorical), mixed, "ubj", True)
    # Pruning leaves nodes behind that nothing leads to.
    make("pruned", {"tree_method": "exact", "gamma": 20.0, "max_depth": 5}, y, 3, "json")
    if VERSION >= (2, 0):
        vectors = {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
        make("vectors", vectors, np.stack([y, 2 - 3 * y], 1), 3)
    if VERSION >= (3, 4):
        make("softmax", {"objective": "multi:softmax", "num_class": 3}, classes, 3)
        make("poisson", {"objective": "count:poisson"}, np.round(positive))
        make("hinge", {"objective": "binary:hinge"}, binary)
        make("quantiles", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, y, 5)
        make("expectiles", {"objective": "reg:expectileerror", "expectile_alpha": [0.1, 0.5, 0.9]}, y, 4, "json")
        make("forest", {"num_parallel_tree": 8, "subsample": 0.5, "learning_rate": 1.0}, y, 1)


main()
