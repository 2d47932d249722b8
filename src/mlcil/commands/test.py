"""Metrics of a stage checkpoint on the test images of a config."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import BadImages, SessionSampler, SessionView, build_loader
from mlcil.engine import checkpoint
from mlcil.engine.config import folds, load_config
from mlcil.engine.evaluation import metric_options, predict_view, session_metrics, test_rows
from mlcil.engine.optim import resolve_precision
from mlcil.engine.train import build_scenario
from mlcil.errors import UserError
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork


def main(options: argparse.Namespace) -> int:
    """``test CHECKPOINT CONFIG [key=value ...]``."""
    print(json.dumps(test_checkpoint(options.checkpoint, load_config(options.config, options.overrides)), indent=1))
    return 0


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
    rows = test_rows(scenario, session)
    scenario.test.check_files()
    bad = BadImages(cfg.on_bad_image, lambda sentence: print(sentence, file=sys.stderr))
    nothing = np.zeros((len(rows), 0), np.int8)
    size = stage["network"]["image_size"]
    table = with_cache(scenario.test, size, CacheOptions(**cfg.image_cache), lambda _: None, build=False)
    view = SessionView(table, rows, nothing, size, bad_images=bad, whole_pass=True)
    options = {k: v for k, v in dict(cfg.test_dataloader).items() if k != "precision"}
    loader = build_loader(view, SessionSampler(len(view), 0, 0, shuffle=False), **options)
    dtype = resolve_precision(cfg.test_dataloader.precision, get_device())
    logits, _ = predict_view(method, loader, dtype, folds(cfg))
    result = session_metrics(scenario, session, rows, logits, loader.unreadable, **metric_options(cfg))
    return {**result, "unreadable_images": len(bad)} if len(bad) else result
