"""The sections of a report that look into single runs: classes, pseudo-labels, provenance, glossary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlcil.evaluation import singlelabel
from mlcil.evaluation.sessions import GLOSSARY
from mlcil.reporting.markup import DASH, Content, Markup, details, element, number, scrolled, table
from mlcil.reporting.report_runs import ReportRun
from mlcil.reporting.report_tables import FOLDED, Section, figures, named, section
from mlcil.reporting.svg import Series

LEVELS = 11  # shades of the heat map: classes h0 ... h10 of the style sheet

#: words of the report besides those of the metrics
WORDS: dict[str, str] = {
    "growing / fixed test set": "test images that show a class seen so far / the same test images in every session",
    "target": "labels of old classes per image that KRT aims at with its pseudo-labels",
    "reached": "pseudo-labels per image that the chosen score threshold gives",
    "true": "labels of old classes per image that are really there, hidden from training",
    "precision / recall": "share of the pseudo-labels that are right / of the hidden labels that they restore",
    "exemplars": "training images of earlier sessions that a run keeps",
}


def heat_maps(runs: Sequence[ReportRun]) -> Section:
    """A class x session map per run."""
    scale = [element("span", class_=f"h{level}") for level in range(LEVELS)]
    key = element("p", "0 ", element("span", scale, class_="ramp", aria_hidden="true"), " 100 percent", class_="muted")
    name = " / ".join(sorted({run.measure.class_name for run in runs}))
    return section(
        "classes",
        f"{name} of every class",
        element(
            "p",
            "A row per class, a column per session"
            + (", on the fixed test set" if all(run.measure.fixed for run in runs) else "")
            + ". A rule separates the classes of different "
            "sessions, and a row starts in the session that brought its class. The last column says how far the class "
            "has moved since, in points.",
        ),
        key,
        element("div", [heat_map(run) for run in runs], class_="maps"),
    )


def heat_map(run: ReportRun) -> Markup:
    """The map of a run as a table."""
    results = [session[run.measure.per_class] for session in run.sessions]
    rows = []
    for t, (low, high) in enumerate(run.ranges):
        for c in range(low, high):
            name = run.classes[c] if c < len(run.classes) else str(c)
            values = [result[c] if c < len(result) else None for result in results]
            cells = [element("th", name, scope="row", class_="t", title=name)]
            cells += [_shade(value) if s >= t else element("td", class_="none") for s, value in enumerate(values)]
            moved = _difference(values[-1], values[t]) if t < len(results) - 1 else None
            cells.append(element("td", number(moved, 0, signed=True) if t < len(results) - 1 else "", class_="moved"))
            rows.append(element("tr", cells, class_="first" if c == low and t else None))
    head = [element("th", "class", scope="col", class_="t")]
    head += [element("th", str(t), scope="col") for t in range(len(results))]
    head.append(element("th", "±", scope="col", title="points since the session that brought the class"))
    caption = f"{run.label}: {run.measure.class_name} (percent) by session"
    whole = element("table", element("thead", element("tr", head)), element("tbody", rows), class_="heat")
    return scrolled(whole, caption, element("figcaption", named(run)))


def _shade(value: float | None) -> Markup:
    if value is None or not math.isfinite(value):
        return element("td", DASH)
    level = min(LEVELS - 1, max(0, int(value / 100 * (LEVELS - 1) + 0.5)))
    return element("td", number(value, 0), class_=f"h{level}", title=number(value, 2))


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


# -- what methods tell of themselves ----------------------------------------------------------------------------


def pseudo_labels(runs: Sequence[ReportRun]) -> Section | None:
    """KRT's dynamic pseudo-labels; ``None`` when no run has any."""
    shown = [run for run in runs if any(_dpl(session) for session in run.sessions)]
    if not shown:
        return None
    text = (
        "In a session only its own classes are labelled. KRT labels the old ones with the previous model: it looks "
        "for the score threshold that gives the target number of labels per image. The hidden truth is used here "
        "only, to say how right these labels are."
    )
    return section(
        "pseudo-labels",
        "Pseudo-labels",
        element("p", text),
        [_pseudo_labels(run, len(shown) <= FOLDED) for run in shown],
    )


def _dpl(session: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (session.get("report") or {}).get("dpl") or {}
    return found


def _pseudo_labels(run: ReportRun, unfolded: bool) -> Markup:
    found = [_dpl(session) for session in run.sessions]
    rows: list[list[Content]] = []
    for t, dpl in enumerate(found):
        if not dpl:
            rows.append([t, *[DASH] * 9])
            continue
        landed = {True: "yes", False: "no"}.get(dpl.get("landed"), DASH)  # type: ignore[arg-type]
        evaluations = dpl.get("evaluations")
        counts = [number(dpl.get(key), 2) for key in ("target", "reached", "true")]
        shares = [_percent(dpl.get(key)) for key in ("precision", "recall")]
        search = [number(dpl.get("threshold"), 3), DASH if evaluations is None else str(evaluations), landed]
        rows.append([t, *counts, *shares, *search, str(dpl.get("mode", DASH))])
    whole = table(
        ["session", "target", "reached", "true", "precision", "recall", "threshold", "steps", "landed", "mode"],
        rows,
        f"{run.label}: pseudo-labels of old classes",
        groups=[("", 1), ("labels per image", 3), ("against the truth (%)", 2), ("search", 4)],
        texts=(9,),
    )
    counts_chart = [
        Series(key, [dpl.get(key) for dpl in found], i) for i, key in enumerate(("target", "reached", "true"))
    ]
    shares_chart = [
        Series(key, [_times_100(dpl.get(key)) for dpl in found], i) for i, key in enumerate(("precision", "recall"), 3)
    ]
    charts = figures(
        (f"{run.label}: labels of old classes per image", counts_chart, "labels per image"),
        (f"{run.label}: pseudo-labels against the truth", shares_chart, "percent"),
        include_zero=(True, True),
        decimals=2,
    )
    return details(named(run), charts, whole, _class_thresholds(run, found), unfolded=unfolded)


def _class_thresholds(run: ReportRun, found: Sequence[Mapping[str, Any]]) -> Markup | None:
    given = [(t, dpl["per_class"]) for t, dpl in enumerate(found) if dpl.get("per_class")]
    if not given:
        return None
    most = max(len(values) for _, values in given)
    rows = [
        [run.classes[c], *(number(values[c], 3) if c < len(values) else "" for _, values in given)]
        for c in range(min(most, len(run.classes)))
    ]
    whole = table(["class", *(f"session {t}" for t, _ in given)], rows, f"{run.label}: score threshold of every class")
    return details("Thresholds of the classes", whole)


def other_reports(runs: Sequence[ReportRun]) -> Section | None:
    """What methods report besides pseudo-labels; ``None`` when there is nothing."""
    rows: list[list[Content]] = []
    for run in runs:
        for t, session in enumerate(run.sessions):
            for name, values in (session.get("report") or {}).items():
                if name != "dpl":
                    items = values.items() if isinstance(values, Mapping) else [("", values)]
                    rows.append([named(run), t, name, ", ".join(f"{k} {_plain(v)}".strip() for k, v in items)])
    if not rows:
        return None
    whole = table(["run", "session", "part", "values"], rows, "What the methods found out", texts=(2, 3))
    return section("methods", "Reports of the methods", whole)


# -- where the numbers come from --------------------------------------------------------------------------------


def provenance(runs: Sequence[ReportRun]) -> Section:
    """Command, config, weights, versions, seed and hashes of every run."""
    return section("provenance", "Where the numbers come from", [_provenance(run, len(runs) <= FOLDED) for run in runs])


def _provenance(run: ReportRun, unfolded: bool) -> Markup:
    facts: dict[str, Any] = {
        key: run.content.get(key)
        for key in ("method", "dataset", "protocol", "protocol_hash", "comparison_hash", "status")
        if key in run.content
    }
    facts.update(run.content.get("provenance") or {})
    facts["sessions"] = "; ".join(
        f"{t}: {', '.join(run.classes[low:high])}" for t, (low, high) in enumerate(run.ranges)
    )
    rows = [
        element(
            "tr",
            element("th", key.replace("_", " "), scope="row", class_="t"),
            element("td", _fact(value), class_="t"),
        )
        for key, value in facts.items()
    ]
    body = scrolled(element("table", element("tbody", rows), class_="facts"), f"{run.label}: provenance")
    config = details("Config", element("pre", str(run.content.get("config", "not in results.json"))))
    return details(named(run), body, config, unfolded=unfolded)


def _fact(value: Any) -> Markup:
    """A value of any depth as text; mappings line by line."""
    if isinstance(value, Mapping):
        return element("span", [[element("i", str(key)), " ", _fact(v), element("br")] for key, v in value.items()])
    return element("span", "none" if value is None else str(value))


def glossary(runs: Sequence[ReportRun]) -> Section:
    """The words of the runs' metrics and of the report."""
    words: dict[str, str] = {}
    if any(run.measure.fixed for run in runs):
        words.update(GLOSSARY)
    if not all(run.measure.fixed for run in runs):
        words.update(singlelabel.GLOSSARY)
    words.update(WORDS)
    return section(
        "glossary",
        "Glossary",
        element("dl", [[element("dt", word), element("dd", meaning)] for word, meaning in words.items()]),
    )


def _percent(value: float | None) -> str:
    return number(_times_100(value))


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
