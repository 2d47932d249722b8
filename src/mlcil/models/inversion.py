"""Images of old classes out of a frozen network: the inversion of ABD (ICCV 2021) and R-DFCIL (ECCV 2022).

A generator learns, without data, to make images that the network is sure about, spreads over all classes,
that are smooth, and whose statistics in front of every batch norm are those the network saw in training.

Legend: B images, O classes of the frozen network, Z latent values, Q channels of a batch norm.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from torch import Tensor, nn

from mlcil.models.generators import Generator, draw_latents
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.schema import AboveZero, Count, Weight

_EPS = 1e-8
SHEET_BATCH, SHEET_BATCHES = 128, 4  # images that a contact sheet is chosen from


@dataclass(frozen=True)
class InversionSettings:
    """The numbers of an inversion; ABD's release and R-DFCIL's have the same.

    Args:
        iterations: steps of the generator (ABD 10000, 50000 on ImageNet; R-DFCIL 5000, 10000 on ImageNet-100).
        lr: learning rate of Adam.
        temperature: tau of the content term.
        content: weight of the content term.
        statistics: weight of the batch-norm term (alpha_rf).
        smoothness: weight of the image prior (alpha_pr).
        width: most channels of the generator's maps; ``None``: the papers' generator.
        precision: ``fp32``, or ``bf16`` for the convolutions of generator and network; the terms stay in float32.
        channels_last: memory layout of the generator and its images; worth it on GPUs with tensor cores.
        compile: run the generator through ``torch.compile``; needs a C++ compiler, worth it for long inversions.
    """

    iterations: Count = 10000
    lr: AboveZero = 1e-3
    temperature: AboveZero = 1000.0
    content: Weight = 1.0
    statistics: Weight = 50.0
    smoothness: Weight = 1e-3
    width: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    compile: bool = False


class BatchNormStatistics:
    """How far the input of every batch norm is from what the layer remembers, taken while a forward runs.

    A hook computes each layer's divergence from the input in place and keeps that scalar only; no feature map
    outlives its layer on account of it.

    Args:
        network: the frozen network, in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self.terms: list[Tensor] = []

    @contextmanager
    def watch(self) -> Iterator[list[Tensor]]:
        """Within this context a forward appends one scalar a layer, in the order of the layers' use."""
        self.terms = []
        handles = [layer.register_forward_pre_hook(self._take) for layer in self.layers]
        try:
            yield self.terms
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.terms.append(gaussian_divergence(at_least_float32(inputs[0]), layer.running_mean, layer.running_var))


def gaussian_divergence(x: Tensor, mean_Q: Tensor, variance_Q: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(m, v)) averaged over channels, with m and v of the batch.

    Args:
        x: (B, Q, H, W), the input of a batch norm.
        mean_Q, variance_Q: what the layer remembers.
    """
    m_Q, v_Q = moments(x)
    v_Q = v_Q + _EPS
    ratio_Q = (variance_Q + (mean_Q - m_Q).square() + _EPS) / v_Q
    return 0.5 * (torch.log(v_Q / (variance_Q + _EPS)) + ratio_Q - 1).mean()


class _Moments(torch.autograd.Function):
    """Mean and biased variance in two passes forward and one backward; keeps the input, which is kept anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        m_Q = x.mean((0, 2, 3))
        ctx.save_for_backward(x, m_Q)
        return m_Q, (x - m_Q[:, None, None]).square_().mean((0, 2, 3))

    @staticmethod
    def backward(ctx: Any, grad_m_Q: Tensor, grad_v_Q: Tensor) -> Tensor:  # type: ignore[override]
        x, m_Q = ctx.saved_tensors
        slope_Q = 2 * grad_v_Q * (m_Q.numel() / x.numel())
        shift_Q = grad_m_Q * (m_Q.numel() / x.numel()) - slope_Q * m_Q
        return torch.addcmul(shift_Q[:, None, None], x, slope_Q[:, None, None])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel, (Q,) each; the numbers of ``torch.var_mean``, several times faster.

    Args:
        x: (B, Q, H, W).
    """
    m_Q, v_Q = _Moments.apply(x)  # type: ignore[no-untyped-call]
    return m_Q, v_Q


def gaussian_kernel(size: int = 5, width: float = math.sqrt(2)) -> Tensor:
    """(size, size) float64, sums to 1; the releases' kernel has a standard deviation of sqrt(2) pixels."""
    d = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-d.square() / (2 * width**2))
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


@functools.lru_cache(maxsize=8)
def smoothing_matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(side, side): what :func:`gaussian_kernel` with reflected borders does to a line of pixels."""
    line = gaussian_kernel().sum(0)
    unit = torch.eye(side, dtype=torch.float64)[:, None]  # every row is an image of one pixel
    reach = len(line) // 2
    return F.conv1d(F.pad(unit, (reach, reach), mode="reflect"), line.view(1, 1, -1))[:, 0].T.to(device, dtype)


def smoothed(images: Tensor) -> Tensor:
    """Each channel under :func:`gaussian_kernel`, borders reflected; same shape (B, C, H, W).

    The kernel is an outer product, so this is a product with a matrix from either side, which takes a fraction of a
    convolution's time.
    """
    rows, columns = (smoothing_matrix(side, images.device, images.dtype) for side in images.shape[-2:])
    return rows @ images @ columns.T


def class_balance(logits_BO: Tensor) -> Tensor:
    """1 - H(mean prediction) / ln O: 0 when a batch shows all classes alike, 1 when it shows one."""
    p_O = logits_BO.softmax(1).mean(0)
    log_p_O = p_O.clamp_min(torch.finfo(p_O.dtype).tiny).log()  # a class may underflow to 0
    return 1 + (p_O * log_p_O).sum() / math.log(max(logits_BO.shape[1], 2))


def effective_classes(balance: float, classes: int) -> float:
    """How many classes a mean prediction spreads over: exp of its entropy, from :func:`class_balance`."""
    return float(max(classes, 2) ** (1 - balance)) if classes > 1 else 1.0


def first_of_each(images: Tensor, labels_N: Tensor, per_class: int) -> tuple[Tensor, Tensor]:
    """The first ``per_class`` images of every class, sorted by class, and their classes."""
    picked = [torch.nonzero(labels_N == c).flatten()[:per_class] for c in sorted(set(labels_N.tolist()))]
    order = torch.cat(picked) if picked else labels_N[:0]
    return images[order], labels_N[order]


class Inversion:
    """A generator and its optimiser; no part of the method that learns from it.

    Args:
        network: what the images are for: its image size, its normalisation (``backbone.mean`` and ``std``, if
            any: the generator makes normalised images), its device and dtype.
        settings: see :class:`InversionSettings`.

    Raises:
        ValueError: there is no generator for that image size.
    """

    def __init__(self, network: IncrementalNetwork, settings: InversionSettings) -> None:
        self.settings = settings
        weight = next(network.parameters())
        self.mean, self.std = (
            torch.as_tensor(getattr(network.backbone, name, default)).detach().to(weight)
            for name, default in (("mean", 0.0), ("std", 1.0))
        )
        self.generator = Generator(network.spec["image_size"], width=settings.width).to(weight)
        if settings.channels_last:
            self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._generate: Callable[[Tensor], Tensor] = self.generator
        if settings.compile:
            self._generate = torch.compile(self.generator)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=settings.lr, fused=True)

    def images(self, latents_BZ: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, H, W), and the same as images for the network (about [0, 1])."""
        normalised = at_least_float32(self._generate(latents_BZ))
        return normalised, normalised * self.std + self.mean

    def losses(self, teacher: IncrementalNetwork, latents_BZ: Tensor) -> dict[str, Tensor]:
        """The weighted terms of one step: content, balance, smoothness, statistics.

        Args:
            teacher: the frozen network, in evaluation mode.
            latents_BZ: (B, Z), N(0, 1).
        """
        s = self.settings
        half = s.precision == "bf16"
        with torch.autocast(latents_BZ.device.type, torch.bfloat16, enabled=half):
            normalised, images = self.images(latents_BZ)
            with BatchNormStatistics(teacher).watch() as divergences:
                logits_BO = at_least_float32(teacher(images).logits_BC)
        return {
            "content": s.content * F.cross_entropy(logits_BO / s.temperature, logits_BO.argmax(1)),
            "balance": class_balance(logits_BO),
            "smoothness": s.smoothness * F.mse_loss(normalised, smoothed(normalised)),
            "statistics": s.statistics * torch.stack(divergences).mean(),
        }

    def step(self, teacher: IncrementalNetwork, latents_BZ: Tensor) -> dict[str, Tensor]:
        """One step of the generator; returns the terms before it."""
        self.generator.train()
        losses = self.losses(teacher, latents_BZ)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def fit(
        self,
        teacher: IncrementalNetwork,
        batch_size: int,
        tell: Callable[[int, dict[str, float]], None] | None = None,
    ) -> dict[str, float]:
        """``settings.iterations`` steps; returns the last step's terms.

        Every process trains a generator of its own on its own latents; the first one's is then everybody's.

        Args:
            teacher: the frozen network.
            batch_size: images of a step.
            tell: called about a hundred times with the number of finished steps and the terms.
        """
        last: dict[str, Tensor] = {}
        teacher.eval()
        total = self.settings.iterations
        for done in range(1, total + 1):
            last = self.step(teacher, self.latents(batch_size))
            if tell is not None and (done == total or done % max(total // 100, 1) == 0):
                tell(done, {name: float(value) for name, value in last.items()})
        for tensor in self.generator.state_dict().values():
            broadcast(tensor, 0)
        return {name: float(value) for name, value in last.items()}

    def latents(self, count: int) -> Tensor:
        """(count, Z), see :func:`~mlcil.models.generators.draw_latents`."""
        return draw_latents(count, self.generator.latent, self.mean)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """(count, 3, H, W) images for the network, about [0, 1]."""
        self.generator.eval()
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.images(self.latents(count))[1]

    @torch.inference_mode()
    def sheet(self, teacher: IncrementalNetwork, per_class: int) -> tuple[Tensor, Tensor, float]:
        """What the generator makes, for people: the same images whenever it is asked, no draw of anyone else's.

        Args:
            teacher: the frozen network, which names the classes.
            per_class: most images of a class.

        Returns:
            Images (N, 3, H, W) for the network, sorted by class; their classes (N,); and how many classes the
            network sees in all of those drawn: exp of the entropy of its mean prediction.
        """
        self.generator.eval()
        source = torch.Generator().manual_seed(0)
        images, logits = [], []
        for _ in range(SHEET_BATCHES):
            latents_BZ = torch.randn(SHEET_BATCH, self.generator.latent, generator=source).to(self.mean)
            images.append(self.images(latents_BZ)[1])
            logits.append(at_least_float32(teacher(images[-1]).logits_BC))
        logits_NO = torch.cat(logits)
        shown = effective_classes(float(class_balance(logits_NO)), logits_NO.shape[1])
        return *first_of_each(torch.cat(images), logits_NO.argmax(1), per_class), shown

    def state_dict(self, with_optimizer: bool = True) -> dict[str, Any]:
        """Tensors and builtins: the generator, and its optimiser where it goes on in the next session."""
        state: dict[str, Any] = {"generator": self.generator.state_dict()}
        if with_optimizer:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
