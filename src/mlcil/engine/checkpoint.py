"""The two kinds of file a run leaves in ``saved_models/<run>/``.

``session_<t>.pth`` (stage checkpoint)
    Written once when session t ends: network weights, how to rebuild the network, class names, method
    state, provenance. Enough to predict, to test, and to be the teacher of a resumed run.
``resume.pth``
    The rolling state of the run after its last finished epoch: weights, optimiser, schedule, random
    generators, memory, method state and all results so far.

Both hold tensors and builtins only and load with ``torch.load(..., weights_only=True)``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlcil.errors import UserError
from mlcil.files import write_atomically
from mlcil.interop.pretrained import load_tensors
from mlcil.models.network import IncrementalNetwork, build_network

STAGE_FORMAT = "mlcil-stage-1"
RESUME_FORMAT = "mlcil-resume-1"


def plain(value: Any) -> Any:
    """Copy of a structure with numpy scalars and arrays turned into builtins and tensors."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    return value


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and builtins atomically; raises :class:`UserError` when the disk does not take it."""
    write_atomically(path, lambda file: torch.save(plain(content), file))


def random_state() -> dict[str, Any]:
    """State of the python, numpy, torch and cuda generators."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), np.asarray(keys, dtype=np.int64), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to a saved state."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def load_resume_state(path: Path) -> dict[str, Any]:
    """Read ``resume.pth``.

    Raises:
        UserError: missing, damaged or of another kind.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist, so there is nothing to resume; start the run without --resume")
    content = load_tensors(path)
    if not isinstance(content, dict) or content.get("format") != RESUME_FORMAT:
        raise UserError(f"{path} is no {RESUME_FORMAT} file; give the run's own folder or start without --resume")
    return content


def load_stage(path: Path) -> dict[str, Any]:
    """Read a stage checkpoint.

    Raises:
        UserError: missing, damaged, or not a stage checkpoint.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or content.get("format") != STAGE_FORMAT:
        raise UserError(
            f"{path} is no stage checkpoint of mlcil (format {STAGE_FORMAT}); expected a session_<t>.pth, or "
            "convert a released KRT checkpoint with: python -m mlcil convert"
        )
    return content


def network_of(stage: Mapping[str, Any], path: Path | str = "checkpoint") -> IncrementalNetwork:
    """Rebuild the network of a stage checkpoint, in evaluation mode.

    Raises:
        UserError: the description gives no network, or the weights do not fit it.
    """
    try:
        network = build_network(stage["network"], list(stage["classes_per_session"]))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} describes a network that cannot be built ({error}); write the checkpoint again with this version"
        ) from error
    try:
        network.load_state_dict(stage["state_dict"], strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: the weights do not fit the network described in the same file ({reason})") from error
    return network.eval()
