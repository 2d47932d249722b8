"""Golden losses: a fixed seed and a few steps a method. A refactor must not change them.

Regenerate after a deliberate change: python tests/methods/test_golden.py
"""

import pytest
import torch

from mlcil.engine.optim import OneCycle, decay_groups
from mlcil.methods import KRT, POD, Finetune
from mlcil.methods.base import SessionContext
from mlcil.models.network import IncrementalNetwork

METHODS = {
    "KRT": (KRT, "ica", {"token_weight": 50.0}),
    "POD": (POD, "linear", {}),
    "Finetune": (Finetune, "linear", {}),
}
# losses of two steps in each of three sessions of 3 + 2 + 2 classes
GOLDEN = {
    "KRT": [56.9635, 55.8191, 76.1083, 71.9823, 72.7386, 63.6838],
    "POD": [56.8944, 48.813, 187.4197, 173.4492, 217.8672, 200.5211],
    "Finetune": [56.8944, 48.813, 32.7293, 22.8322, 37.898, 25.712],
}


def losses_of(name):
    """Total loss of every step."""
    method_class, head, options = METHODS[name]
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(11)
    head_options = {"type": "ica", "embed_dim": 32, "num_heads": 4} if head == "ica" else {"type": "linear"}
    backbone = {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25, "abn": "torch"}
    method = method_class(IncrementalNetwork(backbone, head_options, 64), **options)
    found = []
    for index, (low, high) in enumerate(((0, 3), (3, 5), (5, 7))):
        images = torch.rand(6, 3, 64, 64, generator=generator)
        targets = (torch.rand(6, high, generator=generator) < 0.4).float()
        targets[:, :low] = 0
        method.begin_session(SessionContext(index, low, high, 2, 7, 2.0, 1.0, batch_size=6))
        method.prepare_session([{"inputs": images, "targets": targets}])
        method.train()
        optimizer = torch.optim.Adam(decay_groups(method, 1e-4), lr=1e-3)
        schedule = OneCycle(optimizer, epochs=1, epoch_length=2)
        for _ in range(2):
            total = sum(method.loss(images, targets).values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
            found.append(total.item())
    return found


@pytest.mark.parametrize("name", METHODS)
def test_golden_losses(name):
    assert losses_of(name) == pytest.approx(GOLDEN[name], rel=1e-3)


if __name__ == "__main__":
    for key in METHODS:
        print(f'    "{key}": {[round(value, 4) for value in losses_of(key)]},')
