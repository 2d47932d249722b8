"""A memory with a list of exemplars for every class.

An exemplar is a row, the class it was chosen for and the session that class came in. Behaviour of KRT-R (ICCV 2023
and its release): ``per_class`` images a class by herding, chosen after a session from that session's new
images only; on COCO an image that is already stored is dropped without replacement, on VOC it may be
stored once per class.
"""

from __future__ import annotations

import math

import numpy as np

from mlcil.errors import UserError
from mlcil.memory.base import MemoryByClass
from mlcil.memory.selection import deduplicate, per_class_herding, random_selection, truncate_to_budget
from mlcil.schema import Natural


class ExemplarMemory(MemoryByClass):
    """Per-class or fixed-total memory.

    Args:
        per_class: images a class; give this or ``total``.
        total: images in all, shared equally by the classes seen so far.
        selection: ``herding`` or ``random`` (with replacement, as in the official code).
        deduplicate: an image is stored once however many classes chose it (official: True on COCO, False
            on VOC, and never with ``total``).
        hard_cap: with ``total``, never store more; ``False`` is the official ceiling, which may.
        labels: see :class:`~mlcil.memory.base.Memory`.
        quota: a class's share of ``total``: ``ceil`` (KRT: rounded up, old classes are cut when the next
            session begins) or ``floor`` (DyTox, DKT, DAFormer: rounded down, old classes are cut at once, so
            that the memory is balanced; a herding that ends early is filled up).
        views: what herding looks at: images as in a ``test``, or one augmented view each as in a ``train``
            epoch (DyTox, DKT, DAFormer official behaviour). Read by the engine.
        seed: seed of the random selection.

    Raises:
        UserError: neither or both budgets, a negative one, or an unknown selection, quota or views.
    """

    def __init__(
        self,
        per_class: int | None = None,
        total: int | None = None,
        selection: str = "herding",
        deduplicate: bool = True,
        hard_cap: bool = True,
        labels: str = "oracle",
        quota: str = "ceil",
        views: str = "test",
        seed: Natural = 0,
    ) -> None:
        super().__init__(labels)
        if (per_class is None) == (total is None):
            raise UserError("memory needs exactly one budget: per_class=IMAGES or total=IMAGES")
        if (per_class if per_class is not None else total or 0) < 1:
            raise UserError("memory: the budget must be at least one image; leave memory=None for no memory")
        if selection not in ("herding", "random"):
            raise UserError(f"memory: selection {selection!r} is unknown; use 'herding' or 'random'")
        if quota not in ("ceil", "floor"):
            raise UserError(f"memory: quota {quota!r} is unknown; use 'ceil' or 'floor'")
        if views not in ("test", "train"):
            raise UserError(f"memory: views {views!r} is unknown; use 'test' or 'train'")
        self.quota, self.views = quota, views
        self.per_class, self.total, self.selection = per_class, total, selection
        self.deduplicate, self.hard_cap, self.seed = deduplicate, hard_cap, seed

    def begin_session(self) -> None:
        """With a total budget: cut every class's list to its share, keeping the first (best) ones."""
        if self.total is not None and self.rows_of_class and self.quota == "ceil":
            lists = [self.rows_of_class[c] for c in sorted(self.rows_of_class)]
            cut = truncate_to_budget(lists, self.total, hard_cap=self.hard_cap)
            self.rows_of_class = dict(zip(sorted(self.rows_of_class), cut, strict=True))

    def update(
        self, session: int, low: int, high: int, rows: np.ndarray, features_ND: np.ndarray, targets_NC: np.ndarray
    ) -> dict[str, int]:
        balanced = self.quota == "floor"
        if self.per_class is not None:
            count = self.per_class
        else:
            count = (self.total or 0) // high if balanced else math.ceil((self.total or 0) / high)
        if balanced:
            self.rows_of_class = {c: kept[:count] for c, kept in self.rows_of_class.items()}
        if self.selection == "herding":
            chosen = per_class_herding(features_ND, targets_NC, low, high, count, fill=balanced)
        else:
            rng = np.random.default_rng((self.seed, session))
            picks = random_selection(np.arange(len(rows)), count * (high - low), rng)
            chosen = [list(map(int, part)) for part in np.array_split(np.asarray(picks), high - low)]
        lists = [[int(rows[i]) for i in per_class] for per_class in chosen]
        drawn = sum(map(len, lists))
        if self.deduplicate and self.total is None and self.selection == "herding":
            lists = deduplicate(lists, {row for old in self.rows_of_class.values() for row in old})
        for index, stored in enumerate(lists):
            self.rows_of_class[low + index] = stored
            self.session_of_class[low + index] = session
        return {"chosen": drawn, "stored": sum(map(len, lists)), "total": len(self)}
