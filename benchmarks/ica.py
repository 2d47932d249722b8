"""What an extra session costs: ICA as here against the attention repeated for every session.

    python benchmarks/ica.py [--device auto|cpu|cuda] [--batch 16] [--backbone tresnet_m]

Forward and backward of the head on fixed random feature maps, at 1, 4, 8 and 16 sessions of ten classes;
with ``--backbone`` the whole network too. Logits, tokens and gradients of the two formulations are compared
in float32 before anything is timed, and the program fails when they differ by more than 1e-4.

``ratio`` is the time per session over the time of ours; ``growth`` is ours against ours at the first number
of sessions; ``difference`` is the largest that was found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from reference import per_session_forward
from timing import header, medians, pick_device
from torch import Tensor, nn

from mlcil.models.backbones import build_backbone, grid_of
from mlcil.models.heads import ICAHead

BAR = 1e-4
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


def train(forward: Forward, images: Tensor, modules: list[nn.Module]) -> tuple[Tensor, Tensor]:
    """One forward and backward pass; gradients are left in the modules' parameters."""
    for module in modules:
        module.zero_grad(set_to_none=True)
    logits_BC, tokens_BSD = forward(images)
    (logits_BC.square().mean() + tokens_BSD.square().mean()).backward()
    return logits_BC.detach(), tokens_BSD.detach()


def compare(head: ICAHead, maps: Tensor) -> float:
    """Largest difference of logits, tokens and gradients, each relative to the largest value of its kind.

    Exits when it is above ``BAR``.
    """
    found = []
    for forward in (head, lambda m: per_session_forward(head, m)):
        logits_BC, tokens_BSD = train(forward, maps, [head])
        gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
        found.append([logits_BC, tokens_BSD, *gradients])
    worst = max(((a - b).abs().max() / b.abs().max().clamp_min(1e-8)).item() for a, b in zip(*found, strict=True))
    if not worst <= BAR:
        sys.exit(f"the two formulations differ by {worst:.1e}, more than {BAR:.0e}")
    return worst


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=15, help="timed turns of the head")
    parser.add_argument("--backbone", help="time the whole network too, such as tresnet_m")
    parser.add_argument("--network-repeats", type=int, default=3, help="timed turns of the whole network")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    print(header(device))
    channels, grid, trunk = 2048, (7, 7), None
    if options.backbone:
        trunk = build_backbone(options.backbone, options.size)
        channels, grid = trunk.out_channels, grid_of(trunk, options.size)
        trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.rand(options.batch, 3, options.size, options.size, device=device)
    maps = torch.rand(options.batch, channels, *grid, device=device)
    print(f"batch {options.batch}, maps of {channels} x {grid[0]} x {grid[1]}, forward and backward, median ms")
    print(f"{'':>8}{'sessions':>10}{'per session':>13}{'ours':>10}{'ratio':>8}{'growth':>8}{'difference':>12}")
    first: dict[str, float] = {}
    for sessions in options.sessions:
        head = ICAHead(channels, grid)
        for _ in range(sessions):
            head.grow(10)
        head.to(device)
        difference = compare(head, maps)
        cases: dict[str, tuple[int, dict[str, Callable[[], object]]]] = {
            "head": (
                options.repeats,
                {
                    "reference": lambda head=head: train(lambda m: per_session_forward(head, m), maps, [head]),
                    "ours": lambda head=head: train(head, maps, [head]),
                },
            )
        }
        if trunk is not None:
            cases["network"] = (
                options.network_repeats,
                {
                    "reference": lambda head=head: train(
                        lambda x: per_session_forward(head, trunk(x)[-1]), images, [trunk, head]
                    ),
                    "ours": lambda head=head: train(lambda x: head(trunk(x)[-1]), images, [trunk, head]),
                },
            )
        for name, (repeats, candidates) in cases.items():
            seconds = medians(candidates, device, repeats)
            reference, ours = seconds["reference"], seconds["ours"]
            first.setdefault(name, ours)
            print(
                f"{name:>8}{sessions:>10}{1e3 * reference:>13.2f}{1e3 * ours:>10.2f}{reference / ours:>8.2f}"
                f"{ours / first[name]:>8.2f}" + (f"{difference:>12.1e}" if name == "head" else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
