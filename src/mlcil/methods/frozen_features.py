"""What methods on the pooled features of a frozen backbone share: the session's features in one matrix.

Legend: N images, H features, C classes seen so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches
from mlcil.schema import Count


@dataclass(frozen=True)
class Seen:
    """The images of a phase, each once, ordered by session and row.

    Attributes:
        features_NH: what the head's linear layers see, float64.
        logits_NC: the network's.
        targets_NC: 1, 0 or -1 (unknown).
        rows_N, origins_N: see :class:`~mlcil.methods.base.Batch`.
    """

    features_NH: Tensor
    logits_NC: Tensor
    targets_NC: Tensor
    rows_N: Tensor
    origins_N: Tensor


class FrozenFeatures(Method):
    """Base of them.

    Args:
        network: with ``frozen_backbone=True``.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: a backbone that is trained.
    """

    own_criterion = MULTI_LABEL

    def __init__(self, network: IncrementalNetwork, reference_batch: Count = 64, teacher_autocast: bool = True) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not network.frozen_backbone:
            raise ValueError(f"{type(self).__name__} needs network.frozen_backbone=True")

    @torch.no_grad()
    def look_at(self, batches: Batches) -> Seen:
        """Features and labels of all images of a phase, over all processes, in evaluation mode."""
        was_training = self.training
        self.eval()
        found = []
        for batch in batches:
            data = self.data_preprocessor(batch)
            output = self.network(data["inputs"])
            values = (output.features_BK.double(), output.logits_BC.double(), data["targets"].double())
            found.append([part.cpu() for part in (*values, data["rows"], data["origins"])])
        self.train(was_training)
        found = [batch for part in all_gather_object(found) for batch in part]
        features, logits, targets, rows, origins = (torch.cat(parts) for parts in zip(*found, strict=True))
        first: dict[tuple[int, int], int] = {}  # a sampler may give an image to two processes
        for place, key in enumerate(zip(origins.tolist(), rows.tolist(), strict=True)):
            first.setdefault(key if key[1] >= 0 else (key[0], -1 - place), place)
        order = torch.tensor([first[key] for key in sorted(first)])
        return Seen(features[order], logits[order], targets[order], rows[order], origins[order])
