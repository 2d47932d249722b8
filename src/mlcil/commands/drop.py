"""A tagger without some of its labels."""

from __future__ import annotations

import argparse

from mlcil.tagger.versions import drop


def main(options: argparse.Namespace) -> int:
    """``drop FILE LABEL... --out FILE``."""
    made = drop(options.tagger, options.labels, options.out)
    print(f"{options.out}: {len(made.classes)} labels: {', '.join(made.classes)}")
    return 0
