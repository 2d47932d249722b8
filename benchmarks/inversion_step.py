"""What a step of the inversion of ABD and R-DFCIL costs; ``train_step.py --what inversion``.

Straightforward: the generator doubles its maps and then convolves them, hooks keep the input of every batch norm until
all divergences are computed from it by ``var_mean``, the image prior is a depthwise convolution, Adam goes parameter by
parameter. Ours: see :mod:`mlcil.models.inversion` and :func:`mlcil.models.generators.doubling_kernel`. Terms of the
loss and gradients of the generator are compared in float64 before anything is timed, and the program fails when one
differs by more than 1e-9 of the largest value of its kind. What is timed is float32, ours
in bf16 with ``--precision bf16``.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import medians
from torch import Tensor, nn

from mlcil.models.generators import Generator, UpBlock
from mlcil.models.inversion import Inversion, InversionSettings, class_balance, gaussian_kernel
from mlcil.models.network import IncrementalNetwork

BAR = 1e-9


class Straightforward:
    """The same step, written down as the papers say it, on the parameters of an inversion's generator."""

    def __init__(self, inversion: Inversion, teacher: IncrementalNetwork) -> None:
        self.inversion, self.teacher = inversion, teacher
        self.inputs: dict[nn.Module, Tensor] = {}
        self.norms = [layer for layer in teacher.modules() if isinstance(layer, nn.BatchNorm2d)]
        self.optimizer = torch.optim.Adam(inversion.generator.parameters(), lr=inversion.settings.lr, foreach=False)

    def generate(self, latents_BZ: Tensor) -> Tensor:
        """Normalised images; every block doubles its map first."""
        g: Generator = self.inversion.generator
        x = g.norm(g.project(latents_BZ).view(-1, *g.shape))
        for block in g.blocks:
            assert isinstance(block, UpBlock)
            x = F.leaky_relu(block.norm(block.conv(F.interpolate(x, scale_factor=2.0))), 0.2)
        return g.to_image(x)

    def losses(self, latents_BZ: Tensor) -> dict[str, Tensor]:
        """The four terms; hooks keep the maps."""
        s = self.inversion.settings
        normalised = self.generate(latents_BZ)
        handles = [
            layer.register_forward_hook(lambda layer, inputs, output: self.inputs.__setitem__(layer, inputs[0]))
            for layer in self.norms
        ]
        logits_BO = self.teacher(normalised * self.inversion.std + self.inversion.mean).logits_BC
        for handle in handles:
            handle.remove()
        divergences = []
        for layer in self.norms:
            v, m = torch.var_mean(self.inputs[layer], (0, 2, 3), correction=0)
            v, old_m, old_v = v + 1e-8, layer.running_mean, layer.running_var
            assert old_m is not None
            assert old_v is not None
            ratio = (old_v + (old_m - m).square() + 1e-8) / v
            divergences.append(0.5 * (torch.log(v / (old_v + 1e-8)) + ratio - 1).mean())
        weight = gaussian_kernel().to(normalised).expand(3, 1, 5, 5)
        smooth = F.conv2d(F.pad(normalised, (2, 2, 2, 2), mode="reflect"), weight, groups=3)
        return {
            "content": s.content * F.cross_entropy(logits_BO / s.temperature, logits_BO.argmax(1)),
            "balance": class_balance(logits_BO),
            "smoothness": s.smoothness * F.mse_loss(normalised, smooth),
            "statistics": s.statistics * torch.stack(divergences).mean(),
        }

    def step(self, latents_BZ: Tensor) -> None:
        """One step of the generator."""
        losses = self.losses(latents_BZ)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def gradients(inversion: Inversion, losses: dict[str, Tensor]) -> list[Tensor]:
    """Of the generator's parameters."""
    total = torch.stack(list(losses.values())).sum()
    return list(torch.autograd.grad(total, list(inversion.generator.parameters())))


def compare(inversion: Inversion, teacher: IncrementalNetwork, latents_BZ: Tensor) -> float:
    """Largest difference of terms and gradients relative to the largest value of their kind; exits above the bar."""
    inversion.generator.train()
    kept = {name: value.clone() for name, value in inversion.generator.state_dict().items()}
    one = Straightforward(inversion, teacher).losses(latents_BZ)
    found = [[*one.values(), *gradients(inversion, one)]]
    inversion.generator.load_state_dict(kept)
    two = inversion.losses(teacher, latents_BZ)
    found.append([*two.values(), *gradients(inversion, two)])
    inversion.generator.load_state_dict(kept)
    terms = len(one)
    worst = 0.0
    for kind in (slice(None, terms), slice(terms, None)):
        largest = max(value.abs().max().item() for value in found[0][kind])
        for a, b in zip(found[0][kind], found[1][kind], strict=True):
            worst = max(worst, (a - b).abs().max().item() / largest)
    if not worst <= BAR:
        sys.exit(f"the two formulations differ by {worst:.1e}, more than {BAR:.0e}")
    return worst


def make_teacher(backbone: str, size: int, classes: int, device: torch.device) -> IncrementalNetwork:
    """A frozen network whose batch norms have seen noise."""
    normalisation = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    network = IncrementalNetwork({"name": backbone, **normalisation}, {"type": "linear"}, size)
    network.grow(classes)
    network.to(device).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(32, 3, size, size, device=device))
    return network.eval().requires_grad_(False)


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print one table; straightforward over ours, of a step."""
    teacher = make_teacher(options.backbone, options.size, options.classes, device)
    exact = copy.deepcopy(teacher).double()
    inversion = Inversion(exact, InversionSettings())
    difference = compare(inversion, exact, inversion.latents(options.batch))
    ours = Inversion(teacher, InversionSettings(precision=options.precision))
    latents_BZ = ours.latents(options.batch)
    reference = Straightforward(Inversion(teacher, InversionSettings()), teacher)
    steps: dict[str, Callable[[], object]] = {
        "straightforward": lambda: reference.step(latents_BZ),
        "ours": lambda: ours.step(teacher, latents_BZ),
    }
    images: dict[str, Callable[[], object]] = {
        "straightforward": torch.no_grad()(lambda: reference.generate(latents_BZ)),
        "ours": lambda: ours.sample(options.batch),
    }
    print(f"{options.backbone}, {options.size} px, batches of {options.batch}; largest difference {difference:.1e}")
    print(f"{'':>10}{'straightforward':>18}{'ours':>10}{'ratio':>8}   median ms")
    ratios = []
    for name, work in (("images", images), ("step", steps)):
        one, two = medians(work, device, options.steps, 2, options.clock).values()
        ratios.append(one / two)
        print(f"{name:>10}{1e3 * one:>18.1f}{1e3 * two:>10.1f}{one / two:>8.2f}")
    return ratios[-1]
