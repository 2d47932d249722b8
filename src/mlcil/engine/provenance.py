"""Where a run's numbers come from: versions, device, kernels."""

from __future__ import annotations

import contextlib
import platform

import mmengine
import torch
from torch import nn

import mlcil
from mlcil.models.inplace_abn import ABN


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import timm
    import torchvision

    return {
        "mlcil": mlcil.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "mmengine": mmengine.__version__,
    }


def abn_in_use(model: nn.Module) -> str:
    """Which activated batch norm a model runs, in one phrase."""
    layers = [m for m in model.modules() if isinstance(m, ABN)]
    if not layers:
        return "none in this backbone"
    return "the package inplace-abn" if layers[0]._package is not None else "mlcil's own layer (same numbers)"


def visual_backends() -> list[dict[str, str]]:
    """Scalars as json lines, and TensorBoard when it is installed."""
    backends = [{"type": "LocalVisBackend"}]
    with contextlib.suppress(ImportError):
        import torch.utils.tensorboard  # noqa: F401

        backends.append({"type": "TensorboardVisBackend"})
    return backends
