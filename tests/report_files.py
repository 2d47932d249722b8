"""Run directories as the engine writes them, from numbers drawn by chance: results.json and scores/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tiny import write_image

from mlcil.evaluation.sessions import evaluate_session, summarise

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


def make_run(
    folder: Path,
    name: str = "krt",
    *,
    classes: tuple[str, ...] = CLASSES,
    sessions: int = 3,
    images: int = 40,
    seed: int = 0,
    scores: bool = True,
    dpl: bool = True,
    prefix: str = "",
    noise: float = 2.5,
    **changes: Any,
) -> Path:
    """``folder/logs/name`` with the files of a run; test images in ``folder/images``.

    Args:
        folder: of the runs.
        name: of the run.
        classes: as many as ``sessions`` divides.
        sessions, images: how many.
        seed: of the scores.
        scores: write ``scores/``.
        dpl: report pseudo-labels from session 1 on.
        prefix: of the image files' names.
        noise: of the scores.
        changes: keys of results.json to replace.
    """
    run = folder / "logs" / name
    run.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    targets = (np.random.default_rng(7).random((images, len(classes))) < 0.3).astype(np.int8)
    step = len(classes) // sessions
    logits = (4 * targets - 2 + generator.normal(size=(sessions, images, len(classes)), scale=noise)).astype(np.float32)
    results: list[dict[str, Any]] = []
    for t in range(sessions):
        high = (t + 1) * step
        result = evaluate_session(
            1 / (1 + np.exp(-logits[t, :, :high].astype(np.float64))),
            targets,
            selects_NC=targets == 1,
            low=high - step,
            high=high,
            base_high=step,
            fixed_rows=np.arange(images),
        )
        dynamic = {
            "target": 0.5 * t, "reached": 0.6 * t, "threshold": 0.75, "evaluations": 3, "landed": True, "mode": "krt",
            "true": 0.4 * t, "precision": 0.8, "recall": float("nan"), "per_class": [0.5] * (high - step),
        }  # fmt: skip
        result.update(
            index=t,
            classes=list(classes[high - step : high]),
            train={"images": 20, "labels_per_image": 1.25, "exemplars": 4 * t},
            memory={
                "chosen": 4, "stored": 4, "total": 4 * (t + 1),
                "bytes": {"images": 5000, "logits": 0, "statistics": 10, "parameters": 2_000_000, "teacher": 3_000_000},
            },
            report={"dpl": dynamic} if dpl and t else {},
            seconds=12.5,
            evaluation_seconds=0.5,
        )  # fmt: skip
        results.append(result)
    content = {
        "format": "mlcil-results-1", "name": name, "status": "done", "method": "KRT", "dataset": "zoo",
        "protocol": f"B0-C{step}", "protocol_hash": "aaaaaaaaaaaa", "comparison_hash": "bbbbbbbbbbbb",
        "classes": list(classes), "sessions": results, "summary": summarise(results),
        "provenance": {
            "command": "mlcil train zoo.py", "seed": 3, "device": "cpu", "versions": {"mlcil": "0.1.0"},
            "weights": {"source": "zoo.pth", "sha256": "0123abcd", "leak": None},
        },
        "config": "seed = 3\n", **changes,
    }  # fmt: skip
    (run / "results.json").write_text(json.dumps(content))
    if scores:
        (run / "scores").mkdir()
        paths = [folder / "images" / f"{prefix}{k}.png" for k in range(images)]
        for k, path in enumerate(paths):
            if not path.exists():
                write_image(path, seed=k)
        np.savez(
            run / "scores" / "test.npz",
            targets=targets,
            selects=targets == 1,
            paths=np.asarray([str(path) for path in paths]),
            classes=np.asarray(classes),
        )
        for t in range(sessions):
            np.savez(
                run / "scores" / f"session_{t}.npz",
                rows=np.arange(images, dtype=np.int64),
                logits=logits[t, :, : (t + 1) * step],
            )
    return run
