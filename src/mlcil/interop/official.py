"""Names of other code bases' state dicts, to and from ours.

Three layouts of the same network are understood:

* ``official``: KRT's release and the raw TResNet / ImageNet-21K-P files (``layer2.0.conv1.0.0.weight``,
  ``tab.attn.q.weight``, ``head.1.norm.bias``), with or without ``body.`` and ``module.`` prefixes;
* ``timm``: timm's ``tresnet_*`` (``body.layer2.0.conv1.bn.weight``), whose ordinary batch norms hold
  ``|w| + 1e-5`` where InPlaceABN holds ``w``;
* ours (``backbone.stages.1.0.conv1.abn.weight``, ``head.block.attention.q.weight``).

The released DKT and DAFormer checkpoints have a table each, read in both directions
(:func:`from_transformer`, :func:`to_transformer`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mlcil.errors import UserError
from mlcil.models.inplace_abn import EPS

#: MS-COCO's class names in the order of KRT's released checkpoints (sorted as strings)
COCO_CLASSES: tuple[str, ...] = (
    "airplane", "apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed", "bench",
    "bicycle", "bird", "boat", "book", "bottle", "bowl", "broccoli", "bus", "cake", "car", "carrot", "cat",
    "cell phone", "chair", "clock", "couch", "cow", "cup", "dining table", "dog", "donut", "elephant",
    "fire hydrant", "fork", "frisbee", "giraffe", "hair drier", "handbag", "horse", "hot dog", "keyboard", "kite",
    "knife", "laptop", "microwave", "motorcycle", "mouse", "orange", "oven", "parking meter", "person", "pizza",
    "potted plant", "refrigerator", "remote", "sandwich", "scissors", "sheep", "sink", "skateboard", "skis",
    "snowboard", "spoon", "sports ball", "stop sign", "suitcase", "surfboard", "teddy bear", "tennis racket",
    "tie", "toaster", "toilet", "toothbrush", "traffic light", "train", "truck", "tv", "umbrella", "vase",
    "wine glass", "zebra",
)  # fmt: skip

_PREFIXES = ("module.", "body.")

# official pattern -> ours; the first that matches a whole name is used
_OFFICIAL: tuple[tuple[str, str], ...] = (
    (r"pos_embed", r"head.pos_embed"),
    (r"cls_token", r"head.kt_token"),
    (r"task_tokens\.(\d+)", r"head.kr_tokens.\1"),
    (r"last_proj\.(\w+)", r"head.project.\1"),
    (r"tab\.(norm[12])\.(\w+)", r"head.block.\1.\2"),
    (r"tab\.attn\.(q|k|v|proj)\.(\w+)", r"head.block.attention.\1.\2"),
    (r"tab\.mlp\.fc1\.(\w+)", r"head.block.mlp.0.\1"),
    (r"tab\.mlp\.fc2\.(\w+)", r"head.block.mlp.2.\1"),
    (r"head\.(\d+)\.head\.(\w+)", r"head.classifiers.\1.linear.\2"),
    (r"head\.(\d+)\.norm\.(\w+)", r"head.classifiers.\1.norm.\2"),
    (r"head\.fc\.(\w+)", r"head.linear.\1"),
    (r"conv1\.0\.weight", r"backbone.stem.conv.weight"),
    (r"conv1\.1\.(\w+)", r"backbone.stem.abn.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)(?:\.0)?\.0\.weight", r"backbone.stages.<\1>.\2.conv\3.conv.weight"),
    (r"layer(\d)\.(\d+)\.conv(\d)(?:\.0)?\.1\.(\w+)", r"backbone.stages.<\1>.\2.conv\3.abn.\4"),
    (r"layer(\d)\.(\d+)\.se\.fc1\.(\w+)", r"backbone.stages.<\1>.\2.se.reduce.\3"),
    (r"layer(\d)\.(\d+)\.se\.fc2\.(\w+)", r"backbone.stages.<\1>.\2.se.expand.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.[01]\.0\.weight", r"backbone.stages.<\1>.\2.shortcut.conv.weight"),
    (r"layer(\d)\.(\d+)\.downsample\.[01]\.1\.(\w+)", r"backbone.stages.<\1>.\2.shortcut.abn.\3"),
)
_TIMM: tuple[tuple[str, str], ...] = (
    (r"conv1\.conv\.weight", r"backbone.stem.conv.weight"),
    (r"conv1\.bn\.(\w+)", r"backbone.stem.abn.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.conv\.weight", r"backbone.stages.<\1>.\2.conv\3.conv.weight"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.bn\.(\w+)", r"backbone.stages.<\1>.\2.conv\3.abn.\4"),
    (r"layer(\d)\.(\d+)\.se\.fc1\.(\w+)", r"backbone.stages.<\1>.\2.se.reduce.\3"),
    (r"layer(\d)\.(\d+)\.se\.fc2\.(\w+)", r"backbone.stages.<\1>.\2.se.expand.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.[01]\.conv\.weight", r"backbone.stages.<\1>.\2.shortcut.conv.weight"),
    (r"layer(\d)\.(\d+)\.downsample\.[01]\.bn\.(\w+)", r"backbone.stages.<\1>.\2.shortcut.abn.\3"),
)
# ours -> official; <n> is the stage number plus one, and a strided convolution is nested once more
_REVERSE: tuple[tuple[str, str], ...] = (
    (r"head\.pos_embed", r"pos_embed"),
    (r"head\.kt_token", r"cls_token"),
    (r"head\.kr_tokens\.(\d+)", r"task_tokens.\1"),
    (r"head\.project\.(\w+)", r"last_proj.\1"),
    (r"head\.block\.(norm[12])\.(\w+)", r"tab.\1.\2"),
    (r"head\.block\.attention\.(q|k|v|proj)\.(\w+)", r"tab.attn.\1.\2"),
    (r"head\.block\.mlp\.0\.(\w+)", r"tab.mlp.fc1.\1"),
    (r"head\.block\.mlp\.2\.(\w+)", r"tab.mlp.fc2.\1"),
    (r"head\.classifiers\.(\d+)\.linear\.(\w+)", r"head.\1.head.\2"),
    (r"head\.classifiers\.(\d+)\.norm\.(\w+)", r"head.\1.norm.\2"),
    (r"head\.linear\.(\w+)", r"head.fc.\1"),
    (r"backbone\.stem\.conv\.weight", r"conv1.0.weight"),
    (r"backbone\.stem\.abn\.(\w+)", r"conv1.1.\1"),
    (r"backbone\.stages\.1\.0\.conv1\.conv\.weight", r"layer2.0.conv1.0.0.weight"),
    (r"backbone\.stages\.1\.0\.conv1\.abn\.(\w+)", r"layer2.0.conv1.0.1.\1"),
    (r"backbone\.stages\.([23])\.0\.conv2\.conv\.weight", r"layer<\1>.0.conv2.0.0.weight"),
    (r"backbone\.stages\.([23])\.0\.conv2\.abn\.(\w+)", r"layer<\1>.0.conv2.0.1.\2"),
    (r"backbone\.stages\.(\d)\.(\d+)\.conv(\d)\.conv\.weight", r"layer<\1>.\2.conv\3.0.weight"),
    (r"backbone\.stages\.(\d)\.(\d+)\.conv(\d)\.abn\.(\w+)", r"layer<\1>.\2.conv\3.1.\4"),
    (r"backbone\.stages\.(\d)\.(\d+)\.se\.reduce\.(\w+)", r"layer<\1>.\2.se.fc1.\3"),
    (r"backbone\.stages\.(\d)\.(\d+)\.se\.expand\.(\w+)", r"layer<\1>.\2.se.fc2.\3"),
    (r"backbone\.stages\.0\.(\d+)\.shortcut\.conv\.weight", r"layer1.\1.downsample.0.0.weight"),
    (r"backbone\.stages\.0\.(\d+)\.shortcut\.abn\.(\w+)", r"layer1.\1.downsample.0.1.\2"),
    (r"backbone\.stages\.(\d)\.(\d+)\.shortcut\.conv\.weight", r"layer<\1>.\2.downsample.1.0.weight"),
    (r"backbone\.stages\.(\d)\.(\d+)\.shortcut\.abn\.(\w+)", r"layer<\1>.\2.downsample.1.1.\3"),
)


def _translate(name: str, rules: tuple[tuple[str, str], ...], shift: int) -> str | None:
    for pattern, template in rules:
        match = re.fullmatch(pattern, name)
        if match:
            translated = match.expand(template)
            return re.sub(r"<(\d)>", lambda m: str(int(m[1]) + shift), translated)
    return None


def strip_prefixes(name: str) -> str:
    """Without ``module.`` (data parallel) and ``body.`` (TResNet's trunk)."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate an ``official`` or ``timm`` state dict.

    Returns:
        Our state dict, and the names that belong to neither layout.

    Raises:
        UserError: a timm batch norm has a negative weight, which InPlaceABN cannot represent.
    """
    names = {strip_prefixes(name): name for name in state}
    is_timm = any(re.fullmatch(r"(layer\d\.\d+\.)?conv\d\.bn\.\w+", name) for name in names)
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, original in names.items():
        translated = _translate(name, _TIMM if is_timm else _OFFICIAL, shift=-1)
        if translated is None:
            unknown.append(original)
            continue
        value = state[original]
        if is_timm and translated.endswith("abn.weight"):
            if bool((value < 0).any()):
                raise UserError(
                    f"{original} has negative entries, but InPlaceABN's effective weight |w| + 1e-5 is positive; "
                    "these are not TResNet weights of timm's converter"
                )
            value = (value - EPS).clamp_min(0)
        ours[translated] = value
    return ours, unknown


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of a TResNet with an ICA or linear head, under the names of KRT's release.

    Raises:
        UserError: an entry has no official counterpart (a timm backbone, say).
    """
    official: dict[str, Tensor] = {}
    for name, value in state.items():
        translated = _translate(name, _REVERSE, shift=+1)
        if translated is None:
            raise UserError(f"{name} has no counterpart in the official KRT layout, which holds TResNet models only")
        official[translated] = value
    return official


def sessions_in(official: Mapping[str, Tensor]) -> list[int]:
    """Classes per session of an official KRT state dict, from the shapes of its heads."""
    sizes: dict[int, int] = {}
    for name, value in official.items():
        match = re.fullmatch(r"head\.(\d+)\.head\.bias", strip_prefixes(name))
        if match:
            sizes[int(match[1])] = int(value.shape[0])
    return [sizes[index] for index in sorted(sizes)]


# -- DKT and DAFormer ----------------------------------------------------------------------------------------

# official, ours; # is a number and * the rest of the name, in the same order on both sides
_TRANSFORMERS: dict[str, tuple[tuple[str, str], ...]] = {
    "dkt": (
        ("general_token", "backbone.general_token"),
        ("patch_embed.proj1.*", "backbone.stem.0.*"),
        ("patch_embed.proj2.*", "backbone.stem.1.*"),
        ("patch_embed.proj4.*", "backbone.stem.3.*"),
        ("sabs.#.norm#.*", "backbone.blocks.#.norm#.*"),
        ("sabs.#.attn.*", "backbone.blocks.#.attention.*"),
        ("sabs.#.mlp.*", "backbone.blocks.#.mlp.*"),
        ("task_tokens.#", "head.tokens.#"),
        ("tabs.norm#.*", "head.block.norm#.*"),
        ("tabs.attnCA.*", "head.block.attention.*"),
        ("tabs.mlp.*", "head.block.mlp.*"),
        ("head.0.head.*", "head.stability.linear.*"),
        ("head.0.norm.*", "head.stability.norm.*"),
        ("head.1.head.*", "head.plasticity.linear.*"),
        ("head.1.norm.*", "head.plasticity.norm.*"),
    ),
    "daformer": (
        ("pos_embed", "backbone.pos_embed"),
        ("patch_embed.proj.*", "backbone.stem.*"),
        ("sabs.#.norm#.*", "backbone.blocks.#.norm#.*"),
        ("sabs.#.attn.*", "backbone.blocks.#.attention.*"),
        ("sabs.#.mlp.*", "backbone.blocks.#.mlp.*"),
        ("duals.0.norm#.*", "head.block.norm#.*"),
        ("duals.0.attn.to_*", "head.block.attention.*"),
        ("duals.0.mlp.*", "head.block.mlp.*"),
        ("keys.#.*", "head.keys.#.*"),
        ("head.#.head.*", "head.classifiers.#.linear.*"),
        ("head.#.norm.*", "head.classifiers.#.norm.*"),
        ("head_div.head.*", "head.divergence.linear.*"),
        ("head_div.norm.*", "head.divergence.norm.*"),
    ),
}
#: entries of the released models that no forward pass uses: a second stem, projections that are never called
_UNUSED = {
    "dkt": r"patch_embed\.proj\.[013]\.\w+|tabs\.attnCA\.(q|k|v|proj)1\.\w+",
    "daformer": r"duals\.\d+\.attn\.proj\.\w+",
}
_FUSED = r"sabs\.(\d+)\.attn\.(q|k|v)\.(weight|bias)"  # one layer here: backbone.blocks.#.attention.qkv


def transformer_in(state: Mapping[str, Tensor]) -> str | None:
    """``dkt`` or ``daformer`` where a state dict has a name that only that release has, else ``None``."""
    names = {name.removeprefix("module.") for name in state}
    if "general_token" in names or "tabs.norm1.weight" in names:
        return "dkt"
    return "daformer" if any(name.startswith("duals.") for name in names) else None


def dual_blocks(names: Iterable[str]) -> int:
    """Dual blocks in the names of a released DAFormer, at least 1.

    The release feeds the encoder's tokens to each block and keeps the last one's result: only that one counts.
    """
    found = (re.match(r"(?:module\.)?duals\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=1)


def is_unused(name: str, method: str, duals: int = 1) -> bool:
    """Whether the released model of ``dkt`` or ``daformer`` has an entry of that name but never uses it.

    Args:
        name: of the entry.
        method: ``dkt`` or ``daformer``.
        duals: number of dual blocks of the DAFormer, see :func:`dual_blocks`.
    """
    block = re.match(r"duals\.(\d+)\.", name)
    superseded = block is not None and int(block[1]) < duals - 1
    return superseded or re.fullmatch(_UNUSED[method], name) is not None


def from_transformer(state: Mapping[str, Tensor], method: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a released ``dkt`` or ``daformer`` state dict; unused entries are left out.

    A DAFormer with several dual blocks becomes one with the last of them, which computes the same; a warning says so.

    Returns:
        Our state dict, and the names that do not belong to the layout.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    duals = dual_blocks(state)
    if duals > 1:
        warnings.warn(
            f"the checkpoint has {duals} dual blocks, each fed the encoder's tokens, of which the release uses the "
            "last one's result only; that block alone is taken over and further training is of that block",
            stacklevel=2,
        )
    for original, value in state.items():
        name = original.removeprefix("module.")
        if is_unused(name, method, duals):
            continue
        name = name.replace(f"duals.{duals - 1}.", "duals.0.", 1)
        fused = re.fullmatch(_FUSED, name)
        if method == "dkt" and fused:
            names = [original.replace(f".attn.{fused[2]}.", f".attn.{part}.") for part in "qkv"]
            if not all(other in state for other in names):
                unknown.append(original)  # of no use without the others
            elif fused[2] == "q":
                ours[f"backbone.blocks.{fused[1]}.attention.qkv.{fused[3]}"] = torch.cat([state[n] for n in names])
            continue
        translated = _rename(name, _TRANSFORMERS[method])
        if translated is None:
            unknown.append(original)
        elif re.fullmatch(r"head\.keys\.\d+\.weight", translated):
            ours[translated] = value.flatten(1)  # a 1x1 convolution there, a linear layer here
        else:
            ours[translated] = value
    return ours, unknown


def to_transformer(state: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """Our state dict of a ``dkt`` or ``daformer`` network under the released names, without unused entries.

    Raises:
        UserError: an entry has no official counterpart.
    """
    rules = tuple((ours, official) for official, ours in _TRANSFORMERS[method])
    official: dict[str, Tensor] = {}
    for name, value in state.items():
        translated = _rename(name, rules)
        if translated is None:
            raise UserError(f"{name} has no counterpart in the official layout of {method}")
        if ".attn.qkv." in translated:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                official[translated.replace(".qkv.", f".{part}.")] = rows
        elif re.fullmatch(r"keys\.\d+\.weight", translated):
            official[translated] = value[:, :, None, None]
        else:
            official[translated] = value
    return official


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for source, target in rules:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", r"(.+)")
        match = re.fullmatch(pattern, name)
        if match:
            parts = iter(match.groups())
            return re.sub(r"[#*]", lambda _: next(parts), target)  # noqa: B023  (used at once)
    return None


def transformer_sessions(state: Mapping[str, Tensor], method: str) -> list[int]:
    """Classes per session of a released ``dkt`` or ``daformer`` state dict.

    DKT's merged classifier does not tell its sessions apart; all sessions after the first have the newest
    one's number of classes there.
    """
    sizes = sessions_in(state)
    if method == "daformer" or len(sizes) < 2:
        return sizes
    old, new = sizes
    later = sum(strip_prefixes(name).startswith("task_tokens.") for name in state) - 1
    return [old - (later - 1) * new, *[new] * later]


# -- R-DFCIL and ABD -------------------------------------------------------------------------------------------

# classifiers of both releases; R-DFCIL's names come with ``backbone.``, ABD's without
_SINGLE_LABEL: tuple[tuple[str, str], ...] = (
    (r"backbone\.conv_1_3x3\.weight", r"backbone.stem.conv.weight"),
    (r"backbone\.bn_1\.(\w+)", r"backbone.stem.norm.\1"),
    (r"backbone\.stage_(\d)\.blocks\.(\d+)\.conv_a\.weight", r"backbone.stages.<\1>.\2.conv1.conv.weight"),
    (r"backbone\.stage_(\d)\.blocks\.(\d+)\.conv_b\.weight", r"backbone.stages.<\1>.\2.conv2.conv.weight"),
    (r"backbone\.stage_(\d)\.blocks\.(\d+)\.bn_a\.(\w+)", r"backbone.stages.<\1>.\2.conv1.norm.\3"),
    (r"backbone\.stage_(\d)\.blocks\.(\d+)\.bn_b\.(\w+)", r"backbone.stages.<\1>.\2.conv2.norm.\3"),
    (r"backbone\.stage_4\.conv_a\.weight", r"backbone.stages.3.0.conv1.conv.weight"),
    (r"backbone\.stage_4\.conv_b\.weight", r"backbone.stages.3.0.conv2.conv.weight"),
    (r"backbone\.stage_4\.bn_a\.(\w+)", r"backbone.stages.3.0.conv1.norm.\1"),
    (r"backbone\.stage_4\.bn_b\.(\w+)", r"backbone.stages.3.0.conv2.norm.\1"),
    (r"(?:backbone\.)?conv1\.weight", r"backbone.stem.conv.weight"),
    (r"(?:backbone\.)?bn1\.(\w+)", r"backbone.stem.norm.\1"),
    (r"(?:backbone\.)?layer(\d)\.(\d+)\.conv(\d)\.weight", r"backbone.stages.<\1>.\2.conv\3.conv.weight"),
    (r"(?:backbone\.)?layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"backbone.stages.<\1>.\2.conv\3.norm.\4"),
    (r"(?:backbone\.)?layer(\d)\.(\d+)\.downsample\.0\.weight", r"backbone.stages.<\1>.\2.shortcut.conv.weight"),
    (r"(?:backbone\.)?layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"backbone.stages.<\1>.\2.shortcut.norm.\3"),
    (r"head\.classifiers\.(\d+)\.weight", r"head.classifiers.\1.weight"),
    (r"last\.(\w+)", r"head.linear.\1"),
)
_RELATION: tuple[tuple[str, str], ...] = (
    (r"embed1\.(\w+)", r"student.\1"),
    (r"embed2\.(\w+)", r"teacher.\1"),
)
# generators of both releases (conv_blocks6 ends the one for 224 pixels), and DGR's auto-encoder
_GENERATOR: tuple[tuple[str, str], ...] = (
    (r"l1\.0\.(\w+)", r"project.\1"),
    (r"conv_blocks0\.0\.(\w+)", r"norm.\1"),
    (r"conv_blocks(?:6\.0|\d\.3)\.(\w+)", r"to_image.conv.\1"),
    (r"conv_blocks(?:6\.2|\d\.5)\.(\w+)", r"to_image.norm.\1"),
    (r"conv_blocks(\d)\.0\.(\w+)", r"blocks.<\1>.conv.\2"),
    (r"conv_blocks(\d)\.1\.(\w+)", r"blocks.<\1>.norm.\2"),
    (r"(encoder|decoder)\.(\d)\.0\.(\w+)", r"\1.\2.\3"),
    (r"q_mean\.(\w+)", r"mean.\1"),
    (r"q_logvar\.(\w+)", r"log_variance.\1"),
    (r"project\.(\w+)", r"project.\1"),
)
# parts of R-DFCIL's module: the prefix, the part's name here, how its names translate
_RDFCIL_PARTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("rkd.", "relation", _RELATION),
    ("model_old.", "teacher", _SINGLE_LABEL),
    ("inversion.model.", "teacher", _SINGLE_LABEL),  # the same weights once more
    ("inversion.generator.", "generator", _GENERATOR),
    ("generator.", "generator", _GENERATOR),  # of inversion.ckpt
    ("model.", "teacher", _SINGLE_LABEL),
    ("", "network", _SINGLE_LABEL),
)


def data_free_in(state: Mapping[str, Tensor]) -> str | None:
    """``rdfcil`` or ``abd`` for a classifier of their releases, else ``None``."""
    if {"head.classifiers.0.weight", "backbone.conv_1_3x3.weight"} <= set(state) or (
        {"head.classifiers.0.weight", "backbone.conv1.weight"} <= set(state)
    ):
        return "rdfcil"
    return "abd" if {"last.weight", "conv1.weight"} <= set(state) else None


def data_free_sessions(state: Mapping[str, Tensor], method: str) -> list[int]:
    """Classes of each session; ABD's one layer has all classes from the beginning."""
    if method == "abd":
        return [len(state["last.weight"])]
    rows = {name.split(".")[2]: len(value) for name, value in state.items() if name.startswith("head.classifiers.")}
    return [rows[t] for t in sorted(rows, key=int)]


def from_rdfcil(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Translate a state dict of R-DFCIL's release: its Lightning module or its ``inversion.ckpt``.

    Returns:
        By part (``network``, ``relation``, ``teacher``, ``generator``) our state dict, and the names that
        belong to no part (the constant ``smoothing.weight`` is dropped).
    """
    ours: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for name, value in state.items():
        if name.endswith("smoothing.weight"):
            continue
        prefix, part, rules = next(entry for entry in _RDFCIL_PARTS if name.startswith(entry[0]))
        translated = _translate(name.removeprefix(prefix), rules, shift=-1)
        if translated is None:
            unknown.append(name)
        else:
            ours.setdefault(part, {})[translated] = value
    return ours, unknown


def from_abd(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a ``class.pth`` (classifier) or ``generator.pth`` (generator or auto-encoder) of ABD's release.

    Returns:
        Our state dict of the network, the generator or the auto-encoder, and the names that belong to none.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, value in state.items():
        translated = _translate(name, (*_SINGLE_LABEL, *_GENERATOR), shift=-1)
        if translated is None:
            unknown.append(name)
        else:
            ours[translated] = value
    return ours, unknown
