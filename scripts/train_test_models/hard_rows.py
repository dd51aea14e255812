"""Rows that are hard to score: special values, and values on a model's thresholds. Read by the scripts beside this one."""

import numpy as np

SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -1e-40, 1e-35, -1e-35, -0.5, -1, 0.999, 3e9, 3.4028235e38, 2.0**24],
    dtype=np.float32,
)


def hard_rows(random, rows, thresholds, count):
    """Some of the rows: a fifth of them as they are, the others with special values, with thresholds as f32 and their
    neighbours, with NaN, or with all of it. `thresholds` has a list for each feature that has any."""
    hard = rows[random.randint(0, len(rows), count)].astype(np.float32)
    for index, row in enumerate(hard):
        mode = index % 5
        for feature in range(len(row)):
            if mode in (1, 4) and random.rand() < 0.3:
                row[feature] = random.choice(SPECIAL)
            if mode in (2, 4) and feature in thresholds and random.rand() < 0.7:
                row[feature] = near(random, random.choice(thresholds[feature]))
            if mode == 3 and random.rand() < 0.4:
                row[feature] = np.nan
    return hard


def near(random, threshold):
    """The threshold as f32, or the number below or above it."""
    with np.errstate(over="ignore"):
        value = np.float32(threshold)
        return random.choice([value, np.nextafter(value, np.float32(-np.inf)), np.nextafter(value, np.float32(np.inf))])


def write(path, table, digits):
    """A table of numbers, without a header; 9 digits give an f32 back, 17 an f64."""
    table = np.asarray(table, dtype=np.float64)
    np.savetxt(path, table.reshape(len(table), -1), fmt=f"%.{digits}g", delimiter=",")
