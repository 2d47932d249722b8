"""Runs in children of one process: the bits of separate runs, and nobody's end is another's."""

import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import coco_folder, run_cli, write_config

import mlcil
from mlcil.cli import main
from mlcil.commands.bench_processes import Processes, Request
from mlcil.engine import build
from mlcil.engine.config import load_config

ER = {"method.type": "ER", "memory.total": 4, "memory.selection": "reservoir"}
BENCH = f"""
title = "T"
jobs = 2
runs = [dict(label="Fine-tuning", config="run.py"), dict(label="ER", config="run.py", overrides={ER!r})]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_config(tmp_path, coco_folder(tmp_path / "data"))
    (tmp_path / "two.py").write_text(BENCH)
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "broken.py").write_text("from mlcil.engine import build\nbuild.build_scenario = None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def without_clock(value):
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if "second" not in k}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def content_of(logs, saved):
    """Results without clock, names and command, and the tensors of all stage checkpoints."""
    results = json.loads((logs / "results.json").read_text())
    kept = {k: v for k, v in results.items() if k not in ("name", "provenance", "config")}
    stages = [torch.load(path, weights_only=True)["state_dict"] for path in sorted(saved.glob("session_*.pth"))]
    return without_clock(kept), stages


def test_a_bench_has_the_bits_of_separate_runs(folder):
    words = {"fine_tuning": [], "er": [f"{key}={value}" for key, value in ER.items()]}
    with ThreadPoolExecutor(2) as pool:
        alone = [
            pool.submit(run_cli, "train", "run.py", "seed=1", *more, "--name", name, cwd=folder)
            for name, more in words.items()
        ]
        assert main(["bench", "two.py"]) == 0
        assert [process.result().returncode for process in alone] == [0, 0]
    for name in words:
        path = f"bench_two/{name}_seed1"
        ours, weights = content_of(folder / "logs" / path, folder / "saved_models" / path)
        theirs, expected = content_of(folder / "logs" / name, folder / "saved" / name)
        assert ours == theirs
        assert len(weights) == len(expected) == 2
        for mine, other in zip(weights, expected, strict=True):
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_the_end_of_a_run_is_its_own_and_a_bench_that_ends_stops_its_runs(folder):
    words = [["--version"], *(["train", "run.py", f"plugins=['{name}.py']"] for name in ("killed", "broken"))]
    words += [["train", "nothing"], ["train", "run.py", "--check"]]
    long = Request(["train", "run.py", "train_cfg.max_epochs=5000", "--name", "long"], folder / "long.out", None)
    with Processes() as processes:
        events = list(processes.carry_out([Request(w, folder / f"{k}.out", None) for k, w in enumerate(words)], 2))
        assert dict(event for event in events if event[1] is not None) == {0: 0, 1: -signal.SIGKILL, 2: 1, 3: 2, 4: 0}
        assert [index for index, code in events if code is None] == [0, 1, 2, 3, 4]
        outputs = [(folder / f"{k}.out").read_text() for k in range(5)]
        assert outputs[0] == f"mlcil {mlcil.__version__}\n"
        assert outputs[2].endswith("TypeError: 'NoneType' object is not callable\n")
        assert outputs[3].startswith("mlcil: ")
        assert "can be trained" in outputs[4]  # nothing is left of what a run before it has changed
        next(processes.carry_out([long], 1))
        until = time.monotonic() + 60
        while "Epoch(train)" not in long.output.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
    assert "stopped by SIGTERM in session 0" in long.output.read_text()
    assert (folder / "saved/long/resume.pth").is_file()
    assert not (folder / "logs/long/.lock").exists()


def test_a_killed_server_loses_its_runs_alone(folder):
    with Processes() as processes:
        requests = [Request(["train", "run.py", "--name", "lost"], folder / "0.out", None)]
        requests.append(Request(["--version"], folder / "1.out", None))
        events = processes.carry_out(requests, 1)
        assert next(events) == (0, None)
        processes._server.kill()
        assert list(events) == [(0, -signal.SIGKILL), (1, None), (1, 0)]


def test_runs_of_a_killed_server_stop_and_the_next_ones_start(folder):
    """One run goes on alone, would hold its lock, and the words of another find nobody at the other end."""
    long = ["train", "run.py", "train_cfg.max_epochs=5000", "--name", "long"]
    requests = [Request(long, folder / "0.out", None)]
    requests += [Request(["--version"], folder / f"{k}.out", None) for k in (1, 2, 3)]
    with Processes() as processes:
        events = processes.carry_out(requests, 2)
        assert next(events) == (0, None)
        assert next(events) == (1, None)
        until = time.monotonic() + 60
        while "Epoch(train)" not in requests[0].output.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        processes._server.kill()
        processes._server.join()
        ended = {index: code for index, code in events if code is not None}
        assert ended[0] == -signal.SIGKILL
        assert {ended[1], ended[2]} <= {0, -signal.SIGKILL}  # as far as they had come
        assert ended[3] == 0
    while "stopped by SIGTERM in session 0" not in requests[0].output.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_labels_are_read_once(folder, monkeypatch):
    monkeypatch.setattr(build, "_ahead", {})
    config = load_config("run.py", [])
    dataset = config.to_dict()["scenario"]["dataset"]
    build.read_ahead(dataset)
    shutil.rmtree(folder / "data" / "annotations")
    build.read_ahead(dataset)
    assert len(build.build_scenario(config).train) == 8
    build.read_ahead({"type": "coco", "nonsense": 1})  # the run itself refuses it
    with pytest.raises(build.UserError, match="nonsense"):
        build.dataset_of({"type": "coco", "nonsense": 1})
