"""Runs on maps that are computed once, against runs that compute them in every epoch."""

import numpy as np
import pytest
import torch
from engine.test_run import assert_same_weights, config, scenes, weights, without_clock  # noqa: F401  (a fixture)
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny import runner_of

from mlcil.datasets.feature_store import BATCH
from mlcil.engine import frozen_maps
from mlcil.engine.build import build_scenario
from mlcil.engine.train import train
from mlcil.errors import StoppedError, UserError
from mlcil.models.tresnet import TResNet

PLAIN = {"cutout": 0.0, "randaugment": False}


def frozen(scenes, folder, name, kept=True, **changes):  # noqa: F811
    store = {"enabled": kept, "folder": str(folder / "features"), "limit_gb": 1}
    options = {
        "engine": "torch",
        "network": {"frozen_backbone": True},
        "train_transform": PLAIN,
        "feature_store": store,
        **changes,
    }
    return config(scenes, folder, name, **options)


@pytest.fixture
def passes(monkeypatch):
    """How many images the backbone has seen."""
    seen = []
    forward = TResNet.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(TResNet, "forward", counted)
    return seen


@pytest.mark.parametrize("method", ["KRT", "LwF", "ER"])
def test_the_backbone_sees_every_image_once(scenes, tmp_path, passes, method):  # noqa: F811
    changes = {"method": {"type": method}, "memory": {"per_class": 2}}
    results = {}
    for name, kept in (("kept", True), ("anew", False)):
        cfg = frozen(scenes, tmp_path, name, kept, **changes)
        cfg.network.head = {"type": "linear"} if method != "KRT" else cfg.network.head
        scenario = build_scenario(cfg)
        tables = (scenario.train, scenario.test)
        images = sum(-(-len(table) // BATCH) * BATCH for table in tables) + 1  # whole batches; one asks for the shape
        passes.clear()
        results[name] = train(cfg)
        assert (sum(passes) == images) == bool(kept)
    for one, other in zip(results["kept"], results["anew"], strict=True):
        assert one["mAP"]["seen"] == pytest.approx(other["mAP"]["seen"], abs=0.2)
    one, other = (weights(tmp_path / "saved" / name / "session_2.pth") for name in ("kept", "anew"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("session", [0, 1])
def test_a_stopped_run_goes_on_with_the_same_numbers(scenes, tmp_path, session):  # noqa: F811
    train(frozen(scenes, tmp_path, "other", seed=9, train_cfg={"max_epochs": 1, "stop_after_session": 0}))
    start = {"pretrained": str(tmp_path / "saved" / "other" / "session_0.pth"), "allow_leaky_weights": True}
    whole = train(frozen(scenes, tmp_path, "whole", **start))
    calls = []

    @HOOKS.register_module(force=True)
    class Stops(Hook):
        """Asks for the end in that session."""

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.train_loop.position.session == session and batch_idx == 1 and not calls:
                calls.append(1)
                runner.signals.received = 15

    start["custom_hooks"] = [{"type": "Stops"}]
    with pytest.raises(StoppedError):
        train(frozen(scenes, tmp_path, "stopped", **start))
    again = train(frozen(scenes, tmp_path, "stopped", **start), resume=True)
    assert without_clock(again) == without_clock(whole)
    one, other = (weights(tmp_path / "saved" / name / "session_2.pth") for name in ("whole", "stopped"))
    assert_same_weights(one, other)


@HOOKS.register_module()
class ChangesBatches(Hook):
    """Wants images."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        assert data_batch["inputs"].dtype == torch.uint8


@pytest.mark.parametrize(
    "changes",
    [
        {"train_transform": {"cutout": 0.5}},
        {"network": {"frozen_backbone": False}},
        {"deterministic": True},
        {"custom_hooks": [{"type": "ChangesBatches"}]},
        {"feature_store": {"enabled": False}},
        {"feature_store": {"limit_gb": 1e-6}},
    ],
)
def test_images_it_is_where_maps_would_not_do(scenes, tmp_path, monkeypatch, changes):  # noqa: F811
    monkeypatch.setattr(frozen_maps, "_free_gigabytes", lambda: 0.0)  # too little where the store does not take it
    cfg = frozen(scenes, tmp_path, "run", **{"train_cfg": {"max_epochs": 1, "stop_after_session": 0}, **changes})
    train(cfg)
    log = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert "computed now" not in log
    assert ("0.0 GB are more than feature_store.limit_gb" in log) == ("limit_gb" in changes.get("feature_store", {}))


@pytest.mark.parametrize("value", [-1, 0, "4", True, None, float("nan")])
def test_bad_limits(scenes, tmp_path, value):  # noqa: F811
    with pytest.raises(UserError, match=r"feature_store.limit_gb is .*expected a number of GB above 0"):
        frozen(scenes, tmp_path, "run", feature_store={"limit_gb": value})


def test_a_second_run_computes_no_features_and_a_linear_head_takes_means(scenes, tmp_path, passes):  # noqa: F811
    changes = {"method": {"type": "LwF"}, "train_cfg": {"max_epochs": 1, "stop_after_session": 0}}
    seen = []
    for name in ("first", "second"):
        cfg = frozen(scenes, tmp_path, name, **changes)
        cfg.network.head = {"type": "linear"}
        cfg.feature_store.folder = str(tmp_path / "features")
        passes.clear()
        seen.append(without_clock(train(cfg)))
        log = (tmp_path / "logs" / name / "log" / "log.txt").read_text()
        assert f"pooled maps of 90 images in {tmp_path / 'features'}" in log
        assert ("90 computed now" in log) == (name == "first")
    assert seen[0] == seen[1]
    assert sum(passes) == 1  # which asks for the shape


def test_maps_are_the_backbones(scenes, tmp_path):  # noqa: F811
    runner = runner_of(frozen(scenes, tmp_path, "run", train_cfg={"max_epochs": 1, "stop_after_session": 0}))
    runner.train()
    table, network = runner.run_settings.scenario.test, runner.run_settings.method.network.eval()
    rows = np.array([3, 0, 7])
    images = np.stack([table.fitted(row, 32) for row in rows]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.backbone(torch.from_numpy(images).float() / 255)[-1]
    torch.testing.assert_close(torch.from_numpy(table.maps[rows]), expected, rtol=1e-4, atol=1e-5)
    assert table.maps.shape[0] == len(table)


def test_memory_that_the_machine_can_give(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  24000000 kB\nMemFree:  100 kB\nMemAvailable:    2000000 kB\n")
    assert frozen_maps._free_gigabytes(file) == pytest.approx(2.048)
    assert frozen_maps._free_gigabytes(tmp_path / "none") == float("inf")
    file.write_text("MemAvailable:\n")
    assert frozen_maps._free_gigabytes(file) == float("inf")
