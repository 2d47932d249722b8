"""Put finished runs of one protocol into a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlcil.commands.bench_tables import published_for
from mlcil.reporting import comparison
from mlcil.reporting.intervals import NOTE, Interval, difference_cells, differences
from mlcil.reporting.tables import markdown


def main(options: argparse.Namespace) -> int:
    """``compare RUN RUN ...``."""
    print(compare_runs(options.runs, options.output, options.published))
    return 0


def compare_runs(words: Sequence[Path], output: Path | None = None, published: bool = False) -> str:
    """The command ``compare``: runs that differ in seed and class order only share a row.

    Args:
        words: run directories, or their names under ``logs/``; files among them are passed over.
        output: folder for the four forms of the table, ``None`` for none.
        published: say below the table what stands between each row and a published number.

    Returns:
        The Markdown.

    Raises:
        UserError: a run is missing, unfinished or of another protocol.
    """
    runs = {str(folder): comparison.read_run(folder) for folder in comparison.run_folders(words)}
    comparison.check_same_protocol(runs)
    groups = comparison.group_runs(runs)
    rows, notes = [], []
    for label, members in groups.items():
        numbers, source, sentence = published_for(list(members.values()))
        rows.append(comparison.make_row(label, list(members.values()), numbers, source=source))
        notes.append(f"* {label}: {sentence}")
    first = next(iter(runs.values()))
    title = f"{first['dataset']} {first['protocol'].removeprefix('joint-')}"
    found = differences(groups)
    more = difference_table(next(iter(groups)), found)
    if len({frozenset(map(comparison.place_of, members.values())) for members in groups.values()}) > 1:
        more += "\nThe rows rest on different class orders or seeds.\n"
    if published:
        more += "\nPublished numbers:\n\n" + "\n".join(notes) + "\n"
    if output is not None:
        facts = {"runs": list(runs), "differences": {name: vars(interval) for name, interval in found.items()}}
        return comparison.write_tables(output, title, rows, facts, more)
    return comparison.as_markdown(title, rows) + more


def difference_table(first: str, found: Mapping[str, Interval]) -> str:
    """The differences as Markdown; empty without any."""
    return f"\n{markdown(difference_cells(first, found))}\n\n{NOTE}\n" if found else ""
