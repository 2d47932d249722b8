"""DAFormer: dual attention over two memories, in two editions.

DAFormer ("A Tale of Two Memories", IEEE Transactions on Multimedia). What stands behind it:

* **edition M** (an external key a session) with distillation of logits is the authors' released code;
* **edition S** (one shared external key; ``edition="S"`` of the head) and the **K-nearest-neighbour-invariant
  distillation** are named in the paper's abstract but are not in the released code. They are this project's
  own definitions and are off by default.

Images are mixed (MixUp, Zhang et al., ICLR 2018) with smoothed labels, as the release uses timm's, and steps are
sharpness-aware (Kwon et al., "ASAM", ICML 2021) from the second session on.

Legend: B images, C classes seen so far, O old classes, S sessions, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from mlcil.losses.distillation import cosine_matrix
from mlcil.losses.logits import mean_bce, softened_kl
from mlcil.methods.base import BalancedFinetuning, Batch, Method, SessionContext
from mlcil.models.heads import DAFormerHead
from mlcil.models.network import IncrementalNetwork, NetworkOutput
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Share, Weight

DISTILLATIONS = ("plain", "neighbours", "both")


@dataclass(frozen=True)
class MixUp:
    """How batches are mixed, also in balanced fine-tuning.

    Attributes:
        alpha: of the beta distribution, above 0.
        smoothing: label smoothing, in [0, 1].
        probability: share of the batches that are mixed; the others have smoothed labels only.
    """

    alpha: AboveZero = 0.8
    smoothing: Share = 0.1
    probability: Share = 1.0


@METHODS.register_module()
class DAFormer(Method):
    """Binary cross-entropy, distillation and divergence, then balanced fine-tuning on the memory.

    In the first session and in fine-tuning the loss is the mean binary cross-entropy; in between, with
    ``lambda = O / C``,

        loss = (1 - lambda) BCE + lambda KL + 0.1 DIV    (+ weight * neighbour invariance, when chosen)

    Args:
        network: the ``daformer`` backbone with the ``daformer`` head, whose ``edition`` is M or S.
        distillation: ``plain`` (logits; released code), ``neighbours`` (K-nearest-neighbour-invariant instead
            of logits) or ``both``; the latter two are not the authors' code.
        divergence: weight of the classifier that tells old from each new class.
        temperature: of the logit distillation, 1 in the release.
        neighbours: K of the neighbour-invariant distillation.
        neighbour_temperature: of its similarities.
        neighbour_weight: its weight.
        finetuning: arguments of :class:`~mlcil.methods.base.BalancedFinetuning`; ``None`` for no such phase.
            Released settings: ``base_batch_size=512, epochs=20``.
        mixup: arguments of :class:`MixUp`; ``None`` mixes nothing. The release has ``alpha=0.8, smoothing=0.1``.
        rho: radius of the sharpness-aware step from the second session on, 3 in the release; ``None`` for plain
            steps everywhere. Fine-tuning takes plain steps.
        teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another distillation, a number out of its range, or a network with another head.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        distillation: str = "plain",
        divergence: Weight = 0.1,
        temperature: AboveZero = 1.0,
        neighbours: Count = 5,
        neighbour_temperature: AboveZero = 0.1,
        neighbour_weight: Weight = 1.0,
        finetuning: Annotated[dict[str, Any] | None, BalancedFinetuning] = None,
        mixup: Annotated[dict[str, Any] | None, MixUp] = None,
        rho: AboveZero | None = None,
        teacher_autocast: bool = True,
    ) -> None:
        if not isinstance(network.head, DAFormerHead):
            raise ValueError(
                "DAFormer needs its dual-attention head; use head type 'daformer' (and backbone 'daformer')"
            )
        super().__init__(network, teacher_autocast=teacher_autocast)
        if distillation not in DISTILLATIONS:
            raise ValueError(f"distillation {distillation!r} is unknown; use one of {', '.join(DISTILLATIONS)}")
        self.distillation, self.divergence, self.temperature = distillation, divergence, temperature
        self.neighbours, self.neighbour_temperature = neighbours, neighbour_temperature
        self.neighbour_weight = neighbour_weight
        self.finetuning = BalancedFinetuning(**finetuning) if finetuning is not None else None
        self.mixup = MixUp(**mixup) if mixup is not None else None
        self.needs_images = mixup is not None  # kept maps cannot be mixed
        self.rho = rho

    def freeze(self) -> None:
        super().freeze()
        self.network.head.freeze_old_sessions()  # type: ignore[operator]

    def phases(self, session: SessionContext) -> list[Phase]:
        change = self.mix if self.mixup is not None else None
        balanced = self.finetuning.phases(session, self.begin_finetuning, change) if self.finetuning else []
        rho = self.rho if session.index > 0 else None  # the first session takes plain steps
        return [Train(rho=rho, change=change), UpdateMemory(), *balanced]

    def mix(self, batch: dict[str, Any], key: tuple[int, ...]) -> None:
        """MixUp of a batch, in place; both passes of a sharpness-aware step see the same one."""
        assert self.mixup is not None
        weight = mixing_weight(np.random.default_rng(key), self.mixup.alpha, self.mixup.probability)
        smoothing = self.mixup.smoothing
        batch["inputs"], batch["targets"] = mix_up(batch["inputs"], batch["targets"], weight, smoothing)

    def begin_finetuning(self) -> None:
        """Train the dual block, all external keys and all classifiers; nothing is distilled."""
        self.drop_teacher()
        self.network.backbone.requires_grad_(False)
        self.network.head.freeze_divergence()  # type: ignore[operator]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        new, targets_BC = self.network(batch.inputs), self.targets(batch)
        bce = mean_bce(new.logits_BC, targets_BC)
        if self.teacher is None:
            return {"loss_cls": bce}
        low = self.context.low
        balance = low / self.context.high  # lambda
        losses = {"loss_cls": (1 - balance) * bce}
        losses.update(self.near_teacher(self.teacher_output(batch.inputs), new, balance))
        assert new.tokens_BSD is not None
        divergence_BA = self.network.head.divergence_logits(new.tokens_BSD)  # type: ignore[operator]
        losses["loss_div"] = self.divergence * mean_bce(divergence_BA, divergence_targets(targets_BC, low))
        return losses

    def near_teacher(self, old: NetworkOutput, new: NetworkOutput, balance: float) -> dict[str, Tensor]:
        """The terms that hold the network near its teacher."""
        losses = {}
        if self.distillation in ("plain", "both"):
            losses["loss_kd"] = balance * softened_kl(old.logits_BC, new.logits_BC, self.temperature)
        if self.distillation in ("neighbours", "both"):
            assert old.tokens_BSD is not None
            assert new.tokens_BSD is not None
            known_BSD = new.tokens_BSD[:, : old.tokens_BSD.shape[1]]  # the teacher's embeddings only
            losses["loss_nn"] = self.neighbour_weight * neighbour_invariance(
                old.tokens_BSD.flatten(1),
                at_least_float32(known_BSD.flatten(1)),
                self.neighbours,
                self.neighbour_temperature,
            )
        return losses


def mixing_weight(rng: np.random.Generator | np.random.RandomState, alpha: float, probability: float = 1.0) -> float:
    """The weight of a batch's own images: Beta(alpha, alpha) with that probability, else 1.

    One uniform draw is made for the decision, then the weight is drawn (timm's order).
    """
    return float(rng.beta(alpha, alpha)) if rng.random() < probability else 1.0


def smooth(targets_BC: Tensor, smoothing: float) -> Tensor:
    """Label smoothing: ``(1 - smoothing) y + smoothing / C``."""
    return targets_BC * (1 - smoothing) + smoothing / targets_BC.shape[1]


def mix_up(inputs: Tensor, targets_BC: Tensor, weight: float, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Each image with its mirror image in the order of the batch.

    In an odd batch the image in the middle meets itself and stays as it is.

    Args:
        inputs: (B, 3, H, W).
        targets_BC: (B, C) one-hot or soft rows; what is negative (unknown) counts as 0.
        weight: share of the image itself, in [0, 1].
        smoothing: label smoothing before mixing.

    Returns:
        Mixed inputs and targets; the arguments are left as they are.
    """
    targets_BC = smooth(targets_BC.clamp(min=0), smoothing)
    return tuple(weight * x + (1 - weight) * x.flip(0) for x in (inputs, targets_BC))  # type: ignore[return-value]


def divergence_targets(targets_BC: Tensor, low: int) -> Tensor:
    """Targets (B, A) of a classifier that tells old from each new class (DyTox, CVPR 2022).

    Column 0 is the sum of the old classes' targets, the others are the new classes'.

    Args:
        targets_BC: (B, C) one-hot or soft rows.
        low: number of old classes.
    """
    return torch.cat([targets_BC[:, :low].sum(1, keepdim=True), targets_BC[:, low:]], 1)


def nearest_neighbours(similarity_BB: Tensor, count: int) -> Tensor:
    """Indices (B, K) of the most similar other images, most similar first; the earlier of equals.

    Raises:
        ValueError: the batch has not more than ``count`` images.
    """
    if len(similarity_BB) <= count:
        raise ValueError(f"{count} neighbours need a batch of at least {count + 1} images, not {len(similarity_BB)}")
    others = similarity_BB.clone().fill_diagonal_(-torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :count]


def neighbour_invariance(old_BD: Tensor, new_BD: Tensor, count: int = 5, temperature: float = 0.1) -> Tensor:
    """K-nearest-neighbour-invariant distillation: an image keeps its neighbours.

    Among the K nearest images by the teacher's features, the softmax of the cosines over ``temperature`` is P
    in the teacher's features and Q in the network's; the loss is the mean over images of KL(P, Q).

    **This is not the authors' code**, which contains no such term: DAFormer's abstract names it, and this
    definition, K and temperature are this project's reading of it.

    Args:
        old_BD, new_BD: features of the same batch from the teacher and from the network.
        count: K.
        temperature: above 0.

    Raises:
        ValueError: the batch has not more than K images.
    """
    old_BB = cosine_matrix(old_BD.detach(), old_BD.detach())
    new_BB = cosine_matrix(new_BD, new_BD)
    index_BK = nearest_neighbours(old_BB, count)
    log_p, log_q = ((x.gather(1, index_BK) / temperature).log_softmax(1) for x in (old_BB, new_BB))
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()
