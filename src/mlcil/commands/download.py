"""Fetch a data set or weights from their official address."""

from __future__ import annotations

import argparse

from mlcil.interop import downloads


def main(options: argparse.Namespace) -> int:
    """``download [NAME] [--root FOLDER]``; without a name it lists what there is."""
    if options.name is None:
        for name, known in downloads.DOWNLOADS.items():
            size = sum(part.remote.size for part in known.parts) / 1e9
            print(f"{name:24}{size:6.1f} GB  {known.root}: {known.licence}")
        return 0
    print("\n".join(downloads.download(options.name, options.root)))
    return 0
