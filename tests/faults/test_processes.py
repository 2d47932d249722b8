"""Two processes: the same as one, resumed exactly, and one that dies takes the other with it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import fault_harness as harness
import numpy as np
import pytest
import torch

from mlcil.commands.test import test_checkpoint as evaluate
from mlcil.engine.train import train
from mlcil.errors import StoppedError, UserError
from mlcil.methods.base import Batch

SECTIONS = {
    "method": {"type": "KRT"},
    "memory": {"total": 12},  # with 28 new images a session: two processes need no padding
    # layer norms only: batch norms take their statistics in each process, as the official code does
    "network": {
        "backbone": {"name": "test_vit"},
        "head": {"type": "ica", "embed_dim": 16, "num_heads": 4},
    },
}


def config(folder: Path, processes: int, **changes: Any) -> Any:
    values = {
        "train_cfg": {"max_epochs": 1, "save_interval": 2, "val_interval": 0},
        "train_dataloader": {"batch_size": 8 // processes},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1e-3}},
        "launcher": "pytorch" if processes > 1 else "none",
        **changes,
    }
    return harness.config("KRT", folder, SECTIONS, 3, **values)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes."""
    folder = tmp_path_factory.mktemp("double")
    codes = harness.both(lambda rank: harness.run(config(folder, 2)), folder)
    assert codes == [0, 0], (folder / "rank0.txt").read_text()[-3000:]
    return folder


def weights(folder: Path, session: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / "saved" / "run" / f"session_{session}.pth", weights_only=True)["state_dict"]


def test_two_processes_are_as_one(double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcil.reporting.plots.draw_run", lambda *_: None)
    single = train(config(tmp_path, 1))
    results = json.loads((double / "logs" / "run" / "results.json").read_text())["sessions"]
    for one, two in zip(single, results, strict=True):
        assert two["train"] == one["train"]
        assert two["images"] == one["images"]  # nothing is counted twice
        assert two["memory"] == one["memory"]
        for split in ("base", "seen", "new"):
            assert two["mAP"][split] == pytest.approx(one["mAP"][split], abs=1e-6)
            assert two["fixed_mAP"][split] == pytest.approx(one["fixed_mAP"][split], abs=1e-6)
        if one["report"]:
            assert two["report"]["dpl"]["threshold"] == one["report"]["dpl"]["threshold"]
    states = [torch.load(f / "saved" / "run" / "resume.pth", weights_only=True) for f in (tmp_path, double)]
    assert states[0]["parts"]["memory"] == states[1]["parts"]["memory"]
    assert len(states[1]["random"]) == 2
    for session in range(2):
        one, two = weights(tmp_path, session), weights(double, session)
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    made = {path.name for path in (double / "logs" / "run").iterdir()}
    assert made == {"config.py", "log", "results.csv", "results.json", "scores", "vis_data"}  # none named by a clock
    text = (double / "logs" / "run" / "log" / "log.txt").read_text()
    assert text.count("exemplars and images of the session: ") == 2


def stop_and_go_on(folder: Path, step_number: int, **changes: Any) -> list[str]:
    """Ask one of two processes to stop in a step, let the run go on; the sentences of both."""

    def stop(rank: int) -> None:
        if rank == 1:
            step = harness.mlcil.engine.loop.SessionLoop.step
            calls = []

            def signalling(self: Any, batch: Any) -> Any:
                calls.append(1)
                if len(calls) == step_number:
                    os.kill(os.getpid(), signal.SIGTERM)
                return step(self, batch)

            harness.mlcil.engine.loop.SessionLoop.step = signalling
        try:
            harness.run(config(folder, 2, **changes))
        except StoppedError as stopped:
            (folder / f"stopped{rank}").write_text(str(stopped))

    assert harness.both(stop, folder) == [0, 0]
    codes = harness.both(lambda rank: harness.run(config(folder, 2, **changes)), folder)
    assert codes == [0, 0], (folder / "rank0.txt").read_text()[-3000:]
    return [(folder / f"stopped{rank}").read_text() for rank in range(2)]


def test_two_processes_stop_together_and_go_on(double: Path, tmp_path: Path) -> None:
    """One of them is asked to stop; both do behind the same step, and the resumed run is the same one."""
    sentences = stop_and_go_on(tmp_path, 4)
    assert sentences[0] == sentences[1]
    assert "stopped by SIGTERM in session" in sentences[0]
    assert harness.fingerprints(tmp_path) == harness.fingerprints(double)
    with pytest.raises(UserError, match=r"number of processes was 2 and is 1|batch_size was 4 and is 8"):
        train(config(tmp_path, 1), resume=True)


def test_each_process_goes_on_with_its_half_of_a_gradient(tmp_path: Path) -> None:
    """A run that stops between two steps that make one update."""
    changes = {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1e-3}, "accumulative_counts": 3}}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    codes = harness.both(lambda rank: harness.run(config(tmp_path / "whole", 2, **changes)), tmp_path / "whole")
    assert codes == [0, 0], (tmp_path / "whole" / "rank0.txt").read_text()[-3000:]
    assert "iteration 2" in stop_and_go_on(tmp_path / "stopped", 2, **changes)[0]
    assert harness.fingerprints(tmp_path / "stopped") == harness.fingerprints(tmp_path / "whole")


NORMS = {  # each process has batches, and so batch statistics, of its own
    "KRT": ("ica", {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.125}),
    "RDFCIL": ("session_linear", harness.BACKBONE),
    "DERpp": ("linear", harness.BACKBONE),  # it keeps what every process has seen
}


@pytest.mark.parametrize("method", NORMS)
def test_running_statistics_are_one(tmp_path: Path, method: str) -> None:
    """What two processes predict with is what the checkpoint holds, and a killed run ends with the same weights."""
    head, backbone = NORMS[method]
    sections = next(s for s in harness.candidates(method) if s["network"]["head"]["type"] == head)
    sections["network"]["backbone"] = backbone
    size = {"network": {"image_size": 32}}  # TResNet takes multiples of 32
    changes = {
        "train_cfg": {"max_epochs": 2, "save_interval": 1, "stop_after_session": 1},
        "launcher": "pytorch",
        **size,
    }

    def settings(folder: Path) -> Any:
        return harness.config(method, folder, sections, 2, **changes)

    def die(rank: int) -> None:
        watcher = harness.Watcher("training step", 40) if rank == 1 else None
        harness.run(settings(tmp_path / "cut"), watcher)

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    codes = harness.both(lambda rank: harness.run(settings(tmp_path / "whole")), tmp_path / "whole")
    assert codes == [0, 0], (tmp_path / "whole" / "rank0.txt").read_text()[-3000:]
    assert 0 not in harness.both(die, tmp_path / "cut")
    codes = harness.both(lambda rank: harness.run(settings(tmp_path / "cut")), tmp_path / "cut")
    assert codes == [0, 0], (tmp_path / "cut" / "rank0.txt").read_text()[-3000:]
    assert harness.fingerprints(tmp_path / "cut") == harness.fingerprints(tmp_path / "whole")

    alone = harness.config(method, tmp_path / "whole", sections, 2, **size)
    results = json.loads((tmp_path / "whole" / "logs" / "run" / "results.json").read_text())["sessions"]
    headline = "mAP" if "mAP" in results[0] else "accuracy"
    for session, result in enumerate(results):
        again = evaluate(tmp_path / "whole" / "saved" / "run" / f"session_{session}.pth", alone)
        assert again[headline] == pytest.approx(result[headline], abs=1e-6)


WITH_STATISTICS_OF_ALL = {  # method -> its network's head and backbone
    "KRT": NORMS["KRT"],
    "LwF": ("linear", harness.BACKBONE),
}


@pytest.mark.parametrize("method", WITH_STATISTICS_OF_ALL)
def test_batch_norms_of_all_processes_make_them_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("mlcil.reporting.plots.draw_run", lambda *_: None)
    head, backbone = WITH_STATISTICS_OF_ALL[method]
    sections = next(s for s in harness.candidates(method) if s["network"]["head"]["type"] == head)
    sections["network"]["backbone"] = backbone

    def settings(folder: Path, processes: int) -> Any:
        return harness.config(
            method,
            folder,
            {**sections, "memory": {"total": 12}},  # with 28 new images a session: two processes need no padding
            3,
            network={"image_size": 32},
            train_dataloader={"batch_size": 8 // processes},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}},
            sync_batch_norm=True,
            launcher="pytorch" if processes > 1 else "none",
        )

    codes = harness.both(lambda rank: harness.run(settings(tmp_path / "two", 2)), tmp_path / "two")
    assert codes == [0, 0], (tmp_path / "two" / "rank0.txt").read_text()[-3000:]
    single = train(settings(tmp_path / "one", 1))
    double = json.loads((tmp_path / "two" / "logs" / "run" / "results.json").read_text())["sessions"]
    for one, two in zip(single, double, strict=True):
        assert two["memory"] == one["memory"]
        for split in ("base", "seen", "new"):
            assert two["mAP"][split] == pytest.approx(one["mAP"][split], abs=0.01)  # equal scores change places
        if "dpl" in one["report"]:
            assert two["report"]["dpl"]["threshold"] == pytest.approx(one["report"]["dpl"]["threshold"], abs=1e-6)
    states = [torch.load(tmp_path / f / "saved" / "run" / "resume.pth", weights_only=True) for f in ("one", "two")]
    assert states[0]["parts"]["memory"] == states[1]["parts"]["memory"]
    for session in range(2):
        files = [tmp_path / f / "logs" / "run" / "scores" / f"session_{session}.npz" for f in ("one", "two")]
        logits = [np.load(file)["logits"] for file in files]
        np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-4)
        two = weights(tmp_path / "two", session)
        for name, value in weights(tmp_path / "one", session).items():
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_process_that_dies_takes_the_other_with_it(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            step = harness.mlcil.engine.loop.SessionLoop.step

            def dying(self: Any, batch: Any) -> Any:
                if self.position.session == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(self, batch)

            harness.mlcil.engine.loop.SessionLoop.step = dying
        harness.run(config(tmp_path, 2))

    codes = harness.both(work, tmp_path)
    assert codes[0] != 0
    assert codes[1] != 0
    assert "another process of the run has ended, its own error comes first" in (tmp_path / "rank0.txt").read_text()


def test_processes_with_different_exemplars_stop(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            memory = harness.mlcil.memory.exemplars.ExemplarMemory
            contents = memory.contents
            memory.contents = lambda self: tuple(part[::-1] for part in contents(self))
        harness.run(config(tmp_path, 2))

    assert 0 not in harness.both(work, tmp_path)
    assert "the processes hold different exemplars in session 1 (hashes " in (tmp_path / "rank0.txt").read_text()


def test_skipped_steps_are_skipped_by_both(tmp_path: Path) -> None:
    """A loss that is no number in one process leaves the weights of both as they are."""

    def work(rank: int) -> None:
        method = harness.METHODS.get("KRT")
        loss, seen = method.loss, []

        def poisoned(self: Any, batch: Batch) -> Any:
            seen.append(1)
            bad = rank == 1 and len(seen) == 2
            return loss(self, dataclasses.replace(batch, inputs=batch.inputs * float("nan")) if bad else batch)

        method.loss = poisoned
        cfg = config(tmp_path, 2, train_cfg={"max_epochs": 1, "skip_not_finite": 1, "stop_after_session": 0})
        harness.run(cfg)

    codes = harness.both(work, tmp_path)
    assert codes == [0, 0], (tmp_path / "rank1.txt").read_text()[-3000:]
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path, 0).values())
    assert (tmp_path / "logs" / "run" / "not_finite_rank1.json").exists()
    assert np.isfinite(
        json.loads((tmp_path / "logs" / "run" / "results.json").read_text())["sessions"][0]["mAP"]["seen"]
    )
