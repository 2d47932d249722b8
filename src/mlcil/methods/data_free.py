"""What the data-free methods share: made images of old classes beside every batch of a later session."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from mlcil.errors import UserError
from mlcil.losses.classification import class_labels
from mlcil.methods.base import Method
from mlcil.models.inversion import Inversion, InversionSettings
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32


class DataFree(Method):
    """A method whose later sessions replay images that an inversion of the old network makes.

    The generator learns in ``prepare_session`` and is part of the method's state, so a resumed session does
    not invert again. A subclass defines :meth:`session_loss`.

    Args:
        network: the network to train.
        inversion: options of :class:`~mlcil.models.inversion.InversionSettings`.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    reads_statistics = True  # the inversion's loss on batch norms
    warm_start = True  # the generator and its optimiser go on where they stopped a session before
    iterations = 10000  # of an inversion, unless given

    def __init__(
        self,
        network: IncrementalNetwork,
        inversion: dict[str, Any] | None = None,
        reference_batch: int = 64,
        teacher_autocast: bool = False,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.settings = InversionSettings(**{"iterations": self.iterations, **(inversion or {})})
        self.inversion: Inversion | None = None
        self.inverted: dict[str, float] = {}  # terms of the inversion's last step

    def prepare_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Invert the old network.

        Raises:
            UserError: the generator's loss is not a number in the end.
        """
        if self.teacher is None or self.context is None:
            return
        if self.inversion is None or not self.warm_start:
            self.inversion = Inversion(self.network, self.settings)
        self.inverted = self.inversion.fit(self.teacher, self.context.batch_size, self.tell)
        if not math.isfinite(sum(self.inverted.values())):
            raise UserError(
                f"the inversion of session {self.context.index} ended with {self.inverted}; lower its learning rate, "
                f"method.inversion['lr'], from {self.settings.lr}"
            )

    def tell(self, done: int, terms: dict[str, float]) -> None:
        """A line for the log."""
        values = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        print_log(f"inversion [{done}/{self.settings.iterations}]  {values}", logger="current")

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        labels_B = class_labels(targets)
        if self.teacher is None:
            return self.first_loss(inputs, labels_B)
        assert self.inversion is not None, "prepare_session() comes before loss()"
        return self.session_loss(inputs, labels_B, self.inversion.sample(len(inputs)))

    def first_loss(self, inputs: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Session 0: cross-entropy over its classes."""
        return {"loss_ce": F.cross_entropy(at_least_float32(self.network(inputs).logits_BC), labels_B)}

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """The losses of a later session.

        Args:
            inputs: (B, 3, H, W) real images in [0, 1].
            labels_B: their classes, int64.
            made: (B, 3, H, W) made images, about [0, 1].
        """
        raise TypeError(f"{type(self).__name__} defines no session_loss")

    def method_state(self) -> dict[str, Any]:
        state = self.inversion.state_dict(self.warm_start) if self.inversion is not None else None
        return {"inversion": state, "inverted": dict(self.inverted)}

    def load_method_state(self, state: dict[str, Any]) -> None:
        if state["inversion"] is not None:
            self.inversion = Inversion(self.network, self.settings)
            self.inversion.load_state_dict(state["inversion"])
        self.inverted = dict(state["inverted"])

    def session_report(self) -> dict[str, Any]:
        return {"inversion": dict(self.inverted)} if self.inverted else {}
