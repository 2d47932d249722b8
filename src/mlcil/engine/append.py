"""One session behind a stage checkpoint, through the ordinary loop, with nothing written but a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import ImageTable
from mlcil.engine.build import build_run
from mlcil.engine.data import Data
from mlcil.engine.evaluate import Evaluator, SessionResult
from mlcil.engine.loop import SessionLoop, loop_of
from mlcil.engine.progress import ProgressHook
from mlcil.engine.run import Position
from mlcil.engine.runner import IncrementalRunner
from mlcil.errors import StoppedError
from mlcil.methods.base import Method
from mlcil.protocols import Session
from mlcil.system.signals import StopSignals


@dataclass(frozen=True)
class Lot:
    """Training and test images with the classes of all sessions, as a data set."""

    name: str
    training: ImageTable
    testing: ImageTable

    def train(self) -> ImageTable:
        """What the session trains on."""
        return self.training

    def test(self) -> ImageTable:
        """What the evaluation predicts."""
        return self.testing


@dataclass(frozen=True)
class Appended:
    """What a session left.

    Attributes:
        method: as trained.
        result: logits of the test images, and metrics.
        kept: bytes kept of its images, by kind.
    """

    method: Method
    result: SessionResult
    kept: Mapping[str, int]


class SessionHook(Hook):
    """Keeps the session's result; a signal ends it, since nothing is saved to go on from."""

    result: SessionResult | None = None
    kept: Mapping[str, int]

    def __init__(self, signals: StopSignals) -> None:
        self.signals, self.kept = signals, {}

    def between_steps(self, runner: Runner, iteration: int, at_once: bool) -> None:
        """Stop where a signal asked for it."""
        del runner, iteration, at_once
        if self.signals.received:
            raise StoppedError(self.signals.received)

    def after_session(self, runner: Runner, session: Session, result: SessionResult) -> None:
        """Keep it."""
        self.result = result
        self.kept = {k: int(v) for k, v in loop_of(runner).progress.facts(session)["memory"].get("bytes", {}).items()}


def append_session(
    cfg: Config,
    method: Method,
    train: ImageTable,
    test: ImageTable,
    sizes: Sequence[int],
    cumulative: bool = False,
    bar: bool = False,
) -> Appended:
    """Run the last of the sessions.

    Args:
        cfg: recipe and folders of the run; its scenario, network and method are not looked at.
        method: with the network and the state that the session before left; fresh for a first one.
        train, test: images whose labels are of all sessions, columns in their order.
        sizes: classes of every session.
        cumulative: labels of old classes that are known on the training images are trained on.
        bar: show one on a terminal.

    Raises:
        UserError: as a training run.
        StoppedError: a signal asked to stop.
    """
    lot = Lot("photos", train, test)
    scenario = Scenario(lot, sizes=list(sizes), allow_empty_classes=True, cumulative=cumulative)
    run = build_run(cfg, method, scenario=scenario)
    set_random_seed(run.settings.seed, deterministic=run.settings.deterministic)
    signals, data = StopSignals(), Data(run)
    hook = SessionHook(signals)
    runner = IncrementalRunner(run, signals, [hook, *([ProgressHook(run)] if bar else [])])
    loop = SessionLoop(runner, run, data, Evaluator(run, data), signals)
    loop.position = Position(session=len(sizes) - 1)
    runner._train_loop = loop
    runner.train()
    assert hook.result is not None
    return Appended(method, hook.result, hook.kept)


def recipe_words(folder: str) -> list[str]:
    """What a config is loaded with so that its run writes a log in that folder and nothing else."""
    return [f"log_root={folder!r}", f"checkpoint_root={folder!r}", "log_level='ERROR'", "name='session'"]


def state_of(appended: Appended) -> dict[str, Any]:
    """What of a session goes into a stage checkpoint, besides its classes."""
    method = appended.method
    return {
        "network": method.network.spec,
        "classes_per_session": list(method.network.classes_per_session),
        "state_dict": method.network.state_dict(),
        "method": type(method).__name__,
        "method_state": method.method_state(),
        "logit_correction": method.logit_correction(),
        "kept": dict(appended.kept),
    }
