"""SIGTERM and Ctrl-C: the first asks the run to save and stop, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from mlcil.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Context manager that listens to the signals; in other threads than the main one it does nothing.

    While :attr:`deferred` the first signal is only noted in :attr:`received`, so that a training step is finished
    and its state saved; else it raises :class:`~mlcil.errors.StoppedError` where the program is. From then on a
    signal does what the system does by default: it ends the process.

    Attributes:
        received: the signal that came, or ``None``.
        deferred: see above.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        if not self.deferred:
            raise StoppedError(number)
