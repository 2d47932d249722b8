"""A first tagger of own photos."""

from __future__ import annotations

import argparse

from mlcil.datasets.labels import read_labels
from mlcil.images import find_images
from mlcil.tagger import extend
from mlcil.tagger.photos import Extras
from mlcil.tagger.session import LITE0, Recipe


def main(options: argparse.Namespace) -> int:
    """``tag LABELS --out FILE``."""
    labels = read_labels(options.labels, options.photos, options.reviewed, options.form)
    recipe = Recipe(options.method, options.overrides, options.backbone or LITE0, options.weights)
    extras = Extras(unlabelled=find_images(options.unlabelled) if options.unlabelled else ())
    added = extend.tag(labels, options.out, recipe, extras, lambda line: print(line, flush=True))
    print("\n".join(extend.told(added, options.out)))
    return 0
