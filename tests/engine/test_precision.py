"""Runs in bf16: student, teacher and evaluation."""

import math

import fault_harness
import pytest
import torch

from mlcil.engine.train import train
from mlcil.errors import UserError
from mlcil.registry import METHODS


def run(method, folder, precision):
    """Weights behind session 1 and the metrics of a run of two sessions, all in that precision."""
    changes = {"precision": precision, "test_dataloader": {"precision": precision}}
    for place, sections in enumerate(fault_harness.candidates(method)):
        cfg = fault_harness.config(method, folder / str(place), sections, classes=3, **changes)
        try:
            results = train(cfg)
        except (AssertionError, AttributeError, ValueError, UserError):
            continue  # another head
        stage = torch.load(folder / str(place) / "saved" / "run" / "session_1.pth", weights_only=True)
        return stage["state_dict"], results
    pytest.fail(f"no candidate of fault_harness.candidates() trains {method}")


@pytest.mark.parametrize("method", sorted(METHODS.module_dict))
def test_every_method_trains_in_bf16(method, tmp_path):
    weights, results = run(method, tmp_path, "bf16")
    assert len(results) == 2
    assert 0 <= results[-1].get("mAP", results[-1].get("accuracy"))["seen"] <= 100
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("method", ["KRT", "LwF", "DKT"])
def test_bf16_lands_near_fp32(method, tmp_path):
    (exact, _), (rough, _) = (run(method, tmp_path / precision, precision) for precision in ("fp32", "bf16"))
    apart = math.sqrt(sum(float((rough[name] - value).double().square().sum()) for name, value in exact.items()))
    size = math.sqrt(sum(float(value.double().square().sum()) for value in exact.values()))
    assert 0 < apart < 0.1 * size
