"""Kept features: the memory is one of pooled features in half precision, and all rows are fitted anew on all of them.

A frozen backbone makes a stored feature as good as its image, at 2.5 KB instead of 150 KB for EfficientNet-Lite0. Every
session fits logistic rows of all classes on new and kept features together, to the minimum (L-BFGS, L2 penalty), so
that nothing is forgotten; what is missing are labels: of old classes on new images, and of new classes on kept ones. A
label that nobody gave stays unknown in the memory. What the fit makes of it is ``unknown`` (p: score of the class):

* ``absent``: it is 0;
* ``masked``: it is 0, but nothing where a first fit has p above ``likely``;
* ``soft``: its target is the p of a first fit;
* ``em``: -alpha H(p), which rewards not knowing (Zhou et al., "Acknowledging the Unknown", ECCV 2022);
* ``hill``: (1.5 - p) p^2, which is flat where p is high (Zhang et al., "Simple and Robust Loss Design", 2021);
* ``splc``: 0, but 1 where a first fit has p above ``likely`` (the same; there the running score, from epoch 1 on).

An image that comes back fills in the labels of its row; labels that were known stay. In a session with all classes
(``joint``) this is joint training of the same head. Feature replay as such is in many papers (such as CARL-XRay); this
form is ours.

Legend: N images, K features, C classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.errors import UserError
from mlcil.methods.base import check_choice
from mlcil.methods.frozen_features import FrozenFeatures
from mlcil.models.heads import LinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Share, Weight


def _entropy(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * F.softplus(-z) + torch.sigmoid(-z) * F.softplus(z)


#: loss of an unknown cell, from its logit, the probability of a first fit, and the options ``likely`` and ``alpha``
UNKNOWN: dict[str, Callable[..., Tensor]] = {
    "absent": lambda z, first, likely, alpha: F.softplus(z),
    "masked": lambda z, first, likely, alpha: F.softplus(z) * (first <= likely),
    "soft": lambda z, first, likely, alpha: F.softplus(z) - first * z,
    "em": lambda z, first, likely, alpha: -alpha * _entropy(z),
    "hill": lambda z, first, likely, alpha: (1.5 - torch.sigmoid(z)) * torch.sigmoid(z).square(),
    "splc": lambda z, first, likely, alpha: torch.where(first > likely, F.softplus(-z), F.softplus(z)),
}
#: those that look at a first fit, in which unknown is absent
TWICE = ("masked", "soft", "splc")
#: of a logistic cost at its minimum, as a part of the variance of the labels, roughly
CURVATURE = 0.3


class PrincipalAxes:
    """Features in the axes that they vary along, the mean taken off; a constant stands last.

    Attributes:
        x_NR: (N, R) float64, the last column ones.
        lengths_R: norms of the columns.
    """

    def __init__(self, features_NK: Tensor) -> None:
        self._mean_K = features_NK.mean(0)
        x_NK = features_NK - self._mean_K
        wide = len(x_NK) < x_NK.shape[1]
        squares, vectors = torch.linalg.eigh(x_NK @ x_NK.T if wide else x_NK.T @ x_NK)
        real = squares > squares[-1] * 1e-12
        lengths, vectors = squares[real].sqrt(), vectors[:, real]
        self._axes_RK = (vectors / lengths).T @ x_NK if wide else vectors.T
        columns = vectors * lengths if wide else x_NK @ vectors
        self.x_NR = torch.cat([columns, columns.new_ones(len(columns), 1)], 1)
        self.lengths_R = torch.cat([lengths, lengths.new_full((1,), len(columns) ** 0.5)])

    def rows(self, rows_CR: Tensor) -> Tensor:
        """(C, R), the intercept last -> the same functions of the features, (C, K + 1)."""
        rows_CK = rows_CR[:, :-1] @ self._axes_RK
        return torch.cat([rows_CK, (rows_CR[:, -1] - rows_CK @ self._mean_K)[:, None]], 1)


@METHODS.register_module()
class KeptFeatures(FrozenFeatures):
    """Logistic rows on the features of all images so far.

    Args:
        network: a frozen backbone with a linear head.
        unknown: see above.
        likely: probability above which an unknown label is believed to be present; SPLC's is 0.6.
        alpha: of ``em``; 0.2 on VOC and 0.1 on COCO in the original.
        strength: of the penalty ``strength / 2 * |weights|^2`` beside the sum of the losses.
        limit: images that are kept at most, ``None`` keeps all; a sample of all sessions' images, drawn by a digest of
            their features.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Attributes:
        features: (N, K) float16.
        labels: (N, C) int8: 1, 0 or -1, unknown.
        rows: (N,) int64 of the training table.
        new_only: rows of old classes stay as they are; those of the new ones are the same either way.

    Raises:
        ValueError: another head, a backbone that is trained, or an unknown option.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        unknown: str = "absent",
        likely: Share = 0.6,
        alpha: Weight = 0.2,
        strength: AboveZero = 100.0,
        limit: Count | None = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, LinearHead):
            raise ValueError("KeptFeatures needs network.head.type='linear'")
        self.unknown = check_choice("unknown", unknown, tuple(UNKNOWN))
        self.likely, self.alpha, self.strength, self.limit = likely, alpha, strength, limit
        self.new_only = False
        self.features = torch.zeros(0, network.head.in_channels, dtype=torch.float16)
        self.labels = torch.zeros(0, 0, dtype=torch.int8)
        self.rows = torch.zeros(0, dtype=torch.int64)

    def phases(self, session: Any) -> list[Phase]:
        return [Fit(self.fit), UpdateMemory()]

    def fit(self, batches: Batches) -> None:
        """Take the session's images in, and fit the rows on all that is kept."""
        assert self.context is not None
        seen = self.look_at(batches)
        self.take_in(seen.features_NH, seen.targets_NC, seen.rows_N)
        low = self.context.low if self.new_only else 0
        self.write(self.solve(self.features.double(), self.labels[:, low:]), low)
        if self.limit is not None and len(self.rows) > self.limit:
            lots = [blake2b(feature.tobytes(), digest_size=8).digest() for feature in self.features.numpy()]
            kept = torch.tensor(sorted(sorted(range(len(lots)), key=lots.__getitem__)[: self.limit]))
            self.features, self.labels, self.rows = self.features[kept], self.labels[kept], self.rows[kept]

    def take_in(self, features_NK: Tensor, targets_NC: Tensor, rows_N: Tensor) -> None:
        """Add images; a row that is there already gets the labels that it lacks.

        Raises:
            UserError: a feature that half precision has no number for.
        """
        classes = targets_NC.shape[1]
        self.labels = F.pad(self.labels, (0, classes - self.labels.shape[1]), value=-1)
        place = {row: index for index, row in enumerate(self.rows.tolist()) if row >= 0}
        given_NC, new = targets_NC.to(torch.int8), []
        for index, row in enumerate(rows_N.tolist()):
            if row not in place:
                new.append(index)
                if row >= 0:
                    place[row] = len(self.rows) + len(new) - 1
        added = features_NK[new].half()
        if not added.isfinite().all():
            largest = features_NK[new].abs().max().item()
            raise UserError(
                f"kept features: one of the backbone's features is {largest:.3g}; half precision ends at 65504, so "
                "scale what the backbone gives, or use a method that keeps no features, such as ridge"
            )
        self.features = torch.cat([self.features, added])
        self.rows = torch.cat([self.rows, rows_N[new]])
        self.labels = torch.cat([self.labels, given_NC[new]])
        for index, row in enumerate(rows_N.tolist()):
            if row >= 0:
                known = self.labels[place[row]]
                self.labels[place[row]] = torch.where(known < 0, given_NC[index], known)

    def solve(self, features_NK: Tensor, labels_NC: Tensor) -> Tensor:
        """Rows and intercepts (C, K + 1) of the minimum."""
        axes = PrincipalAxes(features_NK)
        found = self._minimum(axes, labels_NC, "absent" if self.unknown in TWICE else self.unknown)
        if self.unknown in TWICE:
            found = self._minimum(axes, labels_NC, self.unknown, found)
        return axes.rows(found)

    def _minimum(self, axes: PrincipalAxes, labels_NC: Tensor, unknown: str, first: Tensor | None = None) -> Tensor:
        """Rows (C, R) in the space of the axes, the intercepts last, from those of a first fit or from 0.

        The penalty holds the rows to the images' span, and weighs the same along principal axes. There the steps are
        scaled by the cost's curvature, which the axes' lengths and a class's share of the images tell, so that a
        quasi-Newton method needs tens of them where it needs hundreds on the features themselves.
        """
        known_NC, present_NC = labels_NC >= 0, (labels_NC == 1).double()
        images = len(labels_NC)
        first_NC = None if first is None else torch.sigmoid(axes.x_NR @ first.T)
        share_C1 = present_NC.mean(0)[:, None].clamp(1 / images, 0.5)
        variance_C1 = CURVATURE * share_C1 * (1 - share_C1)
        penalty_R = torch.full_like(axes.lengths_R, self.strength)
        penalty_R[-1] = 0  # the intercept
        scale_CR = torch.rsqrt(variance_C1 * axes.lengths_R.square() / images + penalty_R / images)
        with torch.enable_grad():
            start = torch.zeros_like(scale_CR) if first is None else first / scale_CR
            steps_CR = start.requires_grad_()
            solver = torch.optim.LBFGS(
                [steps_CR],
                max_iter=300,
                tolerance_grad=1e-7,
                tolerance_change=1e-12,
                history_size=20,
                line_search_fn="strong_wolfe",
            )

            def closure() -> Tensor:
                solver.zero_grad()
                rows_CR = steps_CR * scale_CR
                z_NC = axes.x_NR @ rows_CR.T
                known = F.softplus(z_NC) - present_NC * z_NC
                cells = torch.where(known_NC, known, UNKNOWN[unknown](z_NC, first_NC, self.likely, self.alpha))
                cost = (cells.sum() + (penalty_R * rows_CR.square()).sum() / 2) / images
                cost.backward()  # type: ignore[no-untyped-call]
                return cost

            solver.step(closure)  # type: ignore[no-untyped-call]
        return (steps_CR * scale_CR).detach()

    @torch.no_grad()
    def write(self, rows: Tensor, low: int = 0) -> None:
        """Put rows and intercepts (C - low, K + 1) of the classes from ``low`` on into the head."""
        layer = self.network.head.linear
        assert isinstance(layer, torch.nn.Linear)
        layer.weight[low:].copy_(rows[:, :-1])
        layer.bias[low:].copy_(rows[:, -1])

    def method_state(self) -> dict[str, Any]:
        return {"features": self.features, "labels": self.labels, "rows": self.rows}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.features, self.labels, self.rows = state["features"], state["labels"], state["rows"]

    def session_report(self) -> dict[str, Any]:
        return {"kept_features": {"images": len(self.rows), "unknown_cells": int((self.labels < 0).sum())}}
