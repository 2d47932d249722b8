"""What many sessions cost: time of a step, memory and checkpoint size up to 40 sessions and 1,000 classes.

    python benchmarks/growth.py [--batch 16] [--clock cpu --threads 1]

Forward and backward of the ICA head on fixed maps of a TResNet-M at 224 px (the backbone does not grow), once with 10
classes a session up to 40 sessions, once with 25 up to 1,000 classes. ``official`` runs the attention once per
session; logits are compared first. ``memory`` is what autograd keeps between forward and backward, ``checkpoint`` the
head's part of a stage checkpoint.
"""

from __future__ import annotations

import argparse
import io
import sys

import torch
from reference import per_session_forward
from timing import add_options, begin, header, kept_for_backward, medians
from torch import Tensor

from mlcil.models.heads import ICAHead


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = begin(options)
    torch.manual_seed(0)
    print(header(device))
    maps = torch.rand(options.batch, 2048, 7, 7, device=device)
    columns = ("sessions", "classes", "official ms", "ours ms", "ratio", "growth", "memory MB", "checkpoint MB")
    print("".join(f"{name:>14}" for name in columns))
    for classes in (10, 25):
        first = None
        for sessions in (1, 8, 16, 40):
            head = ICAHead(2048, (7, 7))
            for _ in range(sessions):
                head.grow(classes)
            head.to(device)

            def step(official: bool, head: ICAHead = head) -> Tensor:
                logits = (per_session_forward(head, maps) if official else head(maps))[0]
                logits.square().mean().backward()
                return logits.detach()

            difference = (step(True) - step(False)).abs().max().item()
            if not difference <= 1e-4:
                sys.exit(f"logits differ by {difference:.1e}")
            kept = kept_for_backward(lambda: step(False))
            file = io.BytesIO()
            torch.save(head.state_dict(), file)
            work = {"official": lambda: step(True), "ours": lambda: step(False)}
            seconds = medians(work, device, options.repeats, 1, options.clock)  # type: ignore[arg-type]
            ours, official = seconds["ours"], seconds["official"]
            first = first or ours
            print(
                f"{sessions:>14}{sessions * classes:>14}{1e3 * official:>14.1f}{1e3 * ours:>14.1f}"
                f"{official / ours:>14.2f}{ours / first:>14.2f}{kept / 1e6:>14.1f}"
                f"{file.tell() / 1e6:>14.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
