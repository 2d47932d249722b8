"""MULTI-LANE: a lane of selectors and prompts a session through a frozen vision transformer.

De Min, Mancini, Lathuiliere, Roy and Ricci, "Less is more: Summarizing Patch Tokens for efficient Multi-Label
Class-Incremental Learning", CoLLAs 2024. A session trains its own lane (:mod:`mlcil.models.heads.lanes`) and the
classifier of its classes; there is no teacher, no memory and no pseudo-label, and the scores of old classes stay as
they are, to the bit. What the sources leave open, and what is done here:

* lanes are made when sessions begin, not for a number of sessions that is known before;
* selectors and class token pass through the norm of a block as its other tokens do, and every block starts from the
  same selectors;
* selectors ask the patches, not the transformer's own class token; prompts join the keys and values behind the
  projection;
* a session's loss is the mean over its own classes; the paper masks all others to logit 0 and target 0, which scales
  the gradient (without effect on Adam) and adds a constant.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method
from mlcil.models.heads import LaneHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class MultiLane(Method):
    """Binary cross-entropy of the session's own classes; only its lane and their classifier learn.

    Args:
        network: a frozen vision transformer of timm's with a ``lanes`` head.

    Raises:
        ValueError: another head, or a backbone that would be trained.
    """

    own_criterion = MULTI_LABEL
    needs_images = True

    def __init__(self, network: IncrementalNetwork) -> None:
        super().__init__(network)
        if not isinstance(network.head, LaneHead) or not network.frozen_backbone:
            raise ValueError("MultiLane needs network.head.type='lanes' and network.frozen_backbone=True")

    def freeze(self) -> None:
        super().freeze()
        self.network.head.freeze_old_sessions()  # type: ignore[operator]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        low = self.context.low
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC[:, low:])
        targets_BC = batch.targets[:, low:].to(logits_BC)
        judged_BC = targets_BC >= 0
        cost_BC = F.binary_cross_entropy_with_logits(logits_BC, targets_BC.clamp(min=0), reduction="none")
        return {"loss_cls": (cost_BC * judged_BC).sum() / judged_BC.sum().clamp(min=1)}
