"""Charts: levels of the axis, room for names, gaps, well-formed markup."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from mlcil.reporting.stylesheet import CSS, contrast, ramp, style_sheet
from mlcil.reporting.svg import Series, line_chart, nice_levels, spread, swatch


def parse(chart):
    return ElementTree.fromstring(chart)


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
    levels = nice_levels(low, high)
    assert levels[0] <= low + 1e-9
    assert levels[-1] >= high - 1e-9 * max(1, abs(high))
    assert 2 <= len(levels) <= 8
    steps = [b - a for a, b in itertools.pairwise(levels)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    assert levels[-1] - levels[0] >= abs(high) / 21


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


def test_a_gap_splits_the_line_and_every_value_has_a_marker():
    chart = line_chart("t", [Series("a", [1, 2, None, 4, math.nan, 6, 7])], list("0123456"))
    root = parse(chart)
    assert len(root.findall(".//polyline")) == 2  # the lone value is a marker only
    assert len(root.findall(".//circle")) == 5
    assert root.get("role") == "img"
    assert "a: 0: 1.0, 1: 2.0, 3: 4.0, 5: 6.0, 6: 7.0." in root.find("desc").text


def test_names_are_escaped_and_shortened_and_whole_in_tips():
    name = "<b>&a very long name</b>"
    chart = line_chart("<title>", [Series(name, [1.0, 2.0])], ["0", "1"])
    root = parse(chart)
    assert root.find("title").text == "<title>"
    assert [e.text for e in root.iter("text") if e.get("class") == "name"] == ["<b>&a very long…"]
    assert root.find(".//circle/title").text == f"{name}, session 0: 1.0"


def test_short_names_in_a_crowd_and_for_lines_that_end_early():
    def names(chart):
        return [e.text for e in parse(chart).iter("text") if e.get("class") == "name"]

    few = [Series("long name", [1, 2], 0, "1"), Series("early", [1], 1, "2")]
    assert sorted(names(line_chart("t", few, ["0", "1"]))) == ["2", "long name"]
    many = [Series(f"name {k}", [1, k], k, str(k)) for k in range(12)]
    assert sorted(names(line_chart("t", many, ["0", "1"])), key=int) == [str(k) for k in range(12)]


def test_nothing_to_draw_is_said_in_words():
    assert line_chart("t", [Series("a", [None, math.nan])], ["0", "1"]).startswith("<p")


def test_one_session_and_many_sessions():
    assert len(parse(line_chart("t", [Series("a", [5.0])], ["0"])).findall(".//circle")) == 1
    ticks = [str(t) for t in range(50)]
    root = parse(line_chart("t", [Series("a", [float(t) for t in range(50)])], ticks))
    assert sum(e.text in ticks for e in root.iter("text") if e.get("class") == "mid") <= 13


def test_styles_differ_in_more_than_colour():
    assert len({swatch(style) for style in range(24)}) == 24


def test_the_heat_maps_ink_and_the_lines_can_be_read():
    shades = re.findall(r"\.h\d+\{background:#(\w{6});color:#(\w+)\}", style_sheet(11))
    assert len(shades) == 11
    for background, ink in shades:
        assert contrast(tuple(bytes.fromhex(background)), (17,) * 3 if ink == "111" else (255,) * 3) >= 4.5
    assert ramp(0) != ramp(1)
    light, dark = CSS.split("@media(prefers-color-scheme:dark)", 1)
    for scheme, panel in ((light, (0xF5, 0xF7, 0xF9)), (dark, (0x1D, 0x22, 0x28))):
        colours = re.findall(r"--s\d:#(\w{6})", scheme)
        assert len(colours) == 8
        assert all(contrast(tuple(bytes.fromhex(colour)), panel) >= 3 for colour in colours)
