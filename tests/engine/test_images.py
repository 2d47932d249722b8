"""Worker processes of whole runs: the same ones for all sessions, none left behind."""

import multiprocessing
from typing import ClassVar

import pytest
from engine.test_run import assert_same_weights, config, scenes, weights, without_clock  # noqa: F401  (a fixture)
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlcil.engine.train import train
from mlcil.errors import UserError

TRANSFORMS = {"workers": {"flip": True}, "device": {"flip": True, "on_device": True}}


@HOOKS.register_module()
class WorkerProcesses(Hook):
    """Notes the ids of the loaders' processes behind every session."""

    seen: ClassVar[list[set[int]]] = []

    def after_session(self, runner, session=None, result=None):
        self.seen.append({process.pid for process in multiprocessing.active_children()})


def test_all_sessions_are_read_by_the_same_processes(scenes, tmp_path):  # noqa: F811
    """Two processes for training, calibration, herding and evaluation, and the numbers of none."""
    loaders = {name: {"num_workers": 2} for name in ("train_dataloader", "test_dataloader")}
    cfg = config(scenes, tmp_path, memory={"per_class": 2}, custom_hooks=[{"type": "WorkerProcesses"}], **loaders)
    with_two = train(cfg)
    first = WorkerProcesses.seen[0]
    assert len(first) == 2
    assert WorkerProcesses.seen == [first] * len(with_two)
    assert not multiprocessing.active_children()
    plain = train(config(scenes, tmp_path, "plain", memory={"per_class": 2}))
    assert without_clock(with_two) == without_clock(plain)
    last = f"session_{len(with_two) - 1}.pth"
    one, two = (weights(tmp_path / "saved" / name / last) for name in ("run", "plain"))
    assert_same_weights(one, two)


def test_a_run_that_augments_on_the_device_has_the_same_numbers(scenes, tmp_path):  # noqa: F811
    results = [train(config(scenes, tmp_path, name, train_transform=options)) for name, options in TRANSFORMS.items()]
    assert without_clock(results[0]) == without_clock(results[1])
    last = f"session_{len(results[0]) - 1}.pth"
    assert_same_weights(*(weights(tmp_path / "saved" / name / last) for name in TRANSFORMS))


@HOOKS.register_module()
class Fails(Hook):
    """Raises behind the first step of session 1."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.train_loop.position.session == 1:
            raise UserError("enough")


def test_a_failed_run_leaves_no_processes(scenes, tmp_path):  # noqa: F811
    cfg = config(scenes, tmp_path, train_dataloader={"num_workers": 1}, custom_hooks=[{"type": "Fails"}])
    with pytest.raises(UserError, match="enough"):
        train(cfg)
    assert not multiprocessing.active_children()
