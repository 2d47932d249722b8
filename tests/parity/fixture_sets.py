"""Sets of fixtures: numbers computed by the authors' own code; ``<stem>_parity.md`` beside them tells what each is.

A set is any folder under ``fixtures`` with ``<stem>_parity.{npz,md}`` and ``<stem>_parity_shapes.json``; the tests of
a method run on all of its sets. Seeds, sizes and cases come from these files. The environment variable
PARITY_FIXTURES names another folder to look under.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parent / "fixtures"
DTYPES = {"f32": torch.float32, "f64": torch.float64}


class FixtureSet:
    """The files of one method in one folder; ``set[key]`` is a stored array."""

    stem: str

    def __init__(self, folder: Path, stem: str) -> None:
        self.name, self.stem = folder.name, stem
        self.arrays: Any = np.load(folder / f"{stem}_parity.npz", allow_pickle=False)
        self.shapes: dict[str, dict[str, list[int]]] = json.loads((folder / f"{stem}_parity_shapes.json").read_text())
        self.text = (folder / f"{stem}_parity.md").read_text()

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays.files

    def keys(self, prefix: str) -> list[str]:
        """Stored names that begin so, sorted."""
        return sorted(key for key in self.arrays.files if key.startswith(prefix))

    def parts(self, prefix: str, index: int = 1) -> list[str]:
        """The different parts at that place, between slashes, of the names that begin so."""
        return sorted({key.split("/")[index] for key in self.keys(prefix)})

    def tensor(self, key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """A stored array; floats in that precision."""
        value = torch.from_numpy(self.arrays[key])
        return value.to(dtype) if value.is_floating_point() else value

    def told(self, pattern: str) -> tuple[float, ...]:
        """The numbers that the groups of a pattern find in the description."""
        match = re.search(pattern, self.text, re.M)
        assert match, f"{self.name}/{self.stem}_parity.md does not tell {pattern}"
        return tuple(map(float, match.groups()))


Kind = TypeVar("Kind", bound=FixtureSet)


def find_sets(kind: Callable[[Path, str], Kind], stem: str) -> list[Kind]:
    """All sets of a method; only another folder (PARITY_FIXTURES) may have none."""
    other = os.environ.get("PARITY_FIXTURES")
    files = sorted(Path(other or ROOT).rglob(f"{stem}_parity.npz"))
    assert files or other, f"no {stem}_parity.npz under {ROOT}"
    return [kind(file.parent, stem) for file in files]


def over(sets: Sequence[Kind], names: str = "", cases: Callable[[Kind], Iterable[Any]] = lambda Z: [()]) -> Any:
    """Parametrise a test over the sets (its argument ``Z``) and over the cases that each set has.

    Args:
        sets: of a method.
        names: further arguments of the test, separated by spaces.
        cases: of a set, the values of these arguments: tuples, or plain values for a single name.
    """
    rows = []
    for Z in sets:
        for case in cases(Z):
            values = case if isinstance(case, tuple) else (case,)
            label = "-".join(str(value).replace(" ", "") for value in (Z.name, *values))
            rows.append(pytest.param(Z, *values, id=label))
    return pytest.mark.parametrize(("Z", *names.split()), rows)


def normal(name: str, shape: Iterable[int], seed: int) -> np.ndarray:
    """The float64 draw of all generators of weights and inputs: it depends on the name and the seed only."""
    bits = np.random.PCG64((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    return np.random.Generator(bits).standard_normal(tuple(shape))


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the loader gives for these classes, (B, C)."""
    return torch.nn.functional.one_hot(labels, classes).to(dtype)
