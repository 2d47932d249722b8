"""Numbers, sizes, times and names."""

import pytest

from mlcil.reporting.formats import DASH, bytes_text, duration, number, sentence_case, shorten, whole


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, DASH), (float("nan"), DASH), (float("inf"), DASH), (-1.25, "−1.2"), (-0.01, "0.0"), (3, "3.0")],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_signed_and_whole_numbers():
    assert [number(v, 0, signed=True) for v in (2.4, -2.4, 0.2, -0.2)] == ["+2", "−2", "0", "0"]
    assert [whole(v) for v in (None, 0, 12345)] == [DASH, "0", "12,345"]


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
    assert [sentence_case(words) for words in ("mAP of it", "accuracy of it")] == ["mAP of it", "Accuracy of it"]
