"""MixUp of training batches (Zhang et al., ICLR 2018) with label smoothing, as DAFormer's release uses timm's."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from mlcil.errors import UserError
from mlcil.models.data_preprocessor import network_input


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


@HOOKS.register_module()
class MixUp(Hook):
    """Mixes every training batch before its step, also in balanced fine-tuning.

    The weight depends on seed, session, epoch, iteration and process alone, so a resumed run draws the same;
    both passes of a sharpness-aware step see the same mixed batch.

    Args:
        alpha: of the beta distribution; 0.8 in DAFormer's release.
        smoothing: label smoothing; 0.1 in DAFormer's release.
        probability: share of the batches that are mixed; the others have smoothed labels only.

    Raises:
        UserError: a number out of its range.
    """

    def __init__(self, alpha: float = 0.8, smoothing: float = 0.1, probability: float = 1.0) -> None:
        for name, value, high in (("alpha", alpha, 1e3), ("smoothing", smoothing, 1), ("probability", probability, 1)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= high or (name == "alpha" and value == 0):
                bounds = "above 0" if name == "alpha" else "from 0 to 1"
                raise UserError(f"custom_hooks: MixUp's {name} is {value!r}; expected a number {bounds}")
        self.alpha, self.smoothing, self.probability = alpha, smoothing, probability

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Replace ``inputs`` and ``targets`` of the batch."""
        loop = runner.train_loop
        key = (runner.seed, loop.session, loop.phase, loop.epoch, batch_idx, get_rank())
        weight = mixing_weight(np.random.default_rng(key), self.alpha, self.probability)
        mixed = mix_up(network_input(data_batch["inputs"]), data_batch["targets"], weight, self.smoothing)
        data_batch["inputs"], data_batch["targets"] = mixed
