"""What a run keeps of a session's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list

from mlcil.engine.evaluation import predict_view
from mlcil.engine.images import SessionImages, no_labels
from mlcil.evaluation.metrics import scores_of
from mlcil.reporting import log_lines

if TYPE_CHECKING:
    from mlcil.engine.runner import IncrementalRunner


def update_memory(runner: IncrementalRunner, images: SessionImages, t: int) -> dict[str, Any]:
    """Choose exemplars from the new images of session ``t``; rank 0 decides for all.

    Args:
        runner: the run.
        images: its loaders.
        t: the session that has just been trained.

    Returns:
        Counts for the results, ``bytes`` among them.
    """
    memory, scenario = runner.memory, runner.scenario
    if memory is None:
        return {"bytes": {"images": 0, **runner.method.state_bytes()}}
    session = scenario.sessions[t]
    rows = scenario.train_rows(t)
    rows, logits, features = predict_training(runner, images, rows, t, augmented=memory.views == "train")
    targets = scenario.train_targets(rows, scenario.first_class(t), session.high)
    counts: dict[str, Any] = memory.update(t, session.low, session.high, rows, features, targets)
    shared = [memory.state_dict()]
    broadcast_object_list(shared)
    memory.load_state_dict(shared[0])
    stored, origins = memory.contents()
    taken = np.unique(stored[origins == t])
    runner.method.remember(taken, logits[np.searchsorted(rows, taken)], stored)
    if memory.labels == "propagate":
        earlier = np.setdiff1d(stored, rows)
        if len(earlier):
            earlier, their_logits, _ = predict_training(runner, images, earlier, t)
            logits = np.concatenate([logits, their_logits])
            nothing = np.zeros((len(earlier), session.high), np.int8)
            rows, targets = np.concatenate([rows, earlier]), np.concatenate([targets, nothing])
        new = np.arange(len(rows)) < len(rows) - len(earlier)
        memory.propagate(session.low, rows, scores_of(logits), targets, new)
    runner.log([log_lines.memory(counts)])
    counts["bytes"] = {"images": memory.image_bytes(runner.image_size), **runner.method.state_bytes()}
    return counts


def predict_training(
    runner: IncrementalRunner, images: SessionImages, rows: np.ndarray, t: int, augmented: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the training rows whose image can be read, with their logits (N, C) and pooled features (N, K).

    Args:
        runner: the run.
        images: its loaders.
        rows: of the training table.
        t: the session.
        augmented: predict one augmented view of each instead of the image itself.
    """
    view = images.plain_view(runner.scenario.train, rows)
    if augmented:
        view = images.augmented_view(rows, no_labels(rows), np.full(len(rows), t))
        view.whole_pass = True
    loader = images.plain_loader(view)
    logits, features = predict_view(runner.method, loader, torch.float32, runner.fold)
    readable = ~np.isin(rows, list(loader.unreadable))
    return rows[readable], logits[readable], features[readable]
