"""Activated batch normalisation with the rules of InPlaceABN 1.1.0.

    y = act((x - m) / sqrt(v + eps) * (|w| + eps) + b)

The same ``eps`` stands in both places, ``|w|`` is used instead of ``w``, and the gradient of ``|w|`` at
``w = 0`` is +1 (TResNet starts the last layer of every residual branch at exactly 0, so a gradient of 0
there would switch the branch off for ever). Training uses batch statistics with the biased variance and
updates ``running_var`` with the unbiased one, like :class:`torch.nn.BatchNorm2d`.

Source: Rota Bulo et al., "In-Place Activated BatchNorm", CVPR 2018, and the behaviour of the package
``inplace-abn`` 1.1.0. When that package imports, its kernel (which saves the memory of one feature map per
layer in training) is called; otherwise the same numbers come from plain PyTorch. Parameters, buffers and
their names are the same either way.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.sync_batch_norm import SynchronisedBatchNorm

EPS = 1e-5
MOMENTUM = 0.1


@contextlib.contextmanager
def repeated_forward() -> Iterator[None]:
    """Around a forward pass that was made before, for gradients: running statistics do not move again."""
    ABN.repeated += 1
    try:
        yield
    finally:
        ABN.repeated -= 1


def load_package() -> Any | None:
    """The ``inplace_abn`` module when it is installed and its compiled part loads, else ``None``."""
    try:
        return importlib.import_module("inplace_abn")
    except (ImportError, OSError, RuntimeError):
        return None


def positive_part_of(weight: Tensor) -> Tensor:
    """``|weight|`` with gradient +1 at zero (``torch.abs`` has gradient 0 there)."""
    return torch.where(weight < 0, -weight, weight)


class ABN(nn.Module):
    """Batch normalisation followed by leaky ReLU or nothing.

    Args:
        channels: number of channels C of the input (B, C, H, W).
        slope: negative slope of the leaky ReLU; ``None`` for no activation.
        implementation: ``'auto'`` (the package when it imports), ``'package'`` or ``'torch'``.

    Raises:
        ImportError: ``implementation='package'`` and the package does not import.

    Attributes:
        repeated: in how many repeated forward passes this process is.
    """

    repeated = 0

    def __init__(self, channels: int, slope: float | None = None, implementation: str = "auto") -> None:
        super().__init__()
        self.slope = slope
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        package = None if implementation == "torch" else load_package()
        self._package = None if package is None else package.inplace_abn  # a module could not be copied
        if implementation == "package" and self._package is None:
            raise ImportError("the package inplace-abn does not import; use implementation='auto' or 'torch'")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), same dtype."""
        statistics: tuple[Any, Any] = (self.running_mean, self.running_var)
        if self.training and ABN.repeated:
            statistics = (statistics[0].clone(), statistics[1].clone())
        elif self.training:
            self.num_batches_tracked.add_(1)  # type: ignore[operator]
        by_package = self._package is not None and not SynchronisedBatchNorm.active
        if by_package and self.training and x.dtype in (torch.float32, torch.float64):
            return self._package_forward(x, *statistics)
        y = F.batch_norm(
            x,
            *statistics,
            positive_part_of(self.weight) + EPS,
            self.bias,
            self.training,
            MOMENTUM,
            EPS,
        )
        return y if self.slope is None else F.leaky_relu(y, self.slope, inplace=True)

    def _package_forward(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        activation = "identity" if self.slope is None else "leaky_relu"
        return self._package(  # type: ignore[misc, no-any-return]
            x.contiguous().clone(),  # the kernel overwrites its input, which the convolution's caller may hold
            self.weight,
            self.bias,
            mean,
            variance,
            True,
            MOMENTUM,
            EPS,
            activation,
            0.01 if self.slope is None else self.slope,
        )

    def extra_repr(self) -> str:
        kind = "package" if self._package is not None else "torch"
        return f"{self.weight.numel()}, slope={self.slope}, implementation={kind}"


def abn_in_use(model: nn.Module) -> str:
    """Which activated batch norm a model runs, in one phrase."""
    layers = [m for m in model.modules() if isinstance(m, ABN)]
    if not layers:
        return "none in this backbone"
    return "the package inplace-abn" if layers[0]._package is not None else "mlcil's own layer (same numbers)"
