"""A progress bar for people; everything a program needs is in the log and in results.json."""

from __future__ import annotations

import logging
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """A bar with the whole run's remaining time, on a terminal only; log lines pass above it."""

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.progress: Any = None
        self.task: Any = None
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def before_run(self, runner: Any) -> None:
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

        runner.method.announce = self.announce

    def announce(self, text: str, done: int, total: int) -> None:
        """Work outside the epochs, such as an inversion: its own steps on the bar."""
        self.progress.update(self.task, description=text, completed=done, total=total)

    def before_train(self, runner: Any) -> None:
        """Estimate the whole run from the sessions' images."""
        if self.progress is None:
            return
        loop, scenario = runner.train_loop, runner.scenario
        batch = loop.loader_options["batch_size"] * runner.world_size
        steps = [-(-len(scenario.train_rows(s.index)) // batch) for s in scenario.sessions]
        done = sum(steps[: loop.session]) * loop.session_epochs + loop.iter
        rest = sum(steps[loop.session + 1 :]) * loop.session_epochs + loop.max_iters - loop.iter
        self.progress.update(self.task, completed=done, total=done + rest)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """One step further."""
        if self.progress is not None:
            loop = runner.train_loop
            last = len(runner.scenario.sessions) - 1
            text = f"{runner.name}: session {loop.session}/{last}, epoch {loop.epoch + 1}/{loop.max_epochs}"
            self.progress.update(self.task, advance=1, description=text)

    def after_run(self, runner: Any) -> None:
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
