"""A tagger with more labels."""

from __future__ import annotations

import argparse

from mlcil.datasets.labels import read_labels
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import find_images
from mlcil.interop.classifiers import read_classifier
from mlcil.tagger import extend
from mlcil.tagger.photos import Extras
from mlcil.tagger.session import Recipe


def main(options: argparse.Namespace) -> int:
    """``extend TAGGER LABELS --out FILE``."""
    if options.classes:
        stage = StageCheckpoint(**read_classifier(options.tagger, options.classes, options.backbone))
    elif options.backbone:
        raise UserError("--backbone goes with --classes, of a checkpoint that is no tagger; leave it out")
    else:
        stage = StageCheckpoint.load(options.tagger)
    labels = read_labels(options.labels, options.photos, options.reviewed, options.form)
    extras = Extras(
        read_labels(options.keep) if options.keep else None,
        find_images(options.unlabelled) if options.unlabelled else (),
        options.refine,
    )
    recipe = Recipe(options.method, options.overrides)
    added = extend.extend(
        options.tagger, stage, labels, options.out, recipe, extras, lambda line: print(line, flush=True)
    )
    print("\n".join(extend.told(added, options.out)))
    return 0
