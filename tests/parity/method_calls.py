"""What the tests ask of a method while it trains: the one place that knows its interface to the engine."""

from __future__ import annotations

from torch import Tensor

from mlcil.methods import DKT, RDFCIL, DAFormer
from mlcil.methods.base import Method, SessionContext
from mlcil.models.network import IncrementalNetwork


def session(
    index: int,
    low: int,
    high: int,
    step: int | None = None,
    classes: int | None = None,
    batch: int = 1,
    task: str = "multi_label",
) -> SessionContext:
    """A session's context: class range, increment, classes of the scenario, images a step, kind of labels."""
    return SessionContext(index, low, high, step or high - low, classes or high, None, 1.0, batch, task=task)


def place(method: Method, context: SessionContext, teacher: IncrementalNetwork | None = None) -> Method:
    """The method in training mode within that session, beside a teacher; its network has grown already."""
    method.context = context
    method._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]
    return method.train()


def begin(method: Method, context: SessionContext) -> None:
    """Begin a session: the network grows."""
    method.begin_session(context)


def refine(method: RDFCIL) -> None:
    """Begin the first epoch of the refinement."""
    method.refine()
    method.begin_epoch()


def begin_finetuning(method: DAFormer | DKT) -> None:
    """Begin the balanced fine-tuning behind a session."""
    method.begin_finetuning()


def losses_of(method: Method, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The named losses of a batch of new images; inputs (B, 3, H, W), targets (B, C)."""
    losses: dict[str, Tensor] = method(inputs, targets, mode="loss")
    return losses


def predictions_of(method: Method, inputs: Tensor) -> Tensor:
    """Logits (B, C) as in evaluation."""
    return method(inputs, mode="predict")[0]
