"""One tagger with the labels of two."""

from __future__ import annotations

import argparse

from mlcil.tagger.versions import merge


def main(options: argparse.Namespace) -> int:
    """``merge FIRST SECOND --out FILE``."""
    made = merge(options.first, options.second, options.out)
    print(f"{options.out}: {len(made.classes)} labels: {', '.join(made.classes)}")
    return 0
