"""Fixtures of KRT and of the POD baseline: weights generated from names, networks built from state-dict shapes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from fixture_sets import FixtureSet, find_sets, normal, over
from torch import Tensor

from mlcil.interop.official import from_official, sessions_in, to_official
from mlcil.models.network import IncrementalNetwork

#: the case whose description tells the attention heads of a size of network
CASE_OF = {"thin": "a", "full": "i"}
STRIDE = 32  # of TResNet


class KRTFixtures(FixtureSet):
    """One ``krt_parity`` set."""

    @property
    def seeds(self) -> tuple[int, int]:
        """Seeds A and B."""
        return int(self["meta/seed_A"]), int(self["meta/seed_B"])

    def heads(self, model: str) -> int:
        """Attention heads of a model, which its state dict does not tell."""
        return int(self.told(rf"^\*\*{CASE_OF[model.split('_')[0]]} - .*?(\d+) heads")[0])

    def weights(self, model: str, seed: int) -> dict[str, Tensor]:
        """The official state dict of a model."""
        return weights(self.shapes[model], seed)

    def network(
        self, model: str, seed: int, sessions: int | None = None, classes: int | None = None
    ) -> IncrementalNetwork:
        """Our network of a model, with its weights.

        Args:
            model: name in the file of shapes.
            seed: of the weights.
            sessions: only so many of its sessions.
            classes: of a linear head, only so many of its classes.
        """
        shapes = self.shapes[model]
        if classes is not None:
            shapes = {k: [classes, *v[1:]] if k.startswith("head.fc") else v for k, v in shapes.items()}
        official = weights(shapes, seed)
        depths = [0, 0, 0, 0]
        for name in official:
            if name.startswith("layer"):
                stage, block = name.removeprefix("layer").split(".")[:2]
                depths[int(stage) - 1] = max(depths[int(stage) - 1], int(block) + 1)
        width = official["conv1.0.weight"].shape[0] / 64
        backbone = {"name": "tresnet", "layers": depths, "width": width, "abn": "torch"}
        sizes = sessions_in(official)
        if sizes:
            image_size = math.isqrt(official["pos_embed"].shape[1]) * STRIDE
            dim = official["cls_token"].shape[-1]
            head = {"type": "ica", "embed_dim": dim, "num_heads": self.heads(model)}
        else:
            image_size, head = self["a/images_u8"].shape[-1], {"type": "linear"}
            sizes = [len(official["head.fc.bias"])]
        network = IncrementalNetwork(backbone, head, image_size)
        for size in sizes[:sessions]:
            network.grow(size)
        return self.fill(network, official)

    @staticmethod
    def fill(network: IncrementalNetwork, official: Mapping[str, Tensor]) -> IncrementalNetwork:
        """The network with all of its entries from an official state dict, which may have more sessions."""
        ours, unknown = from_official(official)
        assert not unknown
        wanted = network.state_dict()
        network.load_state_dict({k: v for k, v in ours.items() if k in wanted}, strict=True)
        return network

    def images(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Stored bytes (N, 3, H, W) -> the network's input; divided in float32 as in the fixtures."""
        return (torch.from_numpy(self[key]).float() / 255).to(dtype)


#: parametrises a test over all sets, see :func:`fixture_sets.over`
each = functools.partial(over, find_sets(KRTFixtures, "krt"))


def weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights generated from their names (krt_parity.md, "Weights")."""
    f = np.float32
    made: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            made[name] = np.array(0)
            continue
        n = normal(name, shape, seed).astype(f)
        if name.endswith("running_mean"):
            n = f(0.1) * n
        elif name.endswith("running_var"):
            n = f(1) + f(0.1) * np.abs(n)
        elif len(shape) >= 2:
            n = n * f(1 / np.sqrt(np.prod(shape[1:])))
        elif name.endswith(".weight"):
            n = f(1) + f(0.1) * n
            if name.removesuffix("weight") + "running_mean" in shapes:
                n[2::5] *= -1
        else:
            n = f(0.1) * n
        made[name] = n
    return {name: torch.from_numpy(value) for name, value in made.items()}


def official_gradients(network: IncrementalNetwork) -> dict[str, Tensor | None]:
    """Gradients under the official parameter names; None where a parameter got none."""
    names = list(to_official({k: p.detach() for k, p in network.named_parameters()}))
    return dict(zip(names, (p.grad for p in network.parameters()), strict=True))
