"""Whole runs of single-label methods on a handful of images: made images, second stages, memories, resume."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mlcil.datasets.table import ImageTable
from mlcil.engine.config import finish_config
from mlcil.engine.train import build_method, build_runner, train
from mlcil.errors import UserError
from mlcil.registry import DATASETS

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
SIDE = 16


@DATASETS.register_module()
class OneClassEach:
    """Noise around a colour a class."""

    name, label_cardinality = "one-class-each", 1.0

    def __init__(self, root, per_class=24):
        self.root, self.per_class = Path(root), per_class

    def table(self, split):
        folder = self.root / split
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.repeat(np.arange(len(CLASSES)), self.per_class)
        rng = np.random.default_rng(len(split))
        files = []
        for index, label in enumerate(labels):
            files.append(folder / f"{index}.png")
            pixels = rng.integers(0, 128, (SIDE, SIDE, 3)) + 20 * np.array([label, 5 - label, label % 2])
            Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
        one_hot = np.eye(len(CLASSES), dtype=np.int8)[labels]
        return ImageTable(split, CLASSES, tuple(range(len(files))), tuple(files), one_hot, one_hot == 1)

    def train(self):
        return self.table("train")

    def test(self):
        return self.table("test")


def config(folder, method, head, memory=None, **changes):
    backbone = {"name": "resnet32_abd", "blocks": (1, 1), "widths": (4, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    cfg = {
        "scenario": {"dataset": {"type": "OneClassEach", "root": str(folder / "data")}, "base": 2, "increment": 2},
        "network": {"backbone": backbone, "head": head, "image_size": SIDE},
        "method": method,
        "memory": memory,
        "train_transform": {"cutout": 0.0, "randaugment": False},
        "train_cfg": {"max_epochs": 3},
        "train_dataloader": {"batch_size": 8, "num_workers": 0},
        "test_dataloader": {"batch_size": 8, "num_workers": 0},
        "optim_wrapper": {
            "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
            "paramwise_cfg": {"decay_all": True},
        },
        "param_scheduler": [{"type": "Steps", "milestones": [1], "constant_from": 2, "constant": 0.005}],
        "precision": "fp32",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }
    for key, value in changes.items():
        cfg[key] = {**cfg[key], **value}
    return finish_config(cfg, "run")


FULL = {"type": "full_linear", "num_classes": len(CLASSES)}
DREAM = {"inversion": {"iterations": 2}}
SECOND = {"second": {"epochs": 2, "milestones": [1]}}
RUNS = {
    "R-DFCIL": ({"type": "RDFCIL", "finetune_epochs": 1, **DREAM}, {"type": "session_linear"}, None),
    "ABD": ({"type": "ABD", **DREAM}, FULL, None),
    "DGR": ({"type": "SingleLabelDGR"}, FULL, None),
    "rehearsal": ({"type": "SingleLabelFinetune"}, FULL, {"total": 10, "selection": "random_coreset"}),
    "E2E": ({"type": "SingleLabelE2E", **SECOND}, FULL, {"total": 10, "selection": "nearest_coreset"}),
    "BiC": ({"type": "SingleLabelBiC", **SECOND}, FULL, {"total": 60, "selection": "herding_coreset"}),
}


def weights(folder, session):
    return torch.load(folder / "saved" / "run" / f"session_{session}.pth", weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_and_its_resumption(name, tmp_path, monkeypatch):
    method, head, memory = RUNS[name]
    results = train(config(tmp_path / "whole", method, head, memory))
    assert len(results) == 3
    report = results[-1]["report"]
    if name in ("R-DFCIL", "ABD"):
        assert set(report["inversion"]) == {"content", "balance", "smoothness", "statistics", "classes shown"}
    if name == "BiC":
        assert 0 < abs(report["correction"]["alpha"] - 1) < 0.1
        assert 0 < abs(report["correction"]["beta"]) < 0.1
    if name == "rehearsal":
        assert results[1]["train"]["exemplars"] == results[1]["train"]["images"]

    # inside the last session, and where generator, corrections and memory pass from a session to the next
    for folder, stop_at in (("inside", (2, 2)), ("between", (2, 0)))[: 2 if name in ("ABD", "BiC") else 1]:
        interrupt(config(tmp_path / folder, method, head, memory), stop_at, monkeypatch)
        train(config(tmp_path / folder, method, head, memory), resume=True)
        whole, cut = weights(tmp_path / "whole", 2), weights(tmp_path / folder, 2)
        for key, value in whole.items():
            torch.testing.assert_close(cut[key], value, rtol=0, atol=0, msg=key)


def interrupt(cfg, stop_at, monkeypatch):
    """Run until the state of this session and epoch was saved."""
    runner = build_runner(cfg)
    save = runner.save_resume_state

    def save_and_stop(epoch, seconds):
        save(epoch, seconds)
        if (runner.train_loop.session, epoch) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "save_resume_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        runner.train()


def test_a_second_stage_needs_a_memory(tmp_path):
    method, head, _ = RUNS["E2E"]
    with pytest.raises(UserError, match=r"SingleLabelE2E replays stored images.*nearest_coreset"):
        build_runner(config(tmp_path, method, head))


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({"total": 3, "selection": "random"}, "does not work with memory.selection='random'"),
        ({"totl": 3, "selection": "nearest_coreset"}, "did you mean 'total'"),
    ],
)
def test_memories_are_checked(memory, words, tmp_path):
    with pytest.raises(UserError, match=words):
        config(tmp_path, *RUNS["E2E"][:2], memory)


def test_the_refinement_of_rdfcil_leaves_the_backbone_alone(tmp_path):
    method, head, _ = RUNS["R-DFCIL"]
    runner = build_runner(config(tmp_path, method, head, train_cfg={"stop_after_session": 1}))
    seen = {}
    begin_epoch = runner.method.begin_epoch

    def spy(epoch, epochs):
        changed = begin_epoch(epoch, epochs)
        if runner.method.refining:
            seen["before"] = {k: v.clone() for k, v in runner.method.network.state_dict().items()}
        return changed

    runner.method.begin_epoch = spy
    runner.train()
    after = runner.method.network.state_dict()
    for key, value in seen["before"].items():
        same = torch.equal(after[key], value)
        assert same == key.startswith("backbone."), key


TWO_PROCESSES = """
import sys
sys.path[:0] = [{tests!r}]
import os
import subprocess
import sys
from pathlib import Path
from test_data_free_run import RUNS, config
from mlcil.engine.train import train
cfg = config(Path({folder!r}), *RUNS["R-DFCIL"])
cfg.launcher = "pytorch"
train(cfg, overwrite=True)
"""


def test_two_processes_change_phase_together(tmp_path):
    """The model is wrapped anew when the backbone rests; nothing waits for gradients that do not come."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(value.isfinite().all() for value in weights(tmp_path, 2).values())


@pytest.mark.parametrize("name", ["rdfcil_cifar100", "abd_cifar100"])
def test_recipes_are_accepted(name, tmp_path):
    recipe = Config.fromfile(Path(__file__).parents[2] / "configs" / "_base_" / f"{name}.py").to_dict()
    scenario = {"dataset": {"type": "OneClassEach", "root": str(tmp_path)}, "base": 2, "increment": 2}
    cfg = finish_config({**recipe, "scenario": scenario}, name)
    method = build_method(cfg)
    assert method.settings.iterations == recipe["method"]["inversion"]["iterations"]
    method.network.grow(2)
    assert method.network(torch.rand(2, 3, 32, 32)).logits_BC.shape == (2, 2)
