"""RCLP: replay consolidation with label propagation.

Ceccon et al., "Multi-Label Continual Learning for the Medical Domain: A Novel Benchmark", WACV 2025. Labels that nobody
gave are filled in from both sides, by the networks before and after the session that an image comes from: that is the
memory's part, ``memory.labels="rclp"`` (:class:`~mlcil.memory.base.Memory`). The method's part is the loss:

    loss = (ASL(new images) + ASL(replayed images)) / 2 + distill * MSE(teacher's features, features)

Features are the map in the middle of the backbone's stages, of new and replayed images. In the authors' release both
maps are computed without gradients, so the term teaches nothing and the published numbers stand for ``distill=0``; here
it has its gradient. Further deviations: the loss is this project's asymmetric one instead of binary cross entropy, a
sum over the images, and so is the distance, a mean over the elements of a map; the memory is a reservoir, in which a
session's share goes by its images instead of being equal. A frozen backbone's features stay where they are without the
term, which is left out there.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Batch, Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


@METHODS.register_module()
class RCLP(Method):
    """Replay at half weight, and features that stay near the teacher's.

    Args:
        network: backbone (a timm model gives its last map only) with a linear head.
        distill: factor of the features' term; 0 leaves it out, as a frozen backbone does.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    memory_selections = ("reservoir", "random", "herding")

    def __init__(
        self,
        network: IncrementalNetwork,
        distill: Weight = 1.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.distill = 0.0 if network.frozen_backbone else distill
        self.uses_teacher = self.needs_images = self.distill > 0  # the last map alone is not enough

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        new = self.network(batch.inputs)
        targets_BC, replayed = self.targets(batch), batch.origins < self.context.index
        logits_BC = at_least_float32(new.logits_BC)
        if not replayed.any():
            losses = {"loss_cls": self.classify(logits_BC, targets_BC)}
        else:
            losses = {
                "loss_cls": self.classify(logits_BC[~replayed], targets_BC[~replayed]) / 2,
                "loss_replay": self.classify(logits_BC[replayed], targets_BC[replayed]) / 2,
            }
        if self.teacher is not None and self.distill > 0:
            outputs = (self.teacher_output(batch.inputs), new)
            old_map, new_map = (at_least_float32(middle(output.maps)) for output in outputs)
            distance_B = (old_map - new_map).square().flatten(1).mean(1)
            losses["loss_features"] = self.distill * self.sum_scale * distance_B.sum()
        return losses


def middle(maps: list[Tensor]) -> Tensor:
    """The map of the stage in the middle, the later one of two."""
    return maps[len(maps) // 2]
