"""An ONNX graph in whole numbers of 8 bits: static quantisation with calibration images, weights a channel at a time.

What is behind the last convolution, most of a head, stays in floats. What is quantised: convolutions, and what stands
between them, so that the maps are bytes all the way; a ReLU6 becomes the range of its convolution's output.

Processors without VNNI multiply bytes by an instruction that adds two neighbouring products in 16 bits and cuts off
what does not fit (vpmaddubsw). The usual remedy is weights of 7 bits. Here a channel's scale is the smallest at which
no two neighbouring weights can exceed those bits, which loses less than a bit and needs no other file for them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.inference.export import INPUT

BETWEEN = ("Conv", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool", "Pad")
#: those that belong to the convolution in front of them
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
BATCH = 8


def quantised(content: bytes, images: Iterator[np.ndarray]) -> bytes:
    """The same graph in 8 bits.

    Args:
        content: of an ONNX file whose input is uint8 (B, H, W, 3).
        images: uint8 (H, W, 3), which show what the graph will see; some hundred do.

    Raises:
        UserError: a package is missing, no image, or the graph has no convolution.
    """
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError(
            f"int8 needs the package {error.name}, which is not installed; pip install 'mlcil[onnx]'"
        ) from None

    first = list(islice(images, 1))
    if not first:
        raise UserError("int8 needs images to calibrate with, and there is none; give a folder of photos")
    left = chain(first, images)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = list(islice(left, BATCH))
            return {INPUT: np.stack(batch)} if batch else None

    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as name:
            source, prepared, result = (Path(name) / file for file in ("in.onnx", "prepared.onnx", "out.onnx"))
            source.write_bytes(content)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)  # constants, and batch norms in convolutions
            model = onnx.load(prepared)
            nodes = model.graph.node
            last = max((i for i, node in enumerate(nodes) if node.op_type == "Conv"), default=None)
            if last is None:
                raise UserError("this network has no convolution, and int8 is for convolutions; export it without")
            quantization.quantize_static(
                prepared, result, Reader(),
                quant_format=quantization.QuantFormat.QDQ, per_channel=True, op_types_to_quantize=list(BETWEEN),
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[
                    node.name
                    for node in nodes[last + 1 :]
                    if node.op_type not in ACTIVATIONS or node.input[0] != nodes[last].output[0]
                ],
                extra_options={"TensorQuantOverrides": _ranges(model)},
            )  # fmt: skip
            model = onnx.load(result)
    finally:
        logging.disable(logging.NOTSET)
    onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load_from_string(content).metadata_props})
    return bytes(model.SerializeToString())


def _ranges(model: Any) -> dict[str, list[dict[str, Any]]]:
    """By weight of a convolution the range of each of its output channels."""
    from onnx import numpy_helper

    arrays = {entry.name: entry for entry in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in arrays:
            bounds = safe_bounds(numpy_helper.to_array(arrays[node.input[1]]))
            ranges: list[dict[str, Any]] = [{"rmin": np.float32(-b), "rmax": np.float32(b)} for b in bounds]
            found[node.input[1]] = [{**ranges[0], "axis": 0}, *ranges[1:]]
    return found


def safe_bounds(weight_OIhw: np.ndarray) -> np.ndarray:
    """By output channel the value (O,) that becomes 127, so that no two neighbouring weights add up to more than 128.

    255 times 128 fits into 16 bits.

    Neighbours in either order in which a convolution may be written as a product: channels or positions first.
    """
    largest_O = np.abs(weight_OIhw).max((1, 2, 3))
    for ordered in (weight_OIhw, weight_OIhw.transpose(0, 2, 3, 1)):
        flat = ordered.reshape(len(ordered), -1)
        if flat.shape[1] > 1:
            pairs_O = np.abs(flat[:, 1:] + flat[:, :-1]).max(1)
            largest_O = np.maximum(largest_O, pairs_O)  # becomes 127, and by rounding 128
    return np.maximum(largest_O, np.float32(1e-8))
