"""Charts by matplotlib: PNG files in a run's folder, inline SVG in a report.

A line has a colour, a marker and a dash pattern of its own, and its name stands at its last point.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patches import PathPatch, Polygon
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation

from mlcil.evaluation.metrics import metrics_of
from mlcil.evaluation.singlelabel import accuracy_matrix
from mlcil.files import write_bytes
from mlcil.reporting.formats import number, shorten

#: of the lines, in the order of their styles; an SVG names them as ``--s0`` ... ``--s7`` of the page's style sheet
COLOURS = ("#0069a8", "#c44e00", "#00805d", "#a3478a", "#8a6500", "#59616b", "#007c91", "#b3123a")
SOFT, GRID = "#5b6570", "#d5dae0"  # text and zero line, other grid lines: --soft and --line
MARKERS, DASHES = "os^D", ("-", (0, (4, 2.2)), (0, (1.2, 2.2)))
WIDTH, HEIGHT, TEXT = 360, 240, 10  # points
TOP, BOTTOM = 10, 36
NAME_LENGTH, CHARACTER, LINE = 16, 6.6, 11.5
CROWD = 8  # with more lines, short names stand at their ends
LEAD = {"arrowstyle": "-", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 3}  # from a name to its line
TIP = "tip:"  # begins the id of a part that has a tool tip
UNPRINTABLE = re.compile(r"[^\t\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: shown at the line's end.
        values: one per tick of the x axis; ``None`` and NaN leave a gap, missing ones at the end do too.
        style: number that sets colour, marker and dashes.
        short: stands for the name where there is little room; a legend must then give the name.
        deviations: half the width of a band around each value; empty draws none.
    """

    name: str
    values: Sequence[float | None]
    style: int = 0
    short: str = ""
    deviations: Sequence[float | None] = ()

    def points(self) -> list[tuple[int, float]]:
        """(tick, value) where a value exists."""
        return [(t, v) for t, v in enumerate(self.values) if v is not None and math.isfinite(v)]

    def widths(self) -> list[float]:
        """Half the width of the band at each point."""
        return [self.deviations[t] or 0.0 if t < len(self.deviations) else 0.0 for t, _ in self.points()]

    def bounds(self) -> list[tuple[float, float]]:
        """Lower and upper edge of the band at each point."""
        return [(v - w, v + w) for (_, v), w in zip(self.points(), self.widths(), strict=True)]


@dataclass(frozen=True)
class Curve:
    """A line or a cloud of points over numbers.

    Attributes:
        name: of the whole.
        x, y: as many numbers each.
        style: number that sets colour, marker and dashes.
        line: join the points and leave out their markers.
        tips: tool tip of each marker.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0
    line: bool = True
    tips: Sequence[str] = ()


def line_chart(
    series: Sequence[Series], ticks: Sequence[str], *, y_label: str, holds: Sequence[float] = (), decimals: int = 1
) -> Figure:
    """Lines over sessions; a series with a single value stands on a stem.

    Args:
        series: at least one of them has a value; those without any are left out.
        ticks: labels of the x axis, the sessions.
        y_label: of the y axis.
        holds: values that the y axis must hold. It spans at least a twentieth of its highest number, so that small
            differences stay small.
        decimals: of the values in tool tips.
    """
    drawn = [s for s in series if s.points()]
    names = [_label(s, len(drawn), len(ticks)) for s in drawn]
    values = [v for s in drawn for low, high in s.bounds() for v in (low, high)] + list(holds)
    lone = all(len(s.points()) == 1 for s in drawn)
    levels = _levels(values + [0.0] * lone)
    figure, axes = _axes(levels, names, y_label)
    every = math.ceil(len(ticks) / 12)
    axes.set_xticks(range(0, len(ticks), every), ticks[::every], color=SOFT, fontsize=TEXT)
    axes.set_xlim((-0.5, len(ticks) - 0.5) if lone else (0, len(ticks) - 1))
    axes.set_xlabel("session", color=SOFT, fontsize=TEXT)
    for last in {s.points()[-1][0] for s in drawn}:  # names at the same tick make room for each other
        ending = [i for i, s in enumerate(drawn) if s.points()[-1][0] == last]
        heights = [float(axes.transData.transform((last, drawn[i].points()[-1][1]))[1]) for i in ending]
        places = spread(heights, LINE, BOTTOM, HEIGHT - TOP)
        for k, (i, height, place) in enumerate(zip(ending, heights, places, strict=True)):
            edge = 0.03 * (len(ending) - 1)  # stems side by side, their names to the right of all
            stem = (0.06 * k - edge, edge) if lone else None
            _line(axes, drawn[i], names[i], place - height, ticks, decimals, stem)
    return figure


def xy_chart(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    x_holds: Sequence[float] = (),
    y_holds: Sequence[float] = (),
    log: bool = False,
    marks: Sequence[float] = (),
) -> Figure:
    """Curves or points over numbers.

    Args:
        curves: at least one, each with at least one point.
        x_label, y_label: of the axes.
        x_holds, y_holds: values that the axes must hold.
        log: the x axis is logarithmic; all x are positive.
        marks: x of vertical lines.
    """
    names = [shorten(printable(curve.name), NAME_LENGTH) for curve in curves]
    levels = _levels([v for curve in curves for v in curve.y] + list(y_holds))
    figure, axes = _axes(levels, names, y_label)
    x = [v for curve in curves for v in curve.x] + list(x_holds)
    low, high = min(x), max(x)
    inside: list[float]
    if log:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        steps = [m * 10.0**k for k in range(int(math.log10(low)) - 1, int(math.log10(high)) + 2) for m in (1, 2, 5)]
        inside = [step for step in steps if low / 1.15 <= step <= high * 1.15]
        if len(inside) < 3:
            even = MaxNLocator(4, integer=True).tick_values(low / 1.15, high * 1.15)
            inside = [float(v) for v in even if low / 1.15 <= v <= high * 1.15]
        inside = inside[:: math.ceil(len(inside) / 6)]
        axes.set_xticks(inside, [f"{step:g}" for step in inside], color=SOFT, fontsize=TEXT)
        axes.minorticks_off()
    else:
        inside = [float(v) for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]
        axes.set_xticks(inside, [f"{v:g}" for v in inside], color=SOFT, fontsize=TEXT)
        axes.set_xlim(low, high if high > low else low + 1)
    axes.set_xlabel(x_label, color=SOFT, fontsize=TEXT)
    for mark in marks:
        axes.axvline(mark, color=SOFT, linewidth=0.8, clip_on=False)
    heights = [float(axes.transData.transform((1, curve.y[-1]))[1]) for curve in curves]
    right = float(axes.transAxes.transform((1, 0))[0])
    for curve, name, place in zip(curves, names, spread(heights, LINE, BOTTOM, HEIGHT - TOP), strict=True):
        colour = COLOURS[curve.style % len(COLOURS)]
        if curve.line:
            _styled(axes, curve.style, curve.x, curve.y)
        for k, (x_value, y_value) in enumerate(zip(curve.x, curve.y, strict=True) if not curve.line else ()):
            tip = f"{TIP}{printable(curve.tips[k] if k < len(curve.tips) else curve.name)}"
            _marker(axes, curve.style, 6, x_value, y_value, gid=tip)
        figure.text(
            (right + 9) / WIDTH, place / HEIGHT, name, va="center_baseline", color=colour, fontsize=TEXT,
            fontweight="bold", parse_math=False,
        )  # fmt: skip
    return figure


def _levels(values: Sequence[float]) -> list[float]:
    """Even levels of an axis that hold the values."""
    low, high = min(values), max(values)
    span = max(high - low, abs(high) / 20) or 1.0
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    return [float(level) for level in locator.tick_values(min(low, high - span) if high else low, low + span)]


def _axes(levels: Sequence[float], names: Sequence[str], y_label: str) -> tuple[Figure, Axes]:
    """A picture with room for names on the right, and its axes with levels and no x axis yet."""
    marks = [f"{round(level, 10) + 0.0:g}".replace("-", "−") for level in levels]
    left, right = 24 + CHARACTER * max(map(len, marks)), 14 + CHARACTER * max(map(len, names))
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    box = (left / WIDTH, BOTTOM / HEIGHT, 1 - (left + right) / WIDTH, 1 - (TOP + BOTTOM) / HEIGHT)
    axes = figure.add_axes(box, frameon=False)
    axes.set_yticks(levels, marks, color=SOFT, fontsize=TEXT)
    axes.set(ylim=(levels[0], levels[-1]))
    axes.tick_params(left=False, bottom=False)
    axes.grid(axis="y", color=GRID, clip_on=False)
    if levels[0] < 0 <= levels[-1]:
        axes.axhline(0, color=SOFT, linewidth=0.8, clip_on=False)
    figure.text(10 / WIDTH, box[1] + box[3] / 2, y_label, rotation=90, ha="center", va="center", color=SOFT)
    return figure, axes


def _label(series: Series, lines: int, ticks: int) -> str:
    crowded = lines > CROWD or series.points()[-1][0] < ticks - 1
    return series.short if series.short and crowded else shorten(printable(series.name), NAME_LENGTH)


def _line(
    axes: Axes,
    series: Series,
    name: str,
    shift: float,
    ticks: Sequence[str],
    decimals: int,
    stem: tuple[float, float] | None,
) -> None:
    """Line, band, markers with tool tips, and the name ``shift`` points above the last marker.

    With ``stem`` the series has a single value, which stands on a stem: how far its tick and name are moved.
    """
    points = [(t + (stem[0] if stem else 0.0), value) for t, value in series.points()]
    colour = COLOURS[series.style % len(COLOURS)]
    if stem is not None:
        _styled(axes, series.style, [points[0][0]] * 2, [0.0, points[0][1]])
    else:
        values = [math.nan if v is None else v for v in series.values]
        _styled(axes, series.style, range(len(values)), values)
    widths = series.widths()
    if any(widths):
        upper = [(t, high) for (t, _), (_, high) in zip(points, series.bounds(), strict=True)]
        lower = [(t, low) for (t, _), (low, _) in zip(points, series.bounds(), strict=True)]
        corners = np.array([*upper, *reversed(lower)])
        axes.add_patch(Polygon(corners, color=colour, alpha=0.16, linewidth=0, clip_on=False))
    for (t, _), (place, value), width in zip(series.points(), points, widths, strict=True):
        band = f" ± {number(width, decimals)}" if width else ""
        tip = f"{TIP}{printable(series.name)}, session {ticks[t]}: {number(value, decimals)}{band}"
        _marker(axes, series.style, 5.5, place, value, gid=tip)
    last = series.points()[-1]
    axes.annotate(
        name,
        (last[0] + (stem[1] if stem else 0.0), last[1]),
        xytext=(9, shift),
        textcoords="offset points",
        annotation_clip=False,
        parse_math=False,
        va="center_baseline",
        color=colour,
        fontsize=TEXT,
        fontweight="bold",
        arrowprops={**LEAD, "color": colour} if abs(shift) > 2 else None,
    )


def swatch(style: int) -> Markup:
    """Marker and line of a style, for a legend or a row of a table."""
    figure = Figure(figsize=(28 / 72, 16 / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 28), ylim=(0, 16))
    axes.set_axis_off()
    _styled(axes, style, [1, 27], [8, 8])
    _marker(axes, style, 8, 14, 8)
    return as_svg(figure)


def _styled(axes: Axes, style: int, x: Sequence[float], y: Sequence[float]) -> str:
    """Draw the line of a style; returns its colour. Nothing is clipped: an SVG's clip would refer to a part by id."""
    colour, dashes = COLOURS[style % len(COLOURS)], DASHES[style // len(COLOURS) % len(DASHES)]
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.7, clip_on=False)
    return colour


def _marker(axes: Axes, style: int, size: float, x: float, y: float, gid: str | None = None) -> None:
    """A shape of its own, ``size`` points wide, since SVG would repeat a line's markers by id."""
    marker = MarkerStyle(MARKERS[(style + style // len(COLOURS)) % len(MARKERS)])
    shape = marker.get_transform() + Affine2D().scale(size / 72) + axes.figure.dpi_scale_trans
    place = shape + ScaledTranslation(x, y, axes.transData)  # type: ignore[arg-type]  # any transform will do
    colour = COLOURS[style % len(COLOURS)]
    axes.add_artist(PathPatch(marker.get_path(), transform=place, color=colour, gid=gid, clip_on=False, zorder=3))


def as_svg(figure: Figure, title: str = "", description: str = "") -> Markup:
    """Inline SVG that needs nothing outside itself, coloured by the page's style sheet.

    Args:
        figure: without clipped parts, which would refer to others by id.
        title: of the picture, for those who do not see it; without one it is an ornament.
        description: what it shows, in words.
    """
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", "Glyph")  # the browser has its own fonts
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    root.attrib = {"viewBox": root.attrib["viewBox"]}
    root.remove(root[0])  # a style sheet that would hold for the page
    for element in list(root.iter()):
        element.tag = element.tag.split("}")[1]
        element.text, element.tail = (element.text or "").strip() or None, None
        name = element.attrib.pop("id", "")
        if name.startswith(TIP):
            element.insert(0, _worded("title", name.removeprefix(TIP)))
        if "style" in element.attrib:
            element.set("style", _themed(element.attrib["style"]))
        if "d" in element.attrib:
            element.set("d", re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.4g}", element.attrib["d"]))
    if title:
        root.attrib |= {"role": "img", "aria-label": printable(title)}
        root.insert(0, _worded("title", printable(title)))
        root.insert(1, _worded("desc", printable(description)))
    else:
        root.attrib |= {"class": "swatch", "aria-hidden": "true"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _worded(tag: str, words: str) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    element.text = words
    return element


def _themed(style: str) -> str:
    """Colours as variables of the style sheet, fonts as the page has them."""
    style = re.sub(r"font-family: [^;]*; |'[^;]*sans-serif(?=;)", "", style)
    for k, colour in enumerate(COLOURS):
        style = style.replace(colour, f"var(--s{k})")
    return style.replace(SOFT, "var(--soft)").replace(GRID, "var(--line)")


def printable(words: str) -> str:
    """Without the characters that XML has no place for."""
    return UNPRINTABLE.sub("\ufffd", words)


def describe(series: Sequence[Series], ticks: Sequence[str], decimals: int = 1) -> str:
    """The values in words."""
    return " ".join(
        f"{s.name}: " + ", ".join(f"{ticks[t]}: {number(v, decimals)}" for t, v in s.points()) + "." for s in series
    )


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in the same order, ``distance`` apart where [low, high] has the room."""
    distance = min(distance, (high - low) / max(len(wanted) - 1, 1))
    order = np.argsort(wanted, kind="stable")
    steps = distance * np.arange(len(wanted))
    sorted_wanted = np.asarray(wanted, dtype=float)[order]
    upward = np.maximum.accumulate(np.maximum(sorted_wanted, low) - steps)
    downward = np.minimum.accumulate((np.minimum(sorted_wanted, high) - steps)[::-1])[::-1]
    # halfway between pushing all names up and pushing all down
    middle = (np.minimum(upward, high - distance * (len(wanted) - 1)) + np.maximum(downward, low)) / 2 + steps
    placed = np.empty(len(wanted))
    placed[order] = middle
    return placed.tolist()


# -- pictures in a run's folder -------------------------------------------------------------------------------


def draw_run(folder: Path, results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Path]:
    """Write the curves of a run into ``folder``; returns their paths.

    With many labels an image ``map_per_session.png`` and ``ap_per_class.png``, with one
    ``accuracy_per_session.png`` and ``accuracy_matrix.png``.
    """
    if metrics_of(results[0]).headline == "accuracy":
        figures = {"accuracy_per_session.png": accuracy_per_session(results), "accuracy_matrix.png": matrix(results)}
    else:
        figures = {"map_per_session.png": map_per_session(results), "ap_per_class.png": ap_per_class(results, classes)}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", metadata={"Software": None})
        write_bytes(folder / name, buffer.getvalue())
    return [folder / name for name in figures]


def map_per_session(results: Sequence[Mapping[str, Any]]) -> Figure:
    """MAP on base, seen and new classes, on the growing and on the fixed test set."""
    return _per_session(results, {"mAP": "growing", "fixed_mAP": "fixed"}, "mAP")


def accuracy_per_session(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy on base, seen and new classes, top-1 and top-5."""
    return _per_session(results, {"accuracy": "top-1", "top5": "top-5"}, "accuracy")


def _per_session(results: Sequence[Mapping[str, Any]], keys: Mapping[str, str], measure: str) -> Figure:
    """A solid line a split for the first key and a dashed one for the second."""
    series = [
        Series(f"{split}, {label}", [result[key][split] for result in results], k * len(COLOURS) + i)
        for k, (key, label) in enumerate(keys.items())
        for i, split in enumerate(("seen", "base", "new"))
    ]
    ticks = [str(result["index"]) for result in results]
    figure = line_chart(series, ticks, y_label=f"{measure} (%)", holds=(0, 100))
    figure.axes[0].set_title(f"{measure} per session", fontsize=TEXT + 1)
    return figure


def matrix(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Heat map of the accuracy matrix: a row per session whose classes are tested, a column per session reached."""
    table = np.array(accuracy_matrix(results), dtype=float).T
    names = [f"session {result['index']}'s classes" for result in results]
    return _heat_map(table, names, results, "accuracy (%) on each session's classes")


def ap_per_class(results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Heat map of AP on the fixed test set: a row per class, a column per session."""
    rows = len(results[-1]["fixed_AP"])
    table = np.full((rows, len(results)), np.nan)
    for t, result in enumerate(results):
        table[: len(result["fixed_AP"]), t] = np.array(result["fixed_AP"], dtype=float)
    return _heat_map(table, classes[:rows], results, "AP (%) per class, fixed test set")


def _heat_map(table: np.ndarray, names: Sequence[str], results: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Percentages, with their numbers where there are few: a row per name, a column per session."""
    rows = len(table)
    figure = Figure(figsize=(2.4 + 0.55 * len(results), 1.4 + 0.24 * rows))
    axes = figure.add_subplot()
    image = axes.imshow(table, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_yticks(range(rows), [shorten(printable(name), 40) for name in names], fontsize=8, parse_math=False)
    axes.set_xticks(range(len(results)), [str(r["index"]) for r in results])
    axes.set(xlabel="session", title=title)
    if rows <= 40:
        for (i, j), value in np.ndenumerate(table):
            if not np.isnan(value):
                shade = "black" if value > 60 else "white"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(image, ax=axes, fraction=0.08, pad=0.03)
    return figure
