"""Escaping, numbers, tables."""

import pytest

from mlcil.reporting.markup import DASH, Markup, bytes_text, details, duration, element, number, shorten, table, text


def test_text_and_attributes_are_escaped_and_markup_is_not():
    inner = element("b", "a < b & 'c'", title='"quoted" <x>')
    assert inner == '<b title="&quot;quoted&quot; &lt;x&gt;">a &lt; b &amp; &#x27;c&#x27;</b>'
    assert element("p", inner, " <i>") == f"<p>{inner} &lt;i&gt;</p>"
    assert text([Markup("<br>"), None, ["<", 1.5]]) == "<br>&lt;1.5"


def test_names_of_attributes():
    assert element("text", "x", class_="a", text_anchor="end", viewBox="0", gone=None) == (
        '<text class="a" text-anchor="end" viewBox="0">x</text>'
    )
    assert element("img", src="data:") == '<img src="data:">'
    assert element("line", x1=3) == '<line x1="3"/>'
    assert element("td") == "<td></td>"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, DASH), (float("nan"), DASH), (float("inf"), DASH), (-1.25, "−1.2"), (-0.01, "0.0"), (3, "3.0")],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_signed_numbers():
    assert [number(v, 0, signed=True) for v in (2.4, -2.4, 0.2, -0.2)] == ["+2", "−2", "0", "0"]


def test_sizes_times_and_names():
    assert [bytes_text(v) for v in (None, 0, 999, 1500, 2e6, 3.25e9)] == [
        DASH,
        "0",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "3.2 GB",
    ]
    assert [duration(v) for v in (None, 1.23, 42.4, 200, 59.8, 7500)] == [
        DASH, "1.2 s", "42 s", "3 m 20 s", "1 m 0 s", "2 h 5 m",
    ]  # fmt: skip
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"


def test_tables_name_their_rows_and_columns():
    shown = table(["<run>", "value"], [["<a>", "1 & 2"]], "what <it> is", groups=[("", 1), ("g", 1)], texts=(1,))
    assert '<th class="t" scope="row">&lt;a&gt;</th><td class="t">1 &amp; 2</td>' in shown
    assert '<th colspan="1" scope="colgroup" class="g">g</th>' in shown
    assert 'aria-label="what &lt;it&gt; is"' in shown
    assert details("more", "x", unfolded=True) == '<details open=""><summary>more</summary>x</details>'
