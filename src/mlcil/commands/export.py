"""Write a tagger for use outside of PyTorch."""

from __future__ import annotations

import argparse

from mlcil.datasets.labels import read_labels
from mlcil.images import find_images
from mlcil.tagger.export import Judged, export


def main(options: argparse.Namespace) -> int:
    """``export TAGGER FILE``."""
    judged = None
    if options.on is not None:
        photos = read_labels(options.on, options.photos, options.reviewed, options.form).part(test=True)
        judged = Judged(photos.files, photos.classes, photos.cells_NC)
    calibrate = [] if options.calibrate is None else find_images(options.calibrate)
    for line in export(options.tagger, options.target, options.int8, calibrate, judged, options.max_drop):
        print(line)
    return 0
