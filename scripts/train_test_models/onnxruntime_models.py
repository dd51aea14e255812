#!/usr/bin/env python3
"""Makes the small ONNX models of model/tests/data/onnxruntime: of what disrust does not support itself.

    pip install onnx==1.23.2 onnxruntime==1.32.0 scikit-learn==1.9.1 skl2onnx==1.20.0
    python3 scripts/train_test_models/onnxruntime_models.py model/tests/data/onnxruntime

Writes NAME.onnx, NAME.inputs.csv and NAME.expected.csv (what onnxruntime gives, row by row; of a classifier's two classes,
the second); for what is to be refused, the model alone. The same versions give the same files.
"""

import sys
from pathlib import Path

from hard_rows import write

# Files beside this one are called as the libraries are.
sys.path.pop(0)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from skl2onnx import convert_sklearn  # noqa: E402
from skl2onnx.common.data_types import FloatTensorType  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402

FOLDER = Path(sys.argv[1])
# More than the rows of one run.
TESTED = 70
RANDOM = np.random.RandomState(11)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def constant(name, values, kind=np.float32):
    return numpy_helper.from_array(np.array(values, dtype=kind), name)


def random(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def model(nodes, constants, shape, outputs, kind=TensorProto.FLOAT):
    """A graph of an input X of this shape, as a file has it. `outputs` are names with shapes."""
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(name, kind, dims) for name, dims in outputs]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def score(session, row):
    """The scores of one row."""
    output = session.get_outputs()[-1]
    given = session.run([output.name], {session.get_inputs()[0].name: row})[0]
    scores = list(given[0].values()) if isinstance(given, list) else np.reshape(given, -1).tolist()
    return scores[1:] if len(session.get_outputs()) == 2 and len(scores) == 2 else scores


def save(name, content, rows=None):
    (FOLDER / f"{name}.onnx").write_bytes(content)
    if rows is not None:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        write(FOLDER / f"{name}.inputs.csv", rows.reshape(len(rows), -1), 9)
        write(FOLDER / f"{name}.expected.csv", [score(session, row[None]) for row in rows], 9)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_shapes()
    save_operators()
    save_classifiers()
    save_refused()


def save_shapes():
    """Outputs of each shape and type, inputs of each shape."""
    columns = constant("columns", [2, 0], np.int64)
    axis = constant("axis", [1], np.int64)
    gather = node("Gather", "X columns", "G", axis=1)
    # [rows]
    nodes = [node("Sin", "X", "S"), node("ReduceSum", "S axis", "Y", keepdims=0)]
    save("sum_of_sines", model(nodes, [axis], [None, 3], [("Y", [None])]), random(TESTED, 3))
    # The file tells neither how wide a row is nor the output.
    nodes = [gather, node("Sin", "G", "Y")]
    save("unknown_widths", model(nodes, [columns], [None, None], [("Y", [None, None])]), random(TESTED, 3))
    # A graph for a row alone.
    nodes = [gather, node("Sin", "G", "S"), node("Reshape", "S shape", "Y")]
    shape = constant("shape", [1, 2], np.int64)
    save("one_row", model(nodes, [columns, shape], [1, 3], [("Y", [1, 2])]), random(TESTED, 3))
    save("one_row_untold", model(nodes, [columns, shape], [None, 3], [("Y", [1, 2])]), random(TESTED, 3))
    # f64 and i64.
    nodes = [node("Cast", "X", "D", to=TensorProto.DOUBLE), node("Sin", "D", "C"), node("ReduceSum", "C axis", "Y")]
    save("doubles", model(nodes, [axis], [None, 4], [("Y", [None, 1])], TensorProto.DOUBLE), random(TESTED, 4))
    nodes = [node("Floor", "X", "F"), node("Cast", "F", "Y", to=TensorProto.INT64)]
    save("integers", model(nodes, [], [None, 2], [("Y", [None, 2])], TensorProto.INT64), 100 * random(TESTED, 2))


def save_operators():
    """Networks of what tables of features are scored with, and is not supported."""
    constants = [constant("scale", random(6)), constant("bias", random(6)), constant("weights", random(6, 3))]
    nodes = [node("LayerNormalization", "X scale bias", "N", axis=-1), node("MatMul", "N weights", "Y")]
    save("layer_norm", model(nodes, constants, [None, 6], [("Y", [None, 3])]), random(TESTED, 6))
    constants = [constant("two", 2), constant("half", 0.5), constant("weights", random(4, 1))]
    nodes = [
        node("Abs", "X", "A"),
        node("Pow", "A two", "P"),
        node("Less", "A half", "L"),
        node("Where", "L P A", "W"),
        node("MatMul", "W weights", "Y"),
    ]
    save("pow_where", model(nodes, constants, [None, 4], [("Y", [None, 1])]), random(TESTED, 4))
    nodes = [
        node("Conv", "X kernel", "C"),
        node("Relu", "C", "R"),
        node("GlobalAveragePool", "R", "P"),
        node("Flatten", "P", "Y"),
    ]
    kernel = [constant("kernel", random(3, 2, 3))]
    save("convolution", model(nodes, kernel, [None, 2, 5], [("Y", [None, 3])]), random(TESTED, 2, 5))
    # The first feature is a category, which has a vector; one that has none fails.
    constants = [
        constant("first", [0], np.int64),
        constant("table", random(3, 4)),
        constant("axis", [1], np.int64),
    ]
    nodes = [
        node("Gather", "X first", "F", axis=1),
        node("Cast", "F", "C", to=TensorProto.INT64),
        node("Squeeze", "C axis", "S"),
        node("Gather", "table S", "V", axis=0),
        node("ReduceSum", "V axis", "E"),
        node("ReduceSum", "X axis", "T"),
        node("Add", "E T", "Y"),
    ]
    rows = random(TESTED, 3)
    rows[:, 0] = RANDOM.randint(0, 3, TESTED)
    save("embedding", model(nodes, constants, [None, 3], [("Y", [None, 1])]), rows)


def save_classifiers():
    """Of two classes and of three, of integers and of text, with ZipMap and without."""
    rows, tested = random(200, 4), random(TESTED, 4)
    two = (rows[:, 0] + rows[:, 1] > 0).astype(np.int64)
    three = np.array(["low", "middle", "high"])[np.digitize(rows[:, 2], [-0.5, 0.5])]
    for name, classes in [("two", two), ("three", three)]:
        bayes = GaussianNB().fit(rows, classes)
        save(f"bayes_of_{name}_zipmap", converted(bayes, True), tested)
        save(f"bayes_of_{name}_tensor", converted(bayes, False), tested)
    save("neighbours", converted(KNeighborsClassifier(3).fit(rows[:40], two[:40]), False), tested)


def converted(classifier, zipmap):
    """What skl2onnx makes of a classifier of four features."""
    inputs = [("input", FloatTensorType([None, 4]))]
    options = {id(classifier): {"zipmap": zipmap}}
    made = convert_sklearn(classifier, "graph", inputs, options=options, target_opset=17)
    # They come in the order of a set.
    made.opset_import.sort(key=lambda imported: imported.domain)
    return made.SerializeToString()


def save_refused():
    """What onnxruntime would take, and a server of rows can't."""
    sine = node("Sin", "X", "S")
    nodes = [sine, node("ReduceMean", "S", "M", axes=[0]), node("Sub", "S M", "Y")]
    save("refused_mixes_rows", model(nodes, [], [None, 2], [("Y", [None, 2])]))
    save("refused_seven_rows", model([node("Sin", "X", "Y")], [], [7, 2], [("Y", [7, 2])]))
    weights = constant("W", random(2))
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph([sine, node("Add", "S W", "Y")], "graph", inputs, outputs, [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save("refused_elsewhere", made.SerializeToString())
    # An operator that is nobody's.
    graph = helper.make_graph([node("Divine", "X", "Y", domain="oracle")], "graph", inputs, outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("oracle", 1)]
    save("refused_unknown", helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


main()
