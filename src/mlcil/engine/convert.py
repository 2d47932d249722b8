"""Released KRT checkpoints to stage checkpoints and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mlcil
from mlcil.engine import checkpoint
from mlcil.errors import UserError
from mlcil.files import write_atomically
from mlcil.interop.official import COCO_CLASSES, from_official, sessions_in, to_official
from mlcil.interop.tensor_files import load_tensors
from mlcil.models.network import IncrementalNetwork
from mlcil.models.tresnet import VARIANTS
from mlcil.protocols import VOC_CLASSES


def convert_file(source: Path, target: Path, classes: str | None = None, num_heads: int = 8) -> str:
    """Convert by what the source is: a stage checkpoint becomes an official one, an official one a stage.

    Args:
        source: ``session_<t>.pth`` or a released ``coco2014_tresnet_m_ica_0to80.pth``.
        target: file to write.
        classes: for an official source: ``coco``, ``voc`` or a text file of class names in index order.
        num_heads: attention heads, which an official file does not tell.

    Returns:
        One sentence about what was done.

    Raises:
        UserError: the source is neither, or names and classes do not fit it.
    """
    content = load_tensors(source)
    if isinstance(content, dict) and content.get("format") == checkpoint.STAGE_FORMAT:
        network = checkpoint.network_of(content, source)
        official = to_official(network.state_dict())
        write_atomically(target, lambda file: torch.save(official, file))
        return f"{target}: {len(official)} entries in the official KRT layout"
    stage = stage_from_official(content, source, classes, num_heads)
    checkpoint.save(target, stage)
    return (
        f"{target}: stage checkpoint with {len(stage['classes_per_session'])} session(s), "
        f"{len(stage['classes'])} classes"
    )


def stage_from_official(content: Any, source: Path, classes: str | None, num_heads: int) -> dict[str, Any]:
    """The content of a stage checkpoint for an official state dict."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{source} holds no state dict; expected a released KRT checkpoint or a session_<t>.pth")
    sizes = sessions_in(state)
    if not sizes:
        raise UserError(f"{source} has no heads named head.<i>.head.bias; expected a released KRT checkpoint with ICA")
    ours, unknown = from_official(state)
    if unknown:
        raise UserError(f"{source} has {len(unknown)} unknown entries such as {unknown[0]}; expected a KRT checkpoint")
    absent = {"head.kt_token", "backbone.stem.conv.weight"} - set(ours)
    if absent:
        raise UserError(f"{source} is incomplete: nothing in it becomes {min(absent)}; expected a KRT checkpoint")
    names = class_names(classes, sum(sizes))
    width = ours["head.kt_token"].shape[-1]
    position = ours.get("head.pos_embed")
    grid = int(position.shape[1] ** 0.5) if position is not None else 7
    counts = [0, 0, 0, 0]
    for name in ours:
        if name.startswith("backbone.stages."):
            stage_index, block = map(int, name.split(".")[2:4])
            counts[stage_index] = max(counts[stage_index], block + 1)
    planes = ours["backbone.stem.conv.weight"].shape[0]
    variant = next((v for v, (n, w) in VARIANTS.items() if n == tuple(counts) and int(64 * w) == planes), None)
    backbone = {"name": variant} if variant else {"name": "tresnet", "layers": counts, "width": planes / 64}
    head = {"type": "ica", "embed_dim": width, "num_heads": num_heads, "pos_embed": position is not None}
    try:
        network = IncrementalNetwork(backbone, head, grid * 32)
    except ValueError as error:
        raise UserError(f"{source} with --heads {num_heads}: {error}") from error
    for size in sizes:
        network.grow(size)
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}  # not in all files
    stage = {
        "format": checkpoint.STAGE_FORMAT,
        "mlcil": mlcil.__version__,
        "run": source.stem,
        "session": len(sizes) - 1,
        "network": network.spec,
        "classes_per_session": sizes,
        "classes": names,
        "state_dict": {**counters, **ours},
        "method": "KRT",
        "method_state": {},
        "protocol": None,
        "protocol_hash": None,
        "metrics": {},
        "weights": {"source": str(source.name), "trained_on": "converted from a released KRT checkpoint"},
    }
    checkpoint.network_of(stage, source)  # names and shapes agree, or this says what does not
    return stage


def class_names(classes: str | None, count: int) -> list[str]:
    """``count`` class names in index order from a name or a text file."""
    if classes is None:
        known = {80: "coco", 20: "voc"}.get(count)
        if known is None:
            raise UserError(f"the checkpoint has {count} classes; give their names with --classes FILE (one per line)")
        classes = known
    if classes == "coco":
        names = list(COCO_CLASSES)
    elif classes == "voc":
        names = list(VOC_CLASSES)
    else:
        path = Path(classes)
        if not path.is_file():
            raise UserError(f"--classes {classes}: no such file; expected 'coco', 'voc' or a text file of class names")
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) < count:
        raise UserError(f"--classes gives {len(names)} names, but the checkpoint has {count} outputs")
    return names[:count]
