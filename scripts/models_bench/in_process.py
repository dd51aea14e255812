"""Times libraries that score a model, in process, beside `disrust verify`: interleaved, one thread, fresh rows.

Usage: in_process.py DISRUST MODELS [--rounds N] [--json FILE]
DISRUST is the release binary. MODELS is a folder with NAME.txt (LightGBM) and NAME.onnx of the same model for each NAME.
Prints a Markdown table: nanoseconds a row, the median of the rounds (smallest to largest), and how many times faster disrust is than
onnxruntime. A library that is not installed, or that cannot score the model, has a dash.
"""

import argparse
import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

ROWS = [1, 16, 64, 512, 4096]
# Rows that are drawn before a measurement, so that none is scored twice within it.
FRESH_ROWS = 1 << 16
SECONDS = 0.25
# Larger files are not given to what compiles them to machine code: a file of 6 MB was not done after six minutes.
COMPILED_BYTES_MAX = 2_000_000


def onnxruntime(folder, name):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
    of_input = session.get_inputs()[0].name
    of_output = [session.get_outputs()[-1].name]
    return lambda rows: session.run(of_output, {of_input: rows})


def lightgbm(folder, name):
    """The C API, which costs less than the Python one: LGBM_BoosterPredictForMat."""
    import lightgbm

    booster = lightgbm.Booster(model_file=str(folder / f"{name}.txt"))
    library = lightgbm.basic._LIB
    out = np.zeros(ROWS[-1] * booster.num_model_per_iteration(), dtype=np.float64)
    length = ctypes.c_int64()

    def predict(rows):
        status = library.LGBM_BoosterPredictForMat(
            booster._handle, rows.ctypes.data_as(ctypes.c_void_p), ctypes.c_int(0), ctypes.c_int32(rows.shape[0]),
            ctypes.c_int32(rows.shape[1]), ctypes.c_int(1), ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(-1),
            b"num_threads=1", ctypes.byref(length), out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)))
        assert status == 0

    return predict


def xgboost(folder, name):
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=str(folder / f"{name}.ubj"))
    return booster.inplace_predict


def lleaves(folder, name):
    import lleaves

    model = lleaves.Model(model_file=str(folder / f"{name}.txt"))
    model.compile()
    return lambda rows: model.predict(rows, n_jobs=1)


def tl2cgen(folder, name):
    """Treelite's model, compiled to C."""
    import tempfile

    import tl2cgen
    import treelite

    model = treelite.frontend.load_lightgbm_model(str(folder / f"{name}.txt"))
    place = tempfile.mkdtemp()
    tl2cgen.export_lib(model, toolchain="gcc", libpath=f"{place}/model.so", params={})
    predictor = tl2cgen.Predictor(f"{place}/model.so", nthread=1)
    return lambda rows: predictor.predict(tl2cgen.DMatrix(rows))


# What a library reads, and how it is made ready.
LIBRARIES = {
    "onnxruntime": ("onnx", onnxruntime),
    "LightGBM": ("txt", lightgbm),
    "XGBoost": ("ubj", xgboost),
    "lleaves": ("txt", lleaves),
    "Treelite, tl2cgen": ("txt", tl2cgen),
}


def time_library(predict, features, rows, random):
    """Nanoseconds a row."""
    fresh = random.normal(size=(max(FRESH_ROWS // 4, 2 * rows), features)).astype(np.float32)
    batches = [np.ascontiguousarray(fresh[start : start + rows]) for start in range(0, len(fresh) - rows + 1, rows)]
    predict(batches[0])
    scored, begun = 0, time.perf_counter_ns()
    for batch in batches:
        predict(batch)
        scored += rows
        if scored % (16 * rows) == 0 and time.perf_counter_ns() - begun > SECONDS * 1e9:
            break
    return (time.perf_counter_ns() - begun) / scored


def time_disrust(binary, model, path):
    """Nanoseconds a row, by the number of rows; none if this machine has not that path."""
    environment = dict(os.environ, DISRUST_SIMD=path)
    ran = subprocess.run([binary, "verify", "--model", str(model), "--json", "--rows", ",".join(map(str, ROWS))],
                         capture_output=True, text=True, env=environment, check=False)
    if ran.returncode != 0:
        print(f"skipped: disrust, {path}: {ran.stderr.strip()}", file=sys.stderr)
        return None
    return {rows: json.loads(ran.stdout)["ns_per_row"][str(rows)] for rows in ROWS}


def measure(binary, folder, name, rounds):
    predicts = {}
    for library, (ending, prepare) in LIBRARIES.items():
        file = folder / f"{name}.{ending}"
        if not file.exists():
            continue
        if prepare in (lleaves, tl2cgen) and file.stat().st_size > COMPILED_BYTES_MAX:
            print(f"skipped: {library}, {name}: compiling so large a model takes too long", file=sys.stderr)
            continue
        try:
            predicts[library] = prepare(folder, name)
        except Exception as error:  # whatever a library says of a model that it does not take
            print(f"skipped: {library}, {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    random = np.random.default_rng(1)
    features = json.loads(subprocess.run([binary, "verify", "--model", str(folder / f"{name}.txt"), "--json"],
                                         capture_output=True, text=True, check=True).stdout)["features"]
    taken = {}
    paths = ["avx512", "avx2", "portable"]
    for _ in range(rounds):
        for path in list(paths):
            of_disrust = time_disrust(binary, folder / f"{name}.txt", path)
            if of_disrust is None:
                paths.remove(path)
                continue
            for rows, nanoseconds in of_disrust.items():
                taken.setdefault((f"disrust, {path}", rows), []).append(nanoseconds)
        for library, predict in predicts.items():
            for rows in ROWS:
                taken.setdefault((library, rows), []).append(time_library(predict, features, rows, random))
    return taken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("disrust")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    results = {}
    print("| model | engine | " + " | ".join(f"{rows} row{'s' if rows > 1 else ''}" for rows in ROWS) + " |")
    print("|---|---|" + "---|" * len(ROWS))
    for model in sorted(arguments.models.glob("*.txt")):
        name = model.stem
        taken = measure(arguments.disrust, arguments.models, name, arguments.rounds)
        results[name] = {f"{engine}, {rows} rows": times for (engine, rows), times in taken.items()}
        for engine in dict.fromkeys(engine for engine, _ in taken):
            cells = []
            for rows in ROWS:
                times = taken[engine, rows]
                cell = f"{statistics.median(times):,.0f} ({min(times):,.0f}..{max(times):,.0f})"
                against = taken.get(("onnxruntime", rows))
                if engine.startswith("disrust") and against:
                    cell += f", {statistics.median(against) / statistics.median(times):.1f} ×"
                cells.append(cell)
            print(f"| {name} | {engine} | " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
