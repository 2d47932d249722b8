"""Images kept from earlier sessions, how they are chosen, and which labels they carry."""

from __future__ import annotations

from typing import Any

from mlcil.memory.base import Memory
from mlcil.memory.coreset import SELECTIONS as CORESET
from mlcil.memory.coreset import CoresetMemory
from mlcil.memory.exemplars import ExemplarMemory
from mlcil.memory.streaming import SELECTIONS as STREAMING
from mlcil.memory.streaming import StreamingMemory

__all__ = ["CoresetMemory", "ExemplarMemory", "Memory", "StreamingMemory", "build_memory", "memory_class"]


def memory_class(selection: str) -> type[Memory]:
    """The class that knows the selection; its signature holds the allowed options."""
    if selection in CORESET:
        return CoresetMemory
    return StreamingMemory if selection in STREAMING else ExemplarMemory


def build_memory(options: dict[str, Any]) -> Memory:
    """The memory of a config's ``memory`` section. Raises :class:`~mlcil.errors.UserError` for a wrong value."""
    return memory_class(options.get("selection", "herding"))(**options)
