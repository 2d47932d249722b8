"""The yardstick of an incremental run: logistic regression on frozen pretrained features.

    python benchmarks/linear_probe.py lite/voc_finetune [key=value ...]

One classifier a class on the pooled, standardised features of the config's pretrained backbone, test transforms.
``all images``: trained on the labels of the whole training split (no incremental method has them). ``own session``:
trained on the images of the class's session alone, as an exemplar-free method sees them. Printed is the mAP on the
seen classes after every session, on the growing test set, in percent.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.datasets.table import ImageTable
from mlcil.engine.build import build_method, build_scenario, load_weights
from mlcil.engine.config import load_config
from mlcil.engine.evaluate import predict_view
from mlcil.evaluation.multilabel import mean_average_precision


def features(method: Any, table: ImageTable, image_size: int) -> np.ndarray:
    """Pooled features (N, K) of a split."""
    view = SessionView(table, np.arange(len(table)), np.zeros((len(table), 0), np.int8), image_size)
    return predict_view(method, Loader(view, SessionSampler(len(view), 0, 0, shuffle=False), 64))[1]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--strength", type=float, default=1e-3, help="C of the logistic regression")
    options = parser.parse_args()
    cfg = load_config(options.config, options.overrides)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    scenario, method = build_scenario(cfg), build_method(cfg)
    load_weights(cfg, method, scenario)
    method.network.grow(len(scenario.classes))
    method.eval()
    train, test = (features(method, t, cfg.network.image_size) for t in (scenario.train, scenario.test))
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    truth = scenario.train.labels_NC
    for name in ("all images", "own session"):
        scores = np.zeros((len(test), len(scenario.classes)))
        for session in scenario.sessions:
            own = scenario.train_rows(session.index)
            for c in range(session.low, session.high):
                rows = own if name == "own session" else np.arange(len(train))
                rows = rows[truth[rows, c] >= 0]
                model = LogisticRegression(C=options.strength, max_iter=300).fit(train[rows], truth[rows, c])
                scores[:, c] = model.decision_function(test)
        found = []
        for session in scenario.sessions:
            rows = scenario.test_rows(0, session.high)
            labels = scenario.test.labels_NC[rows, : session.high]
            found.append(mean_average_precision(scores[rows, : session.high], labels))
        print(f"{name:>12}: " + "  ".join(f"{value:5.1f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
