"""Line charts as inline SVG, coloured by the page's style sheet.

A series has a colour, a marker and a dash pattern of its own, and its name stands at its last point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlcil.reporting.markup import Markup, element, number, shorten

COLOURS = 8  # classes s0 ... s7 of the style sheet
WIDTH, HEIGHT = 480, 320
TOP, BOTTOM, LEFT = 14, 46, 44
NAME_LENGTH, CHARACTER, LINE = 16, 8.6, 15
CROWD = 8  # with more lines, short names stand at their ends
DASHES = (None, "7 4", "2 4")


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: shown at the line's end.
        values: one per tick of the x axis; ``None`` and NaN leave a gap, missing ones at the end do too.
        style: number that sets colour, marker and dashes.
        short: stands for the name where there is little room; a legend must then give the name.
    """

    name: str
    values: Sequence[float | None]
    style: int = 0
    short: str = ""

    def points(self) -> list[tuple[int, float]]:
        """(tick, value) where a value exists."""
        return [(t, v) for t, v in enumerate(self.values) if v is not None and math.isfinite(v)]


def line_chart(
    title: str,
    series: Sequence[Series],
    ticks: Sequence[str],
    *,
    x_label: str = "session",
    y_label: str = "",
    decimals: int = 1,
    include_zero: bool = False,
) -> Markup:
    """A chart of ``series`` over common ticks.

    Args:
        title: name of the picture for those who do not see it; the values follow in its description.
        series: lines; those without any value are left out.
        ticks: labels of the x axis.
        x_label, y_label: of the axes.
        decimals: of the values in tool tips and description.
        include_zero: let the y axis hold zero.

    Returns:
        An ``svg`` element; a paragraph when no series has a value.
    """
    drawn = [s for s in series if s.points()]
    if not drawn:
        return element("p", "No session has this number.", class_="muted")
    values = [v for s in drawn for _, v in s.points()]
    if include_zero:
        values.append(0.0)
    levels = nice_levels(min(values), max(values))
    names = [
        s.short
        if s.short and (len(drawn) > CROWD or s.points()[-1][0] < len(ticks) - 1)
        else shorten(s.name, NAME_LENGTH)
        for s in drawn
    ]
    right = 18 + CHARACTER * max(len(name) for name in names)
    low, high = levels[0], levels[-1]
    marks = [f"{level:g}".replace("-", "−") for level in levels]
    left = max(LEFT, 30 + CHARACTER * max(map(len, marks)))  # beside the y axis' own label

    def x(tick: int) -> float:
        width = WIDTH - left - right
        return left + (width / 2 if len(ticks) == 1 else width * tick / (len(ticks) - 1))

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [element("title", title), element("desc", description(drawn, ticks, decimals))]
    for level, mark in zip(levels, marks, strict=True):
        zero = " zero" if level == 0 and low < 0 else ""
        parts.append(
            element("line", x1=left, x2=_r(WIDTH - right), y1=_r(y(level)), y2=_r(y(level)), class_=f"grid{zero}")
        )
        parts.append(element("text", mark, x=left - 8, y=_r(y(level) + 4), class_="end"))
    every = max(1, math.ceil(len(ticks) / 12))
    for t, tick in enumerate(ticks):
        if t % every == 0:
            parts.append(element("text", tick, x=_r(x(t)), y=HEIGHT - BOTTOM + 20, class_="mid"))
    parts.append(element("text", x_label, x=_r((left + WIDTH - right) / 2), y=HEIGHT - 6, class_="mid label"))
    if y_label:
        middle = _r((TOP + HEIGHT - BOTTOM) / 2)
        parts.append(element("text", y_label, x=12, y=middle, class_="mid label", transform=f"rotate(-90 12 {middle})"))
    for last in sorted({s.points()[-1][0] for s in drawn}):  # names at the same tick make room for each other
        ending = [i for i, s in enumerate(drawn) if s.points()[-1][0] == last]
        places = spread([y(drawn[i].points()[-1][1]) for i in ending], LINE, TOP, HEIGHT - BOTTOM)
        parts += [
            _line(drawn[i], names[i], place, ticks, x, y, decimals) for i, place in zip(ending, places, strict=True)
        ]
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)


def _line(
    series: Series,
    name: str,
    name_y: float,
    ticks: Sequence[str],
    x: Callable[[int], float],
    y: Callable[[float], float],
    decimals: int,
) -> Markup:
    parts: list[Markup] = []
    runs: list[list[str]] = [[]]
    previous = -1
    for t, value in series.points():
        if t != previous + 1 and runs[-1]:
            runs.append([])
        runs[-1].append(f"{_r(x(t))},{_r(y(value))}")
        previous = t
    dashes = DASHES[series.style // COLOURS % len(DASHES)]
    parts += [element("polyline", points=" ".join(run), stroke_dasharray=dashes) for run in runs if len(run) > 1]
    for t, value in series.points():
        tip = element("title", f"{series.name}, session {ticks[t]}: {number(value, decimals)}")
        parts.append(marker(series.style, x(t), y(value), tip))
    last_t, last = series.points()[-1]
    start = x(last_t) + 9
    if abs(name_y - y(last)) > 3:
        parts.append(
            element("line", x1=_r(x(last_t) + 5), y1=_r(y(last)), x2=_r(start + 2), y2=_r(name_y), class_="lead")
        )
    parts.append(element("text", name, x=_r(start + 4), y=_r(name_y + 4), class_="name"))
    return element("g", parts, class_=f"s{series.style % COLOURS}")


def marker(style: int, x: float, y: float, *content: Markup) -> Markup:
    """The marker of a style at a place: circle, square, triangle or diamond."""
    kind = (style + style // COLOURS) % 4
    if kind == 0:
        return element("circle", *content, cx=_r(x), cy=_r(y), r=4)
    if kind == 1:
        return element("rect", *content, x=_r(x - 3.6), y=_r(y - 3.6), width=7.2, height=7.2)
    corners = ((0, -5), (4.8, 3.6), (-4.8, 3.6)) if kind == 2 else ((0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0))
    path = "M" + "L".join(f"{_r(x + dx)} {_r(y + dy)}" for dx, dy in corners) + "Z"
    return element("path", *content, d=path)


def swatch(style: int) -> Markup:
    """Marker and line of a style, for a legend or a row of a table."""
    line = element("polyline", points="1,8 27,8", stroke_dasharray=DASHES[style // COLOURS % len(DASHES)])
    inner = element("g", line, marker(style, 14, 8), class_=f"s{style % COLOURS}")
    return element("svg", inner, viewBox="0 0 28 16", class_="swatch", aria_hidden="true")


def description(series: Sequence[Series], ticks: Sequence[str], decimals: int = 1) -> str:
    """The values in words."""
    return " ".join(
        f"{s.name}: " + ", ".join(f"{ticks[t]}: {number(v, decimals)}" for t, v in s.points()) + "." for s in series
    )


def nice_levels(low: float, high: float, most: int = 6) -> list[float]:
    """Evenly spaced round numbers from at most ``low`` to at least ``high``: 2 to about ``most``.

    They span at least a twentieth of the highest number, so that small differences stay small.
    """
    span = max(high - low, abs(high) / 20) or 1.0
    low = min(low, high - span) if high else low
    high = max(high, low + span)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * f for f in (1, 2, 2.5, 5, 10, 20) if span / (power * f) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last += 1
    return [round(k * step, 10) for k in range(first, last + 1)]


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in the same order, ``distance`` apart where [low, high] has the room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    distance = min(distance, (high - low) / max(len(wanted) - 1, 1))
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], low if not placed else placed[-1] + distance))
    ceiling = high
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], ceiling)
        ceiling = placed[k] - distance
    result = [0.0] * len(wanted)
    for i, place in zip(order, placed, strict=True):
        result[i] = place
    return result


def _r(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
