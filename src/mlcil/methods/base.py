"""What every method is: a network that grows, perhaps a teacher, and a loss.

The engine calls ``begin_session`` (take the teacher, grow, freeze) and carries out the ``phases`` that the method
names; in a training phase it calls ``loss`` for every batch. Only the engine calls backward and step on the network in
such a phase; in a phase of its own a method may train what is its own, such as a generator of images.

Legend: B images, C classes seen so far, O old classes, S sessions, D token width, K pooled width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.model import BaseModel
from torch import Tensor

from mlcil.losses.criterion import CRITERIA, Criterion
from mlcil.models.data_preprocessor import ImagePreprocessor
from mlcil.models.folding import can_fold, folded
from mlcil.models.network import IncrementalNetwork, NetworkOutput
from mlcil.models.numerics import at_least_float32, corrected
from mlcil.phases import Batches, Phase, Train, UpdateMemory
from mlcil.schema import AboveZero, Count, Natural


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
    epochs: int = 1  # of the session, as the run says
    joint: bool = False  # the only session of a run that trains on all classes at once
    task: str = "multi_label"  # or single_label: every image shows exactly one class
    firsts: tuple[int, ...] = ()  # by session up to this one, the first class that its images come with labels of

    @property
    def growth(self) -> float:
        """sqrt(high / step), the factor of the distillation terms (KRT section 3.4, PODNet)."""
        return math.sqrt(self.high / self.step)


@dataclass(frozen=True)
class Batch:
    """What a method sees in one step.

    Attributes:
        inputs: (B, 3, H, W) float in [0, 1].
        targets: (B, C) float; 1 present, 0 absent, -1 unknown (nobody gave the label) or not judged. Images that show
            exactly one class have a single 1; mixed images have shares in [0, 1].
        rows: (B,) int64 rows of the training table; -1 for an image that is not in it.
        origins: (B,) int64 session an image was stored in; the running session's index for new images.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    origins: Tensor


@dataclass(frozen=True)
class BalancedFinetuning:
    """A short phase on the memory alone, behind the session's update of the memory (DyTox, DKT, DAFormer)."""

    lr: AboveZero = 5e-5  # at base_batch_size images a step over all processes, scaled in proportion
    base_batch_size: Count = 256
    epochs: Natural = 10
    early_epochs: Natural | None = None  # epochs of the sessions below early_sessions, when they differ
    early_sessions: Natural = 0
    shuffle: bool = False  # DKT, DAFormer official behaviour: sorted by class, the last, smaller batch dropped

    def epochs_of(self, session: int) -> int:
        """Epochs in the session of that index."""
        return self.epochs if self.early_epochs is None or session >= self.early_sessions else self.early_epochs

    def phases(
        self, session: SessionContext, begin: Callable[[], None], change: Callable[..., None] | None = None
    ) -> list[Phase]:
        """The phase in a session: none in the first one, unless it is joint training."""
        if session.index == 0 and not session.joint:
            return []
        epochs = self.epochs_of(session.index)
        return [Train("memory", epochs, self.lr, self.base_batch_size, self.shuffle, begin, change=change)]


class Method(BaseModel):
    """Base of all methods.

    Args:
        network: the network to train; it has no outputs before the first ``begin_session``.
        reference_batch: the batch size at which a summed loss has weight 1 against averaged terms. The
            official balance is 64 images a process; a summed loss is multiplied by
            ``reference_batch / batch_size``.
        teacher_autocast: run the teacher in the student's precision (False: in fp32 beside a student in bf16 or fp16,
            as the official code).
    """

    uses_teacher = False
    #: the criterion of a method that has one form only; ``None`` leaves it to the data
    own_criterion: Criterion | None = None
    #: the method works on the images themselves or on maps of several stages, so that the last stage's maps, kept of
    #: a frozen backbone, cannot stand in for them
    needs_images = False
    #: the method reads the batch norms of its teacher, so that they must not be folded into the convolutions
    reads_statistics = False
    #: ways of choosing exemplars that the method works with, or () when it runs without a memory too
    memory_selections: tuple[str, ...] = ()

    def __init__(self, network: IncrementalNetwork, reference_batch: Count = 64, teacher_autocast: bool = True) -> None:
        super().__init__(data_preprocessor=ImagePreprocessor())
        self.network = network
        self.reference_batch = reference_batch
        self.teacher_autocast = teacher_autocast
        self.fold_teacher = False  # the engine sets it: batch norms of the teacher inside its convolutions
        self.context: SessionContext | None = None
        #: told of long work outside the epochs: what, steps done, steps in all; the engine shows it
        self.announce: Callable[[str, int, int], None] = lambda text, done, total: None
        self._teacher: list[IncrementalNetwork] = []  # in a list, so that it is no sub-module

    # -- a session ---------------------------------------------------------------------------------

    def phases(self, session: SessionContext) -> list[Phase]:
        """What a session of the method consists of, after :meth:`begin_session`; see :mod:`mlcil.phases`."""
        del session
        return [Train(), UpdateMemory()]

    def begin_session(self, context: SessionContext) -> None:
        """Take the teacher, grow the head by the new classes, freeze what the method freezes."""
        self.context = context
        self._teacher = []
        if self.uses_teacher and context.index > 0:
            self._teacher = [self.network.frozen_copy()]
            stays = self.reads_statistics or self.network.frozen_backbone
            if self.fold_teacher and not stays and can_fold(self.network):
                self._teacher = [folded(self._teacher[0])]
        self.network.grow(context.high - context.low)
        self.freeze()

    def freeze(self) -> None:
        """Choose the trainable parameters of the session; all of them unless a method says otherwise."""
        self.network.requires_grad_(True)

    def begin_epoch(self) -> None:
        """Before every epoch; what it does may depend on the method state only."""

    def hold_out(self, targets_NC: np.ndarray, exemplars_MC: np.ndarray, low: int) -> np.ndarray | None:
        """Which images are kept from training, for a phase on ``held_out``; asked where there are exemplars.

        Args:
            targets_NC: targets of the session's new images.
            exemplars_MC: of the replayed ones.
            low: number of old classes.

        Returns:
            (N + M,) bool, or ``None`` to train on all of them.
        """
        del targets_NC, exemplars_MC, low
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named losses; those whose name contains ``loss`` are summed and minimised."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def drop_teacher(self) -> None:
        """Let go of the teacher: nothing is distilled from here on in the session."""
        self._teacher = []

    def remember(self, rows: np.ndarray, logits_MC: np.ndarray, kept: np.ndarray) -> None:
        """Told of the images that the memory has just taken in.

        Args:
            rows: (M,) int64 rows of the training table, each once.
            logits_MC: (M, C) float32 logits that the trained network gives them, test transforms.
            kept: int64 rows of all images that are in the memory now.
        """

    def logit_correction(self) -> Tensor | None:
        """Scale and shift that predictions put on every logit, (C, 2), or ``None``; goes into stage checkpoints."""
        return None

    # -- state and report --------------------------------------------------------------------------

    def method_state(self) -> dict[str, Any]:
        """Plain values and tensors that must survive into the next session or a resumed run."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`method_state` gave."""

    def session_report(self) -> dict[str, Any]:
        """Plain values about the session for results.json and the log."""
        return {}

    def pseudo_label_decisions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The pseudo-labels that the session starts with, to be compared with the hidden truth in reports.

        Returns:
            Rows (N,) int64 of the training table and (N, O) bool, or ``None`` for a method without any. The
            method never learns the truth.
        """
        return None

    def made_images(self) -> tuple[np.ndarray, np.ndarray] | None:
        """A few of the images that the method has made of old classes, for reports.

        Returns:
            uint8 (N, H, W, 3) and the old network's class of each (N,), or ``None`` for a method without any.
        """
        return None

    def state_bytes(self) -> dict[str, int]:
        """Bytes that the method carries from session to session besides a plain network with a linear head.

        Returns:
            ``logits`` of stored images, ``statistics`` (other tensors of :meth:`method_state`),
            ``parameters`` beyond one linear classifier, and the ``teacher``.
        """
        tensors = [value for value in _flat(self.method_state()) if isinstance(value, Tensor)]
        head = self.network.head
        features = self.network.backbone.out_channels
        plain = sum(self.network.classes_per_session) * (int(features) + 1)  # type: ignore[arg-type]
        width = next(self.network.parameters()).element_size()
        taught = head if self.network.frozen_backbone else self.network
        model = [*taught.parameters(), *taught.buffers()]
        return {
            "logits": 0,
            "statistics": sum(value.nbytes for value in tensors),
            "parameters": max(0, sum(p.numel() for p in head.parameters()) - plain) * width,
            "teacher": sum(value.nbytes for value in model) if self.uses_teacher else 0,
        }

    # -- shared parts ------------------------------------------------------------------------------

    @property
    def sum_scale(self) -> float:
        """Factor of losses that are summed over the batch, see ``reference_batch``; 1 where the criterion has means."""
        assert self.context is not None
        return self.reference_batch / self.context.batch_size if self.criterion.summed else 1.0

    @property
    def teacher(self) -> IncrementalNetwork | None:
        """The frozen network of the previous session, or None."""
        return self._teacher[0] if self._teacher else None

    @property
    def criterion(self) -> Criterion:
        """The method's own criterion, or that of the scenario's data."""
        assert self.context is not None
        return self.own_criterion or CRITERIA[self.context.task]

    def classify(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """The criterion's classification loss; a sum is scaled by :attr:`sum_scale`."""
        return self.sum_scale * self.criterion.classify(logits_BC, targets_BC)

    def distil(self, new_BO: Tensor, old_BO: Tensor, temperature: float = 1.0) -> Tensor:
        """The criterion's distillation of the teacher's logits ``old_BO``; a sum is scaled by :attr:`sum_scale`."""
        return self.sum_scale * self.criterion.distil(new_BO, old_BO, temperature)

    def targets(self, batch: Batch, old_labels: str = "absent") -> Tensor:
        """The batch's targets (B, C) after the method's word on old classes whose labels nobody gave.

        These are the -1 below the first class that an image came with labels of (``context.firsts``, or the first
        class of the session that it was stored in). Every other -1 is not judged, and stays.

        Args:
            batch: of the running session.
            old_labels: ``absent`` makes them 0; ``ignored`` does so on replayed images alone, so that new images say
                nothing of old classes.
        """
        assert self.context is not None
        index = self.context.index
        firsts = self.context.firsts or tuple(accumulate(self.network.classes_per_session[:index], initial=0))
        first_B = torch.tensor(firsts).to(batch.origins.device, non_blocking=True)[batch.origins]
        unknown_BC = torch.arange(batch.targets.shape[1], device=first_B.device) < first_B[:, None]
        if old_labels == "ignored":
            unknown_BC &= (batch.origins < index)[:, None]
        return batch.targets.masked_fill(unknown_BC & (batch.targets < 0), 0)

    @torch.no_grad()
    def predictions_of_new(self, loader: Batches) -> tuple[Tensor, Tensor]:
        """What the network, in evaluation mode, says of the session's classes on the images of all processes.

        Args:
            loader: batches of this process, as a :class:`~mlcil.phases.Fit` gives them.

        Returns:
            Logits (N, C) float32 and targets (N, C) of the C new classes, on the CPU.
        """
        assert self.context is not None
        low, logits, targets = self.context.low, [], []
        was_training = self.training
        self.eval()
        for batch in loader:
            data = self.data_preprocessor(batch)
            logits.append(self.network(data["inputs"]).logits_BC[:, low:].float().cpu())
            targets.append(data["targets"][:, low:].cpu())
        self.train(was_training)
        parts = all_gather_object((torch.cat(logits), torch.cat(targets)))
        logits_NC, targets_NC = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return logits_NC, targets_NC

    def teacher_output(self, inputs: Tensor) -> NetworkOutput:
        """The teacher's output in evaluation mode, without gradients."""
        assert self.teacher is not None
        if self.teacher.training:  # the walk over all modules is some percent of a small step
            self.teacher.eval()
        with torch.no_grad():
            if self.teacher_autocast:
                return self.teacher(inputs)
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            return self.teacher(inputs.float() if inputs.dtype != torch.float64 else inputs)

    def forward(  # type: ignore[override]
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        rows: Tensor | None = None,
        origins: Tensor | None = None,
        mode: str = "tensor",
    ) -> Any:
        """``mode='loss'``: named losses, of new images unless ``origins`` tells otherwise; ``'predict'``: logits (B, C)
        and pooled features (B, K).
        """
        if mode == "loss":
            assert targets is not None
            assert self.context is not None
            everyone = torch.ones(len(inputs), dtype=torch.int64, device=inputs.device)
            rows = -everyone if rows is None else rows
            origins = self.context.index * everyone if origins is None else origins
            return self.loss(Batch(inputs, targets, rows, origins))
        output = self.network(inputs)
        if mode == "predict":
            logits_BC = corrected(at_least_float32(output.logits_BC), self.logit_correction())
            return logits_BC, at_least_float32(output.features_BK)
        return output.logits_BC


def as_pixels(images: Tensor) -> np.ndarray:
    """(N, 3, H, W), about [0, 1] -> uint8 (N, H, W, 3)."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """``value`` when it is one of the choices.

    Raises:
        ValueError: naming the option and its choices.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; use {' or '.join(map(repr, choices))}")
    return value


def _flat(value: Any) -> Iterator[Any]:
    """The leaves of nested dictionaries, lists and tuples."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value
