"""A feature extractor as an ONNX file: the smallest backbone that a tagger takes."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(0, 0.3, (6, 3, 8, 8)).astype(np.float32)


def extractor(path, batch="N", side="side", last=False, pooled=False, kind=TensorProto.FLOAT, extra=(), **words):
    """A convolution of 8 pixels a step and a ReLU; ``last``: channels last, ``pooled``: the mean of the map."""
    nodes = [helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2])] if last else []
    given = "turned" if last else "images"
    nodes += [
        helper.make_node("Conv", [given, "weight"], ["map"], strides=[8, 8]),
        helper.make_node("Relu", ["map"], ["y"]),
    ]
    if pooled:
        nodes[-1:] = [
            helper.make_node("Relu", ["map"], ["r"]),
            helper.make_node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
        ]
    elif last:
        nodes[-1:] = [
            helper.make_node("Relu", ["map"], ["r"]),
            helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 3, 1]),
        ]
    sides = (side, side) if isinstance(side, (int, str)) else side
    shape = [batch, *sides, 3] if last else [batch, 3, *sides]
    graph = helper.make_graph(
        nodes,
        "extractor",
        [helper.make_tensor_value_info("images", kind, shape), *extra],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, words)
    onnx.save(model, path)
    return path
