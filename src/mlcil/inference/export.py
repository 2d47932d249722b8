"""A module as an ONNX graph: images as they come from a decoder go in, everything behind them is inside."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlcil.errors import UserError
from mlcil.models.data_preprocessor import network_input
from mlcil.system.onnx_graph import Graph, reason_of

INPUT = "images"


class FromBytes(nn.Module):
    """Images as uint8 (B, H, W, 3) -> what the module makes of them as float32 (B, 3, H, W) in [0, 1]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images_BHW3: Tensor) -> Tensor:
        return self.module(network_input(images_BHW3))  # type: ignore[no-any-return]


def to_onnx(module: nn.Module, image_size: int, output: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of an ONNX file; the number of images is free.

    Args:
        module: float32 (B, 3, H, W) in [0, 1] on the CPU -> one tensor (B, ...), in evaluation mode.
        image_size: H and W.
        output: name of the result.
        metadata: words that go into the file.

    Raises:
        UserError: a package is missing, or the module has a part that ONNX does not know.
    """
    onnx = _package()
    try:
        model = _model(FromBytes(module), _images(image_size), INPUT, output)
    except Exception as error:  # torch has many classes for what it cannot export
        raise UserError(f"this network cannot be written as an ONNX graph ({reason_of(error)})") from error
    onnx.helper.set_model_props(model, dict(metadata or {}))
    return bytes(model.SerializeToString())


def around_onnx(
    before: nn.Module, content: bytes, behind: nn.Module, image_size: int, output: str, metadata: Mapping[str, str]
) -> bytes:
    """A graph with a module in front of it and one behind it, as :func:`to_onnx` writes a module.

    Args:
        before: float32 (B, 3, H, W) in [0, 1] -> the graph's input.
        content: of an ONNX file with one input and one output, for any number of images.
        behind: the graph's output -> one tensor (B, ...).
        image_size, output, metadata: as there.

    Raises:
        UserError: a package is missing, or the three do not go together.
    """
    onnx, graph = _package(), Graph(content, "the backbone")
    count = graph.inputs[0].shape[0]
    if isinstance(count, int):
        raise UserError(
            f"the backbone's graph takes {count} images at once and no other number, as an exported tagger should; use "
            "the tagger's file, or start again with a graph for any number"
        )
    try:
        trunk = onnx.load_from_string(content)
        first = _model(FromBytes(before), _images(image_size), INPUT, "pixels")
        features = graph(before(network_input(_images(image_size))).detach().numpy())
        last = _model(behind, torch.from_numpy(features), "features", output)
        (version,) = [entry.version for entry in first.opset_import if not entry.domain]
        trunk = onnx.version_converter.convert_version(trunk, version)
        del trunk.metadata_props[:]
        first.ir_version = trunk.ir_version = last.ir_version
        trunk = onnx.compose.add_prefix(trunk, "backbone/")
        last = onnx.compose.add_prefix(last, "head/", rename_outputs=False)
        for part in (trunk, last):
            joint = first.graph.output[0].name, part.graph.input[0].name
            first = onnx.compose.merge_models(first, part, [joint])
    except Exception as error:  # so have torch and onnx
        raise UserError(f"the backbone's graph cannot be joined with its head ({reason_of(error)})") from error
    onnx.helper.set_model_props(first, dict(metadata))
    return bytes(first.SerializeToString())


def _package() -> Any:
    try:
        import onnx
        import onnx.compose
        import onnx.version_converter
        import onnxscript  # noqa: F401  # what torch's exporter asks for
    except ImportError as error:
        raise UserError(
            f"writing an ONNX graph needs the package {error.name}, which is not installed; pip install 'mlcil[onnx]'"
        ) from None
    return onnx


def _images(image_size: int) -> Tensor:
    return torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)


def _model(module: nn.Module, example: Tensor, given: str, output: str) -> Any:
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(), (example,), input_names=[given], output_names=[output],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
        assert program is not None
        return program.model_proto


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter says much that is of no use to who exports."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
