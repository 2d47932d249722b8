"""Where a run's numbers come from: versions and what can draw its scalars."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

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


def visual_backends(trackers: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Scalars as json lines, and the trackers; ``None`` takes TensorBoard when it is installed."""
    local: dict[str, Any] = {"type": "LocalVisBackend"}
    if trackers is not None:
        return [local, *(dict(tracker) for tracker in trackers if tracker["type"] != local["type"])]
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return [local]
    return [local, {"type": "TensorboardVisBackend"}]
