"""A module as an ONNX graph: images as they come from a decoder go in, everything behind them is inside."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from mlcil.errors import UserError
from mlcil.inference.session import reason_of
from mlcil.models.data_preprocessor import network_input

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
    try:
        import onnx
        import onnxscript  # noqa: F401  # what torch's exporter asks for
    except ImportError as error:
        raise UserError(
            f"writing an ONNX graph needs the package {error.name}, which is not installed; pip install 'mlcil[onnx]'"
        ) from None
    images = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    batch = {0: torch.export.Dim.DYNAMIC}
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                FromBytes(module).eval(), (images,), input_names=[INPUT], output_names=[output],
                dynamic_shapes=(batch,), dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
            assert program is not None
            model = program.model_proto
    except Exception as error:  # torch has many classes for what it cannot export
        raise UserError(f"this network cannot be written as an ONNX graph ({reason_of(error)})") from error
    onnx.helper.set_model_props(model, dict(metadata or {}))
    return bytes(model.SerializeToString())


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
