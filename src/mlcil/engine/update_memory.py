"""What a run keeps of a session's images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list

from mlcil.engine.data import Data, log, no_labels
from mlcil.engine.evaluate import predict_view
from mlcil.engine.run import Run
from mlcil.evaluation.metrics import scores_of
from mlcil.reporting import log_lines


def update_memory(run: Run, data: Data, t: int) -> dict[str, Any]:
    """Choose exemplars from the new images of session ``t``; the first process decides for all.

    Args:
        run: its memory, and the method that has just been trained.
        data: its loaders.
        t: the session.

    Returns:
        Counts for the results, ``bytes`` among them.
    """
    memory, method, scenario = run.memory, run.method, run.scenario
    if memory is None:
        return {"bytes": {"images": 0, **method.state_bytes()}}
    session = scenario.sessions[t]
    rows = scenario.train_rows(t)
    logits, features = predict_training(run, data, rows, t, augmented=memory.views == "train")
    targets = scenario.train_targets(rows, scenario.first_class(t), session.high)
    aside = memory.set_aside(t, targets)
    chosen_from = (part[~aside] for part in (rows, features, targets))
    counts: dict[str, Any] = memory.update(t, session.low, session.high, *chosen_from)
    shared = [memory.state_dict()]
    broadcast_object_list(shared)
    memory.load_state_dict(shared[0])
    stored, origins = memory.contents()
    taken = np.unique(stored[origins == t])
    method.remember(taken, logits[np.searchsorted(rows, taken)], stored)
    if memory.propagates:
        earlier = np.setdiff1d(stored, rows)
        if len(earlier):
            their_logits, _ = predict_training(run, data, earlier, t)
            logits = np.concatenate([logits, their_logits])
            nothing = np.zeros((len(earlier), session.high), np.int8)
            rows, targets = np.concatenate([rows, earlier]), np.concatenate([targets, nothing])
        new, aside = np.arange(len(rows)) < len(aside), np.pad(aside, (0, len(earlier)))
        memory.propagate(session.low, rows, scores_of(logits), targets, new, aside)
    log(log_lines.memory(counts))
    counts["bytes"] = {"images": memory.image_bytes(run.image_size), **method.state_bytes()}
    return counts


def guess_old_labels(run: Run, data: Data, t: int) -> None:
    """Tell a memory that propagates labels what the network before session ``t`` says of its new images."""
    if run.memory is not None and run.memory.propagates and t > 0:
        rows = run.scenario.train_rows(t)
        logits, _ = predict_training(run, data, rows, t)
        run.memory.guess(rows, scores_of(logits))


def predict_training(
    run: Run, data: Data, rows: np.ndarray, t: int, augmented: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and pooled features (N, K) of training rows.

    Args:
        run, data: see :func:`update_memory`.
        rows: of the training table.
        t: the session.
        augmented: predict one augmented view of each instead of the image itself.
    """
    view = data.plain_view(run.scenario.train, rows)
    if augmented:
        view = data.augmented_view(rows, no_labels(rows), np.full(len(rows), t))
    return predict_view(run.method, data.plain_loader(view), torch.float32, run.fold)
