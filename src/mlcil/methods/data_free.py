"""What the data-free methods share: made images of old classes beside every batch of a later session."""

from __future__ import annotations

import datetime
import logging
import math
import time
from typing import Annotated, Any

import numpy as np
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from mlcil.errors import UserError
from mlcil.losses.classification import class_labels
from mlcil.methods.base import Batch, Method, SessionContext, as_pixels
from mlcil.models.inversion import Inversion, InversionSettings, effective_classes
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Invert, Phase, Train, UpdateMemory
from mlcil.schema import AboveZero, Count, Weight

SHEET = 8  # images of a class in reports


class DataFree(Method):
    """A method whose later sessions replay images that an inversion of the old network makes.

    The generator learns in phase of its own and is part of the method's state, so a resumed session does
    not invert again. A subclass defines :meth:`session_loss`.

    Args:
        network: the network to train.
        inversion: options of :class:`~mlcil.models.inversion.InversionSettings`.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    needs_images = True
    reads_statistics = True  # the inversion's loss on batch norms
    warm_start = True  # the generator and its optimiser go on where they stopped a session before
    iterations = 10000  # of an inversion, unless given

    def __init__(
        self,
        network: IncrementalNetwork,
        inversion: Annotated[dict[str, Any] | None, InversionSettings] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.settings = InversionSettings(**{"iterations": self.iterations, **(inversion or {})})
        self.inversion: Inversion | None = None
        self.inverted: dict[str, float] = {}  # terms of the inversion's last step, and the classes that it shows
        self._told = (0, 0.0)  # steps and time of the last log line
        self._warned = False
        self._sheet: tuple[np.ndarray, np.ndarray] | None = None  # of the session's inversion

    def phases(self, session: SessionContext) -> list[Phase]:
        return [*self.inversions(), Train(), UpdateMemory()]

    def inversions(self) -> list[Phase]:
        """The inversion, where there is something to invert."""
        return [Invert(self.invert)] if self.teacher is not None else []

    def invert(self) -> None:
        """Invert the old network.

        Raises:
            UserError: the generator's loss is not a number in the end.
        """
        assert self.teacher is not None
        assert self.context is not None
        if self.inversion is None or not self.warm_start:
            self.inversion = Inversion(self.network, self.settings)
        self._told, self._warned = (0, time.monotonic()), False
        self.inverted = self.inversion.fit(self.teacher, self.context.batch_size, self.tell)
        if not math.isfinite(sum(self.inverted.values())):
            raise UserError(
                f"the inversion of session {self.context.index} ended with {self.inverted}; lower its learning rate, "
                f"method.inversion['lr'], from {self.settings.lr}"
            )
        images, labels_N, self.inverted["classes shown"] = self.inversion.sheet(self.teacher, SHEET)
        self._sheet = as_pixels(images), labels_N.cpu().numpy()

    def tell(self, done: int, terms: dict[str, float]) -> None:
        """The terms for whoever watches, ten lines of them for the log, and a warning when classes get lost.

        The balance term is 0 when the made images show all old classes alike and 1 when they show one. From the
        first tenth of the steps on the images should show at least half of the classes.
        """
        assert self.context is not None
        total, old = self.settings.iterations, self.context.low
        values = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        self.announce(f"inversion: {values}", done, total)
        tenth = max(total // 10, 1)
        if done != total and done // tenth == self._told[0] // tenth:
            return
        now = time.monotonic()
        pace = (now - self._told[1]) / max(done - self._told[0], 1)
        rest = datetime.timedelta(seconds=round(pace * (total - done)))
        self._told = (done, now)
        print_log(f"inversion [{done}/{total}]  {values}  ({pace:.3f} s a step, {rest} left)", logger="current")
        shown = effective_classes(terms["balance"], old)
        if shown < old / 2 and not self._warned:
            self._warned = True
            print_log(
                f"inversion: after {done} steps the made images show about {shown:.1f} of {old} old classes (balance "
                f"{terms['balance']:.2f}), so the others would be forgotten; lower method.inversion['lr'] from "
                f"{self.settings.lr}, give it more iterations or larger batches, or stop here",
                logger="current",
                level=logging.WARNING,
            )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        labels_B = class_labels(batch.targets)
        if self.teacher is None:
            return self.first_loss(batch.inputs, labels_B)
        assert self.inversion is not None, "the inversion comes before the loss"
        return self.session_loss(batch.inputs, labels_B, self.inversion.sample(len(labels_B)))

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

    def made_images(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._sheet

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


class SoftTargetReplay(DataFree):
    """A data-free method that distils soft targets: DeepInversion and LwF with made images of ABD's release.

    Args:
        network: backbone with a linear head.
        mu: weight of the distillation; the method's own unless given.
        temperature: T of the soft targets.
        inversion: options of :class:`~mlcil.models.inversion.InversionSettings`; 10000 iterations unless given.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    default_mu = 1.0

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: Weight | None = None,
        temperature: AboveZero = 2.0,
        inversion: Annotated[dict[str, Any] | None, InversionSettings] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, inversion, reference_batch, teacher_autocast)
        self.mu, self.temperature = self.default_mu if mu is None else mu, temperature
