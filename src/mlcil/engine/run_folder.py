"""The folders of a run: what lies in them, and who has written there before. Takes values, never the runner."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.datasets.scenario import Scenario
from mlcil.engine.checkpoint import ResumeState, StageCheckpoint
from mlcil.engine.evaluate import SessionResult
from mlcil.engine.run import Run
from mlcil.errors import UserError
from mlcil.evaluation.metrics import METRICS
from mlcil.files import check_writable, remove_leftovers, write_arrays, write_text
from mlcil.reporting import long_table
from mlcil.reporting.contact_sheet import keep_pictures
from mlcil.reporting.report_runs import read_runs


class RunFolder:
    """``logs/<run>/`` and ``saved_models/<run>/``.

    Args:
        run_dir, checkpoint_dir: the two.
    """

    def __init__(self, run_dir: Path, checkpoint_dir: Path) -> None:
        self.run_dir, self.checkpoint_dir = run_dir, checkpoint_dir

    @property
    def resume_file(self) -> Path:
        """The rolling state."""
        return self.checkpoint_dir / "resume.pth"

    def stage_file(self, session: int) -> Path:
        """The stage checkpoint of a session."""
        return self.checkpoint_dir / f"session_{session}.pth"

    # -- before a run ------------------------------------------------------------------------------------

    def is_begun(self) -> bool:
        """Whether there is a run of that name to go on with."""
        return self.resume_file.exists() or self.was_begun()

    def was_begun(self) -> bool:
        """Whether a process has written into the run's folder and was stopped before it could save anything."""
        return self.run_dir.exists() and not any(self.checkpoint_dir.glob("session_*.pth"))

    def check_free(self, resume: bool, overwrite: bool) -> None:
        """Whether the folders may be written.

        Raises:
            UserError: a run of that name exists and neither ``resume`` nor ``overwrite`` is given, or they cannot be
                written.
        """
        older = [path for path in (self.run_dir / "config.py", self.stage_file(0)) if path.exists()]
        if older and not (resume or overwrite):
            raise UserError(
                f"{older[0].parent} holds a run of that name already; go on with it by --resume, choose another "
                "--name, or replace it by --overwrite"
            )
        check_writable(self.run_dir, "log_root")
        check_writable(self.checkpoint_dir, "checkpoint_root")

    def remove_leftovers(self) -> None:
        """Half-written files of a process that was killed."""
        for folder in (self.run_dir, self.checkpoint_dir):
            remove_leftovers(folder)

    def remove_results(self) -> None:
        """What a run of that name has left behind its sessions, and nothing else that lies in the folders."""
        for folder, pattern in (
            (self.checkpoint_dir, "resume.pth"),
            (self.checkpoint_dir, "session_*.pth"),
            (self.run_dir / "scores", "*.npz"),
            (self.run_dir / "made", "*.npz"),
        ):
            for old in folder.glob(pattern):
                if re.fullmatch(r"resume|session_\d+|test|pictures", old.stem):
                    old.unlink()

    def load_resume(self) -> ResumeState | None:
        """The state to go on from, or ``None`` where a run was begun but nothing saved.

        Raises:
            UserError: no such run, or a damaged file.
        """
        if not self.resume_file.exists() and self.was_begun():
            return None
        return ResumeState.load(self.resume_file)

    # -- behind a session --------------------------------------------------------------------------------

    def write_scores(self, index: int, result: SessionResult, scenario: Scenario) -> None:
        """``scores/``: the session's test logits, and where they lack the labels that they are judged by."""
        folder = self.run_dir / "scores"
        write_arrays(folder / f"session_{index}.npz", {"rows": result.rows, "logits": result.logits_NC})
        if not (folder / "test.npz").exists():
            test = scenario.test
            arrays = {
                "targets": test.labels_NC,
                "selects": test.selects_NC,
                "paths": np.asarray([str(path) for path in test.files or test.ids]),
                "classes": np.asarray(scenario.classes),
            }
            write_arrays(folder / "test.npz", arrays)

    def write_made_images(self, index: int, made: tuple[np.ndarray, np.ndarray] | None) -> None:
        """``made/session_<t>.npz``: some of the images that the method has made of old classes."""
        if made is not None:
            write_arrays(self.run_dir / "made" / f"session_{index}.npz", {"images": made[0], "labels": made[1]})

    def write_stage(self, run: Run, index: int, metrics: Mapping[str, Any]) -> None:
        """``session_<t>.pth``."""
        scenario, method = run.scenario, run.method
        StageCheckpoint(
            run=run.name,
            session=index,
            network=method.network.spec,
            classes_per_session=method.network.classes_per_session,
            classes=list(scenario.classes[: scenario.sessions[index].high]),
            state_dict=method.network.state_dict(),
            method=type(method).__name__,
            method_options=dict(run.method_options),
            method_state=method.method_state(),
            logit_correction=method.logit_correction(),
            protocol=scenario.protocol,
            protocol_hash=scenario.hash,
            task=scenario.task,
            fit=asdict(scenario.test.fit),
            metrics={key: metrics[key] for key in METRICS[scenario.task].kept},
            weights=dict(run.weights) if run.weights is not None else None,
            kept={kind: int(count) for kind, count in metrics["memory"].get("bytes", {}).items()},
        ).save(self.stage_file(index))

    def write_results(
        self, run: Run, results: Sequence[Mapping[str, Any]], status: str, provenance: Mapping[str, Any], config: str
    ) -> None:
        """``results.json`` (everything) and ``results.csv`` (a row a session and class)."""
        scenario = run.scenario
        content = {
            "format": "mlcil-results-1",
            "name": run.name,
            "status": status,
            "method": type(run.method).__name__,
            "task": scenario.task,
            "protocol": scenario.protocol,
            "protocol_hash": scenario.hash,
            "comparison_hash": scenario.comparison_hash,
            "data_hash": scenario.data_hash,
            "images": {
                "train": len(scenario.train),
                "test": len(scenario.test),
                "train_positives": scenario.train.positives().tolist(),
                "test_positives": scenario.test.positives().tolist(),
            },
            "dataset": scenario.name,
            "classes": list(scenario.classes),
            "sessions": list(results),
            "summary": METRICS[scenario.task].summarise(list(results)) if results else {},
            "provenance": dict(provenance),
            "config": config,
        }
        write_text(self.run_dir / "results.json", json.dumps(content, indent=1) + "\n")
        write_text(self.run_dir / "results.csv", long_table.as_csv(list(long_table.rows_of(content))))

    def write_test_images(self, scenario: Scenario) -> None:
        """``scores/pictures.npz``: what reports show of test images without files; needs the results."""
        if scenario.test.pixels is not None:
            keep_pictures(read_runs([self.run_dir])[0], scenario.test.pixels)
