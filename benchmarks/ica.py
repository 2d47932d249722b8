"""What an extra session costs: ICA as here against the attention repeated for every session.

    python benchmarks/ica.py [--device auto] [--batch 16] [--backbone tresnet_m]

Forward and backward of the head on fixed feature maps, at 1, 4, 8 and 16 sessions of ten classes. Logits,
tokens and gradients of the two are compared first. With --backbone the whole network is timed as well.
"""

from __future__ import annotations

import argparse
import sys

import torch
from reference import per_session_forward
from timing import header, medians, pick_device

from mlcil.models.heads import ICAHead
from mlcil.models.network import build_network


def compare(head: ICAHead, maps: torch.Tensor) -> float:
    """Largest difference of logits, tokens and gradients relative to the largest value; exits when it is large."""
    found = []
    for function in (head, lambda m: per_session_forward(head, m)):
        head.zero_grad()
        logits, tokens = function(maps)
        (logits.square().sum() + tokens.square().sum()).backward()
        found.append([logits.detach(), tokens.detach(), *(p.grad.clone() for p in head.parameters())])
    worst = max(((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item() for a, b in zip(*found, strict=True))
    if worst > 1e-3:
        sys.exit(f"the two formulations differ by {worst:.1e}")
    return worst


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backbone", help="time the whole network too, such as tresnet_m")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    print(header(device))
    columns = ("", "sessions", "per session ms", "shared ms", "ratio", "vs 1 session", "difference")
    widths = (10, 9, 15, 11, 7, 14, 12)
    print("".join(name.rjust(width) for name, width in zip(columns, widths, strict=True)))
    maps = torch.rand(options.batch, 2048, 7, 7, device=device)
    images = torch.rand(options.batch, 3, 224, 224, device=device)
    first: dict[str, float] = {}
    for sessions in (1, 4, 8, 16):
        head = ICAHead(2048, (7, 7))
        for _ in range(sessions):
            head.grow(10)
        head.to(device)
        difference = compare(head, maps)

        def step(forward, head=head, maps=maps):
            head.zero_grad()
            forward(maps)[0].square().sum().backward()

        rows = {
            "head": {
                "reference": lambda head=head, step=step: step(lambda m: per_session_forward(head, m)),
                "ours": lambda head=head, step=step: step(head),
            }
        }
        if options.backbone:
            spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": 224}
            network = build_network(spec, [10] * sessions).to(device)

            def whole(shared, network=network):
                network.zero_grad()
                last = network.backbone(images)[-1]
                out = network.head(last) if shared else per_session_forward(network.head, last)
                out[0].square().sum().backward()

            rows["network"] = {
                "reference": lambda whole=whole: whole(False),
                "ours": lambda whole=whole: whole(True),
            }
        for name, candidates in rows.items():
            repeats = options.repeats if name == "head" else 3
            seconds = medians(candidates, device, repeats)
            first.setdefault(name, seconds["ours"])
            print(
                f"{name:>10}{sessions:>9}{1e3 * seconds['reference']:>15.2f}{1e3 * seconds['ours']:>11.2f}"
                f"{seconds['reference'] / seconds['ours']:>7.2f}{seconds['ours'] / first[name]:>14.2f}"
                f"{difference if name == 'head' else float('nan'):>12.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
