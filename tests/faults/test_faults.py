"""What goes wrong around a run: disks, signals, locks, losses, workers, memory; nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fault_harness as harness
import numpy as np
import pytest
import tiny
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny import runner_of

import mlcil.engine.conditions
import mlcil.engine.resume
from mlcil import cli, files
from mlcil.engine.config import load_config
from mlcil.engine.hooks import FiniteLossHook, PseudoLabelAuditHook
from mlcil.engine.loop import SessionLoop
from mlcil.engine.run_folder import RunFolder
from mlcil.engine.train import train
from mlcil.errors import StoppedError, UserError
from mlcil.methods.base import Batch, SessionContext
from mlcil.system import lock

SECTIONS = {
    "method": {"type": "Finetune"},
    "memory": {"total": 12, "selection": "herding"},
    "network": {"backbone": harness.BACKBONE, "head": {"type": "linear"}},
}


def config(folder: Path, **changes: Any) -> Any:
    """Two sessions of three classes, one epoch of three steps each."""
    values = {"train_cfg": {"max_epochs": 1, "val_interval": 0, "save_interval": 1}, **changes}
    return harness.config("Finetune", folder, SECTIONS, 3, **values)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlcil.reporting.plots.draw_run", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    train(config(folder))
    return harness.fingerprints(folder)


# -- disks ------------------------------------------------------------------------------------------------


class FullDisk:
    """``os.replace`` that fails once, at a given call."""

    def __init__(self, fails_at: int) -> None:
        self.calls, self.fails_at, self.replace = 0, fails_at, os.replace

    def __call__(self, source: Any, target: Any) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.replace(source, target)


#: all writes of the run with MLCIL_ALL_WRITES=1
WRITES = range(1, 29) if os.environ.get("MLCIL_ALL_WRITES") else (1, 2, 5, 9, 14)


@pytest.mark.parametrize("number", WRITES)
def test_a_disk_that_is_full_at_a_write(
    tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        disk = FullDisk(number)
        patch.setattr(files.os, "replace", disk)
        with pytest.raises(UserError, match=r"could not be written \(No space left on device\); make room"):
            train(config(tmp_path))
    assert disk.calls == number
    assert not list(tmp_path.rglob("*.tmp"))
    train(config(tmp_path), resume=True)
    assert harness.fingerprints(tmp_path) == whole


# -- signals ------------------------------------------------------------------------------------------------


class Signaller(harness.Watcher):
    """Sends signals at a call of a phase instead of killing."""

    def __init__(self, phase: str, call: int, *numbers: int) -> None:
        super().__init__(phase, call)
        self.numbers = numbers

    def count(self) -> None:
        phase = self.stack[-1]
        self.counts[phase] += 1
        if phase == self.phase and self.counts[phase] == self.call:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def stopped(cfg: Any, signaller: Signaller, out: Path) -> int:
    """Run in a fork until the signals stop it; its sentence is in ``out``."""

    def work() -> None:
        try:
            harness.run(cfg, signaller)
        except StoppedError as stop:
            out.write_text(f"{stop.number} {stop}")

    return harness.in_child(work, out.with_suffix(".log"))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_saves_and_stops(tmp_path: Path, whole: dict[str, str], number: int, name: str) -> None:
    cfg = config(tmp_path, train_cfg={"max_epochs": 1, "val_interval": 0, "save_interval": None})
    assert stopped(cfg, Signaller("training step", 30, number), tmp_path / "out.txt") == 0
    sentence = (tmp_path / "out.txt").read_text()
    assert sentence.startswith(f"{int(number)} stopped by {name} in session ")
    assert "everything is saved, so go on with the same command and --resume" in sentence
    assert not (tmp_path / "logs" / "run" / lock.NAME).exists()
    state = torch.load(tmp_path / "saved" / "run" / "resume.pth", weights_only=True)
    assert state["iteration"] > 0
    train(cfg, resume=True)
    assert harness.fingerprints(tmp_path) == whole


def test_a_signal_between_steps_stops_at_once(tmp_path: Path, whole: dict[str, str]) -> None:
    cfg = config(tmp_path)
    assert stopped(cfg, Signaller("validation", 20, signal.SIGTERM), tmp_path / "out.txt") == 0
    assert "stopped by SIGTERM in session 0, between training steps" in (tmp_path / "out.txt").read_text()
    train(cfg, resume=True)
    assert harness.fingerprints(tmp_path) == whole


def test_a_second_signal_ends_the_process(tmp_path: Path) -> None:
    status = stopped(
        config(tmp_path), Signaller("training step", 20, signal.SIGTERM, signal.SIGTERM), tmp_path / "out.txt"
    )
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert not (tmp_path / "out.txt").exists()


def test_the_exit_code_of_a_stopped_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise StoppedError(signal.SIGTERM, "stopped by SIGTERM in session 3")

    monkeypatch.setattr("mlcil.commands.train.train", stop)
    data = tiny.coco_folder(tmp_path / "data")
    code, _, err = tiny.call(capsys, "train", tiny.write_config(tmp_path, data))
    assert (code, err) == (143, "mlcil: stopped by SIGTERM in session 3\n")


# -- two runs of one name -------------------------------------------------------------------------------------


def test_a_run_in_use_is_refused_and_says_by_whom(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with lock.RunLock(tmp_path / "logs" / "run") as held:
        assert held.stale is None
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        with pytest.raises(
            UserError, match=rf"run is in use by process {os.getpid()} of .* on host {socket.gethostname()}"
        ):
            train(cfg, overwrite=True)
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert not (tmp_path / "logs").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, whole: dict[str, str]) -> None:
    cfg = config(tmp_path)
    status = harness.in_child(lambda: harness.run(cfg, harness.Watcher("training step", 60)), tmp_path / "out.txt")
    assert os.WTERMSIG(status) == signal.SIGKILL
    pid = json.loads((tmp_path / "logs" / "run" / lock.NAME).read_text())["pid"]
    train(cfg, resume=True)
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert f"the lock of process {pid} of " in text
    assert "was left behind (that process is gone) and is taken over" in text
    assert harness.fingerprints(tmp_path) == whole


def test_the_lock_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 1.2)
    owner = {"host": "elsewhere", "pid": 7, "user": "ann", "since": "2020-01-01T00:00:00", "beat": 0}
    path = tmp_path / lock.NAME
    path.write_text(json.dumps(owner))
    with lock.RunLock(tmp_path) as taken:
        assert taken.stale is not None
        assert "process 7 of ann on host elsewhere" in taken.stale
    path.write_text(json.dumps(owner))
    timer = threading.Timer(0.3, lambda: path.write_text(json.dumps({**owner, "beat": 1})))
    timer.start()
    with pytest.raises(UserError, match="in use by process 7 of ann on host elsewhere"):
        lock.RunLock(tmp_path).__enter__()
    timer.join()
    assert json.loads(path.read_text())["beat"] == 1


def test_a_lock_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "PATIENCE", 1.2)
    monkeypatch.setattr(lock, "BEAT", 0.2)
    with lock.RunLock(tmp_path), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        lock.RunLock(tmp_path).__enter__()
    owner = {"host": socket.gethostname(), "pid": 7, "user": "ann", "since": "2020-01-01T00:00:00", "beat": 0}
    (tmp_path / lock.NAME).write_text(json.dumps(owner))
    with lock.RunLock(tmp_path) as taken:
        assert "its file did not change" in str(taken.stale)


# -- other conditions -------------------------------------------------------------------------------------------


def test_resuming_under_other_conditions_says_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(tmp_path, train_cfg={"stop_after_session": 0, "max_epochs": 1}))
    before = harness.fingerprints(tmp_path)

    def refused(*sentences: str, **changes: Any) -> None:
        with pytest.raises(UserError) as caught:
            train(config(tmp_path, **changes), resume=True)
        for sentence in ("resume.pth was written under other conditions", "--accept-changes", *sentences):
            assert sentence in str(caught.value)
        assert harness.fingerprints(tmp_path) == before

    refused(
        "optim_wrapper.optimizer.lr was 0.001 and is 0.01", optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.01}}
    )
    refused("train_dataloader.batch_size was 8 and is 4", train_dataloader={"batch_size": 4})
    with monkeypatch.context() as patch:  # neither the setting nor what a machine with more cores has of itself
        patch.setattr(torch, "get_num_threads", lambda: 3)
        refused("threads was 1 and is 3")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: patch.setattr(torch, "get_num_threads", lambda: count))
        refused("threads was 1 and is 2", threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(mlcil.engine.conditions, "source_digest", lambda: "0123456789ab")
        refused("source code of mlcil was ", " and is 0123456789ab")
    with monkeypatch.context() as patch:
        patch.setattr(mlcil.engine.conditions, "versions", lambda: {"torch": "9.9"})
        refused("version of torch was ", " and is 9.9")
    with monkeypatch.context() as patch:
        for name, value in {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
            patch.setenv(name, value)
        patch.setenv("MASTER_ADDR", "localhost")
        patch.setenv("MASTER_PORT", "1")
        refused("number of processes was 1 and is 4", launcher="pytorch")
    changed = config(tmp_path, train_cfg={"max_epochs": 2}, log_interval=7)
    assert len(train(changed, resume=True, accept_changes=True)) == 2
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert "resumed under other conditions: train_cfg.max_epochs was 1 and is 2" in text
    assert "log_interval" not in text.split("resumed under")[1]


def test_images_that_changed_are_other_conditions(tmp_path: Path) -> None:
    """Of files their size and time count, of images in memory every pixel."""
    path = tiny.write_config(tmp_path, tiny.coco_folder(tmp_path / "data"))
    with path.open("a") as file:
        file.write("train_cfg = dict(max_epochs=1, stop_after_session=0)\n")
    train(load_config(path))
    image = next((tmp_path / "data").rglob("*.jpg"))
    tiny.write_image(image, seed=99)
    os.utime(image, ns=(1, 1))
    with pytest.raises(UserError, match=r"images of the (training|test) split was \w+ and is \w+"):
        train(load_config(path), resume=True)
    assert train(load_config(path), resume=True, accept_changes=True)

    table = harness.FaultScenes().train()
    pixels = table.pixels.copy()
    pixels[3, 2, 1, 0] ^= 1
    assert table.image_digest() == harness.FaultScenes().train().image_digest()
    assert dataclasses.replace(table, pixels=pixels).image_digest() != table.image_digest()


def test_a_network_whose_scores_are_no_numbers_is_not_evaluated(tmp_path: Path) -> None:
    runner = runner_of(config(tmp_path))
    run = runner.run_settings
    run.method.begin_session(SessionContext(0, 0, 3, 3, 6, 1.5, 1.0, 8))
    next(run.method.network.head.parameters()).data.fill_(torch.nan)
    evaluate = runner.train_loop.evaluator
    with pytest.raises(UserError, match=r"scores of image \d+ \(test\) and of \d+ more images are no numbers"):
        evaluate(run.method, run.scenario.sessions[0])


def test_pseudo_labels_in_cells_that_nobody_labelled_are_not_judged(tmp_path: Path) -> None:
    runner = runner_of(config(tmp_path))
    run = runner.run_settings
    labels = run.scenario.train.labels_NC
    labels[0, :2], labels[1, :2] = (1, -1), (0, -1)
    fires = np.array([[True, True], [True, False]])
    run.method.pseudo_label_decisions = lambda: (np.array([0, 1]), fires)
    audit = next(hook for hook in runner.hooks if isinstance(hook, PseudoLabelAuditHook))
    audit.between_phases(runner, at_once=False)
    assert audit.found == {"true": 0.5, "precision": 0.5, "recall": 1.0, "judged": pytest.approx(2 / 3)}
    audit.found, labels[:2, :2] = {}, -1
    audit.between_phases(runner, at_once=False)
    assert audit.found == {"true": 0.0, "precision": None, "recall": None, "judged": 0.0}  # json has no NaN


def test_resuming_what_was_never_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to resume"):
        train(config(tmp_path), resume=True)
    assert not list(tmp_path.iterdir())


def test_auto_resume_starts_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr("mlcil.commands.train.train", lambda cfg, **words: calls.append(words["resume"]))
    path = tiny.write_config(tmp_path, tiny.coco_folder(tmp_path / "data"))
    assert tiny.call(capsys, "train", path, "--auto-resume")[0] == 0
    (tmp_path / "saved" / f"{tmp_path.name}_run").mkdir(parents=True)
    (tmp_path / "saved" / f"{tmp_path.name}_run" / "resume.pth").touch()
    assert tiny.call(capsys, "train", path, "--auto-resume")[0] == 0
    assert calls == [False, True]


# -- losses, workers, memory, clocks ------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, runner: Any, *steps: int) -> None:
    """Make the inputs of some steps infinite, so that batch norms and loss are no numbers."""
    method, seen = runner.run_settings.method, []
    loss = method.loss

    def poisoned(batch: Batch) -> dict[str, torch.Tensor]:
        seen.append(1)
        return loss(dataclasses.replace(batch, inputs=batch.inputs * float("inf")) if len(seen) in steps else batch)

    monkeypatch.setattr(method, "loss", poisoned)


def test_steps_without_a_loss_are_skipped_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path, train_cfg={"max_epochs": 2, "skip_not_finite": 2})
    runner = runner_of(cfg)
    poison(monkeypatch, runner, 2, 4)
    runner.train()
    assert next(hook.count for hook in runner.hooks if isinstance(hook, FiniteLossHook)) == 2
    assert all(bool(torch.isfinite(value).all()) for value in runner.run_settings.method.state_dict().values())
    assert "the step is skipped (2 of at most 2)" in (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    runner = runner_of(config(tmp_path / "again", train_cfg={"max_epochs": 2, "skip_not_finite": 2}))
    poison(monkeypatch, runner, 1, 2, 3)
    with pytest.raises(UserError, match=r"in session 0, epoch 1, iteration 3, on images \[.*skip_not_finite"):
        runner.train()
    content = json.loads((tmp_path / "again" / "logs" / "run" / "not_finite_rank0.json").read_text())
    assert len(content["images"]) == 8
    assert (content["session"], content["epoch"], content["iteration"]) == (0, 1, 3)


@HOOKS.register_module()
class KillWorker(Hook):
    """Kills the loader's process behind the second step of session 0."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.train_loop.position.session == 0 and batch_idx == 0:
            (worker,) = multiprocessing.active_children()
            assert [worker.pid] == runner.train_loop.dataloader.readers.pids
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()


def test_a_killed_worker_process(tmp_path: Path, whole: dict[str, str]) -> None:
    workers = {"train_dataloader": {"num_workers": 1}, "test_dataloader": {"num_workers": 1}}
    cfg = config(tmp_path, **workers)
    cfg.custom_hooks = [{"type": "KillWorker"}]
    sentence = r"a process that reads images was killed \(.*worker.*num_workers.*--resume"
    with pytest.raises(UserError, match=sentence):
        train(cfg)
    state = torch.load(tmp_path / "saved" / "run" / "resume.pth", weights_only=True)
    assert state["inside"]
    train(config(tmp_path), resume=True, accept_changes=True)
    assert {**harness.fingerprints(tmp_path)} == whole


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            ("the GPU has not", "precision='bf16'"),
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), ("the machine has not",)),
        (MemoryError("Unable to allocate 3 GiB"), ("the machine has not", "Unable to allocate 3 GiB")),
    ],
)
def test_too_little_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: tuple[str, ...]
) -> None:
    def step(*_: Any) -> None:
        raise error

    monkeypatch.setattr(SessionLoop, "step", step)
    with pytest.raises(UserError) as caught:
        train(config(tmp_path))
    expected = (
        "train_dataloader.batch_size from 8 to 4",
        "accumulative_counts=2",
        "test_dataloader.batch_size (now 16)",
    )
    for word in (*words, *expected, "--resume"):
        assert word in str(caught.value)


def test_a_lonely_last_image_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        torch.nn.BatchNorm2d(4)(torch.zeros(1, 4, 1, 1))

    monkeypatch.setattr(SessionLoop, "step", step)
    with pytest.raises(UserError, match=r"batch of one image .* set train_dataloader\.drop_last=True or another"):
        train(config(tmp_path))


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    results = train(config(tmp_path))
    assert all(result["seconds"] >= 0 for result in results)
    monkeypatch.undo()
    assert harness.fingerprints(tmp_path) == whole


def test_saving_stays_below_its_share() -> None:
    schedule = mlcil.engine.resume.SaveSchedule(None)
    schedule.last = time.monotonic() - 59
    assert not schedule.due(1)
    schedule.last = time.monotonic() - 61
    assert schedule.due(1)
    schedule.cost = 2.0
    assert not schedule.due(1)  # 2 s would be more than a hundredth of 61 s
    schedule.last = time.monotonic() - 201
    assert schedule.due(1)
    schedule.last = time.monotonic() - 99
    assert not schedule.due_between()
    schedule.last = time.monotonic() - 101
    assert schedule.due_between()
    every = mlcil.engine.resume.SaveSchedule(10)
    assert [every.due(step) for step in (9, 10, 11, 20)] == [False, True, False, True]
    assert not mlcil.engine.resume.SaveSchedule(0).due(10)


# -- images that cannot be read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    ["train_dataloader['num_workers'] = 0", "train_dataloader['num_workers'] = 1", "network['frozen_backbone'] = True"],
)
def test_unreadable_images_are_skipped_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str
) -> None:
    data = tiny.coco_folder(tmp_path / "data")
    (data / "train2014" / "1.jpg").write_bytes(b"")
    tiny.truncate(data / "val2014" / "2.jpg")
    more = f"\n{setting}\nmemory = dict(per_class=2)\n"
    path = tiny.write_config(tmp_path, data, more=more)
    assert tiny.call(capsys, "train", path)[0] == 2
    assert tiny.call(capsys, "train", path, "on_bad_image=ignore")[0] == 2
    code, _, err = tiny.call(capsys, "train", path, "--overwrite", "on_bad_image=skip")
    assert code == 0, err
    run = tmp_path / "logs" / f"{tmp_path.name}_run"
    text = (run / "log" / "log.txt").read_text()
    assert text.count("image skipped: ") == 2
    assert "1.jpg is no image that can be read" in text
    assert text.count("unreadable images: 1 of the ") == 2
    sessions = json.loads((run / "results.json").read_text())["sessions"]
    assert [session["unreadable_images"] for session in sessions] == [2, 2]
    assert sessions[-1]["images"]["fixed"] == 3
    stage = tmp_path / "saved" / f"{tmp_path.name}_run" / "session_1.pth"
    code, out, err = tiny.call(capsys, "test", stage, path, "on_bad_image=skip")
    assert code == 0
    assert json.loads(out)["mAP"]["seen"] == pytest.approx(sessions[-1]["mAP"]["seen"])


# -- twenty sessions ----------------------------------------------------------------------------------------------


@HOOKS.register_module()
class Footprint(Hook):
    """Writes memory and open files of the process behind every session."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def after_session(self, runner: Any, session: Any = None, result: Any = None) -> None:
        status = Path("/proc/self/status").read_text()
        memory = int(status.split("VmRSS:")[1].split()[0])
        with self.file.open("a") as out:
            out.write(f"{memory} {len(os.listdir('/proc/self/fd'))}\n")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_and_files_stay_flat_over_twenty_sessions(tmp_path: Path) -> None:
    dataset = {"type": "FaultScenes", "task": "multi_label", "classes": 20, "per_class": 4}
    cfg = config(
        tmp_path, scenario={"dataset": dataset, "base": 1, "increment": 1}, train_dataloader={"num_workers": 1}
    )
    cfg.train_cfg.save_interval = 0
    cfg.custom_hooks = [{"type": "Footprint", "file": str(tmp_path / "footprint.txt")}]
    assert harness.in_child(lambda: harness.run(cfg), tmp_path / "out.txt") == 0, (tmp_path / "out.txt").read_text()
    found = [tuple(map(int, line.split())) for line in (tmp_path / "footprint.txt").read_text().splitlines()]
    assert len(found) == 20
    memory, handles = zip(*found, strict=True)
    assert max(memory[15:]) < memory[4] + 12 * 1024, memory  # kB
    assert max(handles[15:]) <= handles[4], handles


def test_the_command_line_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("--resume", "--auto-resume", "--accept-changes"))


# -- what others lay into a run's folders or take out of them -------------------------------------------------


def test_overwriting_removes_only_what_a_run_has_written(tmp_path: Path, whole: dict[str, str]) -> None:
    train(config(tmp_path))
    saved, logs = tmp_path / "saved" / "run", tmp_path / "logs" / "run"
    strangers = [saved / "mine.pth", saved / "session_best.pth", logs / "scores" / "mine.npz", logs / "notes.txt"]
    for path in strangers:
        path.write_text("mine")

    def overwrite() -> None:
        cfg = config(tmp_path, seed=5)
        torch.set_num_threads(1)
        sys.setprofile(harness.Watcher("training step", 3))
        train(cfg, overwrite=True)

    status = harness.in_child(overwrite, tmp_path / "out.txt")
    assert os.WIFSIGNALED(status), (tmp_path / "out.txt").read_text()
    found = json.loads((logs / "results.json").read_text())
    assert (found["status"], found["sessions"], found["provenance"]["seed"]) == ("running", [], 5)
    assert sorted(path.name for path in saved.glob("*.pth")) == ["mine.pth", "resume.pth", "session_best.pth"]
    assert sorted(path.name for path in (logs / "scores").iterdir()) == ["mine.npz"]
    train(config(tmp_path), overwrite=True)
    assert all(path.read_text() == "mine" for path in strangers)
    for path in strangers:
        path.unlink()
    assert harness.fingerprints(tmp_path) == whole


@pytest.mark.parametrize("gone", ["scores", "log", "."])
def test_folders_that_are_removed_while_a_run_writes_there(
    tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    logs, write = tmp_path / "logs" / "run", RunFolder.write_stage

    def write_and_lose(folder: RunFolder, run: Any, index: int, metrics: Any) -> None:
        write(folder, run, index, metrics)
        if index == 0:
            shutil.rmtree(logs / gone)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_stage", write_and_lose)
        try:
            train(config(tmp_path))
        except UserError as error:
            assert "was removed while the run wrote there; go on with --resume" in str(error)  # noqa: PT017
            train(config(tmp_path), resume=True)
    assert json.loads((logs / "results.json").read_text())["status"] == "done"
    left = harness.fingerprints(tmp_path)
    lost = set() if (logs / "scores" / "session_0.npz").exists() else {"scores/session_0.npz", "scores/pictures.npz"}
    assert set(whole) - set(left) <= lost
    assert {name: left[name] for name in set(whole) - lost} == {name: whole[name] for name in set(whole) - lost}
