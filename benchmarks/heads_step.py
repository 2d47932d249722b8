"""What one more session costs in the heads of KRT, DKT and DAFormer; ``train_step.py --what ica|dkt|daformer``.

Forward and backward on fixed random maps, or with ``--network`` with the backbone in front and images. Straightforward
is ``tests/formulations.py``: KRT's attention and DAFormer's whole dual block once a session, DKT's keys and values of
the whole sequence. (DAFormer's edition S has a single key; running its block once a session is a yardstick only.)
Logits, embeddings and gradients of the two are compared before anything is timed, in float64 because several gradients
are zero but for rounding, and the program fails when they differ by more than 1e-8. What is timed is float32.

``kept`` is what autograd holds between forward and backward, ``checkpoint`` the MB of the head in a stage checkpoint,
``growth`` ours against ours at the first number of sessions.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from timing import formulations, kept_for_backward, medians
from torch import Tensor, nn

from mlcil.models.network import IncrementalNetwork, build_network

BAR = 1e-8
STRAIGHTFORWARD = {
    "ica": formulations.per_session_forward,
    "dkt": formulations.whole_sequence_forward,
    "daformer": formulations.whole_block_forward,
}
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


def spec_of(options: argparse.Namespace, edition: str) -> dict[str, Any]:
    """A network of the released size, without what draws: the same step is made twice."""
    if options.what == "ica":
        return {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
    size = {"name": options.what, "dim": 384, "heads": 12, "drop_path": 0.0}
    head: dict[str, Any] = {"type": options.what, "num_heads": 12}
    if options.what == "daformer":
        head.update(edition=edition, drop_path=0.0)
    return {"backbone": size, "head": head, "image_size": options.size}


def train(forward: Forward, inputs: Tensor, module: nn.Module) -> tuple[Tensor, Tensor]:
    """One forward and backward pass; gradients are left in the module's parameters."""
    module.zero_grad(set_to_none=True)
    logits_BC, tokens_BSD = forward(inputs)
    (logits_BC.square().mean() + tokens_BSD.square().mean()).backward()
    return logits_BC.detach(), tokens_BSD.detach()


def forwards(network: IncrementalNetwork, what: str, whole: bool) -> tuple[Forward, Forward]:
    """The straightforward formulation and ours; ``whole`` puts the backbone in front of both."""
    head: Any = network.head
    backbone: Any = network.backbone if whole else lambda maps: [maps]
    straight: Any = STRAIGHTFORWARD[what]
    return lambda x: straight(head, backbone(x)[-1]), lambda x: head(backbone(x)[-1])[:2]


def compare(network: IncrementalNetwork, what: str, maps: Tensor) -> float:
    """Largest difference of the heads' logits, embeddings and gradients, each by the largest value of its kind.

    Gradients below 1e-5 of the largest gradient are measured against that. Exits when the difference is above ``BAR``.
    """
    head: Any = copy.deepcopy(network.head).double()
    found = []
    for forward in (lambda x: STRAIGHTFORWARD[what](head, x), lambda x: head(x)[:2]):
        outputs = train(forward, maps.double(), head)
        found.append([*outputs, *(p.grad.clone() for p in head.parameters() if p.grad is not None)])
    floor = 1e-5 * max(g.abs().max().item() for g in found[0][2:])
    worst = 0.0
    for index, (a, b) in enumerate(zip(*found, strict=True)):
        scale = max(a.abs().max().item(), floor if index >= 2 else 1e-8)
        worst = max(worst, (a - b).abs().max().item() / scale)
    if not worst <= BAR:
        sys.exit(f"the two formulations differ by {worst:.1e}, more than {BAR:.0e}")
    return worst


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print one table; straightforward over ours at the largest number of sessions."""
    what = f"whole network, {options.size} px" if options.network else "head"
    print(f"{options.what}, {what}, batch {options.batch}, {options.classes} classes a session, forward and backward")
    columns = ("sessions", "straight ms", "ours ms", "ratio", "growth", "kept MB", "ours", "checkpoint", "difference")
    print(" " * 9 + "".join(f"{name:>14}" for name in columns))
    ratio = 1.0
    for edition in "MS" if options.what == "daformer" else " ":
        first = None
        for sessions in options.sessions:
            network = build_network(spec_of(options, edition), [options.classes] * sessions).to(device).train()
            images = torch.rand(options.batch, 3, options.size, options.size, device=device)
            with torch.no_grad():
                maps = network.backbone(images)[-1]  # type: ignore[operator]
            difference = compare(network, options.what, maps)
            module: Any = network if options.network else network.head
            inputs = images if options.network else maps
            straight, ours = forwards(network, options.what, options.network)
            work = {
                "straight": lambda f=straight, x=inputs, m=module: train(f, x, m),
                "ours": lambda f=ours, x=inputs, m=module: train(f, x, m),
            }
            seconds = medians(work, device, options.steps, 1, options.clock)  # type: ignore[arg-type]
            kept = [1e-6 * kept_for_backward(lambda f=f: f(inputs), module) for f in (straight, ours)]  # noqa: B023
            stored = 1e-6 * sum(value.nbytes for value in network.head.state_dict().values())
            first = first or seconds["ours"]
            ratio = seconds["straight"] / seconds["ours"]
            times = [1e3 * seconds["straight"], 1e3 * seconds["ours"], ratio, seconds["ours"] / first]
            print(
                f"{edition:9}{sessions:>14}{''.join(f'{value:>14.2f}' for value in times)}"
                f"{kept[0]:>14.1f}{kept[1]:>14.1f}{stored:>14.1f}{difference:>14.1e}",
                flush=True,
            )
    return ratio
