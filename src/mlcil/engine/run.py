"""What a run is: plain values, made once by :mod:`mlcil.engine.build`. Nothing here knows the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlcil.datasets.cache import CacheOptions
from mlcil.datasets.feature_store import FeatureStoreOptions
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine.settings import BatchSizes, Optimiser, Plain, TestLoader, TrainLoader, TrainSettings
from mlcil.memory import Memory
from mlcil.methods.base import Method
from mlcil.phases import Phase
from mlcil.protocols import Session


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        session: its index.
        phase: index of the phase in the method's list.
        epoch: finished epochs of the phase's training.
        iteration: finished iterations of the epoch that runs.
        inside: whether the session has begun; else it starts from the stage checkpoint of the session before.
    """

    session: int = 0
    phase: int = 0
    epoch: int = 0
    iteration: int = 0
    inside: bool = False

    def left(self, phases: Sequence[Phase]) -> Iterator[tuple[int, Phase]]:
        """The phases that are still to be done or finished, with their numbers."""
        yield from list(enumerate(phases))[self.phase :]

    def begun(self) -> Position:
        """The same place, in a session that has begun."""
        return replace(self, inside=True)

    def at(self, phase: int, epoch: int = 0, iteration: int = 0) -> Position:
        """A place in the same session."""
        return Position(self.session, phase, epoch, iteration, inside=True)

    def next_session(self) -> Position:
        """The beginning of the session after this one."""
        return Position(self.session + 1)

    def __str__(self) -> str:
        if not self.inside:
            return f"session {self.session}, beginning"
        return f"session {self.session}, phase {self.phase}, epoch {self.epoch}, iteration {self.iteration}"


@dataclass
class Progress:
    """Counts and time of the running session.

    Attributes:
        counts: of its training images.
        memory_counts: of the update of the memory.
        begun: clock at its beginning, less the time of earlier processes.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    memory_counts: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def begin(self, counts: Mapping[str, Any]) -> None:
        """A session starts."""
        self.counts, self.memory_counts, self.begun = dict(counts), {}, time.monotonic()

    def facts(self, session: Session) -> dict[str, Any]:
        """What results.json says of the session besides its metrics."""
        return {
            "index": session.index,
            "classes": list(session.classes),
            "train": self.counts,
            "memory": self.memory_counts,
            "seconds": round(time.monotonic() - self.begun, 1),
        }

    def state_dict(self) -> dict[str, Any]:
        """Builtins only."""
        seconds = time.monotonic() - self.begun
        return {"counts": dict(self.counts), "memory_counts": dict(self.memory_counts), "seconds": seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.counts, self.memory_counts = dict(state["counts"]), dict(state["memory_counts"])
        self.begun = time.monotonic() - state["seconds"]


@dataclass(frozen=True)
class Run:
    """One run: walks ``method`` through ``scenario`` and writes ``run_dir`` and ``checkpoint_dir``.

    Attributes:
        name: of its folders.
        run_dir, checkpoint_dir: ``logs/<name>`` and ``saved_models/<name>``.
        scenario: what the sessions hold.
        method: what learns, with pretrained weights when there are some.
        memory: kept images, or ``None``.
        memory_options: what it was made with.
        method_options: what the method was made with, besides the network.
        settings, train, optimiser, batch_sizes, train_loader, test_loader: see :mod:`mlcil.engine.settings`.
        schedules: each a dictionary with a ``type``, see :mod:`mlcil.engine.schedules`.
        transform: the training augmentation.
        image_size: side of the square images in pixels.
        cache: where decoded images are kept.
        features: where the features of a frozen backbone are kept.
        hooks: the user's, as mmengine builds them.
        trackers: backends of mmengine's visualizer; ``None`` takes the usual ones.
        weights: provenance of the pretrained weights, or ``None``.
        conditions: what the numbers depend on, see :mod:`mlcil.engine.conditions`.
        config: the resolved config as it is written down; nobody reads single settings from it.
        notes: first lines for the log.
    """

    name: str
    run_dir: Path
    checkpoint_dir: Path
    scenario: Scenario
    method: Method
    memory: Memory | None
    memory_options: Mapping[str, Any] | None
    settings: Plain
    train: TrainSettings
    optimiser: Optimiser
    schedules: Sequence[Mapping[str, Any]]
    batch_sizes: BatchSizes | None
    train_loader: TrainLoader
    test_loader: TestLoader
    transform: TrainTransform
    image_size: int
    cache: CacheOptions
    features: FeatureStoreOptions
    hooks: Sequence[Mapping[str, Any]] = ()
    trackers: Sequence[Mapping[str, Any]] | None = None
    weights: Mapping[str, Any] | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    notes: tuple[str, ...] = ()
    method_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last_session(self) -> int:
        """Index of the session behind which the run ends."""
        last = len(self.scenario.sessions) - 1
        stop = self.train.stop_after_session
        return last if stop is None else min(stop, last)

    @property
    def fold(self) -> bool:
        """Networks that only predict have their batch norms inside the convolutions."""
        return self.settings.fold_batch_norm and not self.settings.deterministic

    def images_per_step(self, processes: int) -> int:
        """Images of one update of the weights, over all processes and accumulated batches."""
        return self.train_loader.batch_size * processes * self.optimiser.accumulative_counts
