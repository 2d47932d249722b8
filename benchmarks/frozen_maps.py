"""A run on a frozen backbone: its maps computed in every epoch, and once for every image.

    python benchmarks/frozen_maps.py [--backbone tf_efficientnet_lite0] [--images 120] [--epochs 4] [--size 224]

Both train KRT from the same weights on the same photos in the same order, with the image cache filled; the backbone
keeps random weights. ``every epoch`` is ``frozen_maps_gb=0``. The first steps' losses are compared first. A run's
seconds are those from its first session on, the one pass over all images among them; the runs take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import CLOCKS, add_options, begin, header
from whole_run import CLASSES, first_loss, small_run, write_data

from mlcil.engine.build import build_runner, check_run
from mlcil.engine.config import finish_config


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--images", type=int, default=120, help="training images; half as many for testing")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=4, choices=(2, 4), help="of eight classes")
    parser.add_argument("--size", type=int, default=224, help="side that the network takes, in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    now = CLOCKS[options.clock]
    seconds: dict[str, list[float]] = {"every epoch": [], "once an image": []}
    curves: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data", options.images, (640, 480), len(CLASSES))
        for turn in range(options.repeats + 1):  # the first one fills the image cache
            for row, times in seconds.items():
                content: dict[str, Any] = {
                    **small_run(options, folder),
                    "network": {
                        "backbone": {"name": options.backbone},
                        "head": {"type": "ica"},
                        "image_size": options.size,
                        "frozen_backbone": True,
                    },
                    "train_transform": {"cutout": 0.0, "randaugment": False},
                    "train_cfg": {"max_epochs": options.epochs},
                    "image_cache": {"folder": str(folder / "images")},
                    "frozen_maps_gb": 4 if row == "once an image" else 0,
                }
                with first_loss(losses, row):
                    runner = build_runner(check_run(finish_config(content, f"run_{turn}_{len(row)}")))
                    started = now()
                    runner.train()
                times.append(now() - started)
                curves[row] = [result["mAP"]["seen"] for result in runner.results]
    anew, once = losses.values()
    difference = abs(once - anew) / abs(anew)
    if not difference <= 1e-3:
        sys.exit(f"the first losses differ by {difference:.1e}")
    print(f"{options.backbone}, {options.sessions} sessions; the first losses differ by {difference:.1e}")
    found = {row: statistics.median(times[1:]) for row, times in seconds.items()}
    print(f"{'maps computed':16}{'s a run':>10}{'ratio':>8}{'average mAP':>14}")
    for row, value in found.items():
        average = sum(curves[row]) / len(curves[row])
        print(f"{row:16}{value:>10.1f}{found['every epoch'] / value:>8.2f}{average:>14.1f}")


if __name__ == "__main__":
    main()
