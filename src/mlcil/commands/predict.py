"""Tag images: labels as json lines, a CSV file, tasks of Label Studio or XMP sidecars."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlcil
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.images import find_images
from mlcil.system.bar import bar
from mlcil.system.imports import quick_imports
from mlcil.tagger import outputs

Tagged = tuple[Path, outputs.Named, dict[str, float]]


def main(options: argparse.Namespace) -> int:
    """``predict TAGGER IMAGE_OR_FOLDER...``: what the images show, on standard output, in a file or beside them."""
    sidecars = options.format == "xmp"
    if sidecars and (options.output or options.scores):
        raise UserError("--format xmp writes a file beside each photo, without scores; leave --output and --scores out")
    path = outputs.find_tagger(options.checkpoint)
    images = list(dict.fromkeys(image for place in options.images for image in find_images(place)))
    with quick_imports():  # torch, for most taggers
        tagger = mlcil.load(path, options.device, options.precision, options.engine)
    top = options.top
    if tagger.task == "single_label" and options.threshold is None:
        top = top or 1  # one class an image
    choose, without = outputs.choose(tagger.classes, tagger.thresholds, options.threshold, top)
    remark = (
        f"mlcil: {without} of {len(tagger.classes)} labels have no threshold in {path}; of those the scores from "
        f"{outputs.THRESHOLD} on are named (--threshold or --top chooses otherwise)"
    )
    if sidecars:
        outputs.check_sidecars(images)
    quiet = sidecars or options.output is not None or not sys.stdout.isatty()
    with bar("tagging", len(images), shown=quiet) as show:
        predictions = tagger.predict(images, on_bad_image=options.on_bad_image)
        tagged = _tagged(predictions, choose, show, remark if without else "")
        if sidecars:
            for image, named, _ in tagged:
                outputs.write_sidecar(image, named)
            return 0
        lines = _lines(tagged, options.format, list(tagger.classes) if options.scores else None, path.stem)
        if options.output is None:
            for line in lines:
                print(line, flush=True)
        else:
            write_text(options.output, "".join(f"{line}\n" for line in lines))
    return 0


def _tagged(
    predictions: Iterable[tuple[Path, dict[str, float]]], choose: Any, show: Any, remark: str
) -> Iterator[Tagged]:
    """With their labels; the remark stands before the first of them."""
    for done, (image, scores) in enumerate(predictions, 1):
        if remark and done == 1:
            print(remark, file=sys.stderr)
        show(done)
        yield image, choose(scores), scores


def _lines(tagged: Iterable[Tagged], form: str, classes: list[str] | None, model: str) -> Iterator[str]:
    """Lines of the form; ``classes`` are given where all scores are wanted."""
    if form == "label-studio":
        tasks = []
        for image, named, scores in tagged:
            task = outputs.studio_task(image, named, model)
            tasks.append(task if classes is None else {**task, "meta": {"scores": scores}})
        yield json.dumps(tasks, indent=1)
    elif form == "csv":
        yield outputs.csv_line(["file", "labels", *(classes or ())])
        for image, named, scores in tagged:
            labels = ";".join(name for name, _ in named)
            yield outputs.csv_line([image, labels, *(scores[name] for name in classes or ())])
    else:
        for image, named, scores in tagged:
            yield outputs.json_line(image, named, None if classes is None else scores)
