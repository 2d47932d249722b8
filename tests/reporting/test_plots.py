"""Charts: levels of the axis, room for names, gaps, hostile names, SVG that needs nothing else."""

import itertools
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from report_files import make_run

import mlcil
from mlcil.reporting import plots
from mlcil.reporting.plots import COLOURS, Series, as_svg, describe, draw_run, line_chart, spread, swatch
from mlcil.reporting.report_runs import read_runs
from mlcil.reporting.sections import LEVELS, chart

SOURCE = Path(mlcil.__file__).parents[1]
CSS = (SOURCE / "mlcil/reporting/templates/style.css").read_text()


def draw(series, ticks, **options):
    return line_chart(series, ticks, y_label="percent", **options)


def parse(series, ticks, title="t"):
    return ElementTree.fromstring(svg(series, ticks, title))


def svg(series, ticks, title="t"):
    return as_svg(draw(series, ticks), title, describe(series, ticks))


def names(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 100),
        (93.51, 93.51),
        (0, 0),
        (-8, 63),
        (1e-7, 3e-7),
        (0, 5.5e9),
        (99.7, 100),
        (-3, -3),
        *((0, 10**k * 0.99) for k in range(6)),
    ],
)
def test_levels_hold_the_values_and_are_few_and_even(low, high):
    axes = draw([Series("a", [low, high])], ["0", "1"]).axes[0]
    levels = axes.get_yticks()
    assert axes.get_ylim() == (levels[0], levels[-1])
    assert levels[0] <= low + 1e-9
    assert levels[-1] >= high - 1e-9 * max(1, abs(high))
    assert 2 <= len(levels) <= 8
    steps = np.diff(levels)
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    assert levels[-1] - levels[0] >= abs(high) / 21


def test_an_axis_holds_what_it_is_told():
    levels = draw([Series("a", [40.0, 41.0])], ["0", "1"], holds=(0, 100)).axes[0].get_yticks()
    assert (levels[0], levels[-1]) == (0, 100)
    assert draw([Series("a", [40.0, 41.0])], ["0", "1"]).axes[0].get_yticks()[0] > 30


def test_names_keep_their_order_and_distance_inside_the_picture():
    wanted = [50, 52, 51, 200, 199, 198]
    places = spread(wanted, 15, 0, 200)
    assert sorted(range(6), key=lambda i: places[i]) == sorted(range(6), key=lambda i: wanted[i])
    ordered = sorted(places)
    assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert 0 <= ordered[0] <= ordered[-1] <= 200
    crowd = sorted(spread([10] * 30, 15, 0, 200))
    assert crowd[0] >= -1e-9
    assert crowd[-1] <= 200 + 1e-9
    assert spread([], 15, 0, 200) == []
    assert spread([100, 100], 10, 0, 200) == [95, 105]


def test_a_gap_splits_the_line_and_every_value_has_a_marker():
    root = parse([Series("a", [1, 2, None, 4, math.nan, 6, 7])], list("0123456"))
    lines = [e.get("d") for e in root.iter("path") if "stroke-width: 1.7" in e.get("style")]
    assert len(lines) == 1
    segments = re.findall(r"M[^M]*", lines[0])
    assert [s.count("L") for s in segments if "L" in s] == [1, 1]  # the lone value is a marker only
    assert len(root.findall(".//g/title")) == 5
    assert root.get("role") == "img"
    assert "a: 0: 1.0, 1: 2.0, 3: 4.0, 5: 6.0, 6: 7.0." in root.find("desc").text


def test_names_are_escaped_and_shortened_and_whole_in_tips():
    name = "<b>&a very long name</b>"
    root = parse([Series(name, [1.0, 2.0])], ["0", "1"], "<title>")
    assert root.find("title").text == root.get("aria-label") == "<title>"
    assert "<b>&a very long…" in [e.text for e in root.iter("text")]
    assert root.find(".//g/title").text == f"{name}, session 0: 1.0"


@pytest.mark.parametrize("name", ["$\\frac{x$", "\x00\x1b]0;", "tip:<", "三 éß\nb", "\"'-->]]>", "\ud800"])
def test_names_are_no_formulas_and_any_character_is_drawn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = parse([Series(name, [1.0, 2.0])], ["0", "1"], name)
    assert not {"script", "b"} & {e.tag for e in root.iter()}
    assert len(root.findall(".//g/title")) == 2


def test_pictures_take_any_class_name(tmp_path):
    evil = ("$\\frac{x$", "\x00", "<b>", "a" * 500, "$", "{")
    (run,) = read_runs([make_run(tmp_path, classes=evil, scores=False)])
    paths = draw_run(tmp_path, run.sessions, evil)
    assert [path.name for path in paths] == ["map_per_session.png", "ap_per_class.png"]
    again = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in draw_run(tmp_path, run.sessions, evil)] == again


def test_short_names_in_a_crowd_and_for_lines_that_end_early():
    few = [Series("long name", [1, 2], 0, "1"), Series("early", [1], 1, "2")]
    assert sorted(names(draw(few, ["0", "1"]))) == ["2", "long name"]
    many = [Series(f"name {k}", [1, k], k, str(k)) for k in range(12)]
    assert sorted(names(draw(many, ["0", "1"])), key=int) == [str(k) for k in range(12)]


def test_nothing_to_draw_has_no_picture():
    assert chart("t", [Series("a", [None, math.nan])], "percent").svg is None


def test_one_session_and_many_sessions():
    assert len(parse([Series("a", [5.0])], ["0"]).findall(".//g/title")) == 1
    ticks = [str(t) for t in range(50)]
    axes = draw([Series("a", [float(t) for t in range(50)])], ticks).axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert len(shown) <= 13
    assert shown == [ticks[int(place)] for place in axes.get_xticks()]


def test_a_picture_needs_nothing_else_and_fits_its_place():
    written = svg([Series(str(k), [1, 5 - k / 10], k) for k in range(20)], ["0", "1"])
    root = ElementTree.fromstring(written)
    assert not re.search(r"url\(|href|xmlns|https?:|\bid=|#[0-9a-f]{6}", written)
    assert {e.tag for e in root.iter()} <= {"svg", "title", "desc", "g", "path", "text"}
    assert root.get("viewBox")
    assert root.get("width") is None
    assert written == svg([Series(str(k), [1, 5 - k / 10], k) for k in range(20)], ["0", "1"])


def test_styles_differ_in_more_than_colour():
    assert len({swatch(style) for style in range(24)}) == 24
    assert len({re.sub(r"--s\d", "", swatch(style)) for style in range(0, 24, 8)}) == 3


def test_only_what_draws_loads_the_drawing_libraries():
    code = (
        "import sys; from mlcil.reporting import comparison, contact_sheet, log_lines, report_runs, tables\n"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "import mlcil.reporting.html\n"
        "assert {'matplotlib', 'jinja2'} <= set(sys.modules) and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})


def contrast(a, b):
    """Contrast ratio of two colours as WCAG defines it, 1 to 21."""

    def luminance(colour):
        linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_heat_maps_ink_and_the_lines_can_be_read():
    shades = re.findall(r"\.h(\d+)\{background:#(\w{6});color:#(\w+)\}", CSS)
    assert [int(level) for level, _, _ in shades] == list(range(LEVELS))
    assert len({background for _, background, _ in shades}) == LEVELS
    for _, background, ink in shades:
        assert contrast(bytes.fromhex(background), (17,) * 3 if ink == "111" else (255,) * 3) >= 4.5
    light, dark = CSS.split("@media(prefers-color-scheme:dark)", 1)
    for scheme, panel in ((light, (0xF5, 0xF7, 0xF9)), (dark, (0x1D, 0x22, 0x28))):
        colours = re.findall(r"--s\d:#(\w{6})", scheme)
        assert len(colours) == len(COLOURS)
        assert all(contrast(bytes.fromhex(colour), panel) >= 3 for colour in colours)


def test_pictures_and_pages_share_their_colours():
    light = dict(re.findall(r"--(\w+):(#\w{6})", CSS.split("@media(prefers-color-scheme:dark)")[0]))
    assert [light[f"s{k}"] for k in range(len(COLOURS))] == list(COLOURS)
    assert (light["soft"], light["line"]) == (plots.SOFT, plots.GRID)
