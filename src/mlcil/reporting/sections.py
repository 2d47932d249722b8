"""What the sections of a report show, as tables of text and charts; the templates say how."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, TypeAlias

from markupsafe import Markup

from mlcil.evaluation import sessions, singlelabel
from mlcil.reporting import comparison, intervals
from mlcil.reporting.comparison import THRESHOLD
from mlcil.reporting.formats import DASH, bytes_text, duration, number, sentence_case, whole
from mlcil.reporting.plots import Series, as_svg, describe, line_chart
from mlcil.reporting.report_runs import ReportRun, group
from mlcil.reporting.tables import SPLITS

Cell: TypeAlias = "str | int | ReportRun"

LEVELS = 11  # shades of the heat map: classes h0 ... h10 of the style sheet
#: kinds of session["memory"]["bytes"] and what they are
MEMORY_KINDS: dict[str, str] = {
    "images": "stored training images as uint8 pixels at the training size",
    "logits": "stored outputs of earlier models",
    "statistics": "other tensors that the method carries along, such as weights' importances or class means",
    "parameters": "parameters of the head beyond one linear classifier",
    "teacher": "the copy of the previous model that training needs beside the current one",
}
#: words of the report besides those of the metrics
WORDS: dict[str, str] = {
    "growing / fixed test set": "test images that show a class seen so far / the same test images in every session",
    "target": "labels of old classes per image that KRT aims at with its pseudo-labels",
    "reached": "pseudo-labels per image that the chosen score threshold gives",
    "true": "labels of old classes per image that are really there, hidden from training",
    "precision / recall": "share of the pseudo-labels that are right / of the hidden labels that they restore",
    "exemplars": "training images of earlier sessions that a run keeps",
}


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row.

    Attributes:
        caption: what it shows, for everybody.
        header: a heading a column.
        rows: as many cells each; a run stands for its line sample, number and name.
        groups: (heading, columns) of a row above the header.
        texts: columns that hold words and are aligned to the left, besides the first.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    texts: Sequence[int] = ()


Columns: TypeAlias = "Sequence[tuple[str, str, Sequence[Cell]]]"  # group, heading, cells


def _table(caption: str, columns: Columns, texts: Sequence[int] = ()) -> Table:
    """A table from its columns; neighbours of the same group share a heading."""
    groups = [(group, len(list(members))) for group, members in groupby(columns, lambda column: column[0])]
    rows = list(zip(*(cells for _, _, cells in columns), strict=True))
    return Table(caption, [heading for _, heading, _ in columns], rows, groups if len(groups) > 1 else (), texts)


def _numbers(values: Sequence[float | None], decimals: int = 1) -> list[str]:
    return [number(value, decimals) for value in values]


def _places(run: ReportRun) -> list[str]:
    return [str(t) for t in range(len(run.sessions))]


def _of_sessions(run: ReportRun, *keys: str) -> list[Any]:
    return [_get(session, *keys) for session in run.sessions]


@dataclass(frozen=True)
class Chart:
    """A titled chart; ``svg`` is ``None`` where no session has the number."""

    title: str
    svg: Markup | None


def chart(title: str, series: Sequence[Series], y_label: str, holds: Sequence[float] = (), decimals: int = 1) -> Chart:
    """A chart of lines with a value per session; see :func:`mlcil.reporting.plots.line_chart`."""
    drawn = [s for s in series if s.points()]
    if not drawn:
        return Chart(title, None)
    ticks = [str(t) for t in range(max(len(s.values) for s in series))]
    figure = line_chart(drawn, ticks, y_label=y_label, holds=holds, decimals=decimals)
    return Chart(title, as_svg(figure, title, describe(drawn, ticks, decimals)))


def _lines(runs: Sequence[ReportRun], values: Callable[[ReportRun], Sequence[float | None]]) -> list[Series]:
    """A line a group of runs: its mean with a band of one sample standard deviation, or the run's own values."""
    series = []
    for members in group(runs):
        found = [[v for v in column if v is not None] for column in zip_longest(*map(values, members.runs))]
        means = [statistics.fmean(column) if column else None for column in found]
        deviations = [statistics.stdev(column) if len(column) > 1 else None for column in found]
        short = "+".join(str(run.number) for run in members.runs)
        series.append(Series(members.label, means, members.style, short, deviations if any(deviations) else ()))
    return series


def _span(series: Sequence[Series]) -> list[float]:
    """Lowest and highest value with its band, for axes that several charts share."""
    values = [v for line in series for low, high in line.bounds() for v in (low, high)]
    return [min(values), max(values)] if values else []


def _get(mapping: Mapping[str, Any], *keys: str) -> Any:
    """What stands under the keys, ``None`` where one is missing."""
    found: Any = mapping
    for key in keys:
        found = (found or {}).get(key)
    return found


# -- all runs -------------------------------------------------------------------------------------------------


def summary(runs: Sequence[ReportRun]) -> Table:
    """A row per run, with the columns of which at least one run has a value."""
    names = {run.measure.name for run in runs}
    measure = names.pop() if len(names) == 1 else ""

    def of(key: str) -> list[str]:
        """Of the summary, where ``*`` is what the run is judged by."""
        return [number(run.summary.get(key.replace("*", run.measure.name))) for run in runs]

    def last(split: str) -> list[str]:
        return [number(run.series(run.measure.name, split)[-1]) for run in runs]

    growing, fixed, cost = "growing test set (official)", "fixed test set", "cost"
    if not any(run.measure.fixed for run in runs):
        growing, fixed = "test images of the classes seen so far", "from session to session"
    columns: list[tuple[str, str, Sequence[Cell]]] = [
        (growing, f"average {measure}", of("average_*")),
        (growing, f"last {measure}", of("last_*")),
        (growing, "last top-5", of("last_top5")),
        (growing, "last base", last("base")),
        (growing, "last new", last("new")),
        (growing, "CF1", _numbers([run.f1("CF1_mean") for run in runs])),
        (growing, "OF1", _numbers([run.f1("OF1") for run in runs])),
        (fixed, f"average {measure}", of("average_fixed_*")),
        (fixed, f"last {measure}", of("last_fixed_*")),
        (fixed, "forgetting", of("forgetting")),
        (fixed, "backward transfer", of("backward_transfer")),
        (fixed, "plasticity", of("plasticity")),
        (cost, "memory", [bytes_text(run.memory) for run in runs]),
        (cost, "exemplars", [whole(_get(run.sessions[-1], "memory", "total")) for run in runs]),
        (cost, "time", [duration(run.seconds) for run in runs]),
    ]
    lengths = [str(len(run.sessions)) for run in runs]
    first: Columns = [("", "run", runs), ("", "method", [str(run.content.get("method", DASH)) for run in runs])]
    if len(set(lengths)) > 1:
        first = [*first, ("", "sessions", lengths)]
    kept = [column for column in columns if any(cell != DASH for cell in column[2])]
    f1 = f", CF1 and OF1 after the last session at score {THRESHOLD}" if any(c[1] == "OF1" for c in kept) else ""
    caption = (
        f"Every run in a row: percent, forgetting in points{f1}; memory is what is kept after the last session "
        "besides the model."
    )
    return _table(caption, [*first, *kept], texts=(1,))


def measure_charts(runs: Sequence[ReportRun], name: str) -> list[Chart]:
    """The measure per session on both test sets."""
    title = sentence_case(f"{name} on the classes seen so far, ")
    growing = _lines(runs, lambda run: run.series(run.measure.name, "seen"))
    with_fixed = [run for run in runs if run.measure.fixed]
    fixed = _lines(with_fixed, lambda run: run.series(run.measure.judged, "seen"))
    both = _span([*growing, *fixed])
    charts = [chart(title + "growing test set", growing, f"{name} (%)", both)]
    if with_fixed:
        charts.append(chart(title + "fixed test set", fixed, f"{name} (%)", both))
    return charts


def grouped_summary(runs: Sequence[ReportRun]) -> Table | None:
    """A row a method with means and deviations over class orders and seeds; ``None`` where every run stands alone."""
    groups = group(runs)
    if len(groups) == len(runs) or len({run.measure for run in runs}) > 1:
        return None
    rows = [comparison.make_row(members.label, [run.content for run in members.runs]) for members in groups]
    header, *body = comparison.cells(rows)
    return Table(f"Methods over their runs: {comparison.caption(rows)}", header, body)


def differences(runs: Sequence[ReportRun]) -> Table | None:
    """Every method less the first one, with intervals; ``None`` where runs do not compare or have kept no scores."""
    groups = group(runs)
    first = runs[0].content
    same = all(comparison.may_stand_together(first, run.content) for run in runs)
    if len(groups) < 2 or not same or len({run.measure for run in runs}) > 1:
        return None
    by_label = {members.label: {str(run.folder): run.content for run in members.runs} for members in groups}
    found = intervals.differences(by_label)
    if not found:
        return None
    header, *body = intervals.difference_cells(groups[0].label, found)
    return Table(intervals.NOTE, header, body)


def session_numbers(run: ReportRun) -> Table:
    """The measure of every session on every split."""
    new = [", ".join(session.get("classes", [])) for session in run.sessions]
    columns: list[tuple[str, str, Sequence[Cell]]] = [
        ("", "session", _places(run)), ("", "new classes", new), ("", "seen classes", [high for _, high in run.ranges])
    ]  # fmt: skip
    shown = {"growing": (run.measure.name, "seen")}
    if run.measure.fixed:
        shown["fixed"] = (run.measure.fixed, "fixed")
    for heading, (key, _) in shown.items():
        columns += [(f"{heading} test set", split, _numbers(run.series(key, split), 2)) for split in SPLITS]
    for heading, (_, images) in shown.items():
        columns.append(("test images", heading, [whole(n) for n in _of_sessions(run, "images", images)]))
    return _table(f"{run.label}: {run.measure.name} in percent", columns, texts=(1,))


def forgetting_charts(runs: Sequence[ReportRun]) -> list[Chart]:
    """Forgetting and plasticity as they stood after each session."""
    forgotten = _lines(runs, lambda run: [s["forgetting"] for s in run.summaries])
    learned = _lines(runs, lambda run: run.series(run.measure.judged, "new"))
    return [
        chart("Forgetting of old classes (points; lower is better)", forgotten, "points", holds=(0,)),
        chart("Plasticity: new classes of the session (percent; higher is better)", learned, "percent"),
    ]


def forgetting_numbers(run: ReportRun) -> Table:
    """Old and new classes in every session."""
    so_far = run.summaries or [{}] * len(run.sessions)
    columns = [
        ("", "old classes", _numbers(run.series(run.measure.judged, "old"))),
        ("", "new classes (plasticity)", _numbers(run.series(run.measure.judged, "new"))),
        ("", "forgetting", _numbers([s.get("forgetting") for s in so_far])),
        ("", "forgetting since learned", _numbers([s.get("forgetting_learned") for s in so_far])),
        ("", "plasticity so far", _numbers([s.get("plasticity") for s in so_far])),
    ]
    caption = (
        f"{run.label}: {run.measure.name} of old and new classes (percent), forgetting (points), and plasticity "
        "(percent) of all classes so far" + (", fixed test set" if run.measure.fixed else "")
    )
    return _table(caption, [("", "session", _places(run)), *columns])


def memory_kinds(runs: Sequence[ReportRun]) -> list[str]:
    """Kinds of what is kept, known ones first; empty when no run says."""
    kept = [kind for run in runs for kind in run.memory_bytes]
    return list(dict.fromkeys([*MEMORY_KINDS, *kept])) if kept else []


def cost_charts(runs: Sequence[ReportRun]) -> list[Chart]:
    """What is kept after each session, and how long it took."""
    kept = _lines(runs, lambda run: [_megabytes(_get(s, "memory", "bytes")) for s in run.sessions])
    times = _lines(runs, lambda run: [s.get("seconds") for s in run.sessions])
    charts = [chart("Time per session, evaluation included (seconds)", times, "seconds", holds=(0,))]
    if any(series.points() for series in kept):
        charts.insert(0, chart("Memory kept after each session (MB)", kept, "MB", holds=(0,)))
    return charts


def _megabytes(kept: Mapping[str, float] | None) -> float | None:
    return None if kept is None else sum(kept.values()) / 1e6


def cost_numbers(run: ReportRun, kinds: Sequence[str]) -> Table:
    """Images, memory and time of every session."""

    def counts(*keys: str) -> list[str]:
        return [whole(value) for value in _of_sessions(run, *keys)]

    columns: Columns = [
        ("", "session", _places(run)),
        ("training images", "new", counts("train", "images")),
        ("training images", "labels per image", _numbers(_of_sessions(run, "train", "labels_per_image"), 2)),
        ("training images", "exemplars", counts("train", "exemplars")),
        ("exemplars after", "added", counts("memory", "stored")),
        ("exemplars after", "total", counts("memory", "total")),
        *(("bytes kept", kind, [bytes_text(n) for n in _of_sessions(run, "memory", "bytes", kind)]) for kind in kinds),
        ("time", "session", [duration(s) for s in _of_sessions(run, "seconds")]),
        ("time", "evaluation", [duration(s) for s in _of_sessions(run, "evaluation_seconds")]),
    ]
    return _table(f"{run.label}: training images, exemplars chosen after the session, bytes kept, time", columns)


# -- single runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeatRow:
    """A class of a heat map: whether it is the first one of a later session, its cells, how far it has moved."""

    name: str
    first: bool
    values: Sequence[float | None]  # per session since the one that brought the class
    blank: int  # sessions before that one
    moved: str


def heat_rows(run: ReportRun) -> Iterator[HeatRow]:
    """A row per class."""
    results = [session[run.measure.per_class] for session in run.sessions]
    for t, (low, high) in enumerate(run.ranges):
        for c in range(low, high):
            values = [result[c] if c < len(result) else None for result in results[t:]]
            first, last = values[0], values[-1]
            moved = None if first is None or last is None else last - first
            shown = number(moved, 0, signed=True) if len(values) > 1 else ""
            yield HeatRow(run.class_name(c), c == low and t > 0, values, t, shown)


def level(value: float | None) -> int | None:
    """The shade of a percentage, ``None`` without one."""
    if value is None or not math.isfinite(value):
        return None
    return min(LEVELS - 1, max(0, int(value / 100 * (LEVELS - 1) + 0.5)))


def dpl(run: ReportRun) -> list[Mapping[str, Any]]:
    """What KRT says of its dynamic pseudo-labels, by session; empty mappings where it says nothing."""
    return [_get(session, "report", "dpl") or {} for session in run.sessions]


def pseudo_label_charts(run: ReportRun, runs: Sequence[ReportRun]) -> list[Chart]:
    """Labels per image, how right they are, and the threshold that gives them; the same axes for all ``runs``."""
    found = dpl(run)
    most = [d[key] for other in runs for d in dpl(other) for key in ("target", "reached", "true") if d.get(key)]
    counts = [Series(key, [d.get(key) for d in found], i) for i, key in enumerate(("target", "reached", "true"))]
    shares = [
        Series(key, [_times_100(d.get(key)) for d in found], i) for i, key in enumerate(("precision", "recall"), 3)
    ]
    title = f"{run.label}: labels of old classes per image"
    return [
        chart(title, counts, "labels per image", holds=(0, *most), decimals=2),
        chart(f"{run.label}: pseudo-labels against the truth", shares, "percent", holds=(0, 100), decimals=2),
        chart(
            f"{run.label}: score threshold of the pseudo-labels",
            [Series("threshold", [d.get("threshold") for d in found], 6)],
            "score",
            holds=(0, 1),
            decimals=3,
        ),
    ]


def pseudo_labels(run: ReportRun) -> Table:
    """The search for the threshold in every session."""
    found = dpl(run)
    per_image, truth = ("target", "reached", "true"), ("precision", "recall")
    columns: Columns = [
        ("", "session", _places(run)),
        *(("labels per image", key, _numbers([d.get(key) for d in found], 2)) for key in per_image),
        *(("against the truth (%)", key, _numbers([_times_100(d.get(key)) for d in found])) for key in truth),
        ("search", "threshold", _numbers([d.get("threshold") for d in found], 3)),
        ("search", "steps", [str(d.get("evaluations", DASH)) for d in found]),
        ("search", "landed", [{True: "yes", False: "no"}.get(d.get("landed"), DASH) for d in found]),  # type: ignore[arg-type]
        ("search", "mode", [str(d.get("mode", DASH)) for d in found]),
    ]
    return _table(f"{run.label}: pseudo-labels of old classes", columns, texts=(9,))


def class_thresholds(run: ReportRun) -> Table | None:
    """The score threshold of every class, where there is one; ``None`` without any."""
    given = {t: d["per_class"] for t, d in enumerate(dpl(run)) if d.get("per_class")}
    most = min(max(map(len, given.values()), default=0), len(run.classes))
    rows = [
        [run.classes[c], *(number(values[c], 3) if c < len(values) else "" for values in given.values())]
        for c in range(most)
    ]
    header = ["class", *(f"session {t}" for t in given)]
    return Table(f"{run.label}: score threshold of every class", header, rows) if rows else None


def other_reports(runs: Sequence[ReportRun]) -> Table | None:
    """What methods report besides pseudo-labels; ``None`` when there is nothing."""
    rows: list[list[Cell]] = []
    for run in runs:
        for t, session in enumerate(run.sessions):
            for name, values in (session.get("report") or {}).items():
                if name != "dpl":
                    items = values.items() if isinstance(values, Mapping) else [("", values)]
                    rows.append([run, t, name, ", ".join(f"{k} {_plain(v)}".strip() for k, v in items)])
    return (
        Table("What the methods found out", ["run", "session", "part", "values"], rows, texts=(2, 3)) if rows else None
    )


def provenance(run: ReportRun) -> dict[str, Any]:
    """Fact -> value: command, weights, versions, seed, hashes and sessions."""
    keys = ("method", "dataset", "protocol", "protocol_hash", "comparison_hash", "status")
    return {
        **{key: run.content[key] for key in keys if key in run.content},
        **(run.content.get("provenance") or {}),
        "sessions": "; ".join(f"{t}: {', '.join(run.classes[low:high])}" for t, (low, high) in enumerate(run.ranges)),
    }


def glossary(runs: Sequence[ReportRun]) -> dict[str, str]:
    """The words of the runs' metrics and of the report."""
    many = sessions.GLOSSARY if any(run.measure.fixed for run in runs) else {}
    single = {} if all(run.measure.fixed for run in runs) else singlelabel.GLOSSARY
    return {**many, **single, **WORDS}


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
