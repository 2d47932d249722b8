"""One process at a time writes a run's folders.

The lock is a file ``.lock`` that says who holds it. On the holder's host the operating system knows whether the
holder lives (``flock``, which ends with the process). From another host, where that cannot be trusted, the beat
tells: the holder writes a new number every few seconds, and a number that does not change for a while belongs to
nobody. Clocks do not matter.

The library filelock, which the image cache uses, knows neither who holds a lock nor beats, and empties or keeps the
file as its version likes; so this lock is our own.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import stat
import threading
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from mlcil.errors import UserError
from mlcil.files import unwritable

try:
    import fcntl
except ImportError:  # not on Windows, where the beat alone decides
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
BEAT = 2.0  # seconds between two beats
PATIENCE = 12.0  # seconds without a beat that make a lock of another host stale


class RunLock:
    """Context manager that holds ``folder/.lock``; a folder that it had to make and that stays empty is removed.

    Args:
        folder: of the run; made when it is missing.

    Attributes:
        stale: a sentence on the lock that was found and taken over, or ``None``.

    Raises:
        UserError: another process holds the lock (says which one and where), or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.stale: str | None = None
        self._file: int | None = None
        self._made: list[Path] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._owner: dict[str, Any] = {}

    def __enter__(self) -> RunLock:
        try:
            self._make_folder()
            while not self._acquire():
                self._close()
            self._owner = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "user": _user(),
                "since": datetime.now().astimezone().isoformat(timespec="seconds"),
                "beat": 0,
            }
            self._write()
        except BaseException as error:
            self._close()
            self._remove_folders()
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise
        self._thread = threading.Thread(target=self._beat, name="mlcil-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink()  # while it is held, so that nobody's new file is removed
        self._close()
        self._remove_folders()

    # -- holding --------------------------------------------------------------------------------------------

    def _acquire(self) -> bool:
        """Whether the file is ours now; false when its holder has just removed it."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise UserError(f"{self.path} is no regular file; expected the lock of the run, so remove it")
        found = _read(self.path)
        locks = fcntl is not None
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(self._held(found)) from None
            except OSError:  # a file system without locks: the beat decides
                locks = False
        try:
            if not os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                return False
        except FileNotFoundError:
            return False
        if not found:
            return True
        gone = locks and found.get("host") == socket.gethostname()
        if not gone and _beats(self.path, found):
            raise UserError(self._held(found))
        how = "that process is gone" if gone else f"its file did not change for {PATIENCE:.0f} seconds"
        self.stale = f"the lock of {_who(found)} was left behind ({how}) and is taken over"
        return True

    def _held(self, found: dict[str, Any]) -> str:
        return (
            f"{self.path.parent} is in use by {_who(found)}; expected one run of that name at a time, so wait for it, "
            "stop it, or choose another --name (a lock whose process is gone is taken over by itself)"
        )

    def _write(self) -> None:
        assert self._file is not None
        content = json.dumps(self._owner).encode()
        os.pwrite(self._file, content, 0) if hasattr(os, "pwrite") else os.write(self._file, content)
        os.ftruncate(self._file, len(content))

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            self._owner["beat"] += 1
            with contextlib.suppress(OSError):  # a full disk stops the run elsewhere, with a sentence
                self._write()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _make_folder(self) -> None:
        folder = self.path.parent
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made = missing

    def _remove_folders(self) -> None:
        for folder in self._made:
            with contextlib.suppress(OSError):  # it holds something by now
                folder.rmdir()


def _read(path: Path) -> dict[str, Any]:
    """The holder that the file names, empty when it names none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _beats(path: Path, found: dict[str, Any]) -> bool:
    """Whether the holder writes within :data:`PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(0.5, PATIENCE))
        now = _read(path)
        if now.get("beat") != found.get("beat") or now.get("pid") != found.get("pid"):
            return True
    return False


def _who(found: dict[str, Any]) -> str:
    if not found:
        return "another process"
    return f"process {found.get('pid')} of {found.get('user')} on host {found.get('host')} (since {found.get('since')})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without an entry, as in containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
