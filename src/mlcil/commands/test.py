"""Metrics of a stage checkpoint on the test images of a config."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor

from mlcil.engine.build import build_run
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.engine.config import load_config
from mlcil.engine.data import Data
from mlcil.engine.evaluate import Evaluator
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

    What results.json lists a class stands under the names of the classes here, with the number of test images that
    show each.

    Raises:
        UserError: the checkpoint's classes are not the first classes of the config's scenario.
    """
    stage = StageCheckpoint.load(path)
    method = Trained(stage.build(path), stage.logit_correction).to(get_device())
    run = build_run(cfg, method)
    scenario = run.scenario
    classes = list(scenario.classes[: len(stage.classes)])
    if classes != stage.classes:
        different = next(
            (i for i, (a, b) in enumerate(zip(stage.classes, classes, strict=False)) if a != b), len(classes)
        )
        found = stage.classes[different : different + 1] or ["nothing"]
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
    data = Data(run)
    data.open(None)
    metrics = Evaluator(run, data)(method, session).metrics
    del metrics["evaluation_seconds"]
    per_class = {key: metrics.pop(key) for key in ("AP", "fixed_AP", "class_accuracy") if key in metrics}
    positives = scenario.test.positives()
    metrics["classes"] = {
        name: {**{key: values[c] for key, values in per_class.items()}, "test_images": int(positives[c])}
        for c, name in enumerate(classes)
    }
    return metrics
