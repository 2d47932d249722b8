"""Golden losses: every step's losses of a short run on synthetic images. A refactor must not change them.

Double precision on one thread keeps them the same on every machine. After a deliberate change print new literals with

    PYTHONPATH=src:tests python tests/methods/test_golden.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import BACKBONE, BATCH, ICA, LINEAR, SIZE, SPLITS, STEPS, VIT, batches
from phase_calls import after_training, before_training

from mlcil.engine.optim import decay_groups
from mlcil.engine.schedules import OneCycle
from mlcil.methods.base import SessionContext
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import METHODS

HEADS = {
    "KRT": ICA,
    "AGCN": {"type": "graph", "node_channels": 8, "hidden_channels": 16},
    "ICaRL": {"type": "prototype"},
    "KBK": {"type": "kbk", "depth": 2, "width": 32},
    "CSC": {"type": "csc", "node_channels": 16},
    "MultiLane": {"type": "lanes", "tokens": 4, "prompts": 3, "prompt_blocks": 2},
}
BACKBONES = {"MultiLane": {"backbone": VIT, "frozen_backbone": True}}
OPTIONS = {"KRT": {"token_weight": 50.0, "search": {"start": 0.5, "step": 0.01, "band": 0.6}}, "BiC": {"held_out": 3}}
# sum of the losses of every step, three sessions of two steps
GOLDEN: dict[str, list[float]] = {
    "AGCN": [47.924767, 65.996068, 226.05404, 177.7351, 261.1938, 287.0493],
    "ER": [59.826795, 34.680303, 46.938847, 41.847349, 69.086278, 81.894791],
    "CSC": [0.72432696, 0.73324499, 0.6771221, 0.66820742, 0.65000455, 0.61467319],
    "KBK": [0.48846305, 0.3188056, 0.50999808, 0.43027769, 0.44071722, 0.4096993],
    "KRT": [58.186804, 37.696777, 78.332915, 96.541152, 92.358748, 94.576605],
    "OCDM": [59.826795, 34.680303, 46.938847, 41.847349, 69.086278, 81.894791],
    "OEWC": [59.826795, 34.680303, 46.938847, 41.847729, 69.086278, 81.895772],
    "POD": [59.826795, 34.680303, 170.26319, 161.74705, 218.63115, 234.38683],
    "PRS": [59.826795, 34.680303, 46.938847, 41.847349, 69.086278, 81.894791],
    "RCLP": [59.826795, 34.680303, 51.34086, 48.417134, 61.44872, 66.683134],
    "TPCIL": [59.826795, 34.680303, 47.862632, 43.514751, 77.102534, 85.934864],
    "BiC": [59.826795, 34.680303, 209.87988, 210.59595, 458.30407, 445.88832],
    "DERpp": [59.826795, 34.680303, 85.170908, 77.939652, 108.84196, 119.5988],
    "Finetune": [59.826795, 34.680303, 46.938847, 41.847349, 69.086278, 81.894791],
    "ICaRL": [59.826795, 34.680303, 164.9465, 150.78313, 252.42793, 271.57635],
    "MultiLane": [0.69519465, 0.66762504, 0.70232477, 0.6822987, 0.66011126, 0.69046022],
    "LwF": [59.826795, 34.680303, 575.62767, 571.21569, 949.55251, 958.83291],
}


def losses_of(name):
    """Sum of the losses of every step; the engine's calls in the engine's order."""
    torch.manual_seed(7)
    parts = {"backbone": BACKBONE, "head": HEADS.get(name, LINEAR), "image_size": SIZE, **BACKBONES.get(name, {})}
    method = METHODS.get(name)(IncrementalNetwork(**parts), **OPTIONS.get(name, {}))
    found = []
    for index, (low, high) in enumerate(SPLITS):
        data = batches(index)
        method.double()
        method.begin_session(SessionContext(index, low, high, 2, SPLITS[-1][1], 2.0, 1.0 + index, BATCH))
        method.double()
        before_training(method, data)
        method.train()
        optimizer = torch.optim.Adam(decay_groups(method, 1e-4), lr=1e-3)
        schedule = OneCycle(optimizer, epochs=1, epoch_length=STEPS)
        for batch in data:
            total = torch.stack(list(method(**batch, mode="loss").values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
            found.append(total.item())
        after_training(method, data)
        for upcoming in range(index + 1, len(SPLITS)):  # whatever will be replayed is remembered with its logits
            rows = torch.cat([b["rows"][b["origins"] == 0] for b in batches(upcoming)]).numpy()
            logits = np.linspace(-2, 2, len(rows) * high, dtype=np.float32).reshape(len(rows), high)
            method.remember(rows, logits, np.arange(2000))
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_losses(name):
    assert losses_of(name) == pytest.approx(GOLDEN[name], rel=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("GOLDEN: dict[str, list[float]] = {")
    for key in GOLDEN:
        print(f'    "{key}": [{", ".join(f"{value:.8g}" for value in losses_of(key))}],')
    print("}")
