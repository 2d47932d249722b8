"""What every method is: a network that grows, perhaps a teacher, and a loss.

The engine calls, per session: ``begin_session`` (grow, freeze, take the teacher), ``prepare_session`` (one
pass over the training loader, or an inversion, if the method wants one), ``begin_epoch`` before every epoch,
``loss`` for every batch, ``finish_session``. Only the engine calls backward and step on the network; a method
may train what is its own, such as a generator of images, in ``prepare_session``.

Legend: B images, C classes seen so far, O old classes, S sessions, D token width, K pooled width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from mlcil.models.network import IncrementalNetwork, NetworkOutput
from mlcil.models.numerics import at_least_float32


@dataclass(frozen=True)
class SessionContext:
    """What a method may know of the session that begins."""

    index: int  # t, from 0
    low: int  # first class index of the session = number of old classes
    high: int  # classes seen including this session's
    step: int  # classes of every session after the first (the protocol's increment)
    num_classes: int  # classes of the whole scenario
    label_cardinality: float | None  # labels an image shows on average over all classes, when it is stated
    labels_per_image: float  # given labels per image of this session's new images
    batch_size: int  # images a process sees in one step

    @property
    def growth(self) -> float:
        """sqrt(high / step), the factor of the distillation terms (KRT section 3.4, PODNet)."""
        return math.sqrt(self.high / self.step)


class Method(BaseModel):
    """Base of all methods.

    Args:
        network: the network to train; it has no outputs before the first ``begin_session``.
        reference_batch: the batch size at which a summed loss has weight 1 against averaged terms. The
            official balance is 64 images a process; a summed loss is multiplied by
            ``reference_batch / batch_size``.
        teacher_autocast: run the teacher in the student's precision (False: fp32, as the official code).
    """

    uses_teacher = False
    #: what ``finish_session`` is given instead of the training images: ``memory``, the exemplars with those of
    #: the new classes, or ``held_out``, a balanced part of images that training does not see
    second_stage: str | None = None

    def __init__(self, network: IncrementalNetwork, reference_batch: int = 64, teacher_autocast: bool = False) -> None:
        super().__init__()
        self.network = network
        self.reference_batch = reference_batch
        self.teacher_autocast = teacher_autocast
        self.context: SessionContext | None = None
        self._teacher: list[IncrementalNetwork] = []  # in a list, so that it is no sub-module

    # -- the four steps of a session ---------------------------------------------------------------

    def begin_session(self, context: SessionContext) -> None:
        """Take the teacher, grow the head by the new classes, freeze what the method freezes."""
        self.context = context
        self._teacher = []
        if self.uses_teacher and context.index > 0:
            teacher = copy.deepcopy(self.network).eval().requires_grad_(False)
            self._teacher = [teacher]
        self.network.grow(context.high - context.low)
        self.freeze()

    def freeze(self) -> None:
        """Choose the trainable parameters of the session; all of them unless a method says otherwise."""
        self.network.requires_grad_(True)

    def prepare_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Anything that needs a pass over the session's training loader before the first step."""

    def begin_epoch(self, epoch: int, epochs: int) -> bool:
        """Before epoch ``epoch`` of ``epochs``; what it does may depend on these and on the method state only.

        Returns:
            Whether other parameters train from here on, so that the engine wraps the model anew.
        """
        del epoch, epochs
        return False

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named losses; those whose name contains ``loss`` are summed and minimised.

        Args:
            inputs: (B, 3, H, W) float in [0, 1].
            targets: (B, C) float; 1 present, 0 absent or not given, -1 not judged. Images that show exactly
                one class come with a single 1.
        """
        raise TypeError(f"{type(self).__name__} defines no loss")

    def finish_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Anything after the last step: bias correction, balanced fine-tuning (see ``second_stage``)."""

    # -- state and report --------------------------------------------------------------------------

    def method_state(self) -> dict[str, Any]:
        """Plain values and tensors that must survive into the next session or a resumed run."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`method_state` gave."""

    def session_report(self) -> dict[str, Any]:
        """Plain values about the session for results.json and the log."""
        return {}

    # -- shared parts ------------------------------------------------------------------------------

    @property
    def sum_scale(self) -> float:
        """Factor of losses that are summed over the batch, see ``reference_batch``."""
        assert self.context is not None
        return self.reference_batch / self.context.batch_size

    @property
    def teacher(self) -> IncrementalNetwork | None:
        """The frozen network of the previous session, or None."""
        return self._teacher[0] if self._teacher else None

    def teacher_output(self, inputs: Tensor) -> NetworkOutput:
        """The teacher's output in evaluation mode, without gradients."""
        assert self.teacher is not None
        self.teacher.eval()
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=self.teacher_autocast):
            if self.teacher_autocast:
                return self.teacher(inputs)
            return self.teacher(inputs.float() if inputs.dtype != torch.float64 else inputs)

    def forward(  # type: ignore[override]
        self, inputs: Tensor, targets: Tensor | None = None, rows: Tensor | None = None, mode: str = "tensor"
    ) -> Any:
        """``mode='loss'``: named losses; ``'predict'``: logits (B, C) and pooled features (B, K)."""
        if mode == "loss":
            assert targets is not None
            return self.loss(inputs, targets)
        output = self.network(inputs)
        if mode == "predict":
            return at_least_float32(output.logits_BC), at_least_float32(output.features_BK)
        return output.logits_BC
