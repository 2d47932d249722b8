"""Released checkpoints to stage checkpoints: KRT, DKT and DAFormer (and back), R-DFCIL and ABD."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcil.datasets.augment import NORMALISATIONS
from mlcil.datasets.folder import read_lines
from mlcil.engine.checkpoint import STAGE_FORMAT, StageCheckpoint
from mlcil.errors import UserError
from mlcil.files import write_atomically
from mlcil.interop.official import (
    COCO_CLASSES,
    data_free_in,
    data_free_sessions,
    from_abd,
    from_official,
    from_rdfcil,
    from_transformer,
    sessions_in,
    to_official,
    to_transformer,
    transformer_in,
    transformer_sessions,
)
from mlcil.interop.tensor_files import load_tensors
from mlcil.models import resnet
from mlcil.models.network import IncrementalNetwork
from mlcil.models.tresnet import VARIANTS
from mlcil.protocols import VOC_CLASSES

#: attention heads of the released models, which their state dicts do not all tell
HEADS = {"krt": 8, "dkt": 12, "daformer": 12}
NAMES = {"krt": "KRT", "dkt": "DKT", "daformer": "DAFormer", "rdfcil": "R-DFCIL", "abd": "ABD"}
METHODS = {**NAMES, "rdfcil": "RDFCIL"}
#: entries without which a state dict says nothing
ESSENTIAL = {
    "krt": {"head.kt_token", "backbone.stem.conv.weight"},
    "dkt": {"backbone.general_token", "backbone.stem.0.weight"},
    "daformer": {"backbone.pos_embed", "backbone.stem.weight", "head.keys.0.weight"},
    "rdfcil": {"backbone.stem.conv.weight", "head.classifiers.0.weight"},
    "abd": {"backbone.stem.conv.weight", "head.linear.weight"},
}
#: data that R-DFCIL's and ABD's networks are normalised for, by the side of its images in pixels
SIZES = {32: "cifar100", 64: "tiny_imagenet", 224: "imagenet"}


def main(options: argparse.Namespace) -> int:
    """``convert SOURCE TARGET``."""
    print(convert_file(options.source, options.target, options.classes, options.heads, options.size))
    return 0


def convert_file(
    source: Path, target: Path, classes: str | None = None, num_heads: int | None = None, size: int | None = None
) -> str:
    """Convert by what the source is: a stage checkpoint becomes an official one, an official one a stage.

    Args:
        source: ``session_<t>.pth``, a released ``coco2014_tresnet_m_ica_0to80.pth`` of KRT, a
            ``checkpoint_<t>.pth`` of DKT or DAFormer, a ``last.ckpt`` of R-DFCIL, or a ``class.pth`` of ABD.
        target: file to write.
        classes: for an official source: ``coco``, ``voc`` or a text file of class names in index order.
        num_heads: attention heads, which an official file of KRT or DKT does not tell; default: as released.
        size: side of the images, 32 (CIFAR-100), 64 (Tiny-ImageNet) or 224 (ImageNet), which a file of R-DFCIL or ABD
            does not tell; default: 32, and 224 for R-DFCIL's ResNet-18.

    Returns:
        One sentence about what was done.

    Raises:
        UserError: the source is neither, or names and classes do not fit it.
    """
    with torch.serialization.safe_globals([argparse.Namespace]):  # the options in a checkpoint of DKT or DAFormer
        content = load_tensors(source)
    if isinstance(content, dict) and content.get("format") == STAGE_FORMAT:
        network = StageCheckpoint.load(source).build(source)
        kind = str(network.spec["head"]["type"])
        if kind in ("dkt", "daformer"):
            official = to_transformer(network.state_dict(), kind)
            write_atomically(target, lambda file: torch.save({"model": official}, file))
            return f"{target}: {len(official)} entries in the official layout of {NAMES[kind]}"
        if kind in ("session_linear", "full_linear"):
            raise UserError(f"{source} is a stage of {content['method']}, which is not converted back; give one of KRT")
        official = to_official(network.state_dict())
        write_atomically(target, lambda file: torch.save(official, file))
        return f"{target}: {len(official)} entries in the official KRT layout"
    stage = stage_from_official(content, source, classes, num_heads, size)
    stage.save(target)
    return (
        f"{target}: stage checkpoint of {stage.method} with {len(stage.classes_per_session)} session(s), "
        f"{len(stage.classes)} classes"
    )


def stage_from_official(
    content: Any, source: Path, classes: str | None, num_heads: int | None, size: int | None = None
) -> StageCheckpoint:
    """The stage checkpoint for an official state dict, bare or under ``state_dict`` or ``model``."""
    state = content
    if isinstance(content, Mapping):
        state = next((content[key] for key in ("state_dict", "model") if key in content), content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{source} holds no state dict; expected a released KRT checkpoint or a session_<t>.pth")
    kind = transformer_in(state) or data_free_in(state) or "krt"
    if kind in ("rdfcil", "abd"):
        sizes = data_free_sessions(state, kind)
        if kind == "abd":  # one layer for all classes; those with a name are seen
            sizes = [len(class_names(classes, sizes[0], fewer=True))]
    else:
        sizes = transformer_sessions(state, kind) if kind != "krt" else sessions_in(state)
    if not sizes or min(sizes) < 1:
        raise UserError(f"{source} has no heads named head.<i>.head.bias; expected a released KRT checkpoint with ICA")
    ours, unknown = translate(state, kind)
    if unknown:
        raise UserError(
            f"{source} has {len(unknown)} unknown entries such as {unknown[0]}; expected a {NAMES[kind]} checkpoint"
        )
    absent = ESSENTIAL[kind] - set(ours)
    if absent:
        raise UserError(
            f"{source} is incomplete: nothing in it becomes {min(absent)}; expected a {NAMES[kind]} checkpoint"
        )
    heads = num_heads or HEADS.get(kind, 0)
    try:
        if kind in ("rdfcil", "abd"):
            network = data_free_network(ours, kind, size)
        else:
            network = {"krt": krt_network, "dkt": dkt_network, "daformer": daformer_network}[kind](ours, heads)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{source}{f' with --heads {heads}' if heads else ''}: {error}") from error
    names = class_names(classes, sum(sizes))
    for size in sizes:
        network.grow(size)
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}  # not in all files
    stage = StageCheckpoint(
        run=source.stem,
        session=len(sizes) - 1,
        network=network.spec,
        classes_per_session=sizes,
        classes=names,
        state_dict={**counters, **ours},
        method=METHODS[kind],
        task="multi_label" if kind == "krt" else "single_label",
        weights={"source": str(source.name), "trained_on": f"converted from a released {NAMES[kind]} checkpoint"},
    )
    stage.build(source)  # names and shapes agree, or this says what does not
    return stage


def translate(state: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], list[str]]:
    """Our state dict of the network, and the names that have no place in it."""
    if kind == "krt":
        return from_official(state)
    if kind == "abd":
        return from_abd(state)
    if kind == "rdfcil":
        parts, unknown = from_rdfcil(state)
        return parts.get("network", {}), unknown
    return from_transformer(state, kind)


def data_free_network(ours: Mapping[str, Tensor], kind: str, size: int | None) -> IncrementalNetwork:
    """A network without outputs that fits translated weights of R-DFCIL or ABD.

    Raises:
        ValueError: no such network, or an image size without data.
    """
    stages = [int(name.split(".")[2]) for name in ours if name.startswith("backbone.stages.")]
    counts = tuple(
        1 + max(int(name.split(".")[3]) for name in ours if name.startswith(f"backbone.stages.{stage}."))
        for stage in range(1 + max(stages, default=-1))
    )
    planes = ours["backbone.stem.conv.weight"].shape[0]
    name = next(
        (
            v
            for v, o in resnet.VARIANTS.items()
            if v.endswith(kind) and (o["blocks"], o["widths"][0]) == (counts, planes)
        ),
        None,
    )
    if name is None:
        raise ValueError(f"its stages have {counts} blocks, which no network of {NAMES[kind]} has")
    size = size or (224 if name == "resnet18_rdfcil" else 32)
    if size not in SIZES:
        raise ValueError(f"--size is {size}; expected one of {', '.join(map(str, SIZES))}")
    data = SIZES[size] if kind == "rdfcil" or size == 224 else f"abd_{SIZES[size]}"
    head: dict[str, Any] = {"type": "session_linear"}
    if kind == "abd":
        head = {"type": "full_linear", "num_classes": len(ours["head.linear.weight"])}
    mean, std = NORMALISATIONS[data]
    return IncrementalNetwork({"name": name, "mean": list(mean), "std": list(std)}, head, size)


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


def class_names(classes: str | None, count: int, fewer: bool = False) -> list[str]:
    """``count`` class names in index order from a name or a text file, or as many as it has if ``fewer`` will do."""
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
        if not Path(classes).exists():
            raise UserError(f"--classes {classes}: no such file; expected 'coco', 'voc' or a text file of class names")
        names = read_lines(Path(classes), "one class name a line")
    if len(names) < (1 if fewer else count):
        raise UserError(f"--classes gives {len(names)} names, but the checkpoint has {count} outputs")
    return names[:count]
