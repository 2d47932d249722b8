"""A short form of benchmarks/kill_and_resume.py: ten kills in phases of seven methods."""

from __future__ import annotations

import random
from pathlib import Path

import fault_harness
import pytest

from mlcil.engine.build import build_method

POINTS = {
    "KRT": ("calibration or inversion", "writing of a file"),
    "ABD": ("calibration or inversion",),
    "SingleLabelE2E": ("second stage", "between"),
    "KBK": ("calibration or inversion",),
    "L3A": ("validation",),
    "OEWC": ("choice of exemplars",),
    "DKT": ("validation", "training step"),
}


@pytest.mark.skipif(not hasattr(fault_harness.os, "fork"), reason="runs are forks")
@pytest.mark.parametrize("method", POINTS)
def test_killed_runs_end_as_if_never_killed(tmp_path: Path, method: str) -> None:
    known = fault_harness.reference(method, tmp_path / "whole", classes=3)
    assert not known.files["left behind"]
    draws = random.Random(f"1 {method}")
    for phase in POINTS[method]:
        for number in range(
            3
        ):  # a run has some calls more or less than the first one, so the last of them may not come
            calls = fault_harness.draw_calls(known, phase, draws)
            found = fault_harness.kill_and_resume(known, tmp_path / f"{phase} {number}", phase, calls)
            if found.killed:
                break
        assert found.killed == 1
        assert not found.differs, found


@pytest.mark.parametrize("method", fault_harness.names())
def test_the_harness_knows_every_method(tmp_path: Path, method: str) -> None:
    """What is registered later is killed too; a method that needs more than the candidates have fails here."""
    for sections in fault_harness.candidates(method):
        try:
            build_method(fault_harness.config(method, tmp_path, sections))
        except ValueError:
            continue
        return
    pytest.fail(f"no candidate of fault_harness.candidates() builds {method}")
