"""Where a run's numbers come from: versions and what can draw its scalars."""

from __future__ import annotations

import contextlib
import platform

import mmengine
import torch

import mlcil


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


def visual_backends() -> list[dict[str, str]]:
    """Scalars as json lines, and TensorBoard when it is installed."""
    backends = [{"type": "LocalVisBackend"}]
    with contextlib.suppress(ImportError):
        import torch.utils.tensorboard  # noqa: F401

        backends.append({"type": "TensorboardVisBackend"})
    return backends
