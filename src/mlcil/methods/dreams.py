"""The made images of ABD's system: one generator for all sessions, which goes on where it stopped."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mlcil.models.inversion import Inversion, InversionSettings
from mlcil.models.network import IncrementalNetwork


class Dreams:
    """A warm-started inversion, built when the first old network is there.

    Args:
        options: of :class:`~mlcil.models.inversion.InversionSettings`.
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.settings = InversionSettings(**(options or {}))
        self.inversion: Inversion | None = None
        self.terms: dict[str, float] = {}

    def learn(self, teacher: IncrementalNetwork, batch_size: int) -> None:
        """Fit the generator to an old network."""
        if self.inversion is None:
            self.inversion = Inversion(teacher, self.settings)
        self.terms = self.inversion.fit(teacher, batch_size)

    def sample(self, count: int) -> Tensor:
        """(count, 3, H, W) made images."""
        assert self.inversion is not None, "learn() comes before sample()"
        return self.inversion.sample(count)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and builtins."""
        return {
            "inversion": self.inversion.state_dict() if self.inversion is not None else None,
            "terms": dict(self.terms),
        }

    def load_state_dict(self, state: dict[str, Any], network: IncrementalNetwork) -> None:
        """Take back what :meth:`state_dict` gave; the generator lives where ``network`` does."""
        self.terms = dict(state["terms"])
        if state["inversion"] is not None:
            self.inversion = self.inversion or Inversion(network, self.settings)
            self.inversion.load_state_dict(state["inversion"])

    def report(self) -> dict[str, Any]:
        """The terms of the last step of the generator."""
        return {"inversion": dict(self.terms)} if self.terms else {}
