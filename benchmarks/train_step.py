"""Images per second of the default training step against fp32, contiguous, unshared attention.

    python benchmarks/train_step.py [--device auto] [--backbone tresnet_m] [--sessions 8] [--batch 8]

Both run a KRT step with teacher (forward of both networks, losses, backward, Adam) from the same weights on
the same images; their losses are compared first. The default step is what a run does: channels-last layout,
the precision that ``auto`` picks on the device, shared attention, freed memory kept on the CPU (for both).
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch
from reference import per_session_forward
from timing import header, medians, pick_device

from mlcil.engine.allocator import keep_freed_memory
from mlcil.engine.optim import AutocastOptimWrapper, decay_groups
from mlcil.methods import KRT
from mlcil.methods.base import SessionContext
from mlcil.models.network import NetworkOutput, build_network


class PerSession(torch.nn.Module):
    """A network that runs the attention block once per session."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        """As :class:`mlcil.models.network.IncrementalNetwork`."""
        maps = self.network.backbone(images)
        return NetworkOutput(*per_session_forward(self.network.head, maps[-1]), maps)


def make(options: argparse.Namespace, device: torch.device, default: bool):
    """A function that makes one step and returns its loss."""
    torch.manual_seed(0)
    spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
    network = build_network(spec, [10] * (options.sessions - 1)).to(device)
    if default:
        network.to(memory_format=torch.channels_last)
    method = KRT(network).to(device)
    seen = 10 * options.sessions
    method.begin_session(SessionContext(options.sessions - 1, seen - 10, seen, 10, seen, 2.9, 1.0, options.batch))
    method.threshold = 0.9
    if not default:
        method._teacher = [PerSession(method._teacher[0]).eval()]
        method.network = PerSession(method.network)
    optimizer = torch.optim.Adam(decay_groups(method, 1e-4), lr=1e-5)
    precision = options.precision if default else "fp32"
    wrapper = AutocastOptimWrapper(precision=precision, device=device.type, optimizer=optimizer)
    data = {
        "inputs": torch.rand(options.batch, 3, options.size, options.size),
        "targets": torch.zeros(options.batch, seen).index_fill_(1, torch.tensor([seen - 1]), 1.0),
    }
    method.train()
    return lambda: method.train_step(copy.copy(data), wrapper)["loss"].item(), wrapper.dtype


def main() -> None:
    """Print images per second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbone", default="tresnet_m")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    reference, _ = make(options, device, default=False)
    ours, dtype = make(options, device, default=True)
    losses = reference(), ours()
    bar = 1e-3 if dtype == torch.float32 else 0.1
    if abs(losses[0] - losses[1]) > bar * abs(losses[0]):
        sys.exit(f"the losses differ: {losses}")
    print(header(device))
    seconds = medians({"reference": reference, "default": ours}, device, options.repeats)
    print(f"{options.backbone}, {options.sessions} sessions, batch {options.batch}, {options.size} px, losses {losses}")
    print(f"fp32, contiguous, per session  {options.batch / seconds['reference']:8.2f} img/s")
    print(f"default ({str(dtype).removeprefix('torch.')})            {options.batch / seconds['default']:8.2f} img/s")
    print(f"ratio                          {seconds['reference'] / seconds['default']:8.2f}")


if __name__ == "__main__":
    main()
