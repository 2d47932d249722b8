"""What a training step keeps in memory, and what each option saves and costs; ``train_step.py --what memory``.

``official`` runs the attention once per session, everything in fp32 and contiguous. The other rows are ours: as by
default in fp32, with ``network.backbone.recompute``, in bf16, and with the ``inplace-abn`` package where it imports.
The gradients are compared first, as one vector, with those of ``official``. ``kept`` is what autograd holds on to
between forward and backward, ``peak`` the most that a GPU had allocated during a step. ``ratio`` is the official
formulation's ``kept`` over that with ``recompute``, the smallest in fp32.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from timing import formulations, kept_for_backward, medians
from torch import Tensor, nn

from mlcil.models.inplace_abn import load_package
from mlcil.models.network import build_network
from mlcil.models.numerics import autocast

CLASSES = 10  # of a session
BARS = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the gradients' relative distance


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print one table; kept by the official formulation over kept with ``recompute``."""
    sessions = options.sessions[-1]
    images = torch.rand(options.batch, 3, options.size, options.size, device=device)
    rows: dict[str, tuple[dict[str, Any], torch.dtype]] = {
        "official": ({"abn": "torch"}, torch.float32),
        "default, fp32": ({"abn": "torch"}, torch.float32),
        "recompute=True": ({"abn": "torch", "recompute": True}, torch.float32),
        "bf16": ({"abn": "torch"}, torch.bfloat16),
    }
    if load_package() is not None:
        rows["inplace-abn"] = ({"abn": "package"}, torch.float32)
    networks: dict[str, nn.Module] = {}
    weights: dict[str, Tensor] = {}
    for name, (backbone, _) in rows.items():
        spec = {"backbone": {"name": options.backbone, **backbone}, "head": {"type": "ica"}, "image_size": options.size}
        network = build_network(spec, [CLASSES] * sessions)
        weights = weights or {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(weights)
        network.to(device)
        if name != "official":
            network.to(memory_format=torch.channels_last)
        networks[name] = formulations.PerSession(network) if name == "official" else network

    def forward(name: str) -> Tensor:
        network, dtype = networks[name].train(), rows[name][1]
        with autocast(device, dtype):
            return network(images).logits_BC.float().square().mean()

    def step(name: str) -> None:
        networks[name].zero_grad()
        forward(name).backward()

    def gradients(name: str) -> Tensor:
        step(name)
        return torch.cat([p.grad.flatten().float() for p in networks[name].parameters() if p.grad is not None])

    expected = gradients("official")
    for name, (_, dtype) in rows.items():
        difference = ((gradients(name) - expected).norm() / expected.norm()).item()
        if not difference <= BARS[dtype]:
            sys.exit(f"{name}: the gradients differ by {difference:.1e}, more than {BARS[dtype]:.0e}")
    seconds = medians({name: lambda name=name: step(name) for name in rows}, device, options.steps, 1, options.clock)
    kept = {name: kept_for_backward(lambda name=name: forward(name), networks[name], images) for name in rows}
    print(f"{options.backbone}, {sessions} sessions, batch {options.batch}, {options.size} px")
    print(f"{'':20}{'kept MB an image':>18}{'ratio':>8}{'peak MB':>10}{'ms a step':>12}{'ratio':>8}")
    for name in rows:
        peak = "-"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            step(name)
            peak = f"{1e-6 * torch.cuda.max_memory_allocated(device):.0f}"
        print(
            f"{name:20}{1e-6 * kept[name] / options.batch:>18.1f}{kept['official'] / kept[name]:>8.2f}{peak:>10}"
            f"{1e3 * seconds[name]:>12.0f}{seconds['official'] / seconds[name]:>8.2f}"
        )
    return kept["official"] / kept["recompute=True"]
