"""What a config can name: methods and datasets."""

from __future__ import annotations

from typing import Any

from mmengine.registry import Registry

METHODS = Registry("method", locations=["mlcil.methods"])
DATASETS = Registry("dataset", locations=["mlcil.datasets"])


def registered(registry: Registry, name: object) -> Any:
    """The class that is registered under a name, or ``None``; no other name is imported, as ``Registry.get`` does."""
    registry.import_from_location()
    return registry.module_dict.get(name) if isinstance(name, str) else None
