"""One linear layer that has the outputs of all classes from the beginning: the classifier of ABD's system."""

from __future__ import annotations

from torch import Tensor, nn

from mlcil.schema import Count


class FullLinearHead(nn.Module):
    """A layer of ``num_classes`` outputs; a session only reveals its share of them.

    Args:
        in_channels: channels K of the map.
        num_classes: outputs of the layer: at least the classes of the whole scenario.

    Attributes:
        seen: outputs revealed so far.
    """

    pools = True  # the mean over the positions is all that it takes of a map

    def __init__(self, in_channels: int, num_classes: Count) -> None:
        super().__init__()
        self.num_classes, self.seen = num_classes, 0
        self.linear = nn.Linear(in_channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal rows (fan in, gain sqrt 2), PyTorch's biases."""
        self.linear.reset_parameters()
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_in", nonlinearity="relu")

    def grow(self, classes: int) -> None:
        """Reveal ``classes`` more outputs.

        Raises:
            ValueError: the layer has not as many.
        """
        if self.seen + classes > self.num_classes:
            raise ValueError(
                f"the head has {self.num_classes} outputs and shows {self.seen}, so it cannot show {classes} more; "
                "set network.head.num_classes to the classes of the scenario"
            )
        self.seen += classes

    def classify(self, features_BK: Tensor) -> Tensor:
        """Pooled embeddings (B, K) -> logits of ALL classes (B, num_classes), also of those still to come."""
        return self.linear(features_BK)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits of the classes seen so far (B, C_seen) and no tokens."""
        return self.classify(feature_map.mean((2, 3)))[:, : self.seen], None
