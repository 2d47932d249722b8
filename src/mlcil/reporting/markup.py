"""HTML and SVG text in which nothing foreign is left unescaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

DASH = "–"
Content: TypeAlias = "str | int | float | Iterable[Content] | None"
VOID = frozenset({"meta", "img", "br", "hr", "rect", "line", "circle", "path", "polyline"})


class Markup(str):
    """Text that is markup already; any other string is escaped where it enters markup."""

    __slots__ = ()


def text(content: Content) -> Markup:
    """Escape and join; ``None`` is nothing, :class:`Markup` stays as it is."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, (str, int, float)):
        return Markup(html.escape(str(content), quote=True))
    return Markup("".join(text(part) for part in content))


def element(name: str, *content: Content, **attributes: str | int | float | None) -> Markup:
    """``<name attribute="value">content</name>`` with everything escaped.

    Args:
        name: of the element.
        content: text, numbers, markup, or sequences of them.
        attributes: ``None`` leaves one out; a trailing underscore is dropped (``class_``), others become
            hyphens (``text_anchor``).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not content:
        return Markup(f"<{name}{written}>" if name in ("meta", "img", "br", "hr") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{text(content)}</{name}>")


def number(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A number, or a dash where none exists."""
    if value is None or not math.isfinite(value):
        return DASH
    shown = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(shown) == 0:
        shown = shown.lstrip("+-")  # no sign on what is shown as zero
    return shown.replace("-", "−")


def bytes_text(value: float | None) -> str:
    """``1.4 MB`` in powers of 1,000; zero is ``0``."""
    if value is None or not math.isfinite(value):
        return DASH
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B" if value else "0"


def duration(seconds: float | None) -> str:
    """``42 s``, ``3 m 20 s`` or ``2 h 5 m``."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} m"


def shorten(name: str, length: int) -> str:
    """At most ``length`` characters, with an ellipsis where something is left out."""
    return name if len(name) <= length else name[: length - 1] + "…"


def table(
    header: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    caption: str,
    *,
    groups: Sequence[tuple[str, int]] = (),
    texts: Sequence[int] = (),
) -> Markup:
    """A table in a container that scrolls by itself; the first column names the row.

    Args:
        header: a cell a column.
        rows: as many cells each; cells that are markup with an element ``td`` are taken as they are.
        caption: what the table shows, for everybody.
        groups: (heading, columns) of a row above the header.
        texts: columns that hold words and are aligned to the left, besides the first.
    """

    def cell(kind: str, column: int, content: Content) -> Markup:
        if isinstance(content, Markup) and content.startswith("<td"):
            return content
        left = column == 0 or column in texts
        scope = ("col" if kind == "head" else "row") if kind == "head" or column == 0 else None
        return element("th" if scope else "td", content, class_="t" if left else None, scope=scope)

    over = [element("th", name, colspan=span, scope="colgroup", class_="g") for name, span in groups]
    head = element("tr", [cell("head", i, content) for i, content in enumerate(header)])
    body = [element("tr", [cell("body", i, content) for i, content in enumerate(row)]) for row in rows]
    content = element("thead", element("tr", over) if over else None, head), element("tbody", body)
    return scrolled(element("table", content), caption, element("figcaption", caption))


def scrolled(content: Markup, label: str, heading: Markup | None = None) -> Markup:
    """A wide part in a container that scrolls by itself and that a keyboard can reach.

    Args:
        content: the wide part.
        label: what it is, for those who do not see it.
        heading: stands above and does not scroll.
    """
    box = element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)
    return element("figure", heading, box, class_="table")


def details(summary: Content, *content: Content, unfolded: bool = False) -> Markup:
    """A part that folds."""
    return element("details", element("summary", summary), *content, open="" if unfolded else None)
