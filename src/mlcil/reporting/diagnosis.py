"""What got worse in a run, and where: classes, thresholds, confusions, photos, losses.

Legend: N test images, S classes seen after the last finished session.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlcil.reporting.contact_sheet import Scores
from mlcil.reporting.formats import DASH, number, whole
from mlcil.reporting.plots import Curve, as_svg, xy_chart
from mlcil.reporting.report_runs import ReportRun
from mlcil.reporting.sections import Cell, Chart, Table

MOST = 5  # classes of a table of the worst
CURVES = 6  # of a chart of precision and recall
PAIRS = 10  # of classes that are taken for each other


@dataclass(frozen=True)
class ClassPath:
    """A class over the sessions.

    Attributes:
        name: of the class.
        session: that brought it.
        learned, best, last: percent after that session, at its best and after the last session.
        photos: training images that show it, if the run says.
        judged: test images that show it, if the run says.
    """

    name: str
    session: int
    learned: float | None
    best: float | None
    last: float | None
    photos: int | None
    judged: int | None

    @property
    def lost(self) -> float:
        """Points from the best session to the last one; 0 where one of them does not exist."""
        return 0.0 if self.best is None or self.last is None else self.best - self.last


def class_paths(run: ReportRun) -> list[ClassPath]:
    """Every class seen so far, in class order."""
    results = [session[run.measure.per_class] for session in run.sessions]
    images = run.content.get("images") or {}
    photos, judged = (images.get(key) or [] for key in ("train_positives", "test_positives"))
    paths = []
    for t, (low, high) in enumerate(run.ranges):
        for c in range(low, high):
            values = [result[c] for result in results[t:] if c < len(result)]
            known = [value for value in values if value is not None and math.isfinite(value)]
            counts = (photos[c] if c < len(photos) else None, judged[c] if c < len(judged) else None)
            paths.append(ClassPath(run.class_name(c), t, values[0], max(known, default=None), values[-1], *counts))
    return paths


def _old_and_new(run: ReportRun) -> tuple[list[ClassPath], list[float]]:
    """Classes of earlier sessions that are judged, and the last numbers of the last session's."""
    paths, last = class_paths(run), len(run.sessions) - 1
    old = [path for path in paths if path.session < last and path.best is not None and path.last is not None]
    return old, [path.last for path in paths if path.session == last and path.last is not None]


def verdict(run: ReportRun) -> str:
    """What got worse, in two sentences."""
    (old, new), name, last = _old_and_new(run), run.measure.class_name, len(run.sessions) - 1
    words = ""
    if old:
        far = sum(path.lost > MOST for path in old)
        mean = sum(path.lost for path in old) / len(old)
        words = (
            f"Old classes stand {number(mean)} points of {name} below their best on average; {far} of {len(old)} lost "
            f"more than {MOST} points. "
        )
    if new:
        place = "The only session's" if last == 0 else "The last session's"
        words += f"{place} {len(new)} new classes reach {number(sum(new) / len(new))}% on average."
    return words


def verdicts(runs: Sequence[ReportRun]) -> Table:
    """What got worse in several runs, a row each."""
    rows: list[list[Cell]] = []
    for run in runs:
        old, new = _old_and_new(run)
        worst = max(old, key=lambda path: path.lost, default=None)
        fell = worst is not None and worst.lost > 0
        rows.append(
            [
                run,
                number(-sum(path.lost for path in old) / len(old)) if old else DASH,
                f"{sum(path.lost > MOST for path in old)} of {len(old)}" if old else DASH,
                f"{worst.name} {number(-worst.lost)}" if worst is not None and fell else DASH,
                number(sum(new) / len(new)) if new else DASH,
            ]
        )
    header = ["run", "old classes, mean loss", f"lost more than {MOST}", "lost most", "new classes, mean"]
    title = "Old classes since their best session, in points; new classes of the last session, in percent"
    return Table(title, header, rows, texts=(3,))


def most_lost(run: ReportRun) -> Table | None:
    """Old classes that lost most since their best session; ``None`` where none lost."""
    lost = [path for path in class_paths(run) if path.lost > 0]
    lost = sorted(lost, key=lambda path: -path.lost)[:MOST]
    rows = [
        [path.name, str(path.session), *map(number, (path.learned, path.best, path.last, -path.lost)), *_photos(path)]
        for path in lost
    ]
    header = ["class", "session", "learned", "best", "last", "lost", "training photos", "test photos"]
    title = f"Classes that lost most ({run.measure.class_name}, percent and points)"
    return Table(title, header, rows) if rows else None


def weakest_new(run: ReportRun) -> Table | None:
    """Classes of the last session with the lowest numbers; ``None`` without any."""
    last = len(run.sessions) - 1
    new = [path for path in class_paths(run) if path.session == last and path.last is not None]
    rows = [
        [path.name, number(path.last), *_photos(path)] for path in sorted(new, key=lambda path: path.last or 0)[:MOST]
    ]
    title = f"Weakest classes of the {'last' if last else 'only'} session ({run.measure.class_name} in percent)"
    return Table(title, ["class", run.measure.class_name, "training photos", "test photos"], rows) if rows else None


def _photos(path: ClassPath) -> list[Cell]:
    return [whole(path.photos), whole(path.judged)]


def by_class(runs: Sequence[ReportRun]) -> Table | None:
    """The last session's numbers of several runs, rows aligned by the class's name whatever its place in the order."""
    found = [{path.name: path.last for path in class_paths(run)} for run in runs]
    names = sorted(set().union(*found))
    rows: list[list[Cell]] = [[name, *(number(values.get(name)) for values in found)] for name in names]
    header = ["class", *(run.label for run in runs)]
    return Table("Every class after the last session (percent)", header, rows) if len(runs) > 1 else None


# -- from the scores ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrecisionRecall:
    """A class's precision and recall at each of its scores, from the highest down."""

    name: str
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """At each threshold."""
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, out=np.zeros_like(both), where=both > 0)


def precision_recall(scores: Scores, column: int) -> PrecisionRecall | None:
    """Of a class; ``None`` where no judged test image shows it."""
    values_N, targets_N = scores.scores_NS[:, column], scores.targets_NS[:, column]
    judged = (targets_N >= 0) & np.isfinite(values_N)
    values, positive = values_N[judged], targets_N[judged] == 1
    if not positive.any():
        return None
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(positive[order])
    last = np.append(values[1:] != values[:-1], True)  # images of one score are predicted together
    count = np.arange(1, len(values) + 1)[last]
    hits = hits[last]
    return PrecisionRecall(scores.classes[column], values[last], hits / count, hits / hits[-1])


def best_thresholds(run: ReportRun, scores: Scores) -> Table:
    """The threshold of the highest F1 of every class, beside the fixed one that the report judges by."""
    fixed = run.measure.threshold
    rows: list[list[Cell]] = []
    for column in range(len(scores.classes)):
        curve = precision_recall(scores, column)
        if curve is not None:
            best = int(curve.f1.argmax())
            above = int((curve.thresholds > fixed).sum()) - 1
            numbers = (100 * curve.precision[best], 100 * curve.recall[best], 100 * curve.f1[best])
            at_fixed = 100 * curve.f1[above] if above >= 0 else 0.0
            rows.append([curve.name, number(curve.thresholds[best], 3), *map(number, numbers), number(at_fixed)])
    caption = "Best threshold of every class on these test images: where its F1 is highest (percent)"
    return Table(caption, ["class", "threshold", "precision", "recall", "F1", f"F1 at {fixed:g}"], rows)


def precision_recall_chart(run: ReportRun, scores: Scores) -> Chart:
    """The classes with the lowest number after the last session."""
    weak = sorted(enumerate(class_paths(run)), key=lambda pair: math.inf if pair[1].last is None else pair[1].last)
    curves = [precision_recall(scores, column) for column, _ in weak[:CURVES]]
    drawn = [
        Curve(c.name, [0.0, *(100 * c.recall)], [100 * c.precision[0], *(100 * c.precision)], k)
        for k, c in enumerate(c for c in curves if c is not None)
    ]
    title = "Precision over recall, the weakest classes after the last session"
    if not drawn:
        return Chart(title, None)
    figure = xy_chart(drawn, x_label="recall (%)", y_label="precision (%)", x_holds=(0, 100), y_holds=(0, 100))
    words = " ".join(
        f"{c.name}: " + "best F1 " + number(100 * float(c.f1.max())) + "." for c in curves if c is not None
    )
    return Chart(title, as_svg(figure, title, words))


def photos_chart(run: ReportRun) -> Chart | None:
    """Every class's number after the last session against its training photos; ``None`` where these are unknown."""
    paths = [path for path in class_paths(run) if path.photos and path.last is not None]
    if not paths:
        return None
    last = len(run.sessions) - 1
    curves = []
    for style, (name, mine) in enumerate(
        (("old", [p for p in paths if p.session < last]), ("last session", [p for p in paths if p.session == last]))
    ):
        if mine:
            x, y = [float(p.photos or 0) for p in mine], [float(p.last or 0) for p in mine]
            tips = [f"{p.name}: {p.photos} photos, {number(p.last)}" for p in mine]
            curves.append(Curve(name, x, y, style, line=False, tips=tips))
    title = f"{run.measure.class_name} after the last session against training photos"
    figure = xy_chart(
        curves,
        x_label="training photos (log scale)",
        y_label=f"{run.measure.class_name} (%)",
        y_holds=(0, 100),
        log=True,
    )
    return Chart(title, as_svg(figure, title, " ".join(tip + "." for curve in curves for tip in curve.tips)))


def confusions(run: ReportRun, scores: Scores) -> Table | None:
    """Pairs of classes of which one is taken for the other; ``None`` without any.

    With one class an image: the class with the highest score in place of the true one. With many: an image shows the
    first class, which is missed, and the second one, which is absent, is predicted.
    """
    values_NS, targets_NS = scores.scores_NS, scores.targets_NS
    if run.measure.fixed is None:
        known = np.isfinite(values_NS).all(1)
        taken_NS = np.zeros(values_NS.shape, bool)
        taken_NS[known, np.nan_to_num(values_NS[known]).argmax(1)] = True
        missed_NS = (targets_NS == 1) & ~taken_NS & known[:, None]
    else:
        taken_NS = np.nan_to_num(values_NS, nan=-1.0) > run.measure.threshold
        missed_NS = (targets_NS == 1) & ~taken_NS & np.isfinite(values_NS)
    wrong_NS = taken_NS & (targets_NS == 0)
    counts_SS = missed_NS.T.astype(np.int64) @ wrong_NS.astype(np.int64)
    shown_S = (targets_NS == 1).sum(0)
    places = np.argsort(-counts_SS, axis=None, kind="stable")[:PAIRS]
    rows: list[list[Cell]] = []
    for a, b in zip(*np.unravel_index(places, counts_SS.shape), strict=True):
        if counts_SS[a, b]:
            share = number(100 * counts_SS[a, b] / shown_S[a], 0)
            rows.append([scores.classes[a], scores.classes[b], whole(counts_SS[a, b]), share])
    header = ["shown and missed", "predicted and absent", "test photos", "% of the class's"]
    return Table("Which class is taken for which, after the last session", header, rows, texts=(1,)) if rows else None


# -- losses ---------------------------------------------------------------------------------------------------


def loss_charts(run: ReportRun) -> list[Chart]:
    """The run's losses over its steps, from ``vis_data/scalars.json``; empty where there is none."""
    curves, edges = read_losses(run)
    if not curves:
        return []
    title = f"{run.label}: losses over training steps"
    drawn = [Curve(name, x, y, k) for k, (name, (x, y)) in enumerate(curves.items())]
    figure = xy_chart(drawn, x_label="step; a line where a session ends", y_label="loss", y_holds=(0,), marks=edges)
    words = " ".join(f"{c.name}: from {number(c.y[0], 3)} to {number(c.y[-1], 3)}." for c in drawn)
    return [Chart(title, as_svg(figure, title, words))]


def read_losses(run: ReportRun) -> tuple[dict[str, tuple[list[float], list[float]]], list[float]]:
    """Loss -> (steps, values), and the steps at which sessions ended; lines that are no numbers are passed over."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    edges: list[float] = []
    before = step = 0.0
    path = run.folder / "vis_data" / "scalars.json"
    try:
        lines = path.read_text().splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError):
        return {}, []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if not isinstance(values, Mapping):
            continue
        losses = {key: value for key, value in values.items() if "loss" in key and _is_number(value)}
        if losses and _is_number(values.get("step")):
            if before + values["step"] < step:
                before = step
            step = before + values["step"]
            for name, value in losses.items():
                x, y = curves.setdefault(name, ([], []))
                x.append(step)
                y.append(float(value))
        elif any(key.startswith(("mAP/", "accuracy/")) for key in values) and step and step not in edges:
            edges.append(step)
    shown = dict(sorted(curves.items(), key=lambda pair: (pair[0] != "loss", pair[0]))[:CURVES])
    return shown, edges[:-1]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
