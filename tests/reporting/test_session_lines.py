"""Accuracy after every session, ours above the published lines."""

import statistics

import pytest

from mlcil.reporting.session_lines import LINES, session_lines


def run(*accuracies):
    sessions = [{"accuracy": {"seen": value}} for value in accuracies]
    return {"sessions": sessions, "summary": {"average_accuracy": statistics.fmean(accuracies)}}


@pytest.mark.parametrize("experiment", LINES)
def test_published_averages_are_those_of_their_sessions(experiment):
    lines = LINES[experiment]
    for line in lines:
        assert len(line.sessions) == len(lines[0].sessions)
        if None not in line.sessions:
            assert statistics.fmean(line.sessions) == pytest.approx(line.average, abs=0.011)


def test_published_lines_stand_once_below_ours():
    found = {"DKT, order 1": [run(90, 80, 70, 60, 50)], "DKT, order 2": [], "DAFormer-S, order 1": [run(1, 2, 3, 4, 5)]}
    lines = session_lines("A & B", found, "dkt_cifar100_20-20").splitlines()
    assert lines[0] == "# A & B"
    assert lines[2] == "|  | 1 | 2 | 3 | 4 | 5 | AVG |"
    assert lines[4] == "| DKT, order 1 | 90.00 | 80.00 | 70.00 | 60.00 | 50.00 | 70.00 |"
    assert lines[5].startswith("| DKT, README and log of the release | 88.30 | 80.20 |")
    assert lines[6].endswith("| - | - | - | - | 66.46 | 76.88 |")
    assert lines[7].startswith("| DAFormer-S, order 1 | 1.00 |")
    assert "Published lines: class order 1" in lines[-1]


def test_several_runs_are_averaged():
    text = session_lines("t", {"DKT": [run(50, 40), run(60, 50)]})
    assert "| DKT (mean of 2 runs) | 55.00 | 45.00 | 50.00 |" in text
    assert "Published" not in text


def test_joint_training_stands_below_the_last_session():
    text = session_lines("t", {"DKT": [run(50, 40)], "DKT, joint": [run(70)]})
    assert "| DKT, joint |  | 70.00 | 70.00 |" in text
