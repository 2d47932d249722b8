"""The fixtures: numbers computed by the authors' own code (fixtures/krt_parity.md tells what each is).

Another set of the same shape of files is used when the environment variable PARITY_FIXTURES names its folder.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def folder() -> Path:
    """Where the fixture files are."""
    return Path(os.environ.get("PARITY_FIXTURES") or Path(__file__).parent / "fixtures")


@functools.cache
def load() -> Any:
    """All arrays, read as they are asked for."""
    return np.load(folder() / "krt_parity.npz", allow_pickle=False)


@functools.cache
def shapes() -> dict[str, dict[str, list[int]]]:
    """Model name -> state-dict entry -> shape."""
    return json.loads((folder() / "krt_parity_shapes.json").read_text())


def make_weights(of: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Weights generated from their names (krt_parity.md, "Weights")."""
    f = np.float32
    made: dict[str, np.ndarray] = {}
    for name, shape in of.items():
        if name.endswith("num_batches_tracked"):
            made[name] = np.array(0)
            continue
        bits = np.random.PCG64((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
        n = np.random.Generator(bits).standard_normal(shape).astype(f)
        if name.endswith("running_mean"):
            n = f(0.1) * n
        elif name.endswith("running_var"):
            n = f(1) + f(0.1) * np.abs(n)
        elif len(shape) >= 2:
            n = n * f(1 / np.sqrt(np.prod(shape[1:])))
        elif name.endswith(".weight"):
            n = f(1) + f(0.1) * n
            if name.removesuffix("weight") + "running_mean" in of:
                n[2::5] *= -1
        else:
            n = f(0.1) * n
        made[name] = n
    return made
