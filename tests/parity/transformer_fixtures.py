"""Fixtures of DKT and DAFormer: state dicts and inputs generated from names, networks and steps built on them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import fixture_sets
import numpy as np
import torch
from fixture_sets import FixtureSet, find_sets
from method_calls import place, session
from torch import Tensor, nn

from mlcil.interop.official import dual_blocks, from_transformer, is_unused, to_transformer, transformer_sessions
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork

# bars that the notes suggest
LOGITS, LOSSES, GRADIENTS, NOTHING = 2e-5, 5e-6, 1e-3, 1e-5
QUERIES_AND_KEYS = (".q.weight", ".k.weight", ".qk.weight", ".to_q.weight", ".to_k.weight")


class TransformerFixtures(FixtureSet):
    """One ``dkt_parity`` or ``daformer_parity`` set."""

    def __init__(self, folder: Path, method: str) -> None:
        super().__init__(folder, method)
        self.method = method
        self.meta: dict[str, Any] = json.loads(str(self["meta_json"]))
        self.params: dict[str, Any] = self.meta["params"]
        self.seed: int = self.params["seed"]

    def stages(self, prefix: str) -> list[int]:
        """Numbers of sessions of the models whose names begin so."""
        return sorted(int(name.removeprefix(prefix)) for name in self.shapes if name.startswith(prefix))

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
        ours = self.translate(official)
        counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
        network.load_state_dict({**counters, **ours}, strict=True)
        return network.to(dtype)

    def first_session(self, stage: str, seed: int) -> IncrementalNetwork:
        """A stage's network with its first session alone, with the generated weights of the names it has."""
        official = self.weights(stage, seed)
        backbone, head, image = self.describe(stage, official)
        network = IncrementalNetwork(backbone, head, image)
        network.grow(transformer_sessions(official, self.method)[0])
        ours = self.translate(official)
        wanted = network.state_dict()
        network.load_state_dict({k: ours[k] if not k.endswith("num_batches_tracked") else v for k, v in wanted.items()})
        return network

    def translate(self, official: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the checkpoint has . dual blocks", UserWarning)
            ours, unknown = from_transformer(official, self.method)
        assert not unknown
        return ours

    def describe(self, stage: str, official: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any], int]:
        """Backbone and head options and the image size."""
        if self.method == "daformer":
            heads = official["sabs.0.attn.gating_param"].shape[0]
        elif stage.startswith("full"):  # the state dict does not tell
            heads = int(self.told(r"eval_full.*?(\d+) heads")[0])
        else:
            heads = self.params["heads"]
        depth = 1 + max(int(name.split(".")[1]) for name in official if name.startswith("sabs."))
        plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "drop_path": 0.0}
        head = {"type": self.method, "num_heads": heads}
        if self.method == "dkt":
            stem = "imagenet" if stage.startswith("imagenet") else "cifar"
            dim = official["general_token"].shape[-1]
            image = self.imagenet_input[-1] if stem == "imagenet" else self["input/small"].shape[-1]
            return {"name": "dkt", "dim": dim, "depth": depth, "heads": heads, "stem": stem, **plain}, head, image
        dim, _, patch, _ = official["patch_embed.proj.weight"].shape
        image = math.isqrt(official["pos_embed"].shape[1]) * patch
        backbone = {"name": "daformer", "dim": dim, "depth": depth, "heads": heads, "patch": patch, **plain}
        return backbone, {**head, "drop_path": 0.0}, image

    @property
    def imagenet_input(self) -> tuple[int, ...]:
        """Shape of the generated input of the model with the stem for ImageNet."""
        return tuple(map(int, self.told(r'"input/imagenet",\((\d+),(\d+),(\d+),(\d+)\)')))

    # -- training steps --------------------------------------------------------------------------------------

    def method_with(self, method: Method, teacher: IncrementalNetwork | None = None) -> Method:
        """The method in training mode at its network's last session, with that teacher, frozen as in a session."""
        sizes = method.network.classes_per_session
        low, high = sum(sizes[:-1]), sum(sizes)
        place(method, session(len(sizes) - 1, low, high, batch=self.params["Bt"]), teacher)
        method.freeze()
        return method

    def official(self, state: dict[str, Tensor], names: Collection[str] = ()) -> dict[str, Tensor]:
        """Our entries as a model with these names calls them, where our dual block is the last one."""
        last = dual_blocks(names) - 1
        translated = to_transformer(state, self.method)
        return {name.replace("duals.0.", f"duals.{last}.", 1): value for name, value in translated.items()}

    def used(self, names: Collection[str]) -> set[str]:
        """The names of a model without those that no forward pass uses."""
        return {name for name in names if not is_unused(name, self.method, dual_blocks(names))}

    def frozen(self, network: nn.Module) -> set[str]:
        """Official names of the frozen parameters."""
        return set(self.official({k: p.detach() for k, p in network.named_parameters() if not p.requires_grad}))

    def gradients(self, network: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        """Gradients under the official names; absent where a parameter got none."""
        return self.official({k: p.grad for k, p in network.named_parameters() if p.grad is not None}, names)

    def check_gradients(self, network: nn.Module, prefix: str) -> None:
        """Norms of all gradients in the order of the names, and the stored full gradients."""
        names = self.meta[f"{prefix}/grad_names"]
        gradients = self.gradients(network, names)
        self.check_norms(gradients, names, self[f"{prefix}/grad_l2"])
        for key in self.keys(f"{prefix}/grad/"):
            expected = self[key]
            ours = gradients[key.removeprefix(f"{prefix}/grad/")].numpy()
            bar = max(GRADIENTS * np.abs(expected).max(), NOTHING)
            np.testing.assert_allclose(ours, expected, rtol=GRADIENTS, atol=bar, err_msg=key)

    def check_norms(self, found: dict[str, Tensor], names: list[str], expected: np.ndarray) -> None:
        """L2 norms; NaN: no gradient; below the bar: nothing."""
        assert set(found) <= set(names)
        for name, norm in zip(names, expected, strict=True):
            if math.isnan(norm):
                assert name not in found, f"{name} should have no gradient"
                continue
            assert name in found, f"{name} should have a gradient"
            ours = found[name].double().norm().item()
            np.testing.assert_allclose(ours, norm, rtol=GRADIENTS, atol=NOTHING, err_msg=name)


SETS = {method: find_sets(TransformerFixtures, method) for method in ("dkt", "daformer")}


def normal(name: str, shape: Any, seed: int) -> np.ndarray:
    """The generator n(name, shape, seed) of the notes."""
    return fixture_sets.normal(name, shape, seed).astype(np.float32)


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
