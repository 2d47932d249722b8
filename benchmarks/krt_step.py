"""KRT's training step, as several benchmarks make it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import formulations
from torch import Tensor, nn

from mlcil.engine.optim import AutocastOptimWrapper, decay_groups
from mlcil.methods import KRT
from mlcil.methods.base import SessionContext
from mlcil.models.network import build_network

CLASSES = 10  # of a session
BARS = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # relative, of each loss


def trained(options: argparse.Namespace, device: torch.device, default: bool) -> tuple[KRT, AutocastOptimWrapper]:
    """KRT in the last of ``options.sessions`` sessions, and its optimiser."""
    torch.manual_seed(0)
    spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
    network = build_network(spec, [CLASSES] * (options.sessions - 1))
    if hasattr(network.backbone, "reset_parameters"):  # branches that start at zero would make an easy network
        for name, parameter in network.backbone.named_parameters():
            if name.endswith("abn.weight"):
                nn.init.constant_(parameter, 0.5)
    network.to(device)
    if default:
        network.to(memory_format=torch.channels_last)
    method = KRT(network).to(device)
    method.fold_teacher = default
    seen = CLASSES * options.sessions
    method.begin_session(
        SessionContext(
            index=options.sessions - 1,
            low=seen - CLASSES,
            high=seen,
            step=CLASSES,
            num_classes=seen,
            label_cardinality=2.9,
            labels_per_image=1.0,
            batch_size=options.batch,
            firsts=tuple(range(0, seen, CLASSES)),
        )
    )
    method.threshold = 0.9
    if not default:
        method._teacher = [formulations.PerSession(teacher).eval() for teacher in method._teacher]
        method.network = formulations.PerSession(method.network)
    wrapper = AutocastOptimWrapper(
        precision=options.precision if default else "fp32",
        device=device.type,
        optimizer=torch.optim.Adam(decay_groups(method, 1e-4), lr=1e-5, fused=default or None),
    )
    method.train()
    return method, wrapper


def batch_of(options: argparse.Namespace, seed: int = 0) -> dict[str, Tensor]:
    """Images of noise, each with a new class."""
    seen = CLASSES * options.sessions
    images = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(seed))
    targets = torch.zeros(options.batch, seen)
    targets[torch.arange(options.batch), seen - CLASSES + torch.arange(options.batch) % CLASSES] = 1
    return {"inputs": images, "targets": targets}


def step_of(method: KRT, wrapper: AutocastOptimWrapper, batch: dict[str, Tensor]) -> Callable[[], dict[str, float]]:
    """A function that makes one training step and returns its losses."""

    def step() -> dict[str, float]:
        return {name: value.item() for name, value in method.train_step(batch, wrapper).items()}

    return step
