"""The sections of a report that are tables and line charts of all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcil.reporting.comparison import THRESHOLD
from mlcil.reporting.markup import DASH, Content, Markup, bytes_text, details, duration, element, number, table, text
from mlcil.reporting.report_runs import ReportRun, notes
from mlcil.reporting.svg import Series, line_chart, swatch

#: kinds of session["memory"]["bytes"] and what they are
MEMORY_KINDS: dict[str, str] = {
    "images": "stored training images as uint8 pixels at the training size",
    "logits": "stored outputs of earlier models",
    "statistics": "other tensors that the method carries along, such as weights' importances or class means",
    "parameters": "parameters of the head beyond one linear classifier",
    "teacher": "the copy of the previous model that training needs beside the current one",
}
FOLDED = 3  # with more runs, what is said of each run alone is folded


@dataclass(frozen=True)
class Column:
    """A column of the summary: its group, its heading, and a run's cell."""

    group: str
    heading: str
    cell: Callable[[ReportRun], str]


def named(run: ReportRun) -> Markup:
    """A run's line sample, number and name."""
    return element("span", swatch(run.style), element("b", str(run.number)), " ", run.name, class_="run")


def line(run: ReportRun, values: Sequence[float | None]) -> Series:
    """A run's line in a chart of all runs."""
    return Series(run.label, values, run.style, short=str(run.number))


def legend(runs: Sequence[ReportRun]) -> Markup | None:
    """The lines of several runs with their whole names; a single run needs none."""
    return element("p", [named(run) for run in runs], class_="legend") if len(runs) > 1 else None


@dataclass(frozen=True)
class Section:
    """A section of the report: its anchor, its heading, its content."""

    anchor: str
    heading: str
    content: Markup


def section(anchor: str, heading: str, *content: Content) -> Section:
    """A section from its parts."""
    return Section(anchor, sentence_case(heading), text(content))


def sentence_case(words: str) -> str:
    """With a capital first letter, but for ``mAP`` and its like."""
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]


def summary_columns(runs: Sequence[ReportRun]) -> list[Column]:
    """The columns of which at least one run has a value."""
    names = {run.measure.name for run in runs}
    measure = names.pop() if len(names) == 1 else ""

    def of_summary(key: Callable[[ReportRun], str | None]) -> Callable[[ReportRun], str]:
        return lambda run: number(run.summary.get(key(run) or ""))

    def last_split(split: str) -> Callable[[ReportRun], str]:
        return lambda run: number(run.series(run.measure.growing, split)[-1])

    growing, fixed, cost = "growing test set (official)", "fixed test set", "cost"
    if not any(run.measure.fixed for run in runs):
        growing, fixed = "test images of the classes seen so far", "from session to session"
    columns = [
        Column(growing, f"average {measure}", of_summary(lambda run: run.measure.average)),
        Column(growing, f"last {measure}", of_summary(lambda run: run.measure.last)),
        Column(growing, "last top-5", of_summary(lambda run: "last_top5")),
        Column(growing, "last base", last_split("base")),
        Column(growing, "last new", last_split("new")),
        Column(growing, "CF1", lambda run: number(run.f1("CF1_mean"))),
        Column(growing, "OF1", lambda run: number(run.f1("OF1"))),
        Column(fixed, f"average {measure}", of_summary(lambda run: run.measure.average_fixed)),
        Column(fixed, f"last {measure}", of_summary(lambda run: run.measure.last_fixed)),
        Column(fixed, "forgetting", of_summary(lambda run: "forgetting")),
        Column(fixed, "backward transfer", of_summary(lambda run: "backward_transfer")),
        Column(fixed, "plasticity", of_summary(lambda run: "plasticity")),
        Column(cost, "memory", lambda run: bytes_text(sum(run.memory_bytes.values())) if run.memory_bytes else DASH),
        Column(cost, "exemplars", lambda run: _whole(run.sessions[-1].get("memory", {}).get("total"))),
        Column(cost, "time", lambda run: duration(run.seconds)),
    ]
    return [column for column in columns if any(column.cell(run) != DASH for run in runs)]


def summary(runs: Sequence[ReportRun]) -> Section:
    """A row per run, with the notes that must be read first."""
    columns = summary_columns(runs)
    lengths = len({len(run.sessions) for run in runs}) > 1
    groups: list[tuple[str, int]] = [("", 3 if lengths else 2)]
    for column in columns:
        if groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    rows: list[list[Content]] = [
        [
            named(run),
            str(run.content.get("method", DASH)),
            *([len(run.sessions)] if lengths else []),
            *(column.cell(run) for column in columns),
        ]
        for run in runs
    ]
    has_f1 = any(run.f1("OF1") is not None for run in runs)
    f1 = f", CF1 and OF1 after the last session at score {THRESHOLD}" if has_f1 else ""
    whole = table(
        ["run", "method", *(["sessions"] if lengths else []), *(column.heading for column in columns)],
        rows,
        f"Every run in a row: percent, forgetting in points{f1}; memory is what is kept after the last session besides "
        "the model.",
        groups=groups,
        texts=(1,),
    )
    warnings = [element("p", sentence, class_=f"note {kind}", role="note") for kind, sentence in notes(runs)]
    return section("summary", "Summary", warnings, whole)


def measure_section(runs: Sequence[ReportRun]) -> Section:
    """The measure per session on both test sets."""
    names = sorted({run.measure.name for run in runs})
    name = " / ".join(names)
    text = (
        "On the growing test set the images that show a class seen so far count: it grows with the sessions and "
        f"the task gets harder, so {name} falls even without forgetting."
    )
    charts = [
        (
            sentence_case(f"{name} on the classes seen so far, growing test set"),
            [line(run, run.series(run.measure.growing, "seen")) for run in runs],
            f"{name} (%)",
        )
    ]
    with_fixed = [(run, run.measure.fixed) for run in runs if run.measure.fixed]
    if with_fixed:
        text += " The fixed test set is the same in every session."
        lines = [line(run, run.series(key, "seen")) for run, key in with_fixed]
        charts.append((sentence_case(f"{name} on the classes seen so far, fixed test set"), lines, f"{name} (%)"))
    return section(
        "sessions",
        f"{name} per session",
        element("p", text),
        figures(*charts),
        legend(runs),
        details(
            sentence_case(f"{name} of every session: classes seen so far, of session 0, and new"),
            [_session_numbers(run) for run in runs],
        ),
    )


def _session_numbers(run: ReportRun) -> Markup:
    splits = ("seen", "base", "new")
    sets, headings = (("seen", "fixed"), ("growing", "fixed")) if run.measure.fixed else (("seen",), ("growing",))
    rows: list[list[Content]] = []
    for t, session in enumerate(run.sessions):
        growing = [number(session[run.measure.growing].get(split), 2) for split in splits]
        fixed = [number(session[run.measure.fixed].get(split), 2) for split in splits] if run.measure.fixed else []
        images = session.get("images", {})
        counts = [_whole(images.get(key)) for key in sets]
        new = element("div", ", ".join(session.get("classes", [])), class_="words")
        rows.append([t, new, run.ranges[t][1], *growing, *fixed, *counts])
    return table(
        ["session", "new classes", "seen classes", *splits * len(sets), *headings],
        rows,
        f"{run.label}: {run.measure.name} in percent",
        groups=[("", 3), *((f"{heading} test set", 3) for heading in headings), ("test images", len(sets))],
        texts=(1,),
    )


def forgetting_section(runs: Sequence[ReportRun]) -> Section:
    """Forgetting and plasticity as they stood after each session."""
    return section(
        "forgetting",
        "Forgetting and plasticity",
        element(
            "p",
            "Forgetting after a session: how far the old classes have fallen from their best so far. Plasticity of a "
            "session: how well its new classes are recognised right after it."
            + (" Both on the fixed test set." if all(run.measure.fixed for run in runs) else ""),
        ),
        figures(
            (
                "Forgetting of old classes (points; lower is better)",
                [line(run, [s["forgetting"] for s in run.summaries]) for run in runs],
                "points",
            ),
            (
                "Plasticity: new classes of the session (percent; higher is better)",
                [line(run, run.series(run.measure.judged, "new")) for run in runs],
                "percent",
            ),
            include_zero=(True, False),
        ),
        legend(runs),
        details("Numbers of every session", [_forgetting_numbers(run) for run in runs]),
    )


def _forgetting_numbers(run: ReportRun) -> Markup:
    new, old = run.series(run.measure.judged, "new"), run.series(run.measure.judged, "old")
    rows: list[list[Content]] = []
    for t in range(len(run.sessions)):
        so_far: Mapping[str, Any] = run.summaries[t] if run.summaries else {}
        keys = ("forgetting", "forgetting_learned", "plasticity")
        rows.append([t, number(old[t]), number(new[t]), *(number(so_far.get(key)) for key in keys)])
    return table(
        [
            "session",
            "old classes",
            "new classes (plasticity)",
            "forgetting",
            "forgetting since learned",
            "plasticity so far",
        ],
        rows,
        f"{run.label}: {run.measure.name} of old and new classes (percent), forgetting (points), and plasticity "
        "(percent) of all classes so far" + (", fixed test set" if run.measure.fixed else ""),
    )


def cost_section(runs: Sequence[ReportRun]) -> Section:
    """What is kept after each session, and how long it took."""
    most = max((sum(run.memory_bytes.values()) for run in runs), default=0) or 1
    kinds = list(dict.fromkeys([*MEMORY_KINDS, *(kind for run in runs for kind in run.memory_bytes)]))
    parts: list[Content] = []
    if any(run.memory_bytes for run in runs):
        rows = [
            [
                named(run),
                element("td", _bar(run.memory_bytes, kinds, most), class_="wide"),
                bytes_text(sum(run.memory_bytes.values())) if run.memory_bytes else DASH,
                *(bytes_text(run.memory_bytes.get(kind)) for kind in kinds),
            ]
            for run in runs
        ]
        heads = [element("span", element("i", class_=f"key k{i % 5}"), kind) for i, kind in enumerate(kinds)]
        parts.append(table(["run", "", "all", *heads], rows, "Memory after the last session, besides the model in use"))
        meanings = [[element("dt", kind), element("dd", MEMORY_KINDS[kind])] for kind in kinds if kind in MEMORY_KINDS]
        parts.append(details("What is counted", element("dl", meanings)))
    else:
        parts.append(element("p", "These runs do not say how many bytes they keep.", class_="muted"))
    times = [line(run, [s.get("seconds") for s in run.sessions]) for run in runs]
    kept = [line(run, [_megabytes(s.get("memory", {}).get("bytes")) for s in run.sessions]) for run in runs]
    charts = [("Time per session, evaluation included (seconds)", times, "seconds")]
    if any(series.points() for series in kept):
        charts.insert(0, ("Memory kept after each session (MB)", kept, "MB"))
    parts += [figures(*charts, include_zero=[True] * len(charts)), legend(runs)]
    parts.append(details("Images, memory and time of every session", [_cost_numbers(run, kinds) for run in runs]))
    return section("cost", "Memory and time", parts)


def _megabytes(kept: Mapping[str, float] | None) -> float | None:
    return None if kept is None else sum(kept.values()) / 1e6


def _bar(kept: Mapping[str, float], kinds: Sequence[str], most: float) -> Markup:
    pieces = [
        element("span", class_=f"k{i % 5}", style=f"width:{100 * kept[kind] / most:.2f}%", title=kind)
        for i, kind in enumerate(kinds)
        if kept.get(kind)
    ]
    return element("div", pieces, class_="bar", aria_hidden="true")


def _cost_numbers(run: ReportRun, kinds: Sequence[str]) -> Markup:
    rows: list[list[Content]] = []
    for t, session in enumerate(run.sessions):
        train, memory = session.get("train", {}), session.get("memory", {})
        kept = memory.get("bytes", {})
        counts = [_whole(train.get("images")), number(train.get("labels_per_image"), 2), _whole(train.get("exemplars"))]
        stored = [_whole(memory.get(key)) for key in ("stored", "total")]
        times = [duration(session.get(key)) for key in ("seconds", "evaluation_seconds")]
        rows.append([t, *counts, *stored, *(bytes_text(kept.get(kind)) for kind in kinds), *times])
    return table(
        ["session", "new", "labels per image", "exemplars", "added", "total", *kinds, "session", "evaluation"],
        rows,
        f"{run.label}: training images, exemplars chosen after the session, bytes kept, time",
        groups=[("", 1), ("training images", 3), ("exemplars after", 2), ("bytes kept", len(kinds)), ("time", 2)],
    )


def figures(
    *charts: tuple[str, Sequence[Series], str], include_zero: Sequence[bool] | None = None, decimals: int = 1
) -> Markup:
    """Charts side by side, stacked on a narrow screen.

    Args:
        charts: title, lines and label of the y axis of each; lines have a value per session.
        include_zero: per chart, whether its y axis holds zero; default: none does.
        decimals: of the values in tool tips.
    """
    drawn = []
    for i, (title, series, y_label) in enumerate(charts):
        ticks = [str(t) for t in range(max(len(s.values) for s in series))]
        zero = include_zero is not None and include_zero[i]
        chart = line_chart(title, series, ticks, y_label=y_label, include_zero=zero, decimals=decimals)
        drawn.append(element("figure", element("figcaption", title), chart))
    return element("div", drawn, class_="figures")


def _whole(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"
