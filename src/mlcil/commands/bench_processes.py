"""The runs of a bench as children of one process, which has done once what every new process would do again.

That process imports the libraries and reads labels, computes nothing, and forks. So a child finds modules and tables
in place, shares their memory, and its registries, loggers and random generators are as fresh as those of ``python -m
mlcil train``. Features and decoded images lie on disk for all. Where forking is not safe (a GPU, whose state no child
can take over; systems other than Linux) every run starts a Python of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from mlcil.engine.build import read_ahead

#: what a run imports on its way
LIBRARIES = ("timm", "matplotlib.pyplot", "torch.utils.tensorboard", "onnxruntime", "mlcil.reporting.plots")

PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that a process gets when its parent ends


class Request(NamedTuple):
    """A run that is to be carried out.

    Attributes:
        words: the command, such as ``["train", "krt", "seed=1"]``.
        output: file that takes what the run prints.
        dataset: arguments of its data set, or ``None`` when its tables are not to be shared.
    """

    words: Sequence[str]
    output: Path
    dataset: dict[str, Any] | None


class Processes:
    """Context manager that carries out runs; what still runs when it ends is asked to save and stop.

    An exception or a kill of one run is its own: the others do not notice.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._server.join()

    def carry_out(self, requests: Sequence[Request], at_once: int) -> Iterator[tuple[int, int | None]]:
        """Yields (index of a request, ``None``) when it starts, and (index, exit code) when it has ended.

        The code is 0 for a run that is done, and minus the signal's number for one that was killed.

        Args:
            requests: in the order in which they start.
            at_once: no more of them at a time.
        """
        waiting = deque(enumerate(requests))
        running: set[int] = set()
        while waiting or running:
            while waiting and len(running) < at_once:
                index, request = waiting.popleft()
                running.add(index)
                request.output.write_text("")
                server = self._server_at_work()
                with contextlib.suppress(OSError):  # which the next ``recv`` finds, too
                    server.send((index, *request))
                yield index, None
            try:
                index, code = self._server_at_work().recv()
            except (EOFError, OSError):  # somebody has killed the server, and so its children
                yield from ((index, -signal.SIGKILL) for index in running)
                self._connection, running = None, set()
                continue
            running.discard(index)
            yield index, code

    def _server_at_work(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")  # nothing of this process, which may have threads
            self._connection, theirs = context.Pipe()
            self._server = context.Process(target=_serve, args=(theirs,))
            self._server.start()
            theirs.close()
        return self._connection


def _serve(connection: Connection) -> None:
    """Start what comes through the connection and send back how it ended, until nobody is at the other end."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the bench alone; a run is asked once
    forks = sys.platform == "linux" and not torch.cuda.is_available()
    for name in LIBRARIES if forks else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while True:
            for ready in wait([connection, *running]):
                if ready is connection:
                    index, words, output, dataset = connection.recv()
                    if forks and dataset is not None:
                        read_ahead(dataset)
                    process = context.Process(target=_run, args=(words, output, connection if forks else None))
                    process.start()
                    running[process.sentinel] = index, process
                else:
                    index, process = running.pop(ready)
                    process.join()
                    connection.send((index, process.exitcode))
    except (EOFError, OSError):
        for _, process in running.values():
            process.terminate()


def _run(words: Sequence[str], output: Path, inherited: Connection | None) -> None:
    """``python -m mlcil WORDS`` in this process."""
    if inherited is not None:
        inherited.close()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a run that nobody waits for saves and stops
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it has ended before that
            return
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv[1:] = words
    try:
        runpy.run_module("mlcil", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
