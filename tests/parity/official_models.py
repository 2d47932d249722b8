"""Networks of the fixtures: shapes from the official state dicts, weights generated from their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import parity_fixtures
import torch
from torch import Tensor

from mlcil.interop.official import from_official, sessions_in
from mlcil.models.network import IncrementalNetwork

HEADS = 8  # attention heads of all fixtures (krt_parity.md, cases a, h and i)


def network_from_shapes(shapes: dict[str, Any], seed: int, sessions: int | None = None) -> IncrementalNetwork:
    """Our network for an official state dict's shapes, cut to the first ``sessions`` sessions, with its weights."""
    weights = {k: torch.from_numpy(np.asarray(v)) for k, v in parity_fixtures.make_weights(shapes, seed).items()}
    counts = [0, 0, 0, 0]
    for name in weights:
        if name.startswith("layer"):
            stage, block = name.split(".")[:2]
            counts[int(stage[5:]) - 1] = max(counts[int(stage[5:]) - 1], int(block) + 1)
    backbone = {"name": "tresnet", "layers": counts, "width": weights["conv1.0.weight"].shape[0] / 64, "abn": "torch"}
    sizes = sessions_in(weights)
    if sizes:
        side = round(weights["pos_embed"].shape[1] ** 0.5)
        head: dict[str, Any] = {"type": "ica", "embed_dim": weights["cls_token"].shape[-1], "num_heads": HEADS}
        network = IncrementalNetwork(backbone, head, side * 32)
    else:
        sizes = [weights["head.fc.bias"].shape[0]]
        network = IncrementalNetwork(backbone, {"type": "linear"}, 224)
    for size in sizes[:sessions]:
        network.grow(size)
    ours, unknown = from_official(weights)
    assert not unknown
    wanted = network.state_dict()
    missing = network.load_state_dict({k: v for k, v in ours.items() if k in wanted}, strict=True)
    assert not missing.missing_keys
    return network


def images(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """uint8 (N, 3, H, W) -> the network's input; the division is done in float32 as in the fixtures."""
    return (torch.from_numpy(array).float() / 255).to(dtype)


def official_gradients(network: IncrementalNetwork) -> dict[str, Tensor | None]:
    """Gradients under the official parameter names; None where a parameter got none."""
    from mlcil.interop.official import to_official

    names = list(to_official({k: p.detach() for k, p in network.named_parameters()}))
    return dict(zip(names, (p.grad for p in network.parameters()), strict=True))


DTYPES = {"f32": torch.float32, "f64": torch.float64}
