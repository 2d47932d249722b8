"""Accuracy as a share of the upper bound's, and published accuracies in a table."""

from typing import Any

import pytest

from mlcil.reporting import comparison
from mlcil.reporting.published import experiments, published, source_of


def run(*accuracies: float | None) -> dict[str, Any]:
    summary = {"average_accuracy": 50.0, "last_accuracy": accuracies[-1]}
    summary |= dict.fromkeys(("last_top5", "forgetting", "backward_transfer"))
    return {
        "task": "single_label",
        "sessions": [{"mean_session_accuracy": value} for value in accuracies],
        "summary": summary,
    }


def test_omega_is_the_mean_share() -> None:
    assert comparison.omega(run(80.0, 30.0), run(80.0, 60.0)) == pytest.approx(75)
    assert comparison.omega(run(80.0, 30.0), run(80.0)) is None
    assert comparison.omega(run(80.0, None), run(80.0, 60.0)) is None
    assert comparison.omega(run(80.0, 30.0), run(80.0, 0.0)) is None


def test_published_accuracies_stand_beside_ours() -> None:
    experiment = "abd_cifar100_5tasks"
    source = source_of(experiment)
    row = comparison.make_row("ABD", [run(80.0, 40.0), run(80.0, 44.0)], published(experiment, "ABD"), source=source)
    row.values[comparison.OMEGA] = [70.0, 80.0]
    other = comparison.make_row("Something else", [run(80.0, 41.0)], published(experiment, "Something else"))
    header, first, second = comparison.cells([row, other])
    cell = dict(zip(header, first, strict=True))
    assert (cell["last accuracy"], cell["published last accuracy"]) == ("42.0 ± 2.8", "43.9 ± 0.9")
    assert (cell["Omega"], cell["published Omega"]) == ("75.0 ± 7.1", "78.6 ± 1.1")
    assert second[header.index("published last accuracy")] == "-"
    assert "README of ABD's release" in comparison.as_markdown("x", [row, other])
    assert "published Omega" in comparison.as_csv([row, other]).splitlines()[0]


def test_every_experiment_has_a_source() -> None:
    assert {"coco_b0c10", "abd_cifar100_20tasks", "rdfcil_cifar100_half_25tasks"} <= set(experiments())
    assert all(source_of(name) for name in experiments())
    assert published("rdfcil_cifar100_half_5tasks", "R-DFCIL")["average accuracy"] == (64.78, None)
    assert published("coco_b0c10", "Joint") == {"last mAP": (81.8, None), "CF1": (76.4, None), "OF1": (79.4, None)}
