"""The fixtures of R-DFCIL and ABD: weights and inputs generated from names, cases read from the descriptions."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fixture_sets
import numpy as np
import torch
from fixture_sets import FixtureSet, find_sets
from torch import Tensor

#: relative bars of the descriptions
FORWARD, LAYERS, GRADIENT, LATER = 1e-4, 1e-3, 2e-3, 1e-2
#: bar where a float64 run meets a float64 reference
EXACT = 1e-7
#: how many entries rounding decides in float32: Adam moves a weight whose gradient is noise by a whole step
NOISE = {("second", "inv.cifar.final.conv_last.weight"): 1}


class DataFreeFixtures(FixtureSet):
    """One ``rdfcil_parity`` or ``abd_parity`` set."""

    def __init__(self, folder: Path, stem: str) -> None:
        super().__init__(folder, stem)
        self.seed = int(self.told(r"SEED = (\d+)")[0])

    def keys(self, prefix: str) -> list[str]:
        """Stored names that begin so, without the float64 copies, in the order of the file."""
        return [key for key in self.arrays.files if key.startswith(prefix) and not key.endswith("__f64")]

    def precisions(self, prefix: str) -> list[str]:
        """Float32, and float64 where the case stores float64 references."""
        exact = any(key.startswith(prefix + ".") and key.endswith("__f64") for key in self.arrays.files)
        return ["f32", "f64"] if exact else ["f32"]

    def bullet(self, start: str) -> str:
        """The paragraph of the description that begins with ``* `start``."""
        return re.search(rf"^\* `{re.escape(start)}.*?(?=^\* |\Z)", self.text, re.M | re.S)[0]

    def cases(self, start: str) -> list[Any]:
        """The list of lists in that paragraph."""
        return literal(self.bullet(start), "[[")

    def normal(self, tag: str, shape: Sequence[int], seed: int | None = None) -> np.ndarray:
        """Float64 noise of a tag."""
        return fixture_sets.normal(tag, shape, self.seed if seed is None else seed)

    def weights(self, shapes: Mapping[str, Sequence[int]], seed: int | None = None) -> dict[str, Tensor]:
        """Tensors by the rule of their names."""
        return {name: torch.from_numpy(self.weight(name, shape, seed)) for name, shape in shapes.items()}

    def weight(self, name: str, shape: Sequence[int], seed: int | None = None) -> np.ndarray:
        """One tensor by the rule of its name."""
        if name.endswith("num_batches_tracked"):
            return np.zeros(shape, np.int64)
        n = self.normal(name, shape, seed)
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
        return torch.from_numpy(self.normal("input:" + tag, shape).astype(np.float32))

    def xo(self, tag: str, shape: Sequence[int]) -> Tensor:
        """``XO(tag, shape)``: noise with an offset a channel."""
        noise = self.normal("input:" + tag, shape)
        offset = self.normal("offset:" + tag, (*shape[:2], 1, 1))
        return torch.from_numpy((noise + 1.5 * offset).astype(np.float32))

    def close(self, key: str, ours: Any, bar: float, scale: float | None = None) -> None:
        """``ours`` is the stored value up to ``bar`` times its largest entry (or ``scale``).

        A float64 result meets the stored float64 value, if there is one, up to ``EXACT``.
        """
        value = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        expected = self.arrays[key]
        if f"{key}__f64" in self:
            expected = self.arrays[f"{key}__f64"]
            if value.dtype == np.float64:
                bar = EXACT
        assert value.shape == expected.shape, key
        largest = float(np.abs(expected).max()) if scale is None else scale
        np.testing.assert_allclose(value, expected, rtol=0, atol=bar * largest, err_msg=key)

    def close_mostly(self, key: str, ours: Tensor, bar: float) -> None:
        """As :meth:`close` for weights behind a few steps of Adam, but for the entries of :data:`NOISE`.

        The distance of all entries together is within the bar in any case.
        """
        assert ours.shape == self[key].shape, key
        difference = (ours.detach() - self.tensor(key, ours.dtype)).abs()
        largest = float(np.abs(self[key]).max())
        allowed = NOISE.get((self.name, key), 0) if ours.dtype == torch.float32 else 0
        assert int((difference > bar * largest).sum()) <= allowed, key
        assert norm([difference]) <= bar * norm([self.tensor(key)]), key


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


def load_into(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """All entries, in the module's dtype."""
    module.load_state_dict(dict(state), strict=True)


def norm(tensors: Any) -> float:
    """Global L2 norm."""
    return float(torch.stack([t.detach().double().square().sum() for t in tensors]).sum().sqrt())


SETS = {stem: find_sets(DataFreeFixtures, stem) for stem in ("rdfcil", "abd")}


def with_precisions(prefix: str) -> Callable[[DataFreeFixtures], list[Any]]:
    """The cases of a paragraph, each in the precisions that it is stored in; ``<tag>`` stands for a case's name."""
    return lambda Z: [
        (*case, precision) for case in Z.cases(prefix) for precision in Z.precisions(prefix.replace("<tag>", case[0]))
    ]


def fixtures(stem: str) -> DataFreeFixtures:
    """The first set, for tests that want shapes only."""
    return SETS[stem][0]


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
