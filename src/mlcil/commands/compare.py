"""Put finished runs of one protocol into a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlcil.files import write_text
from mlcil.reporting import comparison


def main(options: argparse.Namespace) -> int:
    """``compare RUN RUN ...``."""
    print(compare_runs(options.runs, options.output))
    return 0


def write_tables(folder: Path, title: str, rows: Sequence[comparison.Row], facts: Mapping[str, Any]) -> str:
    """``table.md``, ``.csv``, ``.tex`` and ``.json`` in the folder; returns the Markdown."""
    markdown = comparison.as_markdown(title, rows)
    write_text(folder / "table.md", markdown)
    write_text(folder / "table.csv", comparison.as_csv(rows))
    write_text(folder / "table.tex", comparison.as_latex(title, rows))
    write_text(folder / "table.json", comparison.as_json(title, rows, facts))
    return markdown


def compare_runs(folders: Sequence[Path], output: Path | None = None) -> str:
    """The command ``compare``: finished runs in one table; runs that differ in seed only share a row.

    Args:
        folders: run directories, or their names under ``logs/``.
        output: folder for the four forms of the table, ``None`` for none.

    Returns:
        The Markdown.

    Raises:
        UserError: a run is missing, unfinished or of another protocol.
    """
    runs = {str(folder): comparison.read_run(folder) for folder in folders}
    comparison.check_same_protocol(runs)
    groups: dict[str, list[Any]] = {}
    for folder, run in runs.items():
        groups.setdefault(comparison.group_name(Path(folder).name), []).append(run)
    rows = [comparison.make_row(label, members) for label, members in groups.items()]
    first = next(iter(runs.values()))
    title = f"{first['dataset']} {first['protocol'].removeprefix('joint-')}"
    if output is not None:
        return write_tables(output, title, rows, {"runs": list(runs)})
    return comparison.as_markdown(title, rows)
