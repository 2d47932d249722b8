"""The settings of a finished run as flat keys, read from the config in its results.json without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

#: settings that change no number; a prefix stands for all below it
NEUTRAL = (
    "name",
    "log_root",
    "checkpoint_root",
    "log_level",
    "log_interval",
    "full_paths",
    "launcher",
    "plugins",
    "visualizer",
    "image_cache",
    "feature_store.folder",
    "feature_store.limit_gb",
    "train_dataloader.num_workers",
    "train_transform.on_device",
    "test_dataloader.num_workers",
    "train_cfg.stop_after_session",
    "train_cfg.save_interval",
    "scenario.dataset.root",
    "scenario.dataset.cache_dir",
)
#: what tells repetitions of an experiment apart
REPEATED = ("seed", "scenario.class_order")


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text of the value) of nested dictionaries."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, repr(_sorted(value))


def _sorted(value: Any) -> Any:
    """Lists for tuples, and dictionaries inside them in the order of their keys."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def without(settings: Any, left_out: tuple[str, ...]) -> dict[str, str]:
    """Flat settings but for keys, or prefixes of keys, that are left out."""
    return {
        key: text
        for key, text in flat(settings)
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in left_out)
    }


def settings_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of a run from the config that its results.json holds; empty where that cannot be read.

    The text is python of assignments, ``dict(...)`` and literals. It is parsed, never executed.
    """
    try:
        lines = ast.parse(str(run.get("config", ""))).body
        return {line.targets[0].id: _value(line.value) for line in lines}  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, AttributeError, RecursionError):
        return {}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {key.value: _value(item) for key, item in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]
    return ast.literal_eval(node)
