"""Write one HTML file about finished runs that opens without a network."""

from __future__ import annotations

import argparse

from mlcil.reporting.comparison import run_folders
from mlcil.reporting.html import write_report


def main(options: argparse.Namespace) -> int:
    """``report RUN [RUN ...]``."""
    print(write_report(run_folders(options.runs), options.output))
    return 0
