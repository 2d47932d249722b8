"""Whole runs of single-label methods on a handful of images: made images, second stages, memories, resume."""

from pathlib import Path

import fault_harness
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import run_until, runner_of

import mlcil
from mlcil.datasets.table import ImageTable
from mlcil.engine.build import build_scenario
from mlcil.engine.config import finish_config
from mlcil.engine.train import train
from mlcil.errors import UserError
from mlcil.methods.base import SessionContext
from mlcil.models.inversion import Inversion, InversionSettings
from mlcil.registry import DATASETS

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
SIDE = 16


@DATASETS.register_module()
class OneClassEach:
    """Noise around a colour a class."""

    name, label_cardinality, task = "one-class-each", 1.0, "single_label"

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
            if not files[-1].exists():  # a file that is written again counts as another image
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
        "train_cfg": {"max_epochs": 3, "save_interval": 0},
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
DREAM = {"inversion": {"iterations": 2, "width": 8}}
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
        run_until(config(tmp_path / folder, method, head, memory), *stop_at)
        train(config(tmp_path / folder, method, head, memory), resume=True)
        whole, cut = weights(tmp_path / "whole", 2), weights(tmp_path / folder, 2)
        for key, value in whole.items():
            torch.testing.assert_close(cut[key], value, rtol=0, atol=0, msg=key)


def test_a_resume_behind_the_inversion_does_not_invert_again(tmp_path, monkeypatch):
    method, head, memory = RUNS["ABD"]
    train(config(tmp_path / "whole", method, head, memory))
    cfg = config(tmp_path / "cut", method, head, memory)
    run_until(cfg, 1, 0, prepared=True)
    fitted = []
    fit = Inversion.fit

    def count(self, teacher, *rest):
        fitted.append(sum(teacher.classes_per_session))
        return fit(self, teacher, *rest)

    monkeypatch.setattr(Inversion, "fit", count)
    train(cfg, resume=True)
    assert fitted == [4]  # the old network of session 2 alone
    whole, cut = weights(tmp_path / "whole", 2), weights(tmp_path / "cut", 2)
    assert all(torch.equal(cut[key], value) for key, value in whole.items())


@pytest.mark.parametrize("name", ["ABD", "DGR"])
def test_made_images_are_kept_for_reports(name, tmp_path):
    method, head, memory = RUNS[name]
    train(config(tmp_path, method, head, memory, train_cfg={"max_epochs": 1}))
    folder = tmp_path / "logs" / "run" / "made"
    assert sorted(path.name for path in folder.iterdir()) == ["session_1.npz", "session_2.npz"]
    with np.load(folder / "session_2.npz") as made:
        assert made["images"].dtype == np.uint8
        assert made["images"].shape == (len(made["labels"]), SIDE, SIDE, 3)
        assert set(made["labels"].tolist()) <= set(range(4))
        assert np.bincount(made["labels"]).max() <= 8


def test_a_lost_class_is_warned_of_early(tmp_path, caplog):
    method, head, _ = RUNS["ABD"]
    runner = runner_of(config(tmp_path, method, head))
    data_free = runner.run_settings.method
    data_free.context = SessionContext(2, 4, 6, 2, 6, None, 1.0, 8)
    data_free.settings = InversionSettings(iterations=100)
    told = []
    data_free.announce = lambda text, done, total: told.append((done, total, text))
    balanced = {"content": 1.0, "balance": 0.1, "smoothness": 0.1, "statistics": 1.0}
    with caplog.at_level("WARNING"):
        data_free.tell(10, balanced)
        assert "old classes" not in caplog.text
        for done in (20, 30):
            data_free.tell(done, {**balanced, "balance": 0.8})
    assert [done for done, _, _ in told] == [10, 20, 30]
    assert "statistics 1.0000" in told[0][2]
    log = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert log.count("about 1.3 of 4 old classes") == 1
    assert "inversion [10/100]  content 1.0000, balance 0.1000" in log


def test_the_upper_bound_of_every_session(tmp_path):
    method = {"type": "SingleLabelFinetune", "restart": True}
    cfg = config(tmp_path, method, FULL, scenario={"cumulative": True}, train_cfg={"max_epochs": 1})
    results = train(cfg)
    assert [r["train"]["images"] for r in results] == [48, 96, 144]
    plain = config(tmp_path / "plain", {"type": "SingleLabelFinetune"}, FULL, train_cfg={"max_epochs": 1})
    one, two = build_scenario(cfg), build_scenario(plain)
    assert one.comparison_hash == two.comparison_hash
    assert one.hash != two.hash
    assert one.protocol == "cumulative-" + two.protocol
    assert one.train_targets(one.train_rows(2), one.first_class(2), 6).sum() == 144
    first, second = (weights(tmp_path, session)["backbone.stem.conv.weight"] for session in (0, 1))
    assert (first - second).abs().mean() > 0.1  # new weights, not a step further


def test_a_second_stage_needs_a_memory(tmp_path):
    method, head, _ = RUNS["E2E"]
    with pytest.raises(UserError, match=r"SingleLabelE2E replays stored images.*nearest_coreset"):
        runner_of(config(tmp_path, method, head))


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
    runner = runner_of(config(tmp_path, method, head, train_cfg={"stop_after_session": 1}))
    seen = {}
    method = runner.run_settings.method
    refine = method.refine

    def spy():
        refine()
        seen["before"] = {k: v.clone() for k, v in method.network.state_dict().items()}

    method.refine = spy
    runner.train()
    after = method.network.state_dict()
    for key, value in seen["before"].items():
        same = torch.equal(after[key], value)
        assert same == key.startswith("backbone."), key


def test_two_processes_change_phase_together(tmp_path):
    """The model is wrapped anew when the backbone rests; nothing waits for gradients that do not come."""
    OneClassEach(tmp_path / "data").train(), OneClassEach(tmp_path / "data").test()  # write the images once
    cfg = config(tmp_path, *RUNS["R-DFCIL"])
    cfg.launcher = "pytorch"
    codes = fault_harness.both(lambda rank: fault_harness.run(cfg), tmp_path)
    assert codes == [0, 0], (tmp_path / "rank0.txt").read_text()[-3000:]
    assert all(value.isfinite().all() for value in weights(tmp_path, 2).values())


def test_corrected_predictions_go_with_the_checkpoint(tmp_path):
    from mlcil.commands.test import test_checkpoint

    method, head, memory = RUNS["BiC"]
    method = {**method, "correct_predictions": True, "second": {"epochs": 2, "milestones": [1], "lr": 1.0}}
    cfg = config(tmp_path, method, head, memory)
    results = train(cfg)
    path = tmp_path / "saved" / "run" / "session_2.pth"
    table = torch.load(path, weights_only=True)["logit_correction"]
    assert table.shape == (6, 2)
    assert table[:2].tolist() == [[1.0, 0.0]] * 2
    alpha, beta = results[-1]["report"]["correction"].values()
    torch.testing.assert_close(table[4:], torch.tensor([[alpha, beta]] * 2))
    predictor = mlcil.load(path, precision="fp32")
    images = torch.rand(5, 3, SIDE, SIDE)
    with torch.inference_mode():
        logits = predictor.network(images).logits_BC
    torch.testing.assert_close(predictor.scores(images), (logits * table[:, 0] + table[:, 1]).softmax(1))
    assert test_checkpoint(path, cfg)["accuracy"] == pytest.approx(results[-1]["accuracy"])


def test_other_checkpoints_have_no_correction(tmp_path):
    method, head, memory = RUNS["BiC"]
    train(config(tmp_path, method, head, memory, train_cfg={"max_epochs": 1, "stop_after_session": 1}))
    assert torch.load(tmp_path / "saved" / "run" / "session_1.pth", weights_only=True)["logit_correction"] is None
