"""All metrics of a session from its score matrix, at the size of COCO's validation images.

    python benchmarks/metrics.py [--images 40504] [--classes 80] [--clock cpu --threads 1]

``whole evaluation`` is what a run computes behind its prediction pass: average precision and F1 over the growing and
the fixed test set, each for base, seen and new classes. ``straightforward`` is the average precision of every class
from a stable order of all its scores; both APs are compared first.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from timing import add_options, begin, header, medians

from mlcil.evaluation.multilabel import average_precision
from mlcil.evaluation.sessions import evaluate_session

BAR = 1e-9


def straightforward(scores_NC: np.ndarray, targets_NC: np.ndarray) -> np.ndarray:
    """(C,) average precision by sorting."""
    found = []
    for scores_N, shown_N in zip(scores_NC.T, targets_NC.T == 1, strict=True):
        hits_N = shown_N[np.argsort(-scores_N, kind="stable")]
        precision_N = np.cumsum(hits_N) / np.arange(1, len(hits_N) + 1)
        found.append((precision_N * hits_N).sum() / hits_N.sum())
    return np.array(found)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--images", type=int, default=40504)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = begin(options)
    print(header(device))
    rng = np.random.default_rng(0)
    targets_NC = (rng.random((options.images, options.classes)) < 2.9 / options.classes).astype(np.int8)
    scores_NC = 1 / (1 + np.exp(-(rng.standard_normal(targets_NC.shape) + 2 * targets_NC))).astype(np.float32)
    difference = np.abs(average_precision(scores_NC, targets_NC) - straightforward(scores_NC, targets_NC)).max()
    if not difference <= BAR:
        sys.exit(f"average precision differs by {difference:.1e}")
    tenth = options.classes // 10
    seconds = medians(
        {
            "straightforward": lambda: straightforward(scores_NC, targets_NC),
            "ours": lambda: average_precision(scores_NC, targets_NC),
            "whole evaluation": lambda: evaluate_session(
                scores_NC,
                targets_NC,
                selects_NC=targets_NC == 1,
                low=options.classes - tenth,
                high=options.classes,
                base_high=tenth,
                fixed_rows=np.arange(options.images),
            ),
        },
        device,
        options.repeats,
        0,
        options.clock,
    )
    print(
        f"{options.images} images, {options.classes} classes; APs differ by at most {difference:.0e}; {options.clock} s"
    )
    for name, value in seconds.items():
        print(f"{name:24}{value:8.2f}")


if __name__ == "__main__":
    main()
