"""Multi-label classifiers of timm and torchvision: a backbone, the mean of its map, one linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcil.datasets.folder import read_lines
from mlcil.errors import UserError
from mlcil.interop.tensor_files import load_tensors
from mlcil.models.backbones import check_name
from mlcil.models.network import build_network

CLOSE = 1e-4  # how far rounding may move a logit


def read_classifier(path: Path, names: Path, backbone: str | None, image_size: int = 224) -> dict[str, Any]:
    """A classifier's state dict as the fields of a stage checkpoint; its logits are compared.

    Args:
        path: the state dict, at top level or under ``state_dict`` or ``model``.
        names: a text file with one class name a line, in the order of the outputs.
        backbone: the timm model that it is of; torchvision's ResNets have the same entries under timm's name.
        image_size: side of the square images in pixels.

    Raises:
        UserError: no such model, weights that do not fit it, another number of names, or a model whose classifier is
            more than a linear layer on the mean of its last map.
    """
    if backbone is None:
        raise UserError(f"{path}: --classes goes with --backbone, the timm model that the checkpoint is of; add it")
    try:
        check_name(backbone)
    except ValueError as error:
        raise UserError(f"--backbone: {error}") from error
    import timm  # heavy: only when asked for

    classes = read_lines(names, "one class name a line")
    content: Any = load_tensors(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict; expected one at top level or under 'state_dict' or 'model'")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    whole = timm.create_model(backbone, pretrained=False, num_classes=len(classes)).eval()
    try:
        whole.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} does not fit {backbone} with the {len(classes)} classes of {names} ({reason}); correct --backbone "
            "or the list"
        ) from error
    spec = {
        "backbone": {"name": backbone},
        "head": {"type": "linear"},
        "image_size": image_size,
        "frozen_backbone": True,
    }
    network = build_network(spec, [len(classes)]).eval()
    trunk, layer = network.backbone.trunk, whole.get_classifier()  # type: ignore[union-attr]
    trunk.load_state_dict({k: v for k, v in state.items() if k in trunk.state_dict()}, strict=False)  # type: ignore[union-attr,operator]
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    gap = float("inf")
    if isinstance(layer, torch.nn.Linear) and layer.in_features == network.head.in_channels:
        own = network.head.linear
        own.load_state_dict({"weight": layer.weight, "bias": own.bias * 0 if layer.bias is None else layer.bias})  # type: ignore[union-attr,operator]
        with torch.inference_mode():
            backbone_module = network.backbone
            expected = whole((images - backbone_module.mean) / backbone_module.std)  # type: ignore[operator]
            gap = float((network(images).logits_BC - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not gap <= CLOSE:
        raise UserError(
            f"{path}: the classifier of {backbone} is more than a linear layer on the mean of its last map (logits "
            f"differ by {gap:.3g}); expected a model such as a ResNet or an EfficientNet"
        )
    return {
        "run": path.name,
        "session": 0,
        "network": network.spec,
        "classes_per_session": [len(classes)],
        "classes": classes,
        "state_dict": network.state_dict(),
    }
