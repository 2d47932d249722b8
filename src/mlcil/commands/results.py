"""The results of runs as one table of a row a run, session and class."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcil.errors import UserError
from mlcil.files import write_bytes, write_text
from mlcil.reporting import comparison, long_table


def main(options: argparse.Namespace) -> int:
    """``results RUN [RUN ...] --to FILE``."""
    print(export(options.runs, options.to))
    return 0


def export(words: Sequence[Path], target: Path) -> str:
    """Write the rows of runs, finished or not, to ``.csv`` or ``.parquet``; returns a sentence.

    Raises:
        UserError: no run, another ending, or pyarrow is missing.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise UserError(f"--to is {target}; expected a name that ends with .csv or .parquet")
    contents = [comparison.read_results(comparison.find_results(folder)) for folder in comparison.run_folders(words)]
    rows = [row for content in contents for row in long_table.rows_of(content)]
    if target.suffix == ".csv":
        write_text(target, long_table.as_csv(rows))
    else:
        write_bytes(target, parquet(rows))
    return f"{target}: {len(rows)} rows of {len(contents)} run(s)"


def parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows as a Parquet file.

    Raises:
        UserError: pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "a .parquet file needs pyarrow, which is not installed; install it with: pip install 'mlcil[results]', or "
            "write a .csv"
        ) from error
    buffer = pyarrow.BufferOutputStream()
    columns = {column: [row[column] for row in rows] for column in long_table.COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return bytes(buffer.getvalue())
