"""What a refusal is: exit code 2, one sentence, and nothing else happens. Cases of it as data."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

MEMORY = 600  # MB that a refusal may take at most


def case(name: str, make: Callable[[Path], Any], *expected: str) -> Any:
    """A bad input with words of its sentence."""
    return pytest.param(make, expected, id=name)


def state_of(folder: Path) -> dict[str, Any]:
    """Every name below a folder, with the content of regular files and the targets of links."""
    found: dict[str, Any] = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            else:
                found[str(path)] = path.read_bytes() if path.is_file() else path.lstat().st_mode
    return found


def check_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, words: list[Any], expected: tuple[str, ...]
) -> None:
    """Exit code 2, one sentence with the expected words, no file made, changed or lost, and no flood of memory."""
    before, memory = state_of(folder), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, out, err = tiny.call(capsys, *words)
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("mlcil: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert len(err) < 1500, err
    for word in expected:
        assert word in err, f"{word!r} is not in: {err}"
    assert state_of(folder) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY * 1024
