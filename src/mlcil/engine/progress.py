"""How far a run is: the bar on a terminal, and the estimates in the log."""

from __future__ import annotations

import datetime
import logging
import re
import sys
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, IterTimerHook
from mmengine.runner import LogProcessor, Runner

from mlcil.engine.loop import SessionLoop, loop_of
from mlcil.engine.run import Run


class SessionTimerHook(IterTimerHook):  # type: ignore[misc]
    """mmengine's timer; the mean time of a step, and so ``eta``, is that of the running training phase.

    ``eta_run`` is an estimate of the training steps of all sessions that are left.
    """

    def before_train(self, runner: Runner) -> None:
        """Count from here; the means in the log are of the phase's own steps."""
        super().before_train(runner)
        self.time_sec_tot = 0
        hub = runner.message_hub
        for name in [name for name in hub.log_scalars if name.startswith("train/")]:
            del hub.log_scalars[name]

    def _after_iter(self, runner: Runner, *arguments: Any, **more: Any) -> None:
        super()._after_iter(runner, *arguments, **more)
        loop = loop_of(runner)
        mean = self.time_sec_tot / (loop.iter - self.start_iter + 1)
        runner.message_hub.update_info("eta_run", mean * max(steps_left(loop) - 1, 0))


class SessionLogProcessor(LogProcessor):  # type: ignore[misc]
    """mmengine's lines of losses; ``eta`` is the session's, and behind it stands the run's."""

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict[str, Any], str]:
        """See mmengine."""
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        if "eta_run" in runner.message_hub.runtime_info:
            rest = datetime.timedelta(seconds=int(runner.message_hub.get_info("eta_run")))
            text = re.sub(r"eta: (.+?)  ", rf"eta: \1 (run {rest})  ", text, count=1)
        return tag, text


def steps_left(loop: SessionLoop) -> int:
    """Training steps of the run that are still to be done; those on a memory of later phases are not known."""
    run, session = loop.run_settings, loop.position.session
    batch = run.train_loader.batch_size * get_world_size()
    later = run.scenario.sessions[session + 1 : run.last_session + 1]
    steps = [-(-len(run.scenario.train_rows(s.index)) // batch) * run.train.epochs(s.index) for s in later]
    return int(loop.max_iters - loop.iter + sum(steps))


class ProgressHook(Hook):
    """A bar with the whole run's remaining time, on a terminal only; log lines pass above it."""

    priority = "VERY_LOW"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.progress: Any = None
        self.task: Any = None
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def before_run(self, runner: Runner) -> None:
        """Open the bar."""
        if not (is_main_process() and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.progress.start()
        self.task = self.progress.add_task("preparing", total=None)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                self._streams.append((handler, handler.stream))
                handler.stream = _Above(self.progress.console)
        self.run.method.announce = self.announce

    def announce(self, text: str, done: int, total: int) -> None:
        """Work outside the epochs, such as an inversion: its own steps on the bar."""
        self.progress.update(self.task, description=text, completed=done, total=total)

    def before_train(self, runner: Runner) -> None:
        """Estimate what is left of the run."""
        if self.progress is not None:
            self.progress.update(self.task, completed=0, total=steps_left(loop_of(runner)))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One step further."""
        if self.progress is not None:
            loop = loop_of(runner)
            place = f"session {loop.position.session}/{self.run.last_session}, epoch {loop.epoch + 1}/{loop.max_epochs}"
            self.progress.update(self.task, advance=1, description=f"{self.run.name}: {place}")

    def after_run(self, runner: Runner) -> None:
        """Close the bar and give the log its terminal back."""
        if self.progress is None:
            return
        for handler, stream in self._streams:
            handler.stream = stream
        self.progress.stop()
        self.progress = None


class _Above:
    """A stream whose lines appear above the bar."""

    def __init__(self, console: Any) -> None:
        self.console = console

    def write(self, text: str) -> int:
        self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self.console.file.flush()
