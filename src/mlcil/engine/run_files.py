"""What a run writes behind a session: scores, made images, the stage checkpoint and the results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from mmengine.dist import is_main_process

import mlcil
from mlcil.engine import checkpoint
from mlcil.files import write_arrays, write_text
from mlcil.reporting import tables
from mlcil.reporting.contact_sheet import keep_pictures
from mlcil.reporting.report_runs import read_runs

if TYPE_CHECKING:
    from mlcil.engine.runner import IncrementalRunner


def save_scores(runner: IncrementalRunner, index: int) -> None:
    """``logs/<run>/scores``: the session's test logits, and once the labels that they are judged by."""
    rows, logits = runner.train_loop.scores  # type: ignore[union-attr]
    write_arrays(runner.run_dir / "scores" / f"session_{index}.npz", {"rows": rows, "logits": logits})
    if index == 0:
        test = runner.scenario.test
        arrays = {
            "targets": test.labels_NC,
            "selects": test.selects_NC,
            "paths": np.asarray([str(path) for path in test.files or test.ids]),
            "classes": np.asarray(runner.scenario.classes),
        }
        write_arrays(runner.run_dir / "scores" / "test.npz", arrays)


def save_test_images(runner: IncrementalRunner) -> None:
    """``logs/<run>/scores/pictures.npz``: what reports show of test images without files; needs the results."""
    pixels = runner.scenario.test.pixels
    if pixels is not None:
        keep_pictures(read_runs([runner.run_dir])[0], pixels)


def save_made_images(runner: IncrementalRunner, index: int) -> None:
    """``logs/<run>/made/session_<t>.npz``: some of the images that the method has made of old classes."""
    made = runner.method.made_images() if is_main_process() else None
    if made is not None:
        write_arrays(runner.run_dir / "made" / f"session_{index}.npz", {"images": made[0], "labels": made[1]})


def save_stage(runner: IncrementalRunner, index: int) -> None:
    """``saved_models/<run>/session_<t>.pth``."""
    high = runner.scenario.sessions[index].high
    checkpoint.save(
        runner.checkpoint_dir / f"session_{index}.pth",
        {
            "format": checkpoint.STAGE_FORMAT,
            "mlcil": mlcil.__version__,
            "run": runner.name,
            "session": index,
            "network": runner.method.network.spec,
            "classes_per_session": runner.method.network.classes_per_session,
            "classes": list(runner.scenario.classes[:high]),
            "state_dict": runner.method.network.state_dict(),
            "method": type(runner.method).__name__,
            "method_state": runner.method.method_state(),
            "logit_correction": runner.method.logit_correction(),
            "protocol": runner.scenario.protocol,
            "protocol_hash": runner.scenario.hash,
            "task": runner.scenario.task,
            "fit": asdict(runner.scenario.test.fit),
            "metrics": {k: runner.results[-1][k] for k in runner.metrics.kept if runner.results},
            "weights": runner.weights,
        },
    )


def write_results(runner: IncrementalRunner, status: str) -> None:
    """``results.json`` (everything) and ``results.csv`` (a row per session)."""
    content = {
        "format": "mlcil-results-1",
        "name": runner.name,
        "status": status,
        "method": type(runner.method).__name__,
        "task": runner.scenario.task,
        "protocol": runner.scenario.protocol,
        "protocol_hash": runner.scenario.hash,
        "comparison_hash": runner.scenario.comparison_hash,
        "dataset": runner.scenario.name,
        "classes": list(runner.scenario.classes),
        "sessions": runner.results,
        "summary": runner.metrics.summarise(runner.results),
        "provenance": runner.provenance(),
        "config": runner.config_text,
    }
    write_text(runner.run_dir / "results.json", json.dumps(content, indent=1) + "\n")
    write_text(runner.run_dir / "results.csv", tables.results_csv(runner.results))
