"""mlcil: class-incremental learning for photos that carry many labels.

``mlcil.load('saved_models/<run>/session_<t>.pth')`` gives a tagger; everything else is behind
``python -m mlcil --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "load"]

from mlcil.errors import UserError

if TYPE_CHECKING:
    from mlcil.tagger.tagger import load


def __getattr__(name: str) -> Any:
    """Import the heavy parts when they are first asked for."""
    if name == "load":
        from mlcil.tagger.tagger import load

        return load
    raise AttributeError(f"module 'mlcil' has no attribute {name!r}")
