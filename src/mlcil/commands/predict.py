"""Tag images with a stage checkpoint; one json line an image."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mlcil.images import find_images
from mlcil.tagger.tagger import load


def main(options: argparse.Namespace) -> int:
    """``predict CHECKPOINT IMAGE_OR_FOLDER``: ``{"image": ..., "labels": [{"label": ..., "score": ...}]}`` lines."""
    tagger = load(options.checkpoint, options.device, options.precision, options.engine)
    for path, scores in tagger.predict(find_images(options.images), on_bad_image=options.on_bad_image):
        ranked: list[tuple[str, float]] = sorted(scores.items(), key=lambda item: -item[1])
        kept = ranked[: options.top] if options.top else [x for x in ranked if x[1] >= options.threshold]
        labels: list[dict[str, Any]] = [{"label": name, "score": round(score, 6)} for name, score in kept]
        print(json.dumps({"image": str(path), "labels": labels}), flush=True)
    return 0
