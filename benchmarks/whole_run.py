"""How long does a run take from its first to its last session, by default and the way of the released code?

    python benchmarks/whole_run.py [--images 120] [--epochs 4] [--sessions 4] [--layers 1 1 1 1 --width 0.25]

Both train KRT from the same weights on the same photos in the same order. ``official`` decodes every image in every
epoch, evaluates after every epoch in three passes (base, seen and new images), runs the attention once per session,
keeps batch norms apart, and uses fp32, the contiguous layout and the plain optimiser. The loss of the first step,
before any update, is compared first. What so short a run ends with is another matter: rounding alone moves the mAP of
a network near chance by some points. Runs take turns; a run's seconds are those from its first session on, the cache
being there already in the row ``ours``, whose ``ratio`` is the last line, and not in ``ours, first run``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from input_pipeline import write_photos
from timing import CLOCKS, add_options, begin, formulations, header

from mlcil.engine.build import build_runner, check_run
from mlcil.engine.config import finish_config
from mlcil.engine.evaluate import Evaluator, SessionResult, predict_view
from mlcil.engine.hooks import ResultsHook
from mlcil.engine.loop import SessionLoop
from mlcil.methods.base import Method
from mlcil.models.heads import ICAHead
from mlcil.models.numerics import resolve_precision
from mlcil.protocols import Session

CLASSES = tuple("abcdefgh")
BARS = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # relative, of the first loss
evaluate_once, plain_step = Evaluator.__call__, SessionLoop.step


def write_data(root: Path, images: int, size: tuple[int, int], classes: int) -> None:
    """COCO 2014's folders; every image shows two classes."""
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2014", images), ("val2014", images // 2)):
        (root / split).mkdir()
        files = write_photos(root / split, count, *size)
        labels = [(k, (k + j) % classes) for k in range(count) for j in range(2)]
        content = {
            "images": [{"id": k, "file_name": file.name} for k, file in enumerate(files)],
            "annotations": [
                {"id": i, "image_id": k, "category_id": c + 1, "iscrowd": 0} for i, (k, c) in enumerate(labels)
            ],
            "categories": [{"id": c + 1, "name": CLASSES[c]} for c in range(classes)],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def evaluate_in_three_passes(evaluator: Evaluator, method: Method, session: Session) -> SessionResult:
    """The released validation: base and new images in passes of their own, beside the pass over all seen ones."""
    data, scenario = evaluator.data, evaluator.run.scenario
    for low, high in ((0, scenario.base_high), (session.low, session.high)):
        view = data.plain_view(scenario.test, scenario.test_rows(low, high))
        predict_view(method, data.plain_loader(view), torch.float32)
    return evaluate_once(evaluator, method, session)


@contextmanager
def formulation(name: str) -> Iterator[None]:
    """Inside, runs go the way of the released code where ``name`` is ``official``."""
    if name != "official":
        yield
        return
    with (
        mock.patch.object(Evaluator, "__call__", evaluate_in_three_passes),
        mock.patch.object(ICAHead, "forward", formulations.per_session_forward),
    ):
        yield


@contextmanager
def first_loss(found: dict[str, float], name: str) -> Iterator[None]:
    """Inside, the first training step leaves its loss in ``found[name]``."""

    def step(loop: SessionLoop, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        outputs = plain_step(loop, batch)
        if name not in found:
            found[name] = outputs["loss"].item()
        return outputs

    with mock.patch.object(SessionLoop, "step", step):
        yield


def small_run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A config of KRT on what :func:`write_data` has written; a network is to be added."""
    return {
        "scenario": {
            "dataset": {"type": "coco", "root": str(folder / "data")},
            "base": 0,
            "increment": len(CLASSES) // options.sessions,
            "fixed_test_images": "shown",
        },
        "method": {"type": "KRT"},
        "train_dataloader": {"batch_size": options.batch, "num_workers": 0},
        "test_dataloader": {"batch_size": options.batch, "num_workers": 0},
        "threads": options.threads,
        "log_level": "ERROR",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }


def timed_run(content: dict[str, Any], name: str, clock: str) -> tuple[float, list[float]]:
    """Seconds of a run from its first session on, and the mAP on seen classes after every session."""
    runner = build_runner(check_run(finish_config(content, name)))
    started = CLOCKS[clock]()
    runner.train()
    seconds = CLOCKS[clock]() - started
    hook = next(hook for hook in runner.hooks if isinstance(hook, ResultsHook))
    return seconds, [result["mAP"]["seen"] for result in hook.results]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--images", type=int, default=120, help="training images; half as many for testing")
    parser.add_argument("--photo", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=4, choices=(2, 4), help="of eight classes")
    parser.add_argument("--layers", type=int, nargs=4, default=(1, 1, 1, 1))
    parser.add_argument("--width", type=float, default=0.25, help="of the TResNet")
    parser.add_argument("--size", type=int, default=96, help="side that the network takes, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    seconds: dict[str, list[float]] = {"official": [], "ours, first run": [], "ours": []}
    curves: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data", options.images, tuple(options.photo), len(CLASSES))
        for turn in range(options.repeats):
            for row in seconds:
                fast = row != "official"
                content: dict[str, Any] = {
                    **small_run(options, folder),
                    "network": {
                        "backbone": {"name": "tresnet", "layers": list(options.layers), "width": options.width},
                        "head": {"type": "ica", "embed_dim": 128, "num_heads": 8},
                        "image_size": options.size,
                    },
                    "train_cfg": {"max_epochs": options.epochs, "val_interval": 0 if fast else 1},
                    "image_cache": {"enabled": fast, "folder": str(folder / f"kept{turn}")},
                    "channels_last": fast,
                    "fold_batch_norm": fast,
                    "precision": "auto" if fast else "fp32",
                }
                if not fast:
                    content["optim_wrapper"] = {
                        "optimizer": {"type": "Adam", "lr": 1e-4, "weight_decay": 1e-4, "fused": False}
                    }
                with formulation(row), first_loss(losses, row):
                    spent, curves[row] = timed_run(content, f"run_{turn}_{len(row)}", options.clock)
                seconds[row].append(spent)
    bar = BARS[resolve_precision("auto", device)]
    for row in list(seconds)[1:]:
        difference = abs(losses[row] / losses["official"] - 1)
        print(f"{row}: the first loss differs from the official formulation's by {difference:.1e}")
        if not difference <= bar:
            sys.exit(f"that is more than {bar:.0e}")
    print(f"{'':24}{options.clock + ' s':>10}{'ratio':>8}{'average mAP':>13}")
    medians = {row: float(np.median(values)) for row, values in seconds.items()}
    for row, value in medians.items():
        print(f"{row:24}{value:>10.1f}{medians['official'] / value:>8.2f}{np.mean(curves[row]):>13.1f}")
    print(f"ratio {medians['official'] / medians['ours']:.2f}")


if __name__ == "__main__":
    main()
