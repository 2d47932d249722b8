"""Images kept from earlier sessions, and how they are chosen."""

from typing import Any

from mlcil.memory.coreset import CoresetMemory
from mlcil.memory.exemplars import ExemplarMemory

Memory = ExemplarMemory | CoresetMemory
#: memories by the ``type`` in a config, which is ``exemplars`` unless given
MEMORIES: dict[str, Any] = {"exemplars": ExemplarMemory, "coreset": CoresetMemory}

__all__ = ["MEMORIES", "CoresetMemory", "ExemplarMemory", "Memory"]
