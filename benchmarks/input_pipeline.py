"""How many images a second come from files to the network, and do they keep up with the training step?

    python benchmarks/input_pipeline.py [--images 200] [--photo 640 480] [--folder PHOTOS] [--clock cpu]
    python benchmarks/input_pipeline.py --epoch [--images 64] [--workers 2] [--backbone tresnet_m] [--sessions 8]

Without ``--folder`` smooth noise is written as JPEG files of the given size. ``official`` decodes, resizes and augments
every image in every epoch, by Pillow alone, and collects floats; ``cached`` reads the decoded image and augments it, as
a run does from its first epoch on, and makes floats of whole batches; ``on device`` does so too, and augments whole
batches on the device. The rows without augmentation are those of evaluation. All give the network's input, and the
batches are compared first, bit by bit. One process reads; a run has as many as ``num_workers``. ``ratio`` is cached
over official, in training.

``--epoch`` is an epoch of a later session from the files to the last update: ``official`` with the reference step of
``train_step.py``, the others with the default step, and the ``bare step`` on one batch that is on the device already.
The first batch's losses are compared first. ``--workers`` processes read in all rows; on a machine whose cores do the
training too they take from it what they need. ``ratio`` is cached over official.
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
from krt_step import BARS, batch_of, step_of, trained
from PIL import Image
from timing import add_options, begin, formulations, header, medians
from torch import Tensor
from torch.utils.data import DataLoader

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import ImageSource, Loader, Readers, SessionSampler, SessionView
from mlcil.datasets.table import ImageTable, SingleLabelTable
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


class Photos:
    """Image files, the table of them whose decoded images are kept, and the ways to batches of one epoch.

    Args:
        options: size, batch and workers.
        files: the images.
        folder: for the decoded images.
        workers: processes that read.
    """

    def __init__(self, options: argparse.Namespace, files: list[Path], folder: Path, workers: int) -> None:
        self.files, self.size, self.batch, self.workers = files, options.size, options.batch, workers
        table = SingleLabelTable("train", ("a",), np.zeros(len(files), int), files=files)
        self.kept: ImageTable = with_cache(table, options.size, CacheOptions(folder=str(folder)), print)
        self.augment = TrainTransform(options.size)
        self.deferred = TrainTransform(options.size, on_device=True)
        sources = [ImageSource(self.kept, options.size, how) for how in (self.augment, self.deferred, None)]
        self.readers = Readers(workers, sources)

    def sampler(self) -> SessionSampler:
        """The order of the first epoch."""
        return SessionSampler(len(self.files), 0, 0, shuffle=True)

    def official(self, train: bool, pin: bool = False) -> Iterator[Tensor]:
        """float32 (B, 3, S, S), every image decoded anew."""
        data = formulations.DecodedAnew(self.files, self.size, train)
        yield from DataLoader(data, self.batch, sampler=self.sampler(), num_workers=self.workers, pin_memory=pin)

    def ours(self, transform: TrainTransform | None, readers: Readers | None = None) -> Iterator[dict[str, Tensor]]:
        """Batches of a run's loader."""
        view = SessionView(self.kept, np.arange(len(self.files)), self.kept.labels_NC, self.size, transform)
        yield from Loader(view, self.sampler(), self.batch, self.workers, readers=readers)


def reading(options: argparse.Namespace, device: torch.device, files: list[Path], folder: Path) -> float:
    """Print images per second and core; cached over official in training."""
    started = time.perf_counter()
    photos = Photos(options, files, folder, 0)
    print(f"building: {len(files) / (time.perf_counter() - started):.0f} images/s of wall time")
    preprocessor = ImagePreprocessor().to(device)
    preprocessor.augment = TensorAugment(photos.deferred)

    def official(train: bool) -> Iterator[Tensor]:
        for images in photos.official(train):
            yield images.to(device)

    def ours(transform: TrainTransform | None) -> Iterator[Tensor]:
        for batch in photos.ours(transform):
            yield preprocessor(batch)["inputs"]

    for anew, *others in zip(official(True), ours(photos.augment), ours(photos.deferred), strict=True):
        if not all(torch.equal(anew, other) for other in others):
            sys.exit("the batches differ")
    print(f"{len(files)} images, {np.mean([f.stat().st_size for f in files]) / 1e3:.0f} KB each; batches are equal")
    work = {
        "official, training": lambda: sum(map(len, official(True))),
        "cached, training": lambda: sum(map(len, ours(photos.augment))),
        "on device, training": lambda: sum(map(len, ours(photos.deferred))),
        "official, evaluation": lambda: sum(map(len, official(False))),
        "cached, evaluation": lambda: sum(map(len, ours(None))),
    }
    seconds = medians(work, device, options.epochs, 0, options.clock)  # type: ignore[arg-type]
    print(f"{'':24}{'images/s a core':>16}{'ratio':>8}")
    for row, value in seconds.items():
        ratio = seconds[f"official, {row.split(', ')[1]}"] / value
        print(f"{row:24}{len(files) / value:>16.0f}{ratio:>8.2f}")
    if options.workers:
        photos = Photos(options, files, folder, options.workers)

        def first_batch(readers: Readers | None) -> None:
            batches = photos.ours(photos.augment, readers)
            next(batches)
            batches.close()

        begun = medians({"new": lambda: first_batch(None), "kept": lambda: first_batch(photos.readers)}, device, 5, 1)
        photos.readers.close()
        for name, value in begun.items():
            print(f"first batch, {options.workers} {name + ' processes':20}{1e3 * value:>10.0f} ms")
    return seconds["official, training"] / seconds["cached, training"]


def epoch(options: argparse.Namespace, device: torch.device, files: list[Path], folder: Path) -> float:
    """Print images per second of a whole epoch; cached over official."""
    plain, plain_wrapper = trained(options, device, default=False)
    method, wrapper = trained(options, device, default=True)
    photos = Photos(options, files, folder, options.workers)
    method.data_preprocessor.augment = TensorAugment(photos.deferred)
    labelled = batch_of(options)
    targets = labelled["targets"]

    def official() -> Iterator[dict[str, Tensor]]:
        for images in photos.official(train=True, pin=device.type == "cuda"):
            yield {"inputs": images, "targets": targets[: len(images)]}

    def ours(transform: TrainTransform) -> Iterator[dict[str, Tensor]]:
        for batch in photos.ours(transform, photos.readers):
            yield {
                **batch,
                "targets": targets[: len(batch["rows"])],
                "origins": batch["origins"] + options.sessions - 1,
            }

    expected = step_of(plain, plain_wrapper, next(official()))()
    batches = ours(photos.augment)
    found = step_of(method, wrapper, next(batches))()
    batches.close()
    difference = max(abs(found[key] - value) / max(abs(value), 1e-6) for key, value in expected.items())
    if not difference <= BARS[wrapper.dtype]:
        sys.exit(f"the losses differ by {difference:.1e}, more than {BARS[wrapper.dtype]:.0e}")
    still = {key: value.to(device) for key, value in labelled.items()}

    def bare() -> None:
        for _ in range(-(-len(files) // options.batch)):
            method.train_step(still, wrapper)

    def epoch_of(transform: TrainTransform) -> None:
        for batch in ours(transform):
            method.train_step(batch, wrapper)

    def official_epoch() -> None:
        for batch in official():
            plain.train_step(batch, plain_wrapper)

    work = {
        "official": official_epoch,
        "cached": lambda: epoch_of(photos.augment),
        "on device": lambda: epoch_of(photos.deferred),
        "bare step": bare,
    }
    seconds = medians(work, device, options.epochs, 1, options.clock)  # type: ignore[arg-type]
    photos.readers.close()
    print(f"{options.backbone}, session {options.sessions}, batch {options.batch}, {options.workers} worker(s)")
    print(f"{'':20}{'images/s':>10}{'ratio':>8}{'of the bare step':>18}")
    for name, value in seconds.items():
        ratio, share = seconds["official"] / value, 100 * seconds["bare step"] / value
        print(f"{name:20}{len(files) / value:>10.2f}{ratio:>8.2f}{share:>16.0f} %")
    return seconds["official"] / seconds["cached"]


def main() -> None:
    """Print one table and a ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--epoch", action="store_true", help="with the training step")
    parser.add_argument("--folder", type=Path, help="JPEG files to read instead")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--photo", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--size", type=int, default=224, help="side that the network takes, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each")
    parser.add_argument("--workers", type=int, default=2, help="processes of --epoch, and of the last lines otherwise")
    parser.add_argument("--backbone", default="tresnet_m", help="of --epoch")
    parser.add_argument("--sessions", type=int, default=8, help="of --epoch")
    parser.add_argument("--precision", default="auto", help="of the default step in --epoch")
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.folder is not None:
            files = sorted(options.folder.glob("*.jpg"))[: options.images]
        else:
            files = write_photos(folder, options.images, *options.photo)
        if not files:
            sys.exit(f"{options.folder} has no .jpg file")
        ratio = (epoch if options.epoch else reading)(options, device, files, folder / "kept")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
