"""A tagger with other names for its labels."""

from __future__ import annotations

import argparse

from mlcil.errors import UserError
from mlcil.tagger.versions import rename


def main(options: argparse.Namespace) -> int:
    """``rename FILE OLD=NEW... --out FILE``."""
    names = {}
    for word in options.names:
        old, sign, new = word.partition("=")
        if not sign:
            raise UserError(f"{word!r} is no OLD=NEW; expected the label and its new name, such as kitty=cat")
        names[old] = new
    made = rename(options.tagger, names, options.out)
    print(f"{options.out}: {len(made.classes)} labels: {', '.join(made.classes)}")
    return 0
