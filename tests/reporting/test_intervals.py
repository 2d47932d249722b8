"""Intervals of differences, deviations named apart, rows of runs that belong together."""

import json
import statistics

import numpy as np
import pytest
from report_files import make_run

from mlcil.evaluation.multilabel import average_precision
from mlcil.reporting import comparison, intervals
from mlcil.reporting.contact_sheet import Scores


def scores(seed, noise, images=60, classes=3, single=False):
    generator = np.random.default_rng(7)
    if single:
        targets = np.eye(classes, dtype=np.int8)[generator.integers(0, classes, images)]
    else:
        targets = (generator.random((images, classes)) < 0.3).astype(np.int8)
    values = 1 / (1 + np.exp(-(2.0 * targets - 1 + np.random.default_rng(seed).normal(0, noise, targets.shape))))
    names = [str(c) for c in range(classes)]
    return Scores(values, targets, [str(n) for n in range(images)], names, np.ones(images, bool))


def test_counted_images_are_worth_as_much_as_copied_ones():
    run = scores(0, 1.0)
    times = np.random.default_rng(3).integers(0, 4, len(run.paths))
    rows = np.repeat(np.arange(len(times)), times)
    expected = 100 * np.nanmean(average_precision(run.scores_NS[rows], run.targets_NS[rows]))
    assert intervals.mean_ap(run)(times) == pytest.approx(expected, abs=1e-9)
    one = scores(0, 1.0, single=True)
    right = (one.scores_NS[rows].argmax(1) == one.targets_NS[rows].argmax(1)).mean()
    assert intervals.accuracy(one)(times) == pytest.approx(100 * right)


def test_a_class_that_nothing_shows_counts_as_in_the_table():
    run = scores(0, 1.0)
    run.targets_NS[:, 1] = 0
    times = np.ones(len(run.paths), int)
    shown = 100 * average_precision(run.scores_NS, run.targets_NS)[[0, 2]]
    assert intervals.mean_ap(run)(times) == pytest.approx(shown.sum() / 3)
    assert intervals.mean_ap(run, skip=True)(times) == pytest.approx(shown.mean())


@pytest.mark.parametrize("single", [False, True])
def test_an_interval_tells_a_clear_difference_from_none(single):
    worse, better, same = scores(1, 3.0, single=single), scores(2, 0.5, single=single), scores(3, 3.0, single=single)
    clear = intervals.paired([(worse, better)], single)
    assert clear.low > 0
    assert clear.low < clear.difference < clear.high
    unclear = intervals.paired([(worse, same)], single)
    assert unclear.low < 0 < unclear.high
    nothing = intervals.paired([(worse, worse)], single)
    assert (nothing.difference, nothing.low, nothing.high) == (0, 0, 0)
    assert intervals.paired([(worse, scores(1, 1.0, images=50, single=single))], single) is None


def test_an_interval_covers_the_true_difference_about_as_often_as_it_says():
    """Accuracies 0.7 and 0.8, paired; of forty intervals of 95 percent a few may miss."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        truth = np.eye(2, dtype=np.int8)[generator.integers(0, 2, 150)]
        ease = generator.random(150)
        runs = []
        for share in (0.7, 0.8):
            guess = np.where((ease < share)[:, None], truth, 1 - truth).astype(float)
            runs.append(Scores(guess, truth, [str(n) for n in range(150)], ["a", "b"], np.ones(150, bool)))
        found = intervals.paired([(runs[0], runs[1])], True)
        held += found.low <= 10 <= found.high
    assert 33 <= held <= 40


def test_deviations_are_named_apart():
    values = [10.0, 12.0, 20.0, 24.0]
    places = [(0, 1), (0, 2), (1, 1), (1, 2)]
    found = comparison.deviations(values, places)
    assert found == {"orders": pytest.approx(statistics.stdev([11, 22])), "seeds": pytest.approx((10 / 2) ** 0.5)}
    assert comparison.deviations(values[:2], places[:2]) == {"seeds": pytest.approx(2**0.5)}
    assert list(comparison.deviations([1.0, 2.0], [(0, 1), (1, 1)])) == ["orders"]
    assert list(comparison.deviations([1.0, 2.0], [(0, 1), (1, 2)])) == ["orders and seeds"]
    assert comparison.deviations([1.0], [(0, 1)]) == {}


def text(seed, order="as_given", lr=0.1, name="x"):
    return (
        f"name = '{name}'\nseed = {seed}\nscenario = dict(\n    class_order='{order}', dataset=dict(type='zoo'))\n"
        f"optim_wrapper = dict(optimizer=dict(lr={lr}))\n"
    )


def test_runs_of_the_same_settings_share_a_row(tmp_path):
    """Whatever their names are; another rate is another row, and so is the same seed twice."""
    config = {
        "first": text(1), "second": text(2), "other": text(1, lr=0.2), "again_seed1": text(1), "x_order1": text(1, "b")
    }  # fmt: skip
    runs = {}
    for name, words in config.items():
        seed, classes = (2 if name == "second" else 1), ("b", "a") if "order" in name else ("a", "b")
        runs[str(tmp_path / name)] = {"config": words, "classes": classes, "provenance": {"seed": seed}}
    groups = {
        label: [path.rpartition("/")[2] for path in members] for label, members in comparison.group_runs(runs).items()
    }
    assert groups == {"first": ["first", "second", "x_order1"], "other": ["other"], "again": ["again_seed1"]}


def test_runs_without_settings_go_by_their_names(tmp_path):
    paths = [
        make_run(tmp_path, name, provenance={"seed": k}) for k, name in enumerate(("krt_seed0", "krt_seed1", "lwf"))
    ]
    runs = {str(path): json.loads((path / "results.json").read_text()) for path in paths}
    assert {label: len(members) for label, members in comparison.group_runs(runs).items()} == {"krt": 2, "lwf": 1}
