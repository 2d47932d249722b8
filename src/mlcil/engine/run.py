"""What a run is: plain values, made once by :mod:`mlcil.engine.build`. Nothing here knows the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlcil.datasets.cache import CacheOptions
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
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
class LoaderSettings:
    """How images are read.

    Attributes:
        batch_size: images a process sees in one step, at least 1.
        num_workers: processes that read images; 0 reads in the process that trains.
        drop_last: leave out a last, smaller batch.
    """

    batch_size: int = 64
    num_workers: int = 8
    drop_last: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """How long a session trains, and how carefully.

    Attributes:
        max_epochs: epochs of a session.
        base_lr: peak learning rate of session 0; later sessions use the optimiser's ``lr``.
        base_epochs: epochs of session 0 when they differ from ``max_epochs``.
        val_interval: 0 evaluates at the end of a session only; n also every n epochs (official: 1).
        stop_after_session: end the run behind this session index (a shortened run), ``None`` for all.
        save_interval: iterations between two saved states, and the end of every epoch; 0 is the end of every epoch
            alone; ``None`` chooses it so that saving takes less than 2% of the time.
        skip_not_finite: how many steps whose loss is no number are left out, with a warning, before the run stops;
            0 stops at the first.
        repeated_augmentation: views of an image in a batch, see
            :class:`~mlcil.datasets.sampling.RepeatedAugmentationSampler`; 1 is ordinary shuffling.
    """

    max_epochs: int = 20
    base_lr: float | None = None
    base_epochs: int | None = None
    val_interval: int = 0
    stop_after_session: int | None = None
    save_interval: int | None = None
    skip_not_finite: int = 0
    repeated_augmentation: int = 1

    def epochs(self, session: int) -> int:
        """Epochs of a session."""
        return self.base_epochs if session == 0 and self.base_epochs else self.max_epochs


@dataclass(frozen=True)
class OptimSettings:
    """What the weights are updated with.

    Attributes:
        wrapper: arguments of mmengine's optimiser wrapper, ``optimizer`` among them.
        schedules: each a dictionary with a ``type``, see :mod:`mlcil.engine.schedules`.
        precision: of matrix products in training: auto, fp32, bf16 or fp16.
        base_batch_size: the learning rates are meant for so many images an update and scaled in proportion.
        published_batch_size: images an update in the paper, for the log.
    """

    wrapper: Mapping[str, Any]
    schedules: Sequence[Mapping[str, Any]] = ()
    precision: str = "auto"
    base_batch_size: int | None = None
    published_batch_size: int | None = None

    @property
    def accumulated(self) -> int:
        """Batches of a process whose gradients make one update."""
        return int(self.wrapper.get("accumulative_counts", 1))


@dataclass(frozen=True)
class Run:
    """One run: walks ``method`` through ``scenario`` and writes ``run_dir`` and ``checkpoint_dir``.

    Attributes:
        name: of its folders.
        run_dir, checkpoint_dir: ``logs/<name>`` and ``saved_models/<name>``.
        scenario: what the sessions hold.
        method: what learns, with pretrained weights when there are some.
        memory: kept images, or ``None``.
        train: see :class:`TrainSettings`.
        optim: see :class:`OptimSettings`.
        train_loader, test_loader: see :class:`LoaderSettings`.
        transform: the training augmentation; it knows the images' size.
        cache: where decoded images are kept.
        frozen_maps_gb: memory for the maps of a frozen backbone.
        seed, deterministic: of the random generators and kernels.
        test_precision: of matrix products in evaluation.
        fold: networks that only predict have their batch norms inside the convolutions.
        channels_last, compile: how the network is computed.
        on_bad_image: ``raise`` or ``skip``.
        metric_options: of :class:`~mlcil.evaluation.metrics.TestSet`.
        launcher: none, pytorch or slurm.
        log_level, log_interval, hooks: of mmengine; ``hooks`` are the user's.
        env: mmengine's ``env_cfg``, or empty for the usual one.
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
    train: TrainSettings
    optim: OptimSettings
    train_loader: LoaderSettings
    test_loader: LoaderSettings
    transform: TrainTransform
    image_size: int
    cache: CacheOptions = field(default_factory=CacheOptions)
    frozen_maps_gb: float = 4.0
    seed: int = 3407
    deterministic: bool = False
    test_precision: str = "fp32"
    fold: bool = True
    channels_last: bool = True
    compile: bool = False
    on_bad_image: str = "raise"
    metric_options: Mapping[str, str] = field(default_factory=dict)
    launcher: str = "none"
    log_level: str = "INFO"
    log_interval: int = 50
    hooks: Sequence[Mapping[str, Any]] = ()
    env: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    config: Any = None
    notes: tuple[str, ...] = ()

    @property
    def last_session(self) -> int:
        """Index of the session behind which the run ends."""
        last = len(self.scenario.sessions) - 1
        stop = self.train.stop_after_session
        return last if stop is None else min(stop, last)

    def images_per_step(self, processes: int) -> int:
        """Images of one update of the weights, over all processes and accumulated batches."""
        return self.train_loader.batch_size * processes * self.optim.accumulated
