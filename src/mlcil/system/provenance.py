"""Where a run's numbers come from: versions, places and what can draw its scalars."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mmengine
import torch

import mlcil


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import torchvision

    return {
        "mlcil": mlcil.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": metadata.version("timm"),  # importing it takes a second
        "mmengine": mmengine.__version__,
    }


def short_paths(value: Any) -> Any:
    """Nested plain values whose texts name no folder of this machine or person, as far as that can be said.

    What lies below the current folder is named from there, what lies below the home folder from ``~``; others stay.
    """
    if isinstance(value, Mapping):
        return {key: short_paths(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [short_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for folder, word in ((Path.cwd(), "."), (Path.home(), "~")):
        if folder != folder.parent:  # the root would match everywhere
            name = re.escape(str(folder))
            if word == ".":
                value = re.sub(rf"(?<![\w.~/-]){name}/(?=[\w.~-])", "", value)
            value = re.sub(rf"(?<![\w.~/-]){name}(?![\w.~-])", word, value)
    return value


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
