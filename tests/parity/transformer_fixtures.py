"""Fixtures of DKT and DAFormer: state dicts and inputs generated from names, networks and steps built on them.

dkt_parity.md and daformer_parity.md tell what every number is. PARITY_FIXTURES names another folder of such files.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from typing import Any

import numpy as np
import torch
from parity_fixtures import folder
from torch import Tensor, nn

from mlcil.interop.official import from_transformer, is_unused, to_transformer, transformer_sessions
from mlcil.methods.base import Method, SessionContext
from mlcil.models.network import IncrementalNetwork

# bars that the notes suggest
LOGITS, LOSSES, GRADIENTS, NOTHING = 2e-5, 5e-6, 1e-3, 1e-5
QUERIES_AND_KEYS = (".q.weight", ".k.weight", ".qk.weight", ".to_q.weight", ".to_k.weight")


class Fixture:
    """One method's files."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.arrays = np.load(folder() / f"{method}_parity.npz", allow_pickle=False)
        self.shapes: dict[str, dict[str, list[int]]] = json.loads(
            (folder() / f"{method}_parity_shapes.json").read_text()
        )
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta_json"]))
        self.params: dict[str, Any] = self.meta["params"]
        self.seed: int = self.params["seed"]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays.files

    def keys(self, prefix: str) -> list[str]:
        """Keys that begin so, sorted."""
        return sorted(key for key in self.arrays.files if key.startswith(prefix))

    def tensor(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """A stored array."""
        value = torch.from_numpy(self.arrays[key])
        return value.to(dtype) if value.is_floating_point() else value

    # -- generated values ----------------------------------------------------------------------------------

    def weights(self, stage: str, seed: int) -> dict[str, Tensor]:
        """The official state dict of a stage."""
        made = {name: weight(name, shape, seed) for name, shape in self.shapes[stage].items()}
        return {name: torch.from_numpy(np.asarray(value)) for name, value in made.items()}

    def network(
        self, stage: str, seed: int, dtype: torch.dtype = torch.float32, edition: str = "M"
    ) -> IncrementalNetwork:
        """Our network with the weights of a stage: sizes from the shapes, heads from the parameters."""
        official = self.weights(stage, seed)
        backbone, head, image = self.describe(stage, official)
        if edition != "M":
            head["edition"] = edition
        network = IncrementalNetwork(backbone, head, image)
        for classes in transformer_sessions(official, self.method):
            network.grow(classes)
        ours, unknown = from_transformer(official, self.method)
        assert not unknown
        counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
        network.load_state_dict({**counters, **ours}, strict=True)
        return network.to(dtype)

    def first_session(self, stage: str, seed: int) -> IncrementalNetwork:
        """A stage's network with its first session alone, with the generated weights of the names it has."""
        official = self.weights(stage, seed)
        backbone, head, image = self.describe(stage, official)
        network = IncrementalNetwork(backbone, head, image)
        network.grow(transformer_sessions(official, self.method)[0])
        ours, _ = from_transformer(official, self.method)
        wanted = network.state_dict()
        network.load_state_dict({k: ours[k] if not k.endswith("num_batches_tracked") else v for k, v in wanted.items()})
        return network

    def describe(self, stage: str, official: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Backbone and head options and the image size."""
        if self.method == "daformer":
            heads = official["sabs.0.attn.gating_param"].shape[0]
        else:  # the notes: full width has 12 heads, the state dict does not tell
            heads = 12 if stage.startswith("full") else self.params["heads"]
        depth = 1 + max(int(name.split(".")[1]) for name in official if name.startswith("sabs."))
        plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "drop_path": 0.0}
        head = {"type": self.method, "num_heads": heads}
        if self.method == "dkt":
            stem = "imagenet" if stage.startswith("imagenet") else "cifar"
            dim = official["general_token"].shape[-1]
            image = 224 if stem == "imagenet" else self["input/small"].shape[-1]
            return {"name": "dkt", "dim": dim, "depth": depth, "heads": heads, "stem": stem, **plain}, head, image
        dim, _, patch, _ = official["patch_embed.proj.weight"].shape
        image = math.isqrt(official["pos_embed"].shape[1]) * patch
        backbone = {"name": "daformer", "dim": dim, "depth": depth, "heads": heads, "patch": patch, **plain}
        return backbone, {**head, "drop_path": 0.0}, image

    # -- training steps --------------------------------------------------------------------------------------

    def method_with(self, method: Method, teacher: IncrementalNetwork | None = None, step: int | None = None) -> Method:
        """The method in training mode at its network's last session, with that teacher, frozen as in a session."""
        sizes = method.network.classes_per_session
        low, high = sum(sizes[:-1]), sum(sizes)
        method.context = SessionContext(
            len(sizes) - 1, low, high, step or sizes[-1], high, None, 1.0, batch_size=self.params["Bt"]
        )
        method._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        method.train()
        method.freeze()
        return method

    def frozen(self, network: nn.Module) -> set[str]:
        """Official names of the frozen parameters."""
        names = to_transformer({k: torch.zeros(p.shape) for k, p in network.named_parameters()}, self.method)
        free = {k for k, p in network.named_parameters() if p.requires_grad}
        trained = set(
            to_transformer({k: torch.zeros(p.shape) for k, p in network.named_parameters() if k in free}, self.method)
        )
        return set(names) - trained

    def gradients(self, network: nn.Module) -> dict[str, Tensor]:
        """Gradients under the official names; absent where a parameter got none."""
        found = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
        return to_transformer(found, self.method)

    def check_gradients(self, network: nn.Module, prefix: str) -> None:
        """Norms of all gradients in the order of the names, and the stored full gradients."""
        self.check_norms(self.gradients(network), self.meta[f"{prefix}/grad_names"], self[f"{prefix}/grad_l2"])
        gradients = self.gradients(network)
        for key in self.keys(f"{prefix}/grad/"):
            expected = self[key]
            ours = gradients[key.removeprefix(f"{prefix}/grad/")].numpy()
            bar = max(GRADIENTS * np.abs(expected).max(), NOTHING)
            np.testing.assert_allclose(ours, expected, rtol=GRADIENTS, atol=bar, err_msg=key)

    def check_norms(self, found: dict[str, Tensor], names: list[str], expected: np.ndarray) -> None:
        """L2 norms; NaN: no gradient; below the bar: nothing."""
        assert len(names) == len(expected)
        for name, norm in zip(names, expected, strict=True):
            if math.isnan(norm):
                assert name not in found, f"{name} should have no gradient"
                continue
            assert not is_unused(name, self.method)
            assert name in found, f"{name} should have a gradient"
            ours = found[name].double().norm().item()
            np.testing.assert_allclose(ours, norm, rtol=GRADIENTS, atol=NOTHING, err_msg=name)


@functools.cache
def fixture(method: str) -> Fixture:
    """The files of ``dkt`` or ``daformer``."""
    return Fixture(method)


def normal(name: str, shape: Any, seed: int) -> np.ndarray:
    """The generator n(name, shape, seed) of the notes."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) ^ seed))
    return generator.standard_normal(tuple(shape)).astype(np.float32)


def weight(name: str, shape: Any, seed: int) -> np.ndarray:
    """Value of the tensor of that name: the first rule of the notes that matches."""
    f = np.float32
    if name.endswith("num_batches_tracked"):
        return np.array(0)
    n = normal(name, shape, seed)
    if name in ("general_token", "pos_embed") or name.startswith("task_tokens."):
        return f(0.5) * n
    if name.endswith("running_mean"):
        return f(0.1) * n
    if name.endswith("running_var"):
        return f(1) + f(0.1) * np.abs(n)
    if len(shape) >= 2:
        gain = 2 if name.endswith(QUERIES_AND_KEYS) else 6 if name.startswith("keys.") else 1
        return n * f(gain / math.sqrt(math.prod(shape[1:])))
    if name.endswith((".weight", "gating_param")):
        return f(1) + f(0.1) * n
    return f(0.1) * n


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B, C) float rows."""
    return torch.nn.functional.one_hot(labels, classes).float()
