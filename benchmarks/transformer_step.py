"""What an extra session costs in DKT and DAFormer: shared work against the straightforward formulation.

    python benchmarks/transformer_step.py [--device auto|cpu|cuda] [--batch 32] [--network]

Forward and backward of the heads of the released size on fixed random feature maps of 8 x 8 positions, after
1, 5, 10 and 20 sessions of five classes; with ``--network`` with the encoder in front and images instead of
maps. Straightforward is ``reference.py``: DAFormer's whole dual block once a session, DKT's keys and values of
the whole sequence. (Edition S has a single key; running its block once a session is a yardstick only.) Logits,
embeddings and gradients of the two are compared before anything is timed, in float64 because several gradients
are zero but for rounding, and the program fails when they differ by more than 1e-8. What is timed is float32.

``memory`` is the peak of one step above the resting state on a GPU; on a CPU, the bytes that autograd keeps
between forward and backward. ``ratio`` is straightforward over ours, ``growth`` ours against ours at the first
number of sessions.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from reference import whole_block_forward, whole_sequence_forward
from timing import header, medians, pick_device, synchronise
from torch import Tensor, nn

from mlcil.models.network import IncrementalNetwork, build_network

BAR = 1e-8
CLASSES = 5  # of a session
KINDS = {"DKT": ("dkt", {}), "DAFormer-M": ("daformer", {"edition": "M"}), "DAFormer-S": ("daformer", {"edition": "S"})}
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


def train(forward: Forward, inputs: Tensor, module: nn.Module) -> tuple[Tensor, Tensor]:
    """One forward and backward pass; gradients are left in the module's parameters."""
    module.zero_grad(set_to_none=True)
    logits_BC, tokens_BSD = forward(inputs)
    (logits_BC.square().mean() + tokens_BSD.square().mean()).backward()
    return logits_BC.detach(), tokens_BSD.detach()


def compare(network: IncrementalNetwork, inputs: Tensor, whole: bool) -> float:
    """Largest difference of logits, embeddings and gradients, each relative to the largest value of its kind.

    Gradients below 1e-5 of the largest gradient are measured against that. Exits when the difference is above
    ``BAR``.
    """
    network = copy.deepcopy(network).double()
    found = []
    for forward in forwards(network, whole):
        outputs = train(forward, inputs.double(), network)
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        found.append([*outputs, *gradients])
    floor = 1e-5 * max(g.abs().max().item() for g in found[1][2:])
    worst = 0.0
    for index, (a, b) in enumerate(zip(*found, strict=True)):
        scale = max(b.abs().max().item(), floor if index >= 2 else 1e-8)
        worst = max(worst, (a - b).abs().max().item() / scale)
    if not worst <= BAR:
        sys.exit(f"the two formulations differ by {worst:.1e}, more than {BAR:.0e}")
    return worst


def memory(forward: Forward, inputs: Tensor, module: nn.Module, device: torch.device) -> float:
    """MiB of a step, see the head of this file."""
    if device.type == "cuda":
        module.zero_grad(set_to_none=True)
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        train(forward, inputs, module)
        synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        train(forward, inputs, module)
    return sum(kept.values()) / 2**20


def forwards(network: IncrementalNetwork, whole: bool) -> tuple[Forward, Forward]:
    """Ours and the straightforward formulation; ``whole`` puts the encoder in front of both."""
    head, backbone = network.head, network.backbone
    reference = whole_sequence_forward if hasattr(head, "stability") else whole_block_forward
    if whole:
        return lambda x: head(backbone(x)[-1])[:2], lambda x: reference(head, backbone(x)[-1])  # type: ignore[arg-type]
    return lambda x: head(x)[:2], lambda x: reference(head, x)  # type: ignore[arg-type]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dim", type=int, default=384, help="width of the network")
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--repeats", type=int, default=5, help="timed turns")
    parser.add_argument("--network", action="store_true", help="with the encoder, from images")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    print(header(device))
    what = "whole network on images of 32 x 32" if options.network else "heads on maps of 8 x 8"
    print(f"batch {options.batch}, width {options.dim}, {what}, forward and backward, median ms and MiB")
    columns = ("sessions", "straight", "ours", "ratio", "growth", "memory", "ours", "ratio", "difference")
    print(f"{'':>12}" + "".join(f"{name:>11}" for name in columns))
    for name, (kind, head) in KINDS.items():
        first = None
        for sessions in options.sessions:
            size = {"dim": options.dim, "heads": options.heads, "drop_path": 0.0}
            head_options = {"type": kind, "num_heads": options.heads, **head}
            if kind == "daformer":
                head_options["drop_path"] = 0.0  # the same step twice: no draws
            spec = {"backbone": {"name": kind, **size}, "head": head_options, "image_size": 32}
            network = build_network(spec, [CLASSES] * sessions).to(device).train()
            module: nn.Module = network if options.network else network.head
            shape = (3, 32, 32) if options.network else (options.dim, 8, 8)
            inputs = torch.randn(options.batch, *shape, device=device)
            ours, straight = forwards(network, options.network)
            difference = compare(network, inputs, options.network)
            seconds = medians(
                {
                    "straight": lambda f=straight, x=inputs, m=module: train(f, x, m),
                    "ours": lambda f=ours, x=inputs, m=module: train(f, x, m),
                },
                device,
                options.repeats,
            )
            mib = [memory(forward, inputs, module, device) for forward in (straight, ours)]
            first = first or seconds["ours"]
            print(
                f"{name:>12}{sessions:>11}{1e3 * seconds['straight']:>11.2f}{1e3 * seconds['ours']:>11.2f}"
                f"{seconds['straight'] / seconds['ours']:>11.2f}{seconds['ours'] / first:>11.2f}"
                f"{mib[0]:>11.1f}{mib[1]:>11.1f}{mib[0] / mib[1]:>11.2f}{difference:>11.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
