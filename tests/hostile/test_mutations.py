"""Valid files with one thing changed: reading them succeeds or ends in our own error, never in another."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_files as f
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcil.datasets.coco import load_coco_split
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError

#: more with MLCIL_EXAMPLES=2000
EXAMPLES = int(os.environ.get("MLCIL_EXAMPLES", "40"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MLCIL_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["", "ant", "../x", "0.jpg", "\0", "\ud800", "id", "ü"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
OTHER = VALUES.map(lambda value: ("replace", value))
CHANGES = OTHER | st.sampled_from([("remove", None), ("repeat", None)])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of nested dictionaries and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(value: Any, where: int, change: tuple[str, Any]) -> Any:
    """A copy in which one entry is replaced, removed or there twice."""
    value = copy.deepcopy(value)
    ways = list(places(value))
    *parents, last = ways[where % len(ways)]
    node = value
    for key in parents:
        node = node[key]
    kind, new = change
    if kind == "replace":
        node[last] = new
    elif kind == "remove":
        del node[last]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[last]))
    else:
        node[f"{last} again"] = copy.deepcopy(node[last])
    return value


def flipped(data: bytes, where: int, bits: int, length: int) -> bytes:
    """One byte changed, and the end cut off when ``length`` says so."""
    made = bytearray(data)
    made[where % len(made)] ^= bits
    return bytes(made[: length % len(made)] if length % 3 == 0 else made)


def refused(path: Path, error: UserError) -> bool:
    """False, after a look at the sentence."""
    assert str(path) in str(error)
    assert "\n" not in str(error)
    return False


def read_annotations(data: bytes) -> bool:
    """Whether the file is taken; any error but ours fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(data)
        try:
            table = load_coco_split(path, Path(folder))
        except UserError as error:
            return refused(path, error)
        assert set(table.labels_NC.flatten().tolist()) <= {-1, 0, 1}
        assert all(file.resolve().is_relative_to(Path(folder).resolve()) for file in table.files)
        return True


def read_checkpoint(data: bytes) -> bool:
    """Whether the file gives a network; any error but ours fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.pth"
        path.write_bytes(data)
        try:
            network = StageCheckpoint.load(path).build(path)
        except UserError as error:
            return refused(path, error)
        assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
        return True


ANNOTATIONS = tiny.coco_instances(4)
STAGE = tiny.stage_content()
STAGE_BYTES = f.as_bytes(STAGE)


@SETTINGS
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_annotations_with_another_entry(where: int, change: tuple[str, Any]) -> None:
    read_annotations(json.dumps(changed(ANNOTATIONS, where, change)).encode())


@SETTINGS
@given(where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**6))
def test_annotations_with_another_byte(where: int, bits: int, length: int) -> None:
    read_annotations(flipped(json.dumps(ANNOTATIONS).encode(), where, bits, length))


@SETTINGS
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_checkpoints_with_another_entry(where: int, change: tuple[str, Any]) -> None:
    read_checkpoint(f.as_bytes(changed(STAGE, where, change)))


@SETTINGS
@given(where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**7))
def test_checkpoints_with_another_byte(where: int, bits: int, length: int) -> None:
    read_checkpoint(flipped(STAGE_BYTES, where, bits, length))


@SETTINGS
@given(value=VALUES, key=st.sampled_from(sorted(STAGE)))
def test_checkpoints_with_another_part(value: Any, key: str) -> None:
    read_checkpoint(f.as_bytes({**STAGE, key: value}))


def test_the_unchanged_files_are_taken() -> None:
    assert read_annotations(json.dumps(ANNOTATIONS).encode())
    assert read_checkpoint(STAGE_BYTES)
