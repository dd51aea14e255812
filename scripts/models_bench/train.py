"""Trains the models of the comparison and saves each as NAME.txt (LightGBM) and NAME.onnx. Usage: train.py FOLDER"""

import pathlib
import sys

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

MODELS = {
    "100_trees_63_leaves": dict(trees=100, leaves=63, features=16),
    "500_trees_127_leaves": dict(trees=500, leaves=127, features=16),
    "forest_200_trees_2000_leaves": dict(trees=200, leaves=2000, features=16, forest=True),
    "100_trees_63_leaves_40_features_nan": dict(trees=100, leaves=63, features=40, missing=0.05),
}


def train(folder, name, trees, leaves, features, forest=False, missing=0.0):
    random = np.random.default_rng(7)
    rows = random.normal(size=(60_000, features)).astype(np.float32)
    target = np.sin(rows[:, 0] * 2) + rows[:, 1] * rows[:, 2] + np.abs(rows[:, 3]) + 0.1 * random.normal(size=len(rows))
    target += sum(rows[:, column] * np.cos(column) for column in range(4, features)) / np.sqrt(features)
    rows[random.random(rows.shape) < missing] = np.nan
    parameters = dict(objective="regression", num_leaves=leaves, learning_rate=0.1, min_data_in_leaf=5, verbose=-1,
                      num_threads=2, seed=7, deterministic=True)
    if forest:
        parameters |= dict(boosting="rf", bagging_freq=1, bagging_fraction=0.8, feature_fraction_bynode=0.7)
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), num_boost_round=trees)
    booster.save_model(str(folder / f"{name}.txt"))
    onnx = convert_lightgbm(booster, initial_types=[("input", FloatTensorType([None, features]))], target_opset=15)
    (folder / f"{name}.onnx").write_bytes(onnx.SerializeToString())


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in MODELS.items():
        if not (folder / f"{name}.onnx").exists():
            train(folder, name, **shape)


main()
