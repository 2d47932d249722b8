"""The PODNet-style baseline that was released with KRT.

After Douillard et al., "PODNet: Pooled Outputs Distillation", ECCV 2020, in the multi-label form of the
baseline folder of KRT's release: linear head with copied rows, asymmetric loss on the given labels (no
pseudo-labels), distillation of the four stages' pooled maps and of the pooled embedding.

    loss = ASL + sqrt(high / step) * (spatial * POD + flat * (1 - cos(old embedding, new embedding)))

The released YAML has 5 and 180, an older release 0 and 180.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.distillation import one_minus_cosine
from mlcil.methods.base import Batch, Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


@METHODS.register_module()
class POD(Method):
    """Pooled-outputs distillation.

    Args:
        network: backbone (the maps of its stages are distilled; timm models give their last map only) with a
            linear head.
        spatial: lambda_c of the spatial term over the stages' maps.
        flat: lambda_f of the cosine term on the pooled embedding.
        collapse: what the maps are summed over: ``spatial`` (official), ``channels``, ``width``, ``height``
            or ``gap``.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    needs_images = True

    def __init__(
        self,
        network: IncrementalNetwork,
        spatial: Weight = 5.0,
        flat: Weight = 180.0,
        collapse: str = "spatial",
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.spatial, self.flat, self.collapse = spatial, flat, collapse

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        new = self.network(batch.inputs)
        losses = {"loss_cls": self.classify(new.logits_BC, self.targets(batch))}
        if self.teacher is None:
            return losses
        old = self.teacher_output(batch.inputs)
        growth = self.context.growth
        if self.spatial > 0:
            maps = [at_least_float32(m) for m in new.maps]
            losses["loss_pod_spatial"] = growth * self.spatial * pod_spatial(old.maps, maps, self.collapse)
        embedding_BK = at_least_float32(new.features_BK)
        losses["loss_pod_flat"] = growth * self.flat * one_minus_cosine(old.features_BK, embedding_BK)
        return losses


def pod_spatial(old_maps: Sequence[Tensor], new_maps: Sequence[Tensor], collapse: str = "spatial") -> Tensor:
    """Pooled-outputs distillation (Douillard et al., ECCV 2020, equations 3 to 6).

    Values are squared, summed over what ``collapse`` names, L2-normalised per image; the Euclidean distance
    is averaged over the batch and over the maps.

    Args:
        old_maps, new_maps: maps of the same stages, each (B, channels, H, W).
        collapse: ``spatial`` (sums over the width and over the height, concatenated), ``channels``,
            ``width``, ``height`` or ``gap`` (mean over positions).

    Raises:
        ValueError: unknown ``collapse``, or not the same number of maps.
    """
    terms = []
    for old, new in zip(old_maps, new_maps, strict=True):
        a, b = (F.normalize(_collapsed(at_least_float32(m).square(), collapse), dim=1) for m in (old.detach(), new))
        terms.append((a - b).norm(dim=1).mean())
    return torch.stack(terms).mean()


def _collapsed(squared_BQHW: Tensor, collapse: str) -> Tensor:
    x = squared_BQHW
    if collapse == "spatial":
        return torch.cat([x.sum(3).flatten(1), x.sum(2).flatten(1)], 1)
    if collapse == "channels":
        return x.sum(1).flatten(1)
    if collapse == "width":
        return x.sum(2).flatten(1)
    if collapse == "height":
        return x.sum(3).flatten(1)
    if collapse == "gap":
        return x.mean((2, 3))
    raise ValueError(f"collapse {collapse!r} is unknown; use spatial, channels, width, height or gap")
