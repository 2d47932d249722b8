"""Images per second and core of the way from a file to a training batch, by mode.

    python benchmarks/input_pipeline.py [--images 200] [--width 640 --height 480] [--folder PHOTOS] [--clock cpu]

Without ``--folder`` smooth noise is written as JPEG files of the given size. ``official`` decodes, resizes and
augments every image in every epoch, by Pillow alone, and collects floats; ``cached`` reads the decoded image and
augments it, as a run does from its first epoch on, and makes floats of whole batches; ``on device`` does so too, and
augments whole batches on the device. The rows without augmentation are those of evaluation. All give the network's
input, and the batches are compared first, bit by bit. One process reads; a run has as many as ``num_workers``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reference import DecodedAnew
from timing import add_options, begin, header, medians
from torch import Tensor
from torch.utils.data import DataLoader

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import Loader, Readers, SessionSampler, SessionView
from mlcil.datasets.table import SingleLabelTable
from mlcil.datasets.tensor_augment import TensorAugment
from mlcil.datasets.transforms import TrainTransform
from mlcil.models.data_preprocessor import ImagePreprocessor


def write_photos(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEG files with about the bytes of photos: smooth colours with some noise."""
    files = []
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        pixels = (smooth + rng.integers(-12, 12, (height, width, 1))).clip(0, 255).astype(np.uint8)
        files.append(folder / f"{index}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--folder", type=Path, help="JPEG files to read instead")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=224, help="side that the network takes, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of the last lines; 0 leaves them out")
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.folder is not None:
            files = sorted(options.folder.glob("*.jpg"))[: options.images]
        else:
            files = write_photos(folder, options.images, options.width, options.height)
        if not files:
            sys.exit(f"{options.folder} has no .jpg file")
        table = SingleLabelTable("train", ("a",), np.zeros(len(files), int), files=files)
        started = time.perf_counter()
        kept = with_cache(table, options.size, CacheOptions(folder=str(folder / "kept")), print)
        print(f"building: {len(files) / (time.perf_counter() - started):.0f} images/s of wall time, one process")
        augment, deferred = TrainTransform(options.size), TrainTransform(options.size, on_device=True)
        rows = np.arange(len(files))
        preprocessor = ImagePreprocessor().to(device)
        preprocessor.augment = TensorAugment(deferred)

        def official(train: bool) -> Iterator[Tensor]:
            sampler = SessionSampler(len(rows), 0, 0, shuffle=True)
            for images in DataLoader(DecodedAnew(files, options.size, train), options.batch, sampler=sampler):
                yield images.to(device)

        def epoch(transform: TrainTransform | None) -> Iterator[Tensor]:
            view = SessionView(kept, rows, table.labels_NC, options.size, transform)
            for batch in Loader(view, SessionSampler(len(rows), 0, 0, shuffle=True), options.batch):
                yield preprocessor(batch)["inputs"]

        for anew, *others in zip(official(True), epoch(augment), epoch(deferred), strict=True):
            if not all(torch.equal(anew, other) for other in others):
                sys.exit("the batches differ")
        print(f"{len(files)} images, {np.mean([f.stat().st_size for f in files]) / 1e3:.0f} KB each; batches are equal")
        work = {
            "official, training": lambda: sum(map(len, official(True))),
            "cached, training": lambda: sum(map(len, epoch(augment))),
            "on device, training": lambda: sum(map(len, epoch(deferred))),
            "official, evaluation": lambda: sum(map(len, official(False))),
            "cached, evaluation": lambda: sum(map(len, epoch(None))),
        }
        seconds = medians(work, device, options.epochs, 0, options.clock)  # type: ignore[arg-type]
        print(f"{'':24}{'images/s a core':>16}{'ratio':>8}")
        for row, value in seconds.items():
            ratio = seconds[f"official, {row.split(', ')[1]}"] / value
            print(f"{row:24}{len(files) / value:>16.0f}{ratio:>8.2f}")
        if options.workers:
            view = SessionView(kept, rows, table.labels_NC, options.size, augment)
            run = Readers(options.workers, [view.source])

            def first_batch(readers: Readers | None) -> None:
                sampler = SessionSampler(len(rows), 0, 0, shuffle=True)
                batches = iter(Loader(view, sampler, options.batch, options.workers, readers=readers))
                next(batches)
                batches.close()

            begun = medians({"new": lambda: first_batch(None), "kept": lambda: first_batch(run)}, device, 5, 1)
            run.close()
            for name, value in begun.items():
                print(f"first batch, {options.workers} {name + ' processes':20}{1e3 * value:>10.0f} ms")


if __name__ == "__main__":
    main()
