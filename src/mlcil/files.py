"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mlcil.errors import UserError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write to a temporary name in the same folder, flush to disk, then rename over ``path``.

    Args:
        path: the final name; its folder is made when missing.
        write: called with the open binary file.

    Raises:
        UserError: the folder cannot be written or the disk is full; an older file of that name is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
        temporary.unlink(missing_ok=True) if os.access(path.parent, os.W_OK) else None
        raise UserError(
            f"{path} could not be written ({reason}); make room or give the folder write permission, then go on "
            "with --resume. Files written before are intact"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically write bytes."""
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text."""
    write_bytes(path, text.encode())
