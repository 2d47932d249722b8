"""What do frozen pretrained features cost, and how far do they reach?

    python benchmarks/features.py [--backbone tf_efficientnet_lite0] [--size 224] [--files]
    python benchmarks/features.py --runs [--images 120] [--epochs 4]
    python benchmarks/features.py lite/voc_finetune [key=value ...]

Without a config: images a second through a backbone with random weights, by PyTorch in both memory layouts and by
onnxruntime, whose maps are compared with them first; and the same from JPEG files, decoded in the same thread.
``ratio`` is onnxruntime over PyTorch's channels-last layout, with ``--files`` from the files.

With ``--runs`` two runs train KRT on a frozen backbone with random weights, on the same photos in the same order, the
image cache filled: its maps are computed in every epoch (``feature_store.enabled=False``), or once for every image. The
losses of the first steps are compared. A run's seconds are those from its first session on, the one pass over all
images among them; the runs take turns. ``ratio`` is every epoch over once an image.

With a config of multi-label data: the yardstick of an incremental run. One logistic regression a class on the pooled,
standardised features of the pretrained backbone, test transforms. ``all images`` is trained on the labels of the whole
training split (no incremental method has them), ``own session`` on the images of the class's session alone, as a method
without memory sees them. Printed is the mAP on the seen classes after every session, on the growing test set, in
percent. ``ratio`` is own session over all images, after the last session.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from timing import add_options, begin, header, medians
from whole_run import CLASSES, first_loss, small_run, timed_run, write_data

from mlcil.datasets.feature_store import BATCH, TorchEngine
from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.datasets.table import ImageTable
from mlcil.engine.build import build_method, build_scenario, load_weights
from mlcil.engine.config import load_config
from mlcil.engine.evaluate import predict_view
from mlcil.evaluation.multilabel import mean_average_precision
from mlcil.images import decode
from mlcil.inference.features import LastMap, OnnxEngine
from mlcil.methods.base import Method
from mlcil.models.data_preprocessor import network_input
from mlcil.models.network import build_network


def features(method: Method, table: ImageTable, image_size: int) -> np.ndarray:
    """Pooled features (N, K) of a split."""
    view = SessionView(table, np.arange(len(table)), np.zeros((len(table), 0), np.int8), image_size)
    return predict_view(method, Loader(view, SessionSampler(len(view), 0, 0, shuffle=False), 64))[1]


def probe(options: argparse.Namespace, device: torch.device) -> float:
    """Print two curves of mAP; the ratio of their ends."""
    cfg = load_config(options.config, options.overrides)
    scenario, method = build_scenario(cfg), build_method(cfg)
    load_weights(cfg, method, scenario)
    method.network.grow(len(scenario.classes))
    method.to(device).eval()
    train, test = (features(method, t, cfg.network.image_size) for t in (scenario.train, scenario.test))
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    truth = scenario.train.labels_NC
    print(f"{options.config}: {len(train)} training and {len(test)} test images, {train.shape[1]} features")
    found: dict[str, list[float]] = {"all images": [], "own session": []}
    for name, curve in found.items():
        scores = np.zeros((len(test), len(scenario.classes)))
        for session in scenario.sessions:
            own = scenario.train_rows(session.index)
            for c in range(session.low, session.high):
                rows = own if name == "own session" else np.arange(len(train))
                rows = rows[truth[rows, c] >= 0]
                model = LogisticRegression(C=options.strength, max_iter=300).fit(train[rows], truth[rows, c])
                scores[:, c] = model.decision_function(test)
        for session in scenario.sessions:
            rows = scenario.test_rows(0, session.high)
            labels = scenario.test.labels_NC[rows, : session.high]
            curve.append(mean_average_precision(scores[rows, : session.high], labels))
        print(f"{name:>12}: " + "  ".join(f"{value:5.1f}" for value in curve), flush=True)
    return found["own session"][-1] / found["all images"][-1]


def maps(options: argparse.Namespace) -> float:
    """Print one table; seconds with maps computed in every epoch over those with maps computed once."""
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
                    "train_cfg": {"max_epochs": options.epochs},
                    "image_cache": {"folder": str(folder / "images")},
                    "feature_store": {"enabled": row == "once an image", "folder": str(folder / f"features_{turn}")},
                }
                with first_loss(losses, row):
                    spent, curves[row] = timed_run(content, f"run_{turn}_{len(row)}", options.clock)
                times.append(spent)
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
    return found["every epoch"] / found["once an image"]


def engines(options: argparse.Namespace, device: torch.device) -> float:
    """Print one table; onnxruntime's images a second over those of PyTorch's channels-last layout."""
    spec = {"backbone": {"name": options.backbone}, "head": {"type": "linear"}, "image_size": options.size}
    network = build_network(spec, [1])
    last = TorchEngine(network.to(device))
    contiguous = LastMap(network.backbone).eval().requires_grad_(False)
    onnx = OnnxEngine(network, last)  # fails when the maps differ

    def plainly(images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return contiguous(network_input(images.to(device))).cpu().numpy()  # type: ignore[no-any-return]

    rows: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
        "torch contiguous": plainly, "torch channels-last": last, "onnxruntime fp32": onnx,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{k}.jpg" for k in range(BATCH)]
        for file in files:
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)

        def decoded() -> torch.Tensor:
            return torch.from_numpy(np.stack([decode(file, options.size) for file in files]))

        images = decoded()
        work: dict[str, Callable[[], object]] = {row: (lambda f=f: f(images)) for row, f in rows.items()}  # type: ignore[misc]
        work |= {f"{row}, from files": (lambda f=f: f(decoded())) for row, f in rows.items()}  # type: ignore[misc]
        seconds = medians(work, device, options.repeats, 2, options.clock)
    print(f"{options.backbone}, {options.size} px, batch {BATCH}, photos of 500 x 375; {onnx.name}; {options.clock}")
    print(f"{'':34}{'images/s':>10}{'ratio':>8}")
    for row, value in seconds.items():
        base = seconds["torch channels-last" + (", from files" if "files" in row else "")]
        print(f"{row:34}{BATCH / value:>10.1f}{base / value:>8.2f}")
    ending = ", from files" if options.files else ""
    return seconds["torch channels-last" + ending] / seconds["onnxruntime fp32" + ending]


def main() -> None:
    """Print what is asked for, and a ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("config", nargs="?", help="whose features are to be judged")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--files", action="store_true", help="the ratio is that of the pass from JPEG files")
    parser.add_argument("--runs", action="store_true", help="two runs instead, with maps in every epoch and once")
    parser.add_argument("--strength", type=float, default=1e-3, help="C of the logistic regression")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--images", type=int, default=120, help="training images; half as many for testing")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=4, choices=(2, 4), help="of eight classes")
    parser.add_argument("--size", type=int, default=224, help="side that the network takes, in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    options = parser.parse_intermixed_args()
    device = begin(options)
    print(header(device))
    result = probe(options, device) if options.config else maps(options) if options.runs else engines(options, device)
    print(f"ratio {result:.2f}")


if __name__ == "__main__":
    main()
