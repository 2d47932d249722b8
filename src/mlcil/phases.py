"""The steps of a session that a method asks for: plain descriptions, which the engine carries out in their order.

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Fit(self.choose_thresholds), Train(), UpdateMemory()]

A run can be stopped in and between phases and goes on there, so a method lists the same phases whenever it is asked in
the same session, and a phase depends on what :meth:`~mlcil.methods.base.Method.method_state` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Batches = Iterable[dict[str, Any]]
#: the session's training images with what is replayed, the same as in a test (each once, in order, not augmented), the
#: images in the memory, or those kept from training
Images = Literal["training", "clean", "memory", "held_out"]


@dataclass(frozen=True)
class Train:
    """Epochs of forward, backward and step.

    Attributes:
        on: ``training`` or ``memory``. Without any stored image a phase on the memory is left out.
        epochs: how many; ``None`` is what the run says of the session.
        lr: a constant learning rate; ``None`` is the run's rate and schedule.
        lr_images: ``lr`` is meant for updates of so many images and scaled in proportion; ``None`` takes it as it is.
        shuffle: false takes the memory's images in stored order, and of these whole updates only.
        begin: called before the first step; chooses what trains.
        goes_on: optimiser, schedule and the count of epochs of the training phase before go on.
        rho: radius of a sharpness-aware step, ``None`` for a plain one.
        change: called before every step with the batch on the training device, to be changed in place, and the key of
            its random draws.
    """

    on: Images = "training"
    epochs: int | None = None
    lr: float | None = None
    lr_images: int | None = None
    shuffle: bool = True
    begin: Callable[[], None] | None = None
    goes_on: bool = False
    rho: float | None = None
    change: Callable[[dict[str, Any], tuple[int, ...]], None] | None = None


@dataclass(frozen=True)
class Fit:
    """One call of a function of the method with a loader of images; what it finds is in the method's state.

    Attributes:
        function: takes batches as a loader gives them (``inputs``, ``targets``, ``rows``, ``origins``).
        on: which images.
    """

    function: Callable[[Batches], None]
    on: Images = "training"


@dataclass(frozen=True)
class Invert:
    """Long work without any image, such as an inversion of the network; the run is saved as soon as it is done.

    Attributes:
        function: does it.
    """

    function: Callable[[], None]


@dataclass(frozen=True)
class UpdateMemory:
    """The memory chooses among the session's images; nothing happens in a run without memory."""


Phase = Train | Fit | Invert | UpdateMemory


def chain_of(phases: Sequence[Phase], number: int) -> list[int]:
    """Numbers of the training phases that share an optimiser with phase ``number``, in their order."""
    first = number
    while isinstance(phases[first], Train) and phases[first].goes_on:  # type: ignore[union-attr]
        first -= 1
    last = number
    while last + 1 < len(phases):
        follower = phases[last + 1]
        if not (isinstance(follower, Train) and follower.goes_on):
            break
        last += 1
    return list(range(first, last + 1))
