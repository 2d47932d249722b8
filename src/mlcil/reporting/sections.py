"""What the sections of a report show, as tables of text and charts; the templates say how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from markupsafe import Markup

from mlcil.evaluation import sessions, singlelabel
from mlcil.reporting.comparison import THRESHOLD
from mlcil.reporting.formats import DASH, bytes_text, duration, number, sentence_case, whole
from mlcil.reporting.plots import Series, as_svg, describe, line_chart
from mlcil.reporting.report_runs import ReportRun

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
    return [Series(run.label, values(run), run.style, short=str(run.number)) for run in runs]


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
        return [number(run.summary.get(key)) for run in runs]

    def by_measure(key: Callable[[ReportRun], str | None]) -> list[str]:
        return [number(run.summary.get(key(run) or "")) for run in runs]

    def last(split: str) -> list[str]:
        return [number(run.series(run.measure.growing, split)[-1]) for run in runs]

    growing, fixed, cost = "growing test set (official)", "fixed test set", "cost"
    if not any(run.measure.fixed for run in runs):
        growing, fixed = "test images of the classes seen so far", "from session to session"
    lengths = [str(len(run.sessions)) for run in runs]
    columns = [
        ("", "method", [str(run.content.get("method", DASH)) for run in runs]),
        ("", "sessions", lengths if len(set(lengths)) > 1 else []),
        (growing, f"average {measure}", by_measure(lambda run: run.measure.average)),
        (growing, f"last {measure}", by_measure(lambda run: run.measure.last)),
        (growing, "last top-5", of("last_top5")),
        (growing, "last base", last("base")),
        (growing, "last new", last("new")),
        (growing, "CF1", [number(run.f1("CF1_mean")) for run in runs]),
        (growing, "OF1", [number(run.f1("OF1")) for run in runs]),
        (fixed, f"average {measure}", by_measure(lambda run: run.measure.average_fixed)),
        (fixed, f"last {measure}", by_measure(lambda run: run.measure.last_fixed)),
        (fixed, "forgetting", of("forgetting")),
        (fixed, "backward transfer", of("backward_transfer")),
        (fixed, "plasticity", of("plasticity")),
        (cost, "memory", [bytes_text(run.memory) for run in runs]),
        (cost, "exemplars", [whole(_get(run.sessions[-1], "memory", "total")) for run in runs]),
        (cost, "time", [duration(run.seconds) for run in runs]),
    ]
    kept = [column for column in columns if column[1] == "method" or any(cell != DASH for cell in column[2])]
    groups = {group: 0 for group, _, _ in kept}
    for group, _, _ in kept:
        groups[group] += 1
    groups[""] += 1  # the run itself
    f1 = (
        f", CF1 and OF1 after the last session at score {THRESHOLD}"
        if any(run.f1("OF1") is not None for run in runs)
        else ""
    )
    return Table(
        f"Every run in a row: percent, forgetting in points{f1}; memory is what is kept after the last session "
        "besides the model.",
        ["run", *(heading for _, heading, _ in kept)],
        [[run, *(cells[i] for _, _, cells in kept)] for i, run in enumerate(runs)],
        list(groups.items()),
        texts=(1,),
    )


def measure_charts(runs: Sequence[ReportRun], name: str) -> list[Chart]:
    """The measure per session on both test sets."""
    title = sentence_case(f"{name} on the classes seen so far, ")
    growing = _lines(runs, lambda run: run.series(run.measure.growing, "seen"))
    charts = [chart(title + "growing test set", growing, f"{name} (%)")]
    if with_fixed := [run for run in runs if run.measure.fixed]:
        fixed = _lines(with_fixed, lambda run: run.series(run.measure.judged, "seen"))
        charts.append(chart(title + "fixed test set", fixed, f"{name} (%)"))
    return charts


def session_numbers(run: ReportRun) -> Table:
    """The measure of every session on every split."""
    splits = ("seen", "base", "new")
    keys = (
        {"seen": run.measure.growing, "fixed": run.measure.fixed}
        if run.measure.fixed
        else {"seen": run.measure.growing}
    )
    rows: list[list[Cell]] = [
        [
            str(t),
            ", ".join(session.get("classes", [])),
            run.ranges[t][1],
            *(number(session[key].get(split), 2) for key in keys.values() for split in splits),
            *(whole(_get(session, "images", images)) for images in keys),
        ]
        for t, session in enumerate(run.sessions)
    ]
    headings = ("growing", "fixed")[: len(keys)]
    return Table(
        f"{run.label}: {run.measure.name} in percent",
        ["session", "new classes", "seen classes", *splits * len(keys), *headings],
        rows,
        [("", 3), *((f"{heading} test set", 3) for heading in headings), ("test images", len(keys))],
        texts=(1,),
    )


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
    keys = ("forgetting", "forgetting_learned", "plasticity")
    old, new = (run.series(run.measure.judged, split) for split in ("old", "new"))
    so_far = run.summaries or [{}] * len(old)
    return Table(
        f"{run.label}: {run.measure.name} of old and new classes (percent), forgetting (points), and plasticity "
        "(percent) of all classes so far" + (", fixed test set" if run.measure.fixed else ""),
        ["session", "old classes", "new classes (plasticity)", "forgetting", "forgetting since learned",
         "plasticity so far"],
        [
            [str(t), number(old[t]), number(new[t]), *(number(so_far[t].get(key)) for key in keys)]
            for t in range(len(run.sessions))
        ],
    )  # fmt: skip


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
    rows = [
        [
            str(t),
            whole(_get(s, "train", "images")),
            number(_get(s, "train", "labels_per_image"), 2),
            whole(_get(s, "train", "exemplars")),
            *(whole(_get(s, "memory", key)) for key in ("stored", "total")),
            *(bytes_text(_get(s, "memory", "bytes", kind)) for kind in kinds),
            *(duration(s.get(key)) for key in ("seconds", "evaluation_seconds")),
        ]
        for t, s in enumerate(run.sessions)
    ]
    groups = [("", 1), ("training images", 3), ("exemplars after", 2), ("bytes kept", len(kinds)), ("time", 2)]
    return Table(
        f"{run.label}: training images, exemplars chosen after the session, bytes kept, time",
        ["session", "new", "labels per image", "exemplars", "added", "total", *kinds, "session", "evaluation"],
        rows,
        [group for group in groups if group[1]],
    )


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


def pseudo_label_charts(run: ReportRun) -> list[Chart]:
    """Labels per image, and how right they are."""
    found = dpl(run)
    counts = [Series(key, [d.get(key) for d in found], i) for i, key in enumerate(("target", "reached", "true"))]
    shares = [
        Series(key, [_times_100(d.get(key)) for d in found], i) for i, key in enumerate(("precision", "recall"), 3)
    ]
    title = f"{run.label}: labels of old classes per image"
    return [
        chart(title, counts, "labels per image", holds=(0,), decimals=2),
        chart(f"{run.label}: pseudo-labels against the truth", shares, "percent", holds=(0,), decimals=2),
    ]


def pseudo_labels(run: ReportRun) -> Table:
    """The search for the threshold in every session."""
    rows = [
        [
            str(t),
            *(number(d.get(key), 2) for key in ("target", "reached", "true")),
            *(number(_times_100(d.get(key))) for key in ("precision", "recall")),
            number(d.get("threshold"), 3),
            str(d.get("evaluations", DASH)),
            {True: "yes", False: "no"}.get(d["landed"], DASH) if "landed" in d else DASH,
            str(d.get("mode", DASH)),
        ]
        for t, d in enumerate(dpl(run))
    ]
    return Table(
        f"{run.label}: pseudo-labels of old classes",
        ["session", "target", "reached", "true", "precision", "recall", "threshold", "steps", "landed", "mode"],
        rows,
        [("", 1), ("labels per image", 3), ("against the truth (%)", 2), ("search", 4)],
        texts=(9,),
    )


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
