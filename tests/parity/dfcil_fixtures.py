"""The fixtures of R-DFCIL and ABD; fixtures/{rdfcil,abd}_parity.md tell what each number is.

Seed, sizes and lists of cases are read from those descriptions and from the arrays, so that another set of
the same shape of files (PARITY_FIXTURES) is tested by the same code.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import parity_fixtures
import pytest
import torch
from torch import Tensor

DTYPES = {"f32": torch.float32, "f64": torch.float64}
#: relative bars of the descriptions
FORWARD, LAYERS, GRADIENT, LATER = 1e-4, 1e-3, 2e-3, 1e-2
#: bar where a float64 run meets a float64 reference
EXACT = 1e-7


class Fixtures:
    """One ``<stem>_parity`` set."""

    def __init__(self, stem: str) -> None:
        folder = parity_fixtures.folder()
        if "PARITY_FIXTURES" in os.environ and not (folder / f"{stem}_parity.npz").exists():
            pytest.skip(f"{folder} has no {stem}_parity.npz", allow_module_level=True)
        self.values: Any = np.load(folder / f"{stem}_parity.npz", allow_pickle=False)
        self.shapes: dict[str, dict[str, list[int]]] = json.loads((folder / f"{stem}_parity_shapes.json").read_text())
        self.text = (folder / f"{stem}_parity.md").read_text()
        self.seed = int(re.search(r"SEED = (\d+)", self.text)[1])

    def __getitem__(self, key: str) -> np.ndarray:
        return self.values[key]

    def __contains__(self, key: str) -> bool:
        return key in self.values.files

    def keys(self, prefix: str) -> list[str]:
        """Stored names that begin so, without the float64 copies."""
        return [key for key in self.values.files if key.startswith(prefix) and not key.endswith("__f64")]

    def precisions(self, prefix: str) -> list[str]:
        """Float32, and float64 where the case stores float64 references."""
        exact = any(key.startswith(prefix + ".") and key.endswith("__f64") for key in self.values.files)
        return ["f32", "f64"] if exact else ["f32"]

    def bullet(self, start: str) -> str:
        """The paragraph of the description that begins with ``* `start``."""
        return re.search(rf"^\* `{re.escape(start)}.*?(?=^\* |\Z)", self.text, re.M | re.S)[0]

    def cases(self, start: str) -> list[Any]:
        """The list of lists in that paragraph."""
        return literal(self.bullet(start), "[[")

    def rng(self, tag: str, seed: int | None = None) -> np.random.Generator:
        """The generator of a tag."""
        seed = self.seed if seed is None else seed
        return np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode()) ^ seed))

    def weights(self, shapes: Mapping[str, Sequence[int]], seed: int | None = None) -> dict[str, Tensor]:
        """Tensors by the rule of their names."""
        return {name: torch.from_numpy(self.weight(name, shape, seed)) for name, shape in shapes.items()}

    def weight(self, name: str, shape: Sequence[int], seed: int | None = None) -> np.ndarray:
        """One tensor by the rule of its name."""
        if name.endswith("num_batches_tracked"):
            return np.zeros(shape, np.int64)
        n = self.rng(name, seed).standard_normal(tuple(shape))
        if name.endswith("running_var"):
            n = 1 + 0.1 * np.abs(n)
        elif name.endswith("running_mean"):
            n = 0.1 * n
        elif name.endswith("alpha"):
            n = 1 + 0.1 * n
        elif name.endswith("beta"):
            n = 0.1 * n
        elif len(shape) >= 2:
            n = n / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):
            n = 1 + 0.1 * n
        else:
            n = 0.1 * n
        return n.astype(np.float32)

    def x(self, tag: str, shape: Sequence[int]) -> Tensor:
        """``X(tag, shape)``."""
        return torch.from_numpy(self.rng("input:" + tag).standard_normal(tuple(shape)).astype(np.float32))

    def xo(self, tag: str, shape: Sequence[int]) -> Tensor:
        """``XO(tag, shape)``: noise with an offset a channel."""
        noise = self.rng("input:" + tag).standard_normal(tuple(shape))
        offset = self.rng("offset:" + tag).standard_normal((*shape[:2], 1, 1))
        return torch.from_numpy((noise + 1.5 * offset).astype(np.float32))

    def close(self, key: str, ours: Any, bar: float, scale: float | None = None) -> None:
        """``ours`` is the stored value up to ``bar`` times its largest entry (or ``scale``).

        A float64 result meets the stored float64 value, if there is one, up to ``EXACT``.
        """
        value = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        expected = self.values[key]
        if f"{key}__f64" in self:
            expected = self.values[f"{key}__f64"]
            if value.dtype == np.float64:
                bar = EXACT
        assert value.shape == expected.shape, key
        largest = float(np.abs(expected).max()) if scale is None else scale
        np.testing.assert_allclose(value, expected, rtol=0, atol=bar * largest, err_msg=key)


def literal(text: str, opening: str) -> Any:
    """The first python list or tuple in a text that begins with ``opening``."""
    start = text.index(opening)
    depth = 0
    for end, character in enumerate(text[start:], start):
        depth += (character in "[(") - (character in "])")
        if depth == 0:
            return ast.literal_eval(text[start : end + 1])
    raise AssertionError(f"no {opening} in {text}")


def targets(count: int, low: int, high: int, a: int = 7, b: int = 3) -> Tensor:
    """``Tg(count, low, high, a, b)``."""
    return low + (a * torch.arange(count) + b) % (high - low)


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """What the loader gives for these classes."""
    return torch.nn.functional.one_hot(labels, classes).to(dtype)


def load_into(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """All entries, in the module's dtype."""
    module.load_state_dict(dict(state), strict=True)


def norm(tensors: Any) -> float:
    """Global L2 norm."""
    return float(torch.stack([t.detach().double().square().sum() for t in tensors]).sum().sqrt())


@functools.cache
def fixtures(stem: str) -> Fixtures:
    """One set, read once."""
    return Fixtures(stem)


def scalar(dtype: torch.dtype) -> type[np.floating[Any]]:
    """The numpy type of a torch dtype."""
    return np.float64 if dtype == torch.float64 else np.float32


def learning_rates(schedule: Any, epochs: int, **options: Any) -> list[float]:
    """The rate of every epoch from 0.1 on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    steps = schedule(optimizer, epochs, 1, **options)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    return found
