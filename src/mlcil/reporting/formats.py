"""Numbers, sizes and times as a reader of a report sees them."""

from __future__ import annotations

import math

DASH = "–"


def number(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A number with a true minus sign, or a dash where none exists; what rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return DASH
    shown = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    return (shown.lstrip("+-") if float(shown) == 0 else shown).replace("-", "−")


def whole(value: float | None) -> str:
    """``12,345``, or a dash."""
    return DASH if value is None else f"{value:,.0f}"


def bytes_text(value: float | None) -> str:
    """``1.4 MB`` in powers of 1,000; zero is ``0``."""
    if value is None or not math.isfinite(value):
        return DASH
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B" if value else "0"


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``42 s``, ``3 m 20 s`` or ``2 h 5 m``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes = rounded // 60
    return f"{minutes} m {rounded % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} m"


def shorten(name: str, length: int) -> str:
    """At most ``length`` characters, with an ellipsis where something is left out."""
    return name if len(name) <= length else name[: length - 1] + "…"


def sentence_case(words: str) -> str:
    """With a capital first letter, but for ``mAP`` and its like."""
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]
