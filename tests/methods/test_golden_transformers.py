"""Golden losses of DKT and DAFormer in float64: a fixed seed and a few steps. A refactor must not change them.

Regenerate after a deliberate change: python tests/methods/test_golden_transformers.py
"""

import pytest
import torch

from mlcil.engine.optim import SharpnessAwareOptimWrapper, decay_groups
from mlcil.methods import DKT, DAFormer
from mlcil.methods.base import SessionContext
from mlcil.methods.daformer import mix_up
from mlcil.models.network import IncrementalNetwork

SMALL = {"dim": 16, "depth": 2, "heads": 4, "drop_path": 0.0}
CASES = {
    "DKT": (DKT, "dkt", {}, {}),
    "DAFormer-M": (DAFormer, "daformer", {"edition": "M", "drop_path": 0.0}, {}),
    "DAFormer-S": (DAFormer, "daformer", {"edition": "S", "drop_path": 0.0}, {}),
    "DAFormer-M neighbours": (
        DAFormer,
        "daformer",
        {"edition": "M", "drop_path": 0.0},
        {"distillation": "both", "neighbours": 3},
    ),
}
# losses of two steps and one of balanced fine-tuning, in each of three sessions of 3 + 2 + 2 classes
GOLDEN = {
    "DKT": [
        0.79625665, 0.54755995, 0.49515387, 0.65747938, 0.58758611, 0.66222486, 0.41232749, 0.3904537, 0.61283123
    ],
    "DAFormer-M": [
        0.75631593, 0.69719353, 0.64888168, 0.36688584, 0.5237854, 0.35151305, 0.58797695, 0.64259969, 0.2778641,
        0.41334564, 0.26752137, 0.40501642, 0.64519022
    ],
    "DAFormer-S": [
        0.75631593, 0.69719353, 0.64888168, 0.36764364, 0.55598792, 0.35207181, 0.58912785, 0.66523684, 0.25077177,
        0.33489213, 0.23817167, 0.34118306, 0.57766952
    ],
    "DAFormer-M neighbours": [
        0.75631593, 0.69719353, 0.64888168, 0.36688584, 0.52599279, 0.35194651, 0.59284966, 0.64397858, 0.27852202,
        0.41719609, 0.29011225, 0.56591546, 0.6738591
    ],
}  # fmt: skip


def losses_of(name):
    """Total loss of every step; DAFormer's batches are mixed, and its later steps sharpness-aware (two losses)."""
    method_class, kind, head, options = CASES[name]
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(11)
    network = IncrementalNetwork({"name": kind, **SMALL}, {"type": kind, "num_heads": 4, **head}, 32)
    method = method_class(network.double(), finetuning={}, **options)
    found = []
    for index, (low, high) in enumerate(((0, 3), (3, 5), (5, 7))):
        images = torch.rand(6, 3, 32, 32, generator=generator, dtype=torch.float64)
        labels = torch.randint(high, (6,), generator=generator)
        targets = torch.nn.functional.one_hot(labels, high).double()
        if kind == "daformer":
            images, targets = mix_up(images, targets, 0.7, 0.1)
        method.begin_session(SessionContext(index, low, high, 2, 7, None, 1.0, batch_size=6))
        method.train()
        sharp = kind == "daformer" and index > 0
        for phase_steps in (2, 1):
            optimizer = torch.optim.AdamW(decay_groups(method, 1e-6), lr=1e-3)
            wrapper = SharpnessAwareOptimWrapper(rho=3.0, optimizer=optimizer, precision="fp32")
            for _ in range(phase_steps):
                for _ in range(2 if sharp and phase_steps == 2 else 1):
                    total = sum(method(images, targets, mode="loss").values())
                    if sharp and phase_steps == 2:
                        wrapper.update_params(total)
                    else:
                        optimizer.zero_grad()
                        total.backward()
                        optimizer.step()
                    found.append(total.item())
            method.begin_finetuning()
    return found


@pytest.mark.parametrize("name", CASES)
def test_golden_losses(name):
    assert losses_of(name) == pytest.approx(GOLDEN[name], rel=1e-5)


if __name__ == "__main__":
    for key in CASES:
        print(f'    "{key}": {[round(value, 8) for value in losses_of(key)]},')
