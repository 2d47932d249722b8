"""Result files that somebody has edited: ``compare`` and ``report`` say what is wrong in one sentence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from refusals import check_refused
from report_files import make_run

from mlcil.evaluation.singlelabel import evaluate_session, summarise
from mlcil.files import read_arrays
from mlcil.reporting.comparison import as_csv, as_latex, as_markdown, make_row, read_results
from mlcil.reporting.schema_of_results import contradiction

S = ("sessions", 0)
#: where, the value that is put there, and what the sentence says
EDITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("format",), 3, "has the format '3'"),
    (("format",), None, "has the format 'None'"),
    (("status",), None, "status is None"),
    (("status",), "running", "status 'running'"),
    (("name",), 3, "name is 3"),
    (("method",), [], "method is []"),
    (("task",), "tagging", "task is 'tagging'"),
    (("protocol",), None, "protocol is None"),
    (("comparison_hash",), 3, "comparison_hash is 3"),
    (("dataset",), {}, "dataset is {}"),
    (("classes",), "ant", "classes is 'ant'"),
    (("classes",), [1, 2], "classes[0] is 1"),
    (("sessions",), {}, "sessions is {}"),
    (("sessions",), None, "sessions is None"),
    (("sessions",), [3], "sessions[0] is 3"),
    (("sessions",), [[]], "sessions[0] is []"),
    (("summary",), [], "summary is []"),
    (("summary",), None, "summary is None"),
    (("summary", "average_mAP"), "x", "summary.average_mAP"),
    (("summary", "average_mAP"), 99.9, "its summary says average_mAP 99.9"),
    (("summary", "more"), 1.0, "its summary says more 1.0"),
    (("provenance",), 3, "provenance is 3"),
    (("provenance", "weights"), "x", "provenance.weights is 'x'"),
    (("provenance", "versions"), [], "provenance.versions is []"),
    (("config",), 3, "config is 3"),
    ((*S, "mAP"), 3, "sessions[0].mAP is 3"),
    ((*S, "mAP", "seen"), "x", "sessions[0].mAP.seen is 'x'"),
    ((*S, "mAP", "seen"), [], "sessions[0].mAP.seen is []"),
    ((*S, "mAP", "seen"), True, "sessions[0].mAP.seen is True"),
    ((*S, "mAP"), {}, "sessions that no run writes"),
    ((*S, "fixed_mAP"), [], "sessions[0].fixed_mAP is []"),
    ((*S, "fixed_AP"), {}, "sessions[0].fixed_AP is {}"),
    ((*S, "fixed_AP"), ["x"], "sessions[0].fixed_AP[0] is 'x'"),
    ((*S, "f1"), [], "sessions[0].f1 is []"),
    ((*S, "f1", "0.8"), 3, "sessions[0].f1.0.8 is 3"),
    ((*S, "f1", "0.8", "OF1"), "x", "sessions[0].f1.0.8.OF1 is 'x'"),
    ((*S, "index"), -1, "sessions[0].index is -1"),
    ((*S, "classes"), 3, "sessions[0].classes is 3"),
    ((*S, "train"), 3, "sessions[0].train is 3"),
    ((*S, "train", "images"), "x", "sessions[0].train.images is 'x'"),
    ((*S, "memory"), [], "sessions[0].memory is []"),
    ((*S, "memory", "bytes"), 3, "sessions[0].memory.bytes is 3"),
    ((*S, "memory", "bytes", "images"), "x", "sessions[0].memory.bytes.images is 'x'"),
    ((*S, "report"), 3, "sessions[0].report is 3"),
    ((*S, "seconds"), "x", "sessions[0].seconds is 'x'"),
]
TEXTS = ["", "x", "[]", "3", "null", "{}", "[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\ufeff{}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), scores=False, sessions=2)


@pytest.fixture
def write(run: Path) -> Any:
    path = run / "results.json"
    before = path.read_bytes()
    yield path.write_text
    path.write_bytes(before)


@pytest.mark.parametrize(("way", "value", "sentence"), EDITS)
def test_edited_values(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    run: Path,
    write: Callable[[str], int],
    way: Any,
    value: Any,
    sentence: str,
) -> None:
    content = json.loads((run / "results.json").read_text())
    node = content
    for key in way[:-1]:
        node = node[key]
    node[way[-1]] = value
    write(json.dumps(content))
    check_refused(capsys, run, ["compare", run], ("results.json", sentence))
    if contradiction(content) is not None or way == ("format",):
        check_refused(capsys, run, ["report", run], ("results.json", sentence))
    else:  # a report shows a run that is not finished, and the numbers of its sessions
        code, _, err = tiny.call(capsys, "report", run, "--output", tmp_path / "report.html")
        assert code == 0 or (code == 2 and err.count("\n") == 1)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_other_texts(capsys: pytest.CaptureFixture[str], run: Path, write: Callable[[str], int], text: str) -> None:
    write(text)
    check_refused(capsys, run, ["compare", run], ("results.json",))
    check_refused(capsys, run, ["report", run], ("results.json",))


def test_the_unchanged_file_is_taken(run: Path) -> None:
    assert read_results(run / "results.json")["status"] == "done"


def test_results_of_images_with_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = np.eye(4) * 3, np.arange(4)
    sessions = [
        evaluate_session(logits[:high, :high], labels[:high], [(0, 2), (2, 4)][: high // 2], 2) for high in (2, 4)
    ]
    run = make_run(tmp_path, scores=False, sessions=2, task="single_label")
    path = run / "results.json"
    content = {**json.loads(path.read_text()), "sessions": sessions, "summary": summarise(sessions)}
    path.write_text(json.dumps(content))
    assert tiny.call(capsys, "compare", run)[0] == 0
    content["summary"]["accuracy_matrix"][1][0] = 7.0
    path.write_text(json.dumps(content))
    check_refused(capsys, run, ["compare", run], ("its summary says accuracy_matrix [[100.0, None], [7.0, 100.0]]",))
    content["summary"]["accuracy_matrix"] = [["x"]]
    path.write_text(json.dumps(content))
    check_refused(capsys, run, ["compare", run], ("summary.accuracy_matrix",))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_cut_arrays(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000), b=np.ones(3))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r".+"):
        read_arrays(path, ("a", "b"))


def test_odd_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    for save in (
        lambda: np.save(tmp_path / "a.npy", np.ones(3)) or (tmp_path / "a.npy").rename(path),
        lambda: path.write_bytes(b"PK\x05\x06" + b"\0" * 18),
        lambda: np.savez(path, a=np.array([{}], dtype=object), b=np.ones(1)),
        lambda: np.savez(path, a=np.ones(1)),
    ):
        save()
        with pytest.raises(ValueError, match=r".+"):
            read_arrays(path, ("a", "b"))
    np.savez_compressed(path, a=np.zeros(10**6), b=np.zeros(1))
    assert read_arrays(path, ("b",))["b"].tolist() == [0]
    monkeypatch.setattr("mlcil.files.LARGEST_ARRAYS", 10**6)
    with pytest.raises(ValueError, match="it claims 8000"):
        read_arrays(path, ("b",))
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz", ("a",))


def test_names_are_only_names_in_every_table() -> None:
    name = "\\input{/etc/passwd} $x^2$ | a\n<b>[l](u)"
    rows = [make_row(label, []) for label in (name, "=cmd|'/c calc'!A1", "+1", "@x")]
    latex = as_latex("a~b", rows)
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\textasciicircum{}2\$ | a <b>[l](u) & 0" in latex
    assert r"\caption{a\textasciitilde{}b." in latex
    cells = next(line for line in as_markdown("t", rows).splitlines() if "passwd" in line)
    assert cells.startswith("| \\\\input{/etc/passwd} $x^2$ \\| a \\<b>\\[l](u) | 0 |")
    first = [line[0] for line in csv.reader(io.StringIO(as_csv(rows)))]
    assert first[1:] == [name, "'=cmd|'/c calc'!A1", "'+1", "'@x"]
