"""Whole runs where every image shows one class: the same loop, files, resume and commands, with accuracy."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_single as tiny
import torch
from tiny import call, run_until, runner_of

import mlcil
from mlcil.engine.config import finish_config, load_config
from mlcil.engine.train import train
from mlcil.losses.criterion import SINGLE_LABEL
from mlcil.methods.base import Batch
from mlcil.methods.finetune import Finetune
from mlcil.reporting.html import write_report


def checked_loss(self: Finetune, batch: Batch) -> dict[str, torch.Tensor]:
    """The method's own loss; what the data choose and the rows are checked as they pass."""
    assert self.context is not None
    targets = self.targets(batch)
    assert targets.shape == (len(batch.inputs), self.context.high)
    assert torch.equal(targets.sum(1), torch.ones(len(targets)))
    assert set(targets.unique().tolist()) <= {0.0, 1.0}
    assert self.criterion is SINGLE_LABEL
    return own_loss(self, batch)


own_loss = Finetune.loss


@pytest.fixture(autouse=True, scope="module")
def plain_loss() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Finetune, "loss", checked_loss)
        yield


def config(folder: Path, name: str = "run", **changes: Any) -> Any:
    cfg: dict[str, Any] = {
        "name": name,
        "scenario": {"dataset": {"type": "digits_single"}, "num_sessions": 3, "base": 4},
        "network": {
            "backbone": {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25},
            "head": {"type": "linear"},
            "image_size": 32,
        },
        "method": {"type": "Finetune"},
        "memory": {"total": 40},
        "train_transform": {"cutout": 0.0, "randaugment": False, "crop": "padded", "padding": 2},
        "train_cfg": {"max_epochs": 2, "base_lr": 2e-3, "save_interval": 0},
        "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 1e-3}},
        "train_dataloader": {"batch_size": 50, "num_workers": 0, "drop_last": True},
        "test_dataloader": {"batch_size": 200, "num_workers": 0},
        "precision": "fp32",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }
    for key, value in changes.items():
        cfg[key] = {**cfg[key], **value} if isinstance(cfg.get(key), dict) and isinstance(value, dict) else value
    return finish_config(cfg, name)


def without_clock(results: Any) -> Any:
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in json.loads(json.dumps(results))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(config(folder))


def test_a_run_learns_and_leaves_its_files(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = finished
    run = folder / "logs" / "run"
    content = json.loads((run / "results.json").read_text())
    assert (content["status"], content["task"]) == ("done", "single_label")
    assert without_clock(content["sessions"]) == without_clock(results)
    assert [len(r["class_accuracy"]) for r in results] == [4, 7, 10]
    assert results[0]["accuracy"]["seen"] > 50
    assert [r["accuracy"]["old"] is None for r in results] == [True, False, False]
    assert [r["images"]["seen"] for r in results] == [178, 313, 445]
    assert [r["train"]["exemplars"] for r in results] == [0, 40, 40]
    assert content["summary"]["last_accuracy"] == results[-1]["accuracy"]["seen"]
    assert [row.count(None) for row in content["summary"]["accuracy_matrix"]] == [2, 1, 0]
    for name in ("accuracy_per_session.png", "accuracy_matrix.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    log = (run / "log" / "log.txt").read_text()
    for words in (
        "session current_accuracy_seen = ",
        "top5_seen = ",
        "session average_accuracy = ",
        "accuracy in perc",
    ):
        assert words in log
    assert "mAP" not in log
    assert not list(run.glob("*map*"))


def test_the_report_shows_images_without_files(finished: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, _ = finished
    text = write_report([folder / "logs" / "run"], tmp_path / "report.html").read_text()
    assert "Accuracy per session" in text
    assert "data:image/jpeg" in text
    assert "cannot be read any more" not in text


def test_the_table_of_comma_separated_values(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = finished
    rows = list(csv.DictReader(io.StringIO((folder / "logs" / "run" / "results.csv").read_text())))
    assert [int(row["session"]) for row in rows] == [0] * 4 + [1] * 7 + [2] * 10
    for row in rows:
        result = results[int(row["session"])]
        accuracy = result["class_accuracy"][int(row["class_number"])]
        assert (float(row["accuracy"]) if row["accuracy"] else None) == accuracy
        assert float(row["session_top5_seen"]) == result["top5"]["seen"]
        assert row["AP"] == ""


def test_stage_checkpoints_predict_shares(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = finished
    stage = torch.load(folder / "saved" / "run" / "session_2.pth", weights_only=True)
    assert (stage["task"], stage["metrics"]["accuracy"]) == ("single_label", results[2]["accuracy"])
    scores = mlcil.load(folder / "saved" / "run" / "session_2.pth").scores(torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(scores.sum(1), torch.ones(3))


def test_the_test_command_gives_the_metrics_of_the_run(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    from mlcil.commands.test import test_checkpoint

    folder, results = finished
    for session in (0, 2):
        again = test_checkpoint(folder / "saved" / "run" / f"session_{session}.pth", config(folder))
        assert again["accuracy"] == pytest.approx(results[session]["accuracy"])
        assert again["session_accuracy"] == pytest.approx(results[session]["session_accuracy"])


@pytest.mark.parametrize("stop_at", [(0, 1), (1, 0), (2, 1)], ids=lambda s: f"session{s[0]}epoch{s[1]}")
def test_a_resumed_run_ends_as_if_never_interrupted(
    finished: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: tuple[int, int],
) -> None:
    folder, results = finished
    run_until(config(tmp_path), *stop_at)
    torch.manual_seed(999)
    np.random.seed(999)
    resumed = train(config(tmp_path), resume=True)
    assert without_clock(resumed) == without_clock(results)
    for session in range(3):
        one, two = (
            torch.load(f / "saved" / "run" / f"session_{session}.pth", weights_only=True)["state_dict"]
            for f in (folder, tmp_path)
        )
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    short: dict[str, Any] = {
        "train_cfg": {"max_epochs": 1, "stop_after_session": 0},
        "train_transform": {"flip": True, "jitter": {"brightness": 0.3}, "policy": "autoaugment_cifar10"},
    }
    plain = train(config(tmp_path, "plain", **short))
    with_workers = train(config(tmp_path, "workers", **short, train_dataloader={"num_workers": workers}))
    assert without_clock(with_workers) == without_clock(plain)
    one, two = (
        torch.load(tmp_path / "saved" / name / "session_0.pth", weights_only=True)["state_dict"]
        for name in ("plain", "workers")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_images_of_any_shape_in_folders(tmp_path: Path) -> None:
    """Files, a central crop, and a crop that takes whole images."""
    tiny.class_folders(tmp_path / "data" / "train", images=6)
    tiny.class_folders(tmp_path / "data" / "test", images=2)
    cfg = config(
        tmp_path,
        scenario={
            "dataset": {"type": "folder", "root": str(tmp_path / "data"), "fit": "centre"},
            "num_sessions": 2,
            "base": 0,
        },
        train_transform={"crop": "resized", "flip": True},
        train_dataloader={"batch_size": 4},
        train_cfg={"max_epochs": 1},
    )
    results = train(cfg)
    assert [r["images"]["seen"] for r in results] == [4, 8]
    predictor = mlcil.load(tmp_path / "saved" / "run" / "session_1.pth")
    assert predictor.fit.kind == "centre"
    files = sorted((tmp_path / "data" / "test").rglob("*.png"))
    predicted = [max(scores, key=lambda name: scores[name]) for _, scores in predictor.predict(files)]
    right = np.mean([name == file.parent.name for name, file in zip(predicted, files, strict=True)])
    assert 100 * right == pytest.approx(results[1]["accuracy"]["seen"])


def test_joint_training(tmp_path: Path) -> None:
    results = train(config(tmp_path, scenario={"joint": True}, train_cfg={"max_epochs": 1}))
    assert len(results) == 1
    assert len(results[0]["class_accuracy"]) == 10
    assert results[0]["images"]["base"] == 178


def test_a_session_without_test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.class_folders(tmp_path / "data" / "train", images=4)
    tiny.class_folders(tmp_path / "data" / "test", tiny.CLASSES[:2], images=2)
    dataset = {"type": "folder", "root": str(tmp_path / "data")}
    cfg = tiny.write_config(tmp_path, dataset)
    code, _, err = call(capsys, "train", cfg)
    assert (code, err) == (0, "")
    results = json.loads((tmp_path / "logs" / f"{tmp_path.name}_run" / "results.json").read_text())
    assert results["sessions"][1]["accuracy"]["new"] is None
    assert results["sessions"][1]["classes_without_images"] == [2, 3]
    assert results["summary"]["last_accuracy"] is not None


def test_the_first_session_without_test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.class_folders(tmp_path / "data" / "train", images=4)
    tiny.class_folders(tmp_path / "data" / "test", tiny.CLASSES[2:], images=2)
    code, _, err = call(
        capsys, "train", tiny.write_config(tmp_path, {"type": "folder", "root": str(tmp_path / "data")})
    )
    assert (code, err) == (0, "")


def test_the_config_command_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.cifar_folder(tmp_path / "data")
    dataset = {"type": "cifar100", "root": str(tmp_path / "data"), "verify": False}
    path = tiny.write_config(tmp_path, dataset)
    words = ["seed=7", "memory.total=6", "network.backbone.width=0.25", "scenario.class_order=random:1", "name='mine'"]
    code, printed, err = call(capsys, "config", path, *words)
    assert (code, err) == (0, "")
    out = tmp_path / "out.py"
    assert call(capsys, "config", path, *words, "--output", out) == (0, "", "")
    assert out.read_text() == printed
    assert load_config(out).to_dict() == load_config(path, words).to_dict()
    assert call(capsys, "config", out)[1] == printed
    assert call(capsys, "train", path, *words)[0] == 0
    assert call(capsys, "train", out, "--overwrite", "name='again'")[0] == 0
    one, two = (
        json.loads((tmp_path / "logs" / name / "results.json").read_text())["sessions"] for name in ("mine", "again")
    )
    assert without_clock(one) == without_clock(two)


def test_names_of_normalisations(tmp_path: Path) -> None:
    backbone = {"name": "resnet10t", "mean": "cifar100", "std": "imagenet", "layers": None, "width": None}
    cfg = config(tmp_path, network={"backbone": {k: v for k, v in backbone.items() if v is not None}})
    assert cfg.network.backbone.mean == [0.5071, 0.4867, 0.4408]
    assert cfg.network.backbone.std == [0.229, 0.224, 0.225]
    runner = runner_of(cfg)
    backbone = runner.run_settings.method.network.backbone
    assert backbone.mean.flatten().tolist() == pytest.approx([0.5071, 0.4867, 0.4408])
