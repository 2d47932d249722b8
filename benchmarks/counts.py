"""Operations and bytes of a step and a prediction, and a machine's best with them; ``train_step.py --what counts``.

Nothing is computed: networks and images are on PyTorch's meta device, which knows shapes only. Operations are those of
products and convolutions (two a multiply-add). Bytes are those that every layer reads (inputs, weights) and writes
(outputs), as if nothing stayed in a cache and no two layers were fused; layers that work in place count as one pass
over their map. ``kept`` is what autograd holds between forward and backward. A machine's images per second are bounded
by operations over its peak and by bytes over its bandwidth, whichever takes longer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from timing import formulations, kept_for_backward, operations
from torch import Tensor, nn

from mlcil.models.folding import folded
from mlcil.models.network import build_network

MACHINES = (
    ("100 GFLOP/s, 20 GB/s", 100.0, 20.0),
    ("1 TFLOP/s, 100 GB/s", 1e3, 100.0),
    ("312 TFLOP/s, 2 TB/s", 312e3, 2e3),
)


def traffic(module: nn.Module, images: Tensor) -> float:
    """Bytes that a forward pass reads and writes, layer by layer."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        tensors = [x for x in (*inputs, output, *layer.parameters()) if isinstance(x, Tensor)]
        total += sum(x.nbytes for x in tensors)

    with ExitStack() as stack:
        for layer in module.modules():
            if not list(layer.children()):
                stack.callback(layer.register_forward_hook(count).remove)
        with torch.no_grad():
            module(images)
    return total


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print the tables; operations of a step, official over ours."""
    machines = [(name, float(flops), float(bytes_)) for name, flops, bytes_ in options.machine or MACHINES]
    with torch.device("meta"):
        spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
        network = build_network(spec, [options.classes] * options.sessions[-1]).eval()
        images = torch.empty(options.batch, 3, options.size, options.size)
    maps = network.backbone(images)[-1].detach()
    plain, teacher = formulations.PerSession(network).eval(), folded(network)
    scale = 1 / options.batch

    def forward(module: Callable[[Tensor], Any], inputs: Tensor) -> float:
        return scale * operations(lambda: module(inputs))

    def head_by_session(maps: Tensor) -> Any:
        return formulations.per_session_forward(network.head, maps)

    def train(module: nn.Module, official: bool) -> float:
        module.train()
        work = operations(lambda: module(images).logits_BC.sum().backward())
        module.eval()
        return scale * work + forward(plain if official else teacher, images)

    count = sum(p.numel() for p in network.parameters())
    sessions = f"{options.sessions[-1]} sessions of {options.classes} classes"
    print(f"{options.backbone} + ICA, {sessions}, {options.size} px, an image:")
    rows = {
        "forward: backbone": forward(network.backbone, images),
        "forward: head": forward(network.head, maps),
        "forward: head, attention once a session": forward(head_by_session, maps),
        "prediction": forward(network, images),
        "step with teacher": train(network, official=False),
        "step with teacher, official": train(plain, official=True),
    }
    for name, gflop in rows.items():
        print(f"{name:44}{gflop:10.3f} GFLOP")
    moved, moved_folded = traffic(network, images), traffic(teacher, images)
    step_bytes = 3 * moved + moved_folded + 7 * 4 * count  # backward: twice the forward; Adam reads 4 and writes 3
    kept = kept_for_backward(lambda: network.train()(images), network)
    print(f"\n{'weights':44}{4e-6 * count:10.1f} MB in fp32 ({count / 1e6:.1f} M parameters)")
    print(f"{'weights, gradients, Adam, teacher':44}{4e-6 * count * 5:10.1f} MB")
    print(f"{'kept for the backward pass':44}{1e-6 * scale * kept:10.1f} MB an image in fp32")
    print(f"{'read and written: forward, norms folded':44}{1e-6 * scale * moved_folded:10.1f} MB an image in fp32")
    print(f"{'read and written: step with teacher':44}{1e-6 * scale * step_bytes:10.1f} MB an image in fp32")
    for name, work, size in (
        ("prediction", rows["prediction"], moved_folded),
        ("step with teacher", rows["step with teacher"], step_bytes),
    ):
        print(f"\n{name}: {1e9 * work / (scale * size):.1f} operations a byte in fp32, twice that in bf16")
        print(f"{'machine (peaks in the precision used)':44}{'fp32 bytes':>14}{'bf16 bytes':>14}  images/s at most")
        for machine, gflops, gbs in machines:
            bounds = [min(gflops / work, gbs * 1e9 / (scale * size * share)) for share in (1.0, 0.5)]
            print(f"{machine:44}" + "".join(f"{bound:14.1f}" for bound in bounds))
    return rows["step with teacher, official"] / rows["step with teacher"]
