"""Whole runs on a handful of scenes: files, metrics, replay, resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import run_until, runner_of

import mlcil
from mlcil.datasets.digits import build_digit_scenes
from mlcil.engine.build import build_scenario
from mlcil.engine.config import finish_config
from mlcil.engine.train import train
from mlcil.errors import UserError

SCENES = {"train_images": 60, "test_images": 30, "size": 32}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return build_digit_scenes(tmp_path_factory.mktemp("cache"), **SCENES).parent


def config(scenes, folder, name="run", **changes):
    cfg = {
        "name": name,
        "scenario": {
            "dataset": {"type": "digits", "cache_dir": str(scenes), **SCENES},
            "base": 4,
            "increment": 3,
        },
        "network": {
            "backbone": {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25},
            "head": {"type": "ica", "embed_dim": 32, "num_heads": 4},
            "image_size": 32,
        },
        "method": {"type": "KRT"},
        "train_transform": {"cutout": 0.5, "randaugment": True},
        "train_cfg": {"max_epochs": 2, "base_lr": 1e-3, "save_interval": 0},
        "train_dataloader": {"batch_size": 15, "num_workers": 0},
        "test_dataloader": {"batch_size": 16, "num_workers": 0},
        "precision": "fp32",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }
    for key, value in changes.items():
        cfg[key] = {**cfg[key], **value} if isinstance(cfg.get(key), dict) and isinstance(value, dict) else value
    return finish_config(cfg, name)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def without_clock(results):
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in results]


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    results = train(config(scenes, folder))
    return folder, results


def test_a_run_leaves_its_files(finished):
    folder, results = finished
    run, saved = folder / "logs" / "run", folder / "saved" / "run"
    content = json.loads((run / "results.json").read_text())
    assert content["status"] == "done"
    assert without_clock(content["sessions"]) == without_clock(json.loads(json.dumps(results)))
    assert content["summary"]["last_mAP"] == pytest.approx(results[-1]["mAP"]["seen"])
    assert len((run / "results.csv").read_text().splitlines()) == 1 + sum(len(result["AP"]) for result in results)
    for name in ("map_per_session.png", "ap_per_class.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in saved.iterdir()} == {"session_0.pth", "session_1.pth", "session_2.pth", "resume.pth"}
    for path in saved.iterdir():
        torch.load(path, weights_only=True)
    log = (run / "log" / "log.txt").read_text()
    for words in ("current_mAP_base", "current_mAP_seen", "current_mAP_new", "dpl: target", "threshold", "sha256"):
        assert words in log or words == "sha256"
    assert "weights: none" in log
    assert "activated batch norm" in log
    assert not [p.name for p in run.iterdir() if p.is_dir() and p.name not in ("log", "vis_data", "scores")]


def test_the_written_config_trains_the_same_run_again(finished, tmp_path, capfd):
    folder, results = finished
    from mlcil.cli import main

    code = main(
        [
            "train", str(folder / "logs" / "run" / "config.py"), "--name", "again",
            f"log_root={tmp_path}/logs", f"checkpoint_root={tmp_path}/saved",
        ]
    )  # fmt: skip
    assert code == 0
    again = json.loads((tmp_path / "logs" / "again" / "results.json").read_text())["sessions"]
    assert without_clock(again) == without_clock(json.loads(json.dumps(results)))
    capfd.readouterr()


def test_stage_checkpoints_know_their_classes(finished):
    folder, _ = finished
    for session, high in enumerate((4, 7, 10)):
        predictor = mlcil.load(folder / "saved" / "run" / f"session_{session}.pth")
        assert len(predictor.classes) == high
        assert predictor.scores(torch.rand(2, 3, 32, 32)).shape == (2, high)


def test_the_test_command_gives_the_metrics_of_the_run(scenes, finished):
    from mlcil.commands.test import test_checkpoint

    folder, results = finished
    for session in (0, 2):
        again = test_checkpoint(folder / "saved" / "run" / f"session_{session}.pth", config(scenes, folder))
        assert again["mAP"] == pytest.approx(results[session]["mAP"], abs=1e-4)
        assert again["fixed_mAP"]["seen"] == pytest.approx(results[session]["fixed_mAP"]["seen"], abs=1e-4)


@pytest.mark.parametrize("stop_at", [(0, 1), (1, 1), (1, 0), (2, 1)], ids=lambda s: f"session{s[0]}epoch{s[1]}")
def test_a_resumed_run_ends_as_if_never_interrupted(scenes, finished, tmp_path, monkeypatch, stop_at):
    folder, results = finished
    run_until(config(scenes, tmp_path), *stop_at)
    torch.manual_seed(999)
    np.random.seed(999)
    resumed = train(config(scenes, tmp_path), resume=True)
    assert without_clock(json.loads(json.dumps(resumed))) == without_clock(json.loads(json.dumps(results)))
    for name in ("session_0.pth", "session_1.pth", "session_2.pth"):
        assert_same_weights(weights(folder / "saved" / "run" / name), weights(tmp_path / "saved" / "run" / name))


def test_replayed_images_enter_the_batches_with_the_promised_labels(scenes, tmp_path):
    """KRT-R: exemplars carry ground truth of their own and later classes, nothing of earlier ones."""
    runner = runner_of(config(scenes, tmp_path, memory={"per_class": 3}))
    data, seen = runner.train_loop.data, []
    original = data._collect

    def spy(session):
        images = original(session)
        seen.append((session, images.training, images.counts))
        return images

    data._collect = spy
    runner.train()
    scenario = runner.run_settings.scenario
    for session, view, counts in seen:
        new = len(scenario.train_rows(session))
        assert counts["images"] == new
        assert len(view) == new + counts["exemplars"]
        assert (counts["exemplars"] > 0) == (session > 0)
        truth = (scenario.train.labels_NC == 1)[view.rows]
        high = scenario.sessions[session].high
        for position in range(new, len(view)):
            lows = [s.low for s in scenario.sessions[:session]]
            labels = view.targets[position]
            assert any((labels == np.where(np.arange(high) >= low, truth[position, :high], -1)).all() for low in lows)
            assert (labels == 1).any()
    assert len(runner.run_settings.memory) <= 3 * len(scenario.classes)


def test_frozen_labels_and_a_total_budget(scenes, tmp_path):
    cfg = config(
        scenes,
        tmp_path,
        memory={"total": 9, "labels": "frozen"},
        train_cfg={"max_epochs": 1},
        train_dataloader={"batch_size": 14},
    )
    results = train(cfg)
    assert [r["train"]["exemplars"] <= 9 for r in results] == [True] * 3
    assert results[2]["train"]["exemplars"] > 0


@pytest.mark.parametrize("method", ["Finetune", "POD"])
def test_other_methods_ride_the_same_loop(scenes, tmp_path, method):
    cfg = config(scenes, tmp_path, method={"type": method}, network={"head": {"type": "linear"}})
    assert len(train(cfg)) == 3


def test_joint_training_is_one_session_with_all_labels(scenes, tmp_path):
    cfg = config(
        scenes, tmp_path, method={"type": "Finetune"}, network={"head": {"type": "linear"}}, scenario={"joint": True}
    )
    results = train(cfg)
    assert len(results) == 1
    assert len(results[0]["AP"]) == 10


def test_a_run_is_not_overwritten_by_accident(scenes, finished):
    folder, _ = finished
    with pytest.raises(UserError, match=r"--resume.*--overwrite"):
        train(config(scenes, folder))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_images(scenes, tmp_path, monkeypatch):
    runner = runner_of(config(scenes, tmp_path))
    method = runner.run_settings.method
    monkeypatch.setattr(
        method,
        "loss",
        lambda batch: {"loss_cls": method.network(batch.inputs).logits_BC.sum() * torch.nan},
    )
    with pytest.raises(UserError, match=r"loss is nan in session 0.*images"):
        runner.train()


TWO_PROCESSES = """
import sys
from mlcil.engine.config import load_config
from mlcil.engine.train import train
train(load_config(sys.argv[1], ["launcher='pytorch'", *sys.argv[2:]]), overwrite=True)
"""


def even_seed(scenes):
    """A seed of the scenes whose sessions all have an even number of images: two processes need no padding."""
    for seed in range(50):
        dataset = {"type": "digits", "cache_dir": str(scenes), **SCENES, "train_images": 40, "seed": seed}
        scenario = build_scenario(config(scenes, scenes, scenario={"dataset": dataset}))
        if all(len(scenario.train_rows(s.index)) % 2 == 0 for s in scenario.sessions):
            return dataset
    raise AssertionError("no seed gives even sessions")


def test_two_processes_give_the_answer_of_one(scenes, tmp_path):
    """Same global batches, same threshold, every test image counted once, same weights.

    The backbone has layer norms only: batch norms take their statistics per process, as the official code does.
    """
    cfg = config(
        scenes,
        tmp_path,
        "one",
        scenario={"dataset": even_seed(scenes)},
        network={"backbone": {"name": "test_vit"}},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}},
        train_cfg={"max_epochs": 1, "base_lr": 1e-3},
        param_scheduler=[],
        train_dataloader={"batch_size": 16},
    )
    single = train(cfg)
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
        str(tmp_path / "logs" / "one" / "config.py"), "name='two'", "train_dataloader.batch_size=8",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    double = json.loads((tmp_path / "logs" / "two" / "results.json").read_text())["sessions"]
    for a, b in zip(single, double, strict=True):
        assert a["images"] == b["images"]
        assert a["train"] == b["train"]
        assert b["report"] == json.loads(json.dumps(a["report"])) or b["report"]["dpl"]["threshold"] == pytest.approx(
            a["report"]["dpl"]["threshold"]
        )
        # rounding may swap neighbours in the ranking of thirty images, which moves AP by a fraction of a point
        assert b["mAP"] == pytest.approx(a["mAP"], abs=0.5)
    one, two = (weights(tmp_path / "saved" / name / "session_2.pth") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_compiled_backbone_gives_the_same_run_and_is_not_compiled_again(finished, scenes, tmp_path, monkeypatch):
    """Through a compiler that only takes the graphs: one for every batch size, training and evaluation, in all."""
    _, results = finished
    graphs, original = [], torch.nn.Module.compile

    def take(graph, inputs):
        graphs.append([x.shape for x in inputs if x.ndim == 4 and x.shape[1:] == (3, 32, 32)])
        return graph

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: original(self, backend=take, **options))
    short = {"fold_batch_norm": False, "train_cfg": {"max_epochs": 1}}
    again = train(config(scenes, tmp_path, compile=True, **short))
    assert graphs
    shapes = {str(shape) for shape in graphs}
    assert len(graphs) <= 2 * len(shapes)
    plain = train(config(scenes, tmp_path, "plain", **short))
    assert without_clock(again) == without_clock(plain)
    for t in range(len(results)):
        one, two = (weights(tmp_path / "saved" / name / f"session_{t}.pth") for name in ("run", "plain"))
        assert_same_weights(one, two)


def test_compiling_needs_a_compiler(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"compile=True needs a C\+\+ compiler"):
        train(config(scenes, tmp_path, compile=True))
    backbone = {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25, "recompute": True}
    with pytest.raises(UserError, match=r"does not go with network\.backbone\.recompute"):
        config(scenes, tmp_path, compile=True, network={"backbone": backbone})
    with pytest.raises(UserError, match="does not go with sync_batch_norm=True"):
        config(scenes, tmp_path, compile=True, sync_batch_norm=True)
    with pytest.raises(UserError, match="compile is 1; expected True or False"):
        config(scenes, tmp_path, compile=1)
