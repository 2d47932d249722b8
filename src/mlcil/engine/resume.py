"""Going on exactly where a run stopped: what is saved, when, and under which conditions it may be used.

The state is a point of the walk through a session: ``phase`` (0 main training, 1 balanced fine-tuning), ``epoch``
and ``iteration`` in it. Everything else of the walk follows from it without further state: the sampler yields the
same keys, and what a session does before its first step is repeated with the random generators of that time. So a
run that is killed between two saved points loses the time since the last one and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank

import mlcil
from mlcil.engine import checkpoint
from mlcil.errors import UserError
from mlcil.system.provenance import versions

if TYPE_CHECKING:
    from mlcil.engine.runner import IncrementalRunner

#: shares of a run's time that saving may take: inside an epoch, and between two
SHARE, BOUNDARY_SHARE = 0.01, 0.02
PAUSE = 60.0  # seconds at least between two states inside an epoch
#: settings that change no number; a prefix stands for all below it
NEUTRAL = (
    "name",
    "log_root",
    "checkpoint_root",
    "log_level",
    "log_interval",
    "launcher",
    "plugins",
    "threads",
    "image_cache",
    "train_dataloader.num_workers",
    "train_transform.on_device",
    "test_dataloader.num_workers",
    "train_cfg.stop_after_session",
    "train_cfg.save_interval",
    "scenario.dataset.root",
    "scenario.dataset.cache_dir",
)


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
        """At the end of an epoch."""
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


# -- what is saved --------------------------------------------------------------------------------------------


def capture(runner: IncrementalRunner, epoch: int, iteration: int, seconds: float, inside: bool) -> dict[str, Any]:
    """The run's state; every process calls it.

    Args:
        runner: the run.
        epoch, iteration: finished epochs of the phase, and finished iterations of the epoch that runs.
        seconds: time spent in the session so far.
        inside: whether the session has begun; else the next one starts from its stage checkpoint.
    """
    loop, method = runner.train_loop, runner.method
    state: dict[str, Any] = {
        "format": checkpoint.RESUME_FORMAT,
        "session": loop.session,
        "inside": inside,
        "phase": loop.phase,
        "epoch": epoch,
        "iteration": iteration,
        "seconds": seconds,
        "protocol_hash": runner.scenario.hash,
        "conditions": runner.conditions,
        "network": method.network.spec,
        "classes_per_session": list(method.network.classes_per_session),
        "state_dict": None,
        "optimizer": None,
        "schedulers": None,
        "gradients": None,
        "method": method.method_state(),
        "memory": runner.memory.state_dict() if runner.memory is not None else None,
        "random": all_gather_object(checkpoint.plain(checkpoint.random_state())),
        "audit": dict(loop.audit),
        "counts": dict(loop.counts),
        "memory_counts": dict(loop.memory_counts),
        "unreadable": runner.unreadable,
        "not_finite": runner.not_finite,
        "results": runner.results,
        "weights": runner.weights,
    }
    if inside:
        wrapper = runner.optim_wrapper
        state.update(
            state_dict=method.state_dict(),
            optimizer=wrapper.state_dict(),
            schedulers=[scheduler.state_dict() for scheduler in runner.param_schedulers or []],
            gradients=_gradients(runner) if wrapper._inner_count % wrapper._accumulative_counts else None,
        )
    return state


def _gradients(runner: IncrementalRunner) -> dict[str, torch.Tensor]:
    """Half an accumulated gradient."""
    return {name: p.grad for name, p in runner.method.named_parameters() if p.grad is not None}


def restore(runner: IncrementalRunner, state: Mapping[str, Any], position: int) -> None:
    """Weights, optimiser, schedule, method and generators inside a session that has begun.

    Args:
        runner: the run; its network has grown, and its optimiser is that of the state's phase.
        state: what :func:`capture` gave.
        position: finished iterations of the phase.

    Raises:
        UserError: parts of the state do not fit the run.
    """
    method, wrapper = runner.method, runner.optim_wrapper
    try:
        method.load_state_dict(state["state_dict"])
        wrapper.load_state_dict(state["optimizer"])
        for scheduler, saved in zip(runner.param_schedulers or [], state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        wrapper.initialize_count_status(runner.model, position, runner.train_loop.max_iters)
        for name, parameter in method.named_parameters():
            if state["gradients"] is not None and name in state["gradients"]:
                parameter.grad = state["gradients"][name].to(parameter)
        runner.train_loop.audit = dict(state["audit"])
        restore_draws(runner, state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{runner.checkpoint_dir / 'resume.pth'} does not fit this run ({reason}); resume with the config in "
            f"{runner.run_dir / 'config.py'} and the same version, or start another --name"
        ) from error


def restore_draws(runner: IncrementalRunner, state: Mapping[str, Any]) -> None:
    """The method's own state and this process's random generators, again after an epoch's beginning drew from them."""
    runner.method.load_method_state(state["method"])
    states = state["random"]
    checkpoint.restore_random_state(states[get_rank() % len(states)])


# -- conditions -----------------------------------------------------------------------------------------------


def expected_processes(cfg: Config) -> int:
    """How many processes the launcher has started, before they know each other."""
    name = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}.get(cfg.launcher, "")
    return int(os.environ.get(name, "1"))


def expected_rank(cfg: Config) -> int:
    """Which of them this one is."""
    name = {"pytorch": "RANK", "slurm": "SLURM_PROCID"}.get(cfg.launcher, "")
    return int(os.environ.get(name, "0"))


def conditions(cfg: Config) -> dict[str, str]:
    """Everything that a run's numbers depend on besides its data, by name."""
    found = {
        key: text
        for key, text in _flat(cfg.to_dict())
        if not any(key == neutral or key.startswith(f"{neutral}.") for neutral in NEUTRAL)
    }
    return {
        **found,
        "number of processes": str(expected_processes(cfg)),
        "source code of mlcil": source_digest(),
        **{f"source code of {Path(path).name}": _digest([Path(path)]) for path in cfg.plugins},
        **{f"version of {name}": str(version) for name, version in versions().items() if name != "python"},
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed, as ``name was this and is that``."""
    keys = [*before, *(key for key in now if key not in before)]
    nothing = "not set"
    return [
        f"{key} was {_short(before.get(key, nothing))} and is {_short(now.get(key, nothing))}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


@functools.cache
def source_digest() -> str:
    """A fingerprint of the package's code."""
    return _digest(sorted(Path(mlcil.__file__).parent.rglob("*.py")))


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, repr(list(value) if isinstance(value, tuple) else value)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
