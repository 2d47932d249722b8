"""The second stage of E2E and BiC: a few parameters, a small balanced set, an optimiser of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_reduce_params
from torch import Tensor, nn

from mlcil.errors import UserError
from mlcil.losses.classification import class_labels
from mlcil.methods.base import Method
from mlcil.schema import AboveZero, Count, Natural, Share, Weight


@dataclass(frozen=True)
class SecondStage:
    """SGD by epochs; ABD's system gives a second stage the schedule of the first and a hundredth of its rate.

    Args:
        epochs: passes over the set.
        lr: learning rate.
        milestones: epochs behind which the rate falls to a tenth.
        momentum, weight_decay: of SGD.
    """

    epochs: Count = 250
    lr: AboveZero = 1e-3
    milestones: Sequence[Natural] = (100, 150, 200)
    momentum: Share = 0.9
    weight_decay: Weight = 2e-4

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        """SGD over these parameters, all of them with weight decay."""
        return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)


def run_second_stage(
    method: Method,
    stage: SecondStage,
    parameters: Sequence[nn.Parameter],
    loader: Iterable[dict[str, Any]],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Train ``parameters`` alone, the network in training mode as in the first stage.

    The batch norms' statistics go on moving (official behaviour of E2E and BiC in ABD's system).

    Args:
        method: whose network it is; its parameters rest except those given.
        stage: how long and how fast.
        parameters: what learns.
        loader: batches of images and one-hot rows.
        loss: of images (B, 3, H, W) and class indices (B,).

    Returns:
        The loss of the last step; NaN when the loader gives nothing.

    Raises:
        UserError: a loss is not a number.
    """
    method.network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = stage.optimizer(parameters)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(stage.milestones))
    method.train()
    last = torch.tensor(float("nan"))
    steps = 0
    for epoch in range(stage.epochs):
        reshuffle = getattr(getattr(loader, "sampler", None), "set_epoch", None)
        if reshuffle is not None:
            reshuffle(epoch)
        for batch in loader:
            data = method.data_preprocessor(batch)
            last = loss(data["inputs"], class_labels(data["targets"]))
            if not torch.isfinite(last):
                raise UserError(
                    f"the loss of the second stage is {last.item()} in its epoch {epoch + 1}; lower its learning rate, "
                    f"method.second['lr'], from {stage.lr}"
                )
            steps += 1
            optimizer.zero_grad()
            last.backward()  # type: ignore[no-untyped-call]
            all_reduce_params([p.grad for p in parameters if p.grad is not None], op="mean")
            optimizer.step()
        if not steps:  # nothing to learn from
            break
        schedule.step()
    method.network.requires_grad_(True)
    return float(last.detach())
