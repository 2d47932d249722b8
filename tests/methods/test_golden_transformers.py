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
        0.6740648, 0.62375667, 0.58547712, 0.35027721, 0.55198419, 0.33693992, 0.62612771, 0.65201885, 0.27642499,
        0.35882207, 0.27377501, 0.3788395, 0.69425766
    ],
    "DAFormer-S": [
        0.6740648, 0.62375667, 0.58547712, 0.38406874, 0.52893393, 0.37391885, 0.59566064, 0.73530659, 0.28811616,
        0.35448742, 0.27868767, 0.3993584, 0.70043822
    ],
    "DAFormer-M neighbours": [
        0.6740648, 0.62375667, 0.58547712, 0.35027721, 0.58521348, 0.3482285, 1.6217328, 0.68289451, 0.28397402,
        0.37288008, 0.31041632, 2.23086364, 0.68465183
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
