"""Relational knowledge distillation: angles among the embeddings of a batch.

After Park et al., "Relational Knowledge Distillation", CVPR 2019, in R-DFCIL's form (ECCV 2022).
Legend: B images, K width of an embedding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def angles(points_BK: Tensor) -> Tensor:
    """Cosines of the angles at every point: [i, j, k] is that between j and k seen from i, (B, B, B).

    Where j or k is i itself the entry is 0.
    """
    directions_BBK = F.normalize(points_BK[None, :] - points_BK[:, None], dim=2, eps=1e-12)
    return directions_BBK @ directions_BBK.transpose(1, 2)


def angle_loss(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Mean absolute difference of all B^3 angles, those that are always 0 included."""
    return (angles(student_BK) - angles(teacher_BK)).abs().mean()


class RelationKD(nn.Module):
    """Angle distillation of embeddings under two learned projections, one a side, both trained.

    Args:
        features: width K of the embeddings.
        width: width of the projections; ``None`` takes 2 K (R-DFCIL official).
    """

    def __init__(self, features: int, width: int | None = None) -> None:
        super().__init__()
        self.student = nn.Linear(features, width or 2 * features)
        self.teacher = nn.Linear(features, width or 2 * features)

    def forward(self, student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        """The scalar loss."""
        return angle_loss(self.student(student_BK), self.teacher(teacher_BK))
