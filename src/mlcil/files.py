"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from mlcil.errors import UserError

LARGEST_ARRAYS = 4 * 2**30  # bytes that an archive of arrays may unpack to


def default_cache() -> Path:
    """``$MLCIL_CACHE`` or ``~/.cache/mlcil``, the folder of what can be made again."""
    return Path(os.environ.get("MLCIL_CACHE") or Path.home() / ".cache" / "mlcil")


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
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # it may never have been made
                temporary.unlink()
            raise
    except (OSError, RuntimeError) as error:
        raise unwritable(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written; nobody else may be writing there."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def unwritable(path: Path, error: OSError | RuntimeError) -> UserError:
    """The sentence for a file that the disk does not take."""
    # torch.save reports a full disk as a RuntimeError of its zip writer
    cause = error if isinstance(error, OSError) else error.__context__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
    return UserError(
        f"{path} could not be written ({reason}); make room or give the folder write permission, then repeat the "
        "command (a run goes on with --resume). Files written before are intact"
    )


def check_writable(folder: Path, setting: str) -> None:
    """Refuse a folder that can neither be written nor made; nothing is written here.

    Args:
        folder: it need not exist.
        setting: the config's key that names its root, for the message.

    Raises:
        UserError: its nearest existing parent is no folder or does not allow writing.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"folder {folder} cannot be made: {there} is a file; set {setting} to a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"folder {folder} cannot be written: {there} is read-only; give it write permission or set {setting} to "
            "a folder that can be written"
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically write bytes."""
    write_atomically(path, lambda file: file.write(content))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Atomically write a compressed ``.npz`` that loads without pickle.

    Raises:
        ValueError: an array of Python objects, which would need it.
    """
    import numpy as np

    of_objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if of_objects:
        raise ValueError(f"{path}: {', '.join(of_objects)} would need pickle")
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def write_text(path: Path, text: str) -> None:
    """Atomically write UTF-8 text; what UTF-8 has no bytes for, as in file names of another code, is escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def check_regular(path: Path) -> None:
    """Refuse what is there and would be read for ever, or cannot be read at all.

    Raises:
        UserError: a pipe, a device, a socket or a folder.
    """
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe, a device or a socket"
        raise UserError(f"{path} is no regular file but {found}; expected a file there, so name or put one")


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Arrays of an ``.npz`` file that anybody may have written.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is damaged, lacks a name, claims more than :data:`LARGEST_ARRAYS` bytes, or
            needs pickle.
    """
    import numpy as np

    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > LARGEST_ARRAYS:
            raise ValueError(f"it claims {claimed} bytes")
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def stamp(file: Path) -> tuple[int, int, int]:
    """Bytes, and nanoseconds of the last changes of content and of status; zeros for a file that is not there."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0, 0)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
