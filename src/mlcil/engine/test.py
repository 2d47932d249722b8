"""Metrics of a stage checkpoint on the test images of a config."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import Loader, SessionSampler, SessionView, find_unreadable
from mlcil.engine import checkpoint
from mlcil.engine.config import folds
from mlcil.engine.evaluation import metric_options, predict_view, session_metrics, test_rows
from mlcil.engine.optim import resolve_precision
from mlcil.engine.train import build_scenario
from mlcil.errors import UserError
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.reporting import log_lines


class Trained(Method):
    """The network of a stage checkpoint with its correction of logits."""

    def __init__(self, network: IncrementalNetwork, correction_C2: Tensor | None) -> None:
        super().__init__(network)
        self.correction_C2 = correction_C2

    def logit_correction(self) -> Tensor | None:
        return self.correction_C2


def test_checkpoint(path: Path, cfg: Config) -> dict[str, Any]:
    """The same metrics as at the end of the session that wrote the checkpoint.

    Raises:
        UserError: the checkpoint's classes are not the first classes of the config's scenario.
    """
    stage = checkpoint.load_stage(path)
    scenario = build_scenario(cfg)
    classes = list(scenario.classes[: len(stage["classes"])])
    if classes != stage["classes"]:
        different = next(
            (i for i, (a, b) in enumerate(zip(stage["classes"], classes, strict=False)) if a != b), len(classes)
        )
        found = stage["classes"][different : different + 1] or ["nothing"]
        expected = classes[different : different + 1] or ["nothing"]
        raise UserError(
            f"{path} belongs to another scenario: its class {different} is {found[0]!r}, but the config has "
            f"{expected[0]!r} there; test it with the config it was trained with"
        )
    high = len(classes)
    session = next((s for s in scenario.sessions if s.high == high), None)
    if session is None:
        raise UserError(
            f"{path} knows {high} classes, but sessions of {scenario.protocol} end at "
            f"{', '.join(str(s.high) for s in scenario.sessions)}; test it with the config it was trained with"
        )
    method = Trained(checkpoint.network_of(stage, path), stage.get("logit_correction")).to(get_device())
    scenario.test.check_files()
    size = stage["network"]["image_size"]
    scenario.test = with_cache(scenario.test, size, CacheOptions(**cfg.image_cache), lambda _: None, build=False)
    unreadable: dict[int, str] = {}
    if cfg.on_bad_image == "skip":
        unreadable = find_unreadable(scenario.test, cfg.test_dataloader.num_workers)
        scenario.leave_out((), unreadable)
        print(*log_lines.skipped({"test": unreadable}), sep="\n", end="", file=sys.stderr)
    rows = test_rows(scenario, session)
    view = SessionView(scenario.test, rows, np.zeros((len(rows), 0), np.int8), size)
    options = {k: v for k, v in dict(cfg.test_dataloader).items() if k != "precision"}
    loader = Loader(view, SessionSampler(len(view), 0, 0, shuffle=False), **options)
    dtype = resolve_precision(cfg.test_dataloader.precision, get_device())
    logits, _ = predict_view(method, loader, dtype, folds(cfg))
    result = session_metrics(scenario, session, rows, logits, **metric_options(cfg))
    return {**result, "unreadable_images": len(unreadable)} if unreadable else result
