"""Carries out a method's phases on given batches, without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlcil.methods.base import Method
from mlcil.phases import Fit, Invert, Phase, Train


def phases_of(method: Method) -> list[Phase]:
    """The phases of the session that the method has begun."""
    assert method.context is not None
    return list(method.phases(method.context))


def _first_training(phases: list[Phase]) -> int:
    return next(number for number, phase in enumerate(phases) if isinstance(phase, Train))


def before_training(method: Method, batches: Any) -> None:
    """What the method does before its first step."""
    phases = phases_of(method)
    _carry_out(phases[: _first_training(phases)], batches)


def after_training(method: Method, batches: Any) -> None:
    """What the method does behind its last step, but for further training."""
    phases = phases_of(method)
    _carry_out(phases[_first_training(phases) :], batches)


def _carry_out(phases: list[Phase], batches: Any) -> None:
    for phase in phases:
        if isinstance(phase, Fit):
            phase.function(batches)
        elif isinstance(phase, Invert):
            phase.function()


def epochs(method: Method, first: int = 0) -> Iterator[int]:
    """Epochs of the training on the session's images, each begun; those before ``first`` are passed over."""
    assert method.context is not None
    number = 0
    for phase in phases_of(method):
        if not (isinstance(phase, Train) and phase.on == "training"):
            continue
        if phase.begin is not None:
            phase.begin()
        for _ in range(method.context.epochs if phase.epochs is None else phase.epochs):
            if number >= first:
                method.begin_epoch()
                yield number
            number += 1
