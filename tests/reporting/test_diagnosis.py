"""What got worse: classes, thresholds, confusions, photos, losses; runs that belong together share a line."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from report_files import CLASSES, make_run
from sklearn.metrics import f1_score, precision_recall_curve

from mlcil.reporting import diagnosis, sections
from mlcil.reporting.contact_sheet import Scores, choose, fallen, scores_of
from mlcil.reporting.formats import DASH
from mlcil.reporting.html import page
from mlcil.reporting.plots import Curve, Series, line_chart, xy_chart
from mlcil.reporting.report_runs import group, read_runs

COUNTS = {"train": 60, "test": 40, "train_positives": [90, 80, 70, 60, 50, 40], "test_positives": [9, 8, 7, 6, 5, 4]}


def change(folder, function):
    path = folder / "results.json"
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))
    return read_runs([folder])[0]


def scores(values, targets, names="ab"):
    values = np.asarray(values, float)
    paths = [f"/nowhere/{n}.jpg" for n in range(len(values))]
    return Scores(values, np.asarray(targets, np.int8), paths, list(names), np.ones(len(values), bool))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """AP of ant 90, 70, 40; bee 50 throughout; cat 60 then 80; dog 80 then 75; elk 20, fox 95 at the end."""

    def values(content):
        for session, aps in zip(
            content["sessions"], ([90, 50], [70, 50, 60, 80], [40, 50, 80, 75, 20, 95]), strict=True
        ):
            session["fixed_AP"] = [float(ap) for ap in aps]
        content["images"] = COUNTS

    return change(make_run(tmp_path_factory.mktemp("worse"), images=60), values)


def test_the_classes_that_lost_most_come_first_with_their_photos(run):
    table = diagnosis.most_lost(run)
    assert [row[0] for row in table.rows] == ["ant", "dog"]
    assert table.rows[0] == ["ant", "0", "90.0", "90.0", "40.0", "−50.0", "90", "9"]
    weak = diagnosis.weakest_new(run)
    assert [list(row) for row in weak.rows] == [["elk", "20.0", "50", "5"], ["fox", "95.0", "40", "4"]]
    words = diagnosis.verdict(run)
    assert words.startswith("Old classes stand 13.8 points of AP below their best on average; 1 of 4 lost more than 5")
    assert words.endswith("The last session's 2 new classes reach 57.5% on average.")


def test_it_is_the_first_thing_on_the_page(run):
    content = page([run])
    body = content[content.index("<main>") :]
    assert re.findall(r'<section id="(\w+)"', body)[:2] == ["worse", "summary"]
    assert body.index("−50.0") < body.index("growing test set (official)")


def test_precision_and_recall_are_those_of_scikit_learn(run):
    loaded = scores_of(run)
    for column in range(6):
        curve = diagnosis.precision_recall(loaded, column)
        truth, values = loaded.targets_NS[:, column], loaded.scores_NS[:, column]
        precision, recall, thresholds = precision_recall_curve(truth, values, drop_intermediate=False)
        assert curve.thresholds == pytest.approx(thresholds[::-1])
        assert curve.precision == pytest.approx(precision[:-1][::-1])
        assert curve.recall == pytest.approx(recall[:-1][::-1])
    table = diagnosis.best_thresholds(run, loaded)
    for row in table.rows:
        column = CLASSES.index(row[0])
        truth, values = loaded.targets_NS[:, column], loaded.scores_NS[:, column]
        best = max(f1_score(truth, values >= t) for t in values)
        assert float(row[4]) == pytest.approx(100 * best, abs=0.06)
        assert float(row[5]) == pytest.approx(100 * f1_score(truth, values > 0.8, zero_division=0), abs=0.06)


def test_cells_that_nobody_judged_count_nowhere():
    loaded = scores([[0.9, 0.1], [0.8, 0.1], [np.nan, 0.1], [0.3, 0.1]], [[-1, 0], [1, 0], [1, 0], [0, -1]])
    curve = diagnosis.precision_recall(loaded, 0)
    assert curve.thresholds.tolist() == [0.8, 0.3]
    assert curve.precision.tolist() == [1.0, 0.5]
    assert diagnosis.precision_recall(loaded, 1) is None
    unknown = choose(loaded, 0, 1, 0.8, 4, set())["unknown"]
    assert [(tile.row, tile.predicted) for tile in unknown] == [(0, [("a", 0.9, None)])]


def test_which_class_is_taken_for_which(run):
    loaded = scores(
        [[0.1, 0.9], [0.2, 0.95], [0.9, 0.9], [0.1, 0.9], [0.1, 0.2]], [[1, 0], [1, 0], [1, 0], [1, 1], [1, -1]]
    )
    table = diagnosis.confusions(run, loaded)
    assert [list(row) for row in table.rows] == [["a", "b", "2", "40"]]
    assert diagnosis.confusions(run, scores([[0.9, 0.1]], [[1, 0]])) is None


def test_images_whose_score_fell_most():
    before = scores([[0.9], [0.8], [0.7], [0.9]], [[1], [1], [1], [0]], "a")
    after = scores([[0.1, 0.5], [0.7, 0.5], [0.8, 0.5], [0.0, 0.1]], [[1, 0], [1, 0], [1, 1], [0, 0]])
    tiles = fallen(before, after, 6)
    assert [(tile.row, tile.before, tile.focus_score) for tile in tiles] == [(0, 0.9, 0.1), (1, 0.8, 0.7)]
    assert [tile.row for tile in fallen(before, after, 1)] == [0]


def test_losses_over_all_sessions(run):
    lines = [
        {"loss": 4.0, "loss_cls": 3.0, "step": 10}, {"loss": 2.0, "loss_cls": 1.5, "step": 20},
        {"mAP/seen": 50, "step": 2}, {"loss": 3.0, "loss_cls": 2.0, "step": 30}, {"mAP/seen": 40, "step": 4},
    ]  # fmt: skip
    file = run.folder / "vis_data" / "scalars.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(["{broken", "3", *map(json.dumps, lines), '{"loss": NaN, "step": 5}']))
    curves, edges = diagnosis.read_losses(run)
    assert curves == {"loss": ([10, 20, 30], [4, 2, 3]), "loss_cls": ([10, 20, 30], [3, 1.5, 2])}
    assert edges == [20]
    assert "Losses" in page([run])
    file.unlink()
    assert diagnosis.loss_charts(run) == []


def test_photos_of_every_class_stand_in_the_chart(run):
    shown = diagnosis.photos_chart(run).svg
    assert "ant: 90 photos, 40.0" in shown
    assert "fox: 40 photos, 95.0" in shown


@pytest.mark.parametrize(("low", "high"), [(392, 432), (1000, 1001), (3, 40), (7, 7), (20, 90000)])
def test_counts_of_photos_on_the_axis_do_not_touch(low, high):
    curve = Curve("all", [low, high], [10.0, 20.0], line=False)
    figure = xy_chart([curve], x_label="photos", y_label="AP", log=True)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


# -- several runs ---------------------------------------------------------------------------------------------


def test_runs_of_one_method_share_a_line_with_a_band(tmp_path):
    folders = [make_run(tmp_path, f"krt_seed{k}", seed=k, provenance={"seed": k}, dpl=False) for k in (1, 2, 3)]
    runs = read_runs([*folders, make_run(tmp_path, "lwf", seed=9, provenance={"seed": 9}, dpl=False)])
    assert [(members.label, len(members.runs)) for members in group(runs)] == [("krt", 3), ("4 lwf", 1)]
    values = np.array([run.series("mAP", "seen") for run in runs[:3]])
    line, other = sections._lines(runs, lambda run: run.series("mAP", "seen"))
    assert line.values == pytest.approx(values.mean(0).tolist())
    assert line.deviations == pytest.approx(values.std(0, ddof=1).tolist())
    assert other.deviations == ()
    table = sections.grouped_summary(runs)
    assert [row[:2] for row in table.rows] == [["krt", "3"], ["4 lwf", "1"]]
    assert "over seeds" in table.caption
    content = page(runs)
    assert "mean of runs 1, 2, 3; band: sample standard deviation" in content
    assert "opacity: 0.16" in content
    assert sections.differences(runs) is None  # no seed in common
    one = make_run(tmp_path, "er", seed=4, provenance={"seed": 2}, dpl=False)
    (row,) = sections.differences(read_runs([*folders, one])).rows
    assert row[:2] == ["4 er", "1"]


def test_the_first_screen_says_what_got_worse_in_every_run(run, tmp_path):
    other = read_runs([make_run(tmp_path, "other", scores=False)])[0]
    table = diagnosis.verdicts([run, other])
    assert table.rows[0] == [run, "−13.8", "1 of 4", "ant −50.0", "57.5"]
    alone = make_run(tmp_path, "alone", scores=False)
    only = change(alone, lambda content: content.update(sessions=content["sessions"][:1]))
    assert diagnosis.verdicts([only]).rows[0][1:4] == [DASH, DASH, DASH]
    content = page([run, other])
    assert content.index("ant −50.0") < content.index("<details")


def test_classes_of_other_orders_stand_in_one_row(tmp_path):
    a = read_runs([make_run(tmp_path, "a", scores=False), make_run(tmp_path, "b", classes=CLASSES[::-1], scores=False)])
    table = diagnosis.by_class(a)
    last = [run.sessions[-1]["fixed_AP"] for run in a]
    for row in table.rows:
        place = CLASSES.index(row[0])
        assert [float(cell) for cell in row[1:]] == pytest.approx([last[0][place], last[1][5 - place]], abs=0.051)


def test_charts_that_are_compared_have_equal_axes(run):
    growing, fixed = sections.measure_charts([run], "mAP")
    levels = [re.findall(r"<text[^>]*>(\d+)</text>", chart.svg) for chart in (growing, fixed)]
    assert levels[0] == levels[1]


def test_a_single_value_stands_on_a_stem():
    axes = line_chart([Series("a", [None, 4.0]), Series("b", [None, 5.0])], ["0", "1"], y_label="points").axes[0]
    stems = [line.get_xydata().tolist() for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert [(low[1], high[1]) for low, high in stems] == [(0, 4), (0, 5)]
    assert stems[0][0][0] < stems[1][0][0]
    assert axes.get_ylim()[0] == 0
    below = line_chart([Series("a", [None, 4.0]), Series("b", [None, -1.0])], ["0", "1"], y_label="points").axes[0]
    stems = [
        line.get_ydata().tolist()
        for line in below.lines
        if len(set(line.get_xdata())) == 1 and line.get_clip_on() is False
    ]
    assert [0.0, -1.0] in stems
    both = line_chart([Series("a", [3.0, 4.0])], ["0", "1"], y_label="points").axes[0]
    assert [b - a for a, b in pairwise(both.lines[0].get_xdata())] == [1]
