"""Operations and bytes of a training step and of a prediction, and what a machine could make of them at best.

    python benchmarks/roofline.py [--backbone tresnet_m] [--sessions 8] [--batch 64] [--machine NAME GFLOP/s GB/s]

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
from reference import PerSession
from timing import kept_for_backward, operations
from torch import Tensor, nn

from mlcil.models.folding import folded
from mlcil.models.network import build_network

CLASSES = 10  # of a session
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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tresnet_m")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=64, help="over which a step reads its weights once")
    parser.add_argument(
        "--machine", nargs=3, action="append", metavar=("NAME", "GFLOP/s", "GB/s"), help="a machine's peaks"
    )
    options = parser.parse_args()
    machines = [(name, float(flops), float(bytes_)) for name, flops, bytes_ in options.machine or MACHINES]
    with torch.device("meta"):
        spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
        network = build_network(spec, [CLASSES] * options.sessions).eval()
        images = torch.empty(options.batch, 3, options.size, options.size)
    maps = network.backbone(images)[-1].detach()
    plain, teacher = PerSession(network).eval(), folded(network)
    scale = 1 / options.batch

    def forward(module: Callable[[Tensor], Any], inputs: Tensor) -> float:
        return scale * operations(lambda: module(inputs))

    def train(module: nn.Module, official: bool) -> float:
        module.train()
        work = operations(lambda: module(images).logits_BC.sum().backward())
        module.eval()
        return scale * work + forward(plain if official else teacher, images)

    count = sum(p.numel() for p in network.parameters())
    print(f"{options.backbone} + ICA, {options.sessions} sessions of {CLASSES} classes, {options.size} px, an image:")
    rows = {
        "forward: backbone": forward(network.backbone, images),
        "forward: head": forward(network.head, maps),
        "forward: head, attention once a session": forward(lambda x: plain_head(network, x), maps),
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


def plain_head(network: nn.Module, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The head with its attention repeated for every session."""
    from reference import per_session_forward

    return per_session_forward(network.head, maps)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
