"""Text and pictures of accuracy; what multi-label runs show is unchanged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcil.evaluation.metrics import METRICS
from mlcil.evaluation.sessions import evaluate_session as multi_label
from mlcil.evaluation.singlelabel import evaluate_session
from mlcil.reporting import comparison, log_lines, plots, tables

EDGES = [(0, 2), (2, 3)]


def common(index: int) -> dict[str, Any]:
    return {"index": index, "train": {"images": 7, "exemplars": index}, "seconds": 1.5}


def single() -> list[dict[str, Any]]:
    first = evaluate_session(np.eye(2)[[0, 1, 1]], np.array([0, 1, 0]), EDGES[:1], 2)
    second = evaluate_session(np.eye(3)[[0, 2, 2, 2]], np.array([0, 1, 2, 2]), EDGES, 2)
    return [{**first, **common(0)}, {**second, **common(1)}]


def many() -> list[dict[str, Any]]:
    labels = np.array([[1, 0], [0, 1], [1, 1]], np.int8)
    scores = np.array([[0.9, 0.1], [0.2, 0.9], [0.8, 0.3]])
    options: dict[str, Any] = {"selects_NC": labels == 1, "base_high": 2, "fixed_rows": np.arange(3)}
    return [{**multi_label(scores, labels, low=0, high=2, **options), **common(0)}]


def test_log_lines() -> None:
    first, second = (log_lines.metrics(result, "session") for result in single())
    assert first[:3] == [
        "session current_accuracy_base = 66.67",
        "session current_accuracy_seen = 66.67",
        "session current_accuracy_new = 66.67",
    ]
    assert second[3:] == [
        "session top5_base = 100.00, top5_seen = 100.00, top5_new = 100.00",
        "session accuracy on the classes of each session: 50.00, 100.00",
    ]
    assert log_lines.metrics(many()[0], "session")[0] == "session current_mAP_base = 100.00"


def test_tables() -> None:
    text = tables.session_table({"a": single(), "b": single()[:1]})
    lines = text.splitlines()
    assert lines[0].split() == [
        "session",
        "classes",
        "a",
        "seen",
        "a",
        "base",
        "a",
        "new",
        "b",
        "seen",
        "b",
        "base",
        "b",
        "new",
    ]
    assert lines[2].split() == ["0", "2"] + ["66.67"] * 6
    assert lines[3].split() == ["1", "3", "75.00", "50.00", "100.00", "-", "-", "-"]
    assert lines[5].split() == ["average", "70.83", "58.33", "83.33"] + ["66.67"] * 3
    assert lines[6].startswith("accuracy in percent")
    assert "mAP in percent" in tables.session_table({"a": many()})
    assert tables.session_table({}).splitlines()[0].split() == ["session", "classes"]


def test_numbers_that_do_not_exist() -> None:
    results = single()
    results[1]["accuracy"]["new"] = None
    assert tables.session_table({"a": results}).splitlines()[3].split()[-1] == "-"
    assert "nan" in log_lines.metrics(results[1], "session")[2]
    plots.accuracy_per_session(results)


def run(results: list[dict[str, Any]], task: str | None) -> dict[str, Any]:
    """What a results.json holds of a run."""
    metrics = METRICS[task or "multi_label"]
    facts = {} if task is None else {"task": task}
    return {**facts, "summary": metrics.summarise(results), "sessions": results}


def test_comparisons_have_the_columns_of_their_task() -> None:
    row = comparison.make_row("Finetune", [run(single(), "single_label")] * 2)
    late = comparison.make_row("KRT", [], missing=2)
    table = comparison.as_markdown("title", [late, row])
    assert "| method | runs | average accuracy | last accuracy | last top-5 | forgetting | backward transfer |" in table
    assert "| Finetune | 2 | 70.8 ± 0.0 | 75.0 ± 0.0 | 100.0 ± 0.0 | 16.7 ± 0.0 | -16.7 ± 0.0 |" in table
    assert "accuracy in percent" in table
    assert "average accuracy std" in comparison.as_csv([row, late]).splitlines()[0]
    assert "average mAP" in comparison.as_latex("title", [comparison.make_row("old", [run(many(), None)])])


@pytest.mark.parametrize(
    ("results", "names"),
    [
        (single(), {"accuracy_per_session.png", "accuracy_matrix.png"}),
        (many(), {"map_per_session.png", "ap_per_class.png"}),
    ],
)
def test_pictures(tmp_path: Path, results: list[dict[str, Any]], names: set[str]) -> None:
    files = plots.draw_run(tmp_path, results, ("a", "b", "c"))
    assert {file.name for file in files} == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_matrix_shows_sessions_in_rows() -> None:
    axes = plots.matrix(single()).axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {((0, 0), "67"), ((1, 0), "50"), ((1, 1), "100")}
