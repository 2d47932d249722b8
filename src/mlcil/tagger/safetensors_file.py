"""A tagger's weights in the safetensors format, and in its metadata, as json, what a stage checkpoint says besides.

``method_state`` is left out: the file predicts and does not go on learning.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mlcil.engine.checkpoint import STAGE_FORMAT, StageCheckpoint
from mlcil.errors import UserError
from mlcil.files import check_regular, write_bytes
from mlcil.system.onnx_graph import reason_of

CORRECTION = "logit_correction"
TENSORS = ("state_dict", "method_state", CORRECTION)


def write_safetensors(stage: StageCheckpoint, path: Path) -> None:
    """Write it atomically; raises :class:`UserError` when the disk does not take it."""
    tensors = {name: value.clone().contiguous() for name, value in stage.state_dict.items()}  # none shares its memory
    if stage.logit_correction is not None:
        tensors[CORRECTION] = stage.logit_correction.contiguous()
    words = {part.name: json.dumps(getattr(stage, part.name)) for part in fields(stage) if part.name not in TENSORS}
    write_bytes(path, save(tensors, {"format": json.dumps(STAGE_FORMAT), **words}))


def read_safetensors(path: Path) -> StageCheckpoint:
    """Read it.

    Raises:
        UserError: missing, damaged, without our metadata, or its parts contradict each other.
    """
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({reason_of(error)}); export it again") from error
    try:
        content: dict[str, Any] = {name: json.loads(value) for name, value in words.items()}
    except (ValueError, RecursionError):
        content = {}
    correction = tensors.pop(CORRECTION, None)
    content |= {"state_dict": tensors, CORRECTION: correction}
    if content.get("format") != STAGE_FORMAT:
        raise UserError(
            f"{path} holds weights without the metadata of a tagger (format {STAGE_FORMAT}); write it with: "
            "python -m mlcil export TAGGER FILE.safetensors"
        )
    return StageCheckpoint.of(content, path)
