"""Going on exactly where a run stopped: ``{part: part.state_dict()}`` and the random generators, at a position.

Everything else of the walk follows from the position without further state: the sampler yields the same keys, and
what a session does before its first step is repeated. So a run that is killed between two saved points loses the
time since the last one and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from mmengine.dist import all_gather_object, get_rank

from mlcil.engine import checkpoint
from mlcil.engine.checkpoint import ResumeState, StageCheckpoint
from mlcil.engine.optim import AutocastOptimWrapper
from mlcil.engine.run import Position, Run
from mlcil.engine.run_folder import RunFolder
from mlcil.errors import UserError
from mlcil.methods.base import Method

#: shares of a run's time that saving may take: inside an epoch, and between two
SHARE, BOUNDARY_SHARE = 0.01, 0.02
PAUSE = 60.0  # seconds at least between two states inside an epoch


class Part(Protocol):
    """Anything whose state outlives the process."""

    def state_dict(self) -> dict[str, Any]:
        """Builtins, arrays and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take back what :meth:`state_dict` gave."""


@dataclass
class MethodPart:
    """A method's own state, without its weights."""

    method: Method

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`~mlcil.methods.base.Method.method_state`."""
        return self.method.method_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`~mlcil.methods.base.Method.load_method_state`."""
        self.method.load_method_state(state)


@dataclass
class Learning:
    """What the running training phase updates the weights with."""

    model: torch.nn.Module
    optimiser: AutocastOptimWrapper
    schedules: list[Any]

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, scaler, schedules, and every process's half of an accumulated gradient."""
        wrapper, gradients = self.optimiser, None
        if wrapper._inner_count % wrapper._accumulative_counts:
            named = self.model.named_parameters()
            gradients = all_gather_object({name: p.grad.cpu() for name, p in named if p.grad is not None})
        return {
            "optimiser": wrapper.state_dict(),
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "counted": wrapper._inner_count,
            "gradients": gradients,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.optimiser._inner_count = state["counted"]  # without the steps that were skipped
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        if state["gradients"] is not None:
            mine = state["gradients"][get_rank() % len(state["gradients"])]
            for name, parameter in self.model.named_parameters():
                if name in mine:
                    parameter.grad = mine[name].to(parameter)


#: parts that are there only inside a session
WEIGHTS, LEARNING = "weights", "learning"


def capture(run: Run, position: Position, parts: Mapping[str, Part], learning: Learning | None) -> ResumeState:
    """Collect the run's state; every process calls it.

    Args:
        run: the run.
        position: where it stands.
        parts: by name.
        learning: of the running training phase, or ``None`` between two phases.
    """
    states: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    if position.inside:
        states[WEIGHTS] = run.method.state_dict()
        states[LEARNING] = learning.state_dict() if learning is not None else None
    return ResumeState(
        **asdict(position),
        protocol_hash=run.scenario.hash,
        network=run.method.network.spec,
        conditions=dict(run.conditions),
        parts=states,
        random=all_gather_object(checkpoint.plain(checkpoint.random_state())),
        weights=dict(run.weights) if run.weights is not None else None,
    )


class Restorer:
    """Brings the parts of a new run to a saved state.

    Args:
        run: the run, whose network has no outputs yet.
        state: what was saved.
        folder: where stage checkpoints lie.
    """

    def __init__(self, run: Run, state: ResumeState, folder: RunFolder) -> None:
        self.run, self.state, self.folder = run, state, folder
        self.position = Position(state.session, state.phase, state.epoch, state.iteration, state.inside)

    def begin(self, parts: Mapping[str, Part]) -> None:
        """Bring network and parts to the beginning of the session; its weights follow in :meth:`weights`."""
        network = self.run.method.network
        if self.state.session > 0:
            stage = StageCheckpoint.load(self.folder.stage_file(self.state.session - 1))
            for classes in stage.classes_per_session:
                network.grow(classes)
            network.load_state_dict(stage.state_dict)
        elif self.state.inside and network.frozen_backbone:  # its maps are computed before all weights follow
            prefix = "network.backbone."
            saved = self.state.parts[WEIGHTS].items()
            with self.fitting():
                network.backbone.load_state_dict(
                    {name.removeprefix(prefix): value for name, value in saved if name.startswith(prefix)}
                )
        with self.fitting():
            for name, part in parts.items():
                part.load_state_dict(self.state.parts[name])
        if not self.state.inside:
            self.draws()

    def weights(self, parts: Mapping[str, Part]) -> None:
        """Weights, parts and generators inside a session that has begun."""
        with self.fitting():
            self.run.method.load_state_dict(self.state.parts[WEIGHTS])
            for name, part in parts.items():
                part.load_state_dict(self.state.parts[name])
            self.draws()

    def learning(self, learning: Learning) -> bool:
        """Optimiser and schedules of a phase that was left inside.

        Args:
            learning: fresh ones of the same phase.

        Returns:
            Whether there were any.
        """
        saved = self.state.parts[LEARNING]
        if saved is None:
            return False
        with self.fitting():
            learning.load_state_dict(saved)
            self.draws()
        return True

    def draws(self) -> None:
        """The method's own state and this process's random generators, again after something drew from them."""
        self.run.method.load_method_state(self.state.parts["method"])
        checkpoint.restore_random_state(self.state.random[get_rank() % len(self.state.random)])

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Inside, a part that does not fit the run becomes a sentence."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.folder.resume_file} does not fit this run ({reason}); resume with the config in "
                f"{self.folder.run_dir / 'config.py'} and the same version, or start another --name"
            ) from error


class SaveSchedule:
    """When the state is saved inside and between epochs.

    Args:
        interval: iterations between two states, and the end of every epoch; 0 is the end of every epoch alone;
            ``None`` measures what a state costs and keeps the cost below 2% of the run.
    """

    def __init__(self, interval: int | None) -> None:
        self.interval = interval
        self.cost = 0.0  # seconds that the last state took
        self.total, self.count = 0.0, 0
        self.begun = self.last = time.monotonic()

    def due(self, iteration: int) -> bool:
        """Inside an epoch, with so many finished iterations of the phase."""
        if self.interval is not None:
            return self.interval > 0 and iteration % self.interval == 0
        return time.monotonic() - self.last >= max(PAUSE, self.cost / SHARE)

    def due_between(self) -> bool:
        """At the end of an epoch or a phase."""
        return self.interval is not None or time.monotonic() - self.last >= self.cost / BOUNDARY_SHARE

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the saving of a state."""
        started = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - started
        self.total += self.cost
        self.count += 1

    def line(self) -> str:
        """For the log."""
        share = 100 * self.total / max(time.monotonic() - self.begun, 1e-9)
        return f"resume state: saved {self.count} times in {self.total:.1f} s, {share:.2f}% of the time"
