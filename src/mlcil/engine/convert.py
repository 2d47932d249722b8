"""Released checkpoints of KRT, DKT and DAFormer to stage checkpoints and back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mlcil
from mlcil.engine import checkpoint
from mlcil.errors import UserError
from mlcil.files import write_atomically
from mlcil.interop.official import (
    COCO_CLASSES,
    from_official,
    from_transformer,
    sessions_in,
    to_official,
    to_transformer,
    transformer_in,
    transformer_sessions,
)
from mlcil.interop.tensor_files import load_tensors
from mlcil.models.network import IncrementalNetwork
from mlcil.models.tresnet import VARIANTS
from mlcil.protocols import VOC_CLASSES

#: attention heads of the released models, which their state dicts do not all tell
HEADS = {"krt": 8, "dkt": 12, "daformer": 12}
NAMES = {"krt": "KRT", "dkt": "DKT", "daformer": "DAFormer"}
#: entries without which a state dict says nothing
ESSENTIAL = {
    "krt": {"head.kt_token", "backbone.stem.conv.weight"},
    "dkt": {"backbone.general_token", "backbone.stem.0.weight"},
    "daformer": {"backbone.pos_embed", "backbone.stem.weight", "head.keys.0.weight"},
}


def convert_file(source: Path, target: Path, classes: str | None = None, num_heads: int | None = None) -> str:
    """Convert by what the source is: a stage checkpoint becomes an official one, an official one a stage.

    Args:
        source: ``session_<t>.pth``, a released ``coco2014_tresnet_m_ica_0to80.pth`` of KRT, or a
            ``checkpoint_<t>.pth`` of DKT or DAFormer.
        target: file to write.
        classes: for an official source: ``coco``, ``voc`` or a text file of class names in index order.
        num_heads: attention heads, which an official file of KRT or DKT does not tell; default: as released.

    Returns:
        One sentence about what was done.

    Raises:
        UserError: the source is neither, or names and classes do not fit it.
    """
    with torch.serialization.safe_globals([argparse.Namespace]):  # the options in a checkpoint of DKT or DAFormer
        content = load_tensors(source)
    if isinstance(content, dict) and content.get("format") == checkpoint.STAGE_FORMAT:
        network = checkpoint.network_of(content, source)
        kind = str(network.spec["head"]["type"])
        if kind in ("dkt", "daformer"):
            official = to_transformer(network.state_dict(), kind)
            write_atomically(target, lambda file: torch.save({"model": official}, file))
            return f"{target}: {len(official)} entries in the official layout of {NAMES[kind]}"
        official = to_official(network.state_dict())
        write_atomically(target, lambda file: torch.save(official, file))
        return f"{target}: {len(official)} entries in the official KRT layout"
    stage = stage_from_official(content, source, classes, num_heads)
    checkpoint.save(target, stage)
    return (
        f"{target}: stage checkpoint of {stage['method']} with {len(stage['classes_per_session'])} session(s), "
        f"{len(stage['classes'])} classes"
    )


def stage_from_official(content: Any, source: Path, classes: str | None, num_heads: int | None) -> dict[str, Any]:
    """The content of a stage checkpoint for an official state dict, bare or under ``state_dict`` or ``model``."""
    state = content
    if isinstance(content, Mapping):
        state = next((content[key] for key in ("state_dict", "model") if key in content), content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{source} holds no state dict; expected a released KRT checkpoint or a session_<t>.pth")
    kind = transformer_in(state) or "krt"
    sizes = transformer_sessions(state, kind) if kind != "krt" else sessions_in(state)
    if not sizes or min(sizes) < 1:
        raise UserError(f"{source} has no heads named head.<i>.head.bias; expected a released KRT checkpoint with ICA")
    ours, unknown = from_transformer(state, kind) if kind != "krt" else from_official(state)
    if unknown:
        raise UserError(
            f"{source} has {len(unknown)} unknown entries such as {unknown[0]}; expected a {NAMES[kind]} checkpoint"
        )
    absent = ESSENTIAL[kind] - set(ours)
    if absent:
        raise UserError(
            f"{source} is incomplete: nothing in it becomes {min(absent)}; expected a {NAMES[kind]} checkpoint"
        )
    heads = num_heads or HEADS[kind]
    try:
        network = {"krt": krt_network, "dkt": dkt_network, "daformer": daformer_network}[kind](ours, heads)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{source} with --heads {heads}: {error}") from error
    names = class_names(classes, sum(sizes))
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
        "method": NAMES[kind],
        "method_state": {},
        "task": "multi_label" if kind == "krt" else "single_label",
        "protocol": None,
        "protocol_hash": None,
        "metrics": {},
        "weights": {"source": str(source.name), "trained_on": f"converted from a released {NAMES[kind]} checkpoint"},
    }
    checkpoint.network_of(stage, source)  # names and shapes agree, or this says what does not
    return stage


def krt_network(ours: Mapping[str, Tensor], num_heads: int) -> IncrementalNetwork:
    """A network without outputs that fits translated KRT weights."""
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
    return IncrementalNetwork(backbone, head, grid * 32)


def _blocks(ours: Mapping[str, Tensor]) -> int:
    return 1 + max((int(name.split(".")[2]) for name in ours if name.startswith("backbone.blocks.")), default=-1)


def dkt_network(ours: Mapping[str, Tensor], num_heads: int) -> IncrementalNetwork:
    """The same for DKT; the size of the stem's kernel tells CIFAR from ImageNet."""
    small = ours["backbone.stem.0.weight"].shape[-1] == 3
    backbone = {
        "name": "dkt",
        "dim": ours["backbone.general_token"].shape[-1],
        "depth": _blocks(ours),
        "heads": num_heads,
        "stem": "cifar" if small else "imagenet",
    }
    return IncrementalNetwork(backbone, {"type": "dkt", "num_heads": num_heads}, 32 if small else 224)


def daformer_network(ours: Mapping[str, Tensor], num_heads: int) -> IncrementalNetwork:
    """The same for DAFormer; the gates tell the attention heads, the keys the edition."""
    gates = ours.get("backbone.blocks.0.attention.gating_param")
    num_heads = len(gates) if gates is not None else num_heads
    patch = ours["backbone.stem.weight"].shape[-1]
    positions, dim = ours["backbone.pos_embed"].shape[-2:]
    shared = "head.classifiers.1.linear.bias" in ours and "head.keys.1.weight" not in ours
    backbone = {"name": "daformer", "dim": dim, "depth": _blocks(ours), "heads": num_heads, "patch": patch}
    head = {"type": "daformer", "edition": "S" if shared else "M", "num_heads": num_heads}
    return IncrementalNetwork(backbone, head, int(positions**0.5) * patch)


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
