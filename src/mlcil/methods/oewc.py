"""oEWC: online elastic weight consolidation.

Schwarz et al., "Progress & Compress", ICML 2018, after Kirkpatrick et al., PNAS 2017: weights that mattered
for the old classes are held near their old values by one running, decayed diagonal Fisher matrix.

    loss = ASL + strength / 2 * sum_i F_i (theta_i - theta*_i)^2

Multi-label form (row "oEWC" of KRT's tables; its adaptation is not published, the choices are options): the
log-likelihood whose Fisher matrix is taken is that of independent sigmoid outputs. The empirical matrix is the mean of
every image's own squared gradient (not the square of a batch's mean gradient, which is many times smaller), with the
given labels, over the columns of the session's own classes; rows that later sessions add to the classifier have no old
value and move freely. It takes a backward pass for each image, about as long as an epoch of single images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, SessionContext, check_choice
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import Count, Share, Weight


@METHODS.register_module()
class OEWC(Method):
    """A quadratic penalty on leaving the old weights.

    Args:
        network: backbone with a linear head.
        strength: lambda of the penalty.
        decay: gamma, what is kept of the old Fisher matrix when a session ends.
        old_labels: what a new image says of old classes: ``absent`` (as in fine-tuning) or ``ignored``.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
    """

    own_criterion = MULTI_LABEL

    def __init__(
        self,
        network: IncrementalNetwork,
        strength: Weight = 1000.0,
        decay: Share = 0.9,
        old_labels: str = "absent",
        reference_batch: Count = 64,
    ) -> None:
        super().__init__(network, reference_batch)
        self.strength, self.decay = strength, decay
        self.old_labels = check_choice("old_labels", old_labels, ("absent", "ignored"))
        self.fisher: dict[str, Tensor] = {}  # by parameter name
        self.anchor: dict[str, Tensor] = {}  # theta*

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = self.network(batch.inputs).logits_BC
        losses = {"loss_cls": self.classify(logits_BC, self.targets(batch, self.old_labels))}
        if self.fisher:
            losses["loss_ewc"] = 0.5 * self.strength * self.penalty()
        return losses

    def penalty(self) -> Tensor:
        """sum_i F_i (theta_i - theta*_i)^2; a grown parameter is compared in its old rows."""
        terms = []
        for name, parameter in self.network.named_parameters():
            if name in self.fisher:
                fisher, anchor = self.fisher[name].to(parameter), self.anchor[name].to(parameter)
                terms.append((fisher * (parameter[: len(anchor)] - anchor).square()).sum())
        return torch.stack(terms).sum()

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Train(), Fit(self.measure_importance, on="clean"), UpdateMemory()]

    def measure_importance(self, loader: Batches) -> None:
        """F <- decay * F + mean over images of the squared gradient; theta* <- theta."""
        assert self.context is not None
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        images = torch.zeros(1)
        was_training = self.training
        self.eval()
        for batch in loader:
            data = self.data_preprocessor(batch)
            for inputs, targets_C in zip(data["inputs"].split(1), data["targets"], strict=True):
                logits_C = self.network(inputs).logits_BC[0, self.context.low :]
                new_C = targets_C[self.context.low :].to(logits_C)
                kept = new_C >= 0
                cost = F.binary_cross_entropy_with_logits(logits_C[kept], new_C[kept], reduction="sum")
                gradients = torch.autograd.grad(cost, list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        total[name] += gradient.square()
                images += 1
        self.train(was_training)
        all_reduce(images)
        for name, value in total.items():
            all_reduce(value)
            value /= images.to(value).clamp(min=1)
            if name in self.fisher:
                old = self.fisher[name].to(value)
                value[: len(old)] += self.decay * old
            self.fisher[name] = value.detach().clone()
            self.anchor[name] = parameters[name].detach().clone()

    def method_state(self) -> dict[str, Any]:
        return {"fisher": dict(self.fisher), "anchor": dict(self.anchor)}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.fisher, self.anchor = dict(state["fisher"]), dict(state["anchor"])
