"""Writes rows and what LightGBM predicts for them. Usage: expected.py MODEL.txt INPUTS.csv EXPECTED.csv"""

import sys

import lightgbm
import numpy as np

booster = lightgbm.Booster(model_file=sys.argv[1])
rows = np.random.default_rng(3).normal(size=(4096, booster.num_feature())).astype(np.float32)
np.savetxt(sys.argv[2], rows, delimiter=",", fmt="%.9g")
np.savetxt(sys.argv[3], booster.predict(rows), delimiter=",", fmt="%.9g")
