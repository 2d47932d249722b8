"""What a run's numbers depend on besides labels and protocol: the fingerprint that a resumed run is held to."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlcil
from mlcil.datasets.scenario import Scenario
from mlcil.inference.session import has_onnxruntime, onnxruntime_version
from mlcil.reporting.run_settings import NEUTRAL, without
from mlcil.system.provenance import versions

_PROCESSES = {"pytorch": ("WORLD_SIZE", "RANK"), "slurm": ("SLURM_NTASKS", "SLURM_PROCID")}


def expected_processes(launcher: str) -> int:
    """How many processes the launcher has started, before they know each other."""
    return int(os.environ.get(_PROCESSES.get(launcher, ("", ""))[0], "1"))


def expected_rank(launcher: str) -> int:
    """Which of them this one is."""
    return int(os.environ.get(_PROCESSES.get(launcher, ("", ""))[1], "0"))


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
