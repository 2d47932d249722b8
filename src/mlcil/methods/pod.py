"""The PODNet-style baseline that was released with KRT.

After Douillard et al., "PODNet: Pooled Outputs Distillation", ECCV 2020, in the multi-label form of the
baseline folder of KRT's release: linear head with copied rows, asymmetric loss on the given labels (no
pseudo-labels), distillation of the four stages' pooled maps and of the pooled embedding.

    loss = ASL + sqrt(high / step) * (spatial * POD + flat * (1 - cos(old embedding, new embedding)))

The released YAML has 5 and 180, an older release 0 and 180.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.losses.distillation import pod_flat, pod_spatial
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


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
        spatial: float = 5.0,
        flat: float = 180.0,
        collapse: str = "spatial",
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.spatial, self.flat, self.collapse = spatial, flat, collapse

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert self.context is not None
        new = self.network(inputs)
        losses = {"loss_cls": self.classification_loss(new.logits_BC, targets)}
        if self.teacher is None:
            return losses
        old = self.teacher_output(inputs)
        growth = self.context.growth
        if self.spatial > 0:
            maps = [at_least_float32(m) for m in new.maps]
            losses["loss_pod_spatial"] = growth * self.spatial * pod_spatial(old.maps, maps, self.collapse)
        embedding_BK = at_least_float32(new.features_BK)
        losses["loss_pod_flat"] = growth * self.flat * pod_flat(old.features_BK, embedding_BK)
        return losses
