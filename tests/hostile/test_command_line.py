"""What a command line, an environment or a terminal can have wrong: one sentence, or the command does its work."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from refusals import check_refused

from mlcil import cli
from mlcil.engine.conditions import expected_processes, expected_rank
from mlcil.errors import UserError

LONG = "x" * 300
TOLD = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
SLURM = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODELIST": "a"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tagger and a photo."""
    folder = tmp_path_factory.mktemp("files")
    tiny.write_stage(folder / "s.pth", ("größe", "bee"))
    tiny.write_image(folder / "photos" / "a.png")
    return folder


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*TOLD, *SLURM):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--top", "-1"], "--top is -1; expected at least 1"),
        (["--top", "0"], "--top is 0; expected at least 1"),
        (["--threshold", "nan"], "--threshold is nan; expected a score from 0 to 1"),
        (["--threshold", "80"], "--threshold is 80; expected a score from 0 to 1"),
        (["--threshold", "-0.1"], "--threshold is -0.1"),
        (["--threshold", "inf"], "--threshold is inf"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--device", "toaster"], "device 'toaster' cannot be used"),
        (["--device", ""], "device '' cannot be used"),
        (["--precision", "int3"], "int3"),
        (["--engine", "steam"], "steam"),
        (["--output", LONG, "--top", "1"], "File name too long"),
    ],
)
def test_options_of_predict(capsys: pytest.CaptureFixture[str], files: Path, words: list[str], sentence: str) -> None:
    check_refused(capsys, files, ["predict", files / "s.pth", files / "photos", *words], (sentence,))


@pytest.mark.parametrize(
    "words",
    [
        ["compare", LONG],
        ["report", LONG],
        ["results", LONG, "--to", "a.csv"],
        ["info", LONG],
        ["data", LONG],
        ["plan", f"{LONG}.py"],
        ["bench", f"{LONG}.py"],
        ["train", "lwf", "data=digits_single", "--check", "--name", LONG],
        ["convert", LONG, "a.pth"],
        ["predict", LONG, "a.jpg"],
    ],
    ids=lambda words: words[0],
)
def test_names_that_no_disk_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(capsys, tmp_path, words, ("run name 'xxx" if "--name" in words else LONG[:200],))


@pytest.mark.parametrize(
    ("launcher", "told", "sentence"),
    [
        ("pytorch", {}, "--launcher pytorch finds no WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT in"),
        ("pytorch", {**TOLD, "RANK": ""}, "finds no RANK in the environment; start the processes by `torchrun"),
        ("pytorch", {**TOLD, "WORLD_SIZE": "x"}, "WORLD_SIZE='x' and RANK='1'; expected a number of processes"),
        ("pytorch", {**TOLD, "WORLD_SIZE": "-2"}, "WORLD_SIZE='-2'"),
        ("pytorch", {**TOLD, "WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ("pytorch", {**TOLD, "RANK": "2"}, "RANK='2'"),
        ("pytorch", {**TOLD, "RANK": "1.0"}, "RANK='1.0'"),
        ("slurm", {}, "--launcher slurm finds no SLURM_NTASKS, SLURM_PROCID"),
        ("slurm", {**SLURM, "SLURM_NTASKS": "two"}, "SLURM_NTASKS='two'"),
    ],
)
def test_launchers_without_their_environment(
    environment: pytest.MonkeyPatch, launcher: str, told: dict[str, str], sentence: str
) -> None:
    for name, value in told.items():
        environment.setenv(name, value)
    for ask in (expected_processes, expected_rank):
        with pytest.raises(UserError) as error:
            ask(launcher)
        assert sentence in str(error.value)


def test_launchers_with_their_environment(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**TOLD, **SLURM}.items():
        environment.setenv(name, value)
    assert [(expected_processes(launcher), expected_rank(launcher)) for launcher in ("none", "pytorch", "slurm")] == [
        (1, 0), (2, 1), (2, 1)
    ]  # fmt: skip


def test_a_launcher_that_was_not_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    config = tiny.write_config(tmp_path, tiny.coco_folder(tmp_path / "data"))
    for more in ([], ["--check"]):
        words = ["train", config, "--launcher", "pytorch", *more]
        check_refused(capsys, tmp_path, words, ("finds no WORLD_SIZE",))


@pytest.mark.parametrize("form", ["csv", "jsonl", "label-studio", "xmp"])
@pytest.mark.parametrize("output", [False, True])
def test_names_that_a_terminal_has_no_signs_for(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, output: bool
) -> None:
    photo = tiny.write_image(tmp_path / os.fsdecode(b"\xe4\xff.png"))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    words = ["predict", str(files / "s.pth"), str(photo), "--format", form, "--top", "2"]
    if output and form != "xmp":
        words += ["--output", str(tmp_path / "out.txt")]
    assert cli.main(words) == 0
    place = tmp_path / "out.txt" if output else None
    if form == "xmp":
        place = next(tmp_path.glob("*.xmp"))
    terminal.flush()
    written = place.read_bytes() if place else terminal.buffer.getvalue()
    assert b"gr" in written
    assert b"bee" in written


def test_a_disk_behind_standard_output_that_is_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["config"], ["download"]):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert cli.main(words) == 2
            assert capsys.readouterr().err == (
                "mlcil: standard output cannot be used (No space left on device); make room or name another\n"
            )


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", b"%!"]
)
def test_no_program_is_started_for_an_image(
    capsys: pytest.CaptureFixture[str],
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "photo.jpg").write_bytes(content)
    (tmp_path / "photo.png").write_bytes(content)
    for name in ("photo.jpg", "photo.png"):
        check_refused(capsys, tmp_path, ["predict", files / "s.pth", tmp_path / name], (name, "is no image"))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("full", [False, True])
def test_results_name_no_folder_of_the_machine_unless_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    config = tiny.write_config(home, tiny.coco_folder(home / "data"))
    monkeypatch.setattr(sys, "argv", ["mlcil", "train", str(config)])
    more: list[Any] = ["--full-paths"] if full else []
    log_root = f"log_root={str(work / 'logs')!r}"
    code, _, err = tiny.call(
        capsys, "train", config, log_root, "checkpoint_root='saved'", "train_cfg.stop_after_session=0",
        "train_cfg.max_epochs=1", "--name", "r", *more
    )  # fmt: skip
    assert code == 0, err
    text = (work / "logs" / "r" / "results.json").read_text()
    assert (str(tmp_path) in text) is full
    assert ("log_root = 'logs'" in text) is not full
    assert ("~/data" in text) is not full
    assert tiny.call(capsys, "report", work / "logs" / "r")[0] == 0
    assert (str(tmp_path) in (work / "logs" / "r" / "report.html").read_text()) is full
