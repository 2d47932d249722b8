"""What a tagger's file says of itself."""

from __future__ import annotations

import argparse
import json

from mlcil.tagger.versions import describe, description


def main(options: argparse.Namespace) -> int:
    """``info FILE [--json]``."""
    facts = describe(options.tagger)
    print(json.dumps(facts, indent=1) if options.json else "\n".join(description(facts)))
    return 0
