"""What a run keeps of its test images in ``scores/``, read back and held against its results.

Legend: N test images, R predicted ones, C classes, S classes seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mlcil.errors import UserError
from mlcil.files import read_arrays

#: arrays of scores/ and the letters of their types
SAVED = {
    "test.npz": {"targets": "i", "selects": "b", "paths": "U", "classes": "U"},
    "session": {"rows": "iu", "logits": "f"},
}


def saved_scores(folder: Path, sessions: int, seen: int) -> dict[str, np.ndarray]:
    """``scores/`` of a run that has finished so many sessions.

    Args:
        folder: the run directory.
        sessions: number of finished sessions.
        seen: S, the classes that results.json has.

    Returns:
        ``targets`` (N, C) and ``selects`` (N, C) of the test images, their ``paths`` (N), the ``classes`` (C); of the
        last session ``rows`` (R), the images that were predicted, and their ``logits`` (R, S).

    Raises:
        UserError: a file is missing or damaged, or they do not belong to these results.
    """
    test_file, file = folder / "scores" / "test.npz", folder / "scores" / f"session_{sessions - 1}.npz"
    found = {**arrays_of_scores(test_file, SAVED["test.npz"]), **arrays_of_scores(file, SAVED["session"])}
    targets, rows, logits = found["targets"], found["rows"], found["logits"]
    shapes = {name: array.shape for name, array in found.items()}
    images, classes = targets.shape if targets.ndim == 2 else (-1, -1)
    fits = (
        shapes["selects"] == (images, classes)
        and (shapes["paths"], shapes["classes"]) == ((images,), (classes,))
        and seen <= classes
        and (rows.ndim, logits.shape) == (1, (*rows.shape, seen))
        and (rows.size == 0 or (rows.min() >= 0 and rows.max() < images))
    )
    if not fits:
        raise UserError(
            f"{file} does not fit results.json and {test_file.name}: found logits {logits.shape}, rows {rows.shape} "
            f"and targets {targets.shape}, expected {seen} seen classes; train the run again to save its scores anew"
        )
    if not np.isfinite(logits).all():
        raise UserError(f"{file} holds logits that are no numbers; train the run again to save its scores anew")
    return found


def arrays_of_scores(path: Path, kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Arrays of a file in ``scores/``.

    Args:
        path: the file.
        kinds: names, and which letters their types may have (numpy's ``dtype.kind``).

    Raises:
        UserError: missing, damaged, or of other types.
    """
    try:
        found = read_arrays(path, kinds)
        for name, array in found.items():
            if array.dtype.kind not in kinds[name]:
                raise ValueError(f"{name} is of the type {array.dtype}")
        return found
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), expected the arrays {', '.join(kinds)}; train the run again to save its "
            "scores anew"
        ) from error
