import errno
import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch

from mlcil.errors import UserError
from mlcil.files import check_writable, read_arrays, write_arrays, write_atomically, write_bytes, write_text


def test_content_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_arrays_need_no_pickle(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"one": np.arange(3)})
    assert read_arrays(tmp_path / "a.npz", ("one",))["one"].tolist() == [0, 1, 2]
    with np.load(tmp_path / "a.npz") as content:
        assert content.files == ["one"]
    with pytest.raises(ValueError, match="two would need pickle"):
        write_arrays(tmp_path / "b.npz", {"two": np.array([{}])})
    assert not (tmp_path / "b.npz").exists()


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "older")
    monkeypatch.setattr(os, function, no_space)
    with pytest.raises(UserError, match=r"x\.txt could not be written \(No space left on device\); make room"):
        write_text(path, "newer")
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_failure_within_torch_save(tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: IO[bytes]) -> None:
            self.file, self.room = file, 1000

        def write(self, content: bytes) -> int:
            self.room -= len(bytes(content))
            return no_space() if self.room < 0 else self.file.write(content)  # type: ignore[return-value]

        def flush(self) -> None:
            self.file.flush()

    with pytest.raises(UserError, match="No space left on device") as caught:
        write_atomically(tmp_path / "x.pth", lambda file: torch.save({"a": torch.ones(9999)}, Full(file)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x.txt", interrupted)
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("older")
    for path in (tmp_path / "file" / "x.txt", tmp_path / "file" / "below" / "x.txt"):
        with pytest.raises(UserError, match=r"x\.txt could not be written"):
            write_text(path, "newer")
    assert (tmp_path / "file").read_text() == "older"


def test_check_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "a" / "b", "log_root")
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    check_writable(Path("logs") / "run", "log_root")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; set log_root to a folder"):
        check_writable(tmp_path / "file" / "run", "log_root")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is read-only"):
        check_writable(tmp_path / "run", "log_root")
