"""An epoch of a later session, from the files to the last update: how much of the bare step's speed is left.

    python benchmarks/epoch.py [--images 64] [--workers 2] [--backbone tresnet_m] [--sessions 8] [--batch 8]

``official`` decodes, resizes and augments every image anew and makes the step of ``train_step.py``'s reference.
``ours`` reads decoded images from the cache with the run's worker processes and makes the default step; ``on device``
leaves the augmentation to the device too. ``bare step`` is the default step on one batch that is on the device already.
The first batch's losses are compared first. ``--workers`` processes read in all rows; on a machine whose cores do the
training too they take from it what they need.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from input_pipeline import write_photos
from reference import DecodedAnew
from timing import add_options, begin, header, medians
from torch import Tensor
from torch.utils.data import DataLoader
from train_step import BARS, batch_of, step_of, trained

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import ImageSource, Loader, Readers, SessionSampler, SessionView
from mlcil.datasets.table import SingleLabelTable
from mlcil.datasets.tensor_augment import TensorAugment
from mlcil.datasets.transforms import TrainTransform


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--photo", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--backbone", default="tresnet_m")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each")
    parser.add_argument("--precision", default="auto", help="of the default step: auto, fp32, bf16 or fp16")
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    plain, plain_wrapper = trained(options, device, default=False)
    method, wrapper = trained(options, device, default=True)
    deferred = TrainTransform(options.size, on_device=True)
    method.data_preprocessor.augment = TensorAugment(deferred)
    targets = batch_of(options)["targets"]
    rows = np.arange(options.images)
    with tempfile.TemporaryDirectory() as name:
        files = write_photos(Path(name), options.images, *options.photo)
        table = SingleLabelTable("train", ("a",), np.zeros(len(files), int), files=files)
        kept = with_cache(table, options.size, CacheOptions(folder=str(Path(name) / "kept")), print)
        augment = TrainTransform(options.size)
        readers = Readers(options.workers, [ImageSource(kept, options.size, how) for how in (augment, deferred)])

        def official() -> Iterator[dict[str, Tensor]]:
            sampler = SessionSampler(len(rows), 0, 0, shuffle=True)
            data = DecodedAnew(files, options.size, augment=True)
            pin = device.type == "cuda"
            for images in DataLoader(data, options.batch, sampler=sampler, num_workers=options.workers, pin_memory=pin):
                yield {"inputs": images, "targets": targets[: len(images)]}

        def ours(transform: TrainTransform) -> Iterator[dict[str, Tensor]]:
            view = SessionView(kept, rows, table.labels_NC, options.size, transform)
            sampler = SessionSampler(len(rows), 0, 0, shuffle=True)
            for batch in Loader(view, sampler, options.batch, options.workers, readers=readers):
                batch["targets"] = targets[: len(batch["rows"])]
                yield batch

        expected = step_of(plain, plain_wrapper, next(official()))()
        for transform in (augment, deferred):
            batches = ours(transform)
            found = step_of(method, wrapper, next(batches))()
            batches.close()
            difference = max(abs(found[key] - value) / max(abs(value), 1e-6) for key, value in expected.items())
            if transform is augment and not difference <= BARS[wrapper.dtype]:
                sys.exit(f"the losses differ by {difference:.1e}, more than {BARS[wrapper.dtype]:.0e}")
        still = {key: value.to(device) for key, value in batch_of(options).items()}

        def bare() -> None:
            for _ in range(-(-len(rows) // options.batch)):
                method.train_step(still, wrapper)

        def epoch_of(transform: TrainTransform) -> None:
            for batch in ours(transform):
                method.train_step(batch, wrapper)

        def official_epoch() -> None:
            for batch in official():
                plain.train_step(batch, plain_wrapper)

        work = {
            "official": official_epoch,
            "ours": lambda: epoch_of(augment),
            "ours, on device": lambda: epoch_of(deferred),
            "bare step": bare,
        }
        seconds = medians(work, device, options.epochs, 1, options.clock)  # type: ignore[arg-type]
        readers.close()
    print(f"{options.backbone}, session {options.sessions}, batch {options.batch}, {options.workers} worker(s)")
    print(f"{'':20}{'images/s':>10}{'ratio':>8}{'of the bare step':>18}")
    for name, value in seconds.items():
        ratio, share = seconds["official"] / value, 100 * seconds["bare step"] / value
        print(f"{name:20}{len(rows) / value:>10.2f}{ratio:>8.2f}{share:>16.0f} %")


if __name__ == "__main__":
    main()
