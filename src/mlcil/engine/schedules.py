"""Schedules of learning rates, built for each session with its epochs and their length.

A schedule of one's own is a class like these, registered in a plugin: it takes the optimiser, ``epochs`` and
``epoch_length``, then its settings, and is stepped every epoch or, with a false ``by_epoch``, every iteration. Any of
mmengine's goes by its name.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mlcil.engine.run import Run
from mlcil.schema import Natural


def build_schedules(run: Run, wrapper: OptimWrapper, epochs: int, epoch_length: int) -> list[Any]:
    """The run's schedules over a session of so many epochs of ``epoch_length`` iterations."""
    return [build_schedule(options, wrapper, epochs, epoch_length) for options in run.schedules]


def build_schedule(settings: Mapping[str, Any], wrapper: OptimWrapper, epochs: int, epoch_length: int) -> Any:
    """One schedule; a class that takes ``epochs`` and ``epoch_length`` is given those of the session."""
    options = dict(settings)
    cls = PARAM_SCHEDULERS.get(options["type"])
    if takes_session(cls):
        del options["type"]
        schedule = cls(wrapper, epochs, epoch_length, **options)
        schedule.by_epoch = getattr(schedule, "by_epoch", False)  # when mmengine steps it
        return schedule
    span = epochs if options.get("by_epoch", True) else epochs * epoch_length
    options.setdefault("end", max(span, options.get("begin", 0) + 1))  # a short phase may end before it begins
    return PARAM_SCHEDULERS.build(options, default_args={"optimizer": wrapper, "epoch_length": epoch_length})


def takes_session(cls: type) -> bool:
    """Whether a schedule knows the length of a session, which a config does not."""
    return {"epochs", "epoch_length"} <= set(inspect.signature(cls).parameters)


@PARAM_SCHEDULERS.register_module()
class OneCycle(OneCycleLR):
    """The one-cycle schedule of KRT, stepped every iteration.

    Learning rate max/25 -> max -> max/250000 by cosine, and Adam's beta1 0.95 -> 0.85 -> 0.95 (so it is
    never 0.9), with the peak at iteration ``pct_start * T - 1``.

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the peak.
        epochs: epochs of the session.
        epoch_length: iterations of an epoch.
        pct_start: share of the iterations before the peak.
    """

    by_epoch = False

    def __init__(self, optimizer: Any, epochs: int, epoch_length: int, pct_start: float = 0.2) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)
        total = epochs * epoch_length
        if pct_start * total == 1:  # a rise of no length divides by zero in torch
            pct_start += 1e-9
        peaks = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, max_lr=peaks, total_steps=total, pct_start=pct_start)

    def step(self, epoch: int | None = None) -> None:
        """Next iteration; the step after the last iteration changes nothing."""
        if self.last_epoch + 1 < self.total_steps:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        """The iteration; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}


@PARAM_SCHEDULERS.register_module()
class WarmupCosine(LRScheduler):
    """Linear warm-up and cosine over the epochs, as DKT's and DAFormer's releases use timm's.

    The learning rate is constant within an epoch. The schedule lags by one epoch, so the first two run at
    ``warmup_lr``, and the warm-up does not shorten the cosine: with k the epoch less one (at least 0),

        k < warmup:  warmup_lr + k (peak - warmup_lr) / warmup
        else         min_lr + (peak - min_lr) (1 + cos(pi k / epochs)) / 2

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the peak.
        epochs: epochs of the session.
        epoch_length: iterations of an epoch (of no consequence here).
        warmup_epochs: length of the warm-up.
        warmup_lr: where it begins.
        min_lr: where the cosine would end.
    """

    by_epoch = True

    def __init__(
        self,
        optimizer: Any,
        epochs: int,
        epoch_length: int,
        warmup_epochs: Natural = 5,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
    ) -> None:
        self.epochs, self.warmup_epochs, self.warmup_lr, self.min_lr = epochs, warmup_epochs, warmup_lr, min_lr
        super().__init__(getattr(optimizer, "optimizer", optimizer))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Learning rate of each group in the current epoch."""
        k = max(self.last_epoch - 1, 0)
        peaks = [float(peak) for peak in self.base_lrs]
        if k < self.warmup_epochs:
            return [self.warmup_lr + k * (peak - self.warmup_lr) / self.warmup_epochs for peak in peaks]
        share = (1 + math.cos(math.pi * k / self.epochs)) / 2
        return [self.min_lr + (peak - self.min_lr) * share for peak in peaks]

    def state_dict(self) -> dict[str, Any]:
        """The epoch; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}


@PARAM_SCHEDULERS.register_module()
class Steps(LRScheduler):
    """Steps by epochs, and on request a constant rate at the end (schedules of ABD's system and of R-DFCIL).

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the first rate.
        epochs, epoch_length: of the session (of no consequence here).
        milestones: epochs from which on the rate has one factor ``gamma`` more.
        gamma: the factor.
        constant_from, constant: from that epoch on the rate is ``constant`` (R-DFCIL's refinement).

    Raises:
        ValueError: only one of ``constant_from`` and ``constant`` is given.
    """

    by_epoch = True

    def __init__(
        self,
        optimizer: Any,
        epochs: int,
        epoch_length: int,
        milestones: Sequence[Natural] = (),
        gamma: float = 0.1,
        constant_from: Natural | None = None,
        constant: float | None = None,
    ) -> None:
        if (constant_from is None) != (constant is None):
            raise ValueError("a constant rate at the end needs both constant_from=EPOCH and constant=RATE")
        self.milestones, self.gamma = sorted(milestones), gamma
        self.constant_from, self.constant = constant_from, constant
        super().__init__(getattr(optimizer, "optimizer", optimizer))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Learning rate of each group in the current epoch."""
        epoch = self.last_epoch
        if self.constant_from is not None and self.constant is not None and epoch >= self.constant_from:
            return [self.constant for _ in self.base_lrs]
        factor = self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return [float(first) * factor for first in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The epoch; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}
