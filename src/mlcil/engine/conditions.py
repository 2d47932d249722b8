"""What a run's numbers depend on besides labels and protocol: the fingerprint that a resumed run is held to."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import mlcil
from mlcil.datasets.scenario import Scenario
from mlcil.errors import UserError
from mlcil.reporting.run_settings import NEUTRAL, without
from mlcil.system.onnx_graph import has_onnxruntime, onnxruntime_version
from mlcil.system.provenance import versions

#: what a launcher tells each process: how many there are, which one it is, and what else they need to find each other
_TOLD = {
    "pytorch": ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODELIST"),
}


def expected_processes(launcher: str) -> int:
    """How many processes the launcher has started, before they know each other.

    Raises:
        UserError: the launcher has started none, or told something else than a number.
    """
    return _told(launcher)[0]


def expected_rank(launcher: str) -> int:
    """Which of them this one is; raises as :func:`expected_processes`."""
    return _told(launcher)[1]


def _told(launcher: str) -> tuple[int, int]:
    names = _TOLD.get(launcher)
    if names is None:
        return 1, 0
    start = "torchrun --nproc-per-node 2 -m mlcil train ..." if launcher == "pytorch" else "srun mlcil train ..."
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"--launcher {launcher} finds no {', '.join(missing)} in the environment; start the processes by "
            f"`{start}`, or leave --launcher out"
        )
    processes, rank = (os.environ[name] for name in names[:2])
    if not (processes.isdecimal() and rank.isdecimal() and int(rank) < int(processes)):
        raise UserError(
            f"the environment says {names[0]}={processes!r} and {names[1]}={rank!r}; expected a number of processes "
            f"and one below it, so start them by `{start}`"
        )
    return int(processes), int(rank)


def conditions(
    settings: Mapping[str, Any], scenario: Scenario, launcher: str, plugins: Sequence[str]
) -> dict[str, str]:
    """The fingerprint.

    Args:
        settings: the resolved config as nested dictionaries.
        scenario: whose images count: their pixels, or size and time of their files.
        launcher: none, pytorch or slurm.
        plugins: python files of the user.
    """
    return {
        **without(settings, NEUTRAL),
        **({} if torch.cuda.is_available() else {"threads": str(torch.get_num_threads())}),  # sums are split over them
        "images of the training split": scenario.train.image_digest()[:12],
        "images of the test split": scenario.test.image_digest()[:12],
        "number of processes": str(expected_processes(launcher)),
        "source code of mlcil": source_digest(),
        **{f"source code of {Path(path).name}": _digest([Path(path)]) for path in plugins},
        **_version_of_engine(settings),
        **{f"version of {name}": str(version) for name, version in versions().items() if name != "python"},
    }


def _version_of_engine(settings: Mapping[str, Any]) -> dict[str, str]:
    """Of what computes the features of a frozen backbone, where that is not torch."""
    frozen = settings.get("network", {}).get("frozen_backbone")
    if not frozen or settings.get("engine") == "torch" or not has_onnxruntime():
        return {}
    return {"version of onnxruntime": onnxruntime_version()}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed, as ``name was this and is that``."""
    keys = [*before, *(key for key in now if key not in before)]
    nothing = "not set"
    return [
        f"{key} was {_short(before.get(key, nothing))} and is {_short(now.get(key, nothing))}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


@functools.cache
def source_digest() -> str:
    """A fingerprint of the package's code."""
    return _digest(sorted(Path(mlcil.__file__).parent.rglob("*.py")))


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
