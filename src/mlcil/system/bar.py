"""A bar for work on many files: on a terminal only, with an estimate of what is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(text: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how much is done, on standard error.

    Args:
        text: what is done.
        total: how many there are.
        shown: no bar where another one or lines of output say it.

    Yields:
        To be called with the number that is done.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)
