"""DAFormer: dual attention over two memories, in two editions.

DAFormer ("A Tale of Two Memories", IEEE Transactions on Multimedia). What stands behind it:

* **edition M** (an external key a session) with distillation of logits is the authors' released code;
* **edition S** (one shared external key; ``edition="S"`` of the head) and the **K-nearest-neighbour-invariant
  distillation** are named in the paper's abstract but are not in the released code. They are this project's
  own definitions and are off by default.

Mixing of images (MixUp) and the sharpness-aware step belong to the engine: the hook ``MixUp`` and the
optimiser wrapper ``SharpnessAwareOptimWrapper``.

Legend: B images, C classes seen so far, O old classes, S sessions, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mlcil.losses.logits import divergence_targets, mean_bce, softened_kl
from mlcil.losses.neighbours import neighbour_invariance
from mlcil.methods.base import BalancedFinetuning, Method
from mlcil.models.heads import DAFormerHead
from mlcil.models.network import IncrementalNetwork, NetworkOutput
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS

DISTILLATIONS = ("plain", "neighbours", "both")


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
        teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another distillation, or a network with another head.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        distillation: str = "plain",
        divergence: float = 0.1,
        temperature: float = 1.0,
        neighbours: int = 5,
        neighbour_temperature: float = 0.1,
        neighbour_weight: float = 1.0,
        finetuning: dict[str, Any] | None = None,
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

    def freeze(self) -> None:
        super().freeze()
        self.network.head.freeze_old_sessions()  # type: ignore[operator]

    def begin_finetuning(self) -> None:
        """Train the dual block, all external keys and all classifiers; nothing is distilled."""
        super().begin_finetuning()
        self.network.backbone.requires_grad_(False)
        self.network.head.freeze_divergence()  # type: ignore[operator]

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert self.context is not None
        new = self.network(inputs)
        bce = mean_bce(new.logits_BC, targets)
        if self.teacher is None:
            return {"loss_cls": bce}
        low = self.context.low
        balance = low / self.context.high  # lambda
        losses = {"loss_cls": (1 - balance) * bce}
        losses.update(self.distil(self.teacher_output(inputs), new, balance))
        assert new.tokens_BSD is not None
        divergence_BA = self.network.head.divergence_logits(new.tokens_BSD)  # type: ignore[operator]
        losses["loss_div"] = self.divergence * mean_bce(divergence_BA, divergence_targets(targets, low))
        return losses

    def distil(self, old: NetworkOutput, new: NetworkOutput, balance: float) -> dict[str, Tensor]:
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
